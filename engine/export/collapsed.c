/* SPDX-License-Identifier: MIT */
/* Collapsed stacks, as flame graph tools read them: elements from the root to the leaf, a space, the samples.
 *
 *     MainThread (4711);<module> (app.py:40);serve (app.py:31);handle (app.py:12) 371
 *
 * With a comparison two counts stand there, as difffolded.pl writes and flamegraph.pl reads them: before and after.
 *
 * The process is the first element where there are several. A stack without frames and branches has no element to name
 * it and is called `<no frames>`. The format has no place for a comment: how well the sampling went is for the caller
 * to say elsewhere. Stacks whose names become equal keep lines of their own, which readers add up. */
#include "engine/export/export.h"

#include "engine/base/util.h"
#include "engine/export/label.h"
#include "engine/export/tree.h"
#include "engine/export/writer.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

struct line {
	const struct tree *tree;
	struct writer out;
	bool diff;
	VEC(uint32_t) path;
};

/* Appends a name; a ';' in it would look like the next element. */
static void add_element(struct line *line, uint32_t node) {
	struct strbuf *text = &line->out.text;
	size_t start = text->len;

	tree_label(text, line->tree, node);
	for (size_t i = start; i < text->len; i++)
		if (text->data[i] == ';')
			text->data[i] = ':';
}

static int add_line(struct line *line, uint32_t node) {
	const struct tree_node *nodes = line->tree->nodes.items;
	struct strbuf *text = &line->out.text;

	line->path.n = 0;
	for (uint32_t at = node; at; at = nodes[at].parent)
		if (vec_push(&line->path, at))
			return -ENOMEM;
	if (!node)
		strbuf_adds(text, "<no frames>");
	while (line->path.n) {
		add_element(line, line->path.items[--line->path.n]);
		strbuf_adds(text, line->path.n ? ";" : "");
	}
	if (line->diff)
		strbuf_addf(text, " %" PRIu64, nodes[node].self_before);
	strbuf_addf(text, " %" PRIu64 "\n", nodes[node].self);
	return writer_pass(&line->out);
}

/* Return: `r`, or the first error of writing. Ends the tree. */
static int write_tree(struct tree *tree, int r, bool diff, int fd) {
	struct line line = { .tree = tree, .out = { .fd = fd }, .diff = diff };
	int finished;

	for (uint32_t i = 0; !r && i < tree->nodes.n; i++)
		if (tree->nodes.items[i].self || tree->nodes.items[i].self_before)
			r = add_line(&line, i);
	finished = writer_finish(&line.out);
	vec_free(&line.path);
	tree_deinit(tree);
	return r ? r : finished;
}

int export_collapsed(const struct profile *profile, const struct export_options *options, int fd) {
	struct tree tree;
	int r = tree_init(&tree, profile, options && options->threads);

	return write_tree(&tree, r, false, fd);
}

int export_collapsed_diff(const struct profile *profile, const struct profile_count *before, size_t before_n,
	const struct export_options *options, int fd) {
	struct tree tree;
	int r = tree_init_diff(&tree, profile, before, before_n, options && options->threads);

	return write_tree(&tree, r, true, fd);
}
