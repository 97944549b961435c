/* SPDX-License-Identifier: MIT */
/* Edges sorted by one end, by counting: linear. */
#include "engine/waits/adjacency.h"

#include <errno.h>
#include <stdlib.h>

int adjacency_init(struct adjacency *adjacency, const struct pyspyd_waits *waits, bool incoming) {
	size_t n = waits->nodes_n, edges_n = waits->edges_n;
	struct adjacency made = { 0 };

	made.start = calloc(n + 2, sizeof(*made.start));
	made.other = malloc((edges_n + 1) * sizeof(*made.other));
	made.edge = malloc((edges_n + 1) * sizeof(*made.edge));
	if (!made.start || !made.other || !made.edge) {
		adjacency_deinit(&made);
		return -ENOMEM;
	}
	/* Counted two places on, so that start[i + 1] is where the next edge of i goes, and in the end its end. */
	for (size_t e = 0; e < edges_n; e++)
		made.start[(incoming ? waits->edges[e].to : waits->edges[e].from) + 2]++;
	for (size_t i = 1; i <= n; i++)
		made.start[i + 1] += made.start[i];
	for (size_t e = 0; e < edges_n; e++) {
		const struct pyspyd_wait_edge *edge = &waits->edges[e];
		uint32_t slot = made.start[(incoming ? edge->to : edge->from) + 1]++;

		made.other[slot] = incoming ? edge->from : edge->to;
		made.edge[slot] = (uint32_t)e;
	}
	*adjacency = made;
	return 0;
}

void adjacency_deinit(struct adjacency *adjacency) {
	free(adjacency->start);
	free(adjacency->other);
	free(adjacency->edge);
	*adjacency = (struct adjacency){ 0 };
}
