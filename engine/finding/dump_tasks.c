/* SPDX-License-Identifier: MIT */
/* The tasks of a dump, as a tree for each event loop: below a task stand those that it waits for.
 *
 *   Event loop 0x7f00 of thread 4711 (MainThread): polling, 4 tasks, 0 callbacks ready, 1 timer
 *     Task-1: main (app.py:20) waits for 2 tasks (gather)
 *     |- Task-2: transfer (app.py:12) waits for asyncio Lock 0x7f10 `lock` held by Task-4
 *     `- Task-3: nap (app.py:5) sleeps
 *     Task-4: transfer (app.py:13) (running)
 *
 * A tree begins at a task that no other waits for; what only a circle reaches begins at its first one. Each task is
 * told once. */
#include "engine/finding/dump_tasks.h"

#include "engine/base/util.h"
#include "engine/finding/stack_json.h"
#include "engine/finding/stack_text.h"
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#define DEPTH_MAX 24
#define REPEATED_MAX 4 /* tasks told before, below one that waits for them */
#define HOLDERS_MAX 4
#define INDENT_MAX (3 * (DEPTH_MAX + 1))

/* JSON */

static json_t *kind_json(const char *word) {
	char kind[64];
	size_t n = 0;

	for (; word[n] && n + 1 < sizeof(kind); n++)
		kind[n] = (char)tolower((unsigned char)word[n]);
	kind[n] = '\0';
	return json_text(kind);
}

static json_t *named_json(const struct pyspyd_dump *dump, uint32_t task) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "id", json_integer(task));

	ok = json_put(ok, object, "name", json_text(dump->tasks[task].name));
	return json_done(ok, object);
}

static json_t *list_json(const struct pyspyd_dump *dump, const uint32_t *tasks, size_t n) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < n; i++)
		ok = !json_array_append_new(array, named_json(dump, tasks[i]));
	return json_done(ok, array);
}

static json_t *holders_json(const struct pyspyd_dump *dump, const struct pyspyd_task *task) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < task->holders_n; i++) {
		const struct pyspyd_task_holder *holder = &task->holders[i];
		json_t *object = named_json(dump, holder->task);

		ok = json_put(object != NULL, object, "certainty", json_string(holder->why ? "inferred" : "proven"));
		ok = json_put(ok, object, "why", json_text(holder->why));
		ok = !json_array_append_new(array, object) && ok;
	}
	return json_done(ok, array);
}

static json_t *waits_for_json(const struct pyspyd_dump *dump, const struct pyspyd_task *task) {
	json_t *object = json_object();
	bool ok;

	if (!task->waits_for)
		return object;
	ok = json_put(true, object, "kind", kind_json(task->waits_for));
	ok = json_put(ok, object, "type", json_text(task->waits_for));
	ok = json_put(ok, object, "address", json_address(task->address_waited));
	ok = json_put(ok, object, "expression", json_text(task->expression));
	ok = json_put(ok, object, "timed", json_boolean(task->timed));
	ok = json_put(ok, object, "tasks", list_json(dump, task->targets, task->targets_n));
	ok = json_put(ok, object, "holders", holders_json(dump, task));
	return json_done(ok, object);
}

static json_t *task_json(const struct pyspyd_dump *dump, size_t index) {
	static const char *const states[] = {
		[PYSPYD_TASK_RUNNING] = "running",
		[PYSPYD_TASK_READY] = "ready",
		[PYSPYD_TASK_WAITING] = "waiting",
	};
	const struct pyspyd_task *task = &dump->tasks[index];
	json_t *object = json_object();
	bool ok = json_put(true, object, "id", json_count(index));

	ok = json_put(ok, object, "name", json_text(task->name));
	ok = json_put(ok, object, "state", json_string(states[task->state]));
	ok = json_put(ok, object, "address", json_address(task->address));
	ok = json_put(ok, object, "loop", json_address(dump->loops[task->loop].address));
	ok = json_put(ok, object, "waits_for", waits_for_json(dump, task));
	ok = json_put(ok, object, "awaiters", list_json(dump, task->awaiters, task->awaiters_n));
	ok = json_put(ok, object, "stack", stack_json_frames(task->frames, task->frames_n));
	ok = json_put(ok, object, "site", task->site < task->frames_n ? json_count(task->site) : json_null());
	return json_done(ok, object);
}

json_t *dump_tasks_json(const struct pyspyd_dump *dump) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < dump->tasks_n; i++)
		ok = !json_array_append_new(array, task_json(dump, i));
	return json_done(ok, array);
}

json_t *dump_loops_json(const struct pyspyd_dump *dump) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < dump->loops_n; i++) {
		const struct pyspyd_loop *loop = &dump->loops[i];
		json_t *object = json_object();

		ok = json_put(true, object, "address", json_address(loop->address));
		ok = json_put(ok, object, "tid", loop->tid ? json_integer(loop->tid) : json_null());
		ok = json_put(ok, object, "polling", json_boolean(loop->polling));
		ok = json_put(ok, object, "ready", json_count(loop->ready));
		ok = json_put(ok, object, "scheduled", json_count(loop->scheduled));
		ok = json_put(ok, object, "overdue", json_count(loop->overdue));
		ok = json_put(ok, object, "tasks", json_count(loop->tasks));
		ok = !json_array_append_new(array, object) && ok;
	}
	return json_done(ok, array);
}

/* Text */

struct tree {
	struct strbuf *sb;
	const struct pyspyd_dump *dump;
	bool colour;
	bool *told; /* tasks */
	bool *here; /* tasks on the way from the root */
	char indent[INDENT_MAX + 1];
};

static void add_count(struct strbuf *sb, uint64_t n, const char *word) {
	strbuf_addf(sb, "%" PRIu64 " %s%s", n, word, n == 1 ? "" : "s");
}

static const char *thread_name(const struct pyspyd_dump *dump, pid_t tid) {
	for (size_t i = 0; i < dump->threads_n; i++)
		if (dump->threads[i].tid == tid)
			return dump->threads[i].name;
	return NULL;
}

static void add_loop_line(struct tree *tree, const struct pyspyd_loop *loop) {
	struct strbuf *sb = tree->sb;
	const char *name = loop->tid ? thread_name(tree->dump, loop->tid) : NULL;

	text_style(sb, tree->colour, TEXT_BOLD);
	strbuf_addf(sb, "Event loop 0x%" PRIx64, loop->address);
	if (loop->tid)
		strbuf_addf(sb, " of thread %d", (int)loop->tid);
	if (name) {
		strbuf_adds(sb, " (");
		text_add(sb, name, TEXT_NAME_MAX);
		strbuf_adds(sb, ")");
	}
	text_style(sb, tree->colour, TEXT_PLAIN);
	strbuf_adds(sb, !loop->tid ? ": no thread runs it, " : loop->polling ? ": polling, " : ": in a callback, ");
	add_count(sb, loop->tasks, "task");
	if (loop->tid) {
		strbuf_adds(sb, ", ");
		add_count(sb, loop->ready, "callback");
		strbuf_adds(sb, " ready, ");
		add_count(sb, loop->scheduled, "timer");
	}
	if (loop->overdue)
		strbuf_addf(sb, " (%" PRIu64 " overdue)", loop->overdue);
	strbuf_adds(sb, "\n");
}

static void add_name(struct tree *tree, uint32_t task) {
	const char *name = tree->dump->tasks[task].name;

	text_style(tree->sb, tree->colour, TEXT_BOLD);
	if (*name)
		text_add(tree->sb, name, TEXT_NAME_MAX);
	else
		strbuf_addf(tree->sb, "task 0x%" PRIx64, tree->dump->tasks[task].address);
	text_style(tree->sb, tree->colour, TEXT_PLAIN);
}

static void add_holders(struct tree *tree, const struct pyspyd_task *task) {
	for (size_t i = 0; i < min_of(task->holders_n, (size_t)HOLDERS_MAX); i++) {
		strbuf_adds(tree->sb, i ? ", " : " held by ");
		add_name(tree, task->holders[i].task);
		if (!task->holders[i].why)
			continue;
		strbuf_adds(tree->sb, " (inferred: ");
		text_add(tree->sb, task->holders[i].why, TEXT_NAME_MAX);
		strbuf_adds(tree->sb, ")");
	}
	if (task->holders_n > HOLDERS_MAX)
		strbuf_addf(tree->sb, " and %zu more", task->holders_n - HOLDERS_MAX);
	if (!task->holders_n && !tree->dump->tasks_truncated && !strcmp(task->waits_for, "Lock"))
		strbuf_adds(tree->sb, " that no pending task holds");
}

/* Which call of the library it is in: "StreamReader.readline". */
static void add_call(struct tree *tree, const struct pyspyd_task *task) {
	const struct pyspyd_frame *frame;

	if (!task->site || task->site > task->frames_n)
		return;
	frame = &task->frames[task->site - 1];
	strbuf_adds(tree->sb, " in ");
	text_add(tree->sb, frame->qualname && *frame->qualname ? frame->qualname : frame->function, TEXT_NAME_MAX);
}

static void add_targets(struct tree *tree, const struct pyspyd_task *task) {
	strbuf_adds(tree->sb, " waits for ");
	if (task->targets_n == 1)
		add_name(tree, task->targets[0]);
	else
		add_count(tree->sb, task->targets_n, "task");
	if (strcmp(task->waits_for, "task") == 0)
		return;
	strbuf_adds(tree->sb, " (");
	text_add(tree->sb, task->waits_for, TEXT_NAME_MAX);
	strbuf_adds(tree->sb, ")");
}

static void add_object(struct tree *tree, const struct pyspyd_task *task) {
	strbuf_adds(tree->sb, " waits for asyncio ");
	text_add(tree->sb, task->waits_for, TEXT_NAME_MAX);
	strbuf_addf(tree->sb, " 0x%" PRIx64, task->address_waited);
	if (task->expression) {
		strbuf_adds(tree->sb, " `");
		text_add(tree->sb, task->expression, TEXT_NAME_MAX);
		strbuf_adds(tree->sb, "`");
	}
	add_holders(tree, task);
}

static void add_wait(struct tree *tree, const struct pyspyd_task *task) {
	if (!task->waits_for) {
		strbuf_adds(tree->sb, task->state == PYSPYD_TASK_RUNNING ? " (running)" : " (ready)");
		return;
	}
	if (!strcmp(task->waits_for, "sleep")) {
		strbuf_adds(tree->sb, " sleeps");
		return;
	}
	if (task->targets_n) {
		add_targets(tree, task);
	} else if (!strcmp(task->waits_for, "future")) {
		strbuf_addf(tree->sb, " waits for a future 0x%" PRIx64, task->address_waited);
		add_call(tree, task);
	} else {
		add_object(tree, task);
	}
	if (task->timed)
		strbuf_adds(tree->sb, ", until a time-out");
}

static void add_task(struct tree *tree, uint32_t index) {
	const struct pyspyd_task *task = &tree->dump->tasks[index];

	add_name(tree, index);
	if (task->site < task->frames_n) {
		strbuf_adds(tree->sb, ": ");
		text_frame(tree->sb, &task->frames[task->site], true, tree->colour);
	}
	add_wait(tree, task);
	strbuf_adds(tree->sb, "\n");
}

static void begin_line(struct tree *tree, bool last) {
	strbuf_adds(tree->sb, "  ");
	strbuf_adds(tree->sb, tree->indent);
	strbuf_adds(tree->sb, last ? "`- " : "|- ");
}

static void add_children(struct tree *tree, uint32_t index, unsigned depth);

/* One that is too deep begins a tree of its own further down. */
static void add_child(struct tree *tree, uint32_t index, unsigned depth, bool last) {
	size_t end = strlen(tree->indent);

	begin_line(tree, last);
	if (tree->told[index] || depth == DEPTH_MAX) {
		add_name(tree, index);
		strbuf_adds(tree->sb,
			tree->here[index]           ? ": the circle closes\n"
				: tree->told[index] ? " (see above)\n"
						    : " (see below)\n");
		return;
	}
	add_task(tree, index);
	memcpy(tree->indent + end, last ? "   " : "|  ", 4);
	add_children(tree, index, depth + 1);
	tree->indent[end] = '\0';
}

/* Recurses at most DEPTH_MAX deep. */
static void add_children(struct tree *tree, uint32_t index, unsigned depth) {
	const struct pyspyd_task *task = &tree->dump->tasks[index];
	size_t repeated = 0, left = 0;

	tree->told[index] = tree->here[index] = true;
	for (size_t i = 0; i < task->targets_n; i++) {
		if (tree->told[task->targets[i]] && repeated++ >= REPEATED_MAX)
			left++;
		else
			add_child(tree, task->targets[i], depth, i + 1 == task->targets_n && !left);
	}
	if (left) {
		begin_line(tree, true);
		strbuf_addf(tree->sb, "… and %zu more (see above)\n", left);
	}
	tree->here[index] = false;
}

static void add_loop(struct tree *tree, size_t loop) {
	const struct pyspyd_dump *dump = tree->dump;

	strbuf_adds(tree->sb, "\n");
	add_loop_line(tree, &dump->loops[loop]);
	for (int pass = 0; pass < 2; pass++)
		for (uint32_t i = 0; i < dump->tasks_n; i++) {
			const struct pyspyd_task *task = &dump->tasks[i];

			if (task->loop != loop || tree->told[i] || (pass == 0 && task->awaiters_n))
				continue;
			strbuf_adds(tree->sb, "  ");
			add_task(tree, i);
			add_children(tree, i, 0);
		}
}

bool dump_tasks_text(struct strbuf *sb, const struct pyspyd_dump *dump, bool colour) {
	_free_ bool *told = calloc(dump->tasks_n + 1, sizeof(*told)), *here = calloc(dump->tasks_n + 1, sizeof(*here));
	struct tree tree = { .sb = sb, .dump = dump, .colour = colour, .told = told, .here = here };

	if (!told || !here)
		return false;
	for (size_t i = 0; i < dump->loops_n; i++)
		add_loop(&tree, i);
	if (!dump->loops_n)
		strbuf_adds(sb, "\nno event loop\n");
	if (dump->tasks_truncated)
		strbuf_adds(sb, "\n… not all tasks were read\n");
	return true;
}
