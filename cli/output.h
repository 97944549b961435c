/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CLI_OUTPUT_H
#define PYSPYD_CLI_OUTPUT_H

/* A file that appears whole or not at all: written beside its place and renamed. "-" is stdout; a device or a FIFO is
 * written as it stands. */

struct output {
	int fd;
	char *path; /* where it will be; NULL where fd is written directly */
	char *temp;
};

/* Return: 0; negative errno. */
int output_open(const char *file_name, struct output *ret_output);

/* Puts the file in its place. Return: 0; negative errno, the file is as it was before. */
int output_commit(struct output *output);

/* Closes and, unless committed, removes what was written. */
void output_deinit(struct output *output);

#endif
