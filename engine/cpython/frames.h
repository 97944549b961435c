/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_FRAMES_H
#define PYSPYD_CPYTHON_FRAMES_H

#include "engine/cpython/threads.h"

/* The first of a sample's two stages: copying a thread's stack as raw words. What they mean is told later (code.h).
 *
 * A stack is copied in one vectored read: the thread state, its data-stack chunk, and whatever else this thread's last
 * look had to follow (frames of generators, entry frames on the C stack, every frame before 3.11). Where the guess was
 * wrong the missing pieces are read one by one, and are part of the next guess. Whoever calls sees to it that the
 * thread does not run meanwhile, or lives with what is torn. */

struct py_raw_frame {
	raddr frame;
	raddr code;
	raddr globals;
	raddr code_base; /* thread-local bytecode (free-threaded 3.14+): index in the low bits; 0 the code object's own
			  */
	int64_t instr;   /* 3.11+: the instruction pointer; before: the offset in bytes, -1 not started */
	uint32_t check;  /* which code object it was, where that was read together with the frame; 0: it was not */
	bool entry;      /* the evaluation loop was entered with it: its caller was called by C */
};

struct py_raw_stack {
	VEC(struct py_raw_frame) frames; /* most recent call first; entry and shim frames left out */
	bool truncated;
	bool holds_gil; /* only where the thread state says so: gil_known */
	bool gil_known;
	bool gil_requested;       /* 3.15+ */
	uint64_t code_generation; /* 0 where there is no counter */
	uint64_t copy_ns;         /* how long the first, bulk copy took */
	uint32_t reads;           /* calls that were needed */
};

struct py_span {
	raddr addr;
	uint32_t len;
};

/* What to read of one thread, learnt from its last look. */
struct py_stack_plan {
	raddr tstate;
	raddr interp;
	uint64_t ident;
	raddr cframe;               /* 3.11, 3.12 */
	VEC(struct py_span) chunks; /* data-stack chunks, newest first */
	VEC(struct py_span) extras; /* single frames, in the order of the walk */
};

/* Buffers of whoever reads; one for each reading thread, used for any number of targets. */
struct py_stack_scratch {
	uint8_t *arena;
	size_t arena_used;
	VEC(struct mem_range) ranges;
	VEC(struct py_span) extras; /* the next plan's, while the walk goes on */
};

int py_stack_scratch_init(struct py_stack_scratch *scratch);
void py_stack_scratch_deinit(struct py_stack_scratch *scratch);

void py_stack_plan_init(struct py_stack_plan *plan, const struct py_thread *thread);
void py_stack_plan_deinit(struct py_stack_plan *plan);

/* Copies the stack of a thread. *stack is reused (its vector grows as needed).
 * Return: 0; PY_E_TORN: parts that do not belong together; PY_E_TYPE: the thread state is another thread's by now, or
 * none; MEM_E_FAULT; MEM_E_GONE; -EPERM; -ENOMEM. */
int py_stack_capture(const struct py_runtime *rt, struct py_stack_plan *plan, struct py_stack_scratch *scratch,
	struct py_raw_stack *stack);
void py_raw_stack_deinit(struct py_raw_stack *stack);

/* 3.10 counts in code units what the versions before it count in bytes. Return: bytes. */
int64_t py_lasti_bytes(uint32_t version, int32_t lasti);

/* Where a thread state says whether it holds the GIL: four bytes and the bits in them, untouched where it does not say
 * so. */
void py_holds_gil_word(const struct py_runtime *rt, uint32_t *ret_offset, uint32_t *ret_mask);

#endif
