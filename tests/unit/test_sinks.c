/* SPDX-License-Identifier: MIT */
/* What the sinks send, and their queues, with sinks that do what the test says. */
#include "daemon/message_ids.h"
#include "daemon/sink.h"
#include "daemon/sink_format.h"
#include "engine/base/util.h"
#include "pyspyd/finding.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

#define FINDING(state) \
	"{\"schema\":\"pyspyd.finding/1\",\"id\":\"01ARZ3NDEKTSV4RRFFQ69G5FAV\",\"state\":\"" state "\"," \
	"\"pattern\":\"Deadlock\",\"time\":\"2026-01-31T12:00:00.123456789Z\",\"host\":\"box\"," \
	"\"process\":{\"pid\":4711,\"name\":\"we\\\"b]\",\"cmdline\":[\"python3\",\"a " \
	"b\\nc\"],\"unit\":\"web.service\"," \
	"\"container\":null,\"exe\":\"/usr/bin/python3\",\"python\":\"3.11.2\"}," \
	"\"threads\":[{\"tid\":4712,\"name\":\"w\\u001b1\",\"role\":\"waiting\",\"stack\":[" \
	"{\"lang\":\"kernel\",\"function\":\"futex_wait\",\"qualname\":\"futex_wait\",\"file\":null,\"line\":null," \
	"\"module\":\"kernel\"}," \
	"{\"lang\":\"python\",\"function\":\"put\",\"qualname\":\"Queue.put\",\"file\":\"/" \
	"q.py\",\"line\":7,\"module\":\"q\"}]}]," \
	"\"evidence\":{},\"summary\":\"2 threads\\nwait\",\"advice\":\"take locks in one order\"}"

static struct pyspyd_event event_of(const char *json) {
	return (struct pyspyd_event){
		.seq = 12,
		.time_real_ns = UINT64_C(1769860800123456789),
		.id = "01ARZ3NDEKTSV4RRFFQ69G5FAV",
		.fingerprint = "0123456789abcdef0123456789abcdef",
		.kind = "deadlock",
		.severity = PYSPYD_CRITICAL,
		.pid = 4711,
		.uid = 1000,
		.json = json,
	};
}

static bool has(const char *text, const char *part) {
	return text && strstr(text, part);
}

/* The value of a field of a native journal entry. */
static char *field(const char *data, size_t len, const char *name) {
	for (const char *at = data, *end = data + len; at < end;) {
		const char *stop = at + strcspn(at, "=\n"), *value = stop + 1;
		size_t name_len = (size_t)(stop - at), size;

		if (*stop == '=') {
			size = (size_t)((const char *)memchr(value, '\n', (size_t)(end - value)) - value);
		} else {
			memcpy(&size, value, sizeof(size));
			value += sizeof(size);
		}
		if (strlen(name) == name_len && !strncmp(at, name, name_len))
			return strndup(value, size);
		at = value + size + 1;
	}
	return NULL;
}

static void field_is(const char *data, size_t len, const char *name, const char *expected) {
	_free_ char *value = field(data, len, name);

	cr_assert(value != NULL, "%s", name);
	cr_expect_str_eq(value, expected, "%s", name);
}

Test(sinks, journal_has_its_fields) {
	struct pyspyd_event event = event_of(FINDING("open"));
	size_t len = 0;
	_free_ char *data = journal_entry(&event, &len);

	cr_assert(data != NULL);
	field_is(data, len, "MESSAGE", "2 threads\\x0await");
	field_is(data, len, "MESSAGE_ID", message_id_of("deadlock"));
	field_is(data, len, "PRIORITY", "2");
	field_is(data, len, "SYSLOG_IDENTIFIER", "pyspyd");
	field_is(data, len, "OBJECT_PID", "4711");
	field_is(data, len, "PYSPYD_PID", "4711");
	field_is(data, len, "PYSPYD_UID", "1000");
	field_is(data, len, "PYSPYD_KIND", "deadlock");
	field_is(data, len, "PYSPYD_STATE", "open");
	field_is(data, len, "PYSPYD_SEVERITY", "critical");
	field_is(data, len, "PYSPYD_SEQ", "12");
	field_is(data, len, "PYSPYD_UNIT", "web.service");
	field_is(data, len, "OBJECT_SYSTEMD_UNIT", "web.service");
	field_is(data, len, "PYSPYD_CMDLINE", "python3 a b\nc");
	field_is(data, len, "PYSPYD_FINDING", FINDING("open"));
	field_is(data, len, "DOCUMENTATION", "man:pyspyd-watch(1)");
	field_is(data, len, "PYSPYD_STACK",
		"thread 4712 w\\x1b1, waiting:\n  futex_wait (kernel) [kernel]\n  Queue.put (/q.py:7)\n");
	cr_expect_null(field(data, len, "PYSPYD_CONTAINER"));
}

Test(sinks, journal_of_a_resolved_finding_is_information) {
	struct pyspyd_event event = event_of(FINDING("resolved"));
	size_t len = 0;
	_free_ char *data = NULL;

	event.state = PYSPYD_RESOLVED;
	data = journal_entry(&event, &len);
	cr_assert(data != NULL);
	field_is(data, len, "PRIORITY", "6");
	field_is(data, len, "PYSPYD_STATE", "resolved");
	field_is(data, len, "MESSAGE", "resolved: 2 threads\\x0await");
}

Test(sinks, json_that_cannot_be_read_is_told_all_the_same) {
	struct pyspyd_event event = event_of("{");
	size_t len = 0;
	_free_ char *data = journal_entry(&event, &len), *line = syslog_line(&event, 3, 2048);
	_free_ char *body = otlp_body(json_pack("[o]", otlp_record(&event)));

	cr_assert(data && line && body);
	field_is(data, len, "MESSAGE", "deadlock");
	field_is(data, len, "PYSPYD_FINDING", "{");
	cr_expect(has(line, "] deadlock"));
	cr_expect(has(body, "pyspyd.finding.deadlock"));
}

Test(sinks, message_ids_are_known_and_differ) {
	size_t n;
	const struct message_id *ids = message_ids(&n);

	for (size_t i = 0; i < n; i++) {
		cr_expect_eq(strspn(ids[i].id, "0123456789abcdef"), 32, "%s", ids[i].kind);
		cr_expect_eq(strlen(ids[i].id), 32, "%s", ids[i].kind);
		cr_expect_str_eq(message_id_of(ids[i].kind), ids[i].id);
		for (size_t j = 0; j < i; j++)
			cr_expect_str_neq(ids[i].id, ids[j].id, "%s", ids[i].kind);
	}
	cr_expect_str_eq(message_id_of("of tomorrow"), message_id_of(MESSAGE_ID_OTHER));
}

Test(sinks, syslog_line_is_rfc_5424) {
	struct pyspyd_event event = event_of(FINDING("open"));
	_free_ char *line = syslog_line(&event, 3, 2048), *expected = NULL;

	cr_assert(
		asprintf(&expected,
			"<26>1 2026-01-31T12:00:00.123456Z box pyspyd %d DEADLOCK [pyspyd@32473 "
			"id=\"01ARZ3NDEKTSV4RRFFQ69G5FAV\" fingerprint=\"0123456789abcdef0123456789abcdef\" seq=\"12\" "
			"state=\"open\" severity=\"critical\" pid=\"4711\" uid=\"1000\" process=\"we\\\"b\\]\" "
			"unit=\"web.service\"] 2 threads\\x0await",
			(int)getpid()) > 0);
	cr_expect_str_eq(line, expected);
}

Test(sinks, syslog_message_is_cut_between_characters_and_marked) {
	char json[8192] = "{\"summary\":\"";
	struct pyspyd_event event = event_of(json);
	size_t len;

	for (int i = 0; i < 2000; i++)
		strcat(json, "ö");
	strcat(json, "\"}");
	for (size_t most = 480; most < 490; most++) {
		_free_ char *line = syslog_line(&event, 3, most);

		cr_assert(line != NULL);
		len = strlen(line);
		cr_expect_leq(len, most);
		cr_expect_geq(len, most - 2);
		cr_expect_str_eq(line + len - 5, "ö…");
		cr_expect(has(line, "] \xef\xbb\xbfö"));
	}
}

Test(sinks, syslog_fields_of_the_header_hold_no_spaces) {
	struct pyspyd_event event = event_of("{\"host\":\"a b\\nc\\u00f6\",\"summary\":\"x\"}");
	_free_ char *line = NULL;

	event.kind = "a-kind with a name that is far too long for the field";
	line = syslog_line(&event, 23, 2048);
	cr_assert(line != NULL);
	cr_expect_eq(strncmp(line, "<186>1 2026-01-31T12:00:00.123456Z a?b?c?? pyspyd ", 50), 0, "%s", line);
	cr_expect(has(line, " A-KIND?WITH?A?NAME?THAT?IS?FAR?T [pyspyd@32473 "), "%s", line);
}

Test(sinks, file_has_the_finding_itself_in_a_line) {
	struct pyspyd_event event = event_of("{\"a\":\n1}");
	_free_ char *line = file_line(&event), *note = file_note("3 \"findings\"", UINT64_C(1769860800000000001));

	cr_expect_str_eq(line, "{\"a\": 1}\n");
	cr_expect(has(note, "\"schema\":\"pyspyd.note/1\""));
	cr_expect(has(note, "\"time\":\"2026-01-31T12:00:00.000000001Z\""));
	cr_expect(has(note, "\"text\":\"3 \\\"findings\\\"\"}\n"));
}

static const char *attribute(const json_t *attributes, const char *key) {
	size_t i;
	const json_t *item;

	json_array_foreach(attributes, i, item) {
		const json_t *value = json_object_get(item, "value"), *text = json_object_get(value, "stringValue");

		if (!strcmp(json_string_value(json_object_get(item, "key")), key))
			return json_string_value(text ? text : json_object_get(value, "intValue"));
	}
	return "(none)";
}

Test(sinks, otlp_record_has_event_name_severity_and_resource) {
	struct pyspyd_event event = event_of(FINDING("open"));
	json_t *logs = otlp_record(&event), *record, *resource, *attributes;
	const char *body, *name, *text, *time;
	int severity;

	cr_assert(logs != NULL);
	cr_assert(!json_unpack(logs, "{s:{s:o}, s:[{s:[o]}]}", "resource", "attributes", &resource, "scopeLogs",
		"logRecords", &record));
	cr_assert(!json_unpack(record, "{s:s, s:s, s:s, s:i, s:{s:s}, s:o}", "eventName", &name, "severityText", &text,
		"timeUnixNano", &time, "severityNumber", &severity, "body", "stringValue", &body, "attributes",
		&attributes));
	cr_expect_str_eq(name, "pyspyd.finding.deadlock");
	cr_expect_str_eq(text, "ERROR");
	cr_expect_eq(severity, 17);
	cr_expect_str_eq(time, "1769860800123456789");
	cr_expect_str_eq(body, "2 threads\\x0await");
	cr_expect_str_eq(attribute(resource, "service.name"), "web.service");
	cr_expect_str_eq(attribute(resource, "host.name"), "box");
	cr_expect_str_eq(attribute(resource, "process.pid"), "4711");
	cr_expect_str_eq(attribute(resource, "process.command_line"), "python3 a b\nc");
	cr_expect_str_eq(attribute(attributes, "pyspyd.finding"), FINDING("open"));
	cr_expect_str_eq(attribute(attributes, "pyspyd.state"), "open");
	json_decref(logs);
}

Test(sinks, otlp_severities) {
	struct pyspyd_event event = event_of(FINDING("open"));
	static const int severities[] = { [PYSPYD_INFO] = 9, [PYSPYD_WARNING] = 13, [PYSPYD_CRITICAL] = 17 };

	for (int severity = PYSPYD_INFO; severity <= PYSPYD_CRITICAL; severity++) {
		_free_ char *body = NULL, *expected = NULL;

		event.severity = severity;
		body = otlp_body(json_pack("[o]", otlp_record(&event)));
		cr_assert(asprintf(&expected, "\"severityNumber\":%d,", severities[severity]) > 0);
		cr_expect(has(body, expected));
		cr_expect_eq(strncmp(body, "{\"resourceLogs\":[{", 18), 0);
	}
}

Test(sinks, otlp_answers) {
	static const struct {
		long status;
		enum sink_result result;
	} cases[] = {
		{ 200, SINK_DONE },
		{ 202, SINK_DONE },
		{ 301, SINK_LATER },
		{ 400, SINK_NEVER },
		{ 401, SINK_LATER },
		{ 404, SINK_LATER },
		{ 408, SINK_LATER },
		{ 413, SINK_NEVER },
		{ 429, SINK_LATER },
		{ 500, SINK_LATER },
		{ 503, SINK_LATER },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		cr_expect_eq(otlp_answer(cases[i].status), cases[i].result, "%ld", cases[i].status);
}

/* The queue, with a sink that answers as it is told, and keeps what it was given. */

#define GOT_MAX 4096

static struct fake {
	struct sink *sink;
	enum sink_result answer;   /* to deliver() … */
	enum sink_result to_batch; /* … and to send() */
	uint64_t never;            /* this one, and a batch that has it, is refused */
	uint64_t got[GOT_MAX], batch[GOT_MAX];
	size_t got_n, batch_n, sends;
	char told[256];
} fake;

static bool fake_enabled(const struct config *config) {
	return config->file;
}

static int fake_open(
	const struct config *config, struct sink *sink, sd_event *loop, void **ret_state, struct err *err) {
	(void)config;
	(void)loop;
	(void)err;
	fake.sink = sink;
	*ret_state = &fake;
	return 0;
}

static void fake_close(void *state) {
	(void)state;
}

static enum sink_result fake_deliver(void *state, const struct pyspyd_event *event) {
	(void)state;
	if (fake.answer == SINK_TAKEN)
		fake.batch[fake.batch_n++] = event->seq;
	if (fake.answer == SINK_DONE && event->seq == fake.never)
		return SINK_NEVER;
	if (fake.answer == SINK_DONE || fake.answer == SINK_WAIT)
		fake.got[fake.got_n++] = event->seq;
	return fake.answer;
}

static enum sink_result fake_send(void *state) {
	bool bad = false;

	(void)state;
	fake.sends++;
	for (size_t i = 0; i < fake.batch_n; i++)
		bad |= fake.batch[i] == fake.never;
	for (size_t i = 0; !bad && fake.to_batch == SINK_DONE && i < fake.batch_n; i++)
		fake.got[fake.got_n++] = fake.batch[i];
	fake.batch_n = 0;
	return bad ? SINK_NEVER : fake.to_batch;
}

static enum sink_result fake_tell(void *state, const char *text) {
	(void)state;
	snprintf(fake.told, sizeof(fake.told), "%s", text);
	return SINK_DONE;
}

static const struct sink_kind fake_kind = {
	.name = "fake",
	.enabled = fake_enabled,
	.open = fake_open,
	.close = fake_close,
	.deliver = fake_deliver,
	.send = fake_send,
	.tell = fake_tell,
};

static struct queue {
	char folder[64], path[96];
	struct config config;
	struct pyspyd_store *store;
	sd_event *loop;
	struct sinks *sinks;
} queue;

static void open_store(void) {
	struct pyspyd_store_options options = { .path = queue.path };
	struct err err = { 0 };
	_free_ char *note = NULL;

	cr_assert(!pyspyd_store_open(&options, &queue.store, &note, &err), "%s", err.text);
}

static void open_sinks(void) {
	static const struct sink_kind *const kinds[] = { &fake_kind, NULL };
	struct err err = { 0 };

	cr_assert(!sinks_new_of(kinds, &queue.config, queue.store, queue.loop, &queue.sinks, &err), "%s", err.text);
}

static void queue_init(void) {
	fake = (struct fake){ 0 };
	queue = (struct queue){ .config.file = true, .config.sink_queue = 1000 };
	strcpy(queue.folder, "/tmp/pyspyd-test-sinks-XXXXXX");
	cr_assert(mkdtemp(queue.folder) != NULL);
	snprintf(queue.path, sizeof(queue.path), "%s/store.db", queue.folder);
	open_store();
	cr_assert_geq(sd_event_new(&queue.loop), 0);
}

static void queue_deinit(void) {
	static const char *const endings[] = { "", "-wal", "-shm", "-lock" };

	sinks_free(queue.sinks);
	sd_event_unref(queue.loop);
	pyspyd_store_close(queue.store);
	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		char path[128];

		snprintf(path, sizeof(path), "%s%s", queue.path, endings[i]);
		unlink(path);
	}
	rmdir(queue.folder);
}

static void put(unsigned n, enum pyspyd_finding_state state) {
	struct pyspyd_event event = event_of("{}");
	uint64_t seq;

	event.state = state;
	for (unsigned i = 0; i < n; i++)
		cr_assert(!pyspyd_store_put_event(queue.store, &event, &seq));
}

static struct sink_stats stats(void) {
	struct sink_stats stats = { 0 };

	cr_assert_eq(sinks_stats(queue.sinks, &stats, 1), 1);
	return stats;
}

static void got_all(uint64_t from, uint64_t to) {
	cr_expect_eq(fake.got_n, (size_t)(to - from + 1));
	for (uint64_t seq = from; seq <= to; seq++)
		cr_expect_eq(fake.got[seq - from], seq);
}

static void place_is(uint64_t seq, uint64_t dropped) {
	uint64_t place = 99, counted = 99;

	cr_assert(!pyspyd_store_sink_get(queue.store, "fake", &place, &counted));
	cr_expect_eq(place, seq);
	cr_expect_eq(counted, dropped);
}

TestSuite(sink_queue, .init = queue_init, .fini = queue_deinit);

Test(sink_queue, delivers_all_in_order_and_writes_down_how_far) {
	put(200, PYSPYD_OPEN);
	open_sinks();
	sinks_drain(queue.sinks, UINT64_C(60000000000));
	got_all(1, 200);
	place_is(200, 0);
	cr_expect_eq(stats().delivered, 200);
	cr_expect_eq(stats().queued, 0);
}

Test(sink_queue, what_was_not_acknowledged_comes_again_after_a_start) {
	put(3, PYSPYD_OPEN);
	open_sinks();
	fake.answer = SINK_WAIT;
	sinks_wake(queue.sinks);
	cr_expect_eq(fake.got_n, 1);
	sinks_free(queue.sinks);
	place_is(0, 0);
	fake = (struct fake){ 0 };
	open_sinks();
	sinks_drain(queue.sinks, UINT64_C(60000000000));
	got_all(1, 3);
}

Test(sink_queue, one_that_is_away_is_tried_later_and_gets_all) {
	put(3, PYSPYD_OPEN);
	open_sinks();
	fake.answer = SINK_LATER;
	sinks_wake(queue.sinks);
	cr_expect(stats().away);
	cr_expect_eq(stats().queued, 3);
	cr_expect_eq(stats().failures, 1);
	fake.answer = SINK_DONE;
	sinks_wake(queue.sinks); /* not before its time */
	cr_expect_eq(fake.got_n, 0);
	sink_ready(fake.sink);
	sinks_drain(queue.sinks, UINT64_C(60000000000));
	got_all(1, 3);
	cr_expect(!stats().away);
}

Test(sink_queue, what_can_never_be_delivered_is_dropped_and_counted) {
	put(5, PYSPYD_OPEN);
	open_sinks();
	fake.never = 3;
	sinks_drain(queue.sinks, UINT64_C(60000000000));
	cr_expect_eq(fake.got_n, 4);
	cr_expect_eq(fake.got[2], 4);
	place_is(5, 1);
	cr_expect(has(fake.told, "1 findings were dropped in the last "), "%s", fake.told);
}

Test(sink_queue, what_is_dropped_after_a_while_away_does_not_stop_the_rest) {
	put(3, PYSPYD_OPEN);
	open_sinks();
	fake.answer = SINK_TAKEN;
	fake.to_batch = SINK_LATER;
	sinks_wake(queue.sinks);
	cr_expect(stats().away);
	fake.to_batch = SINK_DONE;
	fake.never = 2;
	sinks_drain(queue.sinks, UINT64_C(60000000000));
	cr_expect_eq(fake.got_n, 2);
	cr_expect(!stats().away);
	place_is(3, 1);
}

Test(sink_queue, of_a_batch_only_what_is_at_fault_is_dropped) {
	put(100, PYSPYD_OPEN);
	open_sinks();
	fake.answer = SINK_TAKEN;
	fake.never = 7;
	sinks_drain(queue.sinks, UINT64_C(60000000000));
	cr_expect_eq(fake.got_n, 99);
	cr_expect_eq(fake.got[5], 6);
	cr_expect_eq(fake.got[6], 8);
	cr_expect_eq(fake.got[98], 100);
	cr_expect_eq(fake.sends, 1 + 64 + 1);
	place_is(100, 1);
}

Test(sink_queue, batch_under_way_moves_the_place_when_it_is_finished) {
	put(10, PYSPYD_OPEN);
	open_sinks();
	fake.answer = SINK_TAKEN;
	fake.to_batch = SINK_WAIT;
	sinks_wake(queue.sinks);
	cr_expect_eq(fake.sends, 1);
	cr_expect_eq(stats().queued, 10);
	sinks_wake(queue.sinks);
	cr_expect_eq(fake.sends, 1);
	sink_refused(fake.sink, 2);
	sink_finished(fake.sink, SINK_DONE);
	cr_expect_eq(stats().queued, 0);
	cr_expect_eq(stats().delivered, 8);
	cr_expect_eq(stats().dropped, 2);
}

Test(sink_queue, queue_is_bounded_and_the_oldest_are_dropped) {
	put(1, PYSPYD_OPEN);
	queue.config.sink_queue = 10;
	open_sinks();
	sinks_drain(queue.sinks, UINT64_C(60000000000));
	put(25, PYSPYD_OPEN);
	fake.got_n = 0;
	sinks_wake(queue.sinks);
	sinks_drain(queue.sinks, UINT64_C(60000000000));
	got_all(17, 26);
	place_is(26, 15);
}

Test(sink_queue, beyond_the_rate_updates_are_passed_over_and_others_wait) {
	queue.config.sink_rate = 0.0001;
	queue.config.sink_burst = 8;
	open_sinks();
	put(4, PYSPYD_OPEN);     /* 4 tokens are left, … */
	put(4, PYSPYD_UPDATE);   /* … 2 of which are kept from updates */
	put(4, PYSPYD_RESOLVED); /* 2 go out, 2 wait */
	sinks_wake(queue.sinks);
	sinks_drain(queue.sinks, UINT64_C(60000000000));
	cr_expect_eq(fake.got_n, 4 + 2 + 2);
	cr_expect_eq(fake.got[5], 6);
	cr_expect_eq(fake.got[6], 9);
	cr_expect_eq(fake.got[7], 10);
	cr_expect_eq(stats().held_back, 3); /* 2 updates, and the one that waits at the head */
	cr_expect_eq(stats().queued, 2);
	cr_expect_eq(stats().dropped, 0);
	cr_expect(has(fake.told, "3 findings were held back in the last "), "%s", fake.told);
	place_is(10, 0);
}

Test(sink_queue, what_may_be_lost_goes_out_again) {
	put(10, PYSPYD_OPEN);
	open_sinks();
	sinks_drain(queue.sinks, UINT64_C(60000000000));
	got_all(1, 10);
	fake.got_n = 0;
	sink_redo(fake.sink, 8);
	cr_expect_eq(stats().queued, 3);
	sinks_drain(queue.sinks, UINT64_C(60000000000));
	got_all(8, 10);
	place_is(10, 0);
}

static int no_more(sd_event_source *source, uint64_t usec, void *userdata) {
	(void)usec;
	(void)userdata;
	return sd_event_exit(sd_event_source_get_event(source), 1);
}

static int when_all_came(sd_event_source *source, uint64_t usec, void *userdata) {
	(void)usec;
	(void)userdata;
	if (fake.got_n >= 300)
		return sd_event_exit(sd_event_source_get_event(source), 0);
	sd_event_source_set_time_relative(source, 1000);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

Test(sink_queue, runs_inside_the_loop_of_the_service) {
	sd_event_source *look = NULL;

	put(300, PYSPYD_OPEN);
	open_sinks();
	cr_assert_geq(sd_event_add_time_relative(queue.loop, NULL, CLOCK_MONOTONIC, 60000000, 0, no_more, NULL), 0);
	cr_assert_geq(sd_event_add_time_relative(queue.loop, &look, CLOCK_MONOTONIC, 0, 1, when_all_came, NULL), 0);
	cr_expect_eq(sd_event_loop(queue.loop), 0);
	got_all(1, 300);
	/* And when that one is at its end. */
	put(2, PYSPYD_OPEN);
	sinks_wake(queue.sinks);
	sinks_drain(queue.sinks, UINT64_C(60000000000));
	got_all(1, 302);
	sd_event_source_unref(look);
}

Test(sink_queue, none_need_be_there) {
	queue.config.file = false;
	open_sinks();
	cr_expect_null(sinks_names(queue.sinks)[0]);
	sinks_wake(queue.sinks);
	sinks_drain(queue.sinks, 0);
}
