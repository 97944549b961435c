/* SPDX-License-Identifier: MIT */
#include "engine/pipeline/upkeep.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define FORGET_EVERY_NS (60 * NS_PER_SEC)

static uint64_t used_cpu_ns(void) {
	struct timespec ts = { 0 };

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t resident_bytes(void) {
	unsigned long long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (!file)
		return 0;
	if (fscanf(file, "%*s %llu", &pages) != 1)
		pages = 0;
	fclose(file);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

void upkeep_init(struct upkeep *upkeep, const struct pyspyd_watch_options *options, double rate_hz) {
	*upkeep = (struct upkeep){ .memory_budget_bytes = options->memory_budget_bytes };
	budget_init(&upkeep->budget, options->cpu_budget_percent, rate_hz);
}

unsigned upkeep_interval(struct upkeep *upkeep, uint64_t now_ns, struct pyspyd_watch_health *health) {
	uint64_t cpu_ns = used_cpu_ns();
	unsigned todo = budget_add(&upkeep->budget, now_ns, cpu_ns) ? UPKEEP_RATE : 0;

	health->cpu_percent = upkeep->last_ns && now_ns > upkeep->last_ns
		? 100.0 * (double)(cpu_ns - upkeep->last_cpu_ns) / (double)(now_ns - upkeep->last_ns)
		: 0;
	upkeep->last_ns = now_ns;
	upkeep->last_cpu_ns = cpu_ns;
	health->memory_bytes = resident_bytes();
	health->rate_hz = upkeep->budget.rate_hz;
	health->rate_asked_hz = upkeep->budget.asked_hz;
	health->stretch = upkeep->budget.stretch;
	if (upkeep->memory_budget_bytes && health->memory_bytes > upkeep->memory_budget_bytes) {
		upkeep->over_memory++;
		if (!upkeep->forgot_ns || now_ns - upkeep->forgot_ns >= FORGET_EVERY_NS) {
			upkeep->forgot_ns = now_ns;
			todo |= UPKEEP_FORGET;
		}
	} else {
		upkeep->over_memory = 0;
	}
	health->over_budget = max_of(upkeep->budget.over, upkeep->over_memory);
	return todo;
}
