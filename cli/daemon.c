/* SPDX-License-Identifier: MIT */
/* pyspyd daemon: the service. */
#include "pyspyd/daemon.h"

#include "cli/cli.h"
#include "cli/commands.h"

struct daemon_args {
	const char *config;
	bool check_config, foreground;
};

static const struct option_spec options[] = {
	{ 'c', "config", OPTION_STRING, offsetof(struct daemon_args, config), "FILE",
		"instead of /etc/pyspyd/pyspyd.conf and its drop-ins", NULL },
	{ 0, "check-config", OPTION_FLAG, offsetof(struct daemon_args, check_config), NULL,
		"read the configuration, say what is wrong, and end", NULL },
	{ 'f', "foreground", OPTION_FLAG, offsetof(struct daemon_args, foreground), NULL,
		"messages for people on stderr, also under a service manager", NULL },
	{ 0 },
};

static int run(const struct command *command, int argc, char **argv) {
	struct daemon_args args = { 0 };
	char **rest;
	int r = options_parse(command, argc, argv, &args, &rest);

	if (r >= 0)
		return r;
	if (rest[0])
		return options_error(command, "unexpected argument '%s'", rest[0]);
	return pyspyd_daemon_run(&(struct pyspyd_daemon_options){
		.config = args.config, .check_config = args.check_config, .foreground = args.foreground });
}

const struct command daemon_command = {
	.name = "daemon",
	.summary = "Runs the service: watches every Python process of this host",
	.synopsis = "[--config FILE] [--check-config] [--foreground]",
	.details = "Findings go to the store and to the sinks that the configuration names. Meant to be started by "
		   "systemd.",
	.example = "pyspyd daemon --check-config",
	.options = options,
	.run = run,
};
