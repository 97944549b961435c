/* SPDX-License-Identifier: MIT */
/* deadlock, self-deadlock, orphaned-lock: the knots of the wait graph.
 *
 * Who is stuck for good is the graph's business (engine/waits). Here it is decided when that is a fault: when the same
 * knot stood, and none of its members ran in between, in `scans` looks at the graph in a row. From then on it is one
 * until a look does not show it; a look that is incomplete does not prove that it has gone. A lock that is acquired
 * twice may be a signal that somebody else gives: where that cannot be excluded, `after` has to pass. A knot over
 * several processes is found by the looks at each of them: the lowest process of those that are watched raises it. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/detect/episodes.h"
#include "engine/detect/words.h"
#include <string.h>

#define UNPROVEN_GONE_NS (10 * NS_PER_SEC) /* that an incomplete look may lack a knot */
#define PIDS_MAX 64                        /* processes of one knot that are told apart */

enum { SCANS, AFTER };

static const struct detect_setting settings_table[] = {
	[SCANS] = { "scans", DETECT_NUMBERS, 2, 2, 1000,
		"looks at the wait graph in a row that must agree, 2 to 1000" },
	{ 0 },
};

static const struct detect_setting self_settings_table[] = {
	[SCANS] = { "scans", DETECT_NUMBERS, 2, 2, 1000,
		"looks at the wait graph in a row that must agree, 2 to 1000" },
	[AFTER] = { "after", DETECT_DURATION, 60e9, 0, 86400e9,
		"how long it has waited for a lock that it only seems to hold, and others might release, up to 24h" },
	{ 0 },
};

static void state_deinit(void *arg) {
	episodes_deinit(arg);
}

/* What to do about it, by what stands in the knot: the first word that is part of a resource's type. */
static const struct {
	const char *type, *advice;
} advices[] = {
	{ "GIL",
		"Native code takes a lock of its own while it holds the GIL, and elsewhere the GIL while it holds that "
		"lock: "
		"release the GIL (Py_BEGIN_ALLOW_THREADS, gil_scoped_release) around whatever may block in native "
		"code." },
	{ "SemLock",
		"Processes wait for each other with locks of multiprocessing: take them in one order everywhere, and "
		"empty a "
		"queue before joining the process that fills it." },
	{ "queue",
		"Somebody waits for the other side of a queue that in turn waits for him: empty a queue before joining "
		"whoever fills it, and call task_done() for every item." },
	{ "pipe",
		"Both sides of a pipe wait for each other: read the output while the child runs "
		"(subprocess.Popen.communicate), and close the ends that a process does not use." },
	{ "socket",
		"Both sides of a connection wait for each other: give the waits a time-out, and read while writing." },
	{ "future",
		"Tasks of a pool wait for futures of the same pool, and no worker is left to run them: use another "
		"pool for "
		"the inner work, or let the caller combine the results." },
	{ "pool", "Work in a pool waits for work that only this pool could do: use another pool for the inner work." },
	{ "import",
		"Modules wait for each other's imports: import inside functions, or start threads after the imports "
		"are "
		"done." },
	{ "file lock", "Processes wait for each other's file locks: take them in one order everywhere." },
	{ "lock",
		"Take these locks in one order everywhere; where that cannot be, acquire the second one with a "
		"time-out "
		"and give the first one back when it fails." },
	{ "mutex", "Take these mutexes in one order everywhere, and call nothing foreign while one is held." },
	{ "task", "Tasks await each other: let one of them create what the other awaits, or use an asyncio.Queue." },
	{ "thread", "Threads join each other: let only whoever started a thread join it." },
	{ "process",
		"Processes wait for each other: let the parent read what the child writes before it waits for its "
		"end." },
};

static const char general_advice[] = "Everybody in this chain waits for the next one: break it where a wait can be "
				     "given a time-out or be moved out of "
				     "what is held.";
static const char self_advice[] =
	"The thread waits for what it holds itself: use a threading.RLock where the same thread may come again, do not "
	"call back while a lock is held, and take no lock in signal handlers and in __del__.";
static const char orphan_advice[] = "Whoever held this is gone and cannot release it: hold locks with `with`, never "
				    "end a process or thread while it "
				    "holds one, and fork before threads are started (or use the spawn start method).";

static bool has_type(const struct pyspyd_waits *waits, const struct pyspyd_wait_knot *knot, const char *word) {
	for (size_t i = 0; i < knot->nodes_n; i++) {
		const char *type = waits->nodes[knot->nodes[i]].type;

		if (type && strcasestr(type, word))
			return true;
	}
	return false;
}

static const char *find_advice(const struct pyspyd_waits *waits, const struct pyspyd_wait_knot *knot) {
	if (knot->kind == PYSPYD_KNOT_SELF)
		return self_advice;
	if (knot->kind == PYSPYD_KNOT_ORPHAN)
		return orphan_advice;
	for (size_t i = 0; i < ARRAY_SIZE(advices); i++)
		if (has_type(waits, knot, advices[i].type))
			return advices[i].advice;
	return general_advice;
}

static bool is_watched(const struct detect_input *input, pid_t pid) {
	for (size_t i = 0; i < input->watched_n; i++)
		if (input->watched[i] == pid)
			return true;
	return pid == input->pid;
}

/* Whether it is this process that raises the knot. */
static bool is_ours(const struct detect_input *input, const struct pyspyd_wait_knot *knot) {
	bool member = false;

	for (size_t i = 0; i < knot->nodes_n; i++) {
		const struct pyspyd_wait_node *node = &input->waits->nodes[knot->nodes[i]];

		if (!detect_is_actor(node))
			continue;
		member |= node->pid == input->pid;
		if (node->pid < input->pid && is_watched(input, node->pid))
			return false;
	}
	return member;
}

/* Numbers and parties of the verdict. */

struct census {
	uint64_t threads, tasks, processes;
	uint64_t waited_ns; /* all of them, at least */
	pid_t pids[PIDS_MAX];
};

static void count_pid(struct census *census, pid_t pid) {
	for (size_t i = 0; i < census->processes; i++)
		if (census->pids[i] == pid)
			return;
	if (census->processes < PIDS_MAX)
		census->pids[census->processes++] = pid;
}

static struct census take_census(const struct pyspyd_waits *waits, const struct pyspyd_wait_knot *knot) {
	struct census census = { .waited_ns = UINT64_MAX };

	for (size_t i = 0; i < knot->nodes_n; i++) {
		const struct pyspyd_wait_node *node = &waits->nodes[knot->nodes[i]];

		if (!detect_is_actor(node))
			continue;
		census.threads += node->kind == PYSPYD_WAIT_THREAD;
		census.tasks += node->kind == PYSPYD_WAIT_TASK;
		census.waited_ns = min_of(census.waited_ns, node->waited_ns);
		count_pid(&census, node->pid);
	}
	return census;
}

/* Return: how many there are, of whom not all may have found room. */
static uint64_t add_parties(struct detect_verdict *verdict, const uint32_t *nodes, size_t n, const char *role) {
	uint64_t actors = 0;

	for (size_t i = 0; i < n; i++) {
		if (!detect_is_actor(&verdict->waits->nodes[nodes[i]]))
			continue;
		detect_party_node(verdict, nodes[i], role);
		actors++;
	}
	return actors;
}

static const char *fault_of(const struct pyspyd_waits *waits, const struct pyspyd_wait_knot *knot) {
	for (size_t i = 0; i < knot->nodes_n; i++)
		if (waits->nodes[knot->nodes[i]].fault)
			return waits->nodes[knot->nodes[i]].fault;
	return NULL;
}

static int write_summary(
	struct detect_verdict *verdict, const struct pyspyd_wait_knot *knot, pid_t pid, uint64_t blocked) {
	struct pyspyd_waits seen = *verdict->waits;
	_free_ char *text = NULL;
	struct strbuf sb = { 0 };
	char suffix[64] = "";

	seen.process.pid = pid; /* whose finding it is: its threads are named without their process */
	text = pyspyd_wait_knot_text(&seen, knot);
	if (!text)
		return -ENOMEM;
	if (blocked)
		snprintf(suffix, sizeof(suffix), " (%llu more thread%s behind it)", (unsigned long long)blocked,
			blocked == 1 ? " waits" : "s wait");
	strbuf_adds(&sb, text);
	return detect_set_summary(verdict, &sb, suffix);
}

static int say_present(const struct episode *episode, const struct episode_words *words,
	const struct detect_input *input, uint32_t index, detect_verdicts *verdicts) {
	const struct pyspyd_wait_knot *knot = &input->waits->knots[index];
	struct census census = take_census(input->waits, knot);
	struct detect_verdict verdict = episode_verdict(episode, words);
	uint64_t blocked;
	int r;

	verdict.severity = knot->inferred ? PYSPYD_WARNING : PYSPYD_CRITICAL;
	verdict.waits = input->waits;
	verdict.knot = index;
	verdict.inferred = knot->inferred;
	verdict.certain_why =
		knot->inferred ? "not every holder in the chain could be read: see the edges that say so" : NULL;
	verdict.advice = find_advice(input->waits, knot);
	add_parties(&verdict, knot->nodes, knot->nodes_n, "waiting");
	blocked = add_parties(&verdict, knot->victims, knot->victims_n, "blocked");
	detect_fact_count(&verdict, "threads", census.threads);
	detect_fact_count(&verdict, "tasks", census.tasks);
	detect_fact_count(&verdict, "processes", census.processes);
	detect_fact_count(&verdict, "blocked", blocked);
	detect_fact_count(&verdict, "scans", episode->looks);
	if (knot->kind == PYSPYD_KNOT_ORPHAN)
		detect_fact_text(&verdict, "fault", fault_of(input->waits, knot));
	r = write_summary(&verdict, knot, input->pid, blocked);
	return r ? r : vec_push(verdicts, verdict);
}

static int look_at(struct episodes *episodes, const struct episode_words *words, const double *settings,
	const struct detect_input *input, uint32_t index, detect_verdicts *verdicts) {
	const struct pyspyd_wait_knot *knot = &input->waits->knots[index];
	struct episode *episode;
	int r = episodes_bad(episodes, knot->key, input->now_ns, &episode);

	if (r)
		return r < 0 ? r : 0;
	if (!knot->confirmed)
		episode_restart(episode, input->now_ns);
	if (!episode->firing && (double)episode->looks < settings[SCANS])
		return 0;
	if (!episode->firing && knot->open && (double)take_census(input->waits, knot).waited_ns < settings[AFTER])
		return 0;
	if (!episode->firing)
		episode->since_ns = input->now_ns - min_of(take_census(input->waits, knot).waited_ns, input->now_ns);
	episode->firing = true;
	return say_present(episode, words, input, index, verdicts);
}

static int decide(enum pyspyd_knot_kind kind, const struct episode_words *words, struct episodes *episodes,
	const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	int r = 0;

	episodes_look(episodes, input, false);
	if (!input->waits)
		return episodes_repeat(episodes, words, input, verdicts);
	for (uint32_t i = 0; !r && i < input->waits->knots_n; i++)
		if (input->waits->knots[i].kind == kind && is_ours(input, &input->waits->knots[i]))
			r = look_at(episodes, words, settings, input, i, verdicts);
	if (r)
		return r;
	return episodes_settle(
		episodes, words, input, input->waits->incomplete ? UNPROVEN_GONE_NS : 0, "released", verdicts);
}

static int decide_deadlock(
	void *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	static const struct episode_words words = { "deadlock", "Deadlock" };

	return decide(PYSPYD_KNOT_CYCLE, &words, state, settings, input, verdicts);
}

static int decide_self_deadlock(
	void *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	static const struct episode_words words = { "self-deadlock", "Deadlock" };

	return decide(PYSPYD_KNOT_SELF, &words, state, settings, input, verdicts);
}

static int decide_orphaned_lock(
	void *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	static const struct episode_words words = { "orphaned-lock", "Wait Chain" };

	return decide(PYSPYD_KNOT_ORPHAN, &words, state, settings, input, verdicts);
}

const struct detector deadlock_detector = {
	.kind = "deadlock",
	.settings = settings_table,
	.state_bytes = sizeof(struct episodes),
	.state_deinit = state_deinit,
	.decide = decide_deadlock,
};

const struct detector self_deadlock_detector = {
	.kind = "self-deadlock",
	.settings = self_settings_table,
	.state_bytes = sizeof(struct episodes),
	.state_deinit = state_deinit,
	.decide = decide_self_deadlock,
};

const struct detector orphaned_lock_detector = {
	.kind = "orphaned-lock",
	.settings = settings_table,
	.state_bytes = sizeof(struct episodes),
	.state_deinit = state_deinit,
	.decide = decide_orphaned_lock,
};
