/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CLI_WATCH_VIEW_H
#define PYSPYD_CLI_WATCH_VIEW_H

#include "pyspyd/watch.h"

/* The three faces of `pyspyd watch`. Each function returns 0, or VIEW_E_OUTPUT where stdout takes no more. */

enum { VIEW_E_OUTPUT = 100 };

struct watch_view {
	int (*report)(const struct pyspyd_watch_process *processes, size_t n);
	int (*finding)(const struct pyspyd_finding *finding);
	int (*value)(const struct pyspyd_value *value);
	void (*end)(void); /* gives the terminal back */
};

extern const struct watch_view watch_view_json;  /* findings alone, JSON Lines */
extern const struct watch_view watch_view_lines; /* one event a line */
extern const struct watch_view watch_view_table; /* a terminal, refreshed */

/* Words for people, out of finding.h's numbers. */
const char *finding_state_word(enum pyspyd_finding_state state);
const char *finding_severity_word(enum pyspyd_severity severity);

#endif
