/* SPDX-License-Identifier: MIT */
/* Limits of a process and of its control groups.
 *
 *	Max open files            1024                 1048576              files	(limits)
 *	4:memory:/docker/4f0c								(cgroup, version 1)
 *	0::/system.slice/x.service							(version 2)
 *	nr_throttled 17									(cpu.stat)
 *	some avg10=0.00 avg60=0.00 avg300=0.00 total=0					(memory.pressure)
 *
 * A group is found at its path below the mount of its controller. Where we see another hierarchy than the process does
 * (it names a group outside of our own control group namespace, "/../x") it is not found, and nothing is known. */
#include "engine/proc/limits.h"

#include "engine/base/clock.h"
#include "engine/proc/files.h"
#include "engine/proc/text.h"
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#define LIMITS_MAX (16U << 10)
#define CGROUP_TEXT_MAX (64U << 10)
#define GROUP_FILE_SIZE 4096
#define GROUP_DEPTH_MAX 64
#define UNLIMITED_FROM (1ULL << 62) /* version 1 writes the largest number of pages that there can be */

/* Takes the text's beginning off. */
static bool take(struct text *t, const char *s) {
	size_t n = strlen(s);

	if (text_left(t) < n || memcmp(t->at, s, n))
		return false;
	t->at += n;
	return true;
}

static bool limit_number(struct text *t, uint64_t *ret) {
	text_blanks(t);
	if (!take(t, "unlimited"))
		return text_u64(t, ret);
	*ret = PROC_UNKNOWN;
	return true;
}

int proc_nofile_parse(const char *text, size_t len, uint64_t *ret_soft, uint64_t *ret_hard) {
	struct text t = text_of(text, len), line;
	uint64_t soft, hard;

	while (text_line(&t, &line)) {
		if (!take(&line, "Max open files"))
			continue;
		if (!limit_number(&line, &soft) || !limit_number(&line, &hard))
			break;
		*ret_soft = soft;
		*ret_hard = hard;
		return 0;
	}
	return -EINVAL;
}

int proc_nofile_limit(const struct proc *proc, uint64_t *ret_soft, uint64_t *ret_hard) {
	_free_ char *data = NULL;
	size_t len;
	int r = proc_read_file(proc, "limits", LIMITS_MAX, &data, &len);

	return r ? r : proc_nofile_parse(data, len, ret_soft, ret_hard);
}

/* control groups */

/* A number, alone in a file. "max", and what is no number, is PROC_UNKNOWN. */
static uint64_t read_number(int dir_fd, const char *name) {
	char buf[64];
	struct text t;
	uint64_t value;
	size_t len;

	if (files_read_small(dir_fd, name, buf, sizeof(buf), &len))
		return PROC_UNKNOWN;
	t = text_of(buf, len);
	return text_u64(&t, &value) && value < UNLIMITED_FROM ? value : PROC_UNKNOWN;
}

/* The usage of the group with the lowest limit is the one that counts. */
static void read_limit(int dir_fd, const char *usage_name, const char *limit_name, uint64_t *usage, uint64_t *limit) {
	uint64_t own_limit = read_number(dir_fd, limit_name);

	if (own_limit >= *limit && *usage != PROC_UNKNOWN)
		return;
	*limit = own_limit;
	*usage = read_number(dir_fd, usage_name);
}

static uint64_t value_of(struct text t, const char *key) {
	struct text line;
	uint64_t value;

	while (text_line(&t, &line))
		if (take(&line, key) && text_char(&line, ' ') && text_u64(&line, &value))
			return value;
	return PROC_UNKNOWN;
}

static void read_throttling(int dir_fd, struct cgroup_usage *usage) {
	char buf[GROUP_FILE_SIZE];
	struct text t;
	uint64_t us;
	size_t len;

	if ((usage->periods && usage->periods != PROC_UNKNOWN) ||
		files_read_small(dir_fd, "cpu.stat", buf, sizeof(buf), &len))
		return;
	t = text_of(buf, len);
	if (value_of(t, "nr_periods") == PROC_UNKNOWN)
		return;
	usage->periods = value_of(t, "nr_periods");
	usage->throttled_periods = value_of(t, "nr_throttled");
	usage->throttled_ns = value_of(t, "throttled_time");
	us = value_of(t, "throttled_usec");
	if (us != PROC_UNKNOWN && us <= UINT64_MAX / NS_PER_US)
		usage->throttled_ns = us * NS_PER_US;
}

/* "some avg10=1.25 …", in the C locale whatever ours is. */
static double pressure_of(struct text t, const char *key) {
	struct text line;
	uint64_t whole, hundredths;

	while (text_line(&t, &line))
		if (take(&line, key) && take(&line, " avg10=") && text_u64(&line, &whole) && text_char(&line, '.') &&
			text_u64(&line, &hundredths) && whole <= 100)
			return (double)whole + (double)hundredths / 100;
	return -1;
}

static void read_pressure(int dir_fd, struct cgroup_usage *usage) {
	char buf[GROUP_FILE_SIZE];
	size_t len;

	if (usage->memory_some_pct >= 0 || files_read_small(dir_fd, "memory.pressure", buf, sizeof(buf), &len))
		return;
	usage->memory_some_pct = pressure_of(text_of(buf, len), "some");
	usage->memory_full_pct = pressure_of(text_of(buf, len), "full");
}

static void read_unified(int dir_fd, struct cgroup_usage *usage) {
	read_limit(dir_fd, "memory.current", "memory.max", &usage->memory_bytes, &usage->memory_limit_bytes);
	read_limit(dir_fd, "pids.current", "pids.max", &usage->tasks, &usage->tasks_limit);
	read_throttling(dir_fd, usage);
	read_pressure(dir_fd, usage);
}

static void read_memory(int dir_fd, struct cgroup_usage *usage) {
	read_limit(dir_fd, "memory.usage_in_bytes", "memory.limit_in_bytes", &usage->memory_bytes,
		&usage->memory_limit_bytes);
}

static void read_pids(int dir_fd, struct cgroup_usage *usage) {
	read_limit(dir_fd, "pids.current", "pids.max", &usage->tasks, &usage->tasks_limit);
}

static bool leads_out(const char *path) {
	for (const char *at = strstr(path, "/.."); at; at = strstr(at + 1, "/.."))
		if (at[3] == '/' || !at[3])
			return true;
	return false;
}

/* The group and those above it, innermost first. */
static int walk_up(const char *root, const char *mount, struct text group,
	void (*read)(int dir_fd, struct cgroup_usage *usage), struct cgroup_usage *usage) {
	_free_ char *path = NULL;
	size_t top;

	if (asprintf(&path, "%s/%s%.*s", root, mount, (int)min_of(text_left(&group), (size_t)PATH_MAX), group.at) < 0)
		return -ENOMEM;
	top = strlen(root) + 1 + strlen(mount);
	if (leads_out(path + top))
		return 0;
	for (int depth = 0; depth < GROUP_DEPTH_MAX; depth++) {
		_close_ int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		char *slash;

		if (fd < 0)
			return 0;
		read(fd, usage);
		slash = strrchr(path + top, '/');
		if (!slash)
			return 0;
		/* A path of "/" alone has been read with its first step. */
		if (slash == path + top && !slash[1])
			return 0;
		*slash = '\0';
	}
	return 0;
}

static bool has_word(struct text list, const char *word) {
	size_t n = strlen(word);

	while (text_left(&list)) {
		const char *comma = memchr(list.at, ',', text_left(&list));
		const char *end = comma ? comma : list.end;

		if ((size_t)(end - list.at) == n && !memcmp(list.at, word, n))
			return true;
		list.at = comma ? comma + 1 : list.end;
	}
	return false;
}

/* One line: "4:memory:/x", "0::/x". */
static int read_line(const char *root, struct text line, struct cgroup_usage *usage) {
	static const struct {
		const char *controller;
		void (*read)(int dir_fd, struct cgroup_usage *usage);
	} controllers[] = { { "memory", read_memory }, { "pids", read_pids }, { "cpu", read_throttling } };
	const char *first = memchr(line.at, ':', text_left(&line)), *second;
	struct text names, group;
	int r = 0;

	second = first ? memchr(first + 1, ':', (size_t)(line.end - first - 1)) : NULL;
	if (!second || second + 1 == line.end || second[1] != '/')
		return 0;
	names = (struct text){ .at = first + 1, .end = second };
	group = (struct text){ .at = second + 1, .end = line.end };
	if (!text_left(&names)) {
		r = walk_up(root, "", group, read_unified, usage);
		return r ? r : walk_up(root, "unified", group, read_unified, usage);
	}
	for (size_t i = 0; !r && i < ARRAY_SIZE(controllers); i++)
		if (has_word(names, controllers[i].controller))
			r = walk_up(root, controllers[i].controller, group, controllers[i].read, usage);
	return r;
}

int cgroup_usage_read(const char *root, const char *text, size_t len, struct cgroup_usage *ret_usage) {
	struct cgroup_usage usage = {
		.memory_bytes = PROC_UNKNOWN,
		.memory_limit_bytes = PROC_UNKNOWN,
		.tasks = PROC_UNKNOWN,
		.tasks_limit = PROC_UNKNOWN,
		.periods = PROC_UNKNOWN,
		.throttled_periods = PROC_UNKNOWN,
		.throttled_ns = PROC_UNKNOWN,
		.memory_some_pct = -1,
		.memory_full_pct = -1,
	};
	struct text t = text_of(text, len), line;

	while (text_line(&t, &line)) {
		int r = read_line(root, line, &usage);

		if (r)
			return r;
	}
	*ret_usage = usage;
	return 0;
}

int proc_cgroup_usage(const struct proc *proc, struct cgroup_usage *ret_usage) {
	_free_ char *data = NULL;
	size_t len;
	int r = proc_read_file(proc, "cgroup", CGROUP_TEXT_MAX, &data, &len);

	return r ? r : cgroup_usage_read("/sys/fs/cgroup", data, len, ret_usage);
}
