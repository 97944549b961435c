/* SPDX-License-Identifier: MIT */
/* The trend test's parts on small tables; days of every shape are tests/replay/trend.c's. */
#include "engine/leaks/trend.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <math.h>

#define MINUTE (60 * NS_PER_SEC)

static const struct trend_rule minute_rule = {
	.window_ns = MINUTE,
	.period_ns = NS_PER_SEC,
	.warmup_ns = TREND_WARMUP_NS(MINUTE),
	.persist = 3,
	.least = 10,
	.least_pct = 50,
};

static size_t fill(struct trend_floor *floors, const double *values, size_t n) {
	for (size_t i = 0; i < n; i++)
		floors[i] = (struct trend_floor){ i, values[i] };
	return n;
}

Test(trend, slope_is_the_median_of_pairs) {
	static const double values[] = { 1, 2, 3, 400, 5, 6, 7 };
	struct trend_floor floors[8];

	cr_assert_float_eq(trend_slope(floors, fill(floors, values, ARRAY_SIZE(values))), 1, 1e-9);
	cr_assert_float_eq(trend_slope(floors, 1), 0, 1e-9);
	cr_assert_float_eq(trend_slope(floors, 0), 0, 1e-9);
}

Test(trend, slope_heeds_blocks_that_are_missing) {
	const struct trend_floor floors[] = { { 0, 0 }, { 10, 5 }, { 30, 15 } };

	cr_assert_float_eq(trend_slope(floors, 3), 0.5, 1e-9);
}

/* By hand: S = 10 of 5 rising values, variance 50/3; with two pairs of equals S = 8, variance 44/3. */
Test(trend, kendall_is_corrected_for_ties) {
	static const double rising[] = { 1, 2, 3, 4, 5 }, ties[] = { 1, 1, 2, 3, 3 }, falling[] = { 3, 2, 1, 0, -1 },
			    flat[] = { 7, 7, 7 };
	struct trend_floor floors[8];

	cr_assert_float_eq(trend_kendall(floors, fill(floors, rising, 5)), 9 / sqrt(50.0 / 3), 1e-9);
	cr_assert_float_eq(trend_kendall(floors, fill(floors, ties, 5)), 7 / sqrt(44.0 / 3), 1e-9);
	cr_assert_float_eq(trend_kendall(floors, fill(floors, falling, 5)), -9 / sqrt(50.0 / 3), 1e-9);
	cr_assert_float_eq(trend_kendall(floors, fill(floors, flat, 3)), 0, 1e-9);
}

Test(trend, floors_are_minima_and_the_newest_stay) {
	struct trend_floor window[TREND_BLOCKS_MAX];
	struct trend_floors floors;

	trend_floors_init(&floors, 10);
	for (uint64_t t = 0; t < 5000; t++)
		trend_floors_add(&floors, 1000 + t, (double)(t / 10) + (t % 10 == 3 ? 0 : 50));
	cr_assert_eq(trend_floors_window(&floors, TREND_BLOCKS_MAX, window), TREND_BLOCKS_MAX);
	cr_assert_eq(window[0].index, 499 - TREND_BLOCKS_MAX);
	for (size_t i = 0; i < TREND_BLOCKS_MAX; i++)
		cr_assert_float_eq(window[i].value, (double)window[i].index, 1e-9);
	cr_assert_eq(trend_floors_window(&floors, 7, window), 7);
	cr_assert_eq(window[6].index, 498);
}

Test(trend, floors_of_a_gap_are_missing) {
	struct trend_floor window[TREND_BLOCKS_MAX];
	struct trend_floors floors;

	trend_floors_init(&floors, 10);
	trend_floors_add(&floors, 0, 5);
	cr_assert(trend_floors_add(&floors, 10, 6));
	cr_assert(trend_floors_add(&floors, 95, 7));
	cr_assert_not(trend_floors_add(&floors, 20, 1)); /* of the past: counts now */
	cr_assert_eq(trend_floors_window(&floors, TREND_BLOCKS_MAX, window), 2);
	cr_assert_eq(trend_floors_window(&floors, 8, window), 1);
	cr_assert_eq(window[0].index, 1);
	cr_assert(trend_floors_add(&floors, 1ULL << 62, 7));
	cr_assert_eq(trend_floors_window(&floors, TREND_BLOCKS_MAX, window), 0);
}

/* One sample a second from *t on. Return: when it was suspected first; 0: never. */
static uint64_t go_on(struct trend *trend, uint64_t *t, uint64_t seconds, double from, double per_second) {
	for (uint64_t i = 0; i < seconds; i++, *t += NS_PER_SEC) {
		trend_add(trend, *t, from + per_second * (double)i);
		if (trend->verdict.tier == TREND_SUSPECT)
			return *t;
	}
	return 0;
}

Test(trend, a_window_of_a_minute_finds_in_a_minute_and_a_half) {
	uint64_t start = 1000 * NS_PER_SEC, t = start, found;
	struct trend trend;

	trend_init(&trend, &minute_rule, 0);
	found = go_on(&trend, &t, 300, 10, 1);
	cr_assert(found);
	cr_assert_leq(found - start, 90 * NS_PER_SEC);
	cr_assert_eq(trend.verdict.agreed, 3);
	cr_assert_leq(trend.verdict.since_ns, start + 10 * NS_PER_SEC);
	cr_assert_float_eq(trend.verdict.per_hour, 3600, 1);
	cr_assert_leq(trend.verdict.from, 20);
	cr_assert_geq(trend.verdict.to, 60);
}

Test(trend, warm_up_of_a_young_process_is_not_looked_at) {
	uint64_t start = 1000 * NS_PER_SEC, t = start, young, t_old = start, old;
	struct trend trend;

	trend_init(&trend, &minute_rule, start);
	young = go_on(&trend, &t, 300, 10, 1);
	trend_init(&trend, &minute_rule, 0);
	old = go_on(&trend, &t_old, 300, 10, 1);
	cr_assert_geq(young, old + TREND_WARMUP_NS(MINUTE));
}

Test(trend, both_bounds_of_growth_count) {
	struct trend trend;
	uint64_t t = 0;

	trend_init(&trend, &minute_rule, 0);
	cr_assert_eq(go_on(&trend, &t, 480, 1000, 1), 0); /* 60 a minute, but not half as much again */
	cr_assert(go_on(&trend, &t, 60, 1480, 1));
	t = 0;
	trend_init(&trend, &minute_rule, 0);
	cr_assert_eq(go_on(&trend, &t, 600, 1, 0.1), 0); /* by much, but 6 a minute */
}

Test(trend, what_was_given_back_is_forgotten) {
	struct trend trend;
	uint64_t t = 0;

	trend_init(&trend, &minute_rule, 0);
	cr_assert(go_on(&trend, &t, 300, 10, 1));
	for (int i = 0; i < 30; i++, t += NS_PER_SEC)
		trend_add(&trend, t, 10);
	cr_assert_eq(trend.verdict.tier, TREND_NONE);
	cr_assert_eq(trend.verdict.agreed, 0);
}

Test(trend, what_stays_where_it_is_fades_and_is_forgotten) {
	bool faded = false;
	struct trend trend;
	uint64_t t = 0;

	trend_init(&trend, &minute_rule, 0);
	cr_assert(go_on(&trend, &t, 300, 10, 1));
	for (int i = 0; i < 60; i++, t += NS_PER_SEC) {
		trend_add(&trend, t, 200);
		faded |= trend.verdict.fading && trend.verdict.tier == TREND_SUSPECT;
	}
	cr_assert(faded);
	for (int i = 0; i < 60; i++, t += NS_PER_SEC)
		trend_add(&trend, t, 200);
	cr_assert_eq(trend.verdict.tier, TREND_NONE);
}

Test(trend, a_gap_proves_nothing) {
	struct trend trend;
	uint64_t t = 0;

	trend_init(&trend, &minute_rule, 0);
	for (int i = 0; i < 40; i++, t += NS_PER_SEC)
		trend_add(&trend, t, 10 + i);
	t += 3600 * NS_PER_SEC;
	for (int i = 0; i < 40; i++, t += NS_PER_SEC)
		trend_add(&trend, t, 1000 + i);
	cr_assert_eq(trend.verdict.agreed, 0);
}

Test(trend, time_left_until_the_limit) {
	struct runway runway;
	uint64_t left;

	runway_init(&runway, MINUTE);
	for (uint64_t i = 0; i < 30; i++)
		runway_add(&runway, i * NS_PER_SEC, 100 + (double)i);
	cr_assert_eq(runway_left(&runway, 1000, &left), RUNWAY_E_YOUNG);
	for (uint64_t i = 30; i < 100; i++)
		runway_add(&runway, i * NS_PER_SEC, 100 + (double)i);
	cr_assert_eq(runway_left(&runway, 1000, &left), 0);
	cr_assert_float_eq((double)left / 1e9, 801, 1);
	cr_assert_eq(runway_left(&runway, 150, &left), 0);
	cr_assert_eq(left, 0);
	for (uint64_t i = 100; i < 200; i++)
		runway_add(&runway, i * NS_PER_SEC, 200);
	cr_assert_eq(runway_left(&runway, 1000, &left), RUNWAY_E_CALM);
}
