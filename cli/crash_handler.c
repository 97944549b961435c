/* SPDX-License-Identifier: MIT */
/* pyspyd crash-handler: for kernel.core_pattern. */
#include "pyspyd/daemon.h"

#include "cli/cli.h"
#include "cli/commands.h"

struct crash_handler_args {
	const char *config, *forward;
};

static const struct option_spec options[] = {
	{ 'c', "config", OPTION_STRING, offsetof(struct crash_handler_args, config), "FILE",
		"instead of /etc/pyspyd/pyspyd.conf and its drop-ins", NULL },
	{ 0, "forward", OPTION_STRING, offsetof(struct crash_handler_args, forward), "PROGRAM",
		"cores of other programs than Python go there, with the same words", NULL },
	{ 0 },
};

static int run(const struct command *command, int argc, char **argv) {
	struct crash_handler_args args = { 0 };
	struct pyspyd_crash_handler_options handler = { 0 };
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r >= 0)
		return r;
	if (!rest[0])
		return options_error(command, "the words of the kernel are missing: see pyspyd-crash-handler(1)");
	if (args.forward && args.forward[0] != '/')
		return options_error(command, "--forward needs an absolute path, not '%s'", args.forward);
	handler.config = args.config;
	handler.forward = args.forward;
	handler.words = rest;
	while (rest[handler.words_n])
		handler.words_n++;
	return pyspyd_crash_handler_run(&handler);
}

const struct command crash_handler_command = {
	.name = "crash-handler",
	.summary = "Makes findings of crashes: for kernel.core_pattern, with a core on its standard input",
	.synopsis = "[--forward PROGRAM] [--config FILE] -- PID UID GID SIGNAL TIME LIMIT [WORD…]",
	.details = "Not to be called by people.",
	.example = "sysctl 'kernel.core_pattern=|/usr/bin/pyspyd crash-handler -- %P %u %g %s %t %c %h'",
	.options = options,
	.takes = TAKES_PROGRAM,
	.run = run,
};
