/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DETECT_COUNTER_SERIES_H
#define PYSPYD_DETECT_COUNTER_SERIES_H

#include "engine/detect/words.h"
#include "engine/leaks/trend.h"

/* What detectors of leaks have in common: a counter of a process as a series, the limit that it may be near, and the
 * one fault that there is at most. Zeroed memory is a fresh one of each. */

/* Each of them begins its table of settings with these. */
enum { SERIES_WINDOW, SERIES_GROW, SERIES_PCT, SERIES_SETTINGS };

#define SERIES_WINDOW_SETTING(default_ns) \
	{ "window", DETECT_DURATION, default_ns, 1e9, 720 * 3600e9, "for how long it must grow, 1s to 720h" }

/* Not known, or no limit; 0 where nobody filled it in. */
static inline bool series_is_known(uint64_t value) {
	return value && value != UINT64_MAX;
}

struct counter_series {
	struct trend trend;
	bool begun;
};

/* The rule that the settings make: `persist` verdicts in a row, `unit` is what a number of SERIES_GROW stands for. */
struct trend_rule series_rule(const double *settings, const struct detect_input *input, unsigned persist, double unit);
void series_add(
	struct counter_series *series, const struct trend_rule *rule, const struct detect_input *input, uint64_t value);
bool series_is_suspect(const struct counter_series *series);

/* The facts of a counter that grows, 4 of them; the verdict becomes inferred. */
void series_add_facts(
	struct detect_verdict *verdict, const struct counter_series *series, uint64_t value, const double *settings);
/* ", 300 more in 30 min 0 s (600 an hour)"; nothing of one that does not grow. */
void series_add_words(struct strbuf *sb, const struct counter_series *series, const struct detect_input *input);

/* Near its limit: in several looks in a row, until it is well below. */
struct counter_limit {
	unsigned looks;
	bool near;
};

void limit_look(struct counter_limit *limit, uint64_t value, uint64_t most, double pct);
void limit_add_words(struct strbuf *sb, uint64_t value, uint64_t most); /* "81 % of the limit of 1,000" */

/* The fault. */

struct leak_words {
	const char *kind, *pattern;
};

struct leak_fault {
	uint64_t key;
	uint64_t since_ns;
	bool firing;
};

/* A warning with no party, no fact and an empty summary yet. */
struct detect_verdict leak_verdict(const struct leak_fault *fault, const struct leak_words *words);

/* The fault is present now, or not: one that has gone is told, with `ended` ("no-growth"). Return: 0; -ENOMEM. */
int leak_settle(struct leak_fault *fault, bool present, uint64_t since_ns, const struct leak_words *words,
	const char *ended, detect_verdicts *verdicts);

/* The verdict with its summary goes out. Return: 0; -ENOMEM. */
int leak_say(struct detect_verdict *verdict, struct strbuf *sb, detect_verdicts *verdicts);

#endif
