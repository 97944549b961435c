/* SPDX-License-Identifier: MIT */
/* From a graph that was built to the knots that are worth a word. Pure.
 *
 * A closed world is no proof of a fault: that nobody in a process is left to set an event may be how it idles. Knots
 * that rest on it alone, without anything held or joined in them, are dropped; the detector of hangs judges those. */
#include "engine/waits/knots.h"

#include "engine/waits/graph.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_dependency(const struct pyspyd_waits *waits, const struct pyspyd_wait_edge *edge) {
	const struct pyspyd_wait_node *from = &waits->nodes[edge->from];

	/* What somebody holds, or whose end is waited for, rather than what anybody might do. */
	return from->kind == PYSPYD_WAIT_TASK || (from->kind == PYSPYD_WAIT_RESOURCE && strcmp(from->type, "loop")) ||
		!strcmp(from->type, "process-end");
}

/* A thread that waits for work, and that nobody waits for, is as it should be, even where nobody is left to give it
 * any.
 */
static int free_idle(struct pyspyd_waits *waits) {
	bool *needed = calloc(waits->nodes_n + 1, sizeof(*needed)), *open = calloc(waits->nodes_n + 1, sizeof(*open));

	for (size_t i = 0; needed && open && i < waits->edges_n; i++) {
		const struct pyspyd_wait_edge *edge = &waits->edges[i];

		needed[edge->to] |= is_dependency(waits, edge);
		open[edge->from] |= !strcmp(waits->nodes[edge->to].type, "threads");
	}
	for (size_t i = 0; needed && open && i < waits->edges_n; i++) {
		struct pyspyd_wait_node *node = &waits->nodes[waits->edges[i].from];

		if (node->kind == PYSPYD_WAIT_THREAD && node->idle && open[waits->edges[i].to] &&
			!needed[waits->edges[i].from])
			node->rule = PYSPYD_WAIT_FREE;
	}
	free(needed);
	free(open);
	return needed && open ? 0 : -ENOMEM;
}

/* Nobody was seen to hold the lock, and everybody who might release it is stuck: it is never released. */
static bool orphan_locks(struct pyspyd_waits *waits) {
	bool any = false;

	for (size_t i = 0; i < waits->nodes_n; i++) {
		struct pyspyd_wait_node *node = &waits->nodes[i];

		if (!node->stuck || node->fault == NULL || node->rule != PYSPYD_WAIT_ANY)
			continue;
		node->rule = PYSPYD_WAIT_NEVER;
		any = true;
	}
	return any;
}

/* Whether some thread of a process goes on that might do anything: workers of native libraries do nothing of Python's.
 */
static bool has_others(const struct pyspyd_waits *waits, pid_t pid) {
	for (size_t i = 0; i < waits->nodes_n; i++) {
		const struct pyspyd_wait_node *node = &waits->nodes[i];

		if (node->kind == PYSPYD_WAIT_THREAD && node->pid == pid && !node->stuck &&
			(node->python || node->timed || !node->idle || strcmp(node->idle, WAITS_NATIVE_WORKER)))
			return true;
	}
	return false;
}

/* Bytecode alone says who holds a lock, if others might release it. */
static void mark_open(struct pyspyd_waits *waits) {
	for (size_t i = 0; i < waits->edges_n; i++) {
		const struct pyspyd_wait_edge *edge = &waits->edges[i];
		const struct pyspyd_wait_node *from = &waits->nodes[edge->from], *to = &waits->nodes[edge->to];
		struct pyspyd_wait_knot *knot =
			from->knot != WAITS_NONE && from->knot == to->knot ? &waits->knots[from->knot] : NULL;

		if (knot && knot->kind == PYSPYD_KNOT_SELF && edge->inferred && from->type &&
			!strcmp(from->type, "Lock"))
			knot->open = has_others(waits, to->pid);
	}
}

/* Whether a knot is more than a closed world. */
static bool has_dependency(const struct pyspyd_waits *waits, uint32_t knot) {
	if (waits->knots[knot].kind == PYSPYD_KNOT_ORPHAN)
		return true;
	for (size_t i = 0; i < waits->edges_n; i++) {
		const struct pyspyd_wait_edge *edge = &waits->edges[i];

		if (waits->nodes[edge->from].knot == knot && waits->nodes[edge->to].knot == knot &&
			strcmp(waits->nodes[edge->to].type, "threads") && is_dependency(waits, edge))
			return true;
	}
	return false;
}

static void mark_stuck(struct pyspyd_waits *waits, const uint32_t *nodes, size_t n) {
	for (size_t i = 0; i < n; i++)
		waits->nodes[nodes[i]].stuck = true;
}

static void drop_closed_worlds(struct pyspyd_waits *waits) {
	size_t kept = 0;
	uint32_t *renamed = calloc(waits->knots_n + 1, sizeof(*renamed));

	if (!renamed)
		return;
	for (size_t i = 0; i < waits->knots_n; i++) {
		bool keep = has_dependency(waits, (uint32_t)i);

		renamed[i] = keep ? (uint32_t)kept : WAITS_NONE;
		if (!keep) {
			free(waits->knots[i].nodes);
			free(waits->knots[i].victims);
		}
	}
	for (size_t i = 0; i < waits->knots_n; i++)
		if (renamed[i] != WAITS_NONE)
			waits->knots[kept++] = waits->knots[i];
	waits->knots_n = kept;
	for (size_t i = 0; i < waits->nodes_n; i++) {
		waits->nodes[i].stuck = false;
		if (waits->nodes[i].knot != WAITS_NONE)
			waits->nodes[i].knot = renamed[waits->nodes[i].knot];
	}
	for (size_t i = 0; i < kept; i++) {
		mark_stuck(waits, waits->knots[i].nodes, waits->knots[i].nodes_n);
		mark_stuck(waits, waits->knots[i].victims, waits->knots[i].victims_n);
	}
	free(renamed);
}

int knots_find(struct pyspyd_waits *waits) {
	int r = free_idle(waits);

	if (!r)
		r = waits_solve(waits);
	if (!r && orphan_locks(waits))
		r = waits_solve(waits);
	if (!r) {
		mark_open(waits);
		drop_closed_worlds(waits);
	}
	return r;
}
