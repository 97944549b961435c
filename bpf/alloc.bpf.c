/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Samples of allocations: a probe at each allocator of the interpreter counts the bytes, and at points that lie at
 * random along them the Python stack is taken, with the bytes that it stands for. So each byte has the same chance, and
 * a large allocation weighs what it is, whatever its neighbours.
 *
 * A probe is passed very often: what is not at a point leaves after few instructions.
 *
 * The program runs in its thread's own context and may be pushed aside by another thread on this CPU: who finds the
 * scratch in use gives up, and is counted. */
#define PYB_COUNTERS PYB_COUNTS
#include "bpf/common.h"

#include <linux/bpf_perf_event.h>

#include "bpf/alloc.h"
#include "bpf/stack.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define RING_BYTES (1 << 20)
#define NEST_BYTES 8192 /* of stack between two allocators of which one calls the other */
#define NEST_EXTRA 64   /* bytes that the outer one may add */
#define SITE_BYTES 512  /* … where the outer one is inside of its caller */
#define SMALL_BYTES 512 /* up to here pymalloc serves them */
#define SIZE_MAX_SANE (1ULL << 47)

__u32 target;               /* pid, as pyspyd sees it */
__u32 watching;             /* 0: hits cost, and that is all */
__u64 every;                /* mean distance of two points, in bytes */
__u64 gaps[PYB_ALLOC_GAPS]; /* distances, each as likely as the other */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pyb_alloc_cpu);
} cpus SEC(".maps");

static __always_inline __u64 user_word(__u64 address) {
	__u64 word = 0;

	bpf_probe_read_user(&word, sizeof(word), (const void *)address);
	return word;
}

static __always_inline __u64 reg_of(const void *ctx, __u64 number) {
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (const void *)((__u64)ctx + number * 8));
	return value;
}

static __always_inline __u64 size_of(const void *ctx, __u64 cookie) {
	__u64 a = cookie & 0xff, b = cookie >> 8 & 0xff;
	__u64 value = (__u64)((__s64)cookie >> 32);

	if (a != PYB_ALLOC_NO_REG)
		value += reg_of(ctx, a);
	if (cookie >> 16 & PYB_ALLOC_LOAD)
		value = user_word(value);
	if (b != PYB_ALLOC_NO_REG)
		value *= reg_of(ctx, b);
	return value;
}

static __always_inline __u64 sp_of(const struct pt_regs *ctx) {
#if defined(__TARGET_ARCH_x86)
	return ctx->rsp;
#elif defined(__TARGET_ARCH_arm64)
	return ((const struct user_pt_regs *)ctx)->sp;
#endif
}

/* Whether the last outer allocator of this thread called this one: it has not returned, since where its return address
 * stood there still is the same. The same one again is another call from the same place. One inside of its caller has
 * no such word: what comes next from about there, once, of a size that it does not serve itself, is its call. */
static __always_inline int is_inner(struct pyb_alloc_cpu *c, __u64 task, __u64 ip, __u64 sp, __u64 size) {
	if (c->outer_task != task || c->outer_ip == ip || size < c->outer_size || size > c->outer_size + NEST_EXTRA)
		return 0;
	if (!c->outer_site)
		return sp <= c->outer_sp && c->outer_sp - sp < NEST_BYTES && user_word(c->outer_sp) == c->outer_word;
	c->outer_task = 0;
	return size > SMALL_BYTES && sp - c->outer_sp + SITE_BYTES < 2 * SITE_BYTES;
}

static __always_inline void remember_outer(
	struct pyb_alloc_cpu *c, __u64 task, __u64 ip, __u64 sp, __u64 size, __u64 site) {
	c->outer_task = task;
	c->outer_ip = ip;
	c->outer_sp = sp;
	c->outer_site = site;
	c->outer_word = site ? 0 : user_word(sp);
	c->outer_size = size;
}

static __always_inline __u64 next_gap(struct pyb_alloc_cpu *c) {
	__u64 x = c->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	c->random = x;
	return gaps[(x >> 32) & (PYB_ALLOC_GAPS - 1)];
}

/* How many points this allocation has. */
__noinline int points_passed(__u64 size) {
	__u32 zero = 0;
	struct pyb_alloc_cpu *c = bpf_map_lookup_elem(&cpus, &zero);
	int points = 0;

	if (!c)
		return 0;
	if (!c->random) {
		c->random = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1;
		c->left = (__s64)next_gap(c);
	}
	c->left -= (__s64)size;
	if (c->left > 0)
		return 0;
	for (int i = 0; i < PYB_ALLOC_POINTS; i++) {
		points++;
		c->left += (__s64)next_gap(c);
		if (c->left > 0)
			break;
	}
	return points;
}

static __always_inline void hand_over(struct pyb_scratch *s) {
	__u32 n = s->event.frames_n;

	if (n > PYB_FRAMES_MAX)
		return;
	if (bpf_ringbuf_output(&ring, &s->event, sizeof(s->event) + n * sizeof(struct pyb_frame), 0))
		count(PYB_RING_FULL);
	else
		count(PYB_SAMPLES);
}

static __always_inline void take_stack(
	struct task_struct *task, struct pyb_scratch *s, __u32 pid, __u64 size, __u64 weight) {
	struct pyb_thread_key key = { .thread_pointer = thread_pointer_of(task), .pid = pid };
	struct pyb_process *p = bpf_map_lookup_elem(&processes, &pid);
	struct pyb_thread *thread;
	__u32 flags = 0;

	if (!p)
		return;
	thread = bpf_map_lookup_elem(&threads, &key);
	s->found.tstate = 0;
	if (!thread || !pyb_find_known(p, thread, key.thread_pointer, &s->found)) {
		flags |= PYB_SEARCHED;
		if (!search(pid, key.thread_pointer)) {
			count(PYB_NO_STATE);
			s->found.frame = 0;
			s->found.tstate = 0;
		}
	}
	flags |= (__u32)walk(pid, s->found.frame);
	s->event.kind = PYB_ALLOC;
	s->event.flags = flags;
	s->event.time_ns = bpf_ktime_get_ns();
	s->event.pid = pid;
	s->event.cpu = bpf_get_smp_processor_id();
	s->event.thread_pointer = key.thread_pointer;
	s->event.tstate = s->found.tstate;
	s->event.size = size;
	s->event.weight = weight;
	hand_over(s);
}

__noinline int take(__u32 pid, __u64 size, __u64 weight) {
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 begin = bpf_ktime_get_ns();
	__u32 zero = 0;
	struct pyb_alloc_cpu *c = bpf_map_lookup_elem(&cpus, &zero);
	struct pyb_scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!c || !s)
		return 0;
	__sync_fetch_and_add(&c->busy, 1);
	if (*(volatile __u64 *)&c->busy == 1)
		take_stack(task, s, pid, size, weight);
	else
		count(PYB_NESTED);
	__sync_fetch_and_add(&c->busy, -1);
	c->walk_ns += bpf_ktime_get_ns() - begin;
	return 0;
}

SEC("uprobe")
int on_alloc(struct pt_regs *ctx) {
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 cookie = bpf_get_attach_cookie(ctx), flags = cookie >> 16, sp = sp_of(ctx), size;
	__u32 zero = 0, pid = own_process(task);
	struct pyb_alloc_cpu *c = bpf_map_lookup_elem(&cpus, &zero);
	int points, inner;

	if (!c)
		return 0;
	if (pid != target) {
		c->others++;
		return 0;
	}
	c->hits++;
	if (!watching)
		return 0;
	size = size_of(ctx, cookie);
	sp += (cookie >> 24 & 0xff) * 8;
	inner = flags & PYB_ALLOC_INNER && is_inner(c, (__u64)task, PT_REGS_IP(ctx), sp, size);
	if (flags & PYB_ALLOC_OUTER)
		remember_outer(c, (__u64)task, PT_REGS_IP(ctx), sp, size, flags & PYB_ALLOC_SITE);
	if (inner) {
		c->inner++;
		return 0;
	}
	if (size > SIZE_MAX_SANE)
		return 0; /* it will fail */
	c->bytes += size;
	if (size >= every * PYB_ALLOC_LARGE) {
		take(pid, size, size);
		return 0;
	}
	points = points_passed(size);
	if (points)
		take(pid, size, (__u64)points * every);
	return 0;
}
