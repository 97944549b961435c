/* SPDX-License-Identifier: MIT */
/* The spiking-thread detector over tables of time: what must be found, and what looks like it and must not. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define THREADS_MAX 8

/* A process whose clock the test moves. */
struct world {
	struct detect_set *set;
	struct detect_config config;
	detect_verdicts verdicts;
	struct detect_process process;
	struct detect_thread threads[THREADS_MAX];
	uint64_t now_ns;
};

static const struct detect_frame frames[] = {
	{ .lang = PYSPYD_NATIVE, .function = "scan_once", .qualname = "scan_once", .file = "_json.so", .module = "" },
	{ .function = "parse", .qualname = "Reader.parse", .file = "/srv/app/json.py", .module = "", .line = 88 },
	{ .function = "main", .qualname = "main", .file = "/srv/app/app.py", .module = "__main__", .line = 3 },
};
static const struct detect_stack stacks[] = { { .share = 0.93, .frames = frames, .frames_n = 3 } };

static void world_init(struct world *world, size_t threads_n) {
	*world = (struct world){ .now_ns = 1000 * NS_PER_SEC };
	cr_assert_eq(detect_set_new(&world->set), 0);
	detect_config_init(&world->config);
	for (size_t i = 0; i < threads_n; i++)
		world->threads[i] = (struct detect_thread){ .tid = 100 + (pid_t)i,
			.start_ns = 5,
			.name = "worker-3",
			.state = 'R',
			.python = true,
			.samples = 200,
			.stacks = stacks,
			.stacks_n = 1 };
	world->process = (struct detect_process){
		.threads = world->threads, .threads_n = threads_n, .period_ns = NS_PER_SEC, .gil_switches_per_s = 0
	};
}

static void world_deinit(struct world *world) {
	detect_set_free(world->set);
	vec_free(&world->verdicts);
}

static void use(struct world *world, size_t thread, double cpu_percent, uint64_t interval_ns) {
	struct detect_thread *t = &world->threads[thread];

	t->interval_ns = interval_ns;
	t->run_ns = (uint64_t)((double)interval_ns * cpu_percent / 100);
	t->user_ns = t->run_ns / 4 * 3;
	t->system_ns = t->run_ns / 4;
}

/* One look after interval_ns; every thread's use is set before. Return: how many verdicts. */
static size_t look(struct world *world, uint64_t interval_ns) {
	const struct detect_input input = { .now_ns = world->now_ns += interval_ns, .process = &world->process };

	cr_assert_eq(detect_set_decide(world->set, &world->config, &input, &world->verdicts), 0);
	return world->verdicts.n;
}

static size_t second(struct world *world, double cpu_percent) {
	use(world, 0, cpu_percent, NS_PER_SEC);
	return look(world, NS_PER_SEC);
}

/* n equal seconds of thread 0. Return: the number of verdicts in all of them. */
static size_t seconds(struct world *world, int n, double cpu_percent) {
	size_t verdicts = 0;

	for (int i = 0; i < n; i++)
		verdicts += second(world, cpu_percent);
	return verdicts;
}

static const struct detect_verdict *only(const struct world *world) {
	cr_assert_eq(world->verdicts.n, 1);
	return &world->verdicts.items[0];
}

static const struct detect_fact *fact(const struct detect_verdict *verdict, const char *key) {
	for (size_t i = 0; i < verdict->facts_n; i++)
		if (!strcmp(verdict->facts[i].key, key))
			return &verdict->facts[i];
	cr_assert_fail("no fact %s", key);
	return NULL;
}

Test(spiking_thread, ten_seconds_of_a_core_are_found) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world, 2);
	cr_assert_eq(seconds(&world, 9, 99), 0);
	cr_assert_eq(second(&world, 99), 1);
	verdict = only(&world);
	cr_assert_str_eq(verdict->kind, "spiking-thread");
	cr_assert_eq(verdict->presence, DETECT_PRESENT);
	cr_assert_eq(verdict->severity, PYSPYD_WARNING);
	cr_assert_eq(verdict->since_ns, 1000 * NS_PER_SEC);
	cr_assert_eq(verdict->parties_n, 1);
	cr_assert_eq(verdict->parties[0].thread->tid, 100);
	cr_assert_float_eq(fact(verdict, "cpu_percent")->number, 99, 0.01);
	cr_assert_float_eq(fact(verdict, "user_percent")->number, 74.25, 0.01);
	cr_assert_float_eq(fact(verdict, "system_percent")->number, 24.75, 0.01);
	cr_assert_float_eq(fact(verdict, "window_s")->number, 10, 0.001);
	cr_assert_str_eq(fact(verdict, "verdict")->text, "python-loop");
	cr_assert_not(verdict->inferred);
	cr_assert_str_eq(verdict->summary,
		"spiking-thread: worker-3 (tid 100) uses 99 % of a core for 10 s in "
		"Reader.parse (json.py:88), python-loop");
	world_deinit(&world);
}

Test(spiking_thread, is_said_while_it_lasts_and_once_when_it_has_gone) {
	uint64_t key;
	struct world world;

	world_init(&world, 1);
	seconds(&world, 10, 100);
	key = only(&world)->key;
	cr_assert_eq(seconds(&world, 100, 100), 100);
	cr_assert_eq(only(&world)->key, key);
	cr_assert_leq(fact(only(&world), "window_s")->number, 20);
	cr_assert_not(only(&world)->fading);
	cr_assert_eq(seconds(&world, 4, 1), 4);
	cr_assert_eq(only(&world)->presence, DETECT_PRESENT);
	cr_assert(only(&world)->fading);
	cr_assert_eq(second(&world, 1), 1);
	cr_assert_eq(only(&world)->presence, DETECT_ABSENT);
	cr_assert_str_eq(only(&world)->ended, "calm");
	cr_assert_eq(only(&world)->key, key);
	cr_assert_eq(seconds(&world, 20, 1), 0);
	seconds(&world, 10, 100);
	cr_assert_neq(only(&world)->key, key);
	world_deinit(&world);
}

Test(spiking_thread, threads_at_forty_percent_are_none) {
	struct world world;

	world_init(&world, THREADS_MAX);
	for (int i = 0; i < 600; i++) {
		for (size_t t = 0; t < THREADS_MAX; t++)
			use(&world, t, 40, NS_PER_SEC);
		cr_assert_eq(look(&world, NS_PER_SEC), 0);
	}
	world_deinit(&world);
}

/* One second of thread 0, part of it spent waiting for a CPU. */
static size_t crowded_second(struct world *world, double cpu_percent, double wait_percent) {
	use(world, 0, cpu_percent, NS_PER_SEC);
	world->threads[0].wait_ns = (uint64_t)(NS_PER_SEC * wait_percent / 100);
	return look(world, NS_PER_SEC);
}

Test(spiking_thread, a_spin_on_a_crowded_machine_is_found) {
	struct world world;
	size_t verdicts = 0;

	world_init(&world, 1);
	for (int i = 0; i < 10; i++)
		verdicts += crowded_second(&world, 45, 54);
	cr_assert_eq(verdicts, 1);
	cr_assert_float_eq(fact(only(&world), "cpu_percent")->number, 45, 0.01);
	cr_assert_float_eq(fact(only(&world), "waited_percent")->number, 54, 0.01);
	cr_assert(strstr(only(&world)->summary, "uses 45 % of a core and waits for one 54 % of the time"));
	world_deinit(&world);
}

Test(spiking_thread, a_spin_that_hardly_gets_to_run_is_found_later) {
	struct world world;
	int seconds = 1;

	world_init(&world, 1);
	while (!crowded_second(&world, 12, 87) && seconds < 100)
		seconds++;
	cr_assert_eq(seconds, 25); /* three of them on a CPU */
	cr_assert(strstr(only(&world)->summary, "uses 12 % of a core and waits for one 87 % of the time"));
	world_deinit(&world);
}

/* The kernel counts a wait when it is over. */
Test(spiking_thread, a_wait_that_is_not_over_is_no_sleep) {
	struct world world;
	size_t verdicts = 0;

	world_init(&world, 1);
	world.threads[0].state = 'R';
	for (int i = 0; i < 5; i++) {
		verdicts += crowded_second(&world, 45, 20);
		verdicts += crowded_second(&world, 45, 90);
	}
	cr_assert_eq(verdicts, 1);
	cr_assert_float_eq(fact(only(&world), "waited_percent")->number, 55, 0.01);
	world_deinit(&world);
}

Test(spiking_thread, one_that_sleeps_and_waits_is_none) {
	struct world world;

	world_init(&world, 1);
	world.threads[0].state = 'R';
	for (int i = 0; i < 600; i++)
		cr_assert_eq(crowded_second(&world, 45, 35), 0);
	world_deinit(&world);
}

Test(spiking_thread, work_now_and_then_on_a_crowded_machine_is_none) {
	struct world world;

	world_init(&world, 1);
	for (int i = 0; i < 600; i++) {
		cr_assert_eq(crowded_second(&world, 40, 40), 0); /* sleeps a fifth of the time */
		cr_assert_eq(crowded_second(&world, 10, 90), 0); /* hardly gets to run: what it would do is not known */
	}
	world_deinit(&world);
}

Test(spiking_thread, bursts_of_five_seconds_are_none) {
	struct world world;

	world_init(&world, 1);
	for (int i = 0; i < 60; i++)
		cr_assert_eq(seconds(&world, 5, 100) + seconds(&world, 2, 5), 0);
	world_deinit(&world);
}

Test(spiking_thread, a_mean_just_below_is_none_and_noise_does_not_hide_one) {
	struct world world;

	world_init(&world, 1);
	for (int i = 0; i < 100; i++)
		cr_assert_eq(second(&world, i % 2 ? 98 : 80), 0);
	seconds(&world, 3, 0);
	for (int i = 0; i < 9; i++)
		cr_assert_eq(second(&world, i % 4 == 1 ? 80 : 100), 0);
	cr_assert_eq(second(&world, 100), 1);
	world_deinit(&world);
}

Test(spiking_thread, flapping_around_the_threshold_stays_one) {
	struct world world;
	uint64_t key;

	world_init(&world, 1);
	seconds(&world, 10, 95);
	key = only(&world)->key;
	for (int i = 0; i < 200; i++) {
		cr_assert_eq(second(&world, i % 3 ? 40 : 95), 1);
		cr_assert_eq(only(&world)->presence, DETECT_PRESENT);
		cr_assert_eq(only(&world)->key, key);
	}
	cr_assert_eq(seconds(&world, 50, 73), 50);
	cr_assert_eq(only(&world)->presence, DETECT_PRESENT);
	world_deinit(&world);
}

Test(spiking_thread, a_batch_that_is_expected_is_info) {
	struct world world;

	world_init(&world, 1);
	world.process.expect_busy = true;
	seconds(&world, 10, 100);
	cr_assert_eq(only(&world)->severity, PYSPYD_INFO);
	world_deinit(&world);
}

Test(spiking_thread, late_looks_count_by_their_time) {
	struct world world;

	world_init(&world, 1);
	for (int i = 0; i < 4; i++) {
		use(&world, 0, 97, 2400 * NS_PER_MS);
		cr_assert_eq(look(&world, 2400 * NS_PER_MS), 0);
	}
	use(&world, 0, 97, 400 * NS_PER_MS);
	cr_assert_eq(look(&world, 400 * NS_PER_MS), 1);
	world_deinit(&world);
}

Test(spiking_thread, a_gap_starts_candidates_again_and_keeps_faults) {
	struct world world;

	world_init(&world, 1);
	seconds(&world, 9, 100);
	use(&world, 0, 100, 60 * NS_PER_SEC);
	cr_assert_eq(look(&world, 60 * NS_PER_SEC), 0);
	cr_assert_eq(seconds(&world, 9, 100), 0);
	cr_assert_eq(second(&world, 100), 1);
	seconds(&world, 4, 0);
	use(&world, 0, 0, 60 * NS_PER_SEC);
	cr_assert_eq(look(&world, 60 * NS_PER_SEC), 1);
	cr_assert_eq(only(&world)->presence, DETECT_PRESENT);
	cr_assert_eq(seconds(&world, 4, 0), 4);
	cr_assert_eq(only(&world)->presence, DETECT_PRESENT);
	seconds(&world, 1, 0);
	cr_assert_eq(only(&world)->presence, DETECT_ABSENT);
	world_deinit(&world);
}

Test(spiking_thread, the_first_look_knows_nothing) {
	struct world world;

	world_init(&world, 1);
	use(&world, 0, 100, 0);
	cr_assert_eq(look(&world, 0), 0);
	cr_assert_eq(seconds(&world, 9, 100), 0);
	cr_assert_eq(second(&world, 100), 1);
	world_deinit(&world);
}

Test(spiking_thread, a_thread_that_ends_takes_its_fault_along) {
	struct world world;

	world_init(&world, 2);
	seconds(&world, 10, 100);
	world.process.threads++;
	world.process.threads_n--;
	cr_assert_eq(look(&world, NS_PER_SEC), 1);
	cr_assert_eq(only(&world)->presence, DETECT_ABSENT);
	cr_assert_str_eq(only(&world)->ended, "thread-ended");
	cr_assert_eq(look(&world, NS_PER_SEC), 0);
	world_deinit(&world);
}

Test(spiking_thread, a_reused_thread_id_inherits_nothing) {
	struct world world;

	world_init(&world, 1);
	seconds(&world, 9, 100);
	world.threads[0].start_ns++;
	cr_assert_eq(seconds(&world, 9, 100), 0);
	second(&world, 100);
	cr_assert_eq(only(&world)->presence, DETECT_PRESENT);
	world.threads[0].start_ns++;
	second(&world, 100);
	cr_assert_eq(only(&world)->presence, DETECT_ABSENT);
	world_deinit(&world);
}

Test(spiking_thread, two_threads_are_two_faults) {
	struct world world;

	world_init(&world, 3);
	for (int i = 0; i < 10; i++) {
		use(&world, 0, 96, NS_PER_SEC);
		use(&world, 2, 97, NS_PER_SEC);
		look(&world, NS_PER_SEC);
	}
	cr_assert_eq(world.verdicts.n, 2);
	cr_assert_neq(world.verdicts.items[0].key, world.verdicts.items[1].key);
	/* Both end at once. */
	world.process.threads_n = 0;
	cr_assert_eq(look(&world, NS_PER_SEC), 2);
	world_deinit(&world);
}

static const char *cause_of(struct world *world) {
	seconds(world, 10, 100);
	return fact(only(world), "verdict")->text;
}

Test(spiking_thread, names_the_cause) {
	struct detect_thread *thread;
	struct world world;

	world_init(&world, 2);
	thread = &world.threads[0];
	thread->shares.native = 0.8;
	cr_assert_str_eq(cause_of(&world), "native");
	cr_assert_null(only(&world)->certain_why);
	thread->shares.gc = 0.7;
	cr_assert_str_eq(cause_of(&world), "gc");
	thread->shares = (struct detect_shares){ 0 };
	world.threads[1].shares.gil_waiting = 0.9;
	world.process.gil_switches_per_s = 180;
	cr_assert_str_eq(cause_of(&world), "gil-convoy");
	cr_assert(only(&world)->inferred);
	world.process.gil_switches_per_s = -1;
	cr_assert_str_eq(cause_of(&world), "python-loop");
	thread->shares.native = -1;
	cause_of(&world);
	cr_assert(only(&world)->inferred);
	cr_assert_not_null(only(&world)->certain_why);
	thread->samples = 0;
	thread->stacks_n = 0;
	cr_assert_str_eq(cause_of(&world), "unknown");
	thread->python = false;
	cr_assert_str_eq(cause_of(&world), "native");
	cr_assert_not(only(&world)->inferred);
	world_deinit(&world);
}

Test(spiking_thread, system_time_makes_it_the_kernel) {
	struct world world;

	world_init(&world, 1);
	for (int i = 0; i < 10; i++) {
		use(&world, 0, 100, NS_PER_SEC);
		world.threads[0].user_ns = 200 * NS_PER_MS;
		world.threads[0].system_ns = 800 * NS_PER_MS;
		look(&world, NS_PER_SEC);
	}
	cr_assert_str_eq(fact(only(&world), "verdict")->text, "kernel");
	cr_assert_float_eq(fact(only(&world), "system_percent")->number, 80, 0.01);
	world_deinit(&world);
}

Test(spiking_thread, native_code_without_user_time_may_be_the_kernel) {
	struct world world;

	world_init(&world, 1);
	world.threads[0].shares.native = 0.8;
	for (int i = 0; i < 10; i++) {
		use(&world, 0, 100, NS_PER_SEC);
		world.threads[0].user_ns = world.threads[0].system_ns = 0;
		look(&world, NS_PER_SEC);
	}
	cr_assert_str_eq(fact(only(&world), "verdict")->text, "native");
	cr_assert_not_null(strstr(only(&world)->certain_why, "system calls"));
	world_deinit(&world);
}

Test(spiking_thread, settings_move_the_line) {
	struct err err = { 0 };
	struct world world;

	world_init(&world, 1);
	cr_assert_eq(detect_config_set(&world.config, "spiking-thread.pct=50%", &err), 0);
	cr_assert_eq(detect_config_set(&world.config, "spiking-thread.for=3s", &err), 0);
	cr_assert_eq(detect_config_set(&world.config, "spiking-thread.resolve-for=0", &err), 0);
	cr_assert_eq(seconds(&world, 2, 60), 0);
	cr_assert_eq(second(&world, 60), 1);
	second(&world, 45);
	cr_assert_eq(only(&world)->presence, DETECT_PRESENT);
	second(&world, 39);
	cr_assert_eq(only(&world)->presence, DETECT_ABSENT);
	world_deinit(&world);
}

Test(spiking_thread, bad_settings_are_refused_with_their_name) {
	static const char *const bad[] = { "", "pct=9", "spiking-thread.pct",
		"spiking-thread.pct=", "spiking-thread.pct=0", "spiking-thread.pct=101", "spiking-thread.pct=9x",
		"spiking-thread.for=10y", "spiking-thread.pc=10", "spiking-threads.pct=10", "spiking-thread.pct=%",
		"spiking-thread.for=99999999h",
		"spiking-thread.pct=1111111111111111111111111111111111111111111111111" };
	struct detect_config config, untouched;
	struct err err;

	detect_config_init(&config);
	untouched = config;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err = (struct err){ 0 };
		cr_assert_eq(detect_config_set(&config, bad[i], &err), PYSPYD_E_USAGE, "%s", bad[i]);
		cr_assert_not_null(strstr(err.text, "spiking-thread."));
		cr_assert_arr_eq(&config, &untouched, sizeof(config));
	}
}

Test(spiking_thread, hostile_names_leave_the_summary_one_printable_line) {
	char name[10001];
	struct detect_frame frame = { .function = name, .qualname = name, .file = name, .module = name, .line = 1 };
	struct detect_stack stack = { .share = 1, .frames = &frame, .frames_n = 1 };
	static const char *const pieces[] = { "\x1b[2J", "\xff", "\xe2\x80\xae", "é", "\n" };
	struct world world;

	for (size_t p = 0; p < ARRAY_SIZE(pieces); p++) {
		name[0] = '\0';
		for (size_t n = 0; n + strlen(pieces[p]) < 10000; n += strlen(pieces[p]))
			memcpy(name + n, pieces[p], strlen(pieces[p]) + 1);
		world_init(&world, 1);
		world.threads[0].name = name;
		world.threads[0].stacks = &stack;
		seconds(&world, 10, 100);
		cr_assert_not_null(strstr(only(&world)->summary, ", python-loop"));
		for (const char *c = only(&world)->summary; *c; c++)
			cr_assert((unsigned char)*c >= 0x20 && *c != 0x7f);
		world_deinit(&world);
	}
}

Test(spiking_thread, durations_read_well) {
	static const struct {
		uint64_t s;
		const char *text;
	} table[] = { { 0, "0 s" }, { 12, "12 s" }, { 60, "1 min 0 s" }, { 185, "3 min 5 s" }, { 7800, "2 h 10 min" } };
	char text[32];

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		detect_duration_text(table[i].s * NS_PER_SEC, text, sizeof(text));
		cr_assert_str_eq(text, table[i].text);
	}
}
