/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_NAMES_H
#define PYSPYD_CPYTHON_NAMES_H

#include "engine/cpython/frames.h"

/* Objects and how a frame's code can call them. */

/* How a frame names an object, the nearest way first: a variable ("guard"); an attribute of one, or of its class
 * ("self.guard"); an item of one ("locks[0]", "locks['a']"); an attribute or item of an attribute of self
 * ("self.account.guard"); a global that the code names, or an attribute or item of such a one ("LOCK", "config.lock").
 * Found by identity, whether or not the code says it so. Printable. At most about 2,000 reads. Return: 0; PY_E_TYPE:
 * the frame does not name it, or not in less than `size` bytes, or not within the limits; MEM_E_GONE; -EPERM; -ENOMEM.
 */
int py_name_find(
	const struct py_runtime *rt, const struct py_raw_frame *frame, raddr object, char *ret_expression, size_t size);

/* The other way: what a name with attributes ("self.account.guard") stands for in a frame, as its variables, its
 * module's globals, instances and their classes have it now; no base classes, properties and slots. Return: 0;
 * PY_E_TYPE: nothing; PY_E_TORN; MEM_E_*; negative errno. */
int py_name_evaluate(
	const struct py_runtime *rt, const struct py_raw_frame *frame, const char *expression, raddr *ret_object);

#endif
