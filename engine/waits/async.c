/* SPDX-License-Identifier: MIT */
/* asyncio: what tasks wait for, who holds its locks, and what can still wake a loop up.
 *
 * A task that awaits another one waits for that task. One that awaits a lock waits for the tasks that are inside
 * `async with` of it. Any other future may be set by whatever the loop runs: other tasks, timers, descriptors, other
 * threads. A loop whose selector watches nothing but its own wake-up pipe, and that has no timer, is left with those.
 */
#include "engine/cpython/acquired.h"
#include "engine/cpython/locks.h"
#include "engine/cpython/objects.h"
#include "engine/waits/scan.h"
#include <string.h>

#define TASKS_MAX 4096
#define SELECTOR_FDS_MAX 16
#define ACQUIRED_MAX 32

struct task_view {
	struct py_task *py;
	struct view_frame frames[PY_TASK_FRAMES_MAX];
	size_t frames_n;
	uint32_t node;
};

struct task_holder {
	raddr object;
	uint32_t task;
	bool inferred;
	char why[160];
};

struct task_scan {
	struct wait_scan *scan;
	struct wait_view *view;
	py_task_vec py;
	struct task_view *tasks;
	struct map by_object;
	VEC(struct task_holder) holders;
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
		scan_key("object", (uint64_t)view->proc.pid, loop->object), &fresh, "event loop 0x%llx",
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

/* frames */

static void decode(struct task_scan *tasks, struct task_view *task) {
	struct sample_target *target = tasks->view->python->target;

	pthread_mutex_lock(&target->lock);
	for (size_t i = 0; i < task->py->frames_n; i++) {
		struct view_frame *frame = &task->frames[task->frames_n];
		const struct py_code *code;

		frame->raw = task->py->frames[i];
		if (py_code_lookup(&target->codes, &frame->raw, 0, 0, false, &code))
			continue;
		frame->serial = code->serial;
		frame->offset = py_code_offset(&target->codes, code, &frame->raw);
		frame->line = py_code_line(&target->codes, code, frame->offset);
		frame->function = intern_str(&target->strings, code->name);
		frame->qualname = intern_str(&target->strings, code->qualname);
		frame->file = intern_str(&target->strings, code->file);
		frame->module = intern_str(&target->strings, code->module);
		task->frames_n++;
	}
	pthread_mutex_unlock(&target->lock);
}

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

static int add_holder(struct task_scan *tasks, uint32_t task, raddr object, const char *why) {
	struct task_holder holder = { .object = object, .task = task, .inferred = why != NULL };

	if (why)
		snprintf(holder.why, sizeof(holder.why), "%s", why);
	return vec_push(&tasks->holders, holder);
}

/* Inside asyncio.Condition.wait the condition's lock is given back. */
static bool waits_on_condition(const struct task_scan *tasks, const struct task_view *task, raddr condition) {
	for (size_t i = 0; i < task->frames_n && i < 4; i++)
		if (view_frame_is(&task->frames[i], "asyncio.locks", "wait") &&
			view_local(tasks->view, &task->frames[i], "self") == condition)
			return true;
	return false;
}

/* The manager itself, and the lock that a condition is made of. */
static int add_manager(struct task_scan *tasks, uint32_t index, raddr manager) {
	raddr lock = 0;
	int r;

	if (scan_type_is(tasks->view, manager, "asyncio.locks.Condition")) {
		if (waits_on_condition(tasks, &tasks->tasks[index], manager))
			return 0;
		lock = scan_attribute(tasks->view, manager, "_lock");
	}
	r = add_holder(tasks, index, manager, NULL);
	return !r && lock ? add_holder(tasks, index, lock, NULL) : r;
}

static int find_blocks(struct task_scan *tasks, uint32_t index) {
	const struct task_view *task = &tasks->tasks[index];
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

static int find_acquired(struct task_scan *tasks, uint32_t index) {
	struct sample_target *target = tasks->view->python->target;
	const struct task_view *task = &tasks->tasks[index];
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

static bool is_locked(const struct task_scan *tasks, raddr lock) {
	raddr value = scan_attribute(tasks->view, lock, "_locked");
	struct strbuf _cleanup_(strbuf_deinit) text = { 0 };

	if (!value)
		return false;
	py_value_describe(&tasks->view->python->rt.reader, value, 16, &text);
	return !strcmp(strbuf_str(&text), "True");
}

static size_t lead_to_holders(struct task_scan *tasks, uint32_t node, raddr object) {
	size_t n = 0;

	for (size_t i = 0; i < tasks->holders.n; i++) {
		const struct task_holder holder = tasks->holders.items[i];

		if (holder.object != object)
			continue;
		scan_edge(tasks->scan, node, tasks->tasks[holder.task].node, NULL, holder.inferred ? holder.why : NULL);
		n++;
	}
	return n;
}

/* waits */

static const struct py_loop *loop_of(const struct task_scan *tasks, const struct task_view *task) {
	vec_foreach (loop, &tasks->view->loops)
		if (loop->object == task->py->loop)
			return loop;
	return NULL;
}

static uint32_t thread_of(const struct task_scan *tasks, const struct task_view *task) {
	const struct py_loop *loop = loop_of(tasks, task);
	const struct view_thread *thread = loop ? view_thread_of_tid(tasks->view, loop->tid) : NULL;

	return thread ? thread->node : WAITS_NONE;
}

/* It can go on as soon as its loop's thread comes to it. */
static void needs_thread(struct task_scan *tasks, struct task_view *task) {
	const struct py_loop *loop = loop_of(tasks, task);
	uint32_t thread = thread_of(tasks, task);

	if (thread == WAITS_NONE || (loop->polling && !task->py->running))
		return;
	scan_node(tasks->scan, task->node)->rule = PYSPYD_WAIT_ANY;
	scan_edge(tasks->scan, task->node, thread, NULL, NULL);
}

static void needs_loop(struct task_scan *tasks, uint32_t node, const struct task_view *task, const char *why) {
	const struct py_loop *loop = loop_of(tasks, task);

	if (!loop)
		return;
	scan_node(tasks->scan, node)->rule = PYSPYD_WAIT_ANY;
	scan_edge(tasks->scan, node, scan_loop(tasks->scan, tasks->view, loop), NULL, why);
}

static bool is_timed(const struct task_scan *tasks, const struct task_view *task) {
	for (size_t i = 0; i < task->frames_n; i++)
		if (view_frame_is(&task->frames[i], "asyncio.tasks", "sleep") ||
			view_frame_is(&task->frames[i], "asyncio.tasks", "wait_for"))
			return true;
	for (size_t i = 0; i < tasks->holders.n; i++)
		if (&tasks->tasks[tasks->holders.items[i].task] == task &&
			scan_type_is(tasks->view, tasks->holders.items[i].object, "asyncio.timeouts.Timeout"))
			return true;
	return false;
}

static const char *expression_in(const struct task_scan *tasks, const struct task_view *task, raddr object) {
	const struct view_thread like = { .frames = (struct view_frame *)(uintptr_t)task->frames,
		.frames_n = task->frames_n };
	const char *found = NULL;

	for (size_t i = 0; !found && i < task->frames_n && i < 4; i++)
		if (!view_frame_is(&task->frames[i], "asyncio.", NULL))
			found = scan_expression(tasks->view, &like, i, object);
	return found;
}

/* asyncio.Lock, Semaphore, Event, Condition, Queue, Barrier */
static void wait_for_primitive(struct task_scan *tasks, struct task_view *task, raddr object, const char *type) {
	struct wait_scan *scan = tasks->scan;
	bool fresh, lock = !strcmp(type, "Lock"), orphan = false;
	uint32_t node = scan_resource(scan, type, tasks->view->proc.pid, object,
		scan_key("object", (uint64_t)tasks->view->proc.pid, object), &fresh, "asyncio %s 0x%llx", type,
		(unsigned long long)object);
	bool holds = lock || strstr(type, "Semaphore");

	if (node == WAITS_NONE)
		return;
	if (fresh && holds && lead_to_holders(tasks, node, object)) {
		scan_node(scan, node)->rule = PYSPYD_WAIT_ANY;
	} else if (fresh && lock && is_locked(tasks, object)) {
		orphan = true;
		scan_node(scan, node)->rule = PYSPYD_WAIT_NEVER;
		scan_node(scan, node)->fault = strdup("no pending task holds it: its holder has ended");
	} else if (fresh && !lock) {
		needs_loop(tasks, node, task, "whatever the loop runs might end it");
	}
	scan_node(scan, task->node)->rule = PYSPYD_WAIT_ANY;
	scan_edge(scan, task->node, node, expression_in(tasks, task, object),
		orphan ? "locks of asyncio record no holder; no pending task is inside of it" : NULL);
}

static uint32_t node_of_task(const struct task_scan *tasks, raddr object) {
	uint64_t at;

	return map_get(&tasks->by_object, object, &at) ? tasks->tasks[at].node : WAITS_NONE;
}

/* A gathering future ends when all its children do, or when one of them fails. */
static bool wait_for_children(struct task_scan *tasks, struct task_view *task, const struct py_future *future) {
	bool any = false;

	for (size_t i = 0; i < future->children_n; i++) {
		uint32_t child = node_of_task(tasks, future->children[i]);

		if (child == WAITS_NONE)
			continue;
		scan_node(tasks->scan, task->node)->rule = PYSPYD_WAIT_ANY;
		scan_edge(tasks->scan, task->node, child, NULL, NULL);
		any = true;
	}
	return any;
}

static void build_wait(struct task_scan *tasks, struct task_view *task) {
	const struct py_runtime *rt = &tasks->view->python->rt;
	struct py_future future;
	char type[64];
	raddr object;
	uint32_t other;
	int r;

	if (task->py->running || !task->py->waiter) {
		needs_thread(tasks, task);
		return;
	}
	if (is_timed(tasks, task)) {
		scan_node(tasks->scan, task->node)->timed = true;
		return;
	}
	other = task->py->waiter_is_task ? node_of_task(tasks, task->py->waiter) : WAITS_NONE;
	if (other != WAITS_NONE) {
		scan_node(tasks->scan, task->node)->rule = PYSPYD_WAIT_ANY;
		scan_edge(tasks->scan, task->node, other, NULL, NULL);
		return;
	}
	if (!py_future_read(rt, task->py->waiter, &future)) {
		if (future.state != PY_FUTURE_PENDING) {
			needs_thread(tasks, task);
			return;
		}
		if (future.children_n && wait_for_children(tasks, task, &future))
			return;
	}
	pthread_mutex_lock(&tasks->view->python->target->lock);
	r = py_task_primitive(rt, &tasks->view->python->target->codes, task->py, &object, type, sizeof(type));
	pthread_mutex_unlock(&tasks->view->python->target->lock);
	if (!r)
		wait_for_primitive(tasks, task, object, type);
	else
		needs_loop(tasks, task->node, task, "whatever the loop runs might set the future");
}

static int read_tasks(struct task_scan *tasks) {
	struct wait_view *view = tasks->view;
	struct py_thread *threads = calloc(view->threads.n + 1, sizeof(*threads));
	size_t n = 0;
	int r;

	if (!threads)
		return -ENOMEM;
	vec_foreach (thread, &view->threads)
		if (thread->sampled)
			threads[n++] = thread->py;
	r = py_tasks_read(&view->python->rt, threads, n, TASKS_MAX, &tasks->py);
	free(threads);
	if (r == PY_E_TRUNCATED)
		tasks->scan->waits->incomplete = true;
	return r == -ENOMEM ? r : 0;
}

static int prepare(struct task_scan *tasks) {
	int r = read_tasks(tasks);

	if (r)
		return r;
	tasks->tasks = calloc(tasks->py.n + 1, sizeof(*tasks->tasks));
	if (!tasks->tasks)
		return -ENOMEM;
	for (size_t i = 0; !r && i < tasks->py.n; i++) {
		tasks->tasks[i].py = &tasks->py.items[i];
		decode(tasks, &tasks->tasks[i]);
		r = map_put(&tasks->by_object, tasks->py.items[i].object, i);
		if (!r)
			r = add_node(tasks, &tasks->tasks[i]);
	}
	for (size_t i = 0; !r && i < tasks->py.n; i++)
		r = find_blocks(tasks, (uint32_t)i);
	for (size_t i = 0; !r && i < tasks->py.n; i++)
		r = find_acquired(tasks, (uint32_t)i);
	return r;
}

void scan_tasks(struct wait_scan *scan, struct wait_view *view) {
	struct task_scan tasks = { .scan = scan, .view = view };

	if (!view->python)
		return;
	if (prepare(&tasks))
		scan->failed = true;
	for (size_t i = 0; !scan->failed && i < tasks.py.n; i++)
		if (tasks.py.items[i].state == PY_FUTURE_PENDING)
			build_wait(&tasks, &tasks.tasks[i]);
	view->tasks = tasks.py.n;
	py_tasks_free(&tasks.py);
	free(tasks.tasks);
	map_deinit(&tasks.by_object);
	vec_free(&tasks.holders);
}
