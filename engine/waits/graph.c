/* SPDX-License-Identifier: MIT */
/* A wait graph as it is built, compared with the one of the look before, and freed. solve.c tells who is stuck.
 *
 * The arrays of nodes and edges have room for the next power of two: their size alone says when they are full. */
#include "engine/waits/graph.h"

#include "engine/base/map.h"
#include "engine/base/util.h"
#include "engine/waits/adjacency.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NOTES_MAX 256

/* Makes room for item n of an array whose items so far all came through here. */
static int make_room(void **items, size_t n, size_t item_size) {
	void *grown;

	if (n & (n - 1))
		return 0;
	grown = reallocarray(*items, n ? 2 * n : 1, item_size);
	if (!grown)
		return -ENOMEM;
	*items = grown;
	return 0;
}

void waits_node_deinit(struct pyspyd_wait_node *node) {
	free(node->type);
	free(node->label);
	free(node->fault);
	pyspyd_frames_free(node->frames, node->frames_n);
}

int waits_add_node(struct pyspyd_waits *waits, const struct pyspyd_wait_node *node, uint32_t *ret_index) {
	struct pyspyd_wait_node copy = *node;
	int r = waits->nodes_n < WAITS_NODES_MAX ? 0 : -E2BIG;

	if (!r)
		r = make_room((void **)&waits->nodes, waits->nodes_n, sizeof(*waits->nodes));
	if (r) {
		waits_node_deinit(&copy);
		return r;
	}
	copy.stuck = false;
	copy.knot = WAITS_NONE;
	*ret_index = (uint32_t)waits->nodes_n;
	waits->nodes[waits->nodes_n++] = copy;
	return 0;
}

int waits_add_edge(struct pyspyd_waits *waits, uint32_t from, uint32_t to, const char *expression, bool inferred,
	const char *why) {
	_free_ char *expression_copy = expression ? strdup(expression) : NULL;
	_free_ char *why_copy = why ? strdup(why) : NULL;
	int r;

	if (from >= waits->nodes_n || to >= waits->nodes_n)
		return -EINVAL;
	if (waits->edges_n >= WAITS_EDGES_MAX)
		return -E2BIG;
	if ((expression && !expression_copy) || (why && !why_copy))
		return -ENOMEM;
	r = make_room((void **)&waits->edges, waits->edges_n, sizeof(*waits->edges));
	if (r)
		return r;
	waits->edges[waits->edges_n++] = (struct pyspyd_wait_edge){
		.from = from,
		.to = to,
		.expression = take_ptr(expression_copy),
		.inferred = inferred,
		.why = take_ptr(why_copy),
	};
	return 0;
}

int waits_add_note(struct pyspyd_waits *waits, const char *format, ...) {
	char *note = NULL;
	va_list args;
	int r;

	va_start(args, format);
	r = vasprintf(&note, format, args);
	va_end(args);
	if (r < 0)
		return -ENOMEM;
	r = 0;
	for (size_t i = 0; i < waits->notes_n; i++)
		if (!strcmp(waits->notes[i], note))
			goto out;
	if (waits->notes_n == NOTES_MAX) {
		waits->incomplete = true;
		goto out;
	}
	r = make_room((void **)&waits->notes, waits->notes_n, sizeof(*waits->notes));
	if (!r)
		waits->notes[waits->notes_n++] = take_ptr(note);
out:
	free(note);
	return r;
}

void pyspyd_waits_free(struct pyspyd_waits *waits) {
	if (!waits)
		return;
	for (size_t i = 0; i < waits->nodes_n; i++)
		waits_node_deinit(&waits->nodes[i]);
	for (size_t i = 0; i < waits->edges_n; i++) {
		free(waits->edges[i].expression);
		free(waits->edges[i].why);
	}
	for (size_t i = 0; i < waits->knots_n; i++) {
		free(waits->knots[i].nodes);
		free(waits->knots[i].victims);
	}
	for (size_t i = 0; i < waits->notes_n; i++)
		free(waits->notes[i]);
	pyspyd_process_deinit(&waits->process);
	free(waits->nodes);
	free(waits->edges);
	free(waits->knots);
	free(waits->loops);
	free(waits->gils);
	free(waits->notes);
	free(waits);
}

/* The nodes of a graph by their keys. What does not fit into memory is as if it had not been there before. */
static struct map nodes_by_key(const struct pyspyd_waits *waits) {
	struct map map = { 0 };

	for (size_t i = 0; waits && i < waits->nodes_n; i++)
		if (map_put(&map, waits->nodes[i].key, i) == -ENOMEM)
			break;
	return map;
}

static const struct pyspyd_wait_node *find_node(
	const struct map *map, const struct pyspyd_waits *waits, const struct pyspyd_wait_node *node) {
	uint64_t index;

	return map_get(map, node->key, &index) ? &waits->nodes[index] : NULL;
}

static bool stood(const struct pyspyd_wait_node *before, const struct pyspyd_wait_node *now) {
	return before && (before->stamp == now->stamp || (before->gil_waiter && now->gil_waiter));
}

/* An orphan stands as soon as one of its waiters stood before: others may have come or gone. */
static bool waiter_stood(const struct map *by_key, const struct pyspyd_waits *before, const struct pyspyd_waits *now,
	const struct pyspyd_wait_knot *knot) {
	for (size_t i = 1; knot->kind == PYSPYD_KNOT_ORPHAN && i < knot->nodes_n; i++) {
		const struct pyspyd_wait_node *waiter = &now->nodes[knot->nodes[i]];
		const struct pyspyd_wait_node *was = find_node(by_key, before, waiter);

		if (was && was->stuck && stood(was, waiter))
			return true;
	}
	return false;
}

static void confirm_knots(const struct map *by_key, const struct pyspyd_waits *before, struct pyspyd_waits *now) {
	struct map knots = { 0 };

	for (size_t i = 0; before && i < before->knots_n; i++)
		if (map_put(&knots, before->knots[i].key, i) == -ENOMEM)
			break;
	for (size_t i = 0; i < now->knots_n; i++) {
		struct pyspyd_wait_knot *knot = &now->knots[i];
		uint64_t was;

		knot->confirmed = map_get(&knots, knot->key, &was) &&
			(before->knots[was].stamp == knot->stamp || waiter_stood(by_key, before, now, knot));
	}
	map_deinit(&knots);
}

void waits_confirm(const struct pyspyd_waits *before, struct pyspyd_waits *now) {
	struct map by_key = nodes_by_key(before);

	confirm_knots(&by_key, before, now);
	for (size_t i = 0; before && i < now->nodes_n; i++) {
		struct pyspyd_wait_node *node = &now->nodes[i];
		const struct pyspyd_wait_node *was = find_node(&by_key, before, node);

		if (stood(was, node) && now->look_ns > before->look_ns)
			node->waited_ns = was->waited_ns + (now->look_ns - before->look_ns);
	}
	map_deinit(&by_key);
}

/* Whether a node goes on, or waits for work, by itself. A thread that wants the GIL runs for a moment every 5 ms, which
 * brings nobody forward. */
static bool lives(const struct pyspyd_wait_node *before, const struct pyspyd_wait_node *now) {
	if (now->idle)
		return true;
	if (now->gil_waiter)
		return false;
	if (now->timed || now->state == 'R')
		return true;
	return before && before->run_ns != UINT64_MAX && now->run_ns != UINT64_MAX && before->run_ns != now->run_ns;
}

/* From those that are alive to those that wait for them. */
static void spread_life(const struct adjacency *in, bool *alive, uint32_t *queue, size_t queued) {
	while (queued) {
		uint32_t node = queue[--queued];

		for (uint32_t i = in->start[node]; i < in->start[node + 1]; i++)
			if (!alive[in->other[i]]) {
				alive[in->other[i]] = true;
				queue[queued++] = in->other[i];
			}
	}
}

int waits_alive(const struct pyspyd_waits *before, const struct pyspyd_waits *now, bool **ret_alive) {
	_cleanup_(adjacency_deinit) struct adjacency in = { 0 };
	_free_ bool *alive = calloc(now->nodes_n + 1, sizeof(*alive));
	_free_ uint32_t *queue = malloc((now->nodes_n + 1) * sizeof(*queue));
	struct map by_key;
	size_t queued = 0;
	int r;

	if (!alive || !queue)
		return -ENOMEM;
	r = adjacency_init(&in, now, true);
	if (r)
		return r;
	by_key = nodes_by_key(before);
	for (size_t i = 0; i < now->nodes_n; i++) {
		alive[i] = lives(find_node(&by_key, before, &now->nodes[i]), &now->nodes[i]);
		if (alive[i])
			queue[queued++] = (uint32_t)i;
	}
	map_deinit(&by_key);
	spread_life(&in, alive, queue, queued);
	*ret_alive = take_ptr(alive);
	return 0;
}
