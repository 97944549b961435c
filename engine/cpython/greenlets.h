/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_GREENLETS_H
#define PYSPYD_CPYTHON_GREENLETS_H

#include "engine/cpython/frames.h"

/* Greenlets that are suspended (gevent, eventlet, and others that build on the module greenlet). */

#define PY_GREENLET_FRAMES_MAX 16 /* of one that are kept, innermost first */
#define PY_GREENLETS_MAX 4096

struct py_greenlet {
	raddr object;
	char type[64]; /* tp_name */
	struct py_raw_frame frames[PY_GREENLET_FRAMES_MAX];
	size_t frames_n;
};
typedef VEC(struct py_greenlet) py_greenlet_vec;

/* All of one interpreter that were switched away from, in the order of the collector's lists; nobody else keeps a list
 * of them. As dear as its lists are long: nothing for a look that comes again and again. Return: 0; PY_E_TYPE: the
 * module is not imported; PY_E_TRUNCATED: there may be more than these; PY_E_TORN: this interpreter's lists, or the
 * greenlets of this version of the module, cannot be read; MEM_E_*; negative errno. */
int py_greenlets_read(const struct py_runtime *rt, raddr interp, py_greenlet_vec *ret_greenlets);

#endif
