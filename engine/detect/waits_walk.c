/* SPDX-License-Identifier: MIT */
/* Where the chains of a wait graph begin, and its nodes and knots in words.
 *
 * Chains begin at threads and tasks of the process that wait and that nobody waits for. To wait for any thread of a
 * process is not to wait for one of them: such a node leads on only where it has a single edge. What only a cycle
 * reaches begins at its first member. */
#include "engine/detect/waits_walk.h"

#include "engine/base/util.h"
#include "engine/detect/words.h"
#include <errno.h>
#include <string.h>

#define WORDS_MAX 256    /* bytes of a name, or of a reason, that are shown */
#define MEMBERS_SHOWN 8  /* of a knot, in its sentence */
#define BRANCHES_SHOWN 3 /* of those that a node waits for, there */
#define DEPTH_SHOWN 3    /* resources behind each other, there */
#define REASONS_SHOWN 3

bool waits_is_actor(const struct pyspyd_wait_node *node) {
	return node->kind == PYSPYD_WAIT_THREAD || node->kind == PYSPYD_WAIT_TASK;
}

size_t waits_count_actors(const struct pyspyd_waits *waits, const uint32_t *nodes, size_t n) {
	size_t actors = 0;

	for (size_t i = 0; i < n; i++)
		actors += waits_is_actor(&waits->nodes[nodes[i]]);
	return actors;
}

uint32_t waits_walk_degree(const struct waits_walk *walk, uint32_t node) {
	if (walk->waits->nodes[node].rule == PYSPYD_WAIT_NEVER)
		return 0;
	return walk->out.start[node + 1] - walk->out.start[node];
}

const struct pyspyd_wait_edge *waits_walk_edge(const struct waits_walk *walk, uint32_t slot) {
	return &walk->waits->edges[walk->out.edge[slot]];
}

/* Roots. */

bool waits_walk_is_anybody(const struct waits_walk *walk, uint32_t node) {
	const struct pyspyd_wait_node *is = &walk->waits->nodes[node];
	bool many = is->kind == PYSPYD_WAIT_PROCESS ||
		(is->kind == PYSPYD_WAIT_RESOURCE && is->type && !strcmp(is->type, "tasks"));

	return many && waits_walk_degree(walk, node) != 1;
}

/* Marks all that a node leads to; `through_actors`: also what they wait for. */
static void mark_from(const struct waits_walk *walk, uint32_t node, bool through_actors, bool *marks, uint32_t *queue) {
	const struct pyspyd_wait_node *nodes = walk->waits->nodes;
	uint32_t queued = 0;

	queue[queued++] = node;
	while (queued) {
		uint32_t at = queue[--queued];

		if (waits_walk_is_anybody(walk, at) || (at != node && !through_actors && waits_is_actor(&nodes[at])))
			continue;
		for (uint32_t i = 0; i < waits_walk_degree(walk, at); i++) {
			uint32_t to = walk->out.other[walk->out.start[at] + i];

			if (!marks[to]) {
				marks[to] = true;
				queue[queued++] = to;
			}
		}
	}
}

/* Other processes were looked at for the sake of the one that was asked for: their own waits are theirs, unless
 * something is wrong with them. */
bool waits_is_shown(const struct pyspyd_waits *waits, const struct pyspyd_wait_node *node) {
	return waits_is_actor(node) && (node->pid == waits->process.pid || node->stuck);
}

static bool begins_chain(const struct waits_walk *walk, uint32_t i) {
	const struct pyspyd_wait_node *node = &walk->waits->nodes[i];

	return waits_is_shown(walk->waits, node) && (!node->idle || node->stuck) &&
		(waits_walk_degree(walk, i) || (node->rule == PYSPYD_WAIT_NEVER && node->stuck));
}

static void add_root(struct waits_walk *walk, uint32_t node, uint32_t *queue) {
	walk->roots[walk->roots_n++] = node;
	walk->covered[node] = true;
	mark_from(walk, node, true, walk->covered, queue);
}

static int find_roots(struct waits_walk *walk) {
	const struct pyspyd_waits *waits = walk->waits;
	_free_ uint32_t *queue = malloc((waits->nodes_n + 1) * sizeof(*queue));
	_free_ bool *wanted = calloc(waits->nodes_n + 1, sizeof(*wanted));

	walk->roots = malloc((waits->nodes_n + 1) * sizeof(*walk->roots));
	walk->covered = calloc(waits->nodes_n + 1, sizeof(*walk->covered));
	if (!queue || !wanted || !walk->roots || !walk->covered)
		return -ENOMEM;
	for (uint32_t i = 0; i < waits->nodes_n; i++)
		if (waits_is_shown(waits, &waits->nodes[i]))
			mark_from(walk, i, false, wanted, queue);
	for (uint32_t i = 0; i < waits->nodes_n; i++)
		if (begins_chain(walk, i) && !wanted[i])
			add_root(walk, i, queue);
	for (size_t k = 0; k < waits->knots_n; k++) {
		uint32_t first = waits->knots[k].nodes[0];

		if (begins_chain(walk, first) && !walk->covered[first])
			add_root(walk, first, queue);
	}
	for (uint32_t i = 0; i < waits->nodes_n; i++)
		if (begins_chain(walk, i) && !walk->covered[i])
			add_root(walk, i, queue);
	return 0;
}

int waits_walk_init(struct waits_walk *walk, const struct pyspyd_waits *waits) {
	struct waits_walk made = { .waits = waits };
	int r = adjacency_init(&made.out, waits, false);

	if (!r)
		r = adjacency_init(&made.in, waits, true);
	if (!r)
		r = find_roots(&made);
	if (r) {
		waits_walk_deinit(&made);
		return r;
	}
	*walk = made;
	return 0;
}

void waits_walk_deinit(struct waits_walk *walk) {
	adjacency_deinit(&walk->out);
	adjacency_deinit(&walk->in);
	free(walk->roots);
	free(walk->covered);
	*walk = (struct waits_walk){ 0 };
}

/* Edges. */

uint32_t waits_walk_next(const struct waits_walk *walk, uint32_t node) {
	const struct pyspyd_wait_node *nodes = walk->waits->nodes;
	uint32_t best = WAITS_NONE, rank = 0;

	for (uint32_t i = 0; i < waits_walk_degree(walk, node); i++) {
		uint32_t slot = walk->out.start[node] + i;
		const struct pyspyd_wait_node *to = &nodes[walk->out.other[slot]];
		uint32_t is = to->knot != WAITS_NONE && to->knot == nodes[node].knot ? 3 : to->stuck ? 2 : 1;

		if (is > rank) {
			rank = is;
			best = slot;
		}
	}
	return best;
}

uint32_t waits_walk_slot(const struct waits_walk *walk, uint32_t from, uint32_t to) {
	for (uint32_t slot = walk->out.start[from]; slot < walk->out.start[from + 1]; slot++)
		if (walk->out.other[slot] == to)
			return slot;
	return WAITS_NONE;
}

/* Words. */

void waits_name(struct strbuf *sb, const struct pyspyd_waits *waits, uint32_t index, const char *expression) {
	const struct pyspyd_wait_node *node = &waits->nodes[index];

	if (node->kind == PYSPYD_WAIT_PROCESS)
		detect_add_process(sb, node);
	else if (node->label && *node->label)
		detect_add_text(sb, node->label, WORDS_MAX);
	else if (node->tid)
		strbuf_addf(sb, "thread %d", (int)node->tid);
	else
		detect_add_text(sb, node->type, WORDS_MAX);
	if (waits_is_actor(node) && node->pid && node->pid != waits->process.pid)
		strbuf_addf(sb, " of process %d", (int)node->pid);
	if (!expression || !*expression)
		return;
	strbuf_adds(sb, " `");
	detect_add_text(sb, expression, WORDS_MAX);
	strbuf_adds(sb, "`");
}

void waits_site(struct strbuf *sb, const struct pyspyd_wait_node *node) {
	const struct pyspyd_frame *frame = node->site < node->frames_n ? &node->frames[node->site] : NULL;
	const char *slash = frame && frame->file ? strrchr(frame->file, '/') : NULL;

	if (!frame)
		return;
	strbuf_adds(sb, " (");
	detect_add_text(sb, frame->qualname && *frame->qualname ? frame->qualname : frame->function, WORDS_MAX);
	if (frame->file && *frame->file) {
		strbuf_adds(sb, ", ");
		detect_add_text(sb, slash && slash[1] ? slash + 1 : frame->file, WORDS_MAX);
		if (frame->line > 0)
			strbuf_addf(sb, ":%d", frame->line);
	}
	strbuf_adds(sb, ")");
}

static bool is_join(const struct pyspyd_wait_node *node) {
	return node->kind == PYSPYD_WAIT_RESOURCE && node->type && !strcmp(node->type, "join");
}

const char *waits_link(const struct pyspyd_wait_node *from, const struct pyspyd_wait_node *to) {
	if (waits_is_actor(from))
		return "waits for ";
	if (from->kind == PYSPYD_WAIT_PROCESS || is_join(from))
		return "that is ";
	return detect_link(from, to);
}

const char *waits_fault(const struct pyspyd_wait_node *node) {
	return node->fault && *node->fault ? node->fault : "nobody is left who could end this";
}

static void add_reason(struct strbuf *sb, const char *seen[REASONS_SHOWN], size_t *n, const char *why) {
	if (!why || !*why)
		why = "not read directly";
	for (size_t i = 0; i < *n; i++)
		if (!strcmp(seen[i], why))
			return;
	if (*n == REASONS_SHOWN)
		return;
	seen[(*n)++] = why;
	strbuf_adds(sb, *n > 1 ? "; " : "");
	detect_add_text(sb, why, WORDS_MAX);
}

static bool makes_knot(const struct waits_walk *walk, const struct pyspyd_wait_knot *knot, uint32_t to) {
	if (knot->kind == PYSPYD_KNOT_ORPHAN)
		return to == knot->nodes[0];
	return walk->waits->nodes[to].knot == walk->waits->nodes[knot->nodes[0]].knot;
}

void waits_why(struct strbuf *sb, const struct waits_walk *walk, const struct pyspyd_wait_knot *knot) {
	const char *seen[REASONS_SHOWN];
	size_t n = 0;

	for (size_t i = 0; knot->inferred && i < knot->nodes_n; i++) {
		uint32_t from = knot->nodes[i];

		for (uint32_t slot = walk->out.start[from]; slot < walk->out.start[from + 1]; slot++)
			if (makes_knot(walk, knot, walk->out.other[slot]) && waits_walk_edge(walk, slot)->inferred)
				add_reason(sb, seen, &n, waits_walk_edge(walk, slot)->why);
	}
}

static bool is_ring(const struct waits_walk *walk, const struct pyspyd_wait_knot *knot) {
	for (size_t i = 0; i < knot->nodes_n; i++)
		if (waits_walk_slot(walk, knot->nodes[i], knot->nodes[(i + 1) % knot->nodes_n]) == WAITS_NONE)
			return false;
	return true;
}

/* A ring is told from link to link: "A waits for B held by C, which waits for …". What names its thread already is not
 * followed by it again: "the end of C", and "process 77, whose MainThread waits for …". */
struct ring {
	struct strbuf *sb;
	const struct waits_walk *walk;
	const struct pyspyd_wait_knot *knot;
};

static uint32_t ring_at(const struct ring *ring, size_t i) {
	return ring->knot->nodes[i % ring->knot->nodes_n];
}

/* Whether number i, the main thread of a process that is no Python, has no other name than the process before it. */
static bool is_nameless(const struct ring *ring, size_t i) {
	const struct pyspyd_wait_node *nodes = ring->walk->waits->nodes, *node = &nodes[ring_at(ring, i)];

	return i && i < ring->knot->nodes_n && nodes[ring_at(ring, i - 1)].kind == PYSPYD_WAIT_PROCESS &&
		node->kind == PYSPYD_WAIT_THREAD && node->main && !node->python;
}

static void add_link(const struct ring *ring, size_t i) {
	const struct pyspyd_wait_node *nodes = ring->walk->waits->nodes;
	const struct pyspyd_wait_node *from = &nodes[ring_at(ring, i)], *to = &nodes[ring_at(ring, i + 1)];
	bool closes = i + 1 == ring->knot->nodes_n;

	if (from->kind == PYSPYD_WAIT_PROCESS) {
		strbuf_adds(ring->sb, waits_is_actor(to) && !closes ? ", whose " : ", that is ");
		return;
	}
	if (waits_is_actor(from) && i &&
		(nodes[ring_at(ring, i - 1)].kind != PYSPYD_WAIT_PROCESS || is_nameless(ring, i)))
		strbuf_adds(ring->sb, ", which");
	strbuf_adds(ring->sb, " ");
	strbuf_adds(ring->sb, waits_link(from, to));
}

/* A member, after the link to it: number i, which closes the ring where it is the first one again. */
static void add_member(const struct ring *ring, size_t i) {
	struct pyspyd_waits named = *ring->walk->waits;
	uint32_t from = ring_at(ring, i - 1), index = ring_at(ring, i);
	const struct pyspyd_wait_node *node = &named.nodes[index];
	uint32_t slot = waits_walk_slot(ring->walk, from, index);

	if (named.nodes[from].kind == PYSPYD_WAIT_PROCESS)
		named.process.pid = node->pid; /* which one it is was said */
	waits_name(ring->sb, &named, index, slot == WAITS_NONE ? NULL : waits_walk_edge(ring->walk, slot)->expression);
	if (i < ring->knot->nodes_n && !is_join(node))
		waits_site(ring->sb, node);
	else if (i + 1 < ring->knot->nodes_n)
		waits_site(ring->sb, &named.nodes[ring_at(ring, i + 1)]);
	else if (ring->knot->kind == PYSPYD_KNOT_SELF)
		strbuf_adds(ring->sb, " itself");
}

/* Whether number i stands for the first member, which closes the ring, and needs no word of its own. */
static bool is_transparent(const struct ring *ring, size_t i) {
	const struct pyspyd_wait_node *node = &ring->walk->waits->nodes[ring_at(ring, i)];

	return i + 1 == ring->knot->nodes_n && node->kind == PYSPYD_WAIT_PROCESS && strcmp(node->type, "process-end") &&
		!waits_is_actor(&ring->walk->waits->nodes[ring_at(ring, i - 1)]);
}

static void add_ring(struct strbuf *sb, const struct waits_walk *walk, const struct pyspyd_wait_knot *knot) {
	const struct ring ring = { sb, walk, knot };
	const struct pyspyd_waits *waits = walk->waits;
	size_t i = 0;

	waits_name(sb, waits, knot->nodes[0], NULL);
	waits_site(sb, &waits->nodes[knot->nodes[0]]);
	while (i < knot->nodes_n) {
		add_link(&ring, i);
		i++;
		if (i >= MEMBERS_SHOWN && knot->nodes_n > MEMBERS_SHOWN) {
			strbuf_addf(sb, "… and %zu more", knot->nodes_n - i);
			return;
		}
		if (i < knot->nodes_n && is_transparent(&ring, i))
			i++;
		add_member(&ring, i);
		if (i < knot->nodes_n && (is_join(&waits->nodes[ring_at(&ring, i)]) || is_nameless(&ring, i + 1)))
			i++;
	}
}

/* All that a node waits for within its knot, resources with what they wait for. */
static void add_targets(struct strbuf *sb, const struct waits_walk *walk, uint32_t from, unsigned depth) {
	const struct pyspyd_wait_node *nodes = walk->waits->nodes;
	const char *joint = nodes[from].rule == PYSPYD_WAIT_ALL ? " and " : " or ";
	uint32_t end = walk->out.start[from + 1], shown = 0, left = 0;

	for (uint32_t slot = walk->out.start[from]; slot < end; slot++) {
		uint32_t to = walk->out.other[slot];

		if (nodes[to].knot != nodes[from].knot)
			continue;
		if (shown == BRANCHES_SHOWN) {
			left++;
			continue;
		}
		if (shown++)
			strbuf_adds(sb, joint);
		else
			strbuf_addf(sb, " %s", waits_link(&nodes[from], &nodes[to]));
		waits_name(sb, walk->waits, to, waits_walk_edge(walk, slot)->expression);
		/* a process, and the end of a thread, say by themselves who is meant */
		if (nodes[to].kind == PYSPYD_WAIT_RESOURCE && !is_join(&nodes[to]) && depth < DEPTH_SHOWN)
			add_targets(sb, walk, to, depth + 1);
	}
	if (left)
		strbuf_addf(sb, "%s%u more", joint, left);
}

/* Whether one that was shown waits for the same; else it counts as shown now. */
static bool was_shown(uint32_t targets[MEMBERS_SHOWN], size_t shown, uint32_t target) {
	for (size_t i = 0; i < shown; i++)
		if (targets[i] == target)
			return true;
	targets[shown] = target;
	return false;
}

/* A knot that is no ring: what each of its threads waits for; of a crowd, one for each thing that is waited for. */
static void add_web(struct strbuf *sb, const struct waits_walk *walk, const struct pyspyd_wait_knot *knot) {
	const struct pyspyd_waits *waits = walk->waits;
	bool crowd = waits_count_actors(waits, knot->nodes, knot->nodes_n) > MEMBERS_SHOWN;
	uint32_t targets[MEMBERS_SHOWN];
	size_t shown = 0, left = 0;

	for (size_t i = 0; i < knot->nodes_n; i++) {
		uint32_t node = knot->nodes[i];

		if (!waits_is_actor(&waits->nodes[node]))
			continue;
		if (shown == MEMBERS_SHOWN ||
			(crowd && was_shown(targets, shown, walk->out.other[waits_walk_next(walk, node)]))) {
			left++;
			continue;
		}
		strbuf_adds(sb, shown++ ? "; " : "");
		waits_name(sb, waits, node, NULL);
		waits_site(sb, &waits->nodes[node]);
		add_targets(sb, walk, node, 0);
	}
	if (left)
		strbuf_addf(sb, "; … and %zu more", left);
	if (!shown) {
		waits_name(sb, walk->waits, knot->nodes[0], NULL);
		add_targets(sb, walk, knot->nodes[0], 0);
	}
}

/* Who speaks for all that wait for an orphan: a thread or task where there is one. */
static uint32_t speaker_of(const struct pyspyd_waits *waits, const struct pyspyd_wait_knot *knot) {
	for (size_t i = 1; i < knot->nodes_n; i++)
		if (waits_is_actor(&waits->nodes[knot->nodes[i]]))
			return knot->nodes[i];
	return knot->nodes[knot->nodes_n > 1 ? 1 : 0];
}

static void add_orphan(struct strbuf *sb, const struct waits_walk *walk, const struct pyspyd_wait_knot *knot) {
	const struct pyspyd_waits *waits = walk->waits;
	uint32_t orphan = knot->nodes[0], speaker = speaker_of(waits, knot), slot;
	size_t actors = waits_count_actors(waits, knot->nodes + 1, knot->nodes_n - 1);

	waits_name(sb, waits, speaker, NULL);
	waits_site(sb, &waits->nodes[speaker]);
	if (speaker != orphan) {
		slot = waits_walk_slot(walk, speaker, orphan);
		strbuf_addf(sb, " %s", waits_link(&waits->nodes[speaker], &waits->nodes[orphan]));
		waits_name(sb, waits, orphan, slot == WAITS_NONE ? NULL : waits_walk_edge(walk, slot)->expression);
	}
	strbuf_adds(sb, ": ");
	detect_add_text(sb, waits_fault(&waits->nodes[orphan]), WORDS_MAX);
	if (actors > 1)
		strbuf_addf(sb, "; %zu more thread%s for it", actors - 1, actors == 2 ? " waits" : "s wait");
}

void waits_sentence(struct strbuf *sb, const struct waits_walk *walk, const struct pyspyd_wait_knot *knot) {
	if (knot->kind == PYSPYD_KNOT_ORPHAN)
		add_orphan(sb, walk, knot);
	else if (is_ring(walk, knot))
		add_ring(sb, walk, knot);
	else
		add_web(sb, walk, knot);
}

/* Whose the sentence is: names of other processes' threads say so. */
static pid_t home_of(const struct pyspyd_waits *waits, const struct pyspyd_wait_knot *knot) {
	pid_t first = 0;

	for (size_t i = 0; i < knot->nodes_n; i++) {
		const struct pyspyd_wait_node *node = &waits->nodes[knot->nodes[i]];

		if (!waits_is_actor(node))
			continue;
		if (node->pid == waits->process.pid)
			return node->pid;
		first = first ? first : node->pid;
	}
	return first;
}

char *pyspyd_wait_knot_text(const struct pyspyd_waits *waits, const struct pyspyd_wait_knot *knot) {
	static const char *const kinds[] = {
		[PYSPYD_KNOT_CYCLE] = "deadlock",
		[PYSPYD_KNOT_SELF] = "self-deadlock",
		[PYSPYD_KNOT_ORPHAN] = "orphaned-lock",
	};
	_cleanup_(waits_walk_deinit) struct waits_walk walk = { 0 };
	struct pyspyd_waits seen = *waits;
	struct strbuf sb = { 0 };

	seen.process.pid = home_of(waits, knot);
	if (waits_walk_init(&walk, &seen))
		return NULL;
	strbuf_addf(&sb, "%s: ", kinds[knot->kind]);
	waits_sentence(&sb, &walk, knot);
	return strbuf_take(&sb);
}
