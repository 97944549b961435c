/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_NATIVE_STACKS_H
#define PYSPYD_SAMPLE_NATIVE_STACKS_H

#include "bpf/sample.h"
#include "engine/sample/target.h"

/* Native and kernel frames around the Python frames of a sample, out of the registers and the top of the stack that
 * came with it (struct pyb_native). For one thread at a time. */
struct native_stacks;

/* Return: 0; -ENOMEM. */
int native_stacks_new(struct native_stacks **ret_stacks);
void native_stacks_free(struct native_stacks *stacks); /* the targets that it was used for have no `native` any more */

/* Merges: places[] holds the places of stack's Python frames, innermost first, and has room for LIMIT_FRAMES of the
 * whole stack. A stack that is deeper than its copy lacks native frames at its outer end, not Python's. `target` is
 * locked. Return: how many places there are. */
size_t native_stacks_merge(struct native_stacks *stacks, struct sample_target *target, const struct pyb_native *native,
	const struct py_raw_stack *stack, uint64_t now_ns, uint32_t *places);

#endif
