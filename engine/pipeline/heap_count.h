/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_HEAP_COUNT_H
#define PYSPYD_PIPELINE_HEAP_COUNT_H

#include "engine/cpython/tracemalloc.h"
#include "engine/leaks/census.h"
#include "engine/proc/memory.h"
#include "engine/sample/target.h"
#include "pyspyd/heap.h"

/* One count of a heap, with what else is known of a process's memory at that time; and what two of them say. */

struct heap_count {
	struct census census;
	struct py_traced traced; /* without lines: the target does not run tracemalloc */
	memory_groups groups;    /* empty: not to be read */
	uint64_t at_ns, cost_ns; /* CLOCK_BOOTTIME */
};

/* `before` (NULL none) takes the place of options->before; a count that lost much against it is taken once more.
 * Return: 0; PYSPYD_E_GONE, _UNSUPPORTED; -ECANCELED where census->progress said so; negative errno. */
int heap_count_take(struct sample_target *target, const struct census_options *options, const struct heap_count *before,
	struct heap_count *ret_count, struct err *err);
void heap_count_deinit(struct heap_count *count);

/* Whether objects of `before` are missing that the target has not freed, as far as its memory tells. */
bool heap_count_lost(const struct heap_count *before, const struct heap_count *now);

/* Private memory by all mappings. */
uint64_t heap_count_private(const struct heap_count *count);

/* Puts `now` and what grew since `before` (NULL: nothing to compare with) into the public shape; paths are left out.
 * `top`: as in pyspyd_heap_options. *ret_heap is the caller's to pyspyd_heap_free. Return: 0; PYSPYD_E_GONE; -ENOMEM;
 * negative errno. */
int heap_compare(struct sample_target *target, const struct heap_count *before, const struct heap_count *now,
	size_t top, struct pyspyd_heap **ret_heap);

/* Looks for who keeps the containers and types of `heap`, which was made of `now`, taken with CENSUS_KEEP_PLACES.
 * Return: as heap_compare. */
int heap_find_keepers(struct sample_target *target, const struct heap_count *now, struct pyspyd_heap *heap);

#endif
