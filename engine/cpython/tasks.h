/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_TASKS_H
#define PYSPYD_CPYTHON_TASKS_H

#include "engine/base/strbuf.h"
#include "engine/cpython/blocks.h"
#include "engine/cpython/code.h"

/* asyncio from outside: event loops, their tasks, and what each task awaits. 3.8 to 3.15. */

#define PY_TASK_FRAMES_MAX 64 /* coroutines of one await chain */

enum py_future_state { PY_FUTURE_PENDING, PY_FUTURE_CANCELLED, PY_FUTURE_FINISHED };

struct py_loop {
	raddr object;
	pid_t tid;            /* of the thread that runs it; 0: none does now */
	raddr running_task;   /* 0 none */
	bool polling;         /* its thread is in selector.select, as its frames say */
	uint64_t ready;       /* length of _ready */
	uint64_t scheduled;   /* timers that are not cancelled */
	double next_timer_s;  /* loop time (CLOCK_MONOTONIC, seconds) at which the next one fires; negative none */
	uint64_t overdue;     /* timers whose time was before now_ns; at most 1024 are looked at */
	double round_began_s; /* local end_time of _run_once: when this round of callbacks began; negative unknown */
	int64_t round_index;  /* local i of _run_once: which callback of the round; -1 unknown */
	raddr handle;         /* local handle of _run_once: the callback; 0 unknown */
	int selector_fd;      /* of epoll; -1: select or poll, or unknown */
	int self_pipe_fd;     /* the reading end of its own wake-up pair; -1 unknown */
};
typedef VEC(struct py_loop) py_loop_vec;

struct py_task {
	raddr object;
	raddr loop;
	char *name; /* "Task-1"; the caller's, "" where the version has none */
	enum py_future_state state;
	bool running;                                   /* its thread executes it now */
	struct py_raw_frame frames[PY_TASK_FRAMES_MAX]; /* of its coroutines, innermost await first */
	size_t frames_n;
	raddr waiter; /* the future, or task, that it waits for (task_fut_waiter); 0 none: it is ready */
	bool waiter_is_task;
	raddr awaitable; /* what the innermost coroutine awaits, where it is neither; 0 */
};
typedef VEC(struct py_task) py_task_vec;

/* Event loops that threads run now. `frames` of each loop's thread, for what only frames tell: read by the caller, most
 * recent call first. `codes` decodes them. Return: 0, also where asyncio is not imported; MEM_E_*; -ENOMEM. */
struct py_thread_frames {
	struct py_thread thread;
	const struct py_raw_stack *stack;
};
int py_loops_read(const struct py_runtime *rt, struct py_code_cache *codes, const struct py_thread_frames *threads,
	size_t threads_n, uint64_t now_mono_ns, py_loop_vec *ret_loops);

/* All pending tasks, at most `max`: from the lists of 3.14+, before that from asyncio.tasks. Also those whose type is a
 * Python class (asyncio.tasks._PyTask). Return: 0; PY_E_TRUNCATED (there are more than the *ret_tasks that were read);
 * MEM_E_*; -ENOMEM. */
int py_tasks_read(const struct py_runtime *rt, const struct py_thread *threads, size_t threads_n, size_t max,
	py_task_vec *ret_tasks);
void py_tasks_free(py_task_vec *tasks);

/* What a future is: state, and for a gathering future its children. Return: 0; PY_E_TYPE; MEM_E_*. */
struct py_future {
	enum py_future_state state;
	bool is_task;
	raddr children[256]; /* of asyncio.gather and its like: all of them are needed */
	size_t children_n;
};
int py_future_read(const struct py_runtime *rt, raddr object, struct py_future *ret_future);

/* Which asyncio primitive a task's innermost frames wait in: asyncio.Lock, Semaphore, Condition, Event, Queue, Barrier:
 * the object ("self" of the frame of asyncio/locks.py, queues.py) and its type's name; also TaskGroup (taskgroups.py),
 * which waits for its tasks. Of a Barrier or a Queue's join the whole, not the Condition or Event in it. Return: 0;
 * PY_E_TYPE: none; MEM_E_*; -ENOMEM. */
int py_task_primitive(const struct py_runtime *rt, struct py_code_cache *codes, const struct py_task *task,
	raddr *ret_object, char *type, size_t type_size);

#endif
