/* SPDX-License-Identifier: MIT */
/* memory-leak: private memory whose floor rises without end, and what grows in it.
 *
 * The first tier is the numbers: a series (counter_series.h) that needs twice as many verdicts in a row as others,
 * since memory has more shapes than any counter. What they say stays unsaid until the second tier, a comparison of two
 * counts of the heap, confirms it: the first count is wished for when growth is first seen, the second when the series
 * is suspect, and again from time to time. Memory that the allocator keeps free is none; memory that grew outside of
 * the Python heap is native, which is inferred: who allocated it is not known. Where no count is possible the numbers
 * have to do, and the finding says so.
 *
 * A finding stays until the numbers are at ease again: one comparison that shows nothing proves little. */
#include "engine/detect/counter_series.h"
#include "engine/detect/heap_growth.h"
#include "engine/detect/memory_left.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <math.h>
#include <string.h>

#define MIB 1048576.0
#define NS_PER_HOUR 3600e9
#define PERSIST 6
#define COMPARE_PARTS 8     /* of the window: a comparison that is older is made anew … */
#define COMPARE_LEAST (5e9) /* … but no sooner */
#define ASK_PARTS 64        /* of the window: how long a wish that was not granted waits */
#define LEFT_PARTS 3        /* of the window, in which growth tells how long memory lasts … */
#define CRITICAL_NS 3600e9  /* left, and … */
#define CRITICAL_TIMES 6    /* … so many windows: further ahead nothing is certain */
#define LEFT_SAID_NS (30 * 24 * 3600e9)
#define LINE_MAX_BYTES 128

static const struct detect_setting settings_table[] = {
	[SERIES_WINDOW] = SERIES_WINDOW_SETTING(4 * 3600e9),
	[SERIES_GROW] = { "grow", DETECT_NUMBERS, 32, 0.001, 1e9, "MiB more in a window, 0.001 or more" },
	[SERIES_PCT] = { "pct", DETECT_PERCENT, 5, 0, 1e6, "… and percent of what there was, 0 or more" },
	{ 0 },
};

static const struct leak_words words = { "memory-leak", "Memory Leak" };

static const struct {
	const char *why, *advice; /* why: it is inferred; NULL: it is not */
} causes[] = {
	[HEAP_PYTHON] = { NULL,
		"What is named keeps its objects: bound it (a size, an age, weak references), or take out what is done "
		"with. `pyspyd heap --pid PID --diff 1m` shows more of what grows." },
	[HEAP_NATIVE] = { "the Python heap did not grow; which code allocated it is not known",
		"Extension modules and the libraries below them allocate past Python: look for objects of theirs that "
		"are not closed or freed, and try MALLOC_ARENA_MAX=2 where many threads allocate." },
	[HEAP_MIXED] = { "the Python heap explains a part of the growth; which code allocated the rest is not known",
		"Objects that own native memory (arrays, buffers, handles of libraries) grow so: begin with what keeps "
		"them. `pyspyd heap --pid PID --diff 1m` shows more of what grows." },
	[HEAP_UNKNOWN] = { "the numbers say that it grows, not what it is",
		"Look for caches without a bound and for objects that are collected in globals; tracemalloc in the "
		"program, started early, names the lines that allocate." },
};

struct state {
	struct counter_series memory;
	struct memory_left left;
	struct leak_fault fault;
	uint64_t heap_ns;      /* the comparison that was judged last */
	enum heap_cause last;  /* its verdict … */
	enum heap_cause cause; /* … and the last one that confirmed */
	uint64_t asked_ns;
	bool wished; /* for a first count, ever: there may be one */
	char line[LINE_MAX_BYTES];
};

/* Wishes. */

static uint64_t part_of(const double *settings, unsigned parts, double least) {
	return (uint64_t)fmax(settings[SERIES_WINDOW] / parts, least);
}

static bool is_compared(const struct detect_input *input) {
	return input->heap && input->heap->between_ns;
}

static void wish(struct state *state, const double *settings, const struct detect_input *input) {
	struct detect_wishes *wishes = input->wishes;

	if (!wishes)
		return;
	if (!state->memory.trend.verdict.agreed) {
		wishes->heap_forget |= state->wished;
		return;
	}
	wishes->heap_first |= !input->heap_why;
	state->wished = true;
	if (!series_is_suspect(&state->memory))
		return;
	if (is_compared(input) && input->now_ns - input->heap_ns < part_of(settings, COMPARE_PARTS, COMPARE_LEAST))
		return;
	if (state->asked_ns &&
		input->now_ns - state->asked_ns < part_of(settings, input->heap_why ? COMPARE_PARTS : ASK_PARTS, 0))
		return;
	wishes->heap_growth = true;
	state->asked_ns = input->now_ns;
}

/* Judgement. */

static bool is_new(const struct state *state, const struct detect_input *input) {
	return is_compared(input) && input->heap_ns != state->heap_ns &&
		input->heap_ns >= state->memory.trend.verdict.since_ns;
}

static void judge(struct state *state, const struct detect_input *input) {
	const struct trend_verdict *seen = &state->memory.trend.verdict;

	if (is_new(state, input)) {
		state->heap_ns = input->heap_ns;
		state->last =
			heap_growth_cause(input->heap, seen->per_hour * (double)input->heap->between_ns / NS_PER_HOUR);
	} else if (input->heap_why && state->heap_ns < seen->since_ns) {
		state->last = HEAP_UNKNOWN;
	}
	if (state->last != HEAP_UNCONFIRMED)
		state->cause = state->last;
}

/* Words. */

/* By what it does right now; where that is too slow to say, by the trend. */
static bool find_limit(const struct state *state, const struct detect_process *process, struct memory_limit *ret) {
	double per_ns = state->memory.trend.verdict.per_hour / NS_PER_HOUR, left_ns;

	if (!memory_left_limit(&state->left, process, ret))
		return false;
	if (ret->left_ns == UINT64_MAX && per_ns > 0) {
		left_ns = fmax((double)ret->bytes - (double)process->private_bytes, 0) / per_ns;
		if (left_ns < LEFT_SAID_NS)
			ret->left_ns = (uint64_t)left_ns;
	}
	return true;
}

static void add_facts(struct detect_verdict *verdict, struct state *state, const double *settings,
	const struct detect_process *process, const struct heap_names *names, const struct memory_limit *limit) {
	const struct trend_verdict *seen = &state->memory.trend.verdict;
	struct strbuf line = { 0 };

	if (names->line)
		heap_growth_add_line(&line, names->line);
	snprintf(state->line, sizeof(state->line), "%s", strbuf_str(&line));
	strbuf_deinit(&line);
	detect_fact_count(verdict, "private_bytes", process->private_bytes);
	detect_fact_count(verdict, "grew_bytes", (uint64_t)fmax(seen->to - seen->from, 0));
	detect_fact_number(verdict, "mib_per_hour", seen->per_hour / MIB);
	detect_fact_number(verdict, "window_s", settings[SERIES_WINDOW] / 1e9);
	detect_fact_text(verdict, "cause", heap_cause_name(state->cause));
	detect_fact_count(verdict, "limit", limit->bytes);
	detect_fact_number(verdict, "time_left_s", limit->left_ns != UINT64_MAX ? (double)limit->left_ns / 1e9 : -1);
	detect_fact_text(verdict, "container", names->container ? names->container->path : NULL);
	detect_fact_text(verdict, "container_type", names->container ? names->container->type : NULL);
	detect_fact_text(verdict, "type", names->type ? names->type->type : NULL);
	detect_fact_text(verdict, "line", *state->line ? state->line : NULL);
	detect_fact_text(verdict, "mapping", names->mapping ? names->mapping->name : NULL);
}

static void add_growth(struct strbuf *sb, const struct state *state, const struct detect_input *input) {
	const struct trend_verdict *seen = &state->memory.trend.verdict;
	char duration[32];

	detect_duration_text(input->now_ns - seen->since_ns, duration, sizeof(duration));
	detect_add_bytes(sb, seen->to - seen->from);
	strbuf_addf(sb, " more in %s (", duration);
	detect_add_bytes(sb, seen->per_hour);
	strbuf_adds(sb, " an hour)");
}

static void limit_text(const struct memory_limit *limit, char *out, size_t size) {
	struct strbuf sb = { 0 };
	char duration[32];

	*out = '\0';
	if (limit->left_ns == UINT64_MAX)
		return;
	detect_duration_text(limit->left_ns, duration, sizeof(duration));
	detect_add_bytes(&sb, (double)limit->bytes);
	if (limit->machine)
		snprintf(out, size, "; the machine's memory is used up in %s", duration);
	else
		snprintf(out, size, "; the limit of %s is reached in %s", strbuf_str(&sb), duration);
	strbuf_deinit(&sb);
}

/* Certain is only what the count shows, and as far as it saw everything. */
static void add_certainty(struct detect_verdict *verdict, const struct state *state, const struct detect_input *input) {
	verdict->certain_why = causes[state->cause].why;
	if (state->cause == HEAP_UNKNOWN && input->heap_why)
		verdict->certain_why = input->heap_why;
	else if (!verdict->certain_why && !is_compared(input))
		verdict->certain_why = "what was counted is not at hand any more";
	else if (!verdict->certain_why && input->heap->incomplete)
		verdict->certain_why = "the heap was not counted to its end";
	verdict->inferred = verdict->certain_why;
}

static int say(
	struct state *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	struct detect_verdict verdict = leak_verdict(&state->fault, &words);
	struct memory_limit limit = { .bytes = UINT64_MAX, .left_ns = UINT64_MAX };
	struct heap_names names = { 0 };
	struct strbuf sb = { 0 };
	char suffix[128];
	int r;

	find_limit(state, input->process, &limit);
	if ((double)limit.left_ns < fmin(CRITICAL_NS, CRITICAL_TIMES * settings[SERIES_WINDOW]))
		verdict.severity = PYSPYD_CRITICAL;
	verdict.fading = state->memory.trend.verdict.fading || state->last == HEAP_UNCONFIRMED;
	verdict.advice = causes[state->cause].advice;
	add_certainty(&verdict, state, input);
	strbuf_adds(&sb, "memory-leak: ");
	add_growth(&sb, state, input);
	if (is_compared(input) && state->cause != HEAP_UNKNOWN) {
		verdict.heap = input->heap;
		names = heap_growth_names(input->heap, state->cause);
		strbuf_adds(&sb, ": ");
		heap_growth_add(&sb, input->heap, &names, state->cause);
	}
	add_facts(&verdict, state, settings, input->process, &names, &limit);
	limit_text(&limit, suffix, sizeof(suffix));
	r = detect_set_summary(&verdict, &sb, suffix);
	return r ? r : vec_push(verdicts, verdict);
}

static int decide(void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	const struct trend_rule rule = series_rule(settings, input, PERSIST, MIB);
	struct state *state = arg;
	bool suspect;
	int r;

	if (!series_is_known(input->process->private_bytes))
		return 0;
	series_add(&state->memory, &rule, input, input->process->private_bytes);
	memory_left_look(&state->left, input, rule.window_ns / LEFT_PARTS);
	suspect = series_is_suspect(&state->memory);
	wish(state, settings, input);
	if (suspect)
		judge(state, input);
	else
		state->last = state->cause = HEAP_UNCONFIRMED;
	r = leak_settle(&state->fault, suspect && (state->fault.firing || state->last != HEAP_UNCONFIRMED),
		state->memory.trend.verdict.since_ns, &words, "no-growth", verdicts);
	return r || !state->fault.firing ? r : say(state, settings, input, verdicts);
}

const struct detector memory_leak_detector = {
	.kind = "memory-leak",
	.settings = settings_table,
	.state_bytes = sizeof(struct state),
	.decide = decide,
};
