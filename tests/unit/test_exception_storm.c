/* SPDX-License-Identifier: MIT */
/* The exception-storm detector over tables of looks: what must be found, and what looks like it and must not. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <string.h>

#define LOOKS 40 /* of a second */

struct world {
	struct detect_set *set;
	struct detect_config config;
	detect_verdicts verdicts;
	struct detect_process process;
	struct detect_thread thread;
	uint64_t now_ns;
};

static const struct detect_frame parse = {
	.function = "parse", .qualname = "parse", .file = "/srv/a.py", .module = "a", .line = 7
};
static const struct detect_frame logged[] = {
	{ .function = "emit", .qualname = "Handler.emit", .file = "/lib/handlers.py", .module = "logging.handlers" },
	{ .function = "parse", .qualname = "parse", .file = "/srv/a.py", .module = "a", .line = 8 },
};
static const struct detect_stack own_stack = { .share = 0.9, .frames = &parse, .frames_n = 1 };
static const struct detect_stack logging_stack = { .share = 0.8, .frames = logged, .frames_n = 2 };

static void world_init(struct world *world) {
	*world = (struct world){ .now_ns = 1000 * NS_PER_SEC };
	cr_assert_eq(detect_set_new(&world->set), 0);
	detect_config_init(&world->config);
	world->thread = (struct detect_thread){ .tid = 100,
		.start_ns = 5,
		.name = "worker",
		.state = 'R',
		.python = true,
		.stacks = &own_stack,
		.stacks_n = 1 };
	world->process = (struct detect_process){ .threads = &world->thread,
		.threads_n = 1,
		.period_ns = NS_PER_SEC,
		.gil_switches_per_s = 0,
		.gc_share = -1 };
}

static void world_deinit(struct world *world) {
	detect_set_free(world->set);
	vec_free(&world->verdicts);
}

/* Return: the verdict of this second's look; NULL: none. */
static const struct detect_verdict *second(struct world *world, const struct detect_exceptions *exceptions) {
	const struct detect_input input = { .now_ns = world->now_ns += NS_PER_SEC, .process = &world->process };

	world->thread.exceptions = *exceptions;
	cr_assert_eq(detect_set_decide(world->set, &world->config, &input, &world->verdicts), 0);
	vec_foreach (verdict, &world->verdicts)
		if (!strcmp(verdict->kind, "exception-storm"))
			return verdict;
	return NULL;
}

/* How many seconds of these it takes until something is said; 0: nothing in `max`. */
static int seconds(struct world *world, const struct detect_exceptions *exceptions, int max) {
	for (int i = 1; i <= max; i++)
		if (second(world, exceptions))
			return i;
	return 0;
}

static const struct detect_exceptions storm = { LOOKS, 4, 6, 0, 6, 3, "ValueError", 10 };
static const struct detect_exceptions calm = { .looks = LOOKS };

Test(exception_storm, is_found_and_resolved) {
	const struct detect_verdict *verdict = NULL;
	struct world world;
	int after;

	world_init(&world);
	after = seconds(&world, &storm, 60);
	cr_assert(after >= 30 && after <= 32, "after %d s", after);
	verdict = second(&world, &storm);
	cr_assert_eq(verdict->presence, DETECT_PRESENT);
	cr_assert_eq(verdict->severity, PYSPYD_WARNING);
	cr_assert_str_eq(verdict->pattern, "Managed Code Exception");
	cr_assert_eq(verdict->parties[0].thread->tid, 100);
	cr_assert_str_eq(verdict->summary,
		"exception-storm: worker (tid 100) does little but raise ValueError in parse (a.py:7): one was on its "
		"way "
		"in 10 % of the looks, for 31 s");
	for (int i = 0; i < 29; i++) {
		verdict = second(&world, &calm);
		cr_assert(verdict && verdict->presence == DETECT_PRESENT && verdict->fading);
	}
	verdict = second(&world, &calm);
	cr_assert(verdict && verdict->presence == DETECT_ABSENT);
	cr_assert_null(second(&world, &calm));
	world_deinit(&world);
}

Test(exception_storm, of_reports_is_found) {
	static const struct detect_exceptions reporting = { LOOKS, 0, 38, 36, 30, 6, "KeyError", 38 };
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.thread.stacks = &logging_stack;
	cr_assert_gt(seconds(&world, &reporting, 60), 0);
	verdict = second(&world, &reporting);
	cr_assert_str_eq(verdict->parties[0].role, "reporting");
	cr_assert(strstr(verdict->summary, "does little but report KeyError"));
	world_deinit(&world);
}

/* Looks that stay the same for two minutes, and are no storm. */
static const struct {
	const char *what;
	struct detect_exceptions looks;
	const struct detect_stack *stack;
} healthy[] = {
	{ "nothing", { .looks = LOOKS }, &own_stack },
	{ "was not looked at", { 0 }, &own_stack },
	{ "too few looks", { 4, 4, 0, 0, 0, 0, "ValueError", 4 }, &own_stack },
	{ "the whole program runs in an except block", { LOOKS, 0, 40, 40, 39, 0, "ImportError", 40 }, &own_stack },
	{ "it logs in an except block that lasts", { LOOKS, 0, 40, 40, 39, 0, "ImportError", 40 }, &logging_stack },
	{ "work in handlers", { LOOKS, 0, 38, 0, 36, 1, "KeyError", 38 }, &own_stack },
	{ "work that handlers call, other exceptions all the time", { LOOKS, 1, 38, 38, 30, 20, "KeyError", 38 },
		&own_stack },
	{ "some errors", { LOOKS, 1, 2, 0, 2, 2, "AttributeError", 3 }, &own_stack },
};

Test(exception_storm, what_is_none) {
	for (size_t i = 0; i < ARRAY_SIZE(healthy); i++) {
		struct world world;

		world_init(&world);
		world.thread.stacks = healthy[i].stack;
		cr_assert_eq(seconds(&world, &healthy[i].looks, 120), 0, "%s", healthy[i].what);
		world_deinit(&world);
	}
}

/* Errors come in bursts of 10 s, one in two minutes. */
Test(exception_storm, bursts_are_none) {
	struct world world;

	world_init(&world);
	for (int i = 0; i < 600; i++)
		cr_assert_null(second(&world, i % 120 < 10 ? &storm : &calm), "after %d s", i);
	world_deinit(&world);
}

/* The mean counts, not each second. */
Test(exception_storm, that_jumps_is_found) {
	static const struct detect_exceptions strong = { LOOKS, 6, 6, 0, 6, 3, "ValueError", 12 };
	struct world world;
	bool found = false;

	world_init(&world);
	for (int i = 0; i < 60 && !found; i++)
		found = second(&world, i % 3 == 2 ? &calm : &strong) != NULL;
	cr_assert(found);
	world_deinit(&world);
}

Test(exception_storm, of_another_thread_begins_anew) {
	struct world world;

	world_init(&world);
	cr_assert_eq(seconds(&world, &storm, 20), 0);
	world.thread.start_ns = 6;
	cr_assert_eq(seconds(&world, &storm, 20), 0);
	world_deinit(&world);
}
