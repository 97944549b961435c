/* SPDX-License-Identifier: MIT */
/* A pass looks at each aligned word: whether it lies between the lowest and the highest address wanted, whether the
 * filter has its hash, whether it is one of those wanted. The low three bits of references and links are flags.
 *
 * A word found is told by what it lies in: a block of a pool that is in use, an object or table outside pools as the
 * census saw it, memory of a program, a library or a thread. What an object's word means follows from its place before
 * or behind the object's head. */
#include "engine/leaks/referrers.h"

#include "engine/base/cursor.h"
#include <string.h>

#define V3_12 0x030c0000
#define V3_13 0x030d0000
#define FLAGS 7
#define FILTER_BITS (1U << 18)
#define STACK_BYTES (256U << 10) /* of a thread's stack, from where it began; what lies deeper is rarely in use */
#define HOT_MAX 32               /* pieces of memory that are gone over again after a pass … */
#define HOT_TURNS_MAX 48         /* … as long as that leads to more */
#define TURNS_MAX 32             /* over one piece of memory, as long as it leads to more */
#define RETRY_BYTES (64U << 10)
#define INTERP_BYTES_MAX (4U << 20)
#define BEFORE_MAX 48 /* bytes that a type asks for before an object's head */
#define BASES_MAX 32
#define BLOCK_HEAD_BYTES 256       /* of a page's block: the head of what it may hold */
#define BLOCK_WANTED UINT64_C(512) /* of a block that is no object: those that refer to it refer to its beginning */
#define WORD sizeof(uint64_t)
#define TABLE_BYTES_MAX (UINT64_C(1) << 36)
#define MOVES_BATCH 64
#define MOVES_BYTES 1024           /* of a table, from which on it is asked whether it moved … */
#define MOVES_ASKED_MAX (1U << 16) /* … of so many at most */
#define IMMORTAL (UINT64_C(1) << 30)

/* Of PyTypeObject, the same distance in every version: tp_weaklistoffset, tp_iter, tp_iternext, tp_methods, tp_members,
 * tp_getset, tp_base, tp_dict (CPython 3.6 to 3.15 Include/cpython/object.h). */
#define BASE_BEFORE_DICT WORD
#define WEAKLIST_BEFORE_DICT (7 * WORD)

/* PyWeakReference: the object, the callback, a hash, two links (and a function). */
#define WEAK_CALLBACK WORD
#define WEAK_END (6 * WORD)

static int add_interps(struct referrers *referrers, const struct py_runtime *rt) {
	const struct layout *l = &rt->reader.layout;
	py_interp_vec interps = { 0 };
	int r = layout_has(l->interp_size) && l->interp_size <= INTERP_BYTES_MAX ? py_interps_read(rt, &interps)
										 : PY_E_TYPE;

	for (size_t i = 0; !r && i < interps.n; i++)
		r = vec_push(
			&referrers->interps, (struct span){ .addr = interps.items[i].addr, .len = l->interp_size });
	vec_free(&interps);
	return r < 0 || r == MEM_E_GONE ? r : 0;
}

int referrers_init(struct referrers *referrers, const struct py_runtime *rt, const struct census *census) {
	int r;

	*referrers = (struct referrers){
		.places = census->places,
		.run = { .py = &rt->reader,
			.regions = census->places->regions,
			.pool_bytes = census->places->regions.pool_bytes,
			.gc_head = gc_head_bytes(&rt->reader),
			.heap = census->places->heap.format ? &census->places->heap : NULL },
		.low = UINT64_MAX,
	};
	heap_types_init(&referrers->run.types, &rt->reader, &referrers->run.regions);
	referrers->run.types.in_pools = referrers->run.heap != NULL;
	referrers->run.buf = malloc(CENSUS_READ_BYTES);
	referrers->filter = calloc(FILTER_BITS / 64, sizeof(*referrers->filter));
	r = referrers->run.buf && referrers->filter ? add_interps(referrers, rt) : -ENOMEM;
	if (r)
		referrers_deinit(referrers);
	return r;
}

void referrers_deinit(struct referrers *referrers) {
	heap_types_deinit(&referrers->run.types);
	map_deinit(&referrers->wanted);
	free(take_ptr(referrers->run.buf));
	free(take_ptr(referrers->filter));
	vec_free(&referrers->weak);
	vec_free(&referrers->interps);
	vec_free(&referrers->hot);
	vec_free(&referrers->moved);
}

static inline uint32_t filter_bit(raddr addr) {
	return (uint32_t)(addr >> 3 ^ addr >> 20) & (FILTER_BITS - 1);
}

static int want_one(struct referrers *referrers, raddr addr, uint32_t number) {
	uint32_t bit = filter_bit(addr);
	uint64_t unused;

	if (map_get(&referrers->wanted, addr, &unused))
		return 0;
	if (referrers->wanted.n >= REFERRERS_WANTED_MAX)
		return -ENOSPC;
	referrers->filter[bit / 64] |= UINT64_C(1) << bit % 64;
	referrers->low = min_of(referrers->low, addr);
	referrers->high = max_of(referrers->high, addr);
	return map_put(&referrers->wanted, addr, number);
}

int referrers_want(struct referrers *referrers, raddr addr, uint32_t len, uint32_t number) {
	uint32_t at = 0;
	int r;

	addr &= ~(raddr)FLAGS;
	referrers->last = number;
	do
		r = want_one(referrers, addr + at, number);
	while (!r && (at += WORD) < len);
	return r;
}

void referrers_clear(struct referrers *referrers) {
	map_clear(&referrers->wanted);
	memset(referrers->filter, 0, FILTER_BITS / 8);
	referrers->low = UINT64_MAX;
	referrers->high = 0;
}

/* Tables that moved. */

static int ask_moved(struct referrers *referrers, const struct place_span *span, const uint8_t *head) {
	const struct layout *l = &referrers->run.py->layout;
	struct place_span moved = { .owner = span->owner, .is_table = 1 };
	uint32_t type;
	uint64_t bytes;
	int r = heap_types_find(&referrers->run.types, peek_u64(head, CENSUS_HEAD_BYTES, l->object_type), &type);

	if (r)
		return r;
	if (type == TYPE_NONE || !object_counts(&referrers->run, head, CENSUS_HEAD_BYTES) ||
		referrers->run.types.items.items[type].kind == HEAP_DEQUE)
		return 0;
	r = container_table(&referrers->run, referrers->run.types.items.items[type].kind, head, CENSUS_HEAD_BYTES,
		&moved.addr, &bytes);
	if (r)
		return r == PY_E_TYPE || r == MEM_E_FAULT ? 0 : r;
	if (moved.addr == span->addr || !bytes || bytes > TABLE_BYTES_MAX)
		return 0;
	moved.len = bytes;
	return vec_push(&referrers->moved, moved);
}

static int ask_moved_batch(struct referrers *referrers, const struct place_span *spans, size_t n) {
	uint8_t heads[MOVES_BATCH][CENSUS_HEAD_BYTES];
	struct mem_range ranges[MOVES_BATCH];
	size_t done;
	int r = 0;

	for (size_t i = 0; i < n; i++)
		ranges[i] = (struct mem_range){ spans[i].owner, CENSUS_HEAD_BYTES, heads[i] };
	for (size_t at = 0; at < n; at += done + 1) {
		r = mem_read_many(referrers->run.py->mem, ranges + at, n - at, &done);
		if (r && r != MEM_E_FAULT)
			return r;
		if (!r)
			done = n - at;
		r = 0;
		for (size_t i = at; !r && i < at + done; i++)
			r = ask_moved(referrers, &spans[i], heads[i]);
		if (r)
			return r;
	}
	return 0;
}

static int by_addr(const void *a, const void *b) {
	const struct place_span *x = a, *y = b;

	return (x->addr > y->addr) - (x->addr < y->addr);
}

/* What grows has its table elsewhere soon; words there would be nobody's. */
static int find_moved(struct referrers *referrers) {
	struct place_span batch[MOVES_BATCH];
	size_t n = 0, asked = 0;
	int r = 0;

	referrers->moved.n = 0;
	vec_foreach (span, &referrers->places->spans) {
		batch[n] = place_unpack(span);
		if (!span->is_table || batch[n].len < MOVES_BYTES)
			continue;
		if (++n == MOVES_BATCH) {
			r = ask_moved_batch(referrers, batch, n);
			n = 0;
		}
		if (r || ++asked >= MOVES_ASKED_MAX)
			break;
	}
	if (!r && n)
		r = ask_moved_batch(referrers, batch, n);
	if (!r && referrers->moved.n)
		qsort(referrers->moved.items, referrers->moved.n, sizeof(*referrers->moved.items), by_addr);
	return r;
}

static const struct place_span *moved_at(const place_span_vec *moved, raddr addr) {
	const struct place_span *items = moved->items;
	size_t low = 0, high = moved->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (items[middle].addr <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low && addr - items[low - 1].addr < items[low - 1].len ? &items[low - 1] : NULL;
}

static bool find_span(const struct referrers *referrers, raddr addr, struct place_span *ret_span) {
	const struct place_span *moved = moved_at(&referrers->moved, addr);

	if (!moved)
		return places_find_span(referrers->places, addr, ret_span);
	*ret_span = *moved;
	return true;
}

/* Weak references. */

static bool is_weak_name(const char *name) {
	static const char *const names[] = { "weakref", "weakref.ReferenceType", "weakproxy", "weakref.ProxyType",
		"weakcallableproxy", "weakref.CallableProxyType" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

static bool leads_to_weak(const struct py_reader *py, raddr type) {
	char name[32];
	raddr text;

	for (unsigned i = 0; i < BASES_MAX && type; i++) {
		struct type_head head;

		if (type_head_read(py, type, &head))
			return false;
		text = head.flags & TYPE_HEAP ? 0 : head.name;
		if (text && !mem_read_cstr(py->mem, text, name, sizeof(name)) && is_weak_name(name))
			return true;
		if (mem_read_u64(py->mem, type + py->layout.type_dict - BASE_BEFORE_DICT, &type))
			return false;
	}
	return false;
}

static bool is_weak(struct referrers *referrers, uint32_t type) {
	uint8_t *known;

	while (referrers->weak.n <= type)
		if (vec_push(&referrers->weak, 0))
			return false;
	known = &referrers->weak.items[type];
	if (!*known)
		*known = leads_to_weak(referrers->run.py, referrers->run.types.items.items[type].head.addr) ? 2 : 1;
	return *known == 2;
}

/* Whether the word is where an object keeps the list of its weak references. */
static bool is_weak_list(struct referrers *referrers, const struct heap_type *type, raddr object, raddr at) {
	const struct py_reader *py = referrers->run.py;
	uint64_t offset;

	return !mem_read_u64(py->mem, type->head.addr + py->layout.type_dict - WEAKLIST_BEFORE_DICT, &offset) &&
		(int64_t)offset > 0 && object + offset == at;
}

/* Objects. */

/* The words before an object's head: the collector's links; before these, from 3.12 on, the weak references and the
 * dict or values; on 3.11 the values and the dict. */
static bool keeps_before(const struct referrers *referrers, const struct heap_type *type, raddr object, raddr at) {
	uint32_t before = (uint32_t)(object - at);

	if (type->head.flags & TYPE_GC && before <= referrers->run.gc_head)
		return false;
	return referrers->run.py->version < V3_12 || before != referrers->run.gc_head + 2 * WORD;
}

static bool is_class_of_its_own(const struct referrers *referrers, raddr type) {
	struct place_span span;

	return places_find_span(referrers->places, type, &span) && span.owner == type;
}

/* Whether the word at `at` of an object is a reference that keeps what it leads to. */
static bool keeps(struct referrers *referrers, uint32_t number, raddr object, raddr at, raddr to) {
	const struct heap_type *type = &referrers->run.types.items.items[number];
	const struct layout *l = &referrers->run.py->layout;

	if (type->kind == HEAP_TEXT || type->head.flags & TYPE_LONG)
		return false;
	if (at < object)
		return keeps_before(referrers, type, object, at);
	if (at == object + l->object_type)
		return is_class_of_its_own(referrers, to);
	if (at < object + l->object_size)
		return false;
	if (is_weak(referrers, number) && at < object + l->object_size + WEAK_END)
		return at == object + l->object_size + WEAK_CALLBACK;
	return !is_weak_list(referrers, type, object, at);
}

/* Where a word lies. Return: 0; PY_E_TYPE: in nothing that keeps anything; MEM_E_GONE; negative errno. */

/* From 3.13 on values of attributes may stand behind what the type says. */
static bool is_of_one_size(const struct referrers *referrers, const struct heap_type *type) {
	return !type->head.itemsize && !(referrers->run.py->version >= V3_13 && type->head.flags & TYPE_INLINE_VALUES);
}

static bool is_behind_items(const struct referrers *referrers, const struct heap_type *type, raddr object, raddr at) {
	const struct layout *l = &referrers->run.py->layout;
	uint64_t n;

	return type->head.basicsize == (int64_t)l->tuple_items && at >= object + l->tuple_items &&
		!mem_read_u64(referrers->run.py->mem, object + l->var_size, &n) &&
		(at - object - l->tuple_items) / WORD >= n;
}

/* Behind an object's end a block may have words of no meaning. */
static int in_object(
	struct referrers *referrers, uint32_t type, raddr object, raddr at, raddr to, struct referrer *ret) {
	const struct heap_type *t = &referrers->run.types.items.items[type];

	if (is_of_one_size(referrers, t) && at >= object + (uint64_t)t->head.basicsize)
		return PY_E_TYPE;
	if (t->kind == HEAP_TUPLE && is_behind_items(referrers, t, object, at))
		return PY_E_TYPE;
	if (!keeps(referrers, type, object, at, to))
		return PY_E_TYPE;
	*ret = (struct referrer){ .kind = REFERRER_OBJECT, .addr = object };
	return 0;
}

/* An object that was freed, and is kept for reuse, has a type and no references. */
static int was_object(struct referrers *referrers, const uint8_t *block, size_t len, uint64_t size, bool *ret_was) {
	uint32_t at = referrers->run.py->layout.object_type;
	uint32_t hooks = block_hook_bytes(block, len);
	const struct heap_type *found;
	uint32_t type;

	*ret_was = false;
	for (size_t before = hooks; before <= hooks + BEFORE_MAX && before + at + WORD <= len; before += 16) {
		int r = heap_types_find(&referrers->run.types, peek_u64(block, len, before + at), &type);

		if (r)
			return r;
		if (type == TYPE_NONE || object_references(referrers->run.py, block + before, len - before))
			continue;
		found = &referrers->run.types.items.items[type];
		*ret_was |= before == hooks + found->before && before + (uint64_t)found->head.basicsize <= size;
	}
	return 0;
}

static int in_block(
	struct referrers *referrers, const struct mimalloc_block *block, raddr at, raddr to, struct referrer *ret) {
	uint32_t type = TYPE_NONE, offset;
	bool was = false;
	int r = 0;

	if (block->tag != MIMALLOC_MEM || !(referrers->run.py->flavour & LAYOUT_FREE_THREADED))
		r = object_recognise(&referrers->run, block->bytes, block->len, block->size, &type, &offset);
	if (r)
		return r;
	if (type != TYPE_NONE)
		return in_object(referrers, type, block->addr + offset, at, to, ret);
	r = was_object(referrers, block->bytes, block->len, block->size, &was);
	if (r || was)
		return r ? r : PY_E_TYPE;
	*ret = (struct referrer){
		.kind = REFERRER_BLOCK,
		.addr = block->addr,
		.len = (uint32_t)min_of(block->size, BLOCK_WANTED),
	};
	return 0;
}

/* mimalloc reserves much more than it has in use. Return: whether there are slices in use from *start on, and the first
 * of them in a row, that are read at once. */
static bool next_slices(const struct referrers *referrers, const struct region *region, raddr *start, raddr *ret_end) {
	uint32_t slice = referrers->run.pool_bytes;
	raddr end;

	while (*start < region->end && !region_is_pool(region, *start, slice))
		*start = *start / slice * slice + slice;
	if (*start >= region->end)
		return false;
	for (end = *start; end < region->end && end - *start < CENSUS_READ_BYTES && region_is_pool(region, end, slice);)
		end = min_of(end / slice * slice + slice, region->end);
	*ret_end = end;
	return true;
}

static const struct referrer_pool *pool_at(struct referrers *referrers, raddr addr) {
	struct referrer_pool *pool = &referrers->pool;
	const uint8_t *bytes = referrers->bytes + (addr - referrers->addr);
	uint32_t pool_bytes = referrers->run.pool_bytes;

	if (pool->addr == addr)
		return pool;
	pool->addr = addr;
	pool->valid = pool_recognise(bytes, addr, pool_bytes, &pool->head);
	if (pool->valid)
		pool_mark_free(bytes, addr, pool_bytes, &pool->head, pool->free);
	return pool;
}

static int in_pool(struct referrers *referrers, raddr at, raddr to, struct referrer *ret) {
	raddr start = at / referrers->run.pool_bytes * referrers->run.pool_bytes, block;
	const struct referrer_pool *pool;
	const uint8_t *bytes;
	uint32_t index, size;

	if (start < referrers->addr || start + referrers->run.pool_bytes > referrers->addr + referrers->len)
		return PY_E_TYPE;
	pool = pool_at(referrers, start);
	size = pool->head.size;
	if (!pool->valid || at < start + POOL_HEAD_BYTES)
		return PY_E_TYPE;
	index = (uint32_t)(at - start - POOL_HEAD_BYTES) / size;
	if (index >= pool->head.begun || pool->free[index])
		return PY_E_TYPE;
	block = start + POOL_HEAD_BYTES + (raddr)index * size;
	bytes = referrers->bytes + (block - referrers->addr);
	return in_block(referrers, &(struct mimalloc_block){ block, size, MIMALLOC_OBJECT, bytes, size }, at, to, ret);
}

/* Whether the block is in use the census knows. */
static int in_page(struct referrers *referrers, raddr at, raddr to, struct referrer *ret) {
	const struct mimalloc_page *page = mimalloc_page_of(referrers->run.heap, at);
	raddr block = page ? mimalloc_block_of(page, at) : 0;
	size_t pool =
		places_find_pool(referrers->places, block / referrers->run.pool_bytes * referrers->run.pool_bytes);
	uint8_t bytes[BLOCK_HEAD_BYTES];
	size_t len;
	int r;

	if (!page || pool == PLACES_NONE || !places_was_used(referrers->places, pool, block))
		return PY_E_TYPE;
	len = min_of(page->size, (uint64_t)sizeof(bytes));
	r = mem_read(referrers->run.py->mem, block, bytes, len);
	if (r)
		return r;
	return in_block(referrers, &(struct mimalloc_block){ block, page->size, page->tag, bytes, len }, at, to, ret);
}

/* The object that owns the span may have gone since the census. */
static int in_span(
	struct referrers *referrers, const struct place_span *span, raddr at, raddr to, struct referrer *ret) {
	const struct layout *l = &referrers->run.py->layout;
	uint8_t head[CENSUS_HEAD_BYTES] = { 0 };
	uint32_t number;
	int r = mem_read(referrers->run.py->mem, span->owner, head, sizeof(head));

	if (r)
		return r == MEM_E_FAULT ? PY_E_TYPE : r;
	r = heap_types_find(&referrers->run.types, peek_u64(head, sizeof(head), l->object_type), &number);
	if (r)
		return r;
	if (number == TYPE_NONE || !object_counts(&referrers->run, head, sizeof(head)))
		return PY_E_TYPE;
	if (is_buffer(referrers->run.types.items.items[number].kind) && span->is_table)
		return PY_E_TYPE;
	if (!span->is_table)
		return in_object(referrers, number, span->owner, at, to, ret);
	/* Behind a list's last item stand words of no meaning. */
	if (referrers->run.types.items.items[number].kind == HEAP_LIST &&
		peek_u64(head, sizeof(head), l->list_items) == span->addr &&
		(at - span->addr) / WORD >= peek_u64(head, sizeof(head), l->var_size))
		return PY_E_TYPE;
	*ret = (struct referrer){ .kind = REFERRER_OBJECT, .addr = span->owner };
	return 0;
}

static int elsewhere(struct referrers *referrers, raddr at, struct referrer *ret) {
	const struct place_root *root = places_find_root(referrers->places, at);

	*ret = (struct referrer){ .kind = REFERRER_NATIVE, .addr = at };
	vec_foreach (interp, &referrers->interps)
		if (at - interp->addr < interp->len)
			ret->kind = REFERRER_INTERP;
	if (ret->kind == REFERRER_NATIVE && root) {
		ret->kind = root->kind == PLACE_STACK ? REFERRER_STACK : REFERRER_STATIC;
		ret->name = root->name;
	}
	return 0;
}

static int locate(struct referrers *referrers, raddr at, raddr to, struct referrer *ret) {
	const struct region *region = regions_find(&referrers->run.regions, at);
	struct place_span span;
	bool found;

	if (!referrers->run.heap && region && region_is_pool(region, at, referrers->run.pool_bytes))
		return in_pool(referrers, at, to, ret);
	found = find_span(referrers, at, &span);
	if (!found && region && region_is_pool(region, at, referrers->run.pool_bytes))
		return in_page(referrers, at, to, ret);
	return found ? in_span(referrers, &span, at, to, ret) : elsewhere(referrers, at, ret);
}

static int hit(struct referrers *referrers, raddr at, raddr to) {
	struct referrer referrer;
	uint64_t number;
	int r;

	if (!map_get(&referrers->wanted, to, &number) || number < referrers->least)
		return 0;
	r = locate(referrers, at, to, &referrer);
	if (r)
		return r == PY_E_TYPE || r == MEM_E_FAULT ? 0 : r;
	referrers->is_hot |= referrer.kind == REFERRER_OBJECT || referrer.kind == REFERRER_BLOCK;
	return referrers->each(referrers->userdata, (uint32_t)number, &referrer);
}

static int search_once(struct referrers *referrers) {
	const uint8_t *bytes = referrers->bytes;
	size_t len = referrers->len;
	int r = 0;

	for (size_t i = 0; !r && i + WORD <= len; i += WORD) {
		raddr word;
		uint32_t bit;

		memcpy(&word, bytes + i, WORD);
		word &= ~(raddr)FLAGS;
		if (word < referrers->low || word > referrers->high)
			continue;
		bit = filter_bit(word);
		if (referrers->filter[bit / 64] >> bit % 64 & 1)
			r = hit(referrers, referrers->addr + i, word);
	}
	return r;
}

/* What was found in a piece of memory is looked for in it once more: what belongs together often lies together. */
static int search_bytes(struct referrers *referrers, const uint8_t *bytes, raddr addr, size_t len) {
	int r = 0;

	referrers->bytes = bytes;
	referrers->addr = addr;
	referrers->len = len;
	referrers->pool.addr = 0;
	referrers->least = referrers->base;
	for (unsigned i = 0; !r && i < TURNS_MAX; i++) {
		uint32_t last = referrers->last;

		r = search_once(referrers);
		if (last == referrers->last)
			break;
		referrers->least = last + 1;
	}
	return r;
}

/* Reads in pieces that no pool lies across; what cannot be read is tried in smaller ones, then left out. */
static int search_range(struct referrers *referrers, raddr start, raddr end, size_t piece) {
	int r = 0;

	while (!r && start < end) {
		raddr next = min_of(end, start / piece * piece + piece);

		r = mem_read(referrers->run.py->mem, start, referrers->run.buf, next - start);
		referrers->is_hot = false;
		if (!r)
			r = search_bytes(referrers, referrers->run.buf, start, next - start);
		else if (r == MEM_E_FAULT)
			r = piece > RETRY_BYTES ? search_range(referrers, start, next, RETRY_BYTES) : 0;
		if (!r && referrers->is_hot && !referrers->base && referrers->hot.n < HOT_MAX)
			r = vec_push(&referrers->hot, (struct span){ .addr = start, .len = next - start });
		start = next;
	}
	return r;
}

/* Goes to and fro between the pieces where something was found, for what was found last: objects of one kind lie
 * together, and their tables do. */
static int search_hot(struct referrers *referrers, uint32_t last) {
	int r = 0;

	for (unsigned turn = 0; !r && turn < HOT_TURNS_MAX; turn++) {
		referrers->base = last + 1;
		last = referrers->last;
		for (size_t i = 0; !r && i < referrers->hot.n; i++)
			r = search_range(referrers, referrers->hot.items[i].addr,
				referrers->hot.items[i].addr + referrers->hot.items[i].len, CENSUS_READ_BYTES);
		if (last == referrers->last)
			break;
	}
	referrers->base = 0;
	return r;
}

static int search_region(struct referrers *referrers, const struct region *region) {
	const struct place_root *root = region->bits ? NULL : places_find_root(referrers->places, region->start);
	raddr start = region->start, end;
	int r = 0;

	if (referrers->run.heap && region->bits) {
		for (; !r && next_slices(referrers, region, &start, &end); start = end)
			r = search_range(referrers, start, end, CENSUS_READ_BYTES);
		return r;
	}
	if (root && root->kind == PLACE_STACK && region->end - start > STACK_BYTES)
		start = region->end - STACK_BYTES;
	return search_range(referrers, start, region->end, CENSUS_READ_BYTES);
}

/* Those that lie in memory that was mapped since the census. */
static int search_moved(struct referrers *referrers) {
	int r = 0;

	for (size_t i = 0; !r && i < referrers->moved.n; i++) {
		raddr at = referrers->moved.items[i].addr, end = at + referrers->moved.items[i].len;

		while (!r && at < end) {
			const struct region *region = regions_find(&referrers->run.regions, at);
			raddr next = region ? region->end : min_of(end, regions_next(&referrers->run.regions, at));

			if (!region)
				r = search_range(referrers, at, next, CENSUS_READ_BYTES);
			at = next;
		}
	}
	return r;
}

/* Those that moved during the pass: what was found there passed for nobody's. */
static int search_moved_since(struct referrers *referrers) {
	place_span_vec before = referrers->moved;
	int r;

	referrers->moved = (place_span_vec){ 0 };
	r = find_moved(referrers);
	for (size_t i = 0; !r && i < referrers->moved.n; i++) {
		struct place_span span = referrers->moved.items[i];
		const struct place_span *old = moved_at(&before, span.addr);

		if (!old || old->owner != span.owner)
			r = search_range(referrers, span.addr, span.addr + span.len, CENSUS_READ_BYTES);
	}
	vec_free(&before);
	return r;
}

int referrers_pass(struct referrers *referrers, referrer_each each, void *userdata) {
	uint32_t last = referrers->last;
	int r = find_moved(referrers);

	referrers->each = each;
	referrers->userdata = userdata;
	referrers->hot.n = 0;
	for (size_t i = 0; !r && i < referrers->run.regions.items.n; i++)
		if (referrers->run.regions.items.items[i].heap)
			r = search_region(referrers, &referrers->run.regions.items.items[i]);
	for (size_t i = 0; !r && i < referrers->places->roots.n; i++) {
		const struct place_root *root = &referrers->places->roots.items[i];

		if (!root->heap)
			r = search_range(referrers, root->start, root->end, CENSUS_READ_BYTES);
	}
	if (!r)
		r = search_moved(referrers);
	if (!r)
		r = search_moved_since(referrers);
	return r ? r : search_hot(referrers, last);
}

bool referrers_lack(struct referrers *referrers, raddr object, uint64_t found) {
	const struct py_reader *py = referrers->run.py;
	uint8_t head[CENSUS_HEAD_BYTES];
	int64_t count;

	if (mem_read(py->mem, object, head, py->layout.object_type))
		return false;
	count = object_references(py, head, py->layout.object_type);
	return count >= 0 && (uint64_t)count < IMMORTAL && (uint64_t)count > found;
}
