/* SPDX-License-Identifier: MIT */
/* The `with` blocks that a frame is in, and what lies on its value stack.
 *
 * From 3.11 on the exception table tells. Each instruction has at most one entry, START END TARGET DEPTH LASTI: after
 * an exception there the stack is cut to DEPTH and execution goes on at TARGET. TARGET itself is covered by the entry
 * of the block around, so following targets leads outwards through all the blocks that an instruction is in:
 *
 *     with a:                    L1 to L3 -> L11 [2] lasti      the body of `with a`: its exit is at DEPTH
 *         for i in x:
 *             with b: g()        L3 to L4 -> L7 [5] lasti       the body of `with b`, covered: L7 by the next
 *                                L7 to L9 -> L10 [7] lasti      the handler of `with b`, which calls its exit
 *                                L9 to L11 -> L11 [2] lasti
 *
 * The body of a `with` keeps LASTI and has its exit on top, as a bound method, or from 3.14 on as a pair of function
 * and self. Other blocks that keep LASTI are handlers, with an exception on top. Blocks without LASTI (try, a
 * comprehension in place, an `await` that may be thrown into) have nothing on top that is theirs; an `async with` whose
 * __aenter__ is awaited is only in one of these.
 *
 * To 3.10 the frame has a stack of blocks. That of a `with` is a SETUP_FINALLY whose level is just above the exit.
 *
 * A block counts until its __exit__ is called, be it at its end or after an exception. What an exit is that is neither
 * a method nor a function (an object with __call__) is not told. */
#include "engine/cpython/blocks.h"

#include "engine/base/cursor.h"
#include "engine/base/limits.h"
#include "engine/cpython/object_head.h"
#include "engine/cpython/value_stack.h"
#include <assert.h>
#include <string.h>

#define TABLE_BYTES_MAX (1U << 20)
#define RANGES_MAX (1U << 20) /* kept of all tables together; then it starts anew */
#define VARINT_GROUPS_MAX 5   /* 30 bits: twice the sum of two such numbers fits 32 */
#define LOCALS_MAX (1U << 20)
#define SLOTS_MAX (1U << 20)
#define CHAIN_MAX 256 /* blocks within blocks, handlers too; the compiler allows fewer */
#define TYPES_MAX 4096
#define NAME_BYTES 32 /* longer than any name that matters here */
#define PAIRS_SINCE 0x030e

#define OLD_BLOCKS_MAX 20        /* CPython to 3.10 Include/cpython/code.h, CO_MAXBLOCKS */
#define OLD_BLOCK_TYPE 0         /* offset of b_type, first member of PyTryBlock */
#define OLD_SETUP_FINALLY 122    /* the same opcode from 3.6 to 3.10 */
#define OLD_FRAME_BYTES_MAX 1024 /* of a frame without its variables */

enum callable {
	CALLABLE_NONE,
	CALLABLE_METHOD,
	CALLABLE_BUILTIN,
	CALLABLE_FUNCTION,
	CALLABLE_DESCRIPTOR,
	CALLABLE_PARTIAL,
};

/* An entry of an exception table, in bytes of bytecode. */
struct range {
	uint32_t start, end, target;
	uint32_t depth;
	bool lasti;
};

struct code_blocks {
	struct code_shape shape;
	struct range *ranges; /* ascending, none overlaps another */
	uint32_t ranges_n;
};

struct py_block_cache {
	const struct py_runtime *rt;
	VEC(struct code_blocks) codes;
	struct map index; /* serial → index of codes */
	struct map types; /* address of a type → enum callable */
	size_t ranges;    /* of all codes together */
};

/* Depths of the stack at which an exit may be on top. */
struct depths {
	uint32_t at[CHAIN_MAX];
	size_t n;
};

int py_block_cache_new(const struct py_runtime *rt, struct py_block_cache **ret_cache) {
	struct py_block_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return -ENOMEM;
	cache->rt = rt;
	*ret_cache = cache;
	return 0;
}

static void forget_codes(struct py_block_cache *cache) {
	vec_foreach (code, &cache->codes)
		free(code->ranges);
	cache->codes.n = 0;
	cache->ranges = 0;
	map_clear(&cache->index);
}

void py_block_cache_free(struct py_block_cache *cache) {
	if (!cache)
		return;
	forget_codes(cache);
	vec_free(&cache->codes);
	map_deinit(&cache->index);
	map_deinit(&cache->types);
	free(cache);
}

int code_shape_read(const struct py_reader *py, raddr code, struct code_shape *ret_shape) {
	const struct layout *l = &py->layout;
	struct code_shape shape = { 0 };
	struct mem_range ranges[3] = { { code + l->code_stacksize, sizeof(shape.slots), &shape.slots } };
	size_t n = 1;
	int r;

	if (layout_has(l->code_nlocalsplus))
		ranges[n++] = (struct mem_range){ code + l->code_nlocalsplus, sizeof(shape.locals), &shape.locals };
	if (layout_has(l->code_exceptiontable))
		ranges[n++] = (struct mem_range){ code + l->code_exceptiontable, sizeof(shape.exceptions),
			&shape.exceptions };
	r = mem_read_many(py->mem, ranges, n, NULL);
	if (r)
		return r;
	if (shape.locals > LOCALS_MAX || shape.slots > SLOTS_MAX)
		return PY_E_TORN;
	*ret_shape = shape;
	return 0;
}

/* Callables */

static enum callable callable_named(const char *name) {
	static const struct {
		const char *name;
		enum callable kind;
	} kinds[] = {
		{ "method", CALLABLE_METHOD },
		{ "builtin_function_or_method", CALLABLE_BUILTIN },
		{ "builtin_method", CALLABLE_BUILTIN }, /* with the class that defines it (PEP 573) */
		{ "function", CALLABLE_FUNCTION },
		{ "method_descriptor", CALLABLE_DESCRIPTOR },
		{ "functools.partial", CALLABLE_PARTIAL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i].name, name))
			return kinds[i].kind;
	return CALLABLE_NONE;
}

static int read_kind(const struct py_reader *py, raddr type, enum callable *ret_kind) {
	struct type_head head;
	char name[NAME_BYTES];
	int r = type_head_read(py, type, &head);

	if (!r)
		r = mem_read_cstr(py->mem, head.name, name, sizeof(name));
	if (!r)
		*ret_kind = callable_named(name);
	return r;
}

static int read_text(const struct py_reader *py, raddr object, char *name, size_t size) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	int r = py_text_read(py, object, size - 1, &text);

	if (r && r != PY_E_TRUNCATED)
		return r;
	snprintf(name, size, "%s", strbuf_str(&text));
	return 0;
}

static int read_builtin_name(const struct py_reader *py, const struct object_head *head, char *name, size_t size) {
	uint64_t at;
	int r = mem_read_u64(py->mem, object_u64(head, py->layout.cfunction_ml) + py->layout.methoddef_name, &at);

	return r ? r : mem_read_cstr(py->mem, at, name, size);
}

/* The name of what has no self of its own. Return: 0; PY_E_TYPE; MEM_E_*; -ENOMEM. */
static int read_name(
	const struct py_reader *py, const struct object_head *head, enum callable kind, char *name, size_t size) {
	switch (kind) {
	case CALLABLE_FUNCTION: return read_text(py, object_u64(head, py->layout.func_name), name, size);
	case CALLABLE_DESCRIPTOR: return read_text(py, object_u64(head, py->layout.descr_name), name, size);
	case CALLABLE_BUILTIN: return read_builtin_name(py, head, name, size);
	default: return PY_E_TYPE;
	}
}

/* A method's name is its function's; that of another callable stays empty. */
static int read_method_name(const struct py_reader *py, const struct object_head *method, char *name, size_t size) {
	struct object_head function;
	enum callable kind;
	int r = object_head_read(py, object_u64(method, py->layout.method_func), py->layout.object_size, &function);

	if (!r)
		r = read_kind(py, function.type, &kind);
	if (!r)
		r = read_name(py, &function, kind, name, size);
	if (r != PY_E_TYPE)
		return r;
	name[0] = '\0';
	return 0;
}

static int read_callable(const struct py_reader *py, const struct object_head *head, enum callable kind,
	raddr *ret_self, char *name, size_t size) {
	int r;

	if (kind == CALLABLE_METHOD)
		r = read_method_name(py, head, name, size);
	else
		r = read_name(py, head, kind, name, size);
	if (r)
		return r;
	*ret_self = kind == CALLABLE_METHOD ? object_u64(head, py->layout.method_self)
		: kind == CALLABLE_BUILTIN  ? object_u64(head, py->layout.cfunction_self)
					    : 0;
	return 0;
}

int py_callable_read(const struct py_reader *py, raddr object, raddr *ret_self, char *name, size_t name_size) {
	struct object_head head;
	enum callable kind;
	int r = object_head_read(py, object, py->layout.object_size, &head);

	if (!r)
		r = read_kind(py, head.type, &kind);
	if (!r && kind == CALLABLE_PARTIAL) {
		/* partialobject begins with the function (CPython Modules/_functoolsmodule.c); one of a partial was
		 * taken apart when it was made. */
		r = object_head_read(py, object_u64(&head, py->layout.object_size), py->layout.object_size, &head);
		if (!r)
			r = read_kind(py, head.type, &kind);
	}
	return r ? r : read_callable(py, &head, kind, ret_self, name, name_size);
}

/* Exception tables */

/* Big-endian groups of six bits; the first byte of an entry has the top bit (CPython
 * Objects/exception_handling_notes.txt).
 */
static bool read_varint(struct cursor *c, uint32_t *ret) {
	struct cursor at = *c;
	uint32_t value = 0;
	uint8_t byte;

	for (unsigned groups = 0; groups < VARINT_GROUPS_MAX; groups++) {
		if (!cursor_u8(&at, &byte))
			return false;
		value = value << 6 | (byte & 0x3f);
		if (byte & 0x40)
			continue;
		*ret = value;
		*c = at;
		return true;
	}
	return false;
}

static bool read_range(struct cursor *c, struct range *ret) {
	uint32_t start, length, target, depth;

	if (!read_varint(c, &start) || !read_varint(c, &length) || !read_varint(c, &target) || !read_varint(c, &depth))
		return false;
	*ret = (struct range){ start * 2, (start + length) * 2, target * 2, depth >> 1, depth & 1 };
	return true;
}

static int parse_table(const uint8_t *table, size_t len, struct code_blocks *code) {
	struct cursor c = cursor_of(table, len);
	VEC(struct range) ranges = { 0 };
	struct range range;
	uint32_t end = 0;
	int r = 0;

	while (!r && cursor_left(&c)) {
		if (!read_range(&c, &range) || range.start < end || range.depth > code->shape.slots)
			r = PY_E_TORN;
		else
			r = vec_push(&ranges, range);
		end = r ? end : range.end;
	}
	if (r) {
		vec_free(&ranges);
		return r;
	}
	code->ranges = ranges.items;
	code->ranges_n = (uint32_t)ranges.n;
	return 0;
}

static int read_code(const struct py_reader *py, raddr addr, struct code_blocks *ret) {
	uint8_t *table _free_ = NULL;
	struct code_blocks code = { 0 };
	size_t len;
	int r = code_shape_read(py, addr, &code.shape);

	if (!r)
		r = py_bytes_read(py, code.shape.exceptions, TABLE_BYTES_MAX, &table, &len);
	if (!r)
		r = parse_table(table, len, &code);
	if (r)
		return r == PY_E_TYPE || r == PY_E_TRUNCATED ? PY_E_TORN : r;
	*ret = code;
	return 0;
}

static int look_up_code(
	struct py_block_cache *cache, raddr addr, uint64_t serial, const struct code_blocks **ret_code) {
	struct code_blocks code;
	uint64_t at;
	int r;

	if (map_get(&cache->index, serial, &at)) {
		*ret_code = &cache->codes.items[at];
		return 0;
	}
	if (cache->codes.n >= LIMIT_CODES || cache->ranges >= RANGES_MAX)
		forget_codes(cache);
	r = read_code(&cache->rt->reader, addr, &code);
	if (r)
		return r;
	r = vec_push(&cache->codes, code);
	if (r) {
		free(code.ranges);
		return r;
	}
	r = map_put(&cache->index, serial, cache->codes.n - 1);
	if (r) {
		free(code.ranges);
		cache->codes.n--;
		return r;
	}
	cache->ranges += code.ranges_n;
	*ret_code = &cache->codes.items[cache->codes.n - 1];
	return 0;
}

static const struct range *find_range(const struct code_blocks *code, uint32_t offset) {
	uint32_t low = 0, high = code->ranges_n;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (code->ranges[middle].end <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low < code->ranges_n && code->ranges[low].start <= offset ? &code->ranges[low] : NULL;
}

/* Innermost first. A table that leads in circles ends with the chain's limit. */
static void find_depths(const struct code_blocks *code, int64_t offset, struct depths *ret) {
	uint32_t outer = UINT32_MAX; /* depth of the block inside: that of the next one can only be less */
	uint32_t live = UINT32_MAX;  /* slots that are there now and survive so far out */
	const struct range *range;

	if (offset < 0 || offset > UINT32_MAX)
		return;
	range = find_range(code, (uint32_t)offset);
	for (size_t i = 0; range && i < CHAIN_MAX; i++, range = find_range(code, range->target)) {
		if (range->depth > live) /* the handler's own: not there yet */
			continue;
		live = range->depth;
		if (!range->lasti || !range->depth || range->depth >= outer)
			continue;
		outer = range->depth;
		ret->at[ret->n++] = outer;
	}
}

static void reverse(struct depths *depths) {
	for (size_t i = 0; i < depths->n / 2; i++) {
		uint32_t swapped = depths->at[i];

		depths->at[i] = depths->at[depths->n - 1 - i];
		depths->at[depths->n - 1 - i] = swapped;
	}
}

/* To 3.10: outermost first. Return: 0; PY_E_TORN; MEM_E_*. */
static int read_depths(const struct py_reader *py, raddr frame, struct depths *ret, raddr *ret_base) {
	const struct layout *l = &py->layout;
	uint8_t bytes[OLD_FRAME_BYTES_MAX];
	size_t len = l->frame_blockstack + (size_t)OLD_BLOCKS_MAX * l->tryblock_size;
	uint32_t n, level, below = 0;
	int r;

	assert(len <= sizeof(bytes));
	r = mem_read(py->mem, frame, bytes, len);
	if (r)
		return r;
	n = peek_u32(bytes, len, l->frame_iblock);
	if (n > OLD_BLOCKS_MAX)
		return PY_E_TORN;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t block = l->frame_blockstack + (uint64_t)i * l->tryblock_size;

		level = peek_u32(bytes, len, block + l->tryblock_level);
		if (level > SLOTS_MAX || level < below)
			return PY_E_TORN;
		/* a `try` right inside a `with` has the same level */
		if (peek_u32(bytes, len, block + OLD_BLOCK_TYPE) == OLD_SETUP_FINALLY && level > below)
			ret->at[ret->n++] = level;
		below = level;
	}
	*ret_base = peek_u64(bytes, len, l->frame_valuestack);
	return 0;
}

/* Blocks */

static int kind_of(struct py_block_cache *cache, const struct object_head *head, enum callable *ret_kind) {
	uint64_t kind;
	int r;

	if (map_get(&cache->types, head->type, &kind)) {
		*ret_kind = (enum callable)kind;
		return 0;
	}
	if (cache->types.n >= TYPES_MAX)
		map_clear(&cache->types);
	r = read_kind(&cache->rt->reader, head->type, ret_kind);
	return r || head->type == UINT64_MAX ? r : map_put(&cache->types, head->type, *ret_kind);
}

/* Return: 0, PY_E_TYPE where the slots hold no exit, MEM_E_*, -ENOMEM. `slots` are the topmost two, the upper one last.
 */
static int read_exit(struct py_block_cache *cache, const uint64_t *slots, struct py_block *ret) {
	const struct py_reader *py = &cache->rt->reader;
	bool pairs = PY_MINOR(py->version) >= PAIRS_SINCE;
	struct object_head head;
	char name[NAME_BYTES];
	raddr callable, self = 0, bound;
	enum callable kind;
	int r;

	if (!slot_object(py, slots[pairs ? 0 : 1], &callable) ||
		(pairs && py_untag(slots[1]) && !slot_object(py, slots[1], &self)))
		return PY_E_TYPE;
	r = object_head_read(py, callable, py->layout.object_size, &head);
	if (!r)
		r = kind_of(cache, &head, &kind);
	if (r)
		return r;
	if (self ? kind != CALLABLE_FUNCTION && kind != CALLABLE_DESCRIPTOR
		 : kind != CALLABLE_METHOD && kind != CALLABLE_BUILTIN)
		return PY_E_TYPE;
	r = read_callable(py, &head, kind, &bound, name, sizeof(name));
	if (r)
		return r;
	self = self ? self : bound;
	if (!self)
		return PY_E_TYPE;
	*ret = (struct py_block){ .manager = self, .is_async = !strcmp(name, "__aexit__") };
	return 0;
}

/* One read for the slots of all candidates. */
static int read_slots(const struct py_reader *py, raddr base, const struct depths *depths, uint64_t (*slots)[2]) {
	struct mem_range ranges[CHAIN_MAX];

	static_assert(CHAIN_MAX <= MEM_RANGES_MAX, "one read");
	for (size_t i = 0; i < depths->n; i++) {
		size_t n = min_of(depths->at[i], 2U);

		slots[i][0] = 0;
		ranges[i] = (struct mem_range){ base + ((uint64_t)depths->at[i] - n) * sizeof(uint64_t),
			n * sizeof(uint64_t), &slots[i][2 - n] };
	}
	return mem_read_many(py->mem, ranges, depths->n, NULL);
}

int py_blocks_read(struct py_block_cache *cache, const struct py_raw_frame *frame, uint64_t code_serial, int64_t offset,
	struct py_block *ret_blocks, size_t *ret_n) {
	const struct py_reader *py = &cache->rt->reader;
	const struct code_blocks *code;
	struct py_block blocks[PY_BLOCKS_MAX];
	uint64_t slots[CHAIN_MAX][2];
	struct depths depths = { .n = 0 };
	raddr base = 0;
	size_t n = 0;
	int r;

	if (layout_has(py->layout.code_exceptiontable)) {
		r = look_up_code(cache, frame->code, code_serial, &code);
		if (!r) {
			find_depths(code, offset, &depths);
			reverse(&depths);
			base = value_stack_in(py, frame->frame, &code->shape);
		}
	} else {
		r = read_depths(py, frame->frame, &depths, &base);
	}
	if (!r && depths.n)
		r = read_slots(py, base, &depths, slots);
	for (size_t i = 0; !r && i < depths.n && n < PY_BLOCKS_MAX; i++) {
		r = read_exit(cache, slots[i], &blocks[n]);
		n += !r;
		r = r == PY_E_TYPE ? 0 : r;
	}
	if (r)
		return r;
	memcpy(ret_blocks, blocks, n * sizeof(blocks[0]));
	*ret_n = n;
	return 0;
}

int py_stack_references(
	const struct py_runtime *rt, const struct py_raw_frame *frame, raddr *ret_objects, size_t max, size_t *ret_n) {
	const struct py_reader *py = &rt->reader;
	struct code_shape shape;
	uint64_t slots[128];
	raddr base;
	size_t n = 0;
	int r = code_shape_read(py, frame->code, &shape);

	if (r)
		return r;
	base = value_stack_in(py, frame->frame, &shape);
	if (layout_has(py->layout.frame_valuestack))
		r = mem_read_u64(py->mem, frame->frame + py->layout.frame_valuestack, &base);
	for (uint32_t done = 0; !r && done < shape.slots && n < max; done += ARRAY_SIZE(slots)) {
		size_t some = min_of(shape.slots - done, (uint32_t)ARRAY_SIZE(slots));

		r = mem_read(py->mem, base + (uint64_t)done * sizeof(slots[0]), slots, some * sizeof(slots[0]));
		for (size_t i = 0; !r && i < some && n < max; i++)
			n += slot_object(py, slots[i], &ret_objects[n]);
	}
	if (r)
		return r;
	*ret_n = n;
	return 0;
}
