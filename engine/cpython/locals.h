/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_LOCALS_H
#define PYSPYD_CPYTHON_LOCALS_H

#include "engine/cpython/frames.h"
#include "pyspyd/stack.h"

/* The variables of a frame: arguments, locals, cells and free variables, as their slots hold them; a class body's and a
 * module's own namespace is not among them. Unset ones are left out. Values are masked by name unless `unmask`, also
 * those within dicts. Return: 0 and an array that is the caller's (freed with pyspyd_frames_free); PY_E_TORN; MEM_E_*;
 * -ENOMEM. */
int py_locals_read(const struct py_runtime *rt, const struct py_raw_frame *frame, bool unmask,
	struct pyspyd_local **ret_locals, size_t *ret_n);

/* Calls each(userdata, name, ref) for each variable until it returns non-zero, which ends the walk and is returned.
 * `ref` is the reference that it holds, a cell's contents where it is a cell; 0 where
 * it is unset. Without tag bits, except a small int that stands in the slot itself (3.14+): its two low bits are
 * PY_TAG_INT, the others the number. A variable that is an argument and a cell comes twice to 3.10, once unset. Return:
 * 0; PY_E_TORN; MEM_E_*; -ENOMEM. */
#define PY_TAG_INT 3
typedef int (*py_local_each)(void *userdata, const char *name, uint64_t ref);
int py_locals_walk(const struct py_runtime *rt, const struct py_raw_frame *frame, py_local_each each, void *userdata);

/* The reference that one variable holds, as above. Return: 0; PY_E_TYPE: the frame has no variable of that name;
 * PY_E_TORN; MEM_E_*; -ENOMEM. */
int py_local_get(const struct py_runtime *rt, const struct py_raw_frame *frame, const char *name, uint64_t *ret_ref);

/* Pure: whether a variable of that name is likely to hold a secret. */
bool py_local_is_secret(const char *name);

#endif
