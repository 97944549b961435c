/* SPDX-License-Identifier: MIT */
/* Sorts a target's mappings. Objects are made in anonymous memory. The main thread's stack and the kernel's own pages
 * hold none. */
#include "engine/leaks/regions.h"

#include <string.h>

static bool is_wanted(const struct proc_map *map) {
	return map->read && map->end > map->start && strncmp(map->path, "[stack", 6) != 0 &&
		strncmp(map->path, "[v", 2) != 0;
}

static bool is_heap(const struct proc_map *map) {
	return map->write && !map->shared && !map->inode && (!map->path[0] || map->path[0] == '[');
}

int regions_init(struct regions *regions, const proc_map_vec *maps, uint32_t pool_bytes) {
	*regions = (struct regions){ .pool_bytes = pool_bytes };
	vec_foreach (map, maps) {
		raddr before = regions->items.n ? regions->items.items[regions->items.n - 1].end : 0;

		if (!is_wanted(map) || map->start < before)
			continue;
		if (vec_push(&regions->items,
			    (struct region){ .start = map->start, .end = map->end, .heap = is_heap(map) })) {
			regions_deinit(regions);
			return -ENOMEM;
		}
	}
	return 0;
}

void regions_deinit(struct regions *regions) {
	vec_foreach (region, &regions->items)
		free(region->bits);
	vec_free(&regions->items);
}

const struct region *regions_find(struct regions *regions, raddr addr) {
	size_t low = 0, high = regions->items.n;
	const struct region *items = regions->items.items;

	if (regions->last < high && addr >= items[regions->last].start && addr < items[regions->last].end)
		return &items[regions->last];
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (addr < items[middle].start) {
			high = middle;
		} else if (addr >= items[middle].end) {
			low = middle + 1;
		} else {
			regions->last = middle;
			return &items[middle];
		}
	}
	return NULL;
}

static size_t index_behind(const struct regions *regions, raddr addr) {
	size_t low = 0, high = regions->items.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (regions->items.items[middle].start <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

raddr regions_next(const struct regions *regions, raddr addr) {
	size_t at = index_behind(regions, addr);

	return at < regions->items.n ? regions->items.items[at].start : UINT64_MAX;
}

int regions_add(struct regions *regions, raddr start, raddr end) {
	const struct region region = { .start = start, .end = end, .heap = true };
	size_t at = index_behind(regions, start);
	int r = vec_push(&regions->items, region);

	if (r)
		return r;
	memmove(regions->items.items + at + 1, regions->items.items + at, (regions->items.n - 1 - at) * sizeof(region));
	regions->items.items[at] = region;
	regions->last = 0;
	return 0;
}

static size_t piece_of(const struct region *region, raddr addr, uint32_t pool_bytes) {
	return addr / pool_bytes - region->start / pool_bytes;
}

int region_set_pool(struct region *region, raddr pool, uint32_t pool_bytes) {
	size_t piece = piece_of(region, pool, pool_bytes);

	if (!region->bits)
		region->bits = calloc(piece_of(region, region->end, pool_bytes) / 8 + 1, 1);
	if (!region->bits)
		return -ENOMEM;
	region->bits[piece / 8] |= (uint8_t)(1U << piece % 8);
	return 0;
}

bool region_is_pool(const struct region *region, raddr addr, uint32_t pool_bytes) {
	size_t piece = piece_of(region, addr, pool_bytes);

	return region->bits && region->bits[piece / 8] >> piece % 8 & 1;
}
