/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_FIND_H
#define PYSPYD_CPYTHON_FIND_H

#include "engine/base/vec.h"
#include "engine/mem/mem.h"
#include "engine/proc/proc.h"

/* Where an interpreter may be in a process. Candidates only: runtime.h checks them. */

/* Static variables that only symbols show, where the file has not been stripped; 0: not found. */
struct py_statics {
	raddr traced_config, traced_memory, traced_peak, traces; /* of tracemalloc, to 3.11 */
	raddr gc_stats, gc_collecting, gc_enabled;               /* of the collector, 3.6 */
};

struct py_candidate {
	raddr runtime;          /* _PyRuntime, or 0 */
	uint64_t runtime_bytes; /* its size, 0: not known */
	raddr interp_head;      /* 3.6, or found by scan: the word that points to the first interpreter; else 0 */
	raddr tstate_current;   /* 3.6: _PyThreadState_Current, or 0 */
	uint32_t version;       /* PY_VERSION_HEX where the file says so, else 0 */
	struct py_statics statics;
};
typedef VEC(struct py_candidate) py_candidate_vec;

enum py_find_pass {
	PY_FIND_LIKELY, /* the executable, and files named like a Python: section, then symbols */
	PY_FIND_OTHERS, /* every other ELF file that is mapped: an interpreter inside another program's library */
	PY_FIND_SCAN,   /* writable data of the executable and of what is named like a Python */
	PY_FIND_PASSES,
};

/* Return: 0, with none, one or several candidates; PROC_E_GONE; negative errno. */
int py_find(const struct proc *proc, struct mem *mem, const proc_map_vec *maps, enum py_find_pass pass,
	py_candidate_vec *ret_candidates);

/* Whether this ELF file has an interpreter in it, as far as its section and its symbols tell. */
bool py_find_in_file(int fd);

/* What the process is, if it is no CPython: "a Node.js process", "PyPy", "Python 2". Return: a constant string. */
const char *py_find_what_else(const proc_map_vec *maps);

#endif
