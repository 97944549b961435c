/* SPDX-License-Identifier: MIT */
/* Tick times: the place in each period comes from a hash of the tick's number. */
#include "engine/sample/schedule.h"

#include "engine/base/map.h"

uint64_t schedule_time(const struct schedule *schedule, uint64_t tick) {
	uint64_t jitter = hash_mix(tick ^ schedule->seed) % schedule->period_ns;

	return schedule->start_ns + tick * schedule->period_ns + jitter;
}

uint64_t schedule_next(const struct schedule *schedule, uint64_t now_ns) {
	return now_ns < schedule->start_ns ? 0 : (now_ns - schedule->start_ns) / schedule->period_ns + 1;
}
