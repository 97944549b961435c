/* SPDX-License-Identifier: MIT */
/* What threads did in the last intervals: sums of one and of all slices, the stacks seen most, and that what is older
 * is forgotten. */
#include "engine/pipeline/window.h"

#include <criterion/criterion.h>

static void see(struct window *window, pid_t tid, uint32_t node, unsigned flags, uint64_t ticks) {
	struct sample_thread thread = { .py = { .tid = tid } };
	const struct sample sample = { .thread = &thread, .flags = flags, .ticks = ticks };

	window_add(window, &sample, node);
}

static void turn(struct window *window, size_t times) {
	for (size_t i = 0; i < times; i++)
		window_turn(window);
}

Test(window, sums_one_slice_and_all) {
	struct window window = { 0 };
	struct window_thread sum;

	see(&window, 7, 1, SAMPLE_RUNNING | SAMPLE_GIL, 3);
	see(&window, 8, 1, 0, 20);
	turn(&window, 1);
	see(&window, 7, 2, SAMPLE_RUNNING | SAMPLE_NATIVE, 4);
	see(&window, 7, 2, SAMPLE_GC | SAMPLE_GIL, 5);
	sum = window_thread_sum(&window, 7, 1);
	cr_assert_eq(sum.samples, 9);
	cr_assert_eq(sum.running, 4);
	cr_assert_eq(sum.native, 4);
	cr_assert_eq(sum.gil, 5);
	cr_assert_eq(sum.gc, 5);
	sum = window_thread_sum(&window, 7, 2);
	cr_assert_eq(sum.samples, 12);
	cr_assert_eq(sum.gil, 8);
	sum = window_thread_sum(&window, 7, WINDOW_SLICES);
	cr_assert_eq(sum.samples, 12);
	cr_assert_eq(sum.running, 7);
	cr_assert_eq(window_thread_sum(&window, 8, 1).samples, 0);
	cr_assert_eq(window_thread_sum(&window, 8, WINDOW_SLICES).samples, 20);
	cr_assert_eq(window_thread_sum(&window, 9, WINDOW_SLICES).samples, 0);
	window_deinit(&window);
}

Test(window, forgets_slice_by_slice) {
	struct window window = { 0 };

	see(&window, 7, 1, 0, 1);
	turn(&window, 1);
	see(&window, 7, 1, 0, 10);
	turn(&window, WINDOW_SLICES - 2);
	cr_assert_eq(window_thread_sum(&window, 7, WINDOW_SLICES).samples, 11);
	turn(&window, 1);
	cr_assert_eq(window_thread_sum(&window, 7, WINDOW_SLICES).samples, 10);
	turn(&window, 1);
	cr_assert_eq(window_thread_sum(&window, 7, WINDOW_SLICES).samples, 0);
	see(&window, 7, 1, 0, 2);
	cr_assert_eq(window_thread_sum(&window, 7, WINDOW_SLICES).samples, 2);
	window_deinit(&window);
}

Test(window, threads_that_are_gone_leave_the_others_alone) {
	struct window window = { 0 };

	for (pid_t tid = 1; tid <= 200; tid++)
		see(&window, tid, 1, SAMPLE_RUNNING, (uint64_t)tid);
	for (size_t i = 0; i < WINDOW_SLICES; i++) {
		turn(&window, 1);
		see(&window, 50, 1, 0, 1);
		see(&window, 150, 1, SAMPLE_GIL, 2);
	}
	cr_assert_eq(window.threads.n, 2);
	cr_assert_eq(window_thread_sum(&window, 50, WINDOW_SLICES).samples, WINDOW_SLICES);
	cr_assert_eq(window_thread_sum(&window, 50, WINDOW_SLICES).running, 0);
	cr_assert_eq(window_thread_sum(&window, 150, WINDOW_SLICES).gil, 2 * WINDOW_SLICES);
	cr_assert_eq(window_thread_sum(&window, 3, WINDOW_SLICES).samples, 0);
	window_deinit(&window);
}

Test(window, hottest_stacks_first) {
	struct window_stack stacks[2];
	struct window window = { 0 };

	see(&window, 7, 1, 0, 2);
	see(&window, 7, 2, 0, 3);
	see(&window, 8, 3, 0, 100);
	turn(&window, 1);
	see(&window, 7, 1, 0, 2);
	see(&window, 7, 4, 0, 1);
	cr_assert_eq(window_hottest(&window, 7, WINDOW_SLICES, stacks, 2), 2);
	cr_assert_eq(stacks[0].node, 1);
	cr_assert_eq(stacks[0].samples, 4);
	cr_assert_eq(stacks[1].node, 2);
	cr_assert_eq(window_hottest(&window, 7, 1, stacks, 2), 2);
	cr_assert_eq(stacks[0].node, 1);
	cr_assert_eq(stacks[1].node, 4);
	window_deinit(&window);
}
