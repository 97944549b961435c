/* SPDX-License-Identifier: MIT */
/* pyspyd doctor: what works here, what does not, what that turns off, and what mends it: for who asks, and, where the
 * service runs, for the service, which is asked over its socket. */
#include "pyspyd/doctor.h"

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/term.h"
#include "pyspyd/remote.h"
#include "pyspyd/text.h"
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

struct doctor_args {
	pid_t pid;
};

static const struct option_spec options[] = {
	{ 'p', "pid", OPTION_PID, offsetof(struct doctor_args, pid), "PID", "can this process be read too", NULL },
	{ 0 },
};

#define FOUND_COLUMN 32

static void print_line(const char *label, const char *text) {
	_free_ char *printable = pyspyd_printable(text);

	if (text[0] && printable)
		printf("%*s%s%s\n", FOUND_COLUMN, "", label, printable);
}

static void print_check(const struct pyspyd_check *check, bool colour) {
	static const char *const words[] = { "ok", "limited", "FAILED" };
	static const char *const colours[] = { "\033[32m", "\033[33m", "\033[31m" };
	_free_ char *found = pyspyd_printable(check->found);

	printf("%s%-8s%s %-22s %s\n", colour ? colours[check->result] : "", words[check->result],
		colour ? "\033[0m" : "", check->name, found ? found : "");
	print_line("effect: ", check->effect);
	print_line("remedy: ", check->remedy);
}

static void print_checks(struct pyspyd_check *checks, size_t n) {
	for (size_t i = 0; i < n; i++)
		print_check(&checks[i], term_controls(STDOUT_FILENO));
	pyspyd_doctor_free(checks, n);
}

static int take_status(void *userdata, const char *json, const void *data, size_t len) {
	struct pyspyd_check *checks;
	size_t n;
	int r;

	(void)data;
	(void)len;
	r = pyspyd_doctor_service(json, &checks, &n, userdata);
	if (!r)
		print_checks(checks, n);
	return r;
}

/* Return: 0, also where none runs; else what went wrong. */
static int ask_service(struct err *err) {
	struct pyspyd_remote *remote;
	int r = pyspyd_remote_open(NULL, &remote, err);

	if (r == -ENOENT || r == -ECONNREFUSED) {
		puts("does not run here (sudo systemctl start pyspyd)");
		return 0;
	}
	if (r)
		return r;
	r = pyspyd_remote_ask(remote, "{\"request\":\"status\"}", &cli_stop, take_status, err, err);
	pyspyd_remote_close(remote);
	return r;
}

static int run(const struct command *command, int argc, char **argv) {
	struct doctor_args args = { 0 };
	struct pyspyd_check *checks;
	struct err err = { 0 };
	size_t n;
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r >= 0)
		return r;
	if (args.pid && kill(args.pid, 0) && errno == ESRCH)
		return cli_fail(err_set(&err, PYSPYD_E_GONE, "there is no process %d", args.pid), &err);
	r = pyspyd_doctor(args.pid, &checks, &n, &err);
	if (r)
		return cli_fail(r, &err);
	print_checks(checks, n);
	printf("\nThe service:\n");
	r = ask_service(&err);
	if (r)
		printf("cannot be asked: %s\n", err.text);
	return cli_print("");
}

const struct command doctor_command = {
	.name = "doctor",
	.summary = "Says what works on this host, what does not, and the command that mends it",
	.synopsis = "[--pid PID]",
	.details = "",
	.example = "pyspyd doctor --pid 4711",
	.options = options,
	.takes = TAKES_NOTHING,
	.run = run,
};
