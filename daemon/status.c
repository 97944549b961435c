/* SPDX-License-Identifier: MIT */
#include "daemon/status.h"

#include "daemon/log.h"
#include "pyspyd/version.h"
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#define PENDING_MAX 10000
#define KINDS_MAX 64
#define COMPLAIN_WINDOWS 3 /* of the budget in a row, before it is said */
#define CMDLINE_MAX 4096
#define FAILURES_MAX 16

struct pending {
	struct pending *next;
	struct pyspyd_event event;
	char texts[]; /* id, fingerprint, kind, json */
};

struct number {
	pid_t pid;
	uint64_t start_real_ns;
	int64_t number;
	bool seen; /* in the last report */
};

struct status {
	struct metrics_finding findings[KINDS_MAX * 3];
	size_t findings_n;
	struct pyspyd_watch_health health;
	bool has_health;
	struct pyspyd_watch_process *processes;
	size_t processes_n;
	struct pending *first, **last;
	size_t pending_n;
	uint64_t lost, said_lost;
	struct number *numbers;
	size_t numbers_n, numbers_cap;
	bool said_budget;
	json_t *privileges; /* {name: held} */
	uint64_t start_real_ns, read_real_ns;
	struct failure {
		const char *key; /* static */
		char reason[256];
	} failures[FAILURES_MAX];
	size_t failures_n;
};

uint64_t status_monotonic_us(void) {
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000ULL + (uint64_t)ts.tv_nsec / 1000;
}

static uint64_t now_real_ns(void) {
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

int status_new(struct status **ret_status) {
	struct status *status = calloc(1, sizeof(*status));

	if (!status)
		return -ENOMEM;
	status->start_real_ns = status->read_real_ns = now_real_ns();
	status->last = &status->first;
	status->privileges = json_object();
	if (!status->privileges) {
		free(status);
		return -ENOMEM;
	}
	*ret_status = status;
	return 0;
}

static void free_report(struct status *status) {
	for (size_t i = 0; i < status->processes_n; i++)
		pyspyd_process_deinit(&status->processes[i].process);
	free(status->processes);
	status->processes = NULL;
	status->processes_n = 0;
}

static void drop_first(struct status *status) {
	struct pending *pending = status->first;

	status->first = pending->next;
	if (!status->first)
		status->last = &status->first;
	status->pending_n--;
	free(pending);
}

void status_free(struct status *status) {
	if (!status)
		return;
	free_report(status);
	while (status->first)
		drop_first(status);
	for (size_t i = 0; i < status->findings_n; i++)
		free((char *)(uintptr_t)status->findings[i].kind);
	free(status->numbers);
	json_decref(status->privileges);
	free(status);
}

/* Findings */

static const char *severity_name(enum pyspyd_severity severity) {
	return severity == PYSPYD_INFO ? "info" : severity == PYSPYD_WARNING ? "warning" : "critical";
}

static struct metrics_finding *find_finding(struct status *status, const char *kind, const char *severity) {
	struct metrics_finding *row;

	for (size_t i = 0; i < status->findings_n; i++)
		if (!strcmp(status->findings[i].kind, kind) && !strcmp(status->findings[i].severity, severity))
			return &status->findings[i];
	if (status->findings_n == KINDS_MAX * 3)
		return NULL;
	row = &status->findings[status->findings_n];
	*row = (struct metrics_finding){ .kind = strdup(kind), .severity = severity };
	if (!row->kind)
		return NULL;
	status->findings_n++;
	return row;
}

/* How many are open is what each report says of its processes; by kind it is counted here, and a severity that rises
 * meanwhile is counted where it began. */
void status_count_finding(struct status *status, const struct pyspyd_finding *finding) {
	struct metrics_finding *row = find_finding(status, finding->kind, severity_name(finding->severity));

	if (!row)
		return;
	if (finding->state == PYSPYD_OPEN) {
		row->total++;
		row->open++;
	} else if (finding->state == PYSPYD_RESOLVED && row->open) {
		row->open--;
	}
}

void status_count_left_open(struct status *status, const struct pyspyd_event *event) {
	struct metrics_finding *row =
		find_finding(status, event->kind, severity_name((enum pyspyd_severity)event->severity));

	if (row)
		row->open++;
}

void status_count_left_ended(struct status *status, const struct pyspyd_event *event) {
	struct metrics_finding *row =
		find_finding(status, event->kind, severity_name((enum pyspyd_severity)event->severity));

	if (row && row->open)
		row->open--;
}

/* Events */

void status_keep_event(struct status *status, const struct pyspyd_event *event) {
	const char *from[] = { event->id, event->fingerprint, event->kind, event->json };
	const char *to[4];
	size_t bytes = 0;
	struct pending *pending;
	char *at;

	for (size_t i = 0; i < 4; i++)
		bytes += strlen(from[i]) + 1;
	if (status->pending_n >= PENDING_MAX) {
		drop_first(status);
		status->lost++;
	}
	pending = malloc(sizeof(*pending) + bytes);
	if (!pending) {
		status->lost++;
		return;
	}
	at = pending->texts;
	for (size_t i = 0; i < 4; i++) {
		to[i] = at;
		at = stpcpy(at, from[i]) + 1;
	}
	pending->next = NULL;
	pending->event = *event;
	pending->event.id = to[0];
	pending->event.fingerprint = to[1];
	pending->event.kind = to[2];
	pending->event.json = to[3];
	*status->last = pending;
	status->last = &pending->next;
	status->pending_n++;
}

int status_flush_events(struct status *status, struct pyspyd_store *store) {
	while (status->first) {
		uint64_t seq;
		int r = pyspyd_store_put_event(store, &status->first->event, &seq);

		if (r)
			return r;
		drop_first(status);
	}
	return 0;
}

/* Reports */

void status_keep_health(struct status *status, const struct pyspyd_watch_health *health) {
	status->health = *health;
	status->has_health = true;
}

void status_keep_privilege(struct status *status, const char *name, bool held) {
	(void)!json_object_set_new(status->privileges, name, json_boolean(held));
}

static struct number *find_number(struct status *status, const struct pyspyd_process *process) {
	for (size_t i = 0; i < status->numbers_n; i++)
		if (status->numbers[i].pid == process->pid &&
			status->numbers[i].start_real_ns == process->start_real_ns)
			return &status->numbers[i];
	return NULL;
}

/* Numbers of processes that are gone are forgotten. */
static void sweep_numbers(struct status *status) {
	size_t kept = 0;

	for (size_t i = 0; i < status->numbers_n; i++)
		status->numbers[i].seen = false;
	for (size_t i = 0; i < status->processes_n; i++) {
		struct number *number = find_number(status, &status->processes[i].process);

		if (number)
			number->seen = true;
	}
	for (size_t i = 0; i < status->numbers_n; i++)
		if (status->numbers[i].seen)
			status->numbers[kept++] = status->numbers[i];
	status->numbers_n = kept;
}

void status_keep_report(struct status *status, struct mail *mail) {
	free_report(status);
	status->processes = mail->processes;
	status->processes_n = mail->processes_n;
	mail->processes = NULL;
	mail->processes_n = 0;
	if (status->numbers_n > 2 * status->processes_n + 64)
		sweep_numbers(status);
}

bool status_is_watched(const struct status *status, pid_t pid, uint64_t start_real_ns) {
	for (size_t i = 0; i < status->processes_n; i++)
		if (status->processes[i].process.pid == pid &&
			status->processes[i].process.start_real_ns == start_real_ns)
			return !status->processes[i].ended;
	return false;
}

static void join_words(char *const *words, char *out, size_t size) {
	size_t len = 0;

	out[0] = '\0';
	for (; words && *words && len < size; words++)
		len += (size_t)snprintf(out + len, size - len, len ? " %s" : "%s", *words);
}

static int add_number(struct status *status, const struct number *number) {
	if (status->numbers_n == status->numbers_cap) {
		size_t cap = status->numbers_cap ? status->numbers_cap * 2 : 64;
		struct number *numbers = realloc(status->numbers, cap * sizeof(*numbers));

		if (!numbers)
			return -ENOMEM;
		status->numbers = numbers;
		status->numbers_cap = cap;
	}
	status->numbers[status->numbers_n++] = *number;
	return 0;
}

int status_process_number(
	struct status *status, struct pyspyd_store *store, const struct pyspyd_process *process, int64_t *ret_number) {
	const struct number *known = find_number(status, process);
	struct pyspyd_store_process row = {
		.pid = process->pid,
		.start_real_ns = process->start_real_ns,
		.uid = process->uid,
		.name = process->name ? process->name : "",
		.unit = process->unit ? process->unit : "",
		.container = process->container ? process->container : "",
	};
	char cmdline[CMDLINE_MAX];
	int r;

	if (known) {
		*ret_number = known->number;
		return 0;
	}
	row.seen_real_ns = now_real_ns();
	join_words(process->cmdline, cmdline, sizeof(cmdline));
	row.cmdline = cmdline;
	r = pyspyd_store_put_process(store, &row, ret_number);
	return r ? r : add_number(status, &(struct number){ process->pid, process->start_real_ns, *ret_number, true });
}

void status_forget_numbers(struct status *status) {
	status->numbers_n = 0;
}

/* The configuration */

void status_config_read(struct status *status) {
	status->failures_n = 0;
	status->read_real_ns = now_real_ns();
	sd_notify(0, "STATUS=");
}

void status_config_fails(struct status *status, const char *key, const char *format, ...) {
	struct failure one = { .key = key };
	va_list args;

	va_start(args, format);
	vsnprintf(one.reason, sizeof(one.reason), format, args);
	va_end(args);
	log_say(LOG_WARNING, "%s is not in force: %s", key, one.reason);
	sd_notifyf(0, "STATUS=%s is not in force: %s", key, one.reason);
	if (status->failures_n < FAILURES_MAX)
		status->failures[status->failures_n++] = one;
}

/* For others */

void status_metrics(struct status *status, struct metrics_input *ret_input) {
	*ret_input = (struct metrics_input){
		.processes = status->processes,
		.processes_n = status->processes_n,
		.health = status->has_health ? &status->health : NULL,
		.findings = status->findings,
		.findings_n = status->findings_n,
		.start_real_ns = status->start_real_ns,
	};
}

static json_t *health_json(const struct pyspyd_watch_health *health) {
	return json_pack("{s:f, s:I, s:f, s:f, s:i, s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I, s:I, s:s, s:s}}",
		"cpu_percent", health->cpu_percent, "memory_bytes", (json_int_t)health->memory_bytes, "rate_hz",
		health->rate_hz, "rate_asked_hz", health->rate_asked_hz, "over_budget", (int)health->over_budget,
		"processes", (json_int_t)health->processes, "threads", (json_int_t)health->threads, "processes_denied",
		(json_int_t)health->processes_denied, "accuracy", "samples", (json_int_t)health->accuracy.samples,
		"idle", (json_int_t)health->accuracy.idle, "torn", (json_int_t)health->accuracy.torn, "discarded",
		(json_int_t)health->accuracy.discarded, "late", (json_int_t)health->accuracy.late, "source",
		health->accuracy.source ? health->accuracy.source : "", "priority",
		health->accuracy.priority ? health->accuracy.priority : "");
}

static json_t *sinks_json(const struct sink_stats *sinks, size_t n) {
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(array,
			json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:b}", "name", sinks[i].name, "delivered",
				(json_int_t)sinks[i].delivered, "dropped", (json_int_t)sinks[i].dropped, "held_back",
				(json_int_t)sinks[i].held_back, "failures", (json_int_t)sinks[i].failures, "queued",
				(json_int_t)sinks[i].queued, "away", sinks[i].away));
	return array;
}

static json_t *config_json(const struct status *status) {
	json_t *failures = json_array();

	for (size_t i = 0; i < status->failures_n; i++)
		json_array_append_new(failures,
			json_pack("{s:s, s:s}", "key", status->failures[i].key, "reason", status->failures[i].reason));
	return json_pack("{s:I, s:o}", "read_ns", (json_int_t)status->read_real_ns, "not_in_force", failures);
}

char *status_text(
	struct status *status, const struct sink_stats *sinks, size_t sinks_n, const struct pyspyd_store_stats *store) {
	json_t *object = json_pack("{s:s, s:O, s:o, s:{s:I, s:I, s:I, s:I, s:I, s:I}, s:I, s:I}", "version",
		PYSPYD_VERSION, "privileges", status->privileges, "sinks", sinks_json(sinks, sinks_n), "store", "bytes",
		(json_int_t)store->bytes, "events", (json_int_t)store->events, "profiles", (json_int_t)store->profiles,
		"counters", (json_int_t)store->counters, "lost", (json_int_t)store->lost, "set_aside",
		(json_int_t)store->set_aside, "events_waiting", (json_int_t)status->pending_n, "events_lost",
		(json_int_t)status->lost);
	char *text;

	if (object)
		json_object_set_new(object, "config", config_json(status));
	if (object && status->has_health)
		json_object_set_new(object, "watch", health_json(&status->health));
	text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	json_decref(object);
	return text;
}

void status_complain(struct status *status) {
	const struct pyspyd_watch_health *health = &status->health;
	bool over = health->over_budget >= COMPLAIN_WINDOWS || health->rate_hz < health->rate_asked_hz;

	if (over && !status->said_budget)
		log_say(LOG_NOTICE,
			"the budget does not suffice: %.2f %% of a core and %.0f MiB are used, at %.1f of "
			"%.1f samples a second",
			health->cpu_percent, (double)health->memory_bytes / (1 << 20), health->rate_hz,
			health->rate_asked_hz);
	if (!over && status->said_budget)
		log_say(LOG_INFO, "the budget suffices again: %.1f samples a second", health->rate_hz);
	status->said_budget = over;
	if (status->lost > status->said_lost)
		log_say(LOG_ERR, "%llu events of findings were lost while the store failed",
			(unsigned long long)(status->lost - status->said_lost));
	status->said_lost = status->lost;
}
