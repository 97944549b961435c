/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_HANDLES_H
#define PYSPYD_HANDLES_H

#include "pyspyd/err.h"
#include "pyspyd/stack.h"

/* What a process holds: descriptors, threads, children, mappings, each grouped by kind and by what it stands for, and
 * the limits that it lives under. */

#define PYSPYD_HANDLE_IDS 16 /* examples shown of a group */

enum pyspyd_handle_what {
	PYSPYD_HANDLE_DESCRIPTOR,
	PYSPYD_HANDLE_THREAD,
	PYSPYD_HANDLE_CHILD,
	PYSPYD_HANDLE_MAPPING,
};

/* Those of one kind with one target. Targets that differ in their numbers alone stand together ("/tmp/req-*.log"), and
 * so do the files of a folder and the ports of a host where there are many of them. */
struct pyspyd_handle_group {
	enum pyspyd_handle_what what;
	const char *kind; /* static: "file", "socket", "pipe", "python", "zombie", "heap" … */
	char *target;     /* "/tmp/req-*.log", "tcp CLOSE_WAIT to 10.1.2.3:5432", "write end", "worker (app.py)"; "" */
	uint64_t count;   /* now; may be 0 with two looks */
	uint64_t bytes;   /* of mappings, else 0 */
	int64_t grew;     /* since the look before; 0 with one look */
	int64_t grew_bytes;
	int ids[PYSPYD_HANDLE_IDS]; /* the lowest descriptors, thread ids or pids; none of mappings */
	size_t ids_n;
	/* Where they were made, most recent call first: the stack that made most of those that were seen to be made.
	 * NULL where none was seen. */
	struct pyspyd_frame *created;
	size_t created_n;
};

struct pyspyd_handle_thread {
	struct pyspyd_thread thread; /* without frames where Python does not know it */
	bool python;
	uint64_t age_ns; /* UINT64_MAX unknown */
	size_t runs;     /* index of the frame that it is in: the innermost of the program's own */
	size_t start;    /* index of the frame of the function that it was started with, as far as its stack shows */
	struct pyspyd_frame *created; /* as of a group */
	size_t created_n;
};

struct pyspyd_handle_child {
	pid_t pid;
	char *name; /* the kernel's */
	char state; /* 'Z': a zombie */
	uint64_t age_ns;
};

/* Of the control group, the tightest limit of it and those above it. UINT64_MAX: none, or not to be read. */
struct pyspyd_handle_cgroup {
	uint64_t memory_bytes, memory_limit_bytes;
	uint64_t tasks, tasks_limit;
	uint64_t periods, throttled_periods, throttled_ns; /* of the CPU quota, since the group was made */
	double memory_some_pct, memory_full_pct; /* share of the last 10 s in which some, all tasks waited for memory;
						    negative: unknown */
};

/* Where things were made that are there now. */

/* One place: what was made there, of one kind and by one call. */
struct pyspyd_origin {
	enum pyspyd_handle_what what;
	const char *kind; /* static, as of a group */
	const char *call; /* static: "open", "socket", "accept", "thread", "mmap" … */
	uint64_t count;
	uint64_t bytes;                  /* of mappings, else 0 */
	double share;                    /* of all that was seen to be made of `what`, 0 to 1 */
	uint64_t youngest_ns, oldest_ns; /* ages */
	int ids[PYSPYD_HANDLE_IDS];      /* as of a group */
	size_t ids_n;
	struct pyspyd_frame *frames; /* most recent call first; none: by native code, or the stack is not known */
	size_t frames_n;
	size_t own; /* index of the innermost frame that is not the standard library's */
};

/* One thing that was seen to be made. */
struct pyspyd_made {
	enum pyspyd_handle_what what;
	uint64_t id; /* descriptor, thread id, pid, address */
	uint64_t bytes;
	uint64_t age_ns;
	size_t origin; /* index of its place */
};

struct pyspyd_origins {
	char *why;           /* why nothing could be seen; NULL: it could, and the rest counts */
	uint64_t watched_ns; /* for how long */
	uint64_t left_out;   /* things that were made while there was no time to look at them */
	uint64_t paused_ns; /* … of which nothing was looked at: so many system calls were made that it would have cost
			       too much */
	struct pyspyd_origin *places; /* by what; in that the most first */
	size_t places_n;
	struct pyspyd_made *made; /* by what and id, ascending */
	size_t made_n;
	uint64_t unseen[PYSPYD_HANDLE_MAPPING + 1]; /* by what: what is there and was not seen to be made */
};

void pyspyd_origin_places_free(struct pyspyd_origin *places, size_t n);

struct pyspyd_handles {
	struct pyspyd_process process;
	uint64_t between_ns;                                             /* between the two looks; 0: one look */
	uint64_t descriptors, descriptors_limit, descriptors_limit_hard; /* RLIMIT_NOFILE; UINT64_MAX unlimited */
	uint64_t mappings, mapped_bytes;
	struct pyspyd_handle_group *groups; /* by what and kind; in a kind what grew most first, then the most */
	size_t groups_n;
	struct pyspyd_handle_thread *threads; /* main thread first, ascending */
	size_t threads_n;
	struct pyspyd_handle_child *children; /* ascending */
	size_t children_n;
	struct pyspyd_handle_cgroup cgroup;
	struct pyspyd_origins *origins; /* NULL: not asked for */
	bool incomplete;                /* a limit was met, or something could not be read */
};

struct pyspyd_handles_options {
	uint64_t between_ns; /* looks twice, so far apart, and says what grew; 0: once. A signal ends the wait early */
	uint64_t origins_ns; /* sees for so long what is made, and where, before it looks (again); 0: does not */
	const volatile int *stop; /* not 0: that ends now; may be NULL */
};

/* Looks at a live process. Return: 0; PYSPYD_E_GONE, _DENIED, _UNSUPPORTED, _STARTING; negative errno. *ret_handles is
 * the caller's. */
int pyspyd_handles_look(
	pid_t pid, const struct pyspyd_handles_options *options, struct pyspyd_handles **ret_handles, struct err *err);
void pyspyd_handles_free(struct pyspyd_handles *handles);

/* pyspyd.handles/1 in one line, and text for people; the caller's to free(); NULL when out of memory. */
char *pyspyd_handles_json(const struct pyspyd_handles *handles);
char *pyspyd_handles_text(const struct pyspyd_handles *handles, bool colour);

#endif
