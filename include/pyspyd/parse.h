/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PARSE_H
#define PYSPYD_PARSE_H

#include <stdint.h>
#include <sys/types.h>

/* Strict parsing: the whole string, or -EINVAL; out of range is -ERANGE. Results are untouched on failure. */

int parse_u64(const char *s, uint64_t *ret);
int parse_pid(const char *s, pid_t *ret);

/* "250ms", "10s", "1.5m", "2h"; a bare number is seconds. Result in nanoseconds. */
int parse_duration(const char *s, uint64_t *ret_ns);

/* "64K", "1.5G"; K M G are powers of 1024; a bare number is bytes. */
int parse_size(const char *s, uint64_t *ret_bytes);

/* A decimal number without sign: "99", "99.5". */
int parse_decimal(const char *s, double *ret);

#endif
