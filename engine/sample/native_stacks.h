/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_NATIVE_STACKS_H
#define PYSPYD_SAMPLE_NATIVE_STACKS_H

#include "engine/sample/bpf_source.h"
#include "engine/sample/target.h"

/* Native and kernel frames around the Python frames of a sample. For one thread at a time. */
struct native_stacks;

/* `tables` is told of the processes; it is the caller's, and must live while stacks are merged. `kernel`: the kernel's
 * functions are frames, where their names are not hidden; else it is one. Return: 0; -ENOMEM. */
int native_stacks_new(struct bpf_tables *tables, bool kernel, struct native_stacks **ret_stacks);
void native_stacks_free(struct native_stacks *stacks); /* the targets that it was used for have no `native` any more */

/* Whether the kernel's functions were asked for and their addresses are hidden. */
bool native_stacks_lacks_kernel(const struct native_stacks *stacks);

/* Merges: places[] holds the places of stack's Python frames, innermost first, and has room for LIMIT_FRAMES of the
 * whole stack. A native stack that could not be unwound to its end lacks native frames at its outer end, not Python's.
 * `target` is locked. Return: how many places there are. */
size_t native_stacks_merge(struct native_stacks *stacks, struct sample_target *target, const struct bpf_native *native,
	const struct py_raw_stack *stack, uint64_t now_ns, uint32_t *places);

/* A process that is not sampled any more. */
void native_stacks_forget(struct native_stacks *stacks, pid_t pid);

#endif
