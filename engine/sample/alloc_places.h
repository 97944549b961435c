/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_ALLOC_PLACES_H
#define PYSPYD_SAMPLE_ALLOC_PLACES_H

#include "engine/base/vec.h"
#include "engine/mem/mem.h"
#include "engine/proc/proc.h"
#include "engine/sample/alloc_code.h"
#include "pyspyd/err.h"

/* Where probes have to stand to see every allocation of a process. */

struct alloc_probe {
	uint64_t offset; /* in the file */
	struct alloc_size size;
	int32_t sp_up;
	bool outer, inner, inlined; /* may call, may be called by, another one; is inside a caller */
};

/* One file with its probes. */
struct alloc_file {
	int fd; /* -1: none */
	VEC(struct alloc_probe) probes;
};

#define ALLOC_FILES 2

struct alloc_places {
	struct alloc_file files[ALLOC_FILES]; /* of the interpreter; the C library, where it was asked for */
	size_t inlined;                       /* allocators inside of their callers … */
	size_t not_seen;                      /* … and those of which the size cannot be told: they are missing */
};

/* Finds the functions to which the interpreter's pointers lead now (for objects and for memory), and the places where
 * the compiler has put them into their callers; with `native` the C library's too. Reads files and memory only. Return:
 * 0; PYSPYD_E_UNSUPPORTED with the reason; PYSPYD_E_GONE; negative errno. */
int alloc_places_find(
	const struct proc *proc, struct mem *mem, bool native, struct alloc_places *ret_places, struct err *err);
void alloc_places_deinit(struct alloc_places *places);

#endif
