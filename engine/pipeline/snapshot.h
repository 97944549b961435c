/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_SNAPSHOT_H
#define PYSPYD_PIPELINE_SNAPSHOT_H

#include "engine/proc/proc.h"
#include "pyspyd/snapshot.h"

/* Why a part is not there, in a file: { schema: "pyspyd.reason/1", condition, text }. */
#define SNAPSHOT_REASON "pyspyd.reason/1"

/* A word for what a function gave, and back: PYSPYD_E_*, else -ECANCELED or -EIO. */
const char *snapshot_condition(int r);
int snapshot_condition_of(const char *word);

/* Documents that no command shows by itself. Each return: 0 with *ret_json, the caller's; PYSPYD_E_GONE; negative
 * errno.
 */

/* pyspyd.counters/1: { process, user_s, system_s, rss_bytes, pss_bytes, uss_bytes, swap_bytes, threads, fds,
 * minor_faults, major_faults, private_bytes, memory_available_bytes, tasks[ { tid, name, state, run_s, wait_s } ] }. */
int snapshot_counters(const struct proc *proc, const char *python, char **ret_json);

/* pyspyd.maps/1: { process, maps[ { start, end, offset, permissions, path, build_id } ], incomplete }. */
int snapshot_maps(const struct proc *proc, const char *python, char **ret_json);

/* pyspyd.objects/1 (snapshot_objects.c). Return: also PYSPYD_E_DENIED, _UNSUPPORTED, _STARTING, with a text. */
int snapshot_objects(pid_t pid, const struct pyspyd_core_source *core, bool unmask, char **ret_json, struct err *err);

#endif
