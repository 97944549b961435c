/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_MARKS_H
#define PYSPYD_LEAKS_MARKS_H

#include "engine/base/map.h"
#include "engine/base/util.h"
#include "engine/base/vec.h"
#include "engine/mem/mem.h"

/* Marks on addresses, one set for each 16 bytes: 1.6 % of the memory in which some are. */

enum {
	MARK_ASKED = 1,
	MARK_TAKEN = 2,
};

struct marks {
	struct map index; /* piece of memory → its number in `pieces` */
	VEC(uint8_t *) pieces;
	uint64_t n; /* addresses with marks */
};

void marks_deinit(struct marks *marks);

unsigned marks_get(const struct marks *marks, raddr addr);

/* Adds to those that are there. Return: 0; -ENOMEM; -ENOSPC: there are marks in too many places. */
int marks_set(struct marks *marks, raddr addr, unsigned mark);

#endif
