/* SPDX-License-Identifier: MIT */
/* Opening a core: its header and its segments.
 *
 * A core has one PT_NOTE (core_notes.c) and a PT_LOAD for each mapping; where p_filesz is less than p_memsz the rest
 * was not dumped. More than 65534 segments are counted in the first section header (PN_XNUM). The file is read with
 * pread, never mapped: it may shrink while we read. */
#include "engine/mem/core_internal.h"

#include "engine/base/limits.h"
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#ifdef __aarch64__
#define OUR_MACHINE EM_AARCH64
#else
#define OUR_MACHINE EM_X86_64
#endif

#define SEGMENTS_MAX LIMIT_MAPS
#define NOTES_MAX 16 /* segments of notes; every known writer makes one */

int core_pread(const struct core *core, uint64_t offset, void *buf, size_t len) {
	size_t done = 0;

	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return -ENODATA;
	while (done < len) {
		ssize_t n = pread(core->fd, (char *)buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		done += (size_t)n;
	}
	return 0;
}

static const char *machine_name(unsigned machine) {
	switch (machine) {
	case EM_386: return "32-bit x86";
	case EM_X86_64: return "x86-64";
	case EM_AARCH64: return "aarch64";
	case EM_ARM: return "32-bit ARM";
	case EM_PPC64: return "ppc64";
	case EM_S390: return "s390";
	case EM_RISCV: return "RISC-V";
	default: return "another";
	}
}

static int check_header(const Elf64_Ehdr *header, const char *name, struct err *err) {
	if (memcmp(header->e_ident, ELFMAG, SELFMAG))
		return err_set(err, -ENOEXEC, "%s is no core file: it is not ELF", name);
	if (header->e_ident[EI_CLASS] != ELFCLASS64)
		return err_set(err, -ENOEXEC, "%s is of a 32-bit process: only 64-bit cores can be read", name);
	if (header->e_ident[EI_DATA] != ELFDATA2LSB)
		return err_set(err, -ENOEXEC, "%s is of a big-endian machine", name);
	if (header->e_type != ET_CORE)
		return err_set(err, -ENOEXEC, "%s is no core file but %s", name,
			header->e_type == ET_EXEC || header->e_type == ET_DYN ? "a program or a library"
									      : "another kind of ELF file");
	if (header->e_machine != OUR_MACHINE)
		return err_set(err, -ENOEXEC,
			"%s is a core of a machine of kind %s (%u): this pyspyd reads those of %s", name,
			machine_name(header->e_machine), header->e_machine, machine_name(OUR_MACHINE));
	if (header->e_phentsize != sizeof(Elf64_Phdr))
		return err_set(err, -ENOEXEC, "%s is broken: its segment headers have an odd size", name);
	return 0;
}

static int count_segments(const struct core *core, const Elf64_Ehdr *header, uint32_t *ret_n) {
	Elf64_Shdr first;
	int r;

	if (header->e_phnum != PN_XNUM) {
		*ret_n = header->e_phnum;
		return 0;
	}
	if (header->e_shentsize != sizeof(first))
		return -ENOEXEC;
	r = core_pread(core, header->e_shoff, &first, sizeof(first));
	if (!r)
		*ret_n = first.sh_info;
	return r;
}

static uint64_t end_of(const Elf64_Phdr *segment) {
	uint64_t end;

	return __builtin_add_overflow(segment->p_offset, segment->p_filesz, &end) ? UINT64_MAX : end;
}

static int add_segment(struct core *core, const Elf64_Phdr *from) {
	struct core_segment segment = {
		.start = from->p_vaddr,
		.offset = from->p_offset,
		.bytes = min_of(from->p_filesz, from->p_memsz),
		.read = from->p_flags & PF_R,
		.write = from->p_flags & PF_W,
		.exec = from->p_flags & PF_X,
	};

	if (!from->p_memsz || __builtin_add_overflow(from->p_vaddr, from->p_memsz, &segment.end))
		return 0;
	return vec_push(&core->segments, segment);
}

static int compare_segments(const void *a, const void *b) {
	const struct core_segment *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

/* Of two that overlap, the first one counts. */
static void sort_segments(struct core *core) {
	size_t kept = 0;

	if (core->segments.n)
		qsort(core->segments.items, core->segments.n, sizeof(*core->segments.items), compare_segments);
	vec_foreach (segment, &core->segments)
		if (!kept || core->segments.items[kept - 1].end <= segment->start)
			core->segments.items[kept++] = *segment;
	core->segments.n = kept;
}

static int read_segments(struct core *core, const Elf64_Ehdr *header, uint32_t n, Elf64_Phdr *notes, size_t *notes_n) {
	for (uint32_t i = 0; i < n; i++) {
		Elf64_Phdr segment;
		int r = core_pread(core, header->e_phoff + (uint64_t)i * sizeof(segment), &segment, sizeof(segment));

		if (r)
			return r;
		if (segment.p_type != PT_LOAD && segment.p_type != PT_NOTE)
			continue;
		core->expected_bytes = max_of(core->expected_bytes, end_of(&segment));
		if (segment.p_type == PT_NOTE && *notes_n < NOTES_MAX)
			notes[(*notes_n)++] = segment;
		if (segment.p_type == PT_LOAD)
			r = add_segment(core, &segment);
		if (r)
			return r;
	}
	sort_segments(core);
	return 0;
}

static int cut_off(const struct core *core, const char *name, const char *where, struct err *err) {
	return err_set(err, -ENODATA, "%s is truncated: its %llu bytes end before %s", name,
		(unsigned long long)core->bytes, where);
}

/* Only the kernel leaves the section headers out, but for the one that counts the segments. What a debugger takes of a
 * living process shows the signal that it was stopped with. */
static void judge_signal(struct core *core, const Elf64_Ehdr *header) {
	const int fatal[] = { SIGQUIT, SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS, SIGTRAP };
	bool found = false;

	core->by_kernel = header->e_shnum == 0 || header->e_phnum == PN_XNUM;
	for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
		found |= core->signal.number == fatal[i] && (core->by_kernel || fatal[i] != SIGTRAP);
	if (!found)
		core->signal = (struct core_signal){ 0 };
}

static int read_core(struct core *core, const char *name, struct err *err) {
	Elf64_Phdr notes[NOTES_MAX];
	Elf64_Ehdr header;
	size_t notes_n = 0;
	uint32_t n;
	int r = core_pread(core, 0, &header, sizeof(header));

	if (r)
		return r == -ENODATA ? err_set(err, -ENOEXEC, "%s is no core file: it is too short", name) : r;
	r = check_header(&header, name, err);
	if (!r)
		r = count_segments(core, &header, &n);
	if (r == -ENODATA)
		return cut_off(core, name, "its number of segments", err);
	if (r)
		return r;
	if (!n || n > SEGMENTS_MAX)
		return err_set(err, -ENOEXEC, "%s is no core that can be read: it has %u segments", name, n);
	r = read_segments(core, &header, n, notes, &notes_n);
	if (r)
		return r == -ENODATA ? cut_off(core, name, "the end of its list of segments", err) : r;
	for (size_t i = 0; !r && i < notes_n; i++)
		r = core_read_notes(core, notes[i].p_offset, notes[i].p_filesz);
	if (r)
		return r;
	if (!core->threads.n)
		return core_is_truncated(core) ? cut_off(core, name, "its first thread", err)
					       : err_set(err, -ENOEXEC, "%s has no thread in it", name);
	judge_signal(core, &header);
	return 0;
}

static int check_file(int fd, const char *name, uint64_t *ret_bytes, struct err *err) {
	struct stat st;

	if (fstat(fd, &st))
		return err_set(err, -errno, "%s: %s", name, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(err, -ENOEXEC, "%s is no core file: it is no regular file", name);
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

int core_open_fd(int fd, const char *name, struct core **ret_core, struct err *err) {
	struct core *core = calloc(1, sizeof(*core));
	int r;

	if (!core) {
		close(fd);
		return -ENOMEM;
	}
	*core = (struct core){ .fd = fd, .root_fd = -1, .exe = SIZE_MAX };
	r = check_file(core->fd, name, &core->bytes, err);
	if (!r)
		r = core_unpack(&core->fd, name, err);
	if (!r)
		r = check_file(core->fd, name, &core->bytes, err);
	if (!r)
		r = read_core(core, name, err);
	if (r) {
		core_free(core);
		return r;
	}
	*ret_core = core;
	return 0;
}

int core_open(const char *path, struct core **ret_core, struct err *err) {
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	return fd < 0 ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : core_open_fd(fd, path, ret_core, err);
}

void core_free(struct core *core) {
	if (!core)
		return;
	close_fd(&core->fd);
	free(core->root);
	close_fd(&core->root_fd);
	vec_foreach (file, &core->files) {
		free(file->path);
		free(file->place);
	}
	vec_free(&core->files);
	vec_free(&core->mappings);
	vec_free(&core->segments);
	vec_free(&core->threads);
	vec_free(&core->auxv);
	free(core);
}

bool core_auxv(const struct core *core, uint64_t type, uint64_t *ret_value) {
	for (size_t i = 0; i + 1 < core->auxv.n; i += 2) {
		if (core->auxv.items[i] != type)
			continue;
		*ret_value = core->auxv.items[i + 1];
		return true;
	}
	return false;
}

const struct core_thread *core_thread(const struct core *core, pid_t tid) {
	vec_foreach (thread, &core->threads)
		if (thread->tid == tid)
			return thread;
	return NULL;
}
