/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_CENSUS_H
#define PYSPYD_LEAKS_CENSUS_H

#include "engine/cpython/runtime.h"
#include "engine/leaks/types.h"

/* All objects of a heap, counted by type, out of the target's memory while it runs.
 *
 * Small objects (up to 512 bytes) are found block by block in the pools of pymalloc; larger ones by the references to
 * them, and by the links of the garbage collector. In free-threaded builds all are blocks of mimalloc's pages, which
 * count as pools here. The target goes on meanwhile: what moves is counted once, twice or not at all. */

struct census_container {
	raddr addr;
	uint64_t length : 44;
	uint64_t type : 20; /* number in the census's types */
	uint64_t bytes;     /* with its table */
};

/* Which memory was in use, and where the tables of large objects lie: what a later census, and those who look for
 * keepers (keepers.h), need to know. Less than 2 % of the heap. */
struct census_places;

struct census {
	VEC(struct heap_type) types;             /* in the order in which they were met */
	VEC(struct census_container) containers; /* those of CENSUS_CONTAINER_MIN items or more */
	uint64_t objects;                        /* of all types */
	uint64_t bytes;                          /* … with the tables of containers */
	uint64_t large;                          /* those among them of more than 512 bytes */
	uint64_t pools, pool_bytes;
	uint64_t blocks;              /* in use; CPython's sys.getallocatedblocks() */
	uint64_t other_bytes;         /* of blocks in use that are no object: tables, buffers, objects kept for reuse */
	uint64_t free_bytes;          /* in blocks of these pools that are not in use */
	uint64_t moved;               /* pools that changed while they were read */
	bool incomplete;              /* a limit was met */
	struct census_places *places; /* NULL without CENSUS_KEEP_PLACES */
};

#define CENSUS_CONTAINER_MIN 64

enum {
	CENSUS_KEEP_PLACES = 1, /* needed for `before`, and by keepers_find */
};

struct census_options {
	unsigned flags;
	const struct census *before; /* with places: heap_type.samples are of objects that were not there then; else of
					all. NULL none */
	bool (*progress)(void *userdata, uint64_t done_bytes, uint64_t all_bytes); /* true: stop. NULL: nobody asks */
	void *userdata;
};

/* Return: 0; PYSPYD_E_UNSUPPORTED: a build whose heap is neither one of pymalloc nor of mimalloc; MEM_E_GONE;
 * -ECANCELED: progress said so; negative errno. */
int census_take(const struct py_runtime *rt, const proc_map_vec *maps, const struct census_options *options,
	struct census *ret_census, struct err *err);
void census_deinit(struct census *census);

#endif
