/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_DESCRIBE_H
#define PYSPYD_PIPELINE_DESCRIBE_H

#include "engine/pipeline/native_look.h"
#include "engine/sample/target.h"
#include "pyspyd/stack.h"

/* Fills who the process is. Return: 0; PYSPYD_E_GONE; negative errno. *ret is the caller's to deinit. */
int describe_process(const struct proc *proc, const char *python, struct pyspyd_process *ret);

/* Reads one thread whole: stack, state, GIL, and variables where `locals` asks for them. Call from a thread of its own
 * (still.h). `thread` must be one of the target's; names may lack it. Return: 0; PYSPYD_E_GONE; negative errno. What
 * could not be read is marked in *ret. */
struct describe_options {
	bool locals, unmask;
	bool exceptions;
	struct native_look *native; /* native frames too; NULL: Python's alone */
};
int describe_thread(struct sample_target *target, struct sample_thread *thread, const struct py_thread_names *names,
	const struct describe_options *options, struct py_stack_scratch *scratch, struct pyspyd_thread *ret);

/* The same for a thread that Python does not know; options->native is there. */
int describe_foreign_thread(
	struct sample_target *target, pid_t tid, const struct describe_options *options, struct pyspyd_thread *ret);

#endif
