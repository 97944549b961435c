/* SPDX-License-Identifier: MIT */
#include "engine/pipeline/budget.h"

#include <criterion/criterion.h>

#define WINDOW BUDGET_WINDOW_NS

/* A program that costs a fixed part, and so much for each sample a second. */
struct load {
	double fixed_percent, percent_per_hz;
};

/* Runs for so many windows. Return: the rate at the end. */
static double run(struct budget *budget, struct load load, unsigned windows, uint64_t *now_ns, uint64_t *cpu_ns) {
	for (unsigned i = 0; i < windows; i++) {
		double percent;

		budget_add(budget, *now_ns, *cpu_ns);
		percent = load.fixed_percent / budget->stretch + load.percent_per_hz * budget->rate_hz;
		*now_ns += WINDOW;
		*cpu_ns += (uint64_t)(percent / 100 * WINDOW);
	}
	budget_add(budget, *now_ns, *cpu_ns);
	return budget->rate_hz;
}

Test(budget, leaves_the_rate_alone_within_the_limit) {
	uint64_t now = 1, cpu = 0;
	struct budget budget;

	budget_init(&budget, 1, 20);
	cr_assert_eq(run(&budget, (struct load){ 0.1, 0.02 }, 20, &now, &cpu), 20);
	cr_assert_eq(budget.over, 0);
}

Test(budget, samples_less_beyond_it) {
	uint64_t now = 1, cpu = 0;
	struct budget budget;
	double rate;

	budget_init(&budget, 1, 100);
	cr_assert_eq(run(&budget, (struct load){ 50, 0.04 }, BUDGET_GRACE_WINDOWS, &now, &cpu), 100, "the start");
	rate = run(&budget, (struct load){ 0.2, 0.04 }, 10, &now, &cpu); /* 4.2 % at first */
	cr_assert_leq(0.2 + 0.04 * rate, 1.0);
	cr_assert_geq(rate, 5, "it gives way no more than it must: %g", rate);
	cr_assert_leq(budget.over, 1);
}

Test(budget, comes_back_when_it_is_calm) {
	uint64_t now = 1, cpu = 0;
	struct budget budget;
	double low, high;

	budget_init(&budget, 1, 50);
	low = run(&budget, (struct load){ 0, 0.1 }, 13, &now, &cpu);
	high = run(&budget, (struct load){ 0, 0.001 }, 60, &now, &cpu);
	cr_assert_lt(low, 12);
	cr_assert_eq(high, 50);
}

Test(budget, looks_less_often_where_samples_are_not_what_costs) {
	uint64_t now = 1, cpu = 0;
	struct budget budget;

	budget_init(&budget, 1, 20);
	cr_assert_eq(run(&budget, (struct load){ 3, 0.02 }, 20, &now, &cpu), BUDGET_RATE_LOW);
	cr_assert_eq(budget.stretch, 4);
	cr_assert_eq(budget.over, 0);
	cr_assert_eq(run(&budget, (struct load){ 3, 0.02 }, 40, &now, &cpu), BUDGET_RATE_LOW, "it does not swing");
	cr_assert_eq(budget.stretch, 4);
	cr_assert_eq(run(&budget, (struct load){ 0.1, 0.02 }, 60, &now, &cpu), 20);
	cr_assert_eq(budget.stretch, 1);
}

Test(budget, never_stops) {
	uint64_t now = 1, cpu = 0;
	struct budget budget;

	budget_init(&budget, 1, 20);
	cr_assert_eq(run(&budget, (struct load){ 30, 0 }, 50, &now, &cpu), BUDGET_RATE_MIN);
	cr_assert_geq(budget.over, 40, "and says that it is not kept");
}

Test(budget, none) {
	uint64_t now = 1, cpu = 0;
	struct budget budget;

	budget_init(&budget, 0, 20);
	cr_assert_eq(run(&budget, (struct load){ 90, 1 }, 10, &now, &cpu), 20);
}
