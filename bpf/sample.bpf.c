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
#include "engine/native/unwind_rows.h"

#define TABLE_WORDS 2 /* … of maps below: set anew before loading where native stacks are wanted */
#define RULES 1
#define UNWIND_STEPS_AT_ONCE 4   /* that are verified as one piece */
#define NATIVE_PROCESSES_MAX 256 /* others are unwound in user space */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TABLE_WORDS / 2);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64); /* two words */
} tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RULES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct unwind_rule);
} rules SEC(".maps");

static __always_inline __u32 table_word(__u32 index) {
	__u32 pair = index / 2;
	__u64 *words = bpf_map_lookup_elem(&tables, &pair);

	return words ? (__u32)(*words >> 32 * (index % 2)) : 0;
}

static __always_inline const struct unwind_rule *rule_of(__u32 index) {
	return bpf_map_lookup_elem(&rules, &index);
}

#define PYB_TABLE_WORD(index) table_word(index)
#define PYB_RULE(index) rule_of(index)
#if defined(__TARGET_ARCH_arm64)
#define PYB_ARM64 1
#else
#define PYB_ARM64 0
#endif
#include "bpf/unwind.h"

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

const volatile __u8 want_native;                  /* PYB_NATIVE before each sample */
const volatile __u8 want_copies;                  /* … and PYB_STACK, whatever that says */
const volatile __u32 copy_bytes = RING_BYTES / 2; /* no PYB_STACK when so much waits */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pyb_unwind);
} unwind_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pyb_stack);
} stack_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NATIVE_PROCESSES_MAX);
	__type(key, __u32);
	__type(value, struct pyb_codes);
} codes SEC(".maps");

#if defined(__TARGET_ARCH_x86)
#define COPY_REGISTERS(n, r) ((n)->ip = (r).rip, (n)->sp = (r).rsp, (n)->fp = (r).rbp, (n)->other = (r).rbx)
#elif defined(__TARGET_ARCH_arm64)
#define COPY_REGISTERS(n, r) ((n)->ip = (r).pc, (n)->sp = (r).sp, (n)->fp = (r).regs[29], (n)->other = (r).regs[30])
#endif

/* Registers of user space, also of a thread that is in the kernel. The context's are not in memory: each is asked for
 * by name. */
static __always_inline void take_registers(volatile struct bpf_perf_event_data *ctx, struct pyb_regs *n) {
	bpf_user_pt_regs_t regs = { 0 };

	COPY_REGISTERS(n, ctx->regs);
	if (!in_kernel(ctx))
		return;
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		bpf_probe_read_kernel(&regs, sizeof(regs), (void *)bpf_task_pt_regs(bpf_get_current_task_btf()));
	COPY_REGISTERS(n, regs); /* before 5.15: nothing */
}

__noinline int unwind_on(__u32 pid) {
	__u32 zero = 0;
	struct pyb_unwind *u = bpf_map_lookup_elem(&unwind_scratch, &zero);
	struct pyb_codes *of = bpf_map_lookup_elem(&codes, &pid);

	if (!u || !of)
		return 1;
	for (int i = 0; i < UNWIND_STEPS_AT_ONCE; i++)
		if (pyb_unwind_step(of, u))
			return 1;
	return 0;
}

/* The registers are in the scratch. Return: whether it goes to the thread's first function, or is too deep. */
__noinline int unwind(__u32 pid) {
	__u32 zero = 0;
	struct pyb_unwind *u = bpf_map_lookup_elem(&unwind_scratch, &zero);
	struct pyb_codes *of = bpf_map_lookup_elem(&codes, &pid);

	if (!u)
		return 0;
	u->native.stop = PYB_STOP_UNTOLD;
	u->native.frames_n = u->native.telling = 0;
	if (!of || !u->regs.sp)
		return 0;
	pyb_unwind_begin(of, u);
	for (int i = 0; i <= PYB_ADDRESSES_MAX / UNWIND_STEPS_AT_ONCE; i++)
		if (unwind_on(pid))
			break;
	of = bpf_map_lookup_elem(&codes, &pid);
	if (!of || of->telling != u->native.telling) { /* the list may have become another process's meanwhile */
		u->native.stop = PYB_STOP_UNTOLD;
		u->native.frames_n = 0;
	}
	return u->native.stop == PYB_STOP_COMPLETE || u->native.stop == PYB_STOP_TRUNCATED;
}

/* For user space to go on from. */
__noinline int copy_stack(void) {
	__u32 zero = 0;
	struct pyb_unwind *u = bpf_map_lookup_elem(&unwind_scratch, &zero);
	struct pyb_stack *s = bpf_map_lookup_elem(&stack_scratch, &zero);
	__u32 len;

	if (!u || !s)
		return 0;
	s->kind = PYB_STACK;
	s->cpu = u->native.cpu;
	s->time_ns = u->native.time_ns;
	s->ip = u->start.ip;
	s->sp = u->start.sp;
	s->fp = u->start.fp;
	s->other = u->start.other;
	s->stack_len = 0;
	s->stack_at = s->sp & ~(__u64)(PYB_PAGE - 1);
	for (__u32 i = 0; i < PYB_STACK_PAGES; i++) {
		if (bpf_probe_read_user(s->stack + i * PYB_PAGE, PYB_PAGE, (void *)(s->stack_at + i * PYB_PAGE)))
			break;
		s->stack_len = (i + 1) * PYB_PAGE;
	}
	len = offsetof(struct pyb_stack, stack) + s->stack_len;
	return len <= sizeof(*s) && !bpf_ringbuf_output(&ring, s, len, BPF_RB_NO_WAKEUP);
}

static __always_inline void hand_over_native(struct bpf_perf_event_data *ctx, const struct pyb_event *event) {
	__u32 zero = 0, n;
	struct pyb_unwind *u = bpf_map_lookup_elem(&unwind_scratch, &zero);
	__u64 len;
	long got;
	int whole;

	if (!u)
		return;
	u->native.kind = PYB_NATIVE;
	u->native.cpu = event->cpu;
	u->native.time_ns = event->time_ns;
	u->native.kernel_n = 0;
	u->native.stack = 0;
	take_registers(ctx, &u->regs);
	u->start = u->regs;
	if (in_kernel(ctx)) {
		got = bpf_get_stack(ctx, u->native.addresses, PYB_KERNEL_MAX * sizeof(u->native.addresses[0]), 0);
		u->native.kernel_n = got > 0 ? (__u32)got / sizeof(u->native.addresses[0]) : 0;
	}
	whole = unwind(event->pid);
	if (whole)
		count(PYB_WHOLE);
	if ((!whole || want_copies) && u->start.sp && bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) < copy_bytes &&
		copy_stack()) {
		u->native.stack = 1;
		count(PYB_COPIED);
	}
	n = u->native.kernel_n + u->native.frames_n;
	if (n > PYB_ADDRESSES_MAX)
		return;
	len = offsetof(struct pyb_native, addresses) + n * sizeof(u->native.addresses[0]);
	if (bpf_ringbuf_output(&ring, &u->native, len, BPF_RB_NO_WAKEUP))
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
