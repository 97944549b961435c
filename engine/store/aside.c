/* SPDX-License-Identifier: MIT */
/* Where damaged files go. It takes two steps, so that nothing is lost to a kill between them:
 *
 *	PATH          PATH.rescue, with its log; then a new PATH is made, and what can be read is copied there
 *	PATH.rescue   PATH.damaged-20260131T120000Z, with "-2" and so on behind where that is taken
 *
 * A PATH.rescue that is there when a store is opened, or pruned, is one that was not finished; to copy again does no
 * harm, since numbers that are taken are left alone. A log goes before its file: a new file must never meet an old log.
 * Of what was set aside the last few are kept, for sqlite3's ".recover". */
#include "engine/store/store_internal.h"

#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#define NAMES_MAX 1000
#define KEPT_MAX 4
#define NOTE_MAX 4096

static const char *const endings[] = { "-wal", "-shm", "-journal", "" };

static int move(const char *from, const char *to, const char *ending) {
	_free_ char *old = NULL, *new = NULL;

	if (asprintf(&old, "%s%s", from, ending) < 0)
		return -ENOMEM;
	if (asprintf(&new, "%s%s", to, ending) < 0)
		return -ENOMEM;
	return rename(old, new) ? -errno : 0;
}

static int move_all(const char *from, const char *to) {
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		r = move(from, to, endings[i]);
		if (r && r != -ENOENT)
			return r;
	}
	return 0;
}

static int make_name(const char *path, unsigned attempt, char **ret_name) {
	time_t now = (time_t)(clock_real_ns() / NS_PER_SEC);
	char when[24], number[16] = "";
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &tm);
	if (attempt > 1)
		snprintf(number, sizeof(number), "-%u", attempt);
	return asprintf(ret_name, "%s.damaged-%s%s", path, when, number) < 0 ? -ENOMEM : 0;
}

static int move_away(const char *path, const char *from, char **ret_name) {
	int r = -EEXIST;

	for (unsigned attempt = 1; r == -EEXIST && attempt <= NAMES_MAX; attempt++) {
		_free_ char *name = NULL;

		r = make_name(path, attempt, &name);
		if (!r && !access(name, F_OK))
			r = -EEXIST;
		if (!r)
			r = move_all(from, name);
		if (!r)
			*ret_name = take_ptr(name);
	}
	return r;
}

/* Return: how many files were set aside; the name of the oldest, without its folder. */
static size_t find_oldest(const char *folder, const char *prefix, char ret_name[NAME_MAX + 1]) {
	_closedir_ DIR *dir = opendir(folder);
	const struct dirent *entry;
	size_t n = 0;

	while (dir && (entry = readdir(dir))) {
		const char *end = strchr(entry->d_name, '\0');

		/* A file's name ends with the time's Z or a number; its log's with a word. */
		if (strncmp(entry->d_name, prefix, strlen(prefix)) ||
			(end[-1] != 'Z' && (end[-1] < '0' || end[-1] > '9')))
			continue;
		if (!n++ || strcmp(entry->d_name, ret_name) < 0)
			snprintf(ret_name, NAME_MAX + 1, "%s", entry->d_name);
	}
	return n;
}

static bool remove_all(const char *folder, const char *name) {
	bool removed = false;

	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		_free_ char *path = NULL;

		if (asprintf(&path, "%s/%s%s", folder, name, endings[i]) >= 0)
			removed = !unlink(path);
	}
	return removed;
}

static void drop_oldest(const char *path) {
	_free_ char *one = strdup(path), *two = strdup(path), *prefix = NULL;
	char name[NAME_MAX + 1];
	const char *folder;

	if (!one || !two || asprintf(&prefix, "%s.damaged-", basename(two)) < 0)
		return;
	folder = dirname(one);
	while (find_oldest(folder, prefix, name) > KEPT_MAX)
		if (!remove_all(folder, name))
			return;
}

void store_note(struct pyspyd_store *store, const char *format, ...) {
	_cleanup_(strbuf_deinit) struct strbuf sb = { 0 };
	_free_ char *text = NULL;
	va_list args;
	int n;

	if (store->note && strlen(store->note) > NOTE_MAX)
		return;
	va_start(args, format);
	n = vasprintf(&text, format, args);
	va_end(args);
	if (n < 0)
		return;
	if (store->note)
		strbuf_addf(&sb, "%s; ", store->note);
	strbuf_addf(&sb, "%s: %s", store->options.path, text);
	free(store->note);
	store->note = strbuf_take(&sb);
}

int store_finish_rescue(struct pyspyd_store *store, const char *why) {
	_free_ char *from = NULL, *name = NULL;
	uint64_t saved = 0;
	int r;

	if (asprintf(&from, "%s.rescue", store->options.path) < 0)
		return -ENOMEM;
	if (store->rescuing || access(from, F_OK))
		return 0;
	r = store_rescue(store, from, &saved);
	if (r == -ENOSPC)
		return r;
	r = move_away(store->options.path, from, &name);
	if (r)
		return r;
	store_note(store, "%s; it was set aside as %s and a new one made, with %llu events of the old one", why, name,
		(unsigned long long)saved);
	drop_oldest(store->options.path);
	return 0;
}

static int set_aside(struct pyspyd_store *store) {
	_free_ char *to = NULL, *name = NULL;
	int r = 0;

	if (asprintf(&to, "%s.rescue", store->options.path) < 0)
		return -ENOMEM;
	if (!access(to, F_OK))
		r = move_away(store->options.path, to, &name);
	if (!r)
		r = move_all(store->options.path, to);
	if (r)
		return r;
	store->set_aside++;
	store->state.events = store->state.counters = store->state.profiles = 0;
	return 0;
}

int store_start_anew(struct pyspyd_store *store, const char *why, struct err *err) {
	const char *path = store->options.path;
	struct err again = { 0 };
	int r;

	if (store->db)
		store_disconnect(store, true);
	r = set_aside(store);
	if (r)
		return err_set(err, r, "%s: %s, and it cannot be set aside: %s", path, why, strerror(-r));
	r = store_connect(store, &again);
	if (r)
		return err_set(err, r == STORE_E_DAMAGED ? -EIO : r, "%s", again.text);
	store_finish_rescue(store, why);
	return 0;
}

int store_attach(struct pyspyd_store *store, struct err *err) {
	struct err why = { 0 };
	int r = store_connect(store, &why);

	if (r == STORE_E_DAMAGED)
		return store_start_anew(store, why.text, err);
	if (r)
		return err_set(err, r, "%s", why.text);
	store_finish_rescue(store, STORE_INTERRUPTED);
	return 0;
}
