/* SPDX-License-Identifier: MIT */
/* SCHED_FIFO 1 where the kernel lets us (CAP_SYS_NICE, or RLIMIT_RTPRIO), else nice -20 (CAP_SYS_NICE, or RLIMIT_NICE).
 */
#include "engine/sample/priority.h"

#include <sched.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHORTEST_SLICE_NS 100000

/* struct sched_attr of Linux 3.14, man 2 sched_setattr; glibc 2.36 does not declare it. */
struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime_ns, deadline_ns, period_ns;
};

enum sample_priority priority_ordinary(void) {
	struct attributes attr = { .size = sizeof(attr), .policy = SCHED_OTHER, .runtime_ns = SHORTEST_SLICE_NS };

	prctl(PR_SET_TIMERSLACK, 1UL);           /* ordinary threads wake up to 50 us late by default */
	syscall(SYS_sched_setattr, 0, &attr, 0); /* older kernels ignore the slice */
	return PRIORITY_NONE;
}

enum sample_priority priority_raise(void) {
	const struct sched_param lowest = { .sched_priority = 1 };

	prctl(PR_SET_TIMERSLACK, 1UL);
	if (!sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest))
		return PRIORITY_FIFO;
	if (!setpriority(PRIO_PROCESS, 0, -20)) /* on Linux: of the calling thread */
		return PRIORITY_NICE;
	return priority_ordinary();
}

const char *priority_name(enum sample_priority priority) {
	static const char *const names[] = { "none", "nice", "fifo" };

	return names[priority];
}
