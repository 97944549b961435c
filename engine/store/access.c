/* SPDX-License-Identifier: MIT */
/* How the file is read and written: one transaction for each write, with a second try after a mishap that the store
 * can mend by itself. What a transaction does to the numbers in `state` is undone with it. */
#include "engine/store/store_internal.h"

#include <errno.h>

static const char begin[] = "BEGIN IMMEDIATE", commit[] = "COMMIT", rollback[] = "ROLLBACK";
static const char put_state[] =
	"UPDATE state SET last_event = ?1, last_process = ?2, events = ?3, counters = ?4, profiles = ?5";

/* Opens the file again where that failed the last time. */
static int ready(struct pyspyd_store *store) {
	return store->db ? 0 : store_attach(store, NULL);
}

static int set_sync(struct pyspyd_store *store, bool synced) {
	int rc;

	if (store->synced == synced)
		return SQLITE_OK;
	rc = sqlite3_exec(
		store->db, synced ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
	if (!rc)
		store->synced = synced;
	return rc;
}

static int write_state(struct pyspyd_store *store) {
	const struct store_state *s = &store->state;

	if (!memcmp(s, &store->written, sizeof(*s)))
		return SQLITE_OK;
	return store_do(store, put_state, v_int(s->last_event), v_int(s->last_process), v_int(s->events),
		v_int(s->counters), v_int(s->profiles));
}

/* What failed first is what is told. */
static void roll_back(struct pyspyd_store *store, const struct store_state *before) {
	int os_errno = store->os_errno;

	store->state = *before;
	if (!sqlite3_get_autocommit(store->db))
		store_run(store, rollback, NULL, 0);
	if (!sqlite3_get_autocommit(store->db))
		store_disconnect(store, true);
	store->os_errno = os_errno;
}

static int transact(struct pyspyd_store *store, const struct store_write *write) {
	struct store_state before = store->state;
	int rc = set_sync(store, write->synced);

	if (!rc)
		rc = store_run(store, begin, NULL, 0);
	if (!rc)
		rc = write->work(store, write->data);
	if (!rc)
		rc = write_state(store);
	if (!rc)
		rc = store_run(store, commit, NULL, 0);
	if (rc)
		roll_back(store, &before);
	else
		store->written = store->state;
	return rc;
}

int store_write(struct pyspyd_store *store, const struct store_write *write) {
	bool mended = false, room = write->room == STORE_ROOM_NONE;
	int r, rc = SQLITE_OK;

	while (!(r = ready(store))) {
		rc = transact(store, write);
		r = store_errno(store, rc);
		if (store_is_damage(rc) && !mended) {
			mended = true;
			r = store_start_anew(store, sqlite3_errstr(rc), NULL);
			if (!r)
				continue;
		} else if (store_is_full(store, rc) && !room) {
			room = true;
			store_make_room(store, write->room, write->bytes);
			continue;
		}
		break;
	}
	if (r)
		store->lost += write->records;
	return r;
}

/* A file that is found damaged is set aside at once, for those who come next; what was asked for is not there. */
static int read_failed(struct pyspyd_store *store, const sqlite3 *db, int rc) {
	if (store_is_damage(rc) && store->db == db)
		store_start_anew(store, sqlite3_errstr(rc), NULL);
	return store_errno(store, rc);
}

int store_rows(struct pyspyd_store *store, const char *sql, const struct store_value *values, size_t n,
	int (*row)(void *data, sqlite3_stmt *statement), void *data) {
	sqlite3_stmt *statement = NULL;
	sqlite3 *db;
	int r = ready(store), rc;

	if (r)
		return r;
	db = store->db;
	rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
	if (!rc)
		rc = store_bind(statement, values, n);
	while (!rc && !r) {
		rc = sqlite3_step(statement);
		if (rc == SQLITE_ROW)
			rc = (r = row(data, statement)) ? SQLITE_DONE : SQLITE_OK;
	}
	if (rc && rc != SQLITE_DONE && store->db == db)
		store_failed(store, rc);
	sqlite3_finalize(statement);
	return rc == SQLITE_DONE ? r : read_failed(store, db, rc);
}

int store_ask_once(struct pyspyd_store *store, const char *sql, int64_t *ret_number) {
	int r = ready(store), rc;

	if (r)
		return r;
	rc = store_number(store, sql, NULL, 0, ret_number);
	return rc ? read_failed(store, store->db, rc) : 0;
}
