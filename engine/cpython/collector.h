/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_COLLECTOR_H
#define PYSPYD_CPYTHON_COLLECTOR_H

#include "engine/cpython/runtime.h"

/* Counters of the garbage collector, as gc.get_stats() gives them: a few small reads. */

#define PY_GENERATIONS 3

struct py_collector {
	struct {
		uint64_t collections, collected, uncollectable; /* since the start */
	} generations[PY_GENERATIONS];                          /* the young one first */
	bool collecting;                                        /* right now */
	bool enabled;
};

/* Of the main interpreter. Return: 0; PY_E_TYPE: not known for this version; MEM_E_FAULT; MEM_E_GONE; negative errno.
 */
int py_collector_read(const struct py_runtime *rt, struct py_collector *ret_collector);

#endif
