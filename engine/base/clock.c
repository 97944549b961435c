/* SPDX-License-Identifier: MIT */
/* Clocks, in nanoseconds. */
#include "engine/base/clock.h"

#include <stdio.h>
#include <time.h>

static uint64_t read_clock(clockid_t id) {
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

uint64_t clock_mono_ns(void) {
	return read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_boot_ns(void) {
	return read_clock(CLOCK_BOOTTIME);
}

uint64_t clock_real_ns(void) {
	return read_clock(CLOCK_REALTIME);
}

uint64_t clock_cpu_ns(void) {
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void clock_rfc3339(uint64_t real_ns, char out[CLOCK_RFC3339_SIZE]) {
	time_t sec = (time_t)(real_ns / NS_PER_SEC);
	struct tm tm;
	char head[24];

	gmtime_r(&sec, &tm);
	strftime(head, sizeof(head), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out, CLOCK_RFC3339_SIZE, "%.19s.%09uZ", head, (unsigned)(real_ns % NS_PER_SEC));
}
