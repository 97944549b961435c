/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_RUNTIME_H
#define PYSPYD_CPYTHON_RUNTIME_H

#include "engine/base/vec.h"
#include "engine/cpython/find.h"
#include "engine/cpython/reader.h"
#include "engine/proc/proc.h"
#include "pyspyd/err.h"

/* One CPython in one process: found, recognised, checked. Everything else in this folder starts from here. */

struct py_runtime {
	struct py_reader reader;
	char version[24];     /* "3.13.1", with "d" for debug and "t" for free-threaded */
	raddr runtime;        /* _PyRuntime; 0 on 3.6, which has none */
	raddr interp_head;    /* the word that points to the newest interpreter */
	raddr tstate_current; /* the word that points to the thread state that holds the GIL (to 3.11), or 0 */
	raddr gil;            /* struct _gil_runtime_state (3.7 to 3.11), or 0: found per interpreter, or not known */
	uint32_t pthread_tid; /* offset of the kernel's thread id in struct pthread, where thread states lack it
				 (to 3.10); LAYOUT_NONE unknown */
	struct py_statics statics;
	bool foreign_tids; /* the target's thread ids are those of another PID namespace */
};

/* Finds the interpreter in a process and checks that its memory looks as the tables say: lists closed, back pointers
 * right, sys.hexversion equal to the version, abiflags to the flavour. `mem` stays the caller's and must live as long
 * as the runtime is used. Return: 0; PYSPYD_E_GONE; PYSPYD_E_DENIED (without the reason: ask access_check);
 * PYSPYD_E_UNSUPPORTED with a sentence that says what it is instead; PYSPYD_E_STARTING where an interpreter is there
 * that has no thread or no sys module yet; negative errno. */
int py_runtime_attach(const struct proc *proc, struct mem *mem, struct py_runtime *ret_runtime, struct err *err);

/* As py_runtime_attach, and tries again for up to wait_ns while the answer is PYSPYD_E_STARTING, or the process has
 * only just begun (a loader or a shell that is about to exec). */
int py_runtime_attach_wait(
	const struct proc *proc, struct mem *mem, uint64_t wait_ns, struct py_runtime *ret_runtime, struct err *err);

/* Return: 0 where the runtime is still where it was found; PY_E_TYPE, MEM_E_*, PYSPYD_E_STARTING: the process has
 * ended, or executes another program now. */
int py_runtime_check(const struct py_runtime *rt);

/* Interpreters, newest first; the main one has id 0. Return: 0; PY_E_TORN: the list leads back into itself; MEM_E_*;
 * negative errno. */
struct py_interp {
	raddr addr;
	int64_t id;
};
typedef VEC(struct py_interp) py_interp_vec;
int py_interps_read(const struct py_runtime *rt, py_interp_vec *ret_interps);

/* What one interpreter is doing. */
struct py_interp_view {
	raddr threads_head; /* newest thread state: changes when a thread begins */
	raddr gil_holder;   /* thread state that holds the GIL now, 0: nobody */
	raddr gil;          /* struct _gil_runtime_state, 0: not known */
	bool gil_known;     /* false on free-threaded builds that run without it */
	bool collecting;    /* garbage */
	uint64_t gil_switches;
};
int py_interp_view(const struct py_runtime *rt, raddr interp, struct py_interp_view *ret);

/* The four bytes that are not 0 while the interpreter collects garbage; 0: not known. */
raddr py_collecting_word(const struct py_runtime *rt, raddr interp);

#endif
