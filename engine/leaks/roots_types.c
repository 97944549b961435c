/* SPDX-License-Identifier: MIT */
/* Types of the objects near the roots: what is gone into, and by which way. Each is read once.
 *
 * Slots and the members of C types stand in the same table, tp_members, which each type has of its own; what those that
 * it is derived from have comes on top. tp_base leads to all that have any, since only one base may have a layout of
 * its own. */
#include "engine/leaks/roots_map.h"

#include <string.h>

#define TYPE_READY (1UL << 12)
#define TYPE_TYPE (1UL << 31)
#define SANE_BYTES (1 << 20)
#define TYPES_MAX (1U << 17)
#define MEMBERS_MAX 64  /* of one type */
#define MEMBERS_BATCH 8 /* read at once */
#define BASES_MAX 32
#define NAME_BYTES 64
#define MEMBER_NAME_BYTES 32

/* CPython Include/cpython/object.h, the same from 3.6 on: {…, tp_members, tp_getset, tp_base, tp_dict, …}. */
#define MEMBERS_BEFORE_DICT 24
#define BASE_BEFORE_DICT 8

/* CPython Include/structmember.h: members that are references */
#define MEMBER_OBJECT 6
#define MEMBER_OBJECT_EX 16

static const struct {
	const char *name;
	enum root_kind kind;
} kinds[] = {
	{ "module", KIND_MODULE },
	{ "set", KIND_SET },
	{ "frozenset", KIND_SET },
	{ "collections.deque", KIND_DEQUE },
	{ "function", KIND_FUNCTION },
	{ "builtin_function_or_method", KIND_BUILTIN },
	{ "cell", KIND_CELL },
	{ "functools._lru_cache_wrapper", KIND_CACHE },
	{ "functools._lru_list_elem", KIND_CACHE_LINK },
	{ "generator", KIND_GENERATOR },
	{ "coroutine", KIND_GENERATOR },
	{ "async_generator", KIND_GENERATOR },
	{ "_asyncio.Task", KIND_TASK },
	{ "float", KIND_NOTHING },
	{ "complex", KIND_NOTHING },
	{ "NoneType", KIND_NOTHING },
	{ "ellipsis", KIND_NOTHING },
	{ "NotImplementedType", KIND_NOTHING },
	{ "bytearray", KIND_NOTHING },
	{ "code", KIND_NOTHING },
	{ "frame", KIND_FRAME },
	{ "traceback", KIND_TRACEBACK },
	{ "BaseException", KIND_EXCEPTION },
	{ "_thread._local", KIND_THREAD_LOCAL },
	{ "member_descriptor", KIND_NOTHING },
	{ "getset_descriptor", KIND_NOTHING },
	{ "method_descriptor", KIND_NOTHING },
	{ "wrapper_descriptor", KIND_NOTHING },
	{ "classmethod_descriptor", KIND_NOTHING },
};

/* A class of Python code may be called `cell` too, but has the flag of those made at run time, and no dot. */
static enum root_kind kind_of(const struct type_head *head, const char *name) {
	if (head->flags & (TYPE_LONG | TYPE_BYTES | TYPE_UNICODE))
		return KIND_NOTHING;
	if (head->flags & TYPE_TYPE)
		return KIND_TYPE;
	if (head->flags & TYPE_DICT)
		return KIND_DICT;
	if (head->flags & TYPE_LIST)
		return KIND_LIST;
	if (head->flags & TYPE_TUPLE)
		return KIND_TUPLE;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(name, kinds[i].name) && (strchr(name, '.') || !(head->flags & TYPE_HEAP)))
			return kinds[i].kind;
	return KIND_OTHER;
}

/* Members that say where an object comes from, and those that a function is gone into by another way. */
static bool is_wanted(enum root_kind kind, const char *name) {
	static const char *const unwanted[] = { "__doc__", "__module__", "__name__", "__qualname__", "__objclass__",
		"__text_signature__", "__builtins__", "__dict__", "__closure__", "__globals__", "f_code", "f_globals",
		"f_builtins" };

	for (size_t i = 0; i < ARRAY_SIZE(unwanted); i++)
		if (!strcmp(name, unwanted[i]))
			return false;
	return kind != KIND_TYPE;
}

static int add_member(struct root_types *types, struct root_type *type, const uint64_t def[]) {
	char name[MEMBER_NAME_BYTES];
	int r = mem_read_cstr(types->py->mem, def[0], name, sizeof(name));

	if (r || !is_wanted(type->kind, name))
		return root_is_final(r) ? r : 0;
	r = vec_push(&types->members, (struct root_member){ .name = def[0], .offset = (uint32_t)def[2] });
	type->members_n += !r;
	return r;
}

/* A PyMemberDef is {name, int type, offset, int flags, doc}; the one behind the last has no name. */
static int read_members(struct root_types *types, struct root_type *type) {
	uint64_t table, defs[5];
	int r = mem_read_u64(
		types->py->mem, type->head.addr + types->py->layout.type_dict - MEMBERS_BEFORE_DICT, &table);

	type->members = (uint32_t)types->members.n;
	for (unsigned i = 0; !r && table && i < MEMBERS_MAX; i++) {
		uint32_t kind;

		r = mem_read(types->py->mem, table + i * sizeof(defs), defs, sizeof(defs));
		if (r || !defs[0])
			break;
		kind = (uint32_t)defs[1];
		if ((kind == MEMBER_OBJECT || kind == MEMBER_OBJECT_EX) && defs[2] < SANE_BYTES)
			r = add_member(types, type, defs);
	}
	return root_is_final(r) ? r : 0;
}

static bool is_sane(const struct py_reader *py, const struct type_head *head) {
	return head->basicsize >= (int64_t)py->layout.object_size && head->basicsize <= SANE_BYTES &&
		head->itemsize >= 0 && head->itemsize <= SANE_BYTES && head->dictoffset >= -SANE_BYTES &&
		head->dictoffset <= SANE_BYTES;
}

static int read_type(const struct py_reader *py, raddr addr, struct root_type *ret, char *name, raddr *ret_base) {
	int r = type_head_read(py, addr, &ret->head);

	if (!r && !is_sane(py, &ret->head))
		r = PY_E_TYPE;
	if (!r)
		r = ret->head.name ? mem_read_cstr(py->mem, ret->head.name, name, NAME_BYTES) : PY_E_TYPE;
	/* To 3.9 this one is used without PyType_Ready. */
	if (!r && !(ret->head.flags & TYPE_READY) && strcmp(name, "functools._lru_list_elem") != 0)
		r = PY_E_TYPE;
	if (!r)
		r = mem_read_u64(py->mem, addr + py->layout.type_dict - BASE_BEFORE_DICT, ret_base);
	if (!r && ret->head.flags & TYPE_MANAGED_DICT && layout_has(py->layout.heaptype_cached_keys) &&
		mem_read_u64(py->mem, addr + py->layout.heaptype_cached_keys, &ret->keys))
		ret->keys = 0;
	if (!r)
		ret->kind = kind_of(&ret->head, name);
	return r;
}

/* Adds one type whose base is known by then, or is none. */
static int add_type(struct root_types *types, raddr addr, uint32_t base) {
	struct root_type type = { .base = base };
	char name[NAME_BYTES];
	raddr unused;
	int r = read_type(types->py, addr, &type, name, &unused);

	if (r)
		return root_is_final(r) ? r : map_put(&types->index, addr, 0);
	if (type.kind == KIND_OTHER && base != ROOT_NONE)
		type.kind = types->items.items[base].kind;
	r = read_members(types, &type);
	if (!r)
		r = vec_push(&types->items, type);
	return r ? r : map_put(&types->index, addr, types->items.n);
}

static bool find_known(const struct root_types *types, raddr addr, uint32_t *ret_number) {
	uint64_t value;

	if (!map_get(&types->index, addr, &value))
		return false;
	*ret_number = value ? (uint32_t)value - 1 : ROOT_NONE;
	return true;
}

int root_types_find(struct root_types *types, raddr addr, uint32_t *ret_number) {
	struct root_type type;
	raddr chain[BASES_MAX];
	char name[NAME_BYTES];
	uint32_t number = ROOT_NONE;
	size_t n = 0;
	int r = 0;

	if (find_known(types, addr, ret_number))
		return 0;
	*ret_number = ROOT_NONE;
	if (types->index.n >= TYPES_MAX)
		return 0;
	/* What an object that is being freed has in its type's place may be any number. */
	while (addr && addr % 8 == 0 && n < BASES_MAX && !find_known(types, addr, &number)) {
		chain[n++] = addr;
		r = read_type(types->py, addr, &type, name, &addr);
		if (root_is_final(r))
			return r;
		if (r)
			break;
	}
	for (r = 0; !r && n; n--) {
		/* A chain that leads back into itself names a type twice. */
		if (!find_known(types, chain[n - 1], &number))
			r = add_type(types, chain[n - 1], number);
		if (!r)
			(void)find_known(types, chain[n - 1], &number);
	}
	if (!r)
		*ret_number = number;
	return r;
}

void root_types_deinit(struct root_types *types) {
	vec_free(&types->items);
	vec_free(&types->members);
	map_deinit(&types->index);
}

struct root_function_layout root_function_layout(const struct layout *l) {
	uint32_t code = l->function_code;

	if (code < l->func_name)
		return (struct root_function_layout){ code + 8, code + 16, code + 24, code + 32 };
	return (struct root_function_layout){ l->object_size, code + 8, code + 16, code + 24 };
}
