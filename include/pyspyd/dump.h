/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DUMP_H
#define PYSPYD_DUMP_H

#include "pyspyd/err.h"
#include "pyspyd/objects.h"
#include "pyspyd/stack.h"

/* All threads of a process, now. */

struct pyspyd_dump_options {
	struct pyspyd_core_source core; /* with a file: the process in it, and `pid` does not matter */
	bool locals;                    /* variables of every frame */
	bool unmask;                    /* show values that are masked by name */
	bool async;                     /* the event loops of asyncio, and their tasks */
	bool native;   /* native and kernel frames, and threads that Python does not know. A thread that runs is stopped
			  (ptrace) while its stack is copied, for less than a millisecond */
	bool blocking; /* stop the threads (ptrace) while they are read; never longer than 100 ms */
};

/* How well the reading went; shown with every result. */
struct pyspyd_accuracy {
	const char *source; /* "bpf" (in the timer interrupt of the thread's own CPU), "vm" (from the target's own CPU),
			       "vm-remote" (from another), "blocking" */
	const char *priority; /* "fifo", "nice", "none"; NULL with bpf */
	uint64_t expected;    /* ticks of the schedule; with bpf, interrupts of all CPUs */
	uint64_t looks;       /* those that took place; with bpf, in which the program ran */
	uint64_t samples;     /* stacks counted, idle ones included */
	uint64_t idle;        /* counted again without reading: the thread had not run */
	uint64_t torn;        /* parts did not belong together; discarded */
	uint64_t discarded;   /* moved to another CPU, the reader was interrupted or too slow, the code was freed;
				 discarded */
	uint64_t late;        /* ticks that came more than half a period late */
	uint64_t unreadable;  /* memory was not there */
	uint64_t truncated;   /* deeper than the limit */
	uint64_t unknown;     /* a watched process ran a thread that has no Python: no stack, no sample (bpf) */
	bool kernel_hidden;   /* the kernel's functions were asked for, and it does not show their addresses */
};

/* Who takes the stacks of threads that run. */
enum pyspyd_source {
	PYSPYD_SOURCE_AUTO, /* eBPF where it can be had */
	PYSPYD_SOURCE_VM,   /* reading memory, from user space */
	PYSPYD_SOURCE_BPF,  /* eBPF, or fail and say why */
};

struct pyspyd_loop {
	uint64_t address;
	pid_t tid;          /* of the thread that runs it; 0: none does now */
	bool polling;       /* waits in select or epoll_wait; else it is in a callback */
	uint64_t ready;     /* callbacks that wait for their turn */
	uint64_t scheduled; /* timers */
	uint64_t overdue;   /* those of them that should have fired */
	size_t tasks;       /* pending ones */
};

enum pyspyd_task_state {
	PYSPYD_TASK_RUNNING,
	PYSPYD_TASK_READY, /* its turn will come */
	PYSPYD_TASK_WAITING,
};

/* Who is inside of what a task waits for. */
struct pyspyd_task_holder {
	uint32_t task; /* index */
	char *why;     /* inferred, for this reason; NULL: read */
};

/* A pending task of asyncio. Other tasks are named by their index in the dump. */
struct pyspyd_task {
	uint64_t address;
	char *name;  /* "" where it has none */
	size_t loop; /* index */
	enum pyspyd_task_state state;
	struct pyspyd_frame *frames; /* of its coroutines, innermost await first */
	size_t frames_n;
	size_t site;     /* index of the frame that tells people where it is: the innermost of the program's own */
	char *waits_for; /* "task"; several: "gather", "wait", "wait_for", "TaskGroup"; an object: "Lock", "Event" …;
			    "future", "sleep"; NULL: nothing */
	uint64_t address_waited; /* of that task, object or future; 0 unknown */
	char *expression;        /* how its code names the object; NULL where it does not */
	bool timed;              /* and no longer than a time-out */
	uint32_t *targets;       /* tasks that it waits for */
	size_t targets_n;
	struct pyspyd_task_holder *holders; /* of the lock or semaphore that it waits for */
	size_t holders_n;
	uint32_t *awaiters; /* tasks that have it among their targets */
	size_t awaiters_n;
};

struct pyspyd_dump {
	struct pyspyd_process process;
	struct pyspyd_thread *threads;
	size_t threads_n;
	struct pyspyd_objects *objects; /* that the variables lead to: of a snapshot, where they were asked for */
	bool async;                     /* the rest was asked for */
	struct pyspyd_loop *loops;
	size_t loops_n;
	struct pyspyd_task *tasks; /* by name */
	size_t tasks_n;
	bool tasks_truncated; /* there are more, or some could not be read */
};

/* Reads a live process, or one in a core file. Return: 0; PYSPYD_E_GONE, _DENIED, _UNSUPPORTED, _STARTING; negative
 * errno. *ret_dump is the caller's. */
int pyspyd_dump(pid_t pid, const struct pyspyd_dump_options *options, struct pyspyd_dump **ret_dump, struct err *err);
void pyspyd_dump_free(struct pyspyd_dump *dump);

/* pyspyd.dump/1 in one line, and text for people; the caller's to free(); NULL when out of memory. */
char *pyspyd_dump_json(const struct pyspyd_dump *dump);
char *pyspyd_dump_text(const struct pyspyd_dump *dump, bool colour);

#endif
