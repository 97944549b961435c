/* SPDX-License-Identifier: MIT */
/* event-loop-blocked: an asyncio loop stays in one callback while others wait for their turn.
 *
 * Two looks that find the loop in the same callback of the same round, `after` apart, prove it; how long the callback
 * had run before the first one is not known and not claimed. Nobody is kept waiting where nothing is ready or overdue
 * and the running task is the only one. A loop whose thread is stuck for good is a deadlock's. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/map.h"
#include "engine/base/util.h"
#include "engine/detect/episodes.h"
#include "engine/detect/words.h"

enum { AFTER, RESOLVE_FOR };

static const struct detect_setting settings_table[] = {
	[AFTER] = { "after", DETECT_DURATION, 1e9, 0, 86400e9, "how long a callback runs, up to 24h" },
	[RESOLVE_FOR] = { "resolve-for", DETECT_DURATION, 10e9, 0, 86400e9,
		"it has gone when the loop was not blocked for this long, up to 24h" },
	{ 0 },
};

static const struct episode_words words = { "event-loop-blocked", "Blocked Thread" };

#define LOOPS_MAX 256 /* of one process */

/* A loop and the callback that it was in at the last look. */
struct turn {
	uint64_t loop, turn;
	uint64_t met_ns; /* first */
};

struct state {
	struct episodes episodes;
	VEC(struct turn) turns;
};

static void state_deinit(void *arg) {
	struct state *state = arg;

	episodes_deinit(&state->episodes);
	vec_free(&state->turns);
}

static uint64_t id_of(const struct pyspyd_wait_loop *loop) {
	return hash_mix(loop->address ^ hash_mix((uint64_t)loop->tid));
}

static uint64_t turn_of(const struct pyspyd_wait_loop *loop) {
	return hash_mix(loop->turn ^ hash_mix(loop->turn_began_ns));
}

static bool is_busy(const struct detect_input *input, const struct pyspyd_wait_loop *loop) {
	uint32_t node;

	if (loop->pid != input->pid || loop->polling || !loop->turn)
		return false;
	if (!loop->ready && !loop->overdue && loop->tasks <= 1)
		return false;
	node = detect_find_node(input, loop->tid);
	return node == UINT32_MAX || !input->waits->nodes[node].stuck;
}

static const struct detect_thread *find_thread(const struct detect_process *process, pid_t tid) {
	for (size_t i = 0; i < process->threads_n; i++)
		if (process->threads[i].tid == tid)
			return &process->threads[i];
	return NULL;
}

/* ", while 2 callbacks and 1 timer wait" */
static void add_held_up(char *text, size_t size, const struct pyspyd_wait_loop *loop) {
	char ready[40] = "", overdue[40] = "";
	bool one = loop->ready + loop->overdue == 1;

	if (loop->ready)
		snprintf(ready, sizeof(ready), "%llu callback%s", (unsigned long long)loop->ready,
			loop->ready == 1 ? "" : "s");
	if (loop->overdue)
		snprintf(overdue, sizeof(overdue), "%llu timer%s", (unsigned long long)loop->overdue,
			loop->overdue == 1 ? "" : "s");
	text[0] = '\0';
	if (loop->ready || loop->overdue)
		snprintf(text, size, ", while %s%s%s wait%s", ready, loop->ready && loop->overdue ? " and " : "",
			overdue, one ? "s" : "");
}

static int say_present(const struct episode *episode, const struct detect_input *input,
	const struct pyspyd_wait_loop *loop, uint64_t blocked_ns, detect_verdicts *verdicts) {
	const struct detect_thread *thread = find_thread(input->process, loop->tid);
	struct detect_verdict verdict = episode_verdict(episode, &words);
	struct strbuf sb = { 0 };
	char text[128];
	int r;

	if (!thread)
		return 0;
	detect_party(&verdict, input, thread, "blocking");
	verdict.advice =
		"The line shown keeps the loop from everything else: await something instead, hand the call to "
		"asyncio.to_thread() or an executor, or cut the computation into pieces.";
	detect_fact_number(&verdict, "blocked_s", (double)blocked_ns / 1e9);
	detect_fact_count(&verdict, "ready", loop->ready);
	detect_fact_count(&verdict, "overdue", loop->overdue);
	detect_fact_count(&verdict, "tasks", loop->tasks);
	detect_duration_text(blocked_ns, text, sizeof(text));
	strbuf_adds(&sb, "event-loop-blocked: the loop of ");
	detect_add_name(&sb, thread->name);
	strbuf_addf(&sb, " (tid %d) has been in one callback for %s", (int)thread->tid, text);
	detect_add_party_place(&sb, &verdict, &verdict.parties[0]);
	add_held_up(text, sizeof(text), loop);
	r = detect_set_summary(&verdict, &sb, text);
	return r ? r : vec_push(verdicts, verdict);
}

static struct turn find_turn(const struct state *state, const struct pyspyd_wait_loop *loop, uint64_t now_ns) {
	struct turn now = { .loop = id_of(loop), .turn = turn_of(loop), .met_ns = now_ns };

	vec_foreach (before, &state->turns)
		if (before->loop == now.loop && before->turn == now.turn)
			return *before;
	return now;
}

static int look_at(struct state *state, const double *settings, const struct detect_input *input,
	const struct pyspyd_wait_loop *loop, const struct turn *turn, detect_verdicts *verdicts) {
	uint64_t blocked_ns = input->now_ns - turn->met_ns;
	struct episode *episode;
	int r;

	if (turn->met_ns == input->now_ns || (double)blocked_ns < settings[AFTER])
		return 0;
	r = episodes_bad(&state->episodes, turn->loop, input->now_ns, &episode);
	if (r)
		return r < 0 ? r : 0;
	if (!episode->firing)
		episode->since_ns = turn->met_ns;
	episode->firing = true;
	return say_present(episode, input, loop, blocked_ns, verdicts);
}

static int look_at_all(
	struct state *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	__typeof__(state->turns) turns = { 0 };
	int r = 0;

	for (size_t i = 0; !r && i < input->waits->loops_n && turns.n < LOOPS_MAX; i++) {
		const struct pyspyd_wait_loop *loop = &input->waits->loops[i];
		struct turn turn;

		if (!is_busy(input, loop))
			continue;
		turn = find_turn(state, loop, input->now_ns);
		r = vec_push(&turns, turn);
		if (!r)
			r = look_at(state, settings, input, loop, &turn, verdicts);
	}
	vec_free(&state->turns);
	state->turns = turns;
	return r;
}

static int decide(void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	struct state *state = arg;
	int r;

	episodes_look(&state->episodes, input, false);
	if (!input->waits)
		return episodes_repeat(&state->episodes, &words, input, verdicts);
	r = look_at_all(state, settings, input, verdicts);
	if (r)
		return r;
	return episodes_settle(&state->episodes, &words, input, (uint64_t)settings[RESOLVE_FOR], "moving", verdicts);
}

const struct detector event_loop_detector = {
	.kind = "event-loop-blocked",
	.settings = settings_table,
	.state_bytes = sizeof(struct state),
	.state_deinit = state_deinit,
	.decide = decide,
};
