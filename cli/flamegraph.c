/* SPDX-License-Identifier: MIT */
/* pyspyd flamegraph: what a process did a while ago, out of the service's flight recorder.
 *
 * The service keeps profiles of a stretch of time each (a minute, as it comes). Those that overlap the time asked for
 * are drawn whole. With two times to compare, one that overlaps both belongs to that of which it has more. */
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/service.h"
#include "cli/when.h"
#include "pyspyd/parse.h"
#include "pyspyd/record.h"
#include "pyspyd/snapshot.h"
#include "pyspyd/text.h"
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define LAST_NS (600 * NS_PER_SEC)       /* of an ordinary wish */
#define FETCHED_MAX ((size_t)256U << 20) /* bytes of profiles */
#define PROCESSES_MAX 4096

struct flamegraph_args {
	pid_t pid;
	const char *file;
	int format; /* index into formats; -1: by the file's ending */
	uint64_t last_ns;
	const char *since, *until, *diff, *start, *snapshot;
	bool threads, native;
};

static const char *const formats[] = { "svg", "html", "collapsed", "speedscope", "pprof", "gecko", "chrome", NULL };

#define OPT(letter, name, kind, field, arg, help) \
	{ letter, name, kind, offsetof(struct flamegraph_args, field), arg, help, NULL }

static const struct option_spec options[] = {
	OPT('p', "pid", OPTION_PID, pid, "PID", "the process; one that has ended too"),
	OPT('o', "output", OPTION_STRING, file, "FILE", "where the profile goes; - is stdout"),
	OPT('l', "last", OPTION_DURATION, last_ns, "DURATION", "so long until now, or --until (default 10m)"),
	OPT('s', "since", OPTION_STRING, since, "TIME", "from then: 10m (ago), 14:30, 2026-01-31T14:30:00Z"),
	OPT('u', "until", OPTION_STRING, until, "TIME", "to then (default: now)"),
	OPT('D', "diff", OPTION_STRING, diff, "TIME", "what changed since DURATION before, or T..T"),
	{ 'f', "format", OPTION_CHOICE, offsetof(struct flamegraph_args, format), "FORMAT",
		"svg, html, collapsed, speedscope, pprof, gecko or chrome (default: by FILE's ending)", formats },
	OPT('t', "threads", OPTION_FLAG, threads, NULL, "the thread as the outermost element of each stack"),
	OPT(0, "snapshot", OPTION_STRING, snapshot, "FILE",
		"out of a file of pyspyd snapshot: each thread's stack once"),
	OPT('n', "native", OPTION_FLAG, native, NULL, "with --snapshot: native and kernel frames too"),
	OPT(0, "start", OPTION_STRING, start, "TIME", "the process that had the pid then, not the latest"),
	{ 0 },
};

/* A stretch of time, in ns of CLOCK_REALTIME. */
struct window {
	uint64_t since_ns, until_ns;
};

struct wish {
	struct window window, before; /* before: empty where nothing is compared */
	uint64_t start_by_ns;         /* of the process: the latest that had started then */
	const char *format;
};

static int bad_time(const struct command *command, const char *option, const char *value) {
	return options_error(command, "--%s: '%s' is not " WHEN_EXPECTED, option, value);
}

/* Return: -1 with *ret_ns set; else the exit status. */
static int parse_time(
	const struct command *command, const char *option, const char *value, uint64_t now_ns, uint64_t *ret_ns) {
	return when_parse(value, now_ns, ret_ns) ? bad_time(command, option, value) : -1;
}

/* "14:00..14:10" */
static int parse_range(const struct command *command, const char *value, uint64_t now_ns, struct window *ret) {
	const char *dots = strstr(value, "..");
	_free_ char *since = strndup(value, (size_t)(dots - value));

	if (!since)
		return cli_fail(-ENOMEM, NULL);
	if (when_parse(since, now_ns, &ret->since_ns) || when_parse(dots + 2, now_ns, &ret->until_ns))
		return options_error(command, "--diff: '%s' is not TIME..TIME, each " WHEN_EXPECTED, value);
	if (ret->since_ns >= ret->until_ns)
		return options_error(command, "--diff: '%s' ends before it begins", value);
	return -1;
}

/* What is compared with. A duration alone is the length of both times. */
static int choose_before(
	const struct command *command, const struct flamegraph_args *args, uint64_t now_ns, struct wish *wish) {
	struct window *window = &wish->window;
	uint64_t length_ns;

	if (!args->diff)
		return -1;
	if (strstr(args->diff, ".."))
		return parse_range(command, args->diff, now_ns, &wish->before);
	if (parse_duration(args->diff, &length_ns) || !length_ns)
		return options_error(command, "--diff: '%s' is neither a duration above 0 nor TIME..TIME", args->diff);
	if (!args->since && !args->last_ns)
		window->since_ns = window->until_ns - (length_ns < window->until_ns ? length_ns : window->until_ns);
	wish->before.until_ns = window->since_ns;
	wish->before.since_ns = window->since_ns - (length_ns < window->since_ns ? length_ns : window->since_ns);
	return -1;
}

static int choose_window(
	const struct command *command, const struct flamegraph_args *args, uint64_t now_ns, struct window *ret) {
	uint64_t last_ns = args->last_ns ? args->last_ns : LAST_NS;
	int r = -1;

	if (args->since && args->last_ns)
		return options_error(command, "--since and --last: give one of them");
	ret->until_ns = now_ns;
	if (args->until)
		r = parse_time(command, "until", args->until, now_ns, &ret->until_ns);
	if (r < 0 && args->since)
		r = parse_time(command, "since", args->since, now_ns, &ret->since_ns);
	if (r >= 0)
		return r;
	if (!args->since)
		ret->since_ns = ret->until_ns - (last_ns < ret->until_ns ? last_ns : ret->until_ns);
	if (ret->since_ns >= ret->until_ns)
		return options_error(
			command, "--since %s: is not before %s", args->since, args->until ? args->until : "now");
	return -1;
}

static int choose_format(const struct command *command, const struct flamegraph_args *args, const char **ret_format) {
	if (!args->file)
		return options_error(command, "--output FILE is missing");
	*ret_format = args->format >= 0 ? formats[args->format] : pyspyd_format_of(args->file);
	if (!*ret_format)
		return options_error(command, "--output: '%s' does not say the format; give --format", args->file);
	return -1;
}

static int choose(const struct command *command, const struct flamegraph_args *args, struct wish *wish) {
	uint64_t now_ns = when_now_ns();
	int r = choose_format(command, args, &wish->format);

	if (r >= 0)
		return r;
	wish->start_by_ns = UINT64_MAX;
	r = args->start ? parse_time(command, "start", args->start, now_ns, &wish->start_by_ns) : -1;
	if (args->start)
		wish->start_by_ns += NS_PER_SEC - 1; /* times are shown to the second */
	if (r < 0)
		r = choose_window(command, args, now_ns, &wish->window);
	return r < 0 ? choose_before(command, args, now_ns, wish) : r;
}

static uint64_t number_of(const json_t *object, const char *key) {
	json_int_t value = json_integer_value(json_object_get(object, key));

	return value > 0 ? (uint64_t)value : 0;
}

/* The processes that had the pid, in any order: when each started. */
struct processes {
	pid_t pid;
	uint64_t starts_ns[PROCESSES_MAX];
	size_t n;
};

static int on_process(void *userdata, const char *json, const void *data, size_t len) {
	struct processes *processes = userdata;
	json_t *root = json_loads(json, 0, NULL), *process = json_object_get(root, "process");

	(void)data;
	(void)len;
	if (number_of(process, "pid") == (uint64_t)processes->pid && processes->n < PROCESSES_MAX)
		processes->starts_ns[processes->n++] = number_of(process, "start_ns");
	json_decref(root);
	return 0;
}

/* Which process is meant: the latest that had started by then. */
static bool find_start(const struct processes *processes, uint64_t by_ns, uint64_t *ret_ns) {
	bool found = false;

	for (size_t i = 0; i < processes->n; i++) {
		uint64_t start_ns = processes->starts_ns[i];

		if (start_ns <= by_ns && (!found || start_ns > *ret_ns)) {
			*ret_ns = start_ns;
			found = true;
		}
	}
	return found;
}

/* The pid may have had several owners: says which one is taken. */
static void say_chosen(const struct processes *processes, uint64_t start_ns) {
	char start[WHEN_SIZE];

	if (processes->n > 1)
		cli_say("%zu processes had the pid %d: this is the one that started %s (--start TIME takes another)",
			processes->n, (int)processes->pid, when_format(start_ns, start));
}

/* Return: -1 with *ret_start_ns set; else the exit status, and what is wrong was said. */
static int choose_process(struct pyspyd_remote *remote, pid_t pid, uint64_t by_ns, uint64_t *ret_start_ns) {
	_free_ struct processes *processes = calloc(1, sizeof(*processes));
	struct err err = { 0 };
	int r;

	if (!processes)
		return cli_fail(-ENOMEM, NULL);
	processes->pid = pid;
	r = pyspyd_remote_ask(remote, "{\"request\": \"processes\"}", &cli_stop, on_process, processes, &err);
	if (r)
		return cli_fail(r, &err);
	if (!find_start(processes, by_ns, ret_start_ns)) {
		cli_say("the service knows no process %d%s%s", (int)pid,
			pyspyd_remote_sees_all(remote) ? "" : " of yours",
			processes->n ? " that had started by then" : "");
		return STATUS_GONE;
	}
	say_chosen(processes, *ret_start_ns);
	return -1;
}

struct fetched {
	const struct window *window, *other;
	uint64_t start_ns; /* of the process */
	struct pyspyd_packed *items;
	size_t n, cap, bytes;
};

static void fetched_deinit(struct fetched *fetched) {
	for (size_t i = 0; i < fetched->n; i++)
		free((void *)fetched->items[i].data);
	free(fetched->items);
}

static uint64_t overlap_ns(const struct window *window, const struct pyspyd_packed *packed) {
	uint64_t since = window->since_ns > packed->start_real_ns ? window->since_ns : packed->start_real_ns;
	uint64_t until = window->until_ns < packed->end_real_ns ? window->until_ns : packed->end_real_ns;

	return until > since ? until - since : 0;
}

/* Return: whether the profile is of this time, and not of the other one. */
static bool is_wanted(const struct fetched *fetched, const struct pyspyd_packed *packed) {
	uint64_t here_ns = overlap_ns(fetched->window, packed), there_ns = overlap_ns(fetched->other, packed);

	return here_ns > there_ns ||
		(here_ns && here_ns == there_ns && fetched->window->since_ns < fetched->other->since_ns);
}

static int keep(struct fetched *fetched, const struct pyspyd_packed *packed) {
	void *copy;

	if (packed->len > FETCHED_MAX - fetched->bytes)
		return -EFBIG;
	if (fetched->n == fetched->cap) {
		size_t cap = fetched->cap ? fetched->cap * 2 : 64;
		void *grown = reallocarray(fetched->items, cap, sizeof(*fetched->items));

		if (!grown)
			return -ENOMEM;
		fetched->items = grown;
		fetched->cap = cap;
	}
	copy = malloc(packed->len + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, packed->data, packed->len);
	fetched->items[fetched->n] = *packed;
	fetched->items[fetched->n++].data = copy;
	fetched->bytes += packed->len;
	return 0;
}

static int on_profile(void *userdata, const char *json, const void *data, size_t len) {
	struct fetched *fetched = userdata;
	json_t *root = json_loads(json, 0, NULL), *profile = json_object_get(root, "profile");
	struct pyspyd_packed packed = { .data = data,
		.len = len,
		.start_real_ns = number_of(profile, "start_ns"),
		.end_real_ns = number_of(profile, "end_ns") };
	uint64_t process_start_ns = number_of(profile, "process_start_ns");

	json_decref(root);
	if (!data || process_start_ns != fetched->start_ns || !is_wanted(fetched, &packed))
		return 0;
	return keep(fetched, &packed);
}

/* Return: -1; else the exit status, and what is wrong was said. */
static int fetch(struct pyspyd_remote *remote, pid_t pid, struct fetched *fetched) {
	char request[160], since[WHEN_SIZE], until[WHEN_SIZE];
	struct err err = { 0 };
	int r;

	snprintf(request, sizeof(request),
		"{\"request\": \"profiles\", \"pid\": %d, \"since_ns\": %" PRIu64 ", \"until_ns\": %" PRIu64 "}",
		(int)pid, fetched->window->since_ns, fetched->window->until_ns);
	r = pyspyd_remote_ask(remote, request, &cli_stop, on_profile, fetched, &err);
	if (r == -EFBIG) {
		cli_say("more than %zu MiB of profiles: choose a shorter time", FETCHED_MAX >> 20);
		return STATUS_FAILED;
	}
	if (r)
		return cli_fail(r, &err);
	if (fetched->n)
		return -1;
	cli_say("the service has no profile of process %d from %s to %s", (int)pid,
		when_format(fetched->window->since_ns, since), when_format(fetched->window->until_ns, until));
	return STATUS_FAILED;
}

static int fail_output(const char *file_name, int r) {
	_free_ char *printable = pyspyd_printable(file_name);

	cli_say("cannot write %s: %s", printable ? printable : "the file", strerror(-r));
	return STATUS_FAILED;
}

static void say_written(const struct flamegraph_args *args, size_t n, size_t skipped) {
	_free_ char *printable = pyspyd_printable(args->file);

	if (skipped)
		cli_say("%zu of %zu profiles are damaged or of a newer version, and left out", skipped, n);
	if (strcmp(args->file, "-") != 0)
		cli_say("wrote %s: %zu profile%s", printable ? printable : "the file", n - skipped,
			n - skipped == 1 ? "" : "s");
}

static int write_graph(const struct flamegraph_args *args, const struct wish *wish, const struct fetched *after,
	const struct fetched *before) {
	const struct pyspyd_flight_options flight = { .format = wish->format, .threads = args->threads };
	struct output output;
	struct err err = { 0 };
	size_t skipped = 0;
	int r = output_open(args->file, &output);

	if (r)
		return fail_output(args->file, r);
	r = args->diff ? pyspyd_flight_diff(
				 before->items, before->n, after->items, after->n, &flight, output.fd, &skipped, &err)
		       : pyspyd_flight_write(after->items, after->n, &flight, output.fd, &skipped, &err);
	if (r) {
		r = cli_fail(r, &err);
	} else {
		r = output_commit(&output);
		if (r)
			r = fail_output(args->file, r);
		else
			say_written(args, after->n + before->n, skipped);
	}
	output_deinit(&output);
	return r;
}

static int ask_and_write(const struct flamegraph_args *args, const struct wish *wish, struct pyspyd_remote *remote) {
	struct fetched after = { .window = &wish->window, .other = &wish->before };
	struct fetched before = { .window = &wish->before, .other = &wish->window };
	int r = choose_process(remote, args->pid, wish->start_by_ns, &after.start_ns);

	before.start_ns = after.start_ns;
	if (r < 0)
		r = fetch(remote, args->pid, &after);
	if (r < 0 && args->diff)
		r = fetch(remote, args->pid, &before);
	if (r < 0)
		r = write_graph(args, wish, &after, &before);
	fetched_deinit(&after);
	fetched_deinit(&before);
	return r;
}

/* Out of a snapshot */

static int write_snapshot(const struct flamegraph_args *args, const char *format, struct pyspyd_snapshot *snapshot) {
	const struct pyspyd_flight_options flight = { .format = format, .threads = args->threads };
	struct output output;
	struct err err = { 0 };
	int r = output_open(args->file, &output);

	if (r)
		return fail_output(args->file, r);
	r = pyspyd_snapshot_profile(snapshot, args->native, &flight, output.fd, &err);
	if (r) {
		r = cli_fail(r, &err);
	} else {
		r = output_commit(&output);
		r = r ? fail_output(args->file, r) : STATUS_DONE;
	}
	output_deinit(&output);
	return r;
}

static int draw_snapshot(const struct command *command, const struct flamegraph_args *args) {
	struct pyspyd_snapshot *snapshot = NULL;
	struct err err = { 0 };
	const char *format;
	int r;

	if (args->last_ns || args->since || args->until || args->diff || args->start)
		return options_error(command, "--snapshot is of one moment: no times go with it");
	r = choose_format(command, args, &format);
	if (r >= 0)
		return r;
	r = pyspyd_snapshot_open(args->snapshot, &snapshot, &err);
	r = r ? cli_fail(r, &err) : write_snapshot(args, format, snapshot);
	pyspyd_snapshot_close(snapshot);
	return r;
}

static int run(const struct command *command, int argc, char **argv) {
	struct flamegraph_args args = { .format = -1 };
	struct pyspyd_remote *remote;
	struct wish wish = { 0 };
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r < 0)
		r = options_pid_or_file(command, rest, &args.pid, "snapshot", args.snapshot);
	if (r < 0 && args.snapshot)
		return draw_snapshot(command, &args);
	if (r < 0 && args.native)
		r = options_error(command, "--native goes with --snapshot");
	if (r < 0)
		r = choose(command, &args, &wish);
	if (r >= 0)
		return r;
	r = service_open(&remote);
	if (r >= 0)
		return r;
	r = ask_and_write(&args, &wish, remote);
	pyspyd_remote_close(remote);
	return r;
}

const struct command flamegraph_command = {
	.name = "flamegraph",
	.summary = "Draws what a process did a while ago, as the service has recorded it",
	.synopsis = "[OPTION…] -o FILE (--pid PID | --snapshot FILE)",
	.details = "",
	.example = "pyspyd flamegraph --pid 4711 --last 10m -o profile.svg",
	.options = options,
	.takes = TAKES_PID,
	.run = run,
};
