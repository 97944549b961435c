/* SPDX-License-Identifier: MIT */
/* pyspyd record: samples a process, or a program that it starts, into a profile file. */
#include "pyspyd/record.h"

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/term.h"
#include "pyspyd/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROGRESS_AFTER_NS (2 * NS_PER_SEC)

struct record_args {
	pid_t pid;
	const char *file;
	int format; /* index into formats; -1: by the file's ending */
	int mode, source;
	struct pyspyd_record_options record;
	struct pyspyd_alloc_options alloc;
};

#define EVERY_DEFAULT (512 << 10)
#define EVERY_MIN 1024
#define EVERY_MAX (1ULL << 40)
#define MAX_SLOWDOWN_DEFAULT 5

static const char *const formats[] = { "svg", "html", "collapsed", "speedscope", "pprof", "gecko", "chrome", NULL };
static const char *const modes[] = { "wall", "cpu", "gil", "offcpu", "alloc",
	NULL }; /* in the order of enum pyspyd_mode */

#define OPT(letter, name, kind, field, arg, help) \
	{ letter, name, kind, offsetof(struct record_args, field), arg, help, NULL }

static const struct option_spec options[] = {
	OPT('p', "pid", OPTION_PID, pid, "PID", "the process"),
	OPT('o', "output", OPTION_STRING, file, "FILE", "where the profile goes; - is stdout"),
	OPT('d', "duration", OPTION_DURATION, record.duration_ns, "DURATION",
		"how long (default: until it ends or Ctrl-C)"),
	OPT('r', "rate", OPTION_RATE_OR_MAX, record.rate_hz, "HZ", "samples per second, or max (default 100)"),
	{ 'f', "format", OPTION_CHOICE, offsetof(struct record_args, format), "FORMAT",
		"svg, html, collapsed, speedscope, pprof, gecko or chrome (default: by FILE's ending)", formats },
	{ 'm', "mode", OPTION_CHOICE, offsetof(struct record_args, mode), "MODE",
		"wall: every thread; cpu: those on a CPU; gil: the GIL's holder; offcpu: how long they sleep (eBPF); "
		"alloc: where memory comes from (the kernel patches the process's code page)",
		modes },
	OPT(0, "threshold", OPTION_DURATION, record.threshold_ns, "DURATION",
		"offcpu: shorter sleeps are summed (default 1ms)"),
	OPT(0, "kernel", OPTION_FLAG, record.kernel, NULL, "offcpu, --native: the kernel's functions too"),
	OPT(0, "every", OPTION_SIZE, alloc.every_bytes, "BYTES", "alloc: a sample for so many bytes (default 512K)"),
	OPT(0, "max-slowdown", OPTION_PERCENT, alloc.max_slowdown_pct, "PCT",
		"alloc: looks for a part of the time where it costs the process more (default 5; 0: always)"),
	OPT('c', "children", OPTION_FLAG, record.children, NULL, "its descendants too"),
	OPT('t', "threads", OPTION_FLAG, record.threads, NULL, "the thread as the outermost element of each stack"),
	{ 0, "source", OPTION_CHOICE, offsetof(struct record_args, source), "SOURCE",
		"who takes the stacks: auto, vm or bpf", option_sources },
	OPT(0, "native", OPTION_FLAG, record.native, NULL,
		"native and kernel frames of running threads (eBPF); alloc: what C code takes from the C library, too"),
	OPT(0, "blocking", OPTION_FLAG, record.blocking, NULL, "stop the Python threads for each sample"),
	{ 0 },
};

static void show_progress(void *userdata, uint64_t elapsed_ns, const struct pyspyd_accuracy *accuracy) {
	const struct pyspyd_record_options *record = userdata;
	double elapsed_s = (double)elapsed_ns / 1e9;

	if (elapsed_ns < PROGRESS_AFTER_NS)
		return;
	fprintf(stderr, "\r\033[K%.0f s", elapsed_s);
	if (record->duration_ns)
		fprintf(stderr, " of %.0f s", (double)record->duration_ns / 1e9);
	fprintf(stderr, ", %" PRIu64 " samples; Ctrl-C ends", accuracy->samples);
	fflush(stderr);
}

static void clear_progress(const struct record_args *args) {
	if (args->record.progress)
		fputs("\r\033[K", stderr);
}

/* What is wrong in every profile is said with it. */
static void say_accuracy(const struct pyspyd_accuracy *accuracy, uint64_t elapsed_ns) {
	double seconds = (double)elapsed_ns / 1e9;
	bool interrupts = !accuracy->priority; /* of all CPUs, which may be many */
	char how[64];

	snprintf(how, sizeof(how), "source %s%s%s", accuracy->source ? accuracy->source : "none",
		interrupts ? "" : ", priority ", interrupts ? "" : accuracy->priority);
	cli_say("%" PRIu64 " samples in %.1f s, %.1f %s/s (%s): %" PRIu64 " idle, %" PRIu64 " torn, %" PRIu64
		" discarded, %" PRIu64 " unreadable, %" PRIu64 " truncated, %" PRIu64 " without Python; %" PRIu64
		" of %" PRIu64 " %s late, %" PRIu64 " missed",
		accuracy->samples, seconds, seconds > 0 ? (double)accuracy->looks / seconds : 0,
		interrupts ? "interrupts" : "looks", how, accuracy->idle, accuracy->torn, accuracy->discarded,
		accuracy->unreadable, accuracy->truncated, accuracy->unknown, accuracy->late, accuracy->looks,
		interrupts ? "interrupts" : "looks",
		accuracy->expected > accuracy->looks ? accuracy->expected - accuracy->looks : 0);
}

static void say_sleeps(const struct pyspyd_accuracy *accuracy, uint64_t elapsed_ns) {
	cli_say("%" PRIu64 " sleeps in %.1f s, of %" PRIu64 " that began (source %s): %" PRIu64 " lost, %" PRIu64
		" unreadable, %" PRIu64 " truncated, %" PRIu64 " without Python",
		accuracy->samples, (double)elapsed_ns / 1e9, accuracy->looks, accuracy->source, accuracy->discarded,
		accuracy->unreadable, accuracy->truncated, accuracy->unknown);
}

static void say_hidden(const struct pyspyd_accuracy *accuracy) {
	if (accuracy->kernel_hidden)
		cli_say("the kernel hides its addresses: its functions have no names (CAP_SYSLOG and "
			"kernel.kptr_restrict below 2)");
}

static const char *size_text(uint64_t bytes, char buf[32]) {
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0]))
		value /= 1024, unit++;
	snprintf(buf, 32, "%.*f %s", unit ? 1 : 0, value, units[unit]);
	return buf;
}

/* What it has cost the process is said every time. */
static void say_cost(const struct pyspyd_alloc_cost *cost, double limit, uint64_t elapsed_ns) {
	char bytes[32];

	cli_say("%s in %" PRIu64 " allocations in %.1f s: %" PRIu64 " samples, %" PRIu64 " lost, %" PRIu64
		" without Python",
		size_text(cost->bytes, bytes), cost->hits, (double)elapsed_ns / 1e9, cost->samples, cost->lost,
		cost->unknown);
	cli_say("%zu probes of %" PRIu64
		" ns a hit, with stacks %.3f s of the process's %.3f s: a slowdown of %s%.1f %%",
		cost->probes, cost->hit_ns, (double)cost->spent_ns / 1e9, (double)cost->cpu_ns / 1e9,
		cost->slowdown_pct < PYSPYD_SLOWDOWN_MAX_PCT ? "" : "more than ", cost->slowdown_pct);
	if (cost->not_seen)
		cli_say("%zu places in the interpreter that may allocate have no probe: what they take is missing",
			cost->not_seen);
	if (cost->others)
		cli_say("%" PRIu64 " hits in other processes that run the same file: they were slowed down too",
			cost->others);
	if (cost->windows > 1)
		cli_say("looked at %.2g %% of its time, in %" PRIu64
			" parts, so as not to slow it by more than %.6g %% (--max-slowdown): what was seen stands for "
			"all of it%s",
			cost->watched_pct, cost->windows, limit,
			cost->rough ? "; the probes took most of that, so only shares are sure: how much it is in all "
				      "is a rough guess"
				    : "");
}

static int choose_format(const struct command *command, struct record_args *args) {
	args->record.format = args->format >= 0 ? formats[args->format] : pyspyd_format_of(args->file);
	if (args->record.format)
		return -1;
	return options_error(command, "--output: '%s' does not say the format; give --format", args->file);
}

static int check_alloc(const struct command *command, struct record_args *args) {
	struct pyspyd_alloc_options *alloc = &args->alloc;
	bool is_alloc = args->record.mode == PYSPYD_MODE_ALLOC;

	if (!is_alloc && alloc->every_bytes)
		return options_error(command, "--every goes with --mode alloc");
	if (!is_alloc && alloc->max_slowdown_pct >= 0)
		return options_error(command, "--max-slowdown goes with --mode alloc");
	if (is_alloc && args->record.children)
		return options_error(command, "--children does not go with --mode alloc");
	if (is_alloc && args->record.blocking)
		return options_error(command, "--blocking does not go with --mode alloc");
	if (is_alloc && args->source == PYSPYD_SOURCE_VM)
		return options_error(command, "--mode alloc has no --source but bpf");
	if (alloc->every_bytes && (alloc->every_bytes < EVERY_MIN || alloc->every_bytes > EVERY_MAX))
		return options_error(command, "--every is between 1K and 1024G");
	alloc->native = args->record.native;
	if (!alloc->every_bytes)
		alloc->every_bytes = EVERY_DEFAULT;
	if (alloc->max_slowdown_pct < 0)
		alloc->max_slowdown_pct = MAX_SLOWDOWN_DEFAULT;
	return -1;
}

/* What goes with sleeps only, and what does not. Return: -1; or the exit status. */
static int check_mode(const struct command *command, struct record_args *args) {
	struct pyspyd_record_options *record = &args->record;
	bool sleeps = record->mode == PYSPYD_MODE_OFFCPU;

	if (!sleeps && record->threshold_ns != UINT64_MAX)
		return options_error(command, "--threshold goes with --mode offcpu");
	if (record->kernel && !sleeps && (!record->native || record->mode == PYSPYD_MODE_ALLOC))
		return options_error(
			command, "--kernel goes with --mode offcpu, or with --native where threads are sampled");
	if (sleeps && record->native)
		return options_error(command, "--native does not go with --mode offcpu");
	if (record->threshold_ns == UINT64_MAX)
		record->threshold_ns = NS_PER_MS;
	return check_alloc(command, args);
}

/* The file takes its place only where something was collected. */
static int keep_output(struct output *output, const char *file_name) {
	_free_ char *printable = pyspyd_printable(file_name);
	struct stat st;
	int r;

	if (!output->temp || fstat(output->fd, &st))
		return 0;
	if (!st.st_size) {
		cli_say("no sample was counted: %s is not written", printable ? printable : "the file");
		return 0;
	}
	r = output_commit(output);
	if (r)
		cli_say("cannot write %s: %s", printable ? printable : "the file", strerror(-r));
	else
		cli_say("wrote %s", printable ? printable : "the file");
	return r;
}

static int record_alloc_to(struct record_args *args, const struct program *program, struct output *output) {
	struct patience patience = patience_for(program);
	struct pyspyd_alloc_cost cost = { 0 };
	struct err err = { 0 };
	uint64_t start_ns;
	int r, kept;

	do {
		start_ns = cli_now_ns();
		r = pyspyd_record_alloc(args->pid, &args->record, &args->alloc, output->fd, &cost, &err);
	} while (patience_again(&patience, r));
	clear_progress(args);
	if (cost.probes)
		say_cost(&cost, args->alloc.max_slowdown_pct, cli_now_ns() - start_ns);
	kept = r == 0 || (r == PYSPYD_E_GONE && cost.probes) ? keep_output(output, args->file) : 0;
	if (r == PYSPYD_E_GONE && program->pid && cost.probes)
		r = 0; /* a program that we started ends when it is done */
	if (r)
		return cli_fail(r, &err);
	return kept ? STATUS_FAILED : STATUS_DONE;
}

static int record_to(struct record_args *args, const struct program *program, struct output *output) {
	struct patience patience = patience_for(program);
	struct pyspyd_accuracy accuracy = { 0 };
	struct err err = { 0 };
	uint64_t start_ns;
	int r, kept;

	do {
		start_ns = cli_now_ns();
		r = pyspyd_record(args->pid, &args->record, output->fd, &accuracy, &err);
	} while (patience_again(&patience, r));
	clear_progress(args);
	if (accuracy.looks || accuracy.samples)
		(args->record.mode == PYSPYD_MODE_OFFCPU ? say_sleeps : say_accuracy)(
			&accuracy, cli_now_ns() - start_ns);
	say_hidden(&accuracy);
	kept = r == 0 || (r == PYSPYD_E_GONE && (accuracy.looks || accuracy.samples)) ? keep_output(output, args->file)
										      : 0;
	if (r == PYSPYD_E_GONE && program->pid && accuracy.looks)
		r = 0; /* a program that we started ends when it is done */
	if (r)
		return cli_fail(r, &err);
	return kept ? STATUS_FAILED : STATUS_DONE;
}

static int open_output(const char *file_name, struct output *ret_output) {
	int r = output_open(file_name, ret_output);
	_free_ char *printable = NULL;

	if (!r)
		return 0;
	printable = pyspyd_printable(file_name);
	cli_say("cannot write %s: %s", printable ? printable : "the file", strerror(-r));
	return STATUS_FAILED;
}

static int run(const struct command *command, int argc, char **argv) {
	struct record_args args = { .format = -1,
		.record = { .rate_hz = 100, .threshold_ns = UINT64_MAX, .stop = &cli_stop },
		.alloc = { .max_slowdown_pct = -1 } };
	struct program program = { 0 };
	struct output output;
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r >= 0)
		return r;
	if (!args.pid == !rest[0])
		return options_error(command, "give either --pid PID or -- CMD ARG…");
	if (!args.file)
		return options_error(command, "--output FILE is missing");
	r = choose_format(command, &args);
	if (r >= 0)
		return r;
	args.record.mode = (enum pyspyd_mode)args.mode;
	args.record.source = (enum pyspyd_source)args.source;
	r = check_mode(command, &args);
	if (r >= 0)
		return r;
	args.record.userdata = &args.record;
	args.record.progress = term_controls(STDERR_FILENO) ? show_progress : NULL;
	r = open_output(args.file, &output);
	if (r)
		return r;
	if (rest[0])
		r = program_start(rest, !strcmp(args.file, "-"), &program);
	if (r) {
		r = program_fail(rest[0], r);
	} else {
		args.pid = rest[0] ? program.pid : args.pid;
		r = (args.mode == PYSPYD_MODE_ALLOC ? record_alloc_to : record_to)(&args, &program, &output);
	}
	program_end(&program);
	output_deinit(&output);
	return r;
}

const struct command record_command = {
	.name = "record",
	.summary = "Samples a process into a flame graph or another profile",
	.synopsis = "[OPTION…] -o FILE (--pid PID | -- CMD ARG…)",
	.details = "A program started with -- CMD gets SIGTERM where the recording ends before it does.",
	.example = "sudo pyspyd record --pid 4711 -d 30s -o profile.svg",
	.options = options,
	.takes = TAKES_PROGRAM,
	.run = run,
};
