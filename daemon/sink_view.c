/* SPDX-License-Identifier: MIT */
#include "daemon/sink_view.h"

#include "pyspyd/finding.h"
#include "pyspyd/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#define STACKS_MAX (256U << 10) /* bytes; a deadlock of hundreds of threads is told in the JSON */

static const char *text_of(const json_t *object, const char *key) {
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static char *words_of(const json_t *array) {
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	for (size_t i = 0; i < json_array_size(array); i++) {
		const char *word = json_string_value(json_array_get(array, i));

		fprintf(out, "%s%s", i ? " " : "", word ? word : "?");
	}
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}

static char *summary_of(const struct sink_view *view) {
	const char *summary = text_of(view->root, "summary");
	char *whole = NULL, *printable;

	if (!*summary)
		summary = view->event->kind;
	if (asprintf(&whole, "%s%s", view->event->state == PYSPYD_RESOLVED ? "resolved: " : "", summary) < 0)
		return NULL;
	printable = pyspyd_printable(whole);
	free(whole);
	return printable;
}

int sink_view_init(struct sink_view *view, const struct pyspyd_event *event) {
	static const char *const severities[] = { "info", "warning", "critical" };
	static const char *const states[] = { "open", "update", "resolved" };
	const json_t *process;

	*view = (struct sink_view){ .event = event };
	view->root = json_loads(event->json, JSON_ALLOW_NUL, NULL);
	process = json_object_get(view->root, "process");
	view->severity = event->severity >= 0 && event->severity < 3 ? severities[event->severity] : "info";
	view->state = event->state >= 0 && event->state < 3 ? states[event->state] : "open";
	view->pattern = text_of(view->root, "pattern");
	view->host = text_of(view->root, "host");
	view->since = text_of(view->root, "since");
	view->time = text_of(view->root, "time");
	view->duration_s = json_number_value(json_object_get(view->root, "duration_s"));
	view->name = text_of(process, "name");
	view->unit = text_of(process, "unit");
	view->container = text_of(process, "container");
	view->cgroup = text_of(process, "cgroup");
	view->exe = text_of(process, "exe");
	view->python = text_of(process, "python");
	view->cmdline = words_of(json_object_get(process, "cmdline"));
	view->summary = summary_of(view);
	view->advice = pyspyd_printable(text_of(view->root, "advice"));
	if (view->cmdline && view->summary && view->advice)
		return 0;
	sink_view_deinit(view);
	return -ENOMEM;
}

void sink_view_deinit(struct sink_view *view) {
	free(view->summary);
	free(view->advice);
	free(view->cmdline);
	json_decref(view->root);
	*view = (struct sink_view){ 0 };
}

int sink_view_priority(const struct sink_view *view) {
	if (view->event->state == PYSPYD_RESOLVED)
		return LOG_INFO;
	switch (view->event->severity) {
	case PYSPYD_CRITICAL: return LOG_CRIT;
	case PYSPYD_WARNING: return LOG_WARNING;
	}
	return LOG_INFO;
}

static void put_printable(FILE *out, const char *text) {
	char *printable = pyspyd_printable(text);

	fputs(printable ? printable : "?", out);
	free(printable);
}

static void put_frame(FILE *out, const json_t *frame) {
	const char *function = text_of(frame, "qualname"), *lang = text_of(frame, "lang");
	json_int_t line = json_integer_value(json_object_get(frame, "line"));

	fputs("  ", out);
	put_printable(out, *function ? function : text_of(frame, "function"));
	fputs(" (", out);
	put_printable(out, *text_of(frame, "file") ? text_of(frame, "file") : text_of(frame, "module"));
	if (line > 0)
		fprintf(out, ":%" JSON_INTEGER_FORMAT, line);
	fputs(")", out);
	if (strcmp(lang, "python"))
		fprintf(out, " [%s]", !strcmp(lang, "kernel") ? "kernel" : "native");
	fputc('\n', out);
}

static void put_thread(FILE *out, const json_t *thread) {
	const json_t *stack = json_object_get(thread, "stack");

	fprintf(out, "thread %" JSON_INTEGER_FORMAT " ", json_integer_value(json_object_get(thread, "tid")));
	put_printable(out, text_of(thread, "name"));
	if (*text_of(thread, "role")) {
		fputs(", ", out);
		put_printable(out, text_of(thread, "role"));
	}
	fputs(":\n", out);
	for (size_t i = 0; i < json_array_size(stack); i++) {
		if (ftell(out) > (long)STACKS_MAX)
			return;
		put_frame(out, json_array_get(stack, i));
	}
}

char *sink_view_stacks(const struct sink_view *view) {
	const json_t *threads = json_object_get(view->root, "threads");
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	for (size_t i = 0; i < json_array_size(threads); i++) {
		if (ftell(out) > (long)STACKS_MAX) {
			fputs("…\n", out);
			break;
		}
		put_thread(out, json_array_get(threads, i));
	}
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
