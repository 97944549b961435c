/* SPDX-License-Identifier: MIT */
/* DWARF, by libdw, at arm's length.
 *
 * libdw walks trees by recursion and follows what it reads, so that a file made for it can exhaust the stack, memory or
 * time. A child does it, with limits, and writes what it found into a pipe, a line each, fields separated by tabs:
 *
 *     12	1	345	/src/zlib/deflate.c	fill_window
 *
 * (query, inlined, line, file, function). The parent bounds the text and the time, and ends the child.
 *
 * A file that refers to a second one (dwz's .gnu_debugaltlink) is read without: names that lie there are not known.
 * libdw would open it by the path that the file gives, so the reference is cut. */
#include "engine/native/lines.h"

#include "engine/base/clock.h"
#include "engine/native/symbols.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define TIME_NS (10 * NS_PER_SEC)
#define CPU_SECONDS 10
#define MEMORY_BYTES (2ULL << 30)
#define TEXT_MAX (32U << 20)
#define DEPTH_MAX 64 /* functions inlined into each other */
#define FIELD_MAX 1024
#define FIELDS 5

/* In the child */

struct reading {
	Dwarf *dwarf;
	FILE *out;
};

static void print_field(FILE *out, const char *text, char end) {
	for (size_t i = 0; text && text[i] && i < FIELD_MAX; i++)
		fputc((unsigned char)text[i] < ' ' ? '?' : text[i], out);
	fputc(end, out);
}

static void print_line(
	const struct reading *r, size_t query, bool inlined, int line, const char *file, const char *function) {
	fprintf(r->out, "%zu\t%d\t%d\t", query, inlined, line > 0 ? line : 0);
	print_field(r->out, file, '\t');
	print_field(r->out, function, '\n');
}

/* .debug_aranges may be missing (clang): then all units are asked. */
static bool find_unit(const struct reading *r, uint64_t vaddr, Dwarf_Die *ret_unit) {
	Dwarf_Off offset = 0, next;
	size_t head;

	if (dwarf_addrdie(r->dwarf, vaddr, ret_unit))
		return true;
	for (; !dwarf_nextcu(r->dwarf, offset, &next, &head, NULL, NULL, NULL); offset = next)
		if (dwarf_offdie(r->dwarf, offset + head, ret_unit) && dwarf_haspc(ret_unit, vaddr) > 0)
			return true;
	return false;
}

static const char *call_file(Dwarf_Die *unit, Dwarf_Die *scope) {
	Dwarf_Attribute attribute;
	Dwarf_Files *files;
	Dwarf_Word number;
	size_t n;

	if (dwarf_getsrcfiles(unit, &files, &n) || !dwarf_attr(scope, DW_AT_call_file, &attribute) ||
		dwarf_formudata(&attribute, &number) || number >= n)
		return NULL;
	return dwarf_filesrc(files, (size_t)number, NULL, NULL);
}

static int call_line(Dwarf_Die *scope) {
	Dwarf_Attribute attribute;
	Dwarf_Word number;

	return dwarf_attr(scope, DW_AT_call_line, &attribute) && !dwarf_formudata(&attribute, &number) ? (int)number
												       : 0;
}

static void print_scopes(
	const struct reading *r, size_t query, Dwarf_Die *unit, Dwarf_Die *scopes, int n, const char *file, int line) {
	for (int i = 0, depth = 0; i < n && depth < DEPTH_MAX; i++) {
		int tag = dwarf_tag(&scopes[i]);

		if (tag != DW_TAG_inlined_subroutine && tag != DW_TAG_subprogram)
			continue;
		print_line(r, query, tag == DW_TAG_inlined_subroutine, line, file, dwarf_diename(&scopes[i]));
		if (tag == DW_TAG_subprogram)
			return;
		file = call_file(unit, &scopes[i]);
		line = call_line(&scopes[i]);
		depth++;
	}
}

static void look_up(const struct reading *r, size_t query, uint64_t vaddr) {
	Dwarf_Die unit, *innermost = NULL, *scopes = NULL;
	const char *file = NULL;
	Dwarf_Line *at;
	int line = 0, n;

	if (!find_unit(r, vaddr, &unit))
		return;
	at = dwarf_getsrc_die(&unit, vaddr);
	if (at) {
		file = dwarf_linesrc(at, NULL, NULL);
		dwarf_lineno(at, &line);
	}
	n = dwarf_getscopes(&unit, vaddr, &innermost);
	/* What contains it as the source has it, to what contains it as the code lies. */
	if (n > 0)
		n = dwarf_getscopes_die(&innermost[0], &scopes);
	if (n > 0)
		print_scopes(r, query, &unit, scopes, n, file, line);
}

static _Noreturn void run_child(int dwarf_fd, int out_fd, const uint64_t *vaddrs, size_t n) {
	struct reading r = { .out = fdopen(out_fd, "w") };

	setrlimit(RLIMIT_CPU, &(struct rlimit){ CPU_SECONDS, CPU_SECONDS });
#ifndef __SANITIZE_ADDRESS__ /* which reserves more than that */
	setrlimit(RLIMIT_AS, &(struct rlimit){ MEMORY_BYTES, MEMORY_BYTES });
#endif
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	/* No further file can be opened: this is what cuts the reference to a second one. */
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 0, 0 });
	r.dwarf = dwarf_begin(dwarf_fd, DWARF_C_READ);
	if (!r.dwarf || !r.out)
		_exit(1);
	for (size_t i = 0; i < n; i++)
		look_up(&r, i, vaddrs[i]);
	_exit(fclose(r.out) ? 1 : 0);
}

/* In the parent */

static int read_text(int fd, uint64_t deadline_ns, char **ret_text, size_t *ret_len) {
	VEC(char) text = { 0 };
	int r = 0;

	for (;;) {
		struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
		uint64_t now = clock_mono_ns();
		ssize_t got;

		if (now >= deadline_ns || text.n >= TEXT_MAX)
			r = now >= deadline_ns ? -ETIMEDOUT : -EFBIG;
		if (!r)
			r = vec_reserve(&text, text.n + 65536);
		if (r)
			break;
		if (poll(&poll_fd, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1) <= 0)
			continue;
		got = read(fd, text.items + text.n, text.cap - text.n);
		if (got == 0)
			break;
		if (got < 0 && errno != EINTR)
			r = -errno;
		text.n += got > 0 ? (size_t)got : 0;
	}
	if (r) {
		vec_free(&text);
		return r;
	}
	*ret_text = text.items;
	*ret_len = text.n;
	return 0;
}

/* Splits a line, which is changed. Return: whether it has all fields. */
static bool split(char *line, char *fields[FIELDS]) {
	for (int i = 0; i < FIELDS; i++) {
		fields[i] = strsep(&line, "\t");
		if (!fields[i])
			return false;
	}
	return !line;
}

static int add_line(native_line_vec *lines, char *text, size_t queries) {
	struct native_line line = { 0 };
	char *fields[FIELDS];
	int r;

	if (!split(text, fields))
		return 0;
	line.query = (uint32_t)strtoul(fields[0], NULL, 10);
	line.inlined = fields[1][0] == '1';
	line.line = (uint32_t)strtoul(fields[2], NULL, 10);
	if (line.query >= queries)
		return 0;
	line.file = strdup(fields[3]);
	line.function = strdup(fields[4]);
	r = line.file && line.function ? vec_push(lines, line) : -ENOMEM;
	if (r) {
		free(line.file);
		free(line.function);
	}
	return r;
}

static int parse_text(char *text, size_t len, size_t queries, native_line_vec *ret_lines) {
	native_line_vec lines = { 0 };
	int r = 0;

	for (char *at = text, *end; !r && (end = memchr(at, '\n', (size_t)(text + len - at))); at = end + 1) {
		*end = '\0';
		r = add_line(&lines, at, queries);
	}
	if (r) {
		native_lines_free(&lines);
		return r;
	}
	*ret_lines = lines;
	return 0;
}

static int ask_child(int dwarf_fd, const uint64_t *vaddrs, size_t n, uint64_t timeout_ns, native_line_vec *ret_lines) {
	_close_ int in = -1, out = -1;
	_free_ char *text = NULL;
	int ends[2], r;
	size_t len = 0;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	in = ends[0];
	out = ends[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid)
		run_child(dwarf_fd, out, vaddrs, n);
	close_fd(&out);
	r = read_text(in, clock_mono_ns() + min_of(timeout_ns, TIME_NS), &text, &len);
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return r ? r : parse_text(text, len, n, ret_lines);
}

static bool has_dwarf(struct elf_image *img) {
	return elf_image_has_section(img, ".debug_info") || elf_image_has_section(img, ".zdebug_info");
}

/* The file itself, or its separate one. Return: 0 and *ret_fd; -ENOENT; negative errno. */
static int open_dwarf(const struct native_modules *modules, const struct native_module *module, int *ret_fd) {
	struct elf_image *img;
	_close_ int fd = -1;
	int r = native_module_open(modules, module, &fd);

	if (!r)
		r = elf_image_open(fd, &img);
	if (r)
		return r < 0 ? r : -ENOENT;
	if (has_dwarf(img))
		*ret_fd = take_fd(&fd);
	else
		r = native_debug_file_open(modules, module, img, ret_fd) ? -ENOENT : 0;
	elf_image_free(img);
	return r;
}

int native_lines_read(const struct native_modules *modules, const struct native_module *module, const raddr *at,
	size_t n, uint64_t timeout_ns, native_line_vec *ret_lines) {
	_free_ uint64_t *vaddrs = NULL;
	_close_ int fd = -1;
	int r;

	if (!module->file || n > NATIVE_LINE_QUERIES_MAX)
		return module->file ? -EINVAL : -ENOENT;
	r = open_dwarf(modules, module, &fd);
	if (r)
		return r;
	vaddrs = malloc((n + 1) * sizeof(*vaddrs));
	if (!vaddrs)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		vaddrs[i] = at[i] - module->bias;
	return ask_child(fd, vaddrs, n, timeout_ns, ret_lines);
}

void native_lines_free(native_line_vec *lines) {
	vec_foreach (line, lines) {
		free(line->function);
		free(line->file);
	}
	vec_free(lines);
}
