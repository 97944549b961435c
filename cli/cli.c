/* SPDX-License-Identifier: MIT */
/* Messages, exit statuses and signals, the same for every command. */
#include "cli/cli.h"

#include "pyspyd/core.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

volatile int cli_stop;

static void end_at_once(int number) {
	pyspyd_core_tidy();
	signal(number, SIG_DFL);
	raise(number);
}

static void on_stop(int number) {
	cli_stop = cli_stop + 1;
	/* timeout(1) sends its signal twice, so the second is no sign of impatience yet. */
	if (cli_stop >= 3)
		end_at_once(number);
}

void cli_catch_signals(void) {
	struct sigaction action = { .sa_handler = on_stop };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	/* A reader that goes away (`pyspyd watch | head`) ends us without a word, even where our parent ignores it. */
	signal(SIGPIPE, SIG_DFL);
}

void cli_end_at_signals(void) {
	struct sigaction action = { .sa_handler = end_at_once };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	sigaction(SIGQUIT, &action, NULL);
}

void cli_say(const char *format, ...) {
	va_list args;

	fputs("pyspyd: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

int cli_status(int r) {
	switch (r) {
	case 0: return STATUS_DONE;
	case PYSPYD_E_GONE:
	case -ESRCH: return STATUS_GONE;
	case PYSPYD_E_DENIED:
	case -EPERM:
	case -EACCES: return STATUS_DENIED;
	case PYSPYD_E_UNSUPPORTED:
	case PYSPYD_E_STARTING: return STATUS_UNSUPPORTED;
	case PYSPYD_E_USAGE: return STATUS_USAGE;
	default: return STATUS_FAILED;
	}
}

int cli_fail(int r, const struct err *err) {
	if (err && err->text[0])
		cli_say("%s", err->text);
	else if (r < 0)
		cli_say("%s", strerror(-r));
	else
		cli_say("failed (condition %d)", r);
	return cli_status(r);
}

int cli_print(const char *text) {
	if (!text) {
		cli_say("out of memory");
		return STATUS_FAILED;
	}
	if (fputs(text, stdout) == EOF || (text[0] && text[strlen(text) - 1] != '\n' && putchar('\n') == EOF) ||
		fflush(stdout) == EOF) {
		cli_say("cannot write the output: %s", strerror(errno));
		return STATUS_FAILED;
	}
	return STATUS_DONE;
}

uint64_t cli_now_ns(void) {
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

void cli_sleep_ns(uint64_t ns) {
	struct timespec wait = { .tv_sec = (time_t)(ns / NS_PER_SEC), .tv_nsec = (long)(ns % NS_PER_SEC) };

	nanosleep(&wait, NULL);
}
