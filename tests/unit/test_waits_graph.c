/* SPDX-License-Identifier: MIT */
/* Wait graphs, written as words: "T1>A" is an edge, "T1?A" an inferred one. The first letter says what a node is: T
 * thread, K task, P process, else a resource. A word without an edge sets its rule: "T1&" all, "F!" free, "X#" never;
 * any is the default. */
#include "engine/waits/graph.h"

#include "engine/base/map.h"
#include "engine/base/strbuf.h"
#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static void free_waits(struct pyspyd_waits **waits) {
	pyspyd_waits_free(*waits);
}

#define _waits_ _cleanup_(free_waits)

static uint32_t find_or_add(struct pyspyd_waits *waits, const char *name, size_t n) {
	struct pyspyd_wait_node node = { .rule = PYSPYD_WAIT_ANY, .key = hash_bytes(name, n, 7), .run_ns = UINT64_MAX };
	uint32_t index;

	for (uint32_t i = 0; i < waits->nodes_n; i++)
		if (strlen(waits->nodes[i].label) == n && !memcmp(waits->nodes[i].label, name, n))
			return i;
	node.kind = *name == 'T' ? PYSPYD_WAIT_THREAD
		: *name == 'K'   ? PYSPYD_WAIT_TASK
		: *name == 'P'   ? PYSPYD_WAIT_PROCESS
				 : PYSPYD_WAIT_RESOURCE;
	node.stamp = node.kind == PYSPYD_WAIT_THREAD ? node.key + 1 : 0;
	node.label = strndup(name, n);
	cr_assert_eq(waits_add_node(waits, &node, &index), 0);
	return index;
}

static void add_word(struct pyspyd_waits *waits, const char *word, size_t n) {
	size_t name = strcspn(word, ">?&!# ");
	uint32_t node = find_or_add(waits, word, name);

	switch (word[name]) {
	case '>':
	case '?':
		cr_assert_eq(waits_add_edge(waits, node, find_or_add(waits, word + name + 1, n - name - 1), NULL,
				     word[name] == '?', NULL),
			0);
		break;
	case '&': waits->nodes[node].rule = PYSPYD_WAIT_ALL; break;
	case '!': waits->nodes[node].rule = PYSPYD_WAIT_FREE; break;
	case '#': waits->nodes[node].rule = PYSPYD_WAIT_NEVER; break;
	}
}

static struct pyspyd_waits *build(const char *words) {
	struct pyspyd_waits *waits = calloc(1, sizeof(*waits));

	for (size_t n; *words; words += n) {
		words += strspn(words, " ");
		n = strcspn(words, " ");
		if (n)
			add_word(waits, words, n);
	}
	return waits;
}

static struct pyspyd_waits *solved(const char *words) {
	struct pyspyd_waits *waits = build(words);

	cr_assert_eq(waits_solve(waits), 0);
	return waits;
}

static void add_names(struct strbuf *sb, const struct pyspyd_waits *waits, const uint32_t *nodes, size_t n) {
	for (size_t i = 0; i < n; i++) {
		strbuf_adds(sb, i ? " " : "");
		strbuf_adds(sb, waits->nodes[nodes[i]].label);
	}
}

/* "cycle(T1 A T2 B) for T3; self?(T4 C)": kind, "?" where inferred, members, victims. */
static char *told(const struct pyspyd_waits *waits) {
	static const char *const kinds[] = { "cycle", "self", "orphan" };
	struct strbuf sb = { 0 };

	for (size_t i = 0; i < waits->knots_n; i++) {
		const struct pyspyd_wait_knot *knot = &waits->knots[i];

		strbuf_addf(&sb, "%s%s%s(", i ? "; " : "", kinds[knot->kind], knot->inferred ? "?" : "");
		add_names(&sb, waits, knot->nodes, knot->nodes_n);
		strbuf_adds(&sb, ")");
		if (knot->victims_n) {
			strbuf_adds(&sb, " for ");
			add_names(&sb, waits, knot->victims, knot->victims_n);
		}
	}
	return strbuf_take(&sb);
}

static const struct {
	const char *words, *told;
} cases[] = {
	{ "", "" },
	{ "T1", "" },
	{ "T1!", "" },
	{ "T1>A A>T2 T2>B B>T1", "cycle(T1 A T2 B)" },
	{ "A>T2 B>T1 T1>A T2>B", "cycle(T2 B T1 A)" }, /* it begins with the first thread, not the first node */
	{ "A>K2 B>T1 T1>A K2>B", "cycle(T1 A K2 B)" },
	{ "T1>A A>T2 T2>B B>T1!", "" },
	{ "T1>A A>T1", "self(T1 A)" },
	{ "T1>T1", "self(T1)" },
	{ "K1>K1", "self(K1)" },
	{ "T1>A A>P1 P1>T1", "self(T1 A P1)" },
	{ "T1>A A>P1 P1>T1 P1>T2 T2!", "" },
	{ "P1>P2 P2>P1", "cycle(P1 P2)" },
	{ "T1>A A?T1", "self?(T1 A)" },
	{ "T1>A A?T1 A>T1", "self(T1 A)" }, /* somebody read it */
	{ "T1>A A>T2 T2>A A>T1 T3?A", "cycle(T1 T2 A) for T3" },
	/* an orphan: the resource, then those who wait for it */
	{ "T1>X X#", "orphan(X T1)" },
	{ "T2>X T1>X X# T3>A A>T1", "orphan(X T2 T1) for A T3" },
	{ "T1?X X# ", "orphan?(X T1)" },
	{ "T1?X X# T2>X", "orphan(X T1 T2)" },
	{ "T1>X T1>X X# X>T1", "orphan(X T1)" }, /* what it once waited for is of no interest */
	{ "X#", "" },
	{ "X# F!>X", "" },
	{ "T1#", "orphan(T1)" },
	{ "T1>X X# T1>F F!", "" },
	{ "T1& T1>X X# T1>F F!", "orphan(X T1)" },
	{ "T1& T1>X X# T1>Y Y#", "orphan(X T1); orphan(Y T1)" },
	{ "X# Y# X>Y T1>X", "orphan(X T1)" },
	/* any of several */
	{ "T1>A A>T2 A>T3 T2>T1 T3!", "" },
	{ "T1>A A>T2 A>T3 T2>T1 T3>B B>T1", "cycle(T1 T2 T3 A B)" },
	{ "T1>A A>T1 A>X X#", "orphan(X A) for T1" },
	/* all of several */
	{ "K1& K1>K2 K1>K3 K2>K1 K3!", "cycle(K1 K2)" },
	{ "K1& K1>K2 K1>K3 K2! K3!", "" },
	{ "K1& K1>K2 K1>K2 K2!", "" },
	{ "K1& K1>K1 K1>K2 K2!", "self(K1)" },
	{ "K1&", "" },
	/* several knots, and what is behind them */
	{ "T1>A A>T1 T2>B B>T2", "self(T1 A); self(T2 B)" },
	{ "T1>A A>T2 T2& T2>T1 T2>B B>T3 T3>B", "self(T3 B) for T2 A T1" },
	{ "T1& T1>A T1>B A>T2 T2>A B>T3 T3>B", "self(T2 A) for T1; self(T3 B) for T1" },
	{ "T1>A T1>A A>T2 T2>B T2>B B>T1 B>T1", "cycle(T1 A T2 B)" },
};

Test(waits_graph, table) {
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_waits_ struct pyspyd_waits *waits = solved(cases[i].words);
		_free_ char *text = told(waits);

		cr_expect_str_eq(text, cases[i].told, "%s\n  is   %s\n  want %s", cases[i].words, text, cases[i].told);
	}
}

Test(waits_graph, knot_of_each_node) {
	_waits_ struct pyspyd_waits *waits = solved("T9! T1>A A>T1 T2>X X# T3>T2");
	static const uint32_t knots[] = { WAITS_NONE, 0, 0, 1, 1, WAITS_NONE };

	cr_assert_eq(waits->nodes_n, ARRAY_SIZE(knots));
	for (size_t i = 0; i < waits->nodes_n; i++) {
		cr_expect_eq(waits->nodes[i].knot, knots[i], "%s", waits->nodes[i].label);
		cr_expect_eq(waits->nodes[i].stuck, i != 0, "%s", waits->nodes[i].label);
	}
}

Test(waits_graph, solving_again_starts_anew) {
	_waits_ struct pyspyd_waits *waits = solved("T1>A A>T2 T2>B B>T1");

	waits->nodes[find_or_add(waits, "T2", 2)].rule = PYSPYD_WAIT_FREE;
	cr_assert_eq(waits_solve(waits), 0);
	cr_expect_eq(waits->knots_n, 0);
	for (size_t i = 0; i < waits->nodes_n; i++)
		cr_expect(!waits->nodes[i].stuck && waits->nodes[i].knot == WAITS_NONE);
}

/* Identity. */

static uint64_t key_of(const char *words) {
	_waits_ struct pyspyd_waits *waits = solved(words);

	cr_assert_eq(waits->knots_n, 1, "%s", words);
	return waits->knots[0].key;
}

static uint64_t stamp_of(const char *words) {
	_waits_ struct pyspyd_waits *waits = solved(words);

	return waits->knots[0].stamp;
}

Test(waits_graph, order_does_not_change_identity) {
	static const char plain[] = "T1>A A>T2 T2>B B>T1";
	static const char *const same[] = {
		"B>T1 T2>B A>T2 T1>A",
		"T2 B A T1 A>T2 T1>A B>T1 T2>B",
		"T1>A A>T2 T2>B B>T1 T3>A F! T4>F",
		"T1>A T1>A A>T2 A?T2 T2>B B>T1",
	};

	for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
		cr_expect_eq(key_of(plain), key_of(same[i]), "%s", same[i]);
		cr_expect_eq(stamp_of(plain), stamp_of(same[i]), "%s", same[i]);
	}
}

Test(waits_graph, other_knots_have_other_identities) {
	static const char *const words[] = {
		"T1>A A>T2 T2>B B>T1",
		"T1>B B>T2 T2>A A>T1",
		"T1>A A>T2 T2>B B>T1 T2>A",
		"T1>A A>T3 T3>B B>T1",
		"T1>A A>T1",
		"T2>A A>T2",
		"T1>A A#",
		"T1>B B#",
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		for (size_t j = 0; j < i; j++)
			cr_expect_neq(key_of(words[i]), key_of(words[j]), "%s and %s", words[i], words[j]);
	cr_expect_eq(key_of("T1>A A#"), key_of("T2>A T1>A A#"), "waiters come and go");
}

/* Confirming. */

static struct pyspyd_wait_node *node_of(struct pyspyd_waits *waits, const char *name) {
	return &waits->nodes[find_or_add(waits, name, strlen(name))];
}

Test(waits_graph, confirm) {
	_waits_ struct pyspyd_waits *before = solved("T1>A A>T2 T2>B B>T1 T3>C C>T3 T4!");
	_waits_ struct pyspyd_waits *now = solved("T4! T3>C C>T3 B>T1 T2>B A>T2 T1>A T5>E E>T5");

	before->look_ns = 1000;
	now->look_ns = 1200;
	node_of(before, "T1")->waited_ns = 50;
	node_of(now, "T4")->stamp++;
	waits_confirm(before, now);
	cr_assert_eq(now->knots_n, 3);
	cr_expect(now->knots[0].confirmed);
	cr_expect(now->knots[1].confirmed);
	cr_expect(!now->knots[2].confirmed, "T5 was not there");
	cr_expect_eq(node_of(now, "T1")->waited_ns, 250);
	cr_expect_eq(node_of(now, "T2")->waited_ns, 200);
	cr_expect_eq(node_of(now, "T4")->waited_ns, 0, "it ran");
	cr_expect_eq(node_of(now, "T5")->waited_ns, 0);
	waits_confirm(NULL, now);
	cr_expect(!now->knots[0].confirmed);
	cr_expect_eq(node_of(now, "T1")->waited_ns, 250);
}

Test(waits_graph, a_member_that_ran_confirms_nothing) {
	_waits_ struct pyspyd_waits *before = solved("T1>A A>T2 T2>B B>T1");
	_waits_ struct pyspyd_waits *now = build("T1>A A>T2 T2>B B>T1");

	node_of(now, "T2")->stamp++;
	cr_assert_eq(waits_solve(now), 0);
	waits_confirm(before, now);
	cr_expect_eq(now->knots[0].key, before->knots[0].key);
	cr_expect(!now->knots[0].confirmed);
}

Test(waits_graph, one_that_wants_the_gil_runs_and_still_waits) {
	_waits_ struct pyspyd_waits *before = build("T1>A A>T2 T2>G G>T1");
	_waits_ struct pyspyd_waits *now = build("T1>A A>T2 T2>G G>T1");

	node_of(before, "T2")->gil_waiter = node_of(now, "T2")->gil_waiter = true;
	node_of(now, "T2")->stamp++;
	now->look_ns = 7;
	cr_assert_eq(waits_solve(before), 0);
	cr_assert_eq(waits_solve(now), 0);
	waits_confirm(before, now);
	cr_expect(now->knots[0].confirmed);
	cr_expect_eq(node_of(now, "T2")->waited_ns, 7);
}

Test(waits_graph, an_orphan_stands_while_one_waiter_does) {
	_waits_ struct pyspyd_waits *before = solved("X# T1>X T2>X");
	_waits_ struct pyspyd_waits *now = solved("X# T2>X T3>X");
	_waits_ struct pyspyd_waits *others = solved("X# T3>X");

	waits_confirm(before, now);
	cr_expect(now->knots[0].confirmed);
	waits_confirm(before, others);
	cr_expect(!others->knots[0].confirmed);
}

/* Life. */

static char *living(const struct pyspyd_waits *before, const struct pyspyd_waits *now) {
	struct strbuf sb = { 0 };
	_free_ bool *alive = NULL;

	cr_assert_eq(waits_alive(before, now, &alive), 0);
	for (size_t i = 0; i < now->nodes_n; i++)
		if (alive[i])
			strbuf_addf(&sb, "%s%s", sb.len ? " " : "", now->nodes[i].label);
	return strbuf_take(&sb);
}

#define EXPECT_LIVING(before, now, names) \
	do { \
		_free_ char *text = living(before, now); \
		cr_expect_str_eq(text, names); \
	} while (0)

Test(waits_graph, alive) {
	_waits_ struct pyspyd_waits *before = build("T1>A A>T2 T2>S S! T3>B B>T4 T4! T5>T5");
	_waits_ struct pyspyd_waits *now = build("T1>A A>T2 T2>S S! T3>B B>T4 T4! T5>T5");

	EXPECT_LIVING(NULL, now, "");
	node_of(now, "T2")->timed = true;
	EXPECT_LIVING(NULL, now, "T1 A T2");
	node_of(now, "T2")->timed = false;
	node_of(now, "T2")->idle = "queue worker";
	EXPECT_LIVING(before, now, "T1 A T2");
	node_of(now, "T2")->idle = NULL;
	node_of(now, "T4")->state = 'R';
	EXPECT_LIVING(before, now, "T3 B T4");
	node_of(now, "T4")->state = 'S';
	node_of(now, "T4")->run_ns = 5;
	EXPECT_LIVING(before, now, "");
	node_of(before, "T4")->run_ns = 5;
	EXPECT_LIVING(before, now, "");
	node_of(before, "T4")->run_ns = 4;
	EXPECT_LIVING(before, now, "T3 B T4");
	node_of(now, "T4")->gil_waiter = true;
	EXPECT_LIVING(before, now, "");
}

/* Size. */

static void add_plain(
	struct pyspyd_waits *waits, enum pyspyd_wait_kind kind, enum pyspyd_wait_rule rule, uint64_t key) {
	struct pyspyd_wait_node node = { .kind = kind, .rule = rule, .key = key, .run_ns = UINT64_MAX };
	uint32_t index;

	cr_assert_eq(waits_add_node(waits, &node, &index), 0);
}

static void add_threads(struct pyspyd_waits *waits, uint32_t n) {
	for (uint32_t i = 0; i < n; i++)
		add_plain(waits, PYSPYD_WAIT_THREAD, PYSPYD_WAIT_ANY, i + 1);
}

static void add_plain_edge(struct pyspyd_waits *waits, uint32_t from, uint32_t to) {
	cr_assert_eq(waits_add_edge(waits, from, to, NULL, false, NULL), 0);
}

Test(waits_graph, long_chain) {
	_waits_ struct pyspyd_waits *waits = calloc(1, sizeof(*waits));
	const uint32_t n = 10000;

	add_threads(waits, n);
	for (uint32_t i = 0; i + 1 < n; i++)
		add_plain_edge(waits, i, i + 1);
	cr_assert_eq(waits_solve(waits), 0);
	cr_expect_eq(waits->knots_n, 0);
	add_plain_edge(waits, n - 1, n / 2);
	cr_assert_eq(waits_solve(waits), 0);
	cr_assert_eq(waits->knots_n, 1);
	cr_assert_eq(waits->knots[0].nodes_n, n / 2);
	for (uint32_t i = 0; i < n / 2; i++)
		cr_assert_eq(waits->knots[0].nodes[i], n / 2 + i);
	cr_assert_eq(waits->knots[0].victims_n, n / 2);
	for (uint32_t i = 0; i < n / 2; i++)
		cr_assert_eq(waits->knots[0].victims[i], n / 2 - 1 - i);
}

/* A chain as long as a graph may be needs no stack. */
Test(waits_graph, longest_chain) {
	_waits_ struct pyspyd_waits *waits = calloc(1, sizeof(*waits));
	struct pyspyd_wait_node node = { .label = strdup("one too many") };
	uint32_t index;

	add_threads(waits, WAITS_NODES_MAX);
	cr_expect_eq(waits_add_node(waits, &node, &index), -E2BIG);
	for (uint32_t i = 0; i < WAITS_NODES_MAX; i++)
		add_plain_edge(waits, i, (i + 1) % WAITS_NODES_MAX);
	cr_expect_eq(waits_add_edge(waits, 0, WAITS_NODES_MAX, NULL, false, NULL), -EINVAL);
	cr_assert_eq(waits_solve(waits), 0);
	cr_assert_eq(waits->knots_n, 1);
	cr_expect_eq(waits->knots[0].nodes_n, WAITS_NODES_MAX);
}

Test(waits_graph, many_victims) {
	_waits_ struct pyspyd_waits *waits = build("T1>A A>T2 T2>B B>T1");

	add_threads(waits, 10000);
	for (uint32_t i = 4; i < 10004; i++)
		add_plain_edge(waits, i, 1);
	cr_assert_eq(waits_solve(waits), 0);
	cr_expect_eq(waits->knots_n, 1);
	cr_expect_eq(waits->knots[0].nodes_n, 4);
	cr_expect_eq(waits->knots[0].victims_n, 10000);
}

/* Each of 1000 waits for each of 1000 orphans: no list of a million victims behind them. */
Test(waits_graph, many_knots_with_the_same_victims) {
	_waits_ struct pyspyd_waits *waits = calloc(1, sizeof(*waits));
	const uint32_t n = 1000;
	size_t victims = 0;

	for (uint32_t i = 0; i < n; i++)
		add_plain(waits, PYSPYD_WAIT_RESOURCE, PYSPYD_WAIT_NEVER, i + 1);
	for (uint32_t i = 0; i < n; i++)
		add_plain(waits, PYSPYD_WAIT_THREAD, PYSPYD_WAIT_ALL, n + i + 1);
	add_threads(waits, n);
	for (uint32_t i = 0; i < n * n; i++)
		add_plain_edge(waits, n + i / n, i % n);
	for (uint32_t i = 0; i < n; i++)
		add_plain_edge(waits, 2 * n + i, n + i);
	cr_assert_eq(waits_solve(waits), 0);
	cr_assert_eq(waits->knots_n, n);
	for (uint32_t i = 0; i < n; i++) {
		cr_expect_eq(waits->knots[i].nodes_n, n + 1);
		victims += waits->knots[i].victims_n;
	}
	cr_expect(victims >= n && victims <= (size_t)n * WAITS_VICTIM_KNOTS, "%zu", victims);
}

/* Random graphs against definitions applied literally. */

static uint64_t next_random(uint64_t *state) {
	return hash_mix(*state += 0x9e3779b97f4a7c15ULL);
}

static struct pyspyd_waits *random_graph(uint64_t seed, uint32_t n, uint32_t edges, uint32_t free_in) {
	static const enum pyspyd_wait_kind kinds[] = { PYSPYD_WAIT_THREAD, PYSPYD_WAIT_RESOURCE, PYSPYD_WAIT_RESOURCE,
		PYSPYD_WAIT_PROCESS };
	struct pyspyd_waits *waits = calloc(1, sizeof(*waits));
	uint64_t state = seed;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t die = next_random(&state) % free_in;
		enum pyspyd_wait_rule rule = die == 0 ? PYSPYD_WAIT_FREE
			: die == 1                    ? PYSPYD_WAIT_NEVER
			: die % 3                     ? PYSPYD_WAIT_ANY
						      : PYSPYD_WAIT_ALL;

		add_plain(waits, kinds[next_random(&state) % ARRAY_SIZE(kinds)], rule, i + 1);
	}
	for (uint32_t i = 0; i < edges; i++)
		add_plain_edge(waits, next_random(&state) % n, next_random(&state) % n);
	return waits;
}

/* One sweep over all edges. Return: whether anything changed. */
static bool sweep(const struct pyspyd_waits *waits, bool *goes) {
	_free_ uint32_t *all = calloc(waits->nodes_n, sizeof(*all));
	_free_ uint32_t *going = calloc(waits->nodes_n, sizeof(*going));
	bool changed = false;

	for (size_t e = 0; e < waits->edges_n; e++) {
		all[waits->edges[e].from]++;
		going[waits->edges[e].from] += goes[waits->edges[e].to];
	}
	for (size_t i = 0; i < waits->nodes_n; i++) {
		enum pyspyd_wait_rule rule = waits->nodes[i].rule;
		bool go = rule == PYSPYD_WAIT_FREE || (rule == PYSPYD_WAIT_ANY && (!all[i] || going[i])) ||
			(rule == PYSPYD_WAIT_ALL && going[i] == all[i]);

		changed |= go != goes[i];
		goes[i] = go;
	}
	return changed;
}

static void expect_stuck(const struct pyspyd_waits *waits) {
	_free_ bool *goes = calloc(waits->nodes_n, sizeof(*goes));

	while (sweep(waits, goes))
		;
	for (size_t i = 0; i < waits->nodes_n; i++)
		cr_assert_eq(waits->nodes[i].stuck, !goes[i], "node %zu", i);
}

Test(waits_graph, random_large) {
	for (uint64_t seed = 1; seed <= 12; seed++) {
		_waits_ struct pyspyd_waits *waits =
			random_graph(seed, 10000, 5000 * (uint32_t)(1 + seed % 5), seed % 2 ? 40 : 400);

		cr_assert_eq(waits_solve(waits), 0);
		expect_stuck(waits);
	}
}

#define SMALL 40

/* reach[i][j]: j is stuck and there is a way of at least one edge from i to it, over stuck nodes that wait. */
static void find_reach(const struct pyspyd_waits *waits, bool reach[SMALL][SMALL]) {
	const struct pyspyd_wait_node *nodes = waits->nodes;

	for (size_t e = 0; e < waits->edges_n; e++) {
		const struct pyspyd_wait_edge *edge = &waits->edges[e];

		if (nodes[edge->from].stuck && nodes[edge->to].stuck && nodes[edge->from].rule != PYSPYD_WAIT_NEVER)
			reach[edge->from][edge->to] = true;
	}
	for (size_t k = 0; k < SMALL; k++)
		for (size_t i = 0; i < SMALL; i++)
			for (size_t j = 0; j < SMALL; j++)
				reach[i][j] |= reach[i][k] && reach[k][j];
}

/* A member of a knot reaches nothing that does not reach it. */
static bool in_knot(bool reach[SMALL][SMALL], size_t i) {
	for (size_t j = 0; j < SMALL; j++)
		if (reach[i][j] && !reach[j][i])
			return false;
	return true;
}

static bool listed(const uint32_t *nodes, size_t n, uint32_t node) {
	for (size_t i = 0; i < n; i++)
		if (nodes[i] == node)
			return true;
	return false;
}

static void expect_cycle(const struct pyspyd_waits *waits, bool reach[SMALL][SMALL], uint32_t number) {
	const struct pyspyd_wait_knot *knot = &waits->knots[number];
	uint32_t one = knot->nodes[0];

	for (uint32_t i = 0; i < SMALL; i++) {
		bool member = i == one || (reach[one][i] && reach[i][one]);

		cr_assert_eq(listed(knot->nodes, knot->nodes_n, i), member);
		cr_assert_eq(waits->nodes[i].knot == number, member);
		cr_assert_eq(listed(knot->victims, knot->victims_n, i), reach[i][one] && !reach[one][i]);
	}
}

Test(waits_graph, random_small) {
	size_t cycles = 0, orphans = 0;

	for (uint64_t seed = 1; seed <= 400; seed++) {
		_waits_ struct pyspyd_waits *waits = random_graph(seed, SMALL, 30 + seed % 50, seed % 3 ? 10 : 60);
		bool reach[SMALL][SMALL] = { 0 };

		cr_assert_eq(waits_solve(waits), 0);
		expect_stuck(waits);
		find_reach(waits, reach);
		for (uint32_t k = 0; k < waits->knots_n; k++) {
			bool orphan = waits->knots[k].kind == PYSPYD_KNOT_ORPHAN;

			cr_assert_eq(orphan, waits->nodes[waits->knots[k].nodes[0]].rule == PYSPYD_WAIT_NEVER);
			cycles += !orphan;
			orphans += orphan;
			if (!orphan)
				expect_cycle(waits, reach, k);
		}
		for (uint32_t i = 0; i < SMALL; i++)
			if (waits->nodes[i].stuck && waits->nodes[i].rule != PYSPYD_WAIT_NEVER && in_knot(reach, i))
				cr_assert_neq(waits->nodes[i].knot, WAITS_NONE);
	}
	cr_expect(cycles > 20 && orphans > 20, "%zu cycles, %zu orphans: too few to mean anything", cycles, orphans);
}

Test(waits_graph, notes_are_told_once) {
	_waits_ struct pyspyd_waits *waits = calloc(1, sizeof(*waits));

	cr_expect_eq(waits_add_note(waits, "process %d could not be read", 7), 0);
	cr_expect_eq(waits_add_note(waits, "process %d could not be read", 8), 0);
	cr_expect_eq(waits_add_note(waits, "process %d could not be read", 7), 0);
	cr_expect_eq(waits->notes_n, 2);
	for (int i = 0; i < 10000; i++)
		cr_assert_eq(waits_add_note(waits, "note %d", i), 0);
	cr_expect(waits->notes_n < 1000 && waits->incomplete);
}
