/* SPDX-License-Identifier: MIT */
/* Items of one or two looks, grouped by kind and target.
 *
 * Model: items of the same target make a group. Then targets that differ in their numbers alone are merged, and then
 * the files of a folder, or the ports of a host, where there are many of them: so a leak of temporary files is one line
 * with a count, and five log files are five lines. Both looks are grouped together, that a pattern found in the second
 * one counts for the first too. What was there before and is not now stays, with a count of 0. */
#include "engine/leaks/handles.h"

#include <string.h>

#define NUMBERED_MIN 2   /* targets that differ in their numbers alone, to be merged */
#define MANY_TARGETS 8   /* of a folder or a host, to be merged */
#define MANY_MAPPINGS 64 /* programs map dozens of libraries from a folder */

static const char *const kind_names[] = {
	[HANDLE_FILE] = "file",
	[HANDLE_DIRECTORY] = "directory",
	[HANDLE_DEVICE] = "device",
	[HANDLE_TTY] = "terminal",
	[HANDLE_PIPE] = "pipe",
	[HANDLE_SOCKET] = "socket",
	[HANDLE_EVENTFD] = "eventfd",
	[HANDLE_TIMERFD] = "timerfd",
	[HANDLE_SIGNALFD] = "signalfd",
	[HANDLE_EPOLL] = "epoll",
	[HANDLE_INOTIFY] = "inotify",
	[HANDLE_PIDFD] = "pidfd",
	[HANDLE_MEMFD] = "memfd",
	[HANDLE_OTHER] = "other",
	[HANDLE_PYTHON] = "python",
	[HANDLE_NATIVE] = "native",
	[HANDLE_CHILD] = "child",
	[HANDLE_ZOMBIE] = "zombie",
	[HANDLE_ANONYMOUS] = "anonymous",
	[HANDLE_HEAP] = "heap",
	[HANDLE_STACK] = "stack",
	[HANDLE_MAPPED_FILE] = "file",
	[HANDLE_SHARED] = "shared-memory",
	[HANDLE_SEMAPHORE] = "semaphore",
	[HANDLE_MAPPED_DEVICE] = "device",
	[HANDLE_RESERVED] = "reserved",
	[HANDLE_KERNEL] = "kernel",
};

const char *handle_kind_name(enum handle_kind kind) {
	return kind_names[kind];
}

int handle_add(handle_item_vec *items, const struct handle_item *item) {
	int r = item->target ? vec_push(items, *item) : -ENOMEM;

	if (r)
		free(item->target);
	return r;
}

void handle_items_free(handle_item_vec *items) {
	vec_foreach (item, items)
		free(item->target);
	vec_free(items);
}

/* A group while it is made. */
struct part {
	struct pyspyd_handle_group group;
	enum handle_kind kind;
	enum handle_merge merge;
	uint64_t before, before_bytes;
	char *key; /* by which it may be merged next; NULL: not */
};
typedef VEC(struct part) part_vec;

static void free_parts(part_vec *parts) {
	vec_foreach (part, parts) {
		free(part->group.target);
		free(part->key);
	}
	vec_free(parts);
}

static int compare_numbers(uint64_t a, uint64_t b) {
	return (a > b) - (a < b);
}

static int compare_items(const void *a, const void *b) {
	const struct handle_item *x = a, *y = b;
	int r = compare_numbers(x->what, y->what);

	if (!r)
		r = compare_numbers(x->kind, y->kind);
	if (!r)
		r = strcmp(x->target, y->target);
	return r ? r : (x->id > y->id) - (x->id < y->id);
}

static void add_id(struct pyspyd_handle_group *group, int id) {
	if (id >= 0 && group->ids_n < PYSPYD_HANDLE_IDS)
		group->ids[group->ids_n++] = id;
}

static void count_item(struct part *part, const struct handle_item *item) {
	if (item->before) {
		part->before++;
		part->before_bytes += item->bytes;
		return;
	}
	part->group.count++;
	part->group.bytes += item->bytes;
	add_id(&part->group, item->id);
}

static bool belongs(const struct part *part, const struct handle_item *item) {
	return part->group.what == item->what && part->kind == item->kind && !strcmp(part->group.target, item->target);
}

static int collect(handle_item_vec *items, part_vec *parts) {
	if (items->n)
		qsort(items->items, items->n, sizeof(*items->items), compare_items);
	vec_foreach (item, items) {
		struct part part = { .group.what = item->what, .kind = item->kind, .merge = item->merge };
		int r;

		if (parts->n && belongs(&parts->items[parts->n - 1], item)) {
			count_item(&parts->items[parts->n - 1], item);
			continue;
		}
		part.group.kind = handle_kind_name(item->kind);
		part.group.target = strdup(item->target);
		r = part.group.target ? vec_push(parts, part) : -ENOMEM;
		if (r) {
			free(part.group.target);
			return r;
		}
		count_item(&parts->items[parts->n - 1], item);
	}
	return 0;
}

static int compare_keys(const void *a, const void *b) {
	const struct part *x = a, *y = b;
	int r = compare_numbers(x->group.what, y->group.what);

	if (!r)
		r = compare_numbers(x->kind, y->kind);
	if (!r)
		r = (x->key != NULL) - (y->key != NULL);
	if (!r && x->key)
		r = strcmp(x->key, y->key);
	return r ? r : strcmp(x->group.target, y->group.target);
}

static int compare_ids(const void *a, const void *b) {
	const int *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* The lowest of both stay. */
static void merge_ids(struct pyspyd_handle_group *into, const struct pyspyd_handle_group *from) {
	int all[2 * PYSPYD_HANDLE_IDS];
	size_t n = into->ids_n + from->ids_n;

	memcpy(all, into->ids, into->ids_n * sizeof(*all));
	memcpy(all + into->ids_n, from->ids, from->ids_n * sizeof(*all));
	qsort(all, n, sizeof(*all), compare_ids);
	into->ids_n = min_of(n, (size_t)PYSPYD_HANDLE_IDS);
	memcpy(into->ids, all, into->ids_n * sizeof(*all));
}

/* `from` becomes part of `into`, whose target then says what both have in common. Return: 0; -ENOMEM. */
static int merge_part(struct part *into, struct part *from, bool wide) {
	char *target = wide ? strdup(into->key) : handle_common(into->group.target, from->group.target);

	if (target) {
		free(into->group.target);
		into->group.target = target;
	}
	into->group.count += from->group.count;
	into->group.bytes += from->group.bytes;
	into->before += from->before;
	into->before_bytes += from->before_bytes;
	merge_ids(&into->group, &from->group);
	free(from->group.target);
	free(from->key);
	return target ? 0 : -ENOMEM;
}

static bool same_key(const struct part *a, const struct part *b) {
	return a->group.what == b->group.what && a->kind == b->kind && a->key && b->key && !strcmp(a->key, b->key);
}

static size_t enough_of(const struct part *part, bool wide) {
	if (!wide)
		return NUMBERED_MIN;
	return part->group.what == PYSPYD_HANDLE_MAPPING ? MANY_MAPPINGS : MANY_TARGETS;
}

/* Parts with the same key become one where there are enough of them. */
static int merge_runs(part_vec *parts, bool wide) {
	size_t kept = 0;
	int r = 0;

	if (parts->n)
		qsort(parts->items, parts->n, sizeof(*parts->items), compare_keys);
	for (size_t i = 0, end; i < parts->n; i = end) {
		struct part *first = &parts->items[i];

		for (end = i + 1; end < parts->n && same_key(first, &parts->items[end]);)
			end++;
		if (end - i < enough_of(first, wide)) {
			memmove(&parts->items[kept], first, (end - i) * sizeof(*first));
			kept += end - i;
			continue;
		}
		for (size_t k = i + 1; k < end; k++)
			if (merge_part(first, &parts->items[k], wide))
				r = -ENOMEM;
		parts->items[kept++] = *first;
	}
	parts->n = kept;
	return r;
}

static int merge(part_vec *parts, bool wide) {
	vec_foreach (part, parts) {
		free(take_ptr(part->key));
		if (part->merge == MERGE_NONE)
			continue;
		part->key = wide ? handle_wide(part->group.target, part->merge)
				 : handle_narrow(part->group.target, part->merge);
		if (!part->key)
			return -ENOMEM;
	}
	return merge_runs(parts, wide);
}

static int compare_shown(const void *a, const void *b) {
	const struct part *x = a, *y = b;
	const struct pyspyd_handle_group *g = &x->group, *h = &y->group;
	int r = compare_numbers(g->what, h->what);

	if (!r)
		r = compare_numbers(x->kind, y->kind);
	if (!r)
		r = (g->grew < h->grew) - (g->grew > h->grew);
	if (!r)
		r = compare_numbers(h->bytes, g->bytes);
	if (!r)
		r = compare_numbers(h->count, g->count);
	return r ? r : strcmp(g->target, h->target);
}

/* Whether there was a look before is known by the items alone: a process without any thread is none. */
static bool had_before(const handle_item_vec *items) {
	vec_foreach (item, items)
		if (item->before)
			return true;
	return false;
}

static int finish(part_vec *parts, bool before, struct pyspyd_handle_group **ret_groups, size_t *ret_n) {
	struct pyspyd_handle_group *groups = calloc(parts->n + 1, sizeof(*groups));

	if (!groups)
		return -ENOMEM;
	vec_foreach (part, parts) {
		if (!before)
			continue;
		part->group.grew = (int64_t)(part->group.count - part->before);
		part->group.grew_bytes = (int64_t)(part->group.bytes - part->before_bytes);
	}
	if (parts->n)
		qsort(parts->items, parts->n, sizeof(*parts->items), compare_shown);
	for (size_t i = 0; i < parts->n; i++) {
		groups[i] = parts->items[i].group;
		parts->items[i].group.target = NULL;
	}
	*ret_groups = groups;
	*ret_n = parts->n;
	return 0;
}

int handle_groups(handle_item_vec *items, struct pyspyd_handle_group **ret_groups, size_t *ret_n) {
	part_vec parts = { 0 };
	int r = collect(items, &parts);

	if (!r)
		r = merge(&parts, false);
	if (!r)
		r = merge(&parts, true);
	if (!r)
		r = finish(&parts, had_before(items), ret_groups, ret_n);
	free_parts(&parts);
	return r;
}

void handle_groups_free(struct pyspyd_handle_group *groups, size_t n) {
	for (size_t i = 0; groups && i < n; i++) {
		free(groups[i].target);
		pyspyd_frames_free(groups[i].created, groups[i].created_n);
	}
	free(groups);
}
