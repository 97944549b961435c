/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_LINES_H
#define PYSPYD_CPYTHON_LINES_H

#include <stddef.h>
#include <stdint.h>

/* From a bytecode offset to a source line. Pure: bytes in, a number out. */

enum lines_format {
	LINES_LNOTAB,    /* 3.6 to 3.9: co_lnotab */
	LINES_LINETABLE, /* 3.10: co_linetable of PEP 626 */
	LINES_LOCATIONS, /* 3.11+: co_linetable of PEP 657 */
};

enum lines_format lines_format_of(uint32_t version);

/* The line of the instruction at `offset` (bytes from the start of the bytecode; a negative one stands for "not
 * started": the first line). `table` may hold anything; it is read up to `len`. Return: the line; 0 where the
 * instruction has none, or the table ends before the offset. */
int lines_lookup(enum lines_format format, const uint8_t *table, size_t len, int first_line, int64_t offset);

#endif
