/* SPDX-License-Identifier: MIT */
/* The folder between the crash handler, which is root's, and the service. A file has two lines:
 *
 *	{"schema": "pyspyd.spool/1", "start_ns": 1700000000000000000}
 *	{"schema": "pyspyd.finding/1", …}
 *
 * What is no such file is said once, and removed. A finding is told of as new and, since the process is gone, as
 * resolved; where the engine has seen the end of the process too, its finding is told once more, with what the core
 * has. Where the engine sees it later, nothing new is told: the finding gains what only the engine had. */
#include "daemon/crashes.h"

#include "daemon/crash_handler.h"
#include "daemon/log.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define AT_ONCE 32
#define BEFORE_NS (600 * 1000000000ULL) /* how far back the engine's finding may be */
#define SAME_NS 1000000000ULL           /* two readings of one start differ by less */

struct known {
	uint64_t start_ns;
	char *id, *fingerprint, *since;
};

static void known_deinit(struct known *known) {
	free(known->id);
	free(known->fingerprint);
	free(known->since);
}

static const char *text_of(const json_t *object, const char *key) {
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static int is_same(void *userdata, const struct pyspyd_event *event) {
	struct known *known = userdata;
	uint64_t a = known->start_ns, b = event->start_real_ns;
	json_t *finding;

	if ((a > b ? a - b : b - a) > SAME_NS)
		return 0;
	finding = json_loads(event->json, 0, NULL);
	known->id = strdup(event->id);
	known->fingerprint = strdup(event->fingerprint);
	known->since = strdup(text_of(finding, "since"));
	json_decref(finding);
	return 1;
}

/* Takes over what tells the engine's finding apart. Return: whether there is one. */
static bool go_on(struct pyspyd_store *store, json_t *finding, pid_t pid, uint64_t start_ns, uint64_t now_ns) {
	const struct pyspyd_event_filter filter = {
		.kind = "crash", .pid = pid, .uid = (uid_t)-1, .latest = true, .since_real_ns = now_ns - BEFORE_NS
	};
	struct known known = { .start_ns = start_ns };
	bool found = start_ns && pyspyd_store_events(store, &filter, is_same, &known) == 1 && known.id &&
		known.fingerprint && known.since;

	if (found) {
		json_object_set_new(finding, "id", json_string(known.id));
		json_object_set_new(finding, "fingerprint", json_string(known.fingerprint));
		json_object_set_new(finding, "since", json_string(known.since));
	}
	known_deinit(&known);
	return found;
}

static int severity_of(const char *name) {
	return !strcmp(name, "info") ? PYSPYD_INFO : !strcmp(name, "warning") ? PYSPYD_WARNING : PYSPYD_CRITICAL;
}

static int put(struct status *status, struct pyspyd_store *store, json_t *finding, const struct pyspyd_event *of,
	enum pyspyd_finding_state state) {
	struct pyspyd_finding counted = {
		.kind = (char *)(uintptr_t)of->kind, .severity = (enum pyspyd_severity)of->severity, .state = state
	};
	struct pyspyd_event event = *of;
	uint64_t seq;
	char *json;
	int r;

	json_object_set_new(finding, "state", json_string(state == PYSPYD_OPEN ? "open" : "resolved"));
	json = json_dumps(finding, JSON_COMPACT | JSON_ENSURE_ASCII);
	if (!json)
		return -ENOMEM;
	event.state = (int)state;
	event.json = json;
	r = pyspyd_store_put_event(store, &event, &seq);
	if (!r)
		status_count_finding(status, &counted);
	free(json);
	return r;
}

static int put_process(
	struct status *status, struct pyspyd_store *store, const json_t *process, const struct pyspyd_event *event) {
	const struct pyspyd_process row = {
		.pid = event->pid,
		.start_real_ns = event->start_real_ns,
		.uid = event->uid,
		.name = (char *)(uintptr_t)text_of(process, "name"),
		.unit = (char *)(uintptr_t)text_of(process, "unit"),
		.container = (char *)(uintptr_t)text_of(process, "container"),
	};

	return status_process_number(status, store, &row, &(int64_t){ 0 });
}

static uint64_t now_real_ns(void) {
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

int crashes_put(struct status *status, struct pyspyd_store *store, json_t *finding, uint64_t start_ns, bool told_of) {
	const json_t *process = json_object_get(finding, "process");
	json_int_t pid = json_integer_value(json_object_get(process, "pid"));
	uint64_t now = now_real_ns();
	struct pyspyd_event event = {
		.time_real_ns = now,
		.id = text_of(finding, "id"),
		.fingerprint = text_of(finding, "fingerprint"),
		.kind = "crash",
		.severity = severity_of(text_of(finding, "severity")),
		.pid = (pid_t)pid,
		.start_real_ns = start_ns,
		.uid = (uid_t)json_integer_value(json_object_get(process, "uid")),
	};
	char id[32], fingerprint[40];
	int r;

	snprintf(id, sizeof(id), "%s", event.id);
	snprintf(fingerprint, sizeof(fingerprint), "%s", event.fingerprint);
	event.id = id;
	event.fingerprint = fingerprint;
	(void)!put_process(status, store, process, &event);
	r = told_of ? 0 : put(status, store, finding, &event, PYSPYD_OPEN);
	return r ? r : put(status, store, finding, &event, PYSPYD_RESOLVED);
}

/* What the crash handler has found. */
static int put_finding(struct status *status, struct pyspyd_store *store, json_t *finding, uint64_t start_ns) {
	json_int_t pid = json_integer_value(json_object_get(json_object_get(finding, "process"), "pid"));
	bool told_of = go_on(store, finding, (pid_t)pid, start_ns, now_real_ns());

	return crashes_put(status, store, finding, start_ns, told_of);
}

/* Before the engine has seen the end of a process, its finding may be here already. */

struct told {
	const struct pyspyd_event *by_engine;
	json_t *finding;
	struct known known;
};

static int is_told(void *userdata, const struct pyspyd_event *event) {
	struct told *told = userdata;
	uint64_t a = told->by_engine->start_real_ns, b = event->start_real_ns;
	bool same = b ? (a > b ? a - b : b - a) <= SAME_NS : a <= event->time_real_ns; /* 0: not known */

	if (!same || event->state != PYSPYD_RESOLVED)
		return 0;
	told->finding = json_loads(event->json, 0, NULL);
	told->known.id = strdup(event->id);
	told->known.fingerprint = strdup(event->fingerprint);
	return told->finding && told->known.id && told->known.fingerprint ? 1 : -ENOMEM;
}

/* Return: whether the engine's finding had anything that the other one has not. */
static bool add_missing(json_t *finding, const char *engines) {
	json_t *from = json_loads(engines, 0, NULL), *evidence = json_object_get(finding, "evidence");
	size_t before = json_object_size(evidence);
	bool more = evidence && !json_object_update_missing(evidence, json_object_get(from, "evidence")) &&
		json_object_size(evidence) > before;

	json_decref(from);
	return more;
}

int crashes_join(struct status *status, struct pyspyd_store *store, const struct pyspyd_event *event) {
	const struct pyspyd_event_filter filter = { .kind = "crash",
		.pid = event->pid,
		.uid = (uid_t)-1,
		.latest = true,
		.since_real_ns = event->time_real_ns - BEFORE_NS };
	struct told told = { .by_engine = event };
	struct pyspyd_event joined = *event;
	int r;

	if (strcmp(event->kind, "crash") != 0)
		return 0;
	r = pyspyd_store_events(store, &filter, is_told, &told);
	if (r == 1 && add_missing(told.finding, event->json)) {
		joined.time_real_ns = now_real_ns();
		joined.id = told.known.id;
		joined.fingerprint = told.known.fingerprint;
		joined.severity = severity_of(text_of(told.finding, "severity"));
		r = put(status, store, told.finding, &joined, PYSPYD_RESOLVED);
		r = r ? r : 1;
	}
	json_decref(told.finding);
	known_deinit(&told.known);
	return r;
}

struct looked_for {
	uint64_t died_ns;
	json_t **finding;
	uint64_t *start_ns;
};

/* Of processes that had the same pid one after the other only one lived then, and its end was told of after that. */
static int is_of(void *userdata, const struct pyspyd_event *event) {
	struct looked_for *looked_for = userdata;

	if (event->start_real_ns > looked_for->died_ns + SAME_NS)
		return 0;
	*looked_for->finding = json_loads(event->json, 0, NULL);
	*looked_for->start_ns = event->start_real_ns;
	return *looked_for->finding ? 1 : -EPROTO;
}

int crashes_find(
	struct pyspyd_store *store, pid_t pid, uint64_t died_ns, json_t **ret_finding, uint64_t *ret_start_ns) {
	const struct pyspyd_event_filter filter = {
		.kind = "crash", .pid = pid, .uid = (uid_t)-1, .latest = true, .since_real_ns = died_ns - 2 * SAME_NS
	};
	struct looked_for looked_for = { died_ns, ret_finding, ret_start_ns };

	return pyspyd_store_events(store, &filter, is_of, &looked_for);
}

/* Files. */

static bool is_ours(const struct stat *st) {
	return S_ISREG(st->st_mode) && (st->st_uid == 0 || st->st_uid == geteuid()) &&
		!(st->st_mode & (S_IWGRP | S_IWOTH)) && st->st_size > 0 && st->st_size < CRASH_FINDING_MAX + 4096;
}

static char *read_file(int folder_fd, const char *name) {
	int fd = openat(folder_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	char *text = NULL;
	ssize_t n = 0;

	if (fd >= 0 && !fstat(fd, &st) && is_ours(&st))
		text = malloc((size_t)st.st_size + 1);
	if (text)
		n = read(fd, text, (size_t)st.st_size);
	if (text)
		text[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		close(fd);
	return text;
}

/* Return: 0: it is in the store, or is none; negative errno: the store has not taken it. */
static int take(int folder_fd, const char *name, struct status *status, struct pyspyd_store *store) {
	char *text = read_file(folder_fd, name), *second = text ? strchr(text, '\n') : NULL;
	json_t *head = NULL, *finding = NULL;
	int r = 0;

	if (second) {
		*second = '\0';
		head = json_loads(text, 0, NULL);
		finding = json_loads(second + 1, 0, NULL);
	}
	if (strcmp(text_of(head, "schema"), "pyspyd.spool/1") != 0 || strcmp(text_of(finding, "kind"), "crash") != 0)
		log_say(LOG_WARNING, "%s is no finding of the crash handler, and is removed", name);
	else
		r = put_finding(
			status, store, finding, (uint64_t)json_integer_value(json_object_get(head, "start_ns")));
	if (!r && unlinkat(folder_fd, name, 0))
		r = -errno;
	json_decref(head);
	json_decref(finding);
	free(text);
	return r;
}

static bool is_finding(const char *name) {
	size_t n = strlen(name);

	return name[0] != '.' && n > 5 && n < CRASH_NAME_SIZE && !strcmp(name + n - 5, ".json");
}

/* A finding that stays where it is would be told of again and again. */
static bool may_remove(int folder_fd, const char *folder) {
	static bool said;
	bool may = !faccessat(folder_fd, ".", W_OK, 0);

	if (!may && !said)
		log_say(LOG_WARNING, "%s may not be written to by the service: findings of crashes wait there", folder);
	said = !may;
	return may;
}

int crashes_take(const char *folder, struct status *status, struct pyspyd_store *store) {
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), taken = 0, r = 0;
	DIR *dir = fd < 0 || !may_remove(fd, folder) ? NULL : fdopendir(fd);

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	for (struct dirent *entry; !r && taken < AT_ONCE && (entry = readdir(dir));)
		if (is_finding(entry->d_name)) {
			r = take(fd, entry->d_name, status, store);
			taken += !r;
		}
	closedir(dir);
	return r ? r : taken;
}
