/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_STORE_STORE_INTERNAL_H
#define PYSPYD_STORE_STORE_INTERNAL_H

#include "engine/base/util.h"
#include "pyspyd/store.h"
#include <sqlite3.h>
#include <string.h>

/* What the files of the store share. Inside, `rc` is a result of SQLite (extended; 0 is good), `r` is 0 or a negative
 * errno; the change is made in store_write(), store_rows() and store_ask_once(), which all of the public functions go
 * through. */

#define STORE_PAGE_BYTES 4096
#define STORE_KEPT_MAX 64

/* Numbers that must not be had by counting: kept in one row, written with every change. */
struct store_state {
	int64_t last_event, last_process; /* given last, never again */
	int64_t events, counters, profiles;
};

struct store_kept {
	const char *sql; /* known by its address */
	sqlite3_stmt *statement;
};

struct pyspyd_store {
	struct pyspyd_store_options options; /* path: ours, its folder resolved */
	int lock;
	sqlite3 *db; /* NULL: could not be opened anew; tried again at the next call */
	struct store_kept kept[STORE_KEPT_MAX];
	size_t kept_n;
	struct store_state state, written;
	int64_t max_pages; /* of the file without its log; 0: no limit */
	int64_t log_bytes; /* what the log should stay below */
	bool synced;       /* how `synchronous` stands */
	int os_errno;      /* of the last failure */
	bool rescuing;     /* so that damage met then does not lead to another rescue */
	uint64_t lost, set_aside;
	char *note; /* what has happened to the file, not yet told */
};

/* Values */

struct store_value {
	enum { STORE_INT, STORE_REAL, STORE_TEXT, STORE_BLOB } type;
	int64_t number;
	double real;
	const void *bytes;
	size_t len;
};

static inline struct store_value v_int(int64_t number) {
	return (struct store_value){ .type = STORE_INT, .number = number };
}

static inline struct store_value v_real(double real) {
	return (struct store_value){ .type = STORE_REAL, .real = real };
}

/* Foreign bytes, kept as they are; NULL is "". */
static inline struct store_value v_text(const char *text) {
	return (struct store_value){ .type = STORE_TEXT, .bytes = text ? text : "", .len = text ? strlen(text) : 0 };
}

static inline struct store_value v_blob(const void *bytes, size_t len) {
	return (struct store_value){ .type = STORE_BLOB, .bytes = bytes ? bytes : "", .len = len };
}

/* A bound of time: 0 is none. */
static inline struct store_value v_until(uint64_t time) {
	return v_int(time && time < INT64_MAX ? (int64_t)time : INT64_MAX);
}

static inline struct store_value v_since(uint64_t time) {
	return v_int(time < INT64_MAX ? (int64_t)time : INT64_MAX);
}

#define store_values(...) \
	(const struct store_value[]) { \
		__VA_ARGS__ \
	}
#define store_values_n(...) (sizeof(store_values(__VA_ARGS__)) / sizeof(struct store_value))

/* A column's text; never NULL. Stands until the next row. */
const char *store_column_text(sqlite3_stmt *statement, int column);

/* Statements (statements.c) */

/* Runs SQL that is kept prepared: its text must be static. */
int store_run(struct pyspyd_store *store, const char *sql, const struct store_value *values, size_t n);
#define store_do(store, sql, ...) store_run((store), (sql), store_values(__VA_ARGS__), store_values_n(__VA_ARGS__))

/* The same, for one whole number: 0 where there is no row, or NULL in it. */
int store_number(
	struct pyspyd_store *store, const char *sql, const struct store_value *values, size_t n, int64_t *ret_number);
#define store_ask(store, sql, ret, ...) \
	store_number((store), (sql), store_values(__VA_ARGS__), store_values_n(__VA_ARGS__), (ret))

int store_bind(sqlite3_stmt *statement, const struct store_value *values, size_t n);
void store_forget_statements(struct pyspyd_store *store);

/* Errors (statements.c) */

bool store_is_damage(int rc);
bool store_is_full(const struct pyspyd_store *store, int rc);
int store_errno(const struct pyspyd_store *store, int rc);

/* Remembers what the system said. Return: rc. */
int store_failed(struct pyspyd_store *store, int rc);

/* Access (access.c) */

/* What may be pushed out of a full file for what is put: things of its own kind, or of less worth. */
enum store_room { STORE_ROOM_NONE, STORE_ROOM_PROFILES, STORE_ROOM_COUNTERS, STORE_ROOM_EVENTS };

struct store_write {
	enum store_room room;
	bool synced;      /* on the disk before it is acknowledged, not only with the kernel */
	uint64_t bytes;   /* about how much it takes */
	uint64_t records; /* that are lost if it fails */
	int (*work)(struct pyspyd_store *store, void *data); /* rc; may run twice */
	void *data;
};

/* Does work in one transaction. Where the file is full, room is made, where it is damaged, it is set aside, and the
 * work done again, once for each. Return: 0 or negative errno. */
int store_write(struct pyspyd_store *store, const struct store_write *write);

/* Calls `row` for each row of a query until it returns non-zero. Return: that; 0; negative errno. */
int store_rows(struct pyspyd_store *store, const char *sql, const struct store_value *values, size_t n,
	int (*row)(void *data, sqlite3_stmt *statement), void *data);

/* store_number() for those outside of a transaction. Return: 0 or negative errno. */
int store_ask_once(struct pyspyd_store *store, const char *sql, int64_t *ret_number);

/* The file (store.c, schema.c) */

#define STORE_E_DAMAGED 1

/* Opens what is at the path, or makes it. Return: 0; STORE_E_DAMAGED with the reason in err; negative errno with a
 * text. */
int store_connect(struct pyspyd_store *store, struct err *err);
void store_disconnect(struct pyspyd_store *store, bool keep_log);

/* Sets the limit again: SQLite takes none that is below what the file has. Return: rc. */
int store_limit_pages(struct pyspyd_store *store);

/* Brings an opened, empty or older database to the present form. Return: rc; *ret_why: set where it is not for us. */
int store_schema(sqlite3 *db, const char **ret_why);
bool store_schema_is_known(sqlite3 *db);

/* Damage (aside.c, rescue.c) */

/* store_connect(), and anew where that says damaged. Return: 0 or negative errno with a text. */
int store_attach(struct pyspyd_store *store, struct err *err);

/* Sets the file aside, and goes on with a new one. Return: 0 or negative errno with a text. */
int store_start_anew(struct pyspyd_store *store, const char *why, struct err *err);

#define STORE_INTERRUPTED "was damaged, and was being set aside when that was interrupted"

/* Copies what can be read in a file that is being set aside, and lets go of it; nothing where there is none. Return:
 * 0; -ENOSPC: to be tried again; other negative errno. */
int store_finish_rescue(struct pyspyd_store *store, const char *why);

/* The copying alone. Return: 0 also where nothing can be read; negative errno of the new file. */
int store_rescue(struct pyspyd_store *store, const char *name, uint64_t *ret_events);

/* Adds to what the user of the store is told. */
void store_note(struct pyspyd_store *store, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Room (prune.c) */

/* Makes room for so many bytes in a file that is at its limit, as far as that goes. For a disk that is full nothing is
 * deleted: that would not make it less so. */
void store_make_room(struct pyspyd_store *store, enum store_room room, uint64_t bytes);

/* Processes (processes.c) */

/* A process of which something is put is kept. *ret_known: there is one of that number; one from before the file was
 * changed for a new one may belong to nobody. Return: rc. */
int store_touch_process(struct pyspyd_store *store, int64_t number, uint64_t time_real_ns, bool *ret_known);

#endif
