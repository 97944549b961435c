/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WAITS_VIEW_H
#define PYSPYD_WAITS_VIEW_H

#include "engine/cpython/blocks.h"
#include "engine/cpython/tasks.h"
#include "engine/proc/sleep.h"
#include "engine/sample/target.h"
#include "pyspyd/stack.h"

/* One process at one moment: every thread with the system call that it sleeps in and, where it is Python's, its frames.
 * What the wait graph is built from. */

/* What is kept of a Python process from look to look. */
struct wait_process {
	struct sample_target *target;
	bool owned;           /* attached for the looks; else somebody else's */
	struct py_runtime rt; /* the target's, with a memory of its own that no lock is needed for, and that keeps
				 pages for the time of a look */
	struct py_block_cache *blocks;
	struct py_thread_names names; /* read anew for other threads, and now and then for those that were renamed */
	uint64_t named;               /* the threads that they were read for, as one number */
	unsigned names_looks;         /* that they may serve yet */
	uint64_t used_look;           /* number of the look that needed it last */
};

int wait_process_new(struct sample_target *target, bool owned, struct wait_process **ret_process);
void wait_process_free(struct wait_process *process);

struct view_frame {
	struct py_raw_frame raw;
	uint64_t serial;                                 /* of its code object */
	int64_t offset;                                  /* of its instruction, in bytes */
	const char *function, *qualname, *file, *module; /* the target's, good while the view is */
	int line;
};

struct view_thread {
	pid_t tid;
	bool sampled; /* Python's */
	struct py_thread py;
	char comm[64];
	char state;
	uint64_t run_ns, slices;
	struct proc_sleep sleep;
	bool untold; /* it sleeps, and where could not be read */
	struct py_raw_stack stack;
	struct view_frame *frames; /* most recent call first */
	size_t frames_n;
	struct py_block *held; /* what it is inside of by `with`, outermost frame last */
	size_t held_n;
	uint32_t node; /* of the graph; WAITS_NONE before */
};

struct wait_view {
	const char *root;            /* "/proc", or the tree of a dead process, who has no others beside it */
	struct proc proc;            /* borrowed from the target, or own */
	struct wait_process *python; /* NULL: not a Python process, or not to be read */
	bool readable;               /* its system calls could be read */
	bool untold;                 /* … but not those of every thread, or not their frames */
	VEC(struct view_thread) threads;
	struct map by_tid, by_ident;         /* index in threads */
	const struct py_thread_names *names; /* the process's; NULL: not Python */
	py_interp_vec interps;
	struct py_interp_view *gils; /* one for each of interps */
	uint64_t caught;             /* signals with handlers */
	py_loop_vec loops;           /* of asyncio */
	struct map loop_of;          /* thread's index → loop's index */
	size_t frames_n;             /* of all threads */
	size_t tasks;                /* how many were read */
	uint32_t ends, acts, others; /* nodes: its end; any act of it; any other Python thread */
};

/* Reads a process below `root`, which is borrowed. `process` NULL: one that is not Python's. Return: 0; PROC_E_GONE;
 * negative errno. */
int wait_view_new(const char *root, pid_t pid, struct wait_process *process, struct py_stack_scratch *scratch,
	struct wait_view **ret_view);
void wait_view_free(struct wait_view *view);

/* Most of it has been asked for: gives back the memory of what was read. */
void wait_view_settle(struct wait_view *view);

/* Fills what a frame's `raw` stands for, of an innermost frame or another. Call with the target's lock held. Return: 0;
 * as py_code_lookup. */
int view_frame_decode(struct sample_target *target, uint64_t code_generation, bool leaf, struct view_frame *frame);

/* Frames as people are shown them; the caller's to pyspyd_frames_free. Return: 0; -ENOMEM. */
int view_frames_copy(const struct view_frame *frames, size_t n, struct pyspyd_frame **ret_frames);

struct view_thread *view_thread_of_tid(const struct wait_view *view, pid_t tid);
struct view_thread *view_thread_of_ident(const struct wait_view *view, uint64_t ident);

/* Whether a frame is of `module` (the whole name, or with a final '.' everything below) and function. */
bool view_frame_is(const struct view_frame *frame, const char *module, const char *function);

/* A local variable of a frame as an object's address; 0: unset, none of that name, or a small int without one. */
raddr view_local(const struct wait_view *view, const struct view_frame *frame, const char *name);

#endif
