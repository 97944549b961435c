/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WAITS_GRAPH_H
#define PYSPYD_WAITS_GRAPH_H

#include "pyspyd/waits.h"

/* Building and solving a wait graph (pyspyd/waits.h). Pure: no memory of a target, no clock. */

#define WAITS_NODES_MAX (1U << 20)
#define WAITS_EDGES_MAX (4U << 20)
#define WAITS_NONE UINT32_MAX
#define WAITS_NATIVE_WORKER "native worker" /* idle: a thread without Python, at a futex of its process */
#define WAITS_VICTIM_KNOTS 8                /* a victim of more knots is listed with so many */

/* Appends a node; its strings and frames become the graph's, also on failure. Return: 0 and *ret_index; -ENOMEM;
 * -E2BIG at the limit. */
int waits_add_node(struct pyspyd_waits *waits, const struct pyspyd_wait_node *node, uint32_t *ret_index);

/* Frees the strings and frames of a node that is not in a graph. */
void waits_node_deinit(struct pyspyd_wait_node *node);

/* Appends an edge; `expression` and `why` are copied, may be NULL. Return: 0; -ENOMEM; -E2BIG; -EINVAL for an index
 * that there is not. */
int waits_add_edge(
	struct pyspyd_waits *waits, uint32_t from, uint32_t to, const char *expression, bool inferred, const char *why);

/* Appends a sentence to notes, once. Return: 0; -ENOMEM. */
int waits_add_note(struct pyspyd_waits *waits, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Tells who is stuck and why: fills `stuck` and `knot` of the nodes, and the knots. Called again, it starts anew.
 * Linear in nodes and edges.
 *
 * A node is stuck when no order of events within the graph frees it: progress begins at the free nodes and spreads
 * against the edges, over ANY nodes from one successor, over ALL nodes from the last one. What it does not reach is
 * stuck. Knots are the strongly connected sets of stuck nodes from which no edge leads to another stuck set: a cycle of
 * one thread and resources only it holds is SELF, one with several threads or tasks a CYCLE, and a NEVER node an
 * ORPHAN (where somebody is stuck for it). The key of an orphan is that of its resource alone, as waiters come and go;
 * nodes that are stuck for several orphans name one of them in `knot`. Return: 0; -ENOMEM. */
int waits_solve(struct pyspyd_waits *waits);

/* Marks the knots of `now` that `before` has too, with the same stamp; and carries over how long its nodes have waited
 * where key and stamp are the same (GIL waiters: the key). Of an orphan one waiter that stood is enough. `before` may
 * be NULL: nothing is confirmed. */
void waits_confirm(const struct pyspyd_waits *before, struct pyspyd_waits *now);

/* Whether anything that a node waits for, however indirectly, is at an idle point or may go on by itself because it
 * runs or its time-out will come: nothing is wrong with such a wait by itself. Return per node in *ret_alive (nodes_n
 * entries, the caller's to free). `before`: nodes whose run_ns moved since count as running. Return: 0; -ENOMEM. */
int waits_alive(const struct pyspyd_waits *before, const struct pyspyd_waits *now, bool **ret_alive);

#endif
