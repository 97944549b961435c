/* SPDX-License-Identifier: MIT */
/* pyspyd.waits/1: { schema, process, cost_ms, incomplete, threads[], resources[], edges[], chains[], knots[], loops[],
 * gils[], notes[] }. Tasks stand among the threads, with kind "task"; processes that somebody waits for among the
 * resources. Where native frames were asked for, a thread's `stack` has them, and `native` says how well that went.
 * Nodes name each other by `id`; `key` is the same in every look at the same thing. Nodes and edges are the graph
 * (waits_read.c); what else there is of them says the same for those who do not walk graphs. */
#include "engine/finding/waits_json.h"

#include "engine/base/util.h"
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define STEPS_MAX 64
#define HOLDS_MAX 256     /* of one thread */
#define OTHERS_MAX 256    /* further things that one thread waits for, holders of one resource */
#define VICTIMS_MAX 10000 /* of one knot */

static json_t *hex(uint64_t value) {
	char text[24];

	snprintf(text, sizeof(text), "0x%" PRIx64, value);
	return json_string(text);
}

static json_t *address_json(uint64_t address) {
	return address ? hex(address) : json_null();
}

static json_t *id_or_null(pid_t id) {
	return id ? json_integer(id) : json_null();
}

static json_t *state_json(char state) {
	return state > ' ' && state < 0x7f ? json_stringn(&state, 1) : json_null();
}

static json_t *certainty(bool inferred) {
	return json_string(inferred ? "inferred" : "proven");
}

static json_t *seconds(uint64_t ns) {
	return json_real_or_null((double)ns / 1e9);
}

/* "gil", "lock": the machine's word in small letters, as in the other schemas. */
static json_t *kind_json(const struct pyspyd_wait_node *node) {
	char kind[64];
	size_t n = 0;

	if (!node->type)
		return json_null();
	for (; node->type[n] && n + 1 < sizeof(kind); n++)
		kind[n] = (char)tolower((unsigned char)node->type[n]);
	kind[n] = '\0';
	return json_text(kind);
}

static json_t *name_json(const struct waits_walk *walk, uint32_t node) {
	const struct pyspyd_waits *waits = walk->waits;
	struct strbuf sb = { 0 };
	json_t *name;

	if (waits->nodes[node].label)
		return json_text(waits->nodes[node].label);
	waits_name(&sb, waits, node, NULL);
	name = sb.failed ? NULL : json_text(strbuf_str(&sb));
	strbuf_deinit(&sb);
	return name;
}

/* One end of an edge, as the other end sees it. */
static json_t *end_json(const struct waits_walk *walk, uint32_t node, const struct pyspyd_wait_edge *edge) {
	const struct pyspyd_wait_node *end = &walk->waits->nodes[node];
	json_t *object = json_object();
	bool ok = json_put(true, object, "kind", kind_json(end));

	ok = json_put(ok, object, "id", json_integer(node));
	ok = json_put(ok, object, "name", name_json(walk, node));
	ok = json_put(ok, object, "address", address_json(end->address));
	ok = json_put(ok, object, "expression", json_text(edge->expression));
	ok = json_put(ok, object, "certainty", certainty(edge->inferred));
	ok = json_put(ok, object, "why", json_text(edge->why));
	return json_done(ok, object);
}

/* The far ends of some slots. */
static json_t *ends_json(const struct waits_walk *walk, uint32_t slot, uint32_t end) {
	json_t *array = json_array();
	bool ok = array != NULL;

	end = min_of(end, slot + OTHERS_MAX);
	for (; ok && slot < end; slot++)
		ok = !json_array_append_new(array, end_json(walk, walk->out.other[slot], waits_walk_edge(walk, slot)));
	return json_done(ok, array);
}

static const char *rule_name(enum pyspyd_wait_rule rule) {
	switch (rule) {
	case PYSPYD_WAIT_FREE: return "free";
	case PYSPYD_WAIT_ANY: return "any";
	case PYSPYD_WAIT_ALL: return "all";
	case PYSPYD_WAIT_NEVER: return "never";
	}
	return "free";
}

static json_t *waits_for_json(const struct waits_walk *walk, uint32_t node) {
	uint32_t slot = walk->out.start[node], end = walk->out.start[node + 1];
	json_t *object;
	bool ok;

	if (slot == end)
		return json_object();
	object = end_json(walk, walk->out.other[slot], waits_walk_edge(walk, slot));
	ok = json_put(object != NULL, object, "rule", json_string(rule_name(walk->waits->nodes[node].rule)));
	ok = json_put(ok, object, "others", ends_json(walk, slot + 1, end));
	return json_done(ok, object);
}

static json_t *holds_json(const struct waits_walk *walk, uint32_t node) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (uint32_t slot = walk->in.start[node]; ok && slot < walk->in.start[node + 1]; slot++) {
		uint32_t from = walk->in.other[slot];

		if (walk->waits->nodes[from].kind == PYSPYD_WAIT_RESOURCE && json_array_size(array) < HOLDS_MAX)
			ok = !json_array_append_new(
				array, end_json(walk, from, &walk->waits->edges[walk->in.edge[slot]]));
	}
	return json_done(ok, array);
}

static json_t *knot_index(const struct pyspyd_wait_node *node) {
	return node->knot == WAITS_NONE ? json_null() : json_integer(node->knot);
}

json_t *waits_json_actor(const struct waits_walk *walk, uint32_t index, const char *role, double cpu_percent) {
	const struct pyspyd_wait_node *node = &walk->waits->nodes[index];
	json_t *object = json_object();
	bool ok = json_put(true, object, "tid", id_or_null(node->tid));

	ok = json_put(ok, object, "name", name_json(walk, index));
	ok = json_put(ok, object, "role", json_text(role));
	ok = json_put(ok, object, "state", state_json(node->state));
	ok = json_put(ok, object, "cpu_percent", json_real_or_null(cpu_percent));
	ok = json_put(ok, object, "holds", holds_json(walk, index));
	ok = json_put(ok, object, "waits_for", waits_for_json(walk, index));
	ok = json_put(ok, object, "stack", stack_json_frames(node->frames, node->frames_n));
	ok = json_put(
		ok, object, "site", node->site < node->frames_n ? json_integer((json_int_t)node->site) : json_null());
	ok = json_put(ok, object, "id", json_integer(index));
	ok = json_put(ok, object, "key", hex(node->key));
	ok = json_put(ok, object, "kind", kind_json(node));
	ok = json_put(ok, object, "pid", id_or_null(node->pid));
	ok = json_put(ok, object, "ident", json_integer((json_int_t)node->ident));
	ok = json_put(ok, object, "address", address_json(node->address));
	ok = json_put(ok, object, "main", json_boolean(node->main));
	ok = json_put(ok, object, "python", json_boolean(node->python));
	ok = json_put(ok, object, "timed", json_boolean(node->timed));
	ok = json_put(ok, object, "retry", json_boolean(node->retry));
	ok = json_put(ok, object, "gil_waiter", json_boolean(node->gil_waiter));
	ok = json_put(ok, object, "idle", json_text(node->idle));
	ok = json_put(ok, object, "waited_s", seconds(node->waited_ns));
	ok = json_put(ok, object, "stuck", json_boolean(node->stuck));
	ok = json_put(ok, object, "knot", knot_index(node));
	ok = json_put(ok, object, "fault", json_text(node->fault));
	ok = json_put(ok, object, "rule", json_string(rule_name(node->rule)));
	if (node->native)
		ok = json_put(ok, object, "native", stack_json_native(node->native_end, node->disagree, 0));
	return json_done(ok, object);
}

static json_t *resource_json(const struct waits_walk *walk, uint32_t index) {
	const struct pyspyd_wait_node *node = &walk->waits->nodes[index];
	json_t *object = json_object();
	bool ok = json_put(true, object, "id", json_integer(index));

	ok = json_put(ok, object, "key", hex(node->key));
	ok = json_put(ok, object, "kind", kind_json(node));
	ok = json_put(ok, object, "name", name_json(walk, index));
	ok = json_put(ok, object, "pid", id_or_null(node->pid));
	ok = json_put(ok, object, "address", address_json(node->address));
	ok = json_put(ok, object, "rule", json_string(rule_name(node->rule)));
	ok = json_put(ok, object, "holders", ends_json(walk, walk->out.start[index], walk->out.start[index + 1]));
	ok = json_put(ok, object, "stuck", json_boolean(node->stuck));
	ok = json_put(ok, object, "knot", knot_index(node));
	ok = json_put(ok, object, "fault", json_text(node->fault));
	ok = json_put(ok, object, "type", json_text(node->type));
	return json_done(ok, object);
}

static json_t *edge_json(const struct pyspyd_wait_edge *edge) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "from", json_integer(edge->from));

	ok = json_put(ok, object, "to", json_integer(edge->to));
	ok = json_put(ok, object, "expression", json_text(edge->expression));
	ok = json_put(ok, object, "certainty", certainty(edge->inferred));
	ok = json_put(ok, object, "why", json_text(edge->why));
	return json_done(ok, object);
}

static json_t *edges_json(const struct pyspyd_waits *waits) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < waits->edges_n; i++)
		ok = !json_array_append_new(array, edge_json(&waits->edges[i]));
	return json_done(ok, array);
}

static json_t *nodes_json(const struct waits_walk *walk, bool actors) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (uint32_t i = 0; ok && i < walk->waits->nodes_n; i++)
		if (waits_is_actor(&walk->waits->nodes[i]) == actors)
			ok = !json_array_append_new(
				array, actors ? waits_json_actor(walk, i, NULL, -1) : resource_json(walk, i));
	return json_done(ok, array);
}

/* Chains. */

static json_t *step_json(const struct waits_walk *walk, uint32_t index, uint32_t slot) {
	const struct pyspyd_wait_node *node = &walk->waits->nodes[index];
	const struct pyspyd_wait_edge *edge = slot == WAITS_NONE ? NULL : waits_walk_edge(walk, slot);
	json_t *object = json_object();
	bool ok = json_put(true, object, "id", json_integer(index));

	ok = json_put(ok, object, "kind", kind_json(node));
	ok = json_put(ok, object, "name", name_json(walk, index));
	ok = json_put(ok, object, "pid", id_or_null(node->pid));
	ok = json_put(ok, object, "tid", id_or_null(node->tid));
	ok = json_put(ok, object, "frame",
		node->site < node->frames_n ? stack_json_frame(&node->frames[node->site]) : json_null());
	ok = json_put(ok, object, "expression", json_text(edge ? edge->expression : NULL));
	ok = json_put(ok, object, "certainty", edge ? certainty(edge->inferred) : json_null());
	ok = json_put(ok, object, "why", json_text(edge ? edge->why : node->fault));
	ok = json_put(ok, object, "branches", json_integer(waits_walk_degree(walk, index)));
	return json_done(ok, object);
}

/* Return: which step a node is, WAITS_NONE: none yet. */
static uint32_t step_of(const uint32_t *steps, uint32_t n, uint32_t node) {
	for (uint32_t i = 0; i < n; i++)
		if (steps[i] == node)
			return i;
	return WAITS_NONE;
}

json_t *waits_json_chain(const struct waits_walk *walk, uint32_t node) {
	json_t *object = json_object(), *array = json_array();
	uint32_t steps[STEPS_MAX], n = 0, cycle = WAITS_NONE, slot = WAITS_NONE;
	bool ok = array != NULL;

	do {
		steps[n++] = node;
		slot = waits_walk_next(walk, node);
		ok = ok && !json_array_append_new(array, step_json(walk, node, slot));
		if (slot == WAITS_NONE)
			break;
		node = walk->out.other[slot];
		cycle = step_of(steps, n, node);
	} while (ok && cycle == WAITS_NONE && n < STEPS_MAX);
	ok = json_put(ok, object, "steps", array);
	ok = json_put(ok, object, "cycle", cycle == WAITS_NONE ? json_null() : json_integer(cycle));
	ok = json_put(ok, object, "truncated", json_boolean(slot != WAITS_NONE && cycle == WAITS_NONE));
	return json_done(ok, object);
}

static json_t *chains_json(const struct waits_walk *walk) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < walk->roots_n; i++)
		ok = !json_array_append_new(array, waits_json_chain(walk, walk->roots[i]));
	return json_done(ok, array);
}

/* Knots. */

static const char *knot_kind(enum pyspyd_knot_kind kind) {
	switch (kind) {
	case PYSPYD_KNOT_CYCLE: return "cycle";
	case PYSPYD_KNOT_SELF: return "self";
	case PYSPYD_KNOT_ORPHAN: return "orphan";
	}
	return "cycle";
}

static json_t *ids_json(const uint32_t *ids, size_t n) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < n; i++)
		ok = !json_array_append_new(array, json_integer(ids[i]));
	return json_done(ok, array);
}

/* What add_words writes; null for nothing. */
static json_t *words_json(const struct waits_walk *walk, const struct pyspyd_wait_knot *knot,
	void (*add_words)(struct strbuf *, const struct waits_walk *, const struct pyspyd_wait_knot *)) {
	struct strbuf sb = { 0 };
	json_t *words = NULL;

	add_words(&sb, walk, knot);
	if (!sb.failed)
		words = sb.len ? json_text(strbuf_str(&sb)) : json_null();
	strbuf_deinit(&sb);
	return words;
}

json_t *waits_json_knot(const struct waits_walk *walk, const struct pyspyd_wait_knot *knot) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "kind", json_string(knot_kind(knot->kind)));

	ok = json_put(ok, object, "certainty", certainty(knot->inferred));
	ok = json_put(ok, object, "why", words_json(walk, knot, waits_why));
	ok = json_put(ok, object, "confirmed", json_boolean(knot->confirmed));
	ok = json_put(ok, object, "summary", words_json(walk, knot, waits_sentence));
	ok = json_put(ok, object, "nodes", ids_json(knot->nodes, knot->nodes_n));
	ok = json_put(ok, object, "victims", ids_json(knot->victims, min_of(knot->victims_n, (size_t)VICTIMS_MAX)));
	ok = json_put(ok, object, "victims_total", json_count(knot->victims_n));
	ok = json_put(ok, object, "key", hex(knot->key));
	return json_done(ok, object);
}

static json_t *knots_json(const struct waits_walk *walk) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < walk->waits->knots_n; i++)
		ok = !json_array_append_new(array, waits_json_knot(walk, &walk->waits->knots[i]));
	return json_done(ok, array);
}

/* The whole. */

static json_t *loop_json(const struct pyspyd_wait_loop *loop) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "pid", id_or_null(loop->pid));

	ok = json_put(ok, object, "tid", id_or_null(loop->tid));
	ok = json_put(ok, object, "address", address_json(loop->address));
	ok = json_put(ok, object, "polling", json_boolean(loop->polling));
	ok = json_put(ok, object, "ready", json_count(loop->ready));
	ok = json_put(ok, object, "overdue", json_count(loop->overdue));
	ok = json_put(ok, object, "tasks", json_count(loop->tasks));
	return json_done(ok, object);
}

static json_t *loops_json(const struct pyspyd_waits *waits) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < waits->loops_n; i++)
		ok = !json_array_append_new(array, loop_json(&waits->loops[i]));
	return json_done(ok, array);
}

static json_t *gil_json(const struct pyspyd_wait_gil *gil) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "interpreter", json_count(gil->interpreter));

	ok = json_put(ok, object, "pid", id_or_null(gil->pid));
	ok = json_put(ok, object, "holder", id_or_null(gil->holder));
	ok = json_put(ok, object, "switches", gil->switches ? json_count(gil->switches) : json_null());
	ok = json_put(ok, object, "waiters", json_integer(gil->waiters));
	return json_done(ok, object);
}

static json_t *gils_json(const struct pyspyd_waits *waits) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < waits->gils_n; i++)
		ok = !json_array_append_new(array, gil_json(&waits->gils[i]));
	return json_done(ok, array);
}

static json_t *notes_json(const struct pyspyd_waits *waits) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < waits->notes_n; i++)
		ok = !json_array_append_new(array, json_text(waits->notes[i]));
	return json_done(ok, array);
}

char *pyspyd_waits_json(const struct pyspyd_waits *waits) {
	_cleanup_(waits_walk_deinit) struct waits_walk walk = { 0 };
	json_t *object;
	bool ok;

	if (waits_walk_init(&walk, waits))
		return NULL;
	object = json_object();
	ok = json_put(true, object, "schema", json_string("pyspyd.waits/1"));
	ok = json_put(ok, object, "process", stack_json_process(&waits->process));
	if (waits->process.core)
		ok = json_put(ok, object, "core", stack_json_core(waits->process.core));
	ok = json_put(ok, object, "cost_ms", json_real_or_null((double)waits->cost_ns / 1e6));
	ok = json_put(ok, object, "incomplete", json_boolean(waits->incomplete));
	ok = json_put(ok, object, "threads", nodes_json(&walk, true));
	ok = json_put(ok, object, "resources", nodes_json(&walk, false));
	ok = json_put(ok, object, "edges", edges_json(waits));
	ok = json_put(ok, object, "chains", chains_json(&walk));
	ok = json_put(ok, object, "knots", knots_json(&walk));
	ok = json_put(ok, object, "loops", loops_json(waits));
	ok = json_put(ok, object, "gils", gils_json(waits));
	ok = json_put(ok, object, "notes", notes_json(waits));
	return json_line(json_done(ok, object));
}
