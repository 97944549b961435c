/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Samples of Python threads that are on a CPU, taken in the timer interrupt of that very CPU: the thread stands still
 * meanwhile, so no stack is torn.
 *
 * A thread is known by its thread pointer, which is what CPython keeps as its thread_id, in every PID namespace.
 * `threads` says which thread states it has; that is checked on every sample, and where it does not hold the lists of
 * the interpreters are searched, newest first. Everything that does not end in a stack is counted by its cause. */
#include "bpf/common.h"

#include <linux/bpf_perf_event.h>

#include "bpf/stack.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define RING_BYTES (1 << 20) /* set anew before loading */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} ring SEC(".maps");

const volatile __u32 wake_bytes = RING_BYTES / 4; /* user space is woken when so much waits for it */

static __always_inline void hand_over(struct pyb_scratch *s) {
	__u32 n = s->event.frames_n;
	__u64 len;

	if (n > PYB_FRAMES_MAX)
		return;
	len = sizeof(s->event) + n * sizeof(struct pyb_frame);
	if (bpf_ringbuf_output(&ring, &s->event, len,
		    bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP))
		count(PYB_RING_FULL);
	else
		count(PYB_SAMPLES);
}

SEC("perf_event")
int on_cpu(struct bpf_perf_event_data *ctx) {
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct pyb_thread_key key = { .pid = own_process(task) };
	struct pyb_process *p = bpf_map_lookup_elem(&processes, &key.pid);
	struct pyb_thread *thread;
	struct pyb_scratch *s;
	__u32 zero = 0, flags = 0;

	count(PYB_TICKS);
	if (!p)
		return 0;
	count(PYB_TARGET);
	s = bpf_map_lookup_elem(&scratch, &zero);
	if (!s)
		return 0;
	key.thread_pointer = thread_pointer_of(task);
	thread = bpf_map_lookup_elem(&threads, &key);
	s->found.tstate = 0;
	if (!thread || !pyb_find_known(p, thread, key.thread_pointer, &s->found)) {
		flags |= PYB_SEARCHED;
		if (!search(key.pid, key.thread_pointer)) {
			count(PYB_NO_STATE);
			return 0;
		}
	}
	if (s->found.interp < PYB_INTERPS_MAX)
		flags |= pyb_state_flags(p, &p->interps[s->found.interp], s->found.tstate);
	flags |= (__u32)walk(key.pid, s->found.frame);
#if defined(__TARGET_ARCH_x86)
	if ((ctx->regs.cs & 3) == 3)
		s->event.ip = ctx->regs.rip;
	else
		flags |= PYB_KERNEL, s->event.ip = 0;
#elif defined(__TARGET_ARCH_arm64)
	if ((ctx->regs.pstate & 0xf) == 0)
		s->event.ip = ctx->regs.pc;
	else
		flags |= PYB_KERNEL, s->event.ip = 0;
#endif
	s->event.kind = PYB_SAMPLE;
	s->event.flags = flags;
	s->event.time_ns = bpf_ktime_get_ns();
	s->event.pid = key.pid;
	s->event.cpu = bpf_get_smp_processor_id();
	s->event.thread_pointer = key.thread_pointer;
	s->event.tstate = s->found.tstate;
	s->event.leaf = s->found.frame;
	hand_over(s);
	return 0;
}
