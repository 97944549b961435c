/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_ORIGINS_H
#define PYSPYD_PIPELINE_ORIGINS_H

#include "engine/leaks/created.h"
#include "pyspyd/err.h"

/* What processes make, and at which Python stack, from the moment on at which they are watched: the eBPF programs'
 * records (sample/bpf_origins.h) with their stacks decoded. Stacks are decoded as they come, since code objects may be
 * gone soon. All calls from one thread at a time. */
struct origins;

/* Return: 0; PYSPYD_E_DENIED, PYSPYD_E_UNSUPPORTED with the reason; -ENOMEM. */
int origins_new(struct origins **ret_origins, struct err *err);
void origins_free(struct origins *origins);

/* Begins to watch a process, with readers of its own. `start_ticks`: which process is meant; 0: whichever has the pid.
 * Return: 0, also where it is watched already; PYSPYD_E_GONE, _DENIED, _UNSUPPORTED, _STARTING; negative errno. */
int origins_watch(struct origins *origins, pid_t pid, uint64_t start_ticks, struct err *err);
void origins_unwatch(struct origins *origins, pid_t pid);

/* Decodes what comes, until the time is over. To be called all the time. */
void origins_tend(struct origins *origins, int timeout_ms);

/* A pause by hand (tests). */
void origins_hold(struct origins *origins, bool held);

/* Appends what was seen to be made in a process and is still there, as far as the kernel's records tell, with kinds
 * that follow from the calls. Return: 0; PYSPYD_E_GONE; negative errno. */
struct origins_state {
	uint64_t watched_ns, left_out;
	uint64_t paused_ns; /* of all the time since origins_new */
};
int origins_things(struct origins *origins, pid_t pid, created_things *things, struct origins_state *ret_state);

/* created_places, with frames. Return: 0; -ENOMEM. */
int origins_places(
	struct origins *origins, pid_t pid, created_things *things, struct pyspyd_origin **ret_places, size_t *ret_n);

#endif
