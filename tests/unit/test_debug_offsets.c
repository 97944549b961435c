/* SPDX-License-Identifier: MIT */
/* _Py_DebugOffsets built from the measured layouts, value by value, then spoilt in every place. The orders below are
 * those of CPython's headers and are written out here a second time: what the decoder has wrong must not repeat itself.
 */
#include "engine/base/util.h"
#include "engine/cpython/debug_offsets.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ANY SIZE_MAX        /* a value that nobody reads */
#define SOME (SIZE_MAX - 1) /* the size of a structure whose size the layout does not have */
#define L(name) offsetof(struct layout, name)
#define VALUES_MAX 128

#define INTERP_TAIL \
	L(interp_gc), L(interp_modules), L(interp_sysdict), L(interp_builtins), L(interp_gil), ANY, ANY, ANY, ANY
#define TSTATE_TAIL L(tstate_thread_id), L(tstate_native_thread_id), L(tstate_datastack_chunk), L(tstate_status)
#define RUNTIME L(runtime_size), L(runtime_finalizing), L(runtime_interpreters_head)
#define INTERP_HEAD L(interp_size), L(interp_id), L(interp_next), L(interp_threads_head)
#define TSTATE_HEAD L(tstate_size), L(tstate_prev), L(tstate_next), L(tstate_interp), L(tstate_frame)
#define FRAME L(frame_size), L(frame_previous), L(frame_code), L(frame_instr), L(frame_localsplus), L(frame_owner)
#define CODE \
	L(code_size), L(code_filename), L(code_name), L(code_qualname), L(code_linetable), L(code_firstlineno), \
		L(code_argcount), L(code_localsplusnames), L(code_localspluskinds), L(code_adaptive)
#define OBJECT L(object_size), L(object_type)
#define TYPE L(type_size), L(type_name), ANY, L(type_flags)
#define TUPLE_LIST SOME, L(tuple_items), L(var_size), SOME, L(list_items), L(var_size)
#define SET SOME, L(set_used), ANY, ANY
#define DICT_TO_BYTES \
	SOME, L(dict_keys), L(dict_values), SOME, L(float_value), SOME, L(long_tag), L(long_digits), SOME, \
		L(var_size), L(bytes_data)
#define UNICODE SOME, L(unicode_state), L(unicode_length), L(unicode_ascii_size)
#define GC L(gc_size), L(gc_collecting)
#define GEN SOME, L(gen_name), L(gen_frame), L(gen_frame_state)

static const size_t order_3_13[] = { RUNTIME, INTERP_HEAD, INTERP_TAIL, TSTATE_HEAD, TSTATE_TAIL, FRAME, CODE, OBJECT,
	TYPE, TUPLE_LIST, DICT_TO_BYTES, UNICODE, GC };
static const size_t order_3_14[] = { RUNTIME, INTERP_HEAD, L(interp_threads_main), INTERP_TAIL,
	L(interp_code_generation), L(interp_tlbc_generation), TSTATE_HEAD, TSTATE_TAIL, FRAME, L(frame_stackpointer),
	L(frame_tlbc_index), CODE, L(code_tlbc), OBJECT, TYPE, TUPLE_LIST, SET, DICT_TO_BYTES, UNICODE, GC, GEN };
static const size_t order_3_15[] = { RUNTIME, INTERP_HEAD, L(interp_threads_main), INTERP_TAIL,
	L(interp_code_generation), L(interp_tlbc_generation), TSTATE_HEAD, L(tstate_base_frame), ANY, ANY, TSTATE_TAIL,
	L(tstate_holds_gil), L(tstate_gil_requested), L(tstate_current_exception), ANY, ANY, FRAME,
	L(frame_stackpointer), L(frame_tlbc_index), CODE, L(code_tlbc), OBJECT, TYPE, L(type_basicsize),
	L(type_dictoffset), L(heaptype_size), L(heaptype_cached_keys), TUPLE_LIST, SET, DICT_TO_BYTES, UNICODE,
	L(unicode_compact_size), GC, ANY, ANY, L(gc_generation_stats), GEN };

static const struct build {
	uint32_t version;
	unsigned flavour;
	size_t bytes;
	const size_t *order;
	size_t n;
} builds[] = {
	{ 0x030d00f0, LAYOUT_RELEASE, 584, order_3_13, ARRAY_SIZE(order_3_13) },
	{ 0x030d05f0, LAYOUT_RELEASE, 584, order_3_13, ARRAY_SIZE(order_3_13) },
	{ 0x030d05f0, LAYOUT_DEBUG, 584, order_3_13, ARRAY_SIZE(order_3_13) },
	{ 0x030d00f0, LAYOUT_FREE_THREADED, 584, order_3_13, ARRAY_SIZE(order_3_13) },
	{ 0x030e00f0, LAYOUT_RELEASE, 760, order_3_14, ARRAY_SIZE(order_3_14) },
	{ 0x030e05f0, LAYOUT_DEBUG, 760, order_3_14, ARRAY_SIZE(order_3_14) },
	{ 0x030f00f0, LAYOUT_RELEASE, 888, order_3_15, ARRAY_SIZE(order_3_15) },
	{ 0x030f00f0, LAYOUT_DEBUG, 888, order_3_15, ARRAY_SIZE(order_3_15) },
};

struct table {
	const struct build *build;
	struct layout layout; /* what it was made from */
	struct debug_offsets_header header;
	uint64_t words[VALUES_MAX]; /* the header's three, then the values */
	size_t n;
};

static uint32_t field(const struct layout *layout, size_t at) {
	uint32_t value;

	memcpy(&value, (const char *)layout + at, sizeof(value));
	return value;
}

static void build_table(const struct build *build, struct table *t) {
	const struct layout_row *row = layout_find(build->version, build->flavour);

	cr_assert_not_null(row);
	*t = (struct table){ .build = build, .layout = row->layout, .n = build->bytes / 8 };
	memcpy(&t->words[0], "xdebugpy", 8);
	t->words[1] = build->version;
	t->words[2] = (build->flavour & LAYOUT_FREE_THREADED) != 0;
	cr_assert_leq(3 + build->n, t->n);
	for (size_t i = 0; i < build->n; i++) {
		uint32_t value = build->order[i] >= SOME ? 4096 : field(&row->layout, build->order[i]);

		t->words[3 + i] = layout_has(value) ? value : 0;
	}
	cr_assert_eq(debug_offsets_header_parse(t->words, build->bytes, &t->header), 0);
}

static int apply(const struct table *t, struct layout *layout) {
	struct err err = { 0 };
	int r;

	*layout = t->layout;
	r = debug_offsets_apply(&t->header, t->words, t->build->bytes, layout, &err);
	if (r) {
		cr_assert_eq(r, PYSPYD_E_UNSUPPORTED);
		cr_assert_neq(err.text[0], '\0');
		cr_assert_eq(memcmp(layout, &t->layout, sizeof(*layout)), 0, "untouched");
	}
	return r;
}

Test(debug_offsets, headers) {
	for (size_t i = 0; i < ARRAY_SIZE(builds); i++) {
		struct table t;

		build_table(&builds[i], &t);
		cr_assert_eq(t.header.version, builds[i].version);
		cr_assert_eq(t.header.table_bytes, builds[i].bytes);
		cr_assert_eq(t.header.free_threaded, (builds[i].flavour & LAYOUT_FREE_THREADED) != 0);
	}
}

Test(debug_offsets, headers_of_others) {
	struct debug_offsets_header header = { .version = 7 };
	struct table t;

	build_table(&builds[0], &t);
	for (size_t len = 0; len < DEBUG_OFFSETS_HEADER_BYTES; len++)
		cr_assert_eq(debug_offsets_header_parse(t.words, len, &header), -ENODATA);
	cr_assert_eq(debug_offsets_header_parse("xdebugpyxdebugpz012345678", 24, &header), PYSPYD_E_UNSUPPORTED);
	cr_assert_eq(debug_offsets_header_parse("xdebugpz................", 24, &header), -ENODATA);
	for (uint32_t minor = 0; minor < 0x400; minor++) {
		bool known = minor >= 0x30d && minor <= 0x30f;

		t.words[1] = (uint64_t)minor << 16 | 0xf0;
		cr_assert_eq(debug_offsets_header_parse(t.words, 24, &header), known ? 0 : PYSPYD_E_UNSUPPORTED);
		cr_assert_eq(header.version, t.words[1]);
	}
	t.words[1] = UINT64_C(0x1030d00f0);
	cr_assert_eq(debug_offsets_header_parse(t.words, 24, &header), PYSPYD_E_UNSUPPORTED);
	t.words[1] = 0x030d00f0;
	t.words[2] = 1;
	cr_assert_eq(debug_offsets_header_parse(t.words, 24, &header), 0);
	cr_assert(header.free_threaded);
	t.words[2] = 256;
	cr_assert_eq(debug_offsets_header_parse(t.words, 24, &header), 0);
	cr_assert_not(header.free_threaded);
}

/* A table that says what was measured changes nothing. */
Test(debug_offsets, the_measured_layout_comes_out_again) {
	for (size_t i = 0; i < ARRAY_SIZE(builds); i++) {
		struct layout layout;
		struct table t;

		build_table(&builds[i], &t);
		cr_assert_eq(apply(&t, &layout), 0, "build %zu", i);
		for (size_t at = 0; at < sizeof(layout); at += 4)
			cr_assert_eq(field(&layout, at), field(&t.layout, at), "build %zu, field %zu", i, at / 4);
	}
}

/* Index of the structure's size that stands before a value. */
static size_t group_of(const struct build *build, size_t i) {
	static const size_t sizes[] = { L(runtime_size), L(interp_size), L(tstate_size), L(frame_size), L(code_size),
		L(object_size), L(type_size), L(heaptype_size), L(gc_size) };

	for (;; i--) {
		if (build->order[i] == SOME)
			return i;
		for (size_t k = 0; k < ARRAY_SIZE(sizes); k++)
			if (build->order[i] == sizes[k])
				return i;
	}
}

static bool is_size(size_t order) {
	return order == L(unicode_ascii_size) || order == L(unicode_compact_size);
}

/* What the layout took from the table lies inside its structure. Some members stand in the table several times. */
static void expect_inside(const struct table *t, const struct layout *layout) {
	for (size_t i = 0; i < t->build->n; i++) {
		size_t group = group_of(t->build, i);
		uint64_t size = t->words[3 + group];
		uint32_t value;

		if (t->build->order[i] >= SOME || i == group || is_size(t->build->order[i]))
			continue;
		value = field(layout, t->build->order[i]);
		if (layout_has(value) && value == t->words[3 + i])
			cr_assert_lt(value, max_of(size, (uint64_t)1), "value %zu", i + 1);
	}
}

Test(debug_offsets, every_value_spoilt) {
	static const uint64_t bad[] = { 0, 1, 7, UINT64_MAX, UINT64_MAX - 7, UINT64_C(1) << 32, (UINT64_C(1) << 32) + 8,
		UINT64_C(1) << 63, 4096 * 4096, 0xfffffff8, UINT32_MAX };
	size_t refused = 0;

	for (size_t b = 0; b < ARRAY_SIZE(builds); b++) {
		struct table t;

		build_table(&builds[b], &t);
		for (size_t i = 0; i < t.build->n; i++) {
			uint64_t good = t.words[3 + i], size = t.words[3 + group_of(t.build, i)];

			for (size_t k = 0; k < ARRAY_SIZE(bad) + 3; k++) {
				struct layout layout;

				t.words[3 + i] = k < ARRAY_SIZE(bad) ? bad[k] : size + 1 - (k - ARRAY_SIZE(bad));
				if (apply(&t, &layout))
					refused++;
				else
					expect_inside(&t, &layout);
				cr_assert(
					t.build->order[i] == ANY || t.words[3 + i] <= UINT32_MAX || apply(&t, &layout),
					"value %zu is wider than the layout's fields", i + 1);
			}
			t.words[3 + i] = good;
		}
	}
	cr_assert_gt(refused, 1000);
}

Test(debug_offsets, members_that_a_build_may_lack) {
	struct layout layout;
	struct table t;

	build_table(&builds[5], &t);
	for (size_t i = 0; i < t.build->n; i++)
		if (t.build->order[i] == L(frame_tlbc_index) || t.build->order[i] == L(code_tlbc))
			t.words[3 + i] = 0;
	cr_assert_eq(apply(&t, &layout), 0);
	cr_assert_eq(layout.frame_tlbc_index, LAYOUT_NONE);
	cr_assert_eq(layout.code_tlbc, LAYOUT_NONE);
}

/* Where a structure was changed, what the table does not say of it is not known any more. */
Test(debug_offsets, what_was_not_measured_is_dropped) {
	struct layout layout;
	struct table t;

	build_table(&builds[0], &t);
	for (size_t i = 0; i < t.build->n; i++)
		if (t.build->order[i] == L(interp_size) || t.build->order[i] == L(tstate_size) ||
			t.build->order[i] == L(gc_size) || t.build->order[i] == L(runtime_size))
			t.words[3 + i] += 64;
		else if (t.build->order[i] == L(tstate_datastack_chunk))
			t.words[3 + i] += 16;
	cr_assert(layout_has(t.layout.interp_next_code_version) && layout_has(t.layout.gc_generations));
	cr_assert_eq(apply(&t, &layout), 0);
	cr_assert_eq(layout.interp_next_code_version, LAYOUT_NONE);
	cr_assert_eq(layout.tstate_exc_info, LAYOUT_NONE);
	cr_assert_eq(layout.gc_generations, LAYOUT_NONE);
	cr_assert_eq(layout.gc_enabled, LAYOUT_NONE);
	cr_assert(layout_has(t.layout.runtime_traces));
	cr_assert_eq(layout.runtime_traces, LAYOUT_NONE);
	cr_assert_eq(layout.tstate_datastack_top, t.layout.tstate_datastack_top + 16);
	cr_assert_eq(layout.interp_threads_head, t.layout.interp_threads_head);
	/* asyncio's members stand behind the thread state, whose size moves them */
	cr_assert(layout_has(t.layout.tstate_running_loop));
	cr_assert_eq(layout.tstate_running_loop, t.layout.tstate_running_loop + 64);
}

Test(debug_offsets, tables_that_are_cut) {
	for (size_t b = 0; b < ARRAY_SIZE(builds); b++) {
		struct layout layout;
		struct table t;

		build_table(&builds[b], &t);
		for (size_t len = 0; len < 24 + builds[b].n * 8; len++) {
			uint8_t *copy = malloc(len + 1); /* so that a read behind it shows */

			memcpy(copy, t.words, len);
			layout = t.layout;
			cr_assert_eq(debug_offsets_apply(&t.header, copy + (len ? 0 : 1), len, &layout, NULL),
				PYSPYD_E_UNSUPPORTED);
			cr_assert_eq(memcmp(&layout, &t.layout, sizeof(layout)), 0);
			free(copy);
		}
	}
}

Test(debug_offsets, random_tables) {
	srandom(99);
	for (int round = 0; round < 20000; round++) {
		struct layout layout;
		struct table t;

		build_table(&builds[(size_t)round % ARRAY_SIZE(builds)], &t);
		for (int k = random() % 4; k >= 0; k--)
			t.words[3 + (size_t)random() % t.build->n] = (uint64_t)random() % 512 * 4;
		if (!apply(&t, &layout))
			expect_inside(&t, &layout);
	}
}
