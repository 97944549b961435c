/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_LAYOUT_H
#define PYSPYD_CPYTHON_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where CPython keeps what: the offsets of one build of one version.
 *
 * Versions are data. A build is named by its version (PY_VERSION_HEX) and its flavour; the tables come from the
 * interpreters' own DWARF (tools/layout-gen.c). From 3.13 on, what the target's own _Py_DebugOffsets says replaces the
 * table's values (debug_offsets.h). */

#define LAYOUT_NONE UINT32_MAX /* this version has no such member */

enum layout_flavour {
	LAYOUT_RELEASE = 0,
	LAYOUT_DEBUG = 1,         /* Py_DEBUG */
	LAYOUT_FREE_THREADED = 2, /* Py_GIL_DISABLED */
};

/* Offsets and sizes in bytes, bits for the *_bit fields; LAYOUT_NONE where the version lacks it. */
struct layout {
#define FIELD(name, type, path) uint32_t name;
#define SIZE(name, type) uint32_t name;
#define BIT(name, type, path) uint32_t name;
#include "layout_fields.def"
#undef FIELD
#undef SIZE
#undef BIT
};

/* One measured build. Good for every version from first_version to last_version (both PY_VERSION_HEX, inclusive). */
struct layout_row {
	uint32_t first_version;
	uint32_t last_version;
	unsigned flavour; /* enum layout_flavour, or-ed */
	struct layout layout;
};

/* Sorted by first_version, then flavour. Generated: engine/cpython/layout_tables.c. */
extern const struct layout_row layout_rows[];
extern const size_t layout_rows_n;

static inline bool layout_has(uint32_t offset) {
	return offset != LAYOUT_NONE;
}

/* The row for a version and flavour.
 * Return: the row whose range holds `version`; else, only where the flavour is the same and the minor version is too,
 * the row nearest below, or else nearest above (the caller validates it in memory before it is used); NULL where there
 * is none. */
const struct layout_row *layout_find(uint32_t version, unsigned flavour);

#endif
