/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_LEAKING_H
#define PYSPYD_PIPELINE_LEAKING_H

#include "engine/detect/detect.h"
#include "engine/pipeline/watched.h"

/* The costly part of watching for leaks: counts of heaps and groups of descriptors, made when detectors wish for them,
 * by a thread of its own and with readers of its own, so that the watch goes on meanwhile. One at a time. */

struct leaking;

/* Return: 0; -ENOMEM; negative errno. */
int leaking_new(struct leaking **ret_leaking);
void leaking_free(struct leaking *leaking); /* gives up what is being done */

/* Puts what is known of a process into the detectors' input. It stands until the next call for this process. */
void leaking_fill(struct leaking *leaking, struct watched *watched, struct detect_input *input);

/* What the detectors wish after a look. Wishes that cannot be met at once are met later, or wished again. Return: 0;
 * -ENOMEM. */
int leaking_wish(struct leaking *leaking, struct watched *watched, const struct detect_wishes *wishes);

/* The process is not watched any more. */
void leaking_forget(struct leaking *leaking, struct watched *watched);

#endif
