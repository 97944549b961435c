/* SPDX-License-Identifier: MIT */
/* Locks whose holder was seen in an earlier look, and has ended since.
 *
 * A plain lock that no frame holds may be anybody's; but where a thread was seen to hold it while another one waited,
 * the holder has ended, and the waiter has not run since (a release would have woken it), nobody gave it back. With
 * several waiters one of the others may have got it: so it is inferred. */
#include "engine/waits/remember.h"

#include <stdio.h>
#include <string.h>

#define REMEMBERED_MAX 4096

static const struct remembered *find(const struct wait_memory *memory, uint64_t lock, uint64_t waiter, uint64_t stamp) {
	vec_foreach (one, &memory->before)
		if (one->lock == lock && one->waiter == waiter && one->stamp == stamp)
			return one;
	return NULL;
}

static uint32_t holder_of(const struct pyspyd_waits *waits, uint32_t lock) {
	for (size_t i = waits->edges_n; i > 0; i--)
		if (waits->edges[i - 1].from == lock && waits->nodes[waits->edges[i - 1].to].kind == PYSPYD_WAIT_THREAD)
			return waits->edges[i - 1].to;
	return WAITS_NONE;
}

static void keep(struct wait_scan *scan, struct wait_memory *memory, const struct remembered *one) {
	if (memory->now.n < REMEMBERED_MAX && vec_push(&memory->now, *one))
		scan->failed = true;
}

/* Return: whether the remembered holder is no more. */
static bool has_ended(const struct wait_view *view, const struct remembered *one) {
	return !view_thread_of_tid(view, one->holder_tid);
}

const char *scan_remember(struct wait_scan *scan, struct wait_memory *memory, const struct wait_view *view,
	const struct view_thread *waiter, uint32_t lock) {
	struct pyspyd_wait_node *node = scan_node(scan, lock);
	uint32_t holder = node->fault ? WAITS_NONE : holder_of(scan->waits, lock);
	struct remembered one = { node->key, scan_node(scan, waiter->node)->key, scan_node(scan, waiter->node)->stamp,
		0, "" };
	const struct remembered *before = find(memory, one.lock, one.waiter, one.stamp);
	char fault[160];

	if (holder != WAITS_NONE) {
		one.holder_tid = scan->waits->nodes[holder].tid;
		snprintf(one.holder, sizeof(one.holder), "%s", scan->waits->nodes[holder].label);
		keep(scan, memory, &one);
		return NULL;
	}
	if (!before)
		return NULL;
	keep(scan, memory, before);
	if (!node->fault || !has_ended(view, before) || scan_may_be_released(view, node->address, NULL))
		return NULL;
	if (node->rule != PYSPYD_WAIT_NEVER) {
		snprintf(fault, sizeof(fault), "%s (tid %d) held it when it ended", before->holder,
			(int)before->holder_tid);
		free(node->fault);
		node->fault = strdup(fault);
		node->rule = PYSPYD_WAIT_NEVER;
	}
	return "its holder was seen in an earlier look and has ended; the waiter has not run since";
}

void wait_memory_turn(struct wait_memory *memory) {
	remembered_vec spare = memory->before;

	memory->before = memory->now;
	memory->now = spare;
	memory->now.n = 0;
}

void wait_memory_deinit(struct wait_memory *memory) {
	vec_free(&memory->now);
	vec_free(&memory->before);
}
