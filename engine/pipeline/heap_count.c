/* SPDX-License-Identifier: MIT */
/* A count: the census, then what the target's own tracemalloc says, then the kernel's account of its memory. */
#include "engine/pipeline/heap_count.h"

#include "engine/base/clock.h"

static int take_rest(struct sample_target *target, struct heap_count *count) {
	int r = py_traced_read(&target->rt, &count->traced);

	if (r == -ENOMEM || r == MEM_E_GONE)
		return r;
	r = memory_groups_read(&target->proc, &count->groups);
	return r == -ENOMEM ? r : r == PROC_E_GONE ? MEM_E_GONE : 0;
}

int heap_count_take(struct sample_target *target, const struct census_options *options, struct heap_count *ret_count,
	struct err *err) {
	struct heap_count count = { .at_ns = clock_boot_ns() };
	proc_map_vec maps = { 0 };
	int r = proc_maps_read(&target->proc, &maps);

	if (r == PROC_E_GONE)
		return PYSPYD_E_GONE;
	if (!r)
		r = census_take(&target->rt, &maps, options, &count.census, err);
	if (!r)
		r = take_rest(target, &count);
	proc_maps_free(&maps);
	if (r) {
		heap_count_deinit(&count);
		return r == MEM_E_GONE ? PYSPYD_E_GONE : r;
	}
	count.cost_ns = clock_boot_ns() - count.at_ns;
	*ret_count = count;
	return 0;
}

void heap_count_deinit(struct heap_count *count) {
	census_deinit(&count->census);
	py_traced_deinit(&count->traced);
	memory_groups_free(&count->groups);
}
