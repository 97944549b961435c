/* SPDX-License-Identifier: MIT */
/* pyspyd heap: objects by type and the largest containers, and what of that grew. */
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/term.h"
#include "pyspyd/parse.h"
#include "pyspyd/snapshot.h"
#include <stdio.h>
#include <unistd.h>

#define TOP_DEFAULT 20 /* on the screen; JSON has all types */

struct heap_args {
	pid_t pid;
	const char *snapshot;
	bool json;
	const char *top;
	uint64_t diff_ns;
	bool no_paths;
	struct pyspyd_core_source core;
};

static const struct option_spec options[] = {
	{ 'p', "pid", OPTION_PID, offsetof(struct heap_args, pid), "PID", "the process", NULL },
	OPTIONS_CORE(struct heap_args, core),
	{ 0, "snapshot", OPTION_STRING, offsetof(struct heap_args, snapshot), "FILE",
		"a file of pyspyd snapshot, instead of a process", NULL },
	{ 'n', "top", OPTION_STRING, offsetof(struct heap_args, top), "N",
		"types and containers that are shown (default: 20; with --json all types)", NULL },
	{ 0, "diff", OPTION_DURATION, offsetof(struct heap_args, diff_ns), "DURATION",
		"count twice, that far apart, and show what grew", NULL },
	{ 0, "no-paths", OPTION_FLAG, offsetof(struct heap_args, no_paths), NULL,
		"do not look for who keeps what (that takes some passes over the memory)", NULL },
	{ 0, "json", OPTION_FLAG, offsetof(struct heap_args, json), NULL, "one JSON object, schema pyspyd.heap/1",
		NULL },
	{ 0 },
};

struct progress {
	bool shown;  /* a line is on the terminal */
	bool waited; /* the wait between two counts was cut short: what grew until then is counted all the same */
};

static bool on_progress(void *userdata, uint64_t done_bytes, uint64_t all_bytes) {
	struct progress *progress = userdata;

	if (!all_bytes)
		return progress->waited = cli_stop != 0;
	if (term_controls(STDERR_FILENO)) {
		progress->shown = true;
		fprintf(stderr, "\r%.0f %% of %.0f MiB", 100 * (double)done_bytes / (double)all_bytes,
			(double)all_bytes / (1 << 20));
	}
	return cli_stop && !progress->waited;
}

static int look(const struct heap_args *args, const struct pyspyd_heap_options *count, struct pyspyd_heap **ret_heap,
	struct err *err) {
	struct pyspyd_snapshot *snapshot = NULL;
	int r;

	if (!args->snapshot)
		return pyspyd_heap_count(args->pid, count, ret_heap, err);
	r = pyspyd_snapshot_open(args->snapshot, &snapshot, err);
	if (!r)
		r = pyspyd_snapshot_heap(snapshot, count, ret_heap, err);
	pyspyd_snapshot_close(snapshot);
	return r;
}

static int show(const struct heap_args *args, size_t top) {
	struct pyspyd_heap *heap = NULL;
	struct progress progress = { 0 };
	const struct pyspyd_heap_options count = {
		.core = args->core,
		.top = top,
		.diff_ns = args->diff_ns,
		.no_paths = args->no_paths,
		.progress = on_progress,
		.userdata = &progress,
	};
	struct err err = { 0 };
	_free_ char *text = NULL;
	int r = look(args, &count, &heap, &err);

	if (progress.shown)
		fputs("\r\033[K", stderr);
	if (r)
		return cli_fail(r, &err);
	text = args->json ? pyspyd_heap_json(heap) : pyspyd_heap_text(heap, term_controls(STDOUT_FILENO));
	pyspyd_heap_free(heap);
	return cli_print(text);
}

static int run(const struct command *command, int argc, char **argv) {
	struct heap_args args = { 0 };
	uint64_t top = 0;
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r < 0)
		r = options_subject(command, rest, &args.pid, &args.core, args.snapshot);
	if (r >= 0)
		return r;
	if ((args.snapshot || args.core.core) && args.diff_ns)
		return options_error(command, "--diff is for processes that live: not with --%s",
			args.snapshot ? "snapshot" : "core");
	if (args.top && (parse_u64(args.top, &top) || !top))
		return options_error(command, "--top: '%s' is not a number of rows", args.top);
	return show(&args, args.top ? (size_t)top : args.json ? 0 : TOP_DEFAULT);
}

const struct command heap_command = {
	.name = "heap",
	.summary = "Counts the objects of a process by type, and what of them grew",
	.synopsis = "[--json] [--top N] [--diff DURATION] [--no-paths]\n"
		    "       (--pid PID | PID | --core FILE [--exe FILE] [--root DIR] | --snapshot FILE)",
	.details = "The process is read while it runs: what changes meanwhile may be counted twice, or not at all.",
	.example = "sudo pyspyd heap --pid 4711 --diff 1m",
	.options = options,
	.takes = TAKES_PID,
	.run = run,
};
