/* SPDX-License-Identifier: MIT */
/* pyspyd snapshot: everything about a process in one file, and what such a file holds. */
#include "pyspyd/snapshot.h"

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/term.h"
#include "pyspyd/text.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct snapshot_args {
	pid_t pid;
	const char *file, *info, *section;
	bool json;
	struct pyspyd_snapshot_options take;
};

static const struct option_spec options[] = {
	{ 'p', "pid", OPTION_PID, offsetof(struct snapshot_args, pid), "PID", "the process", NULL },
	OPTIONS_CORE(struct snapshot_args, take.core),
	{ 'o', "output", OPTION_STRING, offsetof(struct snapshot_args, file), "FILE",
		"where the snapshot goes; - is stdout", NULL },
	{ 0, "unmask", OPTION_FLAG, offsetof(struct snapshot_args, take.unmask), NULL,
		"mask no values: secrets get into the file", NULL },
	{ 0, "blocking", OPTION_FLAG, offsetof(struct snapshot_args, take.blocking), NULL,
		"stop the threads while their stacks are read (at most 100 ms)", NULL },
	{ 0, "info", OPTION_STRING, offsetof(struct snapshot_args, info), "FILE", "show what a snapshot holds", NULL },
	{ 0, "json", OPTION_FLAG, offsetof(struct snapshot_args, json), NULL,
		"with --info: one JSON object, schema pyspyd.snapshot/1", NULL },
	{ 0, "section", OPTION_STRING, offsetof(struct snapshot_args, section), "NAME",
		"with --info: the JSON of one part (dump, objects, waits, counters, handles, maps, modules, heap)",
		NULL },
	{ 0 },
};

static bool on_progress(void *userdata, const char *part) {
	bool *shown = userdata;

	if (term_controls(STDERR_FILENO)) {
		fprintf(stderr, "\r\033[K%s", part);
		*shown = true;
	}
	return cli_stop;
}

static void clear_progress(bool *shown) {
	if (*shown)
		fputs("\r\033[K", stderr);
	*shown = false;
}

static void on_missing(void *userdata, const char *part, const struct err *err) {
	clear_progress(userdata);
	cli_say("%s could not be taken: %s", part, err->text);
}

static int fail_output(const char *file_name, int r) {
	_free_ char *printable = pyspyd_printable(file_name);

	cli_say("cannot write %s: %s", printable ? printable : "the file", strerror(-r));
	return STATUS_FAILED;
}

/* What could not be taken was said, unless there is nothing else. */
static int take_to(struct snapshot_args *args, struct output *output) {
	_free_ char *printable = pyspyd_printable(args->file);
	bool shown = false, taken;
	struct err err = { 0 };
	int r, kept;

	args->take.progress = on_progress;
	args->take.missing = on_missing;
	args->take.userdata = &shown;
	r = pyspyd_snapshot_take(args->pid, &args->take, output->fd, &taken, &err);
	clear_progress(&shown);
	if (!taken)
		return cli_fail(r, &err);
	kept = output_commit(output);
	if (kept)
		return fail_output(args->file, kept);
	if (strcmp(args->file, "-") != 0)
		cli_say("wrote %s", printable ? printable : "the file");
	return cli_status(r);
}

static int take(struct snapshot_args *args) {
	struct output output;
	int r = output_open(args->file, &output);

	if (r)
		return fail_output(args->file, r);
	r = take_to(args, &output);
	output_deinit(&output);
	return r;
}

static int show(const struct snapshot_args *args) {
	struct pyspyd_snapshot *snapshot = NULL;
	struct err err = { 0 };
	_free_ char *text = NULL;
	size_t len;
	int r = pyspyd_snapshot_open(args->info, &snapshot, &err);

	if (!r && args->section)
		r = pyspyd_snapshot_section(snapshot, args->section, &text, &len, &err);
	else if (!r)
		text = args->json ? pyspyd_snapshot_json(snapshot) : pyspyd_snapshot_text(snapshot);
	pyspyd_snapshot_close(snapshot);
	return r ? cli_fail(r, &err) : cli_print(text);
}

static int run(const struct command *command, int argc, char **argv) {
	struct snapshot_args args = { 0 };
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r >= 0)
		return r;
	if (args.info &&
		(args.pid || rest[0] || args.file || args.take.unmask || args.take.blocking || args.take.core.core))
		return options_error(command, "--info reads a file: it goes with --json and --section alone");
	if (!args.info && (args.json || args.section))
		return options_error(command, "--%s goes with --info", args.json ? "json" : "section");
	if (args.json && args.section)
		return options_error(command, "--json and --section exclude each other");
	if (args.info)
		return show(&args);
	r = options_subject(command, rest, &args.pid, &args.take.core, NULL);
	if (r >= 0)
		return r;
	if (args.take.core.core && args.take.blocking)
		return options_error(command, "--blocking: the threads of a core stand still");
	if (!args.file)
		return options_error(command, "where to? Give --output FILE");
	if (!strcmp(args.file, "-") && isatty(STDOUT_FILENO))
		return options_error(command, "--output: a terminal cannot show a snapshot");
	return take(&args);
}

const struct command snapshot_command = {
	.name = "snapshot",
	.summary = "Writes everything about a process into one file, to be read elsewhere",
	.synopsis = "[--unmask] [--blocking] -o FILE\n"
		    "       (--pid PID | PID | --core FILE [--exe FILE] [--root DIR])\n"
		    "       pyspyd snapshot [--json | --section NAME] --info FILE",
	.details =
		"Stacks with native frames, variables and tasks, waits, counters, descriptors, mappings, modules and\n"
		"the heap by types. 'pyspyd dump --snapshot FILE' and its like read it. Values are masked by name.",
	.example = "sudo pyspyd snapshot --pid 4711 -o app.pyspyd",
	.options = options,
	.takes = TAKES_PID,
	.run = run,
};
