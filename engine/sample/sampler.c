/* SPDX-License-Identifier: MIT */
/* The samplers: one thread for each CPU, of which those run that have something to look at.
 *
 * At a tick every awake sampler goes through the active threads of each target and takes those that are its own:
 * runnable, and last on its CPU. Such a thread cannot run before the sampler sleeps again, so one plain copy of its
 * stack is exact. One sampler is the leader: it also takes the threads that sleep, notices idle ones that woke up, and
 * calls for a sampler on a CPU that has none.
 *
 * Idle threads cost nothing: the run time of the whole process, less that of its active threads, stands still while all
 * others sleep. They are counted when they wake, or at the end.
 *
 * Where the priority may not be raised, and at the highest rate, there is one sampler, bound to no CPU. A thread may
 * then run while it is copied; a copy that took longer than usual is dropped, since the target had the time to move.
 *
 * Lock order: only one target's lock at a time, nothing inside it. */
#include "engine/sample/sampler_internal.h"

#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/cpython/opcodes.h"
#include "engine/sample/blocking.h"
#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#define IDLE_AFTER_NS (100 * NS_PER_MS) /* an active thread that did not run for so long is idle */
#define PARK_AFTER_NS NS_PER_SEC        /* a sampler that had nothing to look at for so long parks */
#define COUNTS_AGE_NS (100 * NS_PER_MS) /* how old the kernel's counters may be while it samples */
#define IDLE_AT_ONCE 32                 /* processes that sleep and are asked at a tick whether they still do */
#define FAST_TICK_NS NS_PER_MS          /* at the highest rate the housekeeping is done so often */
#define STOP_TIMEOUT_NS (100 * NS_PER_MS)
#define ELSEWHERE_TOLERANCE_NS (200 * NS_PER_US) /* run time that threads on other CPUs add between two reads */
#define LATE_WAKE_NS (3 * NS_PER_US)             /* beyond the floor: a wake-up that was not a preemption at once */
#define ARRIVED_TOLERANCE_NS (20 * NS_PER_US)    /* from when we got a CPU to when we know the time */
#define AWAY_TOLERANCE_NS (50 * NS_PER_US)       /* of a thread that ran all the time, but for our own looks */
#define SLOW_COPY_FACTOR 2 /* a copy from another CPU that took so many times the usual is dropped */

static bool is_leader(const struct cpu_sampler *me) {
	return me->owner->remote || atomic_load(&me->owner->leader) == me->cpu;
}

void look_emit(struct look *look, struct sample_thread *thread, const uint32_t *places, size_t n, uint64_t ticks) {
	const struct sampler_options *options = &look->me->owner->options;
	const struct sample sample = { .target = look->target,
		.thread = thread,
		.places = places,
		.n = n,
		.flags = thread->flags,
		.ticks = ticks };

	look->me->count.samples += ticks;
	if (!places)
		look->me->count.idle += ticks;
	if (thread->flags & SAMPLE_TRUNCATED)
		look->me->count.truncated++;
	options->on_sample(options->userdata, &sample);
}

bool sampler_mode_wants(enum pyspyd_mode mode, unsigned flags) {
	return mode == PYSPYD_MODE_WALL || flags & (mode == PYSPYD_MODE_CPU ? SAMPLE_RUNNING : SAMPLE_GIL);
}

/* Whether the kernel thread executes something in a newer interpreter, and this state only waits for that to return. */
static bool is_covered(const struct sample_thread *thread) {
	for (const struct sample_thread *inner = thread->inner; inner; inner = inner->inner)
		if (inner->has_frames)
			return true;
	return false;
}

/* A state that has no frames while another one of the same kernel thread may have. */
bool look_counts(const struct sample_thread *thread) {
	return !is_covered(thread) && (thread->has_frames || thread->py.interp_id == 0);
}

/* Counts a thread again for the ticks from its last account to before `until`. */
static void repeat(struct look *look, struct sample_thread *thread, uint64_t until) {
	uint64_t ticks = until > thread->counted_tick + 1 ? until - thread->counted_tick - 1 : 0;

	if (look->me->owner->offcpu)
		return;
	if (look->me->owner->kernel) {
		kernel_repeat(look, thread);
		return;
	}
	if (until)
		thread->counted_tick = max_of(thread->counted_tick, until - 1);
	thread->flags &= ~(unsigned)(SAMPLE_RUNNING | SAMPLE_NATIVE);
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): sampler_flush only chooses a sampler that has an owner
	 */
	if (ticks && thread->captured && look_counts(thread) &&
		sampler_mode_wants(look->me->owner->options.mode, thread->flags))
		look_emit(look, thread, NULL, 0, ticks);
}

static const struct py_interp_view *interp_view(struct look *look, raddr interp) {
	if (look->view_interp != interp && !py_interp_view(&look->target->rt, interp, &look->view))
		look->view_interp = interp;
	return look->view_interp == interp ? &look->view : NULL;
}

unsigned look_flags(struct look *look, const struct sample_thread *thread, bool running) {
	const struct sampler_options *options = &look->me->owner->options;
	const struct py_raw_stack *stack = &look->me->stack;
	const struct py_interp_view *view = NULL;
	unsigned flags = (running ? SAMPLE_RUNNING : 0) | (stack->truncated ? SAMPLE_TRUNCATED : 0);
	bool holds = stack->gil_known && stack->holds_gil;

	if (options->want_gc || (options->want_gil && !stack->gil_known))
		view = interp_view(look, thread->py.interp);
	if (view && !stack->gil_known)
		holds = view->gil_holder == thread->py.tstate;
	if (holds)
		flags |= SAMPLE_GIL;
	if (options->want_gc && view && view->collecting && (holds || !view->gil_known))
		flags |= SAMPLE_GC;
	return flags;
}

/* Whether the thread is in native code: it stands at a call, or has run for a whole period at one instruction that can
 * take long. */
static void note_leaf(struct look *look, struct sample_thread *thread) {
	const struct py_raw_stack *stack = &look->me->stack;
	const struct py_raw_frame *leaf = stack->frames.n ? stack->frames.items : NULL;
	bool same_place =
		leaf && thread->captured && leaf->frame == thread->leaf_frame && leaf->instr == thread->leaf_instr;

	thread->leaf_frame = leaf ? leaf->frame : 0;
	thread->leaf_instr = leaf ? leaf->instr : 0;
	if (!leaf || !look->me->owner->options.want_native || !(thread->flags & SAMPLE_RUNNING))
		return;
	switch (opcode_kind_read(&look->target->rt, leaf)) {
	case OPCODE_CALL: thread->flags |= SAMPLE_NATIVE; break;
	case OPCODE_OTHER: thread->flags |= same_place ? SAMPLE_NATIVE : 0; break;
	case OPCODE_LIGHT: break;
	}
}

void sampler_count_failure(struct cpu_sampler *me, int r) {
	if (r == PY_E_TORN)
		me->count.torn++;
	else
		me->count.unreadable++;
}

/* Copies and decodes a thread's stack; this tick has been accounted for, whatever becomes of it. */
int look_read_stack(struct look *look, struct sample_thread *thread) {
	struct cpu_sampler *me = look->me;
	int r = py_stack_capture(&look->target->rt, &thread->plan, &me->scratch, &me->stack);

	thread->counted_tick = look->tick;
	return r ? r : sample_target_decode(look->target, &me->stack, look->now_ns, me->places);
}

/* Counts what read_stack brought. */
static void count_stack(struct look *look, struct sample_thread *thread, bool running, int r) {
	struct cpu_sampler *me = look->me;

	if (r) {
		sampler_count_failure(me, r);
		return;
	}
	thread->flags = look_flags(look, thread, running);
	note_leaf(look, thread);
	thread->captured = true;
	thread->captured_run_ns = thread->run_ns;
	thread->captured_ns = look->now_ns;
	thread->has_frames = me->stack.frames.n;
	if (look_counts(thread) && sampler_mode_wants(me->owner->options.mode, thread->flags))
		look_emit(look, thread, me->places, me->stack.frames.n, 1);
}

/* A thread that stands still. */
static void take(struct look *look, struct sample_thread *thread, bool running) {
	count_stack(look, thread, running, look_read_stack(look, thread));
}

/* A running estimate of the median: a step up or down, whichever side this copy was on. */
static bool is_slow_copy(struct cpu_sampler *me, uint64_t ns) {
	uint64_t step = me->usual_copy_ns / 64 + 1;
	bool slow = me->usual_copy_ns && ns > SLOW_COPY_FACTOR * me->usual_copy_ns;

	me->usual_copy_ns = !me->usual_copy_ns ? ns
		: ns > me->usual_copy_ns       ? me->usual_copy_ns + step
					       : me->usual_copy_ns - step;
	return slow;
}

/* From another CPU a thread that runs may move while it is copied. A copy that took as long as usual had the least time
 * to be torn. */
static void take_remote(struct look *look, struct sample_thread *thread) {
	int r = look_read_stack(look, thread);

	if (is_slow_copy(look->me, look->me->stack.copy_ns) && !r)
		look->me->count.discarded++;
	else
		count_stack(look, thread, true, r);
}

/* A thread that sleeps: unread where it has not run, and read with the run counter as witness that it slept on. */
static void take_sleeping(struct look *look, struct sample_thread *thread) {
	struct proc_schedstat after;
	int r;

	if (thread->captured && thread->run_ns == thread->captured_run_ns) {
		repeat(look, thread, look->tick + 1);
		return;
	}
	r = look_read_stack(look, thread);
	if (proc_task_schedstat(&thread->task, &after) || after.run_ns != thread->run_ns)
		look->me->count.discarded++;
	else
		count_stack(look, thread, false, r);
}

static struct cpu_sampler *sampler_of_cpu(struct sampler *sampler, int cpu) {
	return cpu >= 0 && (size_t)cpu < sampler->cpus_n && sampler->cpus[cpu].started ? &sampler->cpus[cpu] : NULL;
}

/* A runnable thread on a CPU that is not ours: its own sampler takes it, if it is awake; else it is called, and this
 * look is lost. */
static void leave_to(struct look *look, struct sample_thread *thread, int cpu) {
	struct cpu_sampler *other = sampler_of_cpu(look->me->owner, cpu);

	look->target->elsewhere_tick = look->tick;
	if (!is_leader(look->me))
		return;
	if (!other) { /* a CPU that we may not run on */
		take_remote(look, thread);
		return;
	}
	if (thread->counted_tick + 1 < look->tick && thread->counted_tick)
		look->me->count.discarded += look->tick - thread->counted_tick - 1;
	if (atomic_exchange(&other->awake, true)) {
		thread->counted_tick = max_of(thread->counted_tick, look->tick - 1);
		return;
	}
	sem_post(&other->wake);
	thread->counted_tick = look->tick;
	look->me->count.discarded++;
}

/* Leaves the CPU to the target, where there is another one. */
static void move_away_from(int cpu) {
	cpu_set_t set;

	CPU_ZERO(&set);
	for (int other = 0; other < CPU_SETSIZE && other < sysconf(_SC_NPROCESSORS_CONF); other++)
		if (other != cpu)
			CPU_SET(other, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* A thread that waits for the CPU that we use stands where it was left: counting that again and again would say
 * nothing. */
static void take_elsewhere(struct look *look, struct sample_thread *thread, int cpu) {
	if (cpu != sched_getcpu()) {
		take_remote(look, thread);
		return;
	}
	move_away_from(cpu);
	thread->counted_tick = look->tick;
	thread->flags &= ~(unsigned)SAMPLE_RUNNING;
	look->me->count.discarded++;
}

/* Without a raised priority the scheduler lets the target run on until it enters the kernel, more often than not; such
 * a look would find it at its system calls. Only wake-ups that came as promptly as can be found it wherever it was. */
static void take_preempted(struct look *look, struct sample_thread *thread) {
	if (look->me->priority != PRIORITY_NONE || look->me->prompt) {
		take(look, thread, true);
		return;
	}
	thread->counted_tick = look->tick;
	look->me->count.discarded++;
}

static bool read_run_time(struct sample_thread *thread, uint64_t now_ns) {
	struct proc_schedstat stat;

	if (proc_task_schedstat(&thread->task, &stat))
		return false;
	if (stat.run_ns != thread->run_ns)
		thread->ran_ns = now_ns;
	thread->run_ns = stat.run_ns;
	return true;
}

/* When we got the CPU for this tick; 0: not known. */
static uint64_t arrival(struct look *look) {
	struct cpu_sampler *me = look->me;

	if (me->arrived_tick != look->tick && proc_task_exec_start(&me->owner->self, &me->self, &me->arrived_ns))
		me->arrived_ns = 0;
	me->arrived_tick = look->tick;
	return me->arrived_ns;
}

/* Whether a runnable thread whose last CPU is ours had that CPU until we came: the scheduler took it away from it when
 * it gave it to us, unless it has accounted for our own time since. Others that it waits behind may have had it. */
static bool was_running(struct look *look, struct sample_thread *thread) {
	uint64_t ours, left;

	if (thread->captured_ns &&
		thread->run_ns - thread->captured_run_ns + AWAY_TOLERANCE_NS >= look->now_ns - thread->captured_ns)
		return true;
	ours = arrival(look);
	if (!ours || proc_task_exec_start(&look->target->proc, &thread->task, &left))
		return true;
	return left + (clock_mono_ns() - look->now_ns) + ARRIVED_TOLERANCE_NS >= ours;
}

/* A runnable thread that waits for a CPU. */
static void take_queued(struct look *look, struct sample_thread *thread) {
	if (look->me->owner->options.mode != PYSPYD_MODE_CPU) {
		take(look, thread, false);
		return;
	}
	thread->counted_tick = look->tick;
	thread->flags &= ~(unsigned)SAMPLE_RUNNING;
}

/* A runnable thread whose last CPU is ours. It may have waited for that CPU since its last sample, behind others: then
 * it stands where it stood. */
static void look_at_own(struct look *look, struct sample_thread *thread) {
	look->me->busy_ns = look->now_ns;
	if (!is_leader(look->me)) /* the leader has just asked */
		read_run_time(thread, look->now_ns);
	if (thread->captured && thread->run_ns == thread->captured_run_ns)
		repeat(look, thread, look->tick + 1);
	else if (was_running(look, thread))
		take_preempted(look, thread);
	else
		take_queued(look, thread);
}

static void look_at_active(struct look *look, struct sample_thread *thread) {
	char state;
	int cpu;

	if (thread->counted_tick >= look->tick || proc_task_state(&thread->task, &state, &cpu))
		return;
	if (state == 'Z' || state == 'X')
		return;
	if (state == 'R') {
		if (look->me->owner->remote)
			take_elsewhere(look, thread, cpu);
		else if (cpu != look->me->cpu)
			leave_to(look, thread, cpu);
		else
			look_at_own(look, thread);
		return;
	}
	if (is_leader(look->me))
		take_sleeping(look, thread);
}

static uint64_t process_run_ns(const struct sample_target *target) {
	struct timespec ts;

	if (clock_gettime(target->cpu_clock, &ts))
		return 0;
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void settle_ended(void *userdata, struct sample_thread *thread) {
	struct look *look = userdata;

	if (!thread->active)
		repeat(look, thread, look->tick);
}

static void activate(struct look *look, struct sample_thread *thread) {
	repeat(look, thread, look->tick);
	thread->active = true;
	thread->ran_ns = look->now_ns;
	look->target->active_n++;
}

/* Somebody ran, for `ran_ns`, who was thought asleep. Most often it is who did so before, and where that is all the
 * others need not be asked. Return: whether it is. */
static bool woke_again(struct look *look, uint64_t ran_ns) {
	struct sample_target *target = look->target;
	struct sample_thread *thread = target->woken < target->threads.n ? target->threads.items[target->woken] : NULL;
	uint64_t before = thread ? thread->run_ns : 0;

	if (!thread || thread->active || !read_run_time(thread, look->now_ns) || thread->run_ns <= before)
		return false;
	activate(look, thread);
	look->active_run_ns += thread->run_ns;
	return thread->run_ns - before >= ran_ns;
}

/* Somebody ran who was thought asleep, or a thread began or ended. */
static void search_woken(struct look *look) {
	struct sample_target *target = look->target;
	bool lost = false, found = false;
	uint64_t active = 0;

	vec_foreach (item, &target->threads) {
		struct sample_thread *thread = *item;
		uint64_t before = thread->run_ns;

		if (!read_run_time(thread, look->now_ns))
			lost = true;
		else if (!thread->active && thread->run_ns != before) {
			activate(look, thread);
			target->woken = (size_t)(item - target->threads.items);
			found = true;
		}
		if (thread->active)
			active += thread->run_ns;
	}
	if (lost || !found)
		lost = sample_target_refresh(target, settle_ended, look) == MEM_E_GONE;
	else
		lost = false;
	if (lost)
		target->ended = true;
	look->active_run_ns = active;
}

static bool fell_asleep(const struct sample_thread *thread, uint64_t now_ns) {
	return now_ns > thread->ran_ns + IDLE_AFTER_NS && thread->captured && !(thread->flags & SAMPLE_RUNNING) &&
		thread->run_ns == thread->captured_run_ns;
}

void look_mind_idle(struct look *look) {
	struct sample_target *target = look->target;
	uint64_t total = process_run_ns(target);
	uint64_t idle, tolerance;

	look->process_run_ns = total;
	look->active_run_ns = 0;
	target->active_n = 0;
	vec_foreach (item, &target->threads) {
		struct sample_thread *thread = *item;

		if (!thread->active)
			continue;
		if (read_run_time(thread, look->now_ns) && fell_asleep(thread, look->now_ns))
			thread->active = false;
		target->active_n += thread->active;
		if (thread->active)
			look->active_run_ns += thread->run_ns;
		else
			target->idle_run_ns += thread->run_ns;
	}
	idle = total - look->active_run_ns;
	tolerance =
		look->me->owner->remote || atomic_load(&look->me->owner->targets_n) > 1 ? ELSEWHERE_TOLERANCE_NS : 0;
	if (idle > target->idle_run_ns + tolerance || (int64_t)(idle - target->idle_run_ns) < 0) {
		if ((int64_t)(idle - target->idle_run_ns) < 0 ||
			!woke_again(look, idle - target->idle_run_ns - tolerance))
			search_woken(look);
		target->idle_run_ns = process_run_ns(target) - look->active_run_ns;
	}
}

/* Where many processes sleep, each is looked at less often, for whether it has woken up. */
bool look_minds(const struct look *look) {
	size_t at_once = look->me->owner->kernel ? 2 * IDLE_AT_ONCE : IDLE_AT_ONCE;
	size_t stride = 1 + atomic_load(&look->me->owner->targets_n) / at_once;

	return look->target->active_n || ((uint64_t)look->target->proc.pid + look->tick) % stride == 0;
}

static void look_at_target(struct look *look) {
	struct sample_target *target = look->target;

	if (is_leader(look->me) && look_minds(look))
		look_mind_idle(look);
	for (size_t i = 0; target->active_n && i < target->threads.n; i++)
		if (target->threads.items[i]->active)
			look_at_active(look, target->threads.items[i]);
}

/* Goes through the targets, each locked. `rounds` is odd meanwhile, for sampler_remove. */
void sampler_visit(struct cpu_sampler *me, uint64_t tick, uint64_t now_ns, void (*visit)(struct look *look)) {
	struct sampler *sampler = me->owner;

	atomic_fetch_add(&me->rounds, 1);
	for (size_t i = 0; i < atomic_load(&sampler->targets_n); i++) {
		struct look look = {
			.me = me, .target = atomic_load(&sampler->targets[i]), .tick = tick, .now_ns = now_ns
		};

		if (!look.target)
			continue;
		pthread_mutex_lock(&look.target->lock);
		if (!look.target->ended)
			visit(&look);
		pthread_mutex_unlock(&look.target->lock);
	}
	atomic_fetch_add(&me->rounds, 1);
}

static void look_around(struct cpu_sampler *me, uint64_t tick, uint64_t now_ns) {
	sampler_visit(me, tick, now_ns, look_at_target);
	if (is_leader(me) &&
		atomic_exchange(&me->owner->looked_tick, tick) != tick) /* leaders change in the middle of a tick */
		me->count.looks++;
}

/* The leader's work is best done where a target runs anyway. */
static void hand_over(struct cpu_sampler *me, uint64_t now_ns) {
	struct sampler *sampler = me->owner;
	struct cpu_sampler *busiest = me;

	for (size_t i = 0; i < sampler->cpus_n; i++) {
		struct cpu_sampler *other = &sampler->cpus[i];

		if (other->started && atomic_load(&other->awake) && other->busy_ns > busiest->busy_ns)
			busiest = other;
	}
	if (busiest != me && now_ns > me->busy_ns + IDLE_AFTER_NS)
		atomic_store(&sampler->leader, busiest->cpu);
}

static void sleep_until(uint64_t time_ns) {
	const struct timespec ts = { .tv_sec = (time_t)(time_ns / NS_PER_SEC),
		.tv_nsec = (long)(time_ns % NS_PER_SEC) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static void park(struct cpu_sampler *me) {
	atomic_store(&me->awake, false);
	while (sem_wait(&me->wake) && errno == EINTR)
		;
	me->busy_ns = clock_mono_ns();
}

/* The floor follows prompt wake-ups at once and forgets them slowly, as the machine changes. */
static void judge_wake(struct cpu_sampler *me, uint64_t late_ns) {
	if (!me->wake_floor_ns || late_ns < me->wake_floor_ns)
		me->wake_floor_ns = late_ns;
	else
		me->wake_floor_ns += me->wake_floor_ns / 1024 + 1;
	me->prompt = late_ns < me->wake_floor_ns + LATE_WAKE_NS;
}

/* The tick to wait for. We run before everything else here: whoever looks for longer than half a period leaves the CPU
 * to the others for as long as that. */
static uint64_t next_tick(const struct schedule *schedule, uint64_t tick, uint64_t woke_ns) {
	uint64_t now = clock_mono_ns(), took = now - woke_ns;
	uint64_t next = schedule_next(schedule, took > schedule->period_ns / 2 ? now + took : now);

	return max_of(tick + 1, next ? next - 1 : 0);
}

static void run_ticks(struct cpu_sampler *me) {
	struct sampler *sampler = me->owner;
	uint64_t tick = schedule_next(&sampler->schedule, clock_mono_ns());

	while (!atomic_load(&sampler->stop)) {
		uint64_t due = schedule_time(&sampler->schedule, tick), woke;

		sleep_until(due);
		woke = clock_mono_ns();
		judge_wake(me, woke - due);
		if (woke > due + sampler->schedule.period_ns / 2 && is_leader(me))
			me->count.late++;
		look_around(me, tick, woke);
		tick = next_tick(&sampler->schedule, tick, woke);
		if (is_leader(me))
			hand_over(me, woke);
		else if (woke > me->busy_ns + PARK_AFTER_NS) {
			park(me);
			tick = schedule_next(&sampler->schedule, clock_mono_ns());
		}
	}
}

static void take_running(struct look *look) {
	vec_foreach (item, &look->target->threads)
		if ((*item)->active && (*item)->flags & SAMPLE_RUNNING)
			take_remote(look, *item);
}

/* At the highest rate: whatever ran at the last housekeeping is copied again and again. */
static void run_fast(struct cpu_sampler *me) {
	struct sampler *sampler = me->owner;
	uint64_t tick = 0, next_ns = 0;

	while (!atomic_load(&sampler->stop)) {
		uint64_t now = clock_mono_ns();

		tick++;
		if (now >= next_ns) {
			look_around(me, tick, now);
			next_ns = now + FAST_TICK_NS;
			continue;
		}
		sampler_visit(me, tick, now, take_running);
		me->count.looks++;
	}
}

struct blocked {
	struct look *look;
	size_t n; /* that stood still */
};

static void take_stopped(const pid_t *tids, size_t n, void *arg) {
	struct blocked *blocked = arg;
	struct look *look = blocked->look;

	for (size_t i = 0; i < n; i++)
		vec_foreach (thread, &look->target->threads)
			if ((*thread)->py.tid == tids[i])
				take(look, *thread, true);
	blocked->n = n;
}

static void take_blocked(struct look *look) {
	struct cpu_sampler *me = look->me;
	struct blocked blocked = { .look = look };
	VEC(pid_t) tids = { 0 };
	char state;
	int cpu;

	vec_foreach (thread, &look->target->threads) {
		if (!(*thread)->active || proc_task_state(&(*thread)->task, &state, &cpu))
			continue;
		if (me->owner->options.mode != PYSPYD_MODE_CPU || state == 'R')
			(void)!vec_push(&tids, (*thread)->py.tid);
	}
	if (tids.n && blocking_run(tids.items, tids.n, STOP_TIMEOUT_NS, take_stopped, &blocked))
		me->count.unreadable += tids.n;
	else
		me->count.discarded += tids.n - blocked.n;
	vec_free(&tids);
}

static void look_blocking(struct look *look) {
	look_mind_idle(look);
	take_blocked(look);
	look->target->ended |= !proc_alive(&look->target->proc);
}

static void run_blocking(struct cpu_sampler *me) {
	struct sampler *sampler = me->owner;
	uint64_t tick = schedule_next(&sampler->schedule, clock_mono_ns());

	while (!atomic_load(&sampler->stop)) {
		uint64_t due = schedule_time(&sampler->schedule, tick), now;

		sleep_until(due);
		now = clock_mono_ns();
		me->count.late += now > due + sampler->schedule.period_ns / 2;
		me->count.looks++;
		sampler_visit(me, tick, now, look_blocking);
		tick = next_tick(&sampler->schedule, tick, now);
	}
}

static void *cpu_sampler_main(void *arg) {
	struct cpu_sampler *me = arg;
	struct sampler *sampler = me->owner;

	if (me->cpu >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(me->cpu, &set);
		sched_setaffinity(0, sizeof(set), &set);
		me->priority = sampler->options.ordinary_priority ? priority_ordinary() : priority_raise();
		(void)!proc_task_open(&sampler->self, gettid(), &me->self); /* without it, see was_running */
		if (!is_leader(me))
			park(me);
	}
	me->ran = true;
	if (sampler->offcpu)
		sampler_run_offcpu(me);
	else if (sampler->kernel)
		sampler_run_kernel(me);
	else if (sampler->options.blocking)
		run_blocking(me);
	else if (sampler->options.rate_hz == 0)
		run_fast(me);
	else
		run_ticks(me);
	return NULL;
}

static int init_cpu_sampler(struct sampler *sampler, struct cpu_sampler *me, int cpu) {
	int r = py_stack_scratch_init(&me->scratch);

	me->owner = sampler;
	me->self = PROC_TASK_NONE;
	me->cpu = cpu;
	me->busy_ns = clock_mono_ns();
	sem_init(&me->wake, 0, 0);
	me->places = calloc(LIMIT_FRAMES, sizeof(*me->places));
	return r ? r : me->places ? 0 : -ENOMEM;
}

static void raise_file_limit(void) {
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* eBPF, where it is wanted and to be had. */
static int init_kernel(struct sampler *sampler, struct err *err) {
	const struct sampler_options *options = &sampler->options;
	const struct bpf_source_options kernel = { .rate_hz = options->rate_hz, .native = options->native_stacks };
	int r;

	if (options->mode == PYSPYD_MODE_OFFCPU)
		return offcpu_new(options, &sampler->offcpu, err);
	if (options->source == PYSPYD_SOURCE_VM)
		return 0;
	if (options->rate_hz > 0 && !options->blocking)
		r = bpf_source_new(&kernel, &sampler->kernel, options->source == PYSPYD_SOURCE_BPF ? err : NULL);
	else if (options->source == PYSPYD_SOURCE_AUTO)
		return 0;
	else
		r = err_set(err, PYSPYD_E_UNSUPPORTED, "eBPF samples at a given rate, and stops nobody");
	if (!r && options->native_stacks)
		r = native_stacks_new(bpf_source_tables(sampler->kernel), options->kernel_stacks, &sampler->native);
	return options->source == PYSPYD_SOURCE_BPF ? r : 0;
}

int sampler_new(const struct sampler_options *options, struct sampler **ret_sampler, struct err *err) {
	struct sampler *sampler = calloc(1, sizeof(*sampler));
	cpu_set_t allowed;
	int r;

	if (!sampler)
		return -ENOMEM;
	raise_file_limit(); /* up to three files are kept open for each thread */
	sampler->options = *options;
	sampler->self = (struct proc){ .dir_fd = -1, .pidfd = -1 };
	sampler->hurry_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	sampler->schedule.period_ns = options->rate_hz > 0 ? (uint64_t)(NS_PER_SEC / options->rate_hz) : FAST_TICK_NS;
	sampler->schedule.period_ns = max_of(sampler->schedule.period_ns, 1ULL);
	r = init_kernel(sampler, err);
	sampler->remote =
		options->rate_hz == 0 || options->blocking || sampler->kernel || options->mode == PYSPYD_MODE_OFFCPU;
	CPU_ZERO(&allowed);
	sched_getaffinity(0, sizeof(allowed), &allowed);
	sampler->cpus_n = sampler->remote ? 1 : CPU_SETSIZE;
	while (!sampler->remote && sampler->cpus_n && !CPU_ISSET(sampler->cpus_n - 1, &allowed))
		sampler->cpus_n--;
	sampler->cpus = calloc(sampler->cpus_n, sizeof(*sampler->cpus));
	if (!sampler->cpus && !r)
		r = -ENOMEM;
	atomic_store(&sampler->leader, -1);
	if (!r)
		r = proc_open("/proc", getpid(), &sampler->self);
	for (size_t i = 0; !r && i < sampler->cpus_n; i++) {
		if (!sampler->remote && !CPU_ISSET(i, &allowed))
			continue;
		r = init_cpu_sampler(sampler, &sampler->cpus[i], sampler->remote ? -1 : (int)i);
		if (!r && !sampler->remote && atomic_load(&sampler->leader) < 0)
			atomic_store(&sampler->leader, (int)i);
	}
	if (r) {
		sampler_free(sampler);
		return r;
	}
	*ret_sampler = sampler;
	return 0;
}

/* What targets have of the native stacks' cache goes before it. */
static void free_native(struct sampler *sampler) {
	for (size_t i = 0; i < atomic_load(&sampler->targets_n); i++) {
		struct sample_target *target = atomic_load(&sampler->targets[i]);

		if (!target)
			continue;
		pthread_mutex_lock(&target->lock);
		native_modules_free(target->native);
		target->native = NULL;
		pthread_mutex_unlock(&target->lock);
	}
	native_stacks_free(sampler->native);
}

void sampler_free(struct sampler *sampler) {
	if (!sampler)
		return;
	sampler_stop(sampler);
	for (size_t i = 0; sampler->cpus && i < sampler->cpus_n; i++) {
		struct cpu_sampler *me = &sampler->cpus[i];

		if (!me->owner)
			continue;
		py_stack_scratch_deinit(&me->scratch);
		py_raw_stack_deinit(&me->stack);
		free(me->places);
		proc_task_close(&me->self);
		sem_destroy(&me->wake);
	}
	free(sampler->cpus);
	proc_close(&sampler->self);
	close_fd(&sampler->hurry_fd);
	task_looks_free(sampler->task_looks);
	bpf_source_free(sampler->kernel);
	if (sampler->native)
		free_native(sampler);
	offcpu_free(sampler->offcpu);
	map_deinit(&sampler->by_pid);
	vec_free(&sampler->kernel_pids);
	free(sampler);
}

int sampler_add(struct sampler *sampler, struct sample_target *target) {
	size_t n = atomic_load(&sampler->targets_n), i = 0;

	while (i < n && atomic_load(&sampler->targets[i]))
		i++;
	if (i >= SAMPLER_TARGETS_MAX)
		return -ENOSPC;
	atomic_store(&sampler->targets[i], target);
	if (i == n)
		atomic_store(&sampler->targets_n, n + 1);
	atomic_fetch_add(&sampler->changes, 1);
	return 0;
}

/* A sampler that is in a round may still have the target; one that begins a round later finds the gap. */
static void wait_for_round(struct cpu_sampler *cpu) {
	unsigned round = atomic_load(&cpu->rounds);

	while (round & 1 && atomic_load(&cpu->rounds) == round)
		nanosleep(&(struct timespec){ .tv_nsec = NS_PER_US }, NULL);
}

void sampler_remove(struct sampler *sampler, struct sample_target *target) {
	for (size_t i = 0; i < atomic_load(&sampler->targets_n); i++)
		if (atomic_load(&sampler->targets[i]) == target)
			atomic_store(&sampler->targets[i], NULL);
	atomic_fetch_add(&sampler->changes, 1);
	for (size_t i = 0; i < sampler->cpus_n; i++)
		wait_for_round(&sampler->cpus[i]);
}

int sampler_start(struct sampler *sampler) {
	sampler->schedule.start_ns = clock_mono_ns();
	sampler->schedule.seed = sampler->schedule.start_ns;
	atomic_store(&sampler->stopped_ns, 0);
	(void)!read(sampler->hurry_fd, &(uint64_t){ 0 }, 8);
	sampler->running = true;
	for (size_t i = 0; i < sampler->cpus_n; i++) {
		struct cpu_sampler *me = &sampler->cpus[i];

		if (!me->owner)
			continue;
		atomic_store(&me->awake, is_leader(me));
		me->started = true;
		if (pthread_create(&me->thread, NULL, cpu_sampler_main, me)) {
			me->started = false;
			return -EAGAIN;
		}
	}
	return 0;
}

void sampler_flush(struct sampler *sampler, struct sample_target *target) {
	uint64_t stopped_ns = atomic_load(&sampler->stopped_ns);
	struct look look = {
		.me = &sampler->cpus[0], .target = target, .now_ns = stopped_ns ? stopped_ns : clock_mono_ns()
	};

	for (size_t i = 0; !look.me->owner && i < sampler->cpus_n; i++)
		look.me = &sampler->cpus[i];
	if (sampler->options.rate_hz == 0)
		return;
	look.tick = schedule_next(&sampler->schedule, look.now_ns);
	vec_foreach (thread, &target->threads)
		if ((!(*thread)->active || sampler->kernel) && look.tick)
			repeat(&look, *thread, look.tick - 1);
}

void sampler_stop(struct sampler *sampler) {
	if (!sampler->running)
		return;
	atomic_store(&sampler->stopped_ns, clock_mono_ns());
	atomic_store(&sampler->stop, true);
	(void)!write(sampler->hurry_fd, &(uint64_t){ 1 }, 8);
	for (size_t i = 0; i < sampler->cpus_n; i++) {
		if (!sampler->cpus[i].started)
			continue;
		sem_post(&sampler->cpus[i].wake);
		pthread_join(sampler->cpus[i].thread, NULL);
	}
	sampler->running = false;
	for (size_t i = 0; i < atomic_load(&sampler->targets_n); i++) {
		struct sample_target *target = atomic_load(&sampler->targets[i]);

		if (!target)
			continue;
		pthread_mutex_lock(&target->lock);
		sampler_flush(sampler, target);
		pthread_mutex_unlock(&target->lock);
	}
}

/* Ticks are counted anew. Threads that sleep are counted from the first one on. */
static void begin_ticks(struct sampler *sampler) {
	for (size_t i = 0; i < atomic_load(&sampler->targets_n); i++) {
		struct sample_target *target = atomic_load(&sampler->targets[i]);

		if (!target)
			continue;
		pthread_mutex_lock(&target->lock);
		target->elsewhere_tick = 0;
		vec_foreach (thread, &target->threads)
			(*thread)->counted_tick = 0;
		pthread_mutex_unlock(&target->lock);
	}
	atomic_store(&sampler->looked_tick, 0);
}

static uint64_t ticks_until_now(const struct sampler *sampler) {
	return (clock_mono_ns() - sampler->schedule.start_ns) / sampler->schedule.period_ns;
}

int sampler_set_rate(struct sampler *sampler, double rate_hz) {
	bool was_running = sampler->running;

	sampler_stop(sampler);
	if (was_running)
		sampler->expected_before += ticks_until_now(sampler);
	sampler->options.rate_hz = rate_hz;
	sampler->schedule.period_ns = max_of((uint64_t)(NS_PER_SEC / rate_hz), 1ULL);
	if (sampler->kernel)
		(void)!bpf_source_set_rate(sampler->kernel, rate_hz);
	atomic_store(&sampler->stop, false);
	begin_ticks(sampler);
	return was_running ? sampler_start(sampler) : 0;
}

static void add_kernel(const struct sampler *sampler, struct pyspyd_accuracy *sum) {
	struct bpf_source_counts counts;

	bpf_source_counts(sampler->kernel, sampler->running ? COUNTS_AGE_NS : 0, &counts);
	sum->source = "bpf";
	sum->priority = NULL; /* an interrupt has none */
	sum->expected = counts.expected;
	sum->looks = counts.by[PYB_TICKS];
	sum->unreadable += counts.by[PYB_UNREADABLE] + counts.by[PYB_BAD_FRAME];
	sum->discarded += counts.by[PYB_RING_FULL];
	sum->unknown += counts.by[PYB_NO_STATE];
}

void sampler_accuracy(const struct sampler *sampler, struct pyspyd_accuracy *ret) {
	enum sample_priority priority = PRIORITY_FIFO;
	struct pyspyd_accuracy sum = { 0 };

	for (size_t i = 0; i < sampler->cpus_n; i++) {
		const struct cpu_sampler *me = &sampler->cpus[i];

		if (!me->owner)
			continue;
		if (me->ran)
			priority = min_of(priority, me->priority);
		sum.looks += me->count.looks;
		sum.samples += me->count.samples;
		sum.idle += me->count.idle;
		sum.torn += me->count.torn;
		sum.discarded += me->count.discarded;
		sum.late += me->count.late;
		sum.unreadable += me->count.unreadable;
		sum.truncated += me->count.truncated;
	}
	sum.source = sampler->options.blocking ? "blocking" : sampler->remote ? "vm-remote" : "vm";
	sum.priority = priority_name(priority);
	sum.expected = sum.looks;
	if (sampler->options.rate_hz > 0 && sampler->schedule.start_ns)
		sum.expected = sampler->expected_before + ticks_until_now(sampler);
	if (sampler->kernel)
		add_kernel(sampler, &sum);
	if (sampler->offcpu)
		offcpu_accuracy(sampler->offcpu, &sum);
	sum.kernel_hidden |= sampler->native && native_stacks_lacks_kernel(sampler->native);
	*ret = sum;
}

uint64_t sampler_period_ns(const struct sampler *sampler) {
	return sampler->options.rate_hz > 0 ? sampler->schedule.period_ns : 0;
}
