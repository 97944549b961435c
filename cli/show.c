/* SPDX-License-Identifier: MIT */
/* pyspyd show: one finding whole, as the service keeps it. One that is resolved is shown with its last event before
 * that, which has the evidence. */
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/service.h"
#include "cli/term.h"
#include "cli/when.h"
#include "pyspyd/finding.h"
#include "pyspyd/text.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct show_args {
	bool json;
};

static const struct option_spec options[] = {
	{ 0, "json", OPTION_FLAG, offsetof(struct show_args, json), NULL,
		"its last event as one JSON object, schema pyspyd.finding/1", NULL },
	{ 0 },
};

struct last {
	char *event;          /* NULL: none */
	bool resolved_no_use; /* resolved events do not count */
};

static const char *text_of(const json_t *object, const char *key) {
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "?";
}

static bool is_resolved(const char *event) {
	json_t *finding = json_loads(event, 0, NULL);
	bool resolved = !strcmp(text_of(finding, "state"), "resolved");

	json_decref(finding);
	return resolved;
}

static int keep_last(void *userdata, const char *json, const void *data, size_t len) {
	struct last *last = userdata;
	char *event = service_event(json);

	(void)data;
	(void)len;
	if (!event)
		return -EPROTO;
	if (last->resolved_no_use && is_resolved(event)) {
		free(event);
		return 0;
	}
	free(last->event);
	last->event = event;
	return 0;
}

static int ask(struct pyspyd_remote *remote, const char *id, struct last *last, struct err *err) {
	json_t *request =
		json_pack("{s:s, s:s, s:b}", "request", "findings", "id", id, "latest", !last->resolved_no_use);
	_free_ char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	int r = text ? pyspyd_remote_ask(remote, text, &cli_stop, keep_last, last, err)
		     : err_set(err, -EINVAL, "the id is no text");

	json_decref(request);
	return r;
}

static void print_time(const json_t *finding, const char *word, const char *key) {
	char when[WHEN_SIZE] = "?";
	uint64_t ns;

	if (!when_parse(text_of(finding, key), when_now_ns(), &ns))
		when_format(ns, when);
	printf("  %s: %s\n", word, when);
}

static void print_words(const json_t *finding, const char *word, const char *key) {
	_free_ char *text = pyspyd_printable(text_of(finding, key));

	printf("  %s: %s\n", word, text ? text : "?");
}

static int print_text(const char *event) {
	_free_ char *text = pyspyd_finding_text_of_json(event, term_controls(STDOUT_FILENO));

	return cli_print(text);
}

static int print_whole(const char *event, const char *before) {
	json_t *finding = json_loads(event, 0, NULL);
	int r = print_text(event);

	if (!r) {
		print_time(finding, "since", "since");
		print_time(finding, is_resolved(event) ? "resolved" : "last seen", "time");
		print_words(finding, "id", "id");
		print_words(finding, "fingerprint", "fingerprint");
		print_words(finding, "host", "host");
	}
	json_decref(finding);
	if (r || !before)
		return r ? r : cli_print("");
	printf("\nbefore that:\n");
	return print_text(before);
}

static int show(struct pyspyd_remote *remote, const char *id, bool json) {
	struct last now = { 0 }, before = { .resolved_no_use = true };
	struct err err = { 0 };
	int r = ask(remote, id, &now, &err);

	if (!r && !now.event)
		r = err_set(&err, -ENOENT, "no finding has this id%s",
			pyspyd_remote_sees_all(remote) ? "" : " among those of your processes");
	if (!r && !json && is_resolved(now.event))
		r = ask(remote, id, &before, &err);
	if (r)
		r = cli_fail(r, &err);
	else
		r = json ? cli_print(now.event) : print_whole(now.event, before.event);
	free(now.event);
	free(before.event);
	return r;
}

static int run(const struct command *command, int argc, char **argv) {
	struct show_args args = { 0 };
	struct pyspyd_remote *remote = NULL;
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r >= 0)
		return r;
	if (!rest[0] || !*rest[0])
		return options_error(command, "which finding? Give its ID ('pyspyd findings' lists them)");
	r = service_open(&remote);
	if (r >= 0)
		return r;
	r = show(remote, rest[0], args.json);
	pyspyd_remote_close(remote);
	return r;
}

const struct command show_command = {
	.name = "show",
	.summary = "Shows one finding whole, as the service keeps it",
	.synopsis = "[--json] ID",
	.details = "",
	.example = "pyspyd show 01JK3M5N6P7Q8R9S0T1V2W3X4Y",
	.options = options,
	.takes = TAKES_PID,
	.run = run,
};
