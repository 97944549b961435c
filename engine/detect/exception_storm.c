/* SPDX-License-Identifier: MIT */
/* exception-storm: a busy thread that does little but raise exceptions, or report them.
 *
 * That an exception is being handled says nothing: a whole program may run in an except block, and what is computed in
 * one is work. But no Python code runs while an exception is on its way, which takes less than a microsecond, so it is
 * met only where very many are raised (measured: a thread that does nothing else is met in it in 6 to 20 % of the
 * looks, one that raises an error before each 100 us of work in less than 0.5 %). `pct` of the looks is a storm.
 *
 * So are handlers that report (logging, traceback, warnings) in `reporting-pct` of the looks, where the exceptions are
 * other ones all the time. This is told by the looks in a row that met an exception twice, and by the stacks.
 *
 * A candidate begins with a look that is bad, and stays one while its mean since then is; one of `for` is a fault, and
 * has gone when no look was half as bad for `resolve-for`. */
#include "engine/detect/detect.h"

#include "engine/base/strbuf.h"
#include "engine/base/util.h"
#include "engine/detect/episodes.h"
#include "engine/detect/words.h"
#include <string.h>

#define LOWER 0.5 /* of the lines, for a fault to stand */
#define CHANGED_PCT \
	1.0         /* of the pairs of looks, for handlers to be of many exceptions: most take each other's memory */
#define LOOKS_MIN 8 /* of one interval: fewer say nothing */
#define SUBJECTS_MAX 1024 /* threads of one process */
#define TYPE_BYTES 128

enum { PCT, REPORTING_PCT, FOR, RESOLVE_FOR };

static const struct detect_setting settings_table[] = {
	[PCT] = { "pct", DETECT_PERCENT, 5, 0.1, 100,
		"percent of the looks that meet an exception on its way, 0.1 to 100" },
	[REPORTING_PCT] = { "reporting-pct", DETECT_PERCENT, 50, 1, 100,
		"percent of the looks in which exceptions are reported, 1 to 100" },
	[FOR] = { "for", DETECT_DURATION, 30e9, 0, 86400e9, "how long, up to 24h" },
	[RESOLVE_FOR] = { "resolve-for", DETECT_DURATION, 30e9, 0, 86400e9,
		"it has gone when it was calm for this long, up to 24h" },
	{ 0 },
};

static const struct episode_words words = { "exception-storm", "Managed Code Exception" };

struct counts {
	double looks, raised, handled, reported, pairs, changed;
};

/* A candidate, or a fault. */
struct subject {
	uint64_t id;
	struct counts sum;
};

struct state {
	struct episodes episodes;
	VEC(struct subject) subjects;
};

static void state_deinit(void *arg) {
	struct state *state = arg;

	episodes_deinit(&state->episodes);
	vec_free(&state->subjects);
}

static bool is_of(const char *module, const char *package) {
	size_t n = strlen(package);

	return !strncmp(module, package, n) && (!module[n] || module[n] == '.');
}

static bool reports(const struct detect_stack *stack) {
	static const char *const modules[] = { "logging", "traceback", "warnings", "linecache" };

	for (size_t i = 0; i < stack->frames_n; i++)
		for (size_t k = 0; k < ARRAY_SIZE(modules); k++)
			if (is_of(stack->frames[i].module, modules[k]))
				return true;
	return false;
}

/* The part of its samples in which a thread was in code that writes reports, as the stacks that are there say: such
 * code is in many places, none of them for long. */
static double reporting_share(const struct detect_thread *thread) {
	double share = 0, all = 0;

	for (size_t i = 0; i < thread->stacks_n; i++) {
		share += reports(&thread->stacks[i]) ? thread->stacks[i].share : 0;
		all += thread->stacks[i].share;
	}
	return all > 0 ? share / all : 0;
}

static struct counts counts_of(const struct detect_thread *thread) {
	const struct detect_exceptions *seen = &thread->exceptions;
	double reporting = reporting_share(thread) * (double)seen->looks;

	return (struct counts){
		.looks = (double)seen->looks,
		.raised = (double)seen->raised,
		.handled = (double)seen->handled,
		.reported = min_of(reporting, (double)seen->handled_below),
		.pairs = (double)seen->pairs,
		.changed = (double)seen->changed,
	};
}

static double pct(double part, double whole) {
	return whole > 0 ? 100 * part / whole : 0;
}

static bool is_raising(const struct counts *counts, const double *settings, double factor) {
	return pct(counts->raised, counts->looks) >= factor * settings[PCT];
}

static bool is_bad(const struct counts *counts, const double *settings, double factor) {
	return is_raising(counts, settings, factor) ||
		(pct(counts->reported, counts->looks) >= factor * settings[REPORTING_PCT] &&
			pct(counts->changed, counts->pairs) >= factor * CHANGED_PCT);
}

static uint64_t id_of(const struct detect_thread *thread) {
	return (uint64_t)thread->tid << 40 ^ thread->start_ns;
}

static struct subject *find(struct state *state, uint64_t id) {
	vec_foreach (subject, &state->subjects)
		if (subject->id == id)
			return subject;
	return NULL;
}

static void add(struct counts *sum, const struct counts *counts) {
	sum->looks += counts->looks;
	sum->raised += counts->raised;
	sum->handled += counts->handled;
	sum->reported += counts->reported;
	sum->pairs += counts->pairs;
	sum->changed += counts->changed;
}

static bool is_firing(const struct state *state, uint64_t id) {
	vec_foreach (episode, &state->episodes.items)
		if (episode->id == id)
			return episode->firing;
	return false;
}

static int say(const struct subject *subject, const struct episode *episode, const double *settings,
	const struct detect_input *input, const struct detect_thread *thread, detect_verdicts *verdicts) {
	struct detect_verdict verdict = episode_verdict(episode, &words);
	const struct counts *sum = &subject->sum;
	bool raising = is_raising(sum, settings, LOWER);
	struct strbuf sb = { 0 };
	char text[64];
	int r;

	detect_party(&verdict, input, thread, raising ? "raising" : "reporting");
	verdict.advice =
		"An error that is raised again and again and caught each time: look at the line shown, and at "
		"what it calls. Test before (dict.get, isdigit, hasattr once), stop retrying what cannot work, "
		"and report the same error once.";
	detect_fact_text(&verdict, "exception", thread->exceptions.type);
	detect_fact_number(&verdict, "raised_percent", pct(sum->raised, sum->looks));
	detect_fact_number(&verdict, "handled_percent", pct(sum->handled, sum->looks));
	detect_fact_number(&verdict, "reported_percent", pct(sum->reported, sum->looks));
	detect_fact_count(&verdict, "looks", (uint64_t)sum->looks);
	strbuf_adds(&sb, "exception-storm: ");
	detect_add_name(&sb, thread->name);
	strbuf_addf(&sb, " (tid %d) does little but %s ", (int)thread->tid, raising ? "raise" : "report");
	detect_add_text(&sb, thread->exceptions.type ? thread->exceptions.type : "exceptions", TYPE_BYTES);
	detect_add_party_place(&sb, &verdict, &verdict.parties[0]);
	if (raising)
		strbuf_addf(&sb, ": one was on its way in %.0f %% of the looks", pct(sum->raised, sum->looks));
	detect_duration_text(input->now_ns - episode->since_ns, text, sizeof(text));
	strbuf_addf(&sb, ", for %s", text);
	r = detect_set_summary(&verdict, &sb, "");
	return r ? r : vec_push(verdicts, verdict);
}

/* Return: whether the thread is bad in this look, with *ret_subject. A candidate is bad as long as its mean is. */
static bool judge(
	struct state *state, const double *settings, const struct detect_thread *thread, struct subject **ret_subject) {
	const struct counts counts = counts_of(thread);
	uint64_t id = id_of(thread);
	struct subject *subject = find(state, id);

	if (counts.looks < LOOKS_MIN)
		return false;
	if (!subject) {
		if (!is_bad(&counts, settings, 1) || state->subjects.n >= SUBJECTS_MAX ||
			vec_push(&state->subjects, (struct subject){ .id = id }))
			return false;
		subject = &state->subjects.items[state->subjects.n - 1];
	}
	add(&subject->sum, &counts);
	*ret_subject = subject;
	if (is_firing(state, id))
		return is_bad(&counts, settings, LOWER);
	return is_bad(&subject->sum, settings, 1);
}

/* Of those that are no candidates any more. */
static void forget(struct state *state) {
	size_t kept = 0;

	vec_foreach (subject, &state->subjects) {
		bool known = false;

		vec_foreach (episode, &state->episodes.items)
			known |= episode->id == subject->id;
		if (known)
			state->subjects.items[kept++] = *subject;
	}
	state->subjects.n = kept;
}

static int decide_thread(struct state *state, const double *settings, const struct detect_input *input,
	const struct detect_thread *thread, detect_verdicts *verdicts) {
	struct subject *subject = NULL;
	struct episode *episode;
	int r;

	if (!judge(state, settings, thread, &subject))
		return 0;
	r = episodes_bad(&state->episodes, subject->id, input->now_ns, &episode);
	if (r)
		return r < 0 ? r : 0;
	/* What is told first should name the exception, which few looks meet. */
	episode->firing |= thread->exceptions.type && (double)(input->now_ns - episode->since_ns) >= settings[FOR];
	return episode->firing ? say(subject, episode, settings, input, thread, verdicts) : 0;
}

static int decide(void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	struct state *state = arg;
	int r = 0;

	episodes_look(&state->episodes, input, true);
	for (size_t i = 0; !r && i < input->process->threads_n; i++)
		r = decide_thread(state, settings, input, &input->process->threads[i], verdicts);
	if (!r)
		r = episodes_settle(&state->episodes, &words, input, (uint64_t)settings[RESOLVE_FOR], "calm", verdicts);
	forget(state);
	return r;
}

const struct detector exception_storm_detector = {
	.kind = "exception-storm",
	.settings = settings_table,
	.state_bytes = sizeof(struct state),
	.state_deinit = state_deinit,
	.decide = decide,
};
