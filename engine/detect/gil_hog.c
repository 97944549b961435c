/* SPDX-License-Identifier: MIT */
/* gil-hog: one thread keeps the GIL while others want it.
 *
 * The interpreter asks a thread that runs Python code to give the GIL away every 5 ms: who holds it for `after` without
 * a break, while others wait, is in native code that does not release it. Who waits is counted, and where it is known
 * shown. A thread that is stuck for good is a deadlock's, not a hog. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/detect/episodes.h"
#include "engine/detect/words.h"

enum { AFTER, RESOLVE_FOR };

static const struct detect_setting settings_table[] = {
	[AFTER] = { "after", DETECT_DURATION, 1e9, 0, 86400e9, "how long one thread holds it, up to 24h" },
	[RESOLVE_FOR] = { "resolve-for", DETECT_DURATION, 10e9, 0, 86400e9,
		"it has gone when that thread did not for this long, up to 24h" },
	{ 0 },
};

static const struct episode_words words = { "gil-hog", "Wait Chain" };

static void state_deinit(void *arg) {
	episodes_deinit(arg);
}

static const struct detect_thread *find_holder(const struct detect_process *process) {
	for (size_t i = 0; i < process->threads_n; i++)
		if (process->gil_holder && process->threads[i].tid == process->gil_holder)
			return &process->threads[i];
	return NULL;
}

static bool leads_to_awake(const struct pyspyd_waits *waits, uint32_t resource) {
	for (size_t i = 0; i < waits->edges_n; i++)
		if (waits->edges[i].from == resource && waits->nodes[waits->edges[i].to].state == 'R')
			return true;
	return false;
}

/* Also one that waits for what a thread holds which is awake: who wants the GIL wakes every 5 ms, and does nothing. */
static bool is_stuck(const struct detect_input *input, pid_t tid) {
	const struct pyspyd_waits *waits = input->waits;
	uint32_t node = detect_find_node(input, tid);

	if (node == UINT32_MAX || waits->nodes[node].stuck)
		return node != UINT32_MAX;
	for (size_t i = 0; i < waits->edges_n; i++)
		if (waits->edges[i].from == node && waits->nodes[waits->edges[i].to].kind == PYSPYD_WAIT_RESOURCE &&
			leads_to_awake(waits, waits->edges[i].to))
			return true;
	return false;
}

static void add_waiters(struct detect_verdict *verdict, const struct detect_input *input, pid_t holder) {
	for (uint32_t i = 0; input->waits && i < input->waits->nodes_n; i++) {
		const struct pyspyd_wait_node *node = &input->waits->nodes[i];

		if (!detect_is_own_thread(input, node) || !node->gil_waiter || node->tid == holder)
			continue;
		verdict->waits = input->waits;
		detect_party_node(verdict, i, "waiting");
	}
}

static int say_present(const struct episode *episode, const struct detect_input *input,
	const struct detect_thread *holder, detect_verdicts *verdicts) {
	const struct detect_process *process = input->process;
	struct detect_verdict verdict = episode_verdict(episode, &words);
	struct strbuf sb = { 0 };
	char text[64];
	int r;

	detect_party(&verdict, input, holder, "holding");
	add_waiters(&verdict, input, holder->tid);
	verdict.advice =
		"The native call in the line shown keeps the GIL: release it there (Py_BEGIN_ALLOW_THREADS, nogil, "
		"gil_scoped_release), give the call less at once, or move it into a process of its own.";
	detect_fact_number(&verdict, "held_s", (double)process->gil_held_ns / 1e9);
	detect_fact_count(&verdict, "waiters", process->gil_waiters);
	detect_fact_text(&verdict, "native_call", process->gil_call);
	detect_duration_text(process->gil_held_ns, text, sizeof(text));
	strbuf_adds(&sb, "gil-hog: ");
	detect_add_name(&sb, holder->name);
	strbuf_addf(&sb, " (tid %d) has held the GIL for %s", (int)holder->tid, text);
	detect_add_party_place(&sb, &verdict, &verdict.parties[0]);
	if (process->gil_call)
		strbuf_addf(&sb, ", in C: %s", process->gil_call);
	snprintf(text, sizeof(text), ", while %u thread%s for it", process->gil_waiters,
		process->gil_waiters == 1 ? " waits" : "s wait");
	r = detect_set_summary(&verdict, &sb, text);
	return r ? r : vec_push(verdicts, verdict);
}

static int decide(void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	const struct detect_thread *holder = find_holder(input->process);
	struct episodes *episodes = arg;
	struct episode *episode;
	int r;

	episodes_look(episodes, input, false);
	if (holder && input->process->gil_waiters && (double)input->process->gil_held_ns >= settings[AFTER] &&
		!is_stuck(input, holder->tid)) {
		r = episodes_bad(episodes, (uint64_t)holder->tid, input->now_ns, &episode);
		if (r)
			return r < 0 ? r : 0;
		if (!episode->firing)
			episode->since_ns = input->now_ns - min_of(input->process->gil_held_ns, input->now_ns);
		/* Without a look at the graph, one that sleeps may be stuck. */
		episode->firing |= input->waits || holder->state == 'R';
		r = episode->firing ? say_present(episode, input, holder, verdicts) : 0;
		if (r)
			return r;
	}
	return episodes_settle(episodes, &words, input, (uint64_t)settings[RESOLVE_FOR], "released", verdicts);
}

const struct detector gil_hog_detector = {
	.kind = "gil-hog",
	.settings = settings_table,
	.state_bytes = sizeof(struct episodes),
	.state_deinit = state_deinit,
	.decide = decide,
};
