/* SPDX-License-Identifier: MIT */
/* Lengths, where each type keeps its own. Builtins that have a flag of their own are told by it; the others by their
 * tp_name, looked for among the classes that the object's is derived from. A queue in Python code is as long as the
 * container in it. */
#include "engine/cpython/length.h"

#include "engine/cpython/locks.h"
#include "engine/cpython/object_head.h"
#include <string.h>

#define BASES_MAX 32
#define NAME_BYTES 64

struct shape {
	uint64_t flag;    /* of tp_flags; 0: by name */
	const char *name; /* tp_name */
	enum { BY_SIZE, BY_USED, BY_SET, BY_TEXT, BY_SIMPLE_QUEUE } where;
};

static const struct shape shapes[] = {
	{ .flag = TYPE_DICT, .where = BY_USED },
	{ .flag = TYPE_LIST | TYPE_TUPLE | TYPE_BYTES, .where = BY_SIZE },
	{ .flag = TYPE_UNICODE, .where = BY_TEXT },
	{ .name = "set", .where = BY_SET },
	{ .name = "frozenset", .where = BY_SET },
	{ .name = "bytearray", .where = BY_SIZE },
	{ .name = "array.array", .where = BY_SIZE },
	{ .name = "collections.deque", .where = BY_SIZE },
	{ .name = "_queue.SimpleQueue", .where = BY_SIMPLE_QUEUE },
};

/* CPython Include/cpython/object.h, the same from 3.6 on: tp_base stands right before tp_dict. */
int py_type_base(const struct py_reader *py, raddr type, raddr *ret_base) {
	return mem_read_u64(py->mem, type + py->layout.type_dict - sizeof(raddr), ret_base);
}

/* A class of Python code may be called `set` too, but has the flag of those made at run time. */
static const struct shape *shape_of(const struct type_head *type, const char *name) {
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		const struct shape *shape = &shapes[i];

		if (shape->flag ? type->flags & shape->flag
				: !strcmp(name, shape->name) && (strchr(name, '.') || !(type->flags & TYPE_HEAP)))
			return shape;
	}
	return NULL;
}

static int length_by_shape(const struct py_reader *py, raddr object, const struct shape *shape, size_t *ret_n) {
	const struct layout *l = &py->layout;
	const uint32_t offsets[] = {
		[BY_SIZE] = l->var_size, [BY_USED] = l->dict_used, [BY_SET] = l->set_used, [BY_TEXT] = l->unicode_length
	};
	struct object_head head;
	int r;

	if (shape->where == BY_SIMPLE_QUEUE) {
		r = py_simple_queue_read(py, object, NULL, 0, ret_n);
		return r == PY_E_TRUNCATED ? 0 : r;
	}
	r = object_head_read(py, object, offsets[shape->where] + sizeof(uint64_t), &head);
	return r ? r : object_count(&head, offsets[shape->where], ret_n);
}

bool py_length_knows_queue(const struct py_reader *py, raddr type) {
	static const char *const known[][2] = {
		{ "queue", "Queue" },
		{ "queue", "_PySimpleQueue" },
		{ "asyncio.queues", "Queue" },
	};
	_cleanup_(strbuf_deinit) struct strbuf module = { 0 };
	struct type_head head;
	char name[NAME_BYTES];
	raddr text;

	if (type_head_read(py, type, &head) || !(head.flags & TYPE_HEAP) || !head.dict || !head.name ||
		mem_read_cstr(py->mem, head.name, name, sizeof(name)) ||
		py_dict_get(py, head.dict, "__module__", &text) || py_text_read(py, text, NAME_BYTES, &module))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(strbuf_str(&module), known[i][0]) && !strcmp(name, known[i][1]))
			return true;
	return false;
}

/* queue.Queue keeps its items in `queue`, the others in `_queue`: deques, or lists where they are sorted. */
static int queue_length(const struct py_reader *py, raddr object, size_t *ret_n) {
	struct type_head type;
	char name[NAME_BYTES];
	raddr items, at;
	int r = py_attribute(py, object, "queue", &items);

	if (r == PY_E_TYPE)
		r = py_attribute(py, object, "_queue", &items);
	if (!r)
		r = py_type_of(py, items, &at);
	if (!r)
		r = type_head_read(py, at, &type);
	if (!r)
		r = py_type_name(py, items, name, sizeof(name));
	if (r)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		if (shapes[i].where == BY_SIZE && shape_of(&type, name) == &shapes[i])
			return length_by_shape(py, items, &shapes[i], ret_n);
	return PY_E_TYPE;
}

int py_length_read(const struct py_reader *py, raddr object, size_t *ret_n) {
	raddr type;
	int r = py_type_of(py, object, &type);

	for (int i = 0; !r && type && i < BASES_MAX; i++) {
		const struct shape *shape;
		struct type_head head;
		char name[NAME_BYTES] = "";

		r = type_head_read(py, type, &head);
		if (r)
			return r;
		if (head.name)
			(void)mem_read_cstr(py->mem, head.name, name, sizeof(name));
		shape = shape_of(&head, name);
		if (shape)
			return length_by_shape(py, object, shape, ret_n);
		if (py_length_knows_queue(py, type))
			return queue_length(py, object, ret_n);
		r = py_type_base(py, type, &type);
	}
	return r ? r : PY_E_TYPE;
}
