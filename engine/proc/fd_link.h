/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_FD_LINK_H
#define PYSPYD_PROC_FD_LINK_H

#include "engine/proc/fds.h"

/* What the entries of /proc/PID/fd tell. Private to engine/proc. Nothing is opened but folders and fdinfo files: never
 * what a descriptor stands for. */

struct fd_link {
	enum fd_kind kind;
	uint64_t inode; /* of a pipe or socket, else 0 */
	bool named;     /* it has a name in a file system: fd_stat tells the kind */
};

/* Reads a link's target ("pipe:[123]", "anon_inode:[eventfd]", "/tmp/x"). Pure. */
void fd_link_parse(const char *target, struct fd_link *ret_link);

/* Kind, inode and device of what has a name, without asking a file server. Return: 0; negative errno. */
int fd_stat(const struct proc *proc, int fd, enum fd_kind *ret_kind, uint64_t *ret_inode, uint64_t *ret_dev);

/* How it was opened. Return: 0; negative errno. */
int fd_access(const struct proc *proc, int fd, bool *ret_read, bool *ret_write);

/* Calls `each` for the numbers of all descriptors, until it returns non-zero, which is returned. Return: 0; negative
 * errno. */
int fd_list(const struct proc *proc, int (*each)(void *userdata, int fd), void *userdata);

#endif
