/* SPDX-License-Identifier: MIT */
/* /proc/PID/task/TID/sched: how long a thread has slept, on kernels that have the file.
 *
 *	se.exec_start                                :      17013151.649328
 *
 * is when it was last on a CPU, in milliseconds of the scheduler's clock, which no other clock is equal to: the
 *caller's own value, read at the same time, tells what it shows now, to a tick. */
#include "engine/proc/files.h"
#include <fcntl.h>
#include <string.h>

#define SCHED_MAX (16U << 10)
#define NS_PER_MS_TEXT 6 /* decimals */

int proc_sched_parse(const char *text, size_t len, uint64_t *ret_exec_start_ns) {
	static const char key[] = "se.exec_start";
	const char *line = memmem(text, len, key, sizeof(key) - 1);
	const char *end = text + len, *at = line ? memchr(line, ':', (size_t)(end - line)) : NULL;
	uint64_t ns = 0;
	int decimals = -1;

	if (!at)
		return -EINVAL;
	for (at++; at < end && *at == ' '; at++)
		;
	for (; at < end && decimals < NS_PER_MS_TEXT; at++) {
		if (*at == '.' && decimals < 0) {
			decimals = 0;
			continue;
		}
		if (*at < '0' || *at > '9' || ns > UINT64_MAX / 100)
			return -EINVAL;
		ns = ns * 10 + (uint64_t)(*at - '0');
		decimals += decimals >= 0;
	}
	if (decimals != NS_PER_MS_TEXT)
		return -EINVAL;
	*ret_exec_start_ns = ns;
	return 0;
}

static int read_own(uint64_t *ret_ns) {
	char *text _free_ = NULL;
	size_t len;
	int r = files_read(AT_FDCWD, "/proc/thread-self/sched", SCHED_MAX, &text, &len);

	return r ? r : proc_sched_parse(text, len, ret_ns);
}

int proc_thread_slept(const struct proc *proc, pid_t tid, uint64_t *ret_ns) {
	char *text _free_ = NULL;
	char name[64];
	uint64_t then, now;
	size_t len;
	int r;

	snprintf(name, sizeof(name), "task/%d/sched", (int)tid);
	r = proc_read_file(proc, name, SCHED_MAX, &text, &len);
	if (!r)
		r = proc_sched_parse(text, len, &then);
	if (!r)
		r = read_own(&now);
	if (!r)
		*ret_ns = now > then ? now - then : 0;
	return r;
}
