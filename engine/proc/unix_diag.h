/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_UNIX_DIAG_H
#define PYSPYD_PROC_UNIX_DIAG_H

#include "engine/proc/fds.h"

/* A unix socket of our own network namespace, by its inode, asked of the kernel (sock_diag, Linux man 7). Private to
 * engine/proc. Return: 0; -ENOENT: no such socket, or a kernel without unix_diag; negative errno. */
int unix_diag_read(uint64_t inode, struct proc_socket *ret_socket);

#endif
