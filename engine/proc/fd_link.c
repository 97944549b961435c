/* SPDX-License-Identifier: MIT */
/* The entries of /proc/PID/fd.
 *
 *	lr-x------ 0 -> pipe:[81723]
 *	lrwx------ 3 -> socket:[5120]
 *	lrwx------ 4 -> anon_inode:[eventpoll]
 *	l-wx------ 5 -> /var/log/x.log (deleted)
 *
 * A link's own permissions say how the descriptor was opened; links of a captured tree carry none, there fdinfo says
 * it. What has a name begins with "/", so that no file can pass for a pipe. It is looked at with statx, which asks
 * neither the server of a file system that hangs nor an automounter. */
#include "engine/proc/fd_link.h"

#include "engine/proc/files.h"
#include "engine/proc/text.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define FDINFO_HEAD_SIZE 512
#define CAPTURED_MODE (S_IRWXG | S_IRWXO)

static bool parse_numbered(const char *target, const char *prefix, uint64_t *ret_inode) {
	struct text t = text_of(target, strlen(target));
	size_t n = strlen(prefix);

	if (text_left(&t) < n || memcmp(t.at, prefix, n))
		return false;
	t.at += n;
	return text_char(&t, '[') && text_u64(&t, ret_inode) && text_char(&t, ']') && !text_left(&t);
}

static enum fd_kind anonymous_kind(const char *target) {
	static const struct {
		const char *target;
		enum fd_kind kind;
	} kinds[] = {
		{ "anon_inode:[eventfd]", FD_EVENTFD },
		{ "anon_inode:[timerfd]", FD_TIMERFD },
		{ "anon_inode:[signalfd]", FD_SIGNALFD },
		{ "anon_inode:[eventpoll]", FD_EPOLL },
		{ "anon_inode:inotify", FD_INOTIFY },
		{ "anon_inode:[pidfd]", FD_PIDFD },
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(target, kinds[i].target))
			return kinds[i].kind;
	return strncmp(target, "pidfd:[", strlen("pidfd:[")) ? FD_OTHER : FD_PIDFD;
}

void fd_link_parse(const char *target, struct fd_link *ret_link) {
	struct fd_link link = { .kind = FD_OTHER, .named = target[0] == '/' };

	if (parse_numbered(target, "pipe:", &link.inode))
		link.kind = FD_PIPE;
	else if (parse_numbered(target, "socket:", &link.inode))
		link.kind = FD_SOCKET;
	else if (!link.named)
		link.kind = anonymous_kind(target);
	*ret_link = link;
}

/* Majors of Linux's Documentation/admin-guide/devices.txt. The master of a pseudo-terminal (5:2) is no terminal: a
 * program is at its other end, not a person. */
static bool is_terminal(unsigned major_no, unsigned minor_no) {
	switch (major_no) {
	case 4:   /* consoles, serial lines */
	case 188: /* serial lines over USB */
	case 204: /* serial lines of small boards */
	case 229: /* consoles of hypervisors */ return true;
	case 5: return minor_no != 2;
	default: return major_no >= 136 && major_no <= 143;
	}
}

static enum fd_kind kind_of_file(const struct statx *st) {
	switch (st->stx_mode & S_IFMT) {
	case S_IFREG: return FD_FILE;
	case S_IFDIR: return FD_DIRECTORY;
	case S_IFIFO: return FD_PIPE;
	case S_IFCHR: return is_terminal(st->stx_rdev_major, st->stx_rdev_minor) ? FD_TTY : FD_DEVICE;
	case S_IFBLK: return FD_DEVICE;
	default: return FD_OTHER;
	}
}

int fd_stat(const struct proc *proc, int fd, enum fd_kind *ret_kind, uint64_t *ret_inode, uint64_t *ret_dev) {
	struct statx st;
	char name[32];

	snprintf(name, sizeof(name), "fd/%d", fd);
	if (statx(proc->dir_fd, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE | STATX_INO, &st))
		return -errno;
	*ret_kind = kind_of_file(&st);
	*ret_inode = st.stx_ino;
	*ret_dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	return 0;
}

/* "flags:\t0100002" */
static int fdinfo_access(const struct proc *proc, int fd, bool *ret_read, bool *ret_write) {
	static const char key[] = "flags:";
	char name[32], buf[FDINFO_HEAD_SIZE];
	struct text t, line;
	uint64_t flags;
	size_t len;
	int r;

	snprintf(name, sizeof(name), "fdinfo/%d", fd);
	r = files_read_small(proc->dir_fd, name, buf, sizeof(buf), &len);
	if (r)
		return r;
	t = text_of(buf, len);
	while (text_line(&t, &line)) {
		if (text_left(&line) < strlen(key) || memcmp(line.at, key, strlen(key)))
			continue;
		line.at += strlen(key);
		text_blanks(&line);
		if (!text_number(&line, 8, &flags))
			break;
		*ret_read = !(flags & O_PATH) && ((flags & O_ACCMODE) == O_RDONLY || (flags & O_ACCMODE) == O_RDWR);
		*ret_write = !(flags & O_PATH) && ((flags & O_ACCMODE) == O_WRONLY || (flags & O_ACCMODE) == O_RDWR);
		return 0;
	}
	return -EINVAL;
}

int fd_access(const struct proc *proc, int fd, bool *ret_read, bool *ret_write) {
	struct stat st;
	char name[32];

	snprintf(name, sizeof(name), "fd/%d", fd);
	if (fstatat(proc->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (st.st_mode & CAPTURED_MODE)
		return fdinfo_access(proc, fd, ret_read, ret_write);
	*ret_read = st.st_mode & S_IRUSR;
	*ret_write = st.st_mode & S_IWUSR;
	return 0;
}

static int list_dir(DIR *dir, int (*each)(void *userdata, int fd), void *userdata) {
	for (;;) {
		struct dirent *entry;
		struct text name;
		int fd, r;

		errno = 0;
		entry = readdir(dir);
		if (!entry)
			return -errno;
		name = text_of(entry->d_name, strlen(entry->d_name));
		if (!text_int(&name, &fd) || text_left(&name))
			continue;
		r = each(userdata, fd);
		if (r)
			return r;
	}
}

int fd_list(const struct proc *proc, int (*each)(void *userdata, int fd), void *userdata) {
	_close_ int fd = openat(proc->dir_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_closedir_ DIR *dir = NULL;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	take_fd(&fd);
	return list_dir(dir, each, userdata);
}
