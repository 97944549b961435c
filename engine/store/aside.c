/* SPDX-License-Identifier: MIT */
/* Where damaged files go.
 *
 * PATH becomes PATH.damaged-20260131T120000Z (with "-2" and so on behind where that is taken), its log the same with
 * "-wal", so that sqlite3's .recover still works on them. The log goes first: a new file must never meet an old log. */
#include "engine/store/store_internal.h"

#include "engine/base/clock.h"
#include <errno.h>
#include <stdio.h>
#include <time.h>

#define NAMES_MAX 1000

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

static int move(const char *from, const char *to, const char *ending) {
	_free_ char *old = NULL, *new = NULL;

	if (asprintf(&old, "%s%s", from, ending) < 0)
		return -ENOMEM;
	if (asprintf(&new, "%s%s", to, ending) < 0)
		return -ENOMEM;
	return rename(old, new) ? -errno : 0;
}

static int move_all(const char *from, const char *to) {
	static const char *const endings[] = { "-wal", "-shm", "-journal", "" };
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		r = move(from, to, endings[i]);
		if (r && r != -ENOENT)
			return r;
	}
	return 0;
}

int store_move_aside(const char *path, char **ret_name) {
	int r = -EEXIST;

	for (unsigned attempt = 1; r == -EEXIST && attempt <= NAMES_MAX; attempt++) {
		_free_ char *name = NULL;

		r = make_name(path, attempt, &name);
		if (!r && !access(name, F_OK))
			r = -EEXIST;
		if (!r)
			r = move_all(path, name);
		if (!r)
			*ret_name = take_ptr(name);
	}
	return r;
}
