/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_EXCEPTIONS_H
#define PYSPYD_CPYTHON_EXCEPTIONS_H

#include "engine/cpython/code.h"
#include "pyspyd/stack.h"

/* Exceptions of a thread: what it is raising, what it is handling, and what these lead to. */

/* Everything of a thread's exceptions, as far as the limits of base/limits.h allow: the one on its way, then those of
 * its stack of handlers, innermost first (an exception that Python itself keeps on a frame's value stack alone, since
 * an inner handler of the same generator or thread took its place, is reached as that one's __context__). `generation`
 * as in py_raw_stack. What is not read before `deadline_ns` (of CLOCK_MONOTONIC; 0: none) is marked incomplete. Return:
 * 0 and an array that is the caller's (pyspyd_exceptions_free), NULL where there is none; PY_E_TYPE: this build does
 * not tell; PY_E_TORN; MEM_E_*; negative errno. */
int py_exceptions_read(const struct py_runtime *rt, struct py_code_cache *codes, raddr tstate, uint64_t generation,
	uint64_t deadline_ns, struct pyspyd_exception **ret_exceptions, size_t *ret_n);

/* What a thread does with exceptions right now, in a handful of words: cheap enough to be asked many times a second of
 * a thread that runs on. */
struct py_exception_glance {
	bool raised;     /* one is on its way */
	raddr exception; /* else the one that is handled; 0: none is */
	raddr type;      /* of either */
	bool here;       /* it is handled by the innermost frame itself, not in what that has called */
	uint64_t mark;   /* of the handled one: differs from another one's, but where that took its memory */
};

/* Return: 0; PY_E_TYPE: this build does not tell; PY_E_TORN: parts of different moments; MEM_E_*; negative errno. */
int py_exception_glance(const struct py_runtime *rt, raddr tstate, struct py_exception_glance *ret_glance);

#endif
