/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_KEEPERS_H
#define PYSPYD_LEAKS_KEEPERS_H

#include "engine/leaks/census.h"

/* Who keeps objects alive: for each, the shortest path that was found from a root. Near the roots forwards (roots.h),
 * from the objects backwards: all memory is searched for words that lead to them, the objects that these words lie in
 * come next, and so on, until all have met a root. Each round is one pass over the target's own memory, for all objects
 * at once. */

enum keeper_root {
	KEEPER_UNKNOWN, /* no reference was found, or a limit was met first */
	KEEPER_PYTHON,  /* the path is one of Python */
	KEEPER_STATIC,  /* a static variable of a program or library holds it: path is "static data of _speedups.so" */
	KEEPER_NATIVE,  /* memory that no object owns: "native memory", with the path from there */
	KEEPER_STACK,   /* only a thread's native stack */
	KEEPER_CYCLE,   /* nothing but objects that it leads to itself: garbage that waits to be collected */
};

struct keeper {
	enum keeper_root root;
	char *path; /* from the root to the object; NULL: KEEPER_UNKNOWN. Of an item of a long container "…[…]" */
	raddr container; /* the nearest list, dict, set, deque or tuple of CENSUS_CONTAINER_MIN items or more on the
			    way; 0 there is none */
	char *container_path; /* its own; NULL with 0 */
};

struct keeper_limits {
	unsigned rounds;   /* passes over the memory at most; 0: KEEPER_ROUNDS */
	uint64_t until_ns; /* CLOCK_MONOTONIC: no further pass begins after it, … */
	uint64_t cpu_ns;   /* … nor when the thread has used so much CPU time since; 0: that does not count */
};

#define KEEPER_ROUNDS 12
#define KEEPER_OBJECTS_MAX 4096 /* that can be asked for at once */

/* `census`: of the same target, taken with CENSUS_KEEP_PLACES, as recently as may be. ret_keepers has n entries, the
 * caller's to keepers_deinit. Return: 0; MEM_E_GONE; negative errno. */
int keepers_find(const struct py_runtime *rt, const struct census *census, const raddr *objects, size_t n,
	const struct keeper_limits *limits, struct keeper *ret_keepers);
void keepers_deinit(struct keeper *keepers, size_t n);

#endif
