/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_STACK_H
#define PYSPYD_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A process, its threads and their stacks, as people and machines are shown them. Strings are UTF-8, as the target has
 * them: not yet fit for a terminal (the writers see to that). */

enum pyspyd_lang { PYSPYD_PYTHON, PYSPYD_NATIVE, PYSPYD_KERNEL };

struct pyspyd_local {
	char *name;
	char *type;  /* "module.QualName" */
	char *value; /* short; "***" where masked */
	bool masked; /* because of its name */
};

struct pyspyd_frame {
	enum pyspyd_lang lang;
	char *function; /* co_name */
	char *qualname; /* co_qualname (3.11+), else the same as function */
	char *file;
	char *module;                /* __name__ of the frame's globals; "" where unknown */
	int line;                    /* 0: the instruction has none */
	struct pyspyd_local *locals; /* only where they were asked for */
	size_t locals_n;
};

enum pyspyd_gil { PYSPYD_GIL_NONE, PYSPYD_GIL_HELD, PYSPYD_GIL_WAITING, PYSPYD_GIL_UNKNOWN };

struct pyspyd_thread {
	pid_t tid;      /* as this process sees it; 0 where unknown */
	uint64_t ident; /* Python's thread ident */
	char *name;     /* Python's name of the thread, else the kernel's */
	char state;     /* of the kernel: R S D T t Z …; '?' where it could not be read */
	enum pyspyd_gil gil;
	bool in_gc;                  /* collecting garbage now */
	int64_t interpreter;         /* 0 is the main one */
	struct pyspyd_frame *frames; /* most recent call first */
	size_t frames_n;
	bool truncated;  /* deeper than the limit: the outermost calls are missing */
	bool incomplete; /* the thread moved while it was read, or memory was not to be had: what is shown may lack
			    frames */
};

struct pyspyd_process {
	pid_t pid;
	uint64_t start_real_ns;
	char *name;
	char **cmdline; /* NULL-terminated */
	char *exe;
	char *python; /* "3.13.1", "3.13.1t" free-threaded, "3.13.1d" debug */
	uid_t uid;
	char *cgroup, *container, *unit;
};

void pyspyd_frames_free(struct pyspyd_frame *frames, size_t n);
void pyspyd_threads_free(struct pyspyd_thread *threads, size_t n);
void pyspyd_process_deinit(struct pyspyd_process *process);

#endif
