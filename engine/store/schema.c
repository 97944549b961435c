/* SPDX-License-Identifier: MIT */
/* The tables, and the way to them from every earlier version: a step for each, user_version says how many were taken.
 *
 * Counters lie in the order of their time, not by process: a round of 200 processes then touches three pages and not
 * two hundred; what is asked for one process reads past the others. Columns that are long stand last, so that a search
 * does not read them. Numbers are given out of `state`: those of what was deleted are not given again. */
#include "engine/store/store_internal.h"

#include <stdio.h>

#define APPLICATION_ID 0x70797370 /* "pysp" */

static const char *const steps[] = {
	"CREATE TABLE state (only INTEGER PRIMARY KEY CHECK (only = 1), last_event INTEGER NOT NULL,"
	" last_process INTEGER NOT NULL, events INTEGER NOT NULL, counters INTEGER NOT NULL,"
	" profiles INTEGER NOT NULL);"
	"INSERT INTO state VALUES (1, 0, 0, 0, 0, 0);"
	"CREATE TABLE events (seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, id TEXT NOT NULL,"
	" fingerprint TEXT NOT NULL, kind TEXT NOT NULL, severity INTEGER NOT NULL, state INTEGER NOT NULL,"
	" pid INTEGER NOT NULL, start INTEGER NOT NULL, uid INTEGER NOT NULL, json TEXT NOT NULL);"
	"CREATE INDEX events_id ON events (id, seq);"
	"CREATE INDEX events_time ON events (time);"
	"CREATE TABLE sinks (name TEXT PRIMARY KEY, seq INTEGER NOT NULL, dropped INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE processes (number INTEGER PRIMARY KEY, pid INTEGER NOT NULL, start INTEGER NOT NULL,"
	" uid INTEGER NOT NULL, seen INTEGER NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL,"
	" container TEXT NOT NULL, cmdline TEXT NOT NULL, UNIQUE (pid, start));"
	"CREATE INDEX processes_seen ON processes (seen);"
	"CREATE TABLE counters (time INTEGER NOT NULL, process INTEGER NOT NULL, cpu REAL NOT NULL,"
	" rss INTEGER NOT NULL, private INTEGER NOT NULL, fds INTEGER NOT NULL, threads INTEGER NOT NULL,"
	" PRIMARY KEY (time, process)) WITHOUT ROWID;"
	"CREATE TABLE profiles (number INTEGER PRIMARY KEY, process INTEGER NOT NULL, start INTEGER NOT NULL,"
	" end INTEGER NOT NULL, data BLOB NOT NULL);"
	"CREATE INDEX profiles_process ON profiles (process, start);"
	"CREATE INDEX profiles_end ON profiles (end);",
};

static int ask(sqlite3 *db, const char *sql, int64_t *ret_number) {
	sqlite3_stmt *statement;
	int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

	if (rc)
		return rc;
	rc = sqlite3_step(statement);
	if (rc == SQLITE_ROW) {
		*ret_number = sqlite3_column_int64(statement, 0);
		rc = SQLITE_OK;
	}
	sqlite3_finalize(statement);
	return rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
}

static int take_step(sqlite3 *db, size_t step) {
	char version[96];
	int rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

	if (!rc)
		rc = sqlite3_exec(db, steps[step], NULL, NULL, NULL);
	snprintf(version, sizeof(version), "PRAGMA application_id = %d; PRAGMA user_version = %zu; COMMIT",
		APPLICATION_ID, step + 1);
	if (!rc)
		rc = sqlite3_exec(db, version, NULL, NULL, NULL);
	return rc;
}

/* Looks without changing anything: the file may not be ours. */
static int look(sqlite3 *db, int64_t *ret_version, const char **ret_why) {
	int64_t application = 0, tables = 0;
	int rc = ask(db, "PRAGMA user_version", ret_version);

	if (!rc)
		rc = ask(db, "PRAGMA application_id", &application);
	if (!rc)
		rc = ask(db, "SELECT count(*) FROM sqlite_schema", &tables);
	if (rc)
		return rc;
	if (application != APPLICATION_ID && (tables || application || *ret_version))
		*ret_why = "is the database of another program";
	else if (*ret_version < 0 || (size_t)*ret_version > ARRAY_SIZE(steps))
		*ret_why = "is of a newer version of pyspyd";
	else if (!*ret_version != !tables)
		*ret_why = "lacks its tables";
	return SQLITE_OK;
}

int store_schema(sqlite3 *db, const char **ret_why) {
	int64_t version = 0;
	int rc = look(db, &version, ret_why);

	if (rc || *ret_why)
		return rc;
	rc = sqlite3_exec(db, "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL", NULL, NULL, NULL);
	for (size_t step = (size_t)version; !rc && step < ARRAY_SIZE(steps); step++)
		rc = take_step(db, step);
	return rc;
}

bool store_schema_is_known(sqlite3 *db) {
	const char *why = NULL;
	int64_t version = 0;

	return !look(db, &version, &why) && !why && version > 0;
}
