/* SPDX-License-Identifier: MIT */
/* Native and Python stacks, drawn as text: 'n' native, 'E' the evaluation loop, 't' a part of it; 'p' a Python frame,
 * 'P' one that the loop was entered with. Merged: 'n', 'p', and what is marked in capitals. Most recent call first. */
#include "engine/base/util.h"
#include "engine/native/merge.h"

#include <criterion/criterion.h>
#include <string.h>

#define FRAMES_MAX 32

static void check(const char *native, bool native_complete, const char *python, bool python_complete, const char *want,
	const char *want_indices) {
	uint8_t kinds[FRAMES_MAX];
	bool entry[FRAMES_MAX];
	struct merge_frame out[2 * FRAMES_MAX];
	char got[2 * FRAMES_MAX + 1], indices[2 * FRAMES_MAX + 1];
	struct merge_input in = { .native = kinds,
		.native_n = strlen(native),
		.native_complete = native_complete,
		.entry = entry,
		.python_n = strlen(python),
		.python_complete = python_complete };
	size_t n, unmatched, marked = 0;

	for (size_t i = 0; i < in.native_n; i++)
		kinds[i] = native[i] == 'E' ? MERGE_EVAL : native[i] == 't' ? MERGE_EVAL_PART : MERGE_OTHER;
	for (size_t i = 0; i < in.python_n; i++)
		entry[i] = python[i] == 'P';
	n = merge_stacks(&in, out, &unmatched);
	for (size_t i = 0; i < n; i++) {
		got[i] = (out[i].kind == MERGE_PYTHON ? "pP" : "nN")[out[i].unmatched];
		indices[i] = (char)('0' + out[i].index);
		marked += out[i].unmatched;
	}
	got[n] = indices[n] = '\0';
	cr_expect_str_eq(got, want, "%s with %s: %s, not %s", native, python, got, want);
	cr_expect_str_eq(indices, want_indices, "%s with %s: %s, not %s", native, python, indices, want_indices);
	cr_expect_eq(unmatched, marked);
}

Test(merge, one_to_one) {
	check("nnEnEnn", true, "PP", true, "nnpnpnn", "0103156");
}

Test(merge, many_frames_of_one_loop) {
	check("nEnEnn", true, "ppPpP", true, "npppnppnn", "001223445");
}

Test(merge, neighbours) {
	check("EEn", true, "PP", true, "ppn", "012");
}

Test(merge, tail_calls) {
	check("ntEnttEtn", true, "PpPP", true, "npnpppn", "0031238");
	check("ntnEn", true, "PP", true, "npnpn", "00214");
}

Test(merge, no_python) {
	check("nnn", true, "", true, "nnn", "012");
}

Test(merge, no_native) {
	check("", false, "pP", true, "PP", "01");
}

Test(merge, loop_just_entered) {
	check("EnEn", true, "pP", true, "Nnppn", "01013");
}

Test(merge, loop_just_left) {
	check("nnEn", true, "PpP", true, "Pnnppn", "001123");
}

Test(merge, native_stack_ends_early) {
	check("nEnn", false, "pPpPP", true, "nppnnPPP", "00123234");
	check("nEnnE", false, "P", true, "npnnN", "00234");
}

Test(merge, python_stack_ends_early) {
	check("EnEnEn", true, "PPp", false, "pnpnpn", "011325");
	check("EnEnEn", true, "Pp", false, "pnpnNn", "011345");
}

Test(merge, names) {
	cr_expect_eq(merge_native_of("_PyEval_EvalFrameDefault"), MERGE_EVAL);
	cr_expect_eq(merge_native_of("_PyEval_EvalFrameDefault.cold"), MERGE_EVAL);
	cr_expect_eq(merge_native_of("_PyEval_EvalFrameDefault.lto_priv.0"), MERGE_EVAL);
	cr_expect_eq(merge_native_of("_TAIL_CALL_CALL_PY_EXACT_ARGS"), MERGE_EVAL_PART);
	cr_expect_eq(merge_native_of("_PyEval_EvalFrame"), MERGE_OTHER, "calls the loop in debug builds");
	cr_expect_eq(merge_native_of("PyEval_EvalFrameEx"), MERGE_OTHER);
	cr_expect_eq(merge_native_of("_PyEval_EvalFrameDefaultish"), MERGE_OTHER);
	cr_expect_eq(merge_native_of(NULL), MERGE_OTHER);
}
