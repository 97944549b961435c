/* SPDX-License-Identifier: MIT */
/* pyspyd findings: what the service has found. For people a line each:
 *
 *   2026-01-31 14:30:00+0100 open     warning     4711 01JK3M5N6P7Q8R9S0T1V2W3X4Y spiking-thread: worker-3 (tid 4712) …
 *
 * What is there is asked for first, each finding once, as it is now; what comes later in a second request that goes on
 * where the first one ended. Where the service goes away meanwhile, it is asked again from there when it is back:
 * events have numbers, so that none is missed and none comes twice. */
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/service.h"
#include "cli/term.h"
#include "cli/when.h"
#include "pyspyd/finding.h"
#include "pyspyd/parse.h"
#include "pyspyd/text.h"
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINES_MAX 1000000

struct findings_args {
	pid_t pid;
	bool follow, open, json;
	const char *since, *until, *kind, *lines;
	uint64_t since_ns, until_ns, most; /* out of these; 0: no bound */
};

static const struct option_spec options[] = {
	{ 'f', "follow", OPTION_FLAG, offsetof(struct findings_args, follow), NULL,
		"go on with what is found from now on", NULL },
	{ 'o', "open", OPTION_FLAG, offsetof(struct findings_args, open), NULL, "only those that are open", NULL },
	{ 's', "since", OPTION_STRING, offsetof(struct findings_args, since), "TIME",
		"not earlier: 10m (ago), 14:30, 2026-01-31T14:30:00Z", NULL },
	{ 'u', "until", OPTION_STRING, offsetof(struct findings_args, until), "TIME", "earlier than this", NULL },
	{ 'k', "kind", OPTION_STRING, offsetof(struct findings_args, kind), "KIND", "only these, e.g. deadlock", NULL },
	{ 'p', "pid", OPTION_PID, offsetof(struct findings_args, pid), "PID", "only of this process", NULL },
	{ 'n', "lines", OPTION_STRING, offsetof(struct findings_args, lines), "N", "only the last N", NULL },
	{ 0, "json", OPTION_FLAG, offsetof(struct findings_args, json), NULL, "JSON Lines, schema pyspyd.finding/1",
		NULL },
	{ 0 },
};

/* The last lines, where only so many are wanted. */
struct listing {
	const struct findings_args *args;
	bool colour;
	bool listed;  /* what was there is told; from then on events are */
	uint64_t seq; /* up to here all is told */
	struct service_pause pause;
	bool failed; /* what came could not be written or kept, which another connection does not mend */
	char **kept;
	size_t kept_n, first, shown;
};

static const char *text_of(const json_t *object, const char *key) {
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "?";
}

static const char *colour_of(const char *state, const char *severity) {
	if (!strcmp(state, "resolved"))
		return "\x1b[32m";
	return !strcmp(severity, "critical") ? "\x1b[31m" : !strcmp(severity, "warning") ? "\x1b[33m" : "\x1b[1m";
}

static void print_for_people(const json_t *finding, bool colour) {
	const char *state = text_of(finding, "state"), *severity = text_of(finding, "severity");
	_free_ char *summary = pyspyd_printable(text_of(finding, "summary"));
	_free_ char *id = pyspyd_printable(text_of(finding, "id"));
	char when[WHEN_SIZE] = "?";
	uint64_t ns;

	if (!when_parse(text_of(finding, "time"), when_now_ns(), &ns))
		when_format(ns, when);
	printf("%s %s%-8.8s %-8.8s%s %7lld %s %s\n", when, colour ? colour_of(state, severity) : "", state, severity,
		colour ? "\x1b[0m" : "",
		(long long)json_integer_value(json_object_get(json_object_get(finding, "process"), "pid")),
		id ? id : "?", summary ? summary : "?");
}

/* Return: 0; negative errno. */
static int print(struct listing *listing, const char *event) {
	json_t *finding;

	listing->shown++;
	if (listing->args->json)
		return puts(event) == EOF || fflush(stdout) == EOF ? -errno : 0;
	finding = json_loads(event, 0, NULL);
	if (!finding)
		return -EPROTO;
	print_for_people(finding, listing->colour);
	json_decref(finding);
	return fflush(stdout) == EOF ? -errno : 0;
}

static int print_answer(void *userdata, const char *json, const void *data, size_t len) {
	_free_ char *event = service_event(json);
	struct listing *listing = userdata;
	int r;

	(void)data;
	(void)len;
	if (!event)
		return -EPROTO;
	r = print(listing, event);
	if (r)
		listing->failed = true;
	else
		listing->seq = service_event_seq(json);
	return r;
}

/* A ring of the last ones. */
static int keep_answer(void *userdata, const char *json, const void *data, size_t len) {
	struct listing *listing = userdata;
	char *event = service_event(json);

	(void)data;
	(void)len;
	if (!event)
		return -EPROTO;
	if (listing->kept_n < listing->args->most) {
		char **grown = realloc(listing->kept, (listing->kept_n + 1) * sizeof(*grown));

		if (!grown) {
			listing->failed = true;
			free(event);
			return -ENOMEM;
		}
		listing->kept = grown;
		listing->kept[listing->kept_n++] = event;
		return 0;
	}
	free(listing->kept[listing->first]);
	listing->kept[listing->first] = event;
	listing->first = (listing->first + 1) % listing->kept_n;
	return 0;
}

/* Where not all came, none is of use. */
static int print_kept(struct listing *listing, int r) {
	for (size_t i = 0; !r && i < listing->kept_n; i++)
		r = print(listing, listing->kept[(listing->first + i) % listing->kept_n]);
	for (size_t i = 0; i < listing->kept_n; i++)
		free(listing->kept[i]);
	free(listing->kept);
	listing->kept = NULL;
	listing->kept_n = listing->first = 0;
	return r;
}

enum ask { ASK_WHAT_IS, ASK_MISSED, ASK_FOLLOW };

static char *request_of(const struct findings_args *args, enum ask what, uint64_t after_seq) {
	json_t *request = json_pack("{s:s, s:b, s:b, s:b, s:I, s:I, s:I, s:s*}", "request", "findings", "follow",
		what == ASK_FOLLOW, "latest", what == ASK_WHAT_IS, "open", args->open && what == ASK_WHAT_IS,
		"after_seq", (json_int_t)after_seq, "since_ns", (json_int_t)args->since_ns, "until_ns",
		(json_int_t)args->until_ns, "kind", args->kind);
	char *text;

	if (request && args->pid)
		json_object_set_new(request, "pid", json_integer(args->pid));
	text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	json_decref(request);
	return text;
}

static int ask(struct pyspyd_remote *remote, struct listing *listing, enum ask what, struct err *err) {
	_free_ char *request = request_of(listing->args, what, listing->seq);
	bool keep = listing->args->most && what == ASK_WHAT_IS;
	int r;

	if (!request)
		return err_set(err, -EINVAL, "the request cannot be written: is --kind UTF-8?");
	r = pyspyd_remote_ask(remote, request, &cli_stop, keep ? keep_answer : print_answer, listing, err);
	return keep ? print_kept(listing, r) : r;
}

/* What has come since the last connection. A service whose store is lost begins to count anew: all of that is news. */
static int catch_up(struct pyspyd_remote *remote, struct listing *listing, struct err *err) {
	int r = ask(remote, listing, ASK_MISSED, err);

	if (r || pyspyd_remote_seq(remote) >= listing->seq)
		return r;
	cli_say("the service has begun a new store: what is in it follows");
	listing->seq = 0;
	return ask(remote, listing, ASK_MISSED, err);
}

/* All that one connection is for. */
static int converse(struct pyspyd_remote *remote, struct listing *listing, struct err *err) {
	int r = listing->listed ? catch_up(remote, listing, err) : ask(remote, listing, ASK_WHAT_IS, err);

	if (r)
		return r;
	if (!listing->listed && !listing->shown && !listing->args->json)
		cli_say("no findings%s", pyspyd_remote_sees_all(remote) ? "" : " of your processes");
	listing->listed = true;
	listing->seq = pyspyd_remote_seq(remote);
	listing->pause = (struct service_pause){ 0 };
	return listing->args->follow ? ask(remote, listing, ASK_FOLLOW, err) : 0;
}

/* Ends us as a write to a reader that has gone would: there may be none for hours. */
static void *watch_reader(void *unused) {
	struct pollfd out = { .fd = STDOUT_FILENO };

	while (poll(&out, 1, -1) < 0 && errno == EINTR)
		;
	kill(getpid(), SIGPIPE);
	return unused;
}

/* Signals are for the thread that waits for the service. */
static void start_watching_reader(void) {
	sigset_t all, before;
	pthread_t thread;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (!pthread_create(&thread, NULL, watch_reader, NULL))
		pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int list(const struct findings_args *args, struct pyspyd_remote **remote) {
	struct listing listing = { .args = args, .colour = term_controls(STDOUT_FILENO) };
	struct err err = { 0 };
	int r;

	if (args->follow)
		start_watching_reader();
	r = converse(*remote, &listing, &err);
	while (args->follow && !listing.failed && service_is_away(r)) {
		pyspyd_remote_close(*remote);
		*remote = NULL;
		r = service_wait(&listing.pause, remote, &err);
		if (!r)
			r = converse(*remote, &listing, &err);
	}
	return !r || r == -EINTR ? cli_print("") : cli_fail(r, &err);
}

/* Return: -1; the exit status. */
static int check(const struct command *command, struct findings_args *args) {
	uint64_t now = when_now_ns();

	if (args->since && when_parse(args->since, now, &args->since_ns))
		return options_error(command, "--since: '%s' is not " WHEN_EXPECTED, args->since);
	if (args->until && when_parse(args->until, now, &args->until_ns))
		return options_error(command, "--until: '%s' is not " WHEN_EXPECTED, args->until);
	if (args->lines && (parse_u64(args->lines, &args->most) || !args->most || args->most > LINES_MAX))
		return options_error(command, "--lines: '%s' is not a number from 1 to %d", args->lines, LINES_MAX);
	if (args->follow && args->until)
		return options_error(command, "--follow and --until exclude each other");
	return -1;
}

static int run(const struct command *command, int argc, char **argv) {
	struct findings_args args = { 0 };
	struct pyspyd_remote *remote = NULL;
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r < 0)
		r = check(command, &args);
	if (r < 0)
		r = service_open(&remote);
	if (r >= 0)
		return r;
	r = list(&args, &remote);
	pyspyd_remote_close(remote);
	return r;
}

const struct command findings_command = {
	.name = "findings",
	.summary = "Lists what the service has found",
	.synopsis = "[--follow] [--open] [--since TIME] [--until TIME] [--kind KIND] [--pid PID] [-n N] [--json]",
	.details = "Each finding once, as it is now; with --follow also every event from now on. 'pyspyd show ID' "
		   "shows one\n"
		   "whole. Asks the service; a user sees what was found in his own processes.",
	.example = "pyspyd findings --open --since 1h",
	.options = options,
	.takes = TAKES_NOTHING,
	.run = run,
};
