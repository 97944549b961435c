/* SPDX-License-Identifier: MIT */
/* Picks the command. A new one is one file and one line in the table here. */
#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "pyspyd/text.h"
#include "pyspyd/version.h"
#include <stdio.h>
#include <string.h>

static const struct command *const commands[] = {
	&watch_command,
	&dump_command,
	&record_command,
	&flamegraph_command,
	&ps_command,
	&waits_command,
	&heap_command,
	&handles_command,
	&modules_command,
	&snapshot_command,
	&findings_command,
	&show_command,
	&daemon_command,
	&crash_handler_command,
	&doctor_command,
	NULL,
};

static int print_usage(FILE *to) {
	fprintf(to,
		"Usage: pyspyd COMMAND [OPTION…]\n\nWatches Python processes from outside, without stopping them.\n\n"
		"Commands:\n");
	for (const struct command *const *command = commands; *command; command++)
		fprintf(to, "  %-10s %s\n", (*command)->name, (*command)->summary);
	fprintf(to,
		"\n'pyspyd COMMAND --help' says more; 'pyspyd --version' prints the version.\n"
		"Exit status: 0 done, 1 failed, 2 usage, 3 no such process or it ended, 4 not permitted,\n"
		"5 not a supported Python, 10 watch --exit-on matched.\n");
	return to == stdout ? cli_print("") : STATUS_USAGE;
}

static const struct command *find(const char *name) {
	for (const struct command *const *command = commands; *command; command++)
		if (!strcmp((*command)->name, name))
			return *command;
	return NULL;
}

static int help_of(int argc, char **argv) {
	const struct command *command = argc > 1 ? find(argv[1]) : NULL;
	char *help[] = { argv[0], (char[]){ "--help" }, NULL };

	return command ? command->run(command, 2, help) : print_usage(stdout);
}

int main(int argc, char **argv) {
	const struct command *command;
	_free_ char *printable = NULL;

	cli_catch_signals();
	if (argc < 2)
		return print_usage(stderr);
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))
		return cli_print("pyspyd " PYSPYD_VERSION);
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return print_usage(stdout);
	if (!strcmp(argv[1], "help"))
		return help_of(argc - 1, argv + 1);
	command = find(argv[1]);
	if (command)
		return command->run(command, argc - 1, argv + 1);
	printable = pyspyd_printable(argv[1]);
	cli_say("'%s' is no command\nTry 'pyspyd --help'.", printable ? printable : "");
	return STATUS_USAGE;
}
