/* SPDX-License-Identifier: MIT */
/* Locks, wait entries and containers by hand, as each version lays them out, and what a hostile target could put in
 * their place. Real ones are compared by tests/live/locks_oracle.sh. */
#include "engine/base/limits.h"
#include "engine/cpython/locks.h"
#include "engine/cpython/objects.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

#define V3_13 0x030d0000
#define WORD 8
#define IDENT UINT64_C(0x7f1234567640)
#define ITEMS_MAX 300
#define DEQUE_BLOCK 64

/* An object of a type of its own, with `behind` bytes after its head. */
static raddr new_object(struct image *img, const char *type_name, size_t behind) {
	const struct layout *l = img->l;
	raddr type = image_take(img, 1024), name = image_take(img, 64);
	raddr at = image_take(img, 512);

	image_put(img, name, type_name, strlen(type_name) + 1);
	image_put_u64(img, type + l->type_name, name);
	image_put_u64(img, type + l->type_basicsize, l->object_size + behind);
	image_put_u64(img, at + l->object_type, type);
	return at;
}

static bool has_mutexes(const struct image *img) {
	return img->rt.reader.version >= V3_13;
}

static struct py_lock lock_at(struct image *img, raddr object) {
	struct py_lock lock;

	cr_assert_eq(py_lock_read(&img->rt.reader, object, &lock), 0);
	cr_assert(py_lock_is(&img->rt.reader, object));
	cr_assert_eq(lock.object, object);
	return lock;
}

static int lock_result(struct image *img, raddr object) {
	struct py_lock lock = { .count = 99 };
	int r = py_lock_read(&img->rt.reader, object, &lock);

	cr_assert(!r || lock.count == 99, "untouched on failure");
	return r;
}

static raddr new_sem_lock(struct image *img, bool locked) {
	raddr at = new_object(img, "_thread.lock", 3 * WORD);

	image_put_u64(img, at + img->l->lock_sem, IMAGE_NOWHERE);
	image_put_u8(img, at + img->l->lock_locked, locked);
	return at;
}

static raddr new_mutex_lock(struct image *img, uint8_t bits) {
	raddr at = new_object(img, "_thread.lock", 1 * WORD);

	image_put_u8(img, at + img->l->object_size, bits);
	return at;
}

static void check_plain_lock(struct image *img) {
	struct py_lock lock;

	for (int locked = 0; layout_has(img->l->lock_sem) && locked < 2; locked++) {
		lock = lock_at(img, new_sem_lock(img, locked));
		cr_assert_eq(lock.kind, PY_LOCK);
		cr_assert_eq(lock.word, IMAGE_NOWHERE);
		cr_assert_eq(lock.locked, locked);
		cr_assert_eq(lock.owner, 0);
	}
	for (uint8_t bits = 0; bits < 4; bits++) {
		raddr object = new_mutex_lock(img, bits);

		if (!has_mutexes(img)) {
			cr_assert_eq(lock_result(img, object), PY_E_TYPE);
			continue;
		}
		lock = lock_at(img, object);
		cr_assert_eq(lock.word, object + img->l->object_size);
		cr_assert_eq(lock.locked, bits & 1);
	}
}

Test(locks, plain) {
	image_each(check_plain_lock);
}

/* The row that is nearest has semaphores, but 3.13.2 has mutexes: the size of the type says so. */
Test(locks, form_by_size) {
	struct image_build build = { 0x030d02f0, LAYOUT_RELEASE };
	struct image img;
	raddr object;

	image_open(&img, &build);
	cr_assert_not(layout_has(img.l->lock_mutex));
	object = new_mutex_lock(&img, 3);
	cr_assert_eq(lock_at(&img, object).word, object + img.l->object_size);
	cr_assert(lock_at(&img, object).locked);
	image_close(&img);
}

static void check_rlock(struct image *img) {
	const struct layout *l = img->l;
	bool mutex = layout_has(l->rlock_mutex);
	raddr object = new_object(img, "_thread.RLock", (mutex ? 3 : 4) * WORD);
	raddr word = mutex ? object + l->rlock_mutex : IMAGE_NOWHERE;
	struct py_lock lock;

	if (!mutex)
		image_put_u64(img, object + l->rlock_sem, word);
	lock = lock_at(img, object);
	cr_assert(!lock.locked && !lock.owner && !lock.count);
	if (mutex)
		image_put_u8(img, word, 3);
	image_put_u64(img, object + l->rlock_owner, IDENT);
	image_put_u64(img, object + l->rlock_count, mutex ? 1 : 2); /* the mutex form counts the second time only */
	lock = lock_at(img, object);
	cr_assert_eq(lock.kind, PY_RLOCK);
	cr_assert_eq(lock.word, word);
	cr_assert(lock.locked && lock.recursive);
	cr_assert_eq(lock.owner, IDENT);
	cr_assert_eq(lock.count, 2);
}

Test(locks, recursive) {
	image_each(check_rlock);
}

/* A count that a target made up cannot be counted on. */
static void check_rlock_count(struct image *img) {
	const struct layout *l = img->l;
	bool mutex = layout_has(l->rlock_mutex);
	raddr object = new_object(img, "_thread.RLock", (mutex ? 3 : 4) * WORD);

	image_put_u64(img, object + l->rlock_owner, IDENT);
	image_put_u64(img, object + l->rlock_count, INT64_MAX);
	if (mutex)
		image_put_u8(img, object + l->rlock_mutex, 1);
	cr_assert_eq(lock_result(img, object), PY_E_TORN);
}

Test(locks, rlock_with_a_count_beyond_all) {
	image_each(check_rlock_count);
}

static void check_semlock(struct image *img) {
	const struct layout *l = img->l;
	raddr object = new_object(img, "_multiprocessing.SemLock", 5 * WORD), sem = image_take(img, 32);
	struct py_lock lock;

	image_put_u64(img, object + l->semlock_handle, sem);
	image_put_u64(img, object + l->semlock_last_tid, IDENT);
	image_put_u32(img, object + l->semlock_maxvalue, 3);
	image_put_u32(img, object + l->semlock_kind, 1);
	image_put_u64(img, sem, UINT64_C(2) << 32 | 1); /* two waiters, one unit */
	lock = lock_at(img, object);
	cr_assert_eq(lock.kind, PY_SEMLOCK);
	cr_assert(!lock.locked && !lock.owner && !lock.recursive);
	cr_assert_eq(lock.maxvalue, 3);
	cr_assert_eq(lock.word, sem);
	image_put_u64(img, sem, UINT64_C(2) << 32);
	image_put_u32(img, object + l->semlock_count, 2);
	lock = lock_at(img, object);
	cr_assert(lock.locked);
	cr_assert_eq(lock.owner, IDENT);
	cr_assert_eq(lock.count, 2);
	image_put_u64(img, object + l->semlock_handle, IMAGE_NOWHERE);
	cr_assert_eq(lock_result(img, object), MEM_E_FAULT);
}

Test(locks, shared) {
	image_each(check_semlock);
}

static void check_buffered(struct image *img) {
	raddr object = new_object(img, "_io.BufferedReader", 17 * WORD);
	struct py_lock lock;

	image_put_u64(img, object + img->l->buffered_lock, IMAGE_NOWHERE);
	lock = lock_at(img, object);
	cr_assert_eq(lock.kind, PY_BUFFERED);
	cr_assert(!lock.locked && lock.word == IMAGE_NOWHERE);
	image_put_u64(img, object + img->l->buffered_owner, IDENT);
	lock = lock_at(img, object);
	cr_assert(lock.locked && lock.owner == IDENT);
}

Test(locks, buffered) {
	image_each(check_buffered);
}

/* What was freed stays where it was until the memory is used again. */
static void check_live(struct image *img) {
	static const struct {
		uint64_t count;
		bool live;
	} rows[] = {
		{ 0, false }, { 1, true }, { UINT32_MAX, true },
		{ 0x7f2f90efff80, false },    /* a link to the next free block */
		{ 0x0001000000000001, true }, /* with a flag of 3.14 */
	};
	raddr object = new_object(img, "_thread.lock", 3 * WORD);
	bool shared_out = img->rt.reader.flavour & LAYOUT_FREE_THREADED;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		image_put_u64(img, object + img->l->object_type - WORD, rows[i].count);
		cr_expect_eq(py_object_is_live(&img->rt.reader, object), rows[i].live || shared_out, "row %zu", i);
	}
	if (!shared_out) {
		cr_expect_not(py_object_is_live(&img->rt.reader, 0));
		cr_expect_not(py_object_is_live(&img->rt.reader, IMAGE_NOWHERE));
	}
}

Test(locks, freed) {
	image_each(check_live);
}

static void check_no_lock(struct image *img) {
	static const size_t sizes[] = { 0, 16, 48, 4096, SIZE_MAX / 2 };
	raddr object;

	cr_assert_eq(lock_result(img, 0), PY_E_TYPE);
	cr_assert_eq(lock_result(img, IMAGE_NOWHERE), MEM_E_FAULT);
	cr_assert_eq(lock_result(img, image_object(img, T_PLAIN, 64)), PY_E_TYPE);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		cr_assert_eq(lock_result(img, new_object(img, "_thread.lock", sizes[i])), PY_E_TYPE);
	object = new_object(img, "_io.BufferedReader", 1 << 20);
	cr_assert_eq(lock_result(img, object), PY_E_TYPE);
	image_put_u64(img, object + img->l->object_type, IMAGE_NOWHERE);
	cr_assert_eq(lock_result(img, object), MEM_E_FAULT);
	object = new_object(img, "_thread.lockable", 3 * WORD);
	cr_assert_not(py_lock_is(&img->rt.reader, object));
}

Test(locks, others) {
	image_each(check_no_lock);
}

/* Parked threads */

static void link_node(struct image *img, raddr node) {
	raddr root = image_take(img, 16);

	image_put_u64(img, node, root);
	image_put_u64(img, node + WORD, root);
	image_put_u64(img, root, node);
	image_put_u64(img, root + WORD, node);
}

/* The futex word of a thread that is parked at an address. */
static raddr new_parked(struct image *img, raddr address) {
	const struct layout *l = img->l;
	raddr entry = image_take(img, 128);

	image_put_u64(img, entry + l->wait_entry_addr, address);
	link_node(img, entry + l->wait_entry_node);
	return entry + l->wait_entry_sema;
}

static struct py_parking parking_at(struct image *img, raddr futex) {
	struct py_parking parking = { .kind = PY_PARKED_JOIN };

	cr_assert_eq(py_parking_read(&img->rt.reader, futex, &parking), 0);
	return parking;
}

static void check_parked_mutex(struct image *img) {
	raddr lock = new_mutex_lock(img, 3), other = image_take(img, 512) + 256, futex;
	struct py_parking parking;

	cr_assert_eq(parking_at(img, other).kind, PY_PARKED_NONE);
	cr_assert_eq(parking_at(img, IMAGE_NOWHERE).kind, PY_PARKED_NONE);
	cr_assert_eq(parking_at(img, 0).kind, PY_PARKED_NONE);
	if (!has_mutexes(img))
		return;
	futex = new_parked(img, lock + img->l->object_size);
	parking = parking_at(img, futex);
	cr_assert_eq(parking.kind, PY_PARKED_MUTEX);
	cr_assert_eq(parking.object, lock);
	cr_assert_eq(parking.address, lock + img->l->object_size);
	parking = parking_at(img, new_parked(img, other));
	cr_assert_eq(parking.kind, PY_PARKED_MUTEX);
	cr_assert(parking.address == other && !parking.object && !parking.ident);
	parking = parking_at(img, new_parked(img, IMAGE_NOWHERE + 8));
	cr_assert(parking.kind == PY_PARKED_MUTEX && !parking.object);
	cr_assert_eq(parking_at(img, new_parked(img, 3)).kind, PY_PARKED_NONE);
	if (layout_has(img->l->rlock_sem)) {
		raddr rlock = new_object(img, "_thread.RLock", 4 * WORD);

		cr_assert_eq(parking_at(img, new_parked(img, rlock + img->l->object_size)).object, 0);
	}
	/* in no list: it only looks like a wait entry */
	image_put_u64(img, futex - img->l->wait_entry_sema + img->l->wait_entry_node, other);
	image_put_u64(img, futex - img->l->wait_entry_sema + img->l->wait_entry_node + WORD, other);
	cr_assert_eq(parking_at(img, futex).kind, PY_PARKED_NONE);
}

Test(locks, parked_mutex) {
	image_each(check_parked_mutex);
}

static void check_parked_join(struct image *img) {
	const struct layout *l = img->l;
	raddr handle = image_take(img, 512) + 128, futex;
	struct py_parking parking;

	if (!has_mutexes(img))
		return;
	link_node(img, handle);
	image_put_u64(img, handle + l->handle_ident, IDENT);
	image_put_u32(img, handle + l->handle_state, 3);
	for (unsigned once = 0; once < 2; once++) {
		parking = parking_at(img, new_parked(img, handle + l->handle_exiting + once));
		cr_assert_eq(parking.kind, PY_PARKED_JOIN);
		cr_assert_eq(parking.ident, IDENT);
		cr_assert_eq(parking.object, 0);
	}
	cr_assert_eq(parking_at(img, new_parked(img, handle + l->handle_mutex)).kind, PY_PARKED_MUTEX);
	futex = new_parked(img, handle + l->handle_exiting);
	image_put_u32(img, handle + l->handle_state, 7);
	cr_assert_eq(parking_at(img, futex).kind, PY_PARKED_MUTEX);
	image_put_u32(img, handle + l->handle_state, 3);
	image_put_u64(img, handle + l->handle_ident, IDENT + 1);
	cr_assert_eq(parking_at(img, futex).kind, PY_PARKED_MUTEX);
	image_put_u64(img, handle + l->handle_ident, IDENT);
	image_put_u64(img, handle, handle + 64);
	image_put_u64(img, handle + WORD, handle + 64);
	cr_assert_eq(parking_at(img, futex).kind, PY_PARKED_MUTEX);
}

Test(locks, parked_join) {
	image_each(check_parked_join);
}

/* Containers */

typedef int (*container_reader)(const struct py_reader *py, raddr object, raddr *items, size_t max, size_t *ret_n);

/* All of them, the half, none: `first` and those that follow, 8 apart. */
static void expect_items(struct image *img, container_reader reader, raddr object, raddr first, size_t n) {
	const size_t maxima[] = { ITEMS_MAX, n, n / 2, 0 };
	raddr items[ITEMS_MAX];
	size_t got;

	for (size_t k = 0; k < ARRAY_SIZE(maxima); k++) {
		got = SIZE_MAX;
		memset(items, 0, sizeof(items));
		cr_assert_eq(
			reader(&img->rt.reader, object, items, maxima[k], &got), n > maxima[k] ? PY_E_TRUNCATED : 0);
		cr_assert_eq(got, n);
		for (size_t i = 0; i < min_of(n, maxima[k]); i++)
			cr_assert_eq(items[i], first + i * WORD);
	}
}

static void expect_failure(struct image *img, container_reader reader, raddr object, int expected) {
	raddr items[ITEMS_MAX];
	size_t got = 77;

	cr_assert_eq(reader(&img->rt.reader, object, items, ITEMS_MAX, &got), expected);
	cr_assert_eq(got, 77);
}

/* Items that tell their place, from number `index` of the first block on. */
static raddr new_deque(struct image *img, raddr first, size_t n, size_t index) {
	const struct layout *l = img->l;
	raddr at = new_object(img, "collections.deque", 25 * WORD), link = at + l->deque_leftblock;

	image_put_u64(img, at + l->var_size, n);
	image_put_u64(img, at + l->deque_leftindex, index);
	for (size_t done = 0; done < n || !done; index = 0) {
		raddr block = image_take(img, l->deque_block_right + WORD);

		image_put_u64(img, link, block);
		link = block + l->deque_block_right;
		for (; index < DEQUE_BLOCK && done < n; index++, done++)
			image_put_u64(img, block + l->deque_block_data + index * WORD, first + done * WORD);
		if (!n)
			break;
	}
	return at;
}

static void check_deque(struct image *img) {
	static const size_t lengths[] = { 0, 1, 63, 64, 65, 200 }, indices[] = { 0, 31, 63 };
	const struct layout *l = img->l;
	raddr object;

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++)
		for (size_t k = 0; k < ARRAY_SIZE(indices); k++)
			expect_items(
				img, py_deque_read, new_deque(img, IDENT, lengths[i], indices[k]), IDENT, lengths[i]);
	object = new_deque(img, IDENT, 100, 0);
	image_put_u64(img, object + l->deque_leftindex, DEQUE_BLOCK);
	expect_failure(img, py_deque_read, object, PY_E_TORN);
	image_put_u64(img, object + l->deque_leftindex, 0);
	image_put_u64(img, image_u64(img, object + l->deque_leftblock) + l->deque_block_right, IMAGE_NOWHERE);
	expect_failure(img, py_deque_read, object, MEM_E_FAULT);
	image_put_u64(img, object + l->var_size, UINT64_MAX);
	expect_failure(img, py_deque_read, object, PY_E_TYPE);
	expect_failure(img, py_deque_read, new_object(img, "deque", 25 * WORD), PY_E_TYPE);
}

Test(locks, deque) {
	image_each(check_deque);
}

static void check_list_queue(struct image *img, raddr object) {
	const struct layout *l = img->l;
	raddr list = new_object(img, "list", 3 * WORD), items = image_take(img, 8 * WORD);

	image_put_u64(img, image_u64(img, list + l->object_type) + l->type_flags, 1U << 25);
	for (size_t i = 0; i < 8; i++)
		image_put_u64(img, items + i * WORD, IDENT + i * WORD);
	image_put_u64(img, list + l->var_size, 8);
	image_put_u64(img, list + l->list_items, items);
	image_put_u64(img, object + l->simplequeue_list, list);
	image_put_u64(img, object + l->simplequeue_list_pos, 3);
	expect_items(img, py_simple_queue_read, object, IDENT + 3 * WORD, 5);
	image_put_u64(img, object + l->simplequeue_list_pos, 8);
	expect_items(img, py_simple_queue_read, object, 0, 0);
	image_put_u64(img, object + l->simplequeue_list_pos, 9);
	expect_failure(img, py_simple_queue_read, object, PY_E_TORN);
}

static void check_ring_queue(struct image *img, raddr object) {
	const struct layout *l = img->l;
	raddr items = image_take(img, 8 * WORD);

	image_put_u64(img, object + l->simplequeue_ring_items, items);
	image_put_u64(img, object + l->simplequeue_ring_cap, 8);
	expect_items(img, py_simple_queue_read, object, 0, 0);
	for (size_t from = 0; from < 8; from++) {
		for (size_t i = 0; i < 8; i++)
			image_put_u64(img, items + (from + i) % 8 * WORD, IDENT + i * WORD);
		image_put_u64(img, object + l->simplequeue_ring_get, from);
		for (size_t n = 1; n <= 8; n++) {
			image_put_u64(img, object + l->simplequeue_ring_n, n);
			expect_items(img, py_simple_queue_read, object, IDENT, n);
		}
	}
	image_put_u64(img, object + l->simplequeue_ring_get, 8);
	expect_failure(img, py_simple_queue_read, object, PY_E_TORN);
	image_put_u64(img, object + l->simplequeue_ring_get, 0);
	image_put_u64(img, object + l->simplequeue_ring_n, 9);
	expect_failure(img, py_simple_queue_read, object, PY_E_TORN);
	image_put_u64(img, object + l->simplequeue_ring_n, UINT64_MAX);
	expect_failure(img, py_simple_queue_read, object, PY_E_TYPE);
}

static void check_queue(struct image *img) {
	raddr object = new_object(img, "_queue.SimpleQueue", 7 * WORD);

	if (layout_has(img->l->simplequeue_list))
		check_list_queue(img, object);
	else
		check_ring_queue(img, object);
	expect_failure(img, py_simple_queue_read, image_object(img, T_PLAIN, 64), PY_E_TYPE);
}

Test(locks, simple_queue) {
	image_each(check_queue);
}

static void check_set(struct image *img) {
	const struct layout *l = img->l;
	raddr object = new_object(img, "frozenset", 23 * WORD), table = image_take(img, 512 * 2 * WORD);
	raddr type = image_u64(img, object + l->object_type);

	image_put_u64(img, object + l->set_mask, 511);
	image_put_u64(img, object + l->set_table, table);
	expect_items(img, py_set_read, object, 0, 0);
	/* every second slot, and what was taken out between them */
	for (size_t i = 0; i < 200; i++) {
		image_put_u64(img, table + i * 4 * WORD, IDENT + i * WORD);
		image_put_u64(img, table + i * 4 * WORD + WORD, i);
		image_put_u64(img, table + (i * 2 + 1) * 2 * WORD, IMAGE_NOWHERE);
		image_put_u64(img, table + (i * 2 + 1) * 2 * WORD + WORD, UINT64_MAX);
	}
	image_put_u64(img, object + l->set_used, 200);
	expect_items(img, py_set_read, object, IDENT, 200);
	image_put_u64(img, object + l->set_mask, 510);
	expect_failure(img, py_set_read, object, PY_E_TYPE);
	image_put_u64(img, object + l->set_mask, (UINT64_C(1) << 40) - 1);
	image_put_u64(img, object + l->set_table, IMAGE_BASE + IMAGE_BYTES - 4096);
	expect_failure(img, py_set_read, object, MEM_E_FAULT);
	image_put_u64(img, object + l->set_mask, 511);
	image_put_u64(img, object + l->set_table, table);
	image_put_u64(img, type + l->type_flags, 1U << 9); /* a class of the program's with that name */
	expect_failure(img, py_set_read, object, PY_E_TYPE);
}

Test(locks, set) {
	image_each(check_set);
}

/* Mutexes of the C library, whole as glibc 2.36 left them on x86-64 with a waiter. */

static const struct {
	uint32_t words[5]; /* lock, count, owner, users, kind */
	pid_t owner;
	bool recursive;
} mutexes[] = {
	{ { 2, 0, 1234, 1, 0 }, 1234, false }, { { 1, 0, 1234, 1, 0x200 }, 1234, false },
	{ { 2, 3, 1234, 1, 1 }, 1234, true }, { { 2, 0, 1234, 1, 2 }, 1234, false },
	{ { 2, 0, 1234, 1, 3 }, 1234, false }, { { 2, 0, 1234, 1, 0x80 }, 1234, false },
	{ { 0x80000000 | 1234, 1, 1234, 1, 0x10 }, 1234, false },
	{ { 0x80000000 | 1234, 1, 1234, 1, 0x21 }, 1234, true }, { { 0x80000000 | 1235, 1, 1234, 1, 0x10 }, 0, false },
	{ { 0, 0, 0, 0, 0 }, 0, false },             /* free, or a semaphore without units */
	{ { 0, 1, 1234, 1, 0 }, 0, false },          /* not held */
	{ { 3, 0, 1234, 1, 0 }, 0, false },          /* no such state */
	{ { 2, 0, 0, 1, 0 }, 0, false },             /* nobody's */
	{ { 2, 0, 0x80000001, 1, 0 }, 0, false },    /* no thread's id */
	{ { 2, 0, 0x7fffffff, 1, 0 }, 0, false },    /* none that Linux gives */
	{ { 2, 0, 1234, 0, 0 }, 0, false },          /* nobody uses it */
	{ { 2, 0, 1234, 1, 1 }, 0, false },          /* recursive and never taken */
	{ { 2, 2, 1234, 1, 0 }, 0, false },          /* taken twice and not recursive */
	{ { 2, 0, 1234, 1, 0xdeadbeef }, 0, false }, /* no such kind */
};

Test(locks, native_mutex) {
	for (size_t i = 0; i < ARRAY_SIZE(mutexes); i++) {
		struct mem_segment segment = { IMAGE_BASE, sizeof(mutexes[i].words), mutexes[i].words };
		struct mem *mem;
		pid_t owner = -1;
		bool recursive = true;

		cr_assert_eq(mem_bytes_new(&segment, 1, &mem), 0);
		cr_assert_eq(native_mutex_owner(mem, IMAGE_BASE, &owner, &recursive), 0);
		cr_assert_eq(owner, mutexes[i].owner, "mutex %zu: %d", i, (int)owner);
		cr_assert_eq(recursive, mutexes[i].recursive, "mutex %zu", i);
		cr_assert_eq(native_mutex_owner(mem, IMAGE_BASE + 4, &owner, &recursive), MEM_E_FAULT);
		mem_free(mem);
	}
}
