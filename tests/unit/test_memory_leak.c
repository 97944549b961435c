/* SPDX-License-Identifier: MIT */
/* memory-leak, oom-risk and gc-pressure over tables of numbers and made-up heaps. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/detect/words.h"
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define C(text) ((char *)(uintptr_t)(text)) /* nobody writes into it */
#define MIB (1024 * 1024LL)
#define GIB (1024 * MIB)
#define BETWEEN_S 40
#define RATE (2 * MIB) /* a second, of what leaks */

/* What a comparison shows: an application whose sessions are never taken out. Numbers are of BETWEEN_S at RATE. */
struct heap {
	struct pyspyd_heap heap;
	struct pyspyd_heap_type types[4];
	struct pyspyd_heap_container containers[4];
	struct pyspyd_heap_line lines[2];
	struct pyspyd_heap_mapping mappings[2];
};

static void heap_init(struct heap *heap) {
	*heap = (struct heap){
		.types = {
			{ .type = C("dict"), .count = 90000, .grew_count = 17800, .grew_bytes = 50 * MIB,
				.kept_by = C("app.sessions"), .kept_share = 0.9 },
			{ .type = C("app.Session"), .count = 58900, .grew_count = 17700, .grew_bytes = 9 * MIB,
				.kept_by = C("app.sessions"), .kept_share = 0.97 },
			{ .type = C("app.Config"), .count = 20, .grew_count = 2, .grew_bytes = 4096 },
			{ .type = C("list"), .count = 100, .grew_count = -3, .grew_bytes = -MIB },
		},
		.containers = {
			{ .path = C("logging.root.handlers"), .type = C("list"), .length = 70, .bytes = 700, .grew = 2 },
			{ .path = C("app.sessions"), .type = C("dict"), .length = 58900, .bytes = 4 * MIB, .grew = 17700 },
			{ .path = C("app.names"), .type = C("set"), .length = 60000, .bytes = 4 * MIB, .grew = 17900 },
			{ .type = C("dict"), .address = 0xabc0, .length = 900000, .bytes = 9 * MIB, .grew = 20000 },
		},
		.mappings = {
			{ C("anonymous"), 12, 400 * MIB, 0, 70 * MIB },
			{ C("[heap]"), 1, 90 * MIB, 0, 9 * MIB },
		},
	};
	heap->heap = (struct pyspyd_heap){ .types = heap->types,
		.types_n = ARRAY_SIZE(heap->types),
		.containers = heap->containers,
		.containers_n = ARRAY_SIZE(heap->containers),
		.mappings = heap->mappings,
		.mappings_n = ARRAY_SIZE(heap->mappings),
		.grew_private = BETWEEN_S * RATE,
		.grew_objects = 71000,
		.grew_bytes = 60 * MIB,
		.grew_other = 5 * MIB,
		.between_ns = BETWEEN_S * NS_PER_SEC };
}

/* The parts of the growth, in percent; the rest is native. */
static void heap_grew(struct heap *heap, int python_pct, int free_pct) {
	for (size_t i = 0; i < ARRAY_SIZE(heap->types); i++)
		heap->types[i].grew_bytes = python_pct > 50 ? heap->types[i].grew_bytes : MIB;
	heap->heap.grew_bytes = heap->heap.grew_private * python_pct / 100;
	heap->heap.grew_other = 0;
	heap->heap.grew_free = heap->heap.grew_private * free_pct / 100;
}

/* A process whose clock the test moves; windows are of a minute, a look is a second. */
struct world {
	struct detect_set *set;
	struct detect_config config;
	detect_verdicts verdicts;
	struct detect_process process;
	struct heap heap;
	bool counts; /* wishes are granted: with the next look */
	const char *why;
	uint64_t counted_ns;
	unsigned firsts, growths, forgets; /* looks that wished so */
	struct detect_wishes wishes;
	uint64_t now_ns;
};

static void world_init(struct world *world) {
	static const char *const settings[] = { "memory-leak.window=1m", "oom-risk.window=1m",
		"gc-pressure.grace=30s" };

	*world = (struct world){ .now_ns = 100000 * NS_PER_SEC, .counts = true };
	heap_init(&world->heap);
	cr_assert_eq(detect_set_new(&world->set), 0);
	detect_config_init(&world->config);
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		cr_assert_eq(detect_config_set(&world->config, settings[i], NULL), 0);
	world->process = (struct detect_process){ .period_ns = NS_PER_SEC,
		.gil_switches_per_s = -1,
		.start_ns = NS_PER_SEC,
		.private_bytes = 200 * MIB,
		.memory_bytes = UINT64_MAX,
		.memory_limit_bytes = UINT64_MAX,
		.host_available_bytes = 900 * GIB,
		.memory_stall_pct = -1,
		.gc_share = -1 };
}

static void world_deinit(struct world *world) {
	detect_set_free(world->set);
	vec_free(&world->verdicts);
}

static size_t look(struct world *world) {
	struct detect_input input = { .process = &world->process, .heap_why = world->why, .wishes = &world->wishes };

	if (world->wishes.heap_growth && world->counts)
		world->counted_ns = world->now_ns;
	if (world->wishes.heap_forget)
		world->counted_ns = 0;
	input.now_ns = world->now_ns += NS_PER_SEC;
	input.heap = world->counted_ns ? &world->heap.heap : NULL;
	input.heap_ns = world->counted_ns;
	world->wishes = (struct detect_wishes){ 0 };
	cr_assert_eq(detect_set_decide(world->set, &world->config, &input, &world->verdicts), 0);
	world->firsts += world->wishes.heap_first;
	world->growths += world->wishes.heap_growth;
	world->forgets += world->wishes.heap_forget;
	return world->verdicts.n;
}

/* Looks until something is said. Return: after how many seconds; 0: never in `seconds`. */
static int look_while(struct world *world, int seconds, int64_t per_second) {
	for (int i = 1; i <= seconds; i++) {
		world->process.private_bytes += (uint64_t)per_second;
		if (look(world))
			return i;
	}
	return 0;
}

static const struct detect_verdict *only(const struct world *world, const char *kind) {
	cr_assert_eq(world->verdicts.n, 1, "%zu verdicts", world->verdicts.n);
	cr_assert_str_eq(world->verdicts.items[0].kind, kind);
	return &world->verdicts.items[0];
}

static const struct detect_verdict *leak(struct world *world) {
	cr_assert(look_while(world, 200, RATE), "no finding");
	return only(world, "memory-leak");
}

static const struct detect_fact *fact(const struct detect_verdict *verdict, const char *key) {
	for (size_t i = 0; i < verdict->facts_n; i++)
		if (!strcmp(verdict->facts[i].key, key))
			return &verdict->facts[i];
	cr_assert_fail("no fact %s", key);
	return NULL;
}

#define SAYS(verdict, text) cr_assert(strstr((verdict)->summary, text), "%s", (verdict)->summary)

static void check_text(void (*add)(struct strbuf *sb, double value), double value, const char *text) {
	struct strbuf sb = { 0 };

	add(&sb, value);
	cr_assert_str_eq(strbuf_str(&sb), text);
	strbuf_deinit(&sb);
}

Test(memory_leak, numbers_are_for_people) {
	check_text(detect_add_count, 0, "0");
	check_text(detect_add_count, 999, "999");
	check_text(detect_add_count, 1000, "1,000");
	check_text(detect_add_count, 58900, "58,900");
	check_text(detect_add_count, -1234567, "-1,234,567");
	check_text(detect_add_count, 1e300, "1,000,000,000,000,000,000");
	check_text(detect_add_bytes, 0, "0 B");
	check_text(detect_add_bytes, 1023, "1023 B");
	check_text(detect_add_bytes, 1024, "1.0 KiB");
	check_text(detect_add_bytes, 1048575, "1.0 MiB");
	check_text(detect_add_bytes, 9.34 * 1048576, "9.3 MiB");
	check_text(detect_add_bytes, -2.0 * GIB, "-2.0 GiB");
}

Test(memory_leak, what_keeps_the_programs_own_type_is_named) {
	const struct detect_verdict *verdict;
	struct world world;
	int after;

	world_init(&world);
	after = look_while(&world, 200, RATE);
	cr_assert(after > 100 && after < 140, "found after %d s", after);
	verdict = only(&world, "memory-leak");
	cr_assert_eq(verdict->severity, PYSPYD_WARNING);
	cr_assert_not(verdict->inferred);
	cr_assert_not(verdict->fading);
	cr_assert_eq(verdict->heap, &world.heap.heap);
	SAYS(verdict, "memory-leak: ");
	SAYS(verdict,
		" (7.0 GiB an hour): app.sessions: dict, 41,200 → 58,900 items in 40 s; "
		"app.Session +17,700 objects (+9.0 MiB), 97 % of them in app.sessions");
	cr_assert_str_eq(fact(verdict, "cause")->text, "python");
	cr_assert_str_eq(fact(verdict, "container")->text, "app.sessions");
	cr_assert_str_eq(fact(verdict, "container_type")->text, "dict");
	cr_assert_str_eq(fact(verdict, "type")->text, "app.Session");
	cr_assert_null(fact(verdict, "line")->text);
	cr_assert_null(fact(verdict, "mapping")->text);
	cr_assert_float_eq(fact(verdict, "mib_per_hour")->number, 7200, 20);
	world_deinit(&world);
}

Test(memory_leak, a_finding_stays_until_the_growth_ends) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	leak(&world);
	/* A comparison that shows nothing takes nothing back, and is no moment to show. */
	world.heap.heap.grew_private = 0;
	for (int i = 0; i < 20; i++)
		cr_assert_eq(look_while(&world, 1, RATE), 1);
	verdict = only(&world, "memory-leak");
	cr_assert_eq(verdict->presence, DETECT_PRESENT);
	cr_assert(verdict->fading);
	cr_assert_str_eq(fact(verdict, "cause")->text, "python");
	for (int i = 0; i < 200 && verdict->presence == DETECT_PRESENT; i++) {
		cr_assert_eq(look(&world), 1);
		verdict = only(&world, "memory-leak");
	}
	cr_assert_eq(verdict->presence, DETECT_ABSENT);
	cr_assert_str_eq(verdict->ended, "no-growth");
	cr_assert(world.forgets > 0);
	cr_assert_eq(look(&world), 0);
	world_deinit(&world);
}

Test(memory_leak, counts_are_wished_for_when_they_are_needed) {
	struct world world;

	world_init(&world);
	for (int i = 0; i < 600; i++) {
		/* Work comes and goes. */
		world.process.private_bytes = (uint64_t)((300 + i * 7919 % 200) * MIB);
		cr_assert_eq(look(&world), 0);
	}
	cr_assert_eq(world.firsts + world.growths + world.forgets, 0);
	world_deinit(&world);
	world_init(&world);
	world.counts = false;
	cr_assert_eq(look_while(&world, 200, RATE), 0);
	cr_assert(world.firsts > 100);
	/* Not granted: asked for again. */
	cr_assert(world.growths > 50 && world.growths < 100, "%u", world.growths);
	world.counts = true;
	world.growths = 0;
	cr_assert_eq(look_while(&world, 10, RATE), 1);
	for (int i = 0; i < 60; i++)
		look_while(&world, 1, RATE);
	/* Granted: every eighth of the window. */
	cr_assert(world.growths >= 6 && world.growths <= 9, "%u", world.growths);
	world_deinit(&world);
}

Test(memory_leak, native_memory_is_said_to_be_native) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	heap_grew(&world.heap, 5, 0);
	verdict = leak(&world);
	cr_assert(verdict->inferred);
	cr_assert(strstr(verdict->certain_why, "the Python heap did not grow"));
	cr_assert_str_eq(fact(verdict, "cause")->text, "native");
	cr_assert_str_eq(fact(verdict, "mapping")->text, "anonymous");
	cr_assert_null(fact(verdict, "type")->text);
	SAYS(verdict, "an hour): native memory: anonymous +70.0 MiB, [heap] +9.0 MiB; the Python heap +4.0 MiB");
	cr_assert_not(strstr(verdict->summary, "app."));
	world_deinit(&world);
	world_init(&world);
	heap_grew(&world.heap, 5, 0);
	world.heap.mappings[1].grew_bytes = 7 * MIB; /* too little for a name */
	SAYS(leak(&world), "native memory: anonymous +70.0 MiB; the Python heap");
	world_deinit(&world);
}

Test(memory_leak, mixed_growth_says_both) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	heap_grew(&world.heap, 35, 0);
	verdict = leak(&world);
	cr_assert(verdict->inferred);
	cr_assert_str_eq(fact(verdict, "cause")->text, "mixed");
	SAYS(verdict, "app.sessions: dict, 41,200 → 58,900 items");
	SAYS(verdict, "; native memory: anonymous +70.0 MiB");
	world_deinit(&world);
}

Test(memory_leak, what_is_kept_free_or_did_not_grow_is_none) {
	struct world world;

	world_init(&world);
	heap_grew(&world.heap, 10, 60);
	cr_assert_eq(look_while(&world, 300, RATE), 0);
	world_deinit(&world);
	world_init(&world);
	world.heap.heap.grew_private = -MIB;
	cr_assert_eq(look_while(&world, 300, RATE), 0);
	world_deinit(&world);
	world_init(&world);
	heap_grew(&world.heap, 5, 0);
	world.heap.heap.grew_private = BETWEEN_S * RATE / 5;
	cr_assert_eq(look_while(&world, 300, RATE), 0);
	world_deinit(&world);
}

Test(memory_leak, healthy_memory_is_none) {
	struct world world;
	uint64_t filled = 0;

	world_init(&world);
	for (int i = 0; i < 3000; i++) {
		int64_t sawtooth = i % 50 * 4 * MIB, step = i > 1000 ? 500 * MIB : 0;

		filled = filled + (uint64_t)(500 * MIB - (int64_t)filled) / 40; /* a cache */
		world.process.private_bytes = (uint64_t)(100 * MIB + sawtooth + step) + filled;
		cr_assert_eq(look(&world), 0, "second %d: %s", i, world.verdicts.items[0].summary);
	}
	world_deinit(&world);
	world_init(&world);
	world.process.private_bytes = UINT64_MAX;
	for (int i = 0; i < 200; i++)
		cr_assert_eq(look(&world), 0);
	world_deinit(&world);
}

Test(memory_leak, where_nothing_can_be_counted_the_numbers_have_to_do) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.why = "the version is not known";
	verdict = leak(&world);
	cr_assert(verdict->inferred);
	cr_assert_str_eq(verdict->certain_why, "the version is not known");
	cr_assert_str_eq(fact(verdict, "cause")->text, "unknown");
	cr_assert_null(verdict->heap);
	cr_assert_eq(world.firsts, 0);
	cr_assert(world.growths < 4); /* it may become possible */
	world_deinit(&world);
}

Test(memory_leak, an_incomplete_count_proves_nothing) {
	struct world world;

	world_init(&world);
	world.heap.heap.incomplete = true;
	cr_assert(leak(&world)->inferred);
	world_deinit(&world);
}

Test(memory_leak, a_larger_container_outdoes_the_one_of_the_type) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.heap.containers[2].length = 900000;
	world.heap.containers[2].grew = 800000;
	verdict = leak(&world);
	SAYS(verdict, "app.names: set, 100,000 → 900,000 items in 40 s; app.Session +17,700");
	world_deinit(&world);
}

Test(memory_leak, paths_of_one_thread_are_one_way) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.heap.containers[1].path = C("serve.<locals>.all (in thread MainThread)");
	world.heap.types[1].kept_by = C("serve.<locals>.all['open'] (in thread MainThread)");
	verdict = leak(&world);
	SAYS(verdict, "serve.<locals>.all (in thread MainThread): dict, 41,200 → 58,900 items in 40 s; app.Session");
	world_deinit(&world);
	world_init(&world);
	world.heap.containers[1].path = C("serve.<locals>.all (in thread other)");
	world.heap.types[1].kept_by = C("serve.<locals>.all['open'] (in thread MainThread)");
	verdict = leak(&world);
	SAYS(verdict, "app.names: set, ");
	world_deinit(&world);
}

Test(memory_leak, types_stand_in_for_containers_and_containers_for_paths) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.heap.types[1].kept_by = C("worker.<locals>.head");
	world.heap.heap.containers_n = 1; /* handlers: some grow by chance */
	verdict = leak(&world);
	SAYS(verdict, "an hour): app.Session +17,700 objects (+9.0 MiB), 97 % of them in worker.<locals>.head");
	cr_assert_null(fact(verdict, "container")->text);
	world_deinit(&world);
	world_init(&world);
	for (size_t i = 0; i < ARRAY_SIZE(world.heap.types); i++)
		world.heap.types[i].kept_by = NULL;
	world.heap.types[1].grew_count = world.heap.types[1].grew_bytes = 3; /* some, by chance */
	for (size_t i = 1; i < 3; i++)
		world.heap.containers[i].grew = 0;
	verdict = leak(&world);
	SAYS(verdict, "an hour): a dict at 0xabc0 with no path known, 880,000 → 900,000 items in 40 s; dict +17,800");
	cr_assert_null(fact(verdict, "container")->text);
	cr_assert_str_eq(fact(verdict, "container_type")->text, "dict");
	world_deinit(&world);
}

Test(memory_leak, a_new_container_has_no_number_before) {
	struct world world;

	world_init(&world);
	world.heap.containers[1].is_new = true;
	world.heap.containers[1].grew = 0;
	SAYS(leak(&world), "app.sessions: dict, 58,900 items, new in 40 s");
	world_deinit(&world);
}

Test(memory_leak, the_line_that_allocates_is_said_where_it_is_known) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.heap.lines[0] = (struct pyspyd_heap_line){ .file = C("/srv/app/web.py"), .line = 3, .grew_bytes = 10 };
	world.heap.lines[1] = (struct pyspyd_heap_line){ .file = C("/srv/app.py"), .line = 12, .grew_bytes = 5 * MIB };
	world.heap.heap.lines = world.heap.lines;
	world.heap.heap.lines_n = 2;
	verdict = leak(&world);
	SAYS(verdict, "; allocated at app.py:12 (+5.0 MiB)");
	cr_assert_str_eq(fact(verdict, "line")->text, "app.py:12");
	world_deinit(&world);
}

Test(memory_leak, the_nearest_limit_makes_it_critical) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.process.memory_limit_bytes = 50 * GIB;
	world.process.memory_bytes = 5 * GIB;
	verdict = leak(&world);
	cr_assert_eq(verdict->severity, PYSPYD_WARNING);
	SAYS(verdict, "in app.sessions; the limit of 50.0 GiB is reached in 7 h ");
	cr_assert_eq(fact(verdict, "limit")->count, 50 * GIB);
	cr_assert_float_eq(fact(verdict, "time_left_s")->number, 25400, 300);
	world_deinit(&world);
	world_init(&world);
	world.process.host_available_bytes = 600 * MIB;
	cr_assert_eq(detect_config_set(&world.config, "oom-risk.left=0", NULL), 0);
	verdict = leak(&world);
	cr_assert_eq(verdict->severity, PYSPYD_CRITICAL);
	SAYS(verdict, "; the machine's memory is used up in 5 min 0 s");
	world_deinit(&world);
}

/* oom-risk */

Test(oom_risk, growth_that_meets_the_limit_within_the_hour_is_critical) {
	const struct detect_verdict *verdict;
	struct world world;
	int after;

	world_init(&world);
	world.process.memory_limit_bytes = GIB;
	world.process.memory_bytes = 400 * MIB;
	after = look_while(&world, 100, 4 * MIB);
	cr_assert(after > 45 && after < 70, "after %d s", after);
	verdict = only(&world, "oom-risk");
	cr_assert_eq(verdict->severity, PYSPYD_CRITICAL);
	cr_assert(verdict->inferred);
	SAYS(verdict, "oom-risk: the process has ");
	SAYS(verdict, " MiB, the limit of 1.0 GiB is reached in 2 min ");
	cr_assert_str_eq(fact(verdict, "limit_of")->text, "control group");
	for (int i = 0; i < 120 && verdict->presence == DETECT_PRESENT; i++) {
		cr_assert_eq(look(&world), 1);
		verdict = only(&world, "oom-risk");
	}
	cr_assert_eq(verdict->presence, DETECT_ABSENT);
	cr_assert_str_eq(verdict->ended, "calm");
	cr_assert_eq(look(&world), 0);
	world_deinit(&world);
}

Test(oom_risk, the_machine_is_a_limit_too) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.process.host_available_bytes = GIB;
	cr_assert(look_while(&world, 100, 4 * MIB));
	verdict = only(&world, "oom-risk");
	SAYS(verdict, " and the machine 1.0 GiB left, which are used up in 4 min ");
	cr_assert_str_eq(fact(verdict, "limit_of")->text, "machine");
	world_deinit(&world);
}

Test(oom_risk, pages_of_files_are_no_use) {
	struct world world;

	world_init(&world);
	world.process.memory_limit_bytes = 2 * GIB;
	world.process.memory_bytes = 100 * MIB;
	for (int i = 0; i < 480; i++) {
		world.process.memory_bytes += 4 * MIB;
		cr_assert_eq(look(&world), 0, "%s", world.verdicts.items[0].summary);
	}
	world_deinit(&world);
}

Test(oom_risk, neighbours_in_the_group_bring_the_limit_nearer) {
	struct world world;
	int after = 0;

	world_init(&world);
	world.process.memory_limit_bytes = 40 * GIB;
	world.process.memory_bytes = 20 * GIB;
	for (int i = 0; !after && i < 100; i++) {
		world.process.memory_bytes += 100 * MIB;
		after = look_while(&world, 1, 4 * MIB);
	}
	cr_assert(after);
	SAYS(only(&world, "oom-risk"), ", the limit of 40.0 GiB is reached in 2 min ");
	world_deinit(&world);
}

Test(oom_risk, jobs_that_take_what_they_need_are_none) {
	struct world world;

	world_init(&world);
	world.process.memory_limit_bytes = 1000 * MIB;
	for (int i = 0; i < 2000; i++) {
		int64_t batch = i % 100 < 40 ? i % 100 * 15 : 0; /* grows for a while and gives it back */

		world.process.private_bytes = (uint64_t)((100 + batch) * MIB);
		world.process.memory_bytes = world.process.private_bytes;
		cr_assert_eq(look(&world), 0, "second %d: %s", i, world.verdicts.items[0].summary);
	}
	for (int i = 0; i < 1000; i++) { /* at once to 96 %, and no stall */
		world.process.private_bytes = world.process.memory_bytes = 960 * MIB;
		world.process.memory_stall_pct = i % 100 < 2 ? 30 : 0;
		cr_assert_eq(look(&world), 0, "second %d: %s", i, world.verdicts.items[0].summary);
	}
	world_deinit(&world);
}

Test(oom_risk, a_full_group_whose_tasks_wait_is_critical) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.process.memory_limit_bytes = 1000 * MIB;
	world.process.memory_bytes = 960 * MIB;
	world.process.memory_stall_pct = 25;
	cr_assert_eq(look(&world) + look(&world), 0);
	cr_assert_eq(look(&world), 1);
	verdict = only(&world, "oom-risk");
	cr_assert_eq(verdict->severity, PYSPYD_CRITICAL);
	cr_assert_not(verdict->inferred);
	SAYS(verdict,
		"oom-risk: the control group uses 96 % of its limit of 1000.0 MiB, and its tasks wait for memory "
		"25 % of the time");
	world.process.memory_stall_pct = 5;
	cr_assert_eq(look(&world), 1);
	cr_assert_not(only(&world, "oom-risk")->fading);
	world.process.memory_stall_pct = 0;
	for (int i = 0; i < 29; i++)
		cr_assert_eq(look(&world), 1);
	cr_assert(only(&world, "oom-risk")->fading);
	cr_assert_eq(look(&world), 1);
	cr_assert_eq(only(&world, "oom-risk")->presence, DETECT_ABSENT);
	world_deinit(&world);
}

Test(oom_risk, a_minute_says_nothing_of_the_next_hour) {
	struct world world;

	world_init(&world);
	world.process.memory_limit_bytes = 3 * GIB;
	cr_assert_eq(look_while(&world, 100, 4 * MIB), 0);
	world_deinit(&world);
}

Test(oom_risk, a_warning_is_a_matter_of_the_setting) {
	struct world world;

	world_init(&world);
	world.process.memory_limit_bytes = 8 * GIB;
	cr_assert_eq(look_while(&world, 100, 4 * MIB), 0);
	cr_assert_eq(detect_config_set(&world.config, "oom-risk.warn=6h", NULL), 0);
	cr_assert_eq(look_while(&world, 1, 4 * MIB), 1);
	cr_assert_eq(only(&world, "oom-risk")->severity, PYSPYD_WARNING);
	world_deinit(&world);
}

/* gc-pressure */

static size_t look_gc(struct world *world, double share) {
	struct detect_collector *collector = world->process.collector;

	world->process.gc_share = share;
	collector[0].collections += 10;
	collector[2].collections += 2;
	collector[2].collected += 7;
	return look(world);
}

Test(gc_pressure, a_share_that_stays_high_is_found_and_resolved) {
	const struct detect_verdict *verdict;
	struct detect_thread thread = { .tid = 5, .name = "MainThread", .state = 'R', .shares.gc = 0.6 };
	struct detect_frame frame = { PYSPYD_PYTHON, "load", "load", "/srv/app.py", "app", 9 };
	struct detect_stack stack = { .share = 1, .frames = &frame, .frames_n = 1 };
	struct world world;
	int after = 0;

	world_init(&world);
	thread.stacks = &stack;
	thread.stacks_n = 1;
	world.process.threads = &thread;
	world.process.threads_n = 1;
	while (after < 200 && !look_gc(&world, after % 2 ? 0.3 : 0.8))
		after++;
	cr_assert(after > 55 && after < 70, "after %d s", after);
	verdict = only(&world, "gc-pressure");
	cr_assert_eq(verdict->severity, PYSPYD_WARNING);
	cr_assert_eq(verdict->parties_n, 1);
	cr_assert_str_eq(verdict->parties[0].role, "collecting");
	SAYS(verdict,
		"gc-pressure: the process has spent 55 % of its time on collecting garbage for 1 min 0 s in load "
		"(app.py:9); 118 full collections have found 413 objects to free");
	cr_assert_float_eq(fact(verdict, "full_collections_per_minute")->number, 118, 0.1);
	cr_assert_float_eq(fact(verdict, "collected_per_full_collection")->number, 3.5, 0.01);
	cr_assert_eq(fact(verdict, "uncollectable")->number, 0);
	for (after = 0; after < 200 && verdict->presence == DETECT_PRESENT; after++) {
		cr_assert_eq(look_gc(&world, 0.1), 1);
		verdict = only(&world, "gc-pressure");
	}
	cr_assert(after > 50 && after < 70, "after %d s", after);
	cr_assert_str_eq(verdict->ended, "calm");
	cr_assert_eq(look_gc(&world, 0.1), 0);
	world_deinit(&world);
}

Test(gc_pressure, start_up_bursts_and_what_is_unknown_are_none) {
	struct world world;

	world_init(&world);
	cr_assert_eq(detect_config_set(&world.config, "gc-pressure.grace=5m", NULL), 0);
	world.process.start_ns = world.now_ns;
	for (int i = 0; i < 290; i++)
		cr_assert_eq(look_gc(&world, 0.9), 0);
	for (int i = 0; i < 600; i++)
		cr_assert_eq(look_gc(&world, i % 60 < 20 ? 0.9 : 0.05), 0, "second %d", i);
	for (int i = 0; i < 200; i++)
		cr_assert_eq(look_gc(&world, -1), 0);
	for (int i = 0; i < 200; i++) {
		/* Suspended every half minute: nothing is known in between. */
		world.now_ns += i % 30 ? 0 : 100 * NS_PER_SEC;
		cr_assert_eq(look_gc(&world, 0.9), 0);
	}
	world_deinit(&world);
}
