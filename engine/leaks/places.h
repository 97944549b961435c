/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_PLACES_H
#define PYSPYD_LEAKS_PLACES_H

#include "engine/leaks/mimalloc.h"
#include <assert.h>

/* What a census keeps of where things were: a bit for each place of pool memory where a block in use may begin, and the
 * objects and tables outside pools. */

/* Memory outside pools that an object, or a table of one, takes. */
struct place_span {
	raddr addr;
	raddr owner; /* the object */
	uint64_t len;
	bool is_table;
};
typedef VEC(struct place_span) place_span_vec;

/* The same in 16 bytes; as long as 16 GiB, in words. */
struct packed_span {
	uint64_t addr : 48, words_low : 16;
	uint64_t owner : 48, words_high : 15, is_table : 1;
};
static_assert(sizeof(struct packed_span) == 16, "there are millions of them");

enum place_kind {
	PLACE_STATIC, /* variables of a program or library */
	PLACE_STACK,  /* of a thread */
};

/* Memory in which references may stand, and which no object owns. */
struct place_root {
	raddr start, end;
	enum place_kind kind;
	bool heap;  /* it is one of the regions' heaps too */
	char *name; /* of the program or library, without its folder; "" for a stack */
};

struct census_places {
	struct regions regions;
	struct mimalloc heap; /* its slices are the pools then; without a format: none */
	uint32_t grain;       /* blocks begin at multiples of it, from a pool's first block on */
	uint32_t pool_used_bytes;
	VEC(raddr) pools;              /* ascending */
	VEC(uint8_t) used;             /* pool_used_bytes for each pool */
	VEC(struct packed_span) spans; /* ascending once the census is done */
	VEC(struct place_root) roots;  /* ascending */
};

#define PLACES_NONE SIZE_MAX

/* Return: NULL when out of memory. */
struct census_places *places_new(const proc_map_vec *maps, uint32_t version, uint32_t pool_bytes);
void places_free(struct census_places *places);

/* Whether they are of a target with pools of this size; not of NULL. */
bool places_fit(const struct census_places *places, uint32_t pool_bytes);

/* Adds a pool behind those that are there: a census meets them in ascending order. Return: 0; -ENOMEM. */
int places_add_pool(struct census_places *places, raddr pool);

/* A block in use of the last pool. */
void places_set_used(struct census_places *places, raddr block);

/* Return: 0; -ENOMEM. */
int places_add_span(struct census_places *places, struct place_span span);
void places_sort(struct census_places *places);

/* Return: the pool's number; PLACES_NONE. */
size_t places_find_pool(const struct census_places *places, raddr pool);
bool places_was_used(const struct census_places *places, size_t pool, raddr block);

struct place_span place_unpack(const struct packed_span *packed);

/* Return: whether the address lies in a span, and in which. */
bool places_find_span(const struct census_places *places, raddr addr, struct place_span *ret_span);

/* Return: what the address lies in; NULL. */
const struct place_root *places_find_root(const struct census_places *places, raddr addr);

#endif
