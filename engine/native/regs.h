/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_REGS_H
#define PYSPYD_NATIVE_REGS_H

#include "engine/base/util.h"
#include "engine/mem/mem.h"
#include "engine/proc/proc.h"
#include "engine/proc/sleep.h"
#include <sys/user.h>

/* Registers of a thread, by DWARF's numbers (System V ABI x86-64, figure 3.36; DWARF for AArch64, table of registers),
 * and the ways to get them. */

enum {
	NATIVE_X86_BX = 3,
	NATIVE_X86_FP = 6,
	NATIVE_X86_SP = 7,
	NATIVE_X86_IP = 16,
	NATIVE_ARM64_FP = 29,
	NATIVE_ARM64_LR = 30,
	NATIVE_ARM64_SP = 31,
	NATIVE_ARM64_IP = 32, /* the program counter */
#ifdef __aarch64__
	NATIVE_FP = NATIVE_ARM64_FP,
	NATIVE_SP = NATIVE_ARM64_SP,
	NATIVE_IP = NATIVE_ARM64_IP,
#else
	NATIVE_FP = NATIVE_X86_FP,
	NATIVE_SP = NATIVE_X86_SP,
	NATIVE_IP = NATIVE_X86_IP,
#endif
	NATIVE_REGS = 33,
};

struct native_regs {
	uint64_t known; /* a bit each */
	uint64_t value[NATIVE_REGS];
};

static inline bool native_regs_has(const struct native_regs *regs, unsigned number) {
	return number < NATIVE_REGS && regs->known >> number & 1;
}

static inline void native_regs_set(struct native_regs *regs, unsigned number, uint64_t value) {
	regs->value[number] = value;
	regs->known |= 1ULL << number;
}

static inline void native_regs_forget(struct native_regs *regs, unsigned number) {
	regs->known &= ~(1ULL << number);
}

/* Of a thread in a system call, as /proc shows it: the stack pointer, the program counter, and the registers that hold
 * the arguments. The frame pointer is not among them. Return: whether the thread was in a system call or blocked
 * elsewhere in the kernel. */
bool native_regs_of_sleep(const struct proc_sleep *sleep, struct native_regs *ret_regs);

/* All that a debugger, or a core, has of a thread. */
struct native_regs native_regs_of_user(const struct user_regs_struct *user);

/* All of a thread that the caller has stopped with ptrace. Return: 0; negative errno. */
int native_regs_of_stopped(pid_t tid, struct native_regs *ret_regs);

/* The top of a thread's stack, from the stack pointer on. */
struct native_stack {
	raddr at;
	size_t len;
	uint8_t *bytes; /* room for NATIVE_STACK_MAX */
};

#define NATIVE_STACK_MAX (1U << 20)

int native_stack_init(struct native_stack *stack);
void native_stack_deinit(struct native_stack *stack);

/* Copies up to max bytes from `at` on, but not beyond `end`. What cannot be read ends the copy. Return: 0; MEM_E_GONE;
 * negative errno. */
int native_stack_copy(struct native_stack *stack, struct mem *mem, raddr at, raddr end, size_t max);

/* A look at a running thread. */
struct native_catch {
	struct native_regs regs;
	uint64_t stopped_ns; /* how long it stood still, at most */
};

enum {
	NATIVE_E_GONE = 1, /* the thread has ended */
	NATIVE_E_BUSY = 2, /* it did not stop in time (uninterruptible), and was let go */
};

/* How a thread is stopped. */
struct native_catch_how {
	size_t stack_max;    /* bytes of its stack, and never more than up to the end of the mapping that it is in */
	uint64_t timeout_ns; /* until it stops */
	void (*also)(void *arg); /* called while it is stopped, from a thread of ours; NULL: nothing. To be short */
	void *arg;
};

/* Stops one thread, takes its registers and the top of its stack, and lets it go. No signal is sent; the kernel lets it
 * go when we end. Signals that came meanwhile are delivered. A system call that it sleeps in is begun again by the
 * kernel; a few of them end with EINTR instead (Linux man 7 signal: epoll_wait, semop, sigtimedwait …): a sleeping
 * thread is better looked at without. Return: 0; NATIVE_E_GONE; NATIVE_E_BUSY; -EPERM; negative errno. */
int native_catch(pid_t tid, struct mem *mem, const proc_map_vec *maps, const struct native_catch_how *how,
	struct native_stack *stack, struct native_catch *ret_catch);

#endif
