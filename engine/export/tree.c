/* SPDX-License-Identifier: MIT */
/* A profile as one call tree.
 *
 * Every count belongs to a branch (all, its process, or its thread), and the path of its stack is copied below that
 * branch as far as it is not there yet. (branch, profile node) names a tree node exactly, so that the work is one
 * lookup for each node that is made and one for each count. Parents are made before their children.
 *
 * Two sums are compared as shares: what has fewer samples is scaled up to the other, so that no count gets lost. */
#include "engine/export/tree.h"

#include "engine/base/util.h"
#include "engine/export/label.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct builder {
	struct tree *tree;
	struct map index;     /* branch and profile node → tree node */
	struct map processes; /* pid and name → tree node */
	VEC(uint32_t) path;
};

static uint64_t pack(uint32_t high, uint32_t low) {
	return (uint64_t)high << 32 | low;
}

static int add_node(struct tree *tree, uint32_t parent, enum tree_kind kind, uint32_t ref, uint32_t *ret_node) {
	struct tree_node node = { .parent = parent, .kind = kind, .ref = ref };

	if (tree->nodes.n >= UINT32_MAX)
		return -ENOMEM;
	if (kind != TREE_ROOT)
		node.depth = tree->nodes.items[parent].depth + 1;
	if (vec_push(&tree->nodes, node))
		return -ENOMEM;
	*ret_node = (uint32_t)tree->nodes.n - 1;
	return 0;
}

static int add_process(struct builder *b, uint32_t thread, uint32_t *ret_node) {
	const struct profile_thread *t = &b->tree->profile->threads.items[thread];
	uint64_t key = pack((uint32_t)t->pid, t->process_name), found;

	if (map_get(&b->processes, key, &found)) {
		*ret_node = (uint32_t)found;
		return 0;
	}
	if (add_node(b->tree, 0, TREE_PROCESS, thread, ret_node))
		return -ENOMEM;
	return map_put(&b->processes, key, *ret_node);
}

/* Finds where the stacks of each thread begin. */
static int add_branches(struct builder *b, bool threads, uint32_t **ret_branches) {
	size_t n = b->tree->profile->threads.n;
	bool processes = label_many_processes(b->tree->profile);
	_free_ uint32_t *branches = calloc(n + 1, sizeof(*branches));
	int r = branches ? 0 : -ENOMEM;

	for (uint32_t i = 0; !r && i < n; i++) {
		if (processes)
			r = add_process(b, i, &branches[i]);
		if (!r && threads)
			r = add_node(b->tree, branches[i], TREE_THREAD, i, &branches[i]);
	}
	if (!r)
		*ret_branches = take_ptr(branches);
	return r;
}

/* Makes the tree node of a stack under a branch, and those above it that are missing. */
static int add_stack(struct builder *b, uint32_t branch, uint32_t node, uint32_t *ret_node) {
	const struct profile_node *nodes = b->tree->profile->nodes.items;
	uint32_t at = branch;
	uint64_t found;

	b->path.n = 0;
	for (; node; node = nodes[node].parent) {
		if (map_get(&b->index, pack(branch, node), &found)) {
			at = (uint32_t)found;
			break;
		}
		if (vec_push(&b->path, node))
			return -ENOMEM;
	}
	while (b->path.n) {
		node = b->path.items[--b->path.n];
		if (add_node(b->tree, at, TREE_FRAME, nodes[node].frame, &at) ||
			map_put(&b->index, pack(branch, node), at))
			return -ENOMEM;
	}
	*ret_node = at;
	return 0;
}

static int add_counts(
	struct builder *b, const uint32_t *branches, const struct profile_count *counts, size_t n, bool before) {
	for (size_t i = 0; i < n; i++) {
		struct tree_node *at;
		uint32_t node;

		if (add_stack(b, branches[counts[i].thread], counts[i].node, &node))
			return -ENOMEM;
		at = &b->tree->nodes.items[node];
		*(before ? &at->self_before : &at->self) += profile_weight(b->tree->profile, &counts[i]);
	}
	return 0;
}

static uint64_t scaled(uint64_t samples, uint64_t of, uint64_t to) {
	return of ? (uint64_t)((unsigned __int128)samples * to / of) : 0;
}

static void scale(struct tree *tree) {
	uint64_t after = 0, before = 0, larger;

	vec_foreach (node, &tree->nodes) {
		after += node->self;
		before += node->self_before;
	}
	larger = max_of(after, before);
	vec_foreach (node, &tree->nodes) {
		node->self = scaled(node->self, after, larger);
		node->self_before = scaled(node->self_before, before, larger);
	}
}

static void sum_up(struct tree *tree) {
	for (size_t i = tree->nodes.n; i-- > 0;) {
		struct tree_node *node = &tree->nodes.items[i];

		node->total += node->self;
		node->total_before += node->self_before;
		if (i) {
			tree->nodes.items[node->parent].total += node->total;
			tree->nodes.items[node->parent].total_before += node->total_before;
		}
	}
}

int tree_init_diff(struct tree *tree, const struct profile *profile, const struct profile_count *before,
	size_t before_n, bool threads) {
	struct builder b = { .tree = tree };
	_free_ uint32_t *branches = NULL;
	uint32_t root;
	int r;

	*tree = (struct tree){ .profile = profile };
	r = add_node(tree, 0, TREE_ROOT, 0, &root);
	if (!r)
		r = add_branches(&b, threads, &branches);
	if (!r)
		r = add_counts(&b, branches, profile->counts.items, profile->counts.n, false);
	if (!r)
		r = add_counts(&b, branches, before, before_n, true);
	if (!r && before_n)
		scale(tree);
	if (!r)
		sum_up(tree);
	map_deinit(&b.index);
	map_deinit(&b.processes);
	vec_free(&b.path);
	return r;
}

int tree_init(struct tree *tree, const struct profile *profile, bool threads) {
	return tree_init_diff(tree, profile, NULL, 0, threads);
}

void tree_deinit(struct tree *tree) {
	vec_free(&tree->nodes);
}

void tree_label(struct strbuf *out, const struct tree *tree, uint32_t node) {
	const struct tree_node *n = &tree->nodes.items[node];

	switch (n->kind) {
	case TREE_ROOT: strbuf_adds(out, "all"); break;
	case TREE_PROCESS: label_process(out, tree->profile, n->ref); break;
	case TREE_THREAD: label_thread(out, tree->profile, n->ref); break;
	case TREE_FRAME: label_frame(out, tree->profile, n->ref); break;
	}
}

static int compare_frames(const struct profile *p, const struct profile_frame *a, const struct profile_frame *b) {
	int r = strcmp(intern_str(&p->strings, a->function), intern_str(&p->strings, b->function));

	if (!r)
		r = strcmp(intern_str(&p->strings, a->file), intern_str(&p->strings, b->file));
	return r ? r : (a->line > b->line) - (a->line < b->line);
}

static int compare_threads(const struct profile *p, const struct profile_thread *a, const struct profile_thread *b) {
	int r = (a->pid > b->pid) - (a->pid < b->pid);

	if (!r)
		r = strcmp(intern_str(&p->strings, a->name), intern_str(&p->strings, b->name));
	return r ? r : (a->tid > b->tid) - (a->tid < b->tid);
}

static int compare_nodes(const void *left, const void *right, void *userdata) {
	const struct tree *tree = userdata;
	const struct profile *p = tree->profile;
	uint32_t i = *(const uint32_t *)left, j = *(const uint32_t *)right;
	const struct tree_node *a = &tree->nodes.items[i], *b = &tree->nodes.items[j];
	int r = 0;

	if (a->parent != b->parent)
		return a->parent < b->parent ? -1 : 1;
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if (a->kind == TREE_FRAME)
		r = compare_frames(p, &p->frames.items[a->ref], &p->frames.items[b->ref]);
	else if (a->kind != TREE_ROOT)
		r = compare_threads(p, &p->threads.items[a->ref], &p->threads.items[b->ref]);
	return r ? r : (i > j) - (i < j);
}

int tree_sorted(const struct tree *tree, uint32_t **ret_order) {
	size_t n = tree->nodes.n - 1;
	uint32_t *order = calloc(n + 1, sizeof(*order));

	if (!order)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		order[i] = (uint32_t)i + 1;
	qsort_r(order, n, sizeof(*order), compare_nodes, (void *)tree);
	*ret_order = order;
	return 0;
}

int tree_starts(const struct tree *tree, const uint32_t *order, uint64_t (*weight)(const struct tree_node *node),
	uint64_t **ret_starts) {
	const struct tree_node *nodes = tree->nodes.items;
	size_t n = tree->nodes.n;
	uint64_t *starts = calloc(n, sizeof(*starts));
	_free_ uint64_t *next = calloc(n, sizeof(*next)); /* of each node: where its next child begins */

	if (!starts || !next) {
		free(starts);
		return -ENOMEM;
	}
	for (size_t i = 0; i + 1 < n; i++) {
		uint32_t node = order[i];

		starts[node] = next[node] = next[nodes[node].parent];
		next[nodes[node].parent] += weight(&nodes[node]);
	}
	*ret_starts = starts;
	return 0;
}
