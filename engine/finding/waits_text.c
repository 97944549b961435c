/* SPDX-License-Identifier: MIT */
/* A wait graph for people: what is wrong, then the chains, then who is left.
 *
 *   Process 4711: python3 bank.py (Python 3.13.1)
 *
 *   DEADLOCK (proven): Thread-1 (transfer, bank.py:12) waits for Lock 0x7f00 `dst.guard` held by Thread-2 …
 *     2 more wait behind it
 *
 *   MainThread (main, bank.py:20), for 12 s
 *   `- waits for Thread-1 (transfer, bank.py:12) `t`
 *      `- waits for Lock 0x7f00 `dst.guard`
 *         `- held by Thread-2 (transfer, bank.py:12)
 *            `- waits for Lock 0x7f10 `dst.guard`
 *               `- held by Thread-1: the circle closes
 *
 *   12 threads idle: queue worker
 *   40 tasks waiting until a time-out (poll, app.py:8): Task-2, Task-3, Task-4, Task-5, Task-6 and 35 more
 *
 * Each node is shown with what it waits for once; depth and breadth are bounded. Where native frames were asked for,
 * the threads of the chains have their whole stacks below them. Tasks that only their loop can wake, as those of a
 * server are, stand in a line together. */
#include "engine/detect/detect.h"
#include "engine/detect/waits_walk.h"
#include "engine/finding/stack_text.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <inttypes.h>
#include <string.h>

#define DEPTH_MAX 24
#define CHILDREN_MAX 4
#define KNOTS_MAX 100
#define NAMES_MAX 5
#define CHAINS_MAX 8  /* that lead to the same node only */
#define GROUPS_MAX 20 /* of those who wait for nobody */
#define STACK_MAX 64  /* frames of one thread that are shown */
#define INDENT_MAX (3 * (DEPTH_MAX + 1))

struct tree {
	struct strbuf *sb;
	const struct waits_walk *walk;
	bool colour;
	bool *told;                  /* nodes whose waits were shown */
	bool *here;                  /* nodes on the way from the root */
	bool *stacked;               /* nodes whose stacks were shown */
	uint32_t *chains;            /* by node: those whose first step leads there and nowhere else */
	char indent[INDENT_MAX + 1]; /* of the line's branches */
};

static const char *const verdicts[] = {
	[PYSPYD_KNOT_CYCLE] = "DEADLOCK",
	[PYSPYD_KNOT_SELF] = "SELF-DEADLOCK",
	[PYSPYD_KNOT_ORPHAN] = "ORPHANED LOCK",
};

/* Verdicts. */

static void add_verdict(
	struct strbuf *sb, const struct waits_walk *walk, const struct pyspyd_wait_knot *knot, bool colour) {
	size_t behind = waits_count_actors(walk->waits, knot->victims, knot->victims_n);

	text_style(sb, colour, TEXT_BOLD);
	text_style(sb, colour, knot->inferred || !knot->confirmed ? TEXT_YELLOW : TEXT_RED);
	strbuf_addf(sb, "%s (", verdicts[knot->kind]);
	if (knot->inferred) {
		strbuf_adds(sb, "inferred: ");
		waits_why(sb, walk, knot);
	} else {
		strbuf_adds(sb, "proven");
	}
	strbuf_adds(sb, ")");
	text_style(sb, colour, TEXT_PLAIN);
	strbuf_adds(sb, ": ");
	waits_sentence(sb, walk, knot);
	strbuf_adds(sb, "\n");
	if (!knot->confirmed)
		strbuf_adds(sb, "  seen in one look only: it may be passing\n");
	if (behind)
		strbuf_addf(sb, "  %zu more wait%s behind it\n", behind, behind == 1 ? "s" : "");
}

static void add_verdicts(struct strbuf *sb, const struct waits_walk *walk, bool colour) {
	const struct pyspyd_waits *waits = walk->waits;

	strbuf_adds(sb, waits->knots_n ? "\n" : "");
	for (size_t i = 0; i < waits->knots_n && i < KNOTS_MAX; i++)
		add_verdict(sb, walk, &waits->knots[i], colour);
	if (waits->knots_n > KNOTS_MAX)
		strbuf_addf(sb, "… and %zu more like these\n", waits->knots_n - KNOTS_MAX);
}

/* Chains. */

static void add_styled_site(struct strbuf *sb, const struct pyspyd_wait_node *node, bool colour) {
	text_style(sb, colour, TEXT_DIM);
	waits_site(sb, node);
	text_style(sb, colour, TEXT_PLAIN);
}

/* What a thread does that waits for nobody here. */
static void add_state(struct strbuf *sb, const struct pyspyd_wait_node *node) {
	if (node->idle)
		strbuf_addf(sb, ", idle: %s", node->idle);
	else if (node->state == 'R')
		strbuf_adds(sb, ", runs");
	else if (node->timed)
		strbuf_adds(sb, ", until a time-out");
}

static void add_node(struct tree *tree, uint32_t index, const char *expression) {
	const struct pyspyd_wait_node *node = &tree->walk->waits->nodes[index];
	char duration[32];

	text_style(tree->sb, tree->colour && waits_is_actor(node), TEXT_BOLD);
	waits_name(tree->sb, tree->walk->waits, index, expression);
	text_style(tree->sb, tree->colour && waits_is_actor(node), TEXT_PLAIN);
	add_styled_site(tree->sb, node, tree->colour);
	if (waits_is_actor(node) && node->waited_ns >= NS_PER_SEC && !node->idle) {
		detect_duration_text(node->waited_ns, duration, sizeof(duration));
		strbuf_addf(tree->sb, ", for %s", duration);
	}
	if (waits_is_actor(node) && (node->timed || !waits_walk_degree(tree->walk, index)))
		add_state(tree->sb, node);
	if (node->rule == PYSPYD_WAIT_NEVER) {
		strbuf_adds(tree->sb, ": ");
		text_add(tree->sb, waits_fault(node), TEXT_NAME_MAX);
	}
}

static void add_certainty(struct strbuf *sb, const struct pyspyd_wait_edge *edge) {
	if (!edge->inferred)
		return;
	strbuf_adds(sb, " (inferred");
	if (edge->why && *edge->why) {
		strbuf_adds(sb, ": ");
		text_add(sb, edge->why, TEXT_NAME_MAX);
	}
	strbuf_adds(sb, ")");
}

static void begin_line(struct tree *tree, bool last) {
	strbuf_adds(tree->sb, tree->indent);
	strbuf_adds(tree->sb, last ? "`- " : "|- ");
}

/* To wait for any thread of a process says little about each of them: only those that make it a knot are shown. */
static bool shows(const struct tree *tree, uint32_t from, uint32_t slot) {
	const struct pyspyd_wait_node *nodes = tree->walk->waits->nodes;

	if (!waits_walk_is_anybody(tree->walk, from))
		return true;
	return nodes[from].knot != WAITS_NONE && nodes[from].knot == nodes[tree->walk->out.other[slot]].knot;
}

static void add_stack_line(struct tree *tree, const char *branch) {
	strbuf_adds(tree->sb, tree->indent);
	strbuf_adds(tree->sb, branch);
}

/* Below the thread's own line, beside the branches that come. */
static void add_stack(struct tree *tree, uint32_t index, const char *branch) {
	const struct pyspyd_wait_node *node = &tree->walk->waits->nodes[index];
	size_t n = min_of(node->frames_n, (size_t)STACK_MAX);

	if (!node->native || tree->stacked[index])
		return;
	tree->stacked[index] = true;
	for (size_t i = 0; i < n; i++) {
		add_stack_line(tree, branch);
		text_frame(tree->sb, &node->frames[i], true, tree->colour);
		strbuf_adds(tree->sb, "\n");
	}
	if (node->frames_n > n) {
		add_stack_line(tree, branch);
		strbuf_addf(tree->sb, "… and %zu more\n", node->frames_n - n);
	}
	if (node->native_end) {
		add_stack_line(tree, branch);
		strbuf_adds(tree->sb, "… (native frames: ");
		text_add(tree->sb, node->native_end, TEXT_NAME_MAX);
		strbuf_adds(tree->sb, ")\n");
	}
	if (node->disagree) {
		add_stack_line(tree, branch);
		strbuf_adds(tree->sb, "… (native and Python frames do not agree)\n");
	}
}

static bool has_children(const struct tree *tree, uint32_t from) {
	uint32_t slot = tree->walk->out.start[from], end = slot + waits_walk_degree(tree->walk, from);

	while (slot < end && !shows(tree, from, slot))
		slot++;
	return slot < end;
}

static void add_children(struct tree *tree, uint32_t from, unsigned depth);

static void add_child(struct tree *tree, uint32_t from, uint32_t slot, unsigned depth, bool last) {
	const struct pyspyd_wait_node *nodes = tree->walk->waits->nodes;
	const struct pyspyd_wait_edge *edge = waits_walk_edge(tree->walk, slot);
	uint32_t to = edge->to;
	size_t end = strlen(tree->indent);

	begin_line(tree, last);
	strbuf_adds(tree->sb, waits_link(&nodes[from], &nodes[to]));
	add_node(tree, to, edge->expression);
	add_certainty(tree->sb, edge);
	if (tree->here[to])
		strbuf_adds(tree->sb, ": the circle closes");
	else if (tree->told[to])
		strbuf_adds(tree->sb, " (see above)");
	strbuf_adds(tree->sb, "\n");
	if (tree->told[to])
		return;
	memcpy(tree->indent + end, last ? "   " : "|  ", 4);
	add_stack(tree, to, has_children(tree, to) ? "|  " : "   ");
	add_children(tree, to, depth + 1);
	tree->indent[end] = '\0';
}

/* A task's children end before it does, unless one of them fails. */
static bool needs_all(const struct pyspyd_wait_node *node) {
	return node->rule == PYSPYD_WAIT_ALL || node->kind == PYSPYD_WAIT_TASK;
}

/* Recurses at most DEPTH_MAX deep. */
static void add_children(struct tree *tree, uint32_t from, unsigned depth) {
	uint32_t slot = tree->walk->out.start[from], end = slot + waits_walk_degree(tree->walk, from);
	uint32_t n = 0, shown = 0;

	for (uint32_t i = slot; i < end; i++)
		n += shows(tree, from, i);
	if (!n)
		return;
	if (depth == DEPTH_MAX) {
		begin_line(tree, true);
		strbuf_adds(tree->sb, "… and so on\n");
		return;
	}
	tree->told[from] = tree->here[from] = true;
	for (; slot < end && shown < CHILDREN_MAX; slot++)
		if (shows(tree, from, slot)) {
			shown++;
			add_child(tree, from, slot, depth, shown == n);
		}
	tree->here[from] = false;
	if (n > shown) {
		begin_line(tree, true);
		strbuf_addf(
			tree->sb, "%s %u more\n", needs_all(&tree->walk->waits->nodes[from]) ? "and" : "or", n - shown);
	}
}

static uint32_t only_target(const struct tree *tree, uint32_t root) {
	return waits_walk_degree(tree->walk, root) == 1 ? tree->walk->out.other[tree->walk->out.start[root]]
							: WAITS_NONE;
}

/* A chain whose resource stands above needs one line. */
static bool is_brief(const struct tree *tree, uint32_t root) {
	uint32_t to = only_target(tree, root);

	return to != WAITS_NONE && (tree->told[to] || tree->chains[to]);
}

static void add_brief(struct tree *tree, uint32_t root) {
	const struct pyspyd_wait_edge *edge = waits_walk_edge(tree->walk, tree->walk->out.start[root]);
	const struct pyspyd_wait_node *nodes = tree->walk->waits->nodes;

	if (tree->chains[edge->to]++ >= CHAINS_MAX)
		return;
	add_node(tree, root, NULL);
	strbuf_adds(tree->sb, " ");
	strbuf_adds(tree->sb, waits_link(&nodes[root], &nodes[edge->to]));
	waits_name(tree->sb, tree->walk->waits, edge->to, edge->expression);
	strbuf_adds(tree->sb, " (see above)\n");
	add_stack(tree, root, "   ");
}

static void add_chain(struct tree *tree, uint32_t root) {
	uint32_t to = only_target(tree, root);

	if (to != WAITS_NONE)
		tree->chains[to]++;
	add_node(tree, root, NULL);
	strbuf_adds(tree->sb, "\n");
	add_stack(tree, root, has_children(tree, root) ? "|  " : "   ");
	add_children(tree, root, 0);
}

static void add_crowds(struct tree *tree) {
	for (uint32_t i = 0; i < tree->walk->waits->nodes_n; i++) {
		if (tree->chains[i] <= CHAINS_MAX)
			continue;
		strbuf_addf(tree->sb, "… and %u more like these wait for ", tree->chains[i] - CHAINS_MAX);
		waits_name(tree->sb, tree->walk->waits, i, NULL);
		strbuf_adds(tree->sb, "\n");
	}
}

/* A task that waits for nothing but what its loop may bring, and for which nobody waits. */
static bool is_flat(const struct waits_walk *walk, uint32_t index) {
	const struct pyspyd_wait_node *nodes = walk->waits->nodes;
	uint32_t to;

	if (nodes[index].kind != PYSPYD_WAIT_TASK || nodes[index].stuck || waits_walk_degree(walk, index) != 1 ||
		walk->in.start[index] != walk->in.start[index + 1])
		return false;
	to = walk->out.other[walk->out.start[index]];
	return nodes[to].type && !strcmp(nodes[to].type, "loop") && !waits_walk_degree(walk, to);
}

static bool add_chains(struct strbuf *sb, const struct waits_walk *walk, bool colour) {
	size_t n = walk->waits->nodes_n + 1;
	_free_ bool *told = calloc(n, sizeof(*told)), *here = calloc(n, sizeof(*here));
	_free_ bool *stacked = calloc(n, sizeof(*stacked));
	_free_ uint32_t *chains = calloc(n, sizeof(*chains));
	struct tree tree = {
		.sb = sb,
		.walk = walk,
		.colour = colour,
		.told = told,
		.here = here,
		.stacked = stacked,
		.chains = chains,
	};

	if (!told || !here || !stacked || !chains)
		return false;
	for (size_t i = 0; i < walk->roots_n; i++) {
		if (is_flat(walk, walk->roots[i]))
			continue;
		if (is_brief(&tree, walk->roots[i])) {
			add_brief(&tree, walk->roots[i]);
			continue;
		}
		strbuf_adds(sb, "\n");
		add_chain(&tree, walk->roots[i]);
	}
	add_crowds(&tree);
	return true;
}

/* Those who wait for nobody. */

/* A word for what such a thread does: of one kind of thread, one line. NULL where it is shown in a chain. */
static const char *summary_of(const struct waits_walk *walk, uint32_t index) {
	const struct pyspyd_wait_node *node = &walk->waits->nodes[index];

	if (is_flat(walk, index))
		return "waiting for events of the event loop";
	if (!waits_is_shown(walk->waits, node) || walk->covered[index])
		return NULL;
	if (node->idle)
		return node->idle;
	return node->state == 'R' ? "running" : node->timed ? "waiting until a time-out" : "waiting for nobody here";
}

struct group {
	const char *word;
	enum pyspyd_wait_kind kind;
	bool idle;
	uint32_t first;
	size_t n;
};
typedef VEC(struct group) group_vec;

static bool same_text(const char *a, const char *b) {
	return a == b || (a && b && !strcmp(a, b));
}

static bool same_site(const struct pyspyd_wait_node *a, const struct pyspyd_wait_node *b) {
	const struct pyspyd_frame *x = a->site < a->frames_n ? &a->frames[a->site] : NULL;
	const struct pyspyd_frame *y = b->site < b->frames_n ? &b->frames[b->site] : NULL;

	if (!x || !y)
		return x == y;
	return x->line == y->line && same_text(x->qualname, y->qualname) && same_text(x->file, y->file);
}

/* Tasks come in crowds that stand in one place. */
static bool belongs(const struct waits_walk *walk, const struct group *group, uint32_t index, const char *word) {
	const struct pyspyd_wait_node *node = &walk->waits->nodes[index];

	return group->kind == node->kind && group->idle == (node->idle != NULL) && !strcmp(group->word, word) &&
		(node->kind != PYSPYD_WAIT_TASK || same_site(node, &walk->waits->nodes[group->first]));
}

static int count_in(group_vec *groups, const struct waits_walk *walk, uint32_t index, const char *word) {
	const struct pyspyd_wait_node *node = &walk->waits->nodes[index];

	vec_foreach (group, groups)
		if (belongs(walk, group, index, word)) {
			group->n++;
			return 0;
		}
	return vec_push(groups, (struct group){ word, node->kind, node->idle != NULL, index, 1 });
}

static void add_names(struct strbuf *sb, const struct waits_walk *walk, const struct group *group) {
	size_t shown = 0;

	for (uint32_t i = group->first; i < walk->waits->nodes_n && shown < NAMES_MAX; i++) {
		const char *word = summary_of(walk, i);

		if (!word || !belongs(walk, group, i, word))
			continue;
		strbuf_adds(sb, shown++ ? ", " : ": ");
		waits_name(sb, walk->waits, i, NULL);
		if (group->kind != PYSPYD_WAIT_TASK)
			waits_site(sb, &walk->waits->nodes[i]);
	}
	if (group->n > shown)
		strbuf_addf(sb, " and %zu more", group->n - shown);
}

static void add_group(struct strbuf *sb, const struct waits_walk *walk, const struct group *group) {
	strbuf_addf(sb, "%zu %s%s ", group->n, group->kind == PYSPYD_WAIT_TASK ? "task" : "thread",
		group->n == 1 ? "" : "s");
	if (group->idle)
		strbuf_addf(sb, "idle: %s", group->word);
	else
		strbuf_adds(sb, group->word);
	if (group->kind == PYSPYD_WAIT_TASK)
		waits_site(sb, &walk->waits->nodes[group->first]);
	if (!group->idle)
		add_names(sb, walk, group);
	strbuf_adds(sb, "\n");
}

static bool add_groups(struct strbuf *sb, const struct waits_walk *walk) {
	group_vec groups = { 0 };
	int r = 0;

	for (uint32_t i = 0; !r && i < walk->waits->nodes_n; i++) {
		const char *word = summary_of(walk, i);

		if (word)
			r = count_in(&groups, walk, i, word);
	}
	strbuf_adds(sb, groups.n ? "\n" : "");
	for (size_t i = 0; i < min_of(groups.n, (size_t)GROUPS_MAX); i++)
		add_group(sb, walk, &groups.items[i]);
	if (groups.n > GROUPS_MAX)
		strbuf_addf(sb, "… and %zu more groups of tasks\n", groups.n - GROUPS_MAX);
	vec_free(&groups);
	return !r;
}

/* The whole. */

static void add_loops(struct strbuf *sb, const struct pyspyd_waits *waits) {
	strbuf_adds(sb, waits->loops_n ? "\n" : "");
	for (size_t i = 0; i < waits->loops_n; i++) {
		const struct pyspyd_wait_loop *loop = &waits->loops[i];

		strbuf_addf(sb, "event loop of thread %d: %" PRIu64 " task%s pending, %" PRIu64 " callback%s ready",
			(int)loop->tid, loop->tasks, loop->tasks == 1 ? "" : "s", loop->ready,
			loop->ready == 1 ? "" : "s");
		if (loop->overdue)
			strbuf_addf(sb, ", %" PRIu64 " timers overdue", loop->overdue);
		strbuf_adds(sb, loop->polling ? ", polling\n" : "\n");
	}
}

static void add_notes(struct strbuf *sb, const struct pyspyd_waits *waits) {
	strbuf_adds(sb, waits->notes_n || waits->incomplete ? "\n" : "");
	for (size_t i = 0; i < waits->notes_n; i++) {
		strbuf_adds(sb, "note: ");
		text_add(sb, waits->notes[i], TEXT_PATH_MAX);
		strbuf_adds(sb, "\n");
	}
	if (waits->incomplete)
		strbuf_adds(sb, "note: incomplete: a limit was met, or a process that matters could not be read\n");
}

char *pyspyd_waits_text(const struct pyspyd_waits *waits, bool colour) {
	_cleanup_(waits_walk_deinit) struct waits_walk walk = { 0 };
	struct strbuf sb = { 0 };
	bool ok = !waits_walk_init(&walk, waits);

	if (ok) {
		text_process(&sb, &waits->process, colour);
		add_verdicts(&sb, &walk, colour);
		ok = add_chains(&sb, &walk, colour) && add_groups(&sb, &walk);
		add_loops(&sb, waits);
		add_notes(&sb, waits);
	}
	if (ok)
		return strbuf_take(&sb);
	strbuf_deinit(&sb);
	return NULL;
}
