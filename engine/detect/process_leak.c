/* SPDX-License-Identifier: MIT */
/* process-leak: children that become more and more.
 *
 * Children that live and zombies are series of their own (counter_series.h). Few zombies suffice, since nobody leaves
 * children waiting on purpose. What the children are is not known here; where they are started is wished to be seen
 * from the first growth on. */
#include "engine/detect/counter_series.h"

#include "engine/detect/origins_words.h"

#define PERSIST 3
#define ZOMBIES_PLACE ": nobody asks for the status of the children that are started there: wait() for each."
#define ZOMBIES_ADVICE \
	"Children have ended and nobody has asked for their status: wait() for each (subprocess.run() and `with " \
	"Popen(…)` do), or set SIGCHLD to SIG_IGN."
#define CHILDREN_ADVICE \
	"Children are started and never end: give them a time-out and wait for them, or bound how many there may be " \
	"at " \
	"once (a pool)."

enum { ZOMBIES = SERIES_SETTINGS };

static const struct detect_setting settings_table[] = {
	[SERIES_WINDOW] = SERIES_WINDOW_SETTING(600e9),
	[SERIES_GROW] = { "grow", DETECT_NUMBERS, 16, 1, 1e9, "children more in a window, 1 or more" },
	[SERIES_PCT] = { "pct", DETECT_PERCENT, 100, 0, 1e6, "… and percent of what there was, 0 or more" },
	[ZOMBIES] = { "zombies", DETECT_NUMBERS, 10, 1, 1e9,
		"zombies more in half a window, that are a fault by themselves, 1 or more" },
	{ 0 },
};

static const struct leak_words words = { "process-leak", "Process Leak" };

struct state {
	struct counter_series children, zombies;
	struct leak_fault fault;
	char advice[ORIGINS_ADVICE_MAX];
};

static int say(
	struct state *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	struct detect_verdict verdict = leak_verdict(&state->fault, &words);
	const struct detect_process *process = input->process;
	bool zombies = series_is_suspect(&state->zombies);
	const struct counter_series *series = zombies ? &state->zombies : &state->children;
	uint64_t count = zombies ? process->zombies : process->children;
	struct strbuf sb = { 0 };

	verdict.fading = series->trend.verdict.fading;
	detect_origins(&verdict, input, PYSPYD_HANDLE_CHILD);
	detect_origins_advice(&verdict, state->advice,
		zombies ? ZOMBIES_PLACE : ": children that are started there do not end, or nobody waits for them.",
		zombies ? ZOMBIES_ADVICE : CHILDREN_ADVICE);
	series_add_facts(&verdict, series, count, settings);
	detect_fact_count(&verdict, "children", process->children);
	detect_fact_count(&verdict, "zombies", process->zombies);
	strbuf_adds(&sb, "process-leak: the process has ");
	detect_add_count(&sb, (double)count);
	strbuf_adds(&sb, zombies ? " zombies: children that have ended and that it has not waited for" : " children");
	series_add_words(&sb, series, input);
	detect_add_origins(&sb, &verdict, "started");
	return leak_say(&verdict, &sb, verdicts);
}

static int decide(void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	const struct trend_rule rule = series_rule(settings, input, PERSIST, 1);
	struct state *state = arg;
	struct trend_rule zombie_rule = rule;
	const struct counter_series *series;
	int r;

	if (input->process->children == UINT64_MAX || input->process->zombies == UINT64_MAX)
		return 0;
	zombie_rule.window_ns = rule.window_ns / 2;
	zombie_rule.least = settings[ZOMBIES];
	zombie_rule.least_pct = 0;
	series_add(&state->children, &rule, input, input->process->children);
	series_add(&state->zombies, &zombie_rule, input, input->process->zombies);
	if (input->wishes && (state->children.trend.verdict.agreed || state->zombies.trend.verdict.agreed))
		input->wishes->origins = true;
	series = series_is_suspect(&state->zombies) ? &state->zombies : &state->children;
	r = leak_settle(&state->fault, series_is_suspect(series), series->trend.verdict.since_ns, &words, "no-growth",
		verdicts);
	return r || !state->fault.firing ? r : say(state, settings, input, verdicts);
}

const struct detector process_leak_detector = {
	.kind = "process-leak",
	.settings = settings_table,
	.state_bytes = sizeof(struct state),
	.decide = decide,
};
