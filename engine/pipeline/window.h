/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_WINDOW_H
#define PYSPYD_PIPELINE_WINDOW_H

#include "engine/base/map.h"
#include "engine/base/vec.h"
#include "engine/sample/sampler.h"

/* What the threads of one process did in the last seconds: counts of samples by thread and stack, in slices that are
 * forgotten one by one. */

#define WINDOW_SLICES 10

struct window_thread {
	pid_t tid;
	uint64_t samples, running, gil, gc, native;
};

struct window_stack {
	pid_t tid;
	uint32_t node; /* of the recorder's profile */
	uint64_t samples;
};

struct window_slice {
	VEC(struct window_stack) stacks;
	struct map index;
};

/* One thread, slice by slice: its sums are asked for at every interval. */
struct window_ring {
	struct window_thread slices[WINDOW_SLICES], sum;
};

struct window {
	struct window_slice slices[WINDOW_SLICES];
	VEC(struct window_ring) threads;
	struct map thread_index;
	size_t now; /* the slice that is being filled */
};

void window_deinit(struct window *window);

/* Adds a sample. Out of memory loses it. */
void window_add(struct window *window, const struct sample *sample, uint32_t node);

/* Ends the current slice and forgets the oldest. */
void window_turn(struct window *window);

/* Sums over the last `slices` complete ones, the one being filled included. */
struct window_thread window_thread_sum(const struct window *window, pid_t tid, size_t slices);

/* How much of a thread's samples one stack is, 0 to 1. */
double window_share(const struct window *window, pid_t tid, uint32_t node);

/* The most sampled stacks of a thread in the last `slices`, most first; at most max. Return: how many there are. */
size_t window_hottest(
	const struct window *window, pid_t tid, size_t slices, struct window_stack *ret_stacks, size_t max);

#endif
