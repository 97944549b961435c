/* SPDX-License-Identifier: MIT */
/* What was seen to be made is matched with what is there: descriptors, threads and children by their numbers, a mapping
 * by the regions that it is part of by now. What is gone is left out; what is there and was not seen is counted. */
#include "engine/pipeline/handles_origins.h"

#include "engine/base/clock.h"
#include "engine/base/map.h"
#include "engine/pipeline/origins.h"
#include <string.h>

#define SLICE_MS 100

struct handles_origins {
	pid_t pid;
	struct origins *origins;
	char *why;
};

int handles_origins_watch(
	pid_t pid, uint64_t duration_ns, const volatile int *stop, struct handles_origins **ret_seen) {
	uint64_t until;
	struct handles_origins *seen = calloc(1, sizeof(*seen));
	struct err err = { 0 };
	int r;

	if (!seen)
		return -ENOMEM;
	seen->pid = pid;
	r = origins_new(&seen->origins, &err);
	if (!r)
		r = origins_watch(seen->origins, pid, 0, &err);
	if (r) {
		seen->why = strdup(err.text[0] ? err.text : strerror(r < 0 ? -r : EINVAL));
		if (!seen->why) {
			handles_origins_free(seen);
			return -ENOMEM;
		}
	} else {
		until = clock_mono_ns() + duration_ns;
		for (uint64_t now = clock_mono_ns(); now < until && !(stop && *stop); now = clock_mono_ns())
			origins_tend(seen->origins, (int)min_of((until - now) / NS_PER_MS + 1, (uint64_t)SLICE_MS));
	}
	*ret_seen = seen;
	return 0;
}

void handles_origins_free(struct handles_origins *seen) {
	if (!seen)
		return;
	origins_free(seen->origins);
	free(seen->why);
	free(seen);
}

/* What is there. */
struct there {
	struct map by_id;                         /* index in items */
	VEC(const struct handle_item *) mappings; /* by address */
	bool *seen;                               /* of those, that something seen is part of it */
	uint64_t n[PYSPYD_HANDLE_MAPPING + 1];
};

static uint64_t key_of(enum pyspyd_handle_what what, uint64_t id) {
	return (uint64_t)what << 32 | (uint32_t)id;
}

static int by_address(const void *a, const void *b) {
	const struct handle_item *x = *(const struct handle_item *const *)a, *y = *(const struct handle_item *const *)b;

	return (x->address > y->address) - (x->address < y->address);
}

static int index_items(const handle_item_vec *items, struct there *there) {
	int r = 0;

	for (size_t i = 0; !r && i < items->n; i++) {
		const struct handle_item *item = &items->items[i];

		if (item->before)
			continue;
		there->n[item->what]++;
		if (item->what == PYSPYD_HANDLE_MAPPING)
			r = vec_push(&there->mappings, item);
		else if (item->id >= 0)
			r = map_put(&there->by_id, key_of(item->what, (uint64_t)item->id), i);
	}
	there->seen = calloc(there->mappings.n + 1, sizeof(*there->seen));
	if (!there->seen)
		return -ENOMEM;
	if (there->mappings.n)
		qsort(there->mappings.items, there->mappings.n, sizeof(*there->mappings.items), by_address);
	return r;
}

/* Index of the first region that ends behind an address. */
static size_t region_behind(const struct there *there, uint64_t address) {
	size_t low = 0, high = there->mappings.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct handle_item *item = there->mappings.items[middle];

		if (item->address + item->bytes <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* What is left of a mapping, by the regions that it is part of now; the largest says what it is. */
static bool match_mapping(struct there *there, struct created_thing *thing) {
	uint64_t end = thing->id + thing->bytes, left = 0, most = 0;

	for (size_t i = region_behind(there, thing->id); i < there->mappings.n; i++) {
		const struct handle_item *item = there->mappings.items[i];
		uint64_t from = max_of(thing->id, item->address), to = min_of(end, item->address + item->bytes);

		if (from >= to)
			break;
		left += to - from;
		there->n[PYSPYD_HANDLE_MAPPING] -= !there->seen[i];
		there->seen[i] = true;
		if (to - from <= most)
			continue;
		most = to - from;
		thing->kind = handle_kind_name(item->kind);
	}
	thing->bytes = left;
	return left;
}

static bool match_thing(const handle_item_vec *items, struct there *there, struct created_thing *thing) {
	uint64_t at;

	if (thing->what == PYSPYD_HANDLE_MAPPING)
		return match_mapping(there, thing);
	if (!map_get(&there->by_id, key_of(thing->what, thing->id), &at))
		return false;
	thing->kind = handle_kind_name(items->items[at].kind);
	there->n[thing->what]--;
	return true;
}

/* Keeps those that are there, with their kinds. */
static void match(created_things *things, const handle_item_vec *items, struct there *there) {
	size_t kept = 0;

	vec_foreach (thing, things)
		if (match_thing(items, there, thing))
			things->items[kept++] = *thing;
	things->n = kept;
}

static int set_made(const created_things *things, struct pyspyd_origins *origins) {
	origins->made = calloc(things->n + 1, sizeof(*origins->made));
	if (!origins->made)
		return -ENOMEM;
	vec_foreach (thing, things)
		origins->made[origins->made_n++] = (struct pyspyd_made){ .what = thing->what,
			.id = thing->id,
			.bytes = thing->bytes,
			.age_ns = thing->age_ns,
			.origin = thing->origin };
	return 0;
}

static int fill(struct handles_origins *seen, const handle_item_vec *items, struct pyspyd_origins *origins) {
	struct origins_state state = { 0 };
	struct there there = { 0 };
	created_things things = { 0 };
	int r = origins_things(seen->origins, seen->pid, &things, &state);

	if (r == PYSPYD_E_GONE) {
		origins->why = strdup("the process executes another program by now");
		return origins->why ? 0 : -ENOMEM;
	}
	if (!r)
		r = index_items(items, &there);
	if (!r) {
		created_cut_mappings(&things);
		match(&things, items, &there);
		r = origins_places(seen->origins, seen->pid, &things, &origins->places, &origins->places_n);
	}
	if (!r)
		r = set_made(&things, origins);
	origins->watched_ns = state.watched_ns;
	origins->left_out = state.left_out;
	origins->paused_ns = min_of(state.paused_ns, state.watched_ns);
	memcpy(origins->unseen, there.n, sizeof(there.n));
	map_deinit(&there.by_id);
	vec_free(&there.mappings);
	free(there.seen);
	vec_free(&things);
	return r;
}

static int copy_frames(const struct pyspyd_origin *place, struct pyspyd_frame **ret_frames, size_t *ret_n) {
	struct pyspyd_frame *frames = calloc(place->frames_n + 1, sizeof(*frames));
	bool ok = frames;

	for (size_t i = 0; ok && i < place->frames_n; i++) {
		const struct pyspyd_frame *from = &place->frames[i];

		frames[i] = (struct pyspyd_frame){ .lang = from->lang,
			.line = from->line,
			.function = strdup(from->function),
			.qualname = strdup(from->qualname),
			.file = strdup(from->file),
			.module = strdup(from->module) };
		ok = frames[i].function && frames[i].qualname && frames[i].file && frames[i].module;
	}
	if (!ok) {
		pyspyd_frames_free(frames, frames ? place->frames_n : 0);
		return -ENOMEM;
	}
	*ret_frames = frames;
	*ret_n = place->frames_n;
	return 0;
}

static int by_what_and_id(const void *a, const void *b) {
	const struct pyspyd_made *x = a, *y = b;

	if (x->what != y->what)
		return (x->what > y->what) - (x->what < y->what);
	return (x->id > y->id) - (x->id < y->id);
}

/* Where it was made; NULL: nobody has seen that. */
static const struct pyspyd_origin *place_of(
	const struct pyspyd_origins *origins, enum pyspyd_handle_what what, uint64_t id) {
	const struct pyspyd_made key = { .what = what, .id = id }, *made;

	if (!origins->made_n)
		return NULL;
	made = bsearch(&key, origins->made, origins->made_n, sizeof(key), by_what_and_id);
	return made && origins->places[made->origin].frames_n ? &origins->places[made->origin] : NULL;
}

int handles_origins_fill(struct handles_origins *seen, const handle_item_vec *items, struct pyspyd_handles *handles) {
	struct pyspyd_origins *origins = calloc(1, sizeof(*origins));
	int r = 0;

	if (!origins)
		return -ENOMEM;
	handles->origins = origins;
	if (seen->why) {
		origins->why = strdup(seen->why);
		return origins->why ? 0 : -ENOMEM;
	}
	r = fill(seen, items, origins);
	for (size_t i = 0; !r && i < handles->threads_n; i++) {
		struct pyspyd_handle_thread *thread = &handles->threads[i];
		const struct pyspyd_origin *place =
			place_of(origins, PYSPYD_HANDLE_THREAD, (uint64_t)thread->thread.tid);

		if (place)
			r = copy_frames(place, &thread->created, &thread->created_n);
	}
	return r;
}

int handles_origins_fill_groups(struct pyspyd_handles *handles) {
	int r = 0;

	for (size_t i = 0; !r && i < handles->groups_n; i++) {
		struct pyspyd_handle_group *group = &handles->groups[i];
		const struct pyspyd_origin *best = NULL, *place;
		size_t most = 0;

		for (size_t a = 0; a < group->ids_n; a++) {
			size_t n = 0;

			place = place_of(handles->origins, group->what, (uint64_t)group->ids[a]);
			for (size_t b = 0; place && b < group->ids_n; b++)
				n += place_of(handles->origins, group->what, (uint64_t)group->ids[b]) == place;
			if (n > most) {
				most = n;
				best = place;
			}
		}
		if (best)
			r = copy_frames(best, &group->created, &group->created_n);
	}
	return r;
}
