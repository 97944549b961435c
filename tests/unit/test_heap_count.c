/* SPDX-License-Identifier: MIT */
/* When a count is worth another one: objects are missing that the target has not freed. */
#include "engine/pipeline/heap_count.h"

#include <criterion/criterion.h>

#define MIB (UINT64_C(1) << 20)

static bool is_lost(uint64_t objects_mib, uint64_t free_mib, uint64_t private_mib) {
	struct memory_group groups[] = { { .bytes = 200 * MIB }, { .bytes = private_mib * MIB } };
	struct heap_count before = { .census = { .bytes = 100 * MIB, .free_bytes = 10 * MIB },
		.groups = { .items = groups, .n = 1 } };
	struct heap_count now = { .census = { .bytes = objects_mib * MIB, .free_bytes = free_mib * MIB },
		.groups = { .items = groups + 1, .n = 1 } };

	return heap_count_lost(&before, &now);
}

Test(heap_count, lost) {
	cr_assert(is_lost(50, 10, 200));
	cr_assert(is_lost(50, 10, 260), "it grew besides");
	cr_assert_not(is_lost(91, 10, 200), "a little");
	cr_assert_not(is_lost(50, 60, 200), "free in pools");
	cr_assert_not(is_lost(50, 10, 150), "given back");
	cr_assert_not(is_lost(50, 30, 170), "both");
	cr_assert(is_lost(50, 0, 200), "the allocator has less that is free");
	cr_assert_not(is_lost(150, 0, 100));
}
