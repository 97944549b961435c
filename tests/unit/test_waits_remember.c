/* SPDX-License-Identifier: MIT */
/* What the end of a wait says of the thread that was taken for the lock's holder. */
#include "engine/base/util.h"
#include "engine/waits/remember.h"
#include <criterion/criterion.h>

enum { WAITER = 100, HOLDER = 200 };

/* Looks one after the other, a letter each, at a waiter that waits for a lock which HOLDER is taken to have:
 *
 *   w  it still waits, and did not run     a  it ran, and waits there again     g  it has gone on
 *   x  its frames could not be read        W, A, G  as above, and the holder ran                       */
static bool refuted(const char *looks, bool own) {
	struct lock_claim claim = {
		.waiter = WAITER, .holder = own ? WAITER : HOLDER, .waiter_ns = 1000, .holder_ns = 5000
	};
	struct claim_sequel sequel = { .waiter_ns = 1000, .holder_ns = 5000 };

	for (; *looks; looks++) {
		bool holder_ran = *looks < 'a';
		char what = holder_ran ? (char)(*looks - 'A' + 'a') : *looks;

		sequel.known = what != 'x';
		sequel.there = what != 'g';
		sequel.waiter_ns += what != 'w';
		sequel.holder_ns += holder_ran;
		if (lock_claim_refuted(&claim, &sequel))
			return true;
		claim.holder_ns = sequel.holder_ns; /* as the next look notes it */
	}
	return false;
}

Test(waits_remember, who_obtains_what_it_seems_to_have_itself_got_it_from_others) {
	static const struct {
		const char *looks;
		bool refuted;
	} table[] = {
		{ "wwwwwwww", false },
		{ "g", true },
		{ "wwg", true },
		{ "wxwwg", true },
		{ "wawwww", false }, /* a signal of the kernel woke it once */
		{ "wawwa", true },
		{ "aa", true },
		{ "wwxxx", false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		cr_expect_eq(refuted(table[i].looks, true), table[i].refuted, "%s", table[i].looks);
}

Test(waits_remember, what_is_obtained_while_its_holder_sleeps_was_never_the_holder_s) {
	static const struct {
		const char *looks;
		bool refuted;
	} table[] = {
		{ "wwwwwwww", false },
		{ "wwg", true },
		{ "wG", false },
		{ "WWWG", false },
		{ "wWwg", true },
		{ "AAAA", false },
		{ "awwa", true },
		{ "x", false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		cr_expect_eq(refuted(table[i].looks, false), table[i].refuted, "%s", table[i].looks);
}

Test(waits_remember, nothing_follows_where_cpu_time_is_not_known) {
	struct lock_claim claim = {
		.waiter = WAITER, .holder = HOLDER, .waiter_ns = UINT64_MAX, .holder_ns = UINT64_MAX
	};
	const struct claim_sequel sequel = { .known = true, .waiter_ns = UINT64_MAX, .holder_ns = UINT64_MAX };

	cr_assert_not(lock_claim_refuted(&claim, &sequel));
}
