/* SPDX-License-Identifier: MIT */
/* The notes of a core: what the kernel writes down of a process beside its memory (Linux fs/binfmt_elf.c; gcore writes
 * the same).
 *
 *	CORE  NT_PRSTATUS  of each thread, the one that died first: id, signal, registers
 *	CORE  NT_PRPSINFO  of the process: pid, owner, name, the first 80 bytes of its command line
 *	CORE  NT_SIGINFO   the signal in full; gcore writes one for each thread, behind its NT_PRSTATUS
 *	CORE  NT_AUXV      what the kernel told the program at its start
 *	CORE  NT_FILE      mapped files: count, page size, (start, end, offset in pages) each, then the paths
 *
 * Each note is a header, its owner's name and its body, padded to four bytes. Those of no use are skipped unread: the
 * vector registers are most of it. */
#include "engine/mem/core_internal.h"

#include "engine/base/cursor.h"
#include "engine/base/limits.h"
#include "engine/base/map.h"
#include <assert.h>
#include <elf.h>
#include <signal.h>
#include <string.h>
#include <sys/procfs.h>

#define NOTES_MAX (32U * LIMIT_THREADS)
#define AUXV_MAX 4096
#define FILES_BYTES_MAX (LIMIT_MAPS * 1024U)
#define PAGE_SIZE_MAX (1U << 20)

static_assert(sizeof(elf_gregset_t) == sizeof(struct user_regs_struct), "registers of a core");

struct note {
	uint32_t type;
	uint64_t offset; /* of the body */
	uint32_t len;
};

static int read_status(struct core *core, const struct note *note) {
	struct core_thread thread = { .call = -1 };
	struct elf_prstatus status;
	int r;

	if (note->len < sizeof(status) || core->threads.n >= LIMIT_THREADS)
		return 0;
	r = core_pread(core, note->offset, &status, sizeof(status));
	if (r)
		return r;
	thread.tid = status.pr_pid;
	thread.signal = status.pr_cursig;
	memcpy(&thread.regs, &status.pr_reg, sizeof(thread.regs));
#ifdef __x86_64__
	thread.call = (int64_t)thread.regs.orig_rax;
#endif
	if (!core->threads.n) {
		core->signal.number = thread.signal;
		core->ppid = status.pr_ppid;
	}
	return vec_push(&core->threads, thread);
}

static int read_psinfo(struct core *core, const struct note *note) {
	struct elf_prpsinfo info;
	int r;

	if (note->len < sizeof(info))
		return 0;
	r = core_pread(core, note->offset, &info, sizeof(info));
	if (r)
		return r;
	core->pid = info.pr_pid;
	core->ppid = info.pr_ppid;
	core->uid = info.pr_uid;
	core->gid = info.pr_gid;
	snprintf(core->comm, sizeof(core->comm), "%.*s", (int)sizeof(info.pr_fname), info.pr_fname);
	snprintf(core->args, sizeof(core->args), "%.*s", (int)sizeof(info.pr_psargs), info.pr_psargs);
	return 0;
}

static bool has_address(const siginfo_t *info) {
	switch (info->si_signo) {
	case SIGSEGV:
	case SIGBUS:
	case SIGILL:
	case SIGFPE: return info->si_code > 0 && info->si_code < SI_KERNEL;
	default: return false;
	}
}

/* The one of the thread that died. */
static int read_siginfo(struct core *core, const struct note *note) {
	siginfo_t info;
	int r;

	if (note->len < sizeof(info) || core->threads.n > 1)
		return 0;
	r = core_pread(core, note->offset, &info, sizeof(info));
	if (r)
		return r;
	if (!info.si_signo)
		return 0;
	core->signal = (struct core_signal){ .number = info.si_signo, .code = info.si_code };
	if (has_address(&info)) {
		core->signal.has_address = true;
		core->signal.address = (raddr)(uintptr_t)info.si_addr;
	} else if (info.si_code == SI_USER || info.si_code == SI_TKILL || info.si_code == SI_QUEUE) {
		core->signal.has_sender = true;
		core->signal.sender = info.si_pid;
		core->signal.sender_uid = info.si_uid;
	}
	return 0;
}

static int read_auxv(struct core *core, const struct note *note) {
	size_t words = min_of(note->len, (uint32_t)AUXV_MAX) / 16 * 2;
	int r = vec_reserve(&core->auxv, words);

	if (!r && words)
		r = core_pread(core, note->offset, core->auxv.items, words * sizeof(uint64_t));
	if (!r)
		core->auxv.n = words;
	return r;
}

/* The index of the file with that path. Neighbours are mostly of one file. */
static int file_of(struct core *core, struct map *known, const char *path, size_t *ret_file) {
	uint64_t key = hash_bytes(path, strlen(path), 0) >> 1, at;
	struct core_file file = { .state = CORE_FILE_NONE };
	int r;

	if (map_get(known, key, &at) && !strcmp(core->files.items[at].path, path)) {
		*ret_file = (size_t)at;
		return 0;
	}
	file.path = strdup(path);
	r = file.path ? vec_push(&core->files, file) : -ENOMEM;
	if (r) {
		free(file.path);
		return r;
	}
	*ret_file = core->files.n - 1;
	return map_put(known, key, *ret_file);
}

static int add_mapping(struct core *core, struct map *known, const uint64_t words[3], uint64_t page, const char *path) {
	struct core_mapping mapping = { .start = words[0], .end = words[1] };
	size_t n = core->mappings.n;
	int r;

	if (mapping.end <= mapping.start || __builtin_mul_overflow(words[2], page, &mapping.offset) || !path[0] ||
		(n && core->mappings.items[n - 1].end > mapping.start))
		return 0;
	r = file_of(core, known, path, &mapping.file);
	return r ? r : vec_push(&core->mappings, mapping);
}

/* Return: 0; -ENOMEM; a table that is broken has no more entries than those before. */
static int parse_files(struct core *core, const uint8_t *data, size_t len) {
	struct map _cleanup_(map_deinit) known = { 0 };
	struct cursor rows = cursor_of(data, len), names = rows;
	uint64_t n, page;
	int r = 0;

	if (!cursor_u64(&rows, &n) || !cursor_u64(&rows, &page) || page > PAGE_SIZE_MAX || n > LIMIT_MAPS)
		return 0;
	names.pos = rows.pos;
	if (!cursor_skip(&names, (size_t)n * 3 * sizeof(uint64_t)))
		return 0;
	for (uint64_t i = 0; !r && i < n; i++) {
		const char *path = (const char *)names.data + names.pos;
		uint64_t words[3];

		if (!cursor_bytes(&rows, words, sizeof(words)) ||
			!cursor_skip(&names, strnlen(path, cursor_left(&names)) + 1))
			return 0;
		r = add_mapping(core, &known, words, page, path);
	}
	return r;
}

static int read_files(struct core *core, const struct note *note) {
	_free_ uint8_t *data = NULL;
	int r;

	if (core->mappings.n || note->len > FILES_BYTES_MAX)
		return 0;
	data = malloc((size_t)note->len + 1);
	if (!data)
		return -ENOMEM;
	r = core_pread(core, note->offset, data, note->len);
	return r ? r : parse_files(core, data, note->len);
}

#ifdef __aarch64__
/* Behind the NT_PRSTATUS of its thread. */
static int read_system_call(struct core *core, const struct note *note) {
	int32_t number;
	int r;

	if (!core->threads.n || note->len < sizeof(number))
		return 0;
	r = core_pread(core, note->offset, &number, sizeof(number));
	if (!r)
		core->threads.items[core->threads.n - 1].call = number;
	return r;
}
#endif

static int take_note(struct core *core, const struct note *note, const char *owner) {
#ifdef __aarch64__
	if (!strcmp(owner, "LINUX") && note->type == NT_ARM_SYSTEM_CALL)
		return read_system_call(core, note);
#endif
	if (strcmp(owner, "CORE"))
		return 0;
	switch (note->type) {
	case NT_PRSTATUS: return read_status(core, note);
	case NT_PRPSINFO: return read_psinfo(core, note);
	case NT_SIGINFO: return read_siginfo(core, note);
	case NT_AUXV: return read_auxv(core, note);
	case NT_FILE: return read_files(core, note);
	default: return 0;
	}
}

static uint64_t padded(uint32_t len) {
	return ((uint64_t)len + 3) & ~3ULL;
}

int core_read_notes(struct core *core, uint64_t offset, uint64_t len) {
	uint64_t end;

	if (__builtin_add_overflow(offset, len, &end))
		return 0;
	for (unsigned i = 0; i < NOTES_MAX && offset < end && end - offset >= sizeof(Elf64_Nhdr); i++) {
		struct note note;
		Elf64_Nhdr header;
		char owner[8] = "";
		int r = core_pread(core, offset, &header, sizeof(header));

		if (!r)
			r = core_pread(core, offset + sizeof(header), owner,
				min_of((size_t)header.n_namesz, sizeof(owner) - 1));
		note = (struct note){ .type = header.n_type,
			.len = header.n_descsz,
			.offset = offset + sizeof(header) + padded(header.n_namesz) };
		if (!r)
			r = take_note(core, &note, owner);
		if (r)
			return r == -ENODATA ? 0 : r;
		offset = note.offset + padded(note.len);
	}
	return 0;
}
