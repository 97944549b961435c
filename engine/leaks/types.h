/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_TYPES_H
#define PYSPYD_LEAKS_TYPES_H

#include "engine/base/map.h"
#include "engine/cpython/object_head.h"
#include "engine/leaks/regions.h"

/* The types of a target's objects, each checked once: what makes of some bytes an object is that they point to a type.
 */

#define TYPE_GC (1UL << 14)
#define TYPE_SUBCLASS (1UL << 31) /* its objects are types */

#define HEAP_SAMPLES 32

enum heap_kind {
	HEAP_OTHER,
	HEAP_LIST,
	HEAP_TUPLE,
	HEAP_DICT,
	HEAP_SET,
	HEAP_DEQUE,
	HEAP_TEXT, /* str, bytes: no references inside */
	HEAP_BYTEARRAY,
	HEAP_ARRAY,   /* array.array */
	HEAP_NDARRAY, /* of NumPy */
};

struct heap_type {
	struct type_head head;
	enum heap_kind kind;
	uint32_t before; /* bytes of an object of it that lie before its head */
	uint64_t count, bytes;
	uint64_t fresh;              /* objects that the census before did not meet in their place; all without one */
	raddr samples[HEAP_SAMPLES]; /* addresses of some, evenly spread over those that are fresh, or over all without
					a census before */
	uint32_t samples_n;
	uint32_t stride; /* one of so many fresh objects is a sample; 0: no object yet */
};

struct heap_types {
	const struct py_reader *py;
	struct regions *regions; /* types lie in these, and in no pool: none is that small … */
	bool in_pools;           /* … but where pools are pages of mimalloc, of blocks of any size */
	VEC(struct heap_type) items;
	struct map index; /* address → number + 1; 0: it is none */
	raddr last;       /* the last answer */
	uint32_t last_number;
	bool incomplete; /* a limit was met */
};

#define TYPE_NONE UINT32_MAX

/* Of the links that the collector keeps before an object; free-threaded builds have none. */
uint32_t gc_head_bytes(const struct py_reader *py);

void heap_types_init(struct heap_types *types, const struct py_reader *py, struct regions *regions);
void heap_types_deinit(struct heap_types *types);

/* Return: 0 and the type's number, TYPE_NONE where there is no type at the address; MEM_E_GONE; -EPERM; -ENOMEM. */
int heap_types_find(struct heap_types *types, raddr addr, uint32_t *ret_number);

#endif
