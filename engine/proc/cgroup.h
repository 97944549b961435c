/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_CGROUP_H
#define PYSPYD_PROC_CGROUP_H

#include <stddef.h>

/* Who runs a process, out of its /proc/PID/cgroup. Private to engine/proc. Each string is "" where there is none, and
 * the caller's to free. */
struct cgroup_names {
	char *path;      /* in the unified hierarchy, or in systemd's where the unified one says only "/" */
	char *container; /* 64 hex digits, or a name (lxc, nspawn) */
	char *unit;      /* the innermost service or scope */
};

/* Pure. Lines that are none are passed over. Return: 0; -ENOMEM. */
int cgroup_parse(const char *text, size_t len, struct cgroup_names *ret_names);

#endif
