/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BASE_CLOCK_H
#define PYSPYD_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define NS_PER_SEC 1000000000ULL
#define NS_PER_MS 1000000ULL
#define NS_PER_US 1000ULL

uint64_t clock_mono_ns(void); /* CLOCK_MONOTONIC */
uint64_t clock_boot_ns(void); /* CLOCK_BOOTTIME: counts suspend; the clock of detectors and of process start times */
uint64_t clock_real_ns(void); /* CLOCK_REALTIME: for what people read */
uint64_t clock_cpu_ns(void);  /* CPU time that the calling thread has used */

#define CLOCK_RFC3339_SIZE 31

/* Writes "2026-01-31T12:00:00.123456789Z". `out` holds CLOCK_RFC3339_SIZE bytes. */
void clock_rfc3339(uint64_t real_ns, char out[CLOCK_RFC3339_SIZE]);

#endif
