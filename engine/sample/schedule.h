/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_SCHEDULE_H
#define PYSPYD_SAMPLE_SCHEDULE_H

#include <stdint.h>

/* When to look: one jittered sequence of ticks, the same for all samplers of a session. Pure. */
struct schedule {
	uint64_t start_ns; /* CLOCK_MONOTONIC */
	uint64_t period_ns;
	uint64_t seed;
};

/* The time of tick k: anywhere in the k-th period, so that no program's rhythm can lock to ours. Grows with k. */
uint64_t schedule_time(const struct schedule *schedule, uint64_t tick);

/* The first tick whose period begins after now. */
uint64_t schedule_next(const struct schedule *schedule, uint64_t now_ns);

#endif
