/* SPDX-License-Identifier: MIT */
/* thread-leak: threads that become more and more.
 *
 * Their number is a series (counter_series.h). Tasks at `limit-pct` of what the control group may have are a fault
 * whatever they did before, of the process that most of them are threads of: the next thread, there or in a neighbour,
 * cannot be started.
 *
 * Threads are grouped by their names without the numbers: "Thread-12 (fetch)" and "Thread-13 (fetch)" are one group. A
 * name that says nothing ("Thread-12", the kernel's name of the process) is not worth telling. Where there is a wait
 * graph, which knows their stacks, the function that most of them run is said: what they were started for. From the
 * first growth on it is wished to be seen where they are started. */
#include "engine/detect/counter_series.h"

#include "engine/base/map.h"
#include "engine/detect/origins_words.h"
#include "engine/leaks/handles.h"
#include <ctype.h>
#include <string.h>

#define PERSIST 3
#define NAME_MAX_BYTES 64
#define FUNCTION_MAX 192
#define GROUP_PCT 80 /* of the threads, that make a group worth naming */
#define HALF 2       /* its threads are one of so many tasks of the control group, or more */

enum { LIMIT_PCT = SERIES_SETTINGS };

static const struct detect_setting settings_table[] = {
	[SERIES_WINDOW] = SERIES_WINDOW_SETTING(600e9),
	[SERIES_GROW] = { "grow", DETECT_NUMBERS, 16, 1, 1e9, "threads more in a window, 1 or more" },
	[SERIES_PCT] = { "pct", DETECT_PERCENT, 100, 0, 1e6, "… and percent of what there was, 0 or more" },
	[LIMIT_PCT] = { "limit-pct", DETECT_PERCENT, 80, 1, 100,
		"percent of the tasks of its control group, that are a fault by themselves, 1 to 100" },
	{ 0 },
};

static const struct leak_words words = { "thread-leak", "Thread Leak" };

struct state {
	struct counter_series threads;
	struct counter_limit limit;
	struct leak_fault fault;
	char group[NAME_MAX_BYTES];  /* "Thread-# (fetch)" */
	uint64_t grouped;            /* threads of that name */
	char function[FUNCTION_MAX]; /* "fetch (app.py:12)", of the last wait graph with stacks; "" unknown */
	uint64_t run_it;             /* threads that run it … */
	uint64_t known;              /* … of so many whose stack is known */
	char advice[ORIGINS_ADVICE_MAX];
};

/* Names. */

/* Return: its length. */
static size_t name_group(const char *name, char out[NAME_MAX_BYTES]) {
	size_t n = 0;

	memset(out, 0, NAME_MAX_BYTES);
	for (; *name && n < NAME_MAX_BYTES - 1; name++) {
		bool digit = isdigit((unsigned char)*name);

		if (!digit || !n || out[n - 1] != '#')
			out[n++] = digit ? '#' : *name;
	}
	return n;
}

/* The group that most threads are of; none where there is no memory. */
static void find_group(struct state *state, const struct detect_process *process) {
	struct map counts = { 0 };
	char group[NAME_MAX_BYTES];

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

static bool says_nothing(const char *group, const struct detect_process *process) {
	char name[NAME_MAX_BYTES];

	if (!strcmp(group, "Thread-#") || !strcmp(group, "Dummy-#") || !*group)
		return true;
	if (!process->name)
		return false;
	name_group(process->name, name);
	return !strcmp(group, name);
}

static bool is_named(const struct state *state, const struct detect_process *process) {
	return state->grouped && state->grouped * 100 >= process->threads_n * GROUP_PCT &&
		!says_nothing(state->group, process);
}

/* Functions. */

static bool only_calls_on(const struct pyspyd_frame *frame) {
	static const char *const modules[] = { "threading", "concurrent.futures", "multiprocessing", "runpy" };

	for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++) {
		size_t n = strlen(modules[i]);

		if (!strncmp(frame->module, modules[i], n) && (!frame->module[n] || frame->module[n] == '.'))
			return true;
	}
	return false;
}

/* The function that a thread was started for: of a pool's worker the one that it was given, as long as it has one. */
static const struct pyspyd_frame *started_for(const struct pyspyd_wait_node *node) {
	for (size_t i = handle_start(node->frames, node->frames_n) + 1; i > 0; i--)
		if (!only_calls_on(&node->frames[i - 1]))
			return &node->frames[i - 1];
	return &node->frames[handle_start(node->frames, node->frames_n)];
}

static void write_function(struct state *state, const struct pyspyd_frame *frame) {
	struct strbuf sb = { 0 };

	detect_add_place(&sb, *frame->qualname ? frame->qualname : frame->function, frame->file, frame->line);
	snprintf(state->function, sizeof(state->function), "%s", strbuf_str(&sb));
	strbuf_deinit(&sb);
}

static uint64_t function_key(const struct pyspyd_frame *frame) {
	uint64_t key = hash_bytes(frame->qualname, strlen(frame->qualname), 0);

	return hash_bytes(frame->file, strlen(frame->file), key) >> 1;
}

/* The function that most threads run. */
static void find_function(struct state *state, const struct detect_input *input) {
	const struct pyspyd_frame *best = NULL;
	uint64_t most = 0, known = 0;
	struct map counts = { 0 };

	for (size_t i = 0; i < input->waits->nodes_n; i++) {
		const struct pyspyd_wait_node *node = &input->waits->nodes[i];
		const struct pyspyd_frame *frame;
		uint64_t count = 0;

		if (!detect_is_own_thread(input, node) || !node->frames_n)
			continue;
		known++;
		frame = started_for(node);
		map_get(&counts, function_key(frame), &count);
		if (map_put(&counts, function_key(frame), ++count))
			break;
		if (count <= most)
			continue;
		most = count;
		best = frame;
	}
	map_deinit(&counts);
	if (!best)
		return;
	write_function(state, best);
	state->run_it = most;
	state->known = known;
}

static bool runs_one(const struct state *state) {
	return *state->function && state->run_it > 1 && state->run_it * 100 >= state->known * GROUP_PCT;
}

/* Words. */

static void add_groups(struct strbuf *sb, const struct state *state, const struct detect_process *process) {
	if (is_named(state, process)) {
		strbuf_adds(sb, ", ");
		detect_add_count(sb, (double)state->grouped);
		strbuf_adds(sb, " of them named ");
		detect_add_name(sb, state->group);
	}
	if (runs_one(state)) {
		strbuf_adds(sb, ", ");
		detect_add_count(sb, (double)state->run_it);
		strbuf_addf(sb, " of them run %s", state->function);
	}
}

static int say(
	struct state *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	struct detect_verdict verdict = leak_verdict(&state->fault, &words);
	const struct detect_process *process = input->process;
	struct strbuf sb = { 0 };
	bool named;

	find_group(state, process);
	named = is_named(state, process);
	verdict.severity = state->limit.near ? PYSPYD_CRITICAL : PYSPYD_WARNING;
	verdict.fading = !state->limit.near && state->threads.trend.verdict.fading;
	detect_origins(&verdict, input, PYSPYD_HANDLE_THREAD);
	detect_origins_advice(&verdict, state->advice,
		": threads that are started there do not end; `pyspyd dump --pid PID` shows where they wait.",
		"Look for threads, timers or executors that are started for each request and never joined or shut "
		"down; `pyspyd dump --pid PID` shows where they wait.");
	series_add_facts(&verdict, &state->threads, process->threads_total, settings);
	detect_fact_count(&verdict, "limit", series_is_known(process->tasks_limit) ? process->tasks_limit : UINT64_MAX);
	detect_fact_text(&verdict, "group", named ? state->group : NULL);
	detect_fact_count(&verdict, "group_count", named ? state->grouped : UINT64_MAX);
	detect_fact_text(&verdict, "function", runs_one(state) ? state->function : NULL);
	detect_fact_count(&verdict, "function_count", runs_one(state) ? state->run_it : UINT64_MAX);
	strbuf_adds(&sb, "thread-leak: the process has ");
	detect_add_count(&sb, (double)process->threads_total);
	strbuf_adds(&sb, " threads");
	series_add_words(&sb, &state->threads, input);
	add_groups(&sb, state, process);
	detect_add_origins(&sb, &verdict, "started");
	if (state->limit.near) {
		strbuf_adds(&sb, "; its control group has ");
		limit_add_words(&sb, process->tasks, process->tasks_limit);
	}
	return leak_say(&verdict, &sb, verdicts);
}

static bool has_most_tasks(const struct detect_process *process) {
	return series_is_known(process->tasks) && process->threads_total >= process->tasks / HALF;
}

static int decide(void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	const struct trend_rule rule = series_rule(settings, input, PERSIST, 1);
	const struct detect_process *process = input->process;
	struct state *state = arg;
	bool suspect;
	int r;

	if (process->threads_total == UINT64_MAX)
		return 0;
	series_add(&state->threads, &rule, input, process->threads_total);
	limit_look(&state->limit, has_most_tasks(process) ? process->tasks : UINT64_MAX, process->tasks_limit,
		settings[LIMIT_PCT]);
	suspect = series_is_suspect(&state->threads);
	if (input->waits && (state->threads.trend.verdict.agreed || state->limit.looks || state->limit.near))
		find_function(state, input);
	if (input->wishes && (state->threads.trend.verdict.agreed || state->limit.looks || state->limit.near))
		input->wishes->origins = true;
	r = leak_settle(&state->fault, suspect || state->limit.near,
		suspect ? state->threads.trend.verdict.since_ns : input->now_ns, &words, "no-growth", verdicts);
	return r || !state->fault.firing ? r : say(state, settings, input, verdicts);
}

const struct detector thread_leak_detector = {
	.kind = "thread-leak",
	.settings = settings_table,
	.state_bytes = sizeof(struct state),
	.decide = decide,
};
