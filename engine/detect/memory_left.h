/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DETECT_MEMORY_LEFT_H
#define PYSPYD_DETECT_MEMORY_LEFT_H

#include "engine/detect/detect.h"
#include "engine/leaks/trend.h"

/* How long the memory of a process lasts, as fast as it is used up now: until the limit of the control group, or what
 * the machine has left. Zeroed memory is a fresh one. */

struct memory_left {
	struct runway group, own; /* what the control group uses; what the process alone has */
	bool begun;
};

/* The limit that comes first. */
struct memory_limit {
	uint64_t bytes;   /* that the process, or its control group, may have */
	bool machine;     /* it is the machine's, not a control group's */
	uint64_t left_ns; /* UINT64_MAX: it does not get nearer */
};

/* One look. `window_ns`: the time for which it must grow; that of the first look counts. */
void memory_left_look(struct memory_left *left, const struct detect_input *input, uint64_t window_ns);

/* The limit that the process meets first if it goes on as it does now, whatever others do. Return: whether there is
 * one; else nothing is known of limits. */
bool memory_left_limit(
	const struct memory_left *left, const struct detect_process *process, struct memory_limit *ret_limit);

#endif
