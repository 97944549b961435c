/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_REGIONS_H
#define PYSPYD_LEAKS_REGIONS_H

#include "engine/base/vec.h"
#include "engine/proc/proc.h"

/* The readable memory of a target, and which pieces of it are pools. */

struct region {
	raddr start, end;
	bool heap;     /* anonymous and writable: objects are made here; else a program or a library, or data */
	uint8_t *bits; /* of a heap: a bit for each aligned piece that is a pool; NULL none is */
};

struct regions {
	VEC(struct region) items; /* ascending */
	uint32_t pool_bytes;
	size_t last; /* where the last address was found */
};

/* Return: 0; -ENOMEM. */
int regions_init(struct regions *regions, const proc_map_vec *maps, uint32_t pool_bytes);
void regions_deinit(struct regions *regions);

/* Return: the region that holds the address; NULL none does. */
const struct region *regions_find(struct regions *regions, raddr addr);

/* Return: where the first region behind the address begins; UINT64_MAX: there is none. */
raddr regions_next(const struct regions *regions, raddr addr);

/* Adds a heap where no region is. Return: 0; -ENOMEM. */
int regions_add(struct regions *regions, raddr start, raddr end);

/* Return: 0; -ENOMEM. */
int region_set_pool(struct region *region, raddr pool, uint32_t pool_bytes);
bool region_is_pool(const struct region *region, raddr addr, uint32_t pool_bytes);

#endif
