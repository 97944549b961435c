/* SPDX-License-Identifier: MIT */
/* gc-pressure: a process that spends its time on collecting garbage.
 *
 * A candidate begins with a look in which `pct` of the samples were in the collector, and stays one while its mean
 * since then is not below; one of `for` is a fault. The share of one look is a few samples and jumps: only means count.
 * A fault has gone when the mean of another `for` was below the lower line. Start-up, which makes many objects that
 * stay and so collects much and for nothing, is not looked at (`grace`). A gap (more than three periods) proves
 * nothing: candidates begin again.
 *
 * The collector's counters say how: full collections, which look at every object there is, and find little, are the
 * usual reason. The thread that collects most is shown with its stack: collections begin where objects are made. */
#include "engine/detect/counter_series.h"

#include "engine/base/util.h"
#include <math.h>
#include <string.h>

#define GAP_PERIODS 3
#define LOWER 0.8 /* of pct */
#define OLDEST 2

enum { PCT, FOR, GRACE };

static const struct detect_setting settings_table[] = {
	[PCT] = { "pct", DETECT_PERCENT, 40, 1, 100, "percent of the samples in the collector, 1 to 100" },
	[FOR] = { "for", DETECT_DURATION, 60e9, 0, 86400e9, "how long, up to 24h" },
	[GRACE] = { "grace", DETECT_DURATION, 300e9, 0, 86400e9, "since its start, not looked at, up to 24h" },
	{ 0 },
};

static const struct leak_words words = { "gc-pressure", "Counter Value" };

struct span {
	double ns, gc_ns;
};

struct state {
	uint64_t first_ns, last_ns; /* looks; 0: none yet */
	uint64_t since_ns;
	struct detect_collector since[3]; /* the counters then */
	bool begun;                       /* a candidate, or a fault */
	struct span span, before;         /* now; of a fault the full one before, too */
	struct leak_fault fault;
};

static double pct_of(const struct span *span) {
	return span->ns > 0 ? 100 * span->gc_ns / span->ns : 0;
}

static bool is_young(const struct state *state, const double *settings, const struct detect_input *input) {
	uint64_t start_ns = input->process->start_ns ? input->process->start_ns : state->first_ns;

	return input->now_ns < start_ns || (double)(input->now_ns - start_ns) < settings[GRACE];
}

static void begin(struct state *state, const struct detect_input *input, double interval_ns) {
	state->begun = true;
	state->since_ns = input->now_ns - (uint64_t)interval_ns;
	state->span = state->before = (struct span){ 0 };
	memcpy(state->since, input->process->collector, sizeof(state->since));
}

static void span_add(struct span *span, double interval_ns, double share) {
	span->ns += interval_ns;
	span->gc_ns += interval_ns * share;
}

static void candidate_goes_on(
	struct state *state, const double *settings, const struct detect_input *input, double interval_ns) {
	double share = input->process->gc_share;

	if (!state->begun && 100 * share < settings[PCT])
		return;
	if (!state->begun)
		begin(state, input, interval_ns);
	span_add(&state->span, interval_ns, share);
	state->begun = pct_of(&state->span) >= settings[PCT];
}

/* Return: whether the fault still stands. */
static bool fault_goes_on(
	struct state *state, const double *settings, const struct detect_input *input, double interval_ns) {
	span_add(&state->span, interval_ns, input->process->gc_share);
	if (state->span.ns < settings[FOR])
		return true;
	if (pct_of(&state->span) < LOWER * settings[PCT])
		return false;
	state->before = state->span;
	state->span = (struct span){ 0 };
	return true;
}

/* What the last one or two times `for` show. */
static double shown_pct(const struct state *state) {
	struct span all = { state->before.ns + state->span.ns, state->before.gc_ns + state->span.gc_ns };

	return pct_of(&all);
}

/* Words. */

static double grown(uint64_t since, uint64_t now) {
	return since == UINT64_MAX || now == UINT64_MAX || now < since ? -1 : (double)(now - since);
}

static void add_facts(struct detect_verdict *verdict, const struct state *state, const struct detect_input *input) {
	const struct detect_collector *old = &input->process->collector[OLDEST], *old_since = &state->since[OLDEST];
	double minutes = (double)(input->now_ns - state->since_ns) / 60e9;
	double young = grown(state->since[0].collections, input->process->collector[0].collections);
	double full = grown(old_since->collections, old->collections);
	double collected = grown(old_since->collected, old->collected);

	minutes = fmax(minutes, 1e-9);
	detect_fact_number(verdict, "gc_percent", shown_pct(state));
	detect_fact_number(verdict, "window_s", (state->before.ns + state->span.ns) / 1e9);
	detect_fact_number(verdict, "young_collections_per_minute", young < 0 ? -1 : young / minutes);
	detect_fact_number(verdict, "full_collections_per_minute", full < 0 ? -1 : full / minutes);
	detect_fact_number(
		verdict, "collected_per_full_collection", full > 0 && collected >= 0 ? collected / full : -1);
	detect_fact_number(verdict, "uncollectable", grown(old_since->uncollectable, old->uncollectable));
}

static void add_collecting(struct detect_verdict *verdict, const struct detect_input *input) {
	const struct detect_thread *most = NULL;

	for (size_t i = 0; i < input->process->threads_n; i++) {
		const struct detect_thread *thread = &input->process->threads[i];

		if (thread->shares.gc > (most ? most->shares.gc : 0))
			most = thread;
	}
	if (most)
		detect_party(verdict, input, most, "collecting");
}

static int say(const struct state *state, const double *settings, const struct detect_input *input,
	detect_verdicts *verdicts) {
	struct detect_verdict verdict = leak_verdict(&state->fault, &words);
	const struct detect_collector *old = &input->process->collector[OLDEST];
	double full = grown(state->since[OLDEST].collections, old->collections);
	double collected = grown(state->since[OLDEST].collected, old->collected);
	struct strbuf sb = { 0 };
	char duration[32];

	/* The span that is not over may be the one that ends it. */
	verdict.fading = state->span.ns > 0 && pct_of(&state->span) < LOWER * settings[PCT];
	verdict.advice = "Much is looked at and little found: gc.freeze() after start-up, higher thresholds "
			 "(gc.set_threshold), fewer objects that live long (__slots__, tuples, arrays), and no "
			 "gc.collect() in loops.";
	add_collecting(&verdict, input);
	add_facts(&verdict, state, input);
	detect_duration_text(input->now_ns - state->fault.since_ns, duration, sizeof(duration));
	strbuf_addf(&sb, "gc-pressure: the process has spent %.0f %% of its time on collecting garbage for %s",
		shown_pct(state), duration);
	if (verdict.parties_n)
		detect_add_party_place(&sb, &verdict, &verdict.parties[0]);
	if (full > 0 && collected >= 0) {
		strbuf_adds(&sb, "; ");
		detect_add_count(&sb, full);
		strbuf_adds(&sb, " full collections have found ");
		detect_add_count(&sb, collected);
		strbuf_adds(&sb, " objects to free");
	}
	return leak_say(&verdict, &sb, verdicts);
}

/* Return: whether there is a fault. */
static bool update(struct state *state, const double *settings, const struct detect_input *input, double interval_ns) {
	if (!state->fault.firing) {
		candidate_goes_on(state, settings, input, interval_ns);
		return state->begun && state->span.ns >= settings[FOR];
	}
	state->begun = fault_goes_on(state, settings, input, interval_ns);
	return state->begun;
}

static int decide(void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	const struct detect_process *process = input->process;
	struct state *state = arg;
	uint64_t interval_ns = state->last_ns ? input->now_ns - state->last_ns : 0;
	bool gap = process->period_ns && interval_ns > GAP_PERIODS * process->period_ns;
	bool present = state->fault.firing;
	int r;

	if (!state->first_ns)
		state->first_ns = input->now_ns;
	state->last_ns = input->now_ns;
	if (gap)
		state->begun = present;
	else if (process->gc_share >= 0 && interval_ns && !is_young(state, settings, input))
		present = update(state, settings, input, (double)interval_ns);
	r = leak_settle(&state->fault, present, state->since_ns, &words, "calm", verdicts);
	return r || !present ? r : say(state, settings, input, verdicts);
}

const struct detector gc_pressure_detector = {
	.kind = "gc-pressure",
	.settings = settings_table,
	.state_bytes = sizeof(struct state),
	.decide = decide,
};
