/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_ROOTS_MAP_H
#define PYSPYD_LEAKS_ROOTS_MAP_H

#include "engine/base/intern.h"
#include "engine/base/map.h"
#include "engine/cpython/frames.h"
#include "engine/cpython/object_head.h"
#include "engine/leaks/roots.h"

/* What the parts of a root map share: the entries, and what an object leads to. */

#define ROOT_NONE UINT32_MAX
#define ROOT_BATCH 512 /* objects that are gone into with one read */

/* How an object was reached. What `key` is stands behind each. */
enum root_edge {
	/* roots */
	EDGE_START,  /* where root_step begins */
	EDGE_MODULE, /* its name, interned */
	EDGE_FRAME,  /* no object: function and thread, interned, low and high half */
	/* hidden: Python code does not write them, but as the last step of a path */
	EDGE_NAMESPACE,  /* the dict of attributes */
	EDGE_CLOSURE,    /* a function's tuple of cells */
	EDGE_CELL,       /* one of them: its index */
	EDGE_DEFAULTS,   /* a function's tuple */
	EDGE_KWDEFAULTS, /* … and dict */
	EDGE_THREADS,    /* the dict of a threading.local, of which each value is a thread's attributes */
	/* plain ones */
	EDGE_ATTRIBUTE, /* key of a dict of attributes */
	EDGE_KEY,       /* key of a dict */
	EDGE_INDEX,     /* of a list or tuple, a number */
	EDGE_ITEM,      /* of a set */
	EDGE_MEMBER,    /* address of the C string that names it */
	EDGE_DEFAULT,   /* index in the tuple of defaults */
	EDGE_KWDEFAULT, /* key of the dict of defaults */
	EDGE_LOCAL,     /* name, interned */
	EDGE_TEXT,      /* enum root_text */
};

/* Steps that are written the same wherever they are. */
enum root_text {
	TEXT_NOTHING, /* behind what is hidden */
	TEXT_CACHE,
	TEXT_RESULT,
	TEXT_CLASS,
	TEXT_BASE,
	TEXT_SELF,
	TEXT_CONTENTS,
	TEXT_AWAITS,
	TEXT_CORO,
	TEXT_ARGS,
	TEXT_TRACEBACK,
	TEXT_CONTEXT,
	TEXT_CAUSE,
	TEXT_NEXT,
};

struct root_entry {
	raddr object;
	uint64_t key;
	uint32_t parent; /* ROOT_NONE: a root */
	uint8_t edge;
	uint8_t steps;
	bool hidden;
};

struct root_map {
	const struct py_runtime *rt;
	VEC(struct root_entry) entries;
	struct map index; /* object → number of its entry */
	struct intern strings;
	size_t limit; /* of entries */
	bool incomplete;
};

enum root_kind {
	KIND_OTHER,
	KIND_NOTHING, /* no references inside */
	KIND_TYPE,
	KIND_MODULE,
	KIND_DICT,
	KIND_LIST,
	KIND_TUPLE,
	KIND_SET,
	KIND_DEQUE,
	KIND_FUNCTION,
	KIND_BUILTIN,
	KIND_CELL,
	KIND_CACHE,      /* functools.lru_cache */
	KIND_CACHE_LINK, /* what the cache's dict holds of each result, where the cache is bounded */
	KIND_GENERATOR,  /* and coroutines */
	KIND_TASK,
	KIND_THREAD_LOCAL,
	KIND_EXCEPTION,
	KIND_TRACEBACK,
	KIND_FRAME,
};

struct root_type {
	struct type_head head;
	enum root_kind kind;
	uint32_t base; /* ROOT_NONE: none that is known */
	raddr keys;    /* names of the attributes that its instances have by number */
	uint32_t members, members_n;
};

/* A member of C that is a reference (PyMemberDef), among them slots. */
struct root_member {
	raddr name; /* a C string */
	uint32_t offset;
};

struct root_types {
	const struct py_reader *py;
	VEC(struct root_type) items;
	VEC(struct root_member) members;
	struct map index; /* address → number + 1; 0: no type */
};

/* The type's number, ROOT_NONE where there is none at the address. The pointer into `items` is good until the next
 * call. Return: 0; MEM_E_GONE; negative errno. */
int root_types_find(struct root_types *types, raddr addr, uint32_t *ret_number);
void root_types_deinit(struct root_types *types);

/* Where a function has what, beside func_code: the order of its members (CPython Include/funcobject.h) has the name
 * before the code from 3.10 on. */
struct root_function_layout {
	uint32_t globals, defaults, kwdefaults, closure;
};
struct root_function_layout root_function_layout(const struct layout *layout);

/* A further name of a global. */
struct root_other {
	uint32_t entry;
	uint32_t parent;
	raddr key;
};

/* What is needed while a map is made. */
struct root_work;
int root_work_new(struct root_map *map, struct root_work **ret_work);
void root_work_free(struct root_work *work);
struct root_types *root_work_types(struct root_work *work);

/* From here on the other names of globals are noted, until the next call, which hands them out: the caller's to free.
 */
void root_work_note_others(struct root_work *work);
void root_work_others(struct root_work *work, struct root_other **ret_others, size_t *ret_n);

/* Whether a container was met that is too long to be gone into. */
bool root_work_met_long(const struct root_work *work);

/* Adds an object, unless it is there or is none. Return: 0; -ENOMEM. */
int root_add(struct root_work *work, raddr object, uint32_t parent, enum root_edge edge, uint64_t key);

/* Adds what these entries lead to; those that are hidden are gone into at once. Return: 0; MEM_E_GONE; -EPERM;
 * -ENOMEM. */
int root_expand(struct root_work *work, const uint32_t *entries, size_t n);

/* The variables of a frame, as children of an entry. Return: as root_expand. */
int root_add_locals(struct root_work *work, const struct py_raw_frame *frame, uint32_t parent);

/* Reads each range by itself, as few calls as may be. Return: 0 and what could be read; MEM_E_GONE; negative errno. */
int root_read_each(struct mem *mem, const struct mem_range *ranges, size_t n, bool *ret_ok);

/* Appends the steps from an entry (ROOT_NONE: from its root, with it) to another. Return: 0; MEM_E_GONE; -ENOMEM. */
int root_write(const struct root_map *map, uint32_t entry, struct strbuf *out);

/* Errors that end a walk; the others pass over an object. */
static inline bool root_is_final(int r) {
	return r < 0 || r == MEM_E_GONE;
}

#endif
