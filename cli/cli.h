/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CLI_CLI_H
#define PYSPYD_CLI_CLI_H

#include "pyspyd/err.h"
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* What every command shares: exit statuses, messages, the wish to stop. Commands see include/pyspyd/ and this folder
 * only. */

enum exit_status {
	STATUS_DONE = 0,
	STATUS_FAILED = 1,
	STATUS_USAGE = 2,
	STATUS_GONE = 3,
	STATUS_DENIED = 4,
	STATUS_UNSUPPORTED = 5,
	STATUS_MATCHED = 10, /* watch --exit-on */
};

static inline void free_ptr(void *p) {
	free(*(void **)p);
}

#define _free_ __attribute__((cleanup(free_ptr)))

#define NS_PER_SEC 1000000000ULL
#define NS_PER_MS 1000000ULL

/* Non-zero once SIGINT, SIGTERM or SIGHUP came: commands end and write what they have. The third one ends at once. */
extern volatile int cli_stop;
void cli_catch_signals(void);

/* From here on the first of them ends at once: nothing that was written has to be finished, or taken back. */
void cli_end_at_signals(void);

/* One line on stderr: "pyspyd: …". What others chose in it is to be printable already. */
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The exit status for the result of a function of the engine. */
int cli_status(int r);

/* Says why a function of the engine failed. Return: the exit status for its result r. */
int cli_fail(int r, const struct err *err);

/* Writes text and a newline to stdout and flushes. Return: 0; STATUS_FAILED after saying why. NULL is out of memory. */
int cli_print(const char *text);

/* CLOCK_MONOTONIC. */
uint64_t cli_now_ns(void);
void cli_sleep_ns(uint64_t ns); /* ends early at a signal */

#endif
