/* SPDX-License-Identifier: MIT */
/* Line tables by hand, and hostile ones. The tables of real code are compared by tests/live/lines_oracle.sh. */
#include "engine/cpython/lines.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define LOOKUP(format, table, first, offset) lines_lookup(format, table, sizeof(table), first, offset)
#define ENTRY(code, units) (128 | (code) << 3 | ((units)-1))

Test(lines, the_version_says_the_format) {
	cr_assert_eq(lines_format_of(0x03060ff0), LINES_LNOTAB);
	cr_assert_eq(lines_format_of(0x030912f0), LINES_LNOTAB);
	cr_assert_eq(lines_format_of(0x030a0df0), LINES_LINETABLE);
	cr_assert_eq(lines_format_of(0x030b00a1), LINES_LOCATIONS);
	cr_assert_eq(lines_format_of(0x030f02f0), LINES_LOCATIONS);
}

Test(lines, lnotab_goes_forward_and_back) {
	static const uint8_t table[] = { 0, 1, 6, 2, 4, 0xfe /* -2 */ };

	cr_assert_eq(LOOKUP(LINES_LNOTAB, table, 10, 0), 11);
	cr_assert_eq(LOOKUP(LINES_LNOTAB, table, 10, 4), 11);
	cr_assert_eq(LOOKUP(LINES_LNOTAB, table, 10, 6), 13);
	cr_assert_eq(LOOKUP(LINES_LNOTAB, table, 10, 10), 11);
	cr_assert_eq(LOOKUP(LINES_LNOTAB, table, 10, 100000), 11);
}

Test(lines, lnotab_joins_long_steps) {
	static const uint8_t table[] = { 255, 0, 45, 127, 0, 73 };

	cr_assert_eq(LOOKUP(LINES_LNOTAB, table, 1, 298), 1);
	cr_assert_eq(LOOKUP(LINES_LNOTAB, table, 1, 300), 201);
}

Test(lines, linetable_has_ranges_without_a_line) {
	static const uint8_t table[] = { 4, 1, 6, 0x80 /* none */, 2, 3, 0, 5, 2, 0xff /* -1 */ };

	cr_assert_eq(LOOKUP(LINES_LINETABLE, table, 10, 0), 11);
	cr_assert_eq(LOOKUP(LINES_LINETABLE, table, 10, 4), 0);
	cr_assert_eq(LOOKUP(LINES_LINETABLE, table, 10, 8), 0);
	cr_assert_eq(LOOKUP(LINES_LINETABLE, table, 10, 10), 14);
	cr_assert_eq(LOOKUP(LINES_LINETABLE, table, 10, 12), 18);
	cr_assert_eq(LOOKUP(LINES_LINETABLE, table, 10, 14), 0, "after the table");
}

Test(lines, locations_know_all_codes) {
	static const uint8_t table[] = {
		ENTRY(3, 2), 0x11,                      /* 0..3: same line */
		ENTRY(12, 1), 1, 2,                     /* 4..5: +2 */
		ENTRY(15, 8),                           /* 6..21: none, the running line stays */
		ENTRY(13, 1), 7,                        /* 22..23: -3 */
		ENTRY(14, 1), 0x40 | 0, 4, 0, 1, 1,     /* 24..25: +128 in two bytes */
		ENTRY(11, 1), 0, 0, ENTRY(10, 1), 0, 0, /* 26..27: +1, 28..29: same */
	};
	static const int expected[] = { 50, 50, 52, 0, 0, 0, 0, 0, 0, 0, 0, 49, 177, 178, 178, 0 };

	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		cr_assert_eq(LOOKUP(LINES_LOCATIONS, table, 50, (int64_t)i * 2), expected[i], "offset %zu", i * 2);
}

Test(lines, a_frame_that_has_not_started_is_on_the_first_line) {
	for (int format = LINES_LNOTAB; format <= LINES_LOCATIONS; format++)
		cr_assert_eq(lines_lookup((enum lines_format)format, NULL, 0, 42, -1), 42);
}

Test(lines, an_empty_table) {
	static const uint8_t table[1];

	cr_assert_eq(lines_lookup(LINES_LNOTAB, table, 0, 7, 0), 7);
	cr_assert_eq(lines_lookup(LINES_LINETABLE, table, 0, 7, 0), 0);
	cr_assert_eq(lines_lookup(LINES_LOCATIONS, table, 0, 7, 0), 0);
}

Test(lines, a_table_cut_anywhere_is_read_to_its_end_only) {
	static const uint8_t table[] = { ENTRY(13, 1), 0x7f, 0x7f, 0x7f, ENTRY(14, 8), 0x7f, 0x7f };

	for (int format = LINES_LNOTAB; format <= LINES_LOCATIONS; format++) {
		for (size_t len = 0; len <= sizeof(table); len++) {
			uint8_t *copy = malloc(len ? len : 1); /* of its exact size: the sanitizer sees any step out */

			memcpy(copy, table, len);
			for (int64_t offset = -2; offset < 40; offset++)
				lines_lookup((enum lines_format)format, copy, len, 1, offset);
			free(copy);
		}
	}
}

Test(lines, endless_steps_without_progress) {
	size_t len = 4 << 20;
	uint8_t *table = calloc(1, len);

	cr_assert_eq(lines_lookup(LINES_LNOTAB, table, len, 3, INT64_MAX), 3);
	cr_assert_eq(lines_lookup(LINES_LINETABLE, table, len, 3, 0), 0);
	cr_assert_eq(lines_lookup(LINES_LOCATIONS, table, len, 3, 0), 0);
	memset(table, 0x7f, len);
	cr_assert_eq(lines_lookup(LINES_LOCATIONS, table, len, 3, 0), 0);
	free(table);
}

Test(lines, lines_outside_of_an_int_are_none) {
	static const uint8_t back[] = { 2, 0xf0 /* -16 */ };
	static const uint8_t on[] = { ENTRY(13, 1), 0x7e, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f };

	cr_assert_eq(LOOKUP(LINES_LINETABLE, back, 3, 0), 0);
	cr_assert_eq(LOOKUP(LINES_LNOTAB, back, INT_MIN, 2), 0);
	cr_assert_eq(LOOKUP(LINES_LOCATIONS, on, INT_MAX, 0), 0);
}

Test(lines, random_tables) {
	uint8_t table[257];

	srandom(20240229);
	for (int round = 0; round < 20000; round++) {
		size_t len = (size_t)random() % sizeof(table);
		int format = (int)random() % 3;

		for (size_t i = 0; i < len; i++)
			table[i] = (uint8_t)random();
		cr_assert_geq(lines_lookup((enum lines_format)format, table, len, (int)random(), random() % 2000), 0);
	}
}
