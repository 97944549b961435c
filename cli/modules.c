/* SPDX-License-Identifier: MIT */
/* pyspyd modules: what a process has imported and loaded, in which versions. */
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/term.h"
#include "pyspyd/snapshot.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPECT_BYTES_MAX (4U << 20)

struct modules_args {
	pid_t pid;
	const char *snapshot;
	bool json, all;
	const char *expect;
	struct pyspyd_core_source core;
};

static const struct option_spec options[] = {
	{ 'p', "pid", OPTION_PID, offsetof(struct modules_args, pid), "PID", "the process", NULL },
	OPTIONS_CORE(struct modules_args, core),
	{ 0, "snapshot", OPTION_STRING, offsetof(struct modules_args, snapshot), "FILE",
		"a file of pyspyd snapshot, instead of a process", NULL },
	{ 0, "json", OPTION_FLAG, offsetof(struct modules_args, json), NULL, "one JSON object, schema pyspyd.modules/1",
		NULL },
	{ 0, "expect", OPTION_STRING, offsetof(struct modules_args, expect), "FILE",
		"mark what is not the version that a line name==version of FILE says", NULL },
	{ 0, "all", OPTION_FLAG, offsetof(struct modules_args, all), NULL,
		"show the standard library and the modules of packages too", NULL },
	{ 0 },
};

/* Return: -1 with *ret_text, the caller's; else the exit status, and the mistake was said. */
static int read_expect(const char *path, char **ret_text) {
	FILE *file = fopen(path, "re");
	char *text = file ? malloc(EXPECT_BYTES_MAX + 1) : NULL;
	size_t n = text ? fread(text, 1, EXPECT_BYTES_MAX + 1, file) : 0;
	const char *why = NULL;

	if (!text || ferror(file))
		why = strerror(errno);
	else if (n > EXPECT_BYTES_MAX)
		why = "it is larger than 4 MiB";
	else if (memchr(text, '\0', n))
		why = "it is not text";
	if (file)
		fclose(file);
	if (why) {
		cli_say("%s: %s", path, why);
		free(text);
		return STATUS_FAILED;
	}
	text[n] = '\0';
	*ret_text = text;
	return -1;
}

static int look_at(const struct modules_args *args, const struct pyspyd_modules_options *how,
	struct pyspyd_modules **ret_modules, struct err *err) {
	struct pyspyd_snapshot *snapshot = NULL;
	int r;

	if (!args->snapshot)
		return pyspyd_modules_look(args->pid, how, ret_modules, err);
	r = pyspyd_snapshot_open(args->snapshot, &snapshot, err);
	if (!r)
		r = pyspyd_snapshot_modules(snapshot, how, ret_modules, err);
	pyspyd_snapshot_close(snapshot);
	return r;
}

static int run(const struct command *command, int argc, char **argv) {
	struct modules_args args = { 0 };
	struct pyspyd_modules_options look = { 0 };
	struct pyspyd_modules *modules = NULL;
	struct err err = { 0 };
	_free_ char *text = NULL, *expect = NULL;
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r < 0)
		r = options_subject(command, rest, &args.pid, &args.core, args.snapshot);
	if (r < 0 && args.expect)
		r = read_expect(args.expect, &expect);
	if (r >= 0)
		return r;
	look.core = args.core;
	look.expect = expect;
	look.expect_name = args.expect;
	if (args.core.core)
		cli_end_at_signals();
	r = look_at(&args, &look, &modules, &err);
	if (r)
		return cli_fail(r, &err);
	text = args.json ? pyspyd_modules_json(modules)
			 : pyspyd_modules_text(modules, args.all, term_controls(STDOUT_FILENO));
	pyspyd_modules_free(modules);
	return cli_print(text);
}

const struct command modules_command = {
	.name = "modules",
	.summary = "Shows imported modules and native libraries with their versions",
	.synopsis = "[--json] [--expect FILE] [--all]\n"
		    "       (--pid PID | PID | --core FILE [--exe FILE] [--root DIR] | --snapshot FILE)",
	.details = "Versions are those of the installed distributions, as their metadata says, else __version__. What\n"
		   "is loaded twice, or in two versions, is marked.",
	.example = "sudo pyspyd modules --expect requirements.txt --pid 4711",
	.options = options,
	.takes = TAKES_PID,
	.run = run,
};
