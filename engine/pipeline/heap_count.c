/* SPDX-License-Identifier: MIT */
/* A count: the census, then what the target's own tracemalloc says, then the kernel's account of its memory. */
#include "engine/pipeline/heap_count.h"

#include "engine/base/clock.h"

#define LOST_PART 10 /* of the bytes: more than that is much */

static int take_rest(struct sample_target *target, struct heap_count *count) {
	int r = py_traced_read(&target->rt, &count->traced);

	if (r == -ENOMEM || r == MEM_E_GONE)
		return r;
	r = memory_groups_read(&target->proc, &count->groups);
	return r == -ENOMEM ? r : r == PROC_E_GONE ? MEM_E_GONE : 0;
}

static int take_once(struct sample_target *target, const struct census_options *options, struct heap_count *ret_count,
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

static uint64_t fell(uint64_t before, uint64_t now) {
	return before > now ? before - now : 0;
}

/* What is freed is free in a pool, or given back to the kernel. (The C library may keep it: then nothing is lost but
 * the time of a second count.) */
bool heap_count_lost(const struct heap_count *before, const struct heap_count *now) {
	const struct census *old = &before->census, *new = &now->census;
	uint64_t freed =
		fell(new->free_bytes, old->free_bytes) + fell(heap_count_private(before), heap_count_private(now));

	return fell(fell(old->bytes, new->bytes), freed) > old->bytes / LOST_PART;
}

int heap_count_take(struct sample_target *target, const struct census_options *options, const struct heap_count *before,
	struct heap_count *ret_count, struct err *err) {
	struct census_options with = *options;
	struct heap_count count, again;
	int r;

	if (before)
		with.before = &before->census;
	r = take_once(target, &with, &count, err);
	if (!r && before && heap_count_lost(before, &count)) {
		r = take_once(target, &with, &again, err);
		heap_count_deinit(&count);
		count = again;
	}
	if (!r)
		*ret_count = count;
	return r;
}

uint64_t heap_count_private(const struct heap_count *count) {
	uint64_t bytes = 0;

	vec_foreach (group, &count->groups)
		bytes += group->bytes;
	return bytes;
}

void heap_count_deinit(struct heap_count *count) {
	census_deinit(&count->census);
	py_traced_deinit(&count->traced);
	memory_groups_free(&count->groups);
}
