/* SPDX-License-Identifier: MIT */
/* stopped, d-state: threads that the kernel does not let run.
 *
 * A process all of whose threads are stopped (a signal, a debugger, a tracer) in every look for `after` is stopped. A
 * thread that is in uninterruptible sleep in every look for `after` and did not run in between waits for a disk, a
 * network file system or a device that does not answer; short such sleeps are ordinary. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/map.h"
#include "engine/detect/episodes.h"
#include "engine/detect/words.h"
#include <stdio.h>
#include <string.h>

enum { AFTER };

static const struct detect_setting stopped_settings[] = {
	[AFTER] = { "after", DETECT_DURATION, 30e9, 0, 86400e9, "how long the process is stopped, up to 24h" },
	{ 0 },
};

static const struct detect_setting d_state_settings[] = {
	[AFTER] = { "after", DETECT_DURATION, 30e9, 0, 86400e9, "how long the thread sleeps so, up to 24h" },
	{ 0 },
};

static const struct episode_words stopped_words = { "stopped", "Blocked Thread" };
static const struct episode_words d_state_words = { "d-state", "Blocked Thread" };

static void state_deinit(void *arg) {
	episodes_deinit(arg);
}

/* Whether the subject was bad for long enough; it fires then. */
static bool is_due(struct episode *episode, const double *settings, uint64_t now_ns) {
	episode->firing |= (double)(now_ns - episode->since_ns) >= settings[AFTER] && episode->looks > 1;
	return episode->firing;
}

/* stopped */

static bool is_stopped(const struct detect_process *process, uint64_t *ret_traced) {
	uint64_t stopped = 0, traced = 0;

	for (size_t i = 0; i < process->threads_n; i++) {
		const struct detect_thread *thread = &process->threads[i];

		/* What has ended cannot be stopped. */
		if (strchr("ZX", thread->state))
			continue;
		if (!strchr("Tt", thread->state) || thread->run_ns)
			return false;
		stopped++;
		traced += thread->state == 't';
	}
	*ret_traced = traced;
	return stopped;
}

static int say_stopped(
	const struct episode *episode, const struct detect_input *input, uint64_t traced, detect_verdicts *verdicts) {
	struct detect_verdict verdict = episode_verdict(episode, &stopped_words);
	char duration[32];

	for (size_t i = 0; i < input->process->threads_n && verdict.parties_n < DETECT_PARTIES_MAX; i++)
		detect_party(&verdict, input, &input->process->threads[i], "stopped");
	verdict.advice = traced ? "A debugger or tracer holds the process (TracerPid in /proc/PID/status): end it, or "
				  "let it go on there."
				: "A signal stopped the process (SIGSTOP, SIGTSTP, or SIGTTIN of a job in the "
				  "background): `kill -CONT PID` "
				  "lets it go on.";
	detect_fact_count(&verdict, "threads", input->process->threads_n);
	detect_fact_text(&verdict, "how", traced ? "traced" : "stopped");
	detect_duration_text(input->now_ns - episode->since_ns, duration, sizeof(duration));
	snprintf(verdict.summary, sizeof(verdict.summary),
		"stopped: all %zu threads of the process have been %s for %s", input->process->threads_n,
		traced ? "held by a tracer" : "stopped", duration);
	if (input->process->threads_n == 1)
		snprintf(verdict.summary, sizeof(verdict.summary), "stopped: the process has been %s for %s",
			traced ? "held by a tracer" : "stopped", duration);
	return vec_push(verdicts, verdict);
}

static int decide_stopped(
	void *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	struct episode *episode;
	uint64_t traced;
	int r;

	episodes_look(state, input, true);
	if (is_stopped(input->process, &traced)) {
		r = episodes_bad(state, 0, input->now_ns, &episode);
		if (!r && is_due(episode, settings, input->now_ns))
			r = say_stopped(episode, input, traced, verdicts);
		if (r < 0)
			return r;
	}
	return episodes_settle(state, &stopped_words, input, 0, "continued", verdicts);
}

/* d-state */

static uint64_t id_of(const struct detect_thread *thread) {
	return hash_mix((uint64_t)thread->tid ^ hash_mix(thread->start_ns));
}

static int say_d_state(const struct episode *episode, const struct detect_input *input,
	const struct detect_thread *thread, detect_verdicts *verdicts) {
	struct detect_verdict verdict = episode_verdict(episode, &d_state_words);
	struct strbuf sb = { 0 };
	char duration[32];
	int r;

	detect_party(&verdict, input, thread, "blocked");
	verdict.advice = "The kernel waits for a device or a file system, and no signal ends that: `cat "
			 "/proc/PID/task/TID/stack` "
			 "(root) and `dmesg` say which; look at network mounts and disks first.";
	detect_fact_number(&verdict, "blocked_s", (double)(input->now_ns - episode->since_ns) / 1e9);
	detect_duration_text(input->now_ns - episode->since_ns, duration, sizeof(duration));
	strbuf_adds(&sb, "d-state: ");
	detect_add_name(&sb, thread->name);
	strbuf_addf(&sb, " (tid %d) has been in uninterruptible sleep for %s", (int)thread->tid, duration);
	detect_add_party_place(&sb, &verdict, &verdict.parties[0]);
	r = detect_set_summary(&verdict, &sb, "");
	return r ? r : vec_push(verdicts, verdict);
}

static int look_at(void *state, const double *settings, const struct detect_input *input,
	const struct detect_thread *thread, detect_verdicts *verdicts) {
	struct episode *episode;
	int r;

	if (thread->state != 'D' || thread->run_ns)
		return 0;
	r = episodes_bad(state, id_of(thread), input->now_ns, &episode);
	if (!r && is_due(episode, settings, input->now_ns))
		r = say_d_state(episode, input, thread, verdicts);
	return r < 0 ? r : 0;
}

static int decide_d_state(
	void *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	int r = 0;

	episodes_look(state, input, true);
	for (size_t i = 0; !r && i < input->process->threads_n; i++)
		r = look_at(state, settings, input, &input->process->threads[i], verdicts);
	return r ? r : episodes_settle(state, &d_state_words, input, 0, "running", verdicts);
}

const struct detector stopped_detector = {
	.kind = "stopped",
	.settings = stopped_settings,
	.state_bytes = sizeof(struct episodes),
	.state_deinit = state_deinit,
	.decide = decide_stopped,
};

const struct detector d_state_detector = {
	.kind = "d-state",
	.settings = d_state_settings,
	.state_bytes = sizeof(struct episodes),
	.state_deinit = state_deinit,
	.decide = decide_d_state,
};
