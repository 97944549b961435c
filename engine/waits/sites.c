/* SPDX-License-Identifier: MIT */
/* Recognising the places where threads wait, by table. Pure: frames in, a word out. */
#include "engine/waits/sites.h"

#include <string.h>

struct site_row {
	const char *module, *function;
	enum wait_site_kind kind;
};

struct park_row {
	const char *module, *function, *words;
};

static const char *const plumbing[] = {
#define PLUMBING(module) module,
#define SITE(module, function, kind)
#define PARK(module, function, words)
#include "engine/waits/sites.def"
#undef PLUMBING
#undef SITE
#undef PARK
};

static const struct site_row sites[] = {
#define PLUMBING(module)
#define SITE(module, function, kind) { module, function, kind },
#define PARK(module, function, words)
#include "engine/waits/sites.def"
#undef PLUMBING
#undef SITE
#undef PARK
};

static const struct park_row parks[] = {
#define PLUMBING(module)
#define SITE(module, function, kind)
#define PARK(module, function, words) { module, function, words },
#include "engine/waits/sites.def"
#undef PLUMBING
#undef SITE
#undef PARK
};

struct park_rules {
	VEC(struct park_row) rows; /* strings are one allocation each, at module */
};

static bool is_plumbing(const struct view_frame *frame) {
	for (size_t i = 0; i < ARRAY_SIZE(plumbing); i++)
		if (view_frame_is(frame, plumbing[i], NULL))
			return true;
	return false;
}

size_t site_own_frame(const struct view_thread *thread) {
	for (size_t i = 0; i < thread->frames_n; i++)
		if (!is_plumbing(&thread->frames[i]))
			return i;
	return 0;
}

struct wait_site site_of(const struct view_thread *thread) {
	struct wait_site site = { SITE_NONE, 0 };

	for (size_t i = 0; i < thread->frames_n && is_plumbing(&thread->frames[i]); i++)
		for (size_t k = 0; k < ARRAY_SIZE(sites); k++)
			if (view_frame_is(&thread->frames[i], sites[k].module, sites[k].function))
				site = (struct wait_site){ sites[k].kind, i };
	return site;
}

static bool parked_at(const struct view_frame *frame, const struct park_row *row) {
	const char *function = row->function;

	if (!view_frame_is(frame, row->module, NULL))
		return false;
	return !function[0] || !strcmp(frame->function, function) || !strcmp(frame->qualname, function);
}

/* The program's own innermost frame counts too: a rule may name it. */
const char *site_park(const struct park_rules *rules, const struct view_thread *thread) {
	for (size_t i = 0; i < thread->frames_n; i++) {
		for (size_t k = 0; k < ARRAY_SIZE(parks); k++)
			if (parked_at(&thread->frames[i], &parks[k]))
				return parks[k].words;
		for (size_t k = 0; rules && k < rules->rows.n; k++)
			if (parked_at(&thread->frames[i], &rules->rows.items[k]))
				return rules->rows.items[k].words;
		if (!is_plumbing(&thread->frames[i]))
			return NULL;
	}
	return NULL;
}

/* "MODULE:QUALNAME" */
static int add_rule(struct park_rules *rules, const char *text, struct err *err) {
	char *copy = strdup(text), *colon;
	int r;

	if (!copy)
		return -ENOMEM;
	colon = strchr(copy, ':');
	if (!colon || colon == copy || !colon[1]) {
		free(copy);
		return err_set(err, PYSPYD_E_USAGE, "'%s' is not MODULE:QUALNAME", text);
	}
	*colon = '\0';
	r = vec_push(&rules->rows, (struct park_row){ copy, colon + 1, "park site" });
	if (r)
		free(copy);
	return r;
}

int park_rules_new(const char *const *park, struct park_rules **ret_rules, struct err *err) {
	struct park_rules *rules = calloc(1, sizeof(*rules));
	int r = rules ? 0 : -ENOMEM;

	for (; !r && park && *park; park++)
		r = add_rule(rules, *park, err);
	if (r)
		park_rules_free(rules);
	else
		*ret_rules = rules;
	return r;
}

void park_rules_free(struct park_rules *rules) {
	if (!rules)
		return;
	vec_foreach (row, &rules->rows)
		free((void *)(uintptr_t)row->module);
	vec_free(&rules->rows);
	free(rules);
}
