/* SPDX-License-Identifier: MIT */
/* handle-leak, thread-leak, process-leak: descriptors, threads and children that become more and more.
 *
 * Each counter is a series of its own (leaks/trend.h). A process that opens and closes, a pool that grows to its size
 * and a burst leave the floors where they were, or stop growing; what leaks raises them for a whole window and two
 * sixths more. Descriptors at `limit-pct` of what the process may open are a fault whatever they did before: the next
 * accept() or open() will fail. Zombies are told apart from children that live: few of them suffice, since nobody waits
 * for them on purpose.
 *
 * Which kind of descriptor grows, and who opened it, is not known here. Threads are grouped by their names without the
 * numbers: "Thread-12 (fetch)" and "Thread-13 (fetch)" are one group. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/map.h"
#include "engine/detect/words.h"
#include "engine/leaks/trend.h"
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#define PERSIST 3
#define NEAR_LOOKS 3   /* in a row, at the limit */
#define NEAR_LEAVE 0.9 /* of limit-pct: below it the limit is not near any more */
#define GROUP_MAX 64
#define GROUP_PCT 80 /* of the threads, that make a group worth naming */

enum { WINDOW, GROW, PCT, LAST };

#define WINDOW_HELP "for how long it must grow, 1s to 720h"
#define WINDOW_LEAST 1e9
#define WINDOW_MOST (720 * 3600e9)

/* One counter. */

struct series {
	struct trend trend;
	bool begun;
};

static void series_add(
	struct series *series, const struct trend_rule *rule, const struct detect_input *input, uint64_t value) {
	uint64_t start_ns = input->process->start_ns;

	if (value == UINT64_MAX)
		return;
	if (!series->begun) {
		trend_init(&series->trend, rule, start_ns ? start_ns : UINT64_MAX);
		series->begun = true;
	}
	trend_add(&series->trend, input->now_ns, (double)value);
}

static struct trend_rule rule_of(const double *settings, const struct detect_input *input) {
	uint64_t window_ns = (uint64_t)settings[WINDOW];

	return (struct trend_rule){
		.window_ns = window_ns,
		.period_ns = input->process->period_ns,
		.warmup_ns = TREND_WARMUP_NS(window_ns),
		.persist = PERSIST,
		.least = settings[GROW],
		.least_pct = settings[PCT],
	};
}

static bool is_suspect(const struct series *series) {
	return series->begun && series->trend.verdict.tier == TREND_SUSPECT;
}

/* The fault of a detector: at most one of a process. */

struct fault {
	uint64_t key;
	uint64_t since_ns;
	bool firing;
};

static struct detect_verdict verdict_of(const struct fault *fault, const char *kind, const char *pattern) {
	return (struct detect_verdict){
		.kind = kind,
		.pattern = pattern,
		.key = fault->key,
		.presence = DETECT_PRESENT,
		.severity = PYSPYD_WARNING,
		.since_ns = fault->since_ns,
		.knot = UINT32_MAX,
	};
}

/* Return: whether the fault is to be told as present. One that has gone is told once. */
static int settle(struct fault *fault, bool present, uint64_t since_ns, const char *kind, const char *pattern,
	detect_verdicts *verdicts, bool *ret_present) {
	int r = 0;

	if (present && !fault->firing) {
		fault->key++;
		fault->since_ns = since_ns;
	} else if (!present && fault->firing) {
		struct detect_verdict verdict = verdict_of(fault, kind, pattern);

		verdict.presence = DETECT_ABSENT;
		verdict.ended = "no-growth";
		r = vec_push(verdicts, verdict);
	}
	fault->firing = present;
	*ret_present = present;
	return r;
}

/* Words. */

static void add_growth_facts(
	struct detect_verdict *verdict, const struct series *series, uint64_t value, const double *settings) {
	const struct trend_verdict *seen = &series->trend.verdict;
	bool grows = is_suspect(series);

	detect_fact_count(verdict, "count", value);
	detect_fact_count(verdict, "count_at_first", grows ? (uint64_t)seen->from : UINT64_MAX);
	detect_fact_number(verdict, "per_hour", grows ? seen->per_hour : -1);
	detect_fact_number(verdict, "window_s", settings[WINDOW] / 1e9);
	verdict->inferred = true;
	verdict->certain_why = "the numbers say that it grows, not what keeps it";
}

static void add_growth_words(struct strbuf *sb, const struct series *series, const struct detect_input *input) {
	const struct trend_verdict *seen = &series->trend.verdict;
	char duration[32];

	if (!is_suspect(series))
		return;
	detect_duration_text(input->now_ns - seen->since_ns, duration, sizeof(duration));
	strbuf_addf(sb, ", %.0f more in %s (%.0f an hour)", seen->to - seen->from, duration, seen->per_hour);
}

static int say(struct detect_verdict *verdict, struct strbuf *sb, detect_verdicts *verdicts) {
	int r = detect_set_summary(verdict, sb, "");

	return r ? r : vec_push(verdicts, *verdict);
}

/* handle-leak */

enum { LIMIT_PCT = LAST };

static const struct detect_setting handle_settings[] = {
	[WINDOW] = { "window", DETECT_DURATION, 1800e9, WINDOW_LEAST, WINDOW_MOST, WINDOW_HELP },
	[GROW] = { "grow", DETECT_NUMBERS, 64, 1, 1e9, "descriptors more in a window, 1 or more" },
	[PCT] = { "pct", DETECT_PERCENT, 50, 0, 1e6, "… and percent of what there was, 0 or more" },
	[LIMIT_PCT] = { "limit-pct", DETECT_PERCENT, 80, 1, 100,
		"percent of what it may open, that are a fault by themselves, 1 to 100" },
	{ 0 },
};

struct handle_state {
	struct series fds;
	struct runway runway;
	struct fault fault;
	unsigned near_looks;
	bool near;
};

static void look_at_limit(struct handle_state *state, const double *settings, const struct detect_process *process) {
	double pct;

	if (process->fds == UINT64_MAX || process->fd_limit == UINT64_MAX || !process->fd_limit) {
		state->near = false;
		return;
	}
	pct = 100 * (double)process->fds / (double)process->fd_limit;
	state->near_looks = pct >= settings[LIMIT_PCT] ? state->near_looks + 1 : 0;
	if (state->near_looks >= NEAR_LOOKS)
		state->near = true;
	else if (pct < NEAR_LEAVE * settings[LIMIT_PCT])
		state->near = false;
}

static int say_handles(const struct handle_state *state, const double *settings, const struct detect_input *input,
	detect_verdicts *verdicts) {
	struct detect_verdict verdict = verdict_of(&state->fault, "handle-leak", "Handle Leak");
	const struct detect_process *process = input->process;
	struct strbuf sb = { 0 };
	uint64_t left_ns;
	bool left =
		process->fd_limit != UINT64_MAX && !runway_left(&state->runway, (double)process->fd_limit, &left_ns);
	char duration[32];

	if (state->near)
		verdict.severity = PYSPYD_CRITICAL;
	verdict.fading = !state->near && state->fds.trend.verdict.fading;
	verdict.advice =
		"`pyspyd handles --pid PID` groups what is open: look for what is opened in a loop or for each "
		"request and closed only by luck; `with`, or contextlib.closing(), closes it for certain.";
	add_growth_facts(&verdict, &state->fds, process->fds, settings);
	detect_fact_count(&verdict, "limit", process->fd_limit);
	detect_fact_number(&verdict, "time_left_s", left ? (double)left_ns / 1e9 : -1);
	strbuf_addf(&sb, "handle-leak: %" PRIu64 " descriptors are open", process->fds);
	add_growth_words(&sb, &state->fds, input);
	if (state->near)
		strbuf_addf(&sb, ", %.0f %% of the limit of %" PRIu64,
			100 * (double)process->fds / (double)process->fd_limit, process->fd_limit);
	if (left) {
		detect_duration_text(left_ns, duration, sizeof(duration));
		strbuf_addf(&sb, "; the limit is reached in %s", duration);
	}
	return say(&verdict, &sb, verdicts);
}

static int decide_handles(
	void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	const struct trend_rule rule = rule_of(settings, input);
	struct handle_state *state = arg;
	bool suspect, present;
	int r;

	if (input->process->fds == UINT64_MAX)
		return 0;
	if (!state->fds.begun)
		runway_init(&state->runway, rule.window_ns / 3);
	series_add(&state->fds, &rule, input, input->process->fds);
	runway_add(&state->runway, input->now_ns, (double)input->process->fds);
	look_at_limit(state, settings, input->process);
	suspect = is_suspect(&state->fds);
	r = settle(&state->fault, suspect || state->near, suspect ? state->fds.trend.verdict.since_ns : input->now_ns,
		"handle-leak", "Handle Leak", verdicts, &present);
	return r || !present ? r : say_handles(state, settings, input, verdicts);
}

/* thread-leak */

static const struct detect_setting thread_settings[] = {
	[WINDOW] = { "window", DETECT_DURATION, 600e9, WINDOW_LEAST, WINDOW_MOST, WINDOW_HELP },
	[GROW] = { "grow", DETECT_NUMBERS, 16, 1, 1e9, "threads more in a window, 1 or more" },
	[PCT] = { "pct", DETECT_PERCENT, 100, 0, 1e6, "… and percent of what there was, 0 or more" },
	{ 0 },
};

struct thread_state {
	struct series threads;
	struct fault fault;
	char group[GROUP_MAX]; /* "Thread-# (fetch)" */
	uint64_t grouped;      /* threads of that name */
};

/* Return: its length. */
static size_t name_group(const char *name, char out[GROUP_MAX]) {
	size_t n = 0;

	memset(out, 0, GROUP_MAX);
	for (; *name && n < GROUP_MAX - 1; name++) {
		bool digit = isdigit((unsigned char)*name);

		if (!digit || !n || out[n - 1] != '#')
			out[n++] = digit ? '#' : *name;
	}
	return n;
}

/* The group that most threads are of; none where there is no memory. */
static void find_group(struct thread_state *state, const struct detect_process *process) {
	struct map counts = { 0 };
	char group[GROUP_MAX];

	state->grouped = 0;
	for (size_t i = 0; i < process->threads_n; i++) {
		size_t n = name_group(process->threads[i].name, group);
		uint64_t key = hash_bytes(group, n, 0) >> 1, count = 0;

		map_get(&counts, key, &count);
		if (map_put(&counts, key, count + 1))
			break;
		if (count < state->grouped)
			continue;
		state->grouped = count + 1;
		memcpy(state->group, group, sizeof(group));
	}
	map_deinit(&counts);
}

static int say_threads(struct thread_state *state, const double *settings, const struct detect_input *input,
	detect_verdicts *verdicts) {
	struct detect_verdict verdict = verdict_of(&state->fault, "thread-leak", "Thread Leak");
	const struct detect_process *process = input->process;
	struct strbuf sb = { 0 };
	bool named;

	find_group(state, process);
	named = state->grouped && state->grouped * 100 >= process->threads_n * GROUP_PCT;
	verdict.fading = state->threads.trend.verdict.fading;
	verdict.advice = "Look for threads, timers or executors that are started for each request and never joined or "
			 "shut down; `pyspyd dump --pid PID` shows where they wait.";
	add_growth_facts(&verdict, &state->threads, process->threads_total, settings);
	detect_fact_text(&verdict, "group", named ? state->group : NULL);
	detect_fact_count(&verdict, "group_count", named ? state->grouped : UINT64_MAX);
	strbuf_addf(&sb, "thread-leak: the process has %" PRIu64 " threads", process->threads_total);
	add_growth_words(&sb, &state->threads, input);
	if (named) {
		strbuf_addf(&sb, ", %" PRIu64 " of them named ", state->grouped);
		detect_add_name(&sb, state->group);
	}
	return say(&verdict, &sb, verdicts);
}

static int decide_threads(
	void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	const struct trend_rule rule = rule_of(settings, input);
	struct thread_state *state = arg;
	bool present;
	int r;

	if (input->process->threads_total == UINT64_MAX)
		return 0;
	series_add(&state->threads, &rule, input, input->process->threads_total);
	r = settle(&state->fault, is_suspect(&state->threads), state->threads.trend.verdict.since_ns, "thread-leak",
		"Thread Leak", verdicts, &present);
	return r || !present ? r : say_threads(state, settings, input, verdicts);
}

/* process-leak */

enum { ZOMBIES = LAST };

static const struct detect_setting process_settings[] = {
	[WINDOW] = { "window", DETECT_DURATION, 600e9, WINDOW_LEAST, WINDOW_MOST, WINDOW_HELP },
	[GROW] = { "grow", DETECT_NUMBERS, 16, 1, 1e9, "children more in a window, 1 or more" },
	[PCT] = { "pct", DETECT_PERCENT, 100, 0, 1e6, "… and percent of what there was, 0 or more" },
	[ZOMBIES] = { "zombies", DETECT_NUMBERS, 10, 1, 1e9,
		"zombies more in half a window, that are a fault by themselves, 1 or more" },
	{ 0 },
};

struct process_state {
	struct series children, zombies;
	struct fault fault;
};

static int say_processes(struct process_state *state, const double *settings, const struct detect_input *input,
	detect_verdicts *verdicts) {
	struct detect_verdict verdict = verdict_of(&state->fault, "process-leak", "Process Leak");
	const struct detect_process *process = input->process;
	bool zombies = is_suspect(&state->zombies);
	const struct series *series = zombies ? &state->zombies : &state->children;
	struct strbuf sb = { 0 };

	verdict.fading = series->trend.verdict.fading;
	verdict.advice = zombies
		? "Children have ended and nobody has asked for their status: wait() for each (subprocess.run() and "
		  "`with Popen(…)` do), or set SIGCHLD to SIG_IGN."
		: "Children are started and never end: give them a time-out and wait for them, or bound how many there "
		  "may be at once (a pool).";
	add_growth_facts(&verdict, series, zombies ? process->zombies : process->children, settings);
	detect_fact_count(&verdict, "children", process->children);
	detect_fact_count(&verdict, "zombies", process->zombies);
	strbuf_addf(&sb, "process-leak: the process has %" PRIu64 " %s", zombies ? process->zombies : process->children,
		zombies ? "zombies: children that have ended and that it has not waited for" : "children");
	add_growth_words(&sb, series, input);
	return say(&verdict, &sb, verdicts);
}

static int decide_processes(
	void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	const struct trend_rule rule = rule_of(settings, input);
	struct process_state *state = arg;
	struct trend_rule zombie_rule = rule;
	const struct series *series;
	bool present;
	int r;

	if (input->process->children == UINT64_MAX || input->process->zombies == UINT64_MAX)
		return 0;
	zombie_rule.window_ns = rule.window_ns / 2;
	zombie_rule.least = settings[ZOMBIES];
	zombie_rule.least_pct = 0;
	series_add(&state->children, &rule, input, input->process->children);
	series_add(&state->zombies, &zombie_rule, input, input->process->zombies);
	series = is_suspect(&state->zombies) ? &state->zombies : &state->children;
	r = settle(&state->fault, is_suspect(series), series->trend.verdict.since_ns, "process-leak", "Process Leak",
		verdicts, &present);
	return r || !present ? r : say_processes(state, settings, input, verdicts);
}

const struct detector handle_leak_detector = {
	.kind = "handle-leak",
	.settings = handle_settings,
	.state_bytes = sizeof(struct handle_state),
	.decide = decide_handles,
};

const struct detector thread_leak_detector = {
	.kind = "thread-leak",
	.settings = thread_settings,
	.state_bytes = sizeof(struct thread_state),
	.decide = decide_threads,
};

const struct detector process_leak_detector = {
	.kind = "process-leak",
	.settings = process_settings,
	.state_bytes = sizeof(struct process_state),
	.decide = decide_processes,
};
