/* SPDX-License-Identifier: MIT */
/* What the service is put together from: the mailbox, the status, and what happens to findings that were open. */
#include "daemon/mailbox.h"
#include "daemon/restart.h"
#include "daemon/status.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define S(s) ((char *)(uintptr_t)(s)) /* nobody writes to them */
#define MANY 9000                     /* more than a mailbox holds */

static char *words[] = { S("python3"), S("app.py"), NULL };

static struct pyspyd_process process_of(pid_t pid) {
	return (struct pyspyd_process){
		.pid = pid, .start_real_ns = 5, .uid = 7, .name = S("python3"), .cmdline = words, .unit = S("a.service")
	};
}

/* Mailbox */

Test(mailbox, hands_over_copies_in_order) {
	struct pyspyd_watch_process report = { .process = process_of(11), .fds = 3 };
	const struct pyspyd_watch_health health = { .rate_hz = 12 };
	struct mailbox *mailbox;
	struct mail *mail, *second;
	char name[] = "one";
	int fd;

	report.process.name = name;
	cr_assert_eq(mailbox_new(&mailbox, &fd), 0);
	cr_assert_null(mailbox_take(mailbox));
	cr_assert_eq(mailbox_put_report(mailbox, &report, 1), 0);
	name[0] = 'X';
	cr_assert_eq(mailbox_put_health(mailbox, &health), 0);
	mail = mailbox_take(mailbox);
	second = mail->next;
	cr_assert_eq(mail->kind, MAIL_REPORT);
	cr_assert_str_eq(mail->processes[0].process.name, "one");
	cr_assert_str_eq(mail->processes[0].process.cmdline[1], "app.py");
	cr_assert_eq(second->kind, MAIL_HEALTH);
	cr_assert_eq(second->health.rate_hz, 12);
	cr_assert_null(second->next);
	cr_assert_null(mailbox_take(mailbox));
	mail_free(mail);
	mail_free(second);
	mailbox_free(mailbox);
}

static void *put_findings(void *arg) {
	struct pyspyd_finding finding = { .kind = S("hang"),
		.process = process_of(1),
		.summary = S(""),
		.advice = S(""),
		.host = S(""),
		.pattern = S("") };

	for (unsigned i = 0; i < MANY; i++) {
		snprintf(finding.id, sizeof(finding.id), "%u", i);
		if (mailbox_put_finding(arg, &finding))
			return (void *)1;
	}
	return NULL;
}

/* Findings wait for room; none is lost, however slowly they are taken. */
Test(mailbox, findings_wait) {
	struct mailbox *mailbox;
	unsigned taken = 0;
	pthread_t thread;
	void *failed;
	int fd;

	cr_assert_eq(mailbox_new(&mailbox, &fd), 0);
	pthread_create(&thread, NULL, put_findings, mailbox);
	while (taken < MANY) {
		for (struct mail *mail = mailbox_take(mailbox), *next; mail; mail = next) {
			next = mail->next;
			cr_assert_eq(strtoul(mail->finding->id, NULL, 10), taken++);
			mail_free(mail);
		}
	}
	pthread_join(thread, &failed);
	cr_assert_null(failed);
	cr_assert_eq(mailbox_dropped(mailbox), 0);
	mailbox_free(mailbox);
}

Test(mailbox, nobody_waits_for_one_that_is_closed) {
	struct mailbox *mailbox;
	pthread_t thread;
	void *failed;
	int fd;

	cr_assert_eq(mailbox_new(&mailbox, &fd), 0);
	pthread_create(&thread, NULL, put_findings, mailbox);
	mailbox_close(mailbox);
	pthread_join(thread, &failed);
	cr_assert_not_null(failed);
	mailbox_free(mailbox);
}

Test(mailbox, reports_are_dropped_when_it_is_full) {
	const struct pyspyd_watch_health health = { 0 };
	struct mailbox *mailbox;
	int fd;

	cr_assert_eq(mailbox_new(&mailbox, &fd), 0);
	for (unsigned i = 0; i < MANY; i++)
		cr_assert_eq(mailbox_put_health(mailbox, &health), 0);
	cr_assert_gt(mailbox_dropped(mailbox), 0);
	mailbox_free(mailbox);
}

/* Status and restart, over a store */

static char folder[] = "/tmp/pyspyd-service-XXXXXX";
static struct pyspyd_store *store;

static void open_store(void) {
	static char path[64];
	struct pyspyd_store_options options = { .path = path };
	struct err err;
	char *note = NULL;

	cr_assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/db", folder);
	cr_assert_eq(pyspyd_store_open(&options, &store, &note, &err), 0, "%s", err.text);
	free(note);
}

static void close_store(void) {
	char command[96];

	pyspyd_store_close(store);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	cr_assert_eq(system(command), 0);
}

static struct pyspyd_event event_of(const char *id, int state) {
	static char json[256];

	snprintf(json, sizeof(json),
		"{\"id\": \"%s\", \"fingerprint\": \"f\", \"kind\": \"hang\", \"state\": \"open\", \"evidence\": {}, "
		"\"since\": \"2023-11-14T22:13:10.000000001Z\", \"threads\": [{\"tid\": 12}, {\"tid\": 13}]}",
		id);
	return (struct pyspyd_event){ .time_real_ns = 1699999995000000000,
		.id = id,
		.fingerprint = "f",
		.kind = "hang",
		.state = state,
		.pid = 1,
		.start_real_ns = 5,
		.uid = 7,
		.json = json };
}

static void put(const char *id, int state) {
	struct pyspyd_event event = event_of(id, state);
	uint64_t seq;

	cr_assert_eq(pyspyd_store_put_event(store, &event, &seq), 0);
}

struct seen {
	unsigned n;
	char last[512];
};

static int see(void *userdata, const struct pyspyd_event *event) {
	struct seen *seen = userdata;

	seen->n++;
	snprintf(seen->last, sizeof(seen->last), "%s", event->json);
	return 0;
}

Test(restart, knows_and_ends_what_was_open, .init = open_store, .fini = close_store) {
	const struct pyspyd_event_filter open = { .open = true, .uid = (uid_t)-1 };
	struct pyspyd_event_filter all = { .uid = (uid_t)-1 };
	const struct pyspyd_left_open *left;
	struct metrics_input input;
	struct seen seen = { 0 };
	struct restart *restart;
	struct status *status;
	json_t *last;
	size_t n;

	put("a", PYSPYD_OPEN);
	put("b", PYSPYD_OPEN);
	put("b", PYSPYD_RESOLVED);
	cr_assert_eq(status_new(&status), 0);
	cr_assert_eq(restart_new(store, status, &restart), 0);
	left = restart_left(restart, &n);
	cr_assert_eq(n, 1);
	cr_assert_str_eq(left->id, "a");
	cr_assert_str_eq(left->fingerprint, "f");
	cr_assert_str_eq(left->kind, "hang");
	cr_assert_eq(left->pid, 1);
	cr_assert_eq(left->start_real_ns, 5);
	cr_assert_eq(left->since_real_ns, 1699999990000000001);
	cr_assert_eq(left->tids_n, 2);
	cr_assert_eq(left->tids[1], 13);
	status_metrics(status, &input);
	cr_assert_eq(input.findings[0].open, 1);
	cr_assert_eq(input.findings[0].total, 0);

	cr_assert_eq(restart_resolve(store, status, "b", "not-found-again", 1700000000123456789), 0);
	cr_assert_eq(restart_resolve(store, status, "a", "not-found-again", 1700000000123456789), 0);
	cr_assert_eq(status_flush_events(status, store), 0);
	cr_assert_eq(pyspyd_store_events(store, &open, see, &seen), 0);
	cr_assert_eq(seen.n, 0, "%u are open", seen.n);
	cr_assert_eq(pyspyd_store_events(store, &all, see, &seen), 0);
	cr_assert_eq(seen.n, 4);
	last = json_loads(seen.last, 0, NULL);
	cr_assert_str_eq(json_string_value(json_object_get(last, "id")), "a");
	cr_assert_str_eq(json_string_value(json_object_get(last, "state")), "resolved");
	cr_assert_str_eq(json_string_value(json_object_get(last, "since")), "2023-11-14T22:13:10.000000001Z");
	cr_assert_str_eq(json_string_value(json_object_get(last, "time")), "2023-11-14T22:13:20.123456789Z");
	cr_assert_float_eq(json_number_value(json_object_get(last, "duration_s")), 10.123, 0.001);
	cr_assert_str_eq(
		json_string_value(json_object_get(json_object_get(last, "evidence"), "ended")), "not-found-again");
	json_decref(last);
	status_metrics(status, &input);
	cr_assert_eq(input.findings[0].open, 0);
	restart_free(restart);
	status_free(status);
}

Test(status, events_reach_the_store_in_order, .init = open_store, .fini = close_store) {
	struct pyspyd_event_filter all = { .uid = (uid_t)-1 };
	struct pyspyd_event event = event_of("a", PYSPYD_OPEN);
	struct seen seen = { 0 };
	struct status *status;

	cr_assert_eq(status_new(&status), 0);
	status_keep_event(status, &event);
	event = event_of("b", PYSPYD_OPEN);
	status_keep_event(status, &event);
	cr_assert_eq(status_flush_events(status, store), 0);
	cr_assert_eq(pyspyd_store_events(store, &all, see, &seen), 0);
	cr_assert_eq(seen.n, 2);
	cr_assert(strstr(seen.last, "\"b\""));
	cr_assert_eq(status_flush_events(status, store), 0);
	status_free(status);
}

Test(status, a_process_has_one_number, .init = open_store, .fini = close_store) {
	struct pyspyd_process process = process_of(11);
	int64_t first, again, other;
	struct status *status;

	cr_assert_eq(status_new(&status), 0);
	cr_assert_eq(status_process_number(status, store, &process, &first), 0);
	cr_assert_eq(status_process_number(status, store, &process, &again), 0);
	process.start_real_ns++; /* the number of the process is used again */
	cr_assert_eq(status_process_number(status, store, &process, &other), 0);
	cr_assert_eq(first, again);
	cr_assert_neq(first, other);
	status_forget_numbers(status);
	cr_assert_eq(status_process_number(status, store, &process, &again), 0);
	cr_assert_eq(other, again, "the store knows it");
	status_free(status);
}

Test(status, counts_what_is_open) {
	struct pyspyd_finding finding = { .kind = S("hang"), .severity = PYSPYD_WARNING, .state = PYSPYD_OPEN };
	struct metrics_input input;
	struct status *status;

	cr_assert_eq(status_new(&status), 0);
	status_count_finding(status, &finding);
	status_count_finding(status, &finding);
	finding.state = PYSPYD_UPDATE;
	status_count_finding(status, &finding);
	finding.state = PYSPYD_RESOLVED;
	status_count_finding(status, &finding);
	status_metrics(status, &input);
	cr_assert_eq(input.findings_n, 1);
	cr_assert_eq(input.findings[0].total, 2);
	cr_assert_eq(input.findings[0].open, 1);
	status_free(status);
}
