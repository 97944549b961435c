/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WAITS_TASK_VIEW_H
#define PYSPYD_WAITS_TASK_VIEW_H

#include "engine/waits/view.h"

/* The pending tasks of asyncio in one view: where each is, what it waits for, and who is inside of which `async with`.
 * What the wait graph and the task tree of a dump are both made of. */

#define TASK_VIEWS_MAX 4096
#define TASK_TARGETS_MAX 256 /* tasks that one waits for */

struct task_view {
	const struct py_task *py;
	struct view_frame frames[PY_TASK_FRAMES_MAX]; /* those that could be decoded, innermost await first */
	size_t frames_n;
	uint32_t node; /* of the graph; the graph's own */
};

/* A task that is inside `async with` of an object, or has called its acquire(). */
struct task_holder {
	raddr object;
	uint32_t task;
	bool inferred;
	char why[160];
};

struct task_views {
	struct wait_view *view;
	py_task_vec py;          /* by name */
	struct task_view *items; /* one for each of py */
	struct map by_object;
	VEC(struct task_holder) holders; /* by task */
	bool truncated;                  /* there are more, or some could not be read */
};

/* Return: 0; -ENOMEM. What was read is the caller's to deinit, also after an error. The view stays the caller's and
 * must outlive it. */
int task_views_read(struct wait_view *view, struct task_views *ret_tasks);
void task_views_deinit(struct task_views *tasks);

enum task_wait_kind {
	TASK_RUNS,
	TASK_READY, /* its turn comes: nothing is awaited, or what was is done */
	TASK_SLEEPS,
	TASK_NEEDS_TASKS,     /* one other task, or several: `type` says how */
	TASK_NEEDS_PRIMITIVE, /* Lock, Semaphore, Event, Condition, Queue, Barrier; a TaskGroup whose tasks are not
				 known */
	TASK_NEEDS_FUTURE,    /* any other one: a descriptor, an executor, a callback may bring it */
};

struct task_wait {
	enum task_wait_kind kind;
	bool timed;    /* and no longer than a time-out */
	raddr object;  /* the task, primitive, or future; 0 none */
	char type[64]; /* of the object: "task", "gather", "wait", "wait_for", "TaskGroup", "Lock", "future" … */
	uint32_t tasks[TASK_TARGETS_MAX]; /* indices */
	size_t tasks_n;
};

/* What a pending task waits for. */
void task_wait_read(const struct task_views *tasks, uint32_t index, struct task_wait *ret_wait);

/* How the program's own innermost frames name an object; NULL where they do not. Good until the next call. */
const char *task_expression(const struct task_views *tasks, uint32_t index, raddr object);

/* The innermost own frame; 0 where none is. */
size_t task_own_frame(const struct task_view *task);

/* The loop that runs a task, where a thread runs it now; else NULL. */
const struct py_loop *task_loop(const struct task_views *tasks, uint32_t index);

#endif
