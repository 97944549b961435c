/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
#ifndef PYSPYD_BPF_KERNEL_H
#define PYSPYD_BPF_KERNEL_H

/* The kernel's types as far as the programs look into them. The loader finds each member in the running kernel's own
 * description (CO-RE), whatever its place there; what a kernel may lack is asked for with bpf_core_field_exists. */

#include <linux/types.h>

#define CORE __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} CORE;

struct pid_namespace {
	struct ns_common ns;
} CORE;

struct upid {
	int nr;
	struct pid_namespace *ns;
} CORE;

struct pid {
	unsigned int level;
	struct upid numbers[1];
} CORE;

struct thread_struct {
#if defined(__TARGET_ARCH_x86)
	unsigned long fsbase;
#elif defined(__TARGET_ARCH_arm64)
	struct {
		unsigned long tp_value;
	} uw;
#endif
} CORE;

struct sched_info {
	unsigned long long run_delay;
} CORE;

struct signal_struct {
	struct {
		int counter;
	} live;
	unsigned int flags;
	int group_exit_code;
} CORE;

union __sifields {
	struct {
		void *_addr;
	} _sigfault;
} CORE;

struct kernel_siginfo {
	int si_code;
	union __sifields _sifields;
} CORE;

struct task_struct {
	int pid, tgid;
	unsigned int flags;
	int exit_code;
	unsigned long long start_boottime;
	struct task_struct *real_parent, *group_leader;
	struct signal_struct *signal;
	struct pid *thread_pid;
	struct sched_info sched_info;
	struct thread_struct thread;
} CORE;

#endif
