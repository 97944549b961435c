/* SPDX-License-Identifier: MIT */
/* From objects to what they refer to, many at once: their heads are read together, then the tables of keys of all their
 * dicts, then all entries and items.
 *
 * What Python code does not write between an object and what it has (the dict of attributes, the tuples of a function,
 * cells) is gone into at once, so that it costs no step; attributes of classes first, so that a class is preferred to
 * its instances. What is of another form than its type says is passed over. */
#include "engine/leaks/roots_map.h"

#include "engine/cpython/blocks.h"
#include "engine/cpython/locals.h"
#include "engine/cpython/locks.h"
#include <assert.h>
#include <string.h>

#define V3_11 0x030b0000
#define V3_12 0x030c0000
#define V3_13 0x030d0000

#define BEFORE_BYTES 32 /* of what lies before an object: managed dicts */
#define HEAD_BYTES 320
#define KEYS_HEAD_BYTES 64
#define NAMESPACE_MAX 16384     /* attributes of one object */
#define CELLS_MAX 256           /* of one function */
#define ENTRIES_PER_ITEM 4      /* deleted ones stay in a dict's table */
#define ARENA_WORDS (64U << 10) /* read at once; holds the largest table */
#define BASES_MAX 32
#define LOG2_SIZE_MAX 16
#define VAR_ITEMS_MAX (UINT64_C(1) << 32)
#define VALUES_HEAD_BYTES 8 /* 3.13+: capacity, size, embedded, valid, padding */
#define VALUES_VALID_BYTE 3
#define KEYS_GENERAL 0
#define KEYS_SPLIT 2

static_assert(NAMESPACE_MAX * 3 <= ARENA_WORDS, "the largest table fits");

struct node {
	uint32_t entry;
	uint32_t type;
	bool known;
	size_t len;                               /* of the head */
	bool has_before;                          /* what lies before the object was read too */
	uint8_t bytes[BEFORE_BYTES + HEAD_BYTES]; /* the object begins at BEFORE_BYTES */
};

/* A dict, or an instance's values. */
struct dict_job {
	raddr keys, values; /* values: 0 they stand with the keys */
	uint32_t parent;
	uint8_t edge;
	size_t max; /* entries; of more none */
};

/* References in a row: n times `words`, of which the last is the reference and the one before its key. */
struct span_job {
	raddr addr, values;
	uint32_t parent;
	uint8_t edge;
	uint8_t words; /* 1: the key is the index */
	size_t n;
};

struct root_work {
	struct root_map *map;
	const struct py_reader *py;
	struct root_types types;
	struct root_function_layout function;
	VEC(struct dict_job) dicts;
	VEC(struct span_job) spans;
	VEC(uint32_t) hidden; /* entries to go into */
	VEC(struct root_other) others;
	bool notes_others;
	bool met_long;
	struct node nodes[ROOT_BATCH];        /* of root_expand */
	struct node hidden_nodes[ROOT_BATCH]; /* of what is hidden behind them */
	uint64_t arena[ARENA_WORDS];
	raddr items[ROOT_ITEMS];
};

int root_work_new(struct root_map *map, struct root_work **ret_work) {
	struct root_work *work = calloc(1, sizeof(*work));

	if (!work)
		return -ENOMEM;
	work->map = map;
	work->py = &map->rt->reader;
	work->types.py = work->py;
	work->function = root_function_layout(&work->py->layout);
	*ret_work = work;
	return 0;
}

void root_work_free(struct root_work *work) {
	if (!work)
		return;
	root_types_deinit(&work->types);
	vec_free(&work->dicts);
	vec_free(&work->spans);
	vec_free(&work->hidden);
	vec_free(&work->others);
	free(work);
}

struct root_types *root_work_types(struct root_work *work) {
	return &work->types;
}

void root_work_note_others(struct root_work *work) {
	work->notes_others = true;
}

void root_work_others(struct root_work *work, struct root_other **ret_others, size_t *ret_n) {
	*ret_others = work->others.items;
	*ret_n = work->others.n;
	work->others.items = NULL;
	work->others.n = work->others.cap = 0;
	work->notes_others = false;
}

bool root_work_met_long(const struct root_work *work) {
	return work->met_long;
}

int root_read_each(struct mem *mem, const struct mem_range *ranges, size_t n, bool *ret_ok) {
	memset(ret_ok, 0, n * sizeof(*ret_ok));
	for (size_t at = 0, done = 0; at < n; at += done) {
		size_t some = min_of(n - at, (size_t)MEM_RANGES_MAX);
		int r = mem_read_many(mem, ranges + at, some, &done);

		if (r && r != MEM_E_FAULT)
			return r;
		done = r ? min_of(done, some - 1) : some;
		memset(ret_ok + at, true, done);
		done += r == MEM_E_FAULT;
	}
	return 0;
}

/* Adding */

static bool is_object_address(uint64_t word) {
	return word >= 4096 && !(word & 7) && word < UINT64_C(1) << 56;
}

static int add_other(struct root_work *work, uint32_t entry, uint32_t parent, enum root_edge edge, uint64_t key) {
	if (!work->notes_others || edge != EDGE_ATTRIBUTE || work->map->entries.items[entry].edge != EDGE_ATTRIBUTE)
		return 0;
	return vec_push(&work->others, (struct root_other){ .entry = entry, .parent = parent, .key = key });
}

static bool is_hidden(enum root_edge edge) {
	return edge >= EDGE_NAMESPACE && edge <= EDGE_THREADS;
}

int root_add(struct root_work *work, raddr object, uint32_t parent, enum root_edge edge, uint64_t key) {
	struct root_map *map = work->map;
	struct root_entry entry = {
		.object = object, .key = key, .parent = parent, .edge = (uint8_t)edge, .hidden = is_hidden(edge)
	};
	uint64_t known;
	int r;

	if (!is_object_address(object))
		return 0;
	if (map_get(&map->index, object, &known))
		return add_other(work, (uint32_t)known, parent, edge, key);
	if (map->entries.n >= map->limit) {
		map->incomplete = true;
		return 0;
	}
	if (parent != ROOT_NONE)
		entry.steps = (uint8_t)(map->entries.items[parent].steps + !entry.hidden);
	r = vec_push(&map->entries, entry);
	if (!r)
		r = map_put(&map->index, object, map->entries.n - 1);
	if (!r && entry.hidden)
		r = vec_push(&work->hidden, (uint32_t)map->entries.n - 1);
	return r;
}

/* Reading what was found */

static int keys_sizes(const struct layout *l, const uint8_t *head, uint64_t *ret_slots, uint64_t *ret_index_bytes) {
	size_t len = l->keys_indices;
	uint64_t size;
	uint8_t log2_size, log2_bytes;

	if (layout_has(l->keys_size)) { /* to 3.10: the index's width follows from its size */
		size = peek_u64(head, len, l->keys_size);
		*ret_slots = size;
		*ret_index_bytes = size * (size <= 0xff ? 1 : size <= 0xffff ? 2 : 4);
		return size <= UINT64_C(1) << LOG2_SIZE_MAX ? 0 : PY_E_TYPE;
	}
	log2_size = peek_u8(head, len, l->keys_log2_size);
	log2_bytes = peek_u8(head, len, l->keys_log2_index_bytes);
	if (log2_size > LOG2_SIZE_MAX || log2_bytes > LOG2_SIZE_MAX + 2)
		return PY_E_TYPE;
	*ret_slots = UINT64_C(1) << log2_size;
	*ret_index_bytes = UINT64_C(1) << log2_bytes;
	return 0;
}

static int add_table(struct root_work *work, const struct dict_job *job, const uint8_t *head) {
	const struct layout *l = &work->py->layout;
	uint64_t slots, index_bytes, n = peek_u64(head, l->keys_indices, l->keys_nentries);
	unsigned kind = layout_has(l->keys_kind) ? peek_u8(head, l->keys_indices, l->keys_kind) : KEYS_GENERAL;

	if (keys_sizes(l, head, &slots, &index_bytes) || kind > KEYS_SPLIT || n > slots || n > job->max || !n)
		return 0;
	return vec_push(&work->spans,
		(struct span_job){
			.addr = job->keys + l->keys_indices + index_bytes,
			.values = job->values,
			.parent = job->parent,
			.edge = job->edge,
			.words = kind == KEYS_GENERAL ? 3 : 2,
			.n = n,
		});
}

static int read_tables(struct root_work *work) {
	uint8_t heads[ROOT_BATCH][KEYS_HEAD_BYTES];
	struct mem_range ranges[ROOT_BATCH];
	bool ok[ROOT_BATCH];
	int r = work->py->layout.keys_indices <= KEYS_HEAD_BYTES ? 0 : PY_E_TYPE;

	for (size_t at = 0, n; !r && at < work->dicts.n; at += n) {
		const struct dict_job *jobs = work->dicts.items + at;

		n = min_of(work->dicts.n - at, (size_t)ROOT_BATCH);
		for (size_t i = 0; i < n; i++)
			ranges[i] = (struct mem_range){ jobs[i].keys, work->py->layout.keys_indices, heads[i] };
		r = root_read_each(work->py->mem, ranges, n, ok);
		for (size_t i = 0; !r && i < n; i++)
			if (ok[i])
				r = add_table(work, &jobs[i], heads[i]);
	}
	work->dicts.n = 0;
	return r == PY_E_TYPE ? 0 : r;
}

static int add_span(struct root_work *work, const struct span_job *job, const uint64_t *words, const uint64_t *values) {
	for (size_t i = 0; i < job->n; i++) {
		const uint64_t *entry = words + i * job->words;
		uint64_t value = job->values ? values[i] : entry[job->words - 1];
		uint64_t key = job->words == 1 ? i : entry[job->words - 2];
		int r = key || job->words == 1 ? root_add(work, value, job->parent, job->edge, key) : 0;

		if (r)
			return r;
	}
	return 0;
}

/* As many of the spans as one read can hold. */
static int read_some_spans(struct root_work *work, const struct span_job *jobs, size_t n, size_t *ret_done) {
	struct mem_range ranges[MEM_RANGES_MAX];
	bool ok[MEM_RANGES_MAX];
	size_t used = 0, filled = 0, i = 0;
	int r;

	for (; i < n && filled + 2 <= MEM_RANGES_MAX; i++) {
		size_t words = jobs[i].n * jobs[i].words, all = words + (jobs[i].values ? jobs[i].n : 0);

		if (used + all > ARENA_WORDS)
			break;
		ranges[filled++] = (struct mem_range){ jobs[i].addr, words * sizeof(uint64_t), work->arena + used };
		if (jobs[i].values)
			ranges[filled++] = (struct mem_range){ jobs[i].values, jobs[i].n * sizeof(uint64_t),
				work->arena + used + words };
		used += all;
	}
	r = root_read_each(work->py->mem, ranges, filled, ok);
	for (size_t j = 0, at = 0; !r && j < i; j++) {
		bool both = jobs[j].values && ok[at + 1];
		const uint64_t *words = ranges[at].buf, *values = both ? ranges[at + 1].buf : NULL;

		if (ok[at] && (!jobs[j].values || both))
			r = add_span(work, &jobs[j], words, values);
		at += jobs[j].values ? 2 : 1;
	}
	*ret_done = i;
	return r;
}

static int read_jobs(struct root_work *work) {
	int r = read_tables(work);

	for (size_t at = 0, done; !r && at < work->spans.n; at += done)
		r = read_some_spans(work, work->spans.items + at, work->spans.n - at, &done);
	work->spans.n = 0;
	return r;
}

/* What an object has */

static uint64_t word_of(const struct node *node, uint32_t offset) {
	return peek_u64(node->bytes + BEFORE_BYTES, node->len, offset);
}

static raddr object_of(const struct root_work *work, const struct node *node) {
	return work->map->entries.items[node->entry].object;
}

/* A word that may lie behind what was read. */
static int read_word(const struct root_work *work, const struct node *node, uint64_t offset, uint64_t *ret) {
	if (offset + sizeof(*ret) <= node->len) {
		*ret = word_of(node, (uint32_t)offset);
		return 0;
	}
	*ret = 0;
	return mem_read_u64(work->py->mem, object_of(work, node) + offset, ret);
}

static int add_word(
	struct root_work *work, const struct node *node, uint64_t offset, enum root_edge edge, uint64_t key) {
	uint64_t word;
	int r = read_word(work, node, offset, &word);

	return r ? (root_is_final(r) ? r : 0) : root_add(work, word, node->entry, edge, key);
}

static int add_sequence(struct root_work *work, const struct node *node, raddr first, enum root_edge edge, size_t max) {
	uint64_t n = word_of(node, work->py->layout.var_size);

	if (n > max)
		work->met_long |= edge == EDGE_INDEX;
	if (!n || n > max)
		return 0;
	return vec_push(&work->spans,
		(struct span_job){ .addr = first, .parent = node->entry, .edge = (uint8_t)edge, .words = 1, .n = n });
}

static int add_tuple(struct root_work *work, const struct node *node, enum root_edge edge, size_t max) {
	return add_sequence(work, node, object_of(work, node) + work->py->layout.tuple_items, edge, max);
}

static int add_dict(struct root_work *work, const struct node *node, enum root_edge edge) {
	const struct layout *l = &work->py->layout;
	raddr keys = word_of(node, l->dict_keys), values = word_of(node, l->dict_values);
	uint64_t used = word_of(node, l->dict_used);
	bool long_one = edge == EDGE_KEY && used > ROOT_ITEMS;

	work->met_long |= long_one;
	if (!keys || !used || long_one)
		return 0;
	if (values && work->py->version >= V3_13)
		values += VALUES_HEAD_BYTES;
	return vec_push(&work->dicts,
		(struct dict_job){
			.keys = keys,
			.values = values,
			.parent = node->entry,
			.edge = (uint8_t)edge,
			.max = edge == EDGE_KEY ? (size_t)ROOT_ITEMS * ENTRIES_PER_ITEM : NAMESPACE_MAX,
		});
}

static int add_set(struct root_work *work, const struct node *node, bool is_deque) {
	size_t n = 0;
	int r = is_deque ? py_deque_read(work->py, object_of(work, node), work->items, ROOT_ITEMS, &n)
			 : py_set_read(work->py, object_of(work, node), work->items, ROOT_ITEMS, &n);

	work->met_long |= r == PY_E_TRUNCATED;
	for (size_t i = 0; !r && i < n; i++)
		r = root_add(work, work->items[i], node->entry, is_deque ? EDGE_INDEX : EDGE_ITEM, i);
	return root_is_final(r) ? r : 0;
}

static int add_function(struct root_work *work, const struct node *node) {
	int r = add_word(work, node, work->function.closure, EDGE_CLOSURE, 0);

	if (!r)
		r = add_word(work, node, work->function.defaults, EDGE_DEFAULTS, 0);
	if (!r)
		r = add_word(work, node, work->function.kwdefaults, EDGE_KWDEFAULTS, 0);
	return r;
}

/* The first dict in an object that is not its __dict__. */
static int add_inner_dict(struct root_work *work, const struct node *node, enum root_edge edge, uint64_t key) {
	const struct type_head head = work->types.items.items[node->type].head;
	uint32_t end = (uint32_t)min_of((size_t)head.basicsize, node->len);

	for (uint32_t at = work->py->layout.object_size; at + 8 <= end; at += 8) {
		uint64_t word = word_of(node, at), type;
		uint32_t number;
		int r;

		if ((int64_t)at == head.dictoffset || !is_object_address(word) ||
			mem_read_u64(work->py->mem, word + work->py->layout.object_type, &type))
			continue;
		r = root_types_find(&work->types, type, &number);
		if (r)
			return r;
		if (number != ROOT_NONE && work->types.items.items[number].kind == KIND_DICT)
			return root_add(work, word, node->entry, edge, key);
	}
	return 0;
}

/* {head, previous, next, hash, key, result}, the same from 3.6 on: the key stands in the dict too. */
static int add_cache_link(struct root_work *work, const struct node *node) {
	return add_word(work, node, work->py->layout.object_size + 4 * sizeof(raddr), EDGE_TEXT, TEXT_RESULT);
}

struct adding {
	struct root_work *work;
	uint32_t parent;
};

static int add_local(void *userdata, const char *name, uint64_t ref) {
	struct adding *adding = userdata;

	if (!ref || (ref & 3) == PY_TAG_INT || name[0] == '.') /* the compiler's own begin with a dot */
		return 0;
	return root_add(adding->work, ref, adding->parent, EDGE_LOCAL,
		intern_add(&adding->work->map->strings, name, strlen(name)));
}

int root_add_locals(struct root_work *work, const struct py_raw_frame *frame, uint32_t parent) {
	int r = py_locals_walk(work->map->rt, frame, add_local, &(struct adding){ work, parent });

	return root_is_final(r) ? r : 0;
}

static int add_generator(struct root_work *work, const struct node *node) {
	struct py_gen gen;
	int r = py_gen_read(work->map->rt, object_of(work, node), &gen);

	if (r || gen.state == PY_GEN_DONE || gen.state == PY_GEN_RUNNING)
		return root_is_final(r) ? r : 0;
	r = root_add_locals(work, &gen.frame, node->entry);
	return r ? r : root_add(work, gen.awaits, node->entry, EDGE_TEXT, TEXT_AWAITS);
}

/* CPython Include/cpython/pyerrors.h: {head, dict, args, notes (3.11+), traceback, context, cause}. */
static int add_exception(struct root_work *work, const struct node *node) {
	static const enum root_text texts[] = { TEXT_TRACEBACK, TEXT_CONTEXT, TEXT_CAUSE };
	uint32_t at = work->py->layout.object_size + sizeof(raddr);
	int r = add_word(work, node, at, EDGE_TEXT, TEXT_ARGS);

	at += work->py->version < V3_11 ? sizeof(raddr) : 2 * sizeof(raddr);
	for (size_t i = 0; !r && i < ARRAY_SIZE(texts); i++)
		r = add_word(work, node, at + i * sizeof(raddr), EDGE_TEXT, texts[i]);
	return r;
}

/* To 3.10 the object is the frame, from 3.11 on it points to it. */
static int add_frame_object(struct root_work *work, const struct node *node) {
	const struct layout *l = &work->py->layout;
	struct py_raw_frame frame = { .frame = object_of(work, node) };
	uint64_t code = 0;
	int r = 0;

	if (layout_has(l->frameobj_frame))
		r = read_word(work, node, l->frameobj_frame, &frame.frame);
	if (!r)
		r = mem_read_u64(work->py->mem, frame.frame + l->frame_code, &code);
	if (r || !code)
		return root_is_final(r) ? r : 0;
	frame.code = py_untag(code);
	return root_add_locals(work, &frame, node->entry);
}

static int add_class(struct root_work *work, const struct node *node) {
	const struct layout *l = &work->py->layout;
	uint64_t flags;
	int r = read_word(work, node, l->type_flags, &flags);

	if (r || !(flags & TYPE_HEAP))
		return root_is_final(r) ? r : 0;
	r = add_word(work, node, l->type_dict, EDGE_NAMESPACE, 0);
	return r ? r : add_word(work, node, l->type_dict - sizeof(raddr), EDGE_TEXT, TEXT_BASE); /* tp_base */
}

/* Attributes of any object */

/* As managed_find of cpython/dict.c, where the places are told for each version. */
static int add_managed(struct root_work *work, const struct node *node, const struct type_head *type, raddr keys) {
	const struct py_reader *py = work->py;
	uint64_t at_32 = peek_u64(node->bytes, BEFORE_BYTES, 0), at_24 = peek_u64(node->bytes, BEFORE_BYTES, 8);
	raddr values = 0, dict = py->version < V3_12 || !(at_24 & 1) ? at_24 : 0;
	uint64_t head;
	int r = 0;

	if (!node->has_before)
		return 0;
	if (py->flavour & LAYOUT_FREE_THREADED)
		dict = peek_u64(node->bytes, BEFORE_BYTES, BEFORE_BYTES - sizeof(raddr));
	if (py->version < V3_12)
		values = at_32;
	else if (py->version < V3_13)
		values = at_24 & 1 ? at_24 + 1 : 0;
	else if (type->flags & TYPE_INLINE_VALUES) {
		r = read_word(work, node, (uint64_t)type->basicsize, &head);
		if (!r && head >> VALUES_VALID_BYTE * 8 & 0xff)
			values = object_of(work, node) + (uint64_t)type->basicsize + VALUES_HEAD_BYTES;
	}
	if (!r && dict)
		return root_add(work, dict, node->entry, EDGE_NAMESPACE, 0);
	if (r || !values || !keys)
		return root_is_final(r) ? r : 0;
	return vec_push(&work->dicts,
		(struct dict_job){ .keys = keys,
			.values = values,
			.parent = node->entry,
			.edge = EDGE_ATTRIBUTE,
			.max = NAMESPACE_MAX });
}

static int add_namespace(struct root_work *work, const struct node *node, const struct type_head *type, raddr keys) {
	uint64_t offset = (uint64_t)type->dictoffset, items = word_of(node, work->py->layout.var_size);

	if (work->py->version >= V3_11 && type->flags & TYPE_MANAGED_DICT)
		return add_managed(work, node, type, keys);
	if (!type->dictoffset)
		return 0;
	if (type->dictoffset < 0) { /* from the end of an object of variable size */
		items = (int64_t)items < 0 ? -items : items;
		if (items > VAR_ITEMS_MAX)
			return 0;
		offset += ((uint64_t)type->basicsize + items * (uint64_t)type->itemsize + 7) & ~UINT64_C(7);
	}
	return add_word(work, node, offset, EDGE_NAMESPACE, 0);
}

static int add_members(struct root_work *work, const struct node *node) {
	uint32_t number = node->type;
	int r = 0;

	for (unsigned depth = 0; !r && number != ROOT_NONE && depth < BASES_MAX; depth++) {
		const struct root_type type = work->types.items.items[number];

		for (uint32_t i = 0; !r && i < type.members_n; i++) {
			const struct root_member member = work->types.members.items[type.members + i];

			r = add_word(work, node, member.offset, EDGE_MEMBER, member.name);
		}
		number = type.base;
	}
	return r;
}

static int add_attributes(struct root_work *work, const struct node *node, const struct root_type *type) {
	int r = add_namespace(work, node, &type->head, type->keys);

	if (!r)
		r = add_members(work, node);
	if (!r && type->head.flags & TYPE_HEAP)
		r = root_add(work, type->head.addr, node->entry, EDGE_TEXT, TEXT_CLASS);
	return r;
}

static int add_by_kind(struct root_work *work, const struct node *node, enum root_kind kind) {
	const struct layout *l = &work->py->layout;

	switch (kind) {
	case KIND_DICT: return add_dict(work, node, EDGE_KEY);
	case KIND_LIST: return add_sequence(work, node, word_of(node, l->list_items), EDGE_INDEX, ROOT_ITEMS);
	case KIND_TUPLE: return add_tuple(work, node, EDGE_INDEX, ROOT_ITEMS);
	case KIND_SET: return add_set(work, node, false);
	case KIND_DEQUE: return add_set(work, node, true);
	case KIND_FUNCTION: return add_function(work, node);
	case KIND_BUILTIN: return add_word(work, node, l->cfunction_self, EDGE_TEXT, TEXT_SELF);
	case KIND_CELL: return add_word(work, node, l->object_size, EDGE_TEXT, TEXT_CONTENTS);
	case KIND_CACHE: return add_inner_dict(work, node, EDGE_TEXT, TEXT_CACHE);
	case KIND_THREAD_LOCAL: return add_inner_dict(work, node, EDGE_THREADS, 0);
	case KIND_EXCEPTION: return add_exception(work, node);
	case KIND_TRACEBACK: return add_word(work, node, l->object_size, EDGE_TEXT, TEXT_NEXT);
	case KIND_FRAME: return add_frame_object(work, node);
	case KIND_CACHE_LINK: return add_cache_link(work, node);
	case KIND_GENERATOR: return add_generator(work, node);
	case KIND_TASK: return layout_has(l->task_coro) ? add_word(work, node, l->task_coro, EDGE_TEXT, TEXT_CORO) : 0;
	case KIND_TYPE: return add_class(work, node);
	default: return 0;
	}
}

/* What is hidden, where it is what it should be. */
static int add_hidden(struct root_work *work, const struct node *node, enum root_edge edge, enum root_kind kind) {
	if (edge == EDGE_NAMESPACE && kind == KIND_DICT)
		return add_dict(work, node, EDGE_ATTRIBUTE);
	if (edge == EDGE_KWDEFAULTS && kind == KIND_DICT)
		return add_dict(work, node, EDGE_KWDEFAULT);
	if (edge == EDGE_THREADS && kind == KIND_DICT)
		return add_dict(work, node, EDGE_NAMESPACE);
	if (edge == EDGE_CLOSURE && kind == KIND_TUPLE)
		return add_tuple(work, node, EDGE_CELL, CELLS_MAX);
	if (edge == EDGE_DEFAULTS && kind == KIND_TUPLE)
		return add_tuple(work, node, EDGE_DEFAULT, CELLS_MAX);
	if (edge == EDGE_CELL && kind == KIND_CELL)
		return add_word(work, node, work->py->layout.object_size, EDGE_TEXT, TEXT_NOTHING);
	return 0;
}

static int add_node(struct root_work *work, const struct node *node) {
	const struct root_entry entry = work->map->entries.items[node->entry];
	const struct root_type type = work->types.items.items[node->type];
	int r;

	if (entry.hidden)
		return add_hidden(work, node, entry.edge, type.kind);
	/* sys.modules has those that matter. */
	if (type.kind == KIND_MODULE && entry.parent != ROOT_NONE)
		return 0;
	r = add_by_kind(work, node, type.kind);
	return r || type.kind == KIND_TYPE ? r : add_attributes(work, node, &type);
}

/* Objects' heads */

/* A head that reaches into memory that is not there, or whose object is the first on its page. */
static int read_alone(struct root_work *work, struct node *node) {
	int r = object_read_over(work->py, object_of(work, node), node->bytes + BEFORE_BYTES,
		work->py->layout.object_size, HEAD_BYTES, &node->len);
	uint8_t before[BEFORE_BYTES];

	node->known = !r;
	if (!r && !mem_read(work->py->mem, object_of(work, node) - BEFORE_BYTES, before, sizeof(before))) {
		memcpy(node->bytes, before, sizeof(before));
		node->has_before = true;
	}
	return root_is_final(r) ? r : 0;
}

static int read_heads(struct root_work *work, struct node *nodes, const uint32_t *entries, size_t n) {
	struct mem_range ranges[ROOT_BATCH];
	bool ok[ROOT_BATCH];
	int r;

	for (size_t i = 0; i < n; i++) {
		nodes[i].entry = entries[i];
		nodes[i].len = HEAD_BYTES;
		ranges[i] = (struct mem_range){ work->map->entries.items[entries[i]].object - BEFORE_BYTES,
			sizeof(nodes[i].bytes), nodes[i].bytes };
	}
	r = root_read_each(work->py->mem, ranges, n, ok);
	for (size_t i = 0; !r && i < n; i++) {
		nodes[i].known = nodes[i].has_before = ok[i];
		if (!ok[i])
			r = read_alone(work, &nodes[i]);
		if (!r && nodes[i].known) {
			r = root_types_find(
				&work->types, word_of(&nodes[i], work->py->layout.object_type), &nodes[i].type);
			nodes[i].known = nodes[i].type != ROOT_NONE;
		}
	}
	return r;
}

static int add_nodes(struct root_work *work, const struct node *nodes, size_t n, bool classes) {
	int r = 0;

	for (size_t i = 0; !r && i < n; i++)
		if (nodes[i].known && (work->types.items.items[nodes[i].type].kind == KIND_TYPE) == classes)
			r = add_node(work, &nodes[i]);
	return r ? r : read_jobs(work);
}

static int expand_hidden(struct root_work *work) {
	int r = 0;

	for (size_t at = 0, n; !r && at < work->hidden.n; at += n) {
		n = min_of(work->hidden.n - at, (size_t)ROOT_BATCH);
		r = read_heads(work, work->hidden_nodes, work->hidden.items + at, n);
		if (!r)
			r = add_nodes(work, work->hidden_nodes, n, false);
	}
	work->hidden.n = 0;
	return r;
}

int root_expand(struct root_work *work, const uint32_t *entries, size_t n) {
	int r = read_heads(work, work->nodes, entries, n);

	if (!r)
		r = add_nodes(work, work->nodes, n, true);
	if (!r)
		r = expand_hidden(work);
	if (!r)
		r = add_nodes(work, work->nodes, n, false);
	return r ? r : expand_hidden(work);
}
