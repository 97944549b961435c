/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_WATCHED_H
#define PYSPYD_PIPELINE_WATCHED_H

#include "engine/pipeline/bucket.h"
#include "engine/pipeline/recorder.h"
#include "engine/pipeline/task_table.h"
#include "engine/pipeline/window.h"
#include "pyspyd/watch.h"

#define WATCHED_MANY 64 /* processes of one watch: from here on those that hardly run are asked less */

/* One process of a watch: what is kept of it from report to report. */

struct watched_thread {
	pid_t tid;
	bool python;           /* else one that native code started, and that Python does not know */
	struct proc_task task; /* of those others; Python's are kept open with the target */
	uint64_t ident;
	uint64_t start_ns;              /* since boot: with the tid its identity */
	uint64_t run_ns, last_run_ns;   /* run counter now, and as of the report before; last is 0 at the first look */
	uint64_t wait_ns, last_wait_ns; /* runnable without a CPU, likewise */
	uint64_t user_ns, system_ns;    /* by clock ticks; only busy threads are asked */
	uint64_t last_user_ns, last_system_ns;
	bool split_known;   /* the four above are of two reports in a row */
	double cpu_percent; /* over the last interval */
	uint64_t voluntary, involuntary;
	char state;
	bool holds_gil;     /* when it was sampled last */
	double gil_waiting; /* of the last looks at the wait graph, the part in which it wanted the GIL; negative: none
			     */
	char *name;
	bool seen;       /* in this report */
	bool python_now; /* as `python`, while it is found out */
};

struct watched {
	struct sample_target *target;
	struct pyspyd_process process;
	struct window window; /* under the recorder's lock, as the next one */
	struct bucket bucket;
	VEC(struct watched_thread) threads;
	struct map thread_index; /* by thread id */
	struct proc_counters counters;
	uint64_t private_bytes; /* anonymous memory, in RAM or swap */
	double cpu_percent;
	uint64_t cpu_ns;          /* as of the last report; 0: none yet */
	uint64_t used_ns;         /* CPU time since the report before; UINT64_MAX not known */
	bool ran;                 /* since the report before */
	uint64_t busiest_ns;      /* what one thread ran, or waited for a CPU, since the report before, at the most */
	bool some_unread;         /* some threads were not read though they may have run: one may have been stopped */
	bool rested;              /* it had not run in the report before, and its threads were read since it did */
	uint64_t unread_ns;       /* CPU time of threads that were not read since; UINT64_MAX not known */
	uint64_t tasks_run_ns;    /* of its threads together, when a pass found them last, … */
	uint64_t tasks_who;       /* … and what stands for which they were */
	unsigned unread;          /* reports since then in which it ran */
	unsigned unflushed;       /* reports since those of its threads that sleep were counted */
	uint64_t last_ns;         /* time of the last report */
	uint64_t interval_ns;     /* that it covered */
	uint64_t counters_due_ns; /* when the counters are to be read again, those of threads too */
	bool counters_fresh;      /* they were read for this report */
	uint64_t all_due_ns;      /* when all threads are to be read again */
	uint64_t smaps_due_ns;    /* when the costly counters are to be read again */
	bool executed;            /* another program: it is as good as ended, and not by any fault */
	uint64_t ending_ns;       /* since when its memory is gone, and its end is not yet told; 0: it is not */
	bool ended;
	void *detection; /* findings.h */
	void *gil;       /* waiting.h */
	void *leak;      /* leaking.h */
	void *creation;  /* creations.h */
	void *raising;   /* raising.h */
};

int watched_new(struct sample_target *target, struct watched **ret_watched);
void watched_free(struct watched *watched);

/* Reads counters and threads, these from `tasks` where they are there (NULL: they were not read). What costs more is
 * read again when it is as old as is due with so many processes under one watch; a process that has not run costs next
 * to nothing, and threads of one that barely runs are, among many, read only every few reports. Return: 0;
 * PYSPYD_E_GONE; negative errno. */
int watched_update(struct watched *watched, uint64_t now_ns, size_t processes, const struct task_table *tasks);

/* Whether it used so little since the report before that, among many, it need not be asked what it did. */
bool watched_hardly_ran(const struct watched *watched);

/* What it ran, or waited for a CPU, since the report before. */
uint64_t watched_thread_busy_ns(const struct watched_thread *thread);

/* Fills the public shape, of threads where it is asked for; free with watched_report_deinit. `recorder` locked. */
int watched_report(
	const struct watched *watched, struct recorder *recorder, bool with_threads, struct pyspyd_watch_process *ret);
void watched_report_deinit(struct pyspyd_watch_process *report);

#endif
