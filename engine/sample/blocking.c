/* SPDX-License-Identifier: MIT */
/* ptrace, as briefly as it goes: seize, interrupt, wait with a deadline, look, detach. */
#include "engine/sample/blocking.h"

#include "engine/base/clock.h"
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#define STOP_POLL_NS (20 * NS_PER_US)

/* Waits for one thread to stop. Return: true with the signal that it was about to get (0: none); false where it ended
 * or time is up. */
static bool wait_stopped(pid_t tid, uint64_t deadline_ns, int *ret_signal) {
	for (;;) {
		int status;
		pid_t got = waitpid(tid, &status, __WALL | WNOHANG);

		if (got < 0)
			return false;
		if (got == tid) {
			if (!WIFSTOPPED(status))
				return false;
			/* A stop with an event is our interrupt, or a group stop: nothing to deliver. */
			*ret_signal = status >> 16 ? 0 : WSTOPSIG(status);
			return true;
		}
		if (clock_mono_ns() >= deadline_ns)
			return false;
		nanosleep(&(struct timespec){ .tv_nsec = STOP_POLL_NS }, NULL);
	}
}

/* A thread that did not stop in time is still seized. It can be let go only when it is stopped, so it is waited for a
 * last moment; what remains is let go by the kernel when we end. */
static void abandon(pid_t tid) {
	int signal;

	if (wait_stopped(tid, clock_mono_ns() + NS_PER_MS, &signal))
		ptrace(PTRACE_DETACH, tid, NULL, (void *)(long)signal);
}

int blocking_stop(const pid_t *tids, size_t n, uint64_t timeout_ns, struct stopped_threads *stopped) {
	uint64_t deadline = clock_mono_ns() + timeout_ns;
	size_t seized = 0;
	int r = vec_reserve(&stopped->threads, n);

	stopped->threads.n = 0;
	if (r)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (ptrace(PTRACE_SEIZE, tids[i], NULL, NULL)) {
			if (errno == EPERM && !seized)
				return -EPERM;
			continue;
		}
		seized++;
		if (!ptrace(PTRACE_INTERRUPT, tids[i], NULL, NULL))
			stopped->threads.items[stopped->threads.n++].tid = tids[i];
	}
	for (size_t i = 0; i < stopped->threads.n;) {
		if (wait_stopped(stopped->threads.items[i].tid, deadline, &stopped->threads.items[i].signal)) {
			i++;
			continue;
		}
		abandon(stopped->threads.items[i].tid);
		stopped->threads.items[i] = stopped->threads.items[--stopped->threads.n];
	}
	return 0;
}

void blocking_resume(struct stopped_threads *stopped) {
	for (size_t i = 0; i < stopped->threads.n; i++)
		ptrace(PTRACE_DETACH, stopped->threads.items[i].tid, NULL,
			(void *)(long)stopped->threads.items[i].signal);
	stopped->threads.n = 0;
}
