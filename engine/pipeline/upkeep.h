/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_UPKEEP_H
#define PYSPYD_PIPELINE_UPKEEP_H

#include "engine/pipeline/budget.h"
#include "pyspyd/watch.h"

/* What a watch costs itself, and what it does about it. */

struct upkeep {
	struct budget budget;
	uint64_t memory_budget_bytes;
	uint64_t last_ns, last_cpu_ns;
	uint64_t forgot_ns; /* when memory was given back last; 0: never */
	unsigned over_memory;
};

void upkeep_init(struct upkeep *upkeep, const struct pyspyd_watch_options *options, double rate_hz);

/* One interval. Fills CPU, memory, rates and over_budget. Return: a set of these. */
enum { UPKEEP_RATE = 1, UPKEEP_FORGET = 2 }; /* sample at budget.rate_hz; forget what can be read again */
unsigned upkeep_interval(struct upkeep *upkeep, uint64_t now_ns, struct pyspyd_watch_health *health);

#endif
