/* SPDX-License-Identifier: MIT */
/* Profiles: what is the same has one number, what differs never shares one, and sums are exact. */
#include "engine/profile/profile.h"

#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <errno.h>

static struct profile *new_profile(void) {
	struct profile *profile = NULL;

	cr_assert_eq(profile_new(&profile), 0);
	return profile;
}

static uint32_t intern(struct profile *profile, const char *s) {
	return intern_add(&profile->strings, s, strlen(s));
}

static uint32_t add_frame(struct profile *profile, const char *function, int line) {
	struct profile_frame frame = { .function = intern(profile, function), .file = 1, .line = line };

	return profile_add_frame(profile, &frame);
}

static uint32_t add_thread(struct profile *profile, pid_t pid, pid_t tid) {
	struct profile_thread thread = { .pid = pid, .tid = tid };

	return profile_add_thread(profile, &thread);
}

Test(profile, starts_with_the_root_alone) {
	struct profile *profile = new_profile();
	uint32_t frames[1] = { 77 };

	cr_assert_eq(profile->nodes.n, 1);
	cr_assert_eq(profile_stack(profile, 0, frames, 1), 0);
	cr_assert_eq(frames[0], 77);
	profile_free(profile);
	profile_free(NULL);
}

Test(profile, frames_differ_in_any_field) {
	struct profile *profile = new_profile();
	struct profile_frame base = { .function = 1, .file = 2, .module = 3, .line = 4, .lang = PYSPYD_PYTHON };
	struct profile_frame other[5] = { base, base, base, base, base };

	other[0].function = 2;
	other[1].file = 1;
	other[2].module = 4;
	other[3].line = -4;
	other[4].lang = PYSPYD_KERNEL;
	cr_assert_eq(profile_add_frame(profile, &base), 0);
	for (uint32_t i = 0; i < 5; i++)
		cr_assert_eq(profile_add_frame(profile, &other[i]), i + 1);
	cr_assert_eq(profile_add_frame(profile, &base), 0);
	for (uint32_t i = 0; i < 5; i++)
		cr_assert_eq(profile_add_frame(profile, &other[i]), i + 1);
	cr_assert_eq(profile->frames.n, 6);
	profile_free(profile);
}

/* Rewriting a stored frame behind the index makes its key lead to another frame, as two equal hashes would. */
Test(profile, equal_hashes_are_told_apart) {
	struct profile *profile = new_profile();
	struct profile_thread thread = { .pid = 1, .tid = 2 };

	cr_assert_eq(add_frame(profile, "f", 1), 0);
	profile->frames.items[0].line = 999;
	cr_assert_eq(add_frame(profile, "f", 1), 1);
	profile->frames.items[1].line = 998;
	cr_assert_eq(add_frame(profile, "f", 1), 2);
	cr_assert_eq(add_frame(profile, "f", 1), 2);

	cr_assert_eq(profile_add_thread(profile, &thread), 0);
	profile->threads.items[0].tid = 3;
	cr_assert_eq(profile_add_thread(profile, &thread), 1);
	cr_assert_eq(profile_add_thread(profile, &thread), 1);
	profile_free(profile);
}

Test(profile, threads_differ_in_any_field) {
	struct profile *profile = new_profile();
	struct profile_thread a = { .pid = 1, .tid = 2, .name = 3, .process_name = 4 };
	struct profile_thread renamed = { .pid = 1, .tid = 2, .name = 4, .process_name = 4 };
	struct profile_thread swapped = { .pid = 2, .tid = 1, .name = 3, .process_name = 4 };

	cr_assert_eq(profile_add_thread(profile, &a), 0);
	cr_assert_eq(profile_add_thread(profile, &renamed), 1);
	cr_assert_eq(profile_add_thread(profile, &swapped), 2);
	cr_assert_eq(profile_add_thread(profile, &a), 0);
	profile_free(profile);
}

Test(profile, stacks_share_their_beginnings) {
	struct profile *profile = new_profile();
	uint32_t f = add_frame(profile, "f", 1), g = add_frame(profile, "g", 2);
	uint32_t a = profile_add_node(profile, 0, f), ab = profile_add_node(profile, a, g);
	uint32_t aa = profile_add_node(profile, a, f);
	uint32_t frames[4] = { 9, 9, 9, 9 };

	cr_assert_eq(profile_add_node(profile, 0, f), a);
	cr_assert_eq(profile_add_node(profile, a, g), ab);
	cr_assert_neq(aa, a);
	cr_assert_eq(profile->nodes.n, 4);
	cr_assert_eq(profile_stack(profile, ab, frames, 4), 2);
	cr_assert_eq(frames[0], f);
	cr_assert_eq(frames[1], g);
	cr_assert_eq(frames[2], 9);
	profile_free(profile);
}

Test(profile, a_short_buffer_gets_the_outermost_frames) {
	struct profile *profile = new_profile();
	uint32_t node = 0, frames[3] = { 0, 0, 77 };

	for (int i = 0; i < 5000; i++)
		node = profile_add_node(profile, node, add_frame(profile, "f", i));
	cr_assert_eq(profile_stack(profile, node, frames, 2), 5000);
	cr_assert_eq(frames[0], 0);
	cr_assert_eq(frames[1], 1);
	cr_assert_eq(frames[2], 77);
	cr_assert_eq(profile_stack(profile, node, NULL, 0), 5000);
	profile_free(profile);
}

Test(profile, ids_never_given_are_refused) {
	struct profile *profile = new_profile();
	uint32_t f = add_frame(profile, "f", 1), thread = add_thread(profile, 1, 1);

	cr_assert_eq(profile_add_node(profile, UINT32_MAX, f), UINT32_MAX);
	cr_assert_eq(profile_add_node(profile, 0, UINT32_MAX), UINT32_MAX);
	cr_assert_eq(profile_add_node(profile, UINT32_MAX, UINT32_MAX), UINT32_MAX);
	cr_assert_eq(profile_count(profile, thread, UINT32_MAX, 1, 1), -ENOMEM);
	cr_assert_eq(profile_count(profile, UINT32_MAX, 0, 1, 1), -ENOMEM);
	cr_assert_eq(profile_stack(profile, UINT32_MAX, NULL, 0), 0);
	cr_assert_eq(profile->counts.n, 0);
	profile_free(profile);
}

Test(profile, counts_sum_per_thread_and_stack) {
	struct profile *profile = new_profile();
	uint32_t node = profile_add_node(profile, 0, add_frame(profile, "f", 1));
	uint32_t a = add_thread(profile, 1, 1), b = add_thread(profile, 1, 2);

	cr_assert_eq(profile_count(profile, a, node, 1, 10), 0);
	cr_assert_eq(profile_count(profile, b, node, 2, 20), 0);
	cr_assert_eq(profile_count(profile, a, node, 3, 30), 0);
	cr_assert_eq(profile_count(profile, a, 0, 4, 40), 0);
	cr_assert_eq(profile->counts.n, 3);
	cr_assert_eq(profile->counts.items[0].samples, 4);
	cr_assert_eq(profile->counts.items[0].ns, 40);
	cr_assert_eq(profile->counts.items[1].samples, 2);
	cr_assert_eq(profile->counts.items[2].node, 0);
	profile_free(profile);
}

Test(profile, reset_forgets_the_counts_alone) {
	struct profile *profile = new_profile();
	uint32_t node = profile_add_node(profile, 0, add_frame(profile, "f", 1));
	uint32_t thread = add_thread(profile, 1, 1);

	profile_count(profile, thread, node, 5, 5);
	profile_reset_counts(profile);
	cr_assert_eq(profile->counts.n, 0);
	cr_assert_eq(add_frame(profile, "f", 1), 0);
	cr_assert_eq(profile_add_node(profile, 0, 0), node);
	cr_assert_eq(profile_count(profile, thread, node, 1, 2), 0);
	cr_assert_eq(profile->counts.n, 1);
	cr_assert_eq(profile->counts.items[0].samples, 1);
	profile_free(profile);
}

Test(profile, grows_with_what_is_different_not_with_time) {
	struct profile *profile = new_profile();
	uint32_t thread = add_thread(profile, 1, 1);
	size_t bytes;
	uint64_t sum = 0;

	for (int i = 0; i < 20000; i++) {
		uint32_t node = profile_add_node(profile, 0, add_frame(profile, "f", i));

		cr_assert_eq(node, (uint32_t)i + 1);
		cr_assert_eq(profile_count(profile, thread, node, 1, 1), 0);
	}
	bytes = profile_bytes(profile);
	for (int i = 0; i < 20000; i++)
		profile_count(profile, thread, profile_add_node(profile, 0, add_frame(profile, "f", i)), 1, 1);
	cr_assert_eq(profile_bytes(profile), bytes);
	cr_assert_geq(bytes, 20000 * sizeof(struct profile_frame));
	vec_foreach (count, &profile->counts)
		sum += count->samples;
	cr_assert_eq(sum, 40000);
	profile_free(profile);
}
