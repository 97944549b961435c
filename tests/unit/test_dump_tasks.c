/* SPDX-License-Identifier: MIT */
/* Tasks in dumps: the tree as people read it, circles, chains that are deep or wide, hostile names, the schema's keys.
 */
#include "pyspyd/dump.h"

#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>

#define S(text) ((char[]){ text }) /* the public structs own their strings: not const */
#define MANY 100

static struct pyspyd_frame worker[] = {
	{ .function = S("acquire"), .qualname = S("Lock.acquire"), .file = S("/lib/asyncio/locks.py"), .line = 110 },
	{ .function = S("work"),
		.qualname = S("Worker.work"),
		.file = S("/srv/app.py"),
		.module = S("app"),
		.line = 12 },
};
static struct pyspyd_frame boss = {
	.function = S("main"), .qualname = S("main"), .file = S("/srv/app.py"), .module = S("__main__"), .line = 20
};
static struct pyspyd_thread thread = { .tid = 4711, .name = S("MainThread"), .state = 'S' };
static struct pyspyd_loop loops[] = {
	{ .address = 0x7f00, .tid = 4711, .polling = true, .scheduled = 1, .tasks = 6 },
	{ .address = 0x7f80, .tasks = 1 },
};

#define TASK_IS(STATE, NAME, FRAMES, ...) \
	{ \
		.state = PYSPYD_TASK_##STATE, .name = S(NAME), .frames = (FRAMES), .frames_n = ARRAY_SIZE(FRAMES), \
		.site = ARRAY_SIZE(FRAMES) - 1, __VA_ARGS__ \
	}
#define TASK(...) TASK_IS(WAITING, __VA_ARGS__)

static char letter[] = "t", awaited[] = "task", gather[] = "gather";
static struct pyspyd_frame at_main[1], at_sleep[1];

static char *text_of(struct pyspyd_dump *dump) {
	char *text = pyspyd_dump_text(dump, false);
	char *tree = text ? strstr(text, "\nEvent loop") : NULL;

	cr_assert_not_null(tree);
	tree = strdup(tree + 1);
	free(text);
	return tree;
}

Test(dump_tasks, a_tree_for_each_loop) {
	uint32_t two[] = { 1, 2 }, root[] = { 0 };
	struct pyspyd_task_holder holders[] = { { .task = 3 }, { .task = 4, .why = S("it called acquire()") } };
	struct pyspyd_task tasks[] = {
		TASK("Task-1", at_main, .waits_for = S("gather"), .targets = two, .targets_n = 2),
		TASK("Task-2", worker, .waits_for = S("Lock"), .address_waited = 0x7f10, .expression = S("self.lock"),
			.holders = holders, .holders_n = 2, .awaiters = root, .awaiters_n = 1),
		TASK("Task-3", at_sleep, .waits_for = S("sleep"), .timed = true, .awaiters = root, .awaiters_n = 1),
		TASK("Task-4", worker, .waits_for = S("future"), .address_waited = 0x7f20, .timed = true),
		TASK("Task-5", worker, .waits_for = S("Event"), .address_waited = 0x7f30),
		TASK_IS(RUNNING, "Task-6", at_main, .loop = 0),
		TASK_IS(READY, "", at_main, .address = 0xabc, .loop = 1),
	};
	struct pyspyd_dump dump = { .threads = &thread,
		.threads_n = 1,
		.async = true,
		.loops = loops,
		.loops_n = 2,
		.tasks = tasks,
		.tasks_n = ARRAY_SIZE(tasks) };
	_free_ char *text = NULL;

	at_main[0] = at_sleep[0] = boss;
	text = text_of(&dump);
	cr_assert_str_eq(text,
		"Event loop 0x7f00 of thread 4711 (MainThread): polling, 6 tasks, 0 callbacks ready, 1 timer\n"
		"  Task-1: main (app.py:20) waits for 2 tasks (gather)\n"
		"  |- Task-2: Worker.work (app.py:12) waits for asyncio Lock 0x7f10 `self.lock` held by Task-4, Task-5 "
		"(inferred: it called acquire())\n"
		"  `- Task-3: main (app.py:20) sleeps\n"
		"  Task-4: Worker.work (app.py:12) waits for a future 0x7f20 in Lock.acquire, until a time-out\n"
		"  Task-5: Worker.work (app.py:12) waits for asyncio Event 0x7f30\n"
		"  Task-6: main (app.py:20) (running)\n"
		"\n"
		"Event loop 0x7f80: no thread runs it, 1 task\n"
		"  task 0xabc: main (app.py:20) (ready)\n");
}

Test(dump_tasks, a_circle_closes_and_each_task_is_told_once) {
	uint32_t to_a[] = { 0 }, to_b[] = { 1 }, both[] = { 0, 2 };
	struct pyspyd_task tasks[] = {
		TASK("a", at_main, .waits_for = S("task"), .targets = to_b, .targets_n = 1, .awaiters = both,
			.awaiters_n = 2),
		TASK("b", at_main, .waits_for = S("task"), .targets = to_a, .targets_n = 1, .awaiters = to_a,
			.awaiters_n = 1),
		TASK("c", at_main, .waits_for = S("wait"), .targets = to_a, .targets_n = 1, .timed = true),
		TASK("d", at_main, .waits_for = S("task"), .targets = to_b, .targets_n = 1),
	};
	struct pyspyd_dump dump = {
		.async = true, .loops = loops, .loops_n = 1, .tasks = tasks, .tasks_n = ARRAY_SIZE(tasks)
	};
	_free_ char *text = NULL;

	at_main[0] = boss;
	text = text_of(&dump);
	cr_assert_str_eq(strchr(text, '\n') + 1,
		"  c: main (app.py:20) waits for a (wait), until a time-out\n"
		"  `- a: main (app.py:20) waits for b\n"
		"     `- b: main (app.py:20) waits for a\n"
		"        `- a: the circle closes\n"
		"  d: main (app.py:20) waits for b\n"
		"  `- b (see above)\n");
}

Test(dump_tasks, what_only_a_circle_reaches_is_told_too) {
	uint32_t self[] = { 0 };
	struct pyspyd_task tasks[] = { TASK("a", at_main, .waits_for = S("gather"), .targets = self, .targets_n = 1,
		.awaiters = self, .awaiters_n = 1) };
	struct pyspyd_dump dump = {
		.async = true, .loops = loops, .loops_n = 1, .tasks = tasks, .tasks_n = 1, .tasks_truncated = true
	};
	_free_ char *text = NULL;

	at_main[0] = boss;
	text = text_of(&dump);
	cr_assert_str_eq(strchr(text, '\n') + 1,
		"  a: main (app.py:20) waits for a (gather)\n"
		"  `- a: the circle closes\n"
		"\n"
		"… not all tasks were read\n");
}

static size_t count(const char *text, const char *word) {
	size_t n = 0;

	while ((text = strstr(text, word))) {
		n++;
		text += strlen(word);
	}
	return n;
}

Test(dump_tasks, a_deep_chain_goes_on_further_down) {
	struct pyspyd_task tasks[MANY];
	uint32_t next[MANY], before[MANY];
	struct pyspyd_dump dump = { .async = true, .loops = loops, .loops_n = 1, .tasks = tasks, .tasks_n = MANY };
	_free_ char *text = NULL;

	for (uint32_t i = 0; i < MANY; i++) {
		next[i] = i + 1;
		before[i] = i - 1;
		tasks[i] = (struct pyspyd_task){ .name = letter,
			.frames = &boss,
			.frames_n = 1,
			.state = PYSPYD_TASK_WAITING,
			.waits_for = awaited,
			.targets = &next[i],
			.targets_n = i + 1 < MANY,
			.awaiters = &before[i],
			.awaiters_n = i > 0 };
	}
	tasks[MANY - 1].waits_for = NULL;
	text = text_of(&dump);
	cr_assert_eq(count(text, ": main (app.py:20)"), MANY);
	cr_assert_eq(count(text, "(see below)"), MANY / 25 - (MANY % 25 == 0));
}

Test(dump_tasks, many_who_wait_for_the_same_are_cut) {
	struct pyspyd_task tasks[12] = { 0 };
	uint32_t all[10], waiters[] = { 10, 11 };
	struct pyspyd_dump dump = {
		.async = true, .loops = loops, .loops_n = 1, .tasks = tasks, .tasks_n = ARRAY_SIZE(tasks)
	};
	_free_ char *text = NULL;

	for (uint32_t i = 0; i < ARRAY_SIZE(tasks); i++)
		tasks[i] = (struct pyspyd_task){ .name = letter, .awaiters = waiters, .awaiters_n = i < 10 ? 2 : 0 };
	for (uint32_t i = 0; i < ARRAY_SIZE(all); i++)
		all[i] = i;
	for (uint32_t i = 10; i < 12; i++) {
		tasks[i].waits_for = gather;
		tasks[i].targets = all;
		tasks[i].targets_n = ARRAY_SIZE(all);
	}
	text = text_of(&dump);
	cr_assert_eq(count(text, "(ready)") + count(text, "(running)"), 10);
	cr_assert_eq(count(text, "t (see above)\n"), 4);
	cr_assert_not_null(strstr(text, "  `- … and 6 more (see above)\n"));
}

Test(dump_tasks, no_event_loop_is_said) {
	struct pyspyd_dump dump = { .async = true };
	_free_ char *text = pyspyd_dump_text(&dump, false), *line = pyspyd_dump_json(&dump);

	cr_assert_str_eq(text + strlen(text) - strlen("\n\nno event loop\n"), "\n\nno event loop\n");
	cr_assert_not_null(strstr(line, "\"loops\":[],\"tasks\":[]"));
	dump.async = false;
	free(line);
	line = pyspyd_dump_json(&dump);
	cr_assert_null(strstr(line, "\"tasks\""));
}

static void expect_keys(json_t *object, const char *keys) {
	char have[512] = "";
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value) {
		strcat(have, *have ? " " : "");
		strcat(have, key);
	}
	cr_assert_str_eq(have, keys);
}

Test(dump_tasks, json_has_the_schema_s_keys) {
	uint32_t to[] = { 1 }, from[] = { 0 };
	struct pyspyd_task_holder holder = { .task = 1, .why = S("it called acquire()") };
	struct pyspyd_task tasks[] = {
		TASK("a", worker, .address = 0x10, .waits_for = S("Lock"), .address_waited = 0x20, .targets = to,
			.targets_n = 1, .holders = &holder, .holders_n = 1),
		TASK_IS(RUNNING, "b", worker, .awaiters = from, .awaiters_n = 1),
	};
	struct pyspyd_dump dump = { .async = true, .loops = loops, .loops_n = 2, .tasks = tasks, .tasks_n = 2 };
	_free_ char *line = pyspyd_dump_json(&dump);
	json_t *root = json_loads(line, 0, NULL), *task, *wait, *array;

	expect_keys(root, "schema process threads counters loops tasks");
	expect_keys(json_object_get(root, "counters"), "threads frames truncated incomplete tasks tasks_truncated");
	array = json_object_get(root, "loops");
	expect_keys(json_array_get(array, 0), "address tid polling ready scheduled overdue tasks");
	cr_assert(json_is_null(json_object_get(json_array_get(array, 1), "tid")));
	task = json_array_get(json_object_get(root, "tasks"), 0);
	expect_keys(task, "id name state address loop waits_for awaiters stack site");
	cr_assert_str_eq(json_string_value(json_object_get(task, "loop")), "0x7f00");
	wait = json_object_get(task, "waits_for");
	expect_keys(wait, "kind type address expression timed tasks holders");
	cr_assert_str_eq(json_string_value(json_object_get(wait, "kind")), "lock");
	expect_keys(json_array_get(json_object_get(wait, "tasks"), 0), "id name");
	expect_keys(json_array_get(json_object_get(wait, "holders"), 0), "id name certainty why");
	task = json_array_get(json_object_get(root, "tasks"), 1);
	cr_assert_eq(json_object_size(json_object_get(task, "waits_for")), 0);
	cr_assert_str_eq(json_string_value(json_object_get(task, "state")), "running");
	cr_assert_eq(
		json_integer_value(json_object_get(json_array_get(json_object_get(task, "awaiters"), 0), "id")), 0);
	json_decref(root);
}

Test(dump_tasks, hostile_names_steer_nothing) {
	struct pyspyd_frame frame = { .function = S("\x1b]0;owned\x07"), .file = S("a\nb\xff.py"), .line = 1 };
	struct pyspyd_task tasks[2] = { { .name = S("\xc2\x9b\x7f\n"),
		.frames = &frame,
		.frames_n = 1,
		.site = 7,
		.waits_for = S("Lo\x1b"
			       "ck"),
		.expression = S("x\r\xe2\x80\xae") } };
	struct pyspyd_dump dump = { .async = true, .loops = loops, .loops_n = 1, .tasks = tasks, .tasks_n = 2 };
	_free_ char *text = NULL, *line = NULL;

	tasks[1] = tasks[0];
	tasks[1].site = 0;
	text = pyspyd_dump_text(&dump, false);
	line = pyspyd_dump_json(&dump);
	for (const char *c = text; *c; c++)
		cr_assert(*c == '\n' || ((unsigned char)*c >= 0x20 && *c != 0x7f));
	cr_assert_eq(count(strstr(text, "Event loop"), "\n"), 3);
	cr_assert_null(strstr(text, "\xc2\x9b"));
	cr_assert_null(strstr(text, "\xe2\x80\xae"));
	for (const char *c = line; *c; c++)
		cr_assert((unsigned char)*c >= 0x20 && *c != 0x7f);
	cr_assert_null(strstr(line, "\xe2\x80\xae"));
}

Test(dump_tasks, freeing_takes_half_built) {
	struct pyspyd_dump *half = calloc(1, sizeof(*half));

	half->loops = calloc(1, sizeof(*half->loops));
	half->tasks = calloc(2, sizeof(*half->tasks));
	half->tasks_n = 2;
	half->tasks[0].holders_n = 3;
	half->tasks[1].holders = calloc(1, sizeof(struct pyspyd_task_holder));
	half->tasks[1].holders_n = 1;
	half->tasks[1].frames_n = 5;
	pyspyd_dump_free(half);
}
