/* SPDX-License-Identifier: MIT */
/* Counters of a watched process from report to report. CPU time comes from the kernel's run counters (nanoseconds), the
 * split into user and system time from clock ticks and only for threads that are busy. */
#include "engine/pipeline/watched.h"

#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/pipeline/describe.h"
#include <errno.h>

#define SMAPS_EVERY_NS (5 * NS_PER_SEC)
#define BUSY_PERCENT 20.0     /* from here on a thread's user and system time are read apart */
#define STATUS_THREADS_MAX 64 /* switches are read for so many threads of a process, the busiest first come */

int watched_new(struct sample_target *target, struct watched **ret_watched) {
	struct watched *watched = calloc(1, sizeof(*watched));
	int r;

	if (!watched)
		return -ENOMEM;
	watched->target = target;
	r = describe_process(&target->proc, target->rt.version, &watched->process);
	if (r) {
		watched_free(watched);
		return r;
	}
	*ret_watched = watched;
	return 0;
}

void watched_free(struct watched *watched) {
	if (!watched)
		return;
	vec_foreach (thread, &watched->threads)
		free(thread->name);
	vec_free(&watched->threads);
	window_deinit(&watched->window);
	pyspyd_process_deinit(&watched->process);
	free(watched);
}

static struct watched_thread *find_thread(struct watched *watched, pid_t tid) {
	vec_foreach (thread, &watched->threads)
		if (thread->tid == tid)
			return thread;
	return NULL;
}

static uint64_t ticks_to_ns(uint64_t ticks) {
	return ticks * (NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK));
}

static struct watched_thread *add_thread(struct watched *watched, const struct sample_thread *sampled) {
	struct watched_thread thread = { .tid = sampled->py.tid, .ident = sampled->py.ident, .user_ns = UINT64_MAX };
	struct proc_stat stat;

	if (!proc_thread_stat(&watched->target->proc, thread.tid, &stat))
		thread.start_ns = ticks_to_ns(stat.start_ticks);
	return vec_push(&watched->threads, thread) ? NULL : &watched->threads.items[watched->threads.n - 1];
}

static void forget_split(struct watched_thread *thread) {
	thread->user_ns = thread->system_ns = UINT64_MAX;
	thread->split_known = false;
}

static void split_time(const struct proc *proc, struct watched_thread *thread) {
	struct proc_stat stat;

	thread->split_known = false;
	if (proc_thread_stat(proc, thread->tid, &stat))
		return;
	thread->split_known = thread->user_ns != UINT64_MAX;
	thread->last_user_ns = thread->user_ns;
	thread->last_system_ns = thread->system_ns;
	thread->user_ns = ticks_to_ns(stat.user_ticks);
	thread->system_ns = ticks_to_ns(stat.system_ticks);
}

static void read_switches(const struct proc *proc, struct watched_thread *thread) {
	char name[64];
	char *text _free_ = NULL;
	struct proc_status status;
	size_t len;

	snprintf(name, sizeof(name), "task/%d/status", (int)thread->tid);
	if (proc_read_file(proc, name, 16384, &text, &len) || proc_status_parse(text, len, &status))
		return;
	thread->voluntary = status.voluntary_switches;
	thread->involuntary = status.involuntary_switches;
}

static void update_thread(struct watched *watched, const struct sample_thread *sampled, bool with_status) {
	struct watched_thread *thread = find_thread(watched, sampled->py.tid);
	struct proc_schedstat stat;
	int cpu;

	if (!thread)
		thread = add_thread(watched, sampled);
	if (!thread || proc_task_schedstat(&sampled->task, &stat) ||
		proc_task_state(&sampled->task, &thread->state, &cpu))
		return;
	thread->last_run_ns = thread->run_ns;
	thread->run_ns = stat.run_ns;
	thread->last_wait_ns = thread->wait_ns;
	thread->wait_ns = stat.wait_ns;
	thread->holds_gil = sampled->flags & SAMPLE_GIL;
	thread->seen = true;
	thread->cpu_percent = 0;
	if (thread->last_run_ns && watched->interval_ns && thread->run_ns >= thread->last_run_ns)
		thread->cpu_percent =
			100.0 * (double)(thread->run_ns - thread->last_run_ns) / (double)watched->interval_ns;
	if (thread->cpu_percent >= BUSY_PERCENT)
		split_time(&watched->target->proc, thread);
	else
		forget_split(thread);
	if (with_status)
		read_switches(&watched->target->proc, thread);
}

static void drop_unseen(struct watched *watched) {
	size_t kept = 0;

	for (size_t i = 0; i < watched->threads.n; i++) {
		if (watched->threads.items[i].seen)
			watched->threads.items[kept++] = watched->threads.items[i];
		else
			free(watched->threads.items[i].name);
	}
	watched->threads.n = kept;
}

static void name_threads(struct watched *watched) {
	struct sample_target *target = watched->target;
	struct py_thread_names names = { 0 };
	bool missing = false;

	vec_foreach (thread, &watched->threads)
		missing |= !thread->name;
	if (!missing || py_thread_names_read(&target->rt, &names))
		return;
	vec_foreach (sampled, &target->threads) {
		struct watched_thread *thread = find_thread(watched, (*sampled)->py.tid);
		const char *name = py_thread_name(&names, (*sampled)->py.ident);
		struct proc_stat stat;

		if (!thread || thread->name)
			continue;
		if (!name && !proc_thread_stat(&target->proc, thread->tid, &stat))
			name = stat.comm;
		thread->name = strdup(name ? name : "?");
	}
	py_thread_names_deinit(&names);
}

static void update_threads(struct watched *watched) {
	struct sample_target *target = watched->target;
	size_t n = 0;

	vec_foreach (thread, &watched->threads)
		thread->seen = false;
	pthread_mutex_lock(&target->lock);
	vec_foreach (sampled, &target->threads)
		update_thread(watched, *sampled, n++ < STATUS_THREADS_MAX);
	drop_unseen(watched);
	name_threads(watched);
	pthread_mutex_unlock(&target->lock);
}

static int update_counters(struct watched *watched, uint64_t now_ns) {
	bool with_smaps = !watched->smaps_ns || now_ns - watched->smaps_ns >= SMAPS_EVERY_NS;
	struct proc_counters counters;
	int r = proc_counters_read(&watched->target->proc, with_smaps, &counters);

	if (r)
		return r == PROC_E_GONE ? PYSPYD_E_GONE : r;
	if (with_smaps) {
		watched->smaps_ns = now_ns;
	} else {
		counters.pss_bytes = watched->counters.pss_bytes;
		counters.uss_bytes = watched->counters.uss_bytes;
		counters.swap_bytes = watched->counters.swap_bytes;
	}
	watched->counters = counters;
	return 0;
}

static void update_cpu(struct watched *watched) {
	struct timespec ts;
	uint64_t ns;

	if (clock_gettime(watched->target->cpu_clock, &ts))
		return;
	ns = (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
	watched->cpu_percent = 0;
	if (watched->cpu_ns && watched->interval_ns && ns >= watched->cpu_ns)
		watched->cpu_percent = 100.0 * (double)(ns - watched->cpu_ns) / (double)watched->interval_ns;
	watched->cpu_ns = ns;
}

int watched_update(struct watched *watched, uint64_t now_ns) {
	int r;

	if (watched->target->ended || !proc_alive(&watched->target->proc))
		return PYSPYD_E_GONE;
	watched->interval_ns = watched->last_ns ? now_ns - watched->last_ns : 0;
	watched->last_ns = now_ns;
	r = update_counters(watched, now_ns);
	if (r)
		return r;
	update_cpu(watched);
	update_threads(watched);
	return 0;
}

/* "function (file:line)" of where the thread was most in the last interval. */
static char *where_of(const struct watched *watched, const struct profile *profile, pid_t tid) {
	struct window_stack hottest;
	char *text = NULL;

	if (window_hottest(&watched->window, tid, 1, &hottest, 1) && hottest.node && hottest.node < profile->nodes.n) {
		const struct profile_frame *frame = &profile->frames.items[profile->nodes.items[hottest.node].frame];

		if (asprintf(&text, "%s (%s:%d)", intern_str(&profile->strings, frame->function),
			    intern_str(&profile->strings, frame->file), frame->line) < 0)
			text = NULL;
	}
	return text ? text : strdup("");
}

static void fill_thread(const struct watched *watched, const struct profile *profile,
	const struct watched_thread *thread, struct pyspyd_watch_thread *ret) {
	const struct window_thread sum = window_thread_sum(&watched->window, thread->tid, 1);

	*ret = (struct pyspyd_watch_thread){
		.tid = thread->tid,
		.name = strdup(thread->name ? thread->name : "?"),
		.state = thread->state,
		.cpu_percent = thread->cpu_percent,
		.gil_percent = sum.samples ? 100.0 * (double)sum.gil / (double)sum.samples : -1,
		.voluntary_switches = thread->voluntary,
		.involuntary_switches = thread->involuntary,
		.where = where_of(watched, profile, thread->tid),
	};
}

static int by_cpu(const void *a, const void *b) {
	double x = ((const struct pyspyd_watch_thread *)a)->cpu_percent,
	       y = ((const struct pyspyd_watch_thread *)b)->cpu_percent;

	return (x < y) - (x > y);
}

int watched_report(const struct watched *watched, struct recorder *recorder, struct pyspyd_watch_process *ret) {
	const struct profile *profile = recorder_profile(recorder);
	const struct proc_counters *counters = &watched->counters;

	*ret = (struct pyspyd_watch_process){
		.process = watched->process, /* borrowed */
		.cpu_percent = watched->cpu_percent,
		.rss_bytes = counters->rss_bytes,
		.pss_bytes = counters->pss_bytes,
		.uss_bytes = counters->uss_bytes,
		.fds = counters->fds,
		.threads_total = counters->threads,
		.voluntary_switches = counters->voluntary_switches,
		.involuntary_switches = counters->involuntary_switches,
		.accuracy = profile->accuracy,
		.ended = watched->ended,
	};
	ret->threads = calloc(watched->threads.n + 1, sizeof(*ret->threads));
	if (!ret->threads)
		return -ENOMEM;
	for (size_t i = 0; i < watched->threads.n; i++)
		fill_thread(watched, profile, &watched->threads.items[i], &ret->threads[ret->threads_n++]);
	qsort(ret->threads, ret->threads_n, sizeof(*ret->threads), by_cpu);
	return 0;
}

void watched_report_deinit(struct pyspyd_watch_process *report) {
	for (size_t i = 0; i < report->threads_n; i++) {
		free(report->threads[i].name);
		free(report->threads[i].where);
	}
	free(report->threads);
}
