/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_RAISING_H
#define PYSPYD_PIPELINE_RAISING_H

#include "engine/detect/detect.h"
#include "engine/pipeline/watched.h"

/* What busy threads of a watch do with exceptions: a few looks at a few words of each, many times a second. Threads
 * that used less than half a core in the last interval are not looked at. */

/* To be called between two intervals, a few times a second: it takes about a millisecond where somebody is busy. */
void raising_tend(struct watched *const *watched, size_t n);

/* What was seen of a thread since raising_turn. Its strings stand until then. */
void raising_fill(const struct watched *watched, pid_t tid, struct detect_exceptions *ret_exceptions);

/* A new interval begins. */
void raising_turn(struct watched *watched);

/* Lets go of what is kept for a process. */
void raising_forget(struct watched *watched);

#endif
