/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_READER_H
#define PYSPYD_CPYTHON_READER_H

#include "engine/cpython/layout.h"
#include "engine/mem/mem.h"

/* What every decoder of CPython's structures needs: the memory, and where things are in it. Borrowed from the runtime
 * (runtime.h); cheap to copy. */
struct py_reader {
	struct mem *mem;
	struct layout layout; /* checked: see runtime.h */
	uint32_t version;     /* PY_VERSION_HEX of the target, for example 0x030d00f0 */
	unsigned flavour;     /* enum layout_flavour, or-ed */
};

/* Named conditions of the decoders in this folder, beside MEM_E_*. They are ordinary results of reading a program that
 * runs. */
enum {
	PY_E_TYPE = 16,      /* not an object of the kind that was expected */
	PY_E_TRUNCATED = 17, /* longer than the limit, or cut off */
	PY_E_TORN = 18,      /* parts that cannot belong together: the target moved while we read */
};

#define PY_MINOR(version) ((version) >> 16) /* 0x030d for 3.13 */

/* A tagged reference (_PyStackRef, 3.14+; deferred bits on free-threaded 3.13) without its tag bits. */
static inline raddr py_untag(uint64_t ref) {
	return ref & ~(uint64_t)3;
}

#endif
