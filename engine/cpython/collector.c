/* SPDX-License-Identifier: MIT */
/* The collector's counters: an array of three, one for each generation, in its state; from 3.15 on a ring of them for
 * each generation, whose newest one counts from the start as the array did.
 *
 * The state is a static variable's neighbour to 3.6 (found by symbols alone), in _PyRuntime to 3.8, in each interpreter
 * since. The words are read while the target may write them: each is right, together they may be of two moments. */
#include "engine/cpython/collector.h"

#include "engine/base/cursor.h"

#define STATE_MAX_BYTES 512
#define STATS_MAX_BYTES 64
#define RING_MAX 64 /* items of one ring, eleven is the most there is */

static int find_main_interp(const struct py_runtime *rt, raddr *ret_interp) {
	py_interp_vec interps = { 0 };
	int r = py_interps_read(rt, &interps);

	if (r)
		return r == PY_E_TORN ? PY_E_TYPE : r;
	r = PY_E_TYPE;
	vec_foreach (interp, &interps) {
		if (interp->id)
			continue;
		*ret_interp = interp->addr;
		r = 0;
	}
	vec_free(&interps);
	return r;
}

static int find_state(const struct py_runtime *rt, raddr *ret_state) {
	const struct layout *l = &rt->reader.layout;
	raddr interp;
	int r;

	if (layout_has(l->interp_gc)) {
		r = find_main_interp(rt, &interp);
		if (!r)
			*ret_state = interp + l->interp_gc;
		return r;
	}
	if (!layout_has(l->runtime_gc) || !rt->runtime)
		return PY_E_TYPE;
	*ret_state = rt->runtime + l->runtime_gc;
	return 0;
}

static bool stats_fit(const struct layout *l) {
	return layout_has(l->gc_stats_size) && l->gc_stats_size <= STATS_MAX_BYTES;
}

/* One item of the array, or of a ring. */
static void take_stats(
	const struct py_runtime *rt, const uint8_t *bytes, size_t len, int generation, struct py_collector *collector) {
	const struct layout *l = &rt->reader.layout;

	collector->generations[generation].collections = peek_u64(bytes, len, l->gc_stats_collections);
	collector->generations[generation].collected = peek_u64(bytes, len, l->gc_stats_collected);
	collector->generations[generation].uncollectable = peek_u64(bytes, len, l->gc_stats_uncollectable);
}

static int read_array(const struct py_runtime *rt, raddr array, struct py_collector *collector) {
	uint32_t size = rt->reader.layout.gc_stats_size;
	uint8_t bytes[PY_GENERATIONS * STATS_MAX_BYTES];
	int r = mem_read(rt->reader.mem, array, bytes, (size_t)PY_GENERATIONS * size);

	for (int i = 0; !r && i < PY_GENERATIONS; i++)
		take_stats(rt, bytes + (size_t)i * size, size, i, collector);
	return r;
}

/* `index_at`: where the ring, which ends with it, has the number of its newest item. */
static int read_ring(
	const struct py_runtime *rt, raddr ring, uint32_t index_at, int generation, struct py_collector *collector) {
	uint32_t size = rt->reader.layout.gc_stats_size;
	uint8_t bytes[STATS_MAX_BYTES], index;
	int r = mem_read(rt->reader.mem, ring + index_at, &index, sizeof(index));

	if (!r && (index >= RING_MAX || (index + 1U) * size > index_at))
		r = PY_E_TYPE;
	if (!r)
		r = mem_read(rt->reader.mem, ring + (raddr)index * size, bytes, size);
	if (!r)
		take_stats(rt, bytes, size, generation, collector);
	return r;
}

static int read_rings(const struct py_runtime *rt, raddr rings, struct py_collector *collector) {
	const struct layout *l = &rt->reader.layout;
	int r = read_ring(rt, rings + l->gc_rings_young, l->gc_ring_young_index, 0, collector);

	for (int i = 1; !r && i < PY_GENERATIONS; i++)
		r = read_ring(rt, rings + l->gc_rings_old + (raddr)(i - 1) * l->gc_ring_old_size, l->gc_ring_old_index,
			i, collector);
	return r;
}

static int read_state(const struct py_runtime *rt, struct py_collector *collector) {
	const struct layout *l = &rt->reader.layout;
	uint8_t bytes[STATE_MAX_BYTES];
	raddr state;
	int r;

	if (!layout_has(l->gc_size) || l->gc_size > sizeof(bytes) || !layout_has(l->gc_generation_stats) ||
		!layout_has(l->gc_collecting) || !layout_has(l->gc_enabled))
		return PY_E_TYPE;
	r = find_state(rt, &state);
	if (!r)
		r = mem_read(rt->reader.mem, state, bytes, l->gc_size);
	if (r)
		return r;
	collector->collecting = peek_u32(bytes, l->gc_size, l->gc_collecting) != 0;
	collector->enabled = peek_u32(bytes, l->gc_size, l->gc_enabled) != 0;
	if (layout_has(l->gc_rings_young))
		return read_rings(rt, peek_u64(bytes, l->gc_size, l->gc_generation_stats), collector);
	return read_array(rt, state + l->gc_generation_stats, collector);
}

static int read_flag(const struct py_runtime *rt, raddr at, bool *ret) {
	uint32_t value;
	int r = mem_read(rt->reader.mem, at, &value, sizeof(value));

	if (!r && value > 1)
		r = PY_E_TYPE;
	if (!r)
		*ret = value;
	return r;
}

static int read_statics(const struct py_runtime *rt, struct py_collector *collector) {
	const struct py_statics *s = &rt->statics;
	int r;

	if (!s->gc_stats || !s->gc_collecting || !s->gc_enabled)
		return PY_E_TYPE;
	r = read_flag(rt, s->gc_collecting, &collector->collecting);
	if (!r)
		r = read_flag(rt, s->gc_enabled, &collector->enabled);
	return r ? r : read_array(rt, s->gc_stats, collector);
}

int py_collector_read(const struct py_runtime *rt, struct py_collector *ret_collector) {
	struct py_collector collector = { 0 };
	int r;

	if (!stats_fit(&rt->reader.layout))
		return PY_E_TYPE;
	r = rt->runtime ? read_state(rt, &collector) : read_statics(rt, &collector);
	if (!r)
		*ret_collector = collector;
	return r;
}
