/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DUMP_H
#define PYSPYD_DUMP_H

#include "pyspyd/err.h"
#include "pyspyd/stack.h"

/* All threads of a process, now. */

struct pyspyd_dump_options {
	bool locals;   /* variables of every frame */
	bool unmask;   /* show values that are masked by name */
	bool blocking; /* stop the Python threads (ptrace) while they are read; never longer than 100 ms */
};

/* How well the reading went; shown with every result. */
struct pyspyd_accuracy {
	const char *source;   /* "vm" (from the target's own CPU), "vm-remote" (from another), "blocking" */
	const char *priority; /* "fifo", "nice", "none" */
	uint64_t expected;    /* ticks of the schedule */
	uint64_t looks;       /* ticks that took place */
	uint64_t samples;     /* stacks counted, idle ones included */
	uint64_t idle;        /* counted again without reading: the thread had not run */
	uint64_t torn;        /* parts did not belong together; discarded */
	uint64_t discarded;   /* moved to another CPU, or the reader was interrupted; discarded */
	uint64_t late;        /* ticks that came more than half a period late */
	uint64_t unreadable;  /* memory was not there */
	uint64_t truncated;   /* deeper than the limit */
};

struct pyspyd_dump {
	struct pyspyd_process process;
	struct pyspyd_thread *threads;
	size_t threads_n;
};

/* Reads a live process. Return: 0; PYSPYD_E_GONE, _DENIED, _UNSUPPORTED, _STARTING; negative errno. *ret_dump is the
 * caller's. */
int pyspyd_dump(pid_t pid, const struct pyspyd_dump_options *options, struct pyspyd_dump **ret_dump, struct err *err);
void pyspyd_dump_free(struct pyspyd_dump *dump);

/* pyspyd.dump/1 in one line, and text for people; the caller's to free(); NULL when out of memory. */
char *pyspyd_dump_json(const struct pyspyd_dump *dump);
char *pyspyd_dump_text(const struct pyspyd_dump *dump, bool colour);

#endif
