/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_KERNEL_STACK_H
#define PYSPYD_PROC_KERNEL_STACK_H

#include "engine/proc/proc.h"

/* Where in the kernel a thread is blocked: /proc/PID/task/TID/stack (Linux man 5 proc_pid_stack). Only for those with
 * CAP_SYS_ADMIN, and of no use for a thread that runs. */

#define KERNEL_FRAMES_MAX 64

struct kernel_frame {
	const char *function; /* "futex_wait_queue" */
	const char *module;   /* "ext4"; "" the kernel itself */
};

struct kernel_stack {
	char *text;                                    /* what the names point into */
	struct kernel_frame frames[KERNEL_FRAMES_MAX]; /* most recent call first */
	size_t n;
};

/* Pure: cuts the text, which must stand as long as the result, into names. */
void kernel_stack_parse(char *text, struct kernel_stack *stack);

/* Return: 0; PROC_E_GONE; -EACCES, -EPERM; -ENOENT where the kernel has no such file; negative errno. *ret_stack is the
 * caller's to deinit. */
int kernel_stack_read(const struct proc *proc, pid_t tid, struct kernel_stack *ret_stack);
void kernel_stack_deinit(struct kernel_stack *stack);

#endif
