/* SPDX-License-Identifier: MIT */
/* /proc/locks (Linux man 5 proc_locks).
 *
 *	1: POSIX  ADVISORY  WRITE 1234 00:2a:567 0 EOF
 *	1: -> POSIX  ADVISORY  WRITE 1235 00:2a:567 0 EOF
 *	2: OFDLCK ADVISORY  READ -1 08:01:12 128 255
 *	3: LEASE  BREAKING  READ 77 08:01:9 0 EOF
 *
 * A line with an arrow waits for the one with its id above; since Linux 5.17 more blanks before the arrow show a waiter
 * that waits behind another. The pid is that of the process which locked: of a flock it may have ended while a child
 * that got the descriptor still holds it. Locks of processes outside our PID namespace are not shown by the kernel. The
 * device is the super block's, which on btrfs and some overlays is not the one that stat shows. Kinds that are none of
 * ours (ACCESS, DELEG) and locks without a file are left out. */
#include "engine/proc/fds.h"

#include "engine/proc/files.h"
#include "engine/proc/text.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

#define LOCKS_MAX_BYTES (64U << 20)

static bool take_word(struct text *t, const char *word) {
	size_t n = strlen(word);

	if (text_left(t) < n || memcmp(t->at, word, n))
		return false;
	t->at += n;
	return true;
}

static void skip_word(struct text *t) {
	while (t->at < t->end && *t->at != ' ')
		t->at++;
	text_blanks(t);
}

static bool parse_kind(struct text *t, struct file_lock *lock) {
	if (take_word(t, "FLOCK "))
		lock->kind = FILE_LOCK_FLOCK;
	else if (take_word(t, "POSIX "))
		lock->kind = FILE_LOCK_POSIX;
	else if (take_word(t, "OFDLCK "))
		lock->kind = FILE_LOCK_OFD;
	else if (take_word(t, "LEASE "))
		lock->kind = FILE_LOCK_LEASE;
	else
		return false;
	text_blanks(t);
	return true;
}

/* A negative one is of another host (NFS), or of a lock that belongs to an open file. */
static bool parse_pid(struct text *t, struct file_lock *lock) {
	bool negative = text_char(t, '-');

	if (!text_int(t, &lock->pid))
		return false;
	if (negative)
		lock->pid = -1;
	return text_char(t, ' ');
}

static bool parse_file(struct text *t, struct file_lock *lock) {
	uint64_t major_no, minor_no;

	if (!text_hex(t, &major_no) || !text_char(t, ':') || !text_hex(t, &minor_no) || !text_char(t, ':') ||
		major_no > UINT32_MAX || minor_no > UINT32_MAX)
		return false;
	lock->dev = makedev((unsigned)major_no, (unsigned)minor_no);
	return text_u64(t, &lock->inode) && text_char(t, ' ');
}

static bool parse_range(struct text *t, struct file_lock *lock) {
	if (!text_u64(t, &lock->start) || !text_char(t, ' '))
		return false;
	if (take_word(t, "EOF"))
		lock->end = UINT64_MAX;
	else if (!text_u64(t, &lock->end) || lock->end < lock->start)
		return false;
	return !text_left(t);
}

/* Return: 0; -ENOENT: none of ours; -EINVAL. */
static int parse_line(struct text t, struct file_lock *lock) {
	if (!text_u64(&t, &lock->id) || !text_char(&t, ':'))
		return -EINVAL;
	text_blanks(&t);
	lock->waits = take_word(&t, "->");
	text_blanks(&t);
	if (!parse_kind(&t, lock))
		return -ENOENT;
	skip_word(&t); /* ADVISORY, MANDATORY, ACTIVE, … */
	lock->write = take_word(&t, "WRITE ") || take_word(&t, "RW ");
	if (!lock->write)
		skip_word(&t);
	text_blanks(&t);
	if (!parse_pid(&t, lock))
		return -EINVAL;
	if (take_word(&t, "<none>"))
		return -ENOENT;
	return parse_file(&t, lock) && parse_range(&t, lock) ? 0 : -EINVAL;
}

int file_locks_parse(const char *text, size_t len, file_lock_vec *ret_locks) {
	struct text t = text_of(text, len), line;
	file_lock_vec locks = { 0 };
	int r = 0;

	while (!r && text_line(&t, &line)) {
		struct file_lock lock = { 0 };

		r = parse_line(line, &lock);
		if (!r)
			r = vec_push(&locks, lock);
		else if (r == -ENOENT)
			r = 0;
	}
	if (r) {
		vec_free(&locks);
		return r;
	}
	*ret_locks = locks;
	return 0;
}

int file_locks_read(const char *root, file_lock_vec *ret_locks) {
	_close_ int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_free_ char *data = NULL;
	size_t len;
	int r;

	if (root_fd < 0)
		return -errno;
	r = files_read(root_fd, "locks", LOCKS_MAX_BYTES, &data, &len);
	if (r)
		return r;
	return len == LOCKS_MAX_BYTES ? -E2BIG : file_locks_parse(data, len, ret_locks);
}
