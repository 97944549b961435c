/* SPDX-License-Identifier: MIT */
/* Open addressing with linear probing, at most half full. Entries are not removed one by one: caches are cleared whole.
 */
#include "engine/base/map.h"

#include <errno.h>
#include <stdlib.h>

#define EMPTY UINT64_MAX

void map_deinit(struct map *map) {
	free(map->keys);
	free(map->values);
	*map = (struct map){ 0 };
}

static size_t slot_of(const struct map *map, uint64_t key) {
	size_t i = hash_mix(key) & (map->cap - 1);

	while (map->keys[i] != EMPTY && map->keys[i] != key)
		i = (i + 1) & (map->cap - 1);
	return i;
}

bool map_get(const struct map *map, uint64_t key, uint64_t *ret_value) {
	size_t i;

	if (!map->cap)
		return false;
	i = slot_of(map, key);
	if (map->keys[i] == EMPTY)
		return false;
	*ret_value = map->values[i];
	return true;
}

static int grow(struct map *map) {
	size_t cap = map->cap ? map->cap * 2 : 64;
	struct map bigger = { .cap = cap };

	bigger.keys = malloc(cap * sizeof(*bigger.keys));
	bigger.values = malloc(cap * sizeof(*bigger.values));
	if (!bigger.keys || !bigger.values) {
		map_deinit(&bigger);
		return -ENOMEM;
	}
	memset(bigger.keys, 0xff, cap * sizeof(*bigger.keys));
	for (size_t i = 0; i < map->cap; i++) {
		size_t slot;

		if (map->keys[i] == EMPTY)
			continue;
		slot = slot_of(&bigger, map->keys[i]);
		bigger.keys[slot] = map->keys[i];
		bigger.values[slot] = map->values[i];
	}
	bigger.n = map->n;
	map_deinit(map);
	*map = bigger;
	return 0;
}

int map_put(struct map *map, uint64_t key, uint64_t value) {
	size_t i;

	if (key == EMPTY)
		return -EINVAL;
	if (2 * (map->n + 1) > map->cap) {
		int r = grow(map);

		if (r)
			return r;
	}
	i = slot_of(map, key);
	if (map->keys[i] == EMPTY) {
		map->keys[i] = key;
		map->n++;
	}
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): grow() has put new arrays in place of those it freed */
	map->values[i] = value;
	return 0;
}

void map_clear(struct map *map) {
	if (map->cap)
		memset(map->keys, 0xff, map->cap * sizeof(*map->keys));
	map->n = 0;
}
