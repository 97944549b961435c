/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_DEBUG_OFFSETS_H
#define PYSPYD_CPYTHON_DEBUG_OFFSETS_H

#include "engine/cpython/layout.h"
#include "pyspyd/err.h"

/* _Py_DebugOffsets: the table of offsets with which an interpreter of 3.13 or later describes itself
 * (CPython 3.13 Include/internal/pycore_runtime.h, 3.14+ Include/internal/pycore_debug_offsets.h). It stands at the
 * start of _PyRuntime, in memory that the target can write: nothing in it is believed before it is checked. */

#define DEBUG_OFFSETS_HEADER_BYTES 24
#define DEBUG_OFFSETS_MAX_BYTES 1024

struct debug_offsets_header {
	uint32_t version; /* PY_VERSION_HEX */
	bool free_threaded;
	size_t table_bytes; /* whole table, this header included */
};

/* Pure. Reads the 24 bytes at the start of _PyRuntime.
 * Return: 0; -ENODATA where there is no table (an interpreter before 3.13, or not one at all); PYSPYD_E_UNSUPPORTED
 * where the table is of a version that is not known: *ret then holds the version. */
int debug_offsets_header_parse(const void *bytes, size_t len, struct debug_offsets_header *ret);

/* Pure. Puts the table's values over those of `layout`, the measured layout of the same minor version and flavour. What
 * the table does not have is kept where the measured layout agrees with the table about the structure it belongs to,
 * else becomes LAYOUT_NONE. Each value is checked: inside its structure, aligned, structures of a sane size. Return: 0
 * and *layout changed; PYSPYD_E_UNSUPPORTED with the reason in err and *layout untouched. */
int debug_offsets_apply(const struct debug_offsets_header *header, const void *bytes, size_t len, struct layout *layout,
	struct err *err);

#endif
