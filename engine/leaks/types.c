/* SPDX-License-Identifier: MIT */
/* A type is what has a name, sane sizes, the flag of those that are ready, and a type of its own whose types lead to
 * one that is its own: `type`. What is not one is remembered too, since the same words come again and again. */
#include "engine/leaks/types.h"

#include <string.h>

#define V3_8 0x03080000
#define V3_11 0x030b0000
#define V3_12 0x030c0000

#define TYPE_READY (1UL << 12)
#define TYPE_MANAGED_WEAKREF (1UL << 3) /* 3.12+ */
#define META_DEPTH 8
#define SIZE_MAX_SANE (1 << 20)
#define NAME_BYTES 32
#define GC_HEAD 16
#define GC_HEAD_OLD 32 /* to 3.7 */
#define MANAGED_HEAD 16
#define TYPES_MAX (1U << 18)
#define REFUSED_MAX (1U << 20)

uint32_t gc_head_bytes(const struct py_reader *py) {
	if (py->flavour & LAYOUT_FREE_THREADED)
		return 0;
	return py->version < V3_8 ? GC_HEAD_OLD : GC_HEAD;
}

void heap_types_init(struct heap_types *types, const struct py_reader *py, struct regions *regions) {
	*types = (struct heap_types){ .py = py, .regions = regions };
}

void heap_types_deinit(struct heap_types *types) {
	vec_free(&types->items);
	map_deinit(&types->index);
}

static int head_of(const struct py_reader *py, raddr addr, struct type_head *ret) {
	int r = type_head_read(py, addr, ret);

	if (r)
		return r;
	if (!(ret->flags & TYPE_READY) || ret->basicsize < (int64_t)py->layout.object_size ||
		ret->basicsize > SIZE_MAX_SANE || ret->itemsize < 0 || ret->itemsize > SIZE_MAX_SANE)
		return PY_E_TYPE;
	return 0;
}

/* Return: 0; PY_E_TYPE; as mem_read_many. */
static int check_meta(const struct py_reader *py, raddr type) {
	struct type_head head;
	raddr meta;
	int r = 0;

	for (unsigned i = 0; i < META_DEPTH; i++, type = meta) {
		r = mem_read_u64(py->mem, type + py->layout.object_type, &meta);
		if (!r && meta == type)
			return i ? 0 : PY_E_TYPE; /* the caller knows what `type` itself is */
		if (!r)
			r = head_of(py, meta, &head);
		if (!r && !(head.flags & TYPE_SUBCLASS))
			r = PY_E_TYPE;
		if (r)
			return r;
	}
	return PY_E_TYPE;
}

static uint32_t bytes_before(const struct py_reader *py, uint64_t flags) {
	uint32_t version = py->version;
	uint64_t managed = version < V3_11 ? 0
		: version < V3_12          ? TYPE_MANAGED_DICT
					   : TYPE_MANAGED_DICT | TYPE_MANAGED_WEAKREF;
	uint32_t before = flags & managed ? MANAGED_HEAD : 0;

	if (flags & TYPE_GC)
		before += gc_head_bytes(py);
	return before;
}

static enum heap_kind kind_of(const struct type_head *head, const char *name) {
	if (head->flags & TYPE_LIST)
		return HEAP_LIST;
	if (head->flags & TYPE_TUPLE)
		return HEAP_TUPLE;
	if (head->flags & TYPE_DICT)
		return HEAP_DICT;
	if (head->flags & (TYPE_BYTES | TYPE_UNICODE))
		return HEAP_TEXT;
	if (!strcmp(name, "collections.deque"))
		return HEAP_DEQUE;
	if (!strcmp(name, "array.array"))
		return HEAP_ARRAY;
	if (head->flags & TYPE_HEAP)
		return HEAP_OTHER;
	if (!strcmp(name, "set") || !strcmp(name, "frozenset"))
		return HEAP_SET;
	if (!strcmp(name, "bytearray"))
		return HEAP_BYTEARRAY;
	if (!strcmp(name, "numpy.ndarray"))
		return HEAP_NDARRAY;
	return HEAP_OTHER;
}

static int check(const struct py_reader *py, raddr addr, struct heap_type *ret) {
	struct type_head head;
	char name[NAME_BYTES];
	raddr meta;
	int r = head_of(py, addr, &head);

	if (!r)
		r = mem_read_u64(py->mem, addr + py->layout.object_type, &meta);
	if (!r && meta != addr)
		r = check_meta(py, addr);
	else if (!r && !(head.flags & TYPE_SUBCLASS))
		r = PY_E_TYPE;
	if (!r)
		r = head.name ? mem_read_cstr(py->mem, head.name, name, sizeof(name)) : PY_E_TYPE;
	if (!r && (unsigned char)name[0] <= ' ')
		r = PY_E_TYPE;
	if (r)
		return r;
	*ret = (struct heap_type){
		.head = head,
		.kind = kind_of(&head, name),
		.before = bytes_before(py, head.flags),
	};
	return 0;
}

static int add(struct heap_types *types, raddr addr) {
	struct heap_type type;
	int r;

	if (types->items.n >= TYPES_MAX || types->index.n >= REFUSED_MAX) {
		types->incomplete = true;
		return 0;
	}
	r = check(types->py, addr, &type);
	if (r == PY_E_TYPE || r == MEM_E_FAULT)
		return map_put(&types->index, addr, 0);
	if (!r)
		r = vec_push(&types->items, type);
	return r ? r : map_put(&types->index, addr, types->items.n);
}

int heap_types_find(struct heap_types *types, raddr addr, uint32_t *ret_number) {
	const struct region *region;
	uint64_t number = 0;
	int r;

	if (addr == types->last && addr) {
		*ret_number = types->last_number;
		return 0;
	}
	region = addr % 8 ? NULL : regions_find(types->regions, addr);
	if (!region || (!types->in_pools && region_is_pool(region, addr, types->regions->pool_bytes))) {
		*ret_number = TYPE_NONE;
		return 0;
	}
	if (!map_get(&types->index, addr, &number)) {
		r = add(types, addr);
		if (r)
			return r;
		map_get(&types->index, addr, &number);
	}
	types->last = addr;
	types->last_number = number ? (uint32_t)(number - 1) : TYPE_NONE;
	*ret_number = types->last_number;
	return 0;
}
