/* SPDX-License-Identifier: MIT */
#include "engine/sample/duty.h"

#include "engine/base/clock.h"
#include <criterion/criterion.h>

#define STEP_NS NS_PER_MS
#define START_NS (200 * NS_PER_MS)
#define LIMIT_PCT 5.0

struct simulation {
	struct duty duty;
	uint64_t used_ns, spent_ns, own_ns, own_on_ns;
	unsigned starts;
	bool on;
};

/* A process that for each unit of its own time would pay `cost` units while it is looked at. */
static void run(struct simulation *s, uint64_t own_ns, double cost) {
	for (uint64_t done = 0; done < own_ns; done += STEP_NS) {
		bool was = s->on;

		s->own_ns += STEP_NS;
		s->used_ns += STEP_NS;
		if (was) {
			s->own_on_ns += STEP_NS;
			s->spent_ns += (uint64_t)(cost * STEP_NS);
			s->used_ns += (uint64_t)(cost * STEP_NS);
		}
		s->on = duty_step(&s->duty, s->used_ns, s->spent_ns);
		s->starts += s->on && !was;
	}
}

static struct simulation begin(double limit_pct) {
	struct simulation s = { .on = true };

	duty_init(&s.duty, limit_pct, START_NS, 0, 0);
	return s;
}

Test(duty, who_can_pay_is_looked_at_all_the_time) {
	struct simulation s = begin(LIMIT_PCT);

	run(&s, 60 * NS_PER_SEC, 0.049);
	cr_assert_eq(s.own_on_ns, s.own_ns);
}

Test(duty, the_slowdown_is_the_limit) {
	const double costs[] = { 0.06, 0.1, 0.5, 1, 5, 20 };

	for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
		struct simulation s = begin(LIMIT_PCT);
		double share;

		run(&s, 60 * NS_PER_SEC, costs[i]);
		share = 100 * (double)s.spent_ns / (double)s.own_ns;
		cr_assert(share > 0.95 * LIMIT_PCT && share < 1.05 * LIMIT_PCT, "cost %.2f: %.2f %%", costs[i], share);
		cr_assert_gt(s.starts, 20, "cost %.2f: %u", costs[i], s.starts);
	}
}

Test(duty, time_without_cost_buys_little) {
	struct simulation s = begin(LIMIT_PCT);
	uint64_t before;

	run(&s, 3600 * NS_PER_SEC, 0);
	before = s.spent_ns;
	run(&s, NS_PER_SEC, 10);
	cr_assert_leq(s.spent_ns - before, NS_PER_SEC / 20 + 2 * START_NS / 20 + 10 * STEP_NS);
}

Test(duty, who_does_nothing_earns_nothing) {
	struct simulation s = begin(LIMIT_PCT);

	run(&s, NS_PER_SEC, 10);
	while (s.on)
		run(&s, STEP_NS, 10);
	for (int i = 0; i < 10000; i++)
		cr_assert_not(duty_step(&s.duty, s.used_ns, s.spent_ns));
}

Test(duty, no_limit) {
	struct simulation s = begin(0);

	run(&s, NS_PER_SEC, 100);
	cr_assert_eq(s.own_on_ns, s.own_ns);
}

Test(duty, counters_that_go_back_do_no_harm) {
	struct simulation s = begin(LIMIT_PCT);

	cr_assert(duty_step(&s.duty, NS_PER_SEC, NS_PER_MS));
	cr_assert(duty_step(&s.duty, 0, 0));
	cr_assert_eq(s.duty.used_ns, NS_PER_SEC);
	cr_assert(duty_step(&s.duty, NS_PER_SEC, NS_PER_MS));
}

Test(duty, beginnings_follow_no_rhythm) {
	struct simulation s = begin(LIMIT_PCT);
	uint64_t shortest = UINT64_MAX, longest = 0, off_ns = 0;

	for (int i = 0; i < 60000; i++) {
		bool was = s.on;

		run(&s, STEP_NS, 5);
		if (!was)
			off_ns += STEP_NS;
		if (!was && s.on) {
			shortest = off_ns < shortest ? off_ns : shortest;
			longest = off_ns > longest ? off_ns : longest;
			off_ns = 0;
		}
	}
	cr_assert_gt(longest, 3 * shortest / 2);
}
