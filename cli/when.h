/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CLI_WHEN_H
#define PYSPYD_CLI_WHEN_H

#include <stdint.h>

/* Points in time as people type them, and as they are shown. Nanoseconds of CLOCK_REALTIME. */

#define WHEN_EXPECTED "a time (10m ago as 10m; 14:30, 2026-01-31T14:30:00Z; local without a zone)"

/* "10m": so long ago. "14:30", "14:30:15": when it was last that late here. "2026-01-31T14:30:00Z" (RFC 3339; with a
 * fraction, with "+02:00" or "+0200"; a space for the T; local time without a zone; midnight without a time). "now".
 * Return: 0; -1 where it is none of them. */
int when_parse(const char *s, uint64_t now_real_ns, uint64_t *ret_real_ns);

/* CLOCK_REALTIME. */
uint64_t when_now_ns(void);

#define WHEN_SIZE 32

/* Writes "2026-01-31 14:30:00+0100", local time. Return: out. */
const char *when_format(uint64_t real_ns, char out[WHEN_SIZE]);

#endif
