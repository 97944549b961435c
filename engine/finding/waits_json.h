/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_WAITS_JSON_H
#define PYSPYD_FINDING_WAITS_JSON_H

#include "engine/detect/waits_walk.h"
#include "engine/finding/stack_json.h"

/* Parts of pyspyd.waits/1 that findings take over as evidence. `id` is a node's index in its graph. Each returns a new
 * reference; NULL when out of memory. */

/* A thread or task: the bones of SPEC.md (tid, name, role, state, cpu_percent, holds, waits_for, stack) and more. */
json_t *waits_json_actor(const struct waits_walk *walk, uint32_t node, const char *role, double cpu_percent);

/* { steps[ { id, kind, name, pid, tid, frame, expression, certainty, why, branches } ], cycle, truncated }: from a node
 * to the end of what it waits for; where several might end a wait, the one that tells most. `cycle`: the step that the
 * last one leads back to, null where it does not. */
json_t *waits_json_chain(const struct waits_walk *walk, uint32_t node);

/* { kind, certainty, why, confirmed, summary, nodes[], victims[], victims_total }. */
json_t *waits_json_knot(const struct waits_walk *walk, const struct pyspyd_wait_knot *knot);

#endif
