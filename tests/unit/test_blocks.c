/* SPDX-License-Identifier: MIT */
/* What frames and generators in images are in and wait for, one build of each layout; and what a hostile target may put
 * in its place. */
#include "engine/base/map.h"
#include "engine/cpython/blocks.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

#define LOCALS 3
#define SLOTS 12
#define SERIAL 7
#define NEW_TYPE_BYTES 1024
#define OLD_EXCEPT_HANDLER 257
#define OLD_SETUP_FINALLY 122
#define OLD_YIELD_FROM 72

struct entry {
	unsigned start, length, target, depth, lasti; /* in bytes, as is the table's meaning */
};

struct scene {
	struct image *img;
	struct py_block_cache *cache;
	raddr method, builtin, function, descriptor, partial; /* types */
	struct py_raw_frame frame;
	raddr base; /* of the value stack */
	struct py_block blocks[PY_BLOCKS_MAX];
	size_t n;
};

static bool has_table(const struct scene *s) {
	return layout_has(s->img->l->code_exceptiontable);
}

static bool has_pairs(const struct scene *s) {
	return PY_MINOR(s->img->rt.reader.version) >= 0x030e;
}

static raddr new_type(struct image *img, const char *name) {
	raddr at = image_take(img, NEW_TYPE_BYTES), text = image_take(img, 64);

	image_put(img, text, name, strlen(name) + 1);
	image_put_u64(img, at + img->l->type_name, text);
	return at;
}

static raddr new_object(struct image *img, raddr type) {
	raddr at = image_object(img, T_PLAIN, 256);

	image_put_u64(img, at + img->l->object_type, type);
	return at;
}

static void put_shape(struct scene *s, uint32_t locals, uint32_t slots) {
	const struct layout *l = s->img->l;

	if (layout_has(l->code_nlocalsplus))
		image_put_u32(s->img, s->frame.code + l->code_nlocalsplus, locals);
	image_put_u32(s->img, s->frame.code + l->code_stacksize, slots);
}

static void open_scene(struct image *img, struct scene *s) {
	const struct layout *l = img->l;

	*s = (struct scene){ .img = img };
	cr_assert_eq(py_block_cache_new(&img->rt, &s->cache), 0);
	s->method = new_type(img, "method");
	s->builtin = new_type(img, "builtin_function_or_method");
	s->function = new_type(img, "function");
	s->descriptor = new_type(img, "method_descriptor");
	s->partial = new_type(img, "functools.partial");
	s->frame.code = image_code(img, "f", "f.py", 1);
	s->frame.frame = image_take(img, 1024);
	put_shape(s, LOCALS, SLOTS);
	s->base = s->frame.frame + l->frame_localsplus + LOCALS * 8;
	if (layout_has(l->frame_valuestack))
		image_put_u64(img, s->frame.frame + l->frame_valuestack, s->base);
}

static void close_scene(struct scene *s) {
	py_block_cache_free(s->cache);
}

static raddr new_function(struct scene *s, const char *name) {
	raddr at = new_object(s->img, s->function);

	image_put_u64(s->img, at + s->img->l->func_name, image_text(s->img, name));
	return at;
}

static raddr new_method(struct scene *s, raddr self, const char *name) {
	raddr at = new_object(s->img, s->method);

	image_put_u64(s->img, at + s->img->l->method_func, new_function(s, name));
	image_put_u64(s->img, at + s->img->l->method_self, self);
	return at;
}

static raddr new_builtin(struct scene *s, raddr self, const char *name) {
	raddr at = new_object(s->img, s->builtin), text = image_take(s->img, 64), ml = image_take(s->img, 64);

	image_put(s->img, text, name, strlen(name) + 1);
	image_put_u64(s->img, ml + s->img->l->methoddef_name, text);
	image_put_u64(s->img, at + s->img->l->cfunction_ml, ml);
	image_put_u64(s->img, at + s->img->l->cfunction_self, self);
	return at;
}

static raddr new_descriptor(struct scene *s, const char *name) {
	raddr at = new_object(s->img, s->descriptor);

	image_put_u64(s->img, at + s->img->l->descr_name, image_text(s->img, name));
	return at;
}

static void put_slot(struct scene *s, unsigned slot, uint64_t value) {
	image_put_u64(s->img, s->base + slot * 8, value);
}

/* The exit of a new manager, as this version has it; `top` is the number of slots in use with it. */
static raddr put_exit(struct scene *s, unsigned top, const char *name, bool native) {
	raddr manager = image_object(s->img, T_PLAIN, 64);

	if (has_pairs(s)) {
		put_slot(s, top - 2, (native ? new_descriptor(s, name) : new_function(s, name)) | 1);
		put_slot(s, top - 1, manager | 1);
	} else {
		put_slot(s, top - 1, native ? new_builtin(s, manager, name) : new_method(s, manager, name));
	}
	return manager;
}

static size_t put_varint(uint8_t *out, unsigned value, unsigned first) {
	unsigned groups = 1;

	while (value >> 6 * groups)
		groups++;
	for (unsigned i = 0; i < groups; i++)
		out[i] = (uint8_t)((value >> 6 * (groups - 1 - i) & 0x3f) | (i + 1 < groups ? 0x40 : 0));
	out[0] |= (uint8_t)first;
	return groups;
}

static void put_table_bytes(struct scene *s, const uint8_t *bytes, size_t n) {
	image_put_u64(s->img, s->frame.code + s->img->l->code_exceptiontable, image_bytes(s->img, bytes, n));
}

static void put_table(struct scene *s, const struct entry *entries, size_t n) {
	uint8_t bytes[512];
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		len += put_varint(bytes + len, entries[i].start / 2, 0x80);
		len += put_varint(bytes + len, entries[i].length / 2, 0);
		len += put_varint(bytes + len, entries[i].target / 2, 0);
		len += put_varint(bytes + len, entries[i].depth << 1 | entries[i].lasti, 0);
	}
	put_table_bytes(s, bytes, len);
}

static void put_block(struct scene *s, unsigned i, uint32_t type, uint32_t level) {
	const struct layout *l = s->img->l;
	raddr at = s->frame.frame + l->frame_blockstack + i * l->tryblock_size;

	image_put_u32(s->img, at, type);
	image_put_u32(s->img, at + l->tryblock_level, level);
	image_put_u32(s->img, s->frame.frame + l->frame_iblock, i + 1);
}

static int look(struct scene *s, int64_t offset) {
	return py_blocks_read(s->cache, &s->frame, SERIAL, offset, s->blocks, &s->n);
}

static void expect_blocks(struct scene *s, int64_t offset, raddr outer, raddr inner) {
	cr_assert_eq(look(s, offset), 0);
	cr_assert_eq(s->n, (outer != 0) + (size_t)(inner != 0), "%zu blocks at %lld", s->n, (long long)offset);
	if (outer)
		cr_assert_eq(s->blocks[0].manager, outer);
	if (inner)
		cr_assert_eq(s->blocks[1].manager, inner);
}

/* with a: for x in y: try: with b: … */
static void check_nested(struct image *img) {
	struct scene s;
	raddr a, b;

	open_scene(img, &s);
	a = put_exit(&s, 2, "__exit__", true);
	put_slot(&s, 2, image_object(img, T_PLAIN, 64)); /* the iterator */
	b = put_exit(&s, 5, "__exit__", false);
	if (has_table(&s)) {
		const struct entry table[] = {
			{ 20, 20, 2000, 2, 1 },   /* the body of a */
			{ 40, 20, 1000, 3, 0 },   /* the body of try */
			{ 60, 200, 800, 5, 1 },   /* the body of b */
			{ 800, 20, 900, 7, 1 },   /* b's handler */
			{ 900, 20, 1000, 3, 0 },  /* what comes after it */
			{ 1000, 20, 2000, 2, 1 }, /* the handler of try */
			{ 2000, 20, 2100, 4, 1 }, /* a's handler */
		};

		put_table(&s, table, ARRAY_SIZE(table));
		put_slot(&s, 6, image_object(img, T_PLAIN, 64)); /* an exception */
		expect_blocks(&s, -1, 0, 0);
		expect_blocks(&s, 18, 0, 0);
		expect_blocks(&s, 20, a, 0);
		expect_blocks(&s, 59, a, 0);
		expect_blocks(&s, 60, a, b);
		expect_blocks(&s, 258, a, b);
		expect_blocks(&s, 260, 0, 0);
		expect_blocks(&s, 800, a, 0);
		expect_blocks(&s, 2000, 0, 0);
		expect_blocks(&s, INT64_MAX, 0, 0);
	} else {
		expect_blocks(&s, 0, 0, 0);
		put_block(&s, 0, OLD_SETUP_FINALLY, 2);
		expect_blocks(&s, 0, a, 0);
		put_block(&s, 1, OLD_SETUP_FINALLY, 2);
		put_block(&s, 2, OLD_SETUP_FINALLY, 3);
		expect_blocks(&s, 0, a, 0);
		put_block(&s, 3, OLD_SETUP_FINALLY, 5);
		put_block(&s, 4, OLD_SETUP_FINALLY, 5);
		expect_blocks(&s, 0, a, b);
		put_block(&s, 3, OLD_EXCEPT_HANDLER, 5);
		expect_blocks(&s, 0, a, 0);
	}
	close_scene(&s);
}

Test(blocks, nested) {
	image_each(check_nested);
}

static void check_kinds(struct image *img) {
	static const struct entry table[] = { { 0, 20, 100, 2, 1 }, { 20, 20, 200, 4, 1 }, { 200, 20, 100, 2, 1 } };
	struct scene s;
	raddr a, b;

	open_scene(img, &s);
	a = put_exit(&s, 2, "__aexit__", false);
	b = put_exit(&s, 4, "release", false);
	if (has_table(&s)) {
		put_table(&s, table, ARRAY_SIZE(table));
	} else {
		put_block(&s, 0, OLD_SETUP_FINALLY, 2);
		put_block(&s, 1, OLD_SETUP_FINALLY, 4);
	}
	cr_assert_eq(look(&s, 20), 0);
	cr_assert_eq(s.n, 2);
	cr_assert_eq(s.blocks[1].manager, b);
	cr_assert(!s.blocks[1].is_async);
	if (!has_table(&s))
		put_block(&s, 0, OLD_SETUP_FINALLY, 2);
	expect_blocks(&s, 0, a, 0);
	cr_assert(s.blocks[0].is_async);
	if (has_pairs(&s)) { /* an exit that is bound already: NULL is a tagged one */
		put_slot(&s, 0, new_method(&s, b, "__exit__"));
		put_slot(&s, 1, 1);
		expect_blocks(&s, 0, b, 0);
		put_slot(&s, 0, new_function(&s, "__exit__"));
		expect_blocks(&s, 0, 0, 0);
		put_slot(&s, 0, 3);
		put_slot(&s, 1, b);
		expect_blocks(&s, 0, 0, 0);
	}
	close_scene(&s);
}

Test(blocks, kinds_of_exits) {
	image_each(check_kinds);
}

static void check_cost(struct image *img) {
	static const struct entry table[] = { { 20, 20, 100, 2, 0 }, { 40, 20, 100, 2, 1 } };
	struct scene s;
	uint64_t reads;

	open_scene(img, &s);
	if (has_table(&s)) {
		put_table(&s, table, ARRAY_SIZE(table));
		expect_blocks(&s, 0, 0, 0);
		reads = img->rt.reader.mem->reads;
		expect_blocks(&s, 0, 0, 0);
		expect_blocks(&s, 20, 0, 0);
		cr_assert_eq(img->rt.reader.mem->reads, reads);
		expect_blocks(&s, 40, 0, 0); /* nothing on the stack */
		cr_assert_eq(img->rt.reader.mem->reads, reads + 1);
		put_table(&s, table, 0);
		expect_blocks(&s, 40, 0, 0);
		cr_assert_eq(img->rt.reader.mem->reads, reads + 2, "known by its serial");
		cr_assert_eq(py_blocks_read(s.cache, &s.frame, SERIAL + 1, 40, s.blocks, &s.n), 0);
		cr_assert_gt(img->rt.reader.mem->reads, reads + 3, "another code object at the same address");
	} else {
		reads = img->rt.reader.mem->reads;
		expect_blocks(&s, 0, 0, 0);
		cr_assert_eq(img->rt.reader.mem->reads, reads + 1);
	}
	close_scene(&s);
}

Test(blocks, looks_that_find_nothing_are_free) {
	image_each(check_cost);
}

static void expect_torn_table(struct scene *s, const struct entry *entries, size_t n) {
	put_table(s, entries, n);
	cr_assert_eq(look(s, 0), PY_E_TORN);
}

static void check_bad_tables(struct image *img) {
	static const struct entry deep[] = { { 0, 20, 100, SLOTS + 1, 1 } };
	static const struct entry unordered[] = { { 20, 20, 100, 1, 1 }, { 0, 20, 100, 1, 1 } };
	static const struct entry overlapping[] = { { 0, 20, 100, 1, 1 }, { 10, 20, 100, 1, 1 } };
	static const struct entry circle[] = { { 0, 20, 0, 2, 1 } };
	static const uint8_t cut[] = { 0x80, 0x05, 0x41 }, endless[] = { 0xff, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0 };
	static const uint8_t large[] = { 0xff, 0x7f, 0x7f, 0x7f, 0x3f, 0x7f, 0x7f, 0x7f, 0x7f, 0x3f, 0x7f, 0x7f, 0x7f,
		0x7f, 0x3f, 5 };
	struct scene s;
	raddr a;

	open_scene(img, &s);
	if (has_table(&s)) {
		expect_torn_table(&s, deep, ARRAY_SIZE(deep));
		expect_torn_table(&s, unordered, ARRAY_SIZE(unordered));
		expect_torn_table(&s, overlapping, ARRAY_SIZE(overlapping));
		put_table_bytes(&s, cut, sizeof(cut));
		cr_assert_eq(look(&s, 0), PY_E_TORN);
		put_table_bytes(&s, endless, sizeof(endless));
		cr_assert_eq(look(&s, 0), PY_E_TORN);
		put_table_bytes(&s, large, sizeof(large));
		cr_assert_eq(py_blocks_read(s.cache, &s.frame, SERIAL + 1, UINT32_MAX - 4, s.blocks, &s.n), 0);
		image_put_u64(img, s.frame.code + img->l->code_exceptiontable, image_type_at(T_PLAIN));
		cr_assert_eq(look(&s, 0), PY_E_TORN);
		put_shape(&s, UINT32_MAX, SLOTS);
		cr_assert_eq(look(&s, 0), PY_E_TORN);
		put_shape(&s, LOCALS, SLOTS);
		put_table(&s, circle, ARRAY_SIZE(circle));
		a = put_exit(&s, 2, "__exit__", false);
		expect_blocks(&s, 0, a, 0);
	} else {
		put_block(&s, 20, OLD_SETUP_FINALLY, 1);
		cr_assert_eq(look(&s, 0), PY_E_TORN);
		put_block(&s, 0, OLD_SETUP_FINALLY, 5);
		put_block(&s, 1, OLD_SETUP_FINALLY, 4);
		cr_assert_eq(look(&s, 0), PY_E_TORN);
		put_block(&s, 0, OLD_SETUP_FINALLY, UINT32_MAX);
		cr_assert_eq(look(&s, 0), PY_E_TORN);
	}
	close_scene(&s);
}

Test(blocks, tables_that_cannot_be) {
	image_each(check_bad_tables);
}

static void check_bad_slots(struct image *img) {
	static const struct entry table[] = { { 0, 20, 100, 2, 1 } };
	struct scene s;
	raddr manager, callable;

	open_scene(img, &s);
	manager = put_exit(&s, 2, "__exit__", false);
	if (has_table(&s))
		put_table(&s, table, 1);
	else
		put_block(&s, 0, OLD_SETUP_FINALLY, 2);
	expect_blocks(&s, 0, manager, 0);
	callable = py_untag(image_u64(img, s.base + (has_pairs(&s) ? 0 : 8)));
	image_put_u64(img, callable + img->l->object_type, image_type_at(T_PLAIN));
	expect_blocks(&s, 0, 0, 0);
	image_put_u64(img, callable + img->l->object_type, IMAGE_NOWHERE);
	cr_assert_eq(look(&s, 0), MEM_E_FAULT);
	image_put_u64(img, callable + img->l->object_type, 0);
	expect_blocks(&s, 0, 0, 0);
	put_slot(&s, has_pairs(&s) ? 0 : 1, IMAGE_NOWHERE);
	cr_assert_eq(look(&s, 0), MEM_E_FAULT);
	put_slot(&s, has_pairs(&s) ? 0 : 1, UINT64_MAX);
	expect_blocks(&s, 0, 0, 0);
	s.frame.frame = IMAGE_NOWHERE;
	cr_assert_eq(look(&s, 0), MEM_E_FAULT);
	close_scene(&s);
}

Test(blocks, slots_that_hold_something_else) {
	image_each(check_bad_slots);
}

static void check_random_tables(struct image *img) {
	uint8_t bytes[64];
	uint64_t random = 1;
	struct scene s;

	open_scene(img, &s);
	for (uint64_t round = 0; has_table(&s) && round < 500; round++) {
		for (size_t i = 0; i < sizeof(bytes); i++) {
			random = hash_mix(random + i + 1);
			bytes[i] = (uint8_t)(random & (round & 1 ? 0xff : 0x87));
		}
		put_table_bytes(&s, bytes, round % sizeof(bytes));
		for (int64_t offset = 0; offset < 600; offset += 14) {
			int r = py_blocks_read(s.cache, &s.frame, round, offset, s.blocks, &s.n);

			cr_assert(r == 0 || r == PY_E_TORN);
		}
	}
	close_scene(&s);
}

Test(blocks, random_tables) {
	image_each(check_random_tables);
}

static void check_references(struct image *img) {
	raddr objects[SLOTS], found[SLOTS];
	struct scene s;
	bool tags;
	size_t n;

	open_scene(img, &s);
	tags = PY_MINOR(img->rt.reader.version) >= 0x030d;
	for (size_t i = 0; i < 4; i++)
		objects[i] = image_object(img, T_PLAIN, 64);
	put_slot(&s, 0, objects[0]);
	put_slot(&s, 2, objects[1] | 3); /* a small int, or nonsense */
	put_slot(&s, 3, 8);
	put_slot(&s, 4, objects[1] | tags);
	put_slot(&s, 5, objects[2] + 4);
	put_slot(&s, 6, UINT64_MAX - 7);
	put_slot(&s, SLOTS - 1, objects[2]);
	put_slot(&s, SLOTS, objects[3]); /* behind the end */
	cr_assert_eq(py_stack_references(&img->rt, &s.frame, found, SLOTS, &n), 0);
	cr_assert_eq(n, 3);
	cr_assert_eq(memcmp(found, objects, 3 * sizeof(found[0])), 0);
	cr_assert_eq(py_stack_references(&img->rt, &s.frame, found, 2, &n), 0);
	cr_assert_eq(n, 2);
	put_shape(&s, LOCALS, UINT32_MAX);
	cr_assert_eq(py_stack_references(&img->rt, &s.frame, found, SLOTS, &n), PY_E_TORN);
	s.frame.code = IMAGE_NOWHERE;
	cr_assert_eq(py_stack_references(&img->rt, &s.frame, found, SLOTS, &n), MEM_E_FAULT);
	close_scene(&s);
}

Test(blocks, references) {
	image_each(check_references);
}

static void expect_callable(struct scene *s, raddr object, raddr self, const char *name) {
	raddr read_self = 1;
	char read[16];

	cr_assert_eq(py_callable_read(&s->img->rt.reader, object, &read_self, read, sizeof(read)), 0);
	cr_assert_eq(read_self, self);
	cr_assert_str_eq(read, name);
}

static void check_callables(struct image *img) {
	struct scene s;
	raddr self, partial, method;
	char name[16];

	open_scene(img, &s);
	self = image_object(img, T_PLAIN, 64);
	expect_callable(&s, new_method(&s, self, "acquire"), self, "acquire");
	expect_callable(&s, new_builtin(&s, self, "a_name_that_is_cut"), self, "a_name_that_is_");
	expect_callable(&s, new_function(&s, "a_name_that_is_cut"), 0, "a_name_that_is_");
	expect_callable(&s, new_descriptor(&s, "append"), 0, "append");
	partial = new_object(img, s.partial);
	image_put_u64(img, partial + img->l->object_size, new_builtin(&s, self, "put"));
	expect_callable(&s, partial, self, "put");
	image_put_u64(img, partial + img->l->object_size, partial);
	cr_assert_eq(py_callable_read(&img->rt.reader, partial, &self, name, sizeof(name)), PY_E_TYPE);
	method = new_method(&s, self, "x");
	image_put_u64(img, method + img->l->method_func, image_object(img, T_PLAIN, 64));
	expect_callable(&s, method, self, "");
	image_put_u64(img, method + img->l->method_func, method);
	expect_callable(&s, method, self, "");
	cr_assert_eq(py_callable_read(&img->rt.reader, self, &self, name, sizeof(name)), PY_E_TYPE);
	cr_assert_eq(py_callable_read(&img->rt.reader, 0, &self, name, sizeof(name)), PY_E_TYPE);
	cr_assert_eq(py_callable_read(&img->rt.reader, IMAGE_NOWHERE, &self, name, sizeof(name)), MEM_E_FAULT);
	close_scene(&s);
}

Test(blocks, callables) {
	image_each(check_callables);
}

/* Generators: the state's number in each version that numbers them. */
enum { CREATED, SUSPENDED, YIELD_FROM, EXECUTING, FINISHED };

static int8_t state_number(const struct image *img, int state) {
	static const int8_t numbers[][5] = { { -2, -1, -1, 0, 1 }, { -3, -2, -1, 0, 1 }, { 0, 1, 2, 4, 5 } };
	uint32_t minor = PY_MINOR(img->rt.reader.version);

	return numbers[minor >= 0x030f ? 2 : minor >= 0x030d ? 1 : 0][state];
}

struct gen_scene {
	struct scene s;
	raddr gen, frame, bytecode;
};

static void open_gen(struct image *img, const char *type, struct gen_scene *g) {
	const struct layout *l = img->l;
	bool within = layout_has(l->gen_frame_state);

	open_scene(img, &g->s);
	g->gen = image_object(img, T_PLAIN, 1024);
	image_put_u64(img, g->gen + l->object_type, new_type(img, type));
	g->frame = within ? g->gen + l->gen_frame : g->s.frame.frame;
	if (!within)
		image_put_u64(img, g->gen + l->gen_frame, g->frame);
	g->s.frame.frame = g->frame;
	if (!layout_has(l->frame_valuestack))
		g->s.base = g->frame + l->frame_localsplus + LOCALS * 8;
	if (layout_has(l->code_code)) {
		g->bytecode = image_bytes(img, "\0\0\0\0\0\0\0\0", 8);
		image_put_u64(img, g->s.frame.code + l->code_code, g->bytecode);
		g->bytecode += l->bytes_data;
	} else {
		g->bytecode = g->s.frame.code + l->code_adaptive;
	}
	image_frame(img, g->frame, 0, g->s.frame.code,
		layout_has(l->frame_lasti) ? PY_MINOR(img->rt.reader.version) == 0x030a ? 1 : 2 : g->bytecode + 2, 1);
}

static void put_state(struct gen_scene *g, int state) {
	struct image *img = g->s.img;
	const struct layout *l = img->l;
	static const uint8_t resume_yield[] = { 151, 1 }, resume_await[] = { 151, 3 },
			     yield_from[] = { OLD_YIELD_FROM, 0 }, other[] = { 1, 3 };
	bool waits = state == YIELD_FROM;

	if (layout_has(l->gen_frame_state))
		image_put_u8(img, g->gen + l->gen_frame_state, (uint8_t)state_number(img, state));
	else if (layout_has(l->frame_state))
		image_put_u8(img, g->frame + l->frame_state, (uint8_t)state_number(img, state));
	else
		image_put_u8(img, g->gen + l->gen_running, state == EXECUTING);
	if (layout_has(l->frame_lasti) && state == CREATED)
		image_put_u32(img, g->frame + l->frame_lasti, (uint32_t)-1);
	if (layout_has(l->code_code))
		image_put(img, g->bytecode + 4, waits ? yield_from : other, 2);
	else
		image_put(img, g->bytecode + 4, waits ? resume_await : resume_yield, 2);
}

/* `n` words in use */
static void put_depth(struct gen_scene *g, uint32_t n) {
	const struct layout *l = g->s.img->l;
	struct image *img = g->s.img;

	if (layout_has(l->frame_stackpointer))
		image_put_u64(img, g->frame + l->frame_stackpointer, g->s.base + n * UINT64_C(8));
	else if (layout_has(l->frame_stacktop))
		image_put_u32(img, g->frame + l->frame_stacktop, LOCALS + n);
	else if (layout_has(l->frame_stackdepth))
		image_put_u32(img, g->frame + l->frame_stackdepth, n);
	else
		image_put_u64(img, g->frame + l->frame_valuestack_top, g->s.base + n * UINT64_C(8));
}

static void expect_gen(struct gen_scene *g, int state, enum py_gen_state expected, raddr awaits) {
	struct py_gen gen;

	put_state(g, state);
	cr_assert_eq(py_gen_read(&g->s.img->rt, g->gen, &gen), 0);
	cr_assert_eq(gen.state, expected);
	cr_assert_eq(gen.awaits, awaits);
	if (expected == PY_GEN_DONE)
		return;
	cr_assert_eq(gen.frame.frame, g->frame);
	cr_assert_eq(gen.frame.code, g->s.frame.code);
	cr_assert_eq(gen.depth_limit, SLOTS);
}

static void check_gen(struct image *img) {
	static const char *const types[] = { "generator", "coroutine", "async_generator" };
	struct gen_scene g;
	raddr awaited;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		unsigned above = PY_MINOR(img->rt.reader.version) >= 0x030f;

		open_gen(img, types[i], &g);
		awaited = image_object(img, T_PLAIN, 64);
		put_slot(&g.s, 2, awaited | has_pairs(&g.s));
		put_depth(&g, 3 + above);
		expect_gen(&g, SUSPENDED, PY_GEN_SUSPENDED, 0);
		expect_gen(&g, YIELD_FROM, PY_GEN_SUSPENDED, awaited);
		expect_gen(&g, EXECUTING, PY_GEN_RUNNING, 0);
		if (layout_has(img->l->gen_frame_state))
			expect_gen(&g, FINISHED, PY_GEN_DONE, 0);
		expect_gen(&g, CREATED, PY_GEN_CREATED, 0);
		if (!layout_has(img->l->gen_frame_state)) {
			image_put_u64(img, g.gen + img->l->gen_frame, 0);
			expect_gen(&g, FINISHED, PY_GEN_DONE, 0);
		}
		close_scene(&g.s);
	}
}

Test(blocks, generators) {
	image_each(check_gen);
}

static void check_wrapped(struct image *img) {
	const struct layout *l = img->l;
	const struct {
		const char *type;
		uint32_t inner;
	} wrappers[] = { { "coroutine_wrapper", l->coro_wrapper_coroutine }, { "async_generator_asend", l->asend_gen },
		{ "async_generator_athrow", l->athrow_gen } };
	struct gen_scene g;
	raddr inner, wrapper;

	open_gen(img, "coroutine", &g);
	put_depth(&g, PY_MINOR(img->rt.reader.version) >= 0x030f ? 2 : 1);
	for (size_t i = 0; i < ARRAY_SIZE(wrappers); i++) {
		inner = image_object(img, T_PLAIN, 64);
		wrapper = new_object(img, new_type(img, wrappers[i].type));
		image_put_u64(img, wrapper + wrappers[i].inner, inner);
		put_slot(&g.s, 0, wrapper);
		expect_gen(&g, YIELD_FROM, PY_GEN_SUSPENDED, inner);
	}
	close_scene(&g.s);
}

Test(blocks, awaits_through_wrappers) {
	image_each(check_wrapped);
}

static void check_bad_gen(struct image *img) {
	static const uint32_t depths[] = { 0, SLOTS + 1, UINT32_MAX / 2 };
	struct gen_scene g;
	struct py_gen gen;

	open_gen(img, "coroutine", &g);
	put_state(&g, YIELD_FROM);
	for (size_t i = 0; i < ARRAY_SIZE(depths); i++) {
		put_depth(&g, depths[i]);
		cr_assert_eq(py_gen_read(&img->rt, g.gen, &gen), PY_E_TORN);
	}
	put_depth(&g, 2); /* of NULL */
	cr_assert_eq(py_gen_read(&img->rt, g.gen, &gen), PY_E_TORN);
	image_put_u64(img, g.frame + img->l->frame_code, 0);
	cr_assert_eq(py_gen_read(&img->rt, g.gen, &gen), PY_E_TORN);
	image_put_u64(img, g.frame + img->l->frame_code, IMAGE_NOWHERE);
	cr_assert_eq(py_gen_read(&img->rt, g.gen, &gen), MEM_E_FAULT);
	cr_assert_eq(py_gen_read(&img->rt, image_object(img, T_PLAIN, 64), &gen), PY_E_TYPE);
	cr_assert_eq(py_gen_read(&img->rt, IMAGE_NOWHERE, &gen), MEM_E_FAULT);
	cr_assert_eq(py_gen_read(&img->rt, 0, &gen), PY_E_TYPE);
	close_scene(&g.s);
}

Test(blocks, generators_that_cannot_be) {
	image_each(check_bad_gen);
}
