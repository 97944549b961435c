/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_WAITING_H
#define PYSPYD_PIPELINE_WAITING_H

#include "engine/pipeline/watched.h"
#include "pyspyd/waits.h"

/* The waiting side of a watch: looks at the wait graphs of its processes, as often as their cost allows, and an eye on
 * who holds the GIL in between. */

struct waiting;

/* `park` as in pyspyd_watch_options. Return: 0; PYSPYD_E_USAGE; -ENOMEM. */
int waiting_new(const char *const *park, struct waiting **ret_waiting, struct err *err);
void waiting_free(struct waiting *waiting);

/* To be called between two intervals, a few times a second: follows the GIL of one process after the other. */
void waiting_tend(struct waiting *waiting, struct watched *const *watched, size_t n, uint64_t now_ns);

/* At an interval: looks at all processes, in one graph, where it is time to. Afterwards waiting_graph and waited_gil
 * speak of this interval. Return: 0; -ENOMEM. */
int waiting_interval(struct waiting *waiting, struct watched *const *watched, size_t n, uint64_t now_ns);

/* The graph of this interval, confirmed by the look before; NULL where there was no look. *ret_alive as in
 * detect_input. */
const struct pyspyd_waits *waiting_graph(const struct waiting *waiting, const bool **ret_alive);

/* The longest hold of the GIL, without a break, that was seen in this interval. */
struct waited_gil {
	pid_t holder; /* 0: none to speak of */
	uint64_t held_ns;
	uint32_t waiters;      /* the most that waited at one time */
	double switches_per_s; /* negative: not known */
};
struct waited_gil waited_gil(const struct watched *watched);

/* Lets go of what is kept for a process; before its target is freed. */
void waiting_forget(struct waiting *waiting, struct watched *watched);

#endif
