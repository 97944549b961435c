/* SPDX-License-Identifier: MIT */
/* The children of a process: out of task/TID/children of its threads where the kernel has that file
 * (CONFIG_PROC_CHILDREN), else by the parent that every process's stat names. Children that are born or end meanwhile
 * may be missing. */
#include "engine/proc/fds.h"

#include "engine/proc/files.h"
#include "engine/proc/text.h"
#include <errno.h>
#include <fcntl.h>

#define CHILDREN_MAX_BYTES (32U << 20) /* four million, the most pids there can be */

static int parse_children(struct text t, pid_vec *pids) {
	int pid, r = 0;

	while (!r && (text_blanks(&t), text_int(&t, &pid)))
		r = vec_push(pids, pid);
	return r;
}

static int read_task(int process_fd, pid_t tid, pid_vec *pids) {
	_free_ char *data = NULL;
	char name[40];
	size_t len;
	int r;

	snprintf(name, sizeof(name), "task/%d/children", (int)tid);
	r = files_read(process_fd, name, CHILDREN_MAX_BYTES, &data, &len);
	return r ? r : parse_children(text_of(data, len), pids);
}

/* Return: 0 and *ret_known whether the kernel has the file; negative errno. */
static int read_tasks(int process_fd, const pid_vec *tids, bool *ret_known, pid_vec *pids) {
	bool known = false;

	vec_foreach (tid, tids) {
		int r = read_task(process_fd, *tid, pids);

		if (r && r != -ENOENT && r != -ESRCH)
			return r;
		known = known || !r;
	}
	*ret_known = known;
	return 0;
}

static int scan_parents(const char *root, int root_fd, pid_t parent, pid_vec *children) {
	pid_vec pids = { 0 };
	int r = proc_list(root, &pids);

	for (size_t i = 0; !r && i < pids.n; i++) {
		char name[32], buf[FILES_STAT_SIZE];
		struct proc_stat stat;
		size_t len;

		snprintf(name, sizeof(name), "%d/stat", (int)pids.items[i]);
		if (files_read_small(root_fd, name, buf, sizeof(buf), &len) || proc_stat_parse(buf, len, &stat))
			continue;
		if (stat.ppid == parent)
			r = vec_push(children, pids.items[i]);
	}
	vec_free(&pids);
	return r;
}

static int compare_pids(const void *a, const void *b) {
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

static int read_children(const char *root, int root_fd, pid_t pid, pid_vec *children) {
	_close_ int process_fd = -1;
	pid_vec tids = { 0 };
	char name[16];
	bool known;
	int r;

	snprintf(name, sizeof(name), "%d", (int)pid);
	process_fd = openat(root_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (process_fd < 0)
		return -errno;
	r = files_list_numbers(process_fd, "task", &tids);
	if (r)
		return r;
	r = read_tasks(process_fd, &tids, &known, children);
	vec_free(&tids);
	if (r || known)
		return r;
	return scan_parents(root, root_fd, pid, children);
}

int proc_children(const char *root, pid_t pid, pid_vec *ret_pids) {
	_close_ int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	pid_vec children = { 0 };
	int r;

	if (root_fd < 0)
		return -errno;
	r = read_children(root, root_fd, pid, &children);
	if (r) {
		vec_free(&children);
		return r == -ENOENT || r == -ESRCH ? PROC_E_GONE : r;
	}
	if (children.n)
		qsort(children.items, children.n, sizeof(*children.items), compare_pids);
	*ret_pids = children;
	return 0;
}
