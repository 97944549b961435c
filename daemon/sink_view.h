/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_SINK_VIEW_H
#define PYSPYD_DAEMON_SINK_VIEW_H

#include "pyspyd/store.h"
#include <jansson.h>
#include <stdio.h>

/* A finding's event as sinks read it: the JSON opened once. Texts are the view's, printable where it is said, never
 * NULL: "" where there is none. An event whose JSON cannot be read has its kind and its number alone. */

struct sink_view {
	const struct pyspyd_event *event;
	json_t *root;           /* NULL: cannot be read */
	char *summary, *advice; /* printable; a resolved finding's says so */
	const char *pattern, *host, *name, *unit, *container, *cgroup, *exe, *python; /* as they are */
	char *cmdline;                                                                /* words with spaces between */
	const char *since, *time;                                                     /* RFC 3339 */
	double duration_s;
	const char *severity, *state;
};

/* Return: 0; -ENOMEM. */
int sink_view_init(struct sink_view *view, const struct pyspyd_event *event);
void sink_view_deinit(struct sink_view *view);

/* The stacks of all threads for people, printable, a frame a line, most recent call first; "" where there are none.
 * Return: the caller's to free(); NULL when out of memory. */
char *sink_view_stacks(const struct sink_view *view);

/* The priority of syslog. */
int sink_view_priority(const struct sink_view *view);

#endif
