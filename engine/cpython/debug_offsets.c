/* SPDX-License-Identifier: MIT */
/* Decoding and distrusting _Py_DebugOffsets.
 *
 * The table is a list of 64-bit values in groups, one group for each structure, its size first. The groups and their
 * order are fixed for a minor version, so a version is one row of `tables`: a string of steps over the values. Names of
 * the steps are the fields of struct layout. A value that is not used is stepped over. */
#include "engine/cpython/debug_offsets.h"

#include "engine/base/cursor.h"
#include "engine/base/util.h"
#include <errno.h>
#include <stddef.h>

enum step_kind {
	STEP_END,
	STEP_GROUP, /* the size of a structure: bounds the offsets that follow */
	STEP_FIELD, /* the offset of a member of `width` bytes */
	STEP_OTHER, /* a size inside another group's structure: checked against the cap only */
	STEP_SKIP,  /* `width` values that we do not use */
	STEP_LOOSE, /* the values that follow have no group size */
};

#define GROUP_MAX_BYTES \
	(8U << 20) /* larger than any structure of any build (obmalloc in a debug build is the largest) */

struct step {
	enum step_kind kind;
	uint32_t width;
	size_t target; /* offset in struct layout; NO_TARGET where the value is only checked */
};

#define NO_TARGET SIZE_MAX
#define L(name) offsetof(struct layout, name)
#define GROUP(name) \
	{ STEP_GROUP, 8, L(name) }
#define GROUP_ONLY \
	{ STEP_GROUP, 8, NO_TARGET }
#define PTR(name) \
	{ STEP_FIELD, 8, L(name) }
#define INT(name) \
	{ STEP_FIELD, 4, L(name) }
#define BYTE(name) \
	{ STEP_FIELD, 1, L(name) }
#define SAME(name) \
	{ STEP_OTHER, 8, L(name) }
#define SKIP(n) \
	{ STEP_SKIP, n, NO_TARGET }
#define LOOSE \
	{ STEP_LOOSE, 0, NO_TARGET }
#define END \
	{ STEP_END, 0, NO_TARGET }

#define RUNTIME_STEPS GROUP(runtime_size), PTR(runtime_finalizing), PTR(runtime_interpreters_head)
#define INTERP_HEAD_STEPS GROUP(interp_size), PTR(interp_id), PTR(interp_next), PTR(interp_threads_head)
#define INTERP_TAIL_STEPS \
	PTR(interp_gc), PTR(interp_modules), PTR(interp_sysdict), PTR(interp_builtins), PTR(interp_gil), SKIP(4)
#define TSTATE_HEAD_STEPS GROUP(tstate_size), PTR(tstate_prev), PTR(tstate_next), PTR(tstate_interp), PTR(tstate_frame)
#define TSTATE_TAIL_STEPS \
	PTR(tstate_thread_id), PTR(tstate_native_thread_id), PTR(tstate_datastack_chunk), INT(tstate_status)
#define FRAME_STEPS \
	GROUP(frame_size), PTR(frame_previous), PTR(frame_code), PTR(frame_instr), PTR(frame_localsplus), \
		BYTE(frame_owner)
#define CODE_STEPS \
	GROUP(code_size), PTR(code_filename), PTR(code_name), PTR(code_qualname), PTR(code_linetable), \
		INT(code_firstlineno), INT(code_argcount), PTR(code_localsplusnames), PTR(code_localspluskinds), \
		BYTE(code_adaptive)
#define OBJECT_STEPS GROUP(object_size), PTR(object_type)
#define TYPE_STEPS GROUP(type_size), PTR(type_name), SKIP(1), PTR(type_flags)
#define TUPLE_LIST_STEPS GROUP_ONLY, PTR(tuple_items), PTR(var_size), GROUP_ONLY, PTR(list_items), PTR(var_size)
#define SET_STEPS GROUP_ONLY, PTR(set_used), SKIP(2)
#define DICT_STEPS GROUP_ONLY, PTR(dict_keys), PTR(dict_values)
#define FLOAT_STEPS GROUP_ONLY, PTR(float_value)
#define LONG_STEPS GROUP_ONLY, PTR(long_tag), INT(long_digits)
#define BYTES_STEPS GROUP_ONLY, PTR(var_size), BYTE(bytes_data)
#define UNICODE_STEPS GROUP_ONLY, INT(unicode_state), PTR(unicode_length), SAME(unicode_ascii_size)
#define GEN_STEPS GROUP_ONLY, PTR(gen_name), PTR(gen_frame), BYTE(gen_frame_state)

static const struct step steps_3_13[] = {
	RUNTIME_STEPS,
	INTERP_HEAD_STEPS,
	INTERP_TAIL_STEPS,
	TSTATE_HEAD_STEPS,
	TSTATE_TAIL_STEPS,
	FRAME_STEPS,
	CODE_STEPS,
	OBJECT_STEPS,
	TYPE_STEPS,
	TUPLE_LIST_STEPS,
	DICT_STEPS,
	FLOAT_STEPS,
	LONG_STEPS,
	BYTES_STEPS,
	UNICODE_STEPS,
	GROUP(gc_size),
	INT(gc_collecting),
	END,
};

static const struct step steps_3_14[] = {
	RUNTIME_STEPS,
	INTERP_HEAD_STEPS,
	PTR(interp_threads_main),
	INTERP_TAIL_STEPS,
	PTR(interp_code_generation),
	INT(interp_tlbc_generation),
	TSTATE_HEAD_STEPS,
	TSTATE_TAIL_STEPS,
	FRAME_STEPS,
	PTR(frame_stackpointer),
	INT(frame_tlbc_index),
	CODE_STEPS,
	PTR(code_tlbc),
	OBJECT_STEPS,
	TYPE_STEPS,
	TUPLE_LIST_STEPS,
	SET_STEPS,
	DICT_STEPS,
	FLOAT_STEPS,
	LONG_STEPS,
	BYTES_STEPS,
	UNICODE_STEPS,
	GROUP(gc_size),
	INT(gc_collecting),
	GEN_STEPS,
	END,
};

static const struct step steps_3_15[] = {
	RUNTIME_STEPS,
	INTERP_HEAD_STEPS,
	PTR(interp_threads_main),
	INTERP_TAIL_STEPS,
	PTR(interp_code_generation),
	INT(interp_tlbc_generation),
	TSTATE_HEAD_STEPS,
	BYTE(tstate_base_frame),
	SKIP(2),
	TSTATE_TAIL_STEPS,
	INT(tstate_holds_gil),
	INT(tstate_gil_requested),
	PTR(tstate_current_exception),
	SKIP(1),
	LOOSE,
	SKIP(1),
	FRAME_STEPS,
	PTR(frame_stackpointer),
	INT(frame_tlbc_index),
	CODE_STEPS,
	PTR(code_tlbc),
	OBJECT_STEPS,
	TYPE_STEPS,
	PTR(type_basicsize),
	PTR(type_dictoffset),
	GROUP(heaptype_size),
	PTR(heaptype_cached_keys),
	TUPLE_LIST_STEPS,
	SET_STEPS,
	DICT_STEPS,
	FLOAT_STEPS,
	LONG_STEPS,
	BYTES_STEPS,
	UNICODE_STEPS,
	SAME(unicode_compact_size),
	GROUP(gc_size),
	INT(gc_collecting),
	SKIP(2),
	PTR(gc_generation_stats),
	GEN_STEPS,
	END,
};

static const struct table {
	uint32_t minor; /* version >> 16 */
	size_t bytes;   /* of the whole table */
	const struct step *steps;
} tables[] = {
	{ 0x030d, 584, steps_3_13 },
	{ 0x030e, 760, steps_3_14 },
	{ 0x030f, 888, steps_3_15 },
};

static const struct table *table_of(uint32_t version) {
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		if (tables[i].minor == version >> 16)
			return &tables[i];
	return NULL;
}

int debug_offsets_header_parse(const void *bytes, size_t len, struct debug_offsets_header *ret) {
	struct cursor c = cursor_of(bytes, len);
	char cookie[8];
	uint64_t version, free_threaded;
	const struct table *table;

	if (!cursor_bytes(&c, cookie, sizeof(cookie)) || memcmp(cookie, "xdebugpy", sizeof(cookie)) ||
		!cursor_u64(&c, &version) || !cursor_u64(&c, &free_threaded))
		return -ENODATA;
	table = version <= UINT32_MAX ? table_of((uint32_t)version) : NULL;
	*ret = (struct debug_offsets_header){
		.version = (uint32_t)version,
		.free_threaded = free_threaded == 1,
		.table_bytes = table ? table->bytes : 0,
	};
	return table ? 0 : PYSPYD_E_UNSUPPORTED;
}

static uint32_t *field_of(struct layout *layout, size_t target) {
	return (uint32_t *)(void *)((char *)layout + target);
}

/* Zero is what the table holds for members that this build lacks; the thread-local bytecode fields are the ones it can
 * lack. */
static bool may_be_absent(size_t target) {
	return target == L(frame_tlbc_index) || target == L(code_tlbc) || target == L(interp_tlbc_generation);
}

static bool value_is_sane(const struct step *step, uint64_t value, uint64_t group_bytes) {
	if (step->kind == STEP_GROUP || step->kind == STEP_OTHER)
		return value > 0 && value <= GROUP_MAX_BYTES;
	return value <= group_bytes && group_bytes - value >= step->width && value % step->width == 0;
}

/* Runs the steps over the table. Return: the number of the first value that is not sane, counted from 1; 0 when all
 * are. */
static size_t run_steps(const struct step *step, struct cursor *c, struct layout *layout) {
	uint64_t group_bytes = GROUP_MAX_BYTES, value;
	size_t at = 0;

	for (; step->kind != STEP_END; step++) {
		if (step->kind == STEP_LOOSE) {
			group_bytes = GROUP_MAX_BYTES;
			continue;
		}
		if (step->kind == STEP_SKIP) {
			at += step->width;
			if (!cursor_skip(c, step->width * sizeof(value)))
				return at;
			continue;
		}
		at++;
		if (!cursor_u64(c, &value) || !value_is_sane(step, value, group_bytes))
			return at;
		if (step->kind == STEP_GROUP)
			group_bytes = value;
		if (step->target != NO_TARGET)
			*field_of(layout, step->target) =
				value || !may_be_absent(step->target) ? (uint32_t)value : LAYOUT_NONE;
	}
	return 0;
}

static void move_with_size(const struct layout *measured, struct layout *layout, size_t target) {
	uint32_t offset = *field_of(layout, target);

	if (layout_has(offset) && offset >= measured->tstate_size)
		*field_of(layout, target) = layout->tstate_size + (offset - measured->tstate_size);
}

/* Members that the table lacks lie at a fixed distance from one that it has: those of asyncio stand behind the thread
 * state proper, whose size moves them. */
static void move_along(const struct layout *measured, struct layout *layout) {
	uint32_t chunk = layout->tstate_datastack_chunk;

	move_with_size(measured, layout, L(tstate_running_loop));
	move_with_size(measured, layout, L(tstate_running_task));
	move_with_size(measured, layout, L(tstate_tasks_head));
	layout->tstate_datastack_top = chunk + (measured->tstate_datastack_top - measured->tstate_datastack_chunk);
	layout->tstate_datastack_limit = chunk + (measured->tstate_datastack_limit - measured->tstate_datastack_chunk);
}

/* What the table does not say is only known for structures that look as they did when they were measured. */
static void drop_unproven(const struct layout *measured, struct layout *layout) {
	if (layout->interp_size != measured->interp_size || layout->interp_gc != measured->interp_gc) {
		layout->interp_next_code_version = LAYOUT_NONE;
		layout->interp_tasks_head = LAYOUT_NONE;
	}
	if (layout->tstate_size != measured->tstate_size || layout->tstate_thread_id != measured->tstate_thread_id) {
		layout->tstate_id = LAYOUT_NONE;
		layout->tstate_dict = LAYOUT_NONE;
		layout->tstate_exc_info = LAYOUT_NONE;
		if (layout->tstate_current_exception == measured->tstate_current_exception)
			layout->tstate_current_exception = LAYOUT_NONE;
		layout->tstate_state = LAYOUT_NONE;
		if (layout->tstate_holds_gil == measured->tstate_holds_gil)
			layout->tstate_holds_gil = LAYOUT_NONE;
	}
	if (layout->gc_size != measured->gc_size || layout->gc_collecting != measured->gc_collecting) {
		layout->gc_generations = LAYOUT_NONE;
		layout->gc_enabled = LAYOUT_NONE;
		if (layout->gc_generation_stats == measured->gc_generation_stats)
			layout->gc_generation_stats = LAYOUT_NONE;
	}
	if (layout->runtime_size != measured->runtime_size) {
		layout->runtime_traced_tracing = LAYOUT_NONE;
		layout->runtime_traced_memory = LAYOUT_NONE;
		layout->runtime_traced_peak = LAYOUT_NONE;
		layout->runtime_traces = LAYOUT_NONE;
	}
}

static bool same_objects(const struct layout *a, const struct layout *b) {
	return a->code_size == b->code_size && a->code_adaptive == b->code_adaptive &&
		a->code_filename == b->code_filename && a->frame_size == b->frame_size &&
		a->frame_instr == b->frame_instr && a->object_size == b->object_size && a->type_size == b->type_size &&
		a->unicode_ascii_size == b->unicode_ascii_size;
}

int debug_offsets_apply(const struct debug_offsets_header *header, const void *bytes, size_t len, struct layout *layout,
	struct err *err) {
	const struct table *table = table_of(header->version);
	struct cursor c = cursor_of(bytes, min_of(len, header->table_bytes));
	struct layout changed = *layout;
	size_t bad;

	if (!table || !cursor_skip(&c, DEBUG_OFFSETS_HEADER_BYTES))
		return err_set(err, PYSPYD_E_UNSUPPORTED, "its table of debug offsets is cut off");
	bad = run_steps(table->steps, &c, &changed);
	if (bad)
		return err_set(
			err, PYSPYD_E_UNSUPPORTED, "value %zu of its table of debug offsets cannot be true", bad);
	if (!same_objects(layout, &changed))
		return err_set(err, PYSPYD_E_UNSUPPORTED,
			"its objects are laid out unlike any build of %u.%u that is known", header->version >> 24,
			header->version >> 16 & 0xff);
	move_along(layout, &changed);
	drop_unproven(layout, &changed);
	*layout = changed;
	return 0;
}
