/* SPDX-License-Identifier: MIT */
/* Statements that are kept prepared, and what SQLite's results mean.
 *
 * A kept statement is known by the address of its text, and is always reset before its user returns: so it can be
 * dropped whenever the file is changed for another. Whatever calls back to users goes through store_rows(), whose
 * statements are its own. */
#include "engine/store/store_internal.h"

#include <assert.h>
#include <errno.h>

static int kept(struct pyspyd_store *store, const char *sql, sqlite3_stmt **ret_statement) {
	sqlite3_stmt *statement;
	int rc;

	for (size_t i = 0; i < store->kept_n; i++)
		if (store->kept[i].sql == sql) {
			*ret_statement = store->kept[i].statement;
			return SQLITE_OK;
		}
	assert(store->kept_n < STORE_KEPT_MAX);
	rc = sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL);
	if (rc)
		return rc;
	store->kept[store->kept_n++] = (struct store_kept){ sql, statement };
	*ret_statement = statement;
	return SQLITE_OK;
}

void store_forget_statements(struct pyspyd_store *store) {
	for (size_t i = 0; i < store->kept_n; i++)
		sqlite3_finalize(store->kept[i].statement);
	store->kept_n = 0;
}

static int bind_one(sqlite3_stmt *statement, int at, const struct store_value *value) {
	switch (value->type) {
	case STORE_INT: return sqlite3_bind_int64(statement, at, value->number);
	case STORE_REAL: return sqlite3_bind_double(statement, at, value->real);
	case STORE_TEXT:
		return sqlite3_bind_text64(statement, at, value->bytes, value->len, SQLITE_STATIC, SQLITE_UTF8);
	case STORE_BLOB: return sqlite3_bind_blob64(statement, at, value->bytes, value->len, SQLITE_STATIC);
	}
	return SQLITE_MISUSE;
}

int store_bind(sqlite3_stmt *statement, const struct store_value *values, size_t n) {
	int rc = SQLITE_OK;

	for (size_t i = 0; !rc && i < n; i++)
		rc = bind_one(statement, (int)i + 1, values + i);
	return rc;
}

static int step_to_end(sqlite3_stmt *statement, int64_t *ret_number) {
	bool first = true;
	int rc;

	while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
		if (first && ret_number)
			*ret_number = sqlite3_column_int64(statement, 0);
		first = false;
	}
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int store_number(
	struct pyspyd_store *store, const char *sql, const struct store_value *values, size_t n, int64_t *ret_number) {
	sqlite3_stmt *statement;
	int64_t number = 0;
	int rc = kept(store, sql, &statement);

	if (!rc) {
		rc = store_bind(statement, values, n);
		if (!rc)
			rc = step_to_end(statement, &number);
		if (rc)
			store_failed(store, rc);
		sqlite3_reset(statement);
		sqlite3_clear_bindings(statement); /* they point to what is the caller's */
	}
	if (rc)
		return store_failed(store, rc);
	if (ret_number)
		*ret_number = number;
	return SQLITE_OK;
}

int store_run(struct pyspyd_store *store, const char *sql, const struct store_value *values, size_t n) {
	return store_number(store, sql, values, n, NULL);
}

const char *store_column_text(sqlite3_stmt *statement, int column) {
	const char *text = (const char *)sqlite3_column_text(statement, column);

	return text ? text : "";
}

/* All of the SQL is ours and fits the tables: where it does not (an error in it, a constraint that does not hold), the
 * tables or their indexes are not as we made them. */
bool store_is_damage(int rc) {
	switch (rc & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_ERROR:
	case SQLITE_CONSTRAINT:
	case SQLITE_MISMATCH: return true;
	default: return rc == SQLITE_IOERR_CORRUPTFS || rc == SQLITE_IOERR_SHORT_READ;
	}
}

static bool is_full_errno(int e) {
	return e == ENOSPC || e == EDQUOT || e == EFBIG;
}

bool store_is_full(const struct pyspyd_store *store, int rc) {
	int basic = rc & 0xff;

	return basic == SQLITE_FULL ||
		((basic == SQLITE_IOERR || basic == SQLITE_CANTOPEN) && is_full_errno(store->os_errno));
}

static int errno_of(sqlite3_file *file) {
	int e = 0;

	if (file && file->pMethods)
		file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &e);
	return e;
}

/* What the system said of the last failed write is kept by the log's file, and by the file's own. */
static int write_errno(sqlite3 *db) {
	sqlite3_file *file = NULL, *log = NULL;
	int e;

	sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
	sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
	e = errno_of(log);
	return e ? e : errno_of(file);
}

/* To be called before anything else is done: it is forgotten soon. */
int store_failed(struct pyspyd_store *store, int rc) {
	if (!store->db)
		return rc;
	if ((rc & 0xff) == SQLITE_IOERR)
		store->os_errno = write_errno(store->db);
	if ((rc & 0xff) == SQLITE_CANTOPEN)
		store->os_errno = sqlite3_system_errno(store->db);
	return rc;
}

int store_errno(const struct pyspyd_store *store, int rc) {
	if (store_is_full(store, rc))
		return -ENOSPC;
	switch (rc & 0xff) {
	case SQLITE_OK: return 0;
	case SQLITE_NOMEM: return -ENOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED: return -EBUSY;
	case SQLITE_READONLY: return -EROFS;
	case SQLITE_PERM:
	case SQLITE_AUTH: return -EACCES;
	case SQLITE_TOOBIG: return -EMSGSIZE;
	case SQLITE_CANTOPEN: return store->os_errno > 0 ? -store->os_errno : -EIO;
	default: return -EIO;
	}
}
