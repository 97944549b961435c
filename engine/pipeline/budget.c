/* SPDX-License-Identifier: MIT */
/* What is used grows with the rate, but not in proportion: looks at counters cost the same at any rate, and become
 * rarer only when that does not suffice. A step down goes by what was measured, and is taken again until it suffices;
 * steps up are small and wait for calm windows, so that the rate does not swing. */
#include "engine/pipeline/budget.h"

#include "engine/base/util.h"

#define CALM 0.7       /* of the limit */
#define VERY_CALM 0.35 /* intervals of half the length cost twice as much */
#define CALM_WINDOWS 2
#define STEP_UP 1.25
#define STEP_DOWN_LEAST 0.9
#define STEP_DOWN_MOST 0.25

void budget_init(struct budget *budget, double limit_percent, double asked_hz) {
	*budget = (struct budget){
		.limit_percent = limit_percent, .asked_hz = asked_hz, .rate_hz = asked_hz, .stretch = 1
	};
}

static double lower(const struct budget *budget) {
	double factor = budget->limit_percent / budget->used_percent;

	factor = max_of(STEP_DOWN_MOST, min_of(STEP_DOWN_LEAST, factor));
	return max_of(BUDGET_RATE_MIN, budget->rate_hz * factor);
}

static void give_way(struct budget *budget) {
	if (budget->rate_hz > BUDGET_RATE_LOW)
		budget->rate_hz = max_of(BUDGET_RATE_LOW, lower(budget));
	else if (budget->stretch < BUDGET_STRETCH_MAX)
		budget->stretch *= 2;
	else
		budget->rate_hz = lower(budget);
}

static void come_back(struct budget *budget) {
	if (budget->rate_hz < min_of(BUDGET_RATE_LOW, budget->asked_hz) || budget->stretch == 1)
		budget->rate_hz = min_of(budget->asked_hz, budget->rate_hz * STEP_UP);
	else if (budget->used_percent < budget->limit_percent * VERY_CALM)
		budget->stretch /= 2;
}

static void judge(struct budget *budget) {
	budget->over = budget->used_percent > budget->limit_percent ? budget->over + 1 : 0;
	budget->under = budget->used_percent < budget->limit_percent * CALM ? budget->under + 1 : 0;
	if (budget->over) {
		give_way(budget);
	} else if (budget->under >= CALM_WINDOWS) {
		budget->under = 0;
		come_back(budget);
	}
}

bool budget_add(struct budget *budget, uint64_t now_ns, uint64_t cpu_ns) {
	double before = budget->rate_hz;

	if (!budget->began_ns) {
		budget->began_ns = now_ns;
		budget->began_cpu_ns = cpu_ns;
		return false;
	}
	if (now_ns - budget->began_ns < BUDGET_WINDOW_NS)
		return false;
	budget->used_percent = 100.0 * (double)(cpu_ns - budget->began_cpu_ns) / (double)(now_ns - budget->began_ns);
	budget->began_ns = now_ns;
	budget->began_cpu_ns = cpu_ns;
	if (budget->limit_percent > 0 && ++budget->windows > BUDGET_GRACE_WINDOWS)
		judge(budget);
	return budget->rate_hz != before;
}
