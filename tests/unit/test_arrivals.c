/* SPDX-License-Identifier: MIT */
/* New processes and ends, fed with events: who is looked at when, for how long, and what is said of an end. */
#include "engine/pipeline/arrivals.h"

#include "engine/base/clock.h"
#include "engine/proc/memory.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define T (1000 * NS_PER_SEC)
#define MS NS_PER_MS

/* Answers, and what was asked. */
struct asked {
	enum discover_answer answer;
	size_t n;
	pid_t pids[64];
	bool last;
	struct arrivals *grows; /* asking adds a process */
};

static enum discover_answer ask(void *userdata, pid_t pid, bool last) {
	struct asked *asked = userdata;

	if (asked->n < 64)
		asked->pids[asked->n] = pid;
	asked->n++;
	asked->last = last;
	if (asked->grows)
		arrivals_add(asked->grows, pid + 1000, T);
	asked->grows = NULL;
	return asked->answer;
}

static struct arrivals *fresh(void) {
	struct arrivals *arrivals;

	cr_assert_eq(arrivals_new(NULL, &arrivals), 0);
	return arrivals;
}

static void tell(struct arrivals *arrivals, enum pye_kind kind, uint32_t pid, uint64_t now_ns) {
	arrivals_feed(arrivals, &(struct pye_event){ .kind = kind, .pid = pid }, now_ns);
}

/* How often a process is asked for from T on, until `until_ns`, in steps of a millisecond. */
static size_t asked_until(struct arrivals *arrivals, struct asked *asked, uint64_t until_ns) {
	size_t before = asked->n;

	for (uint64_t now = T; now <= until_ns; now += MS)
		arrivals_look(arrivals, now, ask, asked);
	return asked->n - before;
}

Test(arrivals, an_exec_is_looked_at_within_50_ms_and_once_where_that_settles_it) {
	struct asked asked = { .answer = DISCOVER_DONE };
	struct arrivals *arrivals = fresh();

	tell(arrivals, PYE_EXEC, 7, T);
	cr_assert_eq(arrivals_look(arrivals, T, ask, &asked), 0);
	cr_assert_eq(arrivals_look(arrivals, T + 50 * MS, ask, &asked), 1);
	cr_assert_eq(asked.pids[0], 7);
	cr_assert_eq(asked_until(arrivals, &asked, T + 10 * NS_PER_SEC), 0);
	arrivals_free(arrivals);
}

Test(arrivals, what_is_starting_is_asked_again_with_growing_distance_and_not_for_ever) {
	struct asked asked = { .answer = DISCOVER_LATER };
	struct arrivals *arrivals = fresh();
	size_t first, all;

	tell(arrivals, PYE_FORK, 7, T);
	first = asked_until(arrivals, &asked, T + 100 * MS);
	cr_assert(first >= 3 && first <= 6, "%zu", first);
	cr_assert_not(asked.last);
	all = first + asked_until(arrivals, &asked, T + 60 * NS_PER_SEC);
	cr_assert(asked.last);
	cr_assert(all <= 20, "%zu", all);
	arrivals_free(arrivals);
}

Test(arrivals, what_seems_to_be_no_python_costs_two_short_looks_and_a_last_one) {
	struct asked asked = { .answer = DISCOVER_OTHER };
	struct arrivals *arrivals = fresh();

	tell(arrivals, PYE_EXEC, 7, T);
	cr_assert_eq(asked_until(arrivals, &asked, T + 100 * MS), 2);
	cr_assert_not(asked.last);
	cr_assert_eq(asked_until(arrivals, &asked, T + 60 * NS_PER_SEC), 1);
	cr_assert(asked.last);
	arrivals_free(arrivals);
}

Test(arrivals, another_exec_begins_anew) {
	struct asked asked = { .answer = DISCOVER_OTHER };
	struct arrivals *arrivals = fresh();

	tell(arrivals, PYE_EXEC, 7, T);
	asked_until(arrivals, &asked, T + 1000 * MS);
	tell(arrivals, PYE_EXEC, 7, T + 1000 * MS);
	cr_assert_eq(asked_until(arrivals, &asked, T + 1100 * MS), 2);
	cr_assert_not(asked.last);
	arrivals_free(arrivals);
}

Test(arrivals, too_many_at_once_are_a_loss_and_said_once) {
	struct arrivals *arrivals = fresh();

	cr_assert_not(arrivals_lost(arrivals));
	for (uint32_t pid = 1; pid <= 5000; pid++)
		tell(arrivals, PYE_EXEC, pid, T);
	cr_assert(arrivals_lost(arrivals));
	cr_assert_not(arrivals_lost(arrivals));
	arrivals_free(arrivals);
}

Test(arrivals, all_are_asked_for_and_asking_may_add_others) {
	struct arrivals *arrivals = fresh();
	struct asked asked = { .answer = DISCOVER_DONE, .grows = arrivals };

	for (uint32_t pid = 1; pid <= 500; pid++)
		tell(arrivals, PYE_FORK, pid, T);
	cr_assert_eq(asked_until(arrivals, &asked, T + NS_PER_SEC), 501);
	arrivals_free(arrivals);
}

Test(arrivals, execs_of_watched_processes_are_told_once) {
	struct arrivals *arrivals = fresh();
	pid_t pid;

	tell(arrivals, PYE_EXEC, 7, T);
	cr_assert_not(arrivals_next_exec(arrivals, &pid));
	arrivals_watch(arrivals, 7);
	tell(arrivals, PYE_EXEC, 7, T);
	tell(arrivals, PYE_EXEC, 7, T);
	cr_assert(arrivals_next_exec(arrivals, &pid));
	cr_assert_eq(pid, 7);
	cr_assert_not(arrivals_next_exec(arrivals, &pid));
	tell(arrivals, PYE_EXEC, 7, T);
	arrivals_forget(arrivals, 7);
	cr_assert_not(arrivals_next_exec(arrivals, &pid));
	arrivals_free(arrivals);
}

/* Ends. */

static struct pye_event end_event(uint32_t pid, uint64_t start_ns, uint32_t status) {
	return (struct pye_event){ .kind = PYE_EXIT,
		.pid = pid,
		.start_ns = start_ns,
		.status = status,
		.parent = 1,
		.sender_name = "kubelet" };
}

Test(ends, statuses_of_wait) {
	struct detect_end end = ends_of_status(3 << 8);

	cr_assert_eq(end.signal, 0);
	cr_assert_eq(end.code, 3);
	end = ends_of_status(SIGSEGV | 0x80);
	cr_assert_eq(end.signal, SIGSEGV);
	cr_assert(end.core_dumped);
	end = ends_of_status(SIGKILL);
	cr_assert_eq(end.signal, SIGKILL);
	cr_assert_not(end.core_dumped);
}

/* Numbers that no process here has: what is not told is asked of the kernel. */
#define NOBODY 0x3ffffffU

Test(ends, a_pid_that_was_used_again_does_not_answer_for_the_one_before) {
	struct pye_event first = end_event(NOBODY, 100 * NS_PER_SEC, SIGSEGV),
			 second = end_event(NOBODY, 200 * NS_PER_SEC, 0);
	uint64_t hz = (uint64_t)sysconf(_SC_CLK_TCK);
	struct ends ends = { 0 };
	struct detect_end end;

	ends_add(&ends, &first);
	ends_add(&ends, &second);
	cr_assert(ends_get(&ends, NOBODY, 100 * hz, &end));
	cr_assert_eq(end.signal, SIGSEGV);
	cr_assert(ends_get(&ends, NOBODY, 200 * hz, &end));
	cr_assert_eq(end.signal, 0);
	cr_assert_not(ends_get(&ends, NOBODY, 300 * hz, &end));
	ends_forget(&ends, NOBODY);
	cr_assert_not(ends_get(&ends, NOBODY, 100 * hz, &end));
	ends_deinit(&ends);
}

Test(ends, what_was_seen_of_the_signal) {
	struct pye_event event = end_event(NOBODY, 0, SIGKILL);
	struct ends ends = { 0 };
	struct detect_end end;

	event.flags = PYE_SENT | PYE_THREAD | PYE_ADDRESS;
	event.sender = 12;
	event.thread = 13;
	event.address = 14;
	memset(event.sender_name, 'x', sizeof(event.sender_name)); /* unterminated */
	ends_add(&ends, &event);
	cr_assert(ends_get(&ends, NOBODY, 0, &end));
	cr_assert(end.sent_known && !end.by_kernel && end.address_known);
	cr_assert_eq(end.parent, 1);
	cr_assert_eq(end.sender, 12);
	cr_assert_eq(end.thread, 13);
	cr_assert_eq(end.address, 14);
	cr_assert_eq(strnlen(end.sender_name, 16), 15);
	ends_deinit(&ends);
}

Test(ends, there_is_a_limit) {
	struct ends ends = { 0 };

	for (uint32_t i = 0; i < 20000; i++) {
		struct pye_event event = end_event(NOBODY + i, 0, 0);

		ends_add(&ends, &event);
	}
	cr_assert(ends.items.n <= 4096);
	ends_deinit(&ends);
}

Test(ends, of_a_child_the_kernel_is_asked_and_the_child_stays_to_be_reaped) {
	struct ends ends = { 0 };
	struct detect_end end;
	siginfo_t info;
	int status;
	pid_t pid = fork();

	if (!pid) {
		raise(SIGKILL);
		_exit(0);
	}
	cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	cr_assert(ends_is_child(pid));
	cr_assert(ends_get(&ends, pid, 1, &end));
	cr_assert_eq(end.signal, SIGKILL);
	cr_assert_not(end.sent_known);
	cr_assert_eq(end.parent, getpid());
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_not(ends_is_child(pid));
	cr_assert_not(ends_get(&ends, pid, 1, &end));
}

Test(ends, count_of_kills_for_want_of_memory) {
	static const char text[] = "pgmajfault 3\ndrop_slab 0\noom_kill 17\nnuma_hint 0\n";
	uint64_t kills = 1;

	cr_assert_eq(memory_oom_kills_parse(text, strlen(text), &kills), 0);
	cr_assert_eq(kills, 17);
	cr_assert_eq(memory_oom_kills_parse(text, strlen(text) - 14, &kills), -EINVAL);
	cr_assert_eq(kills, 17);
	cr_assert_eq(memory_oom_kills_parse("xoom_kill 5\n", 12, &kills), -EINVAL);
	cr_assert_eq(memory_oom_kills_parse("a 1\noom_kill \n", 14, &kills), -EINVAL);
	cr_assert_eq(memory_oom_kills_parse("", 0, &kills), -EINVAL);
}
