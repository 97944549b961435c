/* SPDX-License-Identifier: MIT */
/* handle-leak: descriptors that become more and more.
 *
 * Their number is a series (counter_series.h). Descriptors at `limit-pct` of what the process may open are a fault
 * whatever they did before: the next accept() or open() will fail.
 *
 * What is open is grouped twice, by wish: when the number begins to grow, and when it has grown long enough to be a
 * fault. The group that made most of the growth is named; where no group did, the two that made most of it. At the
 * limit, without growth, the groups with most descriptors are. From the first growth on it is also wished to be seen
 * where descriptors are opened. */
#include "engine/detect/counter_series.h"

#include "engine/base/util.h"
#include "engine/detect/origins_words.h"
#include <string.h>

#define PERSIST 3
#define HOLD 2       /* verdicts more, for which a fault waits for groups that name it */
#define ASK_PARTS 60 /* of the window: as often groups are asked for, at most */
#define MOST_PCT 70  /* of the growth: the group that is named alone */
#define NAMED_MAX 2
#define GROUP_MAX 192
#define ADVICE \
	"`pyspyd handles --pid PID` groups what is open: look for what is opened in a loop or for each request and " \
	"closed only by luck; `with`, or contextlib.closing(), closes it for certain."
#define ADVICE_PLACE \
	": what is opened there is not closed. `with`, or contextlib.closing(), closes it for certain; `pyspyd " \
	"handles " \
	"--origins 30s --pid PID` shows the stacks."

enum { LIMIT_PCT = SERIES_SETTINGS };

static const struct detect_setting settings_table[] = {
	[SERIES_WINDOW] = SERIES_WINDOW_SETTING(1800e9),
	[SERIES_GROW] = { "grow", DETECT_NUMBERS, 64, 1, 1e9, "descriptors more in a window, 1 or more" },
	[SERIES_PCT] = { "pct", DETECT_PERCENT, 50, 0, 1e6, "… and percent of what there was, 0 or more" },
	[LIMIT_PCT] = { "limit-pct", DETECT_PERCENT, 80, 1, 100,
		"percent of what it may open, that are a fault by themselves, 1 to 100" },
	{ 0 },
};

static const struct leak_words words = { "handle-leak", "Handle Leak" };

struct named_group {
	char name[GROUP_MAX]; /* "socket tcp CLOSE_WAIT to 10.1.2.3:5432" */
	uint64_t count;
};

struct state {
	struct counter_series fds;
	struct runway runway;
	struct counter_limit limit;
	struct leak_fault fault;
	struct named_group named[NAMED_MAX]; /* of the last groups that were seen */
	size_t named_n;
	uint64_t asked_ns;
	char advice[ORIGINS_ADVICE_MAX];
};

/* Groups. */

/* How much a group counts: by its growth where anything grew, by its number otherwise. */
static uint64_t weight_of(const struct detect_group *group, bool by_growth) {
	if (!by_growth)
		return group->count;
	return group->grew > 0 ? (uint64_t)group->grew : 0;
}

static void name_group(struct state *state, const struct detect_group *group) {
	struct named_group *named = &state->named[state->named_n++];

	snprintf(named->name, sizeof(named->name), "%s%s%s", group->kind, *group->target ? " " : "", group->target);
	named->count = group->count;
}

/* Index of the weightiest group but `not`; fds_n: none weighs anything. */
static size_t weightiest(const struct detect_input *input, bool by_growth, size_t not ) {
	size_t best = input->fds_n;
	uint64_t most = 0;

	for (size_t i = 0; i < input->fds_n; i++) {
		uint64_t weight = weight_of(&input->fds[i], by_growth);

		if (i == not || weight <= most)
			continue;
		best = i;
		most = weight;
	}
	return best;
}

static void name_groups(struct state *state, const struct detect_input *input, bool grows) {
	size_t n = input->fds_n, best;
	uint64_t all = 0, grown = 0;
	bool by_growth;

	for (size_t i = 0; i < n; i++)
		grown += weight_of(&input->fds[i], true);
	by_growth = grows && grown;
	for (size_t i = 0; i < n; i++)
		all += weight_of(&input->fds[i], by_growth);
	best = weightiest(input, by_growth, n);
	if (best == n)
		return;
	state->named_n = 0;
	name_group(state, &input->fds[best]);
	if (weight_of(&input->fds[best], by_growth) * 100 >= all * MOST_PCT)
		return;
	best = weightiest(input, by_growth, best);
	if (best < n)
		name_group(state, &input->fds[best]);
}

/* Groups cost a look at every descriptor: the first ones when growth is first seen, the others from shortly before it
 * is a fault on, so that the finding has them from its first word. */
static void wish(struct state *state, const double *settings, const struct detect_input *input) {
	unsigned agreed = state->fds.trend.verdict.agreed;
	bool near = state->limit.near || state->limit.looks;
	uint64_t every_ns = (uint64_t)settings[SERIES_WINDOW] / ASK_PARTS;

	if (!input->wishes || (!near && !agreed))
		return;
	input->wishes->fds_first = true;
	input->wishes->origins = true;
	if ((!near && agreed + 1 < PERSIST && !series_is_suspect(&state->fds)) ||
		(state->asked_ns && input->now_ns - state->asked_ns < every_ns))
		return;
	input->wishes->fds_growth = true;
	state->asked_ns = input->now_ns;
}

/* What grows and cannot be named yet may be so soon: the first finding is the one that is read. */
static bool is_held(const struct state *state, const struct detect_input *input) {
	return !state->fault.firing && input->wishes && !state->named_n &&
		state->fds.trend.verdict.agreed < PERSIST + HOLD;
}

/* Words. */

static void add_named(struct strbuf *sb, const struct state *state) {
	for (size_t i = 0; i < state->named_n; i++) {
		strbuf_adds(sb, i ? " and " : ": ");
		detect_add_count(sb, (double)state->named[i].count);
		strbuf_adds(sb, i ? " " : " of them ");
		detect_add_text(sb, state->named[i].name, GROUP_MAX);
	}
}

static void add_facts(struct detect_verdict *verdict, const struct state *state, const double *settings,
	const struct detect_process *process, double left_s) {
	series_add_facts(verdict, &state->fds, process->fds, settings);
	detect_fact_count(verdict, "limit", process->fd_limit);
	detect_fact_number(verdict, "time_left_s", left_s);
	detect_fact_text(verdict, "group", state->named_n ? state->named->name : NULL);
	detect_fact_count(verdict, "group_count", state->named_n ? state->named->count : UINT64_MAX);
}

static int say(
	struct state *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	struct detect_verdict verdict = leak_verdict(&state->fault, &words);
	const struct detect_process *process = input->process;
	struct strbuf sb = { 0 };
	uint64_t left_ns;
	bool left =
		series_is_known(process->fd_limit) && !runway_left(&state->runway, (double)process->fd_limit, &left_ns);
	char duration[32];

	verdict.severity = state->limit.near ? PYSPYD_CRITICAL : PYSPYD_WARNING;
	verdict.fading = !state->limit.near && state->fds.trend.verdict.fading;
	detect_origins(&verdict, input, PYSPYD_HANDLE_DESCRIPTOR);
	detect_origins_advice(&verdict, state->advice, ADVICE_PLACE, ADVICE);
	verdict.fds = input->fds_n ? input->fds : NULL;
	verdict.fds_n = input->fds_n;
	add_facts(&verdict, state, settings, process, left ? (double)left_ns / 1e9 : -1);
	strbuf_adds(&sb, "handle-leak: ");
	detect_add_count(&sb, (double)process->fds);
	strbuf_adds(&sb, " descriptors are open");
	series_add_words(&sb, &state->fds, input);
	if (state->limit.near) {
		strbuf_adds(&sb, ", ");
		limit_add_words(&sb, process->fds, process->fd_limit);
	}
	add_named(&sb, state);
	detect_add_origins(&sb, &verdict, "opened");
	if (left) {
		detect_duration_text(left_ns, duration, sizeof(duration));
		strbuf_addf(&sb, "; the limit is reached in %s", duration);
	}
	return leak_say(&verdict, &sb, verdicts);
}

static int decide(void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	const struct trend_rule rule = series_rule(settings, input, PERSIST, 1);
	const struct detect_process *process = input->process;
	struct state *state = arg;
	bool suspect;
	int r;

	if (process->fds == UINT64_MAX)
		return 0;
	if (!state->fds.begun)
		runway_init(&state->runway, rule.window_ns / 3);
	series_add(&state->fds, &rule, input, process->fds);
	runway_add(&state->runway, input->now_ns, (double)process->fds);
	limit_look(&state->limit, process->fds, process->fd_limit, settings[LIMIT_PCT]);
	suspect = series_is_suspect(&state->fds);
	wish(state, settings, input);
	if (input->fds_n)
		name_groups(state, input, suspect);
	suspect = suspect && !is_held(state, input);
	r = leak_settle(&state->fault, suspect || state->limit.near,
		suspect ? state->fds.trend.verdict.since_ns : input->now_ns, &words, "no-growth", verdicts);
	return r || !state->fault.firing ? r : say(state, settings, input, verdicts);
}

const struct detector handle_leak_detector = {
	.kind = "handle-leak",
	.settings = settings_table,
	.state_bytes = sizeof(struct state),
	.decide = decide,
};
