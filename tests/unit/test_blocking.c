/* SPDX-License-Identifier: MIT */
/* Threads that are stopped for a look run on after it, those that could not be stopped in time too. */
#include "engine/sample/blocking.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT_NS (200 * NS_PER_MS)
#define READ_MS 20000

static int status_of(pid_t pid, const char *key) {
	char path[64], line[256];
	size_t len = strlen(key);
	int value = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	cr_assert_not_null(f);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, len))
			value = strcmp(key, "State:\t") ? atoi(line + len) : line[len];
	fclose(f);
	return value;
}

struct seen {
	size_t calls, n;
	int tracer, state;
};

static void look(const pid_t *tids, size_t n, void *arg) {
	struct seen *seen = arg;

	seen->calls++;
	seen->n = n;
	if (n) {
		seen->tracer = status_of(tids[0], "TracerPid:\t");
		seen->state = status_of(tids[0], "State:\t");
	}
}

static bool has_byte(int fd) {
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	char byte;

	return poll(&poll_fd, 1, READ_MS) == 1 && read(fd, &byte, 1) == 1;
}

Test(blocking, a_thread_stands_still_and_runs_on) {
	struct seen seen = { 0 };
	int in[2], out[2];
	pid_t pid;
	char byte = 0;

	cr_assert(!pipe(in) && !pipe(out));
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid)
		for (;;)
			if (read(in[0], &byte, 1) != 1 || write(out[1], &byte, 1) != 1)
				_exit(0);
	if (blocking_run(&pid, 1, TIMEOUT_NS, look, &seen) == -EPERM)
		cr_skip_test("tracing is forbidden here");
	cr_expect_eq(seen.calls, 1);
	cr_expect_eq(seen.n, 1);
	cr_expect_neq(seen.tracer, 0);
	cr_expect_eq(seen.state, 't');
	cr_expect_eq(status_of(pid, "TracerPid:\t"), 0);
	cr_assert_eq(write(in[1], &byte, 1), 1);
	cr_expect(has_byte(out[0]));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* One that waits for its child of vfork cannot be interrupted. */
Test(blocking, one_that_does_not_stop_is_let_go) {
	struct seen seen = { 0 };
	int in[2], out[2], ready[2];
	pid_t pid;
	char byte = 0;

	cr_assert(!pipe(in) && !pipe(out) && !pipe(ready));
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		pid_t child = vfork();

		if (!child) {
			if (write(ready[1], &byte, 1) == 1)
				(void)!read(in[0], &byte, 1);
			_exit(0);
		}
		(void)!write(out[1], &byte, 1);
		pause();
	}
	cr_assert(has_byte(ready[0]));
	if (blocking_run(&pid, 1, 10 * NS_PER_MS, look, &seen) == -EPERM)
		cr_skip_test("tracing is forbidden here");
	cr_expect_eq(seen.calls, 1);
	cr_expect_eq(seen.n, 0);
	cr_expect_eq(status_of(pid, "TracerPid:\t"), 0, "still traced");
	cr_assert_eq(write(in[1], &byte, 1), 1);
	cr_expect(has_byte(out[0]), "stopped for good");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

Test(blocking, nobody_there) {
	struct seen seen = { 0 };
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
	cr_expect_eq(blocking_run(&pid, 1, TIMEOUT_NS, look, &seen), 0);
	cr_expect_eq(seen.calls, 1);
	cr_expect_eq(seen.n, 0);
}
