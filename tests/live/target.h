/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_TESTS_LIVE_TARGET_H
#define PYSPYD_TESTS_LIVE_TARGET_H

#include "engine/base/vec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* The program that a driver looks at: started with an oracle on its standard input, held by a pipe. */

#define HELD_FD \
	3 /* in the target: it ends when this is closed; a byte leads to the next look where there are several */

struct target {
	pid_t pid;
	FILE *out;
	int held;
};

/* Starts `command`. Return: 0; negative errno. */
static inline int target_start(const char *oracle, char **command, struct target *ret) {
	int out[2], held[2];
	FILE *in = fopen(oracle, "re");

	if (!in || pipe(out) || pipe(held))
		return -errno;
	ret->pid = fork();
	if (!ret->pid) {
		dup2(fileno(in), STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		close(held[1]);
		close(out[0]);
		dup2(held[0], HELD_FD);
		execvp(command[0], command);
		_exit(127);
	}
	fclose(in);
	close(out[1]);
	close(held[0]);
	ret->held = held[1];
	ret->out = fdopen(out[0], "r");
	return ret->pid < 0 || !ret->out ? -EIO : 0;
}

typedef VEC(char *) target_lines;

/* What it says until "ready", which is the last line. Return: whether it got that far. */
static inline bool target_read(FILE *in, target_lines *lines) {
	bool ready = false;
	char *line = NULL;
	size_t size = 0;

	while (!ready && getline(&line, &size, in) > 0) {
		line[strcspn(line, "\n")] = '\0';
		ready = !strcmp(line, "ready");
		if (!vec_push(lines, line))
			line = NULL;
		size = 0;
	}
	free(line);
	return ready;
}

static inline void target_forget(target_lines *lines) {
	vec_foreach (line, lines)
		free(*line);
	vec_free(lines);
}

#endif
