/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* What becomes of processes: who executes a program, what a watched process forks, and how it ends.
 *
 * Whom user space watches stands in a bitmap that it has mapped, so that it can say so at no cost, and so that on a
 * busy host little more than the execs of others gets through. Those, and forks, are limited in each second: what is
 * left out is counted, and makes user space look by itself. Ends of watched processes are not limited. */
#include "bpf/common.h"

#include "bpf/events.h"
#include <stdbool.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define RING_BYTES (1 << 18)
#define SIGNALS_MAX 1024 /* that watched processes may be about to die of */
#define WORD_BITS 64
#define NS_PER_SEC 1000000000ULL
#define SIGNAL_GROUP_EXIT 4 /* include/linux/sched/signal.h */
#define SENT_BY_KERNEL 1    /* SEND_SIG_PRIV, there too: stands in place of a pointer; 0: of no account */
#define DELIVERED 0         /* TRACE_SIGNAL_DELIVERED, include/trace/events/signal.h */
#define SI_FROM_KERNEL 0    /* si_code above this: the kernel's own, for what the thread did */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set anew before loading: a bit for each pid */
	__type(key, __u32);
	__type(value, __u64);
} watched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} ring SEC(".maps");

struct deadly {
	__u32 signal, flags, sender, thread;
	__u64 address;
	char sender_name[PYE_NAME_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SIGNALS_MAX);
	__type(key, __u32); /* process */
	__type(value, struct deadly);
} signals SEC(".maps");

const volatile __u32 words_n = 1;        /* of `watched` */
const volatile __u32 per_second = 1000;  /* forks and execs */
const volatile __u32 want_starts = 1;    /* whether they are of interest at all */
const volatile __u64 deadly_signals = 0; /* a bit for each signal, by its number */

__u64 counts[PYE_COUNTS];
__u64 limit_second, limit_n;

static __always_inline bool is_watched(__u32 pid) {
	__u32 word = pid / WORD_BITS;
	__u64 *bits;

	if (!pid || word >= words_n)
		return false;
	bits = bpf_map_lookup_elem(&watched, &word);
	return bits && *bits >> pid % WORD_BITS & 1;
}

static __always_inline bool is_over_limit(__u64 now_ns) {
	__u64 second = now_ns / NS_PER_SEC;

	if (limit_second != second) {
		limit_second = second;
		limit_n = 0;
	}
	__sync_fetch_and_add(&limit_n, 1);
	if (limit_n <= per_second)
		return false;
	__sync_fetch_and_add(&counts[PYE_LIMITED], 1);
	return true;
}

static __always_inline __u64 start_of(struct task_struct *task) {
	return BPF_CORE_READ(task, group_leader, start_boottime);
}

static __always_inline void hand_over(const struct pye_event *event) {
	if (bpf_ringbuf_output(&ring, (void *)event, sizeof(*event), 0))
		__sync_fetch_and_add(&counts[PYE_RING_FULL], 1);
	else
		__sync_fetch_and_add(&counts[PYE_TOLD], 1);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child) {
	struct pye_event event = { .kind = PYE_FORK, .time_ns = bpf_ktime_get_ns() };

	if (!want_starts || BPF_CORE_READ(child, pid) != BPF_CORE_READ(child, tgid))
		return 0; /* a thread */
	event.parent = process_of(parent);
	if (!is_watched(event.parent) || is_over_limit(event.time_ns))
		return 0;
	event.pid = process_of(child);
	event.start_ns = start_of(child);
	hand_over(&event);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task) {
	struct pye_event event = { .kind = PYE_EXEC, .time_ns = bpf_ktime_get_ns() };

	event.pid = process_of(task);
	if (!event.pid || (!want_starts && !is_watched(event.pid)))
		return 0;
	if (!is_watched(event.pid) && is_over_limit(event.time_ns))
		return 0;
	event.start_ns = start_of(task);
	hand_over(&event);
	return 0;
}

static __always_inline void add_signal(struct pye_event *event) {
	struct deadly *deadly = bpf_map_lookup_elem(&signals, &event->pid);

	if (!deadly)
		return;
	if (deadly->signal == (event->status & 0x7f)) {
		event->flags = deadly->flags;
		event->sender = deadly->sender;
		event->thread = deadly->thread;
		event->address = deadly->address;
		__builtin_memcpy(event->sender_name, deadly->sender_name, sizeof(event->sender_name));
	}
	bpf_map_delete_elem(&signals, &event->pid);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task) {
	struct pye_event event = { .kind = PYE_EXIT, .time_ns = bpf_ktime_get_ns() };
	struct signal_struct *signal = BPF_CORE_READ(task, signal);

	if (BPF_CORE_READ(signal, live.counter))
		return 0;
	event.pid = process_of(task);
	if (!is_watched(event.pid))
		return 0;
	event.parent = process_of(BPF_CORE_READ(task, group_leader, real_parent));
	event.start_ns = start_of(task);
	/* As wait_task_zombie has it. */
	event.status = (__u32)(BPF_CORE_READ(signal, flags) & SIGNAL_GROUP_EXIT
			? BPF_CORE_READ(signal, group_exit_code)
			: BPF_CORE_READ(task, group_leader, exit_code));
	add_signal(&event);
	hand_over(&event);
	return 0;
}

/* The thread that stumbled gets the signal in its own context. */
static __always_inline void add_fault(struct deadly *deadly, struct kernel_siginfo *info, struct task_struct *task) {
	if (BPF_CORE_READ(info, si_code) <= SI_FROM_KERNEL)
		return;
	deadly->flags |= PYE_KERNEL;
	if (deadly->thread && (struct task_struct *)bpf_get_current_task() == task) {
		deadly->flags |= PYE_ADDRESS;
		deadly->address = (__u64)BPF_CORE_READ(info, _sifields._sigfault._addr);
	}
}

SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int number, struct kernel_siginfo *info, struct task_struct *task, int group, int result) {
	struct deadly deadly = { .signal = (__u32)number, .flags = PYE_SENT };
	__u32 pid;

	if (result != DELIVERED || number <= 0 || number > 63 || !(deadly_signals >> number & 1))
		return 0;
	pid = process_of(task);
	if (!is_watched(pid))
		return 0;
	deadly.sender = own_process((struct task_struct *)bpf_get_current_task());
	bpf_get_current_comm(deadly.sender_name, sizeof(deadly.sender_name));
	if (!group) {
		deadly.flags |= PYE_THREAD;
		deadly.thread =
			own_pid_level ? pid_as_ours(BPF_CORE_READ(task, thread_pid)) : (__u32)BPF_CORE_READ(task, pid);
	}
	if ((unsigned long)info == SENT_BY_KERNEL)
		deadly.flags |= PYE_KERNEL;
	else if ((unsigned long)info > SENT_BY_KERNEL)
		add_fault(&deadly, info, task);
	bpf_map_update_elem(&signals, &pid, &deadly, BPF_ANY);
	return 0;
}
