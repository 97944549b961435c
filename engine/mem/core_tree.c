/* SPDX-License-Identifier: MIT */
/* A core as a tree of /proc.
 *
 * Mappings: the kernel has a segment for each; gcore leaves out those that it does not dump, which the list of mapped
 * files still has: what they allowed is then told by the file's own segments. A file that could be found keeps its
 * device and inode, so that proc_map_open finds it; another one has an inode that no file has. */
#include "engine/mem/core_internal.h"

#include "engine/base/limits.h"
#include "engine/base/strbuf.h"
#include <elf.h>
#include <inttypes.h>
#include <string.h>

#define NO_INODE (1ULL << 62) /* and above: of files that are not there */
#define SYSCALL_LINE 256
#define MAX_HEADERS 64
#define CMDLINE_BYTES (64U << 10)

struct protection {
	bool read, write, exec;
};

static const char *path_at(const struct core *core, raddr start, raddr end) {
	uint64_t addr;

	if (core_auxv(core, AT_SYSINFO_EHDR, &addr) && addr >= start && addr < end)
		return "[vdso]";
	if (core_auxv(core, AT_RANDOM, &addr) && addr >= start && addr < end)
		return "[stack]";
	return "";
}

static int add_map(const struct core *core, raddr start, raddr end, const struct protection *protection,
	const struct core_mapping *mapping, proc_map_vec *maps) {
	const struct core_file *file = mapping ? &core->files.items[mapping->file] : NULL;
	struct proc_map map = {
		.start = start,
		.end = end,
		.read = protection->read,
		.write = protection->write,
		.exec = protection->exec,
	};
	int r;

	if (maps->n >= LIMIT_MAPS)
		return -E2BIG;
	if (file) {
		map.offset = mapping->offset + (start - mapping->start);
		map.dev = file->place ? file->dev : 0;
		map.inode = file->place ? file->inode : NO_INODE + mapping->file;
	}
	map.path = strdup(file ? file->path : path_at(core, start, end));
	if (!map.path)
		return -ENOMEM;
	r = vec_push(maps, map);
	if (r)
		free(map.path);
	return r;
}

static raddr next_mapping(const struct core *core, raddr addr) {
	size_t low = 0, high = core->mappings.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (core->mappings.items[middle].start <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low < core->mappings.n ? core->mappings.items[low].start : UINT64_MAX;
}

static int add_segment(const struct core *core, const struct core_segment *segment, proc_map_vec *maps) {
	const struct protection protection = { segment->read, segment->write, segment->exec };
	int r = 0;

	for (raddr at = segment->start, end; !r && at < segment->end; at = end) {
		const struct core_mapping *mapping = core_mapping_at(core, at);

		end = min_of(segment->end, mapping ? mapping->end : next_mapping(core, at));
		r = add_map(core, at, end, &protection, mapping, maps);
	}
	return r;
}

/* What a part of a file is mapped for. */
static struct protection protection_of(const struct core *core, const struct core_file *file, uint64_t offset) {
	struct protection found = { .read = true };
	_close_ int fd = -1;
	Elf64_Ehdr header;

	if (core_file_open(core, file, &fd) || pread(fd, &header, sizeof(header), 0) != sizeof(header))
		return found;
	for (unsigned i = 0; i < min_of(header.e_phnum, (Elf64_Half)MAX_HEADERS); i++) {
		uint64_t at = header.e_phoff + i * sizeof(Elf64_Phdr), start;
		Elf64_Phdr segment;

		if (at > INT64_MAX || pread(fd, &segment, sizeof(segment), (off_t)at) != sizeof(segment))
			break;
		start = segment.p_offset & ~0xfffULL;
		if (segment.p_type != PT_LOAD || offset < start || offset - start >= segment.p_filesz)
			continue;
		found.write = segment.p_flags & PF_W;
		found.exec = segment.p_flags & PF_X;
	}
	return found;
}

/* Parts of files that have no segment. */
static int add_mapping(
	const struct core *core, const struct core_mapping *mapping, size_t *segment, proc_map_vec *maps) {
	const struct core_file *file = &core->files.items[mapping->file];
	raddr at = mapping->start;
	int r = 0;

	while (!r && at < mapping->end) {
		const struct core_segment *next;
		struct protection protection;
		raddr end;

		while (*segment < core->segments.n && core->segments.items[*segment].end <= at)
			(*segment)++;
		next = *segment < core->segments.n ? &core->segments.items[*segment] : NULL;
		if (next && next->start <= at) {
			at = next->end;
			continue;
		}
		end = next ? min_of(next->start, mapping->end) : mapping->end;
		protection = protection_of(core, file, mapping->offset + (at - mapping->start));
		r = add_map(core, at, end, &protection, mapping, maps);
		at = end;
	}
	return r;
}

static int compare_maps(const void *a, const void *b) {
	const struct proc_map *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

static int make_maps(const struct core *core, proc_map_vec *maps) {
	size_t segment = 0;
	int r = 0;

	vec_foreach (item, &core->segments)
		if (!r)
			r = add_segment(core, item, maps);
	vec_foreach (mapping, &core->mappings)
		if (!r)
			r = add_mapping(core, mapping, &segment, maps);
	if (!r && maps->n)
		qsort(maps->items, maps->n, sizeof(*maps->items), compare_maps);
	return r;
}

#ifdef __aarch64__
static void registers(const struct core_thread *thread, uint64_t args[6], uint64_t *sp, uint64_t *pc) {
	memcpy(args, thread->regs.regs, 6 * sizeof(*args));
	*sp = thread->regs.sp;
	*pc = thread->regs.pc;
}

static bool entered_kernel(const struct core_thread *thread, struct mem *mem) {
	static const uint8_t svc[] = { 0x01, 0x00, 0x00, 0xd4 };
	uint8_t before[4];

	return thread->call >= 0 && !mem_read(mem, thread->regs.pc - sizeof(before), before, sizeof(before)) &&
		!memcmp(before, svc, sizeof(svc));
}
#else
static void registers(const struct core_thread *thread, uint64_t args[6], uint64_t *sp, uint64_t *pc) {
	const struct user_regs_struct *regs = &thread->regs;

	memcpy(args, (uint64_t[]){ regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9 }, 6 * sizeof(*args));
	*sp = regs->rsp;
	*pc = regs->rip;
}

/* The instruction leaves its own end in rcx: that must do where the code is not to be had. */
static bool entered_kernel(const struct core_thread *thread, struct mem *mem) {
	static const uint8_t syscall[] = { 0x0f, 0x05 };
	uint8_t before[2];

	if (thread->call < 0 || thread->call > INT32_MAX)
		return false;
	if (mem_read(mem, thread->regs.rip - sizeof(before), before, sizeof(before)))
		return thread->regs.rcx == thread->regs.rip;
	return !memcmp(before, syscall, sizeof(syscall));
}
#endif

void core_thread_syscall(const struct core_thread *thread, struct mem *mem, char *buf, size_t size) {
	uint64_t args[6], sp, pc;

	registers(thread, args, &sp, &pc);
	if (!entered_kernel(thread, mem)) {
		snprintf(buf, size, "running\n");
		return;
	}
	snprintf(buf, size,
		"%" PRId64 " 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64
		" 0x%" PRIx64 " 0x%" PRIx64 "\n",
		thread->call, args[0], args[1], args[2], args[3], args[4], args[5], sp, pc);
}

/* Out of the note. Blanks within an argument cannot be told from those between two. */
static size_t split_args(const char *args, char cmdline[82]) {
	size_t len = strlen(args);

	while (len && args[len - 1] == ' ')
		len--;
	for (size_t i = 0; i < len; i++)
		cmdline[i] = args[i] == ' ' ? '\0' : args[i];
	cmdline[len] = '\0';
	return len ? len + 1 : 0;
}

static void make_threads(
	const struct core *core, struct mem *mem, struct captured_thread *threads, char (*calls)[SYSCALL_LINE]) {
	for (size_t i = 0; i < core->threads.n; i++) {
		const struct core_thread *thread = &core->threads.items[i];

		core_thread_syscall(thread, mem, calls[i], SYSCALL_LINE);
		threads[i] = (struct captured_thread){
			.tid = thread->tid,
			.state = calls[i][0] == 'r' ? 'R' : 'S',
			.comm = i ? NULL : core->comm,
			.system_call = calls[i],
		};
	}
}

static int exe_link(const struct core *core, char **ret_link) {
	const struct core_file *exe = core->exe == SIZE_MAX ? NULL : &core->files.items[core->exe];

	if (!exe || !exe->place)
		return 0;
	return asprintf(ret_link, "%s%s", exe->on_host || !strcmp(core->root, "/") ? "" : core->root, exe->place) < 0
		? -ENOMEM
		: 0;
}

int core_tree(const struct core *core, struct mem *mem, struct captured **ret_tree, struct err *err) {
	_free_ struct captured_thread *threads = calloc(core->threads.n + 1, sizeof(*threads));
	_free_ char(*calls)[SYSCALL_LINE] = calloc(core->threads.n + 1, sizeof(*calls));
	_free_ char *exe = NULL;
	_free_ char *cmdline = malloc(CMDLINE_BYTES);
	proc_map_vec maps = { 0 };
	struct captured_process process = {
		.pid = core->pid > 0 ? core->pid : core->threads.items[0].tid,
		.ppid = core->ppid,
		.uid = core->uid,
		.gid = core->gid,
		.comm = core->comm,
		.cmdline = cmdline,
		.auxv = core->auxv.items,
		.auxv_len = core->auxv.n * sizeof(*core->auxv.items),
		.root = core->root,
		.maps = &maps,
		.threads = threads,
		.threads_n = core->threads.n,
	};
	int r;

	if (!threads || !calls || !cmdline)
		return -ENOMEM;
	process.cmdline_len = core_cmdline(core, mem, cmdline, CMDLINE_BYTES);
	if (!process.cmdline_len)
		process.cmdline_len = split_args(core->args, cmdline);
	make_threads(core, mem, threads, calls);
	r = make_maps(core, &maps);
	if (!r)
		r = exe_link(core, &exe);
	process.exe = exe;
	if (!r)
		r = captured_new(&process, ret_tree, err);
	proc_maps_free(&maps);
	return r;
}
