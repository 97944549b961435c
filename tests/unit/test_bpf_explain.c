/* SPDX-License-Identifier: MIT */
/* What the kernel's verifier complains of, out of a message of libbpf. */
#include "engine/sample/bpf.h"

#include <criterion/criterion.h>
#include <string.h>

static const char *const refused = "libbpf: prog 'on_cpu': -- BEGIN PROG LOAD LOG --\n"
				   "219: (85) call bpf_ringbuf_query#134\n"
				   "R3 unbounded memory access, use 'var &= const' or 'if (var < const)'\n"
				   "processed 52939 insns (limit 1000000) max_states_per_insn 17\n"
				   "-- END PROG LOAD LOG --\n";

Test(bpf_explain, the_last_line_before_the_sums) {
	char buf[128];

	cr_assert(bpf_complaint(refused, buf, sizeof(buf)));
	cr_expect_str_eq(buf, "R3 unbounded memory access, use 'var &= const' or 'if (var < const)'");
	cr_assert(bpf_complaint("libbpf: prog 'p': -- BEGIN PROG LOAD LOG --\n"
				"only preallocated maps\nprocessed 0 insns\n-- END PROG LOAD LOG --\n",
		buf, sizeof(buf)));
	cr_expect_str_eq(buf, "only preallocated maps");
}

Test(bpf_explain, as_long_as_there_is_room) {
	char buf[16];

	cr_assert(bpf_complaint(refused, buf, sizeof(buf)));
	cr_expect_str_eq(buf, "R3 unbounded me");
}

Test(bpf_explain, what_has_no_log_has_no_complaint) {
	char buf[64];

	cr_expect_not(bpf_complaint("", buf, sizeof(buf)));
	cr_expect_not(bpf_complaint("libbpf: failed to load object 'sample_bpf'\n", buf, sizeof(buf)));
	cr_expect_not(bpf_complaint("libbpf: -- BEGIN PROG LOAD LOG --\nprocessed 0 insns\n", buf, sizeof(buf)));
	cr_expect_not(
		bpf_complaint("libbpf: -- BEGIN PROG LOAD LOG --\nno sums\n-- END PROG LOAD LOG --", buf, sizeof(buf)));
	cr_expect_not(bpf_complaint("processed 1 insns\n-- BEGIN PROG LOAD LOG --", buf, sizeof(buf)));
}
