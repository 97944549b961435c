/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROFILE_PROFILE_H
#define PYSPYD_PROFILE_PROFILE_H

#include "engine/base/intern.h"
#include "engine/base/map.h"
#include "engine/base/vec.h"
#include "pyspyd/dump.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Samples, summed: interned strings, frames, stacks as a tree (each node is one stack: its frame called by its
 * parent's), and counts per thread and stack. Grows with what is different, not with time. */

struct profile_frame {
	uint32_t function; /* interned: qualified name where there is one */
	uint32_t file;
	uint32_t module;
	int line;
	enum pyspyd_lang lang;
};

struct profile_node {
	uint32_t parent; /* node; 0 is the root of all */
	uint32_t frame;
};

struct profile_thread {
	pid_t pid, tid;
	uint32_t name;         /* interned */
	uint32_t process_name; /* interned */
};

struct profile_count {
	uint32_t thread;
	uint32_t node;
	uint64_t samples;
	uint64_t ns; /* what the samples stand for: samples × period, or time on CPU where that was measured */
};

enum profile_kind {
	PROFILE_WALL,
	PROFILE_CPU,
	PROFILE_GIL,
	PROFILE_OFFCPU, /* samples are sleeps, of any length: ns says how long they were */
	PROFILE_ALLOC,  /* samples are allocations, as many as there are likely to have been: ns says how many bytes */
};

struct profile {
	struct intern strings;
	VEC(struct profile_frame) frames;
	VEC(struct profile_node) nodes; /* [0] is the root: no frame */
	VEC(struct profile_thread) threads;
	VEC(struct profile_count) counts;
	struct map frame_index, node_index, thread_index, count_index;

	uint64_t start_real_ns;
	uint64_t duration_ns;
	uint64_t period_ns;
	enum profile_kind kind;
	struct pyspyd_accuracy accuracy; /* shown with every export */
};

int profile_new(struct profile **ret_profile);
void profile_free(struct profile *profile);

/* Each returns the id of what is added or was there already; UINT32_MAX when out of memory, or at the limit
 * (LIMIT_NODES). */
uint32_t profile_add_frame(struct profile *profile, const struct profile_frame *frame);
uint32_t profile_add_node(struct profile *profile, uint32_t parent, uint32_t frame);
uint32_t profile_add_thread(struct profile *profile, const struct profile_thread *thread);

/* Counts samples of one stack of one thread. Return: 0, -ENOMEM. */
int profile_count(struct profile *profile, uint32_t thread, uint32_t node, uint64_t samples, uint64_t ns);

/* The frames of a node, outermost first, at most max. Return: how many there are (may be more than max). */
size_t profile_stack(const struct profile *profile, uint32_t node, uint32_t *frames, size_t max);

/* What a count weighs in a picture: samples; of time off CPU, microseconds; of allocations, bytes. */
uint64_t profile_weight(const struct profile *profile, const struct profile_count *count);

/* Forgets the counts, keeps what is interned. */
void profile_reset_counts(struct profile *profile);

/* Approximate memory held, in bytes. */
size_t profile_bytes(const struct profile *profile);

#endif
