/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_BLOCKING_H
#define PYSPYD_SAMPLE_BLOCKING_H

#include "engine/base/vec.h"
#include <sys/types.h>

/* Stopping threads for a look, only where it was asked for. PTRACE_SEIZE and PTRACE_INTERRUPT: no signal is sent, and
 * the kernel lets the threads run on by itself when the tracer dies, however it dies. All calls of one stop from the
 * same thread. */
struct stopped_threads {
	VEC(struct {
		pid_t tid;
		int signal;
	})
	threads;
};

/* Stops the given threads; those that end or do not stop within timeout_ns run on and are not in the result.
 * Return: 0; -EPERM where tracing is forbidden (another tracer, yama …), then none is stopped; -ENOMEM. */
int blocking_stop(const pid_t *tids, size_t n, uint64_t timeout_ns, struct stopped_threads *stopped);

/* Lets all of them run on; signals that arrived meanwhile are delivered. */
void blocking_resume(struct stopped_threads *stopped);

#endif
