/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BPF_TASKS_H
#define PYSPYD_BPF_TASKS_H

/* What the program that goes through the tasks and engine/sample share. */

#include <linux/types.h>

/* One thread. Ids as pyspyd's own PID namespace has them. */
struct pyt_task {
	__u32 pid, tid;
	__u32 state;                   /* bits of the kernel's task state and exit state; 0: runnable */
	__u32 cpu;                     /* it last ran on */
	__u64 run_ns, wait_ns, slices; /* as /proc/PID/task/TID/schedstat has them */
	__u64 voluntary, involuntary;  /* switches */
	__u64 start_ns;                /* CLOCK_BOOTTIME */
};

#endif
