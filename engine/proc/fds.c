/* SPDX-License-Identifier: MIT */
/* Descriptors of one process: what each is, and what fdinfo says of some kinds.
 *
 *	pos:	0
 *	flags:	02000002
 *	tfd:        5 events:       19 data:                5  pos:0 ino:1fa3 sdev:e	(epoll, one line for each)
 *	it_value: (0, 49406829)								(timerfd)
 *	Pid:	4711									(pidfd)
 *
 * Model: a descriptor is looked at in several steps, between which the target may close it and open another; the link
 * is read before and after, and only what it agreed on is told. An epoll instance shows the number that a file had
 * when it was added, which may since belong to another. Does not see the tables of threads that unshared theirs. */
#include "engine/proc/fds.h"

#include "engine/proc/fd_link.h"
#include "engine/proc/files.h"
#include "engine/proc/text.h"
#include <errno.h>
#include <string.h>

#define FD_LOOKS 3
#define FDINFO_BASE_BYTES 4096
#define FDINFO_LINE_BYTES 128 /* above the longest line of an epoll instance */
#define FDINFO_MAX_BYTES (64U << 20)
#define LIST_FULL 1

/* A process that has just ended refuses as one that is not ours does, or has no descriptors. */
static int fd_condition(const struct proc *proc, int r) {
	if (r == -ESRCH)
		return PROC_E_GONE;
	if (r != -ENOENT && r != -EACCES && r != -EPERM)
		return r;
	if (!proc_alive(proc))
		return PROC_E_GONE;
	return r == -EPERM ? -EACCES : r;
}

/* Takes the line that begins with the key, and leaves it behind key and blanks. */
static bool find_line(struct text t, const char *key, struct text *ret_line) {
	size_t n = strlen(key);
	struct text line;

	while (text_line(&t, &line)) {
		if (text_left(&line) < n || memcmp(line.at, key, n))
			continue;
		line.at += n;
		text_blanks(&line);
		*ret_line = line;
		return true;
	}
	return false;
}

static int read_fdinfo(const struct proc *proc, int fd, size_t max, char **ret_data, size_t *ret_len) {
	char name[32];

	snprintf(name, sizeof(name), "fdinfo/%d", fd);
	return files_read(proc->dir_fd, name, max, ret_data, ret_len);
}

static int read_pidfd(const struct proc *proc, int fd, pid_t *ret_pid) {
	_free_ char *data = NULL;
	struct text line;
	size_t len;
	int pid, r = read_fdinfo(proc, fd, FDINFO_BASE_BYTES, &data, &len);

	if (r)
		return r;
	if (!find_line(text_of(data, len), "Pid:", &line))
		return 0;
	if (text_char(&line, '-'))
		*ret_pid = -1;
	else if (text_int(&line, &pid))
		*ret_pid = pid;
	return 0;
}

static int read_details(const struct proc *proc, struct proc_fd *fd) {
	struct fd_link link;
	int r;

	fd_link_parse(fd->target, &link);
	fd->kind = link.kind;
	fd->inode = link.inode;
	if (link.named) {
		r = fd_stat(proc, fd->fd, &fd->kind, &fd->inode, &fd->dev);
		/* Its file system may refuse us: the descriptor is still there, of a kind that we do not know. */
		if (r && r != -EACCES && r != -ENOENT && r != -EPERM)
			return r;
	}
	if (fd->kind == FD_PIDFD) {
		r = read_pidfd(proc, fd->fd, &fd->pid);
		if (r)
			return r;
	}
	return fd_access(proc, fd->fd, &fd->read, &fd->write);
}

static int look(const struct proc *proc, int number, struct proc_fd *ret_fd) {
	struct proc_fd fd = { .fd = number };
	_free_ char *after = NULL;
	char name[32];
	int r;

	snprintf(name, sizeof(name), "fd/%d", number);
	r = files_read_link(proc->dir_fd, name, &fd.target);
	if (r)
		return r;
	r = read_details(proc, &fd);
	if (!r)
		r = files_read_link(proc->dir_fd, name, &after);
	if (!r && strcmp(fd.target, after))
		r = -EAGAIN;
	if (r) {
		proc_fd_deinit(&fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

int proc_fd_read(const struct proc *proc, int fd, struct proc_fd *ret_fd) {
	int r = -EAGAIN;

	if (fd < 0)
		return -ENOENT;
	for (int i = 0; i < FD_LOOKS && r == -EAGAIN; i++)
		r = look(proc, fd, ret_fd);
	return fd_condition(proc, r);
}

void proc_fd_deinit(struct proc_fd *fd) {
	free(take_ptr(fd->target));
}

struct list {
	const struct proc *proc;
	size_t max;
	proc_fd_vec fds;
};

static int list_one(void *userdata, int number) {
	struct list *list = userdata;
	struct proc_fd fd;
	int r;

	if (list->fds.n == list->max)
		return LIST_FULL;
	r = look(list->proc, number, &fd);
	if (r == -EAGAIN)
		r = look(list->proc, number, &fd);
	if (r == -ENOENT || r == -EAGAIN)
		return 0;
	if (r)
		return r;
	r = vec_push(&list->fds, fd);
	if (r)
		proc_fd_deinit(&fd);
	return r;
}

int proc_fds_read(const struct proc *proc, size_t max, proc_fd_vec *ret_fds) {
	struct list list = { .proc = proc, .max = max };
	int r = fd_list(proc, list_one, &list);

	/* One that ended in the middle would show a table without its end. */
	if (r >= 0 && !proc_alive(proc))
		r = -ESRCH;
	if (r < 0) {
		proc_fds_free(&list.fds);
		return fd_condition(proc, r);
	}
	*ret_fds = list.fds;
	return 0;
}

void proc_fds_free(proc_fd_vec *fds) {
	vec_foreach (fd, fds)
		proc_fd_deinit(fd);
	vec_free(fds);
}

static int parse_epoll(struct text t, size_t max, int_vec *fds) {
	static const char key[] = "tfd:";
	struct text line;
	int fd, r;

	while (fds->n < max && text_line(&t, &line)) {
		if (text_left(&line) < strlen(key) || memcmp(line.at, key, strlen(key)))
			continue;
		line.at += strlen(key);
		text_blanks(&line);
		/* A number that the end of the text follows may be the beginning of a longer one. */
		if (!text_int(&line, &fd) || !text_left(&line))
			continue;
		r = vec_push(fds, fd);
		if (r)
			return r;
	}
	return 0;
}

int proc_epoll_read(const struct proc *proc, int epoll_fd, size_t max, int_vec *ret_fds) {
	size_t lines = min_of(max, (size_t)FDINFO_MAX_BYTES / FDINFO_LINE_BYTES), len;
	_free_ char *data = NULL;
	int_vec fds = { 0 };
	int r = read_fdinfo(proc, epoll_fd, FDINFO_BASE_BYTES + lines * FDINFO_LINE_BYTES, &data, &len);

	if (r)
		return fd_condition(proc, r);
	r = parse_epoll(text_of(data, len), max, &fds);
	if (r) {
		vec_free(&fds);
		return r;
	}
	*ret_fds = fds;
	return 0;
}

/* Return: whether "(seconds, nanoseconds)" is a time other than zero. */
static bool parse_armed(struct text t) {
	uint64_t seconds, ns;

	if (!text_char(&t, '(') || !text_u64(&t, &seconds) || !text_char(&t, ','))
		return false;
	text_blanks(&t);
	return text_u64(&t, &ns) && (seconds || ns);
}

int proc_timerfd_armed(const struct proc *proc, int fd, bool *ret_armed) {
	_free_ char *data = NULL;
	struct text line;
	uint64_t ticks = 0;
	size_t len;
	int r = read_fdinfo(proc, fd, FDINFO_BASE_BYTES, &data, &len);

	if (r)
		return fd_condition(proc, r);
	/* A periodic timer that fired has no time left until somebody reads it. */
	if (find_line(text_of(data, len), "ticks:", &line))
		text_u64(&line, &ticks);
	if (!find_line(text_of(data, len), "it_value:", &line))
		return -ENOENT;
	*ret_armed = ticks || parse_armed(line);
	return 0;
}

int proc_caught_signals(const struct proc *proc, uint64_t *ret_mask) {
	_free_ char *data = NULL;
	struct text line;
	size_t len;
	int r = proc_read_file(proc, "status", FILES_STATUS_MAX, &data, &len);

	if (r)
		return r;
	if (!find_line(text_of(data, len), "SigCgt:", &line) || !text_hex(&line, ret_mask))
		return -EINVAL;
	return 0;
}
