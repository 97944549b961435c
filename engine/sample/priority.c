/* SPDX-License-Identifier: MIT */
/* SCHED_FIFO 1 where the kernel lets us (CAP_SYS_NICE, or RLIMIT_RTPRIO), else nice -20 (CAP_SYS_NICE, or RLIMIT_NICE).
 */
#include "engine/sample/priority.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

enum sample_priority priority_raise(void) {
	const struct sched_param lowest = { .sched_priority = 1 };

	prctl(PR_SET_TIMERSLACK, 1UL); /* ordinary threads wake up to 50 us late by default */
	if (!sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest))
		return PRIORITY_FIFO;
	if (!setpriority(PRIO_PROCESS, 0, -20)) /* on Linux: of the calling thread */
		return PRIORITY_NICE;
	return PRIORITY_NONE;
}

const char *priority_name(enum sample_priority priority) {
	static const char *const names[] = { "none", "nice", "fifo" };

	return names[priority];
}
