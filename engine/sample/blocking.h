/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_BLOCKING_H
#define PYSPYD_SAMPLE_BLOCKING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Stopping threads for a look, only where it was asked for. PTRACE_SEIZE and PTRACE_INTERRUPT: no signal is sent, and
 * the kernel lets the threads run on by itself when the tracer ends, however it ends. */

/* What is done while threads stand still: those of `tids`, in no particular order. */
typedef void (*blocking_fn)(const pid_t *tids, size_t n, void *arg);

/* Stops the given threads, calls `look`, and lets them run on; signals that arrived meanwhile are delivered. Those that
 * end or do not stop within timeout_ns run on, and are not in the list. `look` is called in a thread of its own, which
 * is their tracer, and with which it ends that any of them is traced. Return: 0; -EPERM where tracing is forbidden
 * (another tracer, yama …), -ENOMEM, -EAGAIN no thread could be made: then `look` was not called. */
int blocking_run(const pid_t *tids, size_t n, uint64_t timeout_ns, blocking_fn look, void *arg);

#endif
