/* SPDX-License-Identifier: MIT */
/* crash: a process has died of something that it did not mean to.
 *
 * Of a signal that stands for a fault (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS), for giving up (SIGABRT), or
 * for a limit (SIGXCPU, SIGXFSZ); or of SIGKILL. A supervisor that ends its worker with SIGKILL does its duty: that is
 * an information; any other sender's is a warning, and the kernel's, for want of memory, is critical. Signals by which
 * people and managers ask a process to end (SIGTERM, SIGINT, SIGHUP, …) are no crash.
 *
 * Every status of an exit is the program's own choice, 1 too. Only where it was seen to print an unhandled exception in
 * its last sample is that one told: up to 3.12 nothing of Python does that, so it goes unnoticed there, and on later
 * versions most of the time.
 *
 * There are no thresholds, and nothing to remember: a process ends once. */
#include "engine/detect/detect.h"
#include "engine/detect/words.h"

#include "engine/base/util.h"
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { KILLED };

static const struct detect_setting settings_table[] = {
	[KILLED] = { "killed", DETECT_NUMBERS, 1, 0, 1, "1: SIGKILL counts; 0: only the kernel's for want of memory" },
	{ 0 },
};

struct state {
	char address[20]; /* stands as long as the verdict */
};

enum cause { NO_CRASH, FAULT, KILL, EXCEPTION };

static const struct {
	int signal;
	const char *name, *means;
	enum pyspyd_severity severity;
} signals[] = {
	{ SIGSEGV, "SIGSEGV", "a bad memory access", PYSPYD_CRITICAL },
	{ SIGBUS, "SIGBUS", "a memory access that failed", PYSPYD_CRITICAL },
	{ SIGFPE, "SIGFPE", "a bad calculation", PYSPYD_CRITICAL },
	{ SIGILL, "SIGILL", "an instruction that does not exist", PYSPYD_CRITICAL },
	{ SIGTRAP, "SIGTRAP", "a trap", PYSPYD_CRITICAL },
	{ SIGSYS, "SIGSYS", "a system call that is forbidden", PYSPYD_CRITICAL },
	{ SIGABRT, "SIGABRT", "abort()", PYSPYD_CRITICAL },
	{ SIGXCPU, "SIGXCPU", "its limit of CPU time", PYSPYD_WARNING },
	{ SIGXFSZ, "SIGXFSZ", "its limit of file size", PYSPYD_WARNING },
	{ SIGKILL, "SIGKILL", "a kill", PYSPYD_WARNING },
};

/* Return: the index; ARRAY_SIZE(signals): none of these. */
static size_t find_signal(int number) {
	size_t i = 0;

	while (i < ARRAY_SIZE(signals) && signals[i].signal != number)
		i++;
	return i;
}

static bool is_from_outside(const struct detect_input *input) {
	const struct detect_end *end = input->end;

	return end->sent_known && !end->by_kernel && end->sender != input->pid;
}

static bool is_from_parent(const struct detect_input *input) {
	return is_from_outside(input) && input->end->sender && input->end->sender == input->end->parent;
}

/* The kernel kills for want of memory, and, as rarely, with the first process of a PID namespace. */
static bool is_oom(const struct detect_end *end) {
	return end->signal == SIGKILL && end->oom && (!end->sent_known || end->by_kernel);
}

/* From Python 3.13 on the interpreter prints by this function of the standard library, which nothing else calls: with
 * no caller in Python it is the end of a thread. */
static bool prints_exception(const struct detect_thread *thread) {
	const struct detect_stack *stack = thread->stacks_n ? thread->stacks : NULL;
	const struct detect_frame *root = stack && stack->frames_n ? &stack->frames[stack->frames_n - 1] : NULL;

	return root && !stack->truncated && !strcmp(root->module, "traceback") &&
		!strcmp(root->function, "_print_exception_bltin");
}

static const struct detect_thread *main_thread(const struct detect_input *input) {
	for (size_t i = 0; i < input->process->threads_n; i++)
		if (input->process->threads[i].tid == input->pid)
			return &input->process->threads[i];
	return NULL;
}

static enum cause cause_of(const struct detect_input *input, const double *settings) {
	const struct detect_end *end = input->end;
	const struct detect_thread *thread = main_thread(input);

	if (end->signal == SIGKILL)
		return settings[KILLED] > 0 || is_oom(end) ? KILL : NO_CRASH;
	if (end->signal)
		return find_signal(end->signal) < ARRAY_SIZE(signals) ? FAULT : NO_CRASH;
	return end->code == 1 && thread && prints_exception(thread) ? EXCEPTION : NO_CRASH;
}

static enum pyspyd_severity severity_of(const struct detect_input *input, enum cause cause) {
	if (cause == EXCEPTION)
		return PYSPYD_WARNING;
	if (cause == KILL)
		return is_oom(input->end) ? PYSPYD_CRITICAL : is_from_parent(input) ? PYSPYD_INFO : PYSPYD_WARNING;
	return is_from_outside(input) ? PYSPYD_WARNING : signals[find_signal(input->end->signal)].severity;
}

/* The one that stumbled comes first: its stack is the site. Without one, the main thread. */
static void add_parties(struct detect_verdict *verdict, const struct detect_input *input) {
	const struct detect_process *process = input->process;
	pid_t first = input->end->thread ? input->end->thread : input->pid;

	for (size_t i = 0; i < process->threads_n; i++)
		if (process->threads[i].tid == first)
			detect_party_thread(verdict, &process->threads[i], input->end->thread ? "crashed" : "ended");
	for (size_t i = 0; i < process->threads_n; i++)
		if (process->threads[i].tid != first && process->threads[i].stacks_n)
			detect_party_thread(verdict, &process->threads[i], "ended");
}

/* Words. */

static const char *sender_kind(const struct detect_input *input) {
	const struct detect_end *end = input->end;

	if (!end->signal || !end->sent_known)
		return NULL;
	if (end->by_kernel)
		return "kernel";
	if (end->sender == input->pid)
		return "itself";
	return is_from_parent(input) ? "parent" : "other";
}

static void add_facts(struct detect_verdict *verdict, const struct detect_input *input, struct state *state) {
	const struct detect_process *process = input->process;
	const struct detect_end *end = input->end;
	size_t i = find_signal(end->signal);
	const char *sender = sender_kind(input);

	detect_fact_text(verdict, "signal", end->signal && i < ARRAY_SIZE(signals) ? signals[i].name : NULL);
	detect_fact_count(verdict, "status", end->signal ? UINT64_MAX : (uint64_t)end->code);
	detect_fact_text(verdict, "core_dumped", end->signal ? end->core_dumped ? "yes" : "no" : NULL);
	detect_fact_text(verdict, "sent_by", sender);
	if (is_from_outside(input)) {
		detect_fact_count(verdict, "sender_pid", end->sender ? (uint64_t)end->sender : UINT64_MAX);
		detect_fact_text(verdict, "sender_name", end->sender_name);
	}
	if (end->address_known) {
		snprintf(state->address, sizeof(state->address), "0x%" PRIx64, end->address);
		detect_fact_text(verdict, "address", state->address);
	}
	detect_fact_number(verdict, "uptime_s",
		process->start_ns && input->now_ns > process->start_ns
			? (double)(input->now_ns - process->start_ns) / 1e9
			: -1);
	detect_fact_count(verdict, "private_bytes", process->private_bytes);
	detect_fact_count(verdict, "fds", process->fds);
	detect_fact_count(verdict, "threads", process->threads_total);
}

static void add_sender(struct strbuf *sb, const struct detect_input *input) {
	const struct detect_end *end = input->end;

	if (end->signal == SIGKILL && end->sent_known && !end->by_kernel && end->sender == input->pid)
		strbuf_adds(sb, ", sent by itself");
	if (!is_from_outside(input))
		return;
	strbuf_adds(sb, is_from_parent(input) ? ", sent by its parent " : ", sent by ");
	detect_add_name(sb, end->sender_name);
	if (end->sender)
		strbuf_addf(sb, " (pid %d)", (int)end->sender);
	else
		strbuf_adds(sb, ", outside of this PID namespace");
}

static const char *advice_of(const struct detect_input *input, enum cause cause) {
	if (cause == EXCEPTION)
		return "Its standard error has the traceback (`journalctl _PID=PID`).";
	if (is_oom(input->end))
		return "`journalctl -k` has the kernel's account. Give its control group or the machine more memory; "
		       "what grew is what memory-leak and `pyspyd heap` are for.";
	if (cause == KILL)
		return is_from_parent(input) ? "Its parent's log says why, most likely that it did not answer or end."
					     : "Whoever sent the signal knows why; no fault of the program's was seen.";
	return is_from_outside(input)
		? "Whoever sent it knows why: watchdogs do so to a process that does not answer."
		: "The fault is in native code (an extension module, ctypes, the interpreter), not in Python: "
		  "`coredumpctl debug PID` where a core was kept; PYTHONFAULTHANDLER=1 makes the next one print its "
		  "stacks.";
}

static void add_words(struct strbuf *sb, const struct detect_input *input, enum cause cause) {
	const struct detect_end *end = input->end;
	size_t i = find_signal(end->signal);

	strbuf_adds(sb, "crash: the process ");
	if (cause == EXCEPTION) {
		strbuf_addf(sb, "exited with status %d after an unhandled exception", end->code);
	} else if (is_oom(end)) {
		strbuf_adds(sb, "was killed by the kernel for want of memory");
		if (input->process->private_bytes != UINT64_MAX) {
			strbuf_adds(sb, "; it had ");
			detect_add_bytes(sb, (double)input->process->private_bytes);
		}
	} else if (cause == KILL) {
		strbuf_adds(sb, "was killed (SIGKILL)");
	} else {
		strbuf_addf(sb, "died of %s", signals[i].name);
		if (!is_from_outside(input))
			strbuf_addf(sb, " (%s)", signals[i].means);
	}
	add_sender(sb, input);
	if (end->core_dumped)
		strbuf_adds(sb, ", core dumped");
}

/* Where the first thread was, if any is known. */
static void add_place(struct strbuf *sb, const struct detect_verdict *verdict) {
	if (!verdict->parties_n || !verdict->parties[0].thread->stacks_n)
		return;
	strbuf_adds(sb, "; ");
	detect_add_name(sb, verdict->parties[0].thread->name);
	strbuf_adds(sb, " was last seen");
	detect_add_party_place(sb, verdict, &verdict->parties[0]);
}

static void set_certainty(struct detect_verdict *verdict, const struct detect_input *input, enum cause cause) {
	verdict->inferred = cause == EXCEPTION || is_oom(input->end);
	if (verdict->inferred)
		verdict->certain_why = cause == EXCEPTION
			? "its last sample shows the interpreter as it prints an exception"
			: "the kernel's count of such kills went up, and nobody else was seen to send the signal";
}

static int decide(void *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts) {
	enum cause cause = cause_of(input, settings);
	struct detect_verdict verdict = {
		.kind = "crash", .pattern = "Crash", .key = 1, .since_ns = input->now_ns, .presence = DETECT_PRESENT
	};
	struct strbuf sb = { 0 };
	int r;

	if (cause == NO_CRASH)
		return 0;
	verdict.severity = severity_of(input, cause);
	verdict.advice = advice_of(input, cause);
	set_certainty(&verdict, input, cause);
	add_parties(&verdict, input);
	add_facts(&verdict, input, state);
	add_words(&sb, input, cause);
	add_place(&sb, &verdict);
	r = detect_set_summary(&verdict, &sb, "");
	return r ? r : vec_push(verdicts, verdict);
}

const struct detector crash_detector = {
	.kind = "crash",
	.at_end = true,
	.settings = settings_table,
	.state_bytes = sizeof(struct state),
	.decide = decide,
};
