/* SPDX-License-Identifier: MIT */
/* The generated layout tables against offsets that were measured another way, and layout_find()'s choice of a row. */
#include <criterion/criterion.h>
#include <string.h>

#include "engine/cpython/layout.h"

#define NO LAYOUT_NONE
#define AT(member) offsetof(struct layout, member)

/* 3.6.15, 3.7.16, 3.8.18, 3.9.18, 3.10.13, 3.11.7, 3.12.1, 3.13.0, 3.14.10, 3.15.2 */
enum { VERSIONS_N = 10 };
static const uint32_t versions[VERSIONS_N] = {
	0x03060ff0,
	0x030710f0,
	0x030812f0,
	0x030912f0,
	0x030a0df0,
	0x030b07f0,
	0x030c01f0,
	0x030d00f0,
	0x030e0af0,
	0x030f02f0,
};

/* To 3.13 dumped with a debugger, 3.14 and 3.15 compiled with offsetof from the interpreters' headers. */
static const struct expectation {
	const char *name;
	size_t member;
	uint32_t values[VERSIONS_N];
} expectations[] = {
/* clang-format off */
#define EXPECT(member, ...) { #member, AT(member), { __VA_ARGS__ } }
	EXPECT(runtime_interpreters_head,  NO, 24, 32, 32, 32, 40, 40, 632, 808, 936),
	EXPECT(runtime_tstate_current,     NO, 1480, 1368, 568, 568, 576, NO, NO, NO, NO),
	EXPECT(runtime_gil,                NO, 1264, 1152, 352, 352, 360, NO, NO, NO, NO),
	EXPECT(runtime_gc,                 NO, 320, 344, NO, NO, NO, NO, NO, NO, NO),
	EXPECT(interp_next,                0, 0, 0, 0, 0, 0, 0, 7264, 7272, 7264),
	EXPECT(interp_id,                  NO, 16, 16, 24, 24, 48, 8, 7272, 7280, 7272),
	EXPECT(interp_threads_head,        8, 8, 8, 8, 8, 16, 72, 7344, 7344, 7336),
	EXPECT(interp_modules,             16, 40, 56, 856, 856, 888, 944, 7656, 7688, 7592),
	EXPECT(interp_sysdict,             32, 56, 72, 872, 872, 904, 352, 7640, 7672, 7576),
	EXPECT(interp_gil,                 NO, NO, NO, NO, NO, NO, 384, 16, 16, 16),
	EXPECT(interp_gc,                  NO, NO, NO, 616, 616, 648, 112, 7400, 7408, 7400),
	EXPECT(interp_code_generation,     NO, NO, NO, NO, NO, NO, NO, NO, 7992, 7944),
	EXPECT(tstate_size,                2272, 280, 264, 264, 280, 360, 288, 304, 832, 888),
	EXPECT(tstate_frame,               24, 24, 24, 24, 24, NO, NO, 72, 72, 72),
	EXPECT(tstate_cframe,              NO, NO, NO, NO, 48, 56, 56, NO, NO, NO),
	EXPECT(tstate_thread_id,           152, 176, 176, 176, 176, 152, 136, 152, 152, 176),
	EXPECT(tstate_native_thread_id,    NO, NO, NO, NO, NO, 160, 144, 160, 160, 184),
	EXPECT(tstate_state,               NO, NO, NO, NO, NO, NO, NO, 40, 44, 48),
	EXPECT(tstate_datastack_chunk,     NO, NO, NO, NO, NO, 296, 232, 232, 232, 256),
	EXPECT(tstate_base_frame,          NO, NO, NO, NO, NO, NO, NO, NO, NO, 80),
	EXPECT(cframe_current_frame,       NO, NO, NO, NO, NO, 8, 0, NO, NO, NO),
	EXPECT(frame_previous,             24, 24, 24, 24, 24, 48, 8, 8, 8, 8),
	EXPECT(frame_code,                 32, 32, 32, 32, 32, 32, 0, 0, 0, 0),
	EXPECT(frame_instr,                NO, NO, NO, NO, NO, 56, 56, 56, 56, 56),
	EXPECT(frame_lasti,                120, 104, 104, 104, 96, NO, NO, NO, NO, NO),
	EXPECT(frame_owner,                NO, NO, NO, NO, NO, 69, 70, 70, 74, 74),
	EXPECT(frame_localsplus,           376, 360, 360, 360, 352, 72, 72, 72, 80, 80),
	EXPECT(frame_stackpointer,         NO, NO, NO, NO, NO, NO, NO, NO, 64, 64),
	EXPECT(code_firstlineno,           36, 36, 40, 40, 40, 72, 68, 68, 68, 68),
	EXPECT(code_filename,              96, 96, 104, 104, 104, 112, 112, 112, 112, 112),
	EXPECT(code_linetable,             112, 112, 120, 120, 120, 136, 136, 136, 136, 136),
	EXPECT(code_adaptive,              NO, NO, NO, NO, NO, 184, 192, 200, 208, 208),
	EXPECT(gil_locked,                 NO, 16, 16, 16, 16, 16, 16, 16, 16, 16),
	EXPECT(gc_collecting,              NO, 312, 200, 200, 200, 200, 200, 200, 192, 112),
	EXPECT(gc_generations,             NO, 32, 24, 24, 24, 24, 24, 24, 24, 8),
	EXPECT(unicode_ascii_size,         48, 48, 48, 48, 48, 48, 40, 40, 40, 40),
	EXPECT(unicode_data,               72, 72, 72, 72, 72, 72, 56, 56, 56, 56),
	EXPECT(unicode_kind_bit,           2, 2, 2, 2, 2, 2, 2, 2, 2, 2),
	EXPECT(keys_indices,               40, 40, 40, 40, 40, 32, 32, 32, 32, 32),
	EXPECT(long_digits,                24, 24, 24, 24, 24, 24, 24, 24, 24, 24),
	EXPECT(gen_frame,                  16, 16, 16, 16, 16, 80, 72, 72, 72, 72),
#undef EXPECT
	/* clang-format on */
};

static uint32_t value_of(const struct layout *layout, size_t member) {
	uint32_t value;

	memcpy(&value, (const char *)layout + member, sizeof(value));
	return value;
}

static const struct layout *layout_of(uint32_t version, unsigned flavour) {
	const struct layout_row *row = layout_find(version, flavour);

	cr_assert_not_null(row, "no row for %#x, flavour %u", version, flavour);
	return &row->layout;
}

Test(layout, release_rows_equal_what_was_measured_otherwise) {
	for (size_t v = 0; v < VERSIONS_N; v++) {
		const struct layout *layout = layout_of(versions[v], LAYOUT_RELEASE);
		for (size_t i = 0; i < sizeof(expectations) / sizeof(expectations[0]); i++)
			cr_expect_eq(value_of(layout, expectations[i].member), expectations[i].values[v],
				"%s of %#x: %d, not %d", expectations[i].name, versions[v],
				(int)value_of(layout, expectations[i].member), (int)expectations[i].values[v]);
	}
}

Test(layout, the_first_patch_releases_of_3_7_have_a_smaller_collector) {
	const struct layout *old = layout_of(0x030703f0, LAYOUT_RELEASE);
	const struct layout *new = layout_of(0x030704f0, LAYOUT_RELEASE);

	cr_expect_eq(old->runtime_tstate_current, 1392);
	cr_expect_eq(new->runtime_tstate_current, 1480);
	cr_expect_eq(new->runtime_gil - old->runtime_gil, 88);
	cr_expect_eq(new->runtime_size - old->runtime_size, 88);
	cr_expect_eq(old->gc_generation0, old->gc_generations + 3 * 32);
}

Test(layout, the_first_releases_of_3_14_collect_incrementally) {
	const struct layout *old = layout_of(0x030e00f0, LAYOUT_RELEASE);

	cr_expect_eq(old->runtime_interpreters_head, 808);
	cr_expect_eq(old->interp_sysdict, 7648);
	cr_expect_eq(old->interp_code_generation, 7968);
	cr_expect_eq(old->tstate_size, 824);
	cr_expect_not(layout_has(old->gc_generations));
	cr_expect_not(layout_has(layout_of(0x030e04f0, LAYOUT_RELEASE)->gc_generations));
	cr_expect(layout_has(layout_of(0x030e05f0, LAYOUT_RELEASE)->gc_generations));
}

Test(layout, free_threaded_objects_have_a_larger_head) {
	const struct layout *layout = layout_of(0x030d05f0, LAYOUT_FREE_THREADED);

	cr_expect_eq(layout->object_size, 32);
	cr_expect_eq(layout->object_type, 24);
	cr_expect_eq(layout->code_filename, 128);
	cr_expect_eq(layout->unicode_length, 32);
	cr_expect(layout_has(layout->gil_enabled));
}

Test(layout, debug_rows_keep_the_offsets_of_the_walk) {
	static const uint32_t measured[] = { 0x030812f0, 0x030902f0, 0x030a0df0, 0x030b02f0, 0x030c01f0, 0x030d05f0,
		0x030e0af0, 0x030f02f0 };
	static const size_t walk[] = { AT(interp_threads_head), AT(tstate_frame), AT(tstate_cframe),
		AT(tstate_thread_id), AT(frame_previous), AT(frame_code), AT(code_filename), AT(code_linetable),
		AT(object_type), AT(unicode_data) };

	for (size_t v = 0; v < sizeof(measured) / sizeof(measured[0]); v++)
		for (size_t i = 0; i < sizeof(walk) / sizeof(walk[0]); i++)
			cr_expect_eq(value_of(layout_of(measured[v], LAYOUT_DEBUG), walk[i]),
				value_of(layout_of(measured[v], LAYOUT_RELEASE), walk[i]), "%#x, member at %zu",
				measured[v], walk[i]);
}

Test(layout, debug_objects_begin_with_two_more_pointers_to_3_7) {
	cr_expect_eq(layout_of(0x03060ff0, LAYOUT_DEBUG)->object_type, 24);
	cr_expect_eq(layout_of(0x030710f0, LAYOUT_DEBUG)->frame_code, 48);
	cr_expect_eq(layout_of(0x030710f0, LAYOUT_DEBUG)->module_dict, 32);
	cr_expect_eq(layout_of(0x030812f0, LAYOUT_DEBUG)->object_type, 8);
	cr_expect_eq(layout_of(0x030c01f0, LAYOUT_DEBUG)->interp_next_code_version, 269832);
}

Test(layout, a_version_inside_a_range_takes_its_row) {
	const struct layout_row *row = layout_find(0x030b04f0, LAYOUT_RELEASE);

	cr_assert_not_null(row);
	cr_expect_leq(row->first_version, 0x030b04f0);
	cr_expect_geq(row->last_version, 0x030b04f0);
}

Test(layout, a_version_between_two_ranges_takes_the_row_below) {
	const struct layout_row *row = layout_find(0x030d09f0, LAYOUT_RELEASE);

	cr_assert_not_null(row);
	cr_expect_eq(row, layout_find(0x030d05f0, LAYOUT_RELEASE));
	cr_expect_lt(row->last_version, 0x030d09f0);
}

Test(layout, a_row_ends_with_its_minor_version) {
	cr_expect_not_null(layout_find(0x030f0000, LAYOUT_RELEASE));
	cr_expect_not_null(layout_find(0x030fffff, LAYOUT_RELEASE));
	cr_expect_null(layout_find(0x03100000, LAYOUT_RELEASE));
	cr_expect_not_null(layout_find(0x03060000, LAYOUT_RELEASE));
	cr_expect_null(layout_find(0x0305ffff, LAYOUT_RELEASE));
}

Test(layout, what_is_not_known_has_no_row) {
	static const uint32_t unknown[] = { 0, 0x020712f0, 0x03050af0, 0x031000a1, 0x040000f0, UINT32_MAX };

	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
		for (unsigned flavour = 0; flavour < 4; flavour++)
			cr_expect_null(layout_find(unknown[i], flavour), "%#x, flavour %u", unknown[i], flavour);
}

Test(layout, another_flavour_is_no_substitute) {
	cr_expect_null(layout_find(0x030b07f0, LAYOUT_FREE_THREADED));
	cr_expect_null(layout_find(0x030d05f0, LAYOUT_FREE_THREADED | LAYOUT_DEBUG));
	cr_expect_null(layout_find(0x030d05f0, 4));
}

Test(layout, rows_are_sorted_and_do_not_overlap) {
	for (size_t i = 0; i < layout_rows_n; i++) {
		const struct layout_row *row = &layout_rows[i];
		cr_expect_leq(row->first_version, row->last_version);
		cr_expect_eq(row->first_version >> 16, row->last_version >> 16);
		for (size_t j = i + 1; j < layout_rows_n; j++) {
			const struct layout_row *later = &layout_rows[j];
			cr_expect(row->first_version < later->first_version ||
				(row->first_version == later->first_version && row->flavour < later->flavour));
			cr_expect(row->flavour != later->flavour || row->last_version < later->first_version);
		}
	}
}
