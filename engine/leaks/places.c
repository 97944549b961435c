/* SPDX-License-Identifier: MIT */
/* Sorted arrays, searched by halves: they are made once and asked often. Which mapping is whose is told by its
 * neighbours: what a library does not initialise (bss) is anonymous memory right behind its variables; a thread's
 * stack is anonymous memory right behind a page that nobody may touch. (Where the guard is not a mapping of its own, as
 * from glibc 2.42 on, a thread's stack passes for native memory.) */
#include "engine/leaks/places.h"

#include <string.h>

#define V3_8 0x03080000
#define GUARD_BYTES_MAX (64U << 10)
#define ADDRESS_BITS ((UINT64_C(1) << 48) - 1)
#define WORD sizeof(uint64_t)
#define SORT_FEW 24
#define WORDS_MAX ((UINT64_C(1) << 31) - 1)

static bool is_anonymous(const struct proc_map *map) {
	return map->write && map->read && !map->shared && !map->inode && !map->path[0];
}

static bool is_variables(const struct proc_map *map) {
	return map->write && map->read && !map->shared && map->inode;
}

static bool is_guard(const struct proc_map *map) {
	return !map->read && !map->write && !map->exec && map->end - map->start <= GUARD_BYTES_MAX;
}

static const char *base_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Return: whether the mapping is a root; `before` is the one that ends where it begins, or NULL. */
static bool root_of(const struct proc_map *map, const struct proc_map *before, struct place_root *ret) {
	const char *name = "";

	*ret = (struct place_root){ .start = map->start, .end = map->end, .kind = PLACE_STATIC };
	if (is_variables(map)) {
		name = base_name(map->path);
	} else if (is_anonymous(map) && before && is_variables(before)) {
		name = base_name(before->path);
		ret->heap = true;
	} else if (is_anonymous(map) && before && is_guard(before)) {
		ret->kind = PLACE_STACK;
		ret->heap = true;
	} else if (map->write && !strncmp(map->path, "[stack", 6)) {
		ret->kind = PLACE_STACK;
	} else {
		return false;
	}
	ret->name = strdup(name);
	return true;
}

static int add_roots(struct census_places *places, const proc_map_vec *maps) {
	const struct proc_map *before = NULL;
	struct place_root root;

	vec_foreach (map, maps) {
		bool follows = before && before->end == map->start;

		if (before && map->start < before->end)
			continue;
		if (map->end > map->start && root_of(map, follows ? before : NULL, &root)) {
			if (!root.name || vec_push(&places->roots, root)) {
				free(root.name);
				return -ENOMEM;
			}
		}
		before = map;
	}
	return 0;
}

struct census_places *places_new(const proc_map_vec *maps, uint32_t version, uint32_t pool_bytes) {
	struct census_places *places = calloc(1, sizeof(*places));

	if (!places)
		return NULL;
	places->grain = version < V3_8 ? 8 : 16;
	places->pool_used_bytes = pool_bytes / places->grain / 8;
	if (add_roots(places, maps)) {
		places_free(places);
		return NULL;
	}
	return places;
}

void places_free(struct census_places *places) {
	if (!places)
		return;
	regions_deinit(&places->regions);
	mimalloc_deinit(&places->heap);
	vec_foreach (root, &places->roots)
		free(root->name);
	vec_free(&places->roots);
	vec_free(&places->pools);
	vec_free(&places->used);
	vec_free(&places->spans);
	free(places);
}

bool places_fit(const struct census_places *places, uint32_t pool_bytes) {
	return places && places->pool_used_bytes * places->grain * 8 == pool_bytes;
}

int places_add_pool(struct census_places *places, raddr pool) {
	size_t bytes = places->used.n + places->pool_used_bytes;
	int r = vec_reserve(&places->used, bytes);

	if (!r)
		r = vec_push(&places->pools, pool);
	if (r)
		return r;
	memset(places->used.items + places->used.n, 0, places->pool_used_bytes);
	places->used.n = bytes;
	return 0;
}

static size_t bit_of(const struct census_places *places, size_t pool, raddr block) {
	return pool * places->pool_used_bytes * 8 + (block - places->pools.items[pool]) / places->grain;
}

void places_set_used(struct census_places *places, raddr block) {
	size_t bit = bit_of(places, places->pools.n - 1, block);

	places->used.items[bit / 8] |= (uint8_t)(1U << bit % 8);
}

bool places_was_used(const struct census_places *places, size_t pool, raddr block) {
	size_t bit = bit_of(places, pool, block);

	return places->used.items[bit / 8] >> bit % 8 & 1;
}

int places_add_span(struct census_places *places, struct place_span span) {
	uint64_t words = min_of((span.len + WORD - 1) / WORD, WORDS_MAX);

	return vec_push(&places->spans,
		(struct packed_span){
			.addr = span.addr & ADDRESS_BITS,
			.words_low = words & 0xffff,
			.owner = span.owner & ADDRESS_BITS,
			.words_high = words >> 16 & 0x7fff,
			.is_table = span.is_table,
		});
}

struct place_span place_unpack(const struct packed_span *packed) {
	return (struct place_span){
		.addr = packed->addr,
		.owner = packed->owner,
		.len = ((uint64_t)packed->words_high << 16 | packed->words_low) * WORD,
		.is_table = packed->is_table,
	};
}

static void swap(struct packed_span *a, struct packed_span *b) {
	struct packed_span old = *a;

	*a = *b;
	*b = old;
}

static void sort_few(struct packed_span *items, size_t n) {
	for (size_t i = 1; i < n; i++)
		for (size_t k = i; k && items[k - 1].addr > items[k].addr; k--)
			swap(&items[k - 1], &items[k]);
}

/* By one byte of the address after another, each span straight to the part where it belongs: qsort() would take as much
 * memory again. */
static void sort_spans(struct packed_span *items, size_t n, unsigned shift) {
	size_t next[256] = { 0 }, end[256], at = 0;

	if (n <= SORT_FEW) {
		sort_few(items, n);
		return;
	}
	for (size_t i = 0; i < n; i++)
		next[items[i].addr >> shift & 0xff]++;
	for (unsigned i = 0; i < 256; i++) {
		end[i] = at + next[i];
		next[i] = at;
		at = end[i];
	}
	for (unsigned i = 0; i < 256; i++)
		while (next[i] < end[i]) {
			unsigned to = items[next[i]].addr >> shift & 0xff;

			if (to == i)
				next[i]++;
			else
				swap(&items[next[i]], &items[next[to]++]);
		}
	at = 0;
	for (unsigned i = 0; shift && i < 256; at = end[i++])
		sort_spans(items + at, end[i] - at, shift - 8);
}

void places_sort(struct census_places *places) {
	sort_spans(places->spans.items, places->spans.n, 40);
}

size_t places_find_pool(const struct census_places *places, raddr pool) {
	size_t low = 0, high = places->pools.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (places->pools.items[middle] == pool)
			return middle;
		if (places->pools.items[middle] < pool)
			low = middle + 1;
		else
			high = middle;
	}
	return PLACES_NONE;
}

bool places_find_span(const struct census_places *places, raddr addr, struct place_span *ret_span) {
	const struct packed_span *items = places->spans.items;
	size_t low = 0, high = places->spans.n;
	struct place_span span;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (items[middle].addr <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return false;
	span = place_unpack(&items[low - 1]);
	if (addr - span.addr >= span.len)
		return false;
	*ret_span = span;
	return true;
}

const struct place_root *places_find_root(const struct census_places *places, raddr addr) {
	vec_foreach (root, &places->roots)
		if (addr >= root->start && addr < root->end)
			return root;
	return NULL;
}
