/* SPDX-License-Identifier: MIT */
/* A wait graph for Graphviz: threads and tasks are boxes, processes folders, resources ellipses; what makes a knot is
 * red, who waits behind one orange, and inferred edges are dashed. Threads without an edge are left out unless they are
 * stuck.
 *
 *   digraph waits {
 *     n0 [label="Thread-1 (transfer, bank.py:12)" shape=box color=red];
 *     n0 -> n1 [label="dst.guard"];
 *   } */
#include "engine/detect/waits_walk.h"

#include "engine/base/util.h"
#include <string.h>

/* Inside quotes; the text is printable already, but a backslash in it begins an escape of Graphviz. */
static void add_quoted(struct strbuf *sb, const char *s) {
	strbuf_adds(sb, "\"");
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			strbuf_adds(sb, "\\");
		strbuf_add(sb, s, 1);
	}
	strbuf_adds(sb, "\"");
}

static void add_label(struct strbuf *sb, struct strbuf *text) {
	strbuf_adds(sb, "label=");
	add_quoted(sb, strbuf_str(text));
	sb->failed |= text->failed;
	strbuf_deinit(text);
}

static const char *shape_of(const struct pyspyd_wait_node *node) {
	switch (node->kind) {
	case PYSPYD_WAIT_THREAD: return "box";
	case PYSPYD_WAIT_TASK: return "box style=rounded";
	case PYSPYD_WAIT_PROCESS: return "folder";
	case PYSPYD_WAIT_RESOURCE: break;
	}
	return "ellipse";
}

static void add_node(struct strbuf *sb, const struct pyspyd_waits *waits, uint32_t index) {
	const struct pyspyd_wait_node *node = &waits->nodes[index];
	struct strbuf text = { 0 };

	waits_name(&text, waits, index, NULL);
	waits_site(&text, node);
	if (node->idle)
		strbuf_addf(&text, ", idle: %s", node->idle);
	if (node->rule == PYSPYD_WAIT_NEVER) {
		strbuf_adds(&text, ": ");
		strbuf_add_printable(&text, waits_fault(node), strlen(waits_fault(node)));
	}
	strbuf_addf(sb, "  n%u [", index);
	add_label(sb, &text);
	strbuf_addf(sb, " shape=%s", shape_of(node));
	if (node->stuck)
		strbuf_adds(sb, node->knot != UINT32_MAX ? " color=red" : " color=orange");
	strbuf_adds(sb, "];\n");
}

static void add_edge(struct strbuf *sb, const struct pyspyd_waits *waits, const struct pyspyd_wait_edge *edge) {
	uint32_t knot = waits->nodes[edge->from].knot;
	struct strbuf text = { 0 };

	if (edge->expression)
		strbuf_add_printable(&text, edge->expression, strlen(edge->expression));
	strbuf_addf(sb, "  n%u -> n%u [", edge->from, edge->to);
	add_label(sb, &text);
	if (knot != UINT32_MAX && knot == waits->nodes[edge->to].knot)
		strbuf_adds(sb, " color=red");
	if (edge->inferred)
		strbuf_adds(sb, " style=dashed");
	strbuf_adds(sb, "];\n");
}

char *pyspyd_waits_dot(const struct pyspyd_waits *waits) {
	_free_ bool *shown = calloc(waits->nodes_n + 1, sizeof(*shown));
	struct strbuf sb = { 0 };

	if (!shown)
		return NULL;
	for (size_t i = 0; i < waits->nodes_n; i++)
		shown[i] = waits->nodes[i].stuck;
	for (size_t i = 0; i < waits->edges_n; i++)
		shown[waits->edges[i].from] = shown[waits->edges[i].to] = true;
	strbuf_adds(&sb, "digraph waits {\n");
	for (size_t i = 0; i < waits->nodes_n; i++)
		if (shown[i])
			add_node(&sb, waits, (uint32_t)i);
	for (size_t i = 0; i < waits->edges_n; i++)
		add_edge(&sb, waits, &waits->edges[i]);
	strbuf_adds(&sb, "}");
	return strbuf_take(&sb);
}
