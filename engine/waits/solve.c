/* SPDX-License-Identifier: MIT */
/* Who is stuck, and why.
 *
 *   1. Progress begins at the free nodes and spreads against the edges. What it does not reach is stuck.
 *   2. The strongly connected sets of stuck nodes (Tarjan). A node of which nobody is left to end the wait has no
 * edges.
 *   3. A set without an edge out of it is a knot: its kind, the order of its members, what identifies it.
 *   4. Against the edges from each knot: its victims.
 *
 * No recursion: a chain may be as long as the graph. All steps are linear but two: what identifies a knot is sorted,
 * and a victim is listed with at most WAITS_VICTIM_KNOTS knots, since each of many might wait for each of many. */
#include "engine/waits/graph.h"

#include "engine/base/map.h"
#include "engine/base/util.h"
#include "engine/waits/adjacency.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

struct solver {
	struct pyspyd_waits *waits;
	struct adjacency out, in;
	uint32_t n;
	uint32_t *component; /* of each node; WAITS_NONE: not stuck */
	uint32_t components_n;
	uint32_t *knot_of; /* of each component; WAITS_NONE: none */
	uint32_t *queue;   /* n, for walks */
	uint32_t *mark;    /* n, for walks: which one was here last */
	uint8_t *visits;   /* n */
};

static void solver_deinit(struct solver *s) {
	adjacency_deinit(&s->out);
	adjacency_deinit(&s->in);
	free(s->component);
	free(s->knot_of);
	free(s->queue);
	free(s->mark);
	free(s->visits);
}

static int solver_init(struct solver *s, struct pyspyd_waits *waits) {
	size_t n = waits->nodes_n;
	int r;

	assert(n <= WAITS_NODES_MAX);
	*s = (struct solver){ .waits = waits, .n = (uint32_t)n };
	r = adjacency_init(&s->out, waits, false);
	if (!r)
		r = adjacency_init(&s->in, waits, true);
	if (r)
		return r;
	s->component = malloc((n + 1) * sizeof(*s->component));
	s->knot_of = malloc((n + 1) * sizeof(*s->knot_of));
	s->queue = malloc((n + 1) * sizeof(*s->queue));
	s->mark = calloc(n + 1, sizeof(*s->mark));
	s->visits = calloc(n + 1, sizeof(*s->visits));
	if (!s->component || !s->knot_of || !s->queue || !s->mark || !s->visits)
		return -ENOMEM;
	memset(s->component, 0xff, (n + 1) * sizeof(*s->component));
	memset(s->knot_of, 0xff, (n + 1) * sizeof(*s->knot_of));
	return 0;
}

static bool is_actor(const struct pyspyd_wait_node *node) {
	return node->kind == PYSPYD_WAIT_THREAD || node->kind == PYSPYD_WAIT_TASK;
}

/* Whether a stuck node waits for others that are stuck. */
static bool has_others(const struct pyspyd_wait_node *node) {
	return node->rule != PYSPYD_WAIT_NEVER;
}

/* 1: progress. */

static bool begins_free(const struct solver *s, uint32_t i) {
	enum pyspyd_wait_rule rule = s->waits->nodes[i].rule;

	return rule == PYSPYD_WAIT_FREE || (rule != PYSPYD_WAIT_NEVER && s->out.start[i] == s->out.start[i + 1]);
}

/* One of those that a node waits for goes on. `left`: how many it still needs. Return: whether it goes on too. */
static bool goes_on(const struct pyspyd_wait_node *node, uint32_t *left) {
	if (!node->stuck || node->rule == PYSPYD_WAIT_NEVER)
		return false;
	return node->rule == PYSPYD_WAIT_ANY || !--*left;
}

static int spread_progress(struct solver *s) {
	struct pyspyd_wait_node *nodes = s->waits->nodes;
	_free_ uint32_t *left = malloc((s->n + 1ULL) * sizeof(*left));
	uint32_t queued = 0;

	if (!left)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->n; i++) {
		left[i] = s->out.start[i + 1] - s->out.start[i];
		nodes[i].stuck = !begins_free(s, i);
		if (!nodes[i].stuck)
			s->queue[queued++] = i;
	}
	while (queued) {
		uint32_t i = s->queue[--queued];

		for (uint32_t e = s->in.start[i]; e < s->in.start[i + 1]; e++) {
			uint32_t waiter = s->in.other[e];

			if (goes_on(&nodes[waiter], &left[waiter])) {
				nodes[waiter].stuck = false;
				s->queue[queued++] = waiter;
			}
		}
	}
	return 0;
}

/* 2: strongly connected sets. */

struct search {
	uint32_t *order; /* of each node: when it was found; 0 not yet */
	uint32_t *low;   /* the earliest node that is known to be in its set */
	uint32_t *next;  /* which of its edges is next */
	uint32_t *path;  /* from the root of the search to where it is */
	uint32_t *open;  /* found, but their set is not complete */
	uint32_t path_n, open_n, found;
};

static void enter(const struct solver *s, struct search *search, uint32_t node) {
	search->order[node] = search->low[node] = ++search->found;
	search->next[node] = s->out.start[node];
	search->path[search->path_n++] = node;
	search->open[search->open_n++] = node;
}

static void leave(struct solver *s, struct search *search) {
	uint32_t node = search->path[--search->path_n], member;

	if (search->path_n) {
		uint32_t parent = search->path[search->path_n - 1];

		search->low[parent] = min_of(search->low[parent], search->low[node]);
	}
	if (search->low[node] != search->order[node])
		return;
	do {
		member = search->open[--search->open_n];
		s->component[member] = s->components_n;
	} while (member != node);
	s->components_n++;
}

/* Return: the next stuck node that this one waits for; WAITS_NONE: there are no more. */
static uint32_t step(const struct solver *s, struct search *search, uint32_t node) {
	const struct pyspyd_wait_node *nodes = s->waits->nodes;

	while (has_others(&nodes[node]) && search->next[node] < s->out.start[node + 1]) {
		uint32_t to = s->out.other[search->next[node]++];

		if (nodes[to].stuck)
			return to;
	}
	return WAITS_NONE;
}

static void search_from(struct solver *s, struct search *search, uint32_t root) {
	enter(s, search, root);
	while (search->path_n) {
		uint32_t node = search->path[search->path_n - 1];
		uint32_t to = step(s, search, node);

		if (to == WAITS_NONE)
			leave(s, search);
		else if (!search->order[to])
			enter(s, search, to);
		else if (s->component[to] == WAITS_NONE)
			search->low[node] = min_of(search->low[node], search->order[to]);
	}
}

static int find_components(struct solver *s) {
	size_t n = s->n;
	_free_ uint32_t *store = calloc(5 * n + 1, sizeof(*store));
	struct search search = { 0 };

	if (!store)
		return -ENOMEM;
	search.order = store;
	search.low = store + n;
	search.next = store + 2 * n;
	search.path = store + 3 * n;
	search.open = store + 4 * n;
	for (uint32_t i = 0; i < s->n; i++)
		if (s->waits->nodes[i].stuck && !search.order[i])
			search_from(s, &search, i);
	return 0;
}

/* 3: knots. */

/* A resource that nobody is left to release is no knot as long as nobody is stuck for it. */
static bool matters(const struct solver *s, uint32_t node) {
	const struct pyspyd_wait_node *nodes = s->waits->nodes;

	if (nodes[node].rule != PYSPYD_WAIT_NEVER || is_actor(&nodes[node]))
		return true;
	for (uint32_t e = s->in.start[node]; e < s->in.start[node + 1]; e++)
		if (nodes[s->in.other[e]].stuck && has_others(&nodes[s->in.other[e]]))
			return true;
	return false;
}

static bool leads_out(const struct solver *s, uint32_t node) {
	if (!has_others(&s->waits->nodes[node]))
		return false;
	for (uint32_t e = s->out.start[node]; e < s->out.start[node + 1]; e++) {
		uint32_t component = s->component[s->out.other[e]];

		if (component != WAITS_NONE && component != s->component[node])
			return true;
	}
	return false;
}

/* Numbers the knots in the order in which their first members stand in the graph, and counts their members. */
static int number_knots(struct solver *s) {
	struct pyspyd_waits *waits = s->waits;
	_free_ bool *open = calloc(s->components_n + 1ULL, sizeof(*open));
	uint32_t n = 0;

	if (!open)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->n; i++)
		if (waits->nodes[i].stuck && (leads_out(s, i) || !matters(s, i)))
			open[s->component[i]] = true;
	for (uint32_t i = 0; i < s->n; i++) {
		uint32_t component = s->component[i];

		if (component == WAITS_NONE || open[component])
			continue;
		if (s->knot_of[component] == WAITS_NONE)
			s->knot_of[component] = n++;
		waits->nodes[i].knot = s->knot_of[component];
	}
	waits->knots = calloc(n + 1ULL, sizeof(*waits->knots));
	if (!waits->knots)
		return -ENOMEM;
	waits->knots_n = n;
	return 0;
}

static int list_members(struct solver *s) {
	struct pyspyd_waits *waits = s->waits;

	for (uint32_t i = 0; i < s->n; i++)
		if (waits->nodes[i].knot != WAITS_NONE)
			waits->knots[waits->nodes[i].knot].nodes_n++;
	for (size_t k = 0; k < waits->knots_n; k++) {
		waits->knots[k].nodes = malloc(waits->knots[k].nodes_n * sizeof(*waits->knots[k].nodes));
		if (!waits->knots[k].nodes)
			return -ENOMEM;
		waits->knots[k].nodes_n = 0;
	}
	for (uint32_t i = 0; i < s->n; i++)
		if (waits->nodes[i].knot != WAITS_NONE) {
			struct pyspyd_wait_knot *knot = &waits->knots[waits->nodes[i].knot];

			knot->nodes[knot->nodes_n++] = i;
		}
	return 0;
}

static enum pyspyd_knot_kind classify(const struct solver *s, const struct pyspyd_wait_knot *knot) {
	size_t actors = 0;

	if (s->waits->nodes[knot->nodes[0]].rule == PYSPYD_WAIT_NEVER)
		return PYSPYD_KNOT_ORPHAN;
	for (size_t i = 0; i < knot->nodes_n; i++)
		actors += is_actor(&s->waits->nodes[knot->nodes[i]]);
	return actors == 1 ? PYSPYD_KNOT_SELF : PYSPYD_KNOT_CYCLE;
}

/* The only other member of its knot that a node waits for; WAITS_NONE where there are several. */
static uint32_t only_next(const struct solver *s, uint32_t node) {
	uint32_t only = WAITS_NONE;

	for (uint32_t e = s->out.start[node]; e < s->out.start[node + 1]; e++) {
		uint32_t to = s->out.other[e];

		if (s->component[to] != s->component[node])
			continue;
		if (only != WAITS_NONE && only != to)
			return WAITS_NONE;
		only = to;
	}
	return only;
}

static uint32_t first_member(const struct solver *s, const struct pyspyd_wait_knot *knot) {
	for (size_t i = 0; i < knot->nodes_n; i++)
		if (s->waits->nodes[knot->nodes[i]].kind == PYSPYD_WAIT_THREAD)
			return knot->nodes[i];
	for (size_t i = 0; i < knot->nodes_n; i++)
		if (s->waits->nodes[knot->nodes[i]].kind == PYSPYD_WAIT_TASK)
			return knot->nodes[i];
	return knot->nodes[0];
}

/* Whether all that a thread or task does is to wait for others to end. */
static bool only_joins(const struct solver *s, uint32_t node) {
	for (uint32_t e = s->out.start[node]; e < s->out.start[node + 1]; e++) {
		const char *type = s->waits->nodes[s->out.other[e]].type;

		if (!type || (strcmp(type, "join") != 0 && strcmp(type, "process-end") != 0))
			return false;
	}
	return true;
}

static unsigned rank_of(const struct solver *s, uint32_t node) {
	if (!is_actor(&s->waits->nodes[node]))
		return 2;
	return only_joins(s, node);
}

/* Those that really are stuck, those that wait for their end, the rest. */
static void order_web(const struct solver *s, struct pyspyd_wait_knot *knot) {
	size_t n = 0;

	for (unsigned rank = 0; rank <= 2; rank++)
		for (size_t i = 0; i < knot->nodes_n; i++)
			if (rank_of(s, knot->nodes[i]) == rank)
				s->queue[n++] = knot->nodes[i];
	memcpy(knot->nodes, s->queue, n * sizeof(*knot->nodes));
}

/* Members along their cycle, where they are one. */
static void order_cycle(const struct solver *s, struct pyspyd_wait_knot *knot) {
	uint32_t node = first_member(s, knot);

	for (size_t i = 0; i < knot->nodes_n; i++)
		if (only_next(s, knot->nodes[i]) == WAITS_NONE) {
			order_web(s, knot);
			return;
		}
	for (size_t i = 0; i < knot->nodes_n; i++) {
		knot->nodes[i] = node;
		node = only_next(s, node);
	}
}

static int compare_indices(const void *a, const void *b) {
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Puts those that wait for an orphan directly behind it. */
static int list_waiters(struct solver *s, uint32_t number) {
	struct pyspyd_wait_knot *knot = &s->waits->knots[number];
	struct pyspyd_wait_node *nodes = s->waits->nodes;
	uint32_t resource = knot->nodes[0], degree = s->in.start[resource + 1] - s->in.start[resource];
	uint32_t *members = reallocarray(knot->nodes, degree + 1ULL, sizeof(*members));

	if (!members)
		return -ENOMEM;
	knot->nodes = members;
	s->mark[resource] = number + 1;
	for (uint32_t e = s->in.start[resource]; e < s->in.start[resource + 1]; e++) {
		uint32_t waiter = s->in.other[e];

		if (!nodes[waiter].stuck || !has_others(&nodes[waiter]) || s->mark[waiter] == number + 1)
			continue;
		s->mark[waiter] = number + 1;
		members[knot->nodes_n++] = waiter;
		if (nodes[waiter].knot == WAITS_NONE)
			nodes[waiter].knot = number;
	}
	qsort(members + 1, knot->nodes_n - 1, sizeof(*members), compare_indices);
	return 0;
}

/* 3b: what identifies a knot, whatever the order of nodes and edges. */

struct link {
	uint64_t pair; /* of the keys of its ends */
	bool inferred;
};

static int compare_links(const void *a, const void *b) {
	const struct link *x = a, *y = b;

	if (x->pair != y->pair)
		return x->pair < y->pair ? -1 : 1;
	return x->inferred - y->inferred;
}

static int compare_words(const void *a, const void *b) {
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t digest(uint64_t *words, size_t n, uint64_t seed) {
	qsort(words, n, sizeof(*words), compare_words);
	return hash_bytes(words, n * sizeof(*words), seed);
}

static uint64_t pair_of(uint64_t a, uint64_t b) {
	uint64_t both[] = { a, b };

	return hash_bytes(both, sizeof(both), 1);
}

static bool within(const struct solver *s, uint32_t from, uint32_t to) {
	return s->component[from] == s->component[to];
}

/* Edges between members, each pair once: as read where any of them is. */
static size_t list_links(const struct solver *s, const struct pyspyd_wait_knot *knot, struct link *links) {
	const struct pyspyd_waits *waits = s->waits;
	size_t n = 0, kept = 0;

	for (size_t i = 0; i < knot->nodes_n; i++) {
		uint32_t from = knot->nodes[i];

		for (uint32_t e = s->out.start[from]; e < s->out.start[from + 1]; e++)
			if (within(s, from, s->out.other[e]))
				links[n++] = (struct link){
					.pair = pair_of(waits->nodes[from].key, waits->nodes[s->out.other[e]].key),
					.inferred = waits->edges[s->out.edge[e]].inferred,
				};
	}
	if (n)
		qsort(links, n, sizeof(*links), compare_links);
	for (size_t i = 0; i < n; i++)
		if (!kept || links[kept - 1].pair != links[i].pair)
			links[kept++] = links[i];
	return kept;
}

static uint64_t stamp_of(const struct solver *s, const struct pyspyd_wait_knot *knot, uint64_t *words) {
	for (size_t i = 0; i < knot->nodes_n; i++) {
		const struct pyspyd_wait_node *node = &s->waits->nodes[knot->nodes[i]];

		/* One that wants the GIL wakes all the time and still waits. */
		words[i] = pair_of(node->key, node->gil_waiter ? 0 : node->stamp);
	}
	return digest(words, knot->nodes_n, 2);
}

static int identify_cycle(const struct solver *s, struct pyspyd_wait_knot *knot) {
	_free_ struct link *links = NULL;
	_free_ uint64_t *words = NULL;
	size_t edges = 0, n;

	for (size_t i = 0; i < knot->nodes_n; i++)
		edges += s->out.start[knot->nodes[i] + 1] - s->out.start[knot->nodes[i]];
	links = malloc((edges + 1) * sizeof(*links));
	words = malloc((knot->nodes_n + edges) * sizeof(*words));
	if (!links || !words)
		return -ENOMEM;
	knot->stamp = stamp_of(s, knot, words);
	n = list_links(s, knot, links);
	for (size_t i = 0; i < knot->nodes_n; i++)
		words[i] = s->waits->nodes[knot->nodes[i]].key;
	for (size_t i = 0; i < n; i++) {
		words[knot->nodes_n + i] = links[i].pair;
		knot->inferred |= links[i].inferred;
	}
	knot->key = digest(words, knot->nodes_n + n, (uint64_t)knot->kind);
	return 0;
}

/* Waiters come and go, the orphan stays the same; and one of them that is certain is enough. */
static int identify_orphan(const struct solver *s, struct pyspyd_wait_knot *knot) {
	_free_ uint64_t *words = malloc(knot->nodes_n * sizeof(*words));
	uint32_t resource = knot->nodes[0];

	if (!words)
		return -ENOMEM;
	knot->stamp = stamp_of(s, knot, words);
	knot->key = digest(&(uint64_t){ s->waits->nodes[resource].key }, 1, (uint64_t)knot->kind);
	knot->inferred = knot->nodes_n > 1;
	for (uint32_t e = s->in.start[resource]; e < s->in.start[resource + 1]; e++)
		if (s->waits->nodes[s->in.other[e]].stuck && !s->waits->edges[s->in.edge[e]].inferred)
			knot->inferred = false;
	return 0;
}

static int describe_knots(struct solver *s) {
	for (uint32_t k = 0; k < s->waits->knots_n; k++) {
		struct pyspyd_wait_knot *knot = &s->waits->knots[k];
		int r = 0;

		knot->kind = classify(s, knot);
		if (knot->kind != PYSPYD_KNOT_ORPHAN) {
			order_cycle(s, knot);
			r = identify_cycle(s, knot);
		} else {
			r = list_waiters(s, k);
			if (!r)
				r = identify_orphan(s, knot);
		}
		if (r)
			return r;
	}
	return 0;
}

/* 4: victims. */

/* Those that wait for a node directly and were not met on this walk. Return: the new length of the queue. */
static uint32_t add_waiters(struct solver *s, uint32_t node, uint32_t walk, uint32_t queued) {
	const struct pyspyd_wait_node *nodes = s->waits->nodes;

	for (uint32_t e = s->in.start[node]; e < s->in.start[node + 1]; e++) {
		uint32_t waiter = s->in.other[e];

		if (!nodes[waiter].stuck || !has_others(&nodes[waiter]) || s->mark[waiter] == walk ||
			s->visits[waiter] == WAITS_VICTIM_KNOTS)
			continue;
		s->mark[waiter] = walk;
		s->visits[waiter]++;
		s->queue[queued++] = waiter;
	}
	return queued;
}

/* Nearest first. */
static int list_victims(struct solver *s, uint32_t number) {
	struct pyspyd_wait_knot *knot = &s->waits->knots[number];
	uint32_t queued = 0, members, walk = number + 1;

	for (size_t i = 0; i < knot->nodes_n; i++) {
		uint32_t node = knot->nodes[i];

		s->mark[node] = walk;
		if (s->visits[node] == WAITS_VICTIM_KNOTS)
			continue;
		s->visits[node]++;
		s->queue[queued++] = node;
	}
	members = queued;
	for (uint32_t i = 0; i < queued; i++)
		queued = add_waiters(s, s->queue[i], walk, queued);
	knot->victims_n = queued - members;
	knot->victims = malloc((knot->victims_n + 1) * sizeof(*knot->victims));
	if (!knot->victims)
		return -ENOMEM;
	memcpy(knot->victims, s->queue + members, knot->victims_n * sizeof(*knot->victims));
	return 0;
}

static int list_all_victims(struct solver *s) {
	int r = 0;

	memset(s->mark, 0, s->n * sizeof(*s->mark));
	for (uint32_t k = 0; !r && k < s->waits->knots_n; k++)
		r = list_victims(s, k);
	return r;
}

static void forget(struct pyspyd_waits *waits) {
	for (size_t i = 0; i < waits->knots_n; i++) {
		free(waits->knots[i].nodes);
		free(waits->knots[i].victims);
	}
	free(waits->knots);
	waits->knots = NULL;
	waits->knots_n = 0;
	for (size_t i = 0; i < waits->nodes_n; i++) {
		waits->nodes[i].stuck = false;
		waits->nodes[i].knot = WAITS_NONE;
	}
}

int waits_solve(struct pyspyd_waits *waits) {
	static int (*const steps[])(struct solver *) = {
		spread_progress,
		find_components,
		number_knots,
		list_members,
		describe_knots,
		list_all_victims,
	};
	_cleanup_(solver_deinit) struct solver s = { 0 };
	int r;

	forget(waits);
	r = solver_init(&s, waits);
	for (size_t i = 0; !r && i < ARRAY_SIZE(steps); i++)
		r = steps[i](&s);
	if (r)
		forget(waits);
	return r;
}
