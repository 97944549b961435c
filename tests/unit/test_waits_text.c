/* SPDX-License-Identifier: MIT */
/* Wait graphs as text, JSON and Graphviz: what people read, word for word; the schema's keys; hostile names. */
#include "engine/base/strbuf.h"
#include "engine/base/util.h"
#include "engine/waits/graph.h"
#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>

static void free_waits(struct pyspyd_waits **waits) {
	pyspyd_waits_free(*waits);
}

#define _waits_ _cleanup_(free_waits)

#define NS 1000000000ULL

static struct pyspyd_waits *new_waits(void) {
	struct pyspyd_waits *waits = calloc(1, sizeof(*waits));

	waits->process.pid = 4711;
	waits->process.name = strdup("python3");
	waits->process.cmdline = calloc(3, sizeof(char *));
	waits->process.cmdline[0] = strdup("python3");
	waits->process.cmdline[1] = strdup("bank.py");
	waits->process.python = strdup("3.13.1");
	return waits;
}

static uint32_t add(struct pyspyd_waits *waits, const struct pyspyd_wait_node *node, const char *type,
	const char *label, const char *function, int line) {
	struct pyspyd_wait_node copy = *node;
	uint32_t index;

	copy.key = waits->nodes_n + 1;
	copy.type = strdup(type);
	copy.label = strdup(label);
	copy.run_ns = UINT64_MAX;
	if (function) {
		copy.frames = calloc(1, sizeof(*copy.frames));
		copy.frames_n = 1;
		copy.frames[0] = (struct pyspyd_frame){ .function = strdup(function),
			.qualname = strdup(function),
			.file = strdup("/srv/bank/bank.py"),
			.module = strdup("bank"),
			.line = line };
	}
	cr_assert_eq(waits_add_node(waits, &copy, &index), 0);
	return index;
}

static uint32_t thread(struct pyspyd_waits *waits, const char *name, const char *function, int line) {
	struct pyspyd_wait_node node = { .kind = PYSPYD_WAIT_THREAD,
		.rule = PYSPYD_WAIT_ANY,
		.pid = 4711,
		.tid = 4711 + (pid_t)waits->nodes_n,
		.state = 'S',
		.python = true };

	return add(waits, &node, "thread", name, function, line);
}

static uint32_t resource(struct pyspyd_waits *waits, const char *type, const char *label) {
	struct pyspyd_wait_node node = { .kind = PYSPYD_WAIT_RESOURCE, .rule = PYSPYD_WAIT_ANY, .address = 0x7f00 };

	return add(waits, &node, type, label, NULL, 0);
}

static uint32_t process(struct pyspyd_waits *waits, const char *type, pid_t pid) {
	struct pyspyd_wait_node node = { .kind = PYSPYD_WAIT_PROCESS, .rule = PYSPYD_WAIT_ANY, .pid = pid };

	return add(waits, &node, type, "python3", NULL, 0);
}

static void edge(struct pyspyd_waits *waits, uint32_t from, uint32_t to, const char *expression, const char *why) {
	cr_assert_eq(waits_add_edge(waits, from, to, expression, why != NULL, why), 0);
}

static void solve(struct pyspyd_waits *waits) {
	cr_assert_eq(waits_solve(waits), 0);
	for (size_t i = 0; i < waits->knots_n; i++)
		waits->knots[i].confirmed = true;
}

/* Two transfers that lock two accounts in opposite order, and others around them. */
static struct pyspyd_waits *bank(void) {
	struct pyspyd_waits *waits = new_waits();
	uint32_t main = thread(waits, "MainThread", "main", 30), one = thread(waits, "Thread-1", "transfer", 12);
	uint32_t two = thread(waits, "Thread-2", "transfer", 12), third = thread(waits, "Thread-3", "audit", 20);
	uint32_t a = resource(waits, "Lock", "Lock 0x7f00"), b = resource(waits, "Lock", "Lock 0x7f10");
	uint32_t i;

	edge(waits, main, one, "worker", NULL);
	edge(waits, one, b, "dst.guard", NULL);
	edge(waits, b, two, NULL, NULL);
	edge(waits, two, a, "dst.guard", NULL);
	edge(waits, a, one, NULL, NULL);
	edge(waits, third, a, "account.guard", NULL);
	waits->nodes[main].waited_ns = 75 * NS;
	for (int n = 0; n < 3; n++) {
		i = thread(waits, "worker", "_worker", 90);
		waits->nodes[i].rule = PYSPYD_WAIT_FREE;
		waits->nodes[i].idle = "queue worker";
	}
	i = thread(waits, "spinner", "spin", 5);
	waits->nodes[i].rule = PYSPYD_WAIT_FREE;
	waits->nodes[i].state = 'R';
	cr_assert_eq(waits_add_note(waits, "process %d cannot be read", 77), 0);
	solve(waits);
	return waits;
}

#define EXPECT_TEXT(call, text) \
	do { \
		_free_ char *_is = call; \
		cr_assert_not_null(_is); \
		cr_expect_str_eq(_is, text, "is:\n%s\nwant:\n%s", _is, text); \
	} while (0)

Test(waits_text, bank) {
	_waits_ struct pyspyd_waits *waits = bank();

	EXPECT_TEXT(pyspyd_waits_text(waits, false),
		"Process 4711: python3 bank.py (Python 3.13.1)\n"
		"\n"
		"DEADLOCK (proven): Thread-1 (transfer, bank.py:12) waits for Lock 0x7f10 `dst.guard` held by Thread-2 "
		"(transfer, bank.py:12), which waits for Lock 0x7f00 `dst.guard` held by Thread-1\n"
		"  2 more wait behind it\n"
		"\n"
		"MainThread (main, bank.py:30), for 1 min 15 s\n"
		"`- waits for Thread-1 `worker` (transfer, bank.py:12)\n"
		"   `- waits for Lock 0x7f10 `dst.guard`\n"
		"      `- held by Thread-2 (transfer, bank.py:12)\n"
		"         `- waits for Lock 0x7f00 `dst.guard`\n"
		"            `- held by Thread-1 (transfer, bank.py:12): the circle closes\n"
		"Thread-3 (audit, bank.py:20) waits for Lock 0x7f00 `account.guard` (see above)\n"
		"\n"
		"3 threads idle: queue worker\n"
		"1 thread running: spinner (spin, bank.py:5)\n"
		"\n"
		"note: process 77 cannot be read\n");
	EXPECT_TEXT(pyspyd_wait_knot_text(waits, &waits->knots[0]),
		"deadlock: Thread-1 (transfer, bank.py:12) waits for Lock 0x7f10 `dst.guard` held by Thread-2 "
		"(transfer, bank.py:12), which waits for Lock 0x7f00 `dst.guard` held by Thread-1");
	EXPECT_TEXT(pyspyd_waits_dot(waits),
		"digraph waits {\n"
		"  n0 [label=\"MainThread (main, bank.py:30)\" shape=box color=orange];\n"
		"  n1 [label=\"Thread-1 (transfer, bank.py:12)\" shape=box color=red];\n"
		"  n2 [label=\"Thread-2 (transfer, bank.py:12)\" shape=box color=red];\n"
		"  n3 [label=\"Thread-3 (audit, bank.py:20)\" shape=box color=orange];\n"
		"  n4 [label=\"Lock 0x7f00\" shape=ellipse color=red];\n"
		"  n5 [label=\"Lock 0x7f10\" shape=ellipse color=red];\n"
		"  n0 -> n1 [label=\"worker\"];\n"
		"  n1 -> n5 [label=\"dst.guard\" color=red];\n"
		"  n5 -> n2 [label=\"\" color=red];\n"
		"  n2 -> n4 [label=\"dst.guard\" color=red];\n"
		"  n4 -> n1 [label=\"\" color=red];\n"
		"  n3 -> n4 [label=\"account.guard\"];\n"
		"}");
}

static void expect_keys(json_t *object, const char *keys) {
	struct strbuf have = { 0 };
	const char *key;
	json_t *value;

	cr_assert(json_is_object(object));
	json_object_foreach(object, key, value) strbuf_addf(&have, "%s%s", have.len ? " " : "", key);
	cr_expect_str_eq(strbuf_str(&have), keys);
	strbuf_deinit(&have);
}

static json_t *at(json_t *object, const char *key, size_t index) {
	return json_array_get(json_object_get(object, key), index);
}

static const char *string(json_t *object, const char *key) {
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "(none)";
}

static json_t *parsed(const struct pyspyd_waits *waits) {
	_free_ char *line = pyspyd_waits_json(waits);
	json_t *object;

	cr_assert_not_null(line);
	cr_expect_null(strchr(line, '\n'));
	object = json_loads(line, 0, NULL);
	cr_assert_not_null(object);
	return object;
}

static void make_native(struct pyspyd_wait_node *node, const char *function, const char *end) {
	struct pyspyd_frame *frames = calloc(2, sizeof(*frames));

	frames[0] = (struct pyspyd_frame){ .lang = PYSPYD_NATIVE,
		.function = strdup(function),
		.qualname = strdup(function),
		.file = strdup(""),
		.module = strdup("/lib/libc.so.6") };
	frames[1] = node->frames[0];
	free(node->frames);
	node->frames = frames;
	node->frames_n = 2;
	node->site = 1;
	node->native = true;
	node->native_end = end;
}

Test(waits_text, native_stacks_stand_once_below_their_threads) {
	_waits_ struct pyspyd_waits *waits = bank();
	json_t *object, *native;

	make_native(&waits->nodes[1], "sem_wait", NULL);
	make_native(&waits->nodes[3], "sem\x1bwait", "the caller is unknown");
	waits->nodes[2].native = true;
	waits->nodes[2].native_end = "it moved";
	waits->nodes[2].disagree = true;
	EXPECT_TEXT(pyspyd_waits_text(waits, false),
		"Process 4711: python3 bank.py (Python 3.13.1)\n"
		"\n"
		"DEADLOCK (proven): Thread-1 (transfer, bank.py:12) waits for Lock 0x7f10 `dst.guard` held by Thread-2 "
		"(transfer, bank.py:12), which waits for Lock 0x7f00 `dst.guard` held by Thread-1\n"
		"  2 more wait behind it\n"
		"\n"
		"MainThread (main, bank.py:30), for 1 min 15 s\n"
		"`- waits for Thread-1 `worker` (transfer, bank.py:12)\n"
		"   |  sem_wait [libc.so.6]\n"
		"   |  transfer (bank.py:12)\n"
		"   `- waits for Lock 0x7f10 `dst.guard`\n"
		"      `- held by Thread-2 (transfer, bank.py:12)\n"
		"         |  transfer (bank.py:12)\n"
		"         |  … (native frames: it moved)\n"
		"         |  … (native and Python frames do not agree)\n"
		"         `- waits for Lock 0x7f00 `dst.guard`\n"
		"            `- held by Thread-1 (transfer, bank.py:12): the circle closes\n"
		"Thread-3 (audit, bank.py:20) waits for Lock 0x7f00 `account.guard` (see above)\n"
		"   sem\\x1bwait [libc.so.6]\n"
		"   audit (bank.py:20)\n"
		"   … (native frames: the caller is unknown)\n"
		"\n"
		"3 threads idle: queue worker\n"
		"1 thread running: spinner (spin, bank.py:5)\n"
		"\n"
		"note: process 77 cannot be read\n");
	object = parsed(waits);
	native = json_object_get(at(object, "threads", 2), "native");
	expect_keys(native, "complete why agrees stopped_us");
	cr_expect_str_eq(string(native, "why"), "it moved");
	cr_expect(json_is_false(json_object_get(native, "agrees")));
	cr_expect_eq(json_integer_value(json_object_get(at(object, "threads", 3), "site")), 1);
	cr_expect_null(json_object_get(at(object, "threads", 0), "native"));
	json_decref(object);
}

Test(waits_text, json) {
	_waits_ struct pyspyd_waits *waits = bank();
	json_t *object = parsed(waits), *one = at(object, "threads", 1), *chain = at(object, "chains", 0);
	json_t *waits_for = json_object_get(one, "waits_for"), *knot = at(object, "knots", 0);

	expect_keys(object, "schema process cost_ms incomplete threads resources edges chains knots loops gils notes");
	cr_expect_str_eq(string(object, "schema"), "pyspyd.waits/1");
	cr_expect_eq(json_array_size(json_object_get(object, "threads")), 8);
	cr_expect_eq(json_array_size(json_object_get(object, "resources")), 2);
	expect_keys(one,
		"tid name role state cpu_percent holds waits_for stack site id key kind pid ident address main python "
		"timed retry gil_waiter idle waited_s stuck knot fault rule");
	cr_expect_str_eq(string(one, "name"), "Thread-1");
	expect_keys(waits_for, "kind id name address expression certainty why rule others");
	cr_expect_str_eq(string(waits_for, "kind"), "lock");
	cr_expect_str_eq(string(waits_for, "name"), "Lock 0x7f10");
	cr_expect_str_eq(string(waits_for, "expression"), "dst.guard");
	cr_expect_str_eq(string(waits_for, "certainty"), "proven");
	cr_expect_str_eq(string(at(one, "holds", 0), "name"), "Lock 0x7f00");
	cr_expect_eq(json_array_size(json_object_get(one, "holds")), 1);
	cr_expect_str_eq(string(at(object, "threads", 4), "idle"), "queue worker");
	expect_keys(json_object_get(at(object, "threads", 4), "waits_for"), "");
	expect_keys(at(object, "resources", 0), "id key kind name pid address rule holders stuck knot fault type");

	cr_expect_eq(json_array_size(json_object_get(object, "chains")), 2);
	expect_keys(chain, "steps cycle truncated");
	cr_expect_eq(json_array_size(json_object_get(chain, "steps")), 5);
	cr_expect_eq(json_integer_value(json_object_get(chain, "cycle")), 1);
	expect_keys(at(chain, "steps", 0), "id kind name pid tid frame expression certainty why branches");

	expect_keys(knot, "kind certainty why confirmed summary nodes victims victims_total key");
	cr_expect_str_eq(string(knot, "kind"), "cycle");
	cr_expect_str_eq(string(knot, "certainty"), "proven");
	cr_expect(json_is_null(json_object_get(knot, "why")));
	cr_expect(json_is_true(json_object_get(knot, "confirmed")));
	cr_expect_eq(json_array_size(json_object_get(knot, "nodes")), 4);
	cr_expect_eq(json_array_size(json_object_get(knot, "victims")), 2);
	json_decref(object);
}

Test(waits_text, self) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t one = thread(waits, "Thread-1", "pay", 3), lock = resource(waits, "RLock", "RLock 0x7f00");

	edge(waits, one, lock, "self.guard", NULL);
	edge(waits, lock, one, NULL, NULL);
	solve(waits);
	EXPECT_TEXT(pyspyd_wait_knot_text(waits, &waits->knots[0]),
		"self-deadlock: Thread-1 (pay, bank.py:3) waits for RLock 0x7f00 `self.guard` held by Thread-1 itself");
}

Test(waits_text, orphan_that_is_inferred) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t lock = resource(waits, "Lock", "Lock 0x7f00"), one = thread(waits, "Thread-1", "pay", 3);
	uint32_t two = thread(waits, "Thread-2", "pay", 3);

	waits->nodes[lock].rule = PYSPYD_WAIT_NEVER;
	waits->nodes[lock].fault = strdup("its holder, thread 123, has ended");
	edge(waits, one, lock, "self.guard", "by the call of acquire");
	edge(waits, two, lock, NULL, "by the call of acquire");
	solve(waits);
	waits->knots[0].confirmed = false;
	EXPECT_TEXT(pyspyd_wait_knot_text(waits, &waits->knots[0]),
		"orphaned-lock: Thread-1 (pay, bank.py:3) waits for Lock 0x7f00 `self.guard`: its holder, thread 123, "
		"has ended; 1 more thread waits for it");
	EXPECT_TEXT(pyspyd_waits_text(waits, false),
		"Process 4711: python3 bank.py (Python 3.13.1)\n"
		"\n"
		"ORPHANED LOCK (inferred: by the call of acquire): Thread-1 (pay, bank.py:3) waits for Lock 0x7f00 "
		"`self.guard`: its holder, thread 123, has ended; 1 more thread waits for it\n"
		"  seen in one look only: it may be passing\n"
		"\n"
		"Thread-1 (pay, bank.py:3)\n"
		"`- waits for Lock 0x7f00 `self.guard`: its holder, thread 123, has ended (inferred: by the call of "
		"acquire)\n"
		"Thread-2 (pay, bank.py:3) waits for Lock 0x7f00 (see above)\n");
}

/* Only threads and tasks are counted, and one of them speaks where there is one. */
Test(waits_text, resources_do_not_wait) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t lock = resource(waits, "Lock", "Lock 0x7f00"),
		 end = resource(waits, "thread-end", "the end of Thread-1");
	uint32_t one = thread(waits, "Thread-1", "pay", 3), main = thread(waits, "MainThread", "main", 9);
	uint32_t queue = resource(waits, "Queue", "Queue 0x7f20");
	_free_ char *text = NULL;

	waits->nodes[lock].rule = PYSPYD_WAIT_NEVER;
	edge(waits, queue, lock, NULL, NULL);
	edge(waits, one, lock, NULL, NULL);
	edge(waits, main, end, NULL, NULL);
	edge(waits, end, one, NULL, NULL);
	solve(waits);
	text = pyspyd_waits_text(waits, false);
	cr_expect_not_null(strstr(text,
		"ORPHANED LOCK (proven): Thread-1 (pay, bank.py:3) waits for Lock 0x7f00: nobody is left who could "
		"end this\n"
		"  1 more waits behind it\n"));
}

/* A parent that waits for its child's end, which waits for the parent to read. */
Test(waits_text, across_processes) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t parent = thread(waits, "MainThread", "run", 8), end = process(waits, "process-end", 77);
	uint32_t child = thread(waits, "MainThread", "write", 9), pipe = resource(waits, "pipe", "pipe:[1234]");

	waits->nodes[child].pid = 77;
	edge(waits, parent, end, NULL, NULL);
	edge(waits, end, child, NULL, NULL);
	edge(waits, child, pipe, NULL, NULL);
	edge(waits, pipe, parent, NULL, NULL);
	solve(waits);
	EXPECT_TEXT(pyspyd_wait_knot_text(waits, &waits->knots[0]),
		"deadlock: MainThread (run, bank.py:8) waits for the end of process 77 (python3), whose "
		"MainThread (write, bank.py:9) waits for pipe:[1234] by MainThread");
}

/* A process that is no Python goes by its own name alone. */
Test(waits_text, across_a_process_of_another_kind) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t parent = thread(waits, "MainThread", "run", 8), out = resource(waits, "pipe", "pipe:[1234]");
	uint32_t acts = process(waits, "process", 77), child = thread(waits, "tar", NULL, 0);
	uint32_t in = resource(waits, "pipe", "pipe:[1235]");

	waits->nodes[child].pid = waits->nodes[child].tid = 77;
	waits->nodes[child].python = false;
	waits->nodes[child].main = true;
	edge(waits, parent, out, NULL, NULL);
	edge(waits, out, acts, NULL, NULL);
	edge(waits, acts, child, NULL, NULL);
	edge(waits, child, in, NULL, NULL);
	edge(waits, in, parent, NULL, NULL);
	solve(waits);
	EXPECT_TEXT(pyspyd_wait_knot_text(waits, &waits->knots[0]),
		"deadlock: MainThread (run, bank.py:8) waits for pipe:[1234] by process 77 (python3), which waits for "
		"pipe:[1235] by MainThread");
}

/* Names of the end of a thread stand for the thread. */
Test(waits_text, threads_that_join_each_other) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t one = thread(waits, "Thread-1", "stop", 3), two = thread(waits, "Thread-2", "work", 7);
	uint32_t end_of_one = resource(waits, "join", "the end of Thread-1");
	uint32_t end_of_two = resource(waits, "join", "the end of Thread-2");

	edge(waits, one, end_of_two, "worker", NULL);
	edge(waits, end_of_two, two, NULL, NULL);
	edge(waits, two, end_of_one, "parent", NULL);
	edge(waits, end_of_one, one, NULL, NULL);
	solve(waits);
	EXPECT_TEXT(pyspyd_wait_knot_text(waits, &waits->knots[0]),
		"deadlock: Thread-1 (stop, bank.py:3) waits for the end of Thread-2 `worker` (work, bank.py:7), which "
		"waits for the end of Thread-1 `parent`");
}

/* Any thread of a process is the thread itself where there is no other one. */
Test(waits_text, what_only_the_waiter_could_do) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t one = thread(waits, "MainThread", "fetch", 3), future = resource(waits, "future", "future 0x7f00");
	uint32_t any = process(waits, "threads", 4711);

	edge(waits, one, future, "reply", NULL);
	edge(waits, future, any, NULL, NULL);
	edge(waits, any, one, NULL, NULL);
	solve(waits);
	EXPECT_TEXT(pyspyd_wait_knot_text(waits, &waits->knots[0]),
		"self-deadlock: MainThread (fetch, bank.py:3) waits for future 0x7f00 `reply` to be set by MainThread "
		"itself");
}

/* Those that wait for others to end come last, whatever their place in the graph. */
Test(waits_text, closed_worlds_begin_with_those_who_are_stuck) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t main = thread(waits, "MainThread", "serve", 9), worker = thread(waits, "worker", "take", 4);
	uint32_t end = resource(waits, "join", "the end of worker"), queue = resource(waits, "Queue", "Queue 0x7f00");
	uint32_t any = process(waits, "threads", 4711);

	edge(waits, main, end, "worker", NULL);
	edge(waits, end, worker, NULL, NULL);
	edge(waits, worker, queue, "inbox", NULL);
	edge(waits, queue, any, NULL, NULL);
	edge(waits, any, main, NULL, NULL);
	edge(waits, any, worker, NULL, NULL);
	solve(waits);
	EXPECT_TEXT(pyspyd_wait_knot_text(waits, &waits->knots[0]),
		"deadlock: worker (take, bank.py:4) waits for Queue 0x7f00 `inbox` to be filled by any thread of "
		"process 4711 (python3); MainThread (serve, bank.py:9) waits for the end of worker `worker`");
}

/* Two workers that wait for what only one of them could do. */
Test(waits_text, pool_that_starves) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t workers[2], pool = resource(waits, "pool", "ThreadPoolExecutor 0x7f00"), main;

	for (size_t i = 0; i < 2; i++) {
		workers[i] = thread(waits, i ? "pool_1" : "pool_0", "job", 4);
		edge(waits, workers[i], pool, "inner", NULL);
		edge(waits, pool, workers[i], NULL, NULL);
	}
	main = thread(waits, "MainThread", "main", 20);
	edge(waits, main, pool, NULL, NULL);
	solve(waits);
	EXPECT_TEXT(pyspyd_wait_knot_text(waits, &waits->knots[0]),
		"deadlock: pool_0 (job, bank.py:4) waits for ThreadPoolExecutor 0x7f00 `inner` up to pool_0 or pool_1; "
		"pool_1 (job, bank.py:4) waits for ThreadPoolExecutor 0x7f00 `inner` up to pool_0 or pool_1");
	EXPECT_TEXT(pyspyd_waits_text(waits, false),
		"Process 4711: python3 bank.py (Python 3.13.1)\n"
		"\n"
		"DEADLOCK (proven): pool_0 (job, bank.py:4) waits for ThreadPoolExecutor 0x7f00 `inner` up to pool_0 "
		"or "
		"pool_1; pool_1 (job, bank.py:4) waits for ThreadPoolExecutor 0x7f00 `inner` up to pool_0 or pool_1\n"
		"  1 more waits behind it\n"
		"\n"
		"MainThread (main, bank.py:20)\n"
		"`- waits for ThreadPoolExecutor 0x7f00\n"
		"   |- up to pool_0 (job, bank.py:4)\n"
		"   |  `- waits for ThreadPoolExecutor 0x7f00 `inner`: the circle closes\n"
		"   `- up to pool_1 (job, bank.py:4)\n"
		"      `- waits for ThreadPoolExecutor 0x7f00 `inner`: the circle closes\n");
}

/* An outside world that is not known, a crowd, and somebody who waits for any of it. */
Test(waits_text, waits_that_are_fine) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t one = thread(waits, "MainThread", "query", 8), socket = resource(waits, "socket", "10.1.2.3:5432");
	uint32_t two = thread(waits, "Thread-1", "take", 9), lock = resource(waits, "Lock", "Lock 0x7f00");
	uint32_t any = process(waits, "threads", 4711), i;

	waits->nodes[socket].rule = PYSPYD_WAIT_FREE;
	waits->nodes[one].waited_ns = 40 * NS;
	edge(waits, one, socket, NULL, NULL);
	edge(waits, two, lock, "guard", NULL);
	edge(waits, lock, any, NULL, "nobody was seen to hold it");
	waits->nodes[two].timed = true;
	for (size_t n = 0; n < 7; n++) {
		i = thread(waits, "sleeper", "nap", 1);
		waits->nodes[i].rule = PYSPYD_WAIT_FREE;
		waits->nodes[i].timed = true;
		edge(waits, any, i, NULL, NULL);
	}
	solve(waits);
	EXPECT_TEXT(pyspyd_waits_text(waits, false),
		"Process 4711: python3 bank.py (Python 3.13.1)\n"
		"\n"
		"MainThread (query, bank.py:8), for 40 s\n"
		"`- waits for 10.1.2.3:5432\n"
		"\n"
		"Thread-1 (take, bank.py:9), until a time-out\n"
		"`- waits for Lock 0x7f00 `guard`\n"
		"   `- to be released by any thread of process 4711 (python3) (inferred: nobody was seen to hold it)\n"
		"\n"
		"7 threads waiting until a time-out: sleeper (nap, bank.py:1), sleeper (nap, bank.py:1), sleeper (nap, "
		"bank.py:1), sleeper (nap, bank.py:1), sleeper (nap, bank.py:1) and 2 more\n");
}

Test(waits_text, long_cycles_are_cut) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	const uint32_t n = 3000;
	_free_ char *text = NULL, *tree = NULL;

	for (uint32_t i = 0; i < n; i++)
		(void)thread(waits, "t", NULL, 0);
	for (uint32_t i = 0; i < n; i++)
		edge(waits, i, (i + 1) % n, NULL, NULL);
	solve(waits);
	text = pyspyd_wait_knot_text(waits, &waits->knots[0]);
	cr_expect_str_eq(text,
		"deadlock: t waits for t, which waits for t, which waits for t, which waits for t, which waits for t, "
		"which waits for t, which waits for t, which waits for … and 2992 more");
	tree = pyspyd_waits_text(waits, false);
	cr_expect_not_null(strstr(tree, "`- … and so on\n"));
	cr_expect_lt(strlen(tree), 8000);
	json_decref(parsed(waits));
}

Test(waits_text, crowds_are_cut) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t lock = resource(waits, "Lock", "Lock 0x7f00");
	_free_ char *tree = NULL, *text = NULL;

	for (uint32_t i = 0; i < 1000; i++) {
		uint32_t t = thread(waits, "t", NULL, 0);

		edge(waits, t, lock, NULL, NULL);
		edge(waits, lock, t, NULL, "a candidate");
	}
	solve(waits);
	text = pyspyd_wait_knot_text(waits, &waits->knots[0]);
	cr_expect_not_null(strstr(text, "held by t or t or t or 997 more; … and 999 more"));
	tree = pyspyd_waits_text(waits, false);
	cr_expect_not_null(strstr(tree, "`- or 996 more\n"));
	json_decref(parsed(waits));
}

static uint32_t task(struct pyspyd_waits *waits, const char *name, const char *function, int line) {
	struct pyspyd_wait_node node = { .kind = PYSPYD_WAIT_TASK, .rule = PYSPYD_WAIT_ANY, .pid = 4711 };

	return add(waits, &node, "task", name, function, line);
}

/* A server: tasks that only their loop can wake, sleepers, and one that waits for two others. */
Test(waits_text, tasks_stand_in_groups) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t loop = resource(waits, "loop", "event loop 0x7f00"), i;
	uint32_t parent = task(waits, "Task-1", "main", 30), one = task(waits, "Task-2", "read", 8),
		 two = task(waits, "Task-3", "nap", 5);

	waits->nodes[loop].rule = PYSPYD_WAIT_FREE;
	edge(waits, parent, one, NULL, NULL);
	edge(waits, parent, two, NULL, NULL);
	edge(waits, one, loop, NULL, "whatever the loop runs might set the future");
	waits->nodes[two].rule = PYSPYD_WAIT_FREE;
	waits->nodes[two].timed = true;
	for (int n = 0; n < 40; n++) {
		i = task(waits, "client", "read", 8);
		edge(waits, i, loop, NULL, "whatever the loop runs might set the future");
		i = task(waits, n % 10 ? "poll" : "tick", n % 10 ? "poll" : "tick", 50);
		waits->nodes[i].rule = PYSPYD_WAIT_FREE;
		waits->nodes[i].timed = true;
	}
	waits->loops = calloc(1, sizeof(*waits->loops));
	waits->loops_n = 1;
	waits->loops[0] = (struct pyspyd_wait_loop){ .tid = 4711, .polling = true, .tasks = 83, .ready = 1 };
	solve(waits);
	EXPECT_TEXT(pyspyd_waits_text(waits, false),
		"Process 4711: python3 bank.py (Python 3.13.1)\n"
		"\n"
		"Task-1 (main, bank.py:30)\n"
		"|- waits for Task-2 (read, bank.py:8)\n"
		"|  `- waits for event loop 0x7f00 (inferred: whatever the loop runs might set the future)\n"
		"`- waits for Task-3 (nap, bank.py:5), until a time-out\n"
		"\n"
		"40 tasks waiting for events of the event loop (read, bank.py:8): client, client, client, client, "
		"client "
		"and 35 more\n"
		"4 tasks waiting until a time-out (tick, bank.py:50): tick, tick, tick, tick\n"
		"36 tasks waiting until a time-out (poll, bank.py:50): poll, poll, poll, poll, poll and 31 more\n"
		"\n"
		"event loop of thread 4711: 83 tasks pending, 1 callback ready, polling\n");
	json_decref(parsed(waits));
}

Test(waits_text, any_task_will_do) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t lock = resource(waits, "Lock", "Lock 0x7f00"), any = resource(waits, "tasks", "other tasks"), i;

	edge(waits, task(waits, "Task-1", "use", 9), lock, NULL, NULL);
	edge(waits, lock, any, NULL, "no pending task is inside of it");
	for (int n = 0; n < 3; n++) {
		i = task(waits, "t", "nap", 5);
		waits->nodes[i].rule = PYSPYD_WAIT_FREE;
		edge(waits, any, i, NULL, NULL);
	}
	solve(waits);
	EXPECT_TEXT(pyspyd_waits_text(waits, false),
		"Process 4711: python3 bank.py (Python 3.13.1)\n"
		"\n"
		"Task-1 (use, bank.py:9)\n"
		"`- waits for Lock 0x7f00\n"
		"   `- up to other tasks (inferred: no pending task is inside of it)\n"
		"\n"
		"3 tasks waiting for nobody here (nap, bank.py:5): t, t, t\n");
}

Test(waits_text, places_of_tasks_are_cut) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	_free_ char *text = NULL;

	for (int n = 0; n < 30; n++) {
		uint32_t i = task(waits, "t", "f", n + 1);

		waits->nodes[i].rule = PYSPYD_WAIT_FREE;
	}
	solve(waits);
	text = pyspyd_waits_text(waits, false);
	cr_expect_not_null(strstr(text, "1 task waiting for nobody here (f, bank.py:20): t\n… and 10 more groups"));
	cr_expect_null(strstr(text, "bank.py:21"));
}

Test(waits_text, chains_of_a_crowd_are_cut) {
	_waits_ struct pyspyd_waits *waits = new_waits();
	uint32_t lock = resource(waits, "Lock", "Lock 0x7f00"), holder = thread(waits, "holder", "work", 3);
	_free_ char *text = NULL, *tail = NULL;

	waits->nodes[holder].rule = PYSPYD_WAIT_FREE;
	edge(waits, lock, holder, NULL, NULL);
	for (int i = 0; i < 1000; i++)
		edge(waits, thread(waits, "t", "enter", 4), lock, NULL, NULL);
	solve(waits);
	text = pyspyd_waits_text(waits, false);
	tail = strdup(strstr(text, "(see above)\n…") ? strstr(text, "(see above)\n…") : "");
	cr_expect_str_eq(tail, "(see above)\n… and 992 more like these wait for Lock 0x7f00\n", "is:\n%s", text);
}

/* Hostile names. */

#define EVIL "a\x1b[31m\"\\\n\xff\xe2\x80\xae`; rm"

static struct pyspyd_waits *evil(void) {
	struct pyspyd_waits *waits = new_waits();
	uint32_t one = thread(waits, EVIL, EVIL, 1), lock = resource(waits, EVIL, EVIL),
		 two = thread(waits, EVIL, EVIL, 2);
	uint32_t end = process(waits, EVIL, 77);

	free(waits->process.cmdline[1]);
	waits->process.cmdline[1] = strdup(EVIL);
	free(waits->nodes[end].label);
	waits->nodes[end].label = strdup(EVIL);
	free(waits->nodes[one].frames[0].file);
	waits->nodes[one].frames[0].file = strdup(EVIL);
	waits->nodes[two].rule = PYSPYD_WAIT_NEVER;
	waits->nodes[two].fault = strdup(EVIL);
	edge(waits, one, lock, EVIL, EVIL);
	edge(waits, lock, one, EVIL, EVIL);
	edge(waits, end, two, EVIL, EVIL);
	cr_assert_eq(waits_add_note(waits, "%s", EVIL), 0);
	solve(waits);
	return waits;
}

static void expect_tame(const char *text, bool lines) {
	cr_assert_not_null(text);
	for (const char *s = text; *s; s++)
		cr_assert((unsigned char)*s >= 0x20 || (lines && *s == '\n'), "%s", text);
	cr_expect_null(strstr(text, "\xe2\x80\xae"));
	cr_expect_null(strchr(text, '\xff'));
}

Test(waits_text, hostile_names) {
	_waits_ struct pyspyd_waits *waits = evil();
	_free_ char *text = pyspyd_waits_text(waits, false), *dot = pyspyd_waits_dot(waits);
	_free_ char *json = pyspyd_waits_json(waits);
	bool quoted = false;

	cr_assert_eq(waits->knots_n, 2);
	expect_tame(text, true);
	expect_tame(dot, true);
	expect_tame(json, false);
	for (size_t i = 0; i < waits->knots_n; i++) {
		_free_ char *knot = pyspyd_wait_knot_text(waits, &waits->knots[i]);

		expect_tame(knot, false);
	}
	/* quotes are balanced, and lines end outside of them */
	for (const char *s = dot; *s; s++) {
		if (*s == '\\') {
			cr_assert(quoted);
			s++;
		} else if (*s == '"') {
			quoted = !quoted;
		} else if (*s == '\n') {
			cr_assert(!quoted);
		}
	}
	cr_expect(!quoted);
	json_decref(parsed(waits));
}

Test(waits_text, colour_only_where_asked_for) {
	_waits_ struct pyspyd_waits *waits = bank();
	_free_ char *plain = pyspyd_waits_text(waits, false), *coloured = pyspyd_waits_text(waits, true);

	cr_expect_null(strchr(plain, '\x1b'));
	cr_expect_not_null(strchr(coloured, '\x1b'));
}

Test(waits_text, nothing_at_all) {
	_waits_ struct pyspyd_waits *waits = calloc(1, sizeof(*waits));

	cr_assert_eq(waits_solve(waits), 0);
	EXPECT_TEXT(pyspyd_waits_text(waits, false), "Process 0: ? (Python ?)\n");
	EXPECT_TEXT(pyspyd_waits_dot(waits), "digraph waits {\n}");
	json_decref(parsed(waits));
}
