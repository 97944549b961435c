/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CLI_FORMAT_H
#define PYSPYD_CLI_FORMAT_H

#include "pyspyd/stack.h"
#include <stddef.h>
#include <stdint.h>

/* Numbers and names for people. UINT64_MAX is what is not known: "-". */

/* "512", "10.2K", "1.5G" into buf. Return: buf. */
const char *format_bytes(uint64_t bytes, char *buf, size_t size);
const char *format_count(uint64_t count, char *buf, size_t size);

/* The command line with spaces, or the name in brackets where there is none; printable. Return: the caller's to free();
 * NULL when out of memory. */
char *format_cmdline(const struct pyspyd_process *process);

#endif
