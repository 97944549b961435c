/* SPDX-License-Identifier: MIT */
/* The asyncio part of a dump: the process is viewed as for the wait graph, and its tasks are described.
 *
 * Loops that no thread runs now are known by their tasks alone. */
#include "engine/pipeline/dump_async.h"

#include "engine/waits/task_view.h"
#include <string.h>

#define HOLDERS_MAX 64 /* of one lock or semaphore */

static int add_running_loops(const struct wait_view *view, struct pyspyd_dump *dump) {
	/* Room for those that only tasks know too. */
	dump->loops = calloc(view->loops.n + TASK_VIEWS_MAX + 1, sizeof(*dump->loops));
	if (!dump->loops)
		return -ENOMEM;
	vec_foreach (loop, &view->loops)
		dump->loops[dump->loops_n++] = (struct pyspyd_loop){
			.address = loop->object,
			.tid = loop->tid,
			.polling = loop->polling,
			.ready = loop->ready,
			.scheduled = loop->scheduled,
			.overdue = loop->overdue,
		};
	return 0;
}

static size_t loop_index(struct pyspyd_dump *dump, raddr object) {
	for (size_t i = 0; i < dump->loops_n; i++)
		if (dump->loops[i].address == object)
			return i;
	dump->loops[dump->loops_n] = (struct pyspyd_loop){ .address = object };
	return dump->loops_n++;
}

static int add_holders(const struct task_views *tasks, raddr object, struct pyspyd_task *described) {
	size_t n = 0;

	vec_foreach (holder, &tasks->holders)
		n += holder->object == object;
	n = min_of(n, (size_t)HOLDERS_MAX);
	described->holders = n ? calloc(n, sizeof(*described->holders)) : NULL;
	if (n && !described->holders)
		return -ENOMEM;
	vec_foreach (holder, &tasks->holders) {
		struct pyspyd_task_holder *to;

		if (holder->object != object || described->holders_n == n)
			continue;
		to = &described->holders[described->holders_n];
		to->task = holder->task;
		to->why = holder->inferred ? strdup(holder->why) : NULL;
		described->holders_n++;
		if (holder->inferred && !to->why)
			return -ENOMEM;
	}
	return 0;
}

static int add_targets(const struct task_wait *wait, struct pyspyd_task *described) {
	described->targets = wait->tasks_n ? calloc(wait->tasks_n, sizeof(*described->targets)) : NULL;
	if (wait->tasks_n && !described->targets)
		return -ENOMEM;
	if (wait->tasks_n)
		memcpy(described->targets, wait->tasks, wait->tasks_n * sizeof(*described->targets));
	described->targets_n = wait->tasks_n;
	return 0;
}

/* Events and queues are not held, whoever is inside of a block of them. */
static bool is_held(const char *type) {
	return !strcmp(type, "Lock") || strstr(type, "Semaphore");
}

static int describe_wait(const struct task_views *tasks, uint32_t index, struct pyspyd_task *described) {
	struct task_wait wait;
	const char *expression = NULL;
	int r;

	task_wait_read(tasks, index, &wait);
	if (wait.kind == TASK_RUNS || wait.kind == TASK_READY) {
		described->state = wait.kind == TASK_RUNS ? PYSPYD_TASK_RUNNING : PYSPYD_TASK_READY;
		return 0;
	}
	if (wait.kind == TASK_NEEDS_PRIMITIVE || !strcmp(wait.type, "TaskGroup"))
		expression = task_expression(tasks, index, wait.object);
	described->state = PYSPYD_TASK_WAITING;
	described->waits_for = strdup(wait.kind == TASK_SLEEPS ? "sleep" : wait.type);
	described->address_waited = wait.object;
	described->timed = wait.timed;
	described->expression = expression ? strdup(expression) : NULL;
	r = !described->waits_for || (expression && !described->expression) ? -ENOMEM : 0;
	if (!r)
		r = add_targets(&wait, described);
	if (!r && wait.kind == TASK_NEEDS_PRIMITIVE && is_held(wait.type))
		r = add_holders(tasks, wait.object, described);
	return r;
}

static int describe_task(
	const struct task_views *tasks, uint32_t index, struct pyspyd_dump *dump, struct pyspyd_task *described) {
	const struct task_view *task = &tasks->items[index];
	int r;

	described->address = task->py->object;
	described->loop = loop_index(dump, task->py->loop);
	dump->loops[described->loop].tasks++;
	described->name = strdup(task->py->name ? task->py->name : "");
	if (!described->name)
		return -ENOMEM;
	r = view_frames_copy(task->frames, task->frames_n, &described->frames);
	if (r)
		return r;
	described->frames_n = task->frames_n;
	described->site = task_own_frame(task);
	return describe_wait(tasks, index, described);
}

/* The targets, turned round. */
static int add_awaiters(struct pyspyd_dump *dump) {
	struct pyspyd_task *tasks = dump->tasks;

	for (size_t i = 0; i < dump->tasks_n; i++)
		for (size_t k = 0; k < tasks[i].targets_n; k++)
			tasks[tasks[i].targets[k]].awaiters_n++;
	for (size_t i = 0; i < dump->tasks_n; i++) {
		if (!tasks[i].awaiters_n)
			continue;
		tasks[i].awaiters = calloc(tasks[i].awaiters_n, sizeof(*tasks[i].awaiters));
		if (!tasks[i].awaiters)
			return -ENOMEM;
		tasks[i].awaiters_n = 0;
	}
	for (size_t i = 0; i < dump->tasks_n; i++)
		for (size_t k = 0; k < tasks[i].targets_n; k++) {
			struct pyspyd_task *target = &tasks[tasks[i].targets[k]];

			target->awaiters[target->awaiters_n++] = (uint32_t)i;
		}
	return 0;
}

static int describe(const struct task_views *tasks, struct pyspyd_dump *dump) {
	int r = add_running_loops(tasks->view, dump);

	if (r)
		return r;
	dump->tasks_truncated = tasks->truncated;
	dump->tasks = calloc(tasks->py.n + 1, sizeof(*dump->tasks));
	if (!dump->tasks)
		return -ENOMEM;
	for (size_t i = 0; !r && i < tasks->py.n; i++) {
		dump->tasks_n = i + 1;
		r = describe_task(tasks, (uint32_t)i, dump, &dump->tasks[i]);
	}
	return r ? r : add_awaiters(dump);
}

int dump_async(struct sample_target *target, struct py_stack_scratch *scratch, struct pyspyd_dump *dump) {
	_cleanup_(task_views_deinit) struct task_views tasks = { 0 };
	struct wait_process *process = NULL;
	struct wait_view *view = NULL;
	int r = wait_process_new(target, false, &process);

	if (!r)
		r = wait_view_new(target->root, target->proc.pid, process, scratch, &view);
	if (!r)
		r = task_views_read(view, &tasks);
	if (!r)
		r = describe(&tasks, dump);
	dump->async = true;
	wait_view_free(view);
	wait_process_free(process);
	return r == PROC_E_GONE ? MEM_E_GONE : r;
}
