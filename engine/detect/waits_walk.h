/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DETECT_WAITS_WALK_H
#define PYSPYD_DETECT_WAITS_WALK_H

#include "engine/base/strbuf.h"
#include "engine/waits/adjacency.h"
#include "engine/waits/graph.h"

/* A solved wait graph as its writers go through it, and what they call its nodes. */

struct waits_walk {
	const struct pyspyd_waits *waits;
	struct adjacency out, in;
	uint32_t *roots; /* threads and tasks where chains begin: nobody waits for them, or everybody in a cycle */
	size_t roots_n;
	bool *covered; /* nodes that some chain comes to, or begins at */
};

/* Return: 0; -ENOMEM. */
int waits_walk_init(struct waits_walk *walk, const struct pyspyd_waits *waits);
void waits_walk_deinit(struct waits_walk *walk);

bool waits_is_actor(const struct pyspyd_wait_node *node); /* a thread or a task */

/* Whether a thread or task is shown where nothing leads to it. */
bool waits_is_shown(const struct pyspyd_waits *waits, const struct pyspyd_wait_node *node);
size_t waits_count_actors(const struct pyspyd_waits *waits, const uint32_t *nodes, size_t n);

/* How many edges out of a node count: none out of one that nobody can help. They are slots of `out` from
 * out.start[node] on. */
uint32_t waits_walk_degree(const struct waits_walk *walk, uint32_t node);

/* A node that stands for many of whom any will do: a process, the other tasks of a loop. To wait for it is not to wait
 * for one of them. */
bool waits_walk_is_anybody(const struct waits_walk *walk, uint32_t node);

/* The slot of the edge that tells most: into the same knot, else to one that is stuck, else the first. WAITS_NONE:
 * there is none. */
uint32_t waits_walk_next(const struct waits_walk *walk, uint32_t node);

/* The slot of the edge between two nodes; WAITS_NONE: there is none. */
uint32_t waits_walk_slot(const struct waits_walk *walk, uint32_t from, uint32_t to);
const struct pyspyd_wait_edge *waits_walk_edge(const struct waits_walk *walk, uint32_t slot);

/* "Thread-1", "Lock 0x7f…", "process 77 (python3)"; with the process where it is not the one asked for; and the
 * expression that a waiting frame has for it, NULL none. Printable. */
void waits_name(struct strbuf *sb, const struct pyspyd_waits *waits, uint32_t node, const char *expression);

/* " (transfer, bank.py:12)", nothing where there are no frames. Printable. */
void waits_site(struct strbuf *sb, const struct pyspyd_wait_node *node);

/* "waits for ", "held by ": what an edge means. */
const char *waits_link(const struct pyspyd_wait_node *from, const struct pyspyd_wait_node *to);

/* Why nobody is left to end the wait for a node. */
const char *waits_fault(const struct pyspyd_wait_node *node);

/* Why a knot is only inferred: the reasons of its edges, each once, a few at most; nothing where it is proven. */
void waits_why(struct strbuf *sb, const struct waits_walk *walk, const struct pyspyd_wait_knot *knot);

/* A knot in a sentence, without the word for its kind. */
void waits_sentence(struct strbuf *sb, const struct waits_walk *walk, const struct pyspyd_wait_knot *knot);

#endif
