/* SPDX-License-Identifier: MIT */
/* Line tables of code objects, in the three shapes that CPython has had. One pass from the table's start to the entry
 * that holds the offset; nothing is kept. Every byte comes from a target: a table that ends in the middle of an entry
 * ends there, and sums are wide enough that no table of LIMIT_LINETABLE_BYTES can overflow them.
 *
 * It does not decode columns and end lines, and it does not check that a table and a bytecode belong together. */
#include "engine/cpython/lines.h"

#include "engine/base/cursor.h"
#include <limits.h>

#define UNIT_BYTES 2               /* of one code unit since 3.6 */
#define LINETABLE_NO_LINE INT8_MIN /* CPython 3.10 Objects/lnotab_notes.txt */

/* CPython 3.11 Include/cpython/code.h, enum _PyCodeLocationInfoKind; below them the short forms, which stay on the
 * line. */
enum {
	LOCATION_ONE_LINE0 = 10,
	LOCATION_ONE_LINE1 = 11,
	LOCATION_ONE_LINE2 = 12,
	LOCATION_NO_COLUMNS = 13,
	LOCATION_LONG = 14,
	LOCATION_NONE = 15,
};

enum lines_format lines_format_of(uint32_t version) {
	if (version < 0x030a0000)
		return LINES_LNOTAB;
	return version < 0x030b0000 ? LINES_LINETABLE : LINES_LOCATIONS;
}

static int line_of(int64_t line) {
	return line > 0 && line <= INT_MAX ? (int)line : 0;
}

/* Pairs (bytes forward, lines forward). The last pair's line is good to the end of the code. */
static int64_t lnotab_lookup(struct cursor c, int64_t line, int64_t offset) {
	int64_t at = 0;
	uint8_t bytes;
	int8_t lines;

	while (cursor_u8(&c, &bytes) && cursor_i8(&c, &lines)) {
		at += bytes;
		if (at > offset)
			break;
		line += lines;
	}
	return line;
}

/* Pairs (length in bytes, lines forward from the last entry that has a line). */
static int64_t linetable_lookup(struct cursor c, int64_t line, int64_t offset) {
	int64_t end = 0;
	uint8_t bytes;
	int8_t lines;

	while (cursor_u8(&c, &bytes) && cursor_i8(&c, &lines)) {
		end += bytes;
		if (lines != LINETABLE_NO_LINE)
			line += lines;
		if (offset < end)
			return lines == LINETABLE_NO_LINE ? 0 : line;
	}
	return 0;
}

/* Six bits a byte, low bits first; bit 6 says that more follow. Seven bytes are enough for CPython's 32-bit values. */
static int64_t location_varint(struct cursor *c) {
	uint64_t value = 0;
	uint8_t byte;

	for (unsigned shift = 0; shift <= 36 && cursor_u8(c, &byte); shift += 6) {
		value |= (uint64_t)(byte & 63) << shift;
		if (!(byte & 64))
			break;
	}
	return (int64_t)value;
}

/* The sign is in the lowest bit. */
static int64_t location_lines(struct cursor *c) {
	int64_t value = location_varint(c);

	return value & 1 ? -(value >> 1) : value >> 1;
}

static int64_t location_delta(struct cursor *c, unsigned code) {
	switch (code) {
	case LOCATION_ONE_LINE1: return 1;
	case LOCATION_ONE_LINE2: return 2;
	case LOCATION_NO_COLUMNS:
	case LOCATION_LONG: return location_lines(c);
	default: return 0;
	}
}

/* Entries that begin with a byte 1CCCCLLL: code C, L + 1 code units. What follows it has bit 7 clear, so the next entry
 * is found without knowing what stands in between. */
static int64_t locations_lookup(struct cursor c, int64_t line, int64_t offset) {
	int64_t end = 0;
	uint8_t first;

	while (cursor_u8(&c, &first)) {
		unsigned code = first >> 3 & 15;

		if (!(first & 128))
			continue;
		line += location_delta(&c, code);
		end += ((first & 7) + 1) * UNIT_BYTES;
		if (offset < end)
			return code == LOCATION_NONE ? 0 : line;
	}
	return 0;
}

int lines_lookup(enum lines_format format, const uint8_t *table, size_t len, int first_line, int64_t offset) {
	struct cursor c = cursor_of(table, len);

	if (offset < 0)
		return line_of(first_line);
	switch (format) {
	case LINES_LNOTAB: return line_of(lnotab_lookup(c, first_line, offset));
	case LINES_LINETABLE: return line_of(linetable_lookup(c, first_line, offset));
	case LINES_LOCATIONS: return line_of(locations_lookup(c, first_line, offset));
	}
	return 0;
}
