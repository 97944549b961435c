/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_LOCKS_H
#define PYSPYD_CPYTHON_LOCKS_H

#include "engine/cpython/runtime.h"

/* Locks as CPython keeps them in memory, and what a thread's futex word belongs to. */

enum py_lock_kind {
	PY_LOCK,     /* _thread.lock: has no owner in any version */
	PY_RLOCK,    /* _thread.RLock */
	PY_SEMLOCK,  /* _multiprocessing.SemLock: several processes share the semaphore */
	PY_BUFFERED, /* io.BufferedReader and its like: a lock of its own around each call */
};

struct py_lock {
	enum py_lock_kind kind;
	raddr object;
	bool locked;      /* SemLock: no unit is left */
	raddr word;       /* what waiters wait at: the semaphore (to 3.13) or the mutex in the object */
	uint64_t owner;   /* ident of the thread that holds it; 0: nobody, or not recorded (PY_LOCK). SemLock: ident of
			     the thread of *this* process that acquired it last, with count > 0 */
	int64_t count;    /* of recursion; SemLock: acquisitions of this process */
	bool recursive;   /* RLock, recursive SemLock */
	int64_t maxvalue; /* SemLock: units in all; a lock has 1 */
};

/* Of these types themselves, no subclasses. Return: 0; PY_E_TYPE: no lock; MEM_E_*. */
int py_lock_read(const struct py_reader *py, raddr object, struct py_lock *ret_lock);

/* Whether an object is a lock, by its type alone. */
bool py_lock_is(const struct py_reader *py, raddr object);

/* What a word that a thread sleeps at (futex) is about, on versions with a parking lot (3.13+). */
enum py_parked { PY_PARKED_NONE, PY_PARKED_MUTEX, PY_PARKED_JOIN };
struct py_parking {
	enum py_parked kind;
	raddr address;  /* what is waited at: of a mutex */
	raddr object;   /* the lock object around it, 0: the mutex is in something else (a dict, a C structure) */
	uint64_t ident; /* JOIN: the thread that is waited for */
};

/* Return: 0, with PY_PARKED_NONE where the word is no parking place; MEM_E_*. */
int py_parking_read(const struct py_reader *py, raddr futex, struct py_parking *ret_parking);

/* Length of a collections.deque, and its items up to max. Return: 0; PY_E_TYPE; PY_E_TRUNCATED: there are more than
 * max, *ret_n is the whole length; PY_E_TORN; MEM_E_*. */
int py_deque_read(const struct py_reader *py, raddr object, raddr *items, size_t max, size_t *ret_n);

/* Items of a _queue.SimpleQueue, oldest first. Return: as py_deque_read. */
int py_simple_queue_read(const struct py_reader *py, raddr object, raddr *items, size_t max, size_t *ret_n);

/* Members of a set or frozenset, any order. Return: as py_deque_read. */
int py_set_read(const struct py_reader *py, raddr object, raddr *items, size_t max, size_t *ret_n);

/* A mutex of the C library (glibc): what the word at `futex` says of its owner. Return: 0 with *ret_owner the owner's
 * thread id as its own PID namespace has it, or 0 where the bytes do not look like a mutex that is held and waited for;
 * MEM_E_*. */
int native_mutex_owner(struct mem *mem, raddr futex, pid_t *ret_owner, bool *ret_recursive);

#endif
