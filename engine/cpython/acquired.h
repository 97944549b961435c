/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_ACQUIRED_H
#define PYSPYD_CPYTHON_ACQUIRED_H

#include "engine/cpython/code.h"

/* Locks that a frame has taken by a bare X.acquire() and not given back by X.release(), by its bytecode.
 *
 * Evidence, not proof: the code says that the frame came past the call, not that it succeeded, nor that X is still the
 * object it was. Loops are taken as passed once, from the top. Where ways through the code join, X counts as taken only
 * if it is on all of them. What another function releases is not seen. A call that is being executed now does not
 * count, nor does an `await X.acquire()` that still waits. */
struct py_acquired {
	char expression[128]; /* X as the code has it, printable: "lock", "self.account.guard"; cut where longer */
	raddr object;         /* what X is in this frame now; 0 where it cannot be told, or X was assigned to since */
	int line;             /* of the call */
	int64_t offset;       /* of the call in the bytecode */
	bool timed_or_nonblocking; /* arguments were given, which may be a time-out or blocking=False */
};

/* `codes`, `code` and `offset` as code.h tells them. At most `max` of them, in the order of the calls; X is a name with
 * attributes, others are not told. Return: 0; PY_E_TYPE: bytecode that cannot be walked over (a tracer's or a
 * compiler's instructions are in it); PY_E_TRUNCATED: the frame is further in than the limit; PY_E_TORN; MEM_E_*;
 * -ENOMEM. */
int py_acquired_read(const struct py_runtime *rt, const struct py_code_cache *codes, const struct py_code *code,
	const struct py_raw_frame *frame, int64_t offset, struct py_acquired *ret, size_t max, size_t *ret_n);

#endif
