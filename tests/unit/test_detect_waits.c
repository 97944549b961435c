/* SPDX-License-Identifier: MIT */
/* The detectors of waiting over looks at made-up wait graphs: what must be found, and what looks like it and must not.
 */
#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/detect/detect.h"
#include "engine/waits/graph.h"
#include "engine/waits/knots.h"
#include <criterion/criterion.h>
#include <string.h>

#define PID 100
#define THREADS_MAX 32
#define SECOND NS_PER_SEC

/* A process whose clock the test moves. Its threads have the ids PID, PID + 1, … */
struct world {
	struct detect_set *set;
	struct detect_config config;
	detect_verdicts verdicts;
	struct detect_process process;
	struct detect_thread threads[THREADS_MAX];
	struct pyspyd_waits *waits; /* of the look before */
	bool *alive;
	bool whole; /* graphs are solved as those of a look are, for which their types count */
	uint64_t now_ns;
	pid_t pid;
	const pid_t *watched;
	size_t watched_n;
};

static void world_init(struct world *world, size_t threads_n) {
	*world = (struct world){ .now_ns = 1000 * SECOND, .pid = PID };
	cr_assert_eq(detect_set_new(&world->set), 0);
	detect_config_init(&world->config);
	for (size_t i = 0; i < threads_n; i++)
		world->threads[i] = (struct detect_thread){ .tid = PID + (pid_t)i,
			.start_ns = 5,
			.name = "worker",
			.state = 'S',
			.python = true,
			.interval_ns = SECOND };
	world->process = (struct detect_process){ .name = "app",
		.threads = world->threads,
		.threads_n = threads_n,
		.period_ns = SECOND,
		.gil_switches_per_s = -1 };
}

static void world_deinit(struct world *world) {
	detect_set_free(world->set);
	vec_free(&world->verdicts);
	pyspyd_waits_free(world->waits);
	free(world->alive);
}

static void set(struct world *world, const char *assignment) {
	struct err err = { 0 };

	cr_assert_eq(detect_config_set(&world->config, assignment, &err), 0, "%s", err.text);
}

/* Graphs. */

static struct pyspyd_waits *graph(void) {
	struct pyspyd_waits *waits = calloc(1, sizeof(*waits));

	waits->process.name = strdup("app");
	return waits;
}

static struct pyspyd_frame *one_frame(const char *function) {
	struct pyspyd_frame *frame = calloc(1, sizeof(*frame));

	*frame = (struct pyspyd_frame){ .function = strdup(function),
		.qualname = strdup(function),
		.file = strdup("/srv/app.py"),
		.module = strdup("__main__"),
		.line = 12 };
	return frame;
}

static uint32_t thread_of(struct pyspyd_waits *waits, pid_t pid, pid_t tid, const char *function) {
	const struct pyspyd_wait_node node = { .kind = PYSPYD_WAIT_THREAD,
		.rule = PYSPYD_WAIT_ALL,
		.key = (uint64_t)tid,
		.stamp = 1,
		.type = strdup("thread"),
		.label = strdup(tid == pid ? "MainThread" : "worker"),
		.pid = pid,
		.tid = tid,
		.state = 'S',
		.python = true,
		.main = tid == pid,
		.run_ns = 1000,
		.frames = one_frame(function),
		.frames_n = 1 };
	uint32_t index;

	cr_assert_eq(waits_add_node(waits, &node, &index), 0);
	return index;
}

static uint32_t thread(struct pyspyd_waits *waits, size_t index, const char *function) {
	return thread_of(waits, PID, PID + (pid_t)index, function);
}

static uint32_t resource(
	struct pyspyd_waits *waits, const char *type, const char *label, uint64_t key, enum pyspyd_wait_rule rule) {
	const struct pyspyd_wait_node node = { .kind = PYSPYD_WAIT_RESOURCE,
		.rule = rule,
		.key = key << 32,
		.type = strdup(type),
		.label = strdup(label),
		.fault = rule == PYSPYD_WAIT_NEVER ? strdup("its holder, thread 9, has ended") : NULL,
		.run_ns = UINT64_MAX };
	uint32_t index;

	cr_assert_eq(waits_add_node(waits, &node, &index), 0);
	return index;
}

static uint32_t lock(struct pyspyd_waits *waits, uint64_t key) {
	return resource(waits, "Lock", "Lock 0x7f10", key, PYSPYD_WAIT_ALL);
}

static void waits_for(struct pyspyd_waits *waits, uint32_t from, uint32_t to) {
	cr_assert_eq(waits_add_edge(waits, from, to, "self.guard", false, NULL), 0);
}

static void held_by(struct pyspyd_waits *waits, uint32_t from, uint32_t to) {
	cr_assert_eq(waits_add_edge(waits, from, to, NULL, false, NULL), 0);
}

/* One look, `after_ns` behind the last one; the graph (or NULL) becomes the world's. Return: how many verdicts. */
static size_t look(struct world *world, struct pyspyd_waits *waits, uint64_t after_ns) {
	struct detect_input input = {
		.process = &world->process, .pid = world->pid, .watched = world->watched, .watched_n = world->watched_n
	};

	input.now_ns = world->now_ns += after_ns;
	free(world->alive);
	world->alive = NULL;
	if (waits) {
		waits->look_ns = world->now_ns;
		cr_assert_eq(world->whole ? knots_find(waits) : waits_solve(waits), 0);
		waits_confirm(world->waits, waits);
		cr_assert_eq(waits_alive(world->waits, waits, &world->alive), 0);
	}
	input.waits = waits;
	input.alive = world->alive;
	cr_assert_eq(detect_set_decide(world->set, &world->config, &input, &world->verdicts), 0);
	if (waits) {
		pyspyd_waits_free(world->waits);
		world->waits = waits;
	}
	return world->verdicts.n;
}

static const struct detect_verdict *only(const struct world *world, const char *kind) {
	cr_assert_eq(world->verdicts.n, 1, "%zu verdicts, %s first", world->verdicts.n,
		world->verdicts.n ? world->verdicts.items[0].kind : "none");
	cr_assert_str_eq(world->verdicts.items[0].kind, kind);
	return &world->verdicts.items[0];
}

static const struct detect_verdict *present(const struct world *world, const char *kind) {
	const struct detect_verdict *verdict = only(world, kind);

	cr_assert_eq(verdict->presence, DETECT_PRESENT);
	cr_assert_not(verdict->fading);
	cr_assert_eq(strncmp(verdict->summary, kind, strlen(kind)), 0, "%s", verdict->summary);
	return verdict;
}

static void absent(const struct world *world, const char *kind, const char *ended) {
	cr_assert_eq(only(world, kind)->presence, DETECT_ABSENT);
	cr_assert_str_eq(world->verdicts.items[0].ended, ended);
}

static const struct detect_fact *fact(const struct detect_verdict *verdict, const char *key) {
	for (size_t i = 0; i < verdict->facts_n; i++)
		if (!strcmp(verdict->facts[i].key, key))
			return &verdict->facts[i];
	cr_assert_fail("no fact %s", key);
	return NULL;
}

/* deadlock and its kin */

/* Two threads hold one lock each and want the other's; a third one waits behind them. */
static struct pyspyd_waits *abba(void) {
	struct pyspyd_waits *waits = graph();
	uint32_t a = thread(waits, 1, "transfer"), b = thread(waits, 2, "transfer"), c = thread(waits, 0, "main");
	uint32_t one = lock(waits, 1), two = lock(waits, 2);

	waits_for(waits, a, two);
	waits_for(waits, b, one);
	waits_for(waits, c, one);
	held_by(waits, one, a);
	held_by(waits, two, b);
	return waits;
}

Test(detect_waits, a_deadlock_is_one_in_its_second_look) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world, 3);
	cr_assert_eq(look(&world, abba(), SECOND), 0);
	cr_assert_eq(look(&world, abba(), SECOND), 1);
	verdict = present(&world, "deadlock");
	cr_assert_str_eq(verdict->pattern, "Deadlock");
	cr_assert_eq(verdict->severity, PYSPYD_CRITICAL);
	cr_assert_not(verdict->inferred);
	cr_assert_eq(verdict->since_ns, 1001 * SECOND);
	cr_assert_eq(verdict->waits, world.waits);
	cr_assert_eq(verdict->knot, 0);
	cr_assert_eq(verdict->parties_n, 3);
	cr_assert_null(verdict->parties[0].thread);
	cr_assert_str_eq(verdict->parties[0].role, "waiting");
	cr_assert_str_eq(verdict->parties[1].role, "waiting");
	cr_assert_str_eq(verdict->parties[2].role, "blocked");
	cr_assert_eq(verdict->parties[2].node, 2);
	cr_assert_eq(fact(verdict, "threads")->count, 2);
	cr_assert_eq(fact(verdict, "processes")->count, 1);
	cr_assert_eq(fact(verdict, "blocked")->count, 1);
	cr_assert_eq(fact(verdict, "scans")->count, 2);
	cr_assert_not_null(strstr(verdict->summary, "self.guard"));
	cr_assert_not_null(strstr(verdict->summary, " (1 more thread waits behind it)"));
	cr_assert_not_null(strstr(verdict->advice, "one order"));
	world_deinit(&world);
}

Test(detect_waits, a_deadlock_keeps_its_key_and_goes_with_its_knot) {
	struct world world;
	uint64_t key;

	world_init(&world, 3);
	look(&world, abba(), SECOND);
	look(&world, abba(), SECOND);
	key = present(&world, "deadlock")->key;
	look(&world, abba(), SECOND);
	cr_assert_eq(present(&world, "deadlock")->key, key);
	cr_assert_eq(present(&world, "deadlock")->since_ns, 1001 * SECOND);
	look(&world, NULL, SECOND);
	cr_assert(only(&world, "deadlock")->fading);
	cr_assert_eq(only(&world, "deadlock")->key, key);
	look(&world, graph(), SECOND);
	absent(&world, "deadlock", "released");
	cr_assert_eq(world.verdicts.items[0].key, key);
	cr_assert_eq(look(&world, abba(), SECOND), 0);
	look(&world, abba(), SECOND);
	cr_assert_neq(present(&world, "deadlock")->key, key);
	world_deinit(&world);
}

Test(detect_waits, an_incomplete_look_does_not_end_a_deadlock_soon) {
	struct world world;

	world_init(&world, 3);
	look(&world, abba(), SECOND);
	look(&world, abba(), SECOND);
	for (int i = 0; i < 9; i++) {
		struct pyspyd_waits *cut = graph();

		cut->incomplete = true;
		look(&world, cut, SECOND);
		cr_assert(only(&world, "deadlock")->fading);
	}
	look(&world, graph(), SECOND);
	absent(&world, "deadlock", "released");
	world_deinit(&world);
}

Test(detect_waits, who_ran_in_between_is_in_no_deadlock) {
	struct world world;

	world_init(&world, 3);
	for (uint64_t i = 0; i < 20; i++) {
		struct pyspyd_waits *waits = abba();

		waits->nodes[0].stamp = i;
		cr_assert_eq(look(&world, waits, SECOND), 0);
	}
	world_deinit(&world);
}

Test(detect_waits, more_scans_can_be_asked_for) {
	struct world world;

	world_init(&world, 3);
	set(&world, "deadlock.scans=4");
	for (int i = 0; i < 3; i++)
		cr_assert_eq(look(&world, abba(), SECOND), 0);
	cr_assert_eq(look(&world, abba(), SECOND), 1);
	world_deinit(&world);
}

Test(detect_waits, an_inferred_holder_makes_a_warning) {
	struct world world;

	world_init(&world, 3);
	for (int i = 0; i < 2; i++) {
		struct pyspyd_waits *waits = abba();

		waits->edges[3].inferred = true;
		waits->edges[3].why = strdup("a bare acquire()");
		look(&world, waits, SECOND);
	}
	cr_assert_eq(present(&world, "deadlock")->severity, PYSPYD_WARNING);
	cr_assert(present(&world, "deadlock")->inferred);
	cr_assert_not_null(present(&world, "deadlock")->certain_why);
	world_deinit(&world);
}

static struct pyspyd_waits *own_lock(void) {
	struct pyspyd_waits *waits = graph();
	uint32_t a = thread(waits, 0, "handler"), one = lock(waits, 1);

	waits_for(waits, a, one);
	held_by(waits, one, a);
	return waits;
}

static struct pyspyd_waits *orphan(void) {
	struct pyspyd_waits *waits = graph();
	uint32_t a = thread(waits, 0, "main"), one = resource(waits, "SemLock", "SemLock", 1, PYSPYD_WAIT_NEVER);

	waits_for(waits, a, one);
	return waits;
}

Test(detect_waits, a_lock_of_one_s_own_is_a_self_deadlock) {
	struct world world;

	world_init(&world, 1);
	look(&world, own_lock(), SECOND);
	look(&world, own_lock(), SECOND);
	cr_assert_eq(present(&world, "self-deadlock")->parties_n, 1);
	cr_assert_not_null(strstr(present(&world, "self-deadlock")->advice, "RLock"));
	look(&world, graph(), SECOND);
	absent(&world, "self-deadlock", "released");
	world_deinit(&world);
}

/* A thread waits for what it seems to have by a bare acquire(), another one is at `at`: s in a sleep, j it waits for
 * the first one's end, n in a native library's pool, t in native code for a time, none. */
static struct pyspyd_waits *seems_own(char at) {
	struct pyspyd_waits *waits = graph();
	uint32_t a = thread(waits, 0, "handler"), one = lock(waits, 1), b;

	waits_for(waits, a, one);
	cr_assert_eq(waits_add_edge(waits, one, a, NULL, true, "a bare acquire()"), 0);
	if (at == '-')
		return waits;
	b = thread(waits, 1, "tick");
	if (at == 'j') {
		uint32_t end = resource(waits, "join", "the end of MainThread", 2, PYSPYD_WAIT_ANY);

		waits_for(waits, b, end);
		held_by(waits, end, a);
		return waits;
	}
	waits->nodes[b].rule = PYSPYD_WAIT_FREE;
	waits->nodes[b].python = at == 's';
	waits->nodes[b].timed = at == 't';
	waits->nodes[b].idle = at == 'n' || at == 't' ? WAITS_NATIVE_WORKER : NULL;
	return waits;
}

Test(detect_waits, what_others_might_release_takes_longer_to_be_a_self_deadlock) {
	static const struct {
		char at;
		int looks; /* in which it is said first */
	} table[] = { { '-', 2 }, { 'j', 2 }, { 'n', 2 }, { 's', 61 }, { 't', 61 } };

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct world world;

		world_init(&world, 2);
		world.whole = true;
		set(&world, "hang.after=1h");
		for (int n = 1; n < table[i].looks; n++)
			cr_expect_eq(look(&world, seems_own(table[i].at), SECOND), 0, "%c %d", table[i].at, n);
		look(&world, seems_own(table[i].at), SECOND);
		cr_expect(present(&world, "self-deadlock")->inferred);
		look(&world, seems_own(table[i].at), SECOND);
		present(&world, "self-deadlock");
		world_deinit(&world);
	}
}

Test(detect_waits, the_time_of_a_self_deadlock_can_be_set_and_does_not_count_for_what_was_read) {
	struct world world;

	world_init(&world, 2);
	world.whole = true;
	set(&world, "self-deadlock.after=5s");
	for (int i = 0; i < 5; i++)
		cr_expect_eq(look(&world, seems_own('s'), SECOND), 0);
	look(&world, seems_own('s'), SECOND);
	present(&world, "self-deadlock");
	world_deinit(&world);
	world_init(&world, 2);
	world.whole = true;
	look(&world, own_lock(), SECOND);
	look(&world, own_lock(), SECOND);
	present(&world, "self-deadlock");
	world_deinit(&world);
}

Test(detect_waits, a_holder_that_has_ended_leaves_an_orphan) {
	struct world world;

	world_init(&world, 1);
	look(&world, orphan(), SECOND);
	look(&world, orphan(), SECOND);
	cr_assert_eq(present(&world, "orphaned-lock")->parties_n, 1);
	cr_assert_str_eq(fact(present(&world, "orphaned-lock"), "fault")->text, "its holder, thread 9, has ended");
	world_deinit(&world);
}

/* Two processes wait for each other's locks. */
static struct pyspyd_waits *across(void) {
	struct pyspyd_waits *waits = graph();
	uint32_t a = thread_of(waits, PID, PID, "parent"), b = thread_of(waits, PID + 50, PID + 50, "child");
	uint32_t one = resource(waits, "SemLock", "SemLock a", 1, PYSPYD_WAIT_ALL);
	uint32_t two = resource(waits, "SemLock", "SemLock b", 2, PYSPYD_WAIT_ALL);

	waits_for(waits, a, two);
	waits_for(waits, b, one);
	held_by(waits, one, a);
	held_by(waits, two, b);
	return waits;
}

Test(detect_waits, a_deadlock_of_processes_is_raised_by_the_lowest_watched) {
	static const pid_t both[] = { PID + 50, PID }, child[] = { PID + 50 };
	static const struct {
		pid_t pid;
		const pid_t *watched;
		size_t watched_n, expected;
	} table[] = {
		{ PID, both, 2, 1 }, { PID + 50, both, 2, 0 }, { PID, NULL, 0, 1 }, { PID + 50, NULL, 0, 1 },
		{ PID + 50, child, 1, 1 }, { PID + 1, both, 2, 0 }, /* no member */
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct world world;

		world_init(&world, 1);
		world.pid = table[i].pid;
		world.watched = table[i].watched;
		world.watched_n = table[i].watched_n;
		look(&world, across(), SECOND);
		cr_assert_eq(look(&world, across(), SECOND), table[i].expected, "%zu", i);
		if (table[i].expected)
			cr_assert_eq(fact(present(&world, "deadlock"), "processes")->count, 2);
		world_deinit(&world);
	}
}

Test(detect_waits, a_long_cycle_fits_and_stays_one_printable_line) {
	static const char evil[] = "\x1b[2J\n\xff\xe2\x80\xae";
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world, 3);
	for (int i = 0; i < 2; i++) {
		struct pyspyd_waits *waits = graph();
		uint32_t threads[40], locks[40];

		for (uint32_t t = 0; t < 40; t++) {
			threads[t] = thread(waits, t, evil);
			locks[t] = resource(waits, evil, evil, t + 1, PYSPYD_WAIT_ALL);
		}
		for (uint32_t t = 0; t < 40; t++) {
			waits_for(waits, threads[t], locks[(t + 1) % 40]);
			held_by(waits, locks[t], threads[t]);
		}
		look(&world, waits, SECOND);
	}
	verdict = present(&world, "deadlock");
	cr_assert_eq(verdict->parties_n, DETECT_PARTIES_MAX);
	cr_assert_eq(fact(verdict, "threads")->count, 40);
	for (const char *c = verdict->summary; *c; c++)
		cr_assert((unsigned char)*c >= 0x20 && *c != 0x7f);
	world_deinit(&world);
}

/* hang */

/* The main thread joins a worker, which waits for somebody elsewhere, without a time-out. */
static struct pyspyd_waits *remote(void) {
	struct pyspyd_waits *waits = graph();
	uint32_t a = thread(waits, 0, "main"), b = thread(waits, 1, "fetch");
	uint32_t socket = resource(waits, "socket", "10.1.2.3:5432", 1, PYSPYD_WAIT_ANY);

	held_by(waits, a, b);
	waits_for(waits, b, socket);
	return waits;
}

Test(detect_waits, a_process_that_waits_for_a_silent_peer_hangs) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world, 2);
	for (int i = 0; i < 60; i++)
		cr_assert_eq(look(&world, remote(), SECOND), 0, "%d", i);
	cr_assert_eq(look(&world, remote(), SECOND), 1);
	verdict = present(&world, "hang");
	cr_assert_eq(verdict->severity, PYSPYD_WARNING);
	cr_assert_not(verdict->inferred, "%s", verdict->certain_why);
	cr_assert_eq(verdict->parties_n, 2);
	cr_assert_eq(verdict->knot, UINT32_MAX);
	cr_assert_str_eq(verdict->summary,
		"hang: no thread of app has run for 1 min 0 s: MainThread (main, app.py:12) waits for worker (fetch, "
		"app.py:12); worker (fetch, app.py:12) waits for 10.1.2.3:5432 `self.guard`");
	look(&world, NULL, SECOND);
	cr_assert(only(&world, "hang")->fading);
	world.threads[1].run_ns = NS_PER_SEC / 2;
	for (int i = 0; i < 5; i++) {
		look(&world, NULL, SECOND);
		cr_assert(only(&world, "hang")->fading || i == 4);
	}
	absent(&world, "hang", "running");
	cr_assert_eq(look(&world, remote(), SECOND), 0);
	world_deinit(&world);
}

/* One waits for a process to end, the other for what a process does: both are named. */
static struct pyspyd_waits *waits_for_processes(void) {
	struct pyspyd_waits *waits = graph();
	uint32_t a = thread(waits, 0, "run"), b = thread(waits, 1, "read");
	uint32_t end = resource(waits, "process-end", "tar", 1, PYSPYD_WAIT_ANY);
	uint32_t pipe = resource(waits, "pipe", "pipe:[12], to be written to", 2, PYSPYD_WAIT_ANY);
	uint32_t acts = resource(waits, "process", "tar", 3, PYSPYD_WAIT_ANY);

	waits->nodes[end].kind = waits->nodes[acts].kind = PYSPYD_WAIT_PROCESS;
	waits->nodes[end].pid = waits->nodes[acts].pid = 77;
	held_by(waits, a, end);
	held_by(waits, b, pipe);
	held_by(waits, pipe, acts);
	return waits;
}

Test(detect_waits, a_hang_names_the_processes_that_are_waited_for) {
	struct world world;

	world_init(&world, 2);
	for (int i = 0; i < 60; i++)
		cr_assert_eq(look(&world, waits_for_processes(), SECOND), 0, "%d", i);
	cr_assert_eq(look(&world, waits_for_processes(), SECOND), 1);
	cr_expect_str_eq(present(&world, "hang")->summary,
		"hang: no thread of app has run for 1 min 0 s: MainThread (run, app.py:12) waits for the end of "
		"process 77 "
		"(tar); worker (read, app.py:12) waits for pipe:[12], to be written to by process 77 "
		"(tar)");
	world_deinit(&world);
}

Test(detect_waits, looks_at_the_graph_now_and_then_are_enough_for_a_hang) {
	struct world world;

	world_init(&world, 2);
	set(&world, "hang.after=9s");
	for (int i = 0; i < 9; i++)
		cr_assert_eq(look(&world, i % 3 ? NULL : remote(), SECOND), 0, "%d", i);
	cr_assert_eq(look(&world, remote(), SECOND), 1);
	present(&world, "hang");
	world_deinit(&world);
}

Test(detect_waits, a_hang_with_an_unknown_wait_is_inferred) {
	struct world world;

	world_init(&world, 2);
	set(&world, "hang.after=1s");
	for (int i = 0; i < 2; i++) {
		struct pyspyd_waits *waits = remote();

		waits->edges_n--;
		free(waits->edges[1].expression);
		look(&world, waits, SECOND);
	}
	cr_assert(present(&world, "hang")->inferred);
	cr_assert_not_null(present(&world, "hang")->certain_why);
	world_deinit(&world);
}

/* What makes a quiet process none that hangs: each changes one thing of `remote`. */
static void is_idle(struct world *world _unused_, struct pyspyd_waits *waits) {
	waits->nodes[1].idle = "queue worker";
}

static void is_timed(struct world *world _unused_, struct pyspyd_waits *waits) {
	waits->nodes[1].timed = true;
}

static void runs(struct world *world, struct pyspyd_waits *waits _unused_) {
	world->threads[1].run_ns = NS_PER_MS;
}

static void is_new(struct world *world, struct pyspyd_waits *waits _unused_) {
	world->threads[1].interval_ns = 0;
}

static void never_worked(struct world *world _unused_, struct pyspyd_waits *waits) {
	waits->nodes[0].run_ns = waits->nodes[1].run_ns = 0;
}

static void is_in_d_state(struct world *world, struct pyspyd_waits *waits _unused_) {
	world->threads[0].state = world->threads[1].state = 'D';
	set(world, "d-state.after=24h");
}

static void is_elsewhere(struct world *world _unused_, struct pyspyd_waits *waits) {
	waits->nodes[0].pid = waits->nodes[1].pid = PID + 1;
}

Test(detect_waits, a_quiet_process_is_not_always_hung) {
	static void (*const changes[])(struct world *, struct pyspyd_waits *) = { is_idle, is_timed, runs, is_new,
		never_worked, is_in_d_state, is_elsewhere };

	for (size_t c = 0; c < ARRAY_SIZE(changes); c++) {
		struct world world;

		world_init(&world, 2);
		for (int i = 0; i < 200; i++) {
			struct pyspyd_waits *waits = remote();

			changes[c](&world, waits);
			cr_assert_eq(look(&world, waits, SECOND), 0, "change %zu, look %d", c, i);
		}
		world_deinit(&world);
	}
}

Test(detect_waits, a_deadlock_is_no_hang_and_little_wake_ups_hide_none) {
	struct world world;

	world_init(&world, 3);
	for (int i = 0; i < 100; i++)
		look(&world, abba(), SECOND);
	present(&world, "deadlock");
	world_deinit(&world);
	world_init(&world, 2);
	world.threads[0].run_ns = 400 * NS_PER_US;
	for (int i = 0; i < 61; i++)
		look(&world, remote(), SECOND);
	present(&world, "hang");
	world_deinit(&world);
}

Test(detect_waits, a_gap_proves_no_hang) {
	struct world world;

	world_init(&world, 2);
	for (int i = 0; i < 30; i++)
		cr_assert_eq(look(&world, remote(), SECOND), 0);
	cr_assert_eq(look(&world, remote(), 3600 * SECOND), 0);
	for (int i = 0; i < 59; i++)
		cr_assert_eq(look(&world, remote(), SECOND), 0, "%d", i);
	cr_assert_eq(look(&world, remote(), SECOND), 1);
	world_deinit(&world);
}

/* livelock */

/* Two threads ask, with a time-out, for what the other one has; now and then one is met elsewhere. */
static struct pyspyd_waits *polite(uint64_t number, bool runs_on, bool circle) {
	struct pyspyd_waits *waits = graph();
	uint32_t a = thread(waits, 1, "give_way"), b = thread(waits, 2, "give_way");
	uint32_t one = lock(waits, 1), two = lock(waits, 2);

	waits->nodes[a].timed = waits->nodes[b].timed = true;
	waits->nodes[a].rule = waits->nodes[b].rule = PYSPYD_WAIT_FREE;
	waits->nodes[a].retry = number % 5 != 2;
	waits->nodes[b].retry = true;
	if (runs_on) {
		waits->nodes[a].stamp = waits->nodes[b].stamp = number;
		waits->nodes[a].run_ns = waits->nodes[b].run_ns = 1000 + number;
	}
	if (waits->nodes[a].retry)
		waits_for(waits, a, two);
	if (circle)
		waits_for(waits, b, one);
	held_by(waits, one, a);
	held_by(waits, two, b);
	return waits;
}

Test(detect_waits, threads_that_give_way_for_ever_are_in_a_livelock) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world, 3);
	for (uint64_t i = 0; i < 14; i++)
		cr_assert_eq(look(&world, polite(i, true, true), SECOND), 0, "%zu", (size_t)i);
	cr_assert_eq(look(&world, polite(14, true, true), SECOND), 1);
	verdict = present(&world, "livelock");
	cr_assert_eq(verdict->parties_n, 2);
	cr_assert(verdict->inferred);
	cr_assert_eq(verdict->since_ns, 1001 * SECOND);
	cr_assert_str_eq(verdict->summary,
		"livelock: worker (give_way, app.py:12) and worker (give_way, app.py:12) try again and again for 14 s "
		"to get what the others hold");
	look(&world, NULL, SECOND);
	cr_assert(only(&world, "livelock")->fading);
	for (int i = 0; i < 5; i++)
		look(&world, graph(), SECOND);
	absent(&world, "livelock", "calm");
	world_deinit(&world);
}

Test(detect_waits, pollers_of_one_lock_and_sleepers_are_in_no_livelock) {
	struct world world;

	world_init(&world, 3);
	for (uint64_t i = 0; i < 100; i++)
		cr_assert_eq(look(&world, polite(i, true, false), SECOND), 0);
	for (uint64_t i = 0; i < 100; i++)
		cr_assert_eq(look(&world, polite(i, false, true), SECOND), 0);
	world_deinit(&world);
}

/* Two pollers of one lock that a third one takes and gives back: each of the two may have it, as far as is known. */
Test(detect_waits, a_lock_that_anybody_may_hold_makes_no_livelock) {
	struct world world;

	world_init(&world, 3);
	for (uint64_t i = 0; i < 100; i++) {
		struct pyspyd_waits *waits = polite(i, true, false);

		waits_for(waits, 1, 3);
		held_by(waits, 3, 0);
		waits->nodes[0].retry = true;
		cr_assert_eq(look(&world, waits, SECOND), 0);
	}
	world_deinit(&world);
}

Test(detect_waits, who_goes_from_function_to_function_is_in_no_livelock) {
	static const char *const functions[] = { "parse", "store", "send" };
	struct world world;

	world_init(&world, 3);
	for (uint64_t i = 0; i < 100; i++) {
		struct pyspyd_waits *waits = polite(i, true, true);

		for (int t = 0; t < 2; t++) {
			pyspyd_frames_free(waits->nodes[t].frames, 1);
			waits->nodes[t].frames = one_frame(functions[i % 3]);
		}
		cr_assert_eq(look(&world, waits, SECOND), 0);
	}
	world_deinit(&world);
}

/* What a thread is met at, a letter for each look, every second:
 *
 *   t  asks, with a time-out, for what the other one has
 *   s  sleeps before it tries again     b  waits for the other one at a barrier     r  runs     x  its stack is torn
 *   e  has both                         p  asks for what nobody of the two has      q  sleeps and did not run       */
struct met {
	const char *a, *b;
	size_t found; /* the look, counted from 1, in which it is said to be a livelock; 0: in none */
};

static void meet(struct pyspyd_waits *waits, uint32_t node, uint32_t own, uint32_t other, uint32_t third, char at,
	uint64_t number) {
	bool still = at == 'q', tries = at == 't' || at == 'p';

	waits->nodes[node].rule = at == 'b' ? PYSPYD_WAIT_ANY : PYSPYD_WAIT_FREE;
	waits->nodes[node].timed = at != 'b' && at != 'r' && at != 'x';
	waits->nodes[node].retry = tries;
	waits->nodes[node].stamp = still ? 1 : number + 2;
	waits->nodes[node].run_ns = still ? 1000 : 2000 + number;
	if (at == 'x') {
		pyspyd_frames_free(waits->nodes[node].frames, 1);
		waits->nodes[node].frames = NULL;
		waits->nodes[node].frames_n = 0;
	} else if (at != 's' && at != 'q') {
		held_by(waits, own, node);
	}
	if (tries)
		waits_for(waits, node, at == 't' ? other : third);
	if (at == 'b')
		waits_for(waits, node, resource(waits, "Barrier", "Barrier 0x7f30", 4, PYSPYD_WAIT_FREE));
	if (at == 'e')
		held_by(waits, other, node);
}

static struct pyspyd_waits *meeting(char at_a, char at_b, uint64_t number) {
	struct pyspyd_waits *waits = graph();
	uint32_t a = thread(waits, 1, "give_way"), b = thread(waits, 2, "give_way"), c = thread(waits, 0, "main");
	uint32_t one = lock(waits, 1), two = lock(waits, 2), three = lock(waits, 3);

	meet(waits, a, one, two, three, at_a, number);
	meet(waits, b, two, one, three, at_b, number);
	held_by(waits, three, c);
	waits->nodes[c].run_ns = 5000 + number;
	waits->nodes[c].stamp = number;
	waits->nodes[c].rule = PYSPYD_WAIT_FREE;
	return waits;
}

/* The letters again and again, for three minutes. Return: the look, counted from 1, in which a livelock is said first;
 * 0: in none. */
static size_t livelock_at(const struct met *met) {
	size_t found = 0, n = strlen(met->a), m = strlen(met->b);
	struct world world;

	world_init(&world, 3);
	for (size_t i = 0; !found && i < 180; i++)
		if (look(&world, meeting(met->a[i % n], met->b[i % m], i), SECOND)) {
			cr_assert_str_eq(world.verdicts.items[0].kind, "livelock");
			found = i + 1;
		}
	world_deinit(&world);
	return found;
}

Test(detect_waits, moments_elsewhere_do_not_end_a_livelock) {
	static const struct met table[] = {
		{ "t", "t", 12 },
		/* recorded, with two busy loops beside it: it runs, sleeps and is at the barrier now and then */
		{ "ttsttttsttrttttttsttttr", "ttsttttsttbttttttsttttb", 15 },
		{ "tbstrttbttstttttttt", "tbstbttrttstttttttt", 17 },
		{ "trtrtsrttbtstrtstbtt", "tbtrtsbttrtstbtstrtt", 21 },
		/* pauses as long as the tries */
		{ "ts", "ts", 23 },
		/* torn stacks */
		{ "ttsstxttsttxttttt", "tttsxtttstttttxtt", 19 },
		/* they begin to only after a while */
		{ "rrrrrrrrtrrrrrrrttttttttttttttttttttttt", "rrrrrrrrtrrrrrrrttttttttttttttttttttttt", 28 },
		/* they were seen to get on once: it takes twice as long */
		{ "tttettttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt", "t",
			28 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		cr_expect_eq(livelock_at(&table[i]), table[i].found, "%zu: %zu", i, livelock_at(&table[i]));
}

Test(detect_waits, who_gets_on_or_only_waits_is_in_no_livelock) {
	static const struct met table[] = {
		/* philosophers who eat, one of them or both */
		{ "tttttetttttttstttttetttttttttetttttt", "tttttttttetttttttettttttttetttttttet", 0 },
		{ "ttttttttte", "t", 0 },
		{ "tse", "set", 0 },
		/* … with a long time in between, once they were seen to */
		{ "tttetttttttttttttettttttttttttttttttt", "t", 0 },
		/* pollers of what a third one has, and sleepers */
		{ "p", "p", 0 },
		{ "s", "t", 0 },
		{ "ps", "ttttttss", 0 },
		/* work, and a circle now and then */
		{ "trrr", "trrr", 0 },
		{ "bbbt", "bbbt", 0 },
		{ "tr", "tr", 0 },
		{ "tqqq", "tqqq", 0 },
		/* a circle in one of ten looks */
		{ "tppppppppp", "tppppppppp", 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		cr_expect_eq(livelock_at(&table[i]), 0, "%zu: %zu", i, livelock_at(&table[i]));
}

/* gil-hog */

Test(detect_waits, who_keeps_the_gil_from_others_is_a_hog) {
	static const struct detect_frame frames[] = {
		{ .lang = PYSPYD_NATIVE, .function = "sre", .qualname = "sre", .file = "", .module = "" },
		{ .function = "match", .qualname = "Rule.match", .file = "/srv/rules.py", .module = "", .line = 7 },
	};
	static const struct detect_stack stack = { .share = 1, .frames = frames, .frames_n = 2 };
	static const struct {
		pid_t holder;
		uint64_t held_ms;
		uint32_t waiters;
		size_t expected;
	} table[] = { { PID, 999, 3, 0 }, { PID, 5000, 0, 0 }, { 0, 5000, 3, 0 }, { PID + 9, 5000, 3, 0 },
		{ PID, 2000, 3, 1 } };
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world, 2);
	world.threads[0].stacks = &stack;
	world.threads[0].stacks_n = 1;
	world.threads[0].state = 'R';
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		world.process.gil_holder = table[i].holder;
		world.process.gil_held_ns = table[i].held_ms * NS_PER_MS;
		world.process.gil_waiters = table[i].waiters;
		cr_assert_eq(look(&world, NULL, SECOND), table[i].expected, "%zu", i);
	}
	verdict = present(&world, "gil-hog");
	cr_assert_eq(verdict->since_ns, world.now_ns - 2 * SECOND);
	cr_assert_float_eq(fact(verdict, "held_s")->number, 2, 1e-9);
	cr_assert_eq(fact(verdict, "waiters")->count, 3);
	cr_assert_str_eq(verdict->summary,
		"gil-hog: worker (tid 100) has held the GIL for 2 s in Rule.match (rules.py:7), while 3 threads wait "
		"for it");
	cr_assert_null(fact(verdict, "native_call")->text);
	world.process.gil_call = "sre_match of _sre.so";
	look(&world, NULL, SECOND);
	verdict = present(&world, "gil-hog");
	cr_assert_str_eq(fact(verdict, "native_call")->text, "sre_match of _sre.so");
	cr_assert_not_null(
		strstr(verdict->summary, " in Rule.match (rules.py:7), in C: sre_match of _sre.so, while 3"));
	world.process.gil_holder = 0;
	for (int i = 0; i < 9; i++) {
		look(&world, NULL, SECOND);
		cr_assert(only(&world, "gil-hog")->fading);
	}
	look(&world, NULL, SECOND);
	absent(&world, "gil-hog", "released");
	world_deinit(&world);
}

/* The owner of the mutex wants the GIL, and was met as it woke to ask for it. */
Test(detect_waits, who_waits_for_a_thread_that_is_awake_is_no_hog) {
	struct pyspyd_waits *waits = graph();
	uint32_t holder = thread(waits, 1, "call"), owner = thread(waits, 2, "come_back");
	uint32_t mutex = resource(waits, "mutex", "native mutex 0x7f10", 1, PYSPYD_WAIT_ANY);
	struct world world;

	waits->nodes[owner].state = 'R';
	waits->nodes[owner].rule = PYSPYD_WAIT_FREE;
	held_by(waits, holder, mutex);
	held_by(waits, mutex, owner);
	world_init(&world, 3);
	world.process.gil_holder = PID + 1;
	world.process.gil_held_ns = 3 * SECOND;
	world.process.gil_waiters = 1;
	cr_assert_eq(look(&world, waits, SECOND), 0);
	world_deinit(&world);
}

Test(detect_waits, a_holder_that_sleeps_is_a_hog_once_the_graph_was_looked_at) {
	struct world world;

	world_init(&world, 3);
	world.process.gil_holder = PID + 1;
	world.process.gil_held_ns = 3 * SECOND;
	world.process.gil_waiters = 1;
	cr_assert_eq(look(&world, NULL, SECOND), 0);
	look(&world, remote(), SECOND);
	present(&world, "gil-hog");
	look(&world, NULL, SECOND);
	present(&world, "gil-hog");
	world_deinit(&world);
}

Test(detect_waits, a_hog_s_stack_comes_from_the_graph_and_a_stuck_holder_is_none) {
	struct world world;

	world_init(&world, 3);
	world.process.gil_holder = PID + 1;
	world.process.gil_held_ns = 3 * SECOND;
	world.process.gil_waiters = 1;
	for (int i = 0; i < 2; i++) {
		struct pyspyd_waits *waits = remote();

		waits->nodes[0].gil_waiter = true;
		look(&world, waits, SECOND);
	}
	cr_assert_eq(present(&world, "gil-hog")->parties_n, 2);
	cr_assert_str_eq(present(&world, "gil-hog")->parties[0].role, "holding");
	cr_assert_eq(present(&world, "gil-hog")->parties[0].node, 1);
	cr_assert_not_null(strstr(present(&world, "gil-hog")->summary, " in fetch (app.py:12),"));
	world_deinit(&world);
	world_init(&world, 3);
	world.process.gil_holder = PID + 1;
	world.process.gil_held_ns = 3 * SECOND;
	world.process.gil_waiters = 1;
	cr_assert_eq(look(&world, abba(), SECOND), 0);
	look(&world, abba(), SECOND);
	present(&world, "deadlock");
	world_deinit(&world);
}

/* event-loop-blocked */

static struct pyspyd_waits *looping(struct pyspyd_wait_loop loop) {
	struct pyspyd_waits *waits = graph();

	thread(waits, 0, "handle");
	waits->nodes[0].rule = PYSPYD_WAIT_FREE;
	waits->nodes[0].timed = true;
	waits->loops = malloc(sizeof(loop));
	loop.pid = PID;
	loop.tid = PID;
	loop.address = 0x7000;
	*waits->loops = loop;
	waits->loops_n = 1;
	return waits;
}

Test(detect_waits, a_loop_that_stays_in_one_callback_is_blocked) {
	static const struct pyspyd_wait_loop loop = { .turn = 5, .turn_began_ns = 9, .ready = 2, .tasks = 3 };
	const struct detect_verdict *verdict;
	struct world world;
	uint64_t key;

	world_init(&world, 1);
	cr_assert_eq(look(&world, looping(loop), SECOND / 2), 0);
	cr_assert_eq(look(&world, looping(loop), SECOND / 2), 0);
	cr_assert_eq(look(&world, looping(loop), SECOND / 2), 1);
	verdict = present(&world, "event-loop-blocked");
	key = verdict->key;
	cr_assert_eq(verdict->since_ns, 1000 * SECOND + SECOND / 2);
	cr_assert_eq(fact(verdict, "ready")->count, 2);
	cr_assert_str_eq(verdict->summary,
		"event-loop-blocked: the loop of worker (tid 100) has been in one callback for 1 s in handle "
		"(app.py:12), while 2 callbacks wait");
	/* Blocked again by another callback soon after: the same fault. */
	for (uint64_t i = 6; i < 9; i++) {
		struct pyspyd_wait_loop other = loop;

		other.turn = i;
		look(&world, looping(other), SECOND);
		cr_assert(only(&world, "event-loop-blocked")->fading);
		look(&world, looping(other), SECOND);
		cr_assert_eq(present(&world, "event-loop-blocked")->key, key);
	}
	for (int i = 0; i < 9; i++)
		look(&world, looping((struct pyspyd_wait_loop){ .polling = true, .tasks = 3 }), SECOND);
	cr_assert(only(&world, "event-loop-blocked")->fading);
	look(&world, looping((struct pyspyd_wait_loop){ .polling = true, .tasks = 3 }), SECOND);
	absent(&world, "event-loop-blocked", "moving");
	world_deinit(&world);
}

Test(detect_waits, a_loop_that_keeps_nobody_waiting_is_not_blocked) {
	static const struct pyspyd_wait_loop table[] = {
		{ .turn = 5, .turn_began_ns = 9, .tasks = 1 },
		{ .turn = 5, .turn_began_ns = 9, .ready = 1, .polling = true },
		{ .turn = 0, .ready = 1 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct world world;

		world_init(&world, 1);
		for (int s = 0; s < 20; s++)
			cr_assert_eq(look(&world, looping(table[i]), SECOND), 0, "%zu", i);
		world_deinit(&world);
	}
}

Test(detect_waits, a_busy_loop_goes_from_round_to_round) {
	struct world world;

	world_init(&world, 1);
	for (uint64_t i = 1; i < 100; i++)
		cr_assert_eq(look(&world,
				     looping((struct pyspyd_wait_loop){
					     .turn = 5, .turn_began_ns = i, .ready = 9, .tasks = 9 }),
				     SECOND),
			0);
	world_deinit(&world);
}

/* stopped, d-state */

Test(detect_waits, a_stopped_process_is_said_after_half_a_minute) {
	struct world world;

	world_init(&world, 3);
	for (int i = 0; i < 3; i++)
		world.threads[i].state = i == 2 ? 'Z' : 'T';
	for (int i = 0; i < 30; i++)
		cr_assert_eq(look(&world, NULL, SECOND), 0, "%d", i);
	cr_assert_eq(look(&world, NULL, SECOND), 1);
	cr_assert_str_eq(fact(present(&world, "stopped"), "how")->text, "stopped");
	world.threads[0].state = 't';
	look(&world, NULL, SECOND);
	cr_assert_str_eq(fact(present(&world, "stopped"), "how")->text, "traced");
	world.threads[1].state = 'S';
	look(&world, NULL, SECOND);
	absent(&world, "stopped", "continued");
	for (int i = 0; i < 100; i++)
		cr_assert_eq(look(&world, NULL, SECOND), 0);
	world_deinit(&world);
}

Test(detect_waits, one_thread_in_d_state_is_enough_unless_it_runs) {
	struct world world;

	world_init(&world, 3);
	world.threads[1].state = 'D';
	for (int i = 0; i < 30; i++)
		cr_assert_eq(look(&world, NULL, SECOND), 0);
	cr_assert_eq(look(&world, remote(), SECOND), 1);
	cr_assert_str_eq(present(&world, "d-state")->summary,
		"d-state: worker (tid 101) has been in uninterruptible sleep for 30 s in fetch (app.py:12)");
	world.threads[1].run_ns = 1;
	look(&world, NULL, SECOND);
	absent(&world, "d-state", "running");
	for (int i = 0; i < 100; i++)
		cr_assert_eq(look(&world, NULL, SECOND), 0);
	world_deinit(&world);
}
