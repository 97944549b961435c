/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_UNWIND_H
#define PYSPYD_NATIVE_UNWIND_H

#include "engine/base/limits.h"
#include "engine/native/modules.h"
#include "engine/native/regs.h"

/* From a thread's registers to its callers. */

#define NATIVE_FRAMES_MAX LIMIT_FRAMES

struct native_frame {
	raddr ip;
	raddr sp; /* the stack pointer when it called, or was interrupted: later frames have higher ones on the same
		     stack */
	bool after_call : 1; /* ip is where the callee returns to: the call itself is before it */
	bool signal : 1;     /* the trampoline of a signal; the next frame was interrupted */
	bool by_fp : 1;      /* the next frame was found by the frame pointer alone: one between them may be missing */
	bool recovered : 1;  /* its frame pointer was not known and was found on the stack: inferred, not read */
};

/* The address to look up: of the call, where it is a call. */
static inline raddr native_frame_at(const struct native_frame *frame) {
	return frame->ip - (frame->after_call && !frame->signal);
}

/* Why a walk ended. */
enum native_stop {
	NATIVE_COMPLETE,   /* at the thread's first function */
	NATIVE_NO_CODE,    /* the next address is not in code */
	NATIVE_NO_TABLE,   /* the file, or the place in it, has no rule, and there is no frame pointer */
	NATIVE_NO_REG,     /* the rule needs a register that is not known: stop the thread to get it */
	NATIVE_UNREADABLE, /* the stack, there */
	NATIVE_BAD_CFA,    /* the stack would grow downwards, or is not aligned */
	NATIVE_TRUNCATED,  /* more than there is room for */
};

const char *native_stop_text(enum native_stop stop);

struct native_unwinder {
	struct native_modules *modules;
	struct mem *mem;                  /* read where the copy has nothing; NULL: only the copy */
	const struct native_stack *stack; /* a copy of the stack's top, or NULL */
	uint16_t machine;                 /* EM_…; 0: this machine's, which is the target's */
};

struct native_trace {
	struct native_frame frames[NATIVE_FRAMES_MAX]; /* most recent call first */
	size_t n;
	enum native_stop stop;
};

/* Walks; what was found up to the place where it ended is in the trace. Bounded by the trace's room. */
void native_unwind(const struct native_unwinder *unwinder, const struct native_regs *regs, struct native_trace *trace);

#endif
