/* SPDX-License-Identifier: MIT */
/* Arguments by getopt_long, driven by a command's table. Values are parsed strictly; an error names option and value.
 */
#include "cli/options.h"

#include "cli/cli.h"
#include "pyspyd/parse.h"
#include "pyspyd/text.h"
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define OPTIONS_MAX 32
#define RATE_MAX_HZ 1e6

enum { VALUE_LONG = 256 }; /* getopt's value of table entry i is VALUE_LONG + i */

int options_error(const struct command *command, const char *format, ...) {
	char text[512];
	va_list args;
	_free_ char *printable = NULL;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	printable = pyspyd_printable(text);
	cli_say("%s: %s\nTry 'pyspyd %s --help'.", command->name, printable ? printable : "bad arguments",
		command->name);
	return STATUS_USAGE;
}

const char *const option_sources[] = { "auto", "vm", "bpf", NULL };

static void print_option(const struct option_spec *option) {
	char left[64];

	snprintf(left, sizeof(left), "%c%c%c --%s%s%s", option->letter ? '-' : ' ',
		option->letter ? option->letter : ' ', option->letter ? ',' : ' ', option->name, option->arg ? " " : "",
		option->arg ? option->arg : "");
	printf("  %-26s %s\n", left, option->help);
}

static int print_help(const struct command *command) {
	printf("Usage: pyspyd %s %s\n\n%s.\n", command->name, command->synopsis, command->summary);
	if (command->details[0])
		printf("%s\n", command->details);
	printf("\nOptions:\n");
	for (const struct option_spec *option = command->options; option->name; option++)
		print_option(option);
	printf("  %-26s %s\n", "-h, --help", "this text");
	printf("\nExample:\n  %s\n", command->example);
	return cli_print("");
}

static int set_choice(const char *value, const struct option_spec *option, int *ret) {
	for (int i = 0; option->choices[i]; i++) {
		if (!strcmp(value, option->choices[i])) {
			*ret = i;
			return 0;
		}
	}
	return -1;
}

static int set_duration(const char *value, uint64_t *ret_ns) {
	uint64_t ns;

	if (parse_duration(value, &ns) || !ns)
		return -1;
	*ret_ns = ns;
	return 0;
}

static int set_rate(const char *value, bool max_allowed, double *ret_hz) {
	double hz;

	if (max_allowed && !strcmp(value, "max")) {
		*ret_hz = 0;
		return 0;
	}
	if (parse_decimal(value, &hz) || hz <= 0 || hz > RATE_MAX_HZ)
		return -1;
	*ret_hz = hz;
	return 0;
}

static int set_size(const char *value, uint64_t *ret_bytes) {
	uint64_t bytes;

	if (parse_size(value, &bytes) || !bytes)
		return -1;
	*ret_bytes = bytes;
	return 0;
}

static int set_item(const char *value, struct string_list *list) {
	if (list->n == STRING_LIST_MAX)
		return -1;
	list->items[list->n++] = value;
	return 0;
}

/* Return: 0; -1 where the value is bad. */
static int set_value(const struct option_spec *option, const char *value, void *target) {
	void *at = (char *)target + option->offset;

	switch (option->kind) {
	case OPTION_FLAG: *(bool *)at = true; return 0;
	case OPTION_STRING: *(const char **)at = value; return 0;
	case OPTION_CHOICE: return set_choice(value, option, at);
	case OPTION_PID: return parse_pid(value, at) ? -1 : 0;
	case OPTION_DURATION: return set_duration(value, at);
	case OPTION_RATE: return set_rate(value, false, at);
	case OPTION_RATE_OR_MAX: return set_rate(value, true, at);
	case OPTION_SIZE: return set_size(value, at);
	case OPTION_PERCENT: return parse_decimal(value, at) ? -1 : 0;
	case OPTION_LIST: return set_item(value, at);
	}
	return -1;
}

static int bad_value(const struct command *command, const struct option_spec *option, const char *value) {
	static const char *const expected[] = {
		[OPTION_PID] = "a process id",
		[OPTION_DURATION] = "a duration above 0 (500ms, 10s, 5m, 2h; a bare number is seconds)",
		[OPTION_RATE] = "a rate in Hz above 0",
		[OPTION_RATE_OR_MAX] = "a rate in Hz above 0, or max",
		[OPTION_SIZE] = "a number of bytes above 0 (4096, 512K, 1M)",
		[OPTION_PERCENT] = "a number of percent",
	};
	char choices[256] = "";

	if (option->kind == OPTION_LIST)
		return options_error(command, "--%s: '%s': given too often", option->name, value);
	if (option->kind != OPTION_CHOICE)
		return options_error(command, "--%s: '%s' is not %s", option->name, value, expected[option->kind]);
	for (int i = 0; option->choices[i]; i++) {
		size_t used = strlen(choices);

		snprintf(choices + used, sizeof(choices) - used, "%s%s", i ? ", " : "", option->choices[i]);
	}
	return options_error(command, "--%s: '%s' is not one of %s", option->name, value, choices);
}

/* Writes getopt's two forms of the table. Return: the number of entries. */
static int build_getopt(const struct command *command, struct option *longs, char *shorts) {
	int n = 0;

	/* '+': options end at the first argument that is none; ':': a missing value is told apart. */
	*shorts++ = command->takes == TAKES_PROGRAM ? '+' : ':';
	if (command->takes == TAKES_PROGRAM)
		*shorts++ = ':';
	*shorts++ = 'h';
	for (; command->options[n].name; n++) {
		const struct option_spec *option = &command->options[n];

		longs[n] = (struct option){ .name = option->name,
			.has_arg = option->kind == OPTION_FLAG ? no_argument : required_argument,
			.val = VALUE_LONG + n };
		if (!option->letter)
			continue;
		*shorts++ = option->letter;
		if (option->kind != OPTION_FLAG)
			*shorts++ = ':';
	}
	*shorts = '\0';
	longs[n] = (struct option){ .name = "help", .val = 'h' };
	longs[n + 1] = (struct option){ 0 };
	return n;
}

static const struct option_spec *option_of(const struct command *command, int value) {
	if (value >= VALUE_LONG)
		return &command->options[value - VALUE_LONG];
	for (const struct option_spec *option = command->options; option->name; option++)
		if (option->letter == value)
			return option;
	return NULL;
}

/* What getopt could not use: argv[optind - 1] is a long option whole, or holds the letter in optopt. */
static int bad_option(const struct command *command, char **argv, bool value_missing) {
	const char *word = argv[optind - 1];

	if (value_missing)
		return options_error(command, "%s: the value is missing", word);
	if (!strncmp(word, "--", 2) && optopt >= VALUE_LONG)
		return options_error(command, "%s: takes no value", word);
	if (!strncmp(word, "--", 2) || !optopt)
		return options_error(command, "unknown or ambiguous option %s", word);
	return options_error(command, "unknown option -%c", optopt);
}

static int check_rest(const struct command *command, char **argv, char **rest) {
	if (!rest[0])
		return -1;
	if (command->takes == TAKES_NOTHING)
		return options_error(command, "unexpected argument '%s'", rest[0]);
	if (command->takes == TAKES_PID && rest[1])
		return options_error(command, "unexpected argument '%s'", rest[1]);
	if (command->takes == TAKES_PROGRAM && strcmp(argv[optind - 1], "--") != 0)
		return options_error(command, "unexpected argument '%s' (a program to start goes behind --)", rest[0]);
	return -1;
}

int options_parse(const struct command *command, int argc, char **argv, void *target, char ***ret_rest) {
	struct option longs[OPTIONS_MAX + 2];
	char shorts[2 * OPTIONS_MAX + 4];
	int value, r;

	build_getopt(command, longs, shorts);
	optind = 0;
	opterr = 0;
	while ((value = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		const struct option_spec *option;

		if (value == 'h')
			return print_help(command);
		if (value == '?' || value == ':')
			return bad_option(command, argv, value == ':');
		option = option_of(command, value);
		if (set_value(option, optarg, target))
			return bad_value(command, option, optarg);
	}
	r = check_rest(command, argv, argv + optind);
	*ret_rest = argv + optind;
	return r;
}

int options_pid(const struct command *command, char **rest, pid_t *pid) {
	if (rest[0] && *pid)
		return options_error(command, "unexpected argument '%s': --pid is given", rest[0]);
	if (rest[0] && parse_pid(rest[0], pid))
		return options_error(command, "'%s' is not a process id", rest[0]);
	return *pid ? -1 : options_error(command, "which process? Give --pid PID");
}

int options_pid_or_file(const struct command *command, char **rest, pid_t *pid, const char *option, const char *file) {
	if (!file)
		return options_pid(command, rest, pid);
	if (rest[0] || *pid)
		return options_error(command, "--%s and --pid exclude each other", option);
	return -1;
}

int options_subject(const struct command *command, char **rest, pid_t *pid, const struct pyspyd_core_source *core,
	const char *snapshot) {
	if (!core->core && core->exe)
		return options_error(command, "--exe needs --core");
	if (!core->core && core->root)
		return options_error(command, "--root needs --core");
	if (core->core && snapshot)
		return options_error(command, "--core and --snapshot exclude each other");
	return core->core ? options_pid_or_file(command, rest, pid, "core", core->core)
			  : options_pid_or_file(command, rest, pid, "snapshot", snapshot);
}
