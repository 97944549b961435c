/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* The counters of threads, in one pass over all there are: those of the processes whose bit user space has set, or of
 * everybody.
 *
 * Each thread is one record. Where the reader's buffer is full the kernel runs the program for that thread again when
 * the reader comes back, so nothing is lost. The kernel's memory is read by plain loads, since what an iterator hands
 * over is a task that stays. */
#include "bpf/common.h"

#include "bpf/tasks.h"
#include <stdbool.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define WORD_BITS 64

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set anew before loading: a bit for each pid */
	__type(key, __u32);
	__type(value, __u64);
} watched SEC(".maps");

const volatile __u32 words_n = 1; /* of `watched` */
__u32 everybody;                  /* whoever is not watched too */
__u64 visited;                    /* tasks, of this pass */

static __always_inline bool is_wanted(__u32 pid) {
	__u32 word = pid / WORD_BITS;
	__u64 *bits;

	if (everybody)
		return true;
	if (word >= words_n)
		return false;
	bits = bpf_map_lookup_elem(&watched, &word);
	return bits && *bits >> pid % WORD_BITS & 1;
}

static __always_inline __u32 state_of(struct task_struct *task) {
	__u32 state = bpf_core_field_exists(task->__state) ? task->__state
							   : (__u32)((struct task_struct___5_13 *)task)->state;

	return state | (__u32)task->exit_state;
}

static __always_inline __u32 cpu_of(struct task_struct *task) {
	return bpf_core_field_exists(task->thread_info.cpu) ? task->thread_info.cpu
							    : ((struct task_struct___5_15 *)task)->cpu;
}

SEC("iter/task")
int tell_tasks(struct bpf_iter__task *ctx) {
	struct task_struct *task = ctx->task;
	struct pyt_task t = { 0 };

	if (!task)
		return 0;
	visited++;
	t.pid = own_pid_level ? process_of(task) : (__u32)task->tgid;
	if (!t.pid || !is_wanted(t.pid))
		return 0;
	t.tid = own_pid_level ? pid_as_ours(task->thread_pid) : (__u32)task->pid;
	t.state = state_of(task);
	t.cpu = cpu_of(task);
	t.run_ns = task->se.sum_exec_runtime;
	if (bpf_core_field_exists(task->sched_info.run_delay)) {
		t.wait_ns = task->sched_info.run_delay;
		t.slices = task->sched_info.pcount;
	}
	t.voluntary = task->nvcsw;
	t.involuntary = task->nivcsw;
	t.start_ns = task->start_boottime;
	bpf_seq_write(ctx->meta->seq, &t, sizeof(t));
	return 0;
}
