/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_PRIVILEGES_H
#define PYSPYD_DAEMON_PRIVILEGES_H

#include "pyspyd/err.h"
#include <stdbool.h>
#include <stddef.h>

/* What the service may do, and no more. */

struct privileges_options {
	bool inet;   /* a sink or the metrics need the network */
	bool strict; /* a system call that is not on the list ends the service; else it fails with EPERM and is logged
		      */
};

/* Before any thread is made: drops every capability but those that the engine uses, from all sets (bounding set too),
 * forbids new ones, makes the process undumpable, closes descriptors that were left open but for `kept_fd` (-1: all).
 * Return: 0; negative errno with a text. */
int privileges_drop(int kept_fd, struct err *err);

/* When everything is open, before work begins: a seccomp list of the system calls that the service makes, for all its
 * threads. Return: 0; -ENOTSUP: not here; negative errno with a text. */
int privileges_seal(const struct privileges_options *options, struct err *err);

#endif
