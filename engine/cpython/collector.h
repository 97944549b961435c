/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_COLLECTOR_H
#define PYSPYD_CPYTHON_COLLECTOR_H

#include "engine/cpython/runtime.h"

/* Counters of the garbage collector, as gc.get_stats() gives them: a few small reads. */

#define PY_GENERATIONS 3

struct py_collector {
	/* since the start, the young generation first; UINT64_MAX where the owner of this struct could not read it */
	struct {
		uint64_t collections, collected, uncollectable;
	} generations[PY_GENERATIONS];
	bool collecting; /* right now */
	bool enabled;
};

/* Of the main interpreter. Return: 0; PY_E_TYPE: not known for this build (3.6 without symbols); MEM_E_FAULT;
 * MEM_E_GONE; negative errno. */
int py_collector_read(const struct py_runtime *rt, struct py_collector *ret_collector);

#endif
