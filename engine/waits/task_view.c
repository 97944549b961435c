/* SPDX-License-Identifier: MIT */
/* Tasks of asyncio, decoded.
 *
 * What a task waits for is the future in its task_fut_waiter; what that future means its innermost frames say, and the
 * variables of asyncio's own functions: the tasks of a group, of wait(), the one that wait_for() made (to 3.11).
 *
 * Not told: the task behind asyncio.shield, whose future is the only thing that its waiter knows; tasks of
 * as_completed. */
#include "engine/waits/task_view.h"

#include "engine/cpython/acquired.h"
#include "engine/cpython/locks.h"
#include "engine/waits/graph.h"
#include "engine/waits/scan.h"
#include "engine/waits/sites.h"
#include <string.h>

#define ACQUIRED_MAX 32
#define HOLDERS_MAX 65536
#define NAMING_FRAMES_MAX 4 /* that are asked how they call an object */
#define MEMBERS_MAX 1024    /* of a set of tasks, done or not */

/* holders */

static int add_holder(struct task_views *tasks, uint32_t task, raddr object, const char *why) {
	struct task_holder holder = { .object = object, .task = task, .inferred = why != NULL };

	if (tasks->holders.n == HOLDERS_MAX) {
		tasks->truncated = true;
		return 0;
	}
	if (why)
		snprintf(holder.why, sizeof(holder.why), "%s", why);
	return vec_push(&tasks->holders, holder);
}

/* Inside asyncio.Condition.wait the condition's lock is given back. */
static bool waits_on_condition(const struct task_views *tasks, const struct task_view *task, raddr condition) {
	for (size_t i = 0; i < task->frames_n && i < 4; i++)
		if (view_frame_is(&task->frames[i], "asyncio.locks", "wait") &&
			view_local(tasks->view, &task->frames[i], "self") == condition)
			return true;
	return false;
}

/* The manager itself, and the lock that a condition is made of. */
static int add_manager(struct task_views *tasks, uint32_t index, raddr manager) {
	raddr lock = 0;
	int r;

	if (scan_type_is(tasks->view, manager, "asyncio.locks.Condition")) {
		if (waits_on_condition(tasks, &tasks->items[index], manager))
			return 0;
		lock = scan_attribute(tasks->view, manager, "_lock");
	}
	r = add_holder(tasks, index, manager, NULL);
	return !r && lock ? add_holder(tasks, index, lock, NULL) : r;
}

static int find_blocks(struct task_views *tasks, uint32_t index) {
	const struct task_view *task = &tasks->items[index];
	struct py_block blocks[PY_BLOCKS_MAX];
	int r = 0;

	for (size_t i = 0; i < task->frames_n; i++) {
		const struct view_frame *frame = &task->frames[i];
		size_t n = 0;

		if (py_blocks_read(tasks->view->python->blocks, &frame->raw, frame->serial, frame->offset, blocks, &n))
			continue;
		for (size_t k = 0; !r && k < n; k++)
			r = add_manager(tasks, index, blocks[k].manager);
	}
	return r;
}

static int find_acquired(struct task_views *tasks, uint32_t index) {
	struct sample_target *target = tasks->view->python->target;
	const struct task_view *task = &tasks->items[index];
	int result = 0;

	for (size_t i = 0; i < task->frames_n; i++) {
		struct py_acquired acquired[ACQUIRED_MAX];
		const struct py_code *code;
		char why[160];
		size_t n = 0;
		int r;

		pthread_mutex_lock(&target->lock);
		r = py_code_lookup(&target->codes, &task->frames[i].raw, 0, 0, false, &code);
		if (!r)
			r = py_acquired_read(&tasks->view->python->rt, &target->codes, code, &task->frames[i].raw,
				task->frames[i].offset, acquired, ACQUIRED_MAX, &n);
		pthread_mutex_unlock(&target->lock);
		for (size_t k = 0; !r && !result && k < n; k++) {
			snprintf(why, sizeof(why),
				"%.40s called `%.40s.acquire()` in line %d and has not released it since",
				task->frames[i].function, acquired[k].expression, acquired[k].line);
			result = add_holder(tasks, index, acquired[k].object, why);
		}
	}
	return result;
}

/* reading */

static void decode(const struct task_views *tasks, struct task_view *task) {
	struct sample_target *target = tasks->view->python->target;

	pthread_mutex_lock(&target->lock);
	for (size_t i = 0; i < task->py->frames_n; i++) {
		struct view_frame *frame = &task->frames[task->frames_n];

		frame->raw = task->py->frames[i];
		if (!view_frame_decode(target, 0, false, frame))
			task->frames_n++;
	}
	pthread_mutex_unlock(&target->lock);
}

/* "Task-2" stands before "Task-10". */
static int compare_names(const void *a, const void *b) {
	const struct py_task *x = a, *y = b;
	int order = strverscmp(x->name ? x->name : "", y->name ? y->name : "");

	return order ? order : (x->object > y->object) - (x->object < y->object);
}

static int read_pending(struct task_views *tasks) {
	struct wait_view *view = tasks->view;
	_free_ struct py_thread *threads = calloc(view->threads.n + 1, sizeof(*threads));
	size_t n = 0;
	int r;

	if (!threads)
		return -ENOMEM;
	vec_foreach (thread, &view->threads)
		if (thread->sampled)
			threads[n++] = thread->py;
	r = py_tasks_read(&view->python->rt, threads, n, TASK_VIEWS_MAX, &tasks->py);
	tasks->truncated = r != 0;
	if (tasks->py.n)
		qsort(tasks->py.items, tasks->py.n, sizeof(*tasks->py.items), compare_names);
	return r == -ENOMEM ? r : 0;
}

int task_views_read(struct wait_view *view, struct task_views *ret_tasks) {
	struct task_views *tasks = ret_tasks;
	int r;

	*tasks = (struct task_views){ .view = view };
	r = read_pending(tasks);
	if (r)
		return r;
	tasks->items = calloc(tasks->py.n + 1, sizeof(*tasks->items));
	if (!tasks->items)
		return -ENOMEM;
	for (size_t i = 0; !r && i < tasks->py.n; i++) {
		tasks->items[i].py = &tasks->py.items[i];
		tasks->items[i].node = WAITS_NONE;
		decode(tasks, &tasks->items[i]);
		r = map_put(&tasks->by_object, tasks->py.items[i].object, i);
	}
	for (size_t i = 0; !r && i < tasks->py.n; i++)
		r = find_blocks(tasks, (uint32_t)i);
	for (size_t i = 0; !r && i < tasks->py.n; i++)
		r = find_acquired(tasks, (uint32_t)i);
	return r;
}

void task_views_deinit(struct task_views *tasks) {
	py_tasks_free(&tasks->py);
	free(tasks->items);
	map_deinit(&tasks->by_object);
	vec_free(&tasks->holders);
}

/* frames */

size_t task_own_frame(const struct task_view *task) {
	const struct view_thread like = { .frames = (struct view_frame *)(uintptr_t)task->frames,
		.frames_n = task->frames_n };

	return site_own_frame(&like);
}

const char *task_expression(const struct task_views *tasks, uint32_t index, raddr object) {
	const struct task_view *task = &tasks->items[index];
	const struct view_thread like = { .frames = (struct view_frame *)(uintptr_t)task->frames,
		.frames_n = task->frames_n };
	const char *found = NULL;

	for (size_t i = 0; !found && i < min_of(task->frames_n, (size_t)NAMING_FRAMES_MAX); i++)
		if (!view_frame_is(&task->frames[i], "asyncio.", NULL))
			found = scan_expression(tasks->view, &like, i, object);
	return found;
}

const struct py_loop *task_loop(const struct task_views *tasks, uint32_t index) {
	vec_foreach (loop, &tasks->view->loops)
		if (loop->object == tasks->py.items[index].loop)
			return loop;
	return NULL;
}

/* what they wait for */

/* A frame's variable; 0 also where it is None. */
static raddr local_of(const struct task_views *tasks, const struct view_frame *frame, const char *name) {
	raddr value = view_local(tasks->view, frame, name);

	return scan_type_is(tasks->view, value, "NoneType") ? 0 : value;
}

/* wait_for() without a time is a plain await, but for what it puts around it. */
static bool in_timed_call(const struct task_views *tasks, const struct task_view *task) {
	for (size_t i = 0; i < task->frames_n; i++) {
		const struct view_frame *frame = &task->frames[i];

		if (view_frame_is(frame, "asyncio.tasks", "sleep") ||
			(view_frame_is(frame, "asyncio.tasks", "wait_for") && local_of(tasks, frame, "timeout")) ||
			(view_frame_is(frame, "asyncio.tasks", "_wait") && local_of(tasks, frame, "timeout_handle")))
			return true;
	}
	return false;
}

/* asyncio.timeout (3.11+); one whose time is None never ends. */
static bool in_timeout(const struct task_views *tasks, uint32_t index) {
	vec_foreach (holder, &tasks->holders) {
		raddr when;

		if (holder->task != index || !scan_type_is(tasks->view, holder->object, "asyncio.timeouts.Timeout"))
			continue;
		when = scan_attribute(tasks->view, holder->object, "_when");
		if (when && !scan_type_is(tasks->view, when, "NoneType"))
			return true;
	}
	return false;
}

/* gather may have one several times. */
static void add_target(const struct task_views *tasks, raddr object, struct task_wait *wait) {
	uint64_t at;

	if (wait->tasks_n == TASK_TARGETS_MAX || !map_get(&tasks->by_object, object, &at))
		return;
	for (size_t i = 0; i < wait->tasks_n; i++)
		if (wait->tasks[i] == at)
			return;
	wait->tasks[wait->tasks_n++] = (uint32_t)at;
}

/* Return: whether some are pending. */
static bool needs(struct task_wait *wait, raddr object, const char *type) {
	if (!wait->tasks_n)
		return false;
	wait->kind = TASK_NEEDS_TASKS;
	wait->object = object;
	snprintf(wait->type, sizeof(wait->type), "%s", type);
	return true;
}

static void add_members(const struct task_views *tasks, raddr set, struct task_wait *wait) {
	raddr items[MEMBERS_MAX];
	size_t n = 0;
	int r = set ? py_set_read(&tasks->view->python->rt.reader, set, items, MEMBERS_MAX, &n) : PY_E_TYPE;

	for (size_t i = 0; (!r || r == PY_E_TRUNCATED) && i < min_of(n, (size_t)MEMBERS_MAX); i++)
		add_target(tasks, items[i], wait);
}

/* A gathering future ends when all its children do, or when one of them fails. */
static bool needs_children(
	const struct task_views *tasks, const struct py_future *future, raddr object, struct task_wait *wait) {
	for (size_t i = 0; i < future->children_n; i++)
		add_target(tasks, future->children[i], wait);
	return needs(wait, object, "gather");
}

/* asyncio.wait, and to 3.11 wait_for: they wait for a future that callbacks of the tasks set. */
static bool needs_watched(const struct task_views *tasks, uint32_t index, raddr object, struct task_wait *wait) {
	const struct view_frame *frame = &tasks->items[index].frames[0];

	if (!tasks->items[index].frames_n)
		return false;
	if (view_frame_is(frame, "asyncio.tasks", "_wait")) {
		add_members(tasks, local_of(tasks, frame, "fs"), wait);
		return needs(wait, object, "wait");
	}
	if (view_frame_is(frame, "asyncio.tasks", "wait_for")) {
		add_target(tasks, local_of(tasks, frame, "fut"), wait);
		return needs(wait, object, "wait_for");
	}
	return false;
}

static bool needs_primitive(const struct task_views *tasks, uint32_t index, struct task_wait *wait) {
	struct wait_process *process = tasks->view->python;
	char type[sizeof(wait->type)];
	raddr object;
	int r;

	pthread_mutex_lock(&process->target->lock);
	r = py_task_primitive(
		&process->rt, &process->target->codes, &tasks->py.items[index], &object, type, sizeof(type));
	pthread_mutex_unlock(&process->target->lock);
	if (r)
		return false;
	if (!strcmp(type, "TaskGroup")) {
		add_members(tasks, scan_attribute(tasks->view, object, "_tasks"), wait);
		if (needs(wait, object, type))
			return true;
	}
	wait->kind = TASK_NEEDS_PRIMITIVE;
	wait->object = object;
	memcpy(wait->type, type, sizeof(type));
	return true;
}

void task_wait_read(const struct task_views *tasks, uint32_t index, struct task_wait *ret_wait) {
	const struct py_task *task = &tasks->py.items[index];
	const struct task_view *view = &tasks->items[index];
	struct py_future future = { .state = PY_FUTURE_PENDING };
	struct task_wait *wait = ret_wait;

	*wait = (struct task_wait){ .kind = task->running ? TASK_RUNS : TASK_READY };
	if (task->running || !task->waiter)
		return;
	(void)!py_future_read(&tasks->view->python->rt, task->waiter, &future);
	if (future.state != PY_FUTURE_PENDING)
		return;
	wait->timed = in_timed_call(tasks, view) || in_timeout(tasks, index);
	if (task->waiter_is_task)
		add_target(tasks, task->waiter, wait);
	if (needs(wait, task->waiter, "task") || needs_children(tasks, &future, task->waiter, wait) ||
		needs_watched(tasks, index, task->waiter, wait) || needs_primitive(tasks, index, wait))
		return;
	wait->kind = view->frames_n && view_frame_is(&view->frames[0], "asyncio.tasks", "sleep") ? TASK_SLEEPS
												 : TASK_NEEDS_FUTURE;
	wait->object = task->waiter;
	memcpy(wait->type, "future", sizeof("future"));
}
