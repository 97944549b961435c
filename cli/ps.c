/* SPDX-License-Identifier: MIT */
/* pyspyd ps: the Python processes of this host. How many findings are open is asked of the service, where one runs. */
#include "pyspyd/ps.h"

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/format.h"
#include "cli/term.h"
#include "pyspyd/remote.h"
#include "pyspyd/text.h"
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

struct ps_args {
	bool json;
};

static const struct option_spec options[] = {
	{ 0, "json", OPTION_FLAG, offsetof(struct ps_args, json), NULL, "one JSON object, schema pyspyd.ps/1", NULL },
	{ 0 },
};

/* Start times come from a clock that may be set: two looks may differ by a little. */
#define SAME_START_NS NS_PER_SEC

struct rows {
	struct pyspyd_ps_row *items;
	size_t n;
};

static int take_process(void *userdata, const char *json, const void *data, size_t len) {
	const struct rows *rows = userdata;
	json_t *answer = json_loads(json, 0, NULL), *process = json_object_get(answer, "process");
	json_int_t pid = json_integer_value(json_object_get(process, "pid"));
	uint64_t start_ns = (uint64_t)json_integer_value(json_object_get(process, "start_ns"));

	(void)data;
	(void)len;
	for (size_t i = 0; i < rows->n; i++) {
		struct pyspyd_ps_row *row = &rows->items[i];

		if (row->process.pid == pid &&
			row->process.start_real_ns - start_ns + SAME_START_NS <= 2 * SAME_START_NS)
			row->findings_open = (uint64_t)json_integer_value(json_object_get(process, "findings_open"));
	}
	json_decref(answer);
	return 0;
}

/* Without a service nothing is known of them, which is no error. */
static void ask_service(struct rows *rows) {
	struct pyspyd_remote *remote;

	if (pyspyd_remote_open(NULL, &remote, NULL))
		return;
	pyspyd_remote_ask(remote, "{\"request\":\"processes\"}", &cli_stop, take_process, rows, NULL);
	pyspyd_remote_close(remote);
}

/* The command line, or why it cannot be watched; cut to the terminal. */
static void print_tail(const struct pyspyd_ps_row *row, int columns) {
	_free_ char *command = format_cmdline(&row->process);
	_free_ char *why_not = pyspyd_printable(row->attachable ? "" : row->why_not);
	_free_ char *tail = NULL;

	if (!command || !why_not || asprintf(&tail, "%s%s%s", command, row->attachable ? "" : "  -- ", why_not) < 0) {
		tail = NULL;
		return;
	}
	printf("%.*s\n", (int)term_fit(tail, columns), tail);
}

static void print_row(const struct pyspyd_ps_row *row, int columns) {
	char rss[16], threads[24], fds[24], findings[24], cpu[16];
	_free_ char *user = pyspyd_printable(row->user);
	int used;

	snprintf(cpu, sizeof(cpu), "%.1f", row->cpu_percent);
	used = printf("%7d %-9s %-10.10s %6s %8s %7s %5s %8s %-6s ", row->process.pid,
		row->process.python ? row->process.python : "?", user ? user : "?", cpu,
		format_bytes(row->rss_bytes, rss, sizeof(rss)), format_count(row->threads, threads, sizeof(threads)),
		format_count(row->fds, fds, sizeof(fds)), format_count(row->findings_open, findings, sizeof(findings)),
		row->attachable ? "yes" : "no");
	print_tail(row, columns > used ? columns - used : 0);
}

static int run(const struct command *command, int argc, char **argv) {
	struct ps_args args = { 0 };
	struct pyspyd_ps_row *rows;
	struct err err = { 0 };
	_free_ char *json = NULL;
	size_t n;
	char **rest;
	int columns, r = options_parse(command, argc, argv, &args, &rest);

	if (r >= 0)
		return r;
	r = pyspyd_ps(&rows, &n, &err);
	if (r)
		return cli_fail(r, &err);
	ask_service(&(struct rows){ rows, n });
	if (args.json) {
		json = pyspyd_ps_json(rows, n);
		pyspyd_ps_free(rows, n);
		return cli_print(json);
	}
	columns = isatty(STDOUT_FILENO) ? term_size_of(STDOUT_FILENO).columns : 1 << 20;
	printf("    PID PYTHON    USER         CPU%%      RSS THREADS   FDS FINDINGS ATTACH COMMAND\n");
	for (size_t i = 0; i < n; i++)
		print_row(&rows[i], columns);
	pyspyd_ps_free(rows, n);
	return cli_print("");
}

const struct command ps_command = {
	.name = "ps",
	.summary = "Lists the Python processes here, and which of them can be watched",
	.synopsis = "[--json]",
	.details = "",
	.example = "sudo pyspyd ps",
	.options = options,
	.takes = TAKES_NOTHING,
	.run = run,
};
