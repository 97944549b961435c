/* SPDX-License-Identifier: MIT */
/* Reading /proc: whole files, links, folders of numbers. Files of /proc have no size and answer in pieces, so every
 * read goes on until the end or the caller's bound. Opened without blocking, since a captured tree may hold anything.
 */
#include "engine/proc/files.h"

#include "engine/proc/text.h"
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define READ_FLAGS (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

static int read_fully(int fd, char *buf, size_t size, size_t *ret_len) {
	size_t len = 0;

	while (len < size) {
		ssize_t n = read(fd, buf + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	*ret_len = len;
	return 0;
}

int files_read_small(int dir_fd, const char *name, char *buf, size_t size, size_t *ret_len) {
	_close_ int fd = openat(dir_fd, name, READ_FLAGS);
	size_t len;
	int r;

	if (fd < 0)
		return -errno;
	r = read_fully(fd, buf, size - 1, &len);
	if (r)
		return r;
	buf[len] = '\0';
	*ret_len = len;
	return 0;
}

int files_read(int dir_fd, const char *name, size_t max, char **ret_data, size_t *ret_len) {
	_close_ int fd = openat(dir_fd, name, READ_FLAGS);
	_free_ char *data = NULL;
	size_t cap = 0, len = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		size_t want, got;
		int r = vec_grow((void **)&data, &cap, len + 4096, 1);

		if (r)
			return r;
		want = min_of(cap - 1, max) - len;
		r = read_fully(fd, data + len, want, &got);
		if (r)
			return r;
		len += got;
		if (got < want || len == max)
			break;
	}
	data[len] = '\0';
	*ret_len = len;
	*ret_data = take_ptr(data);
	return 0;
}

int files_read_link(int dir_fd, const char *name, char **ret_target) {
	char buf[PATH_MAX + 1];
	ssize_t n = readlinkat(dir_fd, name, buf, sizeof(buf) - 1);
	char *target;

	if (n < 0)
		return -errno;
	buf[n] = '\0';
	target = strdup(buf);
	if (!target)
		return -ENOMEM;
	*ret_target = target;
	return 0;
}

static int compare_pids(const void *a, const void *b) {
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

static int read_numbers(DIR *dir, pid_vec *numbers) {
	for (;;) {
		struct dirent *entry;
		struct text name;
		int number, r;

		errno = 0;
		entry = readdir(dir);
		if (!entry)
			return -errno;
		name = text_of(entry->d_name, strlen(entry->d_name));
		if (!text_int(&name, &number) || text_left(&name))
			continue;
		r = vec_push(numbers, number);
		if (r)
			return r;
	}
}

int files_list_numbers(int dir_fd, const char *name, pid_vec *ret_numbers) {
	_close_ int fd = openat(dir_fd, name, READ_FLAGS | O_DIRECTORY);
	_closedir_ DIR *dir = NULL;
	pid_vec numbers = { 0 };
	int r;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	take_fd(&fd);
	r = read_numbers(dir, &numbers);
	if (r) {
		vec_free(&numbers);
		return r;
	}
	if (numbers.n)
		qsort(numbers.items, numbers.n, sizeof(*numbers.items), compare_pids);
	*ret_numbers = numbers;
	return 0;
}

/* The kernel says ENOENT for a file of an ended thread and for one that it does not have; only the first also takes the
 * stat file away. */
int proc_condition(const struct proc *proc, const char *name, int r) {
	char stat_name[32] = "stat";
	struct text at = text_of(name, strlen(name));
	int tid;

	if (r == -ESRCH)
		return PROC_E_GONE;
	if (r != -ENOENT)
		return r;
	if (!strncmp(name, "task/", 5)) {
		at.at += 5;
		if (text_int(&at, &tid))
			snprintf(stat_name, sizeof(stat_name), "task/%d/stat", tid);
	}
	return faccessat(proc->dir_fd, stat_name, F_OK, 0) ? PROC_E_GONE : r;
}
