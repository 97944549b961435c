/* SPDX-License-Identifier: MIT */
/* The sampler where the kernel takes the threads that run (bpf_source.h).
 *
 * What comes out of the ring are the stacks of running threads, one for each interrupt. Threads that sleep are looked
 * at here, seldom, and at random times: the time that a thread has slept since the last look goes to the place where it
 * sleeps now, so that over many looks each place gets its share. A thread that has not run since is not read again.
 * Time for which it was runnable without a CPU goes to the stack that it had when it was sampled last.
 *
 * A thread that sleeps is read with its run counter as witness: the read is good when it did not run meanwhile. */
#include "engine/sample/sampler_internal.h"

#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/cpython/opcodes.h"

#define LOOK_NS (50 * NS_PER_MS) /* between looks at those that sleep, on average */
#define MANY_TARGETS 64
#define LOOKS_APART_MAX 16 /* times LOOK_NS, with many targets */
#define NEWEST_AT_ONCE 64
#define NEWEST_NS (5 * NS_PER_SEC)
#define FIRST_LOOK_NS (4 * NS_PER_MS) /* where there is something new; then ever longer */

static uint64_t period_ns(const struct look *look) {
	return look->me->owner->schedule.period_ns;
}

/* What a thread neither ran nor is known to have waited for a CPU was spent asleep, or is spent waiting for a CPU now:
 * the kernel tells of a wait when it is over. So idle_ns is time asleep only when the thread sleeps. */
static void settle_as(struct look *look, struct sample_thread *thread, const struct proc_schedstat *stat) {
	if (thread->settled_ns && look->now_ns > thread->settled_ns) {
		uint64_t waited = stat->wait_ns - thread->settled_wait_ns;

		thread->idle_ns += (int64_t)(look->now_ns - thread->settled_ns) -
			(int64_t)(stat->run_ns - thread->settled_run_ns) - (int64_t)waited;
		thread->queued_ns += (int64_t)waited;
	}
	if (stat->run_ns != thread->run_ns)
		thread->ran_ns = look->now_ns;
	thread->run_ns = thread->settled_run_ns = stat->run_ns;
	thread->settled_wait_ns = stat->wait_ns;
	thread->settled_slices = stat->slices;
	thread->settled_ns = look->now_ns;
}

static bool settle(struct look *look, struct sample_thread *thread) {
	struct proc_schedstat stat;

	if (proc_task_schedstat(&thread->task, &stat))
		return false;
	settle_as(look, thread, &stat);
	return true;
}

/* Whole periods are taken out; the rest waits for more. */
static uint64_t take_ticks(const struct look *look, int64_t *ns) {
	uint64_t ticks = *ns > 0 ? (uint64_t)*ns / period_ns(look) : 0;

	*ns -= (int64_t)(ticks * period_ns(look));
	return ticks;
}

static int64_t take_all(int64_t *ns) {
	int64_t all = *ns;

	*ns = 0;
	return all;
}

static void emit(struct look *look, struct sample_thread *thread, const uint32_t *places, size_t n, uint64_t ticks) {
	if (look_counts(thread) && sampler_mode_wants(look->me->owner->options.mode, thread->flags))
		look_emit(look, thread, places, n, ticks);
}

/* Runnable, without a CPU: where it was. It is not time on a CPU. */
static void emit_queued(struct look *look, struct sample_thread *thread) {
	uint64_t ticks = take_ticks(look, &thread->queued_ns);
	unsigned flags = thread->flags;

	if (!ticks || !thread->captured || look->me->owner->options.mode == PYSPYD_MODE_CPU)
		return;
	thread->flags |= SAMPLE_RUNNING;
	emit(look, thread, NULL, 0, ticks);
	thread->flags = flags;
}

static bool is_runnable(const struct sample_thread *thread) {
	char state;
	int cpu;

	return !proc_task_state(&thread->task, &state, &cpu) && state == 'R';
}

/* Of a thread that slept when it was looked at last and has ended by now: most of the time since then it slept. */
static bool settle_end(struct look *look, struct sample_thread *thread, bool stood) {
	if (!stood || !thread->settled_ns || look->now_ns < thread->settled_ns)
		return false;
	thread->idle_ns += (int64_t)(look->now_ns - thread->settled_ns);
	thread->settled_ns = look->now_ns;
	return true;
}

static void repeat_idle(struct look *look, struct sample_thread *thread) {
	uint64_t ticks;

	thread->flags &= ~(unsigned)(SAMPLE_RUNNING | SAMPLE_NATIVE);
	ticks = take_ticks(look, &thread->idle_ns);
	if (ticks)
		emit(look, thread, NULL, 0, ticks);
}

static bool has_stood(const struct sample_thread *thread) {
	return thread->captured && thread->settled_run_ns == thread->captured_run_ns;
}

void kernel_repeat(struct look *look, struct sample_thread *thread) {
	bool stood = has_stood(thread);

	if (!settle(look, thread) && !settle_end(look, thread, stood))
		return;
	if (!stood) { /* the end: nobody will see whether it waits for a CPU */
		if (is_runnable(thread))
			thread->queued_ns += take_all(&thread->idle_ns);
		emit_queued(look, thread);
		return;
	}
	repeat_idle(look, thread);
}

/* Reads the stack of a thread that slept when it was settled. That it has not got a CPU since is seen at once; the time
 * that it ran is counted later. */
static void read_sleeping(struct look *look, struct sample_thread *thread) {
	struct cpu_sampler *me = look->me;
	struct proc_schedstat after;
	uint64_t ticks;
	int r = look_read_stack(look, thread);

	if (proc_task_schedstat(&thread->task, &after) || after.run_ns != thread->run_ns ||
		after.slices != thread->settled_slices) {
		me->count.discarded++;
		return;
	}
	if (r) {
		sampler_count_failure(me, r);
		return;
	}
	thread->flags = look_flags(look, thread, false);
	thread->captured = true;
	thread->captured_run_ns = thread->run_ns;
	thread->has_frames = me->stack.frames.n;
	ticks = take_ticks(look, &thread->idle_ns);
	if (ticks)
		emit(look, thread, me->places, me->stack.frames.n, ticks);
	else
		thread->captured_run_ns = UINT64_MAX; /* the sink has not seen it */
}

void kernel_wake(struct look *look, struct sample_thread *thread, const struct proc_schedstat *stat) {
	bool stood = has_stood(thread);

	settle_as(look, thread, stat);
	if (stood)
		repeat_idle(look, thread);
}

bool kernel_is_settled(const struct sample_thread *thread, const struct proc_schedstat *stat) {
	return thread->captured && thread->captured_run_ns == stat->run_ns && thread->settled_slices == stat->slices;
}

void kernel_look_at(struct look *look, struct sample_thread *thread, char state, const struct proc_schedstat *stat) {
	if (state == 'Z' || state == 'X')
		return;
	settle_as(look, thread, stat);
	thread->counted_tick = look->tick;
	emit_queued(look, thread);
	if (state == 'R' || look->me->owner->options.mode == PYSPYD_MODE_CPU)
		return;
	if (thread->idle_ns < (int64_t)period_ns(look))
		return;
	if (thread->captured && thread->run_ns == thread->captured_run_ns)
		repeat_idle(look, thread);
	else
		read_sleeping(look, thread);
}

static void look_at_thread(struct look *look, struct sample_thread *thread) {
	struct proc_schedstat stat;
	char state;
	int cpu;

	if (!proc_task_state(&thread->task, &state, &cpu) && !proc_task_schedstat(&thread->task, &stat))
		kernel_look_at(look, thread, state, &stat);
}

void kernel_tell_threads(struct look *look, struct bpf_processes *processes) {
	struct sample_target *target = look->target;
	VEC(const struct py_thread *) threads = { 0 };
	int r = 0;

	vec_foreach (thread, &target->threads)
		if (!r)
			r = vec_push(&threads, &(*thread)->py);
	if (!r) /* there may be other interpreters by now */
		r = bpf_processes_add(processes, &target->rt, target->proc.pid);
	if (!r && !bpf_processes_set_threads(processes, target->proc.pid, threads.items, threads.n))
		target->told = target->threads_changed;
	vec_free(&threads);
}

static void begin(struct look *look) {
	struct sample_target *target = look->target;

	if (bpf_source_add(look->me->owner->kernel, &target->rt, target->proc.pid))
		look->me->count.unreadable++;
	target->in_kernel = true;
	target->told = target->threads_changed - 1;
}

/* What changes when a thread begins, or goes into another interpreter: which thread states are the newest. One may be
 * where an older one was. */
static int find_newest(struct sample_target *target) {
	const struct layout *l = &target->rt.reader.layout;
	py_interp_vec interps = { 0 };
	int r = py_interps_read(&target->rt, &interps);

	target->newest_words.n = 0;
	if (!r)
		r = vec_push(&target->newest_words, target->rt.interp_head);
	for (size_t i = 0; !r && i < interps.n; i++) {
		raddr interp = interps.items[i].addr;
		uint64_t first = 0;

		r = vec_push(&target->newest_words, interp + l->interp_next);
		if (!r)
			r = vec_push(&target->newest_words, interp + l->interp_threads_head);
		if (!r)
			r = mem_read_u64(target->mem, interp + l->interp_threads_head, &first);
		if (!r && first && layout_has(l->tstate_id))
			r = vec_push(&target->newest_words, first + l->tstate_id);
	}
	vec_free(&interps);
	if (r)
		target->newest_words.n = 0;
	return r;
}

static bool add_values(struct sample_target *target, const raddr *words, size_t n, uint64_t *sum) {
	struct mem_range ranges[NEWEST_AT_ONCE];
	uint64_t values[NEWEST_AT_ONCE];

	for (size_t i = 0; i < n; i++)
		ranges[i] = (struct mem_range){ words[i], sizeof(values[i]), &values[i] };
	if (mem_read_together(target->mem, ranges, n, NULL))
		return false;
	*sum = hash_bytes(values, n * sizeof(values[0]), *sum) | 1;
	return true;
}

/* With one call, or few, since this is done whenever somebody has run. Return: 0 where it cannot be read. */
static uint64_t newest_sum(struct sample_target *target) {
	uint64_t sum = 0;

	for (size_t i = 0; i < target->newest_words.n; i += NEWEST_AT_ONCE)
		if (!add_values(target, target->newest_words.items + i,
			    min_of(target->newest_words.n - i, (size_t)NEWEST_AT_ONCE), &sum))
			return 0;
	return sum;
}

bool kernel_has_new_state(struct sample_target *target) {
	uint64_t before = target->newest;

	if (before && newest_sum(target) == before)
		return false;
	target->newest = find_newest(target) ? 0 : newest_sum(target);
	return target->newest != before;
}

/* Where passes tell of threads that begin, only those are left that went into another interpreter, and sleep there. */
static bool has_new_state_now(const struct look *look) {
	struct sample_target *target = look->target;

	if (!target->newest_owed || look->now_ns < target->newest_ns + NEWEST_NS)
		return false;
	target->newest_owed = false;
	target->newest_ns = look->now_ns;
	return kernel_has_new_state(target);
}

/* A thread that only sleeps uses too little time to be noticed by it, and one in another interpreter is known already.
 * But none begins while the process does not run at all. */
static bool has_new_thread(const struct look *look) {
	struct sample_target *target = look->target;

	if (look->process_run_ns == target->newest_run_ns)
		return false;
	target->newest_run_ns = look->process_run_ns;
	return kernel_has_new_state(target);
}

static void on_end(void *look, struct sample_thread *thread) {
	kernel_repeat(look, thread);
}

static void refresh(struct look *look) {
	struct sample_target *target = look->target;

	target->unknown_thread = false;
	if (sample_target_refresh(target, on_end, look) == MEM_E_GONE)
		target->ended = true;
}

static void look_at_target(struct look *look) {
	struct sample_target *target = look->target;
	bool passed = target->passed;

	if (!target->in_kernel)
		begin(look);
	if (passed) {
		target->changed |= target->unsettled && task_looks_are_fresh(look);
		target->newest_owed |= target->changed;
		target->unknown_thread |= has_new_state_now(look);
	} else if (look_minds(look)) {
		look_mind_idle(look);
		target->unknown_thread |= has_new_thread(look);
	}
	if (target->unknown_thread)
		refresh(look);
	if (target->told != target->threads_changed)
		kernel_tell_threads(look, bpf_source_processes(look->me->owner->kernel));
	if (passed) {
		if (target->changed)
			task_looks_at(look);
		return;
	}
	for (size_t i = 0; target->active_n && i < target->threads.n; i++)
		if (target->threads.items[i]->active)
			look_at_thread(look, target->threads.items[i]);
}

static unsigned event_flags(const struct pyb_event *event) {
	return SAMPLE_RUNNING | (event->flags & PYB_GIL ? SAMPLE_GIL : 0) | (event->flags & PYB_GC ? SAMPLE_GC : 0) |
		(event->flags & (PYB_TRUNCATED | PYB_BROKEN) ? SAMPLE_TRUNCATED : 0);
}

/* As the samplers of user space tell it, with what an instruction is remembered for each place. */
static void note_leaf(struct look *look, struct sample_thread *thread, const struct pyb_event *event) {
	const struct py_raw_stack *stack = &look->me->stack;
	struct sample_place *place;
	bool same;

	if (!stack->frames.n || !look->me->owner->options.want_native)
		return;
	place = &look->target->places.items[look->me->places[0]];
	if (!place->leaf_known) {
		place->leaf = (uint8_t)opcode_kind_read(&look->target->rt, &stack->frames.items[0]);
		place->leaf_known = true;
	}
	same = thread->leaf_frame == event->leaf && thread->leaf_instr == stack->frames.items[0].instr;
	thread->leaf_frame = event->leaf;
	thread->leaf_instr = stack->frames.items[0].instr;
	if (place->leaf == OPCODE_CALL || (place->leaf == OPCODE_OTHER && same) || event->flags & PYB_KERNEL)
		thread->flags |= SAMPLE_NATIVE;
}

struct sample_thread *kernel_thread_of(const struct sample_target *target, raddr tstate) {
	vec_foreach (thread, &target->threads)
		if ((*thread)->py.tstate == tstate)
			return *thread;
	return NULL;
}

static void take_event(struct look *look, const struct pyb_event *event, const struct pyb_frame *frames,
	const struct bpf_native *native) {
	struct sample_thread *thread = kernel_thread_of(look->target, event->tstate);
	struct cpu_sampler *me = look->me;
	size_t n;
	int r;

	if (event->flags & PYB_SEARCHED)
		look->target->unknown_thread = true;
	if (event->flags & PYB_BROKEN && !event->frames_n)
		return; /* the kernel has counted it */
	if (!thread) {  /* younger than our list: looked for at once, since its next sample is soon */
		(void)!sample_target_refresh(look->target, on_end, look);
		thread = kernel_thread_of(look->target, event->tstate);
	}
	if (!thread) {
		me->count.unreadable++;
		return;
	}
	r = bpf_raw_stack(&look->target->rt, event, frames, &me->stack);
	if (!r)
		r = sample_target_decode(look->target, &me->stack, look->now_ns, me->places);
	if (r) { /* its code is gone by now: the frames themselves belong together */
		me->count.unreadable++;
		return;
	}
	look->target->unsettled = true;
	look->target->active_n += !thread->active;
	thread->active = true;
	thread->flags = event_flags(event);
	note_leaf(look, thread, event);
	thread->captured = true;
	thread->captured_run_ns = UINT64_MAX; /* where it runs is not where it will sleep */
	thread->has_frames = me->stack.frames.n;
	n = me->stack.frames.n;
	if (native->frames && me->owner->native)
		n = native_stacks_merge(me->owner->native, look->target, native, &me->stack, look->now_ns, me->places);
	emit(look, thread, me->places, n, 1);
}

struct drain {
	struct cpu_sampler *me;
	uint64_t now_ns;
};

struct sample_target *kernel_target_of(struct sampler *sampler, pid_t pid) {
	uint64_t at;

	if (!map_get(&sampler->by_pid, (uint64_t)pid, &at))
		return NULL;
	return atomic_load(&sampler->targets[at]);
}

static void on_event(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames,
	const struct bpf_native *native) {
	struct drain *drain = userdata;
	struct look look = { .me = drain->me,
		.target = kernel_target_of(drain->me->owner, (pid_t)event->pid),
		.now_ns = drain->now_ns };

	if (!look.target || look.target->proc.pid != (pid_t)event->pid ||
		event->time_ns > atomic_load(&drain->me->owner->stopped_ns) - 1)
		return;
	pthread_mutex_lock(&look.target->lock);
	take_event(&look, event, frames, native);
	pthread_mutex_unlock(&look.target->lock);
}

static void forget(struct sampler *sampler, struct bpf_processes *processes, pid_t pid) {
	bpf_processes_remove(processes, pid);
	if (sampler->native)
		native_stacks_forget(sampler->native, pid);
}

/* Targets come and go from another thread; the kernel and the index learn of it here. */
void kernel_follow_changes(struct sampler *sampler, struct bpf_processes *processes) {
	unsigned changes = atomic_load(&sampler->changes);
	size_t kept = 0;

	if (changes == sampler->changes_seen)
		return;
	map_clear(&sampler->by_pid);
	for (size_t i = 0; i < atomic_load(&sampler->targets_n); i++) {
		struct sample_target *target = atomic_load(&sampler->targets[i]);

		if (target && !map_put(&sampler->by_pid, (uint64_t)target->proc.pid, i) && !target->in_kernel)
			(void)!vec_push(&sampler->kernel_pids, target->proc.pid);
	}
	vec_foreach (pid, &sampler->kernel_pids) {
		uint64_t unused;

		if (map_get(&sampler->by_pid, (uint64_t)*pid, &unused))
			sampler->kernel_pids.items[kept++] = *pid;
		else
			forget(sampler, processes, *pid);
	}
	sampler->kernel_pids.n = kept;
	sampler->changes_seen = changes;
}

static void take_events(struct cpu_sampler *me) {
	struct drain drain = { .me = me, .now_ns = clock_mono_ns() };

	atomic_fetch_add(&me->rounds, 1);
	kernel_follow_changes(me->owner, bpf_source_processes(me->owner->kernel));
	bpf_source_take(me->owner->kernel, on_event, &drain);
	atomic_fetch_add(&me->rounds, 1);
}

/* Anywhere in the next interval, so that no program's rhythm can lock to ours. */
static uint64_t next_look(uint64_t after_ns, uint64_t interval_ns) {
	return after_ns + interval_ns / 2 + hash_mix(after_ns) % interval_ns;
}

/* Where there are many, what sleeps is looked at less often: so often that the looks at all of them together become
 * rarer, too. */
static uint64_t longest_interval(const struct sampler *sampler) {
	size_t crowd = 1 + atomic_load(&sampler->targets_n) / MANY_TARGETS;

	return LOOK_NS * min_of(crowd * crowd, (size_t)LOOKS_APART_MAX);
}

/* Code that is met for the first time is decoded soon after, before a process that is short-lived takes it along. */
void sampler_run_kernel(struct cpu_sampler *me) {
	struct sampler *sampler = me->owner;
	uint64_t interval = FIRST_LOOK_NS, due = clock_mono_ns();
	unsigned changes = atomic_load(&sampler->changes);
	uint64_t looks = 0;

	while (!atomic_load(&sampler->stop)) {
		uint64_t now = clock_mono_ns();

		if (changes != atomic_load(&sampler->changes)) {
			changes = atomic_load(&sampler->changes);
			interval = FIRST_LOOK_NS;
		}
		take_events(me); /* before the looks: what ran before is known then */
		if (now >= due) {
			task_looks_turn(me, ++looks, now);
			sampler_visit(me, looks, now, look_at_target);
			due = next_look(now, interval);
			interval = min_of(2 * interval, longest_interval(sampler));
		}
		bpf_source_wait(sampler->kernel, sampler->hurry_fd, due - min_of(due, clock_mono_ns()));
	}
	take_events(me);
}
