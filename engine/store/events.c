/* SPDX-License-Identifier: MIT */
/* Events of findings, and how far each sink has come with them. */
#include "engine/store/store_internal.h"

#include "engine/base/strbuf.h"
#include "pyspyd/finding.h"
#include <errno.h>

#define EVENT_BYTES 512 /* beside its JSON, with its entries in the indexes */

static const char insert_event[] =
	"INSERT INTO events (seq, time, id, fingerprint, kind, severity, state, pid, start, uid, json)"
	" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

static int put_event(struct pyspyd_store *store, void *data) {
	const struct pyspyd_event *e = data;

	store->state.events++;
	return store_do(store, insert_event, v_int(++store->state.last_event), v_int((int64_t)e->time_real_ns),
		v_text(e->id), v_text(e->fingerprint), v_text(e->kind), v_int(e->severity), v_int(e->state),
		v_int(e->pid), v_int((int64_t)e->start_real_ns), v_int(e->uid), v_text(e->json));
}

int pyspyd_store_put_event(struct pyspyd_store *store, const struct pyspyd_event *event, uint64_t *ret_seq) {
	const struct store_write write = {
		.room = STORE_ROOM_EVENTS,
		.synced = true,
		.bytes = EVENT_BYTES + (event->json ? strlen(event->json) : 0),
		.records = 1,
		.work = put_event,
		.data = (void *)event,
	};
	int r = store_write(store, &write);

	if (!r && ret_seq)
		*ret_seq = (uint64_t)store->state.last_event;
	return r;
}

struct event_reader {
	int (*each)(void *userdata, const struct pyspyd_event *event);
	void *userdata;
};

static int read_event(void *data, sqlite3_stmt *s) {
	const struct event_reader *reader = data;
	const struct pyspyd_event event = {
		.seq = (uint64_t)sqlite3_column_int64(s, 0),
		.time_real_ns = (uint64_t)sqlite3_column_int64(s, 1),
		.id = store_column_text(s, 2),
		.fingerprint = store_column_text(s, 3),
		.kind = store_column_text(s, 4),
		.severity = sqlite3_column_int(s, 5),
		.state = sqlite3_column_int(s, 6),
		.pid = sqlite3_column_int(s, 7),
		.start_real_ns = (uint64_t)sqlite3_column_int64(s, 8),
		.uid = (uid_t)sqlite3_column_int64(s, 9),
		.json = store_column_text(s, 10),
	};

	return reader->each(reader->userdata, &event);
}

/* Only the conditions that are asked for, so that the indexes serve. What the index of time finds is put in the order
 * of numbers before the events are read: to sort them whole would take memory for them all. */
static void add_conditions(struct strbuf *sql, const struct pyspyd_event_filter *filter) {
	if (filter->since_real_ns || filter->until_real_ns)
		strbuf_adds(sql, " AND seq IN (SELECT seq FROM events WHERE time >= ?2 AND time < ?3)");
	if (filter->kind)
		strbuf_adds(sql, " AND kind = ?4");
	if (filter->id)
		strbuf_adds(sql, " AND id = ?5");
	if (filter->pid)
		strbuf_adds(sql, " AND pid = ?6");
	if (filter->uid != (uid_t)-1)
		strbuf_adds(sql, " AND uid = ?7");
	if (filter->latest || filter->open)
		strbuf_adds(sql, " AND NOT EXISTS (SELECT 1 FROM events AS l WHERE l.id = e.id AND l.seq > e.seq)");
	if (filter->open)
		strbuf_adds(sql, " AND state <> ?8");
}

int pyspyd_store_events(struct pyspyd_store *store, const struct pyspyd_event_filter *filter,
	int (*each)(void *userdata, const struct pyspyd_event *event), void *userdata) {
	_cleanup_(strbuf_deinit) struct strbuf sql = { 0 };
	struct event_reader reader = { each, userdata };
	const struct store_value values[] = {
		v_since(filter->after_seq),
		v_since(filter->since_real_ns),
		v_until(filter->until_real_ns),
		v_text(filter->kind),
		v_text(filter->id),
		v_int(filter->pid),
		v_int(filter->uid),
		v_int(PYSPYD_RESOLVED),
		v_until(filter->most),
	};

	strbuf_adds(&sql,
		"SELECT seq, time, id, fingerprint, kind, severity, state, pid, start, uid, json"
		" FROM events AS e WHERE seq > ?1");
	add_conditions(&sql, filter);
	strbuf_adds(&sql, " ORDER BY seq LIMIT ?9");
	if (sql.failed)
		return -ENOMEM;
	return store_rows(store, sql.data, values, ARRAY_SIZE(values), read_event, &reader);
}

uint64_t pyspyd_store_first_seq(struct pyspyd_store *store) {
	int64_t seq = 0;

	return store_ask_once(store, "SELECT min(seq) FROM events", &seq) ? 0 : (uint64_t)seq;
}

uint64_t pyspyd_store_last_seq(struct pyspyd_store *store) {
	return (uint64_t)store->state.last_event;
}

/* Sinks */

static const char put_place[] = "INSERT INTO sinks (name, seq, dropped) VALUES (?1, ?2, ?3)"
				" ON CONFLICT (name) DO UPDATE SET seq = excluded.seq, dropped = excluded.dropped";

struct place {
	const char *sink;
	uint64_t seq, dropped;
};

static int read_place(void *data, sqlite3_stmt *s) {
	struct place *place = data;

	place->seq = (uint64_t)sqlite3_column_int64(s, 0);
	place->dropped = (uint64_t)sqlite3_column_int64(s, 1);
	return 0;
}

static int write_place(struct pyspyd_store *store, void *data) {
	const struct place *place = data;

	return store_do(
		store, put_place, v_text(place->sink), v_int((int64_t)place->seq), v_int((int64_t)place->dropped));
}

int pyspyd_store_sink_get(struct pyspyd_store *store, const char *sink, uint64_t *ret_seq, uint64_t *ret_dropped) {
	const struct store_value values[] = { v_text(sink) };
	struct place place = { 0 };
	int r = store_rows(store, "SELECT seq, dropped FROM sinks WHERE name = ?1", values, ARRAY_SIZE(values),
		read_place, &place);

	if (r)
		return r;
	*ret_seq = place.seq;
	*ret_dropped = place.dropped;
	return 0;
}

/* Not synced: what is delivered twice after a power cut is better than a wait for the disk for each delivery. */
int pyspyd_store_sink_put(struct pyspyd_store *store, const char *sink, uint64_t seq, uint64_t dropped) {
	struct place place = { sink, seq, dropped };
	const struct store_write write = {
		.room = STORE_ROOM_COUNTERS,
		.bytes = EVENT_BYTES,
		.records = 1,
		.work = write_place,
		.data = &place,
	};

	return store_write(store, &write);
}
