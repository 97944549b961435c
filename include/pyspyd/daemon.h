/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_H
#define PYSPYD_DAEMON_H

/* The service. Implemented by daemon/, which sees the engine by its public headers only, as the command line does. */

struct pyspyd_daemon_options {
	const char *config; /* file; NULL: /etc/pyspyd/pyspyd.conf with its drop-ins, which need not be there */
	int check_config;   /* read it, say what is wrong, and end */
	int foreground;     /* messages to stderr even where the journal listens */
};

/* What the kernel starts for a core (pyspyd-crash-handler(1)). */
struct pyspyd_crash_handler_options {
	const char *config;  /* as above */
	const char *forward; /* program for cores of other programs than Python; NULL: as configured */
	char **words;        /* %P %u %g %s %t %c, and what else the kernel was told to put there */
	unsigned long words_n;
};

/* Reads a core from the standard input. Return: an exit status as above; or does not return, and is the program that
 * the core was forwarded to. */
int pyspyd_crash_handler_run(const struct pyspyd_crash_handler_options *options);

/* Runs until SIGTERM or SIGINT. Return: an exit status as in the manual: 0; 1 failed; 2 the configuration is wrong
 * (each fault was said on stderr: "FILE:LINE: …"). */
int pyspyd_daemon_run(const struct pyspyd_daemon_options *options);

#endif
