/* SPDX-License-Identifier: MIT */
/* pyspyd watch: counters of processes and their threads, and findings as they come. How it looks is watch_view.h's. */
#include "pyspyd/watch.h"

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/program.h"
#include "cli/term.h"
#include "cli/watch_view.h"
#include "pyspyd/parse.h"
#include "pyspyd/text.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The kinds that this version raises; a detector adds its own. */
static const char *const kinds[] = { "spiking-thread", "deadlock", "self-deadlock", "orphaned-lock", "hang", "livelock",
	"gil-hog", "event-loop-blocked", "stopped", "d-state", "memory-leak", "handle-leak", "thread-leak",
	"process-leak", "gc-pressure", "exception-storm", "oom-risk", "crash", NULL };

#define SHORTCUTS_MAX 12

struct watch_args {
	bool json;
	int source;
	const char *exit_on; /* "KIND,KIND" */
	const char *spike;   /* "PCT:D" */
	const char *hang;    /* "D" */
	const char *leak;    /* "D" */
	struct string_list settings, park, vars;
	char shortcuts[SHORTCUTS_MAX][64]; /* settings that the three above are short for; --set comes after them */
	size_t shortcuts_n;
	struct pyspyd_watch_options watch;
};

#define OPT(letter, name, kind, field, arg, help) \
	{ letter, name, kind, offsetof(struct watch_args, field), arg, help, NULL }

static const struct option_spec options[] = {
	OPT('p', "pid", OPTION_PID, watch.pid, "PID", "one process"),
	OPT('n', "name", OPTION_STRING, watch.name_regex, "REGEX", "those whose command line matches"),
	OPT('a', "all", OPTION_FLAG, watch.all, NULL, "every Python process here"),
	OPT('c', "children", OPTION_FLAG, watch.children, NULL, "their descendants too"),
	OPT('d', "duration", OPTION_DURATION, watch.duration_ns, "DURATION",
		"how long (default: until they end or Ctrl-C)"),
	OPT('i', "interval", OPTION_DURATION, watch.interval_ns, "DURATION", "between two reports (default 1s)"),
	OPT('r', "rate", OPTION_RATE, watch.rate_hz, "HZ", "stacks looked at per second (default 20)"),
	{ 0, "source", OPTION_CHOICE, offsetof(struct watch_args, source), "SOURCE",
		"who takes the stacks: auto, vm or bpf", option_sources },
	OPT(0, "json", OPTION_FLAG, json, NULL, "findings and values alone, one JSON object a line"),
	OPT(0, "exit-on", OPTION_STRING, exit_on, "KIND[,KIND]",
		"end with status 10 at the first finding of these kinds"),
	OPT(0, "spike", OPTION_STRING, spike, "PCT:D", "what counts as a spinning thread (default 90:10s)"),
	OPT(0, "hang-after", OPTION_STRING, hang, "D", "how long no thread has run in a hang (default 60s)"),
	OPT(0, "leak-window", OPTION_STRING, leak, "D",
		"for how long memory, descriptors, threads or children must grow (default 4h, 30m, 10m)"),
	OPT(0, "origins", OPTION_FLAG, watch.origins, NULL,
		"see from the start where things are opened and started, not only once they seem to leak"),
	OPT(0, "park", OPTION_LIST, park, "MODULE:QUALNAME",
		"a function in which threads wait for work; may be repeated"),
	OPT(0, "var", OPTION_LIST, vars, "MODULE:NAME", "an object whose length and value are logged; may be repeated"),
	OPT(0, "unmask", OPTION_FLAG, watch.unmask, NULL, "with --var: mask nothing"),
	OPT(0, "set", OPTION_LIST, settings, "D.K=V", "a detector's setting"),
	{ 0 },
};

struct watch {
	const struct watch_view *view;
	const char *exit_on;
	bool reported;
};

static bool is_in_list(const char *kind, const char *list) {
	size_t len = strlen(kind);

	for (; list; list = strchr(list, ',') ? strchr(list, ',') + 1 : NULL)
		if (!strncmp(list, kind, len) && (list[len] == ',' || !list[len]))
			return true;
	return false;
}

static int on_report(void *userdata, const struct pyspyd_watch_process *processes, size_t n) {
	struct watch *watch = userdata;

	watch->reported = true;
	return watch->view->report(processes, n);
}

static int on_finding(void *userdata, const struct pyspyd_finding *finding) {
	struct watch *watch = userdata;
	int r = watch->view->finding(finding);

	if (r || finding->state == PYSPYD_RESOLVED || !is_in_list(finding->kind, watch->exit_on))
		return r;
	return STATUS_MATCHED;
}

static int on_value(void *userdata, const struct pyspyd_value *value) {
	struct watch *watch = userdata;

	return watch->view->value(value);
}

static int unknown_kind(const struct command *command, const char *kind, size_t n) {
	char known[256] = "";

	for (const char *const *one = kinds; *one; one++)
		snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s", *known ? ", " : "", *one);
	return options_error(
		command, "--exit-on: '%.*s' is not a kind that this version raises (%s)", (int)n, kind, known);
}

static int check_exit_on(const struct command *command, const char *list) {
	while (list) {
		const char *comma = strchrnul(list, ',');
		bool known = false;

		for (const char *const *kind = kinds; *kind; kind++)
			known |= strlen(*kind) == (size_t)(comma - list) &&
				!strncmp(*kind, list, (size_t)(comma - list));
		if (!known)
			return unknown_kind(command, list, (size_t)(comma - list));
		list = *comma ? comma + 1 : NULL;
	}
	return -1;
}

static void add_shortcut(struct watch_args *args, const char *setting, const char *value) {
	snprintf(args->shortcuts[args->shortcuts_n++], sizeof(args->shortcuts[0]), "%s=%.32s", setting, value);
}

/* --spike PCT:D. Return: -1 go on; an exit status. */
static int expand_spike(const struct command *command, struct watch_args *args) {
	const char *colon = args->spike ? strchr(args->spike, ':') : NULL;
	char percent_text[16];
	double percent;
	uint64_t ns;

	if (!args->spike)
		return -1;
	if (!colon || colon - args->spike > 8 || strlen(colon) > 32)
		return options_error(command, "--spike: '%s' is not PERCENT:DURATION", args->spike);
	snprintf(percent_text, sizeof(percent_text), "%.*s", (int)(colon - args->spike), args->spike);
	if (parse_decimal(percent_text, &percent) || percent <= 0 || parse_duration(colon + 1, &ns) || !ns)
		return options_error(command, "--spike: '%s' is not PERCENT:DURATION", args->spike);
	add_shortcut(args, "spiking-thread.pct", percent_text);
	add_shortcut(args, "spiking-thread.for", colon + 1);
	return -1;
}

static int check_duration(const struct command *command, const char *option, const char *text, uint64_t *ret_ns) {
	if (strlen(text) > 32 || parse_duration(text, ret_ns) || !*ret_ns)
		return options_error(command, "%s: '%s' is not a duration", option, text);
	return -1;
}

/* --hang-after D. Return: as above. */
static int expand_hang(const struct command *command, struct watch_args *args) {
	uint64_t ns;
	int r = args->hang ? check_duration(command, "--hang-after", args->hang, &ns) : -1;

	if (args->hang && r < 0)
		add_shortcut(args, "hang.after", args->hang);
	return r;
}

/* --leak-window D. What memory must grow by shrinks with its window. Return: as above. */
static int expand_leak(const struct command *command, struct watch_args *args) {
	static const char *const settings[] = { "memory-leak.window", "handle-leak.window", "thread-leak.window",
		"process-leak.window", "oom-risk.window" };
	char grow[32];
	uint64_t ns;
	int r = args->leak ? check_duration(command, "--leak-window", args->leak, &ns) : -1;

	if (!args->leak || r >= 0)
		return r;
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		add_shortcut(args, settings[i], args->leak);
	snprintf(grow, sizeof(grow), "%.3f", fmin(32, fmax(1, 32 * (double)ns / (4 * 3600e9))));
	add_shortcut(args, "memory-leak.grow", grow);
	return -1;
}

static int check_args(const struct command *command, const struct watch_args *args, const char *program) {
	int targets = !!args->watch.pid + !!args->watch.name_regex + args->watch.all + !!program;

	if (targets != 1)
		return options_error(command, "give one of --pid PID, --name REGEX, --all and -- CMD ARG…");
	for (size_t i = 0; i < args->settings.n; i++)
		if (!strchr(args->settings.items[i], '='))
			return options_error(command, "--set: '%s' is not DETECTOR.KEY=VALUE", args->settings.items[i]);
	return check_exit_on(command, args->exit_on);
}

static int status_of(int r, const struct watch *watch, const struct program *program, const struct err *err) {
	if (!r || r == STATUS_MATCHED)
		return r;
	/* What we started ends when it is done. */
	if (r == PYSPYD_E_GONE && program->pid && watch->reported)
		return STATUS_DONE;
	if (r == VIEW_E_OUTPUT) {
		cli_say("cannot write the output");
		return STATUS_FAILED;
	}
	return cli_fail(r, err);
}

static int watch_all(struct watch_args *args, const struct program *program) {
	/* A program of ours writes to the same terminal: no table there. */
	bool table = !args->json && !program->pid && term_controls(STDOUT_FILENO);
	struct watch watch = { .exit_on = args->exit_on };
	struct patience patience = patience_for(program);
	const char *settings[SHORTCUTS_MAX + STRING_LIST_MAX + 1] = { 0 };
	struct err err = { 0 };
	int r;

	for (size_t i = 0; i < args->shortcuts_n; i++)
		settings[i] = args->shortcuts[i];
	memcpy(settings + args->shortcuts_n, args->settings.items, args->settings.n * sizeof(settings[0]));
	watch.view = args->json ? &watch_view_json : table ? &watch_view_table : &watch_view_lines;
	args->watch.settings = settings;
	args->watch.park = args->park.items;
	args->watch.vars = args->vars.items;
	args->watch.stop = &cli_stop;
	args->watch.on_report = on_report;
	args->watch.on_finding = on_finding;
	args->watch.on_value = on_value;
	args->watch.userdata = &watch;
	do
		r = pyspyd_watch(&args->watch, &err);
	while (!watch.reported && patience_again(&patience, r));
	watch.view->end();
	return status_of(r, &watch, program, &err);
}

static int run(const struct command *command, int argc, char **argv) {
	struct watch_args args = { .watch = { .rate_hz = 20, .interval_ns = NS_PER_SEC } };
	struct program program = { 0 };
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r < 0)
		r = check_args(command, &args, rest[0]);
	if (r < 0)
		r = expand_spike(command, &args);
	if (r < 0)
		r = expand_hang(command, &args);
	if (r < 0)
		r = expand_leak(command, &args);
	if (r >= 0)
		return r;
	args.watch.source = (enum pyspyd_source)args.source;
	if (rest[0]) {
		r = program_start(rest, args.json, &program);
		if (r)
			return program_fail(rest[0], r);
		args.watch.pid = program.pid;
	}
	r = watch_all(&args, &program);
	program_end(&program);
	return r;
}

const struct command watch_command = {
	.name = "watch",
	.summary = "Watches processes: CPU, memory, handles and the GIL, and findings as they come",
	.synopsis = "[OPTION…] (--pid PID | --name REGEX | --all | -- CMD ARG…)",
	.details = "On a terminal a table, elsewhere one line per event. A program started with -- CMD gets SIGTERM "
		   "where\n"
		   "the watch ends before it does.",
	.example = "sudo pyspyd watch --pid 4711 --exit-on spiking-thread",
	.options = options,
	.takes = TAKES_PROGRAM,
	.run = run,
};
