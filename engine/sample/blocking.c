/* SPDX-License-Identifier: MIT */
/* ptrace, as briefly as it goes: seize, interrupt, wait with a deadline, look, detach.
 *
 * A thread that sleeps where the kernel cannot be interrupted stops only when it comes back, which may be long after
 * the deadline, and would then stand still for as long as it is traced. It cannot be let go before it has stopped. So
 * the tracer is a thread that ends when the look is over: with it the kernel lets go of all that it has seized. */
#include "engine/sample/blocking.h"

#include "engine/base/clock.h"
#include "engine/base/vec.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#define STOP_POLL_NS (20 * NS_PER_US)

struct run {
	const pid_t *tids;
	size_t n;
	uint64_t timeout_ns;
	blocking_fn look;
	void *arg;
	VEC(pid_t) stopped;
	VEC(int) signals; /* that they were about to get; 0: none */
	int result;
};

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

/* Return: 0; -EPERM: none was seized. */
static int seize(struct run *run) {
	size_t seized = 0;

	for (size_t i = 0; i < run->n; i++) {
		if (ptrace(PTRACE_SEIZE, run->tids[i], NULL, NULL)) {
			if (errno == EPERM && !seized)
				return -EPERM;
			continue;
		}
		seized++;
		if (!ptrace(PTRACE_INTERRUPT, run->tids[i], NULL, NULL))
			run->stopped.items[run->stopped.n++] = run->tids[i];
	}
	return 0;
}

static void wait_all(struct run *run) {
	uint64_t deadline = clock_mono_ns() + run->timeout_ns;
	size_t kept = 0;

	for (size_t i = 0; i < run->stopped.n; i++)
		if (wait_stopped(run->stopped.items[i], deadline, &run->signals.items[kept]))
			run->stopped.items[kept++] = run->stopped.items[i];
	run->stopped.n = kept;
}

static void *run_main(void *arg) {
	struct run *run = arg;

	run->result = seize(run);
	if (run->result)
		return NULL;
	wait_all(run);
	run->look(run->stopped.items, run->stopped.n, run->arg);
	for (size_t i = 0; i < run->stopped.n; i++)
		ptrace(PTRACE_DETACH, run->stopped.items[i], NULL, (void *)(long)run->signals.items[i]);
	return NULL;
}

int blocking_run(const pid_t *tids, size_t n, uint64_t timeout_ns, blocking_fn look, void *arg) {
	struct run run = { .tids = tids, .n = n, .timeout_ns = timeout_ns, .look = look, .arg = arg };
	pthread_t thread;
	int r = vec_reserve(&run.stopped, n + 1);

	if (!r)
		r = vec_reserve(&run.signals, n + 1);
	if (!r)
		r = -pthread_create(&thread, NULL, run_main, &run);
	if (!r) {
		pthread_join(thread, NULL);
		r = run.result;
	}
	vec_free(&run.stopped);
	vec_free(&run.signals);
	return r;
}
