/* SPDX-License-Identifier: MIT */
/* The chain of a finding of waiting: as evidence, as what each thread holds and waits for, and as identity.
 *
 * A chain of a hostile or a very large program is cut: STEPS_MAX steps, EDGES_MAX edges of one step. */
#include "engine/finding/chain.h"

#include "engine/base/map.h"
#include "engine/base/util.h"
#include "engine/detect/words.h"
#include "engine/finding/fingerprint.h"
#include "engine/finding/stack_json.h"
#include <errno.h>
#include <string.h>

#define STEPS_MAX 64
#define EDGES_MAX 16
#define HOLDS_MAX 16
#define SITE_LINES_MAX 64

int chain_init(struct chain *chain, const struct pyspyd_waits *waits) {
	struct chain made = { .waits = waits };
	int r = 0;

	if (waits)
		r = adjacency_init(&made.out, waits, false);
	if (waits && !r)
		r = adjacency_init(&made.in, waits, true);
	if (r)
		chain_deinit(&made);
	else
		*chain = made;
	return r;
}

void chain_deinit(struct chain *chain) {
	adjacency_deinit(&chain->out);
	adjacency_deinit(&chain->in);
}

/* Steps. */

struct steps {
	const struct chain *chain;
	uint32_t nodes[STEPS_MAX];
	size_t n;
	struct map by_node;
};

static int add_step(struct steps *steps, uint32_t node) {
	uint64_t at;
	int r;

	if (steps->n == STEPS_MAX || map_get(&steps->by_node, node, &at))
		return 0;
	r = map_put(&steps->by_node, node, steps->n);
	if (!r)
		steps->nodes[steps->n++] = node;
	return r;
}

/* The knot's members in its order; or the parties, and breadth first whatever they wait for. */
static int find_steps(struct steps *steps, const struct detect_verdict *verdict) {
	const struct pyspyd_waits *waits = steps->chain->waits;
	int r = 0;

	if (verdict->knot < waits->knots_n) {
		const struct pyspyd_wait_knot *knot = &waits->knots[verdict->knot];

		for (size_t i = 0; !r && i < knot->nodes_n; i++)
			r = add_step(steps, knot->nodes[i]);
		return r;
	}
	for (size_t i = 0; !r && i < verdict->parties_n; i++)
		if (!verdict->parties[i].thread)
			r = add_step(steps, verdict->parties[i].node);
	for (size_t at = 0; !r && at < steps->n; at++) {
		const struct adjacency *out = &steps->chain->out;

		for (uint32_t e = out->start[steps->nodes[at]]; !r && e < out->start[steps->nodes[at] + 1]; e++)
			r = add_step(steps, out->other[e]);
	}
	return r;
}

static bool put_certainty(bool ok, json_t *object, const struct pyspyd_wait_edge *edge) {
	ok = json_put(ok, object, "certainty", json_string(edge->inferred ? "inferred" : "proven"));
	if (edge->inferred)
		ok = json_put(ok, object, "why", json_text(edge->why));
	return ok;
}

static json_t *edge_json(const struct pyspyd_wait_edge *edge, uint64_t to) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "to", json_count(to));

	if (edge->expression)
		ok = json_put(ok, object, "expression", json_text(edge->expression));
	return json_done(put_certainty(ok, object, edge), object);
}

static json_t *edges_json(const struct steps *steps, uint32_t node) {
	const struct adjacency *out = &steps->chain->out;
	json_t *array = json_array();
	bool ok = array != NULL;
	uint64_t to;

	for (uint32_t e = out->start[node]; ok && e < out->start[node + 1] && json_array_size(array) < EDGES_MAX; e++)
		if (map_get(&steps->by_node, out->other[e], &to))
			ok = !json_array_append_new(array, edge_json(&steps->chain->waits->edges[out->edge[e]], to));
	return json_done(ok, array);
}

/* How those that wait for the resource call it; of several names the first. */
static const char *expression_of(const struct chain *chain, uint32_t node) {
	for (uint32_t e = chain->in.start[node]; e < chain->in.start[node + 1]; e++) {
		const char *expression = chain->waits->edges[chain->in.edge[e]].expression;

		if (expression)
			return expression;
	}
	return NULL;
}

static bool put_place(bool ok, json_t *object, const struct pyspyd_wait_node *node) {
	const struct pyspyd_frame *frame = detect_node_frame(node);

	ok = json_put(ok, object, "function",
		json_text(!frame                  ? NULL
				: frame->qualname ? frame->qualname
						  : frame->function));
	ok = json_put(ok, object, "file", json_text(frame ? frame->file : NULL));
	return json_put(ok, object, "line", frame && frame->line > 0 ? json_integer(frame->line) : json_null());
}

static json_t *step_json(const struct steps *steps, uint32_t index) {
	static const char *const kinds[] = { "thread", "task", "process", "resource" };
	const struct pyspyd_wait_node *node = &steps->chain->waits->nodes[index];
	json_t *object = json_object();
	bool ok = json_put(true, object, "kind", json_string(kinds[node->kind]));

	ok = json_put(ok, object, "type", json_text(node->type));
	ok = json_put(ok, object, "label", json_text(node->label));
	ok = json_put(ok, object, "pid", node->pid ? json_integer(node->pid) : json_null());
	if (detect_is_actor(node)) {
		ok = json_put(ok, object, "tid", node->tid ? json_integer(node->tid) : json_null());
		ok = put_place(ok, object, node);
	} else if (node->kind == PYSPYD_WAIT_RESOURCE) {
		ok = json_put(ok, object, "expression", json_text(expression_of(steps->chain, index)));
	}
	if (node->fault)
		ok = json_put(ok, object, "fault", json_text(node->fault));
	ok = json_put(ok, object, "edges", edges_json(steps, index));
	return json_done(ok, object);
}

json_t *chain_json(const struct chain *chain, const struct detect_verdict *verdict) {
	struct steps steps = { .chain = chain };
	json_t *array = json_array();
	bool ok = array && !find_steps(&steps, verdict);

	for (size_t i = 0; ok && i < steps.n; i++)
		ok = !json_array_append_new(array, step_json(&steps, steps.nodes[i]));
	map_deinit(&steps.by_node);
	return json_done(ok, array);
}

/* Of one thread. */

static json_t *thing_json(const struct chain *chain, uint32_t node, const struct pyspyd_wait_edge *edge) {
	const struct pyspyd_wait_node *thing = &chain->waits->nodes[node];
	bool gil = thing->type && !strcmp(thing->type, "GIL");
	json_t *object = json_object();
	bool ok = json_put(true, object, "kind", json_text(gil ? "gil" : thing->type));

	ok = json_put(ok, object, "label", json_text(thing->label));
	return json_done(put_certainty(ok, object, edge), object);
}

/* A thread holds locks; that its end is waited for, or a future that it runs, it does not hold. */
static bool is_held(const struct chain *chain, uint32_t resource, uint32_t holder) {
	const struct pyspyd_wait_node *from = &chain->waits->nodes[resource];

	return from->kind == PYSPYD_WAIT_RESOURCE &&
		!strcmp(detect_link(from, &chain->waits->nodes[holder]), "held by ");
}

json_t *chain_holds(const struct chain *chain, uint32_t node) {
	const struct adjacency *in = &chain->in;
	json_t *array = json_array();
	bool ok = array != NULL;

	for (uint32_t e = in->start[node]; ok && e < in->start[node + 1] && json_array_size(array) < HOLDS_MAX; e++)
		if (is_held(chain, in->other[e], node))
			ok = !json_array_append_new(
				array, thing_json(chain, in->other[e], &chain->waits->edges[in->edge[e]]));
	return json_done(ok, array);
}

static json_t *holder_json(const struct chain *chain, uint32_t resource) {
	const struct pyspyd_wait_node *holder;
	json_t *object;
	bool ok;

	if (chain->out.start[resource] == chain->out.start[resource + 1])
		return json_null();
	holder = &chain->waits->nodes[chain->out.other[chain->out.start[resource]]];
	object = json_object();
	ok = json_put(true, object, "pid", holder->pid ? json_integer(holder->pid) : json_null());
	ok = json_put(ok, object, "tid", holder->tid ? json_integer(holder->tid) : json_null());
	ok = json_put(ok, object, "name", json_text(holder->label));
	return json_done(ok, object);
}

json_t *chain_waits_for(const struct chain *chain, uint32_t node) {
	uint32_t first = chain->out.start[node], n = chain->out.start[node + 1] - first;
	const struct pyspyd_wait_edge *edge;
	json_t *object;
	bool ok;

	if (!n)
		return json_object();
	edge = &chain->waits->edges[chain->out.edge[first]];
	object = thing_json(chain, edge->to, edge);
	ok = object;
	if (edge->expression)
		ok = json_put(ok, object, "expression", json_text(edge->expression));
	if (chain->waits->nodes[edge->to].kind == PYSPYD_WAIT_RESOURCE)
		ok = json_put(ok, object, "holder", holder_json(chain, edge->to));
	if (n > 1)
		ok = json_put(ok, object, "more", json_integer(n - 1));
	return json_done(ok, object);
}

int chain_stack(const struct pyspyd_wait_node *node, struct detect_stack *ret_stack) {
	struct detect_frame *frames = calloc(node->frames_n + 1, sizeof(*frames));

	if (!frames)
		return -ENOMEM;
	for (size_t i = 0; i < node->frames_n; i++) {
		const struct pyspyd_frame *from = &node->frames[i];

		frames[i] = (struct detect_frame){
			.lang = from->lang,
			.function = from->function ? from->function : "",
			.qualname = from->qualname ? from->qualname : "",
			.file = from->file ? from->file : "",
			.module = from->module ? from->module : "",
			.line = from->line,
		};
	}
	*ret_stack = (struct detect_stack){ .share = 1, .frames = frames, .frames_n = node->frames_n };
	return 0;
}

void chain_stack_free(struct detect_stack *stack) {
	free((void *)(uintptr_t)stack->frames);
}

/* Identity. */

struct lines {
	char *text[SITE_LINES_MAX];
	size_t n;
};

static void lines_deinit(struct lines *lines) {
	while (lines->n)
		free(lines->text[--lines->n]);
}

/* Takes the text over. Equal ones are kept once. Return: 0; -ENOMEM. */
static int add_line(struct lines *lines, struct strbuf *sb) {
	char *text = strbuf_take(sb);
	size_t at = 0;

	if (!text)
		return -ENOMEM;
	while (at < lines->n && strcmp(lines->text[at], text) < 0)
		at++;
	if (lines->n == SITE_LINES_MAX || (at < lines->n && !strcmp(lines->text[at], text))) {
		free(text);
		return 0;
	}
	memmove(&lines->text[at + 1], &lines->text[at], (lines->n - at) * sizeof(*lines->text));
	lines->text[at] = text;
	lines->n++;
	return 0;
}

/* A resource's label has addresses, numbers of pipes and hosts in it: its type, and what the program calls it, stay. */
static int add_awaited(struct lines *lines, const struct chain *chain, const struct pyspyd_wait_edge *edge) {
	const struct pyspyd_wait_node *node = &chain->waits->nodes[edge->to];
	struct strbuf sb = { 0 };

	strbuf_adds(&sb, "for ");
	fingerprint_text(&sb, node->type ? node->type : "");
	if (edge->expression) {
		strbuf_adds(&sb, " ");
		fingerprint_text(&sb, edge->expression);
	}
	strbuf_adds(&sb, "\n");
	return add_line(lines, &sb);
}

static int add_member(struct lines *lines, const struct chain *chain, uint32_t index) {
	const struct pyspyd_wait_node *node = &chain->waits->nodes[index];
	const struct adjacency *out = &chain->out;
	struct detect_stack stack;
	struct strbuf sb = { 0 };
	int r;

	if (!detect_is_actor(node))
		return 0;
	r = chain_stack(node, &stack);
	if (r)
		return r;
	fingerprint_site(&sb, &stack, 1);
	chain_stack_free(&stack);
	r = add_line(lines, &sb);
	for (uint32_t e = out->start[index]; !r && e < out->start[index + 1]; e++)
		r = add_awaited(lines, chain, &chain->waits->edges[out->edge[e]]);
	return r;
}

int chain_site(const struct chain *chain, const struct detect_verdict *verdict, struct strbuf *sb) {
	_cleanup_(lines_deinit) struct lines lines = { 0 };
	int r = 0;

	if (verdict->knot < chain->waits->knots_n) {
		const struct pyspyd_wait_knot *knot = &chain->waits->knots[verdict->knot];

		for (size_t i = 0; !r && i < knot->nodes_n; i++)
			r = add_member(&lines, chain, knot->nodes[i]);
	}
	for (size_t i = 0; !r && verdict->knot >= chain->waits->knots_n && i < verdict->parties_n; i++)
		if (!verdict->parties[i].thread && !strcmp(verdict->parties[i].role, verdict->parties[0].role))
			r = add_member(&lines, chain, verdict->parties[i].node);
	for (size_t i = 0; !r && i < lines.n; i++)
		strbuf_adds(sb, lines.text[i]);
	return r ? r : sb->failed ? -ENOMEM : 0;
}
