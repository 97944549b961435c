/* SPDX-License-Identifier: MIT */
/* Days of memory, made by generators with fixed seeds, through the trend test and the time until the limit. Each shape
 * has its row in a table; the test prints what came of it. Numbers are MiB. Where a shape is known to be beyond what a
 * curve alone can tell, its bound says so. */
#include "engine/leaks/trend.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

#define RUNS 50
#define PERIOD_S 30
#define HOUR_S 3600.0
#define DAY_S (24 * HOUR_S)
#define BASE 300.0

/* Chance, the same in every run. */

struct chance {
	uint64_t state;
};

static double uniform(struct chance *chance, double from, double to) {
	chance->state ^= chance->state >> 12;
	chance->state ^= chance->state << 25;
	chance->state ^= chance->state >> 27;
	return from + (to - from) * (double)((chance->state * 2685821657736338717ULL) >> 11) / 9007199254740992.0;
}

static double normal(struct chance *chance, double deviation) {
	return deviation * sqrt(-2 * log(uniform(chance, 1e-12, 1))) * cos(2 * M_PI * uniform(chance, 0, 1));
}

/* Shapes. What a run is made of is drawn once; `value` goes on from sample to sample. */

struct run {
	struct chance chance;
	double rate; /* MiB an hour, of leaks */
	double size, length_s, phase, value, until_s, from_s;
};

static double noise(struct run *run, double t) {
	(void)t;
	return BASE + normal(&run->chance, 5);
}

static double ar1(struct run *run, double t) {
	(void)t;
	run->value = 0.99 * run->value + normal(&run->chance, 1.5);
	return BASE + run->value;
}

static double random_walk(struct run *run, double t) {
	(void)t;
	run->value = fmax(run->value + normal(&run->chance, 0.5), -BASE / 2);
	return BASE + run->value;
}

/* Teeth of random length and height: a generational collector. */
static double sawtooth(struct run *run, double t) {
	if (t >= run->until_s) {
		run->from_s = t;
		run->until_s = t + uniform(&run->chance, 5, 50) * 60;
		run->value = uniform(&run->chance, 30, 90);
	}
	return BASE + run->value * (t - run->from_s) / (run->until_s - run->from_s) + normal(&run->chance, 1);
}

static double filling_cache(struct run *run, double t) {
	return BASE + run->size * (1 - exp(-t / run->length_s)) + normal(&run->chance, 1);
}

static double linear_cache(struct run *run, double t) {
	return BASE + run->size * fmin(t / run->length_s, 1) + normal(&run->chance, 1);
}

static double step(struct run *run, double t) {
	if (t >= run->until_s) {
		run->value += t > 0 ? uniform(&run->chance, 30, 200) : 0;
		run->until_s = t + uniform(&run->chance, 2, 12) * HOUR_S;
	}
	return BASE + run->value + normal(&run->chance, 2);
}

/* Every request needs some, the allocator keeps the most that was ever needed. */
static double ratchet(struct run *run, double t) {
	(void)t;
	run->value = fmax(run->value, -20 * log(uniform(&run->chance, 1e-9, 1)));
	return BASE + run->value + normal(&run->chance, 1);
}

static double daily(struct run *run, double t) {
	return BASE + run->size / 2 * sin(2 * M_PI * (t / DAY_S + run->phase)) + normal(&run->chance, 5);
}

static double batch(struct run *run, double t) {
	if (t >= run->until_s) {
		run->value = run->value > 0 ? 0 : uniform(&run->chance, 100, 400);
		run->from_s = t;
		run->until_s = t + uniform(&run->chance, 5, 90) * 60;
	}
	return BASE + run->value * fmin(1, (t - run->from_s) / 300) + normal(&run->chance, 2);
}

static double leak(struct run *run, double t) {
	return BASE + run->rate * t / HOUR_S + normal(&run->chance, 3);
}

static double leak_sawtooth(struct run *run, double t) {
	return run->rate * t / HOUR_S + sawtooth(run, t);
}

static double leak_daily(struct run *run, double t) {
	return run->rate * t / HOUR_S + daily(run, t);
}

struct shape {
	const char *name;
	double (*sample)(struct run *, double t);
	double days, window_h, rate;
	double from, size_min, size_max, hours_min, hours_max;
	int least, most; /* suspects of RUNS */
	double within_h; /* of leaks: the slowest find */
};

#define ALL RUNS
#define NO_BOUND 1e9

static const struct shape shapes[] = {
	{ "noise", noise, 1, 4, .most = 0 },
	{ "AR(1)", ar1, 1, 4, .most = 0 },
	{ "random walk (hard)", random_walk, 1, 4, .most = 3 },
	{ "GC sawtooth", sawtooth, 1, 4, .most = 0 },
	{ "filling cache", filling_cache, 1, 4, .size_min = 100, .size_max = 500, .hours_min = 0.3, .hours_max = 3,
		.most = 0 },
	{ "linear cache fill, 1-6 h", linear_cache, 1, 4, .size_min = 100, .size_max = 500, .hours_min = 1,
		.hours_max = 6, .most = 0 },
	{ "linear, 6-12 h (hard)", linear_cache, 1, 4, .size_min = 100, .size_max = 500, .hours_min = 6,
		.hours_max = 12, .most = ALL },
	{ "steps", step, 1, 4, .most = 0 },
	{ "high-water ratchet", ratchet, 1, 4, .most = 0 },
	{ "batch jobs", batch, 1, 4, .most = 0 },
	{ "daily, day 1-2 (hard)", daily, 2, 4, .size_min = 50, .size_max = 200, .most = ALL },
	{ "daily, day 3-7", daily, 7, 4, .size_min = 50, .size_max = 200, .from = 2, .most = 0 },
	{ "leak 5 MB/h", leak, 1, 4, 5, .most = ALL },
	{ "leak 5 MB/h, 24 h window", leak, 3, 24, 5, .least = ALL, .most = ALL, .within_h = 60 },
	{ "leak 20 MB/h", leak, 1, 4, 20, .least = ALL, .most = ALL, .within_h = 12 },
	{ "leak 60 MB/h", leak, 1, 4, 60, .least = ALL, .most = ALL, .within_h = 12 },
	{ "leak 300 MB/h", leak, 1, 4, 300, .least = ALL, .most = ALL, .within_h = 12 },
	{ "leak 20 MB/h + sawtooth", leak_sawtooth, 1, 4, 20, .least = 45, .most = ALL, .within_h = 24 },
	{ "leak 60 MB/h + sawtooth", leak_sawtooth, 1, 4, 60, .least = 45, .most = ALL, .within_h = 24 },
	{ "leak 60 MB/h + daily", leak_daily, 3, 4, 60, .size_min = 50, .size_max = 200, .least = ALL, .most = ALL,
		.within_h = 72 },
};

static struct trend_rule rule_of(double window_h) {
	uint64_t window_ns = (uint64_t)(window_h * HOUR_S) * NS_PER_SEC;

	return (struct trend_rule){
		.window_ns = window_ns,
		.period_ns = PERIOD_S * NS_PER_SEC,
		.warmup_ns = TREND_WARMUP_NS(window_ns),
		.persist = 6,
		.least = 32,
		.least_pct = 5,
	};
}

static struct run draw(const struct shape *shape, uint64_t seed) {
	struct run run = { .chance = { seed }, .rate = shape->rate };

	for (int i = 0; i < 16; i++)
		uniform(&run.chance, 0, 1);
	run.size = uniform(&run.chance, shape->size_min, shape->size_max);
	run.length_s = uniform(&run.chance, shape->hours_min, shape->hours_max) * HOUR_S;
	run.phase = uniform(&run.chance, 0, 1);
	return run;
}

/* Return: the hour of the first suspicion after day `from`; negative: none. */
static double first_suspicion(const struct shape *shape, uint64_t seed) {
	const struct trend_rule rule = rule_of(shape->window_h);
	struct run run = draw(shape, seed);
	static struct trend trend;

	trend_init(&trend, &rule, 0);
	for (double t = 0; t < shape->days * DAY_S; t += PERIOD_S)
		if (trend_add(&trend, (uint64_t)t * NS_PER_SEC, shape->sample(&run, t)) &&
			trend.verdict.tier == TREND_SUSPECT && t >= shape->from * DAY_S)
			return t / HOUR_S;
	return -1;
}

static int by_value(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

Test(replay_trend, shapes_of_memory) {
	printf("%-28s %5s %9s %13s %9s %10s\n", "shape", "runs", "suspects", "false alarms", "median h", "slowest h");
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		const struct shape *shape = &shapes[i];
		double hours[RUNS];
		int found = 0;

		for (int k = 0; k < RUNS; k++) {
			double hour = first_suspicion(shape, 1 + i * 1000 + (uint64_t)k);

			if (hour >= 0)
				hours[found++] = hour;
		}
		qsort(hours, (size_t)found, sizeof(*hours), by_value);
		printf("%-28s %5d %9d %13d", shape->name, RUNS, found, shape->rate > 0 ? 0 : found);
		if (found)
			printf(" %9.1f %10.1f", hours[found / 2], hours[found - 1]);
		printf("\n");
		cr_expect(found >= shape->least && found <= shape->most, "%s: %d suspects of %d", shape->name, found,
			RUNS);
		cr_expect(!found || !shape->within_h || hours[found - 1] <= shape->within_h, "%s: found after %.1f h",
			shape->name, hours[found - 1]);
	}
}

/* The time until a limit. */

#define LIMIT 1024.0

static const struct shape calm[] = {
	{ .name = "noise", .sample = noise },
	{ .name = "AR(1)", .sample = ar1 },
	{ .name = "random walk", .sample = random_walk },
	{ .name = "GC sawtooth", .sample = sawtooth },
	{ .name = "steps", .sample = step },
	{ .name = "high-water ratchet", .sample = ratchet },
	{ .name = "batch jobs", .sample = batch },
	{ .name = "daily", .sample = daily, .size_min = 50, .size_max = 200 },
	{ .name = "leak 5 MB/h", .sample = leak, .rate = 5 },
};

/* Return: the first time at which less than `within_h` was said to be left, and how much that was; negative: never. */
static double first_warning(const struct shape *shape, uint64_t seed, double within_h, double *ret_left_h) {
	struct run run = draw(shape, seed);
	struct runway runway;

	runway_init(&runway, RUNWAY_SHORT_NS);
	for (double t = 0; t < DAY_S; t += PERIOD_S) {
		uint64_t left_ns;

		runway_add(&runway, (uint64_t)t * NS_PER_SEC, shape->sample(&run, t));
		if (runway.value >= LIMIT)
			break;
		if (runway_left(&runway, LIMIT, &left_ns) || (double)left_ns >= within_h * HOUR_S * 1e9)
			continue;
		*ret_left_h = (double)left_ns / HOUR_S / 1e9;
		return t / HOUR_S;
	}
	return -1;
}

Test(replay_trend, nobody_calm_is_near_the_limit) {
	printf("%-28s %5s %13s\n", "less than 1 h left", "runs", "false alarms");
	for (size_t i = 0; i < ARRAY_SIZE(calm); i++) {
		int warned = 0;
		double left_h;

		for (int k = 0; k < RUNS; k++)
			warned += first_warning(&calm[i], 1 + i * 1000 + (uint64_t)k, 1, &left_h) >= 0;
		printf("%-28s %5d %13d\n", calm[i].name, RUNS, warned);
		cr_expect_eq(warned, 0, "%s: %d warnings", calm[i].name, warned);
	}
}

Test(replay_trend, fast_leaks_are_warned_of_in_time) {
	static const double rates[] = { 300, 1000, 2500 };

	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		const struct shape shape = { .name = "fast leak", .sample = leak, .rate = rates[i] };
		double full_h = (LIMIT - BASE) / rates[i], worst_pct = 0;

		for (int k = 0; k < RUNS; k++) {
			double left_h = 0, hour = first_warning(&shape, 1 + (uint64_t)k, 1, &left_h);

			cr_assert_geq(hour, 0, "%g MB/h, run %d: no warning", rates[i], k);
			worst_pct = fmax(worst_pct, 100 * fabs(left_h / (full_h - hour) - 1));
		}
		printf("leak of %4g MB/h: full after %.2f h, the time left wrong by %.0f %% at most\n", rates[i],
			full_h, worst_pct);
		cr_expect_leq(worst_pct, 25);
	}
}
