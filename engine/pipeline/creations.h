/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_CREATIONS_H
#define PYSPYD_PIPELINE_CREATIONS_H

#include "engine/detect/detect.h"
#include "engine/pipeline/watched.h"

/* Where the processes of a watch make what they make, while detectors wish to know: by a thread of its own, since
 * stacks are to be decoded as they come. While nobody wishes it, nothing is attached. */

struct creations;

/* Return: 0; -ENOMEM. */
int creations_new(struct creations **ret_creations);
void creations_free(struct creations *creations);

/* Whether a process is to be looked at, in this interval. It goes on for a while after the last wish. Return: 0;
 * -ENOMEM. */
int creations_wish(struct creations *creations, struct watched *watched, bool wanted, uint64_t now_ns);

/* Puts what was seen into the detectors' input. It stands until the next call for this process. */
void creations_fill(struct creations *creations, struct watched *watched, struct detect_input *input);

/* The process is not watched any more. */
void creations_forget(struct creations *creations, struct watched *watched);

#endif
