/* SPDX-License-Identifier: MIT */
/* hang: a process that worked makes no progress any more.
 *
 * None of its threads ran for `after`, and none of them waits at a point where programs wait for work, for a time-out
 * or for somebody who does: that is what the wait graph calls alive. A process with a deadlock, one that is stopped and
 * one whose threads are all in uninterruptible sleep have kinds of their own.
 *
 * Between two looks at the graph the run counters alone carry the last word on: a thread that runs ends it. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/detect/episodes.h"
#include "engine/detect/words.h"
#include "engine/waits/adjacency.h"
#include "engine/waits/graph.h"
#include <string.h>

#define NOTHING_NS_PER_S 500000     /* CPU time that a thread which only wakes to wait again may use */
#define RESOLVE_NS (5 * NS_PER_SEC) /* of progress */
#define SHOWN_THREADS 4             /* in the summary */

enum { AFTER };

static const struct detect_setting settings_table[] = {
	[AFTER] = { "after", DETECT_DURATION, 60e9, 0, 86400e9, "how long no thread has run, up to 24h" },
	{ 0 },
};

static const struct episode_words words = { "hang", "Hang" };

static void state_deinit(void *arg) {
	episodes_deinit(arg);
}

/* Whether something runs, or may have: a thread that was not there before has been started by somebody. */
static bool has_run(const struct detect_process *process) {
	for (size_t i = 0; i < process->threads_n; i++) {
		const struct detect_thread *thread = &process->threads[i];

		if (!thread->interval_ns ||
			(double)thread->run_ns * 1e9 / (double)thread->interval_ns >= NOTHING_NS_PER_S)
			return true;
	}
	return false;
}

static bool is_all_held_up(const struct detect_process *process) {
	for (size_t i = 0; i < process->threads_n; i++)
		if (!strchr("TtDZX", process->threads[i].state))
			return false;
	return true;
}

/* Workers of a native library (BLAS, OpenMP) rest until Python code calls for them: whether that hangs they do not
 * tell.
 */
static bool is_native_worker(const struct pyspyd_wait_node *node) {
	return !node->python && node->idle && !strcmp(node->idle, WAITS_NATIVE_WORKER);
}

/* Whether the graph says that no thread of the process will go on unless somebody outside does something. */
static bool is_hung(const struct detect_input *input) {
	uint64_t run_ns = 0;
	size_t threads = 0;

	for (size_t i = 0; i < input->waits->nodes_n; i++) {
		const struct pyspyd_wait_node *node = &input->waits->nodes[i];

		if (!detect_is_own_thread(input, node) || is_native_worker(node))
			continue;
		if (input->alive[i] || node->stuck)
			return false;
		threads++;
		run_ns = max_of(run_ns, node->run_ns);
	}
	return threads && run_ns && !is_all_held_up(input->process);
}

/* What is said about it. */

static void add_holder(struct strbuf *sb, const struct pyspyd_waits *waits, const struct adjacency *out, uint32_t i) {
	uint32_t others = out->start[i + 1] - out->start[i];
	const struct pyspyd_wait_node *first;

	if (waits->nodes[i].kind != PYSPYD_WAIT_RESOURCE || !others)
		return;
	first = &waits->nodes[out->other[out->start[i]]];
	/* that any thread might do it says nothing where none does anything; and whose end it is stands there already
	 */
	if (!strcmp(first->type ? first->type : "", "threads") ||
		!strcmp(waits->nodes[i].type ? waits->nodes[i].type : "", "join"))
		return;
	strbuf_adds(sb, " ");
	strbuf_adds(sb, detect_link(&waits->nodes[i], first));
	detect_add_node(sb, first, NULL);
	if (others > 1)
		strbuf_addf(sb, " or %u other%s", others - 1, others == 2 ? "" : "s");
}

static void add_thread(struct strbuf *sb, const struct pyspyd_waits *waits, const struct adjacency *out, uint32_t i) {
	uint32_t first = out->start[i];

	detect_add_node(sb, &waits->nodes[i], NULL);
	strbuf_adds(sb, " waits");
	if (first == out->start[i + 1])
		return;
	strbuf_adds(sb, " for ");
	detect_add_node(sb, &waits->nodes[out->other[first]], waits->edges[out->edge[first]].expression);
	add_holder(sb, waits, out, out->other[first]);
}

static int write_summary(struct detect_verdict *verdict, const struct detect_input *input, const struct adjacency *out,
	uint64_t threads) {
	size_t shown = min_of(verdict->parties_n, (size_t)SHOWN_THREADS);
	const char *name = input->process->name;
	struct strbuf sb = { 0 };
	char text[64] = "";

	detect_duration_text(input->now_ns - verdict->since_ns, text, sizeof(text));
	strbuf_adds(&sb, "hang: no thread of ");
	detect_add_name(&sb, name && *name ? name : "the process");
	strbuf_addf(&sb, " has run for %s: ", text);
	for (size_t i = 0; i < shown; i++) {
		strbuf_adds(&sb, i ? "; " : "");
		add_thread(&sb, input->waits, out, verdict->parties[i].node);
	}
	text[0] = '\0';
	if (threads > shown)
		snprintf(text, sizeof(text), "; and %llu more threads wait", (unsigned long long)(threads - shown));
	return detect_set_summary(verdict, &sb, text);
}

/* The main thread, the other threads of Python, the rest; then tasks. */
static int rank_of(const struct pyspyd_wait_node *node) {
	if (node->kind == PYSPYD_WAIT_TASK)
		return 3;
	return node->main ? 0 : node->python ? 1 : 2;
}

static bool is_party(const struct detect_input *input, const struct pyspyd_wait_node *node) {
	return detect_is_own_thread(input, node) || (node->kind == PYSPYD_WAIT_TASK && node->pid == input->pid);
}

static uint64_t add_parties(struct detect_verdict *verdict, const struct detect_input *input) {
	uint64_t threads = 0;

	for (int rank = 0; rank <= 3; rank++)
		for (uint32_t i = 0; i < input->waits->nodes_n; i++) {
			const struct pyspyd_wait_node *node = &input->waits->nodes[i];

			if (!is_party(input, node) || rank_of(node) != rank)
				continue;
			detect_party_node(verdict, i, "waiting");
			threads += node->kind == PYSPYD_WAIT_THREAD;
		}
	return threads;
}

/* Walks all chains that begin at this process's threads. Return: why what they say is not proven, or NULL; or out of
 * memory: *ret_r set. */
static const char *find_doubt(const struct detect_input *input, const struct adjacency *out, int *ret_r) {
	const struct pyspyd_waits *waits = input->waits;
	_free_ uint32_t *queue = malloc((waits->nodes_n + 1) * sizeof(*queue));
	_free_ bool *met = calloc(waits->nodes_n + 1, sizeof(*met));
	size_t n = 0;

	*ret_r = queue && met ? 0 : -ENOMEM;
	if (*ret_r)
		return NULL;
	if (waits->incomplete)
		return "not everything that the threads wait for could be read";
	for (uint32_t i = 0; i < waits->nodes_n; i++) {
		if (!detect_is_own_thread(input, &waits->nodes[i]))
			continue;
		if (out->start[i] == out->start[i + 1])
			return "what one of the threads waits for is not known";
		met[i] = true;
		queue[n++] = i;
	}
	for (size_t at = 0; at < n; at++)
		for (uint32_t e = out->start[queue[at]]; e < out->start[queue[at] + 1]; e++) {
			if (waits->edges[out->edge[e]].inferred)
				return "an edge of the chains is inferred: see there";
			if (!met[out->other[e]])
				queue[n++] = out->other[e];
			met[out->other[e]] = true;
		}
	return NULL;
}

static int say_present(const struct episode *episode, const struct detect_input *input, detect_verdicts *verdicts) {
	struct detect_verdict verdict = episode_verdict(episode, &words);
	struct adjacency out;
	uint64_t threads;
	int r = adjacency_init(&out, input->waits, false);

	if (r)
		return r;
	verdict.waits = input->waits;
	threads = add_parties(&verdict, input);
	verdict.certain_why = find_doubt(input, &out, &r);
	verdict.inferred = verdict.certain_why;
	verdict.advice = "See what the last one of each chain waits for: give that wait a time-out (socket.settimeout, "
			 "get(timeout=…), subprocess timeouts), or look why the other side does not answer.";
	detect_fact_count(&verdict, "threads", threads);
	detect_fact_number(&verdict, "quiet_s", (double)(input->now_ns - episode->since_ns) / 1e9);
	detect_fact_count(&verdict, "scans", episode->looks);
	if (!r)
		r = write_summary(&verdict, input, &out, threads);
	adjacency_deinit(&out);
	return r ? r : vec_push(verdicts, verdict);
}

static int decide(void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	struct episodes *episodes = arg;
	bool running = has_run(input->process);
	struct episode *episode;
	int r;

	episodes_look(episodes, input, true);
	if (!running && !input->waits)
		return episodes_repeat(episodes, &words, input, verdicts);
	if (!running && is_hung(input)) {
		r = episodes_bad(episodes, 0, input->now_ns, &episode);
		if (r)
			return r < 0 ? r : 0;
		episode->firing |= (double)(input->now_ns - episode->since_ns) >= settings[AFTER] && episode->looks > 1;
		r = episode->firing ? say_present(episode, input, verdicts) : 0;
		if (r)
			return r;
	}
	return episodes_settle(episodes, &words, input, RESOLVE_NS, "running", verdicts);
}

const struct detector hang_detector = {
	.kind = "hang",
	.settings = settings_table,
	.state_bytes = sizeof(struct episodes),
	.state_deinit = state_deinit,
	.decide = decide,
};
