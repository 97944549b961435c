/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_LIMITS_H
#define PYSPYD_PROC_LIMITS_H

#include "engine/proc/proc.h"

/* What a process may use at most, and how near its control groups are to that. */

/* RLIMIT_NOFILE, out of /proc/PID/limits; PROC_UNKNOWN is unlimited. Return: 0; PROC_E_GONE; -EINVAL; negative errno.
 */
int proc_nofile_limit(const struct proc *proc, uint64_t *ret_soft, uint64_t *ret_hard);
int proc_nofile_parse(const char *text, size_t len, uint64_t *ret_soft, uint64_t *ret_hard); /* pure */

/* PROC_UNKNOWN: none, or not to be read. */
struct cgroup_usage {
	/* Of the group, it or one above it, whose limit is the lowest; without a limit the process's own. */
	uint64_t memory_bytes, memory_limit_bytes;
	uint64_t tasks, tasks_limit;
	/* Of the innermost group that has a quota. */
	uint64_t periods, throttled_periods, throttled_ns;
	double memory_some_pct, memory_full_pct; /* over 10 s; negative: unknown */
};

/* Of the groups that a /proc/PID/cgroup text names, below root ("/sys/fs/cgroup", or a captured tree), of both versions
 * of control groups. What cannot be read stays unknown. Return: 0; -ENOMEM. */
int cgroup_usage_read(const char *root, const char *text, size_t len, struct cgroup_usage *ret_usage);
int proc_cgroup_usage(const struct proc *proc, struct cgroup_usage *ret_usage); /* also PROC_E_GONE, negative errno */

#endif
