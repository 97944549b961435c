/* SPDX-License-Identifier: MIT */
/* Sets, deques and the queues of C: what their members are.
 *
 * A deque is a chain of blocks of references, each with the links to its neighbours at its ends. A SimpleQueue is a
 * list with a position to 3.12, and a ring from 3.13 on. A set is a table of pairs of key and hash, where a free slot
 * has no key and a slot that was emptied has the hash that no object has.
 *
 * Deques are read block by block without looking at the target's links back: how many items there are bounds the walk.
 */
#include "engine/base/limits.h"
#include "engine/cpython/locks.h"
#include "engine/cpython/object_head.h"
#include <errno.h>
#include <string.h>

#define WORD sizeof(raddr)
#define NAME_BYTES 32
#define SET_BATCH 256
#define HASH_NONE UINT64_MAX /* CPython: -1 is no hash */

/* An object's beginning, at least `need` bytes, where it is of the type of that name. A class made by Python code may
 * be called `set` too, but has the flag of those made at run time. */
static int head_read_named(
	const struct py_reader *py, raddr object, const char *name, size_t need, struct object_head *ret) {
	struct type_head type;
	char text[NAME_BYTES];
	int r = object_head_read(py, object, py->layout.object_size, ret);

	if (!r)
		r = type_head_read(py, ret->type, &type);
	if (!r)
		r = type.name ? mem_read_cstr(py->mem, type.name, text, sizeof(text)) : PY_E_TYPE;
	if (!r && (strcmp(text, name) != 0 || (!strchr(name, '.') && type.flags & TYPE_HEAP)))
		r = PY_E_TYPE;
	if (!r && ret->len < need)
		r = object_head_read(py, object, need, ret);
	return r;
}

struct deque {
	raddr block;
	uint64_t index; /* of the first item in it */
	size_t n;       /* items in all */
	size_t per_block;
};

static int deque_open(const struct py_reader *py, raddr object, struct deque *ret) {
	const struct layout *l = &py->layout;
	struct object_head head;
	int r;

	if (!layout_has(l->deque_leftblock) || !layout_has(l->deque_block_right))
		return PY_E_TYPE;
	r = head_read_named(py, object, "collections.deque", l->deque_leftindex + WORD, &head);
	if (!r)
		r = object_count(&head, l->var_size, &ret->n);
	if (r)
		return r;
	ret->block = object_u64(&head, l->deque_leftblock);
	ret->index = object_u64(&head, l->deque_leftindex);
	ret->per_block = (l->deque_block_right - l->deque_block_data) / WORD;
	return ret->index < ret->per_block || !ret->n ? 0 : PY_E_TORN;
}

/* Copies items from one block and goes on to the next one. */
static int deque_next(const struct py_reader *py, struct deque *deque, raddr *items, size_t n) {
	const struct layout *l = &py->layout;
	struct mem_range ranges[] = {
		{ deque->block + l->deque_block_data + deque->index * WORD, n * WORD, items },
		{ deque->block + l->deque_block_right, sizeof(deque->block), &deque->block },
	};

	deque->index = 0;
	return mem_read_many(py->mem, ranges, ARRAY_SIZE(ranges), NULL);
}

int py_deque_read(const struct py_reader *py, raddr object, raddr *items, size_t max, size_t *ret_n) {
	struct deque deque;
	int r = deque_open(py, object, &deque);

	if (r)
		return r;
	for (size_t done = 0, n, wanted = min_of(deque.n, max); done < wanted; done += n) {
		n = min_of(deque.per_block - deque.index, wanted - done);
		r = deque_next(py, &deque, items + done, n);
		if (r)
			return r;
	}
	*ret_n = deque.n;
	return deque.n > max ? PY_E_TRUNCATED : 0;
}

/* To 3.12: what has been taken out lies before the position until the list is made shorter. */
static int list_queue_read(
	const struct py_reader *py, const struct object_head *queue, raddr *items, size_t max, size_t *ret_n) {
	struct object_head list;
	size_t n, from;
	int r = object_count(queue, py->layout.simplequeue_list_pos, &from);

	if (!r)
		r = object_head_read_as(py, object_u64(queue, py->layout.simplequeue_list), TYPE_LIST,
			py->layout.list_items + WORD, &list);
	if (!r)
		r = object_count(&list, py->layout.var_size, &n);
	if (!r && from > n)
		r = PY_E_TORN;
	if (r)
		return r;
	n -= from;
	if (min_of(n, max))
		r = mem_read(
			py->mem, object_u64(&list, py->layout.list_items) + from * WORD, items, min_of(n, max) * WORD);
	if (!r)
		*ret_n = n;
	return r ? r : n > max ? PY_E_TRUNCATED : 0;
}

static int ring_read(
	const struct py_reader *py, const struct object_head *queue, raddr *items, size_t max, size_t *ret_n) {
	raddr ring = object_u64(queue, py->layout.simplequeue_ring_items);
	size_t n, cap, from, some, to_end;
	int r = object_count(queue, py->layout.simplequeue_ring_n, &n);

	if (!r)
		r = object_count(queue, py->layout.simplequeue_ring_cap, &cap);
	if (!r)
		r = object_count(queue, py->layout.simplequeue_ring_get, &from);
	if (!r && (n > cap || (n && from >= cap)))
		r = PY_E_TORN;
	if (r)
		return r;
	some = min_of(n, max);
	to_end = min_of(some, cap - from);
	if (to_end)
		r = mem_read(py->mem, ring + from * WORD, items, to_end * WORD);
	if (!r && some > to_end)
		r = mem_read(py->mem, ring, items + to_end, (some - to_end) * WORD);
	if (!r)
		*ret_n = n;
	return r ? r : n > max ? PY_E_TRUNCATED : 0;
}

int py_simple_queue_read(const struct py_reader *py, raddr object, raddr *items, size_t max, size_t *ret_n) {
	const struct layout *l = &py->layout;
	bool is_ring = layout_has(l->simplequeue_ring_n);
	struct object_head head;
	int r;

	if (!is_ring && !layout_has(l->simplequeue_list))
		return PY_E_TYPE;
	r = head_read_named(py, object, "_queue.SimpleQueue",
		(is_ring ? l->simplequeue_ring_n : l->simplequeue_list_pos) + WORD, &head);
	if (r)
		return r;
	return is_ring ? ring_read(py, &head, items, max, ret_n) : list_queue_read(py, &head, items, max, ret_n);
}

/* Copies the members among up to SET_BATCH slots, `room` at most. Return: 0 and how many were found, also beyond room.
 */
static int slots_read(const struct py_reader *py, raddr first, size_t n, raddr *items, size_t room, size_t *ret_found) {
	uint64_t slots[SET_BATCH][2]; /* key, hash */
	size_t found = 0;
	int r = mem_read(py->mem, first, slots, n * sizeof(slots[0]));

	for (size_t i = 0; !r && i < n; i++) {
		if (!slots[i][0] || slots[i][1] == HASH_NONE)
			continue;
		if (found < room)
			items[found] = slots[i][0];
		found++;
	}
	if (!r)
		*ret_found = found;
	return r;
}

int py_set_read(const struct py_reader *py, raddr object, raddr *items, size_t max, size_t *ret_n) {
	const struct layout *l = &py->layout;
	struct object_head head;
	size_t slots, used, n = 0, found;
	raddr table;
	int r = head_read_named(py, object, "set", l->set_table + WORD, &head);

	if (r == PY_E_TYPE)
		r = head_read_named(py, object, "frozenset", l->set_table + WORD, &head);
	if (!r)
		r = object_count(&head, l->set_mask, &slots);
	if (!r)
		r = object_count(&head, l->set_used, &used);
	if (!r && (slots & (slots + 1)))
		r = PY_E_TYPE;
	if (r)
		return r;
	table = object_u64(&head, l->set_table);
	slots = min_of(slots + 1, (size_t)LIMIT_DICT_ENTRIES);
	for (size_t from = 0; from < slots && n <= max; from += SET_BATCH) {
		r = slots_read(py, table + from * 2 * WORD, min_of(slots - from, (size_t)SET_BATCH),
			items + min_of(n, max), max - min_of(n, max), &found);
		if (r)
			return r;
		n += found;
	}
	*ret_n = n > max ? max_of(n, used) : n;
	return n > max || slots == LIMIT_DICT_ENTRIES ? PY_E_TRUNCATED : 0;
}
