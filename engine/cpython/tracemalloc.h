/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_TRACEMALLOC_H
#define PYSPYD_CPYTHON_TRACEMALLOC_H

#include "engine/base/vec.h"
#include "engine/cpython/runtime.h"

/* What the target's own tracemalloc has recorded, summed up by the line that allocated (the innermost frame of each
 * trace), read out of its tables while it runs. Blocks that extension modules report under a domain of their own are
 * counted in traced_bytes and peak_bytes, but in no line. */

struct py_traced_line {
	char *file;
	uint32_t line;
	uint64_t count, bytes; /* blocks in use that were allocated there */
};

struct py_traced {
	VEC(struct py_traced_line) lines;  /* most bytes first */
	uint64_t traced_bytes, peak_bytes; /* as tracemalloc.get_traced_memory() says */
	uint64_t blocks;                   /* of all lines */
	bool incomplete;                   /* a limit was met, or tables changed while they were read */
};

/* `rt` reads the process itself, not a cache: what moves meanwhile has to show. Return: 0; PY_E_TYPE: tracemalloc does
 * not run in the target, or its tables cannot be found (to 3.11, a file without a symbol table); MEM_E_GONE; negative
 * errno. */
int py_traced_read(const struct py_runtime *rt, struct py_traced *ret_traced);
void py_traced_deinit(struct py_traced *traced);

#endif
