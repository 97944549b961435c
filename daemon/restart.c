/* SPDX-License-Identifier: MIT */
/* Findings that were left open, out of the last event of each. What is needed to know one again is read from it; where
 * it ends, that event is told once more, as resolved. An event that cannot be read is left as it is. */
#include "daemon/restart.h"

#include "daemon/log.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_S 1000000000ULL
#define LEFT_MAX 10000
#define TIDS_MAX 16

struct left { /* what one of the engine's points to */
	char *id, *fingerprint, *kind;
	pid_t tids[TIDS_MAX];
};

struct restart {
	struct pyspyd_left_open *open;
	struct left **left; /* as many */
	size_t n;
	struct status *status;
};

static void free_left(struct left *left) {
	if (!left)
		return;
	free(left->id);
	free(left->fingerprint);
	free(left->kind);
	free(left);
}

/* "2026-01-31T12:00:00.123456789Z"; 0: it is none. */
static uint64_t read_time(const char *text) {
	struct tm tm = { 0 };
	unsigned ns = 0;
	time_t seconds;

	if (!text ||
		sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%9uZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
			&tm.tm_min, &tm.tm_sec, &ns) != 7)
		return 0;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	seconds = timegm(&tm);
	return seconds > 0 ? (uint64_t)seconds * NS_PER_S + ns : 0;
}

static uint64_t since_of(const json_t *finding, const struct pyspyd_event *event) {
	uint64_t since = read_time(json_string_value(json_object_get(finding, "since")));

	return since && since <= event->time_real_ns ? since : event->time_real_ns;
}

static size_t read_tids(const json_t *threads, pid_t tids[TIDS_MAX]) {
	size_t n = 0;

	for (size_t i = 0; n < TIDS_MAX && i < json_array_size(threads); i++) {
		json_int_t tid = json_integer_value(json_object_get(json_array_get(threads, i), "tid"));

		if (tid > 0 && tid <= INT32_MAX)
			tids[n++] = (pid_t)tid;
	}
	return n;
}

static int add(struct restart *restart, const struct pyspyd_event *event, struct left *left, const json_t *finding) {
	struct pyspyd_left_open *open = realloc(restart->open, (restart->n + 1) * sizeof(*open));
	struct left **all;

	if (!open)
		return -ENOMEM;
	restart->open = open;
	all = realloc(restart->left, (restart->n + 1) * sizeof(struct left *));
	if (!all)
		return -ENOMEM;
	restart->left = all;
	restart->left[restart->n] = left;
	restart->open[restart->n++] = (struct pyspyd_left_open){
		.id = left->id,
		.fingerprint = left->fingerprint,
		.kind = left->kind,
		.pid = event->pid,
		.start_real_ns = event->start_real_ns,
		.since_real_ns = since_of(finding, event),
		.tids = left->tids,
		.tids_n = read_tids(json_object_get(finding, "threads"), left->tids),
	};
	return 0;
}

static int keep(void *userdata, const struct pyspyd_event *event) {
	struct restart *restart = userdata;
	json_t *finding = json_loads(event->json, 0, NULL);
	struct left *left = calloc(1, sizeof(*left));
	int r = -ENOMEM;

	if (left) {
		left->id = strdup(event->id);
		left->fingerprint = strdup(event->fingerprint);
		left->kind = strdup(event->kind);
	}
	if (left && left->id && left->fingerprint && left->kind)
		r = add(restart, event, left, finding);
	if (r)
		free_left(left);
	else
		status_count_left_open(restart->status, event);
	json_decref(finding);
	return r;
}

int restart_new(struct pyspyd_store *store, struct status *status, struct restart **ret_restart) {
	const struct pyspyd_event_filter filter = { .open = true, .uid = (uid_t)-1, .most = LEFT_MAX };
	struct restart *restart = calloc(1, sizeof(*restart));
	int r;

	if (!restart)
		return -ENOMEM;
	restart->status = status;
	r = pyspyd_store_events(store, &filter, keep, restart);
	if (r == -ENOMEM) {
		restart_free(restart);
		return r;
	}
	if (r)
		log_say(LOG_WARNING, "not all findings that were open can be read: %s", strerror(-r));
	if (restart->n)
		log_say(LOG_INFO, "%zu findings were open when the service ended last: it looks for them again",
			restart->n);
	*ret_restart = restart;
	return 0;
}

void restart_free(struct restart *restart) {
	if (!restart)
		return;
	for (size_t i = 0; i < restart->n; i++)
		free_left(restart->left[i]);
	free(restart->left);
	free(restart->open);
	free(restart);
}

const struct pyspyd_left_open *restart_left(const struct restart *restart, size_t *ret_n) {
	*ret_n = restart->n;
	return restart->open;
}

/* The end of one. */

struct end {
	struct status *status;
	const char *ended;
	uint64_t now_real_ns;
};

static bool put_time(json_t *finding, uint64_t real_ns) {
	time_t seconds = (time_t)(real_ns / NS_PER_S);
	char text[64], whole[48];
	struct tm tm;

	if (!gmtime_r(&seconds, &tm))
		return false;
	strftime(whole, sizeof(whole), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%09uZ", whole, (unsigned)(real_ns % NS_PER_S));
	return !json_object_set_new(finding, "time", json_string(text));
}

static char *ended_json(json_t *finding, const struct pyspyd_event *event, const struct end *end) {
	json_t *evidence = json_object_get(finding, "evidence");
	uint64_t since = since_of(finding, event);
	double duration_s = end->now_real_ns > since ? (double)(end->now_real_ns - since) / (double)NS_PER_S : 0;
	bool ok = !json_object_set_new(finding, "state", json_string("resolved"));

	ok = ok && put_time(finding, end->now_real_ns);
	ok = ok && !json_object_set_new(finding, "duration_s", json_real(duration_s));
	if (ok && json_is_object(evidence))
		ok = !json_object_set_new(evidence, "ended", json_string(end->ended));
	return ok ? json_dumps(finding, JSON_COMPACT) : NULL;
}

static int resolve(void *userdata, const struct pyspyd_event *last) {
	const struct end *end = userdata;
	struct pyspyd_event event = *last;
	json_t *finding = json_loads(last->json, 0, NULL);
	char *json = json_is_object(finding) ? ended_json(finding, last, end) : NULL;
	bool readable = finding;

	json_decref(finding);
	if (!json)
		return readable ? -ENOMEM : 0;
	event.state = PYSPYD_RESOLVED;
	event.time_real_ns = end->now_real_ns;
	event.json = json;
	status_keep_event(end->status, &event);
	status_count_left_ended(end->status, &event);
	free(json);
	return 0;
}

int restart_resolve(
	struct pyspyd_store *store, struct status *status, const char *id, const char *ended, uint64_t now_real_ns) {
	const struct pyspyd_event_filter filter = { .id = id, .open = true, .uid = (uid_t)-1 };
	struct end end = { status, ended, now_real_ns };

	return pyspyd_store_events(store, &filter, resolve, &end);
}
