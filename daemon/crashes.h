/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_CRASHES_H
#define PYSPYD_DAEMON_CRASHES_H

#include "daemon/status.h"
#include "pyspyd/store.h"

/* Findings that the crash handler has left in its folder: into the store, and out of the folder. One about a process
 * whose crash was told of already goes on with that finding. Return: how many there were; negative errno: the store
 * takes nothing, they stay where they are. No folder: none. */
int crashes_take(const char *folder, struct status *status, struct pyspyd_store *store);

#endif
