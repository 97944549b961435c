/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_IMPORTED_H
#define PYSPYD_CPYTHON_IMPORTED_H

#include "engine/cpython/runtime.h"

/* An interpreter's sys.modules. */

#define IMPORTED_MAX 65536

struct py_imported {
	raddr object;
	char *name;    /* the key; UTF-8 */
	char *file;    /* __file__; NULL: no str */
	char *origin;  /* __spec__.origin, or what the loader says in its place; NULL likewise */
	char *version; /* __version__; NULL likewise */
};
typedef VEC(struct py_imported) py_imported_vec;

/* Appends what sys.modules has, but for None (a module that may not be imported) and keys that are no str. What of a
 * module cannot be read is NULL. Return: 0; PY_E_TYPE: the interpreter has no modules (yet); PY_E_TRUNCATED: there are
 * more than IMPORTED_MAX; MEM_E_*; PY_E_TORN; negative errno. What was appended is there in any case. */
int py_imported_read(const struct py_runtime *rt, raddr interp, py_imported_vec *imported);
void py_imported_free(py_imported_vec *imported);

#endif
