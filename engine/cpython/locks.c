/* SPDX-License-Identifier: MIT */
/* Locks, and what parked threads wait at.
 *
 * _thread.lock and _thread.RLock exist in two forms: over a semaphore of the C library, to which the object points, and
 * over a mutex of one byte in the object itself. Patch releases differ in it (3.13.0 has the first, 3.13.1 the second),
 * so the size of the type decides, not the version. Neither form of a _thread.lock says who holds it.
 *
 * Threads that wait for a mutex in an object, or for an event, sleep at the semaphore of a wait entry on their own
 * stack (CPython 3.13 Python/parking_lot.c); the address that they wait for stands in that entry. Whether a futex word
 * is in such an entry its list tells, whose nodes point at each other.
 *
 * Only the types themselves are known, no subclasses of them: the standard library makes none. */
#include "engine/cpython/locks.h"

#include "engine/cpython/object_head.h"
#include <errno.h>
#include <string.h>

#define WORD sizeof(uint64_t)
#define LOCK_SEM_BYTES (3 * WORD) /* of the object behind its head: semaphore, weak references, a flag */
#define LOCK_MUTEX_BYTES (1 * WORD)
#define RLOCK_SEM_BYTES (4 * WORD) /* semaphore, owner, count, weak references */
#define RLOCK_MUTEX_BYTES (3 * WORD)
#define MUTEX_LOCKED 1U          /* CPython 3.13 Include/internal/pycore_lock.h */
#define SEM_VALUE_MASK INT32_MAX /* glibc and musl keep the value in the low half of the first word */
#define SEMLOCK_RECURSIVE 0      /* CPython Modules/_multiprocessing/semaphore.c */
#define HANDLE_STATE_MAX 4       /* CPython 3.13 Modules/_threadmodule.c: from 1, not started, to done */
#define PTHREAD_ALIGN 8
#define USER_MIN 4096
#define USER_MAX (UINT64_C(1) << 56)

static const struct lock_type {
	const char *name;
	enum py_lock_kind kind;
	size_t forms[2]; /* bytes behind the object's head, over a semaphore and with a mutex, where that tells */
} lock_types[] = {
	{ "_thread.lock", PY_LOCK, { LOCK_SEM_BYTES, LOCK_MUTEX_BYTES } },
	{ "_thread.RLock", PY_RLOCK, { RLOCK_SEM_BYTES, RLOCK_MUTEX_BYTES } },
	{ "_multiprocessing.SemLock", PY_SEMLOCK, { 0 } },
	{ "_io.BufferedReader", PY_BUFFERED, { 0 } },
	{ "_io.BufferedWriter", PY_BUFFERED, { 0 } },
	{ "_io.BufferedRandom", PY_BUFFERED, { 0 } },
};

#define TYPE_NAME_BYTES 32

static bool type_is(const struct py_reader *py, const struct type_head *type, size_t behind_head) {
	return type->basicsize == (int64_t)(py->layout.object_size + behind_head);
}

static bool has_parking(const struct py_reader *py) {
	const struct layout *l = &py->layout;

	return layout_has(l->wait_entry_addr) && layout_has(l->wait_entry_sema) && layout_has(l->wait_entry_node);
}

/* Return: 0; PY_E_TYPE: no lock's; MEM_E_*. */
static int lock_type_of(
	const struct py_reader *py, raddr type, struct type_head *ret_head, enum py_lock_kind *ret_kind) {
	char name[TYPE_NAME_BYTES];
	int r = type_head_read(py, type, ret_head);

	if (!r)
		r = ret_head->name ? mem_read_cstr(py->mem, ret_head->name, name, sizeof(name)) : PY_E_TYPE;
	if (r)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(lock_types); i++) {
		const struct lock_type *known = &lock_types[i];

		if (strcmp(known->name, name) != 0)
			continue;
		if (known->forms[0] && !type_is(py, ret_head, known->forms[0]) &&
			!(has_parking(py) && type_is(py, ret_head, known->forms[1])))
			return PY_E_TYPE;
		*ret_kind = known->kind;
		return 0;
	}
	return PY_E_TYPE;
}

bool py_lock_is(const struct py_reader *py, raddr object) {
	struct type_head head;
	enum py_lock_kind kind;
	raddr type;

	return !py_type_of(py, object, &type) && !lock_type_of(py, type, &head, &kind);
}

static uint8_t object_u8(const struct object_head *head, uint32_t offset) {
	return offset < head->len ? head->bytes[offset] : 0;
}

static uint32_t object_u32(const struct object_head *head, uint32_t offset) {
	return peek_u32(head->bytes, head->len, offset);
}

/* The mutex follows the object's head, which rows of builds without one do not tell. */
static uint32_t mutex_offset(const struct py_reader *py, uint32_t measured) {
	return layout_has(measured) ? measured : py->layout.object_size;
}

static int lock_read(const struct py_reader *py, const struct object_head *head, const struct type_head *type,
	struct py_lock *lock) {
	const struct layout *l = &py->layout;

	if (type_is(py, type, LOCK_MUTEX_BYTES)) {
		uint32_t mutex = mutex_offset(py, l->lock_mutex);

		lock->word = head->addr + mutex;
		lock->locked = object_u8(head, mutex) & MUTEX_LOCKED;
		return 0;
	}
	if (!layout_has(l->lock_sem) || !layout_has(l->lock_locked))
		return PY_E_TYPE;
	lock->word = object_u64(head, l->lock_sem);
	lock->locked = object_u8(head, l->lock_locked);
	return 0;
}

/* The mutex form counts how often it was taken again, the other one how often it was taken. */
static int rlock_read(const struct py_reader *py, const struct object_head *head, const struct type_head *type,
	struct py_lock *lock) {
	const struct layout *l = &py->layout;

	if (!layout_has(l->rlock_owner) || !layout_has(l->rlock_count))
		return PY_E_TYPE;
	lock->recursive = true;
	lock->count = (int64_t)object_u64(head, l->rlock_count);
	if (lock->count == INT64_MAX)
		return PY_E_TORN;
	if (type_is(py, type, RLOCK_MUTEX_BYTES)) {
		uint32_t mutex = mutex_offset(py, l->rlock_mutex);

		lock->word = head->addr + mutex;
		lock->locked = object_u8(head, mutex) & MUTEX_LOCKED;
		lock->count += lock->locked;
	} else if (layout_has(l->rlock_sem)) {
		lock->word = object_u64(head, l->rlock_sem);
		lock->locked = lock->count > 0;
	} else {
		return PY_E_TYPE;
	}
	if (lock->locked)
		lock->owner = object_u64(head, l->rlock_owner);
	else
		lock->count = 0;
	return 0;
}

static int semlock_read(const struct py_reader *py, const struct object_head *head, struct py_lock *lock) {
	const struct layout *l = &py->layout;
	uint64_t sem;
	int r;

	if (!layout_has(l->semlock_handle))
		return PY_E_TYPE;
	lock->word = object_u64(head, l->semlock_handle);
	r = mem_read_u64(py->mem, lock->word, &sem);
	if (r)
		return r;
	lock->locked = !(sem & SEM_VALUE_MASK);
	lock->count = (int32_t)object_u32(head, l->semlock_count);
	lock->maxvalue = (int32_t)object_u32(head, l->semlock_maxvalue);
	lock->recursive = object_u32(head, l->semlock_kind) == SEMLOCK_RECURSIVE;
	if (lock->count > 0)
		lock->owner = object_u64(head, l->semlock_last_tid);
	return 0;
}

/* Who has its lock writes himself down right after taking it, and erases that before giving it back. */
static int buffered_read(const struct py_reader *py, const struct object_head *head, struct py_lock *lock) {
	const struct layout *l = &py->layout;

	if (!layout_has(l->buffered_lock) || !layout_has(l->buffered_owner))
		return PY_E_TYPE;
	lock->word = object_u64(head, l->buffered_lock);
	lock->owner = object_u64(head, l->buffered_owner);
	lock->locked = lock->owner != 0;
	lock->count = lock->locked;
	return 0;
}

int py_lock_read(const struct py_reader *py, raddr object, struct py_lock *ret_lock) {
	struct object_head head;
	struct type_head type;
	struct py_lock lock = { .object = object };
	int r = object_head_read(py, object, py->layout.object_size, &head);

	if (!r)
		r = lock_type_of(py, head.type, &type, &lock.kind);
	/* Now that its size is known, all of it has to be there. */
	if (!r && type.basicsize > (int64_t)head.len)
		r = type.basicsize > OBJECT_HEAD_BYTES ? PY_E_TYPE
						       : object_head_read(py, object, (size_t)type.basicsize, &head);
	if (r)
		return r;
	if (lock.kind == PY_LOCK)
		r = lock_read(py, &head, &type, &lock);
	else if (lock.kind == PY_RLOCK)
		r = rlock_read(py, &head, &type, &lock);
	else if (lock.kind == PY_SEMLOCK)
		r = semlock_read(py, &head, &lock);
	else
		r = buffered_read(py, &head, &lock);
	if (!r)
		*ret_lock = lock;
	return r;
}

/* What cannot be read is something else. Return: 0, also then; MEM_E_GONE; negative errno. */
static int unless_gone(int r) {
	return r == MEM_E_GONE || r < 0 ? r : 0;
}

static bool may_be_address(raddr at) {
	return at >= USER_MIN && at < USER_MAX;
}

/* Whether a node is in a list of CPython's (llist_node: next, prev): the neighbours lead back to it. While the target
 * links another one in beside it, only one does. */
static int node_is_linked(struct mem *mem, raddr node, bool *ret_linked) {
	raddr next_prev = 0, prev_next = 0;
	uint64_t links[2];
	int r = mem_read(mem, node, links, sizeof(links));

	*ret_linked = false;
	if (!r && (!may_be_address(links[0]) || !may_be_address(links[1])))
		return 0;
	if (!r)
		r = mem_read_u64(mem, links[0] + WORD, &next_prev);
	if (!r)
		r = mem_read_u64(mem, links[1], &prev_next);
	if (!r)
		*ret_linked = next_prev == node || prev_next == node;
	return unless_gone(r);
}

/* The address that the wait entry around a futex word names; 0 where it is in no wait entry. */
static int parked_at(const struct py_reader *py, raddr futex, raddr *ret_address) {
	const struct layout *l = &py->layout;
	raddr entry = futex - l->wait_entry_sema, address = 0;
	bool linked = false;
	int r;

	*ret_address = 0;
	if (!has_parking(py) || futex < l->wait_entry_sema)
		return 0;
	r = mem_read_u64(py->mem, entry + l->wait_entry_addr, &address);
	if (r || !may_be_address(address))
		return unless_gone(r);
	r = node_is_linked(py->mem, entry + l->wait_entry_node, &linked);
	if (!r && linked)
		*ret_address = address;
	return r;
}

/* Whether a thread handle with a thread is at an address, and that thread's ident. Handles are in a list of the
 * runtime's by their first member, and the words before the address may be of anything. */
static int handle_read(const struct py_reader *py, raddr handle, uint64_t *ret_ident) {
	const struct layout *l = &py->layout;
	uint64_t ident = 0;
	uint32_t state = 0;
	bool linked = false;
	struct mem_range ranges[] = {
		{ handle + l->handle_ident, sizeof(ident), &ident },
		{ handle + l->handle_state, sizeof(state), &state },
	};
	int r = mem_read_many(py->mem, ranges, ARRAY_SIZE(ranges), NULL);

	*ret_ident = 0;
	if (r || !may_be_address(ident) || ident % PTHREAD_ALIGN || !state || state > HANDLE_STATE_MAX)
		return unless_gone(r);
	r = node_is_linked(py->mem, handle, &linked);
	if (!r && linked)
		*ret_ident = ident;
	return r;
}

/* The event is set when the thread ends. Who joins it, too, while another one waits for its last moments is parked at
 * the byte behind (`once`). */
static int join_at(const struct py_reader *py, raddr address, uint64_t *ret_ident) {
	const struct layout *l = &py->layout;
	int r = 0;

	*ret_ident = 0;
	if (!layout_has(l->handle_exiting) || !layout_has(l->handle_ident) || !layout_has(l->handle_state) ||
		address <= l->handle_exiting)
		return 0;
	for (raddr behind = 0; !r && behind <= 1 && !*ret_ident; behind++)
		if ((address - behind - l->handle_exiting) % WORD == 0)
			r = handle_read(py, address - behind - l->handle_exiting, ret_ident);
	return r;
}

/* The lock object around a mutex; 0 where it is in something else. */
static int object_at(const struct py_reader *py, raddr address, raddr *ret_object) {
	struct py_lock lock;
	int r = py_lock_read(py, address - py->layout.object_size, &lock);

	*ret_object = !r && lock.word == address ? lock.object : 0;
	return unless_gone(r);
}

int py_parking_read(const struct py_reader *py, raddr futex, struct py_parking *ret_parking) {
	struct py_parking parking = { .kind = PY_PARKED_NONE };
	int r = parked_at(py, futex, &parking.address);

	if (!r && parking.address)
		r = object_at(py, parking.address, &parking.object);
	if (!r && parking.address && !parking.object)
		r = join_at(py, parking.address, &parking.ident);
	if (r)
		return r;
	if (parking.address)
		parking.kind = parking.ident ? PY_PARKED_JOIN : PY_PARKED_MUTEX;
	*ret_parking = parking;
	return 0;
}

/* glibc: pthread_mutex_t to its kind, of a 64-bit process. */
struct native_mutex {
	uint32_t lock;
	uint32_t count;
	int32_t owner;
	uint32_t nusers;
	uint32_t kind;
};

#define MUTEX_WAITED 2
#define MUTEX_KIND_MASK 3U
#define MUTEX_KIND_RECURSIVE 1U
#define MUTEX_KIND_BY_TID 0x30U   /* robust, or with priority inheritance: the lock's word is the owner's thread id */
#define MUTEX_KIND_FLAGS 0x3b0U   /* those, shared among processes, and two of lock elision */
#define MUTEX_TID_MASK 0x3fffffff /* Linux man 2 futex, FUTEX_TID_MASK */
#define TID_MAX (1 << 22)         /* Linux include/linux/threads.h, PID_MAX_LIMIT */
#define NUSERS_MAX (1U << 20)

static bool mutex_is_held(const struct native_mutex *mutex) {
	bool recursive = (mutex->kind & MUTEX_KIND_MASK) == MUTEX_KIND_RECURSIVE;

	if (mutex->owner <= 0 || mutex->owner > TID_MAX || !mutex->nusers || mutex->nusers > NUSERS_MAX)
		return false;
	/* robust ones count to 1 without being recursive */
	if (mutex->kind & ~(MUTEX_KIND_MASK | MUTEX_KIND_FLAGS) || (recursive ? !mutex->count : mutex->count > 1))
		return false;
	if (mutex->kind & MUTEX_KIND_BY_TID)
		return (mutex->lock & MUTEX_TID_MASK) == (uint32_t)mutex->owner;
	return mutex->lock > 0 && mutex->lock <= MUTEX_WAITED;
}

int native_mutex_owner(struct mem *mem, raddr futex, pid_t *ret_owner, bool *ret_recursive) {
	struct native_mutex mutex;
	int r = mem_read(mem, futex, &mutex, sizeof(mutex));
	bool held;

	if (r)
		return r;
	held = mutex_is_held(&mutex);
	*ret_owner = held ? mutex.owner : 0;
	*ret_recursive = held && (mutex.kind & MUTEX_KIND_MASK) == MUTEX_KIND_RECURSIVE;
	return 0;
}
