/* SPDX-License-Identifier: MIT */
/* pyspyd.waits/1 back into a graph. Nodes and edges are read; who is stuck, and in which knots, is solved anew, so that
 * what a document claims of its graph is always true of it. Of the knots it says which were confirmed.
 *
 * What only the next look would need is not in the document: stamps, and CPU time. */
#include "engine/finding/document.h"

#include "engine/base/clock.h"
#include "engine/base/map.h"
#include "engine/base/util.h"
#include "engine/detect/waits_walk.h"
#include "engine/waits/knots.h"
#include "pyspyd/snapshot.h"
#include <errno.h>
#include <string.h>

static const char *const rules[] = {
	[PYSPYD_WAIT_FREE] = "free",
	[PYSPYD_WAIT_ANY] = "any",
	[PYSPYD_WAIT_ALL] = "all",
	[PYSPYD_WAIT_NEVER] = "never",
};

/* A node on its way: which place it has in the graph is known when all are there. */
struct row {
	uint32_t id;
	struct pyspyd_wait_node node;
};

struct rows {
	struct row *items;
	size_t n;
};

static void rows_deinit(struct rows *rows) {
	for (size_t i = 0; i < rows->n; i++)
		waits_node_deinit(&rows->items[i].node);
	free(rows->items);
}

static bool read_certainty(struct document *document, const json_t *object) {
	static const char *const words[] = { "proven", "inferred" };

	return document_choice(document, object, "certainty", words, ARRAY_SIZE(words));
}

static uint32_t read_id(struct document *document, const json_t *object, const char *key) {
	return (uint32_t)document_number(document, object, key, 0, WAITS_NODES_MAX, 0);
}

static pid_t read_pid(struct document *document, const json_t *object, const char *key) {
	return (pid_t)document_number(document, object, key, 0, INT32_MAX, 0);
}

/* What threads and resources share. */
static void read_node(struct document *document, const json_t *object, struct row *row) {
	row->id = read_id(document, object, "id");
	row->node.key = document_address(document, object, "key");
	row->node.label = document_string(document, object, "name");
	row->node.pid = read_pid(document, object, "pid");
	row->node.address = document_address(document, object, "address");
	row->node.fault = document_text(document, object, "fault");
	row->node.rule = (enum pyspyd_wait_rule)document_choice(document, object, "rule", rules, ARRAY_SIZE(rules));
	row->node.knot = WAITS_NONE;
	row->node.run_ns = UINT64_MAX;
}

static void read_native(struct document *document, const json_t *object, struct pyspyd_wait_node *node) {
	struct pyspyd_thread thread = { 0 };

	document_native(document, object, &thread);
	node->native = thread.native;
	node->native_end = thread.native_end;
	node->disagree = thread.disagree;
}

static void read_actor(struct document *document, const json_t *object, void *item) {
	static const char *const kinds[] = { [PYSPYD_WAIT_THREAD] = "thread", [PYSPYD_WAIT_TASK] = "task" };
	struct row *row = item;
	struct pyspyd_wait_node *node = &row->node;

	read_node(document, object, row);
	node->kind = (enum pyspyd_wait_kind)document_choice(document, object, "kind", kinds, ARRAY_SIZE(kinds));
	node->type = document_string(document, object, "kind");
	node->tid = read_pid(document, object, "tid");
	node->ident = (uint64_t)document_signed(document, object, "ident");
	node->state = document_state(document, object, "state");
	node->main = document_bool(document, object, "main");
	node->python = document_bool(document, object, "python");
	node->timed = document_bool(document, object, "timed");
	node->retry = document_bool(document, object, "retry");
	node->gil_waiter = document_bool(document, object, "gil_waiter");
	node->idle = document_word(document, object, "idle");
	node->waited_ns = document_ns(document, object, "waited_s", (double)NS_PER_SEC, 0);
	node->frames =
		document_array(document, object, "stack", sizeof(*node->frames), document_frame, &node->frames_n);
	node->site = (size_t)document_number(document, object, "site", 0, INT32_MAX, INT32_MAX);
	if (json_object_get(object, "native"))
		read_native(document, object, node);
}

static bool is_process(const char *type) {
	return !strcmp(type, "process") || !strcmp(type, "process-end") || !strcmp(type, "threads");
}

static void read_resource(struct document *document, const json_t *object, void *item) {
	struct row *row = item;

	read_node(document, object, row);
	row->node.type = document_string(document, object, "type");
	row->node.kind = row->node.type && is_process(row->node.type) ? PYSPYD_WAIT_PROCESS : PYSPYD_WAIT_RESOURCE;
}

/* What a document calls a node may be its label, or what waits_name makes of one that has none. */
static int drop_made_label(struct pyspyd_waits *waits, uint32_t index) {
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 };
	struct pyspyd_wait_node *node = &waits->nodes[index];
	char *label = node->label;

	node->label = NULL;
	waits_name(&name, waits, index, NULL);
	if (name.failed || !label || strcmp(strbuf_str(&name), label)) {
		node->label = label;
		return name.failed ? -ENOMEM : 0;
	}
	free(label);
	return 0;
}

/* Moves nodes to their places. */
static int place_rows(struct document *document, struct rows *rows, struct pyspyd_waits *waits) {
	for (size_t i = 0; i < rows->n; i++) {
		struct row *row = &rows->items[i];

		if (row->id >= waits->nodes_n || waits->nodes[row->id].type)
			return document_fail(document, "id", "is given twice, or one is left out");
		waits->nodes[row->id] = row->node;
		row->node = (struct pyspyd_wait_node){ 0 };
	}
	return 0;
}

static int read_nodes(struct document *document, struct pyspyd_waits *waits) {
	_cleanup_(rows_deinit) struct rows actors = { 0 }, resources = { 0 };
	int r;

	actors.items = document_array(document, document->root, "threads", sizeof(struct row), read_actor, &actors.n);
	resources.items =
		document_array(document, document->root, "resources", sizeof(struct row), read_resource, &resources.n);
	if (!document->r && actors.n + resources.n > WAITS_NODES_MAX)
		document_fail(document, "threads", "are too many");
	if (document->r)
		return document->r;
	waits->nodes = calloc(actors.n + resources.n + 1, sizeof(*waits->nodes));
	if (!waits->nodes)
		return -ENOMEM;
	waits->nodes_n = actors.n + resources.n;
	r = place_rows(document, &actors, waits);
	if (!r)
		r = place_rows(document, &resources, waits);
	for (uint32_t i = 0; !r && i < waits->nodes_n; i++)
		r = drop_made_label(waits, i);
	return r;
}

static void read_edge(struct document *document, const json_t *object, void *item) {
	const struct pyspyd_waits *waits = document->userdata;
	struct pyspyd_wait_edge *edge = item;

	edge->from = read_id(document, object, "from");
	edge->to = read_id(document, object, "to");
	edge->expression = document_text(document, object, "expression");
	edge->inferred = read_certainty(document, object);
	edge->why = document_text(document, object, "why");
	if (edge->from >= waits->nodes_n || edge->to >= waits->nodes_n)
		document_fail(document, "to", "is none of the nodes");
}

static void read_loop(struct document *document, const json_t *object, void *item) {
	struct pyspyd_wait_loop *loop = item;

	loop->pid = read_pid(document, object, "pid");
	loop->tid = read_pid(document, object, "tid");
	loop->address = document_address(document, object, "address");
	loop->polling = document_bool(document, object, "polling");
	loop->ready = document_count(document, object, "ready");
	loop->overdue = document_count(document, object, "overdue");
	loop->tasks = document_count(document, object, "tasks");
}

static void read_gil(struct document *document, const json_t *object, void *item) {
	struct pyspyd_wait_gil *gil = item;

	gil->interpreter = document_count(document, object, "interpreter");
	gil->pid = read_pid(document, object, "pid");
	gil->holder = read_pid(document, object, "holder");
	gil->switches = (uint64_t)document_signed(document, object, "switches");
	gil->waiters = (uint32_t)document_number(document, object, "waiters", 0, UINT32_MAX, 0);
}

static void read_notes(struct document *document, struct pyspyd_waits *waits) {
	json_t *array = document_get(document, document->root, "notes");

	if (!document->r && !json_is_array(array))
		document_fail(document, "notes", "is no list");
	for (size_t i = 0; i < json_array_size(array) && !document->r; i++) {
		const char *note = json_string_value(json_array_get(array, i));

		if (!note)
			document_fail(document, "notes", "is not all text");
		else if (waits_add_note(waits, "%s", note))
			document->r = -ENOMEM;
	}
}

/* Of one knot of the document. */
struct confirmed {
	uint64_t key;
	bool is;
};

static void read_knot(struct document *document, const json_t *object, void *item) {
	struct confirmed *knot = item;

	knot->key = document_address(document, object, "key");
	knot->is = document_bool(document, object, "confirmed");
}

static int confirm(const struct confirmed *confirmed, size_t n, struct pyspyd_waits *waits) {
	_cleanup_(map_deinit) struct map keys = { 0 };
	uint64_t unused;
	int r = 0;

	for (size_t i = 0; !r && i < n; i++)
		if (confirmed[i].is && confirmed[i].key != UINT64_MAX)
			r = map_put(&keys, confirmed[i].key, 0);
	for (size_t i = 0; !r && i < waits->knots_n; i++)
		waits->knots[i].confirmed = map_get(&keys, waits->knots[i].key, &unused);
	return r;
}

static int solve(struct document *document, struct pyspyd_waits *waits) {
	_free_ struct confirmed *knots = NULL;
	size_t n = 0;
	int r;

	knots = document_array(document, document->root, "knots", sizeof(*knots), read_knot, &n);
	r = document->r ? document->r : knots_find(waits);
	return r ? r : confirm(knots, n, waits);
}

static int read_waits(struct document *document, struct pyspyd_waits *waits) {
	const json_t *root = document->root;
	int r;

	document_process(document, root, &waits->process);
	waits->cost_ns = document_ns(document, root, "cost_ms", NS_PER_MS, 0);
	waits->incomplete = document_bool(document, root, "incomplete");
	r = read_nodes(document, waits);
	if (r)
		return r;
	waits->edges = document_array(document, root, "edges", sizeof(*waits->edges), read_edge, &waits->edges_n);
	waits->loops = document_array(document, root, "loops", sizeof(*waits->loops), read_loop, &waits->loops_n);
	waits->gils = document_array(document, root, "gils", sizeof(*waits->gils), read_gil, &waits->gils_n);
	read_notes(document, waits);
	return document->r ? document->r : solve(document, waits);
}

int pyspyd_waits_of_json(const char *json, size_t len, struct pyspyd_waits **ret_waits, struct err *err) {
	struct pyspyd_waits *waits = calloc(1, sizeof(*waits));
	struct document document;
	int r;

	if (!waits)
		return -ENOMEM;
	r = document_open(&document, "pyspyd.waits/1", json, len, err);
	document.userdata = waits;
	if (!r)
		r = read_waits(&document, waits);
	document_close(&document);
	if (r)
		pyspyd_waits_free(waits);
	else
		*ret_waits = waits;
	return r;
}
