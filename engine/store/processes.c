/* SPDX-License-Identifier: MIT */
/* Who the processes are that counters and profiles belong to. */
#include "engine/store/store_internal.h"

#include "engine/base/clock.h"

#define SEEN_NS (3600 * NS_PER_SEC) /* how far `seen` may lie behind what is put for a process */

static const char find_process[] = "SELECT number FROM processes WHERE pid = ?1 AND start = ?2";
static const char insert_process[] =
	"INSERT INTO processes (number, pid, start, uid, seen, name, unit, container, cmdline)"
	" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
static const char update_process[] =
	"UPDATE processes SET uid = ?4, seen = ?5, name = ?6, unit = ?7, container = ?8, cmdline = ?9"
	" WHERE number = ?1 AND pid = ?2 AND start = ?3";

/* Never 0 where there is one. */
static const char find_seen[] = "SELECT max(seen, 1) FROM processes WHERE number = ?1";
static const char update_seen[] = "UPDATE processes SET seen = ?2 WHERE number = ?1";

int store_touch_process(struct pyspyd_store *store, int64_t number, uint64_t time_real_ns, bool *ret_known) {
	int64_t seen = 0;
	int rc = store_ask(store, find_seen, &seen, v_int(number));

	*ret_known = !rc && seen;
	if (*ret_known && (uint64_t)seen + SEEN_NS < time_real_ns)
		return store_do(store, update_seen, v_int(number), v_int((int64_t)time_real_ns));
	return rc;
}

struct put_process {
	const struct pyspyd_store_process *process;
	int64_t number;
};

static int put_process(struct pyspyd_store *store, void *data) {
	struct put_process *put = data;
	const struct pyspyd_store_process *p = put->process;
	bool known;
	int rc = store_ask(store, find_process, &put->number, v_int(p->pid), v_int((int64_t)p->start_real_ns));

	if (rc)
		return rc;
	known = put->number;
	if (!known)
		put->number = ++store->state.last_process;
	rc = store_do(store, known ? update_process : insert_process, v_int(put->number), v_int(p->pid),
		v_int((int64_t)p->start_real_ns), v_int(p->uid), v_int((int64_t)p->seen_real_ns), v_text(p->name),
		v_text(p->unit), v_text(p->container), v_text(p->cmdline));
	/* The index knows one that is not there. */
	return !rc && !sqlite3_changes(store->db) ? SQLITE_CORRUPT : rc;
}

int pyspyd_store_put_process(
	struct pyspyd_store *store, const struct pyspyd_store_process *process, int64_t *ret_process) {
	struct put_process put = { .process = process };
	const struct store_write write = {
		.room = STORE_ROOM_COUNTERS,
		.bytes = 2 * STORE_PAGE_BYTES,
		.records = 1,
		.work = put_process,
		.data = &put,
	};
	int r = store_write(store, &write);

	if (!r)
		*ret_process = put.number;
	return r;
}

struct process_reader {
	int (*each)(void *userdata, int64_t number, const struct pyspyd_store_process *process);
	void *userdata;
};

static int read_process(void *data, sqlite3_stmt *s) {
	const struct process_reader *reader = data;
	const struct pyspyd_store_process process = {
		.pid = sqlite3_column_int(s, 1),
		.start_real_ns = (uint64_t)sqlite3_column_int64(s, 2),
		.uid = (uid_t)sqlite3_column_int64(s, 3),
		.seen_real_ns = (uint64_t)sqlite3_column_int64(s, 4),
		.name = store_column_text(s, 5),
		.unit = store_column_text(s, 6),
		.container = store_column_text(s, 7),
		.cmdline = store_column_text(s, 8),
	};

	return reader->each(reader->userdata, sqlite3_column_int64(s, 0), &process);
}

int pyspyd_store_processes(struct pyspyd_store *store, pid_t pid, uid_t uid,
	int (*each)(void *userdata, int64_t number, const struct pyspyd_store_process *process), void *userdata) {
	static const char sql[] = "SELECT number, pid, start, uid, seen, name, unit, container, cmdline"
				  " FROM processes WHERE (?1 = 0 OR pid = ?1) AND (?2 = ?3 OR uid = ?2)"
				  " ORDER BY number";
	const struct store_value values[] = { v_int(pid), v_int(uid), v_int((uid_t)-1) };
	struct process_reader reader = { each, userdata };

	return store_rows(store, sql, values, ARRAY_SIZE(values), read_process, &reader);
}
