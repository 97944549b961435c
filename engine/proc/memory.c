/* SPDX-License-Identifier: MIT */
/* What memory a process has of its own, and what it is.
 *
 *	7f2a64000000-7f2a644b0000 rw-p 00000000 00:00 0
 *	Size:               4800 kB
 *	Private_Dirty:      4796 kB
 *	Swap:                  0 kB
 *	VmFlags: rd wr mr mw me nr
 *	7f2a644b0000-7f2a68000000 ---p 00000000 00:00 0
 *
 * smaps has some 700 bytes for each mapping, so it goes through a buffer, line by line, and only mappings with memory
 * are kept. Names are the target's choice and are taken as they are, but no line is: the kernel writes newlines in a
 * path as \012, and keys begin with a capital, which no address does. All mappings or none: more than LIMIT_MAPS are
 * refused (-E2BIG).
 *
 * Of a shared mapping only resident pages that nobody else has mapped count: what it has in swap is not the process's
 * alone.
 *
 * An arena of glibc's malloc for threads is made of heaps of 64 MiB at a multiple of that, of which the used part can
 * be written and the rest not be touched (glibc malloc/arena.c, HEAP_MAX_SIZE). The used part may be several mappings:
 * what was added after a fork does not join the older one. So a run of neighbours is taken for a heap by its bounds,
 *and by the rest behind it. Where the kernel says what a mapping is (glibc 2.39's decorations), that counts. */
#include "engine/proc/memory.h"

#include "engine/base/limits.h"
#include "engine/proc/files.h"
#include "engine/proc/text.h"
#include <fcntl.h>
#include <string.h>

#define BUFFER_BYTES (256U << 10) /* a path has 4096 bytes at most, escaped ones fourfold */
#define MEMINFO_SIZE 16384
#define VMSTAT_SIZE 16384 /* half of it is in use */
#define ARENA_BYTES (64ULL << 20)

/* Anonymous mappings that can be written, without a gap. */
struct run {
	raddr start, end;       /* start == end: none */
	struct memory_group of; /* without a name */
};

struct smaps {
	memory_groups groups; /* in the order of addresses, those without memory left out */
	struct proc_map map;  /* being read; map.path NULL: none yet */
	uint64_t bytes;       /* its memory */
	struct run run;       /* which the mapping is the last one of, or none */
	size_t mappings;
};

static bool is_anonymous(const struct proc_map *map) {
	return !map->path[0] && !map->inode && !map->shared;
}

static bool is_written(const struct proc_map *map) {
	return is_anonymous(map) && map->read && map->write;
}

static bool goes_on(const struct run *run, const struct proc_map *map) {
	return run->start != run->end && is_written(map) && map->start == run->end && map->start % ARENA_BYTES;
}

/* `next`: the mapping behind it, NULL where it is the last. */
static bool is_arena(const struct run *run, const struct proc_map *next) {
	raddr end = run->start + ARENA_BYTES;

	if (run->start % ARENA_BYTES)
		return false;
	return run->end == end ||
		(next && is_anonymous(next) && !next->read && !next->write && !next->exec && next->start == run->end &&
			next->end == end);
}

/* Neighbours are alike more often than not. */
static int add_to_group(memory_groups *groups, const char *name, const struct memory_group *of) {
	struct memory_group *last = groups->n ? &groups->items[groups->n - 1] : NULL;
	struct memory_group group = *of;
	int r;

	if (!of->bytes)
		return 0;
	if (last && !strcmp(last->name, name)) {
		last->mappings += of->mappings;
		return __builtin_add_overflow(last->bytes, of->bytes, &last->bytes) ? -EINVAL : 0;
	}
	group.name = strdup(name);
	r = group.name ? vec_push(groups, group) : -ENOMEM;
	if (r)
		free(group.name);
	return r;
}

static int end_run(struct smaps *smaps, const struct proc_map *next) {
	bool arena = is_arena(&smaps->run, next);
	struct memory_group of = smaps->run.of;

	smaps->run = (struct run){ 0 };
	return add_to_group(&smaps->groups, arena ? "anonymous arenas of malloc" : "anonymous", &of);
}

/* The mapping that was being read goes where it belongs. */
static int end_mapping(struct smaps *smaps) {
	struct memory_group of = { .mappings = smaps->bytes > 0, .bytes = smaps->bytes };

	smaps->bytes = 0;
	if (!smaps->map.path)
		return 0;
	if (!is_written(&smaps->map))
		return add_to_group(&smaps->groups, smaps->map.path[0] ? smaps->map.path : "anonymous", &of);
	smaps->run.of.mappings += of.mappings;
	return __builtin_add_overflow(smaps->run.of.bytes, of.bytes, &smaps->run.of.bytes) ? -EINVAL : 0;
}

static int begin_mapping(struct smaps *smaps, const struct proc_map *map) {
	int r = goes_on(&smaps->run, map) ? 0 : end_run(smaps, map);

	if (is_written(map)) {
		if (smaps->run.start == smaps->run.end)
			smaps->run.start = map->start;
		smaps->run.end = map->end;
	}
	free(smaps->map.path);
	smaps->map = *map;
	return r;
}

static int parse_header(struct smaps *smaps, struct text line) {
	proc_map_vec one = { 0 };
	int r;

	if (smaps->mappings++ == LIMIT_MAPS)
		return -E2BIG;
	r = text_left(&line) ? proc_maps_parse(line.at, text_left(&line), &one) : -EINVAL;
	if (r)
		return r;
	r = end_mapping(smaps);
	if (!r)
		r = begin_mapping(smaps, &one.items[0]);
	else
		free(one.items[0].path);
	vec_free(&one);
	return r;
}

/* "Private_Dirty:      4796 kB". Return: 0 and *ret_bytes; -ENOENT where the line is another's; -EINVAL. */
static int parse_kib(struct text line, const char *key, uint64_t *ret_bytes) {
	size_t n = strlen(key);
	uint64_t kib, bytes;

	if (text_left(&line) < n || memcmp(line.at, key, n))
		return -ENOENT;
	line.at += n;
	text_blanks(&line);
	if (!text_u64(&line, &kib) || __builtin_mul_overflow(kib, (uint64_t)1024, &bytes))
		return -EINVAL;
	*ret_bytes = bytes;
	return 0;
}

static int parse_value(struct smaps *smaps, struct text line) {
	static const char *const keys[] = { "Private_Clean:", "Private_Dirty:", "Private_Hugetlb:", "Swap:" };

	if (!smaps->map.path)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(keys) - smaps->map.shared; i++) {
		uint64_t bytes;
		int r = parse_kib(line, keys[i], &bytes);

		if (r == -ENOENT)
			continue;
		return r || __builtin_add_overflow(smaps->bytes, bytes, &smaps->bytes) ? -EINVAL : 0;
	}
	return 0;
}

static int parse_line(struct smaps *smaps, struct text line) {
	bool key = text_left(&line) && *line.at >= 'A' && *line.at <= 'Z';

	return key ? parse_value(smaps, line) : parse_header(smaps, line);
}

static int parse_lines(struct smaps *smaps, struct text t) {
	struct text line;
	int r = 0;

	while (!r && text_line(&t, &line))
		r = parse_line(smaps, line);
	return r;
}

static int compare_names(const void *a, const void *b) {
	const struct memory_group *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int compare_bytes(const void *a, const void *b) {
	const struct memory_group *x = a, *y = b;

	return x->bytes == y->bytes ? strcmp(x->name, y->name) : (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

static int merge(memory_groups *groups) {
	struct memory_group *into = groups->items;
	int r = 0;

	if (!groups->n)
		return 0;
	qsort(groups->items, groups->n, sizeof(*groups->items), compare_names);
	for (size_t i = 1; i < groups->n; i++) {
		struct memory_group *group = &groups->items[i];

		if (strcmp(into->name, group->name)) {
			*++into = *group;
			continue;
		}
		into->mappings += group->mappings;
		if (__builtin_add_overflow(into->bytes, group->bytes, &into->bytes))
			r = -EINVAL;
		free(group->name);
	}
	groups->n = (size_t)(into - groups->items) + 1;
	qsort(groups->items, groups->n, sizeof(*groups->items), compare_bytes);
	return r;
}

/* After the last line, or failure `r`. */
static int finish(struct smaps *smaps, int r, memory_groups *ret_groups) {
	if (!r)
		r = end_mapping(smaps);
	if (!r)
		r = end_run(smaps, NULL);
	if (!r)
		r = merge(&smaps->groups);
	free(smaps->map.path);
	if (r)
		memory_groups_free(&smaps->groups);
	else
		*ret_groups = smaps->groups;
	return r;
}

int memory_groups_parse(const char *text, size_t len, memory_groups *ret_groups) {
	struct smaps smaps = { 0 };

	return finish(&smaps, parse_lines(&smaps, text_of(text, len)), ret_groups);
}

/* The whole lines of a buffer; what is left of the last one moves to its begin. */
static int parse_whole_lines(struct smaps *smaps, char *buf, size_t *len) {
	const char *newline = memrchr(buf, '\n', *len);
	size_t whole = newline ? (size_t)(newline - buf) + 1 : 0;
	int r = parse_lines(smaps, text_of(buf, whole));

	memmove(buf, buf + whole, *len - whole);
	*len -= whole;
	return r;
}

static int parse_file(struct smaps *smaps, int fd) {
	_free_ char *buf = malloc(BUFFER_BYTES);
	size_t len = 0;
	int r = 0;

	if (!buf)
		return -ENOMEM;
	while (!r && len < BUFFER_BYTES) {
		ssize_t n = read(fd, buf + len, BUFFER_BYTES - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return parse_lines(smaps, text_of(buf, len));
		len += (size_t)n;
		r = parse_whole_lines(smaps, buf, &len);
	}
	return r ? r : -EINVAL;
}

int memory_groups_read(const struct proc *proc, memory_groups *ret_groups) {
	_close_ int fd = openat(proc->dir_fd, "smaps", O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct smaps smaps = { 0 };
	int r = fd < 0 ? -errno : parse_file(&smaps, fd);

	r = finish(&smaps, r, ret_groups);
	return r ? proc_condition(proc, "smaps", r) : 0;
}

void memory_groups_free(memory_groups *groups) {
	vec_foreach (group, groups)
		free(group->name);
	vec_free(groups);
}

/* the cheap counters */

/* The first line with the key. Return: as parse_kib. */
static int find_kib(const char *text, size_t len, const char *key, uint64_t *ret_bytes) {
	struct text t = text_of(text, len), line;
	int r = -ENOENT;

	while (r == -ENOENT && text_line(&t, &line))
		r = parse_kib(line, key, ret_bytes);
	return r;
}

/* A kernel without swap has no VmSwap; a process without memory neither of the two. */
int memory_private_parse(const char *text, size_t len, uint64_t *ret_bytes) {
	uint64_t resident = 0, swapped = 0;
	int r = find_kib(text, len, "RssAnon:", &resident);

	if (r == -ENOENT) {
		*ret_bytes = PROC_UNKNOWN;
		return 0;
	}
	if (!r)
		r = find_kib(text, len, "VmSwap:", &swapped);
	if ((r && r != -ENOENT) || __builtin_add_overflow(resident, swapped, &resident))
		return -EINVAL;
	*ret_bytes = resident;
	return 0;
}

int memory_private_read(const struct proc *proc, uint64_t *ret_bytes) {
	_free_ char *data = NULL;
	size_t len;
	int r = proc_read_file(proc, "status", FILES_STATUS_MAX, &data, &len);

	return r ? r : memory_private_parse(data, len, ret_bytes);
}

int memory_available_parse(const char *text, size_t len, uint64_t *ret_bytes) {
	return find_kib(text, len, "MemAvailable:", ret_bytes) ? -EINVAL : 0;
}

int memory_available_read(uint64_t *ret_bytes) {
	char buf[MEMINFO_SIZE];
	size_t len;
	int r = files_read_small(AT_FDCWD, "/proc/meminfo", buf, sizeof(buf), &len);

	return r ? r : memory_available_parse(buf, len, ret_bytes);
}

/* "\noom_kill 3\n" */
int memory_oom_kills_parse(const char *text, size_t len, uint64_t *ret_kills) {
	static const char key[] = "\noom_kill ";
	const char *at = memmem(text, len, key, sizeof(key) - 1);
	struct text number;
	uint64_t kills;

	if (!at)
		return -EINVAL;
	number = text_of(at + sizeof(key) - 1, len - (size_t)(at - text) - (sizeof(key) - 1));
	if (!text_u64(&number, &kills) || !text_char(&number, '\n'))
		return -EINVAL;
	*ret_kills = kills;
	return 0;
}

int memory_oom_kills_read(uint64_t *ret_kills) {
	char buf[VMSTAT_SIZE];
	size_t len;
	int r = files_read_small(AT_FDCWD, "/proc/vmstat", buf, sizeof(buf), &len);

	return r ? r : memory_oom_kills_parse(buf, len, ret_kills);
}
