/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_DISCOVER_H
#define PYSPYD_PIPELINE_DISCOVER_H

#include "engine/base/map.h"
#include <stdint.h>
#include <sys/types.h>

/* New processes of a host, by a scan of /proc that costs little where nothing is new: who was looked at and let go is
 * not looked at again, unless it executes another program. */

enum discover_answer {
	DISCOVER_DONE,   /* it is of no interest (or is watched now) */
	DISCOVER_DENIED, /* it may be, but cannot be read */
	DISCOVER_LATER,  /* ask again at the next scan: it is still starting */
	DISCOVER_OTHER,  /* likewise: it is no Python as far as a short look shows */
};

struct discover {
	struct map known; /* pid → what it was when it was let go */
	unsigned scans;
	uint64_t denied; /* among them */
};

/* Calls `ask` for each process that is not known. Return: 0; negative errno. */
int discover_scan(struct discover *discover, enum discover_answer (*ask)(void *userdata, pid_t pid), void *userdata);

/* All are asked for again. */
void discover_forget(struct discover *discover);
void discover_deinit(struct discover *discover);

#endif
