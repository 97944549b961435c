/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_VALUE_STACK_H
#define PYSPYD_CPYTHON_VALUE_STACK_H

#include "engine/cpython/reader.h"
#include <stdbool.h>

/* Where a frame's value stack is: what the readers of blocks.h share. From 3.11 on it follows the variables in the
 * frame, before that the frame points to it. */

struct code_shape {
	uint32_t locals;  /* slots of variables before the value stack; 0 to 3.10 */
	uint32_t slots;   /* of the value stack, co_stacksize */
	raddr exceptions; /* co_exceptiontable, 0 to 3.10 */
};

/* Return: 0; PY_E_TORN: no code object has such numbers; as mem_read_many. */
int code_shape_read(const struct py_reader *py, raddr code, struct code_shape *ret_shape);

/* 3.11+ */
static inline raddr value_stack_in(const struct py_reader *py, raddr frame, const struct code_shape *shape) {
	return frame + py->layout.frame_localsplus + (uint64_t)shape->locals * sizeof(uint64_t);
}

/* A slot's word as the address of an object. Return: false where it is none: NULL, a tagged int, or bits that no
 * object's address has. */
static inline bool slot_object(const struct py_reader *py, uint64_t slot, raddr *ret_object) {
	bool tags = PY_MINOR(py->version) >= 0x030d;
	raddr object = tags ? py_untag(slot) : slot;

	if (object < 4096 || object & 7 || object >> 56 || (tags && (slot & 3) == 3))
		return false;
	*ret_object = object;
	return true;
}

#endif
