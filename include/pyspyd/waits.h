/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WAITS_H
#define PYSPYD_WAITS_H

#include "pyspyd/err.h"
#include "pyspyd/stack.h"

/* The wait graph of a process: who waits for what, and who could end it.
 *
 * Nodes are threads, asyncio tasks, processes and resources (a lock, a pipe, a future, a pool). An edge from a to b
 * says that a goes on when b does: a thread waits for a resource, a resource is held by (or can only be served by) a
 * thread. Each node says by itself what its edges mean: it is free, or needs any of them, or all, or nobody can help
 * it. From that follows who is stuck for good: a node that is neither free nor reached by progress
 * (waits_solve). */

enum pyspyd_wait_kind {
	PYSPYD_WAIT_THREAD,
	PYSPYD_WAIT_TASK,     /* of asyncio */
	PYSPYD_WAIT_PROCESS,  /* as far as others wait for it: its end, or any act of one of its threads */
	PYSPYD_WAIT_RESOURCE, /* a lock, pipe, socket, file lock, future, pool, … */
};

enum pyspyd_wait_rule {
	PYSPYD_WAIT_FREE, /* can go on by itself: it runs, its wait ends in time, the other side is elsewhere or unknown
			   */
	PYSPYD_WAIT_ANY,  /* goes on as soon as any of those it has an edge to does; without an edge: free */
	PYSPYD_WAIT_ALL,  /* goes on only when all of them do; without an edge: free */
	PYSPYD_WAIT_NEVER, /* nobody is left who could end it: the holder has ended */
};

struct pyspyd_wait_node {
	enum pyspyd_wait_kind kind;
	enum pyspyd_wait_rule rule;
	uint64_t key;   /* the same in every look at the same thing, on this host */
	uint64_t stamp; /* of a thread or task: another one when it ran in between, or waits elsewhere; 0 for others */
	char *type;     /* machine's word: "thread", "task", "process", "Lock", "RLock", "GIL", "mutex", "pipe" … */
	char *label;    /* people's words: a thread's or task's name, "Lock 0x7f…", "pipe:[1234]", "10.1.2.3:5432" */
	char *fault;    /* with NEVER: why nobody is left ("its holder, thread 123, has ended"); else NULL */
	pid_t pid, tid; /* of a thread, a process; of a resource: the process it is private to, or 0 */
	uint64_t ident; /* of a Python thread */
	uint64_t address;   /* of the object in the target; 0 where it has none */
	char state;         /* of a thread: the kernel's letter; else 0 */
	bool python;        /* a thread that Python knows */
	bool main;          /* the main thread of its process */
	bool timed;         /* its wait has a timeout */
	bool retry;         /* it waits at a point where programs try again: a timed acquire, a short sleep */
	bool gil_waiter;    /* wakes every 5 ms and still waits */
	const char *idle;   /* static; waits where programs wait for work ("queue worker", "select"), else NULL */
	uint64_t run_ns;    /* CPU time so far, of a thread; UINT64_MAX where unknown */
	uint64_t waited_ns; /* as far as it is known by looking; 0 at the first look */
	struct pyspyd_frame *frames; /* of a thread or task, most recent call first; may be empty */
	size_t frames_n;
	size_t site; /* index of the frame that tells people where it is: the innermost of the program's own */
	bool native; /* native frames were asked for: `frames` has both kinds merged, and what follows as in
			pyspyd_thread */
	const char *native_end;
	bool disagree;
	/* filled by waits_solve */
	bool stuck;    /* nothing that is left to happen in the graph lets it go on */
	uint32_t knot; /* index of the knot it is part of, UINT32_MAX none */
};

struct pyspyd_wait_edge {
	uint32_t from, to; /* indices into nodes */
	char *expression;  /* how the waiting frame names the resource ("self.guard"), or NULL */
	bool inferred;     /* else read; */
	char *why;         /* … with the reason; NULL else */
};

enum pyspyd_knot_kind {
	PYSPYD_KNOT_CYCLE,  /* several threads, tasks or processes wait for each other */
	PYSPYD_KNOT_SELF,   /* one waits for what it holds itself */
	PYSPYD_KNOT_ORPHAN, /* the end of the chain is a resource that nobody is left to release */
};

/* The root of a blockage: stuck nodes that wait for nothing outside their own set. */
struct pyspyd_wait_knot {
	enum pyspyd_knot_kind kind;
	uint64_t key;    /* of its members and edges: the same for the same knot in the next look */
	uint64_t stamp;  /* of its members' stamps: the same when none of them ran in between */
	bool inferred;   /* one of the edges that make it is */
	bool open;       /* SELF: that its thread holds the lock is inferred, and others go on who might release it */
	bool confirmed;  /* stood in the look before too, and nobody ran in between */
	uint32_t *nodes; /* a cycle in the order of its edges, beginning with a thread where there is one; else: threads
			    and tasks that wait for something to happen, those that wait for others to end, the rest,
			    each in the order of the graph. Orphan: the resource, then those who wait for it directly */
	size_t nodes_n;
	uint32_t *victims; /* stuck nodes that are not members and wait, however indirectly, for it */
	size_t victims_n;
};

/* An asyncio event loop and the thread that runs it. */
struct pyspyd_wait_loop {
	pid_t pid, tid;
	uint64_t address;
	bool polling;           /* in select or epoll_wait: everything ready was done */
	uint64_t turn;          /* identity of the callback that it runs now; 0 unknown */
	uint64_t turn_began_ns; /* CLOCK_MONOTONIC, when the present round of callbacks began; 0 unknown */
	uint64_t ready;         /* callbacks that wait for their turn */
	uint64_t overdue;       /* timers that should have fired */
	uint64_t tasks;         /* pending ones */
};

struct pyspyd_wait_gil {
	pid_t pid;
	uint64_t interpreter; /* id */
	pid_t holder;         /* kernel's thread id; 0 nobody */
	uint64_t switches;    /* since the process began; 0 where the version has no counter */
	uint32_t waiters;
};

struct pyspyd_waits {
	struct pyspyd_process process; /* the one asked for */
	uint64_t look_ns;              /* CLOCK_BOOTTIME of the look */
	uint64_t cost_ns;              /* that it took */
	struct pyspyd_wait_node *nodes;
	size_t nodes_n;
	struct pyspyd_wait_edge *edges;
	size_t edges_n;
	struct pyspyd_wait_knot *knots;
	size_t knots_n;
	struct pyspyd_wait_loop *loops;
	size_t loops_n;
	struct pyspyd_wait_gil *gils;
	size_t gils_n;
	char **notes; /* what could not be known, a sentence each */
	size_t notes_n;
	bool incomplete; /* a limit was met, or a process that matters could not be read */
};

struct pyspyd_waits_options {
	struct pyspyd_core_source core; /* with a file: the process in it, and `pid` does not matter */
	uint64_t between_ns;     /* looks twice, that far apart, so that what moved is told from what stands; 0: once */
	const char *const *park; /* NULL-terminated "MODULE:QUALNAME": further points where programs wait for
				    work; may be NULL */
	bool native;             /* native and kernel frames of threads that sleep; nobody is stopped for them */
};

/* Looks at a live process and at those that it waits for, or at a dead one alone. With two looks the result is the
 * second one, knots that the first had not are marked unconfirmed. Return: 0; PYSPYD_E_GONE, _DENIED, _UNSUPPORTED,
 * _STARTING, _USAGE (park); negative errno. *ret_waits is the caller's. */
int pyspyd_waits_look(
	pid_t pid, const struct pyspyd_waits_options *options, struct pyspyd_waits **ret_waits, struct err *err);
void pyspyd_waits_free(struct pyspyd_waits *waits);

/* pyspyd.waits/1 in one line; a tree of chains for people; Graphviz. The caller's to free(); NULL when out of memory.
 */
char *pyspyd_waits_json(const struct pyspyd_waits *waits);
char *pyspyd_waits_text(const struct pyspyd_waits *waits, bool colour);
char *pyspyd_waits_dot(const struct pyspyd_waits *waits);

/* One knot in one line: "deadlock: Thread-1 (transfer, bank.py:12) waits for Lock 0x7f… `dst.guard` held by Thread-2
 * (transfer, bank.py:12), which waits for …". Printable. The caller's to free(); NULL when out of memory. */
char *pyspyd_wait_knot_text(const struct pyspyd_waits *waits, const struct pyspyd_wait_knot *knot);

#endif
