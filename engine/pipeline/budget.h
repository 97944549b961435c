/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_BUDGET_H
#define PYSPYD_PIPELINE_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

/* How often to sample, and to look at counters, so that pyspyd itself uses no more of a CPU than it was given. Pure:
 * times and what was used are arguments. It gives way within one window, and comes back slowly. */

#define BUDGET_WINDOW_NS 10000000000ULL
#define BUDGET_GRACE_WINDOWS 3 /* at the start, when everything is looked at for the first time: not judged */
#define BUDGET_RATE_LOW 5.0    /* before samples become fewer than that, intervals become longer */
#define BUDGET_RATE_MIN 1.0
#define BUDGET_STRETCH_MAX 8

struct budget {
	double limit_percent; /* of one core; 0: none */
	double asked_hz;
	double rate_hz;      /* as it should be now */
	unsigned stretch;    /* so many times the interval between two reports, as it should be now */
	double used_percent; /* of the last window */
	unsigned over;       /* windows in a row that were beyond the limit */
	unsigned under;      /* … far below it */
	unsigned windows;    /* since the start */
	uint64_t began_ns, began_cpu_ns;
};

void budget_init(struct budget *budget, double limit_percent, double asked_hz);

/* `cpu_ns`: what the process has used since it started. Return: whether rate_hz has changed (stretch may
 * have as well). */
bool budget_add(struct budget *budget, uint64_t now_ns, uint64_t cpu_ns);

#endif
