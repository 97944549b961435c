/* SPDX-License-Identifier: MIT */
/* Counters of a process that may leak: series, limits, and the fault that comes of them.
 *
 * A process that opens and closes, a pool that grows to its size and a burst leave the floors of a series where they
 * were, or stop growing; what leaks raises them for a whole window and some sixths of it more (leaks/trend.h). */
#include "engine/detect/counter_series.h"

#include <string.h>

#define NEAR_LOOKS 3   /* in a row, at the limit */
#define NEAR_LEAVE 0.9 /* of the percentage: below it the limit is not near any more */

struct trend_rule series_rule(const double *settings, const struct detect_input *input, unsigned persist, double unit) {
	uint64_t window_ns = (uint64_t)settings[SERIES_WINDOW];

	return (struct trend_rule){
		.window_ns = window_ns,
		.period_ns = input->process->period_ns,
		.warmup_ns = TREND_WARMUP_NS(window_ns),
		.persist = persist,
		.least = settings[SERIES_GROW] * unit,
		.least_pct = settings[SERIES_PCT],
	};
}

void series_add(struct counter_series *series, const struct trend_rule *rule, const struct detect_input *input,
	uint64_t value) {
	uint64_t start_ns = input->process->start_ns;

	if (value == UINT64_MAX)
		return;
	if (!series->begun) {
		trend_init(&series->trend, rule, start_ns ? start_ns : UINT64_MAX);
		series->begun = true;
	}
	trend_add(&series->trend, input->now_ns, (double)value);
}

bool series_is_suspect(const struct counter_series *series) {
	return series->begun && series->trend.verdict.tier == TREND_SUSPECT;
}

void series_add_facts(
	struct detect_verdict *verdict, const struct counter_series *series, uint64_t value, const double *settings) {
	const struct trend_verdict *seen = &series->trend.verdict;
	bool grows = series_is_suspect(series);

	detect_fact_count(verdict, "count", value);
	detect_fact_count(verdict, "count_at_first", grows ? (uint64_t)seen->from : UINT64_MAX);
	detect_fact_number(verdict, "per_hour", grows ? seen->per_hour : -1);
	detect_fact_number(verdict, "window_s", settings[SERIES_WINDOW] / 1e9);
	verdict->inferred = true;
	verdict->certain_why = "the numbers say that it grows, not what keeps it";
}

void series_add_words(struct strbuf *sb, const struct counter_series *series, const struct detect_input *input) {
	const struct trend_verdict *seen = &series->trend.verdict;
	char duration[32];

	if (!series_is_suspect(series))
		return;
	detect_duration_text(input->now_ns - seen->since_ns, duration, sizeof(duration));
	strbuf_adds(sb, ", ");
	detect_add_count(sb, seen->to - seen->from);
	strbuf_addf(sb, " more in %s (", duration);
	detect_add_count(sb, seen->per_hour);
	strbuf_adds(sb, " an hour)");
}

void limit_look(struct counter_limit *limit, uint64_t value, uint64_t most, double pct) {
	double now_pct;

	if (value == UINT64_MAX || !series_is_known(most)) {
		*limit = (struct counter_limit){ 0 };
		return;
	}
	now_pct = 100 * (double)value / (double)most;
	limit->looks = now_pct >= pct ? limit->looks + 1 : 0;
	if (limit->looks >= NEAR_LOOKS)
		limit->near = true;
	else if (now_pct < NEAR_LEAVE * pct)
		limit->near = false;
}

void limit_add_words(struct strbuf *sb, uint64_t value, uint64_t most) {
	strbuf_addf(sb, "%.0f %% of the limit of ", 100 * (double)value / (double)most);
	detect_add_count(sb, (double)most);
}

struct detect_verdict leak_verdict(const struct leak_fault *fault, const struct leak_words *words) {
	return (struct detect_verdict){
		.kind = words->kind,
		.pattern = words->pattern,
		.key = fault->key,
		.presence = DETECT_PRESENT,
		.severity = PYSPYD_WARNING,
		.since_ns = fault->since_ns,
		.knot = UINT32_MAX,
	};
}

int leak_settle(struct leak_fault *fault, bool present, uint64_t since_ns, const struct leak_words *words,
	const char *ended, detect_verdicts *verdicts) {
	int r = 0;

	if (present && !fault->firing) {
		fault->key++;
		fault->since_ns = since_ns;
	} else if (!present && fault->firing) {
		struct detect_verdict verdict = leak_verdict(fault, words);

		verdict.presence = DETECT_ABSENT;
		verdict.ended = ended;
		r = vec_push(verdicts, verdict);
	}
	fault->firing = present;
	return r;
}

int leak_say(struct detect_verdict *verdict, struct strbuf *sb, detect_verdicts *verdicts) {
	int r = detect_set_summary(verdict, sb, "");

	return r ? r : vec_push(verdicts, *verdict);
}
