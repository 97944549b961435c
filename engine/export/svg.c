/* SPDX-License-Identifier: MIT */
/* A flame graph in one SVG file that needs nothing else: a box for each stack, as wide as its samples, standing on its
 * caller; the root at the bottom. It reads without its script; with it one can zoom and search (svg_page.c).
 *
 *     <g class="f" data-s="0" data-n="371" data-d="2"><title>serve (app.py:31)
 *     371 samples, 92.75 %</title><rect …/><text …>serve (app.py:31)</text></g>
 *
 * Of two profiles that are compared a box is as wide as both shares together, so that what is gone is seen too; its
 * colour says how much of it grew (red) or shrank (blue).
 *
 * Boxes narrower than 0.1 pixel are left out, with what stands on them, and the head says how many. Names come out of a
 * target: they are escaped, what XML cannot hold is replaced, and none of them ever becomes part of the script. */
#include "engine/export/export.h"

#include "engine/base/util.h"
#include "engine/export/label.h"
#include "engine/export/svg_page.h"
#include "engine/export/tree.h"
#include "engine/export/writer.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Pixels; WIDTH, PAD and CHAR stand in the script too. */
#define WIDTH 1200
#define PAD 10
#define CHAR 7.25
#define ROW 17
#define HEAD 74
#define FOOT 26
#define NARROWEST 0.1
#define PALE 200 /* a box of this part of the whole is half as red or blue: few samples say little */

struct graph {
	struct tree tree;
	bool diff;
	struct writer out;
	uint32_t *order;  /* the nodes, callers first */
	uint64_t *starts; /* of each node: its first sample */
	double scale;     /* pixels for a sample, of either side */
	uint32_t depth;   /* of the deepest box drawn */
	size_t narrow;    /* boxes left out */
};

static void add_label(struct graph *g, const struct strbuf *label) {
	writer_markup(&g->out, strbuf_str(label), label->len);
	g->out.text.failed |= label->failed;
}

/* The bytes and columns of the character at s, which is UTF-8. East Asian ones and what else may be wide count two. */
static size_t measure_char(const char *s, unsigned int *ret_columns) {
	unsigned char c = (unsigned char)*s;

	*ret_columns = c >= 0xe2 || (c == 0xe1 && (unsigned char)s[1] >= 0x84) ? 2 : 1;
	return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* Return: how many bytes of s fit into so many columns. */
static size_t fitting(const char *s, unsigned int room) {
	size_t at = 0;

	while (s[at]) {
		unsigned int columns;
		size_t n = measure_char(s + at, &columns);

		if (columns > room)
			break;
		room -= columns;
		at += n;
	}
	return at;
}

static void add_clipped(struct graph *g, const struct strbuf *label, double width) {
	unsigned int room = width > 6 ? (unsigned int)((width - 6) / CHAR) : 0;
	const char *s = strbuf_str(label);
	size_t n = fitting(s, room);

	if (n < label->len) {
		n = room > 3 ? fitting(s, room - 2) : 0;
		writer_markup(&g->out, s, n);
		strbuf_adds(&g->out.text, n ? ".." : "");
	} else {
		writer_markup(&g->out, s, n);
	}
}

/* What a box is as wide as. */
static uint64_t weight_of(const struct tree_node *node) {
	return node->total + node->total_before;
}

/* From grey to red, or to blue. */
static uint32_t change_of(const struct graph *g, const struct tree_node *node) {
	static const int same[] = { 236, 236, 236 }, grown[] = { 238, 92, 80 }, shrunk[] = { 92, 140, 240 };
	double all = (double)weight_of(node) + (double)weight_of(&g->tree.nodes.items[0]) / PALE;
	double change = ((double)node->total - (double)node->total_before) / all;
	const int *to = change > 0 ? grown : shrunk;
	uint32_t colour = 0;

	for (unsigned int i = 0; i < 3; i++)
		colour = colour << 8 | (uint32_t)(same[i] + (to[i] - same[i]) * (change > 0 ? change : -change));
	return colour;
}

/* Colours: the hue says the language, the shade the module (or file), so that a library looks the same everywhere. */
static uint32_t colour_of(const struct graph *g, const struct tree_node *node) {
	static const uint8_t base[][3] = {
		[PYSPYD_PYTHON] = { 235, 165, 60 },
		[PYSPYD_NATIVE] = { 100, 160, 225 },
		[PYSPYD_KERNEL] = { 225, 115, 105 },
	};
	const struct profile *p = g->tree.profile;
	const struct profile_frame *frame = &p->frames.items[node->ref];
	const char *module;
	uint64_t hash;
	uint32_t rgb[3];

	if (node->kind != TREE_FRAME || (size_t)frame->lang >= ARRAY_SIZE(base))
		return 0xc8c8c8;
	module = intern_str(&p->strings, frame->module);
	if (!*module)
		module = intern_str(&p->strings, frame->file);
	hash = hash_bytes(module, strlen(module), 7);
	for (unsigned int i = 0; i < 3; i++)
		rgb[i] = min_of(base[frame->lang][i] + (uint32_t)(hash >> 16 * i) % 56 - (i ? 10 : 28), 255U);
	return rgb[0] << 16 | rgb[1] << 8 | rgb[2];
}

static bool is_drawn(const struct graph *g, const struct tree_node *node) {
	return weight_of(node) && (double)weight_of(node) * g->scale >= NARROWEST;
}

/* Places the boxes, counts what is too narrow, and finds how high the graph gets. */
static int lay_out(struct graph *g) {
	const struct tree_node *nodes = g->tree.nodes.items;

	if (tree_sorted(&g->tree, &g->order) || tree_starts(&g->tree, g->order, weight_of, &g->starts))
		return -ENOMEM;
	g->scale = weight_of(nodes) ? (WIDTH - 2 * PAD) / (double)weight_of(nodes) : 0;
	for (size_t i = 1; i < g->tree.nodes.n; i++) {
		if (is_drawn(g, &nodes[i]))
			g->depth = max_of(g->depth, nodes[i].depth);
		else
			g->narrow += weight_of(&nodes[i]) != 0;
	}
	return 0;
}

static unsigned int graph_height(const struct graph *g) {
	return HEAD + (g->depth + 1) * ROW + FOOT;
}

static double share_of(uint64_t samples, uint64_t all) {
	return all ? 100.0 * (double)samples / (double)all : 0;
}

/* The line below the name, for whoever points at a box. */
static void add_numbers(struct graph *g, const struct tree_node *node) {
	const struct tree_node *root = &g->tree.nodes.items[0];
	double after = share_of(node->total, root->total), before = share_of(node->total_before, root->total_before);

	if (g->diff) {
		strbuf_addf(&g->out.text, "%.2f %%, before %.2f %% (%+.2f)", after, before, after - before);
		return;
	}
	label_weight(&g->out.text, g->tree.profile, node->total);
	strbuf_addf(&g->out.text, ", %.2f %%", after);
}

static void add_box(struct graph *g, uint32_t id) {
	_cleanup_(strbuf_deinit) struct strbuf label = { 0 };
	const struct tree_node *node = &g->tree.nodes.items[id];
	struct strbuf *out = &g->out.text;
	double x = PAD + (double)g->starts[id] * g->scale, width = (double)weight_of(node) * g->scale;
	unsigned int y = HEAD + (g->depth - node->depth) * ROW;

	tree_label(&label, &g->tree, id);
	strbuf_addf(out, "<g class=\"f\" data-s=\"%" PRIu64 "\" data-n=\"%" PRIu64 "\" data-d=\"%" PRIu32 "\"><title>",
		g->starts[id], weight_of(node), node->depth);
	add_label(g, &label);
	strbuf_adds(out, "\n");
	add_numbers(g, node);
	strbuf_adds(out, "</title>");
	strbuf_addf(out, "<rect x=\"%.2f\" y=\"%u\" width=\"%.2f\" height=\"%d\" fill=\"#%06x\"/>", x, y, width,
		ROW - 1, g->diff ? change_of(g, node) : colour_of(g, node));
	strbuf_addf(out, "<text x=\"%.2f\" y=\"%u\">", x + 3, y + 12);
	add_clipped(g, &label, width);
	strbuf_adds(out, "</text></g>\n");
}

static void add_head(struct graph *g, const char *title) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	const struct profile *p = g->tree.profile;
	struct strbuf *out = &g->out.text;

	title = title && *title ? title : "Flame graph";
	strbuf_add_printable(&text, title, strlen(title));
	strbuf_adds(out, "<text class=\"head\" x=\"10\" y=\"24\">");
	add_label(g, &text);
	strbuf_adds(out, "</text>\n<text class=\"sub\" x=\"10\" y=\"42\">");
	text.len = 0;
	label_summary(&text, p);
	if (g->diff)
		strbuf_adds(&text, "; red: more than before, blue: less");
	if (g->narrow)
		strbuf_addf(
			&text, "; %zu frame%s narrower than 0.1 px not drawn", g->narrow, g->narrow == 1 ? "" : "s");
	add_label(g, &text);
	strbuf_adds(out, "</text>\n<text class=\"sub\" x=\"10\" y=\"57\">");
	text.len = 0;
	label_accuracy(&text, p);
	add_label(g, &text);
	strbuf_adds(out, "</text>\n");
}

static void add_start(struct graph *g) {
	struct strbuf *out = &g->out.text;
	unsigned int height = graph_height(g);

	strbuf_adds(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
	strbuf_addf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%u\" viewBox=\"0 0 %d %u\">\n", WIDTH,
		height, WIDTH, height);
	strbuf_adds(out, "<style>\n");
	strbuf_adds(out, svg_style);
	strbuf_addf(out, "</style>\n<rect width=\"%d\" height=\"%u\" fill=\"#fff\"/>\n", WIDTH, height);
}

static void add_end(struct graph *g) {
	struct strbuf *out = &g->out.text;
	unsigned int y = graph_height(g) - 9;

	if (!weight_of(g->tree.nodes.items))
		strbuf_addf(out, "<text x=\"10\" y=\"%u\">no samples</text>\n", HEAD + 12);
	strbuf_addf(out, "<text id=\"details\" x=\"10\" y=\"%u\"></text>\n", y);
	strbuf_addf(out, "<text id=\"matched\" x=\"%d\" y=\"24\" text-anchor=\"end\"></text>\n", WIDTH - 230);
	strbuf_addf(out,
		"<text id=\"reset\" class=\"button\" x=\"%d\" y=\"24\" text-anchor=\"end\">Reset zoom</text>\n",
		WIDTH - 120);
	strbuf_addf(out, "<text id=\"search\" class=\"button\" x=\"%d\" y=\"24\" text-anchor=\"end\">Search</text>\n",
		WIDTH - PAD);
	strbuf_adds(out, "<script><![CDATA[\n");
	strbuf_adds(out, svg_script);
	strbuf_adds(out, "]]></script>\n</svg>\n");
}

static int add_graph(struct graph *g, const char *title) {
	int r = lay_out(g);

	if (r)
		return r;
	add_start(g);
	add_head(g, title);
	if (weight_of(g->tree.nodes.items))
		add_box(g, 0);
	for (size_t i = 0; !r && i + 1 < g->tree.nodes.n; i++) {
		if (is_drawn(g, &g->tree.nodes.items[g->order[i]]))
			add_box(g, g->order[i]);
		r = writer_pass(&g->out);
	}
	add_end(g);
	return r;
}

/* Return: `r`, or the first error of drawing and writing. Ends the graph. */
static int write_graph(struct graph *g, int r, const struct export_options *options) {
	int finished;

	if (!r)
		r = add_graph(g, options ? options->title : NULL);
	finished = writer_finish(&g->out);
	tree_deinit(&g->tree);
	free(g->order);
	free(g->starts);
	return r ? r : finished;
}

int export_svg(const struct profile *profile, const struct export_options *options, int fd) {
	struct graph g = { .out = { .fd = fd } };
	int r = tree_init(&g.tree, profile, options && options->threads);

	return write_graph(&g, r, options);
}

int export_svg_diff(const struct profile *profile, const struct profile_count *before, size_t before_n,
	const struct export_options *options, int fd) {
	struct graph g = { .out = { .fd = fd }, .diff = true };
	int r = tree_init_diff(&g.tree, profile, before, before_n, options && options->threads);

	return write_graph(&g, r, options);
}
