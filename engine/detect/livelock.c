/* SPDX-License-Identifier: MIT */
/* livelock: threads are awake and get nothing done, since each keeps asking for what another one holds.
 *
 * A row of looks at a thread: it waits where programs try again (a timed acquire), it ran since the last look, and it
 * is still inside of the function in which the row began. In between it may be met elsewhere: it sleeps before it tries
 * again, meets the others at a barrier, wants to run; a row ends only where such looks become the rule. Workers that
 * poll look just so; what they never do is to wait in a circle. So a look counts as contended for a thread where it
 * waits for something that another thread of the kind has, who in the same look waits for something else that a third
 * one, or the first, has. With two such threads, over time, it is a fault.
 *
 * Who is seen to have what it waited for in a circle gets on, and all rows of its kind begin anew: philosophers who eat
 * at last. That is seen only by chance, where the meals are short: those who were seen once must then go without for
 * longer.
 *
 * That nothing gets done is concluded, not read: the finding is inferred. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/map.h"
#include "engine/base/util.h"
#include "engine/detect/episodes.h"
#include "engine/detect/words.h"
#include "engine/waits/adjacency.h"
#include <string.h>

#define RESOLVE_NS (5 * NS_PER_SEC)
#define EDGES_MAX 64
#define NO_RUNNER UINT32_MAX
#define ROW_LOOKS 16    /* the last ones, by which it is told whether a row goes on */
#define ROW_SLACK 4     /* a young row is not ended by the first looks elsewhere */
#define TRYING_PCT 60   /* of the looks, in which it tries or sleeps before it does: then it does nothing else */
#define PATIENCE_MAX 4  /* times as many looks are asked for */
#define WANTED_MAX 8    /* that one thread waited for in circles */
#define PRUNE_ROUNDS 64 /* chains into a circle may be longer; then they count as one */
#define SHOWN_THREADS 3 /* in the summary */

enum { AFTER, LOOKS, CONTENDED };

static const struct detect_setting settings_table[] = {
	[AFTER] = { "after", DETECT_DURATION, 10e9, 0, 86400e9, "how long they only try again, up to 24h" },
	[LOOKS] = { "looks", DETECT_NUMBERS, 12, 2, 1e6,
		"… in how many looks each waits for another one at least, 2 to 1000000" },
	[CONTENDED] = { "contended-pct", DETECT_PERCENT, 20, 1, 100, "… in what percent of them, 1 to 100" },
	{ 0 },
};

static const struct episode_words words = { "livelock", "Livelock" };

/* Of the last 64 looks, the latest one in the lowest bit. */
struct history {
	uint64_t tries;     /* it waited with a time-out for what somebody may hold */
	uint64_t pauses;    /* it slept, and for nothing but a time */
	uint64_t contended; /* it waited in a circle */
	uint32_t looks;     /* 64 at most */
};

/* A thread that tries again. */
struct runner {
	uint64_t thread; /* the node's key */
	uint64_t place;  /* of the function in which the row began */
	uint64_t run_ns, stamp;
	uint64_t since_ns;
	uint32_t contended; /* looks of the whole row in which it waited in a circle */
	uint32_t patience;  /* how many times as many looks it takes; 1 until it was seen to get on */
	struct history history;
	uint64_t wanted[WANTED_MAX]; /* keys of resources: the last ones that it waited for in a circle; 0: none */
	uint32_t wanted_next;
	uint32_t node;    /* of this look */
	uint32_t awaited; /* in the circle: the resource; UINT32_MAX: not contended */
	bool seen;
};

struct state {
	struct episodes episodes;
	VEC(struct runner) runners;
	struct map by_thread; /* → index in runners */
};

static void state_deinit(void *arg) {
	struct state *state = arg;

	episodes_deinit(&state->episodes);
	vec_free(&state->runners);
	map_deinit(&state->by_thread);
}

/* Rows. */

static uint64_t place_of(const struct pyspyd_frame *frame) {
	const char *function = frame->qualname ? frame->qualname : frame->function ? frame->function : "";
	const char *file = frame->file ? frame->file : "";

	return hash_bytes(function, strlen(function), hash_bytes(file, strlen(file), 1));
}

static bool is_inside(const struct pyspyd_wait_node *node, uint64_t place) {
	for (size_t i = 0; i < node->frames_n; i++)
		if (place_of(&node->frames[i]) == place)
			return true;
	return false;
}

static bool has_run(const struct runner *runner, const struct pyspyd_wait_node *node) {
	return runner->run_ns != node->run_ns || runner->stamp != node->stamp;
}

/* Whether a row may begin. A map has no place for the last key. */
static bool may_begin(const struct pyspyd_wait_node *node) {
	return node->retry && detect_node_frame(node) && node->key != UINT64_MAX;
}

static struct runner begin(const struct pyspyd_wait_node *node, uint64_t now_ns) {
	return (struct runner){ .thread = node->key,
		.place = place_of(detect_node_frame(node)),
		.since_ns = now_ns,
		.patience = 1,
		.history = { .tries = 1, .looks = 1 } };
}

static uint64_t last_looks(uint32_t n) {
	return n < 64 ? (1ULL << n) - 1 : UINT64_MAX;
}

static uint32_t count_looks(uint64_t looks) {
	return (uint32_t)__builtin_popcountll(looks);
}

static void add_look(struct history *history, bool tries, bool pauses) {
	history->tries = history->tries << 1 | tries;
	history->pauses = history->pauses << 1 | pauses;
	history->contended <<= 1;
	history->looks = min_of(history->looks + 1, 64U);
}

/* Whether the thread was elsewhere in no more than about half of the last looks. */
static bool keeps_trying(const struct history *history) {
	uint32_t n = min_of(history->looks, (uint32_t)ROW_LOOKS);
	uint32_t elsewhere = n - count_looks((history->tries | history->pauses) & last_looks(n));

	return 2 * elsewhere <= n + ROW_SLACK && history->tries & last_looks(n);
}

/* The thread's look goes into its row, or begins a new one. Return: whether there is one. */
static bool goes_on(struct runner *runner, const struct pyspyd_wait_node *node, bool for_nothing, uint64_t now_ns) {
	uint32_t patience;
	bool there = has_run(runner, node) && is_inside(node, runner->place);

	add_look(&runner->history, there && node->retry, there && !node->retry && node->timed && for_nothing);
	if (keeps_trying(&runner->history))
		return true;
	if (!may_begin(node))
		return false;
	patience = runner->patience;
	*runner = begin(node, now_ns);
	runner->patience = patience;
	return true;
}

static int look_at(struct state *state, const struct pyspyd_waits *waits, const struct adjacency *out, uint32_t index,
	uint64_t now_ns) {
	const struct pyspyd_wait_node *node = &waits->nodes[index];
	bool for_nothing = out->start[index] == out->start[index + 1];
	struct runner *runner;
	uint64_t at;
	bool known = map_get(&state->by_thread, node->key, &at);

	if (!known && !may_begin(node))
		return 0;
	if (!known) {
		int r = vec_push(&state->runners, begin(node, now_ns));

		if (r)
			return r;
		at = state->runners.n - 1;
	}
	runner = &state->runners.items[at];
	if (known && !goes_on(runner, node, for_nothing, now_ns))
		return 0;
	runner->seen = true;
	runner->node = index;
	runner->run_ns = node->run_ns;
	runner->stamp = node->stamp;
	return 0;
}

static int index_runners(struct state *state) {
	int r = 0;

	map_clear(&state->by_thread);
	for (size_t i = 0; !r && i < state->runners.n; i++) {
		state->runners.items[i].seen = false;
		r = map_put(&state->by_thread, state->runners.items[i].thread, i);
	}
	return r;
}

static int compare_runners(const void *a, const void *b) {
	const struct runner *x = a, *y = b;

	return x->node < y->node ? -1 : x->node > y->node;
}

/* Runners come out in the order of the graph, so that what is said of them is the same in every look. */
static int look_at_all(struct state *state, const struct detect_input *input, const struct adjacency *out) {
	int r = index_runners(state);

	for (uint32_t i = 0; !r && i < input->waits->nodes_n; i++)
		if (detect_is_own_thread(input, &input->waits->nodes[i]))
			r = look_at(state, input->waits, out, i, input->now_ns);
	for (size_t i = state->runners.n; i > 0; i--)
		if (!state->runners.items[i - 1].seen)
			state->runners.items[i - 1] = state->runners.items[--state->runners.n];
	if (state->runners.n)
		qsort(state->runners.items, state->runners.n, sizeof(struct runner), compare_runners);
	return r;
}

/* Circles. */

struct circles {
	const struct pyspyd_waits *waits;
	struct state *state;
	const struct adjacency *out;
	uint32_t *runner_of; /* of a node */
};

/* The end of a node's edges, of which only some are looked at: a program may make a great many. */
static uint32_t edges_end(const struct circles *c, uint32_t node) {
	return min_of(c->out->start[node + 1], c->out->start[node] + EDGES_MAX);
}

static bool is_in_circle(const struct circles *c, const struct runner *runner, uint32_t resource, uint32_t other) {
	const struct runner *holder =
		c->runner_of[other] == NO_RUNNER ? NULL : &c->state->runners.items[c->runner_of[other]];

	return holder && holder != runner && holder->awaited != UINT32_MAX && holder->awaited != resource;
}

/* Something that the runner waits for, and somebody in the circle has who waits for something else. Return: the
 * resource; UINT32_MAX: none. */
static uint32_t find_awaited(const struct circles *c, const struct runner *runner) {
	for (uint32_t e = c->out->start[runner->node]; e < edges_end(c, runner->node); e++) {
		uint32_t resource = c->out->other[e];

		for (uint32_t h = c->out->start[resource]; h < edges_end(c, resource); h++)
			if (is_in_circle(c, runner, resource, c->out->other[h]))
				return resource;
	}
	return UINT32_MAX;
}

/* Takes away who waits for nobody that waits in turn, until only circles and what leads into them are left. */
static void prune(const struct circles *c) {
	bool changed = true;

	for (int round = 0; changed && round < PRUNE_ROUNDS; round++) {
		changed = false;
		vec_foreach (runner, &c->state->runners) {
			uint32_t awaited = runner->awaited == UINT32_MAX ? UINT32_MAX : find_awaited(c, runner);

			changed |= awaited != runner->awaited;
			runner->awaited = awaited;
		}
	}
}

static void begin_circles(const struct circles *c) {
	memset(c->runner_of, 0xff, c->waits->nodes_n * sizeof(*c->runner_of));
	for (uint32_t i = 0; i < c->state->runners.n; i++) {
		struct runner *runner = &c->state->runners.items[i];
		uint32_t first = c->out->start[runner->node];
		bool waits = c->waits->nodes[runner->node].retry && first < c->out->start[runner->node + 1];

		c->runner_of[runner->node] = i;
		runner->awaited = waits ? c->out->other[first] : UINT32_MAX;
	}
}

static bool has_wanted(const struct runner *runner, uint64_t key) {
	for (size_t i = 0; i < WANTED_MAX; i++)
		if (key && runner->wanted[i] == key)
			return true;
	return false;
}

static void note_wanted(struct runner *runner, uint64_t key) {
	runner->history.contended |= 1;
	runner->contended++;
	if (!has_wanted(runner, key))
		runner->wanted[runner->wanted_next++ % WANTED_MAX] = key;
}

static void restart(struct runner *runner, uint64_t now_ns) {
	runner->history = (struct history){ .pauses = 1, .looks = 1 };
	runner->contended = 0;
	runner->patience = min_of(2 * runner->patience, (uint32_t)PATIENCE_MAX);
	memset(runner->wanted, 0, sizeof(runner->wanted));
	runner->since_ns = now_ns;
}

/* One of them has got what it wanted: its row begins anew, and those of all who do the same, or want the same. */
static void note_progress(struct state *state, const struct runner *one, uint64_t key, uint64_t now_ns) {
	uint64_t place = one->place;

	vec_foreach (runner, &state->runners)
		if (runner->place == place || has_wanted(runner, key))
			restart(runner, now_ns);
}

static void find_progress(const struct circles *c, uint64_t now_ns) {
	for (size_t e = 0; e < c->waits->edges_n; e++) {
		const struct pyspyd_wait_edge *edge = &c->waits->edges[e];
		const struct pyspyd_wait_node *from = &c->waits->nodes[edge->from];
		uint32_t runner = c->runner_of[edge->to];

		if (runner != NO_RUNNER && from->kind == PYSPYD_WAIT_RESOURCE &&
			has_wanted(&c->state->runners.items[runner], from->key))
			note_progress(c->state, &c->state->runners.items[runner], from->key, now_ns);
	}
}

static int find_circles(
	struct state *state, const struct pyspyd_waits *waits, const struct adjacency *out, uint64_t now_ns) {
	_free_ uint32_t *runner_of = malloc((waits->nodes_n + 1) * sizeof(*runner_of));
	struct circles c = { .waits = waits, .state = state, .out = out, .runner_of = runner_of };

	if (!runner_of)
		return -ENOMEM;
	begin_circles(&c);
	find_progress(&c, now_ns);
	prune(&c);
	vec_foreach (runner, &state->runners)
		if (runner->awaited != UINT32_MAX)
			note_wanted(runner, waits->nodes[runner->awaited].key);
	return 0;
}

static int look_at_graph(struct state *state, const struct detect_input *input) {
	struct adjacency out;
	int r = adjacency_init(&out, input->waits, false);

	if (r)
		return r;
	r = look_at_all(state, input, &out);
	if (!r && state->runners.n > 1)
		r = find_circles(state, input->waits, &out, input->now_ns);
	adjacency_deinit(&out);
	return r;
}

/* The decision. */

static bool is_stuck(const struct runner *runner, const double *settings, uint64_t now_ns) {
	const struct history *history = &runner->history;

	return (double)(now_ns - runner->since_ns) >= settings[AFTER] &&
		runner->contended >= settings[LOOKS] * runner->patience &&
		100 * count_looks(history->tries | history->pauses) >= TRYING_PCT * history->looks &&
		100.0 * count_looks(history->contended) >= settings[CONTENDED] * history->looks;
}

static int write_summary(struct detect_verdict *verdict, const struct detect_input *input, uint64_t threads) {
	size_t shown = min_of(verdict->parties_n, (size_t)SHOWN_THREADS);
	struct strbuf sb = { 0 };
	char duration[32];

	detect_duration_text(input->now_ns - verdict->since_ns, duration, sizeof(duration));
	strbuf_adds(&sb, "livelock: ");
	for (size_t i = 0; i < shown; i++) {
		strbuf_adds(&sb, !i ? "" : i + 1 == threads ? " and " : ", ");
		detect_add_node(&sb, &input->waits->nodes[verdict->parties[i].node], NULL);
	}
	if (threads > shown)
		strbuf_addf(&sb, " and %llu more", (unsigned long long)(threads - shown));
	strbuf_addf(&sb, " try again and again for %s to get what the others hold", duration);
	return detect_set_summary(verdict, &sb, "");
}

static int say_present(const struct state *state, const struct episode *episode, const double *settings,
	const struct detect_input *input, detect_verdicts *verdicts) {
	struct detect_verdict verdict = episode_verdict(episode, &words);
	uint64_t threads = 0, looks = UINT64_MAX;
	int r;

	verdict.waits = input->waits;
	vec_foreach (runner, &state->runners) {
		if (!is_stuck(runner, settings, input->now_ns))
			continue;
		detect_party_node(&verdict, runner->node, "retrying");
		looks = min_of(looks, (uint64_t)runner->contended);
		threads++;
	}
	verdict.inferred = true;
	verdict.certain_why =
		"look after look each of them waits, with a time-out, for what another one holds, and tries "
		"again in the same function: that nothing gets done is concluded from that";
	verdict.advice =
		"Take the locks in one order everywhere; where they are given back and tried again, wait for a "
		"random time in between.";
	detect_fact_count(&verdict, "threads", threads);
	detect_fact_count(&verdict, "scans", looks);
	r = write_summary(&verdict, input, threads);
	return r ? r : vec_push(verdicts, verdict);
}

static int decide_stuck(
	struct state *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	uint64_t since_ns = input->now_ns;
	struct episode *episode;
	size_t stuck = 0;
	int r;

	vec_foreach (runner, &state->runners) {
		if (!is_stuck(runner, settings, input->now_ns))
			continue;
		since_ns = min_of(since_ns, runner->since_ns);
		stuck++;
	}
	if (stuck < 2)
		return 0;
	r = episodes_bad(&state->episodes, 0, input->now_ns, &episode);
	if (r)
		return r < 0 ? r : 0;
	if (!episode->firing)
		episode->since_ns = since_ns;
	episode->firing = true;
	return say_present(state, episode, settings, input, verdicts);
}

static int decide(void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	struct state *state = arg;
	int r;

	episodes_look(&state->episodes, input, false);
	if (!input->waits)
		return episodes_repeat(&state->episodes, &words, input, verdicts);
	r = look_at_graph(state, input);
	if (!r)
		r = decide_stuck(state, settings, input, verdicts);
	return r ? r : episodes_settle(&state->episodes, &words, input, RESOLVE_NS, "calm", verdicts);
}

const struct detector livelock_detector = {
	.kind = "livelock",
	.settings = settings_table,
	.state_bytes = sizeof(struct state),
	.state_deinit = state_deinit,
	.decide = decide,
};
