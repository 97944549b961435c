/* SPDX-License-Identifier: MIT */
/* The census of a heap of mimalloc. All objects and tables are blocks of its pages; each slice of a page counts as a
 * pool, for what is kept of places. In free-threaded builds the heap that a block was asked from says whether it may be
 * an object. */
#include "engine/leaks/follow.h"

#include <errno.h>

#define LARGE_BYTES 512 /* what pymalloc would not hold */
#define PROGRESS_BYTES (1U << 20)

static int modules_of(const struct py_runtime *rt, raddr *ret_modules) {
	py_interp_vec interps = { 0 };
	int r = py_interps_read(rt, &interps);

	if (!r)
		r = interps.n
			? mem_read_u64(rt->reader.mem,
				  interps.items[interps.n - 1].addr + rt->reader.layout.interp_modules, ret_modules)
			: PY_E_TYPE;
	vec_free(&interps);
	return r > 0 && r != MEM_E_GONE ? PY_E_TYPE : r;
}

static int mark_page(struct census_run *run, const struct mimalloc_page *page) {
	raddr slice = page->start / MIMALLOC_SLICE_BYTES * MIMALLOC_SLICE_BYTES;

	for (; slice < page->start + page->span; slice += MIMALLOC_SLICE_BYTES) {
		const struct region *region = regions_find(&run->regions, slice);

		if (!region || !region->heap)
			return 0;
		if (region_set_pool(&run->regions.items.items[run->regions.last], slice, run->pool_bytes))
			return -ENOMEM;
	}
	return 0;
}

static int mark_pages(struct census_run *run, const struct mimalloc *heap) {
	int r = 0;

	for (size_t i = 0; !r && i < heap->pages.n; i++) {
		r = mark_page(run, &heap->pages.items[i]);
		run->all_bytes += heap->pages.items[i].span;
	}
	return r;
}

/* Return: 0 and whether the census before knew it; -ENOMEM. */
static int keep(struct census_run *run, raddr block, bool *ret_fresh) {
	raddr slice = block / MIMALLOC_SLICE_BYTES * MIMALLOC_SLICE_BYTES;
	struct census_places *places = run->census->places;

	if (places && (!places->pools.n || places->pools.items[places->pools.n - 1] != slice) &&
		places_add_pool(places, slice))
		return -ENOMEM;
	if (places)
		places_set_used(places, block);
	run->before_pool = run->before ? places_find_pool(run->before, slice) : PLACES_NONE;
	*ret_fresh = run->before_pool == PLACES_NONE || !places_was_used(run->before, run->before_pool, block);
	return 0;
}

static int progress(struct census_run *run, uint64_t bytes) {
	uint64_t before = run->done_bytes / PROGRESS_BYTES;

	run->done_bytes += bytes;
	return run->done_bytes / PROGRESS_BYTES == before ? 0 : census_progress(run);
}

static int count_block(void *userdata, const struct mimalloc_block *block) {
	struct census_run *run = userdata;
	uint64_t taken = block->size;
	uint32_t number = TYPE_NONE, offset;
	bool fresh = true;
	int r = keep(run, block->addr, &fresh);

	if (!r && (block->tag != MIMALLOC_MEM || !(run->py->flavour & LAYOUT_FREE_THREADED)))
		r = object_recognise(run, block->bytes, block->len, block->size, &number, &offset);
	if (r)
		return r;
	if (number == TYPE_NONE) {
		run->census->other_bytes += block->size;
		return progress(run, block->size);
	}
	r = container_add(run, block->addr + offset, number, block->bytes + offset, block->len - offset, &taken);
	if (r)
		return r;
	census_count(&run->types.items.items[number], block->addr + offset, taken, fresh);
	run->census->large += block->size > LARGE_BYTES;
	return progress(run, block->size);
}

int census_mimalloc(struct census_run *run, const struct py_runtime *rt, struct mimalloc *heap) {
	struct mimalloc_totals totals;
	raddr modules;
	int r = modules_of(rt, &modules);

	if (!r)
		r = mimalloc_find(&rt->reader, &run->regions, modules, heap);
	if (r)
		return r;
	run->heap = heap;
	run->types.in_pools = true;
	r = mark_pages(run, heap);
	if (!r)
		r = mimalloc_walk(&rt->reader, heap, count_block, run, &totals);
	if (r)
		return r;
	run->census->pools = totals.pages;
	run->census->pool_bytes = totals.page_bytes;
	run->census->blocks = totals.blocks;
	run->census->free_bytes = totals.free_bytes;
	run->census->moved = totals.moved;
	run->census->incomplete |= heap->incomplete;
	return 0;
}
