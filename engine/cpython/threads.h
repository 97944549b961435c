/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_THREADS_H
#define PYSPYD_CPYTHON_THREADS_H

#include "engine/base/map.h"
#include "engine/cpython/runtime.h"

/* Thread states, and whose they are. */

struct py_thread {
	raddr tstate;
	raddr interp;
	int64_t interp_id;
	uint64_t ident; /* threading.get_ident(): the pthread */
	pid_t tid;      /* in our PID namespace; 0 where it could not be told */
};
typedef VEC(struct py_thread) py_thread_vec;

/* All thread states of all interpreters, newest first within each. `proc` serves to translate thread ids across PID
 * namespaces and to reject those that the kernel does not know. Return: 0; PY_E_TORN where the list changed under us
 * (try again); MEM_E_*; negative errno. */
int py_threads_read(const struct py_runtime *rt, const struct proc *proc, py_thread_vec *ret_threads);

/* Where struct pthread keeps the kernel's thread id, for versions whose thread states lack it: looked for in a thread
 * of the target. Return: the offset; LAYOUT_NONE where it was not found. */
uint32_t py_pthread_tid_offset(const struct py_runtime *rt, const struct proc *proc, uint64_t ident);

/* Names that Python gave its threads: ident → index into names. */
struct py_thread_names {
	struct map index;
	VEC(char *) names;
};

/* Reads threading._active of every interpreter. Threads that Python does not know are not in it.
 * Return: 0, also where the module is not imported; MEM_E_*; negative errno. */
int py_thread_names_read(const struct py_runtime *rt, struct py_thread_names *ret_names);
void py_thread_names_deinit(struct py_thread_names *names);

/* Return: the name, or NULL. It belongs to names. */
const char *py_thread_name(const struct py_thread_names *names, uint64_t ident);

#endif
