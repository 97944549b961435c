/* SPDX-License-Identifier: MIT */
#include "daemon/restart.h"

#include "daemon/log.h"
#include "pyspyd/finding.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct open_events {
	struct open_event {
		struct pyspyd_event event; /* its texts are in `json`'s object */
		json_t *finding;
	} * items;
	size_t n, cap;
};

static int keep(void *userdata, const struct pyspyd_event *event) {
	struct open_events *events = userdata;
	json_t *finding = json_loads(event->json, 0, NULL);

	if (!finding)
		return 0; /* what cannot be read cannot be resolved either */
	if (events->n == events->cap) {
		size_t cap = events->cap ? events->cap * 2 : 64;
		struct open_event *items = realloc(events->items, cap * sizeof(*items));

		if (!items) {
			json_decref(finding);
			return -ENOMEM;
		}
		events->items = items;
		events->cap = cap;
	}
	events->items[events->n++] = (struct open_event){ .event = *event, .finding = finding };
	return 0;
}

static void put_time(json_t *finding, uint64_t real_ns) {
	time_t seconds = (time_t)(real_ns / 1000000000ULL);
	char text[64], whole[48];
	struct tm tm;

	if (!gmtime_r(&seconds, &tm))
		return;
	strftime(whole, sizeof(whole), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%09uZ", whole, (unsigned)(real_ns % 1000000000ULL));
	json_object_set_new(finding, "time", json_string(text));
}

static int resolve(struct pyspyd_store *store, struct open_event *open, uint64_t now_real_ns) {
	json_t *evidence = json_object_get(open->finding, "evidence");
	struct pyspyd_event event = open->event;
	uint64_t seq;
	char *json;
	int r;

	json_object_set_new(open->finding, "state", json_string("resolved"));
	put_time(open->finding, now_real_ns);
	if (json_is_object(evidence))
		json_object_set_new(evidence, "ended", json_string("restarted"));
	json = json_dumps(open->finding, JSON_COMPACT);
	if (!json)
		return -ENOMEM;
	event.id = json_string_value(json_object_get(open->finding, "id"));
	event.fingerprint = json_string_value(json_object_get(open->finding, "fingerprint"));
	event.kind = json_string_value(json_object_get(open->finding, "kind"));
	event.state = PYSPYD_RESOLVED;
	event.time_real_ns = now_real_ns;
	event.json = json;
	r = event.id && event.fingerprint && event.kind ? pyspyd_store_put_event(store, &event, &seq) : 0;
	free(json);
	return r;
}

int restart_resolve(struct pyspyd_store *store, uint64_t now_real_ns) {
	const struct pyspyd_event_filter filter = { .open = true, .uid = (uid_t)-1 };
	struct open_events events = { 0 };
	int r = pyspyd_store_events(store, &filter, keep, &events);

	for (size_t i = 0; i < events.n; i++) {
		if (!r)
			r = resolve(store, &events.items[i], now_real_ns);
		json_decref(events.items[i].finding);
	}
	if (!r && events.n)
		log_say(LOG_INFO, "%zu findings were open when the service ended last, and are resolved", events.n);
	free(events.items);
	return r;
}
