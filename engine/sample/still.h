/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_STILL_H
#define PYSPYD_SAMPLE_STILL_H

#include "engine/sample/target.h"

/* Looking once at a thread, with proof that it stood still: it slept all the while, or it was runnable on the CPU on
 * which we ran all the while, so that it did not run. Needs no privilege; no stop. Moves the calling thread between
 * CPUs: call it from a thread of its own. */

/* What the caller wants to read while the thread stands still. Called again when the proof fails. Return: 0, or a
 * condition that ends it. */
typedef int (*still_look)(void *userdata);

enum still_proof {
	STILL_PROVEN,
	STILL_UNPROVEN, /* its CPU is not ours to run on, or it moved at every try: what was read last may be torn */
};

/* Return: 0 with *ret_proof and *ret_state (the kernel's state letter) set; PROC_E_GONE (as MEM_E_GONE); or what `look`
 * returned at the last try. */
int still_run(
	const struct proc_task *task, still_look look, void *userdata, enum still_proof *ret_proof, char *ret_state);

#endif
