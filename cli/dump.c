/* SPDX-License-Identifier: MIT */
/* pyspyd dump: all threads of a process, most recent call first. */
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/term.h"
#include "pyspyd/snapshot.h"
#include <unistd.h>

struct dump_args {
	pid_t pid;
	const char *snapshot;
	bool json;
	struct pyspyd_dump_options dump;
};

static const struct option_spec options[] = {
	{ 'p', "pid", OPTION_PID, offsetof(struct dump_args, pid), "PID", "the process", NULL },
	OPTIONS_CORE(struct dump_args, dump.core),
	{ 0, "snapshot", OPTION_STRING, offsetof(struct dump_args, snapshot), "FILE",
		"a file of pyspyd snapshot, instead of a process", NULL },
	{ 'l', "locals", OPTION_FLAG, offsetof(struct dump_args, dump.locals), NULL,
		"variables of every frame; secrets are masked by name", NULL },
	{ 0, "unmask", OPTION_FLAG, offsetof(struct dump_args, dump.unmask), NULL, "with --locals: mask nothing",
		NULL },
	{ 'n', "native", OPTION_FLAG, offsetof(struct dump_args, dump.native), NULL,
		"also native and kernel frames, and threads that Python does not know", NULL },
	{ 'a', "async", OPTION_FLAG, offsetof(struct dump_args, dump.async), NULL,
		"also the tasks of asyncio: what each waits for, as a tree", NULL },
	{ 0, "json", OPTION_FLAG, offsetof(struct dump_args, json), NULL, "one JSON object, schema pyspyd.dump/1",
		NULL },
	{ 0, "blocking", OPTION_FLAG, offsetof(struct dump_args, dump.blocking), NULL,
		"stop the threads while they are read (at most 100 ms)", NULL },
	{ 0 },
};

static int look(const struct dump_args *args, struct pyspyd_dump **ret_dump, struct err *err) {
	struct pyspyd_snapshot *snapshot = NULL;
	int r;

	if (!args->snapshot)
		return pyspyd_dump(args->pid, &args->dump, ret_dump, err);
	r = pyspyd_snapshot_open(args->snapshot, &snapshot, err);
	if (!r)
		r = pyspyd_snapshot_dump(snapshot, &args->dump, ret_dump, err);
	pyspyd_snapshot_close(snapshot);
	return r;
}

static int run(const struct command *command, int argc, char **argv) {
	struct dump_args args = { 0 };
	struct err err = { 0 };
	struct pyspyd_dump *dump = NULL;
	_free_ char *text = NULL;
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r < 0)
		r = options_subject(command, rest, &args.pid, &args.dump.core, args.snapshot);
	if (r < 0 && args.dump.core.core && args.dump.blocking)
		r = options_error(command, "--blocking is for processes that live");
	if (r >= 0)
		return r;
	if (args.snapshot && args.dump.blocking)
		return options_error(command, "--blocking does not go with --snapshot");
	if (args.dump.core.core)
		cli_end_at_signals();
	r = look(&args, &dump, &err);
	if (r)
		return cli_fail(r, &err);
	text = args.json ? pyspyd_dump_json(dump) : pyspyd_dump_text(dump, term_controls(STDOUT_FILENO));
	pyspyd_dump_free(dump);
	return cli_print(text);
}

const struct command dump_command = {
	.name = "dump",
	.summary = "Shows all threads of a process with their stacks, most recent call first",
	.synopsis = "[--native] [--locals] [--async] [--json] [--blocking]\n"
		    "       (--pid PID | PID | --core FILE [--exe FILE] [--root DIR] | --snapshot FILE)",
	.details = "",
	.example = "sudo pyspyd dump --locals 4711",
	.options = options,
	.takes = TAKES_PID,
	.run = run,
};
