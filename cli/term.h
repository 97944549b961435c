/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CLI_TERM_H
#define PYSPYD_CLI_TERM_H

#include <stdbool.h>
#include <stddef.h>

/* What a terminal can take. */

/* Return: whether fd is a terminal that may be sent colours and cursor movements (not with NO_COLOR, not a dumb one).
 */
bool term_controls(int fd);

struct term_size {
	int columns, rows;
};

/* The size of the terminal behind fd now; 80 × 24 where it does not say. */
struct term_size term_size_of(int fd);

/* Return: how many bytes of UTF-8 text fit into that many columns, without splitting a character. */
size_t term_fit(const char *text, int columns);

/* Return: the columns that UTF-8 text takes. */
int term_width(const char *text);

#endif
