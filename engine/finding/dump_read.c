/* SPDX-License-Identifier: MIT */
/* pyspyd.dump/1 back into a dump. Its counters are made of the rest, and not read but for what is nowhere else. */
#include "engine/finding/document.h"

#include "engine/base/map.h"
#include "engine/base/util.h"
#include "pyspyd/snapshot.h"
#include <errno.h>
#include <string.h>

static void read_loop(struct document *document, const json_t *object, void *item) {
	struct pyspyd_loop *loop = item;

	loop->address = document_address(document, object, "address");
	loop->tid = (pid_t)document_number(document, object, "tid", 0, INT32_MAX, 0);
	loop->polling = document_bool(document, object, "polling");
	loop->ready = document_count(document, object, "ready");
	loop->scheduled = document_count(document, object, "scheduled");
	loop->overdue = document_count(document, object, "overdue");
	loop->tasks = (size_t)document_count(document, object, "tasks");
}

/* Tasks name their loop by its address. */
static void index_loops(struct document *document, const struct pyspyd_dump *dump, struct map *loops) {
	for (size_t i = dump->loops_n; i > 0 && !document->r; i--)
		if (dump->loops[i - 1].address == UINT64_MAX)
			document_fail(document, "loops", "has something that is no address");
		else if (map_put(loops, dump->loops[i - 1].address, i - 1))
			document->r = -ENOMEM;
}

static size_t find_loop(struct document *document, const json_t *object) {
	uint64_t address = document_address(document, object, "loop"), index;

	if (address != UINT64_MAX && map_get(document->userdata, address, &index))
		return (size_t)index;
	document_fail(document, "loop", "is none of the loops");
	return 0;
}

static void read_index(struct document *document, const json_t *object, void *item) {
	*(uint32_t *)item = (uint32_t)document_number(document, object, "id", 0, UINT32_MAX - 1, 0);
}

static void read_holder(struct document *document, const json_t *object, void *item) {
	struct pyspyd_task_holder *holder = item;

	read_index(document, object, &holder->task);
	holder->why = document_text(document, object, "why");
}

static void read_waits_for(struct document *document, const json_t *object, struct pyspyd_task *task) {
	const json_t *from = document_object(document, object, "waits_for");

	if (!json_object_size(from))
		return;
	task->waits_for = document_string(document, from, "type");
	task->address_waited = document_address(document, from, "address");
	task->expression = document_text(document, from, "expression");
	task->timed = document_bool(document, from, "timed");
	task->targets = document_array(document, from, "tasks", sizeof(*task->targets), read_index, &task->targets_n);
	task->holders =
		document_array(document, from, "holders", sizeof(*task->holders), read_holder, &task->holders_n);
}

static void read_task(struct document *document, const json_t *object, void *item) {
	static const char *const states[] = {
		[PYSPYD_TASK_RUNNING] = "running",
		[PYSPYD_TASK_READY] = "ready",
		[PYSPYD_TASK_WAITING] = "waiting",
	};
	struct pyspyd_task *task = item;

	task->name = document_string(document, object, "name");
	task->state = (enum pyspyd_task_state)document_choice(document, object, "state", states, ARRAY_SIZE(states));
	task->address = document_address(document, object, "address");
	task->loop = find_loop(document, object);
	read_waits_for(document, object, task);
	task->awaiters =
		document_array(document, object, "awaiters", sizeof(*task->awaiters), read_index, &task->awaiters_n);
	task->frames =
		document_array(document, object, "stack", sizeof(*task->frames), document_frame, &task->frames_n);
	task->site = (size_t)document_number(document, object, "site", 0, INT32_MAX, INT32_MAX);
}

static void check_index(struct document *document, const struct pyspyd_dump *dump, uint32_t task) {
	if (task >= dump->tasks_n)
		document_fail(document, "id", "is none of the tasks");
}

static void check_indices(struct document *document, const struct pyspyd_dump *dump) {
	for (size_t i = 0; i < dump->tasks_n; i++) {
		const struct pyspyd_task *task = &dump->tasks[i];
		size_t mark = document_enter(document, "tasks", i);

		for (size_t k = 0; k < task->targets_n; k++)
			check_index(document, dump, task->targets[k]);
		for (size_t k = 0; k < task->holders_n; k++)
			check_index(document, dump, task->holders[k].task);
		for (size_t k = 0; k < task->awaiters_n; k++)
			check_index(document, dump, task->awaiters[k]);
		document_leave(document, mark);
	}
}

static void read_async(struct document *document, struct pyspyd_dump *dump) {
	const json_t *counters = document_object(document, document->root, "counters");
	_cleanup_(map_deinit) struct map loops = { 0 };

	document->userdata = &loops;
	dump->async = true;
	dump->tasks_truncated = document_bool(document, counters, "tasks_truncated");
	dump->loops =
		document_array(document, document->root, "loops", sizeof(*dump->loops), read_loop, &dump->loops_n);
	index_loops(document, dump, &loops);
	dump->tasks =
		document_array(document, document->root, "tasks", sizeof(*dump->tasks), read_task, &dump->tasks_n);
	check_indices(document, dump);
	document->userdata = NULL;
}

int pyspyd_dump_of_json(const char *json, size_t len, struct pyspyd_dump **ret_dump, struct err *err) {
	struct pyspyd_dump *dump = calloc(1, sizeof(*dump));
	struct document document;
	int r;

	if (!dump)
		return -ENOMEM;
	document_open(&document, "pyspyd.dump/1", json, len, err);
	document_process(&document, document.root, &dump->process);
	dump->threads = document_array(
		&document, document.root, "threads", sizeof(*dump->threads), document_thread, &dump->threads_n);
	if (json_object_get(document.root, "loops"))
		read_async(&document, dump);
	r = document.r;
	document_close(&document);
	if (r)
		pyspyd_dump_free(dump);
	else
		*ret_dump = dump;
	return r;
}
