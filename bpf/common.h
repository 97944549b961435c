/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
#ifndef PYSPYD_BPF_COMMON_H
#define PYSPYD_BPF_COMMON_H

/* What every program here uses. The order matters: the kernel's types come before the helpers that name them. */

#include <linux/bpf.h>

#include "bpf/kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* The PID namespace of pyspyd: its depth, and its number. Found by learn_own_ids, which user space runs once. */
__u32 own_pid_level;
__u32 own_pid_ns;

SEC("raw_tp")
int learn_own_ids(void *ctx) {
	struct pid *pid = BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid upid = { 0 };

	(void)ctx;
	bpf_core_read(&upid, sizeof(upid), &pid->numbers[level]);
	own_pid_ns = BPF_CORE_READ(upid.ns, ns.inum);
	own_pid_level = level;
	return 0;
}

/* The pid, as pyspyd's own PID namespace has it, of what a struct pid stands for; 0: it is not in it. */
static __always_inline __u32 pid_as_ours(struct pid *pid) {
	struct upid upid;

	if (BPF_CORE_READ(pid, level) < own_pid_level)
		return 0;
	if (bpf_core_read(&upid, sizeof(upid), &pid->numbers[own_pid_level]))
		return 0;
	return BPF_CORE_READ(upid.ns, ns.inum) == own_pid_ns ? (__u32)upid.nr : 0;
}

static __always_inline __u32 process_of(struct task_struct *task) {
	return own_pid_level ? pid_as_ours(BPF_CORE_READ(task, group_leader, thread_pid))
			     : (__u32)BPF_CORE_READ(task, tgid);
}

/* Of the current task. */
static __always_inline __u32 own_process(struct task_struct *task) {
	return own_pid_level ? process_of(task) : (__u32)(bpf_get_current_pid_tgid() >> 32);
}

static __always_inline __u64 thread_pointer_of(struct task_struct *task) {
#if defined(__TARGET_ARCH_x86)
	return BPF_CORE_READ(task, thread.fsbase);
#elif defined(__TARGET_ARCH_arm64)
	return BPF_CORE_READ(task, thread.uw.tp_value);
#endif
}

#endif
