/* SPDX-License-Identifier: MIT */
/* oom-risk: the memory that there is will soon be used up.
 *
 * Not a leak's statistics, but what is so right now: private memory that grew steadily through the short window, by a
 * tenth of itself or of what is left, and at this rate meets the limit of its control group or the end of the machine's
 * memory within `left` (memory_left.h says what counts as used). Or the group is at its limit already and its tasks
 * wait for memory. A job that takes what it needs and stays, or gives it back, does neither.
 *
 * What was seen for one window says nothing of a time many windows ahead: `left` is cut at 6 of them, `warn` at 36.
 *
 * A finding has gone when it was not so, with some room, for half of the window. */
#include "engine/detect/counter_series.h"
#include "engine/detect/memory_left.h"

#include "engine/base/util.h"
#include <math.h>
#include <string.h>

#define STALL_LOOKS 3 /* in a row */
#define LEFT_WINDOWS 6
#define WARN_WINDOWS 36
#define LEAVE_TIMES 1.5 /* of the time left; … */
#define LEAVE_PART 0.9  /* … of the usage; … */
#define LEAVE_STALL 0.2 /* … of the stall */
#define RESOLVE_PARTS 2 /* of the window */

enum { WINDOW, LEFT, WARN, USAGE_PCT, STALL_PCT };

static const struct detect_setting settings_table[] = {
	[WINDOW] = { "window", DETECT_DURATION, 600e9, 1e9, 720 * 3600e9, "for how long it must grow, 1s to 720h" },
	[LEFT] = { "left", DETECT_DURATION, 3600e9, 0, 720 * 3600e9,
		"time until the limit, that is critical, up to 720h and 6 windows" },
	[WARN] = { "warn", DETECT_DURATION, 0, 0, 720 * 3600e9,
		"time until the limit, that is a warning (0: none), up to 720h and 36 windows" },
	[USAGE_PCT] = { "usage-pct", DETECT_PERCENT, 95, 1, 100,
		"percent of the limit, that are a fault while tasks wait for memory, 1 to 100" },
	[STALL_PCT] = { "stall-pct", DETECT_PERCENT, 10, 0.1, 100,
		"percent of the time that tasks wait for memory, 0.1 to 100" },
	{ 0 },
};

static const struct leak_words words = { "oom-risk", "Counter Value" };

struct state {
	struct memory_left left;
	struct leak_fault fault;
	unsigned stalled; /* looks in a row */
	uint64_t bad_ns;  /* the last look at which it was so */
};

/* What a look shows. */
struct risk {
	struct memory_limit limit;
	bool limited; /* the limit is known */
	bool soon, stalls;
};

static double usage_pct(const struct detect_process *process) {
	if (!series_is_known(process->memory_bytes) || !series_is_known(process->memory_limit_bytes))
		return 0;
	return 100 * (double)process->memory_bytes / (double)process->memory_limit_bytes;
}

static double critical_ns(const double *settings) {
	return fmin(settings[LEFT], LEFT_WINDOWS * settings[WINDOW]);
}

static bool is_soon(const struct risk *risk, const double *settings, bool firing) {
	double within = fmax(critical_ns(settings), fmin(settings[WARN], WARN_WINDOWS * settings[WINDOW]));

	if (firing)
		within *= LEAVE_TIMES;
	return risk->limited && risk->limit.left_ns != UINT64_MAX && (double)risk->limit.left_ns < within;
}

static bool is_stalling(const struct detect_process *process, const double *settings, bool firing) {
	return usage_pct(process) >= settings[USAGE_PCT] * (firing ? LEAVE_PART : 1) &&
		process->memory_stall_pct >= settings[STALL_PCT] * (firing ? LEAVE_STALL : 1);
}

static struct risk look(struct state *state, const double *settings, const struct detect_input *input) {
	struct risk risk = { .limit.left_ns = UINT64_MAX, .limit.bytes = UINT64_MAX };
	bool firing = state->fault.firing;

	memory_left_look(&state->left, input, (uint64_t)settings[WINDOW]);
	risk.limited = memory_left_limit(&state->left, input->process, &risk.limit);
	risk.soon = is_soon(&risk, settings, firing);
	state->stalled = is_stalling(input->process, settings, firing) ? state->stalled + 1 : 0;
	risk.stalls = state->stalled >= (firing ? 1 : STALL_LOOKS);
	return risk;
}

/* Words. */

static void add_facts(struct detect_verdict *verdict, const struct risk *risk, const double *settings,
	const struct detect_process *process) {
	bool limited = series_is_known(process->memory_limit_bytes);

	detect_fact_count(verdict, "private_bytes", process->private_bytes);
	detect_fact_count(verdict, "group_bytes", limited ? process->memory_bytes : UINT64_MAX);
	detect_fact_count(verdict, "limit", risk->limit.bytes);
	detect_fact_text(
		verdict, "limit_of", risk->limited ? (risk->limit.machine ? "machine" : "control group") : NULL);
	detect_fact_number(
		verdict, "time_left_s", risk->limit.left_ns != UINT64_MAX ? (double)risk->limit.left_ns / 1e9 : -1);
	detect_fact_count(verdict, "host_available_bytes", process->host_available_bytes);
	detect_fact_number(verdict, "memory_stall_percent", process->memory_stall_pct);
	detect_fact_number(verdict, "window_s", settings[WINDOW] / 1e9);
}

static void add_stall(struct strbuf *sb, const struct detect_process *process) {
	strbuf_addf(sb, "the control group uses %.0f %% of its limit of ", usage_pct(process));
	detect_add_bytes(sb, (double)process->memory_limit_bytes);
	strbuf_addf(sb, ", and its tasks wait for memory %.0f %% of the time", process->memory_stall_pct);
}

static void add_soon(struct strbuf *sb, const struct risk *risk, const struct detect_process *process) {
	char duration[32];

	detect_duration_text(risk->limit.left_ns, duration, sizeof(duration));
	strbuf_adds(sb, "the process has ");
	detect_add_bytes(sb, (double)process->private_bytes);
	if (risk->limit.machine) {
		strbuf_adds(sb, " and the machine ");
		detect_add_bytes(sb, (double)process->host_available_bytes);
		strbuf_adds(sb, " left, which");
	} else {
		strbuf_adds(sb, ", the limit of ");
		detect_add_bytes(sb, (double)risk->limit.bytes);
	}
	strbuf_addf(sb, risk->limit.machine ? " are used up in %s" : " is reached in %s", duration);
}

static int say(const struct state *state, const struct risk *risk, const double *settings,
	const struct detect_input *input, detect_verdicts *verdicts) {
	struct detect_verdict verdict = leak_verdict(&state->fault, &words);
	const struct detect_process *process = input->process;
	struct strbuf sb = { 0 };

	if (risk->stalls || (risk->soon && (double)risk->limit.left_ns < critical_ns(settings)))
		verdict.severity = PYSPYD_CRITICAL;
	verdict.fading = !risk->soon && !risk->stalls;
	verdict.inferred = !risk->stalls;
	verdict.certain_why = verdict.inferred ? "the time left is what its growth of the last minutes comes to" : NULL;
	verdict.advice = "`pyspyd heap --pid PID --diff 10s` names what grows. Give the process less at once, or the "
			 "group more memory, before the kernel ends it.";
	add_facts(&verdict, risk, settings, process);
	strbuf_adds(&sb, "oom-risk: ");
	if (risk->stalls)
		add_stall(&sb, process);
	if (risk->stalls && risk->soon)
		strbuf_adds(&sb, "; ");
	if (risk->soon)
		add_soon(&sb, risk, process);
	return leak_say(&verdict, &sb, verdicts);
}

static int decide(void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	struct state *state = arg;
	struct risk risk = look(state, settings, input);
	bool bad = risk.soon || risk.stalls;
	int r;

	if (bad)
		state->bad_ns = input->now_ns;
	else if (state->fault.firing)
		bad = (double)(input->now_ns - state->bad_ns) < settings[WINDOW] / RESOLVE_PARTS;
	r = leak_settle(&state->fault, bad, input->now_ns, &words, "calm", verdicts);
	return r || !state->fault.firing ? r : say(state, &risk, settings, input, verdicts);
}

const struct detector oom_risk_detector = {
	.kind = "oom-risk",
	.settings = settings_table,
	.state_bytes = sizeof(struct state),
	.decide = decide,
};
