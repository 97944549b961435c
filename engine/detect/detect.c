/* SPDX-License-Identifier: MIT */
/* The table of detectors, their settings, and their states for one process. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include "engine/base/util.h"
#include "pyspyd/parse.h"
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#define DETECTOR(name) &name##_detector,
const struct detector *const detectors[] = {
#include "engine/detect/detectors.def"
};
#undef DETECTOR

const size_t detectors_n = ARRAY_SIZE(detectors);
static_assert(ARRAY_SIZE(detectors) <= DETECT_MAX, "detect_config has a row for each");

void detect_config_init(struct detect_config *config) {
	*config = (struct detect_config){ 0 };
	for (size_t i = 0; i < detectors_n; i++)
		for (size_t j = 0; detectors[i]->settings[j].name; j++)
			config->values[i][j] = detectors[i]->settings[j].value;
}

/* Return: the index of the setting "detector.key" (length n), or of none: false. */
static bool find_setting(const char *name, size_t n, size_t *ret_detector, size_t *ret_setting) {
	for (size_t i = 0; i < detectors_n; i++) {
		size_t kind_n = strlen(detectors[i]->kind);

		if (n <= kind_n || strncmp(name, detectors[i]->kind, kind_n) != 0 || name[kind_n] != '.')
			continue;
		for (size_t j = 0; detectors[i]->settings[j].name; j++) {
			const char *key = detectors[i]->settings[j].name;

			if (strlen(key) != n - kind_n - 1 || strncmp(name + kind_n + 1, key, strlen(key)) != 0)
				continue;
			*ret_detector = i;
			*ret_setting = j;
			return true;
		}
	}
	return false;
}

static int unknown_setting(const char *assignment, struct err *err) {
	struct strbuf known = { 0 }, shown = { 0 };

	for (size_t i = 0; i < detectors_n; i++)
		for (size_t j = 0; detectors[i]->settings[j].name; j++)
			strbuf_addf(&known, "%s%s.%s", known.len ? ", " : "", detectors[i]->kind,
				detectors[i]->settings[j].name);
	strbuf_add_printable(&shown, assignment, strnlen(assignment, 200));
	err_set(err, PYSPYD_E_USAGE, "\"%s\" is no setting of a detector (DETECTOR.KEY=VALUE); there are: %s",
		strbuf_str(&shown), strbuf_str(&known));
	strbuf_deinit(&known);
	strbuf_deinit(&shown);
	return PYSPYD_E_USAGE;
}

static int parse_value(const struct detect_setting *setting, const char *text, double *ret_value) {
	char number[32];
	size_t n = strlen(text);
	uint64_t ns;
	int r;

	if (setting->unit == DETECT_DURATION) {
		r = parse_duration(text, &ns);
		if (!r)
			*ret_value = (double)ns;
		return r;
	}
	if (n >= sizeof(number))
		return -EINVAL;
	memcpy(number, text, n + 1);
	if (setting->unit == DETECT_PERCENT && n && number[n - 1] == '%')
		number[n - 1] = '\0';
	return parse_decimal(number, ret_value);
}

int detect_config_set(struct detect_config *config, const char *assignment, struct err *err) {
	const char *equals = strchr(assignment, '=');
	const struct detect_setting *setting;
	struct strbuf shown = { 0 };
	double value = 0;
	size_t i, j;

	if (!equals || !find_setting(assignment, (size_t)(equals - assignment), &i, &j))
		return unknown_setting(assignment, err);
	setting = &detectors[i]->settings[j];
	if (!parse_value(setting, equals + 1, &value) && value >= setting->least && value <= setting->most) {
		config->values[i][j] = value;
		return 0;
	}
	strbuf_add_printable(&shown, equals + 1, strnlen(equals + 1, 200));
	err_set(err, PYSPYD_E_USAGE, "%s.%s: \"%s\" is not %s in the range that makes sense (%s)", detectors[i]->kind,
		setting->name, strbuf_str(&shown), setting->unit == DETECT_DURATION ? "a duration" : "a number",
		setting->help);
	strbuf_deinit(&shown);
	return PYSPYD_E_USAGE;
}

double detect_config_get(const struct detect_config *config, const char *setting) {
	size_t i, j;
	bool found = find_setting(setting, strlen(setting), &i, &j);

	assert(found);
	return found ? config->values[i][j] : 0;
}

uint64_t detect_config_longest(const struct detect_config *config, const char *kind) {
	double longest = 0;

	for (size_t i = 0; i < detectors_n; i++)
		for (size_t j = 0; !strcmp(detectors[i]->kind, kind) && detectors[i]->settings[j].name; j++)
			if (detectors[i]->settings[j].unit == DETECT_DURATION)
				longest = max_of(longest, config->values[i][j]);
	return (uint64_t)longest;
}

struct detect_set {
	void *states[DETECT_MAX];
};

int detect_set_new(struct detect_set **ret_set) {
	struct detect_set *set = calloc(1, sizeof(*set));

	if (!set)
		return -ENOMEM;
	for (size_t i = 0; i < detectors_n; i++) {
		set->states[i] = calloc(1, max_of(detectors[i]->state_bytes, (size_t)1));
		if (!set->states[i]) {
			detect_set_free(set);
			return -ENOMEM;
		}
	}
	*ret_set = set;
	return 0;
}

void detect_set_free(struct detect_set *set) {
	if (!set)
		return;
	for (size_t i = 0; i < detectors_n; i++) {
		if (set->states[i] && detectors[i]->state_deinit)
			detectors[i]->state_deinit(set->states[i]);
		free(set->states[i]);
	}
	free(set);
}

int detect_set_decide(struct detect_set *set, const struct detect_config *config, const struct detect_input *input,
	detect_verdicts *verdicts) {
	int r = 0;

	verdicts->n = 0;
	for (size_t i = 0; !r && i < detectors_n; i++)
		if (detectors[i]->at_end == (input->end != NULL))
			r = detectors[i]->decide(set->states[i], config->values[i], input, verdicts);
	return r;
}

void detect_duration_text(uint64_t ns, char *out, size_t size) {
	uint64_t s = (ns + NS_PER_SEC / 2) / NS_PER_SEC;

	if (s < 60)
		snprintf(out, size, "%" PRIu64 " s", s);
	else if (s < 3600)
		snprintf(out, size, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
	else
		snprintf(out, size, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
}
