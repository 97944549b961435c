/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Samples of Python threads that are on a CPU, taken in the timer interrupt of that very CPU: the thread stands still
 * meanwhile, so no stack is torn.
 *
 * A thread is known by its thread pointer, which is what CPython keeps as its thread_id, in every PID namespace.
 * `threads` says which thread states it has; that is checked on every sample, and where it does not hold the lists of
 * the interpreters are searched, newest first. Everything that does not end in a stack is counted by its cause. */
#include "bpf/common.h"

#include <linux/bpf_perf_event.h>
#include <stddef.h>

#include "bpf/stack.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define RING_BYTES (1 << 20) /* set anew before loading */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} ring SEC(".maps");

const volatile __u32 wake_bytes = RING_BYTES / 4; /* user space is woken when so much waits for it */

static __always_inline int in_kernel(const volatile struct bpf_perf_event_data *ctx) {
#if defined(__TARGET_ARCH_x86)
	return (ctx->regs.cs & 3) != 3;
#elif defined(__TARGET_ARCH_arm64)
	return (ctx->regs.pstate & 0xf) != 0;
#endif
}

static __always_inline __u64 ip_of(const volatile struct bpf_perf_event_data *ctx) {
#if defined(__TARGET_ARCH_x86)
	return ctx->regs.rip;
#elif defined(__TARGET_ARCH_arm64)
	return ctx->regs.pc;
#endif
}

const volatile __u8 want_native; /* PYB_NATIVE before each sample */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pyb_native);
} native_scratch SEC(".maps");

#if defined(__TARGET_ARCH_x86)
#define COPY_REGISTERS(n, r) ((n)->ip = (r).rip, (n)->sp = (r).rsp, (n)->fp = (r).rbp, (n)->other = (r).rbx)
#elif defined(__TARGET_ARCH_arm64)
#define COPY_REGISTERS(n, r) ((n)->ip = (r).pc, (n)->sp = (r).sp, (n)->fp = (r).regs[29], (n)->other = (r).regs[30])
#endif

/* Registers of user space, also of a thread that is in the kernel. The context's are not in memory: each is asked for
 * by name. */
static __always_inline void take_registers(volatile struct bpf_perf_event_data *ctx, struct pyb_native *n) {
	bpf_user_pt_regs_t regs = { 0 };

	COPY_REGISTERS(n, ctx->regs);
	if (!in_kernel(ctx))
		return;
	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return;
	bpf_probe_read_kernel(&regs, sizeof(regs), (void *)bpf_task_pt_regs(bpf_get_current_task_btf()));
	COPY_REGISTERS(n, regs);
}

static __always_inline void hand_over_native(struct bpf_perf_event_data *ctx, const struct pyb_event *event) {
	__u32 zero = 0, len;
	struct pyb_native *n = bpf_map_lookup_elem(&native_scratch, &zero);
	long got;

	if (!n)
		return;
	n->kind = PYB_NATIVE;
	n->cpu = event->cpu;
	n->time_ns = event->time_ns;
	n->ip = n->sp = n->fp = n->other = 0;
	n->stack_len = n->kernel_n = 0;
	take_registers(ctx, n);
	n->stack_at = n->sp & ~(__u64)(PYB_PAGE - 1);
	for (__u32 i = 0; i < PYB_STACK_PAGES; i++) {
		if (bpf_probe_read_user(n->stack + i * PYB_PAGE, PYB_PAGE, (void *)(n->stack_at + i * PYB_PAGE)))
			break;
		n->stack_len = (i + 1) * PYB_PAGE;
	}
	if (in_kernel(ctx)) {
		got = bpf_get_stack(ctx, n->kernel, sizeof(n->kernel), 0);
		n->kernel_n = got > 0 ? (__u32)got / sizeof(n->kernel[0]) : 0;
	}
	len = offsetof(struct pyb_native, stack) + n->stack_len;
	if (len <= sizeof(*n) && bpf_ringbuf_output(&ring, n, len, BPF_RB_NO_WAKEUP))
		count(PYB_RING_FULL);
}

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
	s->event.ip = 0;
	if (in_kernel(ctx))
		flags |= PYB_KERNEL;
	else
		s->event.ip = ip_of(ctx);
	s->event.kind = PYB_SAMPLE;
	s->event.flags = flags;
	s->event.time_ns = bpf_ktime_get_ns();
	s->event.pid = key.pid;
	s->event.cpu = bpf_get_smp_processor_id();
	s->event.thread_pointer = key.thread_pointer;
	s->event.tstate = s->found.tstate;
	s->event.leaf = s->found.frame;
	if (want_native)
		hand_over_native(ctx, &s->event);
	hand_over(s);
	return 0;
}
