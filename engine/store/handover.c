/* SPDX-License-Identifier: MIT */
/* One store takes over what another one has: who the processes are, the places of the sinks, events, counters and
 * profiles, the newest first, as far as there is room. It happens in one transaction: all of it, or nothing.
 *
 * Events keep their numbers where the new store has none, or is an earlier copy of the old one; else they come behind
 * those that are there, each by the same number further. Processes are known by pid and start; their numbers may
 * change. The old store is only read; where it is damaged, what can be read is taken. */
#include "engine/store/store_internal.h"

#include "engine/base/vec.h"

#define BYTES_MAX ((uint64_t)128 << 20) /* the service's loop waits for it */
#define ROW_BYTES 128                   /* of one, beside what is in it */

struct renumbered {
	int64_t from, to;
};

struct handover {
	sqlite3 *from;                    /* NULL: it cannot be read at the moment */
	int64_t shift;                    /* of the numbers of events */
	int64_t last;                     /* that was given, as it is in the new store */
	VEC(struct renumbered) processes; /* by `from`, ascending */
	uint64_t bytes, bytes_max;
	struct pyspyd_store_taken taken;
};

/* Calls `put` for each row until the bytes are used up. Return: rc of the new store; the old one's failure only makes
 * what was taken incomplete. */
static int each_row(struct pyspyd_store *store, struct handover *handover, const char *pick,
	int (*put)(struct pyspyd_store *store, struct handover *handover, sqlite3_stmt *row)) {
	sqlite3_stmt *row = NULL;
	int rc = SQLITE_OK, read;

	if (sqlite3_prepare_v2(handover->from, pick, -1, &row, NULL)) {
		handover->taken.incomplete = true;
		return SQLITE_OK;
	}
	while ((read = sqlite3_step(row)) == SQLITE_ROW) {
		for (int i = 0; i < sqlite3_column_count(row); i++)
			handover->bytes += (uint64_t)sqlite3_column_bytes(row, i);
		handover->bytes += ROW_BYTES;
		if (handover->bytes > handover->bytes_max)
			break;
		rc = put(store, handover, row);
		if (rc)
			break;
	}
	if (read != SQLITE_DONE)
		handover->taken.incomplete = true;
	sqlite3_finalize(row);
	return rc;
}

static struct store_value v_column(sqlite3_stmt *row, int column) {
	const void *bytes;

	switch (sqlite3_column_type(row, column)) {
	case SQLITE_INTEGER: return v_int(sqlite3_column_int64(row, column));
	case SQLITE_FLOAT: return v_real(sqlite3_column_double(row, column));
	case SQLITE_BLOB:
		bytes = sqlite3_column_blob(row, column);
		return v_blob(bytes, (size_t)sqlite3_column_bytes(row, column));
	default: break;
	}
	bytes = sqlite3_column_text(row, column);
	return (struct store_value){
		.type = STORE_TEXT, .bytes = bytes ? bytes : "", .len = (size_t)sqlite3_column_bytes(row, column)
	};
}

/* Numbers of events. */

static const char pick_event[] = "SELECT time, id, state FROM events WHERE seq = ?1";

struct known_event {
	int64_t seq;
	sqlite3 *from; /* NULL: it cannot be read at the moment */
	bool same;
};

/* `mine` is the new store's last event: is it in the old one, with the same number? */
static int compare_event(void *data, sqlite3_stmt *mine) {
	struct known_event *known = data;
	sqlite3_stmt *row = NULL;

	if (!known->from || sqlite3_prepare_v2(known->from, pick_event, -1, &row, NULL))
		return 1;
	sqlite3_bind_int64(row, 1, known->seq);
	known->same = sqlite3_step(row) == SQLITE_ROW &&
		sqlite3_column_int64(row, 0) == sqlite3_column_int64(mine, 0) &&
		!strcmp(store_column_text(row, 1), store_column_text(mine, 1)) &&
		sqlite3_column_int64(row, 2) == sqlite3_column_int64(mine, 2);
	sqlite3_finalize(row);
	return 1;
}

/* Return: 0 or negative errno. */
static int find_shift(struct pyspyd_store *store, struct handover *handover) {
	struct known_event known = { .from = handover->from };
	struct store_value values[1];
	int r = store_ask_once(store, "SELECT max(seq) FROM events", &known.seq);

	if (r || !known.seq)
		return r;
	values[0] = v_int(known.seq);
	r = store_rows(store, pick_event, values, 1, compare_event, &known);
	if (r >= 0 && !known.same)
		handover->shift = store->state.last_event;
	return r < 0 ? r : 0;
}

/* Processes. */

static const char pick_processes[] =
	"SELECT number, pid, start, uid, seen, name, unit, container, cmdline FROM processes ORDER BY number";
static const char find_process[] = "SELECT number FROM processes WHERE pid = ?1 AND start = ?2";
static const char put_process[] =
	"INSERT INTO processes (number, pid, start, uid, seen, name, unit, container, cmdline)"
	" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

static int take_process(struct pyspyd_store *store, struct handover *handover, sqlite3_stmt *row) {
	struct renumbered process = { .from = sqlite3_column_int64(row, 0) };
	int rc = store_ask(store, find_process, &process.to, v_column(row, 1), v_column(row, 2));

	if (rc)
		return rc;
	if (vec_push(&handover->processes, process))
		return SQLITE_NOMEM;
	if (process.to)
		return SQLITE_OK;
	process.to = store->state.last_process = max_of(process.from, store->state.last_process + 1);
	handover->processes.items[handover->processes.n - 1] = process;
	return store_do(store, put_process, v_int(process.to), v_column(row, 1), v_column(row, 2), v_column(row, 3),
		v_column(row, 4), v_column(row, 5), v_column(row, 6), v_column(row, 7), v_column(row, 8));
}

/* Return: its new number; 0: it was not taken. */
static int64_t process_of(const struct handover *handover, int64_t from) {
	size_t low = 0, high = handover->processes.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (handover->processes.items[middle].from == from)
			return handover->processes.items[middle].to;
		if (handover->processes.items[middle].from < from)
			low = middle + 1;
		else
			high = middle;
	}
	return 0;
}

/* The rest. What is there already is left alone. */

static const char pick_sinks[] = "SELECT name, seq, dropped FROM sinks";
static const char put_sink[] = "INSERT OR REPLACE INTO sinks (name, seq, dropped) VALUES (?1, ?2, ?3)";

static int take_sink(struct pyspyd_store *store, struct handover *handover, sqlite3_stmt *row) {
	return store_do(store, put_sink, v_column(row, 0), v_int(sqlite3_column_int64(row, 1) + handover->shift),
		v_column(row, 2));
}

static const char pick_events[] = "SELECT seq, time, id, fingerprint, kind, severity, state, pid, start, uid, json"
				  " FROM events ORDER BY seq DESC";
static const char put_event[] =
	"INSERT OR IGNORE INTO events (seq, time, id, fingerprint, kind, severity, state, pid, start, uid, json)"
	" SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11"
	" WHERE NOT EXISTS (SELECT 1 FROM events WHERE id = ?3 AND time = ?2 AND state = ?7)";

static int take_event(struct pyspyd_store *store, struct handover *handover, sqlite3_stmt *row) {
	int rc = store_do(store, put_event, v_int(sqlite3_column_int64(row, 0) + handover->shift), v_column(row, 1),
		v_column(row, 2), v_column(row, 3), v_column(row, 4), v_column(row, 5), v_column(row, 6),
		v_column(row, 7), v_column(row, 8), v_column(row, 9), v_column(row, 10));

	if (rc)
		return rc;
	store->state.events += sqlite3_changes(store->db);
	handover->taken.events += (uint64_t)sqlite3_changes(store->db);
	return SQLITE_OK;
}

static const char pick_profiles[] = "SELECT process, start, end, data FROM profiles ORDER BY end DESC";
static const char put_profile[] = "INSERT INTO profiles (process, start, end, data) SELECT ?1, ?2, ?3, ?4"
				  " WHERE NOT EXISTS (SELECT 1 FROM profiles WHERE process = ?1 AND start = ?2)";

static int take_profile(struct pyspyd_store *store, struct handover *handover, sqlite3_stmt *row) {
	int64_t process = process_of(handover, sqlite3_column_int64(row, 0));
	int rc = process
		? store_do(store, put_profile, v_int(process), v_column(row, 1), v_column(row, 2), v_column(row, 3))
		: SQLITE_OK;

	if (!rc && process)
		store->state.profiles += sqlite3_changes(store->db);
	return rc;
}

static const char pick_counters[] =
	"SELECT time, process, cpu, rss, private, fds, threads FROM counters ORDER BY time DESC";
static const char put_counter[] = "INSERT OR IGNORE INTO counters (time, process, cpu, rss, private, fds, threads)"
				  " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

static int take_counter(struct pyspyd_store *store, struct handover *handover, sqlite3_stmt *row) {
	int64_t process = process_of(handover, sqlite3_column_int64(row, 1));
	int rc = process ? store_do(store, put_counter, v_column(row, 0), v_int(process), v_column(row, 2),
				   v_column(row, 3), v_column(row, 4), v_column(row, 5), v_column(row, 6))
			 : SQLITE_OK;

	if (!rc && process)
		store->state.counters += sqlite3_changes(store->db);
	return rc;
}

static int take_rows(struct pyspyd_store *store, struct handover *handover) {
	int rc = each_row(store, handover, pick_processes, take_process);

	if (!rc)
		rc = each_row(store, handover, pick_sinks, take_sink);
	if (!rc)
		rc = each_row(store, handover, pick_events, take_event);
	if (!rc)
		rc = each_row(store, handover, pick_profiles, take_profile);
	return rc ? rc : each_row(store, handover, pick_counters, take_counter);
}

static int take_all(struct pyspyd_store *store, void *data) {
	struct handover *handover = data;
	int rc = SQLITE_OK;

	handover->bytes = 0;
	handover->processes.n = 0;
	handover->taken =
		(struct pyspyd_store_taken){ .shift = (uint64_t)handover->shift, .incomplete = !handover->from };
	if (handover->from)
		rc = take_rows(store, handover);
	store->state.last_event = max_of(store->state.last_event, handover->last);
	return rc;
}

int pyspyd_store_take_over(
	struct pyspyd_store *store, struct pyspyd_store *from, struct pyspyd_store_taken *ret_taken) {
	uint64_t limit = (uint64_t)store->max_pages * STORE_PAGE_BYTES / 4 * 3;
	struct handover handover = { .from = from->db, .bytes_max = limit ? min_of(limit, BYTES_MAX) : BYTES_MAX };
	struct store_write write = { .room = STORE_ROOM_EVENTS, .synced = true, .work = take_all, .data = &handover };
	int r = find_shift(store, &handover);

	handover.last = from->state.last_event + handover.shift;
	if (!r)
		r = store_write(store, &write);
	vec_free(&handover.processes);
	if (!r)
		*ret_taken = handover.taken;
	return r;
}
