/* SPDX-License-Identifier: MIT */
/* A bucket of credit: it holds as much as two beginnings need, so that a long time without cost is no reason for a long
 * time of any cost. */
#include "engine/sample/duty.h"

#include "engine/base/map.h"
#include "engine/base/util.h"

#define CREDIT_STARTS 2

static void draw_start(struct duty *duty) {
	duty->random = hash_mix(duty->random + 1);
	duty->start_credit_ns = duty->limit * (double)duty->start_ns * (0.5 + (double)(duty->random >> 11) * 0x1p-53);
}

void duty_init(struct duty *duty, double limit_pct, uint64_t start_ns, uint64_t used_ns, uint64_t spent_ns) {
	*duty = (struct duty){ .limit = limit_pct / 100,
		.start_ns = start_ns,
		.used_ns = used_ns,
		.spent_ns = spent_ns,
		.random = used_ns,
		.on = true };
	draw_start(duty);
	duty->credit_ns = duty->start_credit_ns;
}

bool duty_step(struct duty *duty, uint64_t used_ns, uint64_t spent_ns) {
	double used = used_ns > duty->used_ns ? (double)(used_ns - duty->used_ns) : 0;
	double spent = spent_ns > duty->spent_ns ? (double)(spent_ns - duty->spent_ns) : 0;
	double own = max_of(used - spent, 0.0);

	duty->used_ns = max_of(duty->used_ns, used_ns);
	duty->spent_ns = max_of(duty->spent_ns, spent_ns);
	if (duty->limit <= 0)
		return true;
	duty->credit_ns += duty->limit * own - spent;
	duty->credit_ns = min_of(duty->credit_ns, CREDIT_STARTS * duty->limit * (double)duty->start_ns);
	if (duty->on && duty->credit_ns < 0) {
		duty->on = false;
		draw_start(duty);
	} else if (!duty->on && duty->credit_ns >= duty->start_credit_ns) {
		duty->on = true;
	}
	return duty->on;
}
