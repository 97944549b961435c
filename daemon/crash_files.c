/* SPDX-License-Identifier: MIT */
/* The files of the crash handler: the core on its way, the cores that are kept, findings for the service.
 *
 * All names are made of numbers that we chose or the kernel gave; all files are new (O_EXCL, no links followed), in
 * folders that are ours. What a core has in it is never more than bytes here. */
#include "daemon/crash_handler.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zstd.h>

#define BLOCK 65536
#define LEVEL 3
#define CORES_MAX 100000 /* files that are looked at in the folder */

int crash_folder_open(const char *path, int *ret_fd, struct err *err) {
	struct stat st;
	int fd;

	if (mkdir(path, 0700) && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) || st.st_mode & (S_IWGRP | S_IWOTH)) {
		close(fd);
		return err_set(err, -EPERM, "%s may be written to by others", path);
	}
	*ret_fd = fd;
	return 0;
}

int crash_folder_give(int fd) {
	struct stat st, above;

	if (fstat(fd, &st) || fstatat(fd, "..", &above, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (geteuid() != 0 || st.st_uid != 0 || above.st_uid == 0)
		return 0;
	return fchown(fd, above.st_uid, above.st_gid) ? -errno : 0;
}

static bool is_zero(const char *block, size_t n) {
	return n && !block[0] && !memcmp(block, block + 1, n - 1);
}

static int write_all(int fd, const char *bytes, size_t n) {
	while (n) {
		ssize_t done = write(fd, bytes, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		bytes += done;
		n -= (size_t)done;
	}
	return 0;
}

/* A whole block, or what there is before the end. Return: bytes; negative errno. */
static ssize_t read_block(int fd, char *block, size_t n) {
	size_t done = 0;

	while (done < n) {
		ssize_t got = read(fd, block + done, n - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got)
			break;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

static uint64_t room_in(int folder_fd) {
	struct statvfs fs;
	uint64_t left;

	if (fstatvfs(folder_fd, &fs))
		return 0;
	left = fs.f_blocks / 10;
	return fs.f_bavail > left ? (fs.f_bavail - left) * fs.f_frsize : 0;
}

int crash_copy(int from, int folder_fd, uint64_t most, int *ret_fd, uint64_t *ret_bytes) {
	int fd = openat(folder_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), r = 0;
	uint64_t bytes = 0, room = room_in(folder_fd), used = 0;
	static char block[BLOCK];
	ssize_t n = 0;

	if (fd < 0)
		return -errno;
	while (!r && bytes < most && used + BLOCK <= room && (n = read_block(from, block, BLOCK)) > 0) {
		if (is_zero(block, (size_t)n)) {
			if (lseek(fd, n, SEEK_CUR) < 0)
				r = -errno;
		} else {
			r = write_all(fd, block, (size_t)n);
			used += (uint64_t)n;
		}
		bytes += (uint64_t)n;
	}
	if (n < 0)
		r = (int)n;
	if (!r && ftruncate(fd, (off_t)bytes))
		r = -errno;
	if (r) {
		close(fd);
		return r;
	}
	*ret_fd = fd;
	*ret_bytes = bytes;
	return 0;
}

/* Names say the time first, so that the least is the oldest. Return: 0: there was one, and it is gone. */
static int remove_oldest(int folder_fd, uint64_t *ret_files, uint64_t *ret_bytes, bool remove) {
	int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	char oldest[CRASH_NAME_SIZE] = "";

	*ret_files = *ret_bytes = 0;
	if (!dir)
		return -errno;
	for (struct dirent *entry; *ret_files < CORES_MAX && (entry = readdir(dir));) {
		struct stat st;

		if (strncmp(entry->d_name, "core.", 5) != 0 || strlen(entry->d_name) >= sizeof(oldest) ||
			fstatat(folder_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
			continue;
		(*ret_files)++;
		*ret_bytes += (uint64_t)st.st_size;
		if (!*oldest || strcmp(entry->d_name, oldest) < 0)
			snprintf(oldest, sizeof(oldest), "%s", entry->d_name);
	}
	closedir(dir);
	if (!remove)
		return 0;
	return !*oldest || unlinkat(folder_fd, oldest, 0) ? -ENOENT : 0;
}

static void make_room(int folder_fd, uint64_t most_files, uint64_t most_bytes) {
	uint64_t files, used;

	for (int i = 0; i < CORES_MAX; i++) {
		if (remove_oldest(folder_fd, &files, &used, false) || (files <= most_files && used <= most_bytes))
			return;
		if (remove_oldest(folder_fd, &files, &used, true))
			return;
	}
}

static int pack(int from, int to, uint64_t most) {
	static char in[BLOCK], out[BLOCK];
	ZSTD_CCtx *zstd = ZSTD_createCCtx();
	uint64_t written = 0;
	bool end = false;
	int r = zstd ? 0 : -ENOMEM;

	if (zstd)
		ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, LEVEL);
	while (!r && !end) {
		ssize_t n = read_block(from, in, sizeof(in));
		ZSTD_inBuffer input = { in, n > 0 ? (size_t)n : 0, 0 };
		size_t left = 1;

		end = n < (ssize_t)sizeof(in);
		r = n < 0 ? (int)n : 0;
		while (!r && (end ? left != 0 : input.pos < input.size)) {
			ZSTD_outBuffer output = { out, sizeof(out), 0 };

			left = ZSTD_compressStream2(zstd, &output, &input, end ? ZSTD_e_end : ZSTD_e_continue);
			written += output.pos;
			r = ZSTD_isError(left) ? -EIO : written > most ? -EFBIG : write_all(to, out, output.pos);
		}
	}
	ZSTD_freeCCtx(zstd);
	return r;
}

int crash_keep(int core_fd, int folder_fd, const char *name, uint64_t most_files, uint64_t most_bytes) {
	int fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), r;
	struct stat st;

	if (fd < 0)
		return -errno;
	r = lseek(core_fd, 0, SEEK_SET) < 0 ? -errno : pack(core_fd, fd, most_bytes);
	if (!r && (fsync(fd) || fstat(fd, &st)))
		r = -errno;
	close(fd);
	if (r)
		(void)!unlinkat(folder_fd, name, 0);
	else
		make_room(folder_fd, most_files, most_bytes);
	return r;
}

int crash_spool(int folder_fd, const char *name, uint64_t start_ns, const char *json) {
	char head[80], writing[CRASH_NAME_SIZE + 8];
	struct stat st;
	int fd, r;

	snprintf(writing, sizeof(writing), ".%s.new", name);
	fd = openat(folder_fd, writing, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	snprintf(head, sizeof(head), "{\"schema\": \"pyspyd.spool/1\", \"start_ns\": %llu}\n",
		(unsigned long long)start_ns);
	r = write_all(fd, head, strlen(head));
	if (!r)
		r = write_all(fd, json, strlen(json));
	if (!r && !fstat(folder_fd, &st) && geteuid() == 0 && fchown(fd, st.st_uid, st.st_gid))
		r = -errno;
	if (!r && fsync(fd))
		r = -errno;
	close(fd);
	if (!r && renameat(folder_fd, writing, folder_fd, name))
		r = -errno;
	if (r)
		(void)!unlinkat(folder_fd, writing, 0);
	else
		(void)!fsync(folder_fd);
	return r;
}
