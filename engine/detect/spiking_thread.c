/* SPDX-License-Identifier: MIT */
/* spiking-thread: one thread keeps a core to itself.
 *
 * A thread becomes a candidate with the first interval at or above `pct`, and stays one while its mean since then holds
 * `pct` and no interval falls below the lower line (`resolve-pct` of `pct`): a neighbour's burst on the same core must
 * not hide a spin, and a thread that works in bursts is none. A candidate of `for` is a fault. A fault has gone when
 * every interval of `resolve-for` lay below the lower line, or the thread has ended. A gap (an interval of more than
 * three periods: suspended, starved) proves nothing either way: candidates start again, faults stay.
 *
 * On a crowded machine a thread that spins does not get a whole core. One that was runnable all the time, waiting for a
 * CPU where it did not run, counts as if it had had the core: it never slept, which a thread that works now and then
 * always does. But one that hardly gets to run may only be late with little work: it is a fault when it has run for a
 * good part of `for`, however long that takes. The kernel counts a wait when it is over: so one that is runnable now is
 * lent what is missing, and the next interval gives it back.
 *
 * Why it spins is told by the ticks (user or system) and by what its samples of the window show. What is reported is
 * the mean of the last one to two times `for`, not of the whole fault, so that an update says what is so now.
 *
 * Threads below the line cost one comparison; only candidates and faults are remembered. */
#include "engine/detect/detect.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/detect/words.h"
#include <inttypes.h>
#include <string.h>

#define GAP_PERIODS 3
#define LENT_MAX 0.1        /* of `for` */
#define ENOUGH_SAMPLES 20   /* for a verdict that rests on shares */
#define MOST 0.5            /* of the samples, or of the ticks */
#define NEVER_SLEPT_PCT 98  /* of an interval, runnable; the rest is what two clocks disagree by */
#define GOOD_PART_PCT 30    /* of `for`, really run; less where `pct` is */
#define WORTH_SAYING_PCT 10 /* of the time, waited for a CPU */

enum { PCT, FOR, RESOLVE_PCT, RESOLVE_FOR, CONVOY_SWITCHES };

static const struct detect_setting settings_table[] = {
	[PCT] = { "pct", DETECT_PERCENT, 90, 1, 100, "percent of one core that a thread must use, 1 to 100" },
	[FOR] = { "for", DETECT_DURATION, 10e9, 0, 86400e9, "how long, up to 24h" },
	[RESOLVE_PCT] = { "resolve-pct", DETECT_PERCENT, 80, 0, 100,
		"it has gone below this percent of pct, 0 to 100" },
	[RESOLVE_FOR] = { "resolve-for", DETECT_DURATION, 5e9, 0, 86400e9, "… for this long, up to 24h" },
	[CONVOY_SWITCHES] = { "convoy-switches", DETECT_NUMBERS, 50, 1, 1e6,
		"changes of the GIL's holder a second that make a gil-convoy, 1 to 1000000" },
	{ 0 },
};

struct span {
	uint64_t ns, run_ns, wait_ns, user_ns, system_ns;
	uint64_t claim_ns; /* what counts: the time run, and the time waited where the thread never slept */
};

struct track {
	pid_t tid;
	uint64_t start_ns;
	uint64_t key;
	uint64_t since_ns;
	uint64_t calm_ns; /* below the lower line without a break */
	uint64_t lent_ns; /* of a wait that is not over, as it seems */
	bool firing;
	bool seen; /* in this look */
	struct span span, span_before;
};

struct state {
	VEC(struct track) tracks;
	uint64_t last_key;
};

static void state_deinit(void *arg) {
	struct state *state = arg;

	vec_free(&state->tracks);
}

/* Arithmetic. */

static double percent_of(uint64_t part, uint64_t whole) {
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void span_add(struct span *span, const struct span *more) {
	span->ns += more->ns;
	span->run_ns += more->run_ns;
	span->wait_ns += more->wait_ns;
	span->claim_ns += more->claim_ns;
	span->user_ns += more->user_ns;
	span->system_ns += more->system_ns;
}

/* For how long it waited for a CPU in its interval, as far as that can be told now. */
static uint64_t waited(const double *settings, const struct detect_thread *thread, uint64_t *lent_ns) {
	uint64_t told = thread->run_ns + thread->wait_ns, most = (uint64_t)(LENT_MAX * settings[FOR]), moved;

	if (told > thread->interval_ns) {
		moved = min_of(min_of(told - thread->interval_ns, *lent_ns), thread->wait_ns);
		*lent_ns -= moved;
		return thread->wait_ns - moved;
	}
	if (thread->state != 'R' || !thread->wait_ns || percent_of(told, thread->interval_ns) >= NEVER_SLEPT_PCT)
		return thread->wait_ns;
	moved = min_of(thread->interval_ns - told, most - min_of(most, *lent_ns));
	*lent_ns += moved;
	return thread->wait_ns + moved;
}

static struct span span_of(const double *settings, const struct detect_thread *thread, uint64_t *lent_ns) {
	uint64_t wait_ns = waited(settings, thread, lent_ns);
	bool never_slept = percent_of(thread->run_ns + wait_ns, thread->interval_ns) >= NEVER_SLEPT_PCT;

	return (struct span){
		.ns = thread->interval_ns,
		.run_ns = thread->run_ns,
		.wait_ns = wait_ns,
		.user_ns = thread->user_ns,
		.system_ns = thread->system_ns,
		.claim_ns = thread->run_ns + (never_slept ? wait_ns : 0),
	};
}

static struct span span_shown(const struct track *track) {
	struct span span = track->span_before;

	span_add(&span, &track->span);
	return span;
}

static bool is_gap(const struct detect_process *process, const struct detect_thread *thread) {
	return !thread->interval_ns || (process->period_ns && thread->interval_ns / GAP_PERIODS > process->period_ns);
}

/* Why it spins. */

enum cause { PYTHON_LOOP, NATIVE, GC, KERNEL, GIL_CONVOY, UNKNOWN };

static const struct {
	const char *name, *advice;
} causes[] = {
	[PYTHON_LOOP] = { "python-loop",
		"Look at the loop in the hottest stack: if it waits for something, let it block instead of asking "
		"again and again; if it is meant to compute, declare the program as one that is expected to be busy." },
	[NATIVE] = { "native",
		"The time goes into native code that the line shown calls: look at the size and the shape of what that "
		"call is given; the Python code around it is not what costs." },
	[GC] = { "gc",
		"The thread mostly collects garbage: look for container objects that are created in large numbers and "
		"kept; where they are meant to stay, gc.freeze() or a higher gc.set_threshold() spares the work." },
	[KERNEL] = { "kernel",
		"Most of the time is spent inside system calls that the line shown makes: a descriptor that is always "
		"ready in select or epoll, and very small reads or writes, are common reasons." },
	[GIL_CONVOY] = { "gil-convoy",
		"Other threads wait for the GIL again and again while this one computes: a process of its own for the "
		"computation, or code that releases the GIL, lets them work." },
	[UNKNOWN] = { "unknown",
		"No stack of the thread could be read while it ran: `pyspyd doctor --pid PID` says what is in the "
		"way." },
};

static const char not_python_advice[] =
	"A native library started this thread, Python does not know it: `perf top -t TID` names the function. Pools of "
	"numerical libraries that wait busily are a common reason (OMP_WAIT_POLICY=passive, fewer threads).";

static bool is_convoy(
	const double *settings, const struct detect_process *process, const struct detect_thread *thread) {
	if (process->gil_switches_per_s < settings[CONVOY_SWITCHES])
		return false;
	for (size_t i = 0; i < process->threads_n; i++) {
		const struct detect_thread *other = &process->threads[i];

		if (other->tid != thread->tid && other->samples && other->shares.gil_waiting >= MOST)
			return true;
	}
	return false;
}

static enum cause find_cause(const double *settings, const struct detect_process *process,
	const struct detect_thread *thread, const struct span *span) {
	if (thread->samples && thread->shares.gc >= MOST)
		return GC;
	if (percent_of(span->system_ns, span->user_ns + span->system_ns) >= 100 * MOST)
		return KERNEL;
	if (!thread->python)
		return NATIVE;
	if (!thread->samples)
		return UNKNOWN;
	if (thread->shares.native >= MOST)
		return NATIVE;
	return is_convoy(settings, process, thread) ? GIL_CONVOY : PYTHON_LOOP;
}

/* Return: why the cause is inferred; NULL where what was read proves it. */
static const char *find_doubt(enum cause cause, const struct detect_thread *thread, const struct span *span) {
	if (cause == UNKNOWN)
		return "no stack could be read: why the thread is busy is not known";
	if (cause == KERNEL || !thread->python)
		return NULL;
	if (thread->samples < ENOUGH_SAMPLES)
		return "fewer than 20 stack samples in the window";
	if (cause == NATIVE && !(span->user_ns + span->system_ns))
		return "user and system time are not known apart: it may be in system calls";
	if (cause == GIL_CONVOY)
		return "other threads wait for the GIL in most of their samples while it changes hands often";
	if (cause == PYTHON_LOOP && thread->shares.native < 0)
		return "native code was not looked at: it may be called from the lines shown";
	return NULL;
}

/* The verdict's words and numbers. */

/* The innermost Python frame of the hottest stack; without one, the innermost frame; or NULL. */
static const struct detect_frame *hot_frame(const struct detect_thread *thread) {
	const struct detect_stack *stack = thread->stacks;

	if (!thread->stacks_n || !stack->frames_n)
		return NULL;
	for (size_t i = 0; i < stack->frames_n; i++)
		if (stack->frames[i].lang == PYSPYD_PYTHON)
			return &stack->frames[i];
	return stack->frames;
}

static void write_summary(struct detect_verdict *verdict, const struct detect_thread *thread, const struct span *span,
	double cpu_percent, uint64_t duration_ns, const char *cause) {
	const struct detect_frame *frame = hot_frame(thread);
	struct strbuf sb = { 0 };
	char duration[32];

	detect_duration_text(duration_ns, duration, sizeof(duration));
	strbuf_adds(&sb, "spiking-thread: ");
	detect_add_name(&sb, thread->name);
	strbuf_addf(&sb, " (tid %d) uses %.0f %% of a core", (int)thread->tid, cpu_percent);
	if (percent_of(span->wait_ns, span->ns) >= WORTH_SAYING_PCT)
		strbuf_addf(&sb, " and waits for one %.0f %% of the time,", percent_of(span->wait_ns, span->ns));
	strbuf_addf(&sb, " for %s", duration);
	if (frame) {
		strbuf_adds(&sb, " in ");
		detect_add_place(&sb, *frame->qualname ? frame->qualname : frame->function, frame->file, frame->line);
	}
	strbuf_addf(&sb, ", %s", cause);
	snprintf(verdict->summary, sizeof(verdict->summary), "%s", strbuf_str(&sb));
	strbuf_deinit(&sb);
}

static void add_evidence(struct detect_verdict *verdict, const struct span *span, double cpu_percent,
	const struct detect_process *process, const char *cause) {
	uint64_t ticks_ns = span->user_ns + span->system_ns;

	detect_fact_number(verdict, "cpu_percent", cpu_percent);
	detect_fact_number(
		verdict, "user_percent", ticks_ns ? cpu_percent * (double)span->user_ns / (double)ticks_ns : -1);
	detect_fact_number(
		verdict, "system_percent", ticks_ns ? cpu_percent * (double)span->system_ns / (double)ticks_ns : -1);
	detect_fact_number(verdict, "waited_percent", percent_of(span->wait_ns, span->ns));
	detect_fact_number(verdict, "window_s", (double)span->ns / 1e9);
	detect_fact_text(verdict, "verdict", cause);
	detect_fact_number(verdict, "gil_switches_per_s", process->gil_switches_per_s);
}

static struct detect_verdict verdict_of(const struct track *track, enum detect_presence presence) {
	return (struct detect_verdict){
		.kind = "spiking-thread",
		.pattern = "Spiking Thread",
		.key = track->key,
		.presence = presence,
		.since_ns = track->since_ns,
	};
}

static int say_present(const struct track *track, const double *settings, const struct detect_input *input,
	const struct detect_thread *thread, detect_verdicts *verdicts) {
	struct detect_verdict verdict = verdict_of(track, DETECT_PRESENT);
	struct span span = span_shown(track);
	double cpu_percent = min_of(percent_of(span.run_ns, span.ns), 100.0);
	enum cause cause = find_cause(settings, input->process, thread, &span);

	verdict.fading = track->calm_ns;
	verdict.severity = input->process->expect_busy ? PYSPYD_INFO : PYSPYD_WARNING;
	verdict.parties[verdict.parties_n++] =
		(struct detect_party){ .thread = thread, .role = "spinning", .cpu_percent = cpu_percent };
	verdict.certain_why = find_doubt(cause, thread, &span);
	verdict.inferred = verdict.certain_why;
	verdict.advice = thread->python ? causes[cause].advice : not_python_advice;
	add_evidence(&verdict, &span, cpu_percent, input->process, causes[cause].name);
	write_summary(&verdict, thread, &span, cpu_percent, input->now_ns - track->since_ns, causes[cause].name);
	return vec_push(verdicts, verdict);
}

static int say_absent(const struct track *track, const char *ended, detect_verdicts *verdicts) {
	struct detect_verdict verdict = verdict_of(track, DETECT_ABSENT);

	verdict.ended = ended;
	return vec_push(verdicts, verdict);
}

/* The state machine. */

static struct track *find_track(struct state *state, const struct detect_thread *thread) {
	vec_foreach (track, &state->tracks)
		if (track->tid == thread->tid && track->start_ns == thread->start_ns)
			return track;
	return NULL;
}

static void drop_track(struct state *state, struct track *track) {
	*track = state->tracks.items[--state->tracks.n];
}

static void start_track(struct state *state, struct track *track, const double *settings,
	const struct detect_input *input, const struct detect_thread *thread) {
	*track = (struct track){
		.tid = thread->tid,
		.start_ns = thread->start_ns,
		.key = ++state->last_key,
		.since_ns = input->now_ns - min_of(thread->interval_ns, input->now_ns),
		.seen = true,
	};
	track->span = span_of(settings, thread, &track->lent_ns);
}

static bool begins(const double *settings, const struct detect_input *input, const struct detect_thread *thread) {
	uint64_t lent_ns = 0;
	struct span interval = span_of(settings, thread, &lent_ns);

	return !is_gap(input->process, thread) && percent_of(interval.claim_ns, interval.ns) >= settings[PCT];
}

/* The thread's interval goes into its candidate. Return: whether there still is one. */
static bool candidate_goes_on(struct state *state, struct track *track, const double *settings,
	const struct detect_input *input, const struct detect_thread *thread) {
	struct span interval = span_of(settings, thread, &track->lent_ns);

	if (!is_gap(input->process, thread)) {
		span_add(&track->span, &interval);
		if (percent_of(interval.claim_ns, interval.ns) >= settings[PCT] * settings[RESOLVE_PCT] / 100 &&
			percent_of(track->span.claim_ns, track->span.ns) >= settings[PCT])
			return true;
		if (begins(settings, input, thread)) {
			start_track(state, track, settings, input, thread);
			return true;
		}
	}
	drop_track(state, track);
	return false;
}

static void fault_goes_on(struct track *track, const double *settings, const struct detect_input *input,
	const struct detect_thread *thread) {
	struct span interval = span_of(settings, thread, &track->lent_ns);

	if (is_gap(input->process, thread)) {
		track->calm_ns = 0;
		return;
	}
	if (percent_of(interval.claim_ns, interval.ns) < settings[PCT] * settings[RESOLVE_PCT] / 100)
		track->calm_ns += interval.ns;
	else
		track->calm_ns = 0;
	span_add(&track->span, &interval);
	if ((double)track->span.ns < settings[FOR])
		return;
	track->span_before = track->span;
	track->span = (struct span){ 0 };
}

static bool lasts(const struct track *track, const double *settings) {
	double ran_ns = (double)track->span.run_ns, least = min_of(settings[PCT], (double)GOOD_PART_PCT) / 100;

	return (double)track->span.ns >= settings[FOR] && ran_ns >= least * settings[FOR];
}

static int look(struct state *state, const double *settings, const struct detect_input *input,
	const struct detect_thread *thread, detect_verdicts *verdicts) {
	struct track *track = find_track(state, thread);
	int r;

	if (!track) {
		if (!begins(settings, input, thread))
			return 0;
		r = vec_push(&state->tracks, (struct track){ 0 });
		if (r)
			return r;
		track = &state->tracks.items[state->tracks.n - 1];
		start_track(state, track, settings, input, thread);
	} else if (track->firing) {
		track->seen = true;
		fault_goes_on(track, settings, input, thread);
	} else {
		track->seen = true;
		if (!candidate_goes_on(state, track, settings, input, thread))
			return 0;
	}
	if (!track->firing && !lasts(track, settings))
		return 0;
	track->firing = true;
	if (!track->calm_ns || (double)track->calm_ns < settings[RESOLVE_FOR])
		return say_present(track, settings, input, thread, verdicts);
	r = say_absent(track, "calm", verdicts);
	if (!r)
		drop_track(state, track);
	return r;
}

static int forget_ended(struct state *state, detect_verdicts *verdicts) {
	for (size_t i = state->tracks.n; i > 0; i--) {
		struct track *track = &state->tracks.items[i - 1];
		int r = track->seen || !track->firing ? 0 : say_absent(track, "thread-ended", verdicts);

		if (r)
			return r;
		if (!track->seen)
			drop_track(state, track);
	}
	return 0;
}

static int decide(void *arg, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	struct state *state = arg;
	int r = 0;

	vec_foreach (track, &state->tracks)
		track->seen = false;
	for (size_t i = 0; i < input->process->threads_n; i++) {
		r = look(state, settings, input, &input->process->threads[i], verdicts);
		if (r)
			return r;
	}
	return forget_ended(state, verdicts);
}

const struct detector spiking_thread_detector = {
	.kind = "spiking-thread",
	.settings = settings_table,
	.state_bytes = sizeof(struct state),
	.state_deinit = state_deinit,
	.decide = decide,
};
