/* SPDX-License-Identifier: MIT */
#include "engine/leaks/marks.h"

#include <criterion/criterion.h>

Test(marks, are_kept_apart) {
	static const raddr addrs[] = { 0, 16, 32, 48, 64, 0xffff0, 0x100000, 0x7fffffffffe0, 0x7ffffffffff0 };
	struct marks marks = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(addrs); i++)
		cr_assert_eq(marks_set(&marks, addrs[i], i % 3 + 1), 0);
	for (size_t i = 0; i < ARRAY_SIZE(addrs); i++)
		cr_assert_eq(marks_get(&marks, addrs[i]), i % 3 + 1, "%zu", i);
	cr_assert_eq(marks_get(&marks, 80), 0);
	cr_assert_eq(marks_get(&marks, 0x200000), 0);
	cr_assert_eq(marks_set(&marks, 16, MARK_ASKED), 0);
	cr_assert_eq(marks_get(&marks, 16), MARK_ASKED | MARK_TAKEN);
	cr_assert_eq(marks_get(&marks, 0), MARK_ASKED);
	marks_deinit(&marks);
	cr_assert_eq(marks_get(&marks, 16), 0);
}

Test(marks, have_an_end) {
	struct marks marks = { 0 };
	raddr addr = 0;
	int r;

	do
		r = marks_set(&marks, addr += 1 << 20, MARK_TAKEN);
	while (!r);
	cr_assert_eq(r, -ENOSPC);
	cr_assert_eq(marks_set(&marks, 1 << 20, MARK_ASKED), 0, "where some are there is room");
	cr_assert_eq(marks_get(&marks, addr), 0);
	for (raddr more = 1 << 20; more < addr; more += 1 << 20)
		cr_assert_eq(marks_set(&marks, more + 16, MARK_ASKED), 0);
	cr_assert_eq(marks_set(&marks, addr, MARK_TAKEN), 0, "where there are more marks there is more room");
	marks_deinit(&marks);
}
