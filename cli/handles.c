/* SPDX-License-Identifier: MIT */
/* pyspyd handles: what a process holds, and what of it grows. */
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/term.h"
#include "pyspyd/snapshot.h"
#include <unistd.h>

#define QUIET_NS (2 * NS_PER_SEC) /* work that takes longer says so */

struct handles_args {
	pid_t pid;
	const char *snapshot;
	bool json;
	uint64_t diff_ns, origins_ns;
};

static const struct option_spec options[] = {
	{ 'p', "pid", OPTION_PID, offsetof(struct handles_args, pid), "PID", "the process", NULL },
	{ 0, "snapshot", OPTION_STRING, offsetof(struct handles_args, snapshot), "FILE",
		"a file of pyspyd snapshot, instead of a process", NULL },
	{ 0, "json", OPTION_FLAG, offsetof(struct handles_args, json), NULL, "one JSON object, schema pyspyd.handles/1",
		NULL },
	{ 0, "diff", OPTION_DURATION, offsetof(struct handles_args, diff_ns), "DURATION",
		"look twice, so far apart, and say what grew", NULL },
	{ 0, "origins", OPTION_DURATION, offsetof(struct handles_args, origins_ns), "DURATION",
		"see for so long what is opened, started and mapped, and where (eBPF)", NULL },
	{ 0 },
};

static int look_at(const struct handles_args *args, const struct pyspyd_handles_options *how,
	struct pyspyd_handles **ret_handles, struct err *err) {
	struct pyspyd_snapshot *snapshot = NULL;
	int r;

	if (!args->snapshot)
		return pyspyd_handles_look(args->pid, how, ret_handles, err);
	r = pyspyd_snapshot_open(args->snapshot, &snapshot, err);
	if (!r)
		r = pyspyd_snapshot_handles(snapshot, ret_handles, err);
	pyspyd_snapshot_close(snapshot);
	return r;
}

static int run(const struct command *command, int argc, char **argv) {
	struct handles_args args = { 0 };
	struct pyspyd_handles_options look;
	uint64_t wait_ns;
	struct pyspyd_handles *handles = NULL;
	struct err err = { 0 };
	_free_ char *text = NULL;
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r < 0)
		r = options_pid_or_file(command, rest, &args.pid, "snapshot", args.snapshot);
	if (r >= 0)
		return r;
	if (args.snapshot && (args.diff_ns || args.origins_ns))
		return options_error(command, "--%s does not go with --snapshot", args.diff_ns ? "diff" : "origins");
	look.between_ns = args.diff_ns;
	look.origins_ns = args.origins_ns;
	look.stop = &cli_stop;
	wait_ns = args.diff_ns > args.origins_ns ? args.diff_ns : args.origins_ns;
	if (wait_ns > QUIET_NS && isatty(STDERR_FILENO))
		cli_say("looking%s in %.0f s; Ctrl-C: now", args.diff_ns ? " again" : "", (double)wait_ns / 1e9);
	r = look_at(&args, &look, &handles, &err);
	if (r)
		return cli_fail(r, &err);
	text = args.json ? pyspyd_handles_json(handles) : pyspyd_handles_text(handles, term_controls(STDOUT_FILENO));
	pyspyd_handles_free(handles);
	return cli_print(text);
}

const struct command handles_command = {
	.name = "handles",
	.summary = "Shows descriptors, threads, children and mappings, and what of them grows",
	.synopsis = "[--json] [--diff DURATION] [--origins DURATION] (--pid PID | PID | --snapshot FILE)",
	.details = "Descriptors stand by kind and target, threads by the function that they were started with. With\n"
		   "--diff what grew between two looks comes first. With --origins what was made meanwhile and is "
		   "still there\n"
		   "stands by the line that made it; what was there before is counted.",
	.example = "sudo pyspyd handles --diff 10s --pid 4711",
	.options = options,
	.takes = TAKES_PID,
	.run = run,
};
