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

/* Global functions are verified on their own, once, whatever the caller knows: so these find what they need by
 * themselves, and a long loop is made of calls to one that goes a part of the way. In one piece the verifier would
 * follow each of a thousand rounds, for a fifth of a second and near the most that it does. */

__noinline int walk_on(__u32 pid) {
	struct pyb_process *p = bpf_map_lookup_elem(&processes, &pid);
	__u32 zero = 0;
	struct pyb_scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!p || !s)
		return 1;
	for (int i = 0; i < PYB_STEPS_AT_ONCE; i++)
		if (pyb_walk_step(p, s))
			return 1;
	return 0;
}

__noinline int walk(__u32 pid, __u64 frame) {
	__u32 zero = 0, flags;
	struct pyb_scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!s)
		return 0;
	pyb_walk_begin(s, frame);
	for (int i = 0; i < PYB_STEPS_MAX / PYB_STEPS_AT_ONCE; i++)
		if (walk_on(pid))
			break;
	flags = pyb_walk_end(s);
	if (flags & PYB_BROKEN)
		count(s->walk.cause);
	if (flags & PYB_TRUNCATED)
		count(PYB_DEEP);
	return (int)flags;
}

__noinline int search_on(__u32 pid, __u64 thread_pointer) {
	struct pyb_process *p = bpf_map_lookup_elem(&processes, &pid);
	__u32 zero = 0;
	struct pyb_scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!p || !s)
		return 1;
	for (int i = 0; i < PYB_STEPS_AT_ONCE; i++)
		if (pyb_search_step(p, thread_pointer, &s->found))
			return 1;
	return 0;
}

/* Return: whether s->found has it. */
__noinline int search(__u32 pid, __u64 thread_pointer) {
	__u32 zero = 0;
	struct pyb_scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!s)
		return 0;
	s->found = (struct pyb_found){ 0 };
	for (int i = 0; i < PYB_SEARCH_MAX / PYB_STEPS_AT_ONCE; i++)
		if (search_on(pid, thread_pointer))
			break;
	return s->found.tstate != 0;
}

/* Makes the name of the stack in the scratch: other frames, another name. */
__noinline int name_stack(__u32 pid) {
	__u32 zero = 0, n;
	struct pyb_scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	__u64 name = pid;

	if (!s)
		return 0;
	n = s->event.frames_n;
	for (__u32 i = 0; i < PYB_FRAMES_MAX && i < n; i++) {
		const struct pyb_frame *frame = &s->frames[i];

		name = pyb_mix(name, frame->code + frame->check);
		name = pyb_mix(name, frame->instr);
	}
	s->event.name = name | 1;
	return 0;
}

#endif
