/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
#ifndef PYSPYD_BPF_STACK_H
#define PYSPYD_BPF_STACK_H

/* The current thread's Python stack: the maps that say of processes and threads what is to be known, and the walk as
 * functions that the verifier looks at once each. An object that includes this has its own of all of them.
 *
 * `scratch` is one for each CPU: programs of one object that use it must not interrupt each other. */

#include "bpf/common.h"

#define PYB_READ(to, len, address) bpf_probe_read_user(to, len, (const void *)(address))
#include "bpf/walk.h"

#ifndef PYB_COUNTERS
#define PYB_COUNTERS PYB_COUNTS
#endif

#define PROCESSES_MAX 4096
#define THREADS_MAX 65536

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PROCESSES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct pyb_process);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, THREADS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct pyb_thread_key);
	__type(value, struct pyb_thread);
} threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PYB_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pyb_scratch);
} scratch SEC(".maps");

static __always_inline void count(__u32 what) {
	__u64 *value = bpf_map_lookup_elem(&counts, &what);

	if (value)
		++*value;
}

static long walk_step(__u32 index, void *w) {
	(void)index;
	return pyb_walk_step(w);
}

struct searching {
	const struct pyb_process *process;
	struct pyb_scratch *s;
	__u64 thread_pointer;
};

static long search_step(__u32 index, void *context) {
	const struct searching *w = context;

	(void)index;
	return pyb_search_step(w->process, w->thread_pointer, &w->s->found);
}

static __always_inline int count_walk(struct pyb_walk *w) {
	__u32 flags = pyb_walk_end(w);

	if (flags & PYB_BROKEN)
		count(w->cause);
	if (flags & PYB_TRUNCATED)
		count(PYB_DEEP);
	return (int)flags;
}

/* Global functions are verified on their own, once, whatever the caller knows: so these find what they need by
 * themselves. Each is there twice: a step that the helper repeats is verified once (5.17 and later), one in a loop as
 * often as it may run, which takes a fifth of a second. */

__noinline int walk(__u32 pid, __u64 frame) {
	struct pyb_process *p = bpf_map_lookup_elem(&processes, &pid);
	__u32 zero = 0;
	struct pyb_scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	struct pyb_walk w;

	if (!p || !s)
		return 0;
	pyb_walk_begin(&w, p, frame, s);
	bpf_loop(PYB_STEPS_MAX, walk_step, &w, 0);
	return count_walk(&w);
}

__noinline int walk_in_loop(__u32 pid, __u64 frame) {
	struct pyb_process *p = bpf_map_lookup_elem(&processes, &pid);
	__u32 zero = 0;
	struct pyb_scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	struct pyb_walk w;

	if (!p || !s)
		return 0;
	pyb_walk_begin(&w, p, frame, s);
	for (__u32 steps = 0; steps < PYB_FRAMES_MAX; steps++)
		if (pyb_walk_step(&w))
			break;
	return count_walk(&w);
}

__noinline int search(__u32 pid, __u64 thread_pointer) {
	__u32 zero = 0;
	struct searching w = { .process = bpf_map_lookup_elem(&processes, &pid),
		.s = bpf_map_lookup_elem(&scratch, &zero),
		.thread_pointer = thread_pointer };

	if (!w.process || !w.s)
		return 0;
	w.s->found = (struct pyb_found){ 0 };
	bpf_loop(PYB_SEARCH_MAX, search_step, &w, 0);
	return w.s->found.tstate != 0;
}

__noinline int search_in_loop(__u32 pid, __u64 thread_pointer) {
	struct pyb_process *p = bpf_map_lookup_elem(&processes, &pid);
	__u32 zero = 0;
	struct pyb_scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!p || !s)
		return 0;
	s->found = (struct pyb_found){ 0 };
	return pyb_search(p, thread_pointer, &s->found);
}

#endif
