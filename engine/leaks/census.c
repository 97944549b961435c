/* SPDX-License-Identifier: MIT */
/* A census goes over the heap twice: the heads of all pieces that may be pools, which tells where the pools are; then
 * the pools, a mebibyte at a time. Third comes what lies outside them (follow.c). Heaps of mimalloc have a way of their
 * own (census_mimalloc.c). */
#include "engine/leaks/census.h"

#include "engine/leaks/follow.h"
#include "engine/leaks/pools.h"

#define HEADS_BATCH 512
#define PENDING_MAX 65536               /* addresses that wait to be asked while pools are read */
#define PIECES_MAX (UINT64_C(16) << 20) /* that may be pools: 256 GiB of memory */

int census_progress(const struct census_run *run) {
	const struct census_options *options = run->options;

	return options->progress &&
			options->progress(options->userdata, min_of(run->done_bytes, run->all_bytes), run->all_bytes)
		? -ECANCELED
		: 0;
}

/* When the samples are full, every other one is dropped, and half as many are taken from then on. */
static void add_sample(struct heap_type *type, raddr addr) {
	if (!type->stride)
		type->stride = 1;
	if (type->fresh % type->stride)
		return;
	if (type->samples_n == HEAP_SAMPLES) {
		for (size_t i = 0; i < HEAP_SAMPLES / 2; i++)
			type->samples[i] = type->samples[2 * i];
		type->samples_n = HEAP_SAMPLES / 2;
		type->stride *= 2;
	}
	type->samples[type->samples_n++] = addr;
}

void census_count(struct heap_type *type, raddr addr, uint64_t bytes, bool fresh) {
	type->count++;
	type->bytes += bytes;
	if (!fresh)
		return;
	add_sample(type, addr);
	type->fresh++;
}

static raddr pool_after(raddr addr, uint32_t pool_bytes) {
	return (addr + pool_bytes - 1) / pool_bytes * pool_bytes;
}

/* Asks some pieces in a row. What cannot be read is none. */
static int mark_pools(struct census_run *run, struct region *region, raddr first, size_t n) {
	uint8_t heads[HEADS_BATCH][POOL_HEAD_BYTES] = { 0 };
	struct mem_range ranges[HEADS_BATCH];
	struct pool pool;
	size_t done;
	int r;

	for (size_t i = 0; i < n; i++)
		ranges[i] = (struct mem_range){ first + i * run->pool_bytes, POOL_HEAD_BYTES, heads[i] };
	for (size_t at = 0; at < n; at += done + 1) {
		r = mem_read_many(run->py->mem, ranges + at, n - at, &done);
		if (r && r != MEM_E_FAULT)
			return r;
		for (size_t i = at; i < at + done; i++)
			if (pool_recognise(heads[i], ranges[i].addr, run->pool_bytes, &pool) &&
				region_set_pool(region, ranges[i].addr, run->pool_bytes))
				return -ENOMEM;
	}
	return 0;
}

/* Asks all pieces of a region, `left` at most; what is beyond that is no part of it any more. */
static int find_in(struct census_run *run, struct region *region, uint64_t *left) {
	raddr at = pool_after(region->start, run->pool_bytes);
	uint64_t pieces = at < region->end ? (region->end - at) / run->pool_bytes : 0;

	if (pieces > *left) {
		run->census->incomplete = true;
		pieces = *left;
		region->end = at + pieces * run->pool_bytes;
	}
	*left -= pieces;
	while (pieces) {
		size_t n = min_of(pieces, (uint64_t)HEADS_BATCH);
		int r = mark_pools(run, region, at, n);

		if (!r)
			r = census_progress(run);
		if (r)
			return r;
		at += n * run->pool_bytes;
		pieces -= n;
	}
	return 0;
}

static int find_pools(struct census_run *run) {
	uint64_t left = PIECES_MAX;

	vec_foreach (region, &run->regions.items) {
		int r = region->heap ? find_in(run, region, &left) : 0;

		if (r)
			return r;
		if (region->heap)
			run->all_bytes += region->end - region->start;
	}
	run->span_bytes = 2 * run->all_bytes;
	return 0;
}

static bool is_fresh(const struct census_run *run, raddr block) {
	return run->before_pool == PLACES_NONE || !places_was_used(run->before, run->before_pool, block);
}

static int count_block(struct census_run *run, raddr addr, const uint8_t *bytes, uint32_t size) {
	uint32_t number, offset;
	uint64_t taken = size;
	struct heap_type *type;
	int r = object_recognise(run, bytes, size, size, &number, &offset);

	if (r)
		return r;
	if (number == TYPE_NONE) {
		run->census->other_bytes += size;
		return follow_words(run, bytes, size);
	}
	r = container_add(run, addr + offset, number, bytes + offset, size - offset, &taken);
	if (r)
		return r;
	type = &run->types.items.items[number];
	census_count(type, addr + offset, taken, is_fresh(run, addr));
	if (type->kind == HEAP_TEXT || type->head.flags & TYPE_LONG)
		return 0;
	return follow_words(run, bytes, size);
}

static int count_blocks(
	struct census_run *run, raddr addr, const uint8_t *bytes, const struct pool *pool, const bool *free) {
	struct census_places *places = run->census->places;
	int r = places ? places_add_pool(places, addr) : 0;

	run->before_pool = run->before ? places_find_pool(run->before, addr) : PLACES_NONE;
	for (uint32_t i = 0; !r && i < pool->begun; i++) {
		size_t at = POOL_HEAD_BYTES + (size_t)i * pool->size;

		if (free[i])
			continue;
		if (places)
			places_set_used(places, addr + at);
		r = count_block(run, addr + at, bytes + at, pool->size);
	}
	return r;
}

static int count_pool(struct census_run *run, raddr addr, const uint8_t *bytes) {
	bool free[POOL_BLOCKS_MAX];
	struct pool pool;

	if (!pool_recognise(bytes, addr, run->pool_bytes, &pool)) {
		run->census->moved++;
		return 0;
	}
	if (!pool_mark_free(bytes, addr, run->pool_bytes, &pool, free))
		run->census->moved++;
	run->census->pools++;
	run->census->blocks += pool.used;
	run->census->free_bytes += run->pool_bytes - POOL_HEAD_BYTES - (uint64_t)pool.used * pool.size;
	return count_blocks(run, addr, bytes, &pool, free);
}

/* Reads some pools in a row at once. */
static int count_row(struct census_run *run, raddr first, size_t n) {
	int r = mem_read(run->py->mem, first, run->buf, n * run->pool_bytes);

	if (r == MEM_E_FAULT) {
		run->census->moved += n;
		return 0;
	}
	for (size_t i = 0; !r && i < n; i++)
		r = count_pool(run, first + i * run->pool_bytes, run->buf + i * run->pool_bytes);
	return !r && run->candidates.n + run->spans.n >= PENDING_MAX ? follow_all(run) : r;
}

static int count_region(struct census_run *run, const struct region *region) {
	raddr at = pool_after(region->start, run->pool_bytes), end = region->end;

	while (at < end) {
		size_t n = 0;
		int r;

		while (n < CENSUS_READ_BYTES / run->pool_bytes && at + n * run->pool_bytes < end &&
			region_is_pool(region, at + n * run->pool_bytes, run->pool_bytes))
			n++;
		r = n ? count_row(run, at, n) : 0;
		if (!r && n)
			r = census_progress(run);
		if (r)
			return r;
		at += max_of(n, (size_t)1) * run->pool_bytes;
		run->done_bytes += max_of(n, (size_t)1) * run->pool_bytes;
	}
	return 0;
}

static int count_all(struct census_run *run) {
	vec_foreach (region, &run->regions.items) {
		uint64_t done = run->done_bytes;
		int r = region->bits ? count_region(run, region) : 0;

		if (r)
			return r;
		if (region->heap)
			run->done_bytes = done + region->end - region->start;
	}
	return follow_all(run);
}

static int finish(struct census_run *run) {
	struct census *census = run->census;

	if (!run->heap)
		census->pool_bytes = census->pools * run->pool_bytes;
	census->other_bytes -= min_of(census->other_bytes, run->table_bytes);
	census->incomplete |= run->types.incomplete;
	vec_foreach (type, &run->types.items) {
		census->objects += type->count;
		census->bytes += type->bytes;
	}
	census->types.items = take_ptr(run->types.items.items);
	census->types.n = run->types.items.n;
	census->types.cap = run->types.items.cap;
	run->types.items.n = run->types.items.cap = 0;
	if (census->places) {
		marks_deinit(&run->marks); /* the sort needs as much */
		vec_foreach (region, &run->late.items)
			if (regions_add(&run->regions, region->start, region->end))
				return -ENOMEM;
		census->places->regions = run->regions;
		run->regions = (struct regions){ 0 };
		places_sort(census->places);
	}
	return 0;
}

/* Return: as census_mimalloc. */
static int count_heap(struct census_run *run, const struct py_runtime *rt) {
	struct mimalloc heap = { 0 };
	int r;

	if (run->py->flavour & LAYOUT_FREE_THREADED) {
		r = census_mimalloc(run, rt, &heap);
		if (!r)
			r = finish(run);
		if (!r && run->census->places)
			run->census->places->heap = heap;
		else
			mimalloc_deinit(&heap);
		return r;
	}
	r = find_pools(run);
	if (!r)
		r = count_all(run);
	return r ? r : finish(run);
}

static int run_census(struct census_run *run, const struct py_runtime *rt, const proc_map_vec *maps) {
	int r = regions_init(&run->regions, maps, run->pool_bytes);

	if (r)
		return r;
	heap_types_init(&run->types, run->py, &run->regions);
	run->buf = malloc(CENSUS_READ_BYTES);
	r = run->buf ? count_heap(run, rt) : -ENOMEM;
	free(run->buf);
	heap_types_deinit(&run->types);
	marks_deinit(&run->marks);
	vec_free(&run->candidates);
	vec_free(&run->spans);
	regions_deinit(&run->regions);
	regions_deinit(&run->late);
	return r;
}

int census_take(const struct py_runtime *rt, const proc_map_vec *maps, const struct census_options *options,
	struct census *ret_census, struct err *err) {
	struct census census = { 0 };
	struct census_run run = {
		.py = &rt->reader,
		.census = &census,
		.pool_bytes = rt->reader.flavour & LAYOUT_FREE_THREADED ? (uint32_t)MIMALLOC_SLICE_BYTES
									: pool_bytes_of(rt->reader.version),
		.gc_head = gc_head_bytes(&rt->reader),
		.options = options,
	};
	int r;

	if (options->before && places_fit(options->before->places, run.pool_bytes))
		run.before = options->before->places;
	if (options->flags & CENSUS_KEEP_PLACES)
		census.places = places_new(maps, rt->reader.version, run.pool_bytes);
	r = options->flags & CENSUS_KEEP_PLACES && !census.places ? -ENOMEM : run_census(&run, rt, maps);
	if (r == PY_E_TYPE)
		r = err_set(
			err, PYSPYD_E_UNSUPPORTED, "no heap of mimalloc was found, which Python %s has", rt->version);
	if (!r && !census.pools)
		r = err_set(err, PYSPYD_E_UNSUPPORTED,
			"no pools of Python's small-object allocator were found: is PYTHONMALLOC=malloc set?");
	if (r) {
		census_deinit(&census);
		return r;
	}
	*ret_census = census;
	return 0;
}

void census_deinit(struct census *census) {
	vec_free(&census->types);
	vec_free(&census->containers);
	places_free(take_ptr(census->places));
}
