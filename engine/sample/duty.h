/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_DUTY_H
#define PYSPYD_SAMPLE_DUTY_H

#include <stdbool.h>
#include <stdint.h>

/* Who looks at everything that a process does slows it down. This says when to look and when not, so that what it costs
 * the process stays below a share of what it uses without: time of its own earns credit, what the looking takes is paid
 * from it. Looking begins when there is enough for a while, and ends when nothing is left. Who can pay for all of it is
 * looked at all the time. Pure. */
struct duty {
	double limit; /* share of the process's own time; 0: none, it is on all the time */
	uint64_t start_ns;
	double credit_ns, start_credit_ns;
	uint64_t used_ns, spent_ns; /* as they were told last */
	uint64_t random;
	bool on;
};

/* `start_ns`: of the process's own time that earns what looking begins with, on average; it varies by a half, so that
 * no rhythm of the process can hide from it. `used_ns`, `spent_ns`: as in duty_step. It begins on, with that credit. */
void duty_init(struct duty *duty, double limit_pct, uint64_t start_ns, uint64_t used_ns, uint64_t spent_ns);

/* Takes account of what has come since: CPU time of the process, looking included, and how much of it was for that;
 * both since any beginning. Return: whether to look from now on. */
bool duty_step(struct duty *duty, uint64_t used_ns, uint64_t spent_ns);

#endif
