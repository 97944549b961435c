/* SPDX-License-Identifier: MIT */
/* pyspyd_watch: choose processes, sample them, report every interval, let the detectors decide. Everything but the
 * sampling itself happens in the caller's thread. */
#include "pyspyd/watch.h"

#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include "engine/pipeline/arrivals.h"
#include "engine/pipeline/describe.h"
#include "engine/pipeline/discover.h"
#include "engine/pipeline/findings.h"
#include "engine/pipeline/raising.h"
#include "engine/pipeline/upkeep.h"
#include "engine/pipeline/values.h"
#include "engine/pipeline/waiting.h"
#include "engine/pipeline/watched.h"
#include "engine/proc/fds.h"
#include <errno.h>
#include <malloc.h>
#include <regex.h>
#include <sys/stat.h>
#include <time.h>

#define DEFAULT_RATE_HZ 20
#define DEFAULT_INTERVAL_NS NS_PER_SEC
#define CROWD_MAX 4 /* times an interval */
#define STARTING_WAIT_NS (5 * NS_PER_SEC)
#define TEND_NS (100 * NS_PER_MS)
#define SEARCH_NS (2 * NS_PER_SEC)       /* between two looks for new processes, … */
#define SEARCH_TOLD_NS (60 * NS_PER_SEC) /* … and where the kernel tells of them */
#define SEARCHES_FIRST 3                 /* meanwhile some may be starting of which it told before */
#define ENDING_NS (5 * NS_PER_SEC)       /* for so long the end of a process without memory is waited for */
#define ANCESTORS_MAX 64
#define FOREIGN_MAX 16384             /* programs that are no Python, remembered */
#define STRANGER_AFTER 12             /* a process is looked at a few times */
#define UNFLUSHED_MAX 4               /* intervals in which sleepers need not be counted where nobody is shown them */
#define PROFILE_BYTES_MAX (32U << 20) /* what is interned is forgotten beyond this */

struct watch {
	const struct pyspyd_watch_options *options;
	struct recorder *recorder;
	struct findings *findings;
	struct waiting *waiting;
	struct values *values;
	VEC(struct watched *) watched;
	pid_vec pids; /* of this interval */
	struct task_table tasks;
	regex_t regex;
	struct discover discover;
	struct arrivals *arrivals;
	unsigned searches;
	struct map strangers; /* programs whose new processes were looked at → how often in vain */
	struct map foreign;   /* files of programs that are no Python, by what tells them apart */
	uint64_t searched_ns;
	struct upkeep upkeep;
	uint64_t bucket_ns; /* when the profiles were handed out last */
	int reloads;
};

static double rate_of(const struct pyspyd_watch_options *options) {
	return options->rate_hz > 0 ? options->rate_hz : DEFAULT_RATE_HZ;
}

/* So many times an interval what need not be seen at once may wait: the more, the more processes are watched. */
static unsigned crowd(const struct watch *watch) {
	return (unsigned)min_of(1 + watch->watched.n / WATCHED_MANY, (size_t)CROWD_MAX);
}

/* From one look at the counters to the next, as it is to be now. */
static uint64_t period_of(const struct watch *watch) {
	const struct pyspyd_watch_options *options = watch->options;
	uint64_t asked = options->interval_ns ? options->interval_ns : DEFAULT_INTERVAL_NS;
	unsigned stretch = watch->upkeep.budget.stretch;

	if (options->processes_only) /* nobody is shown them */
		stretch = max_of(stretch, crowd(watch));
	return asked * max_of(stretch, 1U);
}

static void on_tap(void *userdata, const struct sample *sample, uint32_t node) {
	struct watched *watched = sample->target->owner;
	struct watch *watch = userdata;

	if (!watched)
		return;
	window_add(&watched->window, sample, node);
	if (watch->options->on_profile)
		bucket_add(&watched->bucket,
			&(struct profile_count){
				.thread = recorder_thread_id(sample->thread),
				.node = node,
				.samples = sample->ticks,
				.ns = sample->ticks * sampler_period_ns(recorder_sampler(watch->recorder)),
			},
			!sample->places);
}

/* What the rules say of a process. */
static struct pyspyd_watch_rule rule_of(const struct watch *watch, const struct pyspyd_process *process) {
	struct pyspyd_watch_rule rule = { 0 };

	if (watch->options->on_process)
		watch->options->on_process(watch->options->userdata, process, &rule);
	return rule;
}

/* Its end and its children are told from now on; what it forked before is looked at. */
static void expect_children(struct watch *watch, pid_t pid) {
	pid_vec children = { 0 };

	arrivals_watch(watch->arrivals, pid);
	if (!arrivals_told(watch->arrivals) || (watch->options->pid && !watch->options->children) ||
		proc_children("/proc", pid, &children))
		return;
	vec_foreach (child, &children)
		arrivals_add(watch->arrivals, *child, clock_mono_ns());
	vec_free(&children);
}

/* Return: 0; PYSPYD_E_GONE: it has ended, or a rule excludes it; negative errno. */
static int adopt(struct watch *watch, struct sample_target *target) {
	struct pyspyd_watch_rule rule;
	struct watched *watched;
	int r = watched_new(target, &watched);

	if (r)
		return r;
	rule = rule_of(watch, &watched->process);
	r = rule.exclude ? PYSPYD_E_GONE : findings_rule(watch->findings, watched, &rule);
	if (!r)
		r = vec_push(&watch->watched, watched);
	if (r) {
		findings_forget(watch->findings, watched);
		watched_free(watched);
		return r;
	}
	recorder_lock(watch->recorder);
	target->owner = watched;
	recorder_unlock(watch->recorder);
	expect_children(watch, target->proc.pid);
	return 0;
}

/* Processes that the recorder attached to by itself: children, and those that executed another Python. One that has
 * ended already is let go. */
static int adopt_new(struct watch *watch) {
	size_t n;
	struct sample_target *const *targets = recorder_targets(watch->recorder, &n);

	for (size_t i = n; i > 0; i--) {
		struct sample_target *target = targets[i - 1];
		int r = target->owner ? 0 : adopt(watch, target);

		if (r == PYSPYD_E_GONE)
			recorder_drop(watch->recorder, target);
		else if (r)
			return r;
	}
	return 0;
}

/* Those too that wait for the next interval to be adopted. */
static bool is_watched(const struct watch *watch, pid_t pid) {
	size_t n;
	struct sample_target *const *targets = recorder_targets(watch->recorder, &n);

	for (size_t i = 0; i < n; i++)
		if (targets[i]->proc.pid == pid && !targets[i]->ended && proc_alive(&targets[i]->proc))
			return true;
	return false;
}

static bool matches(const struct watch *watch, const struct proc *proc) {
	struct strbuf _cleanup_(strbuf_deinit) line = { 0 };
	struct proc_identity id;
	bool match;

	if (watch->options->all)
		return true;
	if (watch->options->pid)
		return proc->pid == watch->options->pid;
	if (proc_identity_read(proc, &id))
		return false;
	for (char **arg = id.cmdline; *arg; arg++)
		strbuf_addf(&line, arg == id.cmdline ? "%s" : " %s", *arg);
	proc_identity_free(&id);
	match = !regexec(&watch->regex, strbuf_str(&line), 0, NULL, 0);
	return match;
}

static bool descends_from_watched(const struct watch *watch, const struct proc *proc) {
	struct proc_stat stat;
	pid_t pid;
	int r = proc_stat_read(proc, &stat);

	for (unsigned i = 0; !r && i < ANCESTORS_MAX && stat.ppid > 0; i++) {
		struct proc parent;

		pid = stat.ppid;
		if (is_watched(watch, pid))
			return true;
		r = proc_open("/proc", pid, &parent);
		if (!r) {
			r = proc_stat_read(&parent, &stat);
			proc_close(&parent);
		}
	}
	return false;
}

/* What the options name. */
static bool is_wanted(const struct watch *watch, const struct proc *proc) {
	return matches(watch, proc) || (watch->options->children && descends_from_watched(watch, proc));
}

static bool is_excluded(const struct watch *watch, const struct proc *proc) {
	struct pyspyd_process process = { 0 };
	bool excluded;

	if (!watch->options->on_process || describe_process(proc, "", &process))
		return false;
	excluded = rule_of(watch, &process).exclude;
	pyspyd_process_deinit(&process);
	return excluded;
}

/* 0: not known. */
static uint64_t program_of(const struct proc *proc) {
	struct stat st;

	if (fstatat(proc->dir_fd, "exe", &st, 0))
		return 0;
	return hash_mix(st.st_ino ^ hash_mix(st.st_dev ^ hash_mix((uint64_t)st.st_mtim.tv_sec))) >> 1 | 1;
}

static bool maps_python(const struct proc *proc) {
	proc_map_vec maps = { 0 };
	bool found = false;

	if (proc_maps_read(proc, &maps))
		return true; /* the attempt will say why */
	vec_foreach (map, &maps)
		found |= strcasestr(map->path, "python") != NULL;
	proc_maps_free(&maps);
	return found;
}

/* A program whose processes showed nothing of Python, time after time: of those that begin now a scan will be in time.
 */
static bool is_stranger(const struct watch *watch, uint64_t program) {
	uint64_t times;

	return program && map_get(&watch->strangers, program, &times) && times >= STRANGER_AFTER;
}

static void note_stranger(struct watch *watch, uint64_t program) {
	uint64_t times = 0;

	if (!program)
		return;
	if (watch->strangers.n >= FOREIGN_MAX)
		map_clear(&watch->strangers);
	(void)!map_get(&watch->strangers, program, &times);
	(void)!map_put(&watch->strangers, program, times + 1);
}

/* To look for an interpreter without symbols is costly: a program that was found to have none is not looked at again,
 * in none of its processes, unless something of Python is mapped. `brief`: it may have been started only now. */
static enum discover_answer attach(struct watch *watch, pid_t pid, const struct proc *proc, bool brief) {
	uint64_t program = program_of(proc), unused;
	bool python;
	struct err err;

	if (brief && is_stranger(watch, program))
		return DISCOVER_DONE;
	python = maps_python(proc);
	if (!python && brief) {
		note_stranger(watch, program);
		return DISCOVER_OTHER;
	}
	if (is_excluded(watch, proc))
		return DISCOVER_DONE;
	if (!python && program && map_get(&watch->foreign, program, &unused))
		return DISCOVER_DONE;
	switch (recorder_add(watch->recorder, pid, 0, NULL, &err)) {
	case PYSPYD_E_DENIED: return DISCOVER_DENIED;
	case PYSPYD_E_STARTING: return DISCOVER_LATER;
	case PYSPYD_E_UNSUPPORTED:
		if (watch->foreign.n >= FOREIGN_MAX)
			map_clear(&watch->foreign);
		if (!python && program)
			(void)!map_put(&watch->foreign, program, 1);
		return brief ? DISCOVER_OTHER : DISCOVER_DONE;
	}
	return DISCOVER_DONE;
}

/* One process that may be a Python. */
static enum discover_answer try_process(struct watch *watch, pid_t pid, bool brief) {
	enum discover_answer answer = DISCOVER_DONE;
	struct proc proc;

	if (is_watched(watch, pid) || proc_open("/proc", pid, &proc))
		return DISCOVER_DONE;
	if (is_wanted(watch, &proc))
		answer = attach(watch, pid, &proc, brief);
	proc_close(&proc);
	return answer;
}

static enum discover_answer try_found(void *userdata, pid_t pid) {
	struct watch *watch = userdata;
	enum discover_answer answer = try_process(watch, pid, false);

	if (answer == DISCOVER_LATER && arrivals_told(watch->arrivals))
		arrivals_add(watch->arrivals, pid, clock_mono_ns());
	return answer;
}

static enum discover_answer try_arrived(void *userdata, pid_t pid, bool last) {
	return try_process(userdata, pid, !last);
}

static bool is_search_due(struct watch *watch, uint64_t now_ns) {
	uint64_t every =
		arrivals_told(watch->arrivals) && watch->searches >= SEARCHES_FIRST ? SEARCH_TOLD_NS : SEARCH_NS;

	if (!watch->searched_ns)
		return true;
	if (now_ns < watch->searched_ns + SEARCH_NS)
		return false;
	if (!arrivals_lost(watch->arrivals))
		return now_ns >= watch->searched_ns + every;
	discover_forget(&watch->discover); /* numbers may have been given to others meanwhile */
	return true;
}

/* Looks at all processes there are. */
static int search(struct watch *watch, uint64_t now_ns) {
	if (watch->options->pid || !is_search_due(watch, now_ns))
		return 0;
	watch->searched_ns = now_ns;
	watch->searches++;
	return discover_scan(&watch->discover, try_found, watch);
}

/* Return: as arrivals_end, for a process of which nothing can be read any more. */
static int end_of(struct watch *watch, struct watched *watched, uint64_t now_ns, struct detect_end *ret_end) {
	int r;

	if (watched->executed || (watched->target->ended && is_watched(watch, watched->target->proc.pid)))
		return ARRIVALS_E_UNKNOWN;
	r = arrivals_end(watch->arrivals, &watched->target->proc, ret_end);
	if (r != ARRIVALS_E_LATER)
		return r;
	if (!watched->ending_ns)
		watched->ending_ns = now_ns;
	return now_ns < watched->ending_ns + ENDING_NS ? r : ARRIVALS_E_UNKNOWN;
}

/* Counts those that sleep up to now. */
static void flush(struct watch *watch, struct watched *watched) {
	watched->unflushed = 0;
	pthread_mutex_lock(&watched->target->lock);
	sampler_flush(recorder_sampler(watch->recorder), watched->target);
	pthread_mutex_unlock(&watched->target->lock);
}

static int update(struct watch *watch, struct watched *watched, const struct task_table *tasks, uint64_t now_ns) {
	int r = watched->ended ? PYSPYD_E_GONE : watched_update(watched, now_ns, watch->watched.n, tasks);

	if (r == PYSPYD_E_GONE && !watched->ended) {
		struct detect_end end;
		int told = end_of(watch, watched, now_ns, &end);

		if (told == ARRIVALS_E_LATER)
			return 0;
		watched->ended = true;
		return findings_end(watch->findings, watched, told ? NULL : &end, now_ns);
	}
	if (r)
		return r == PYSPYD_E_GONE ? 0 : r;
	if (!watch->options->processes_only || (watched->ran && !watched->unread) ||
		++watched->unflushed >= UNFLUSHED_MAX)
		flush(watch, watched);
	return vec_push(&watch->pids, watched->target->proc.pid);
}

/* Return: whether the threads of all were read with one pass. */
static bool read_tasks(struct watch *watch, uint64_t now_ns) {
	watch->pids.n = 0;
	if (watch->watched.n < WATCHED_MANY || watch->options->source == PYSPYD_SOURCE_VM)
		return false;
	vec_foreach (watched, &watch->watched)
		if (vec_push(&watch->pids, (*watched)->target->proc.pid))
			return false;
	return task_table_read(&watch->tasks, watch->pids.items, watch->pids.n, now_ns);
}

static int update_all(struct watch *watch, uint64_t now_ns) {
	const struct task_table *tasks = read_tasks(watch, now_ns) ? &watch->tasks : NULL;
	int r = 0;

	watch->pids.n = 0;
	for (size_t i = 0; !r && i < watch->watched.n; i++)
		r = update(watch, watch->watched.items[i], tasks, now_ns);
	return r;
}

static int detect(struct watch *watch, uint64_t now_ns) {
	int r = waiting_interval(watch->waiting, watch->watched.items, watch->watched.n, now_ns);

	findings_watch(watch->findings, watch->pids.items, watch->pids.n, watch->waiting, period_of(watch));
	for (size_t i = 0; !r && i < watch->watched.n; i++)
		if (!watch->watched.items[i]->ended && !watch->watched.items[i]->ending_ns)
			r = findings_feed(watch->findings, watch->watched.items[i], now_ns);
	return r ? r : findings_tend_left(watch->findings, now_ns);
}

static int report(struct watch *watch) {
	struct pyspyd_watch_process *reports = calloc(watch->watched.n + 1, sizeof(*reports));
	size_t n = 0;
	int r = reports ? 0 : -ENOMEM;

	recorder_lock(watch->recorder);
	vec_foreach (watched, &watch->watched) {
		if (r)
			break;
		r = watched_report(*watched, watch->recorder, !watch->options->processes_only, &reports[n]);
		n += !r;
		window_turn(&(*watched)->window);
		raising_turn(*watched);
	}
	profile_reset_counts(recorder_profile(watch->recorder)); /* the windows keep what is needed */
	recorder_unlock(watch->recorder);
	if (!r && watch->options->on_report)
		r = watch->options->on_report(watch->options->userdata, reports, n);
	for (size_t i = 0; i < n; i++)
		watched_report_deinit(&reports[i]);
	free(reports);
	return r;
}

/* Hands out what was recorded of a process. Return: 0; the callback's value; -ENOMEM. */
static int hand_out(struct watch *watch, struct watched *watched) {
	struct pyspyd_packed packed;
	int r;

	recorder_lock(watch->recorder);
	r = bucket_pack(&watched->bucket, recorder_profile(watch->recorder), &packed);
	recorder_unlock(watch->recorder);
	if (r)
		return r == -ENOMEM ? r : 0;
	r = watch->options->on_profile(watch->options->userdata, &watched->process, &packed);
	free((void *)(uintptr_t)packed.data);
	return r;
}

/* The process may be watched anew: when it has executed another Python. */
static void forget_target(struct watch *watch, struct sample_target *target) {
	pid_t pid = target->proc.pid;

	recorder_drop(watch->recorder, target);
	if (!is_watched(watch, pid))
		arrivals_forget(watch->arrivals, pid);
}

/* An ended process was reported once as such. */
static int drop_ended(struct watch *watch) {
	size_t kept = 0;
	int r = 0;

	for (size_t i = 0; i < watch->watched.n; i++) {
		struct watched *watched = watch->watched.items[i];

		if (!watched->ended) {
			watch->watched.items[kept++] = watched;
			continue;
		}
		if (!r && watch->options->on_profile)
			r = hand_out(watch, watched);
		waiting_forget(watch->waiting, watched);
		forget_target(watch, watched->target);
		findings_forget(watch->findings, watched);
		watched_free(watched);
	}
	watch->watched.n = kept;
	return r;
}

static size_t count_alive(const struct watch *watch) {
	size_t alive = 0;

	vec_foreach (watched, &watch->watched)
		alive += !(*watched)->ended;
	return alive;
}

static int hand_out_all(struct watch *watch) {
	int r = 0;

	for (size_t i = 0; !r && watch->options->on_profile && i < watch->watched.n; i++)
		r = hand_out(watch, watch->watched.items[i]);
	return r;
}

static int turn_buckets(struct watch *watch, uint64_t now_ns) {
	if (!watch->options->on_profile || now_ns - watch->bucket_ns < watch->options->bucket_ns)
		return 0;
	watch->bucket_ns = now_ns;
	vec_foreach (watched, &watch->watched)
		if (!(*watched)->ended)
			flush(watch, *watched);
	return hand_out_all(watch);
}

/* A long watch of a program that makes code all the time would grow without end. */
static int start_anew(struct watch *watch) {
	int r = hand_out_all(watch);

	if (r)
		return r;
	vec_foreach (watched, &watch->watched)
		waiting_forget(watch->waiting, *watched);
	r = recorder_forget(watch->recorder);
	if (r)
		return r;
	recorder_lock(watch->recorder);
	vec_foreach (watched, &watch->watched) {
		window_deinit(&(*watched)->window);
		(*watched)->window = (struct window){ 0 };
		bucket_deinit(&(*watched)->bucket); /* what came in meanwhile is of either profile */
		(*watched)->bucket = (struct bucket){ 0 };
	}
	recorder_unlock(watch->recorder);
	return 0;
}

static int keep_up(struct watch *watch, uint64_t now_ns) {
	const struct pyspyd_watch_options *options = watch->options;
	struct pyspyd_watch_health health = { .processes = watch->watched.n,
		.processes_denied = watch->discover.denied };
	unsigned todo;
	int r = 0;

	health.events = arrivals_told(watch->arrivals);
	arrivals_counts(watch->arrivals, &health.events_received, &health.events_lost);
	todo = upkeep_interval(&watch->upkeep, now_ns, &health);
	if (todo & UPKEEP_RATE)
		r = recorder_set_rate(watch->recorder, watch->upkeep.budget.rate_hz);
	if (!r && todo & UPKEEP_FORGET) {
		r = start_anew(watch);
		malloc_trim(0);
	}
	if (r || !options->on_health)
		return r;
	vec_foreach (watched, &watch->watched)
		health.threads += (*watched)->threads.n;
	sampler_accuracy(recorder_sampler(watch->recorder), &health.accuracy);
	return options->on_health(options->userdata, &health);
}

static int reload_park(struct watch *watch) {
	struct waiting *fresh;
	int r = waiting_new(watch->options->park, &fresh, NULL);

	if (r)
		return r == -ENOMEM ? r : 0; /* told of when it was read; the old ones stand */
	vec_foreach (watched, &watch->watched)
		waiting_forget(watch->waiting, *watched);
	waiting_free(watch->waiting);
	watch->waiting = fresh;
	return 0;
}

/* Rules and settings may be others now. Who is excluded by them is let go. */
static int reload(struct watch *watch, uint64_t now_ns) {
	const struct pyspyd_watch_options *options = watch->options;
	int r;

	if (!options->reload || *options->reload == watch->reloads)
		return 0;
	watch->reloads = *options->reload;
	r = hand_out_all(watch);
	if (r)
		return r;
	watch->bucket_ns = now_ns;
	recorder_lock(watch->recorder);
	if (options->on_reload)
		options->on_reload(options->userdata);
	for (size_t i = 0; !options->on_profile && i < watch->watched.n; i++) {
		bucket_deinit(&watch->watched.items[i]->bucket);
		watch->watched.items[i]->bucket = (struct bucket){ 0 };
	}
	recorder_unlock(watch->recorder);
	discover_forget(&watch->discover);
	watch->searched_ns = 0;
	upkeep_init(&watch->upkeep, options, rate_of(options));
	findings_reload(watch->findings);
	r = reload_park(watch);
	if (!r)
		r = recorder_set_rate(watch->recorder, rate_of(options));
	for (size_t i = 0; !r && i < watch->watched.n; i++) {
		struct watched *watched = watch->watched.items[i];
		struct pyspyd_watch_rule rule = rule_of(watch, &watched->process);

		if (!rule.exclude) {
			r = findings_rule(watch->findings, watched, &rule);
		} else if (!watched->ended) {
			watched->ended = true;
			r = findings_end(watch->findings, watched, NULL, now_ns);
		}
	}
	return r;
}

static bool has_big_profile(struct watch *watch) {
	bool big;

	recorder_lock(watch->recorder);
	big = profile_bytes(recorder_profile(watch->recorder)) > PROFILE_BYTES_MAX;
	recorder_unlock(watch->recorder);
	return big;
}

static int interval(struct watch *watch, uint64_t now_ns) {
	int r = reload(watch, now_ns);

	if (!r)
		r = adopt_new(watch);
	if (!r)
		r = update_all(watch, now_ns);
	if (!r)
		r = detect(watch, now_ns);
	if (!r)
		r = values_interval(watch->values, watch->watched.items, watch->watched.n);
	if (!r)
		r = keep_up(watch, now_ns);
	if (!r)
		r = report(watch);
	if (!r)
		r = turn_buckets(watch, now_ns);
	if (!r)
		r = drop_ended(watch);
	if (!r && has_big_profile(watch))
		r = start_anew(watch);
	return r;
}

/* Whether the recorder has to look for children by itself: where nobody tells of them, or something was lost. */
static bool has_to_find_children(struct watch *watch, uint64_t now_ns) {
	if (!watch->options->children || !arrivals_told(watch->arrivals))
		return watch->options->children;
	if (!watch->options->pid)
		return !watch->searched_ns; /* the search finds them */
	if (!is_search_due(watch, now_ns))
		return false;
	watch->searched_ns = now_ns;
	watch->searches++;
	return true;
}

/* Sees to what the kernel has told of. Return: whether the recorder should be tended at once. */
static bool look_at_arrivals(struct watch *watch) {
	bool executed = false;
	pid_t pid;

	while (arrivals_next_exec(watch->arrivals, &pid)) {
		recorder_executed(watch->recorder, pid);
		vec_foreach (watched, &watch->watched)
			if ((*watched)->target->proc.pid == pid)
				(*watched)->executed |= (*watched)->target->ended;
		executed = true;
	}
	/* What fails is tried again in the interval. */
	if (arrivals_look(watch->arrivals, clock_mono_ns(), try_arrived, watch))
		(void)!adopt_new(watch);
	return executed;
}

/* Where the kernel tells of programs that are executed there is no hurry. */
static uint64_t next_tending(const struct watch *watch) {
	return clock_mono_ns() + TEND_NS * (arrivals_told(watch->arrivals) ? crowd(watch) : 1);
}

/* Waits until then, tending the recorder meanwhile. Return: whether anything is left to watch. */
static bool wait_until(struct watch *watch, uint64_t until_ns) {
	const struct pyspyd_watch_options *options = watch->options;
	uint64_t now, tend_ns = next_tending(watch);
	size_t alive = 1;

	while (alive && (now = clock_mono_ns()) < until_ns && !(options->stop && *options->stop)) {
		arrivals_wait(watch->arrivals, min_of(until_ns, tend_ns));
		if (!look_at_arrivals(watch) && clock_mono_ns() < min_of(until_ns, tend_ns))
			continue;
		tend_ns = next_tending(watch);
		alive = recorder_tend(watch->recorder, has_to_find_children(watch, now));
		waiting_tend(watch->waiting, watch->watched.items, watch->watched.n, clock_boot_ns());
		raising_tend(watch->watched.items, watch->watched.n);
		if (!options->pid)
			alive = 1; /* others may come */
	}
	return alive;
}

static int run(struct watch *watch) {
	const struct pyspyd_watch_options *options = watch->options;
	uint64_t start = clock_mono_ns(), end = options->duration_ns ? start + options->duration_ns : UINT64_MAX,
		 next = start;

	while (!(options->stop && *options->stop) && next < end) {
		uint64_t every = period_of(watch);
		bool alive;
		int r;

		next = min_of(next + every, end);
		alive = wait_until(watch, next);
		r = search(watch, clock_mono_ns());
		if (!r)
			r = interval(watch, clock_boot_ns());
		if (r)
			return r;
		if (!alive && !count_alive(watch))
			return PYSPYD_E_GONE;
		next = max_of(next, clock_mono_ns() > every ? clock_mono_ns() - every : 0); /* late: do not catch up */
	}
	return 0;
}

/* Without the kernel's events everything works as well, but later, and how a process ended is not known. */
static int start_arrivals(struct watch *watch) {
	const struct pyspyd_watch_options *options = watch->options;
	struct bpf_events *events = NULL;
	int r = options->source == PYSPYD_SOURCE_VM ? 0
						    : bpf_events_new(!options->pid || options->children, &events, NULL);

	return r == -ENOMEM ? r : arrivals_new(events, &watch->arrivals);
}

static int start(struct watch *watch, struct err *err) {
	const struct pyspyd_watch_options *options = watch->options;
	struct recorder_options recorder = {
		.sampler = { .rate_hz = rate_of(options),
			.mode = PYSPYD_MODE_WALL,
			.source = options->source,
			.want_gil = true,
			.want_gc = true,
			.want_native = true },
		.tap = on_tap,
		.userdata = watch,
	};
	int r = 0;

	upkeep_init(&watch->upkeep, options, recorder.sampler.rate_hz);
	watch->bucket_ns = clock_boot_ns();
	watch->reloads = options->reload ? *options->reload : 0;
	if (options->name_regex && regcomp(&watch->regex, options->name_regex, REG_EXTENDED | REG_NOSUB))
		return err_set(err, PYSPYD_E_USAGE, "'%s' is not a regular expression", options->name_regex);
	r = findings_new(options, &watch->recorder, &watch->findings, err);
	if (!r)
		r = waiting_new(options->park, &watch->waiting, err);
	if (!r)
		r = values_new(options, &watch->values, err);
	if (!r)
		r = start_arrivals(watch);
	if (!r)
		r = recorder_new(&recorder, &watch->recorder, err);
	if (!r && options->pid)
		r = recorder_add(watch->recorder, options->pid, STARTING_WAIT_NS, NULL, err);
	if (!r)
		r = search(watch, clock_mono_ns());
	if (!r)
		r = adopt_new(watch);
	return r ? r : recorder_start(watch->recorder);
}

int pyspyd_watch(const struct pyspyd_watch_options *options, struct err *err) {
	struct watch watch = { .options = options };
	int r = start(&watch, err);

	if (!r)
		r = run(&watch);
	if (r == PYSPYD_E_GONE && (!err || !err->text[0]))
		err_set(err, r, "process %d has ended", (int)options->pid);
	vec_foreach (watched, &watch.watched)
		waiting_forget(watch.waiting, *watched);
	waiting_free(watch.waiting);
	values_free(watch.values);
	recorder_free(watch.recorder);
	arrivals_free(watch.arrivals);
	vec_foreach (watched, &watch.watched) {
		findings_forget(watch.findings, *watched);
		watched_free(*watched);
	}
	vec_free(&watch.watched);
	vec_free(&watch.pids);
	task_table_deinit(&watch.tasks);
	findings_free(watch.findings);
	discover_deinit(&watch.discover);
	map_deinit(&watch.foreign);
	map_deinit(&watch.strangers);
	if (options->name_regex)
		regfree(&watch.regex);
	return r;
}
