/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_NATIVE_LOOK_H
#define PYSPYD_PIPELINE_NATIVE_LOOK_H

#include "engine/cpython/frames.h"
#include "engine/native/unwind.h"
#include "engine/proc/kernel_stack.h"
#include "engine/sample/target.h"
#include "pyspyd/stack.h"

/* The native and kernel frames of one process's threads, one thread at a time: taken, then merged with Python's. */

enum native_how {
	NATIVE_HOW_ASLEEP, /* nothing is stopped: a thread that runs has none */
	NATIVE_HOW_STOP,   /* a thread that runs is stopped, for a fraction of a millisecond */
	NATIVE_HOW_HELD,   /* the calling thread has stopped the threads */
	NATIVE_HOW_GIVEN,  /* the process is dead: native_look_new_offline */
};

struct native_look {
	enum native_how how;
	uint64_t deadline_ns;              /* HELD: what comes later is left out; 0: there is none */
	uint64_t stops_ns;                 /* STOP: how long all of them together may be waited for yet */
	const struct sample_target *given; /* GIVEN: has the registers */
	const struct proc *proc;
	struct mem *mem;
	struct native_cache *cache; /* own, or NULL */
	struct native_modules *modules;
	struct native_stack stack;
	/* of the last thread: */
	struct kernel_stack kernel;
	struct native_trace trace;
	const char *why; /* there is no trace, for this reason; static; NULL: there is one */
	bool running;    /* it was not asleep */
	uint64_t stopped_ns;
};

/* `cache` NULL: one of its own. `proc`, `mem` and `cache` are borrowed. Return: 0; MEM_E_GONE; -ENOMEM; negative errno.
 */
int native_look_new(const struct proc *proc, struct mem *mem, struct native_cache *cache, enum native_how how,
	struct native_look **ret_look);

/* For a dead process, whose registers are known; borrowed too. */
int native_look_new_offline(const struct sample_target *target, struct native_look **ret_look);
void native_look_free(struct native_look *look);

/* Reads all files now, so that later nothing has to wait for that. */
void native_look_warm(struct native_look *look);

/* Reads the files that a sleeping thread's stack needs now. */
void native_look_warm_for(struct native_look *look, pid_t tid);

/* Takes the stack of a thread that sleeps or is held; what the caller proves about the thread holds for it too. Why
 * there is none is in `why`. Return: 0; MEM_E_GONE; -ENOMEM. */
int native_look_take(struct native_look *look, pid_t tid);

/* Stops the thread for as long as taking its stack and calling `also` takes. Why there is none is in `why`; then `also`
 * may have been called all the same. Return: 0; MEM_E_GONE; -ENOMEM. */
int native_look_stop(struct native_look *look, pid_t tid, void (*also)(void *arg), void *arg);

/* Takes over thread->frames, which are of stack->frames, and puts the merged ones in their place, with what there is to
 * say about them. `whole`: the Python frames are all there; `alone`: and there are no others below or above them.
 * Return: 0; -ENOMEM, then the thread is as it was. */
int native_look_merge(struct native_look *look, const struct py_raw_stack *stack, bool whole, bool alone,
	struct pyspyd_thread *thread);

/* Lines and inlined functions for the native frames of some threads, where their files have them and as far as they
 * can be read in that time. Return: 0; -ENOMEM. */
int native_look_lines(struct native_look *look, struct pyspyd_thread *threads, size_t n, uint64_t time_ns);

#endif
