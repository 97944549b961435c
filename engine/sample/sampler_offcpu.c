/* SPDX-License-Identifier: MIT */
/* The sampler of time off CPU: nothing is sampled, the kernel tells of each sleep how long it was and the name of the
 * stack (bpf_offcpu.h). A stack is decoded when it is told for the first time, and looked up by its name from then on.
 *
 * Of threads that sleep when a process is added the kernel knows the time only. Their stacks are read here, with the
 * run counter as witness that they slept on meanwhile.
 *
 * Below the Python frames stand those of the kernel where they are asked for and their names can be read, or one with
 * the name of the system call: "[read]"; "[gil]" for a futex that lies within the lock of an interpreter. */
#include "engine/sample/sampler_internal.h"

#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/proc/kallsyms.h"
#include "engine/proc/sleep.h"
#include "engine/sample/bpf_offcpu.h"
#include <errno.h>
#include <inttypes.h>
#include <sys/syscall.h>

#define LOOK_NS (50 * NS_PER_MS)
#define STACKS_MAX 65536
#define STACK_PLACES_MAX (4U << 20) /* of all of them */
#define LEAVES_MAX (PYB_KERNEL_FRAMES_MAX + 1)
#define STATE_UNINTERRUPTIBLE 0x2
#define STATE_STOPPED 0xc /* by a signal or a tracer */
#define STATE_NO_LOAD 0x400

struct off_stack {
	uint64_t serial; /* of the target */
	size_t start, n; /* in places */
	unsigned flags;
};

struct off_gil {
	uint64_t serial;
	raddr start, end;
};

struct offcpu {
	struct bpf_offcpu *bpf;
	struct kallsyms *symbols; /* NULL: not asked for, or hidden */
	bool want_kernel;
	struct map by_name; /* index in stacks */
	VEC(struct off_stack) stacks;
	VEC(uint32_t) places;
	VEC(struct off_gil) gils;
	struct cpu_sampler *me; /* of a round */
	struct sample_leaf leaves[LEAVES_MAX];
	char leaf_name[64];
};

int offcpu_new(const struct sampler_options *options, struct offcpu **ret_offcpu, struct err *err) {
	const struct bpf_offcpu_options bpf = { .threshold_ns = options->threshold_ns,
		.kernel_stacks = options->kernel_stacks };
	struct offcpu *offcpu;
	int r;

	if (options->source == PYSPYD_SOURCE_VM)
		return err_set(err, PYSPYD_E_UNSUPPORTED, "only eBPF can tell time off CPU, not reading memory");
	if (options->blocking)
		return err_set(err, PYSPYD_E_UNSUPPORTED, "time off CPU is told without stopping anybody");
	offcpu = calloc(1, sizeof(*offcpu));
	if (!offcpu)
		return -ENOMEM;
	r = bpf_offcpu_new(&bpf, &offcpu->bpf, err);
	if (r) {
		offcpu_free(offcpu);
		return r;
	}
	offcpu->want_kernel = options->kernel_stacks;
	if (options->kernel_stacks)
		(void)!kallsyms_read(&offcpu->symbols); /* without it the system call's name stands there */
	*ret_offcpu = offcpu;
	return 0;
}

void offcpu_free(struct offcpu *offcpu) {
	if (!offcpu)
		return;
	bpf_offcpu_free(offcpu->bpf);
	kallsyms_free(offcpu->symbols);
	map_deinit(&offcpu->by_name);
	vec_free(&offcpu->stacks);
	vec_free(&offcpu->places);
	vec_free(&offcpu->gils);
	free(offcpu);
}

void offcpu_accuracy(struct offcpu *offcpu, struct pyspyd_accuracy *sum) {
	struct bpf_offcpu_counts counts;
	uint64_t lost;

	bpf_offcpu_counts(offcpu->bpf, &counts);
	lost = counts.by[PYB_OFF_LOST] + counts.by[PYB_OFF_NO_ROOM] + counts.missed;
	sum->source = "bpf";
	sum->priority = NULL;
	sum->looks = counts.by[PYB_OFF_SLEEPS];
	sum->expected = sum->looks + counts.by[PYB_OFF_NO_ROOM] + counts.missed;
	sum->discarded += lost;
	sum->unreadable += counts.by[PYB_UNREADABLE] + counts.by[PYB_BAD_FRAME];
	sum->truncated += counts.by[PYB_DEEP];
	sum->unknown += counts.by[PYB_NO_STATE];
	sum->kernel_hidden = offcpu->want_kernel && !offcpu->symbols;
}

static uint64_t key_of(uint64_t name) {
	return name == UINT64_MAX ? 0 : name;
}

/* The key of the stack at which a thread slept when its process was added. */
static uint64_t begun_key(const struct sample_target *target, raddr tstate) {
	return key_of(hash_mix(tstate ^ hash_mix(target->serial)));
}

/* Keeps the stack that was read last. */
static int keep_stack(struct offcpu *offcpu, const struct look *look, uint64_t key) {
	const struct py_raw_stack *raw = &look->me->stack;
	struct off_stack stack = { .serial = look->target->serial,
		.start = offcpu->places.n,
		.n = raw->frames.n,
		.flags = raw->truncated ? SAMPLE_TRUNCATED : 0 };

	if (offcpu->stacks.n >= STACKS_MAX || stack.start + stack.n > STACK_PLACES_MAX)
		return -E2BIG;
	if (vec_reserve(&offcpu->places, stack.start + stack.n))
		return -ENOMEM;
	memcpy(offcpu->places.items + stack.start, look->me->places, stack.n * sizeof(*look->me->places));
	if (vec_push(&offcpu->stacks, stack) || map_put(&offcpu->by_name, key, offcpu->stacks.n - 1))
		return -ENOMEM;
	offcpu->places.n += stack.n;
	return 0;
}

static void keep_or_count(struct offcpu *offcpu, const struct look *look, uint64_t key, int r) {
	if (!r)
		r = keep_stack(offcpu, look, key);
	if (r)
		sampler_count_failure(look->me, r);
}

static struct look look_at(struct offcpu *offcpu, uint32_t pid) {
	return (struct look){
		.me = offcpu->me, .target = kernel_target_of(offcpu->me->owner, (pid_t)pid), .now_ns = clock_mono_ns()
	};
}

static void on_stack(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames) {
	struct offcpu *offcpu = userdata;
	struct look look = look_at(offcpu, event->pid);
	int r;

	if (!look.target)
		return;
	pthread_mutex_lock(&look.target->lock);
	if (event->flags & PYB_SEARCHED)
		look.target->unknown_thread = true;
	r = bpf_raw_stack(&look.target->rt, event, frames, &look.me->stack);
	if (!r)
		r = sample_target_decode(look.target, &look.me->stack, look.now_ns, look.me->places);
	keep_or_count(offcpu, &look, key_of(event->name), r);
	pthread_mutex_unlock(&look.target->lock);
}

static bool waits_for_gil(
	const struct offcpu *offcpu, const struct sample_target *target, const struct pyb_off *event) {
	vec_foreach (gil, &offcpu->gils)
		if (event->call == SYS_futex && gil->serial == target->serial && event->arg >= gil->start &&
			event->arg < gil->end)
			return true;
	return false;
}

static bool is_uninterruptible(const struct pyb_off *event) {
	return event->state & STATE_UNINTERRUPTIBLE && !(event->state & STATE_NO_LOAD);
}

/* The system call's name where the kernel's functions are not known. Return: NULL: nothing is. */
static const char *name_call(struct offcpu *offcpu, const struct pyb_off *event) {
	const char *call = sleep_call_name(event->call), *state = is_uninterruptible(event) ? ", uninterruptible" : "";

	if (event->state & STATE_STOPPED)
		return "[stopped]";
	if (event->call == -2)
		return NULL;
	if (event->call == -1) /* a page, most often */
		snprintf(offcpu->leaf_name, sizeof(offcpu->leaf_name), "[kernel%s]", state);
	else if (call)
		snprintf(offcpu->leaf_name, sizeof(offcpu->leaf_name), "[%s%s]", call, state);
	else
		snprintf(offcpu->leaf_name, sizeof(offcpu->leaf_name), "[system call %" PRId64 "%s]",
			(int64_t)event->call, state);
	return offcpu->leaf_name;
}

/* What stands below the Python frames. Return: how many in offcpu->leaves. */
static size_t find_leaves(
	struct offcpu *offcpu, const struct sample_target *target, const struct pyb_off *event, bool stack_known) {
	struct sample_leaf *leaves = offcpu->leaves;
	const char *name;
	size_t n = 0;

	if (!stack_known)
		leaves[n++] = (struct sample_leaf){ "[stack not known]", PYSPYD_NATIVE };
	if (waits_for_gil(offcpu, target, event)) {
		leaves[n++] = (struct sample_leaf){ "[gil]", PYSPYD_NATIVE };
		return n;
	}
	for (uint32_t i = event->kernel_n; offcpu->symbols && i > 0; i--) {
		name = kallsyms_name(offcpu->symbols, event->kernel[i - 1]);
		if (name && n < LEAVES_MAX)
			leaves[n++] = (struct sample_leaf){ name, PYSPYD_KERNEL };
	}
	name = n > !stack_known ? NULL : name_call(offcpu, event);
	if (name)
		leaves[n++] = (struct sample_leaf){ name, PYSPYD_KERNEL };
	return n;
}

static struct sample_thread *thread_of(const struct sample_target *target, const struct pyb_off *event) {
	if (event->tstate)
		return kernel_thread_of(target, event->tstate);
	vec_foreach (thread, &target->threads)
		if ((*thread)->py.ident == event->thread_pointer)
			return *thread;
	return NULL;
}

static const struct off_stack *stack_of(const struct offcpu *offcpu, const struct sample_target *target, uint64_t key) {
	const struct off_stack *stack;
	uint64_t at;

	if (!map_get(&offcpu->by_name, key, &at))
		return NULL;
	stack = &offcpu->stacks.items[at];
	return stack->serial == target->serial ? stack : NULL;
}

static void take_sleep(struct offcpu *offcpu, struct look *look, const struct pyb_off *event) {
	const struct sampler_options *options = &look->me->owner->options;
	struct sample sample = { .target = look->target, .ns = event->ns, .ticks = event->sleeps };
	const struct off_stack *stack;

	sample.thread = thread_of(look->target, event);
	if (!sample.thread && !(event->flags & PYB_OFF_BEGUN)) { /* younger than our list */
		(void)!sample_target_refresh(look->target, NULL, NULL);
		sample.thread = thread_of(look->target, event);
	}
	if (!sample.thread) {
		look->me->count.discarded += event->sleeps;
		return;
	}
	stack = stack_of(offcpu, look->target,
		event->flags & PYB_OFF_BEGUN ? begun_key(look->target, sample.thread->py.tstate)
					     : key_of(event->stack));
	if (stack) {
		sample.n = stack->n;
		sample.flags = stack->flags;
	}
	sample.places = stack ? offcpu->places.items + stack->start : look->me->places;
	sample.leaves = offcpu->leaves;
	sample.leaves_n = find_leaves(offcpu, look->target, event, stack);
	look->me->count.samples += event->sleeps;
	options->on_sample(options->userdata, &sample);
}

static void on_sleep(void *userdata, const struct pyb_off *event) {
	struct offcpu *offcpu = userdata;
	struct look look = look_at(offcpu, event->pid);

	if (!look.target)
		return;
	pthread_mutex_lock(&look.target->lock);
	look.target->newest_owed = true; /* it runs */
	take_sleep(offcpu, &look, event);
	pthread_mutex_unlock(&look.target->lock);
}

static void forget_gils(struct offcpu *offcpu, const struct sample_target *target) {
	size_t kept = 0;

	vec_foreach (gil, &offcpu->gils)
		if (gil->serial != target->serial)
			offcpu->gils.items[kept++] = *gil;
	offcpu->gils.n = kept;
}

/* Of the interpreters that there are now. */
static void find_gils(struct offcpu *offcpu, const struct sample_target *target) {
	const struct py_runtime *rt = &target->rt;
	py_interp_vec interps = { 0 };

	forget_gils(offcpu, target);
	if (!layout_has(rt->reader.layout.gil_size) || py_interps_read(rt, &interps))
		return;
	vec_foreach (interp, &interps) {
		struct py_interp_view view = { 0 };

		if (!py_interp_view(rt, interp->addr, &view) && view.gil)
			(void)!vec_push(&offcpu->gils,
				(struct off_gil){ target->serial, view.gil, view.gil + rt->reader.layout.gil_size });
	}
	vec_free(&interps);
}

/* One that sleeps, and has since before the kernel began to count. */
static void read_begun(struct offcpu *offcpu, struct look *look, struct sample_thread *thread) {
	struct proc_schedstat after;
	char state;
	int cpu, r;

	if (proc_task_state(&thread->task, &state, &cpu) || state == 'R' || state == 'Z' || state == 'X')
		return;
	r = look_read_stack(look, thread);
	if (!proc_task_schedstat(&thread->task, &after) && after.run_ns == thread->run_ns)
		keep_or_count(offcpu, look, begun_key(look->target, thread->py.tstate), r);
}

static void begin(struct offcpu *offcpu, struct look *look) {
	struct bpf_processes *processes = bpf_offcpu_processes(offcpu->bpf);
	struct sample_target *target = look->target;

	target->in_kernel = true;
	find_gils(offcpu, target);
	vec_foreach (thread, &target->threads) {
		struct proc_schedstat stat;

		(*thread)->run_ns = proc_task_schedstat(&(*thread)->task, &stat) ? UINT64_MAX : stat.run_ns;
	}
	if (bpf_processes_add(processes, &target->rt, target->proc.pid)) {
		look->me->count.unreadable++;
		return;
	}
	kernel_tell_threads(look, processes);
	if (bpf_offcpu_begin(offcpu->bpf, target->proc.pid))
		look->me->count.unreadable++;
	vec_foreach (thread, &target->threads)
		read_begun(offcpu, look, *thread);
}

static void look_at_target(struct look *look) {
	struct offcpu *offcpu = look->me->owner->offcpu;
	struct sample_target *target = look->target;

	if (!target->in_kernel)
		begin(offcpu, look);
	if (!proc_alive(&target->proc)) {
		target->ended = true;
		return;
	}
	if (target->newest_owed) { /* a thread that goes into an interpreter of its own is known from before */
		target->newest_owed = false;
		target->unknown_thread |= kernel_has_new_state(target);
	}
	if (target->unknown_thread) {
		target->unknown_thread = false;
		if (sample_target_refresh(target, NULL, NULL) == MEM_E_GONE)
			target->ended = true;
	}
	if (target->told != target->threads_changed) {
		kernel_tell_threads(look, bpf_offcpu_processes(offcpu->bpf));
		find_gils(offcpu, target);
	}
}

static void take_events(struct offcpu *offcpu) {
	const struct bpf_offcpu_sink sink = { .on_stack = on_stack, .on_sleep = on_sleep, .userdata = offcpu };
	struct cpu_sampler *me = offcpu->me;

	atomic_fetch_add(&me->rounds, 1);
	kernel_follow_changes(me->owner, bpf_offcpu_processes(offcpu->bpf));
	bpf_offcpu_take(offcpu->bpf, &sink);
	atomic_fetch_add(&me->rounds, 1);
}

void sampler_run_offcpu(struct cpu_sampler *me) {
	struct sampler *sampler = me->owner;
	struct offcpu *offcpu = sampler->offcpu;
	uint64_t due = 0;

	offcpu->me = me;
	while (!atomic_load(&sampler->stop)) {
		uint64_t now = clock_mono_ns();

		take_events(offcpu);
		if (now >= due) {
			sampler_visit(me, schedule_next(&sampler->schedule, now), now, look_at_target);
			due = now + LOOK_NS;
		}
		bpf_offcpu_wait(offcpu->bpf, sampler->hurry_fd, due - min_of(due, clock_mono_ns()));
	}
	if (bpf_offcpu_end(offcpu->bpf))
		me->count.unreadable++;
	take_events(offcpu);
}
