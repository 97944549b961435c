/* SPDX-License-Identifier: MIT */
/* pyspyd_record_alloc: where a process's memory comes from.
 *
 * Stacks come out of the kernel with the bytes that they stand for; a count's samples are how many allocations these
 * are likely to be, its ns are the bytes. What the probes cost is known all the time, from how often they are hit;
 * where that is too much of what the process does, they are there for a part of the time only (duty.h): a window. What
 * is seen in a window stands for the time from the end of the one before, by what the process has used of its own. */
#include "engine/base/clock.h"
#include "engine/export/export.h"
#include "engine/sample/bpf_alloc.h"
#include "engine/sample/duty.h"
#include "engine/sample/target.h"
#include "pyspyd/record.h"
#include <errno.h>
#include <string.h>

#define STARTING_WAIT_NS (5 * NS_PER_SEC)
#define WAIT_NS (20 * NS_PER_MS)
#define WINDOW_WAIT_NS (2 * NS_PER_MS) /* where windows are short */
#define TEND_NS (500 * NS_PER_MS)
#define START_NS (500 * NS_PER_MS)     /* of the process's own time that pays for the beginning of a window */
#define WINDOW_MAX_NS (NS_PER_SEC / 2) /* of its own time: then what was seen is counted */

#define COST_ERROR 1.3
#define ALLOCATION_NS 40 /* of a program that does little else: what one takes, with what is done about it */

/* What stands in the profile when its window is over. */
struct pending {
	uint32_t thread, node;
	uint64_t allocations, bytes;
};

struct recording {
	const struct pyspyd_record_options *options;
	const struct pyspyd_alloc_options *alloc_options;
	struct sample_target *target;
	struct bpf_alloc *alloc;
	struct profile *profile;
	VEC(uint32_t) frames; /* by place */
	uint32_t process_name;
	uint32_t stranger; /* thread of the profile for those without Python */
	unsigned told;
	bool unknown_thread;
	uint64_t random;
	uint64_t first_cpu_ns;
	struct duty duty;
	bool watching;
	double own_off_ns, own_on_ns;                            /* since the last window was counted */
	double own_ns, own_watched_ns;                           /* in all */
	uint64_t account_cpu_ns, account_spent_ns, account_hits; /* when these were brought up to date */
	VEC(struct pending) pending;
	struct pyspyd_alloc_cost cost;
};

static uint32_t frame_of(struct recording *r, uint32_t place) {
	const struct sample_target *target = r->target;
	struct intern *strings = &r->profile->strings;

	while (r->frames.n <= place) {
		const struct sample_place *p = &target->places.items[r->frames.n];
		const char *function = intern_str(&target->strings, p->function);
		const char *file = intern_str(&target->strings, p->file),
			   *module = intern_str(&target->strings, p->module);
		const struct profile_frame frame = {
			.function = intern_add(strings, function, strlen(function)),
			.file = intern_add(strings, file, strlen(file)),
			.module = intern_add(strings, module, strlen(module)),
			.line = p->line,
			.lang = PYSPYD_PYTHON,
		};

		if (vec_push(&r->frames, profile_add_frame(r->profile, &frame)))
			return UINT32_MAX;
	}
	return r->frames.items[place];
}

static uint32_t node_of(struct recording *r, const uint32_t *places, size_t n) {
	uint32_t node = 0;

	for (size_t i = n; i > 0 && node != UINT32_MAX; i--) {
		uint32_t frame = frame_of(r, places[i - 1]);

		node = frame == UINT32_MAX ? UINT32_MAX : profile_add_node(r->profile, node, frame);
	}
	return node;
}

static struct sample_thread *thread_of(const struct sample_target *target, raddr tstate) {
	vec_foreach (thread, &target->threads)
		if ((*thread)->py.tstate == tstate)
			return *thread;
	return NULL;
}

static uint32_t add_thread(struct recording *r, pid_t tid) {
	return profile_add_thread(r->profile,
		&(struct profile_thread){ .pid = r->target->proc.pid, .tid = tid, .process_name = r->process_name });
}

/* The profile's id of the thread, whose mark it is, one higher. */
static uint32_t thread_id(struct recording *r, raddr tstate) {
	struct sample_thread *thread = tstate ? thread_of(r->target, tstate) : NULL;

	if (!thread && tstate && !sample_target_refresh(r->target, NULL, NULL))
		thread = thread_of(r->target, tstate);
	if (!thread) {
		if (r->stranger == UINT32_MAX)
			r->stranger = add_thread(r, 0);
		return r->stranger;
	}
	if (!thread->mark)
		thread->mark = (uint64_t)add_thread(r, thread->py.tid) + 1;
	return (uint32_t)thread->mark - 1;
}

/* How many allocations a sample is likely to stand for: the rest of the division is rounded by chance. */
static uint64_t allocations(struct recording *r, const struct pyb_event *event) {
	uint64_t size = max_of(event->size, (uint64_t)1);

	r->random = hash_mix(r->random + 1);
	return event->weight / size + (r->random % size < event->weight % size);
}

static void on_event(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames) {
	struct recording *r = userdata;
	struct py_raw_stack stack = { 0 };
	uint32_t *places _free_ = calloc(max_of(event->frames_n, 1U), sizeof(*places));
	uint32_t node, thread = thread_id(r, event->tstate);
	int failed = places ? bpf_raw_stack(&r->target->rt, event, frames, &stack) : -ENOMEM;

	r->unknown_thread |= (event->flags & PYB_SEARCHED) && event->tstate;
	if (!failed)
		failed = sample_target_decode(r->target, &stack, clock_mono_ns(), places);
	node = failed ? UINT32_MAX : node_of(r, places, stack.frames.n);
	if (node == UINT32_MAX || thread == UINT32_MAX ||
		vec_push(&r->pending,
			((struct pending){ .thread = thread,
				.node = node,
				.allocations = allocations(r, event),
				.bytes = event->weight })))
		r->cost.lost++;
	else
		r->cost.samples++;
	py_raw_stack_deinit(&stack);
}

static int tell_threads(struct recording *r) {
	VEC(const struct py_thread *) threads = { 0 };
	int failed = sample_target_refresh(r->target, NULL, NULL);

	if (failed == MEM_E_GONE)
		return failed;
	if (r->told == r->target->threads_changed)
		return 0;
	failed = 0;
	vec_foreach (thread, &r->target->threads)
		if (!failed)
			failed = vec_push(&threads, &(*thread)->py);
	if (!failed && !bpf_alloc_set_threads(r->alloc, &r->target->rt, threads.items, threads.n))
		r->told = r->target->threads_changed;
	vec_free(&threads);
	return 0;
}

static void name_threads(struct recording *r) {
	struct py_thread_names names = { 0 };

	if (py_thread_names_read(&r->target->rt, &names))
		return;
	vec_foreach (thread, &r->target->threads) {
		const char *name = py_thread_name(&names, (*thread)->py.ident);
		struct proc_stat stat;

		if (!(*thread)->mark || r->profile->threads.items[(*thread)->mark - 1].name)
			continue;
		if (!name && !proc_thread_stat(&r->target->proc, (*thread)->py.tid, &stat))
			name = stat.comm;
		if (name)
			r->profile->threads.items[(*thread)->mark - 1].name =
				intern_add(&r->profile->strings, name, strlen(name));
	}
	py_thread_names_deinit(&names);
}

static uint64_t cpu_ns(const struct recording *r) {
	struct timespec t = { 0 };

	clock_gettime(r->target->cpu_clock, &t);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

/* In percent of what the process would have used without the probes. Both numbers have errors, so that a large one says
 * no more than that it is large. */
static double slowdown(uint64_t spent_ns, uint64_t used_ns) {
	double own = (double)used_ns - (double)spent_ns, most = PYSPYD_SLOWDOWN_MAX_PCT;

	if (!used_ns)
		return 0;
	return own > 0 ? min_of(100 * (double)spent_ns / own, most) : most;
}

/* Of the time that the process has used since the last call: what it would have used without probes. What these cost is
 * known to a third. Where less than that is left, allocations have done most of it, and how long they take is better
 * known than the difference. */
static double own_since(struct recording *r, uint64_t used_ns, const struct bpf_alloc_counts *counts) {
	double used = (double)(used_ns - r->account_cpu_ns), spent = (double)(counts->spent_ns - r->account_spent_ns);
	double least = (double)(counts->hits - r->account_hits) * ALLOCATION_NS;

	r->account_cpu_ns = used_ns;
	r->account_spent_ns = counts->spent_ns;
	r->account_hits = counts->hits;
	return min_of(used, max_of(used - COST_ERROR * spent, 0.0) + least);
}

/* Counts what has come, for all of the time since the last such count. */
static void count_pending(struct recording *r) {
	double stands_for = r->own_on_ns > 0 ? 1 + r->own_off_ns / r->own_on_ns : 1;

	vec_foreach (one, &r->pending) {
		double n = (double)one->allocations * stands_for;

		r->random = hash_mix(r->random + 1);
		if (profile_count(r->profile, one->thread, one->node,
			    (uint64_t)n + ((double)(r->random >> 11) * 0x1p-53 < n - (double)(uint64_t)n),
			    (uint64_t)((double)one->bytes * stands_for)))
			r->cost.lost++;
	}
	if (r->own_on_ns > 0)
		r->own_on_ns = r->own_off_ns = 0;
	r->pending.n = 0;
}

/* Brings the accounts up to date. Return: whether to watch from now on. */
static bool account(struct recording *r) {
	struct bpf_alloc_counts counts;
	uint64_t used = cpu_ns(r);
	double own;

	bpf_alloc_counts(r->alloc, &counts);
	used = max_of(used, r->account_cpu_ns); /* 0 where it has ended */
	own = own_since(r, used, &counts);
	r->own_ns += own;
	if (r->watching) {
		r->own_on_ns += own;
		r->own_watched_ns += own;
	} else {
		r->own_off_ns += own;
	}
	return duty_step(&r->duty, used, counts.spent_ns);
}

static void begin_window(struct recording *r) {
	(void)account(r); /* putting them there has taken its time */
	bpf_alloc_watch(r->alloc, true);
	r->watching = true;
	r->cost.windows++;
}

static void end_window(struct recording *r) {
	bpf_alloc_watch(r->alloc, false);
	r->watching = false;
	bpf_alloc_detach(r->alloc);
	bpf_alloc_take(r->alloc, on_event, r);
	count_pending(r);
}

static void follow_duty(struct recording *r) {
	bool watch = account(r);

	if (r->watching && !watch)
		end_window(r);
	else if (r->watching && r->own_on_ns >= WINDOW_MAX_NS)
		count_pending(r);
	else if (!r->watching && watch && !bpf_alloc_attach(r->alloc, NULL)) /* or later */
		begin_window(r);
}

static void show_progress(const struct recording *r, uint64_t elapsed_ns) {
	const struct pyspyd_accuracy accuracy = { .source = "bpf", .samples = r->cost.samples };

	r->options->progress(r->options->userdata, elapsed_ns, &accuracy);
}

/* Return: whether the process still runs the program that we know. */
static bool tend(struct recording *r) {
	if (!proc_alive(&r->target->proc) || py_runtime_check(&r->target->rt) || tell_threads(r))
		return false;
	name_threads(r);
	return true;
}

/* Return: 0; PYSPYD_E_GONE: it ended before the time that was asked for. */
static int run(struct recording *r) {
	const struct pyspyd_record_options *o = r->options;
	uint64_t start = clock_mono_ns(), now = start, next = start + TEND_NS;
	uint64_t end = o->duration_ns ? start + o->duration_ns : UINT64_MAX;

	while (now < end && !(o->stop && *o->stop)) {
		bpf_alloc_wait(r->alloc,
			min_of(end - now, (uint64_t)(r->watching && r->cost.windows > 1 ? WINDOW_WAIT_NS : WAIT_NS)));
		bpf_alloc_take(r->alloc, on_event, r);
		follow_duty(r);
		now = clock_mono_ns();
		if (r->unknown_thread && !tell_threads(r))
			r->unknown_thread = false;
		if (now < next && proc_alive(&r->target->proc))
			continue;
		if (!tend(r))
			return o->duration_ns ? PYSPYD_E_GONE : 0;
		if (o->progress)
			show_progress(r, now - start);
		next = now + TEND_NS;
	}
	return 0;
}

static void finish(struct recording *r) {
	struct bpf_alloc_counts counts;
	struct pyspyd_alloc_cost *cost = &r->cost;

	(void)account(r);
	end_window(r);
	name_threads(r);
	bpf_alloc_counts(r->alloc, &counts);
	cost->hits = counts.hits;
	cost->others = counts.others;
	cost->bytes = counts.bytes;
	cost->unknown = counts.by[PYB_NO_STATE];
	cost->lost += counts.by[PYB_RING_FULL] + counts.by[PYB_NESTED];
	cost->probes = counts.probes;
	cost->not_seen = counts.not_seen;
	cost->hit_ns = counts.hit_ns;
	cost->spent_ns = counts.spent_ns;
	cost->cpu_ns = r->account_cpu_ns - r->first_cpu_ns;
	cost->watched_pct = r->own_ns > 0 ? 100 * r->own_watched_ns / r->own_ns : 100;
	cost->slowdown_pct = slowdown(cost->spent_ns, cost->cpu_ns);
	cost->rough = cost->windows > 1 && (double)cost->spent_ns > r->own_watched_ns;
	r->profile->accuracy = (struct pyspyd_accuracy){ .source = "bpf",
		.looks = counts.hits,
		.expected = counts.hits,
		.samples = cost->samples,
		.discarded = cost->lost,
		.unreadable = counts.by[PYB_UNREADABLE] + counts.by[PYB_BAD_FRAME],
		.truncated = counts.by[PYB_DEEP],
		.unknown = cost->unknown };
}

static int begin(struct recording *r, pid_t pid, struct err *err) {
	const struct bpf_alloc_options options = { .every_bytes = r->alloc_options->every_bytes,
		.native = r->alloc_options->native };
	struct proc_stat stat = { .comm = "?" };
	int failed = sample_target_new(pid, STARTING_WAIT_NS, &r->target, err);

	if (!failed)
		failed = profile_new(&r->profile);
	if (failed)
		return failed;
	proc_stat_read(&r->target->proc, &stat);
	r->process_name = intern_add(&r->profile->strings, stat.comm, strlen(stat.comm));
	r->profile->kind = PROFILE_ALLOC;
	r->stranger = UINT32_MAX;
	r->told = r->target->threads_changed - 1;
	r->profile->start_real_ns = clock_real_ns();
	failed = bpf_alloc_new(&options, &r->target->proc, &r->target->rt, &r->alloc, err);
	if (failed)
		return failed;
	r->first_cpu_ns = r->account_cpu_ns = cpu_ns(r);
	duty_init(&r->duty, r->alloc_options->max_slowdown_pct, START_NS, r->first_cpu_ns, 0);
	begin_window(r);
	return tell_threads(r) ? err_set(err, PYSPYD_E_GONE, "process %d has ended", (int)pid) : 0;
}

static int record(struct recording *r, pid_t pid, const struct exporter *exporter, int out_fd, struct err *err) {
	const struct export_options export = { .threads = r->options->threads };
	uint64_t start;
	int ended, failed = begin(r, pid, err);

	if (failed)
		return failed;
	start = clock_mono_ns();
	ended = run(r);
	finish(r);
	r->profile->duration_ns = clock_mono_ns() - start;
	failed = exporter->write(r->profile, &export, out_fd);
	if (failed)
		return err_set(err, failed, "writing the profile: %s", strerror(-failed));
	return ended ? err_set(err, ended, "process %d ended before the time was over", (int)pid) : 0;
}

int pyspyd_record_alloc(pid_t pid, const struct pyspyd_record_options *options,
	const struct pyspyd_alloc_options *alloc_options, int out_fd, struct pyspyd_alloc_cost *ret_cost,
	struct err *err) {
	struct recording r = { .options = options, .alloc_options = alloc_options };
	const struct exporter *exporter = export_find(options->format);
	int failed;

	if (!exporter)
		return err_set(err, PYSPYD_E_USAGE, "there is no format '%s'", options->format);
	failed = record(&r, pid, exporter, out_fd, err);
	if (r.cost.probes)
		*ret_cost = r.cost;
	bpf_alloc_free(r.alloc);
	profile_free(r.profile);
	sample_target_free(r.target);
	vec_free(&r.frames);
	vec_free(&r.pending);
	return failed;
}
