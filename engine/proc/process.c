/* SPDX-License-Identifier: MIT */
/* Processes: opening one, whether it lives, its files and threads, the processes there are and who descends from whom.
 *
 * A process is held by its /proc folder: the descriptor belongs to that process, and every file asked for through it
 * fails once the process has been waited for, even where the pid has been given away again. Does not look into the
 * files; that is what stat.c, status.c and maps.c do. */
#include "engine/proc/files.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>

static int open_pidfd(const char *root, pid_t pid, int *ret_fd) {
	int fd;

	*ret_fd = -1;
	if (strcmp(root, "/proc"))
		return 0;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	/* ESRCH: nobody. EINVAL, and ENOENT since 6.15: the pid is a thread's that leads no process. */
	return errno == ESRCH || errno == EINVAL || errno == ENOENT ? PROC_E_GONE : 0;
}

int proc_open(const char *root, pid_t pid, struct proc *ret_proc) {
	struct proc proc = { .pid = pid, .dir_fd = -1, .pidfd = -1 };
	struct proc_stat stat;
	char path[4096];
	int r;

	if (pid <= 0 || snprintf(path, sizeof(path), "%s/%d", root, (int)pid) >= (int)sizeof(path))
		return -EINVAL;
	proc.dir_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc.dir_fd < 0)
		return errno == ENOENT || errno == ESRCH ? PROC_E_GONE : -errno;
	r = open_pidfd(root, pid, &proc.pidfd);
	/* Read last: where this succeeds, the pid was still that process's when the pidfd was taken. */
	if (!r)
		r = proc_stat_read(&proc, &stat);
	if (r) {
		proc_close(&proc);
		return r;
	}
	proc.start_ticks = stat.start_ticks;
	*ret_proc = proc;
	return 0;
}

void proc_close(struct proc *proc) {
	close_fd(&proc->dir_fd);
	close_fd(&proc->pidfd);
}

bool proc_alive(const struct proc *proc) {
	struct pollfd poll_fd = { .fd = proc->pidfd, .events = POLLIN };
	struct proc_stat stat;

	/* Readable once the last thread has ended; a leader that ended before its threads is a zombie in stat only. */
	if (proc->pidfd >= 0 && poll(&poll_fd, 1, 0) >= 0)
		return !poll_fd.revents;
	if (proc_stat_read(proc, &stat) || stat.start_ticks != proc->start_ticks)
		return false;
	return stat.state != 'X' && (stat.state != 'Z' || stat.threads > 1);
}

int proc_read_file(const struct proc *proc, const char *name, size_t max, char **ret_data, size_t *ret_len) {
	int r = files_read(proc->dir_fd, name, max, ret_data, ret_len);

	return r ? proc_condition(proc, name, r) : 0;
}

int proc_threads(const struct proc *proc, pid_vec *ret_tids) {
	pid_vec tids = { 0 };
	int r = files_list_numbers(proc->dir_fd, "task", &tids);

	if (r)
		return proc_condition(proc, "task", r);
	if (!tids.n)
		return PROC_E_GONE;
	*ret_tids = tids;
	return 0;
}

int proc_list(const char *root, pid_vec *ret_pids) {
	return files_list_numbers(AT_FDCWD, root, ret_pids);
}

struct parent {
	pid_t parent, pid;
};
typedef VEC(struct parent) parent_vec;

static int compare_parents(const void *a, const void *b) {
	const struct parent *x = a, *y = b;

	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	return (x->pid > y->pid) - (x->pid < y->pid);
}

/* Who is whose child, sorted by parent. Processes that end meanwhile are left out. */
static int read_parents(const char *root, parent_vec *parents) {
	_close_ int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	pid_vec pids = { 0 };
	int r;

	if (root_fd < 0)
		return -errno;
	r = proc_list(root, &pids);
	vec_foreach (pid, &pids) {
		char name[32], buf[FILES_STAT_SIZE];
		struct proc_stat stat;
		size_t len;

		snprintf(name, sizeof(name), "%d/stat", (int)*pid);
		if (files_read_small(root_fd, name, buf, sizeof(buf), &len) || proc_stat_parse(buf, len, &stat))
			continue;
		r = vec_push(parents, (struct parent){ .parent = stat.ppid, .pid = *pid });
		if (r)
			break;
	}
	if (parents->n)
		qsort(parents->items, parents->n, sizeof(*parents->items), compare_parents);
	vec_free(&pids);
	return r;
}

/* Return: the index of the first entry with this parent or a larger one. */
static size_t first_child(const parent_vec *parents, pid_t parent) {
	size_t low = 0, high = parents->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (parents->items[middle].parent < parent)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Appends the children of one process. Each entry is taken once, since pids that are given away while we read could
 * close a circle. */
static int take_children(const parent_vec *parents, pid_t parent, pid_t top, pid_vec *pids) {
	for (size_t i = first_child(parents, parent); i < parents->n && parents->items[i].parent == parent; i++) {
		pid_t pid = parents->items[i].pid;
		int r;

		if (!pid || pid == top)
			continue;
		parents->items[i].pid = 0;
		r = vec_push(pids, pid);
		if (r)
			return r;
	}
	return 0;
}

int proc_descendants(const char *root, pid_t pid, pid_vec *ret_pids) {
	parent_vec parents = { 0 };
	pid_vec pids = { 0 };
	int r = read_parents(root, &parents);

	if (!r)
		r = take_children(&parents, pid, pid, &pids);
	for (size_t i = 0; !r && i < pids.n; i++)
		r = take_children(&parents, pids.items[i], pid, &pids);
	vec_free(&parents);
	if (r) {
		vec_free(&pids);
		return r;
	}
	*ret_pids = pids;
	return 0;
}
