/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CLI_OPTIONS_H
#define PYSPYD_CLI_OPTIONS_H

#include "pyspyd/core.h"
#include <stddef.h>
#include <sys/types.h>

/* Commands and their options as data. A command is one file with a `struct command` and one line in main.c's table. */

enum option_kind {
	OPTION_FLAG,        /* bool */
	OPTION_STRING,      /* const char * */
	OPTION_CHOICE,      /* int: index into choices */
	OPTION_PID,         /* pid_t */
	OPTION_DURATION,    /* uint64_t, ns; more than 0 */
	OPTION_RATE,        /* double, Hz; more than 0 */
	OPTION_RATE_OR_MAX, /* the same, and 0 for "max" */
	OPTION_SIZE,        /* uint64_t, bytes; more than 0 */
	OPTION_PERCENT,     /* double */
	OPTION_LIST,        /* struct string_list; the option may be repeated */
};

#define STRING_LIST_MAX 64

/* NULL-terminated; the strings are argv's. */
struct string_list {
	const char *items[STRING_LIST_MAX + 1];
	size_t n;
};

struct option_spec {
	char letter; /* 0: none */
	const char *name;
	enum option_kind kind;
	size_t offset;    /* of the value in the command's option struct */
	const char *arg;  /* "DURATION"; NULL for a flag */
	const char *help; /* one line */
	const char *const *choices;
};

enum takes {
	TAKES_NOTHING,
	TAKES_PID,     /* at most one argument */
	TAKES_PROGRAM, /* "-- CMD ARG…" */
};

struct command {
	const char *name;
	const char *summary;  /* one line */
	const char *synopsis; /* what follows the name */
	const char *details;  /* a paragraph, "" where the summary says it */
	const char *example;
	const struct option_spec *options; /* ends with an entry without name */
	enum takes takes;
	int (*run)(const struct command *command, int argc, char **argv);
};

extern const char *const option_sources[]; /* in the order of enum pyspyd_source */

/* Parses argv (argv[0] is the command's name) into *target, whose defaults are set already. *ret_rest is what is left:
 * the program and its arguments or the bare pid, NULL-terminated.
 * Return: -1 go on; else the exit status: 0 after --help, 2 after a usage error, which was said. */
int options_parse(const struct command *command, int argc, char **argv, void *target, char ***ret_rest);

/* The process a command is about: --pid, or its only argument. Return: -1 with *pid set; else the exit status, and the
 * mistake was said. */
int options_pid(const struct command *command, char **rest, pid_t *pid);

/* The same where a command may look at a file instead: `file` is the value of --`option`, NULL where it was not given.
 * Return: -1 with *pid set or the file given; else the exit status, and the mistake was said. */
int options_pid_or_file(const struct command *command, char **rest, pid_t *pid, const char *option, const char *file);

/* The same for commands that read core files and snapshots (NULL: not given) too. */
int options_subject(const struct command *command, char **rest, pid_t *pid, const struct pyspyd_core_source *core,
	const char *snapshot);

/* The options of such a command, for its table; `core` is a struct pyspyd_core_source in the option struct. */
#define OPTIONS_CORE(type, member) \
	{ 'c', "core", OPTION_STRING, offsetof(type, member.core), "FILE", "a dead process, out of its core file", \
		NULL }, \
		{ 0, "exe", OPTION_STRING, offsetof(type, member.exe), "FILE", \
			"with --core: the executable, if it is not where it was", NULL }, \
	{ \
		0, "root", OPTION_STRING, offsetof(type, member.root), "DIR", \
			"with --core: the folder below which the files of the process are", NULL \
	}

/* Says what is wrong with the arguments. Return: the exit status, 2. */
int options_error(const struct command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
