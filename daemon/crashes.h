/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_CRASHES_H
#define PYSPYD_DAEMON_CRASHES_H

#include "daemon/status.h"
#include "pyspyd/store.h"
#include <jansson.h>

/* Findings that the crash handler has left in its folder: into the store, and out of the folder. One about a process
 * whose crash was told of already goes on with that finding. Return: how many there were; negative errno: the store
 * takes nothing, they stay where they are. No folder: none. */
int crashes_take(const char *folder, struct status *status, struct pyspyd_store *store);

/* A finding about a process that is gone: as new and as resolved; where it was told of before, once more as resolved.
 * `start_ns`: of the process; 0: not known. Return: 0; negative errno: the store takes nothing. */
int crashes_put(struct status *status, struct pyspyd_store *store, json_t *finding, uint64_t start_ns, bool told_of);

/* A finding of the engine, before it is kept. Return: 1: its crash was told of already by what the core has, and that
 * finding has what this one adds: it is not to be kept; 0: it is; negative errno: the store cannot say. */
int crashes_join(struct status *status, struct pyspyd_store *store, const struct pyspyd_event *event);

/* The last word about the crash of the process that had this pid when it died. Return: 1 and *ret_finding, the
 * caller's, and when the process started; 0: there is none; negative errno. */
int crashes_find(struct pyspyd_store *store, pid_t pid, uint64_t died_ns, json_t **ret_finding, uint64_t *ret_start_ns);

#endif
