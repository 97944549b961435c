/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WAITS_SITES_H
#define PYSPYD_WAITS_SITES_H

#include "engine/waits/view.h"
#include "pyspyd/err.h"

/* What the frames of a waiting thread say: which primitive of the standard library it is in, whether programs wait for
 * work there, and where its own code is. The tables are sites.def. */

enum wait_site_kind {
	SITE_NONE,
	SITE_CONDITION, /* any object of threading that waits on a condition; by the type of self */
	SITE_ACQUIRE,   /* Semaphore.acquire */
	SITE_BARRIER,
	SITE_QUEUE_GET,
	SITE_QUEUE_PUT,
	SITE_QUEUE_JOIN,
	SITE_FUTURE,
	SITE_FUTURES,
	SITE_JOIN,
	SITE_SHUTDOWN,
	SITE_START,
	SITE_IMPORT,
	SITE_POOL_RESULT,
};

struct wait_site {
	enum wait_site_kind kind;
	size_t frame; /* index of the frame that says so: the outermost one of the library */
};

/* Innermost own frame: the first that is not the standard library's plumbing. 0 where all are. */
size_t site_own_frame(const struct view_thread *thread);

/* The primitive that the thread's innermost frames are in, up to its own code. */
struct wait_site site_of(const struct view_thread *thread);

/* Extra rules of the user. */
struct park_rules;
int park_rules_new(const char *const *park, struct park_rules **ret_rules, struct err *err);
void park_rules_free(struct park_rules *rules);

/* Words for the point at which programs wait for work, where the thread is at one; else NULL. */
const char *site_park(const struct park_rules *rules, const struct view_thread *thread);

#endif
