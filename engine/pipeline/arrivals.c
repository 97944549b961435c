/* SPDX-License-Identifier: MIT */
/* A process that executes a program is no Python yet: the loader has to map it, and the interpreter to set itself up.
 * So a look comes some milliseconds after the event, and others follow at growing distances while the answer is that it
 * may become one. Most programs on a host are others; they cost two short looks, and a thorough one only when they have
 * lived for a while and their file is not known.
 *
 * Events are not taken at once but some milliseconds after the first: a storm of them then costs as many wake-ups as it
 * has such stretches, not as many as it has events. */
#include "engine/pipeline/arrivals.h"

#include "engine/base/clock.h"
#include <errno.h>
#include <signal.h>
#include <time.h>

#define LOOKS_MAX 1024 /* processes that wait for one */
#define LOOKS_AT_ONCE 64
#define GATHER_NS (5 * NS_PER_MS)
#define FIRST_NS (15 * NS_PER_MS)
#define LAST_NS (4 * NS_PER_SEC)         /* what is still starting after that is left to the scans */
#define OTHER_NS (45 * NS_PER_MS)        /* what seems to be no Python: from the first look to the second, … */
#define OTHER_LAST_NS (1500 * NS_PER_MS) /* … and to the last */

struct look {
	pid_t pid;
	uint64_t since_ns, due_ns;
	unsigned others; /* answers that it seems to be no Python */
};

struct arrivals {
	struct bpf_events *events;
	VEC(struct look) looks;
	pid_vec watched; /* in no order */
	pid_vec executed;
	struct ends ends;
	uint64_t lost; /* as of the last question */
	bool overflowed;
};

int arrivals_new(struct bpf_events *events, struct arrivals **ret_arrivals) {
	struct arrivals *arrivals = calloc(1, sizeof(*arrivals));

	if (!arrivals) {
		bpf_events_free(events);
		return -ENOMEM;
	}
	arrivals->events = events;
	ends_init(&arrivals->ends);
	*ret_arrivals = arrivals;
	return 0;
}

void arrivals_free(struct arrivals *arrivals) {
	if (!arrivals)
		return;
	bpf_events_free(arrivals->events);
	vec_free(&arrivals->looks);
	vec_free(&arrivals->watched);
	vec_free(&arrivals->executed);
	ends_deinit(&arrivals->ends);
	free(arrivals);
}

bool arrivals_told(const struct arrivals *arrivals) {
	return arrivals->events;
}

static bool is_in(const pid_vec *pids, pid_t pid) {
	vec_foreach (one, pids)
		if (*one == pid)
			return true;
	return false;
}

static void take_out(pid_vec *pids, pid_t pid) {
	for (size_t i = 0; i < pids->n;)
		if (pids->items[i] == pid)
			pids->items[i] = pids->items[--pids->n];
		else
			i++;
}

void arrivals_watch(struct arrivals *arrivals, pid_t pid) {
	if (arrivals->events)
		bpf_events_watch(arrivals->events, pid, true);
	if (!is_in(&arrivals->watched, pid))
		(void)!vec_push(&arrivals->watched, pid);
}

void arrivals_forget(struct arrivals *arrivals, pid_t pid) {
	if (arrivals->events)
		bpf_events_watch(arrivals->events, pid, false);
	take_out(&arrivals->watched, pid);
	take_out(&arrivals->executed, pid);
	ends_forget(&arrivals->ends, pid);
}

/* Looks. */

void arrivals_add(struct arrivals *arrivals, pid_t pid, uint64_t now_ns) {
	const struct look look = { .pid = pid, .since_ns = now_ns, .due_ns = now_ns + FIRST_NS };

	vec_foreach (one, &arrivals->looks)
		if (one->pid == pid) {
			*one = look; /* another program by now */
			return;
		}
	if (arrivals->looks.n >= LOOKS_MAX || vec_push(&arrivals->looks, look))
		arrivals->overflowed = true;
}

/* Whether nothing is to follow the look that is due. */
static bool is_last(const struct look *look) {
	return look->others > 1 || look->due_ns - look->since_ns >= LAST_NS;
}

/* When the next look follows one whose answer left it open. */
static void put_off(struct look *look, enum discover_answer answer, uint64_t now_ns) {
	uint64_t age_ns = now_ns - look->since_ns;

	if (answer == DISCOVER_OTHER)
		look->due_ns = now_ns + (look->others++ ? OTHER_LAST_NS : OTHER_NS);
	else
		look->due_ns = now_ns + max_of(age_ns / 2, FIRST_NS);
}

size_t arrivals_look(struct arrivals *arrivals, uint64_t now_ns, arrivals_ask ask, void *userdata) {
	size_t asked = 0;

	for (size_t i = 0; i < arrivals->looks.n && asked < LOOKS_AT_ONCE;) {
		struct look look = arrivals->looks.items[i];
		bool last = is_last(&look);
		enum discover_answer answer;

		if (look.due_ns > now_ns) {
			i++;
			continue;
		}
		asked++;
		answer = ask(userdata, look.pid, last);
		if (last || answer == DISCOVER_DONE || answer == DISCOVER_DENIED) {
			arrivals->looks.items[i] = arrivals->looks.items[--arrivals->looks.n];
			continue;
		}
		put_off(&look, answer, now_ns);
		arrivals->looks.items[i++] = look; /* asking may have added others: they stand behind it */
	}
	return asked;
}

/* Events. */

void arrivals_feed(struct arrivals *arrivals, const struct pye_event *event, uint64_t now_ns) {
	pid_t pid = (pid_t)event->pid;

	switch (event->kind) {
	case PYE_EXEC:
		if (is_in(&arrivals->watched, pid) && !is_in(&arrivals->executed, pid))
			(void)!vec_push(&arrivals->executed, pid); /* is noticed later where there is no memory */
		arrivals_add(arrivals, pid, now_ns);
		break;
	case PYE_FORK: arrivals_add(arrivals, pid, now_ns); break;
	case PYE_EXIT: ends_add(&arrivals->ends, event); break;
	default: break;
	}
}

bool arrivals_next_exec(struct arrivals *arrivals, pid_t *ret_pid) {
	if (!arrivals->executed.n)
		return false;
	*ret_pid = arrivals->executed.items[--arrivals->executed.n];
	return true;
}

static void on_event(void *userdata, const struct pye_event *event) {
	arrivals_feed(userdata, event, clock_mono_ns());
}

static void take(struct arrivals *arrivals) {
	if (arrivals->events)
		bpf_events_take(arrivals->events, on_event, arrivals);
}

static void sleep_ns(uint64_t ns) {
	nanosleep(&(struct timespec){ .tv_sec = (time_t)(ns / NS_PER_SEC), .tv_nsec = (long)(ns % NS_PER_SEC) }, NULL);
}

static uint64_t next_due(const struct arrivals *arrivals, uint64_t until_ns) {
	vec_foreach (look, &arrivals->looks)
		until_ns = min_of(until_ns, look->due_ns);
	return until_ns;
}

void arrivals_wait(struct arrivals *arrivals, uint64_t until_ns) {
	uint64_t now = clock_mono_ns(), due = next_due(arrivals, until_ns);
	uint64_t ns = due > now ? due - now : 0;

	if (!arrivals->events) {
		sleep_ns(ns);
		return;
	}
	if (bpf_events_wait(arrivals->events, (int)min_of((ns + NS_PER_MS - 1) / NS_PER_MS, 1000ULL)))
		sleep_ns(GATHER_NS);
	take(arrivals);
}

/* Ends. */

/* The end is told before anybody can see that the process is gone, but not before its memory is, which may take a while
 * where it has much. */
int arrivals_end(struct arrivals *arrivals, const struct proc *proc, struct detect_end *ret_end) {
	bool alive = proc_alive(proc);

	take(arrivals);
	if (!ends_get(&arrivals->ends, proc->pid, proc->start_ticks, ret_end))
		return alive && (arrivals->events || ends_is_child(proc->pid)) ? ARRIVALS_E_LATER : ARRIVALS_E_UNKNOWN;
	if (ret_end->signal == SIGKILL)
		ret_end->oom = ends_oom(&arrivals->ends);
	return 0;
}

void arrivals_counts(const struct arrivals *arrivals, uint64_t *ret_received, uint64_t *ret_lost) {
	uint64_t counts[PYE_COUNTS] = { 0 };

	if (arrivals->events)
		bpf_events_counts(arrivals->events, counts);
	*ret_received = counts[PYE_TOLD];
	*ret_lost = counts[PYE_LIMITED] + counts[PYE_RING_FULL];
}

bool arrivals_lost(struct arrivals *arrivals) {
	uint64_t received, lost, before = arrivals->lost;
	bool overflowed = arrivals->overflowed;

	arrivals_counts(arrivals, &received, &lost);
	arrivals->lost = lost;
	arrivals->overflowed = false;
	return lost != before || overflowed;
}
