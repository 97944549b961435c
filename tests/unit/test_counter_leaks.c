/* SPDX-License-Identifier: MIT */
/* handle-leak, thread-leak and process-leak over tables of counts. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define THREADS_MAX 400
#define PID 77
#define C(text) ((char *)(uintptr_t)(text)) /* nobody writes into it */

/* A process whose clock the test moves; windows are of a minute, a look is a second. */
struct world {
	struct detect_set *set;
	struct detect_config config;
	detect_verdicts verdicts;
	struct detect_process process;
	struct detect_thread threads[THREADS_MAX];
	char names[THREADS_MAX][32];
	struct detect_group groups[4];
	size_t groups_n;                     /* handed in where they were wished for */
	struct pyspyd_waits waits;           /* likewise, where there are nodes */
	struct detect_wishes wishes;         /* of the last look */
	const struct pyspyd_origin *origins; /* handed in where they were wished for */
	size_t origins_n;
	const char *origins_why;
	unsigned firsts, growths; /* looks that wished so */
	uint64_t now_ns;
};

static void world_init(struct world *world) {
	static const char *const settings[] = { "handle-leak.window=1m", "thread-leak.window=1m",
		"process-leak.window=1m" };

	*world = (struct world){ .now_ns = 100000 * NS_PER_SEC };
	cr_assert_eq(detect_set_new(&world->set), 0);
	detect_config_init(&world->config);
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		cr_assert_eq(detect_config_set(&world->config, settings[i], NULL), 0);
	world->process = (struct detect_process){ .threads = world->threads,
		.period_ns = NS_PER_SEC,
		.gil_switches_per_s = -1,
		.start_ns = NS_PER_SEC,
		.fds = 20,
		.fd_limit = 65536,
		.threads_total = 5 };
}

static void world_deinit(struct world *world) {
	detect_set_free(world->set);
	vec_free(&world->verdicts);
}

static size_t look(struct world *world) {
	bool grouped = world->wishes.fds_growth && world->groups_n;
	const struct detect_input input = {
		.now_ns = world->now_ns += NS_PER_SEC,
		.process = &world->process,
		.pid = PID,
		.waits = world->waits.nodes_n ? &world->waits : NULL,
		.fds = grouped ? world->groups : NULL,
		.fds_n = grouped ? world->groups_n : 0,
		.origins = world->wishes.origins ? world->origins : NULL,
		.origins_n = world->wishes.origins ? world->origins_n : 0,
		.origins_why = world->origins_why,
		.wishes = &world->wishes,
	};

	world->wishes = (struct detect_wishes){ 0 };
	cr_assert_eq(detect_set_decide(world->set, &world->config, &input, &world->verdicts), 0);
	world->firsts += world->wishes.fds_first;
	world->growths += world->wishes.fds_growth;
	return world->verdicts.n;
}

/* Looks until something is said. Return: after how many seconds; 0: never in `seconds`. */
static int look_while(struct world *world, int seconds, uint64_t *counter, uint64_t per_second) {
	for (int i = 1; i <= seconds; i++) {
		*counter += per_second;
		if (look(world))
			return i;
	}
	return 0;
}

static const struct detect_verdict *only(const struct world *world, const char *kind) {
	cr_assert_eq(world->verdicts.n, 1);
	cr_assert_str_eq(world->verdicts.items[0].kind, kind);
	return &world->verdicts.items[0];
}

static const struct detect_fact *fact(const struct detect_verdict *verdict, const char *key) {
	for (size_t i = 0; i < verdict->facts_n; i++)
		if (!strcmp(verdict->facts[i].key, key))
			return &verdict->facts[i];
	cr_assert_fail("no fact %s", key);
	return NULL;
}

Test(counter_leaks, descriptors_that_grow_for_a_window_are_found_and_resolved) {
	const struct detect_verdict *verdict;
	struct world world;
	int after;

	world_init(&world);
	after = look_while(&world, 200, &world.process.fds, 2);
	cr_assert(after > 60 && after <= 115, "found after %d s", after);
	verdict = only(&world, "handle-leak");
	cr_assert_eq(verdict->presence, DETECT_PRESENT);
	cr_assert_eq(verdict->severity, PYSPYD_WARNING);
	cr_assert(verdict->inferred);
	cr_assert_leq(verdict->since_ns, 100010 * NS_PER_SEC);
	cr_assert_eq(fact(verdict, "count")->count, 20 + 2 * (uint64_t)after);
	cr_assert_float_eq(fact(verdict, "per_hour")->number, 7200, 50);
	cr_assert_float_eq(fact(verdict, "time_left_s")->number, 32670, 200);
	cr_assert(strstr(verdict->summary, "(7,200 an hour); the limit is reached in 9 h"), "%s", verdict->summary);
	for (int i = 0; i < 100 && verdict->presence == DETECT_PRESENT; i++) {
		cr_assert_eq(look(&world), 1);
		verdict = only(&world, "handle-leak");
	}
	cr_assert_eq(verdict->presence, DETECT_ABSENT);
	cr_assert_str_eq(verdict->ended, "no-growth");
	cr_assert_eq(look(&world), 0);
	world_deinit(&world);
}

static const struct detect_verdict *leak_descriptors(struct world *world) {
	cr_assert(look_while(world, 200, &world->process.fds, 2));
	return only(world, "handle-leak");
}

Test(counter_leaks, the_group_that_made_the_growth_is_named) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.groups[0] = (struct detect_group){ "file", "/var/log/app.log", 900, 20 };
	world.groups[1] = (struct detect_group){ "socket", "tcp CLOSE_WAIT to 10.1.2.3:5432", 1296, 70 };
	world.groups[2] = (struct detect_group){ "pipe", "", 5, -40 };
	world.groups_n = 3;
	verdict = leak_descriptors(&world);
	cr_assert(strstr(verdict->summary, "an hour): 1,296 of them socket tcp CLOSE_WAIT to 10.1.2.3:5432; "), "%s",
		verdict->summary);
	cr_assert_str_eq(fact(verdict, "group")->text, "socket tcp CLOSE_WAIT to 10.1.2.3:5432");
	cr_assert_eq(fact(verdict, "group_count")->count, 1296);
	/* The first groups come with the first growth; the second ones with the last step before the fault, not with
	 * every look. */
	cr_assert(world.firsts > 15 && world.firsts < 30, "%u", world.firsts);
	cr_assert(world.growths > 5 && world.growths < 15, "%u", world.growths);
	world_deinit(&world);
}

Test(counter_leaks, a_finding_waits_for_groups_but_not_for_ever) {
	int after[2];

	for (size_t groups_n = 0; groups_n <= 1; groups_n++) {
		struct world world;

		world_init(&world);
		world.groups[0] = (struct detect_group){ "epoll", "", 100, 80 };
		world.groups_n = groups_n;
		after[groups_n] = look_while(&world, 200, &world.process.fds, 2);
		world_deinit(&world);
	}
	cr_assert(after[1] && after[1] <= 95, "found after %d s", after[1]);
	cr_assert(after[0] > after[1] && after[0] <= after[1] + 25, "without groups found after %d s", after[0]);
}

Test(counter_leaks, two_groups_are_named_where_none_made_the_growth) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.groups[0] = (struct detect_group){ "eventfd", "", 60, 50 };
	world.groups[1] = (struct detect_group){ "epoll", "", 45, 40 };
	world.groups[2] = (struct detect_group){ "socket", "unix", 40, 30 };
	world.groups_n = 3;
	verdict = leak_descriptors(&world);
	cr_assert(strstr(verdict->summary, ": 60 of them eventfd and 45 epoll; "), "%s", verdict->summary);
	world_deinit(&world);
}

Test(counter_leaks, near_the_limit_without_growth_the_largest_group_is_named) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.process.fd_limit = 1000;
	world.process.fds = 900;
	world.groups[0] = (struct detect_group){ "pipe", "read end", 20, 0 };
	world.groups[1] = (struct detect_group){ "file", "/tmp/req-*.log", 860, 0 };
	world.groups_n = 2;
	cr_assert_eq(look(&world) + look(&world), 0);
	cr_assert_eq(look(&world), 1);
	verdict = only(&world, "handle-leak");
	cr_assert_str_eq(verdict->summary,
		"handle-leak: 900 descriptors are open, 90 % of the limit of 1,000: 860 of them file /tmp/req-*.log",
		"%s", verdict->summary);
	world_deinit(&world);
}

Test(counter_leaks, healthy_descriptors_are_never_grouped) {
	struct world world;

	world_init(&world);
	for (int i = 0; i < 600; i++) {
		world.process.fds = 100 + (uint64_t)(i * 7919 % 300);
		cr_assert_eq(look(&world), 0);
	}
	cr_assert_eq(world.firsts + world.growths, 0);
	world_deinit(&world);
}

Test(counter_leaks, churn_bursts_and_pools_are_none) {
	struct world world;

	world_init(&world);
	for (int i = 0; i < 2000; i++) {
		world.process.fds = 100 + (uint64_t)(i * 7919 % 300);      /* churn */
		world.process.threads_total = 4 + (uint64_t)min_of(i, 60); /* a pool */
		world.process.children = 3 + (i > 500 ? 40 : 0);           /* a burst that stays */
		world.process.zombies = (uint64_t)(i % 30);                /* collected twice a minute */
		cr_assert_eq(look(&world), 0, "second %d: %s", i, world.verdicts.items[0].summary);
	}
	world_deinit(&world);
}

Test(counter_leaks, what_is_unknown_is_no_leak) {
	struct world world;

	world_init(&world);
	world.process.fds = world.process.fd_limit = world.process.threads_total = UINT64_MAX;
	world.process.children = world.process.zombies = UINT64_MAX;
	for (int i = 0; i < 200; i++)
		cr_assert_eq(look(&world), 0);
	world_deinit(&world);
}

Test(counter_leaks, the_limit_is_a_fault_by_itself) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.process.fd_limit = 1000;
	world.process.fds = 799;
	cr_assert_eq(look(&world), 0);
	world.process.fds = 810;
	cr_assert_eq(look(&world) + look(&world), 0);
	cr_assert_eq(look(&world), 1);
	verdict = only(&world, "handle-leak");
	cr_assert_eq(verdict->severity, PYSPYD_CRITICAL);
	cr_assert_str_eq(verdict->summary, "handle-leak: 810 descriptors are open, 81 % of the limit of 1,000", "%s",
		verdict->summary);
	world.process.fds = 760;
	cr_assert_eq(look(&world), 1);
	cr_assert_eq(only(&world, "handle-leak")->presence, DETECT_PRESENT);
	world.process.fds = 700;
	cr_assert_eq(look(&world), 1);
	cr_assert_eq(only(&world, "handle-leak")->presence, DETECT_ABSENT);
	world_deinit(&world);
}

Test(counter_leaks, threads_are_named_by_their_group) {
	const struct detect_verdict *verdict;
	struct world world;
	int after = 0;

	world_init(&world);
	for (size_t i = 0; i < THREADS_MAX; i++) {
		snprintf(world.names[i], sizeof(world.names[i]), i < 5 ? "MainThread" : "Thread-%zu (fetch)", i);
		world.threads[i] =
			(struct detect_thread){ .tid = 100 + (pid_t)i, .name = world.names[i], .state = 'S' };
	}
	while (!after && world.process.threads_total < THREADS_MAX) {
		world.process.threads_n = ++world.process.threads_total;
		after = (int)look(&world);
	}
	verdict = only(&world, "thread-leak");
	cr_assert_str_eq(fact(verdict, "group")->text, "Thread-# (fetch)");
	cr_assert_eq(fact(verdict, "group_count")->count, world.process.threads_n - 5);
	cr_assert(strstr(verdict->summary, "of them named Thread-# (fetch)"), "%s", verdict->summary);
	world_deinit(&world);
}

Test(counter_leaks, children_and_zombies) {
	struct world world;

	world_init(&world);
	cr_assert(look_while(&world, 200, &world.process.children, 1));
	cr_assert(strstr(only(&world, "process-leak")->summary, "children, "));
	world_deinit(&world);
	world_init(&world);
	world.process.children = 500;
	cr_assert(look_while(&world, 200, &world.process.zombies, 1));
	cr_assert(strstr(only(&world, "process-leak")->summary, "zombies: "));
	cr_assert_eq(fact(only(&world, "process-leak"), "zombies")->count, world.process.zombies);
	world_deinit(&world);
}

/* Looks until the threads, one more a second, are a leak. */
static const struct detect_verdict *leak_threads(struct world *world, const char *format) {
	int after = 0;

	for (size_t i = 0; i < THREADS_MAX; i++) {
		snprintf(world->names[i], sizeof(world->names[i]), "%s-%zu", format, i);
		world->threads[i] =
			(struct detect_thread){ .tid = 100 + (pid_t)i, .name = world->names[i], .state = 'S' };
	}
	while (!after && world->process.threads_total < THREADS_MAX) {
		world->process.threads_n = ++world->process.threads_total;
		after = (int)look(world);
	}
	return only(world, "thread-leak");
}

/* A thread as threading starts it, which waits. */
static const struct pyspyd_frame stack[] = {
	{ .function = C("wait"),
		.qualname = C("Condition.wait"),
		.file = C("/lib/threading.py"),
		.module = C("threading") },
	{ .function = C("fetch"),
		.qualname = C("Client.fetch"),
		.file = C("/srv/app.py"),
		.module = C("app"),
		.line = 12 },
	{ .function = C("run"), .qualname = C("Thread.run"), .file = C("/lib/threading.py"), .module = C("threading") },
	{ .function = C("_bootstrap_inner"),
		.qualname = C("_"),
		.file = C("/lib/threading.py"),
		.module = C("threading") },
	{ .function = C("_bootstrap"), .qualname = C("_"), .file = C("/lib/threading.py"), .module = C("threading") },
};

static struct pyspyd_wait_node thread_node(pid_t tid, const struct pyspyd_frame *frames, size_t n) {
	return (struct pyspyd_wait_node){ .kind = PYSPYD_WAIT_THREAD,
		.type = C("thread"),
		.label = C("Thread"),
		.pid = PID,
		.tid = tid,
		.state = 'S',
		.knot = UINT32_MAX,
		.frames = (struct pyspyd_frame *)(uintptr_t)frames,
		.frames_n = n };
}

Test(counter_leaks, threads_whose_names_say_nothing_are_told_by_what_they_run) {
	struct pyspyd_wait_node nodes[30];
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
		nodes[i] = thread_node(100 + (pid_t)i, i ? stack : stack + 1, i ? ARRAY_SIZE(stack) : 1);
	world.waits = (struct pyspyd_waits){ .nodes = nodes, .nodes_n = ARRAY_SIZE(nodes) };
	verdict = leak_threads(&world, "Thread");
	cr_assert(
		strstr(verdict->summary, " an hour), 30 of them run Client.fetch (app.py:12)"), "%s", verdict->summary);
	cr_assert_not(strstr(verdict->summary, "named"));
	cr_assert_null(fact(verdict, "group")->text);
	cr_assert_str_eq(fact(verdict, "function")->text, "Client.fetch (app.py:12)");
	cr_assert_eq(fact(verdict, "function_count")->count, 30);
	world_deinit(&world);
}

Test(counter_leaks, native_threads_have_the_name_of_the_process_and_no_stack) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.process.name = "worker-7";
	verdict = leak_threads(&world, "worker");
	cr_assert_null(fact(verdict, "group")->text);
	cr_assert_null(fact(verdict, "function")->text);
	cr_assert_not(strstr(verdict->summary, "of them"));
	world_deinit(&world);
}

Test(counter_leaks, tasks_near_the_limit_are_a_fault_of_who_has_most_of_them) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.process.threads_total = 80;
	world.process.tasks = 85;
	world.process.tasks_limit = 100;
	cr_assert_eq(look(&world) + look(&world), 0);
	cr_assert_eq(look(&world), 1);
	verdict = only(&world, "thread-leak");
	cr_assert_eq(verdict->severity, PYSPYD_CRITICAL);
	cr_assert_str_eq(verdict->summary,
		"thread-leak: the process has 80 threads; its control group has 85 % of the limit of 100", "%s",
		verdict->summary);
	world_deinit(&world);
	world_init(&world);
	world.process.threads_total = 12;
	world.process.tasks = 85;
	world.process.tasks_limit = 100;
	cr_assert_eq(look(&world) + look(&world) + look(&world), 0);
	world_deinit(&world);
}

/* Where things are made. */

static struct pyspyd_frame opens[] = {
	{ .function = C("socket"),
		.qualname = C("socket"),
		.file = C("/lib/socket.py"),
		.module = C("socket"),
		.line = 9 },
	{ .function = C("connect"),
		.qualname = C("Pool.connect"),
		.file = C("/srv/app.py"),
		.module = C("app"),
		.line = 33 },
};
static const struct pyspyd_origin origins[] = {
	{ .what = PYSPYD_HANDLE_DESCRIPTOR,
		.kind = "socket",
		.call = "socket",
		.count = 298,
		.share = 298.0 / 300,
		.frames = opens,
		.frames_n = 2,
		.own = 1 },
	{ .what = PYSPYD_HANDLE_DESCRIPTOR, .kind = "file", .call = "open", .count = 2, .share = 2.0 / 300 },
	{ .what = PYSPYD_HANDLE_THREAD,
		.kind = "thread",
		.call = "thread",
		.count = 12,
		.share = 1,
		.frames = opens + 1,
		.frames_n = 1 },
	{ .what = PYSPYD_HANDLE_CHILD, .kind = "child", .call = "fork", .count = 7, .share = 1 },
};

Test(counter_leaks, where_descriptors_are_opened_is_said) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.origins = origins;
	world.origins_n = ARRAY_SIZE(origins);
	look(&world);
	cr_assert(!world.wishes.origins, "nothing grows yet");
	verdict = leak_descriptors(&world);
	cr_assert(strstr(verdict->summary,
			  "; of 300 that were seen to be opened, 298 came from Pool.connect (app.py:33)"),
		"%s", verdict->summary);
	cr_assert(strstr(verdict->advice, "Look at Pool.connect (app.py:33): "), "%s", verdict->advice);
	cr_assert_eq(verdict->origins_n, 2);
	cr_assert_eq(verdict->origins, origins);
	world_deinit(&world);
}

Test(counter_leaks, a_place_without_a_stack_is_not_named) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.origins = origins + 3;
	world.origins_n = 1;
	cr_assert(look_while(&world, 200, &world.process.children, 1));
	verdict = only(&world, "process-leak");
	cr_assert(!strstr(verdict->summary, "came from"), "%s", verdict->summary);
	cr_assert_eq(verdict->origins_n, 1);
	world_deinit(&world);
}

Test(counter_leaks, where_threads_are_started_is_said) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.origins = origins;
	world.origins_n = ARRAY_SIZE(origins);
	cr_assert(look_while(&world, 200, &world.process.threads_total, 1));
	verdict = only(&world, "thread-leak");
	cr_assert(
		strstr(verdict->summary, "; of 12 that were seen to be started, 12 came from Pool.connect (app.py:33)"),
		"%s", verdict->summary);
	cr_assert_eq(verdict->origins, origins + 2);
	cr_assert_eq(verdict->origins_n, 1);
	world_deinit(&world);
}

Test(counter_leaks, why_it_is_not_known_where_descriptors_are_opened) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.origins_why = "not permitted";
	verdict = leak_descriptors(&world);
	cr_assert_eq(verdict->origins_n, 0);
	cr_assert_str_eq(verdict->origins_why, "not permitted");
	cr_assert(strstr(verdict->advice, "groups what is open"));
	world_deinit(&world);
}
