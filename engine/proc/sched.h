/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_SCHED_H
#define PYSPYD_PROC_SCHED_H

#include "engine/base/map.h"
#include "engine/proc/proc.h"

/* How long a thread has slept, as the scheduler has it. */

/* What the CPUs' clocks show, each read once: for threads that are asked one after the other. Zeroed memory is empty.
 */
struct sched_clocks {
	struct map by_cpu; /* CPU → ns; 0: cannot be read */
};
void sched_clocks_deinit(struct sched_clocks *clocks);

/* How long ago a thread was last on a CPU; rather too little than too much. Moves the calling thread to that CPU for a
 * moment. Return: 0; PROC_E_GONE; -ENOENT where the kernel does not tell; -EINVAL, another negative errno: not known.
 */
int proc_thread_slept(const struct proc *proc, pid_t tid, struct sched_clocks *clocks, uint64_t *ret_ns);

/* Pure. Return: 0; -EINVAL. */
int proc_sched_parse(const char *text, size_t len, uint64_t *ret_exec_start_ns);

#endif
