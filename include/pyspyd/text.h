/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_TEXT_H
#define PYSPYD_TEXT_H

/* Text that somebody else chose (a thread's name, a file's, a command line), made fit for a terminal or a log line:
 * what could steer it becomes \x1b or \u2028 forms, broken UTF-8 becomes U+FFFD.
 * Return: the caller's to free(); NULL when out of memory. */
char *pyspyd_printable(const char *text);

#endif
