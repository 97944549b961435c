/* SPDX-License-Identifier: MIT */
/* What is too old goes, and what is too much: profiles, then counters, then events, always the oldest first. Each piece
 * is a transaction of its own and takes some milliseconds; a call takes a few of them.
 *
 * By age an event stays while a sink has yet to deliver it, or while it is the last word of a finding that is open. By
 * size nothing stays; as the places of sinks only move forward, the oldest events are those that were delivered.
 *
 * Room that becomes free is used again. Only when much is free is the file made smaller, a piece a call; pages that
 * move for that go through the log. */
#include "engine/store/store_internal.h"

#include "engine/base/clock.h"
#include "pyspyd/finding.h"
#include <assert.h>
#include <stdio.h>

#define PIECES_MAX 8          /* of one kind in one call */
#define SIZE_PIECES_MAX 64    /* smaller ones, until the size suffices */
#define VACUUM_PAGES_MAX 1024 /* in one call */
#define FREE_PAGES_LEAST 256  /* are left for what comes next, or … */
#define FREE_PART 8           /* … this part of the file */
#define HIGH_PART 16          /* room is made when so little is left of the limit … */
#define LOW_PART 8            /* … until so much is */
#define SPARE_PAGES 16        /* that what is put takes in the tree above it */
#define PAGE_PAYLOAD 4000
#define FORGET_NS (6 * 3600 * NS_PER_SEC)

static const char profiles_before[] =
	"DELETE FROM profiles WHERE number IN (SELECT number FROM profiles WHERE end < ?2 ORDER BY end LIMIT ?1)";
static const char counters_before[] = "DELETE FROM counters WHERE (time, process) IN"
				      " (SELECT time, process FROM counters WHERE time < ?2 ORDER BY time LIMIT ?1)";
static_assert(PYSPYD_RESOLVED == 2, "stands in the next text");
static const char events_before[] =
	"DELETE FROM events WHERE seq IN (SELECT seq FROM events AS e WHERE time < ?2 AND seq <= ?3"
	" AND (state = 2 OR EXISTS (SELECT 1 FROM events AS l WHERE l.id = e.id AND l.seq > e.seq))"
	" ORDER BY time LIMIT ?1)";
static const char events_oldest[] =
	"DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE ?2 ORDER BY seq LIMIT ?1)";
static const char processes_before[] =
	"DELETE FROM processes WHERE number IN (SELECT number FROM processes WHERE seen < ?2 LIMIT ?1)";

struct piece {
	const char *sql;
	int64_t most, before, upto; /* ?1, ?2, and ?3 where … */
	bool has_upto;
	int64_t *count; /* that goes down; in the store's state */
	int64_t deleted;
};

static int delete_rows(struct pyspyd_store *store, void *data) {
	struct piece *piece = data;
	const struct store_value values[] = { v_int(piece->most), v_int(piece->before), v_int(piece->upto) };
	int rc = store_run(store, piece->sql, values, piece->has_upto ? 3 : 2);

	piece->deleted = rc ? 0 : sqlite3_changes(store->db);
	if (piece->count)
		*piece->count = max_of(*piece->count - piece->deleted, (int64_t)0);
	return rc;
}

static int delete_piece(struct pyspyd_store *store, struct piece *piece) {
	const struct store_write write = { .work = delete_rows, .data = piece };

	return store_write(store, &write);
}

static int delete_pieces(struct pyspyd_store *store, struct piece piece) {
	int r = 0;

	for (unsigned i = 0; !r && i < PIECES_MAX; i++) {
		r = delete_piece(store, &piece);
		if (piece.deleted < piece.most)
			break;
	}
	return r;
}

/* Age */

/* What lies before is too old; INT64_MIN: nothing is. */
static int64_t horizon(uint64_t now_real_ns, uint64_t age_ns) {
	return age_ns && age_ns < now_real_ns ? (int64_t)(now_real_ns - age_ns) : INT64_MIN;
}

/* The last event that all of the sinks have delivered. */
static int delivered(struct pyspyd_store *store, const char *const *sinks, int64_t *ret_seq) {
	int64_t least = INT64_MAX;

	for (; sinks && *sinks; sinks++) {
		uint64_t seq, dropped;
		int r = pyspyd_store_sink_get(store, *sinks, &seq, &dropped);

		if (r)
			return r;
		least = min_of(least, (int64_t)seq);
	}
	*ret_seq = least;
	return 0;
}

/* Processes are forgotten when they were seen last before all that is left. */
static int forget_processes(struct pyspyd_store *store, uint64_t now_real_ns) {
	int64_t counters = 0, profiles = 0, before = (int64_t)now_real_ns;
	int r = store_ask_once(store, "SELECT min(time) FROM counters", &counters);

	if (!r)
		r = store_ask_once(store, "SELECT min(end) FROM profiles", &profiles);
	if (r)
		return r;
	before = min_of(before, counters ? counters : INT64_MAX);
	before = min_of(before, profiles ? profiles : INT64_MAX);
	return delete_pieces(
		store, (struct piece){ .sql = processes_before, .most = 1000, .before = before - (int64_t)FORGET_NS });
}

static int prune_age(struct pyspyd_store *store, uint64_t now_real_ns, const char *const *sinks) {
	const struct pyspyd_store_options *o = &store->options;
	struct store_state *s = &store->state;
	struct piece profiles = { .sql = profiles_before, .most = 256, .count = &s->profiles };
	struct piece counters = { .sql = counters_before, .most = 5000, .count = &s->counters };
	struct piece events = { .sql = events_before, .most = 1000, .count = &s->events, .has_upto = true };
	int r = delivered(store, sinks, &events.upto);

	profiles.before = horizon(now_real_ns, o->profile_age_ns);
	counters.before = horizon(now_real_ns, o->counter_age_ns);
	events.before = horizon(now_real_ns, o->finding_age_ns);
	if (!r)
		r = delete_pieces(store, profiles);
	if (!r)
		r = delete_pieces(store, counters);
	if (!r)
		r = delete_pieces(store, events);
	return r ? r : forget_processes(store, now_real_ns);
}

/* Size */

static int measure(struct pyspyd_store *store, int64_t *ret_pages, int64_t *ret_free) {
	int r = store_ask_once(store, "PRAGMA page_count", ret_pages);

	return r ? r : store_ask_once(store, "PRAGMA freelist_count", ret_free);
}

/* The oldest of the least worth: few at first, more when that does not suffice. Return: whether there was something. */
static bool delete_oldest(struct pyspyd_store *store, enum store_room room, unsigned attempt) {
	int64_t most = 1 << min_of(attempt, 6U);
	struct store_state *s = &store->state;
	const struct piece kinds[] = {
		{ .sql = profiles_before, .most = most, .before = INT64_MAX, .count = &s->profiles },
		{ .sql = counters_before, .most = 64 * most, .before = INT64_MAX, .count = &s->counters },
		{ .sql = events_oldest, .most = most, .before = 1, .count = &s->events },
	};

	for (size_t i = 0; i < (size_t)room; i++) {
		struct piece piece = kinds[i];

		if (delete_piece(store, &piece))
			return false;
		if (piece.deleted)
			return true;
	}
	return false;
}

static int prune_size(struct pyspyd_store *store) {
	int64_t pages, unused, limit = store->max_pages;
	bool over = false;
	int r = 0;

	for (unsigned i = 0; limit && i < SIZE_PIECES_MAX; i++) {
		r = measure(store, &pages, &unused);
		if (r || pages - unused <= limit - limit / (over ? LOW_PART : HIGH_PART))
			return r;
		over = true;
		if (!delete_oldest(store, STORE_ROOM_EVENTS, i))
			return 0;
	}
	return r;
}

void store_make_room(struct pyspyd_store *store, enum store_room room, uint64_t bytes) {
	int64_t pages, unused, left, need = (int64_t)(bytes / PAGE_PAYLOAD) + SPARE_PAGES;

	/* What the log has is then written over: on a full disk that alone may suffice. */
	if (store->db)
		sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	/* What is larger than the file may be would push out all, for nothing. */
	if (need > store->max_pages)
		return;
	for (unsigned i = 0; i < SIZE_PIECES_MAX; i++) {
		if (measure(store, &pages, &unused))
			return;
		left = max_of(store->max_pages - pages, (int64_t)0);
		if (left + unused >= need || !delete_oldest(store, room, i))
			return;
	}
}

static int vacuum(struct pyspyd_store *store, void *data) {
	char sql[64];

	snprintf(sql, sizeof(sql), "PRAGMA incremental_vacuum(%lld)", (long long)*(const int64_t *)data);
	return store_failed(store, sqlite3_exec(store->db, sql, NULL, NULL, NULL));
}

/* Where the limit was above what there is now. */
static int limit_again(struct pyspyd_store *store) {
	return store->db && store->max_pages ? store_errno(store, store_limit_pages(store)) : 0;
}

static int give_back(struct pyspyd_store *store) {
	int64_t pages, unused, give;
	const struct store_write write = { .work = vacuum, .data = &give };
	int r = measure(store, &pages, &unused);

	if (r)
		return r;
	give = unused - max_of((int64_t)FREE_PAGES_LEAST, pages / FREE_PART);
	give = min_of(give, (int64_t)VACUUM_PAGES_MAX);
	if (give > 0)
		r = store_write(store, &write);
	return r ? r : limit_again(store);
}

/* One large transaction leaves a large log behind, until it is written over. */
static int cut_log(struct pyspyd_store *store) {
	struct pyspyd_store_stats stats;
	int rc;

	pyspyd_store_stats(store, &stats);
	if (!store->db || stats.log_bytes <= (uint64_t)store->log_bytes)
		return 0;
	rc = sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	store_failed(store, rc);
	if (store_is_damage(rc))
		return store_start_anew(store, sqlite3_errstr(rc), NULL);
	/* Inside of a reader it cannot be done; there is a next time. */
	return (rc & 0xff) == SQLITE_LOCKED ? 0 : store_errno(store, rc);
}

/* What is written into a file that has no name any more is gone when it is closed. Its log must not meet another. */
static void check_place(struct pyspyd_store *store) {
	_free_ char *log = NULL;
	int moved = 0;

	if (!store->db || sqlite3_file_control(store->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved) || !moved)
		return;
	if (asprintf(&log, "%s-wal", store->options.path) < 0)
		return;
	store_disconnect(store, true);
	unlink(log);
	store_note(store, "was moved or removed while it was in use; a new one is made");
}

int pyspyd_store_prune(struct pyspyd_store *store, uint64_t now_real_ns, const char *const *sinks) {
	int r;

	check_place(store);
	r = store_finish_rescue(store, STORE_INTERRUPTED);
	if (!r)
		r = prune_age(store, now_real_ns, sinks);
	if (!r)
		r = prune_size(store);
	if (!r)
		r = give_back(store);
	return r ? r : cut_log(store);
}
