/* SPDX-License-Identifier: MIT */
/* The kernel's symbols: lines of every kind, addresses between them, and a kernel that hides them. */
#include "engine/proc/kallsyms.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static struct kallsyms *parsed(const char *text) {
	struct kallsyms *symbols = NULL;

	cr_assert_eq(kallsyms_parse(text, strlen(text), &symbols), 0);
	return symbols;
}

Test(kallsyms, names_functions) {
	struct kallsyms *symbols = parsed("ffffffff81002000 T second\n"
					  "ffffffff81001000 t first\n"
					  "ffffffff81001800 D data\n"
					  "ffffffffc0a01000 t in_module\t[module]\n"
					  "ffffffff81002000 t alias\n");

	cr_assert_null(kallsyms_name(symbols, 0xffffffff81000fff));
	cr_assert_str_eq(kallsyms_name(symbols, 0xffffffff81001000), "first");
	cr_assert_str_eq(kallsyms_name(symbols, 0xffffffff81001fff), "first");
	cr_assert_str_eq(kallsyms_name(symbols, 0xffffffff81002004), "second");
	cr_assert_str_eq(kallsyms_name(symbols, 0xffffffffc0a01000), "in_module");
	cr_assert_null(kallsyms_name(symbols, 0xffffffff82002004));
	cr_assert_null(kallsyms_name(symbols, UINT64_MAX));
	kallsyms_free(symbols);
}

Test(kallsyms, hidden_addresses_are_refused) {
	static const char *const texts[] = { "", "0000000000000000 T first\n0000000000000000 t second\n",
		"ffffffff81001000 D data\n", "nonsense\n\n \n" };

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		struct kallsyms *symbols = NULL;

		cr_assert_eq(kallsyms_parse(texts[i], strlen(texts[i]), &symbols), -EACCES, "%s", texts[i]);
		cr_assert_null(symbols);
	}
}

Test(kallsyms, broken_lines_are_left_out) {
	struct kallsyms *symbols = parsed("ffffffff81001000 t\n"
					  "ffffffff81001000 t \n"
					  "ffffffff81001000tname\n"
					  "ffffffff810010000000 t long_address\n"
					  "1000 t good");

	cr_assert_str_eq(kallsyms_name(symbols, 0x1001), "good");
	cr_assert_null(kallsyms_name(symbols, 0xffffffff81001000));
	kallsyms_free(symbols);
}
