/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_CHAIN_H
#define PYSPYD_FINDING_CHAIN_H

#include "engine/base/strbuf.h"
#include "engine/detect/detect.h"
#include "engine/waits/adjacency.h"
#include <jansson.h>

/* The part of a wait graph that a finding shows. */

struct chain {
	const struct pyspyd_waits *waits; /* NULL: the finding is none of waiting */
	struct adjacency out, in;
};

/* `waits` is borrowed and may be NULL. Return: 0; -ENOMEM. */
int chain_init(struct chain *chain, const struct pyspyd_waits *waits);
void chain_deinit(struct chain *chain);

/* Evidence: the steps in their order, each with its edges to other steps (by index):
 *
 *   { kind, type, label, pid, tid, function, file, line, edges[ { to, expression, certainty, why } ] }   thread, task
 *   { kind: "resource", type, label, expression, fault, edges[…] }
 *
 * Those of the verdict's knot; without one, whatever its parties wait for. New reference; NULL: out of memory. */
json_t *chain_json(const struct chain *chain, const struct detect_verdict *verdict);

/* A thread's or task's place in `threads` of a finding: what it has that others may wait for, [ { kind, label,
 * certainty } ], and what it waits for, { kind, label, expression, certainty, holder{ pid, tid, name }, more } (empty
 * where it does not wait). The GIL is { kind: "gil" }. New references; NULL: out of memory. */
json_t *chain_holds(const struct chain *chain, uint32_t node);
json_t *chain_waits_for(const struct chain *chain, uint32_t node);

/* A node's frames as a stack; borrowed but for the array. Return: 0; -ENOMEM. */
int chain_stack(const struct pyspyd_wait_node *node, struct detect_stack *ret_stack);
void chain_stack_free(struct detect_stack *stack);

/* For the fingerprint: where the members of the knot are and what they wait for by which name, sorted, without pid,
 * address or number; of a verdict without knot: the parties that have the first one's role. Return: 0; -ENOMEM. */
int chain_site(const struct chain *chain, const struct detect_verdict *verdict, struct strbuf *sb);

#endif
