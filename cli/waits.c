/* SPDX-License-Identifier: MIT */
/* pyspyd waits: who waits for what, who holds it, and who is stuck for good. */
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/term.h"
#include "pyspyd/snapshot.h"
#include <unistd.h>

/* Between the two looks: long enough for a program that works to show it, too short for anybody to mind. */
#define BETWEEN_NS (200 * NS_PER_MS)

struct waits_args {
	pid_t pid;
	const char *snapshot;
	bool json, dot, once, native;
	struct string_list park;
	struct pyspyd_core_source core;
};

static const struct option_spec options[] = {
	{ 'p', "pid", OPTION_PID, offsetof(struct waits_args, pid), "PID", "the process", NULL },
	OPTIONS_CORE(struct waits_args, core),
	{ 0, "snapshot", OPTION_STRING, offsetof(struct waits_args, snapshot), "FILE",
		"a file of pyspyd snapshot, instead of a process", NULL },
	{ 0, "json", OPTION_FLAG, offsetof(struct waits_args, json), NULL, "one JSON object, schema pyspyd.waits/1",
		NULL },
	{ 0, "dot", OPTION_FLAG, offsetof(struct waits_args, dot), NULL, "the graph for Graphviz", NULL },
	{ 0, "once", OPTION_FLAG, offsetof(struct waits_args, once), NULL,
		"one look, not two 200 ms apart: what passes is not told from what stands", NULL },
	{ 'n', "native", OPTION_FLAG, offsetof(struct waits_args, native), NULL,
		"native and kernel frames of threads that sleep, merged with Python's", NULL },
	{ 0, "park", OPTION_LIST, offsetof(struct waits_args, park), "MODULE:QUALNAME",
		"a function in which threads wait for work; may be repeated", NULL },
	{ 0 },
};

static int print(const struct waits_args *args, const struct pyspyd_waits *waits) {
	_free_ char *text = NULL;

	if (args->json)
		text = pyspyd_waits_json(waits);
	else if (args->dot)
		text = pyspyd_waits_dot(waits);
	else
		text = pyspyd_waits_text(waits, term_controls(STDOUT_FILENO));
	return cli_print(text);
}

static int look_at(const struct waits_args *args, const struct pyspyd_waits_options *how,
	struct pyspyd_waits **ret_waits, struct err *err) {
	struct pyspyd_snapshot *snapshot = NULL;
	int r;

	if (!args->snapshot)
		return pyspyd_waits_look(args->pid, how, ret_waits, err);
	r = pyspyd_snapshot_open(args->snapshot, &snapshot, err);
	if (!r)
		r = pyspyd_snapshot_waits(snapshot, how, ret_waits, err);
	pyspyd_snapshot_close(snapshot);
	return r;
}

static int run(const struct command *command, int argc, char **argv) {
	struct waits_args args = { 0 };
	struct pyspyd_waits_options look = { .between_ns = BETWEEN_NS };
	struct pyspyd_waits *waits = NULL;
	struct err err = { 0 };
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r < 0)
		r = options_subject(command, rest, &args.pid, &args.core, args.snapshot);
	if (r >= 0)
		return r;
	if (args.json && args.dot)
		return options_error(command, "--json and --dot exclude each other");
	if (args.snapshot && (args.once || args.park.n))
		return options_error(command, "--%s does not go with --snapshot", args.once ? "once" : "park");
	if (args.once)
		look.between_ns = 0;
	look.native = args.native;
	look.core = args.core;
	look.park = args.park.items;
	if (args.core.core)
		cli_end_at_signals();
	r = look_at(&args, &look, &waits, &err);
	if (r)
		return cli_fail(r, &err);
	r = print(&args, waits);
	pyspyd_waits_free(waits);
	return r;
}

const struct command waits_command = {
	.name = "waits",
	.summary = "Shows what each thread waits for and who holds it; deadlocks first",
	.synopsis = "[--json | --dot] [--once] [--native] [--park MODULE:QUALNAME]\n"
		    "       (--pid PID | PID | --core FILE [--exe FILE] [--root DIR] | --snapshot FILE)",
	.details = "Looks twice, 200 ms apart, so that a wait that passes is told from one that stands. A deadlock is\n"
		   "'proven' where every holder was read, else 'inferred', with the reason.",
	.example = "sudo pyspyd waits --pid 4711",
	.options = options,
	.takes = TAKES_PID,
	.run = run,
};
