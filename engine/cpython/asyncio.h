/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_ASYNCIO_H
#define PYSPYD_CPYTHON_ASYNCIO_H

#include "engine/cpython/tasks.h"

/* What the readers of event loops, tasks and futures share. */

/* A future or a task, of the C types (_asyncio) or of Python classes (asyncio.futures, asyncio.tasks), or of a class
 * derived from either. */
struct asyncio_object {
	bool is_task;
	bool is_native; /* of the C types */
	enum py_future_state state;
	raddr loop;               /* 0 none, as with the others */
	raddr coro, waiter, name; /* of tasks */
};

enum asyncio_kind {
	ASYNCIO_OTHER,
	ASYNCIO_FUTURE, /* of the C types, or derived from them */
	ASYNCIO_TASK,
	ASYNCIO_FUTURE_ITER,
	ASYNCIO_COROUTINE, /* and generators of all kinds */
	ASYNCIO_WRAPPER,   /* of a coroutine: what its __await__ gives */
	ASYNCIO_ASEND,     /* of asynchronous generators: one step of them */
	ASYNCIO_ATHROW,
	ASYNCIO_ANEXT, /* anext with a default */
};

/* Types that were met, and what they are: spares reading them anew for each of many objects. */
struct asyncio_types {
	struct map kinds;
};
void asyncio_types_deinit(struct asyncio_types *types);

/* Return: 0; PY_E_TYPE; MEM_E_*; negative errno. */
int asyncio_kind_of(const struct py_reader *py, struct asyncio_types *types, raddr object, enum asyncio_kind *ret_kind);

/* Return: 0; PY_E_TYPE: neither future nor task; MEM_E_*; negative errno. */
int asyncio_object_read(
	const struct py_reader *py, struct asyncio_types *types, raddr object, struct asyncio_object *ret_object);

/* Whether an object's type, or one of its bases (of a class with several: the one whose layout it has), has that
 * tp_name. What cannot be read is not. */
bool asyncio_is_instance(const struct py_reader *py, raddr object, const char *type_name);

/* A global variable of a module that one interpreter has imported. Return: 0; PY_E_TYPE: no such module or variable;
 * MEM_E_*; negative errno. */
int asyncio_global(const struct py_runtime *rt, raddr interp, const char *module, const char *name, raddr *ret_value);

/* An attribute that an instance keeps in its __dict__ or in a slot (__slots__); None counts as 0. Return: 0; PY_E_TYPE:
 * it has none by that name; MEM_E_*; negative errno. */
int asyncio_attribute(const struct py_reader *py, raddr object, const char *name, raddr *ret_value);

/* Offset of a slot in instances of a type. Return: as asyncio_attribute. */
int asyncio_slot_offset(const struct py_reader *py, raddr type, const char *name, uint32_t *ret_offset);

/* A float or an int as a double. Return: 0; PY_E_TYPE; MEM_E_*. */
int asyncio_number(const struct py_reader *py, raddr object, double *ret);

/* The loop that a thread runs, whatever its type; 0 none. Threads of which that cannot be told have none. Return: 0;
 * MEM_E_GONE; negative errno. */
int asyncio_running_loop(const struct py_runtime *rt, const struct py_thread *thread, raddr *ret_loop);

/* The task that this loop executes now; 0 none. Return: as asyncio_running_loop. */
int asyncio_running_task(const struct py_runtime *rt, const struct py_thread *thread, raddr loop, raddr *ret_task);

/* Whether a reader's result ends the whole look; the others only say that one thing could not be read. */
static inline bool asyncio_is_fatal(int r) {
	return r < 0 || r == MEM_E_GONE;
}

#endif
