/* SPDX-License-Identifier: MIT */
/* Kernel stacks out of their text. */
#include "engine/proc/kernel_stack.h"

#include <criterion/criterion.h>
#include <string.h>

Test(kernel_stack, names_and_modules) {
	char text[] = "[<0>] futex_wait_queue+0x60/0x90\n"
		      "[<0>] ext4_file_read_iter+0x51/0x1f0 [ext4]\n"
		      "[<ffffffff810a0b1c>] schedule+0x1/0x2\n"
		      "[<0>] 0xffffffffc0a3b1f2\n"
		      "[<ffffffffffffffff>] 0xffffffffffffffff\n";
	struct kernel_stack stack = { 0 };

	kernel_stack_parse(text, &stack);
	cr_assert_eq(stack.n, 4);
	cr_assert_str_eq(stack.frames[0].function, "futex_wait_queue");
	cr_assert_str_eq(stack.frames[0].module, "");
	cr_assert_str_eq(stack.frames[1].function, "ext4_file_read_iter");
	cr_assert_str_eq(stack.frames[1].module, "ext4");
	cr_assert_str_eq(stack.frames[2].function, "schedule");
	cr_assert_str_eq(stack.frames[3].function, "0xffffffffc0a3b1f2");
}

Test(kernel_stack, anything_else_is_no_frame) {
	char texts[][64] = { "", "\n\n", "[", "[<0>]", "[<0>] ", "[<0>]x", "futex_wait+0x1/0x2\n", "[<0>] [\n" };
	struct kernel_stack stack = { 0 };

	for (size_t i = 0; i + 1 < sizeof(texts) / sizeof(*texts); i++) {
		kernel_stack_parse(texts[i], &stack);
		cr_assert_eq(stack.n, 0, "%zu", i);
	}
	kernel_stack_parse(texts[7], &stack); /* a frame without a name that could be told */
	cr_assert_eq(stack.n, 1);
}

Test(kernel_stack, more_than_there_is_room_for) {
	char text[100 * 16 + 1] = "";
	struct kernel_stack stack = { 0 };

	for (int i = 0; i < 100; i++)
		strcat(text, "[<0>] f+0x1/0x2\n");
	kernel_stack_parse(text, &stack);
	cr_assert_eq(stack.n, KERNEL_FRAMES_MAX);
}
