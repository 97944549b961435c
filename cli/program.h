/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CLI_PROGRAM_H
#define PYSPYD_CLI_PROGRAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The program behind `-- CMD ARG…`: started by us, ended with us. */

struct program {
	pid_t pid; /* 0: none was started */
};

/* Starts it; its stdin, stdout and stderr are ours. stdout_taken: ours carries output for machines, so its own goes to
 * stderr. Where pyspyd dies, the program gets SIGTERM. Return: 0; negative errno of fork or exec. */
int program_start(char **argv, bool stdout_taken, struct program *ret_program);

/* Says that name could not be started and why (negative errno). Return: the exit status. */
int program_fail(const char *name, int error);

/* Where it still runs: SIGTERM, and SIGKILL after five seconds. Nothing where none was started. */
void program_end(struct program *program);

/* How long an attach to a program of ours is tried again: at first it is no Python yet. (One that is, but is still
 * starting up, the engine waits for.) */
struct patience {
	uint64_t until_ns;
	bool started_by_us;
};

struct patience patience_for(const struct program *program);

/* Return: whether to try again what gave r; has waited a little then. */
bool patience_again(const struct patience *patience, int r);

#endif
