/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FLIGHT_H
#define PYSPYD_FLIGHT_H

#include "pyspyd/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The flight recorder's profiles: stacks of one process over a stretch of time, packed into bytes that stand for
 * themselves (magic and version, strings, frames, stacks, counts per thread and stack, accuracy; compressed), and flame
 * graphs out of many of them. */

struct pyspyd_packed {
	const void *data;
	size_t len;
	uint64_t start_real_ns, end_real_ns;
};

struct pyspyd_flight_options {
	const char *format; /* as in pyspyd_record_options */
	bool threads;       /* the thread as the outermost element of each stack */
	const char *title;  /* NULL: made of what is known */
};

/* Writes the sum of some packed profiles to fd. Data that is damaged or too new is left out: *ret_skipped says how
 * many. Return: 0; PYSPYD_E_USAGE (format); -ENODATA: no samples in them; negative errno. */
int pyspyd_flight_write(const struct pyspyd_packed *packed, size_t n, const struct pyspyd_flight_options *options,
	int fd, size_t *ret_skipped, struct err *err);

/* Writes what changed from one sum to another, each scaled to the same number of samples: svg and html coloured by
 * growth (red) and decline (blue), collapsed with two counts, gecko with a thread of the change, chrome with both.
 * Other formats: PYSPYD_E_USAGE. Return: as above. */
int pyspyd_flight_diff(const struct pyspyd_packed *before, size_t before_n, const struct pyspyd_packed *after,
	size_t after_n, const struct pyspyd_flight_options *options, int fd, size_t *ret_skipped, struct err *err);

#endif
