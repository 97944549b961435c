/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_FOLLOW_H
#define PYSPYD_LEAKS_FOLLOW_H

#include "engine/leaks/census.h"
#include "engine/leaks/marks.h"
#include "engine/leaks/mimalloc.h"
#include "engine/leaks/places.h"

/* What the parts of a census share. */

#define CENSUS_READ_BYTES (1U << 20)
#define CENSUS_HEAD_BYTES 96 /* of what may be a large object */

struct span {
	raddr addr;
	uint64_t len;
	raddr owner; /* of a long table, which is asked afterwards whether it moved meanwhile; 0 none */
	raddr begin; /* of the table */
	unsigned tries;
};

struct census_run {
	const struct py_reader *py;
	struct regions regions;
	struct regions late; /* tables in memory that was mapped since */
	unsigned tries;      /* of the table that is followed: how often its owner was asked again */
	struct heap_types types;
	struct census *census;
	uint32_t pool_bytes;
	uint32_t gc_head;   /* bytes */
	uint8_t *buf;       /* CENSUS_READ_BYTES */
	struct marks marks; /* addresses outside pools that were asked for, and what was taken for something */
	uint64_t asked;
	VEC(raddr) candidates;  /* … to be asked */
	VEC(struct span) spans; /* memory outside pools whose words may lead to more */
	uint64_t span_bytes;    /* of it in all, that may still be added: twice the heap at first */

	const struct census_options *options;
	const struct census_places *before; /* NULL none */
	size_t before_pool;                 /* in `before`, the pool that is counted; PLACES_NONE it was none */
	uint64_t done_bytes, all_bytes;     /* of the heap */

	const struct mimalloc *heap; /* its slices are the pools then; NULL: pymalloc's */
	uint64_t table_bytes;        /* of containers' tables among its blocks */
};

/* The census of a heap of mimalloc: adds to types, containers, counts and places, as census_take does with pools.
 * Return: 0; PY_E_TYPE: it is none; MEM_E_GONE; -ECANCELED; negative errno. */
int census_mimalloc(struct census_run *run, const struct py_runtime *rt, struct mimalloc *heap);

/* Asks whether to go on. Return: 0; -ECANCELED. */
int census_progress(const struct census_run *run);

/* Counts an object: one that is fresh may become a sample of its type. */
void census_count(struct heap_type *type, raddr addr, uint64_t bytes, bool fresh);

/* Which object a block of `size` bytes holds, and where in it, by its first `len` bytes. Return: as heap_types_find,
 * TYPE_NONE: none. */
int object_recognise(struct census_run *run, const uint8_t *bytes, size_t len, uint64_t size, uint32_t *ret_type,
	uint32_t *ret_offset);

/* How many references an object's head, `len` bytes of it, counts. */
int64_t object_references(const struct py_reader *py, const uint8_t *object, size_t len);

/* What the debug hooks of the allocators keep at the beginning of a block, `len` bytes of it; 0: they are not in use.
 */
uint32_t block_hook_bytes(const uint8_t *bytes, size_t len);

/* Whether an object's head, `len` bytes of it, has a count of references as a live object has. */
bool object_counts(struct census_run *run, const uint8_t *object, size_t len);

/* What an object takes by its own head, with what lies before it; UINT64_MAX where that cannot be. */
uint64_t object_bytes(const struct py_reader *py, const struct heap_type *type, const uint8_t *head, size_t len);

/* Looks for addresses outside pools among the words, to be asked later. Return: 0; -ENOMEM. */
int follow_words(struct census_run *run, const uint8_t *bytes, size_t len);

/* Return: what holds the address; NULL nothing does. */
const struct region *census_region(struct census_run *run, raddr addr);

/* Adds a table of `owner`, once; `words`: they are to be looked at. Return: 0; -ENOMEM; MEM_E_GONE; PY_E_TYPE: it was
 * there, or is not memory outside pools. */
int follow_table(struct census_run *run, raddr addr, uint64_t len, raddr owner, bool words);

/* Asks all that was found, and what that leads to. Return: 0; MEM_E_GONE; -ECANCELED; negative errno. */
int follow_all(struct census_run *run);

/* A container among the objects: its length, what its table takes, which is added to *bytes. `object` is its head,
 * `len` bytes. Return: 0; MEM_E_GONE; negative errno. */
int container_add(
	struct census_run *run, raddr addr, uint32_t type, const uint8_t *object, size_t len, uint64_t *bytes);

/* Where the table of an object lies that has one outside itself, in one piece, by its head; or its buffer. Return: 0;
 * PY_E_TYPE: it has none; as mem_read. */
int container_table(struct census_run *run, enum heap_kind kind, const uint8_t *object, size_t len, raddr *ret_addr,
	uint64_t *ret_bytes);

/* Follows a table of `owner` that is at another place than `begin` now. Return: 0; MEM_E_GONE; negative errno. */
int container_again(struct census_run *run, raddr owner, raddr begin);

/* The bytes that an object owns outside itself, which hold no references. Return: as container_table. */
int buffer_of(const struct py_reader *py, enum heap_kind kind, const uint8_t *object, size_t len, raddr *ret_addr,
	uint64_t *ret_bytes);
bool is_buffer(enum heap_kind kind);

#endif
