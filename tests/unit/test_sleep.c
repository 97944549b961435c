/* SPDX-License-Identifier: MIT */
/* The line of /proc/PID/task/TID/syscall: as text, and as the kernel writes it for processes that sleep. Numbers are
 * this machine's, so that the same tests serve every architecture. */
#include "engine/proc/sleep.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define WAIT_PRIVATE (FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
#define ADDRESS 0x7f0000001000ULL
#define TIMEOUT 0x7ffe00002000ULL

static int parse_text(const char *text, struct proc_sleep *ret) {
	return proc_sleep_parse(text, strlen(text), ret);
}

static struct proc_sleep sleep_in(long number, const uint64_t args[6]) {
	struct proc_sleep sleep;
	char line[256];

	snprintf(line, sizeof(line), "%ld 0x%lx 0x%lx 0x%lx 0x%lx 0x%lx 0x%lx 0x7ffd10 0x7f31\n", number, args[0],
		args[1], args[2], args[3], args[4], args[5]);
	cr_assert_eq(parse_text(line, &sleep), 0, "%s", line);
	cr_assert_eq(sleep.number, number);
	cr_assert_eq(memcmp(sleep.args, args, sizeof(sleep.args)), 0);
	cr_assert_eq(sleep.sp, 0x7ffd10);
	cr_assert_eq(sleep.pc, 0x7f31);
	return sleep;
}

#define SLEEP_IN(number, ...) sleep_in(number, (const uint64_t[6]){ __VA_ARGS__ })

Test(sleep, running_and_outside_of_calls) {
	struct proc_sleep sleep;

	cr_assert_eq(parse_text("running\n", &sleep), 0);
	cr_assert_eq(sleep.call, SLEEP_RUNNING);
	cr_assert_eq(sleep.number, -1);
	cr_assert_eq(sleep.fd, -1);
	cr_assert_eq(parse_text("-1 0x7ffd10 0x7f31\n", &sleep), 0);
	cr_assert_eq(sleep.call, SLEEP_RUNNING);
	cr_assert_eq(sleep.number, -1);
	cr_assert_eq(sleep.sp, 0x7ffd10);
	cr_assert_eq(sleep.pc, 0x7f31);
}

Test(sleep, every_cut_is_refused) {
	static const char line[] = "202 0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8";
	struct proc_sleep sleep = { .number = 42 };

	for (size_t len = 0; len < strlen(line); len++)
		cr_assert_eq(proc_sleep_parse(line, len, &sleep), -EINVAL, "length %zu", len);
	cr_assert_eq(sleep.number, 42);
	cr_assert_eq(parse_text(line, &sleep), 0);
}

Test(sleep, other_texts_are_refused) {
	static const char *const texts[] = { "runningx", "-", "x", "-1", "1 2 3 4 5 6 7 8 9",
		"99999999999 0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8", "1 0x11111111111111111 0x2 0x3 0x4 0x5 0x6 0x7 0x8",
		"1 0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8 0x9", "-1 0x1 0x2 0x3" };
	struct proc_sleep sleep;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		cr_assert_eq(parse_text(texts[i], &sleep), -EINVAL, "%s", texts[i]);
}

Test(sleep, futexes) {
	struct proc_sleep sleep = SLEEP_IN(SYS_futex, ADDRESS, WAIT_PRIVATE, 0, 0, 0, UINT32_MAX);

	cr_assert_eq(sleep.call, SLEEP_FUTEX);
	cr_assert_eq(sleep.address, ADDRESS);
	cr_assert_not(sleep.shared);
	cr_assert_not(sleep.timed);
	sleep = SLEEP_IN(SYS_futex, ADDRESS, 0xffffffff00000000 | FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, TIMEOUT);
	cr_assert_eq(sleep.call, SLEEP_FUTEX);
	cr_assert(sleep.shared);
	cr_assert(sleep.timed);
	cr_assert_eq(sleep.timeout, TIMEOUT);
	cr_assert_eq(SLEEP_IN(SYS_futex, ADDRESS, FUTEX_WAIT).call, SLEEP_FUTEX);
	cr_assert_eq(SLEEP_IN(SYS_futex, ADDRESS, FUTEX_LOCK_PI_PRIVATE).call, SLEEP_FUTEX);
	cr_assert_eq(SLEEP_IN(SYS_futex, ADDRESS, FUTEX_WAKE_PRIVATE, 1).call, SLEEP_OTHER);
}

Test(sleep, descriptors) {
	static const struct {
		long number;
		enum sleep_call call;
	} calls[] = {
		{ SYS_read, SLEEP_READ },
		{ SYS_readv, SLEEP_READ },
		{ SYS_pread64, SLEEP_READ },
		{ SYS_recvfrom, SLEEP_READ },
		{ SYS_recvmsg, SLEEP_READ },
		{ SYS_recvmmsg, SLEEP_READ },
		{ SYS_write, SLEEP_WRITE },
		{ SYS_writev, SLEEP_WRITE },
		{ SYS_sendto, SLEEP_WRITE },
		{ SYS_sendmsg, SLEEP_WRITE },
		{ SYS_sendfile, SLEEP_WRITE },
		{ SYS_accept, SLEEP_ACCEPT },
		{ SYS_accept4, SLEEP_ACCEPT },
		{ SYS_connect, SLEEP_CONNECT },
		{ SYS_flock, SLEEP_FLOCK },
		{ SYS_epoll_pwait, SLEEP_EPOLL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		struct proc_sleep sleep = SLEEP_IN(calls[i].number, 0xdead00000007, 0, 0, 0xffffff00);

		cr_assert_eq(sleep.call, calls[i].call, "%ld", calls[i].number);
		cr_assert_eq(sleep.fd, 7, "%ld", calls[i].number);
		cr_assert_not(sleep.timed);
	}
}

Test(sleep, what_would_not_wait_is_other) {
	cr_assert_eq(SLEEP_IN(SYS_recvfrom, 7, ADDRESS, 64, MSG_DONTWAIT).call, SLEEP_OTHER);
	cr_assert_eq(SLEEP_IN(SYS_recvmsg, 7, ADDRESS, MSG_DONTWAIT | MSG_PEEK).call, SLEEP_OTHER);
	cr_assert_eq(SLEEP_IN(SYS_sendto, 7, ADDRESS, 64, MSG_DONTWAIT).fd, -1);
	cr_assert_eq(SLEEP_IN(SYS_recvfrom, 7, ADDRESS, MSG_DONTWAIT).call, SLEEP_READ);
	cr_assert_eq(SLEEP_IN(SYS_flock, 7, 2 | 4).call, SLEEP_OTHER);
	cr_assert_eq(SLEEP_IN(SYS_fcntl, 7, F_SETLK, ADDRESS).call, SLEEP_OTHER);
	cr_assert_eq(SLEEP_IN(SYS_io_uring_enter, 7).call, SLEEP_OTHER);
	cr_assert_eq(SLEEP_IN(1 << 20, 7).call, SLEEP_OTHER);
}

Test(sleep, file_locks) {
	struct proc_sleep sleep = SLEEP_IN(SYS_fcntl, 7, F_SETLKW, ADDRESS);

	cr_assert_eq(sleep.call, SLEEP_FCNTL);
	cr_assert_eq(sleep.fd, 7);
	cr_assert_eq(sleep.address, ADDRESS);
	cr_assert_eq(SLEEP_IN(SYS_fcntl, 7, F_OFD_SETLKW, ADDRESS).call, SLEEP_FCNTL);
}

Test(sleep, polls) {
	struct proc_sleep sleep = SLEEP_IN(SYS_ppoll, ADDRESS, 3, 0);

	cr_assert_eq(sleep.call, SLEEP_POLL);
	cr_assert_eq(sleep.address, ADDRESS);
	cr_assert_eq(sleep.count, 3);
	cr_assert_not(sleep.is_select);
	cr_assert_not(sleep.timed);
	cr_assert(SLEEP_IN(SYS_ppoll, ADDRESS, 3, TIMEOUT).timed);
	sleep = SLEEP_IN(SYS_pselect6, 12, ADDRESS, 0, 0, TIMEOUT);
	cr_assert_eq(sleep.call, SLEEP_POLL);
	cr_assert(sleep.is_select);
	cr_assert_eq(sleep.count, 12);
	cr_assert_eq(sleep.address, ADDRESS);
	cr_assert_eq(sleep.timeout, TIMEOUT);
	cr_assert(sleep.timed);
	cr_assert_not(SLEEP_IN(SYS_pselect6, 12, ADDRESS).timed);
}

Test(sleep, times_in_milliseconds) {
	struct proc_sleep sleep = SLEEP_IN(SYS_epoll_pwait, 4, ADDRESS, 64, 250);

	cr_assert_eq(sleep.call, SLEEP_EPOLL);
	cr_assert_eq(sleep.timeout_ms, 250);
	cr_assert(sleep.timed);
	/* As the compiler leaves an int of -1 in a register. */
	cr_assert_not(SLEEP_IN(SYS_epoll_pwait, 4, ADDRESS, 64, 0xffffffff).timed);
	cr_assert_eq(SLEEP_IN(SYS_epoll_pwait, 4, ADDRESS, 64, UINT64_MAX).timeout_ms, -1);
	cr_assert(SLEEP_IN(SYS_epoll_pwait, 4, ADDRESS, 64, 0).timed);
#ifdef SYS_poll
	cr_assert_eq(SLEEP_IN(SYS_poll, ADDRESS, 1, 50).timeout_ms, 50);
	cr_assert_not(SLEEP_IN(SYS_poll, ADDRESS, 1, 0xffffffff).timed);
	cr_assert(SLEEP_IN(SYS_select, 1, ADDRESS, 0, 0, TIMEOUT).is_select);
	cr_assert(SLEEP_IN(SYS_epoll_wait, 4, ADDRESS, 64, 5).timed);
#endif
}

Test(sleep, children) {
	struct proc_sleep sleep = SLEEP_IN(SYS_waitid, P_PIDFD, 9);

	cr_assert_eq(sleep.call, SLEEP_WAIT);
	cr_assert_eq(sleep.fd, 9);
	cr_assert_eq(sleep.wait_id, 0);
	cr_assert_eq(SLEEP_IN(SYS_waitid, P_PID, 9).wait_id, 9);
	cr_assert_eq(SLEEP_IN(SYS_waitid, P_PGID, 9).wait_id, -9);
	cr_assert_eq(SLEEP_IN(SYS_waitid, P_ALL, 9).wait_id, -1);
	cr_assert_eq(SLEEP_IN(SYS_wait4, 9).wait_id, 9);
	cr_assert_eq(SLEEP_IN(SYS_wait4, 0xffffffff).wait_id, -1);
	cr_assert_eq(SLEEP_IN(SYS_wait4, (uint64_t)-9).wait_id, -9);
	cr_assert_eq(SLEEP_IN(SYS_wait4, 9).fd, -1);
}

Test(sleep, sleeps_signals_and_opens) {
	struct proc_sleep sleep = SLEEP_IN(SYS_clock_nanosleep, 1, 1, TIMEOUT, 0);

	cr_assert_eq(sleep.call, SLEEP_SLEEP);
	cr_assert(sleep.timed);
	cr_assert_eq(sleep.timeout, TIMEOUT);
	cr_assert_eq(SLEEP_IN(SYS_nanosleep, TIMEOUT).timeout, TIMEOUT);
	cr_assert_eq(SLEEP_IN(SYS_rt_sigsuspend, ADDRESS, 8).call, SLEEP_SIGNAL);
	cr_assert_not(SLEEP_IN(SYS_rt_sigtimedwait, ADDRESS, ADDRESS, 0).timed);
	cr_assert(SLEEP_IN(SYS_rt_sigtimedwait, ADDRESS, ADDRESS, TIMEOUT).timed);
	sleep = SLEEP_IN(SYS_openat, (uint64_t)-100, ADDRESS);
	cr_assert_eq(sleep.call, SLEEP_OPEN);
	cr_assert_eq(sleep.address, ADDRESS);
	cr_assert_eq(sleep.fd, -1);
}

Test(sleep, restarted_calls) {
	struct proc_sleep sleep = SLEEP_IN(SYS_restart_syscall, ADDRESS, WAIT_PRIVATE, 0, TIMEOUT, 0, UINT32_MAX);

	cr_assert_eq(sleep.call, SLEEP_FUTEX);
	cr_assert_eq(sleep.address, ADDRESS);
	cr_assert(sleep.timed);
	cr_assert_eq(SLEEP_IN(SYS_restart_syscall, ADDRESS, FUTEX_WAIT_PRIVATE, 2, TIMEOUT).call, SLEEP_FUTEX);
	sleep = SLEEP_IN(SYS_restart_syscall, ADDRESS, 9, 1000, TIMEOUT, 0, 0);
	cr_assert_eq(sleep.call, SLEEP_POLL);
	cr_assert_eq(sleep.count, 9);
	cr_assert_eq(sleep.timeout_ms, 1000);
	cr_assert(sleep.timed);
	cr_assert_not(SLEEP_IN(SYS_restart_syscall, ADDRESS, 1, UINT32_MAX).timed);
	cr_assert_eq(SLEEP_IN(SYS_restart_syscall, 1, 0, TIMEOUT, TIMEOUT).call, SLEEP_SLEEP);
	cr_assert_eq(SLEEP_IN(SYS_restart_syscall, TIMEOUT, 0, 0, TIMEOUT).call, SLEEP_SLEEP);
	cr_assert(SLEEP_IN(SYS_restart_syscall, TIMEOUT, TIMEOUT, 0, TIMEOUT).timed);
}

Test(sleep, names) {
	cr_assert_str_eq(sleep_call_name(SYS_recvfrom), "recvfrom");
	cr_assert_str_eq(sleep_call_name(SYS_futex), "futex");
	cr_assert_str_eq(sleep_call_name(SYS_fsync), "fsync");
	cr_assert_null(sleep_call_name(-1));
	cr_assert_null(sleep_call_name(1 << 20));
}

static uint32_t word;
static int pipe_fds[2];

static void wait_in_futex(void) {
	const struct timespec timeout = { .tv_sec = 2000000000 };

	syscall(SYS_futex, &word, WAIT_PRIVATE, 0, &timeout, NULL, UINT32_MAX);
}

static void wait_in_poll(void) {
	struct pollfd fd = { .fd = pipe_fds[0], .events = POLLIN };

	poll(&fd, 1, 1000000);
}

static void wait_in_sleep(void) {
	const struct timespec timeout = { .tv_sec = 1000000 };

	syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &timeout, NULL);
}

static void wait_in_read(void) {
	char byte;

	if (read(pipe_fds[0], &byte, 1))
		return;
}

static pid_t start(void (*wait)(void), struct proc *ret_proc) {
	pid_t pid;

	cr_assert_eq(pipe(pipe_fds), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		wait();
		_exit(0);
	}
	cr_assert_eq(proc_open("/proc", pid, ret_proc), 0);
	return pid;
}

static void end(pid_t pid, struct proc *proc) {
	struct proc_sleep sleep;

	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	cr_assert_eq(proc_sleep_read(proc, pid, &sleep), PROC_E_GONE);
	proc_close(proc);
}

/* Ends with the test's time-out where it never comes. */
static struct proc_sleep await_call(const struct proc *proc, enum sleep_call call) {
	struct proc_sleep sleep;

	do {
		int r = proc_sleep_read(proc, proc->pid, &sleep);

		if (r == -EPERM || r == -ENOENT)
			cr_skip_test("this kernel does not tell the system calls of a child");
		cr_assert_eq(r, 0, "%d", r);
		sched_yield();
	} while (sleep.call != call);
	return sleep;
}

static struct proc_sleep stop_and_go(const struct proc *proc, long number) {
	struct proc_sleep sleep;
	int status;

	kill(proc->pid, SIGSTOP);
	cr_assert_eq(waitpid(proc->pid, &status, WUNTRACED), proc->pid);
	cr_assert(WIFSTOPPED(status));
	kill(proc->pid, SIGCONT);
	do {
		cr_assert_eq(proc_sleep_read(proc, proc->pid, &sleep), 0);
		sched_yield();
	} while (sleep.number != number);
	return sleep;
}

Test(sleep, live_read, .timeout = 60) {
	struct proc proc;
	pid_t pid = start(wait_in_read, &proc);
	struct proc_sleep sleep = await_call(&proc, SLEEP_READ);

	cr_assert_eq(sleep.number, SYS_read);
	cr_assert_eq(sleep.fd, pipe_fds[0]);
	end(pid, &proc);
}

Test(sleep, live_futex_goes_on_after_a_stop, .timeout = 60) {
	struct proc proc;
	pid_t pid = start(wait_in_futex, &proc);
	struct proc_sleep sleep = await_call(&proc, SLEEP_FUTEX);

	cr_assert_eq(sleep.address, (uintptr_t)&word);
	cr_assert(sleep.timed);
	sleep = stop_and_go(&proc, SYS_restart_syscall);
	cr_assert_eq(sleep.call, SLEEP_FUTEX);
	cr_assert_eq(sleep.address, (uintptr_t)&word);
	cr_assert(sleep.timed);
	end(pid, &proc);
}

Test(sleep, live_poll_goes_on_after_a_stop, .timeout = 60) {
#ifdef SYS_poll
	struct proc proc;
	pid_t pid = start(wait_in_poll, &proc);
	struct proc_sleep sleep = await_call(&proc, SLEEP_POLL);

	cr_assert_eq(sleep.timeout_ms, 1000000);
	sleep = stop_and_go(&proc, SYS_restart_syscall);
	cr_assert_eq(sleep.call, SLEEP_POLL);
	cr_assert_eq(sleep.count, 1);
	cr_assert_eq(sleep.timeout_ms, 1000000);
	end(pid, &proc);
#else
	(void)wait_in_poll;
	cr_skip_test("this architecture has only ppoll, which is not restarted under another number");
#endif
}

Test(sleep, live_sleep_goes_on_after_a_stop, .timeout = 60) {
	struct proc proc;
	pid_t pid = start(wait_in_sleep, &proc);
	struct proc_sleep sleep = await_call(&proc, SLEEP_SLEEP);

	cr_assert(sleep.timed);
	sleep = stop_and_go(&proc, SYS_restart_syscall);
	cr_assert_eq(sleep.call, SLEEP_SLEEP);
	cr_assert(sleep.timed);
	end(pid, &proc);
}
