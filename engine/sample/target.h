/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_TARGET_H
#define PYSPYD_SAMPLE_TARGET_H

#include "engine/cpython/code.h"
#include "engine/cpython/frames.h"
#include "engine/cpython/runtime.h"
#include "engine/cpython/threads.h"
#include "engine/native/modules.h"
#include "engine/native/regs.h"
#include "engine/proc/proc.h"
#include "pyspyd/stack.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

/* One process that is looked at: its runtime, its threads with their kept-open files, and its decoded frames. */

/* A place in the program: an instruction of a code object, decoded once. Its number stays the same. */
struct sample_place {
	uint32_t function, file,
		module; /* in the target's strings; function is the qualified name where there is one */
	int line;
	enum pyspyd_lang lang;
	bool leaf_known; /* what its instruction is, where somebody has asked */
	uint8_t leaf;    /* enum opcode_kind */
};

enum sample_flag {
	SAMPLE_RUNNING = 1 << 0, /* on a CPU, or waiting for one */
	SAMPLE_GIL = 1 << 1,     /* held the GIL */
	SAMPLE_GC = 1 << 2,      /* the interpreter was collecting garbage, and this thread held the GIL */
	SAMPLE_TRUNCATED = 1 << 3,
	SAMPLE_NATIVE = 1 << 4, /* in native code that Python called: at a call, or long at one heavy instruction
				   (want_native) */
};

struct sample_thread {
	struct py_thread py;
	struct proc_task task;
	struct py_stack_plan plan;
	bool active;                 /* ran lately: looked at on every tick */
	bool captured;               /* has a stack that can be counted again */
	uint64_t run_ns;             /* run counter now, as last read */
	uint64_t captured_run_ns;    /* … when its stack was captured, … */
	uint64_t captured_ns;        /* … at this time, by a sampler on its own CPU */
	uint64_t ran_ns;             /* when the counter was last seen to have moved */
	uint64_t counted_tick;       /* last tick that was accounted for */
	struct sample_thread *inner; /* the same kernel thread's state in a newer interpreter, or NULL */
	bool has_frames;             /* its last sample had any */
	unsigned flags;              /* of its last sample */
	/* Where the kernel takes the samples of threads that run: until when this one's time is accounted for, and what
	 * of it no sample stands for yet. */
	uint64_t settled_ns, settled_run_ns, settled_wait_ns, settled_slices;
	int64_t idle_ns, queued_ns;
	raddr leaf_frame;
	int64_t leaf_instr;
	uint64_t mark; /* the sink's own */
};

struct sample_target {
	struct proc proc;
	struct mem *mem;
	struct py_runtime rt;
	pthread_mutex_t lock; /* of everything below; samplers of several CPUs may meet here */
	struct intern strings;
	struct py_code_cache codes;
	VEC(struct sample_place) places;
	struct map place_index;        /* code serial and offset → place */
	struct native_modules *native; /* NULL: not asked for yet */
	uint64_t native_ns;            /* when its mappings were read; … */
	uint64_t native_reads;         /* … and how often by now */
	struct map native_places;      /* address in native code, or in the kernel → place */
	VEC(struct sample_thread *) threads;
	size_t active_n;      /* how many of them are active, or a few more */
	size_t woken;         /* index of the one that woke up last; may be past the end */
	clockid_t cpu_clock;  /* run time of the whole process */
	uint64_t idle_run_ns; /* run time of the process that is not that of its active threads: stands still while the
				 others sleep */
	uint64_t elsewhere_tick; /* last tick at which one of them ran on another CPU than the one that looked */
	atomic_bool ended;
	bool offline; /* it is dead: nothing of it moves, there are no clocks, and these are the registers of its
			 threads */
	bool (*registers)(void *userdata, pid_t tid, struct native_regs *ret_regs);
	void *registers_userdata;
	const char *root;         /* of its tree of /proc; the caller's. "/proc" where it lives */
	unsigned threads_changed; /* counts up with each change of threads */
	bool in_kernel;           /* the four of whoever tells the kernel of them */
	unsigned told;
	bool unknown_thread;
	bool passed;             /* its threads are looked at by passes through the kernel's tasks; … */
	bool changed;            /* … some ran, began or ended since the last one, … */
	bool unsettled;          /* … or there is one that sleeps and is yet to be read */
	VEC(raddr) newest_words; /* that say which thread states are the newest, … */
	uint64_t newest;         /* … and what stands for their values when the lists were last read; 0: not known */
	uint64_t newest_run_ns;  /* run time of the process then */
	uint64_t newest_ns;      /* when they were asked for last, where passes tell of new threads; … */
	bool newest_owed;        /* … and whether somebody has run since */
	uint64_t serial;         /* no other target has it */
	uint64_t mark;           /* the sink's own, two of them */
	void *owner;
};

/* Attaches. `wait_ns`: how long a process that is still starting is waited for. Return: 0; PYSPYD_E_*; negative errno.
 */
int sample_target_new(pid_t pid, uint64_t wait_ns, struct sample_target **ret_target, struct err *err);

/* The same of a process that is dead: `proc` is open in a captured tree, `mem` what is left of its memory. Both are
 * taken over, whatever happens. Return: 0; PYSPYD_E_UNSUPPORTED, _STARTING; negative errno. */
int sample_target_new_offline(
	const char *root, struct proc *proc, struct mem *mem, struct sample_target **ret_target, struct err *err);
void sample_target_free(struct sample_target *target);

/* Brings the list of threads up to date: new ones are added, those that ended are dropped (`on_end` first, may be
 * NULL). Return: 0; MEM_E_GONE; PY_E_TORN, tried again at the next occasion; negative errno. */
int sample_target_refresh(
	struct sample_target *target, void (*on_end)(void *userdata, struct sample_thread *thread), void *userdata);

/* Forgets what was decoded, and the threads' last stacks and marks with it. Call with the lock held. */
void sample_target_forget(struct sample_target *target);

/* A place that is not an instruction of Python: added once for each key. Return: its number; UINT32_MAX out of memory,
 * or of room. */
uint32_t sample_target_add_place(struct sample_target *target, const struct sample_place *place);

/* Decodes a captured stack into places, innermost first. *ret_places has room for stack->frames.n entries.
 * Return: 0; PY_E_TORN; MEM_E_*; -ENOMEM. */
int sample_target_decode(
	struct sample_target *target, const struct py_raw_stack *stack, uint64_t now_ns, uint32_t *ret_places);

#endif
