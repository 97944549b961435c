/* SPDX-License-Identifier: MIT */
/* The collector's counters as arrays, as rings and as static variables. Real ones are compared by
 * tests/live/tracemalloc_oracle.sh. */
#include "engine/cpython/collector.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>

static raddr state_of(const struct image *img) {
	if (layout_has(img->l->interp_gc))
		return img->interp + img->l->interp_gc;
	return img->rt.runtime + img->l->runtime_gc;
}

static void put_stats(struct image *img, raddr at, uint64_t first) {
	image_put_u64(img, at + img->l->gc_stats_collections, first);
	image_put_u64(img, at + img->l->gc_stats_collected, first + 1);
	image_put_u64(img, at + img->l->gc_stats_uncollectable, first + 2);
}

static void put_ring(struct image *img, raddr ring, uint32_t index_at, uint64_t first) {
	uint32_t n = index_at / img->l->gc_stats_size, newest = n - 1;

	for (uint32_t i = 0; i < n; i++)
		put_stats(img, ring + (raddr)i * img->l->gc_stats_size, i == newest ? first : first + 1000 * i + 100);
	image_put_u8(img, ring + index_at, (uint8_t)newest);
}

/* Generation i counts from 10 * (i + 1) on. Return: the rings, 0 where there are none. */
static raddr put_generations(struct image *img) {
	const struct layout *l = img->l;
	raddr at = state_of(img) + l->gc_generation_stats, rings;

	if (!layout_has(l->gc_rings_young)) {
		for (unsigned i = 0; i < PY_GENERATIONS; i++)
			put_stats(img, at + (raddr)i * l->gc_stats_size, 10 * (i + 1));
		return 0;
	}
	rings = image_take(img, 4096);
	image_put_u64(img, at, rings);
	put_ring(img, rings + l->gc_rings_young, l->gc_ring_young_index, 10);
	put_ring(img, rings + l->gc_rings_old, l->gc_ring_old_index, 20);
	put_ring(img, rings + l->gc_rings_old + l->gc_ring_old_size, l->gc_ring_old_index, 30);
	return rings;
}

static void expect(struct image *img, bool enabled, bool collecting) {
	struct py_collector c;

	cr_assert_eq(py_collector_read(&img->rt, &c), 0);
	cr_assert_eq(c.enabled, enabled);
	cr_assert_eq(c.collecting, collecting);
	for (unsigned i = 0; i < PY_GENERATIONS; i++) {
		cr_assert_eq(c.generations[i].collections, 10 * (i + 1));
		cr_assert_eq(c.generations[i].collected, 10 * (i + 1) + 1);
		cr_assert_eq(c.generations[i].uncollectable, 10 * (i + 1) + 2);
	}
}

static void expect_none(struct image *img, int condition) {
	struct py_collector c = { .enabled = true };

	cr_assert_eq(py_collector_read(&img->rt, &c), condition);
	cr_assert(c.enabled, "untouched");
}

static void check_counters(struct image *img) {
	const struct layout *l = img->l;

	put_generations(img);
	expect(img, false, false);
	image_put_u32(img, state_of(img) + l->gc_enabled, 1);
	expect(img, true, false);
	image_put_u32(img, state_of(img) + l->gc_collecting, 1);
	expect(img, true, true);
	image_interp(img, 1); /* newer than the main one */
	expect(img, true, true);
}

Test(collector, counters) {
	image_each(check_counters);
}

static void check_unknown(struct image *img) {
	struct layout *l = &img->rt.reader.layout;
	uint32_t *const fields[] = { &l->gc_size, &l->gc_generation_stats, &l->gc_collecting, &l->gc_enabled,
		&l->gc_stats_size };

	put_generations(img);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		uint32_t before = *fields[i];

		*fields[i] = LAYOUT_NONE;
		expect_none(img, PY_E_TYPE);
		*fields[i] = before;
	}
	expect(img, false, false);
	image_cut(img, img->rt.runtime);
	expect_none(img, MEM_E_FAULT);
}

Test(collector, not_known_or_not_readable) {
	image_each(check_unknown);
}

static void check_rings(struct image *img) {
	static const uint8_t bad[] = { 11, 64, 127, 128, 255 };
	const struct layout *l = img->l;
	raddr rings = put_generations(img);

	if (!rings)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		image_put_u8(img, rings + l->gc_rings_young + l->gc_ring_young_index, bad[i]);
		expect_none(img, PY_E_TYPE);
	}
	image_put_u8(img, rings + l->gc_rings_young + l->gc_ring_young_index, 10);
	expect(img, false, false);
	image_put_u8(img, rings + l->gc_rings_old + l->gc_ring_old_size + l->gc_ring_old_index, 3);
	expect_none(img, PY_E_TYPE);
	image_put_u64(img, state_of(img) + l->gc_generation_stats, 0);
	expect_none(img, MEM_E_FAULT);
}

Test(collector, rings_that_lie) {
	image_each(check_rings);
}

Test(collector, static_variables) {
	struct image_build build = { 0x03060ff0, LAYOUT_RELEASE };
	struct image img;
	raddr words;

	image_open(&img, &build);
	img.rt.runtime = 0;
	expect_none(&img, PY_E_TYPE);
	words = image_take(&img, 256);
	img.rt.statics =
		(struct py_statics){ .gc_stats = words, .gc_collecting = words + 200, .gc_enabled = words + 204 };
	for (unsigned i = 0; i < PY_GENERATIONS; i++)
		put_stats(&img, words + (raddr)i * img.l->gc_stats_size, 10 * (i + 1));
	expect(&img, false, false);
	image_put_u32(&img, words + 204, 1);
	expect(&img, true, false);
	image_put_u32(&img, words + 200, 7);
	expect_none(&img, PY_E_TYPE);
	img.rt.statics.gc_collecting = IMAGE_NOWHERE;
	expect_none(&img, MEM_E_FAULT);
	image_close(&img);
}

/* 3.14.0 to 3.14.4 have the state of the incremental collector, from 3.14.5 on another one; and 3.7, the state before.
 */
Test(collector, more_states) {
	static const struct image_build builds[] = { { 0x030e00f0, LAYOUT_RELEASE }, { 0x030e0af0, LAYOUT_RELEASE },
		{ 0x030e0af0, LAYOUT_DEBUG }, { 0x030710f0, LAYOUT_RELEASE } };

	for (size_t i = 0; i < ARRAY_SIZE(builds); i++) {
		struct image img;

		image_open(&img, &builds[i]);
		check_counters(&img);
		image_close(&img);
	}
}
