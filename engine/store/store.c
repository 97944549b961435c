/* SPDX-License-Identifier: MIT */
/* Opening and closing of the store, and what it tells of itself.
 *
 * One file in write-ahead mode, held exclusively: no second process reads or writes it meanwhile, there is no shared
 * memory file, and a lock on PATH-lock keeps a second pyspyd away also while the file is changed for a new one. The log
 * is brought into the file whenever it has grown to a part of its bound, and cut to that bound; at its limit the file
 * says so (max_page_count) and room is made (prune.c).
 *
 * What is damaged is not mended: the file is set aside and a new one made, with what could be read of the events. Not
 * every damage shows when the file is opened; nothing reads it all for that. Text inside is not checksummed. */
#include "engine/store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#define MODE 0640
#define BYTES_LEAST (1U << 20) /* a smaller limit is taken as this */
#define LOG_BYTES_MOST (4U << 20)
#define LOG_BYTES_LEAST (256U << 10)
#define LOG_PART 8            /* of the limit */
#define PAGES_MOST 1073741823 /* SQLite's own limit */
#define BUSY_MS 2000

static int file_error(struct err *err, int e, const char *what, const char *path) {
	return err_set(err, -e, "%s %s: %s", what, path, strerror(e));
}

/* Opens a file of ours without following a link at its end, and without waiting for a FIFO's other side. */
static int open_regular(const char *path, int *ret_fd, struct err *err) {
	_close_ int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, MODE);
	struct stat st;

	if (fd < 0 && errno == ELOOP)
		return err_set(err, -ELOOP, "%s is a symbolic link, which is not followed", path);
	if (fd < 0 || fstat(fd, &st))
		return file_error(err, errno, "cannot open", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s is not a regular file", path);
	*ret_fd = take_fd(&fd);
	return 0;
}

static int lock_path(struct pyspyd_store *store, struct err *err) {
	_free_ char *path = NULL;
	int r;

	if (asprintf(&path, "%s-lock", store->options.path) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	r = open_regular(path, &store->lock, err);
	if (r)
		return r;
	if (!flock(store->lock, LOCK_EX | LOCK_NB))
		return 0;
	if (errno == EWOULDBLOCK)
		return err_set(err, -EBUSY, "%s is in use by another process", store->options.path);
	return file_error(err, errno, "cannot lock", path);
}

/* SQLite refuses links anywhere in the path: those that lead to the folder are the administrator's, and resolved. */
static int resolve(const char *path, char **ret_path, struct err *err) {
	_free_ char *one = strdup(path), *two = strdup(path), *folder = NULL;
	const char *parent;

	if (!one || !two)
		return err_set(err, -ENOMEM, "out of memory");
	parent = dirname(one);
	folder = realpath(parent, NULL);
	if (!folder)
		return file_error(err, errno, "no folder", parent);
	if (asprintf(ret_path, "%s/%s", strcmp(folder, "/") ? folder : "", basename(two)) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	return 0;
}

static uint64_t size_of(const char *path, const char *ending) {
	_free_ char *name = NULL;
	struct stat st;

	if (asprintf(&name, "%s%s", path, ending) < 0)
		return 0;
	return lstat(name, &st) ? 0 : (uint64_t)st.st_size;
}

/* An empty file (or, to SQLite, one of a single byte) is a new one, unless its log says that it was not. */
static int check_file(const struct pyspyd_store *store, struct err *err) {
	_close_ int fd = -1;
	int r = open_regular(store->options.path, &fd, err);

	if (!r && size_of(store->options.path, "") <= 1 && size_of(store->options.path, "-wal"))
		return err_set(err, STORE_E_DAMAGED, "is empty, and its log is not");
	return r;
}

static int configure(struct pyspyd_store *store) {
	char sql[512];

	snprintf(sql, sizeof(sql),
		"PRAGMA locking_mode = EXCLUSIVE; PRAGMA cell_size_check = ON;"
		"PRAGMA secure_delete = OFF; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0;"
		"PRAGMA trusted_schema = OFF; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = %lld;"
		"PRAGMA wal_autocheckpoint = %lld",
		(long long)store->log_bytes, (long long)(store->log_bytes / 2 / STORE_PAGE_BYTES));
	sqlite3_extended_result_codes(store->db, 1);
	sqlite3_busy_timeout(store->db, BUSY_MS);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	store->synced = true;
	return sqlite3_exec(store->db, sql, NULL, NULL, NULL);
}

int store_limit_pages(struct pyspyd_store *store) {
	char sql[64];

	if (!store->max_pages)
		return SQLITE_OK;
	snprintf(sql, sizeof(sql), "PRAGMA max_page_count = %lld", (long long)store->max_pages);
	return sqlite3_exec(store->db, sql, NULL, NULL, NULL);
}

static int take_state(void *data, sqlite3_stmt *statement) {
	struct store_state *s = data;

	*s = (struct store_state){ sqlite3_column_int64(statement, 0), sqlite3_column_int64(statement, 1),
		sqlite3_column_int64(statement, 2), sqlite3_column_int64(statement, 3),
		sqlite3_column_int64(statement, 4) };
	return 1;
}

/* Numbers that were given before the file was changed for this one go on. */
static int load_state(struct pyspyd_store *store) {
	struct store_state loaded = { 0 };
	sqlite3_stmt *statement;
	int64_t last_event = 0, last_process = 0;
	int rc = sqlite3_prepare_v2(store->db, "SELECT last_event, last_process, events, counters, profiles FROM state",
		-1, &statement, NULL);

	if (rc)
		return rc;
	rc = sqlite3_step(statement);
	if (rc == SQLITE_ROW)
		take_state(&loaded, statement);
	sqlite3_finalize(statement);
	if (rc != SQLITE_ROW)
		return rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
	rc = store_number(store, "SELECT max(seq) FROM events", NULL, 0, &last_event);
	if (!rc)
		rc = store_number(store, "SELECT max(number) FROM processes", NULL, 0, &last_process);
	if (rc)
		return rc;
	if (loaded.last_event < last_event || loaded.last_process < last_process)
		return SQLITE_CORRUPT;
	store->written = loaded;
	loaded.last_event = max_of(loaded.last_event, store->state.last_event);
	loaded.last_process = max_of(loaded.last_process, store->state.last_process);
	store->state = loaded;
	return SQLITE_OK;
}

static int set_up(struct pyspyd_store *store, const char **ret_why) {
	int rc = configure(store);

	if (!rc)
		rc = store_schema(store->db, ret_why);
	if (!rc && !*ret_why)
		rc = store_limit_pages(store);
	if (!rc && !*ret_why)
		rc = load_state(store);
	return rc;
}

int store_connect(struct pyspyd_store *store, struct err *err) {
	const char *path = store->options.path, *why = NULL;
	int rc, r = check_file(store, err);

	if (r)
		return r;
	store->os_errno = 0;
	rc = sqlite3_open_v2(path, &store->db,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_NOFOLLOW, NULL);
	if (!rc)
		rc = set_up(store, &why);
	if (!rc && !why)
		return 0;
	store_failed(store, rc);
	store_disconnect(store, true);
	if (why || store_is_damage(rc))
		return err_set(err, STORE_E_DAMAGED, "%s", why ? why : sqlite3_errstr(rc));
	r = store_errno(store, rc);
	if (r == -EBUSY)
		return err_set(err, r, "%s is in use by another process", path);
	return err_set(err, r, "cannot open %s: %s", path, sqlite3_errstr(rc));
}

void store_disconnect(struct pyspyd_store *store, bool keep_log) {
	store_forget_statements(store);
	/* A log that is kept: SQLite would delete it by its name, which may be the new file's by then. */
	if (keep_log)
		sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_close_v2(store->db);
	store->db = NULL;
}

static void bound(struct pyspyd_store *store) {
	uint64_t most = store->options.max_bytes;
	int64_t log_bytes = LOG_BYTES_MOST;

	store->max_pages = 0;
	if (most) {
		most = min_of(max_of(most, (uint64_t)BYTES_LEAST), (uint64_t)INT64_MAX);
		log_bytes = max_of((int64_t)LOG_BYTES_LEAST, min_of(log_bytes, (int64_t)most / LOG_PART));
		store->max_pages = min_of(((int64_t)most - log_bytes) / STORE_PAGE_BYTES, (int64_t)INT32_MAX);
	}
	store->log_bytes = log_bytes;
}

static void close_store(struct pyspyd_store **store) {
	pyspyd_store_close(*store);
}

int pyspyd_store_open(
	const struct pyspyd_store_options *options, struct pyspyd_store **ret_store, char **ret_note, struct err *err) {
	_cleanup_(close_store) struct pyspyd_store *store = calloc(1, sizeof(*store));
	char *path = NULL;
	int r;

	if (!store)
		return err_set(err, -ENOMEM, "out of memory");
	store->lock = -1;
	store->options = *options;
	store->options.path = NULL;
	r = resolve(options->path, &path, err);
	if (!path)
		return r;
	store->options.path = path;
	bound(store);
	r = lock_path(store, err);
	if (!r)
		r = store_attach(store, err);
	if (r)
		return r;
	if (ret_note)
		*ret_note = pyspyd_store_take_note(store);
	*ret_store = take_ptr(store);
	return 0;
}

void pyspyd_store_close(struct pyspyd_store *store) {
	if (!store)
		return;
	if (store->db)
		store_disconnect(store, false);
	close_fd(&store->lock);
	free((char *)store->options.path);
	free(store->note);
	free(store);
}

static int apply_bounds(struct pyspyd_store *store) {
	char sql[160];

	snprintf(sql, sizeof(sql),
		"PRAGMA max_page_count = %lld; PRAGMA journal_size_limit = %lld; PRAGMA wal_autocheckpoint = %lld",
		(long long)(store->max_pages ? store->max_pages : PAGES_MOST), (long long)store->log_bytes,
		(long long)(store->log_bytes / 2 / STORE_PAGE_BYTES));
	return store->db ? store_errno(store, sqlite3_exec(store->db, sql, NULL, NULL, NULL)) : 0;
}

int pyspyd_store_bound(struct pyspyd_store *store, const struct pyspyd_store_options *options) {
	const struct pyspyd_store_options before = store->options;
	int r;

	store->options = *options;
	store->options.path = before.path;
	bound(store);
	r = apply_bounds(store);
	if (!r)
		return 0;
	store->options = before;
	bound(store);
	(void)!apply_bounds(store);
	return r;
}

char *pyspyd_store_take_note(struct pyspyd_store *store) {
	return take_ptr(store->note);
}

int pyspyd_store_stats(struct pyspyd_store *store, struct pyspyd_store_stats *ret_stats) {
	uint64_t log_bytes = size_of(store->options.path, "-wal");

	*ret_stats = (struct pyspyd_store_stats){
		.bytes = size_of(store->options.path, "") + log_bytes,
		.log_bytes = log_bytes,
		.events = (uint64_t)store->state.events,
		.profiles = (uint64_t)store->state.profiles,
		.counters = (uint64_t)store->state.counters,
		.lost = store->lost,
		.set_aside = store->set_aside,
	};
	return 0;
}
