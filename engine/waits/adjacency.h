/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WAITS_ADJACENCY_H
#define PYSPYD_WAITS_ADJACENCY_H

#include "pyspyd/waits.h"

/* The edges of a wait graph by one of their ends: those of node i are `other[start[i]]` up to `other[start[i + 1]]`,
 * in the order of the graph. */
struct adjacency {
	uint32_t *start; /* nodes_n + 1 */
	uint32_t *other; /* the node at the other end */
	uint32_t *edge;  /* index of the edge */
};

/* By `from`, or with `incoming` by `to`. Return: 0; -ENOMEM. */
int adjacency_init(struct adjacency *adjacency, const struct pyspyd_waits *waits, bool incoming);
void adjacency_deinit(struct adjacency *adjacency);

#endif
