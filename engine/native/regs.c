/* SPDX-License-Identifier: MIT */
/* Registers and the top of the stack of a thread.
 *
 * A thread that sleeps in a system call is not stopped: what /proc shows of it is what it will have when it returns.
 * The kernel shows the arguments, which stand in registers; on x86-64 a system call changes but rax, rcx and r11.
 *
 * A thread that runs is stopped with PTRACE_SEIZE and PTRACE_INTERRUPT for as long as it takes to read its registers
 * and to copy the top of its stack. Measured with the frames and exceptions of Python that dump copies in the same
 * stop: 45 microseconds and more, half of them in 75, at most 120 on two CPUs with a load of 10. A thread of ours does
 * that and ends: whatever it still traces then, because it did not stop in time, the kernel lets go. */
#include "engine/native/regs.h"

#include "engine/base/clock.h"

#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#define PIECE 4096
#define POLL_NS (2 * NS_PER_US)
#define POLL_MAX_NS (64 * NS_PER_US)
#define WARM_BYTES (64U << 10)

bool native_regs_of_sleep(const struct proc_sleep *sleep, struct native_regs *ret_regs) {
#ifdef __aarch64__
	static const uint8_t arguments[] = { 0, 1, 2, 3, 4, 5 };
#else
	static const uint8_t arguments[] = { 5, 4, 1, 10, 8, 9 }; /* rdi rsi rdx r10 r8 r9 */
#endif
	struct native_regs regs = { 0 };

	if (sleep->call == SLEEP_RUNNING || !sleep->pc)
		return false;
	native_regs_set(&regs, NATIVE_SP, sleep->sp);
	native_regs_set(&regs, NATIVE_IP, sleep->pc);
	for (size_t i = 0; sleep->number >= 0 && i < ARRAY_SIZE(arguments); i++)
		native_regs_set(&regs, arguments[i], sleep->args[i]);
	*ret_regs = regs;
	return true;
}

#ifdef __aarch64__
static void take_regs(const struct user_regs_struct *user, struct native_regs *regs) {
	for (unsigned i = 0; i < 31; i++)
		native_regs_set(regs, i, user->regs[i]);
	native_regs_set(regs, NATIVE_ARM64_SP, user->sp);
	native_regs_set(regs, NATIVE_ARM64_IP, user->pc);
}
#else
static void take_regs(const struct user_regs_struct *user, struct native_regs *regs) {
	const unsigned long long values[] = { user->rax, user->rdx, user->rcx, user->rbx, user->rsi, user->rdi,
		user->rbp, user->rsp, user->r8, user->r9, user->r10, user->r11, user->r12, user->r13, user->r14,
		user->r15, user->rip };

	for (unsigned i = 0; i < ARRAY_SIZE(values); i++)
		native_regs_set(regs, i, values[i]);
}
#endif

struct native_regs native_regs_of_user(const struct user_regs_struct *user) {
	struct native_regs regs = { 0 };

	take_regs(user, &regs);
	return regs;
}

int native_regs_of_stopped(pid_t tid, struct native_regs *ret_regs) {
	struct user_regs_struct user;
	struct iovec io = { .iov_base = &user, .iov_len = sizeof(user) };

	if (ptrace(PTRACE_GETREGSET, tid, (void *)NT_PRSTATUS, &io))
		return -errno;
	if (io.iov_len != sizeof(user)) /* a 32-bit program */
		return -ENOTSUP;
	*ret_regs = native_regs_of_user(&user);
	return 0;
}

/* What most stacks need is there before a thread is stopped: page by page it would come while that stands still. */
int native_stack_init(struct native_stack *stack) {
	*stack = (struct native_stack){ .bytes = malloc(NATIVE_STACK_MAX) };
	if (!stack->bytes)
		return -ENOMEM;
	memset(stack->bytes, 0, WARM_BYTES);
	return 0;
}

void native_stack_deinit(struct native_stack *stack) {
	free(stack->bytes);
	*stack = (struct native_stack){ 0 };
}

int native_stack_copy(struct native_stack *stack, struct mem *mem, raddr at, raddr end, size_t max) {
	size_t want = end > at ? min_of(end - at, (raddr)min_of(max, (size_t)NATIVE_STACK_MAX)) : 0;
	int r = want ? mem_read(mem, at, stack->bytes, want) : 0;

	stack->at = at;
	stack->len = r ? 0 : want;
	/* Page by page where something in it cannot be read. */
	for (; r == MEM_E_FAULT && stack->len < want; stack->len += PIECE - (at + stack->len) % PIECE) {
		size_t piece = min_of(want - stack->len, (size_t)(PIECE - (at + stack->len) % PIECE));

		if (mem_read(mem, at + stack->len, stack->bytes + stack->len, piece))
			break;
	}
	stack->len = min_of(stack->len, want);
	return r == MEM_E_FAULT ? 0 : r;
}

static raddr mapping_end(const proc_map_vec *maps, raddr at) {
	size_t low = 0, high = maps->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (maps->items[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low < maps->n && maps->items[low].start <= at ? maps->items[low].end : 0;
}

/* A thread that has not stopped at once waits for a CPU, often for ours, and we go before it: each pause is longer than
 * the one before, or it would never come to stopping (measured: up to 0.4 s with pauses of 2 us, one spinning thread
 * and one CPU). Return: 0 with the signal that was about to be delivered (0: none) and when it was not seen to have
 * stopped yet; NATIVE_E_GONE; NATIVE_E_BUSY. */
static int wait_stopped(pid_t tid, uint64_t deadline_ns, int *ret_signal, uint64_t *ret_since_ns) {
	for (uint64_t pause = POLL_NS;; pause = min_of(2 * pause, (uint64_t)POLL_MAX_NS)) {
		int status;
		pid_t got = waitpid(tid, &status, __WALL | WNOHANG);
		uint64_t now;

		if (got < 0 || (got == tid && !WIFSTOPPED(status)))
			return NATIVE_E_GONE;
		if (got == tid) {
			/* A stop with an event is our interrupt, or a group stop: nothing to deliver. */
			*ret_signal = status >> 16 ? 0 : WSTOPSIG(status);
			return 0;
		}
		now = clock_mono_ns();
		if (now >= deadline_ns)
			return NATIVE_E_BUSY;
		*ret_since_ns = now;
		nanosleep(&(struct timespec){ .tv_nsec = (long)pause }, NULL);
	}
}

/* One stop, made by a thread of its own. */
struct job {
	pid_t tid;
	struct mem *mem;
	const proc_map_vec *maps;
	const struct native_catch_how *how;
	struct native_stack *stack;
	struct native_catch caught;
	int result;
};

static int look(struct job *job) {
	struct native_regs *regs = &job->caught.regs;
	int r = native_regs_of_stopped(job->tid, regs);
	raddr sp;

	if (r)
		return r;
	sp = regs->value[NATIVE_SP];
	r = native_stack_copy(job->stack, job->mem, sp, mapping_end(job->maps, sp), job->how->stack_max);
	if (!r && job->how->also)
		job->how->also(job->how->arg);
	return r == MEM_E_GONE ? NATIVE_E_GONE : r;
}

static int stop_and_look(struct job *job) {
	uint64_t start, since;
	int signal = 0, r;

	if (ptrace(PTRACE_SEIZE, job->tid, NULL, NULL))
		return errno == ESRCH ? NATIVE_E_GONE : -errno;
	start = clock_mono_ns();
	if (ptrace(PTRACE_INTERRUPT, job->tid, NULL, NULL))
		return errno == ESRCH ? NATIVE_E_GONE : -errno;
	since = start;
	r = wait_stopped(job->tid, start + job->how->timeout_ns, &signal, &since);
	if (r)
		return r;
	r = look(job);
	ptrace(PTRACE_DETACH, job->tid, NULL, (void *)(long)signal);
	job->caught.stopped_ns = clock_mono_ns() - since;
	return r;
}

/* A thread's first malloc makes a heap of its own, which takes several system calls and page faults: not when another
 * one waits for us. */
static void warm_heap(void) {
	char *warm = malloc(WARM_BYTES);

	if (warm)
		for (size_t at = 0; at < WARM_BYTES; at += PIECE)
			*(volatile char *)&warm[at] = 0;
	free(warm);
}

static void *run_job(void *userdata) {
	struct job *job = userdata;

	/* While the target stands still nobody should come before us. Without the privilege it takes longer. */
	sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){ .sched_priority = 1 });
	warm_heap();
	job->result = stop_and_look(job);
	return NULL;
}

int native_catch(pid_t tid, struct mem *mem, const proc_map_vec *maps, const struct native_catch_how *how,
	struct native_stack *stack, struct native_catch *ret_catch) {
	struct job job = { .tid = tid, .mem = mem, .maps = maps, .how = how, .stack = stack };
	pthread_t thread;
	int r = pthread_create(&thread, NULL, run_job, &job);

	if (r)
		return -r;
	pthread_join(thread, NULL);
	if (!job.result)
		*ret_catch = job.caught;
	return job.result;
}
