/* SPDX-License-Identifier: MIT */
/* Counters of a watched process from report to report. CPU time comes from the kernel's run counters (nanoseconds), the
 * split into user and system time from clock ticks and only for threads that are busy. */
#include "engine/pipeline/watched.h"

#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/pipeline/describe.h"
#include "engine/pipeline/findings.h"
#include "engine/pipeline/raising.h"
#include "engine/proc/memory.h"
#include <errno.h>

#define SMAPS_EVERY_NS (5 * NS_PER_SEC) /* at least; … */
#define SMAPS_REST 500                  /* … and so many times what it took: the target cannot map memory meanwhile */
#define BUSY_PERCENT 5.0                /* from here on a thread's user and system time are read apart */
#define NATIVE_THREADS_MAX 256          /* of one process; two files are kept open for each */
#define COUNTERS_EACH_NS (25 * NS_PER_MS)  /* with so many processes, so much older each may be */
#define COUNTERS_IDLE_NS (10 * NS_PER_SEC) /* memory may be swapped out of a process that does not run */
#define SMAPS_EACH_NS (2 * NS_PER_SEC)     /* nobody looks at the shared memory of hundreds */
#define ALL_THREADS_NS (10 * NS_PER_SEC)   /* and from time to time all are read, for those that ran so little */
#define UNACCOUNTED_NS (200 * NS_PER_US)   /* run time of a process that need not be found among its threads */
#define HARDLY_PART 5000                   /* … of an interval, as a part of it */
#define UNREAD_MAX 4 /* among many, threads of one that runs less are read every so many reports */

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

/* Its number is another one's by now. */
static void forget_thread(struct watched_thread *thread, uint64_t start_ns) {
	proc_task_close(&thread->task);
	free(thread->name);
	*thread = (struct watched_thread){ .tid = thread->tid,
		.task = PROC_TASK_NONE,
		.start_ns = start_ns,
		.user_ns = UINT64_MAX,
		.gil_waiting = -1 };
}

static void free_thread(struct watched_thread *thread) {
	proc_task_close(&thread->task);
	free(thread->name);
}

void watched_free(struct watched *watched) {
	if (!watched)
		return;
	vec_foreach (thread, &watched->threads)
		free_thread(thread);
	vec_free(&watched->threads);
	map_deinit(&watched->thread_index);
	window_deinit(&watched->window);
	bucket_deinit(&watched->bucket);
	raising_forget(watched);
	pyspyd_process_deinit(&watched->process);
	free(watched);
}

static struct watched_thread *find_thread(struct watched *watched, pid_t tid) {
	uint64_t i;

	return map_get(&watched->thread_index, (uint64_t)tid, &i) ? &watched->threads.items[i] : NULL;
}

static uint64_t ticks_to_ns(uint64_t ticks) {
	return ticks * (NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK));
}

static struct watched_thread *add_started(struct watched *watched, pid_t tid, uint64_t start_ns) {
	struct watched_thread thread = {
		.tid = tid, .task = PROC_TASK_NONE, .start_ns = start_ns, .user_ns = UINT64_MAX, .gil_waiting = -1
	};

	if (map_put(&watched->thread_index, (uint64_t)tid, watched->threads.n) || vec_push(&watched->threads, thread))
		return NULL;
	return &watched->threads.items[watched->threads.n - 1];
}

static struct watched_thread *add_thread(struct watched *watched, pid_t tid) {
	struct proc_stat stat;
	bool known = !proc_thread_stat(&watched->target->proc, tid, &stat);

	return add_started(watched, tid, known ? ticks_to_ns(stat.start_ticks) : 0);
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

static void take_counters(
	const struct watched *watched, struct watched_thread *thread, const struct proc_schedstat *stat) {
	thread->last_run_ns = thread->run_ns;
	thread->run_ns = stat->run_ns;
	thread->last_wait_ns = thread->wait_ns;
	thread->wait_ns = stat->wait_ns;
	thread->seen = true;
	thread->cpu_percent = 0;
	if (thread->last_run_ns && watched->interval_ns && thread->run_ns >= thread->last_run_ns)
		thread->cpu_percent =
			100.0 * (double)(thread->run_ns - thread->last_run_ns) / (double)watched->interval_ns;
	if (thread->cpu_percent >= BUSY_PERCENT)
		split_time(&watched->target->proc, thread);
	else
		forget_split(thread);
}

/* Reads what the kernel counts of a thread. One that has not run is as it was: it cannot even have been stopped.
 * Return: whether it is there. */
static bool update_thread(struct watched *watched, struct watched_thread *thread, const struct proc_task *task) {
	struct proc_schedstat stat;
	int cpu;

	if (proc_task_schedstat(task, &stat))
		return false;
	if (stat.run_ns != thread->run_ns || !thread->state) {
		bool first = !thread->state;

		if (proc_task_state(task, &thread->state, &cpu))
			return false;
		if (first || watched->counters_fresh)
			read_switches(&watched->target->proc, thread);
	}
	take_counters(watched, thread, &stat);
	return true;
}

static void note_python(struct watched_thread *thread, const struct sample_thread *sampled) {
	if (!thread->python) { /* it may have been another's until now */
		proc_task_close(&thread->task);
		free(thread->name);
		thread->name = NULL;
	}
	thread->python = true;
	thread->ident = sampled->py.ident;
	thread->holds_gil = sampled->flags & SAMPLE_GIL;
}

static void update_python_thread(struct watched *watched, const struct sample_thread *sampled) {
	struct watched_thread *thread = find_thread(watched, sampled->py.tid);

	if (!thread)
		thread = add_thread(watched, sampled->py.tid);
	if (thread && update_thread(watched, thread, &sampled->task))
		note_python(thread, sampled);
}

/* Threads of native libraries: no Python stack, but they can spin as well. */
static void update_native_threads(struct watched *watched) {
	const struct proc *proc = &watched->target->proc;
	pid_vec tids = { 0 };
	size_t kept_open = 0;

	if (proc_threads(proc, &tids))
		return;
	for (size_t i = 0; i < tids.n && kept_open < NATIVE_THREADS_MAX; i++) {
		struct watched_thread *thread = find_thread(watched, tids.items[i]);
		struct proc_stat stat;

		if (thread && thread->seen)
			continue;
		if (!thread)
			thread = add_thread(watched, tids.items[i]);
		if (!thread || (thread->task.stat_fd < 0 && proc_task_open(proc, thread->tid, &thread->task)))
			continue;
		kept_open++;
		thread->python = false;
		if (!thread->name && !proc_thread_stat(proc, thread->tid, &stat))
			thread->name = strdup(stat.comm);
		update_thread(watched, thread, &thread->task);
	}
	vec_free(&tids);
}

static void drop_unseen(struct watched *watched) {
	size_t kept = 0;

	map_clear(&watched->thread_index);
	for (size_t i = 0; i < watched->threads.n; i++) {
		struct watched_thread *thread = &watched->threads.items[i];

		if (thread->seen && !map_put(&watched->thread_index, (uint64_t)thread->tid, kept))
			watched->threads.items[kept++] = *thread;
		else
			free_thread(thread);
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

/* To the clock tick, as /proc tells it. */
static uint64_t start_of(const struct bpf_task *task) {
	uint64_t tick_ns = ticks_to_ns(1);

	return task->start_ns / tick_ns * tick_ns;
}

static void take_task(struct watched *watched, const struct bpf_task *task) {
	const struct proc_schedstat stat = { task->run_ns, task->wait_ns, task->slices };
	struct watched_thread *thread = find_thread(watched, task->tid);
	struct proc_stat named;

	if (thread && thread->start_ns != start_of(task))
		forget_thread(thread, start_of(task));
	if (!thread)
		thread = add_started(watched, task->tid, start_of(task));
	if (!thread)
		return;
	thread->state = task->state;
	thread->voluntary = task->voluntary;
	thread->involuntary = task->involuntary;
	take_counters(watched, thread, &stat);
	if (!thread->name && !proc_thread_stat(&watched->target->proc, task->tid, &named))
		thread->name = strdup(named.comm);
}

static void stand_still_thread(struct watched_thread *thread) {
	thread->last_run_ns = thread->run_ns;
	thread->last_wait_ns = thread->wait_ns;
	thread->cpu_percent = 0;
	thread->seen = true;
	forget_split(thread);
}

/* A process that has not run since the last report has the threads that it had, and they are as they were. */
static void stand_still(struct watched *watched) {
	vec_foreach (thread, &watched->threads)
		stand_still_thread(thread);
}

static void note_pythons(struct watched *watched) {
	vec_foreach (thread, &watched->threads)
		thread->python_now = false;
	vec_foreach (sampled, &watched->target->threads) {
		struct watched_thread *thread = find_thread(watched, (*sampled)->py.tid);

		if (!thread)
			continue;
		note_python(thread, *sampled);
		thread->python_now = true;
	}
	vec_foreach (thread, &watched->threads)
		thread->python = thread->python_now;
}

/* All threads, as one pass through the kernel's tasks has found them. */
static void update_by_tasks(struct watched *watched, const struct task_table *tasks, const struct bpf_task *first) {
	struct sample_target *target = watched->target;

	vec_foreach (thread, &watched->threads)
		thread->seen = false;
	pthread_mutex_lock(&target->lock);
	for (const struct bpf_task *task = first; task; task = task_table_next(tasks, task))
		take_task(watched, task);
	drop_unseen(watched);
	note_pythons(watched);
	name_threads(watched);
	pthread_mutex_unlock(&target->lock);
}

/* How much run time of the last interval is that of threads that were read. */
static uint64_t accounted_ns(const struct watched *watched) {
	uint64_t sum = 0;

	vec_foreach (thread, &watched->threads)
		if (thread->seen && thread->last_run_ns)
			sum += thread->run_ns - thread->last_run_ns;
	return sum;
}

/* Threads that ran lately come first: where they account for what the process has used, the others have not run. */
static void update_python_threads(struct watched *watched, bool lately) {
	vec_foreach (sampled, &watched->target->threads) {
		const struct watched_thread *thread = find_thread(watched, (*sampled)->py.tid);

		if ((!thread || thread->last_run_ns != thread->run_ns || !thread->python) == lately)
			update_python_thread(watched, *sampled);
	}
}

/* Reads all threads, or only those that ran lately, where nobody else can have run for longer than `tolerance_ns`. */
static void update_threads(struct watched *watched, uint64_t tolerance_ns, uint64_t now_ns) {
	struct sample_target *target = watched->target;
	uint64_t accounted;

	vec_foreach (thread, &watched->threads)
		thread->seen = false;
	pthread_mutex_lock(&target->lock);
	update_python_threads(watched, true);
	accounted = accounted_ns(watched);
	watched->unread_ns -= min_of(watched->unread_ns, accounted);
	if (now_ns >= watched->all_due_ns || watched->unread_ns > tolerance_ns) {
		watched->all_due_ns = now_ns + ALL_THREADS_NS;
		watched->unread_ns = 0;
		watched->some_unread = false;
		update_python_threads(watched, false);
		update_native_threads(watched);
	} else {
		watched->some_unread = true;
		vec_foreach (thread, &watched->threads)
			if (!thread->seen)
				stand_still_thread(thread);
	}
	drop_unseen(watched);
	name_threads(watched);
	pthread_mutex_unlock(&target->lock);
}

static int update_counters(struct watched *watched, uint64_t now_ns, size_t processes) {
	bool with_smaps = now_ns >= watched->smaps_due_ns;
	uint64_t began = clock_mono_ns();
	struct proc_counters counters;
	int r;

	watched->counters_fresh = now_ns >= watched->counters_due_ns;
	if (!watched->counters_fresh)
		return 0;
	watched->counters_due_ns = now_ns + max_of(processes * COUNTERS_EACH_NS, watched->ran ? 1 : COUNTERS_IDLE_NS);
	r = proc_counters_read(&watched->target->proc, with_smaps, &counters);

	if (r)
		return r == PROC_E_GONE ? PYSPYD_E_GONE : r;
	if (with_smaps) {
		watched->smaps_due_ns = now_ns +
			max_of(max_of(SMAPS_EVERY_NS, processes * SMAPS_EACH_NS),
				(clock_mono_ns() - began) * SMAPS_REST);
	} else {
		counters.pss_bytes = watched->counters.pss_bytes;
		counters.uss_bytes = watched->counters.uss_bytes;
		counters.swap_bytes = watched->counters.swap_bytes;
	}
	watched->counters = counters;
	if (memory_private_read(&watched->target->proc, &watched->private_bytes))
		watched->private_bytes = PROC_UNKNOWN;
	return 0;
}

static void take_cpu(struct watched *watched, uint64_t ns) {
	watched->ran = ns != watched->cpu_ns;
	watched->used_ns = watched->cpu_ns && ns >= watched->cpu_ns ? ns - watched->cpu_ns : UINT64_MAX;
	watched->cpu_percent = 0;
	if (watched->cpu_ns && watched->interval_ns && ns >= watched->cpu_ns)
		watched->cpu_percent = 100.0 * (double)(ns - watched->cpu_ns) / (double)watched->interval_ns;
	watched->cpu_ns = ns;
}

static void update_cpu(struct watched *watched) {
	struct timespec ts;

	if (!clock_gettime(watched->target->cpu_clock, &ts))
		take_cpu(watched, (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec);
}

/* While no thread begins or ends, the process has used what they have. */
static void update_cpu_by_tasks(struct watched *watched, const struct task_table *tasks, const struct bpf_task *first) {
	uint64_t sum = 0, who = 0, before = watched->tasks_run_ns;

	for (const struct bpf_task *task = first; task; task = task_table_next(tasks, task)) {
		sum += task->run_ns;
		who = hash_mix(who ^ (uint64_t)task->tid ^ task->start_ns);
	}
	watched->tasks_run_ns = sum;
	if (who == watched->tasks_who && watched->cpu_ns && sum >= before)
		take_cpu(watched, watched->cpu_ns + (sum - before));
	else
		update_cpu(watched);
	watched->tasks_who = who;
}

/* Threads that ran are read, but for what is too short to matter, a few times; and once more when all have come to
 * rest, since what they came to rest at is a state that lasts. */
static void follow_threads(struct watched *watched, size_t processes, uint64_t now_ns) {
	bool rested = watched->rested;

	watched->rested = !watched->ran;
	if (__builtin_add_overflow(watched->unread_ns, watched->used_ns, &watched->unread_ns))
		watched->unread_ns = UINT64_MAX;
	if (watched->ran && processes >= WATCHED_MANY && watched->unread_ns <= UNACCOUNTED_NS &&
		++watched->unread < UNREAD_MAX) {
		stand_still(watched);
	} else if (watched->ran || !rested || (watched->some_unread && now_ns >= watched->all_due_ns)) {
		watched->unread = 0;
		update_threads(watched, watched->ran ? UNACCOUNTED_NS : 0, now_ns);
	} else {
		stand_still(watched);
	}
}

bool watched_hardly_ran(const struct watched *watched) {
	return watched->used_ns <= watched->interval_ns / HARDLY_PART;
}

/* Among many, sleepers of one that hardly ran need not be counted for each report. */
static void follow_tasks(
	struct watched *watched, size_t processes, const struct task_table *tasks, const struct bpf_task *first) {
	bool rested = watched->rested;

	watched->rested = !watched->ran;
	watched->unread = processes >= WATCHED_MANY && watched_hardly_ran(watched);
	watched->unread_ns = 0;
	watched->some_unread = false;
	if (watched->ran || !rested)
		update_by_tasks(watched, tasks, first);
	else
		stand_still(watched);
}

uint64_t watched_thread_busy_ns(const struct watched_thread *thread) {
	return thread->last_run_ns ? thread->run_ns - thread->last_run_ns + thread->wait_ns - thread->last_wait_ns : 0;
}

static void find_busiest(struct watched *watched) {
	watched->busiest_ns = 0;
	if (!watched->ran)
		return;
	vec_foreach (thread, &watched->threads)
		watched->busiest_ns = max_of(watched->busiest_ns, watched_thread_busy_ns(thread));
}

int watched_update(struct watched *watched, uint64_t now_ns, size_t processes, const struct task_table *tasks) {
	const struct bpf_task *first = tasks ? task_table_first(tasks, watched->target->proc.pid) : NULL;
	int r;

	if (watched->target->ended || !proc_alive(&watched->target->proc))
		return PYSPYD_E_GONE;
	watched->interval_ns = watched->last_ns ? now_ns - watched->last_ns : 0;
	watched->last_ns = now_ns;
	watched->ran = true; /* where the clock cannot be read */
	watched->used_ns = UINT64_MAX;
	if (first)
		update_cpu_by_tasks(watched, tasks, first);
	else
		update_cpu(watched);
	r = update_counters(watched, now_ns, processes);
	if (r)
		return r;
	if (first)
		follow_tasks(watched, processes, tasks, first);
	else
		follow_threads(watched, processes, now_ns);
	find_busiest(watched);
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
	struct detect_exceptions exceptions;

	raising_fill(watched, thread->tid, &exceptions);
	*ret = (struct pyspyd_watch_thread){
		.tid = thread->tid,
		.name = strdup(thread->name ? thread->name : "?"),
		.state = thread->state,
		.cpu_percent = thread->cpu_percent,
		.gil_percent = sum.samples ? 100.0 * (double)sum.gil / (double)sum.samples : -1,
		.voluntary_switches = thread->voluntary,
		.involuntary_switches = thread->involuntary,
		.where = where_of(watched, profile, thread->tid),
		.exception = exceptions.type ? strdup(exceptions.type) : NULL,
		.exception_percent =
			exceptions.looks ? 100.0 * (double)exceptions.of_type / (double)exceptions.looks : 0,
	};
}

static int by_cpu(const void *a, const void *b) {
	double x = ((const struct pyspyd_watch_thread *)a)->cpu_percent,
	       y = ((const struct pyspyd_watch_thread *)b)->cpu_percent;

	return (x < y) - (x > y);
}

static int fill_threads(
	const struct watched *watched, const struct profile *profile, struct pyspyd_watch_process *ret) {
	ret->threads = calloc(watched->threads.n + 1, sizeof(*ret->threads));
	if (!ret->threads)
		return -ENOMEM;
	vec_foreach (thread, &watched->threads)
		fill_thread(watched, profile, thread, &ret->threads[ret->threads_n++]);
	qsort(ret->threads, ret->threads_n, sizeof(*ret->threads), by_cpu);
	return 0;
}

int watched_report(
	const struct watched *watched, struct recorder *recorder, bool with_threads, struct pyspyd_watch_process *ret) {
	const struct profile *profile = recorder_profile(recorder);
	const struct proc_counters *counters = &watched->counters;

	*ret = (struct pyspyd_watch_process){
		.process = watched->process, /* borrowed */
		.cpu_percent = watched->cpu_percent,
		.rss_bytes = counters->rss_bytes,
		.pss_bytes = counters->pss_bytes,
		.uss_bytes = counters->uss_bytes,
		.private_bytes = watched->private_bytes,
		.cpu_ns = watched->cpu_ns,
		.findings_open = findings_open(watched),
		.fds = counters->fds,
		.threads_total = counters->threads,
		.accuracy = profile->accuracy,
		.ended = watched->ended,
	};
	vec_foreach (thread, &watched->threads) {
		ret->voluntary_switches += thread->voluntary;
		ret->involuntary_switches += thread->involuntary;
	}
	return with_threads ? fill_threads(watched, profile, ret) : 0;
}

void watched_report_deinit(struct pyspyd_watch_process *report) {
	for (size_t i = 0; i < report->threads_n; i++) {
		free(report->threads[i].name);
		free(report->threads[i].where);
		free(report->threads[i].exception);
	}
	free(report->threads);
}
