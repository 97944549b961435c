/* SPDX-License-Identifier: MIT */
/* Places out of things: one place is what one call made at one stack, of one kind. */
#include "engine/leaks/created.h"

#include "engine/base/util.h"
#include <string.h>

static int compare_numbers(uint64_t a, uint64_t b) {
	return (a > b) - (a < b);
}

static int by_id(const void *a, const void *b) {
	const struct created_thing *x = a, *y = b;
	int r = compare_numbers(x->what, y->what);

	return r ? r : compare_numbers(x->id, y->id);
}

static void sort_things(created_things *things) {
	if (things->n)
		qsort(things->items, things->n, sizeof(*things->items), by_id);
}

void created_cut_mappings(created_things *things) {
	sort_things(things);
	for (size_t i = 0; i + 1 < things->n; i++) {
		struct created_thing *thing = &things->items[i], *next = thing + 1;

		if (thing->what == PYSPYD_HANDLE_MAPPING && next->what == thing->what)
			thing->bytes = min_of(thing->bytes, next->id - thing->id);
	}
}

/* A thing's place in the order in which those of one place stand together. */
struct sorted {
	const struct created_thing *thing;
	size_t at;
};

static int by_place(const void *a, const void *b) {
	const struct created_thing *x = ((const struct sorted *)a)->thing, *y = ((const struct sorted *)b)->thing;
	int r = compare_numbers(x->what, y->what);

	if (!r)
		r = compare_numbers(x->stack, y->stack);
	if (!r)
		r = strcmp(x->kind, y->kind);
	if (!r)
		r = strcmp(x->call, y->call);
	return r ? r : compare_numbers(x->id, y->id);
}

static bool is_same_place(const struct created_thing *a, const struct created_thing *b) {
	return a->what == b->what && a->stack == b->stack && !strcmp(a->kind, b->kind) && !strcmp(a->call, b->call);
}

struct place {
	struct pyspyd_origin origin;
	size_t stack, at;
};

static int by_weight(const void *a, const void *b) {
	const struct place *x = a, *y = b;
	int r = compare_numbers(x->origin.what, y->origin.what);

	if (!r)
		r = compare_numbers(y->origin.count, x->origin.count);
	if (!r)
		r = compare_numbers(y->origin.bytes, x->origin.bytes);
	return r ? r : compare_numbers(x->at, y->at);
}

static void count_thing(struct pyspyd_origin *origin, const struct created_thing *thing) {
	origin->oldest_ns = origin->count ? max_of(origin->oldest_ns, thing->age_ns) : thing->age_ns;
	origin->youngest_ns = origin->count ? min_of(origin->youngest_ns, thing->age_ns) : thing->age_ns;
	origin->count++;
	origin->bytes += thing->bytes;
	if (thing->what != PYSPYD_HANDLE_MAPPING && origin->ids_n < PYSPYD_HANDLE_IDS)
		origin->ids[origin->ids_n++] = (int)thing->id;
}

/* Return: how many places there are; *things know theirs by its number in this order. */
static size_t collect(created_things *things, const struct sorted *sorted, struct place *places) {
	size_t n = 0;

	for (size_t i = 0; i < things->n; i++) {
		const struct created_thing *thing = sorted[i].thing;

		if (!i || !is_same_place(sorted[i - 1].thing, thing)) {
			places[n] = (struct place){ .stack = thing->stack, .at = n };
			places[n].origin =
				(struct pyspyd_origin){ .what = thing->what, .kind = thing->kind, .call = thing->call };
			n++;
		}
		count_thing(&places[n - 1].origin, thing);
		things->items[sorted[i].at].origin = n - 1;
	}
	return n;
}

static void add_shares(struct place *places, size_t n) {
	uint64_t all[PYSPYD_HANDLE_MAPPING + 1] = { 0 };

	for (size_t i = 0; i < n; i++)
		all[places[i].origin.what] += places[i].origin.count;
	for (size_t i = 0; i < n; i++)
		places[i].origin.share = (double)places[i].origin.count / (double)all[places[i].origin.what];
}

/* Hands out the places in their order, which the things follow. */
static int hand_out(created_things *things, struct place *places, size_t n, struct pyspyd_origin **ret_places,
	size_t **ret_stacks) {
	struct pyspyd_origin *origins = calloc(n + 1, sizeof(*origins));
	size_t *stacks = calloc(n + 1, sizeof(*stacks)), *now = calloc(n + 1, sizeof(*now));

	if (!origins || !stacks || !now) {
		free(origins);
		free(stacks);
		free(now);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		origins[i] = places[i].origin;
		stacks[i] = places[i].stack;
		now[places[i].at] = i;
	}
	vec_foreach (thing, things)
		thing->origin = now[thing->origin];
	free(now);
	*ret_places = origins;
	*ret_stacks = stacks;
	return 0;
}

int created_places(created_things *things, struct pyspyd_origin **ret_places, size_t **ret_stacks, size_t *ret_n) {
	struct sorted *sorted = calloc(things->n + 1, sizeof(*sorted));
	struct place *places = calloc(things->n + 1, sizeof(*places));
	int r = -ENOMEM;
	size_t n;

	if (sorted && places) {
		sort_things(things);
		for (size_t i = 0; i < things->n; i++)
			sorted[i] = (struct sorted){ .thing = &things->items[i], .at = i };
		qsort(sorted, things->n, sizeof(*sorted), by_place);
		n = collect(things, sorted, places);
		add_shares(places, n);
		qsort(places, n, sizeof(*places), by_weight);
		r = hand_out(things, places, n, ret_places, ret_stacks);
		if (!r)
			*ret_n = n;
	}
	free(sorted);
	free(places);
	return r;
}

void pyspyd_origin_places_free(struct pyspyd_origin *places, size_t n) {
	for (size_t i = 0; i < n; i++)
		pyspyd_frames_free(places[i].frames, places[i].frames_n);
	free(places);
}

/* Modules that programs open things by. */
static const char *const plumbing[] = { "_pyio", "asyncio", "codecs", "concurrent", "contextlib", "gzip", "http",
	"importlib", "io", "logging", "multiprocessing", "os", "pathlib", "pty", "selectors", "shutil", "socket",
	"socketserver", "ssl", "subprocess", "tempfile", "threading", "urllib", "zipfile" };

static bool is_plumbing(const char *module) {
	for (size_t i = 0; i < ARRAY_SIZE(plumbing); i++) {
		size_t n = strlen(plumbing[i]);

		if (!strncmp(module, plumbing[i], n) && (!module[n] || module[n] == '.'))
			return true;
	}
	return false;
}

static bool is_library(const struct pyspyd_frame *frame) {
	if (is_plumbing(frame->module) || !strncmp(frame->file, "<frozen ", 8))
		return true;
	return (strstr(frame->file, "/lib/python3.") || strstr(frame->file, "/lib64/python3.")) &&
		!strstr(frame->file, "/site-packages/") && !strstr(frame->file, "/dist-packages/");
}

size_t created_own_frame(const struct pyspyd_frame *frames, size_t n) {
	for (size_t i = 0; i < n; i++)
		if (!is_library(&frames[i]))
			return i;
	return 0;
}

const char *created_kind_of_call(const char *call) {
	static const char *const kinds[][2] = { { "open", "file" }, { "accept", "socket" }, { "socketpair", "socket" },
		{ "dup", "descriptor" }, { "fcntl", "descriptor" }, { "recvmsg", "descriptor" }, { "thread", "thread" },
		{ "fork", "child" }, { "mmap", "mapping" }, { "mremap", "mapping" } };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(call, kinds[i][0]))
			return kinds[i][1];
	return call;
}
