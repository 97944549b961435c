/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_EXPORT_EXPORT_H
#define PYSPYD_EXPORT_EXPORT_H

#include "engine/profile/profile.h"
#include "pyspyd/err.h"

/* Profiles in the formats of other tools. One file per format, one line in the table of export.c. */

struct export_options {
	bool threads;      /* the thread as the outermost element of each stack */
	const char *title; /* for formats that have one */
};

struct exporter {
	const char *name;            /* as in --format */
	const char *const *suffixes; /* file name endings, NULL-terminated, longest first */
	/* Writes the whole profile to fd. Return: 0, negative errno. */
	int (*write)(const struct profile *profile, const struct export_options *options, int fd);
	/* Writes what changed since `before` was counted, whose threads and nodes are the profile's; neither is without
	 * samples. NULL: the format has no way to say that. */
	int (*diff)(const struct profile *profile, const struct profile_count *before, size_t before_n,
		const struct export_options *options, int fd);
};

/* Return: the exporter of that name or file name, or NULL. */
const struct exporter *export_find(const char *name);
const struct exporter *export_for_file(const char *file_name);

/* Writes all bytes. Return: 0, negative errno. */
int export_write_all(int fd, const void *data, size_t len);

/* Collapsed stacks, one a line: `thread;outer (file:line);inner (file:line) COUNT`; what would break a line or an
 * element in a name (';', newline, control characters) is replaced. */
int export_collapsed(const struct profile *profile, const struct export_options *options, int fd);
/* The same with two counts, before and after, scaled to the same sum: `…;inner (file:line) BEFORE AFTER`. */
int export_collapsed_diff(const struct profile *profile, const struct profile_count *before, size_t before_n,
	const struct export_options *options, int fd);

int export_svg(const struct profile *profile, const struct export_options *options, int fd);
/* Boxes are as wide as both shares together; red is what grew, blue what shrank. */
int export_svg_diff(const struct profile *profile, const struct profile_count *before, size_t before_n,
	const struct export_options *options, int fd);

/* One page with the script that draws it: every thread alone, callers instead of called, zoom, search. Sides are scaled
 * and coloured as in an svg. */
int export_html(const struct profile *profile, const struct export_options *options, int fd);
int export_html_diff(const struct profile *profile, const struct profile_count *before, size_t before_n,
	const struct export_options *options, int fd);

/* Firefox Profiler: every thread by itself; of a comparison three: before, after, and the change. */
int export_gecko(const struct profile *profile, const struct export_options *options, int fd);
int export_gecko_diff(const struct profile *profile, const struct profile_count *before, size_t before_n,
	const struct export_options *options, int fd);

/* Trace events: every thread by itself; of a comparison two processes, before and after. */
int export_chrome(const struct profile *profile, const struct export_options *options, int fd);
int export_chrome_diff(const struct profile *profile, const struct profile_count *before, size_t before_n,
	const struct export_options *options, int fd);

int export_speedscope(const struct profile *profile, const struct export_options *options, int fd);
int export_pprof(const struct profile *profile, const struct export_options *options, int fd);

#endif
