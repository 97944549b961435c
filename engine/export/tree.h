/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_EXPORT_TREE_H
#define PYSPYD_EXPORT_TREE_H

#include "engine/base/strbuf.h"
#include "engine/profile/profile.h"

/* A profile as one call tree: what a flame graph draws. Or two, laid over each other. */

enum tree_kind { TREE_ROOT, TREE_PROCESS, TREE_THREAD, TREE_FRAME };

struct tree_node {
	uint32_t parent; /* always smaller than the node's own number; [0] is the root of all */
	enum tree_kind kind;
	uint32_t ref; /* frame, or thread (of a process: any one of its threads) */
	uint32_t depth;
	uint64_t self, total;               /* samples */
	uint64_t self_before, total_before; /* 0 but for tree_init_diff */
};

struct tree {
	const struct profile *profile; /* outlives the tree */
	VEC(struct tree_node) nodes;
};

/* Sums the counts of all threads; with several processes each has a branch of its own, and with `threads` each thread
 * has. Nodes without samples may occur. Return: 0, -ENOMEM; the tree is to be deinitialised in either case. */
int tree_init(struct tree *tree, const struct profile *profile, bool threads);
/* The same with what was counted before (threads and nodes of the same profile) beside it. Both sides are scaled to the
 * samples of the larger one. */
int tree_init_diff(struct tree *tree, const struct profile *profile, const struct profile_count *before,
	size_t before_n, bool threads);

void tree_deinit(struct tree *tree);

/* The node's name, printable; "all" for the root. */
void tree_label(struct strbuf *out, const struct tree *tree, uint32_t node);

/* All nodes but the root, grouped by parent in ascending order, siblings in the order of their names. The array is the
 * caller's to free(). Return: 0, -ENOMEM. */
int tree_sorted(const struct tree *tree, uint32_t **ret_order);

/* Where each node begins when siblings are laid side by side in that order, each as wide as its weight and none wider
 * than its parent: the first begins where its parent does, every other where the one before it ends. By node; the
 * caller's to free(). Return: 0, -ENOMEM. */
int tree_starts(const struct tree *tree, const uint32_t *order, uint64_t (*weight)(const struct tree_node *node),
	uint64_t **ret_starts);

#endif
