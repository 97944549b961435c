/* SPDX-License-Identifier: MIT */
/* Generators, coroutines and asynchronous generators: how far they are, their frame, and what they await.
 *
 * From 3.11 on the frame lies in the generator and a byte beside it says the state; before, the generator points to a
 * frame for as long as it is not done. While it is suspended in an `await` or a `yield from`, the iterator that it
 * waits for is on its value stack: on top, or from 3.15 on with a word above it. Whether it is, the state says
 * from 3.13 on, before that the instruction at which it will go on. */
#include "engine/cpython/blocks.h"

#include "engine/base/cursor.h"
#include "engine/cpython/object_head.h"
#include "engine/cpython/value_stack.h"
#include <string.h>

#define FRAME_BYTES_MAX 512
#define NAME_BYTES 32

#define OLD_YIELD_FROM 72   /* the same opcode from 3.6 to 3.10 */
#define RESUME_WHERE 3      /* 3.11, 3.12: bits of RESUME's argument: */
#define RESUME_YIELD_FROM 2 /* from here on, after yield from and after await */
#define UNKNOWN_STATE INT8_MIN

/* CPython Include/internal/pycore_frame.h, enum _framestate; 3.10 keeps it in the frame. Greater ones are ends. */
static const struct state_names {
	uint32_t since;                                                      /* minor version */
	int8_t created, suspended, yield_from, yield_from_locked, executing; /* UNKNOWN_STATE: has none */
	uint8_t above; /* words on the value stack above what is awaited */
} state_names[] = {
	{ 0x030a, -2, -1, UNKNOWN_STATE, UNKNOWN_STATE, 0, 0 },
	{ 0x030d, -3, -2, -1, UNKNOWN_STATE, 0, 0 },
	{ 0x030f, 0, 1, 2, 3, 4, 1 },
};

/* A frame's beginning. */
struct frame_copy {
	uint8_t bytes[FRAME_BYTES_MAX];
	size_t len;
};

/* NULL before 3.10 */
static const struct state_names *names_of(const struct py_reader *py) {
	const struct state_names *names = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(state_names); i++)
		if (PY_MINOR(py->version) >= state_names[i].since)
			names = &state_names[i];
	return names;
}

static enum py_gen_state state_named(const struct state_names *names, int8_t state) {
	if (state == names->created)
		return PY_GEN_CREATED;
	if (state == names->executing)
		return PY_GEN_RUNNING;
	if (state == names->suspended ||
		(state != UNKNOWN_STATE && (state == names->yield_from || state == names->yield_from_locked)))
		return PY_GEN_SUSPENDED;
	return PY_GEN_DONE;
}

static int read_frame(const struct py_reader *py, raddr at, struct frame_copy *copy, struct py_raw_frame *ret) {
	const struct layout *l = &py->layout;
	int r;

	copy->len = l->frame_localsplus;
	if (copy->len > sizeof(copy->bytes))
		return PY_E_TORN;
	r = mem_read(py->mem, at, copy->bytes, copy->len);
	if (r)
		return r;
	*ret = (struct py_raw_frame){
		.frame = at,
		.code = py_untag(peek_u64(copy->bytes, copy->len, l->frame_code)),
		.globals = py_untag(peek_u64(copy->bytes, copy->len, l->frame_globals)),
	};
	if (layout_has(l->frame_tlbc_index))
		ret->code_base = peek_u32(copy->bytes, copy->len, l->frame_tlbc_index);
	if (layout_has(l->frame_lasti))
		ret->instr = (int64_t)(int32_t)peek_u32(copy->bytes, copy->len, l->frame_lasti) *
			(PY_MINOR(py->version) == 0x030a ? 2 : 1); /* 3.10 counts code units, the others bytes */
	else
		ret->instr = (int64_t)peek_u64(copy->bytes, copy->len, l->frame_instr);
	return ret->code && !(ret->code & 7) ? 0 : PY_E_TORN;
}

/* Whether it goes on in a `yield from` or an `await`, where only the bytecode tells. Return: 0; MEM_E_*. */
static int reads_yield_from(const struct py_reader *py, const struct py_raw_frame *frame, bool *ret) {
	raddr at = (uint64_t)frame->instr + 2;
	uint64_t bytecode = 0;
	uint8_t unit[2];
	int r = 0;

	if (layout_has(py->layout.code_code)) {
		r = mem_read_u64(py->mem, frame->code + py->layout.code_code, &bytecode);
		at += bytecode + py->layout.bytes_data;
	}
	if (!r)
		r = mem_read(py->mem, at, unit, sizeof(unit));
	if (!r)
		*ret = layout_has(py->layout.code_code) ? unit[0] == OLD_YIELD_FROM
							: (unit[1] & RESUME_WHERE) >= RESUME_YIELD_FROM;
	return r;
}

/* Where the stack ends: one behind its topmost word, and where it begins. */
static void find_stack(const struct py_reader *py, const struct py_raw_frame *frame, const struct frame_copy *copy,
	const struct code_shape *shape, raddr *ret_base, raddr *ret_end) {
	const struct layout *l = &py->layout;

	if (layout_has(l->frame_valuestack))
		*ret_base = peek_u64(copy->bytes, copy->len, l->frame_valuestack);
	else
		*ret_base = value_stack_in(py, frame->frame, shape);
	if (layout_has(l->frame_stackpointer))
		*ret_end = peek_u64(copy->bytes, copy->len, l->frame_stackpointer);
	else if (layout_has(l->frame_stacktop))
		*ret_end = frame->frame + l->frame_localsplus +
			(uint64_t)peek_u32(copy->bytes, copy->len, l->frame_stacktop) * sizeof(uint64_t);
	else if (layout_has(l->frame_stackdepth))
		*ret_end =
			*ret_base + (uint64_t)peek_u32(copy->bytes, copy->len, l->frame_stackdepth) * sizeof(uint64_t);
	else
		*ret_end = peek_u64(copy->bytes, copy->len, l->frame_valuestack_top);
}

/* The coroutine or asynchronous generator in what `await` makes of it. */
static int unwrap(const struct py_reader *py, raddr object, raddr *ret) {
	const struct layout *l = &py->layout;
	const struct {
		const char *name;
		uint32_t inner;
	} wrappers[] = {
		{ "coroutine_wrapper", l->coro_wrapper_coroutine },
		{ "async_generator_asend", l->asend_gen },
		{ "async_generator_athrow", l->athrow_gen },
	};
	char name[NAME_BYTES];
	uint64_t inner = object;
	int r = py_type_name(py, object, name, sizeof(name));

	for (size_t i = 0; !r && i < ARRAY_SIZE(wrappers); i++)
		if (layout_has(wrappers[i].inner) && !strcmp(name, wrappers[i].name))
			r = mem_read_u64(py->mem, object + wrappers[i].inner, &inner);
	if (!r)
		*ret = inner;
	return r;
}

static int read_awaited(const struct py_reader *py, const struct frame_copy *copy, const struct code_shape *shape,
	size_t above, struct py_gen *gen) {
	raddr base, end, object;
	uint64_t slot;
	int r;

	find_stack(py, &gen->frame, copy, shape, &base, &end);
	if (end <= base || (end - base) % sizeof(slot) || (end - base) / sizeof(slot) > shape->slots ||
		(end - base) / sizeof(slot) <= above)
		return PY_E_TORN;
	r = mem_read_u64(py->mem, end - (above + 1) * sizeof(slot), &slot);
	if (r)
		return r;
	if (!slot_object(py, slot, &object))
		return PY_E_TORN;
	return unwrap(py, object, &gen->awaits);
}

/* State and, but for one that is done, its frame. */
static int read_state(const struct py_reader *py, const struct object_head *head, struct frame_copy *copy,
	struct py_gen *gen, bool *ret_yield_from, bool *ret_told) {
	const struct layout *l = &py->layout;
	const struct state_names *names = names_of(py);
	bool inline_frame = layout_has(l->gen_frame_state);
	raddr frame = inline_frame ? head->addr + l->gen_frame : object_u64(head, l->gen_frame);
	int8_t state = UNKNOWN_STATE;
	int r;

	gen->state = PY_GEN_DONE;
	if (inline_frame) {
		state = (int8_t)peek_u8(head->bytes, head->len, l->gen_frame_state);
		gen->state = state_named(names, state);
	}
	if (inline_frame ? gen->state == PY_GEN_DONE : !frame)
		return 0;
	r = read_frame(py, frame, copy, &gen->frame);
	if (r)
		return r;
	if (!inline_frame && names) {
		state = (int8_t)peek_u8(copy->bytes, copy->len, l->frame_state);
		gen->state = state_named(names, state);
	} else if (!inline_frame) {
		gen->state = peek_u8(head->bytes, head->len, l->gen_running) ? PY_GEN_RUNNING
			: gen->frame.instr < 0                               ? PY_GEN_CREATED
									     : PY_GEN_SUSPENDED;
	}
	*ret_told = names && names->yield_from != UNKNOWN_STATE;
	*ret_yield_from = *ret_told && (state == names->yield_from || state == names->yield_from_locked);
	return 0;
}

static int check_type(const struct py_reader *py, raddr object) {
	static const char *const names[] = { "generator", "coroutine", "async_generator" };
	char name[NAME_BYTES];
	int r = py_type_name(py, object, name, sizeof(name));

	for (size_t i = 0; !r && i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return 0;
	return r ? r : PY_E_TYPE;
}

int py_gen_read(const struct py_runtime *rt, raddr object, struct py_gen *ret_gen) {
	const struct py_reader *py = &rt->reader;
	const struct layout *l = &py->layout;
	const struct state_names *names = names_of(py);
	struct py_gen gen = { 0 };
	struct code_shape shape;
	struct object_head head;
	struct frame_copy copy;
	bool yield_from = false, told = false;
	int r = check_type(py, object);

	if (!r)
		r = object_head_read(py, object, l->gen_frame + sizeof(uint64_t), &head);
	if (!r)
		r = read_state(py, &head, &copy, &gen, &yield_from, &told);
	if (!r && gen.state != PY_GEN_DONE) {
		r = code_shape_read(py, gen.frame.code, &shape);
		if (!r && gen.state == PY_GEN_SUSPENDED && !told)
			r = reads_yield_from(py, &gen.frame, &yield_from);
		if (!r && yield_from)
			r = read_awaited(py, &copy, &shape, names ? names->above : 0, &gen);
		gen.depth_limit = r ? 0 : shape.slots;
	}
	if (r)
		return r;
	*ret_gen = gen;
	return 0;
}
