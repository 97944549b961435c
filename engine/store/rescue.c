/* SPDX-License-Identifier: MIT */
/* What is saved out of a file that was set aside: who the processes are, the places of the sinks, the numbers given
 * last, and events: from the newest down to the first that cannot be read, then from the oldest up. So what a sink has
 * not delivered yet is not lost with a page of some profile. Counters and profiles stay behind.
 *
 * The damaged file is only read. What it says may be anything: rows that the tables do not take are left out. */
#include "engine/store/store_internal.h"

#include <sys/stat.h>

#define EVENTS_MAX 100000
#define BYTES_MAX (64U << 20)
#define NUMBER_MAX (1LL << 53)
#define IS_NUMBER " BETWEEN 1 AND 9007199254740992" /* no number that was ever given is larger */

struct rescue {
	sqlite3 *from;
	uint64_t events, bytes, bytes_max;
};

/* One table, or a part of it. `pick` and `put` have the same columns. */
struct part {
	const char *pick, *put;
	bool events;
};

static const char put_event[] = "INSERT OR IGNORE INTO events (seq, time, id, fingerprint, kind, severity, state, pid,"
				" start, uid, json) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

#define EVENT_COLUMNS \
	"SELECT seq, time, id, fingerprint, kind, severity, state, pid, start, uid, json FROM events WHERE " \
	"seq" IS_NUMBER

static const struct part parts[] = {
	{ "SELECT name, seq, dropped FROM sinks",
		"INSERT OR IGNORE INTO sinks (name, seq, dropped) VALUES (?1, ?2, ?3)", false },
	{ "SELECT number, pid, start, uid, seen, name, unit, container, cmdline FROM processes"
	  " WHERE number" IS_NUMBER,
		"INSERT OR IGNORE INTO processes (number, pid, start, uid, seen, name, unit, container, cmdline)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
		false },
	{ EVENT_COLUMNS " ORDER BY seq DESC", put_event, true },
	{ EVENT_COLUMNS " ORDER BY seq", put_event, true },
};

static int copy_row(struct rescue *rescue, const struct part *part, sqlite3_stmt *from, sqlite3_stmt *to) {
	int rc = SQLITE_OK, columns = sqlite3_column_count(from);
	uint64_t bytes = 0;

	for (int i = 0; !rc && i < columns; i++) {
		rc = sqlite3_bind_value(to, i + 1, sqlite3_column_value(from, i));
		bytes += (uint64_t)sqlite3_column_bytes(from, i);
	}
	if (!rc)
		rc = sqlite3_step(to);
	sqlite3_reset(to);
	if (rc != SQLITE_DONE)
		return rc;
	rescue->bytes += bytes;
	if (part->events)
		rescue->events += (uint64_t)sqlite3_changes(sqlite3_db_handle(to));
	return SQLITE_OK;
}

/* *ret_whole: all could be read. Return: rc of the new file. */
static int copy_rows(
	struct rescue *rescue, const struct part *part, sqlite3_stmt *from, sqlite3_stmt *to, bool *ret_whole) {
	int rc = SQLITE_OK, read = SQLITE_ROW;

	while (!rc && rescue->events < EVENTS_MAX && rescue->bytes < rescue->bytes_max) {
		read = sqlite3_step(from);
		if (read != SQLITE_ROW)
			break;
		rc = copy_row(rescue, part, from, to);
	}
	*ret_whole = read == SQLITE_DONE;
	return rc;
}

static int copy(struct pyspyd_store *store, struct rescue *rescue, const struct part *part, bool *ret_whole) {
	sqlite3_stmt *from = NULL, *to = NULL;
	int rc;

	*ret_whole = false;
	if (sqlite3_prepare_v2(rescue->from, part->pick, -1, &from, NULL))
		return SQLITE_OK;
	rc = sqlite3_prepare_v2(store->db, part->put, -1, &to, NULL);
	if (!rc)
		rc = copy_rows(rescue, part, from, to, ret_whole);
	sqlite3_finalize(from);
	sqlite3_finalize(to);
	return rc;
}

static void raise_numbers(struct pyspyd_store *store, int64_t event, int64_t process) {
	store->state.last_event = max_of(store->state.last_event, min_of(event, NUMBER_MAX));
	store->state.last_process = max_of(store->state.last_process, min_of(process, NUMBER_MAX));
}

/* The numbers that were given last, or at least those that are there. They hold also where nothing can be copied. */
static void take_numbers(struct pyspyd_store *store, sqlite3 *from) {
	static const char *const sql[] = {
		"SELECT last_event, last_process FROM state",
		"SELECT max(seq), 0 FROM events",
		"SELECT 0, max(number) FROM processes",
	};

	for (size_t i = 0; i < ARRAY_SIZE(sql); i++) {
		sqlite3_stmt *statement;

		if (sqlite3_prepare_v2(from, sql[i], -1, &statement, NULL))
			continue;
		if (sqlite3_step(statement) == SQLITE_ROW)
			raise_numbers(store, sqlite3_column_int64(statement, 0), sqlite3_column_int64(statement, 1));
		sqlite3_finalize(statement);
	}
}

/* What was copied may have numbers that the above did not find. */
static int check_numbers(struct pyspyd_store *store) {
	int64_t event = 0, process = 0;
	int rc = store_number(store, "SELECT max(seq) FROM events", NULL, 0, &event);

	if (!rc)
		rc = store_number(store, "SELECT max(number) FROM processes", NULL, 0, &process);
	if (!rc)
		raise_numbers(store, event, process);
	return rc;
}

static int copy_all(struct pyspyd_store *store, void *data) {
	struct rescue *rescue = data;
	bool whole = false;
	int rc = SQLITE_OK;

	rescue->events = rescue->bytes = 0;
	for (size_t i = 0; !rc && i < ARRAY_SIZE(parts); i++)
		if (i + 1 < ARRAY_SIZE(parts) || !whole)
			rc = copy(store, rescue, parts + i, &whole);
	store->state.events += (int64_t)rescue->events;
	return rc ? rc : check_numbers(store);
}

/* An empty file is not opened: SQLite would delete its log. */
static int open_damaged(const char *name, sqlite3 **ret_db) {
	struct stat st;
	int rc;

	if (lstat(name, &st) || !S_ISREG(st.st_mode) || st.st_size < STORE_PAGE_BYTES)
		return SQLITE_CANTOPEN;
	rc = sqlite3_open_v2(name, ret_db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW, NULL);
	if (!rc)
		rc = sqlite3_db_config(*ret_db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	if (!rc)
		rc = sqlite3_exec(
			*ret_db, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA trusted_schema = OFF", NULL, NULL, NULL);
	return rc;
}

int store_rescue(struct pyspyd_store *store, const char *name, uint64_t *ret_events) {
	uint64_t limit = (uint64_t)store->max_pages * STORE_PAGE_BYTES / 2;
	struct rescue rescue = { .bytes_max = limit ? min_of(limit, (uint64_t)BYTES_MAX) : BYTES_MAX };
	struct store_write write = { .synced = true, .work = copy_all, .data = &rescue };
	int r = 0;

	if (!open_damaged(name, &rescue.from) && store_schema_is_known(rescue.from)) {
		take_numbers(store, rescue.from);
		store->rescuing = true;
		r = store_write(store, &write);
		store->rescuing = false;
	}
	sqlite3_close(rescue.from);
	if (!r)
		*ret_events = rescue.events;
	return r;
}
