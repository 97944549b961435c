/* SPDX-License-Identifier: MIT */
/* asyncio: what tasks wait for, who holds its locks, and what can still wake a loop up.
 *
 * A task that awaits another one waits for that task. One that awaits a lock waits for the tasks that are inside
 * `async with` of it. Any other future may be set by whatever the loop runs: other tasks, timers, descriptors, other
 * threads. A loop whose selector watches nothing but its own wake-up pipe, and that has no timer, is left with those.
 */
#include "engine/cpython/objects.h"
#include "engine/waits/scan.h"
#include "engine/waits/task_view.h"
#include <string.h>

#define SELECTOR_FDS_MAX 16

struct task_scan {
	struct wait_scan *scan;
	struct wait_view *view;
	struct task_views tasks;
};

/* loops */

static bool watches_others(const struct wait_view *view, const struct py_loop *loop) {
	int_vec fds = { 0 };
	bool others = false;

	if (loop->selector_fd < 0 || loop->self_pipe_fd < 0 ||
		proc_epoll_read(&view->proc, loop->selector_fd, SELECTOR_FDS_MAX, &fds))
		return true; /* not known: then it may */
	vec_foreach (fd, &fds)
		others |= *fd != loop->self_pipe_fd;
	vec_free(&fds);
	return others;
}

static bool alone(const struct wait_view *view, const struct py_loop *loop) {
	vec_foreach (thread, &view->threads)
		if (thread->sampled && thread->tid != loop->tid)
			return false;
	return true;
}

uint32_t scan_loop(struct wait_scan *scan, struct wait_view *view, const struct py_loop *loop) {
	struct view_thread *thread = view_thread_of_tid(view, loop->tid);
	struct pyspyd_wait_node *others;
	uint32_t index;
	bool fresh;

	index = scan_resource(scan, "loop", view->proc.pid, loop->object,
		scan_key("object", (uint64_t)view->proc.pid, loop->object), &fresh, "events of event loop 0x%llx",
		(unsigned long long)loop->object);
	if (!fresh || index == WAITS_NONE || loop->scheduled || loop->ready || watches_others(view, loop))
		return index;
	scan_node(scan, index)->rule = PYSPYD_WAIT_ANY;
	scan_edge(scan, index, scan_others(scan, view), NULL,
		"nothing but its own wake-up pipe is watched, and no timer is set");
	others = scan_node(scan, view->others);
	if (thread && alone(view, loop) && others->rule == PYSPYD_WAIT_ANY && !scan_has_handlers(view))
		scan_node(scan, thread->node)->idle = NULL; /* nothing can come */
	return index;
}

/* nodes */

static uint64_t stamp_of(const struct task_view *task) {
	uint64_t words[3] = { task->py->waiter, (uint64_t)task->py->running };

	if (task->frames_n) {
		words[1] ^= task->frames[0].raw.frame;
		words[2] = (uint64_t)task->frames[0].raw.instr;
	}
	return hash_bytes(words, sizeof(words), 3);
}

static int add_node(struct task_scan *tasks, struct task_view *task) {
	struct wait_scan *scan = tasks->scan;
	const struct view_thread like = { .frames = task->frames, .frames_n = task->frames_n };
	struct pyspyd_wait_node *node;

	task->node = scan_resource(scan, "task", tasks->view->proc.pid, task->py->object,
		scan_key("object", (uint64_t)tasks->view->proc.pid, task->py->object), NULL, "%s",
		task->py->name && task->py->name[0] ? task->py->name : "task");
	if (task->node == WAITS_NONE)
		return -ENOMEM;
	node = scan_node(scan, task->node);
	node->kind = PYSPYD_WAIT_TASK;
	node->stamp = stamp_of(task);
	return scan_fill_frames(&like, node);
}

/* holders */

static bool is_locked(const struct task_scan *tasks, raddr lock) {
	raddr value = scan_attribute(tasks->view, lock, "_locked");
	struct strbuf _cleanup_(strbuf_deinit) text = { 0 };

	if (!value)
		return false;
	py_value_describe(&tasks->view->python->rt.reader, value, 16, &text);
	return !strcmp(strbuf_str(&text), "True");
}

static size_t count_holders(const struct task_scan *tasks, raddr object) {
	size_t n = 0;

	vec_foreach (holder, &tasks->tasks.holders)
		n += holder->object == object;
	return n;
}

/* `doubt`: why what was read is inferred still, or NULL. */
static void lead_to_holders(struct task_scan *tasks, uint32_t node, raddr object, const char *doubt) {
	scan_node(tasks->scan, node)->rule = PYSPYD_WAIT_ANY;

	for (size_t i = 0; i < tasks->tasks.holders.n; i++) {
		const struct task_holder *holder = &tasks->tasks.holders.items[i];

		if (holder->object != object)
			continue;
		scan_edge(tasks->scan, node, tasks->tasks.items[holder->task].node, NULL,
			holder->inferred ? holder->why : doubt);
	}
}

/* waits */

/* A time-out lets it go on whatever happens to the others. */
static void goes_on_with_any(struct task_scan *tasks, uint32_t index, const struct task_wait *wait) {
	if (!wait->timed)
		scan_node(tasks->scan, tasks->tasks.items[index].node)->rule = PYSPYD_WAIT_ANY;
}

/* It can go on as soon as its loop's thread comes to it. */
static void needs_thread(struct task_scan *tasks, uint32_t index) {
	const struct task_view *task = &tasks->tasks.items[index];
	const struct py_loop *loop = task_loop(&tasks->tasks, index);
	const struct view_thread *thread = loop ? view_thread_of_tid(tasks->view, loop->tid) : NULL;

	if (!thread || thread->node == WAITS_NONE || (loop->polling && !task->py->running))
		return;
	scan_node(tasks->scan, task->node)->rule = PYSPYD_WAIT_ANY;
	scan_edge(tasks->scan, task->node, thread->node, NULL, NULL);
}

static void needs_loop(struct task_scan *tasks, uint32_t node, uint32_t index, const char *why) {
	const struct py_loop *loop = task_loop(&tasks->tasks, index);

	if (!loop)
		return;
	scan_node(tasks->scan, node)->rule = PYSPYD_WAIT_ANY;
	scan_edge(tasks->scan, node, scan_loop(tasks->scan, tasks->view, loop), NULL, why);
}

/* Any task of the loop: what one has taken in a call that has returned, no frame shows. */
static uint32_t any_task(struct task_scan *tasks, uint32_t index) {
	raddr loop = tasks->tasks.items[index].py->loop;
	bool fresh;
	uint32_t node = scan_resource(tasks->scan, "tasks", tasks->view->proc.pid, 0,
		scan_key("tasks", (uint64_t)tasks->view->proc.pid, loop), &fresh, "other tasks");

	if (!fresh || node == WAITS_NONE)
		return node;
	scan_node(tasks->scan, node)->rule = PYSPYD_WAIT_ANY;
	for (size_t i = 0; i < tasks->tasks.py.n; i++)
		if (tasks->tasks.items[i].py->loop == loop)
			scan_edge(tasks->scan, node, tasks->tasks.items[i].node, NULL, NULL);
	return node;
}

static void needs_lock(struct task_scan *tasks, uint32_t index, uint32_t node, raddr object) {
	const char *why = "locks of asyncio record no holder; no pending task is inside of it";
	struct wait_scan *scan = tasks->scan;

	if (count_holders(tasks, object)) {
		lead_to_holders(tasks, node, object, NULL);
		return;
	}
	if (tasks->tasks.truncated || !is_locked(tasks, object)) /* one that was not looked at may hold it */
		return;
	/* With everybody stuck who might release it, it never is (orphan_locks). */
	scan_node(scan, node)->rule = PYSPYD_WAIT_ANY;
	scan_node(scan, node)->fault = strdup("no pending task holds it: its holder has ended");
	scan_edge(scan, node, any_task(tasks, index), NULL, why);
	needs_loop(tasks, node, index, why);
}

/* How many units a semaphore has in all; 0: it does not say. */
static uint64_t units_of(const struct task_scan *tasks, raddr object) {
	raddr bound = scan_attribute(tasks->view, object, "_bound_value");
	int64_t units;

	return bound && !py_long_read(&tasks->view->python->rt.reader, bound, &units) && units > 0 ? (uint64_t)units
												   : 0;
}

/* Only a BoundedSemaphore tells whether those that are seen to hold it are all. */
static void needs_semaphore(struct task_scan *tasks, uint32_t index, uint32_t node, raddr object) {
	uint64_t units = units_of(tasks, object);
	size_t holders = count_holders(tasks, object);

	if (holders)
		lead_to_holders(
			tasks, node, object, units ? NULL : "a semaphore records no holder, and not how many it has");
	if (!holders || holders < units)
		needs_loop(tasks, node, index, "whatever the loop runs might release it");
	if (holders && holders < units)
		scan_edge(tasks->scan, node, any_task(tasks, index), NULL, "any task might release it");
}

/* asyncio.Lock, Semaphore, Event, Condition, Queue, Barrier */
static void needs_primitive(struct task_scan *tasks, uint32_t index, const struct task_wait *wait) {
	struct wait_scan *scan = tasks->scan;
	bool fresh, lock = !strcmp(wait->type, "Lock");
	uint32_t task = tasks->tasks.items[index].node;
	uint32_t node = scan_resource(scan, wait->type, tasks->view->proc.pid, wait->object,
		scan_key("object", (uint64_t)tasks->view->proc.pid, wait->object), &fresh, "asyncio %s 0x%llx",
		wait->type, (unsigned long long)wait->object);

	if (node == WAITS_NONE)
		return;
	if (fresh && lock)
		needs_lock(tasks, index, node, wait->object);
	else if (fresh && strstr(wait->type, "Semaphore"))
		needs_semaphore(tasks, index, node, wait->object);
	else if (fresh)
		needs_loop(tasks, node, index, "whatever the loop runs might end it");
	goes_on_with_any(tasks, index, wait);
	scan_edge(scan, task, node, task_expression(&tasks->tasks, index, wait->object), NULL);
}

static void needs_tasks(struct task_scan *tasks, uint32_t index, const struct task_wait *wait) {
	goes_on_with_any(tasks, index, wait);
	for (size_t i = 0; i < wait->tasks_n; i++)
		scan_edge(tasks->scan, tasks->tasks.items[index].node, tasks->tasks.items[wait->tasks[i]].node, NULL,
			NULL);
}

static void build_wait(struct task_scan *tasks, uint32_t index) {
	struct task_wait wait;

	task_wait_read(&tasks->tasks, index, &wait);
	scan_node(tasks->scan, tasks->tasks.items[index].node)->timed = wait.timed;
	switch (wait.kind) {
	case TASK_RUNS:
	case TASK_READY: needs_thread(tasks, index); return;
	case TASK_SLEEPS: return;
	case TASK_NEEDS_TASKS: needs_tasks(tasks, index, &wait); return;
	case TASK_NEEDS_PRIMITIVE: needs_primitive(tasks, index, &wait); return;
	case TASK_NEEDS_FUTURE:
		if (!wait.timed)
			needs_loop(tasks, tasks->tasks.items[index].node, index,
				"whatever the loop runs might set the future");
		return;
	}
}

static int prepare(struct task_scan *tasks) {
	int r = task_views_read(tasks->view, &tasks->tasks);

	tasks->scan->waits->incomplete |= tasks->tasks.truncated;
	for (size_t i = 0; !r && i < tasks->tasks.py.n; i++)
		r = add_node(tasks, &tasks->tasks.items[i]);
	return r;
}

void scan_tasks(struct wait_scan *scan, struct wait_view *view) {
	struct task_scan tasks = { .scan = scan, .view = view };

	if (!view->python)
		return;
	if (prepare(&tasks))
		scan->failed = true;
	for (size_t i = 0; !scan->failed && i < tasks.tasks.py.n; i++)
		build_wait(&tasks, (uint32_t)i);
	view->tasks = tasks.tasks.py.n;
	task_views_deinit(&tasks.tasks);
}
