/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Time off the CPU: at the switch away from a thread that goes to sleep its Python stack is named and the time written
 * down; at the switch back to it an event tells how long it slept, at which stack and in which system call. A thread
 * that is only preempted does not sleep.
 *
 * A sleep that is shorter than the threshold is added to the others of its thread; the one with which their sum reaches
 * the threshold tells of them all. So events are few, no time is lost, and over many each stack has its share.
 *
 * A stack goes to user space once, before the first event that names it. What user space has is kept in a table without
 * locks, one name in each place: another name there only means that a stack is told twice. (A map with locks must not
 * be written to with the scheduler's own lock held.)
 *
 * Some kernels do not tell of all switches away from the idle task. So what goes on the CPU unseen is noticed when it
 * leaves it: how long it slept is then the time between, less what it ran.
 *
 * Threads that sleep when they begin to be watched, and those that do when the recording ends, are found by going
 * through all tasks. */
#include "bpf/common.h"

#include "bpf/offcpu.h"
#define PYB_COUNTERS PYB_OFF_COUNTS
#include "bpf/stack.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define RING_BYTES (2 << 20)
#define NAMES (1 << 15)
#define OLD_SLEEPERS_MAX 8192
/* A thread without a thread state is looked for again. A new one may sleep before it has one. */
#define SEARCH_AGAIN_NS 100000000ULL
#define SEARCH_AGAIN_AGE 16 /* at the latest after that part of its age */
#define TASK_DEAD_BIT 0x80

const volatile __u64 threshold_ns = 1000000;
const volatile __u32 wake_bytes = RING_BYTES / 4; /* user space is woken when so much waits for it */
const volatile __u8 kernel_stacks;
const volatile __u8 has_task_storage = 1; /* 5.12: to programs like these */

__u32 begin_pid;
__u64 stopped_ns; /* 0: it goes on */

struct sleeper {
	__u64 out_ns; /* since when; 0: it does not sleep */
	__u64 stack, tstate;
	__u64 short_ns;  /* of sleeps that no event has told of */
	__u64 native_ns; /* when it was found to have no thread state; 0: it has one */
	__u64 ran_ns;    /* that it had run, when it went to sleep */
	__u64 arg;       /* of the call */
	__s64 call;      /* in which it sleeps, as in struct pyb_off */
	__u32 pid;
	__u32 sleeps; /* the short ones */
	__u32 state;
	__u32 flags;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sleeper);
} sleepers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OLD_SLEEPERS_MAX);
	__type(key, __u32);
	__type(value, struct sleeper);
} old_sleepers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NAMES);
	__type(key, __u32);
	__type(value, __u64);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pyb_off);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} ring SEC(".maps");

static __always_inline void count_more(__u32 what, __u64 n) {
	__u64 *value = bpf_map_lookup_elem(&counts, &what);

	if (value)
		*value += n;
}

static __always_inline struct sleeper *find_sleeper(struct task_struct *task) {
	__u32 key;

	if (has_task_storage)
		return bpf_task_storage_get(&sleepers, task, 0, 0);
	key = (__u32)task->pid;
	return bpf_map_lookup_elem(&old_sleepers, &key);
}

static __always_inline struct sleeper *make_sleeper(struct task_struct *task) {
	struct sleeper none = { 0 };
	struct sleeper *sleeper = find_sleeper(task);
	__u32 key;

	if (sleeper)
		return sleeper;
	if (has_task_storage)
		return bpf_task_storage_get(&sleepers, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	key = (__u32)task->pid;
	bpf_map_update_elem(&old_sleepers, &key, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&old_sleepers, &key);
}

static __always_inline __u32 state_of(struct task_struct *task) {
	struct task_struct___5_13 *old = (void *)task;

	return bpf_core_field_exists(task->__state) ? BPF_CORE_READ(task, __state) : (__u32)BPF_CORE_READ(old, state);
}

static __always_inline __u64 wakeup(void) {
	return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

static __always_inline void note_call(struct task_struct *task, struct sleeper *sleeper) {
	struct pt_regs___kernel *regs;

	sleeper->call = -2;
	sleeper->arg = 0;
	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return;
	regs = (struct pt_regs___kernel *)bpf_task_pt_regs(task);
	sleeper->call = (__s64)BPF_CORE_READ(regs, CALL_FIELD);
	sleeper->arg = BPF_CORE_READ(regs, ARG0_FIELD);
}

static __always_inline void begin_sleep(struct task_struct *task, struct sleeper *sleeper, __u32 state, __u64 now) {
	sleeper->state = state;
	sleeper->ran_ns = BPF_CORE_READ(task, se.sum_exec_runtime);
	sleeper->out_ns = now;
	note_call(task, sleeper);
}

static __always_inline void note_kernel(struct task_struct *task, struct pyb_off *event) {
	long bytes = 0;

	if (kernel_stacks)
		bytes = bpf_get_task_stack(task, event->kernel, sizeof(event->kernel), 0);
	event->kernel_n = bytes > 0 ? (__u32)bytes / sizeof(event->kernel[0]) : 0;
}

static __always_inline void tell(
	struct task_struct *task, const struct sleeper *sleeper, __u64 ns, __u32 sleeps, __u32 flags) {
	__u32 zero = 0;
	__u64 len;
	struct pyb_off *event = bpf_map_lookup_elem(&events, &zero);

	if (!event)
		return;
	event->kind = PYB_OFF;
	event->flags = flags | sleeper->flags;
	event->ns = ns;
	event->stack = sleeper->stack;
	event->tstate = sleeper->tstate;
	event->thread_pointer = thread_pointer_of(task);
	event->pid = sleeper->pid;
	event->sleeps = sleeps;
	event->state = sleeper->state;
	event->call = sleeper->call;
	event->arg = sleeper->arg;
	event->kernel_n = 0;
	if (!(flags & PYB_OFF_OVER))
		note_kernel(task, event);
	len = sizeof(*event) - sizeof(event->kernel) + event->kernel_n * sizeof(event->kernel[0]);
	/* The sum itself is compared, since the verifier of old kernels does not conclude from the number to it. */
	barrier_var(len);
	if (len > sizeof(*event) || !bpf_ringbuf_output(&ring, event, len, wakeup()))
		return;
	count_more(PYB_OFF_LOST, sleeps);
	count_more(PYB_OFF_LOST_NS, ns);
}

static __always_inline void tell_short(struct task_struct *task, struct sleeper *sleeper, __u32 flags) {
	__u64 ns = sleeper->short_ns;
	__u32 sleeps = sleeper->sleeps;

	sleeper->short_ns = 0;
	sleeper->sleeps = 0;
	tell(task, sleeper, ns, sleeps, PYB_OFF_SHORT | flags);
}

static __always_inline void end_sleep(struct task_struct *task, struct sleeper *sleeper, __u64 ns, __u32 flags) {
	sleeper->out_ns = 0;
	if (ns >= threshold_ns) {
		tell(task, sleeper, ns, 1, flags);
		return;
	}
	sleeper->short_ns += ns;
	sleeper->sleeps++;
	if (sleeper->short_ns >= threshold_ns)
		tell_short(task, sleeper, flags);
}

static __always_inline void wake(struct task_struct *task, __u64 now) {
	struct sleeper *sleeper = find_sleeper(task);

	if (sleeper && sleeper->out_ns)
		end_sleep(task, sleeper, now - sleeper->out_ns, 0);
}

/* A task that runs, or did until now, though it was not seen to wake. */
static __always_inline void wake_unseen(struct task_struct *task, struct sleeper *sleeper, __u64 now) {
	__u64 ns = now - sleeper->out_ns, ran = BPF_CORE_READ(task, se.sum_exec_runtime) - sleeper->ran_ns;

	end_sleep(task, sleeper, ran < ns ? ns - ran : 0, PYB_OFF_OVER);
}

/* Once, as far as we remember. */
static __always_inline void tell_stack(struct pyb_scratch *s, __u32 pid, __u32 flags) {
	__u32 n = s->event.frames_n, place = (__u32)s->event.name & (NAMES - 1);
	__u64 *known = bpf_map_lookup_elem(&names, &place);

	if (!known || *known == s->event.name || n > PYB_FRAMES_MAX)
		return;
	s->event.kind = PYB_OFF_STACK;
	s->event.flags = flags;
	s->event.pid = pid;
	s->event.time_ns = bpf_ktime_get_ns();
	s->event.tstate = s->found.tstate;
	/* Code objects may be gone soon. */
	if (bpf_ringbuf_output(
		    &ring, &s->event, sizeof(s->event) + n * sizeof(struct pyb_frame), BPF_RB_FORCE_WAKEUP)) {
		count(PYB_RING_FULL);
		return;
	}
	count(PYB_SAMPLES);
	*known = s->event.name;
}

/* Return: whether it has a thread state; then sleeper->stack is named. */
static __always_inline int take_stack(
	struct task_struct *task, struct pyb_process *p, __u32 pid, struct sleeper *sleeper, __u64 now) {
	struct pyb_thread_key key = { .thread_pointer = thread_pointer_of(task), .pid = pid };
	struct pyb_thread *thread = bpf_map_lookup_elem(&threads, &key);
	__u32 zero = 0, flags = 0;
	struct pyb_scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!s)
		return 0;
	s->found.tstate = 0;
	if (!thread || !pyb_find_known(p, thread, key.thread_pointer, &s->found)) {
		flags |= PYB_SEARCHED;
		if (sleeper->native_ns && now - sleeper->native_ns < SEARCH_AGAIN_NS &&
			now - sleeper->native_ns < (now - BPF_CORE_READ(task, start_time)) / SEARCH_AGAIN_AGE)
			return 0;
		sleeper->native_ns = now;
		if (!search(pid, key.thread_pointer)) {
			count(PYB_NO_STATE);
			return 0;
		}
		sleeper->native_ns = 0;
	}
	flags |= (__u32)walk(pid, s->found.frame);
	name_stack(pid);
	tell_stack(s, pid, flags);
	sleeper->stack = s->event.name;
	sleeper->tstate = s->found.tstate;
	return 1;
}

static __always_inline void sleep(struct task_struct *task, __u32 state, __u64 now) {
	__u32 pid = own_process(task);
	struct pyb_process *p = bpf_map_lookup_elem(&processes, &pid);
	struct sleeper *sleeper;

	if (!p)
		return;
	sleeper = make_sleeper(task);
	if (!sleeper) {
		count(PYB_OFF_NO_ROOM);
		return;
	}
	if (state & TASK_DEAD_BIT) {
		if (sleeper->short_ns)
			tell_short(task, sleeper, PYB_OFF_OVER);
		return;
	}
	if (!take_stack(task, p, pid, sleeper, now))
		return;
	count(PYB_OFF_SLEEPS);
	sleeper->pid = pid;
	sleeper->flags = 0;
	begin_sleep(task, sleeper, state, now);
}

SEC("tp_btf/sched_switch")
int on_switch(__u64 *ctx) { /* preempted, previous, next */
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];
	struct sleeper *sleeper;
	__u64 now;
	__u32 state;

	if (stopped_ns)
		return 0;
	now = bpf_ktime_get_ns();
	wake(next, now);
	sleeper = find_sleeper(prev);
	if (sleeper && sleeper->out_ns)
		wake_unseen(prev, sleeper, now);
	state = state_of(prev);
	if (!(ctx[0] & 1) && state)
		sleep(prev, state, now);
	return 0;
}

/* Those of begin_pid that sleep already. */
SEC("iter/task")
int find_sleepers(struct bpf_iter__task *ctx) {
	struct task_struct *task = ctx->task;
	struct sleeper *sleeper;
	__u32 state;

	if (!task || process_of(task) != begin_pid)
		return 0;
	state = state_of(task);
	if (!state || state & TASK_DEAD_BIT)
		return 0;
	sleeper = make_sleeper(task);
	if (!sleeper) {
		count(PYB_OFF_NO_ROOM);
		return 0;
	}
	if (sleeper->out_ns)
		return 0;
	sleeper->pid = begin_pid;
	sleeper->flags = PYB_OFF_BEGUN;
	begin_sleep(task, sleeper, state, bpf_ktime_get_ns());
	return 0;
}

/* When no switch is looked at any more: what has not been told. */
SEC("iter/task")
int tell_rest(struct bpf_iter__task *ctx) {
	struct task_struct *task = ctx->task;
	struct sleeper *sleeper;

	if (!task)
		return 0;
	sleeper = find_sleeper(task);
	if (!sleeper || !bpf_map_lookup_elem(&processes, &sleeper->pid))
		return 0;
	if (sleeper->out_ns && sleeper->out_ns < stopped_ns && !state_of(task))
		wake_unseen(task, sleeper, stopped_ns);
	else if (sleeper->out_ns && sleeper->out_ns < stopped_ns)
		tell(task, sleeper, stopped_ns - sleeper->out_ns, 1, PYB_OFF_ONGOING);
	if (sleeper->short_ns)
		tell_short(task, sleeper, sleeper->out_ns ? 0 : PYB_OFF_OVER);
	return 0;
}
