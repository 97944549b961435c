/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WAITS_REMEMBER_H
#define PYSPYD_WAITS_REMEMBER_H

#include "engine/waits/scan.h"

/* What earlier looks knew of the holders of locks. */

struct remembered {
	uint64_t lock, waiter, stamp; /* keys of the nodes; the waiter's stamp */
	pid_t holder_tid;
	char holder[64];
};

typedef VEC(struct remembered) remembered_vec;

struct wait_memory { /* zeroed memory is an empty one */
	remembered_vec now, before;
};

/* Tells the memory of a waiter at a plain lock, whose node has its edges already. Where nobody holds the lock any more
 * because the holder of before has ended, the node becomes one that nobody can help. Return: why that is inferred; NULL
 * where it did not. */
const char *scan_remember(struct wait_scan *scan, struct wait_memory *memory, const struct wait_view *view,
	const struct view_thread *waiter, uint32_t lock);

/* A new look begins. */
void wait_memory_turn(struct wait_memory *memory);
void wait_memory_deinit(struct wait_memory *memory);

#endif
