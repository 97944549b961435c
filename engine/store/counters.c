/* SPDX-License-Identifier: MIT */
/* Counters over time. What is not known (UINT64_MAX, a negative share) is kept as it is: -1. */
#include "engine/store/store_internal.h"

#include <errno.h>

#define ROW_BYTES 64

static const char insert_counters[] = "INSERT OR REPLACE INTO counters (time, process, cpu, rss, private, fds, threads)"
				      " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
static const char count_counters[] = "SELECT count(*) FROM counters WHERE time = ?1 AND process = ?2";

struct put_counters {
	const struct pyspyd_store_counters *counters;
	size_t n, unknown;
};

static int put_one(struct pyspyd_store *store, const struct pyspyd_store_counters *c, size_t *unknown) {
	int64_t there = 0;
	bool known;
	int rc = store_touch_process(store, c->process, c->time_real_ns, &known);

	if (!rc && !known)
		(*unknown)++;
	if (rc || !known)
		return rc;
	rc = store_ask(store, count_counters, &there, v_int((int64_t)c->time_real_ns), v_int(c->process));
	if (rc)
		return rc;
	store->state.counters += !there;
	return store_do(store, insert_counters, v_int((int64_t)c->time_real_ns), v_int(c->process),
		v_real(c->cpu_percent), v_int((int64_t)c->rss_bytes), v_int((int64_t)c->private_bytes),
		v_int((int64_t)c->fds), v_int((int64_t)c->threads));
}

static int put_all(struct pyspyd_store *store, void *data) {
	struct put_counters *put = data;
	int rc = SQLITE_OK;

	put->unknown = 0;
	for (size_t i = 0; !rc && i < put->n; i++)
		rc = put_one(store, put->counters + i, &put->unknown);
	return rc;
}

int pyspyd_store_put_counters(struct pyspyd_store *store, const struct pyspyd_store_counters *counters, size_t n) {
	struct put_counters put = { .counters = counters, .n = n };
	const struct store_write write = {
		.room = STORE_ROOM_COUNTERS,
		.bytes = n * ROW_BYTES,
		.records = n,
		.work = put_all,
		.data = &put,
	};
	int r = n ? store_write(store, &write) : 0;

	if (r || !put.unknown)
		return r;
	store->lost += put.unknown;
	return -ENOENT;
}

struct counters_reader {
	int (*each)(void *userdata, const struct pyspyd_store_counters *counters);
	void *userdata;
};

static int read_counters(void *data, sqlite3_stmt *s) {
	const struct counters_reader *reader = data;
	const struct pyspyd_store_counters counters = {
		.time_real_ns = (uint64_t)sqlite3_column_int64(s, 0),
		.process = sqlite3_column_int64(s, 1),
		.cpu_percent = sqlite3_column_double(s, 2),
		.rss_bytes = (uint64_t)sqlite3_column_int64(s, 3),
		.private_bytes = (uint64_t)sqlite3_column_int64(s, 4),
		.fds = (uint64_t)sqlite3_column_int64(s, 5),
		.threads = (uint64_t)sqlite3_column_int64(s, 6),
	};

	return reader->each(reader->userdata, &counters);
}

int pyspyd_store_counters(struct pyspyd_store *store, int64_t process, uint64_t since_real_ns, uint64_t until_real_ns,
	int (*each)(void *userdata, const struct pyspyd_store_counters *counters), void *userdata) {
	static const char sql[] = "SELECT time, process, cpu, rss, private, fds, threads FROM counters"
				  " WHERE process = ?1 AND time >= ?2 AND time < ?3 ORDER BY time";
	const struct store_value values[] = { v_int(process), v_since(since_real_ns), v_until(until_real_ns) };
	struct counters_reader reader = { each, userdata };

	return store_rows(store, sql, values, ARRAY_SIZE(values), read_counters, &reader);
}
