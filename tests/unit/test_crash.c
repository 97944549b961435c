/* SPDX-License-Identifier: MIT */
/* The crash detector over a table of ends: which are findings, how grave, and in which words. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

#define PID 100
#define PARENT 7

static const struct detect_frame crash_frames[] = {
	{ .lang = PYSPYD_PYTHON,
		.function = "load",
		.qualname = "Codec.load",
		.file = "/srv/codec.py",
		.module = "",
		.line = 9 },
	{ .lang = PYSPYD_PYTHON,
		.function = "main",
		.qualname = "main",
		.file = "/srv/app.py",
		.module = "__main__",
		.line = 3 },
};
static const struct detect_frame print_frames[] = {
	{ .lang = PYSPYD_PYTHON,
		.function = "format",
		.qualname = "format",
		.file = "traceback.py",
		.module = "traceback" },
	{ .lang = PYSPYD_PYTHON,
		.function = "_print_exception_bltin",
		.qualname = "_print_exception_bltin",
		.file = "traceback.py",
		.module = "traceback" },
};
static const struct detect_stack crash_stack = { .share = 1, .frames = crash_frames, .frames_n = 2 };
static const struct detect_stack print_stack = { .share = 0, .frames = print_frames, .frames_n = 2 };

struct world {
	struct detect_set *set;
	struct detect_config config;
	detect_verdicts verdicts;
	struct detect_thread threads[2];
	struct detect_process process;
};

static void world_init(struct world *world) {
	*world = (struct world){ 0 };
	cr_assert_eq(detect_set_new(&world->set), 0);
	detect_config_init(&world->config);
	world->threads[0] = (struct detect_thread){
		.tid = PID, .name = "MainThread", .python = true, .stacks = &crash_stack, .stacks_n = 1
	};
	world->threads[1] = (struct detect_thread){
		.tid = 101, .name = "worker", .python = true, .stacks = &crash_stack, .stacks_n = 1
	};
	world->process = (struct detect_process){ .name = "app",
		.threads = world->threads,
		.threads_n = 2,
		.start_ns = NS_PER_SEC,
		.private_bytes = 9 << 20,
		.fds = 4,
		.threads_total = 2 };
}

static void world_deinit(struct world *world) {
	detect_set_free(world->set);
	vec_free(&world->verdicts);
}

static size_t ends(struct world *world, const struct detect_end *end) {
	const struct detect_input input = {
		.now_ns = 61 * NS_PER_SEC, .process = &world->process, .pid = PID, .end = end
	};

	cr_assert_eq(detect_set_decide(world->set, &world->config, &input, &world->verdicts), 0);
	return world->verdicts.n;
}

static const struct detect_verdict *said(struct world *world, const struct detect_end *end) {
	cr_assert_eq(ends(world, end), 1);
	cr_assert_str_eq(world->verdicts.items[0].kind, "crash");
	cr_assert_str_eq(world->verdicts.items[0].pattern, "Crash");
	cr_assert_eq(world->verdicts.items[0].presence, DETECT_PRESENT);
	return &world->verdicts.items[0];
}

#define SAYS(verdict, text) cr_assert(strstr((verdict)->summary, text), "%s", (verdict)->summary)

static const struct detect_fact *fact(const struct detect_verdict *verdict, const char *key) {
	for (size_t i = 0; i < verdict->facts_n; i++)
		if (!strcmp(verdict->facts[i].key, key))
			return &verdict->facts[i];
	return NULL;
}

Test(crash, ends_that_are_none) {
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGQUIT };
	static const int codes[] = { 0, 1, 2, 120, 255 };
	struct world world;

	world_init(&world);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		cr_assert_eq(ends(&world, &(struct detect_end){ .signal = signals[i] }), 0, "%d", signals[i]);
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		cr_assert_eq(ends(&world, &(struct detect_end){ .code = codes[i] }), 0, "%d", codes[i]);
	cr_assert_eq(ends(&world, NULL), 0);
	world_deinit(&world);
}

Test(crash, faults_name_the_thread_that_stumbled) {
	const struct detect_end end = { .signal = SIGSEGV,
		.code = -1,
		.core_dumped = true,
		.sent_known = true,
		.by_kernel = true,
		.sender = PID,
		.thread = 101,
		.address_known = true,
		.address = 16 };
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	verdict = said(&world, &end);
	cr_assert_eq(verdict->severity, PYSPYD_CRITICAL);
	cr_assert_str_eq(verdict->summary,
		"crash: the process died of SIGSEGV (a bad memory access), core dumped; worker was last seen in "
		"Codec.load "
		"(codec.py:9)");
	cr_assert_eq(verdict->parties_n, 2);
	cr_assert_eq(verdict->parties[0].thread->tid, 101);
	cr_assert_str_eq(verdict->parties[0].role, "crashed");
	cr_assert_str_eq(verdict->parties[1].role, "ended");
	cr_assert_str_eq(fact(verdict, "address")->text, "0x10");
	cr_assert_str_eq(fact(verdict, "sent_by")->text, "kernel");
	cr_assert_float_eq(fact(verdict, "uptime_s")->number, 60, 0.001);
	cr_assert_not(verdict->inferred);
	world_deinit(&world);
}

Test(crash, without_events_the_signal_alone_is_known) {
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.threads[0].stacks_n = world.threads[1].stacks_n = 0;
	verdict = said(&world, &(struct detect_end){ .signal = SIGABRT, .parent = -1 });
	cr_assert_str_eq(verdict->summary, "crash: the process died of SIGABRT (abort())");
	cr_assert_null(fact(verdict, "sent_by")->text);
	cr_assert_eq(verdict->severity, PYSPYD_CRITICAL);
	world.process.threads_n = 0;
	cr_assert_eq(said(&world, &(struct detect_end){ .signal = SIGBUS })->parties_n, 0);
	world_deinit(&world);
}

Test(crash, who_kills_decides_how_grave_it_is) {
	struct detect_end end = {
		.signal = SIGKILL, .parent = PARENT, .sent_known = true, .sender = PARENT, .sender_name = "gunicorn"
	};
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	verdict = said(&world, &end);
	cr_assert_eq(verdict->severity, PYSPYD_INFO);
	SAYS(verdict, "was killed (SIGKILL), sent by its parent gunicorn (pid 7); MainThread");
	end.sender = 8;
	cr_assert_eq(said(&world, &end)->severity, PYSPYD_WARNING);
	SAYS(&world.verdicts.items[0], "sent by gunicorn (pid 8)");
	end.sender = end.parent = 0; /* both outside, which does not make them one */
	cr_assert_eq(said(&world, &end)->severity, PYSPYD_WARNING);
	SAYS(&world.verdicts.items[0], "outside of this PID namespace");
	end.sender = PID;
	cr_assert_eq(said(&world, &end)->severity, PYSPYD_WARNING);
	SAYS(&world.verdicts.items[0], "sent by itself");
	end.sent_known = false;
	cr_assert_eq(said(&world, &end)->severity, PYSPYD_WARNING);
	cr_assert_eq(detect_config_set(&world.config, "crash.killed=0", NULL), 0);
	cr_assert_eq(ends(&world, &end), 0);
	world_deinit(&world);
}

Test(crash, want_of_memory_is_told_apart_and_inferred) {
	struct detect_end end = {
		.signal = SIGKILL, .parent = PARENT, .sent_known = true, .by_kernel = true, .oom = true
	};
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	verdict = said(&world, &end);
	cr_assert_eq(verdict->severity, PYSPYD_CRITICAL);
	cr_assert(verdict->inferred);
	SAYS(verdict, "killed by the kernel for want of memory; it had 9.0 MiB; MainThread");
	end.by_kernel = false; /* somebody sent it while memory ran out elsewhere */
	end.sender = 8;
	verdict = said(&world, &end);
	cr_assert_eq(verdict->severity, PYSPYD_WARNING);
	cr_assert_not(verdict->inferred);
	end = (struct detect_end){ .signal = SIGKILL, .oom = true, .parent = -1 };
	cr_assert_eq(said(&world, &end)->severity, PYSPYD_CRITICAL);
	end.signal = SIGSEGV;
	cr_assert_not(said(&world, &end)->inferred);
	world_deinit(&world);
}

Test(crash, a_watchdogs_abort_is_a_warning) {
	struct detect_end end = {
		.signal = SIGABRT, .parent = 1, .sent_known = true, .sender = 1, .sender_name = "systemd"
	};
	struct world world;

	world_init(&world);
	cr_assert_eq(said(&world, &end)->severity, PYSPYD_WARNING);
	SAYS(&world.verdicts.items[0], "died of SIGABRT, sent by its parent systemd (pid 1)");
	world_deinit(&world);
}

Test(crash, an_unhandled_exception_needs_the_interpreter_printing_it) {
	const struct detect_end one = { .code = 1 }, two = { .code = 2 };
	const struct detect_verdict *verdict;
	struct world world;

	world_init(&world);
	world.threads[1].stacks = &print_stack; /* a thread's exception ends no process */
	cr_assert_eq(ends(&world, &one), 0);
	world.threads[0].stacks = &print_stack;
	verdict = said(&world, &one);
	cr_assert_eq(verdict->severity, PYSPYD_WARNING);
	cr_assert(verdict->inferred);
	SAYS(verdict, "exited with status 1 after an unhandled exception");
	cr_assert_eq(ends(&world, &two), 0);
	world_deinit(&world);
}

Test(crash, names_are_foreign_text) {
	struct detect_end end = { .signal = SIGKILL, .sent_known = true, .sender = 9, .sender_name = "a\033[1m\n" };
	struct world world;

	world_init(&world);
	world.threads[0].name = "x\ny\033";
	said(&world, &end);
	for (const char *c = world.verdicts.items[0].summary; *c; c++)
		cr_assert((unsigned char)*c >= ' ', "%s", world.verdicts.items[0].summary);
	world_deinit(&world);
}
