/* SPDX-License-Identifier: MIT */
/* Packed profiles. What is in them is not looked at. */
#include "engine/store/store_internal.h"

#include <errno.h>

#define ROW_BYTES 256 /* beside the data, with its entries in the indexes */

static const char insert_profile[] = "INSERT INTO profiles (process, start, end, data) VALUES (?1, ?2, ?3, ?4)";

struct put_profiles {
	const struct pyspyd_store_profile *profiles;
	size_t n, unknown;
};

static int put_one(struct pyspyd_store *store, const struct pyspyd_store_profile *p, size_t *unknown) {
	bool known;
	int rc = store_touch_process(store, p->process, p->end_real_ns, &known);

	if (!rc && !known)
		(*unknown)++;
	if (rc || !known)
		return rc;
	store->state.profiles++;
	return store_do(store, insert_profile, v_int(p->process), v_int((int64_t)p->start_real_ns),
		v_int((int64_t)p->end_real_ns), v_blob(p->data, p->len));
}

static int put_all(struct pyspyd_store *store, void *data) {
	struct put_profiles *put = data;
	int rc = SQLITE_OK;

	put->unknown = 0;
	for (size_t i = 0; !rc && i < put->n; i++)
		rc = put_one(store, put->profiles + i, &put->unknown);
	return rc;
}

int pyspyd_store_put_profiles(struct pyspyd_store *store, const struct pyspyd_store_profile *profiles, size_t n) {
	struct put_profiles put = { .profiles = profiles, .n = n };
	struct store_write write = {
		.room = STORE_ROOM_PROFILES,
		.bytes = n * ROW_BYTES,
		.records = n,
		.work = put_all,
		.data = &put,
	};
	int r;

	for (size_t i = 0; i < n; i++)
		write.bytes += profiles[i].len;
	r = n ? store_write(store, &write) : 0;
	if (r || !put.unknown)
		return r;
	store->lost += put.unknown;
	return -ENOENT;
}

struct profile_reader {
	int (*each)(void *userdata, const struct pyspyd_store_profile *profile);
	void *userdata;
};

static int read_profile(void *data, sqlite3_stmt *s) {
	const struct profile_reader *reader = data;
	const void *bytes = sqlite3_column_blob(s, 3);
	const struct pyspyd_store_profile profile = {
		.process = sqlite3_column_int64(s, 0),
		.start_real_ns = (uint64_t)sqlite3_column_int64(s, 1),
		.end_real_ns = (uint64_t)sqlite3_column_int64(s, 2),
		.data = bytes ? bytes : "",
		.len = bytes ? (size_t)sqlite3_column_bytes(s, 3) : 0,
	};

	return reader->each(reader->userdata, &profile);
}

int pyspyd_store_profiles(struct pyspyd_store *store, int64_t process, uint64_t since_real_ns, uint64_t until_real_ns,
	int (*each)(void *userdata, const struct pyspyd_store_profile *profile), void *userdata) {
	static const char sql[] = "SELECT process, start, end, data FROM profiles"
				  " WHERE process = ?1 AND start < ?3 AND end > ?2 ORDER BY start, number";
	const struct store_value values[] = { v_int(process), v_since(since_real_ns), v_until(until_real_ns) };
	struct profile_reader reader = { each, userdata };

	return store_rows(store, sql, values, ARRAY_SIZE(values), read_profile, &reader);
}
