/* SPDX-License-Identifier: MIT */
/* Where things were made, for people:
 *
 *   Made in 10.0 s, and still there:
 *     412 sockets by socket, at connect (app.py:33)  [7, 8, 9, 10, …], 0.1 s to 9.8 s old
 *         create_connection (/usr/lib/python3.13/socket.py:849)
 *       > connect (/srv/app.py:33)
 *         <module> (/srv/app.py:50)
 *     Not seen to be made, so older: 5 descriptors, 3 threads, 120 mappings. */
#include "engine/finding/handles_origins_text.h"

#include "engine/base/util.h"
#include "engine/finding/stack_text.h"
#include <inttypes.h>
#include <string.h>

#define PLACES_SHOWN 10 /* of a kind of things */
#define MAPPINGS_SHOWN 5
#define FRAMES_SHOWN 24
#define IDS_SHOWN 4

static const char *const names[][2] = {
	[PYSPYD_HANDLE_DESCRIPTOR] = { "descriptor", "descriptors" },
	[PYSPYD_HANDLE_THREAD] = { "thread", "threads" },
	[PYSPYD_HANDLE_CHILD] = { "child", "children" },
	[PYSPYD_HANDLE_MAPPING] = { "mapping", "mappings" },
};

/* "412 sockets", "1 directory", "3 threads", "2 anonymous mappings" */
static void add_count(struct strbuf *sb, const struct pyspyd_origin *place) {
	bool many = place->count != 1;
	size_t n = strlen(place->kind);

	strbuf_addf(sb, "%" PRIu64 " ", place->count);
	if (place->what == PYSPYD_HANDLE_MAPPING)
		strbuf_addf(sb, "%s %s", place->kind, names[place->what][many]);
	else if (place->what != PYSPYD_HANDLE_DESCRIPTOR || !strcmp(place->kind, "other"))
		strbuf_adds(sb, names[place->what][many]);
	else if (many && n && place->kind[n - 1] == 'y')
		strbuf_addf(sb, "%.*sies", (int)n - 1, place->kind);
	else
		strbuf_addf(sb, "%s%s", place->kind, many ? "s" : "");
}

static void add_ids(struct strbuf *sb, const struct pyspyd_origin *place) {
	size_t n = min_of(place->ids_n, (size_t)IDS_SHOWN);

	if (!n)
		return;
	strbuf_adds(sb, "[");
	for (size_t i = 0; i < n; i++)
		strbuf_addf(sb, "%s%d", i ? ", " : "", place->ids[i]);
	strbuf_adds(sb, place->count > n ? ", …], " : "], ");
}

static void add_ages(struct strbuf *sb, const struct pyspyd_origin *place) {
	double young = (double)place->youngest_ns / 1e9, old = (double)place->oldest_ns / 1e9;

	if (place->count > 1)
		strbuf_addf(sb, "%.1f s to ", young);
	strbuf_addf(sb, "%.1f s old", old);
}

static void add_stack(struct strbuf *sb, const struct pyspyd_origin *place, bool colour) {
	for (size_t i = 0; i < place->frames_n && i < FRAMES_SHOWN; i++) {
		strbuf_adds(sb, i == place->own ? "    > " : "      ");
		text_frame(sb, &place->frames[i], false, colour);
		strbuf_adds(sb, "\n");
	}
	if (place->frames_n > FRAMES_SHOWN)
		strbuf_addf(sb, "      … and %zu more\n", place->frames_n - FRAMES_SHOWN);
}

static void add_place(struct strbuf *sb, const struct pyspyd_origin *place, bool colour) {
	strbuf_adds(sb, "  ");
	add_count(sb, place);
	if (place->what == PYSPYD_HANDLE_MAPPING)
		strbuf_addf(sb, ", %.1f MiB,", (double)place->bytes / (1 << 20));
	strbuf_addf(sb, " by %s", place->call);
	if (place->frames_n) {
		strbuf_adds(sb, ", at ");
		text_frame(sb, &place->frames[place->own], true, colour);
	} else {
		strbuf_adds(sb, ", by native code");
	}
	strbuf_adds(sb, "  ");
	add_ids(sb, place);
	add_ages(sb, place);
	strbuf_adds(sb, "\n");
	add_stack(sb, place, colour);
}

static void add_places(
	struct strbuf *sb, const struct pyspyd_origins *origins, enum pyspyd_handle_what what, bool colour) {
	size_t most = what == PYSPYD_HANDLE_MAPPING ? MAPPINGS_SHOWN : PLACES_SHOWN, n = 0;

	for (size_t i = 0; i < origins->places_n; i++) {
		if (origins->places[i].what != what)
			continue;
		if (n++ < most)
			add_place(sb, &origins->places[i], colour);
	}
	if (n > most)
		strbuf_addf(sb, "  … and %s of %zu more places\n", names[what][1], n - most);
}

static void add_unseen(struct strbuf *sb, const struct pyspyd_origins *origins) {
	bool first = true;

	for (size_t what = 0; what < ARRAY_SIZE(names); what++) {
		uint64_t n = origins->unseen[what];

		if (!n)
			continue;
		strbuf_addf(sb, "%s%" PRIu64 " %s", first ? "  Not seen to be made, so older: " : ", ", n,
			names[what][n != 1]);
		first = false;
	}
	strbuf_adds(sb, first ? "" : "\n");
	if (origins->left_out)
		strbuf_addf(sb,
			"  %" PRIu64 " were made too fast to look where, so as not to slow the process: not all of "
			"those are older\n",
			origins->left_out);
	if (origins->paused_ns)
		strbuf_addf(sb,
			"  Nothing was seen for %.1f s of it: there were so many system calls that it would have "
			"slowed "
			"them too much\n",
			(double)origins->paused_ns / 1e9);
}

void handles_origins_text(struct strbuf *sb, const struct pyspyd_origins *origins, bool colour) {
	strbuf_adds(sb, "\n");
	text_style(sb, colour, TEXT_BOLD);
	strbuf_adds(sb, origins->why ? "Where things are made was not seen" : "Made");
	text_style(sb, colour, TEXT_PLAIN);
	if (origins->why) {
		strbuf_adds(sb, ": ");
		text_add(sb, origins->why, TEXT_PATH_MAX);
		strbuf_adds(sb, "\n");
		return;
	}
	strbuf_addf(sb, " in %.1f s, and still there:\n", (double)origins->watched_ns / 1e9);
	for (size_t what = 0; what < ARRAY_SIZE(names); what++)
		add_places(sb, origins, (enum pyspyd_handle_what)what, colour);
	if (!origins->made_n)
		strbuf_adds(sb, "  nothing\n");
	add_unseen(sb, origins);
}
