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

/* A process whose clock the test moves; windows are of a minute, a look is a second. */
struct world {
	struct detect_set *set;
	struct detect_config config;
	detect_verdicts verdicts;
	struct detect_process process;
	struct detect_thread threads[THREADS_MAX];
	char names[THREADS_MAX][32];
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
	const struct detect_input input = { .now_ns = world->now_ns += NS_PER_SEC, .process = &world->process };

	cr_assert_eq(detect_set_decide(world->set, &world->config, &input, &world->verdicts), 0);
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
	cr_assert(after > 60 && after <= 95, "found after %d s", after);
	verdict = only(&world, "handle-leak");
	cr_assert_eq(verdict->presence, DETECT_PRESENT);
	cr_assert_eq(verdict->severity, PYSPYD_WARNING);
	cr_assert(verdict->inferred);
	cr_assert_leq(verdict->since_ns, 100010 * NS_PER_SEC);
	cr_assert_eq(fact(verdict, "count")->count, 20 + 2 * (uint64_t)after);
	cr_assert_float_eq(fact(verdict, "per_hour")->number, 7200, 50);
	cr_assert_float_eq(fact(verdict, "time_left_s")->number, 32670, 200);
	cr_assert(strstr(verdict->summary, "(7200 an hour); the limit is reached in 9 h"), "%s", verdict->summary);
	for (int i = 0; i < 100 && verdict->presence == DETECT_PRESENT; i++) {
		cr_assert_eq(look(&world), 1);
		verdict = only(&world, "handle-leak");
	}
	cr_assert_eq(verdict->presence, DETECT_ABSENT);
	cr_assert_str_eq(verdict->ended, "no-growth");
	cr_assert_eq(look(&world), 0);
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
	cr_assert_str_eq(verdict->summary, "handle-leak: 810 descriptors are open, 81 % of the limit of 1000", "%s",
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
