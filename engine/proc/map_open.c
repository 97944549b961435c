/* SPDX-License-Identifier: MIT */
/* The file behind a mapping, opened for reading.
 *
 * Three ways, in this order:
 *   map_files/START-END  the mapped file itself, whatever its name, deleted ones too; CAP_CHECKPOINT_RESTORE or
 *                        CAP_SYS_ADMIN. Trusted: overlayfs and btrfs show other numbers to stat than in maps.
 *   root/PATH            resolved inside the target's root, so that its absolute symlinks cannot lead into ours
 *                        (openat2, Linux 5.6). Taken where the inode agrees; the device may differ, as above.
 *   exe                  taken where the inode agrees or the link reads as the mapping's path.
 *
 * Every file is first opened as a mere place (O_PATH) and looked at: a FIFO or a device is never opened for reading. */
#include "engine/proc/files.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define DELETED " (deleted)"
#define OPENAT2_TRIES 8 /* it answers EAGAIN where somebody renames meanwhile */

/* Opens for reading what a place descriptor stands for, if it is of the type S_IFREG or S_IFDIR. Return: 0; negative
 * errno. */
static int open_type(int place, mode_t type, int *ret_fd) {
	char path[32];
	struct stat st;
	int fd;

	if (fstat(place, &st))
		return -errno;
	if ((st.st_mode & S_IFMT) != type)
		return -ENOENT;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", place);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static int open_regular(int place, int *ret_fd) {
	return open_type(place, S_IFREG, ret_fd);
}

static bool same_inode(int place, const struct proc_map *map) {
	struct stat st;

	return !fstat(place, &st) && st.st_ino == map->inode;
}

static int open_map_files(const struct proc *proc, const struct proc_map *map, int *ret_fd) {
	_close_ int place = -1;
	char name[64];

	snprintf(name, sizeof(name), "map_files/%llx-%llx", (unsigned long long)map->start,
		(unsigned long long)map->end);
	place = openat(proc->dir_fd, name, O_PATH | O_CLOEXEC);
	return place < 0 ? -errno : open_regular(place, ret_fd);
}

static bool is_own_root(int root_fd) {
	struct stat own, root;

	return !stat("/", &own) && !fstat(root_fd, &root) && own.st_dev == root.st_dev && own.st_ino == root.st_ino;
}

/* A sandbox may refuse openat2 (RestrictSUIDSGID= of systemd does). In our own root a path on which there is no link
 * leads to the same file: what is open has that very name then. */
static int open_as_named(int root_fd, const char *path) {
	_close_ int fd = is_own_root(root_fd) ? open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
	char link[32], name[PATH_MAX];
	ssize_t n;

	if (fd < 0)
		return -ENOSYS;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, name, sizeof(name));
	if (*path != '/' || n < 0 || strlen(path) != (size_t)n || memcmp(path, name, (size_t)n) != 0)
		return -ENOSYS;
	return take_fd(&fd);
}

static int open_in_root(int root_fd, const char *path) {
	struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };

	for (int i = 0; i < OPENAT2_TRIES; i++) {
		int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));

		if (fd >= 0)
			return fd;
		if (errno != EAGAIN && errno != EINTR)
			break;
	}
	return errno == ENOSYS ? open_as_named(root_fd, path) : -errno;
}

static int open_below(int root_fd, const char *path, mode_t type, int *ret_fd) {
	_close_ int place = open_in_root(root_fd, path);
	int r = place < 0 ? place : open_type(place, type, ret_fd);

	return r == -EPERM ? -EACCES : r;
}

int proc_open_below(int root_fd, const char *path, int *ret_fd) {
	return open_below(root_fd, path, S_IFREG, ret_fd);
}

static int root_open(const struct proc *proc, const char *path, mode_t type, int *ret_fd) {
	_close_ int root_fd = openat(proc->dir_fd, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (root_fd < 0)
		return proc_condition(proc, "root", -errno);
	return open_below(root_fd, path, type, ret_fd);
}

int proc_root_open(const struct proc *proc, const char *path, int *ret_fd) {
	return root_open(proc, path, S_IFREG, ret_fd);
}

int proc_root_open_folder(const struct proc *proc, const char *path, int *ret_fd) {
	return root_open(proc, path, S_IFDIR, ret_fd);
}

static int try_path(int root_fd, const char *path, const struct proc_map *map, int *ret_fd) {
	_close_ int place = open_in_root(root_fd, path);

	if (place < 0)
		return place;
	return same_inode(place, map) ? open_regular(place, ret_fd) : -ENOENT;
}

/* Newlines as they are on disk. */
static void unescape(char *path) {
	char *out = path;

	for (const char *in = path; *in; out++) {
		bool newline = !strncmp(in, "\\012", 4);

		*out = newline ? '\n' : *in;
		in += newline ? 4 : 1;
	}
	*out = '\0';
}

static int open_by_path(const struct proc *proc, const struct proc_map *map, int *ret_fd) {
	_close_ int root_fd = -1;
	_free_ char *path = NULL;
	size_t len, suffix = strlen(DELETED);
	int r;

	if (map->path[0] != '/')
		return -ENOENT;
	root_fd = openat(proc->dir_fd, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0)
		return -errno;
	path = strdup(map->path);
	if (!path)
		return -ENOMEM;
	unescape(path);
	r = try_path(root_fd, path, map, ret_fd);
	len = strlen(path);
	if (r != -ENOENT || len <= suffix || strcmp(path + len - suffix, DELETED))
		return r;
	/* Another name of the deleted file may have taken its place: the inode decides. */
	path[len - suffix] = '\0';
	return try_path(root_fd, path, map, ret_fd);
}

static bool is_exe_path(const struct proc *proc, const struct proc_map *map) {
	_free_ char *target = NULL;

	return map->path[0] == '/' && !files_read_link(proc->dir_fd, "exe", &target) && !strcmp(target, map->path);
}

static int open_exe(const struct proc *proc, const struct proc_map *map, int *ret_fd) {
	_close_ int place = openat(proc->dir_fd, "exe", O_PATH | O_CLOEXEC);

	if (place < 0)
		return -errno;
	if (!same_inode(place, map) && !is_exe_path(proc, map))
		return -ENOENT;
	return open_regular(place, ret_fd);
}

int proc_map_open(const struct proc *proc, const struct proc_map *map, int *ret_fd) {
	static int (*const ways[])(const struct proc *proc, const struct proc_map *map, int *ret_fd) = {
		open_map_files,
		open_by_path,
		open_exe,
	};
	int result = -ENOENT;

	if (!map->inode)
		return -ENOENT;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		int r = ways[i](proc, map, ret_fd);

		if (!r || r == -ENOMEM || r == -EMFILE || r == -ENFILE)
			return r;
		if (r == -EACCES || r == -EPERM)
			result = -EACCES;
	}
	return proc_alive(proc) ? result : PROC_E_GONE;
}
