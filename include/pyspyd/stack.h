/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_STACK_H
#define PYSPYD_STACK_H

#include "pyspyd/core.h"
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
	char *function;    /* co_name; native: demangled, or "libfoo.so+0x1a2b" where no symbol is known */
	char *qualname;    /* co_qualname (3.11+), else the same as function */
	char *file;        /* native: only where debug information has it, else "" */
	char *module;      /* __name__ of the frame's globals; native: path of the file with the code; kernel: of its
			      module; "" where unknown */
	int line;          /* 0: the instruction has none */
	uint64_t address;  /* native: of the instruction in the process */
	bool inlined;      /* native: into the next frame */
	const char *doubt; /* a word (PYSPYD_DOUBT_…), static; NULL: none */
	struct pyspyd_local *locals; /* only where they were asked for */
	size_t locals_n;
};

/* What may be wrong with a frame. */
#define PYSPYD_DOUBT_UNMATCHED "unmatched" /* its place among those of the other language is a guess */
#define PYSPYD_DOUBT_FRAME_POINTER \
	"frame-pointer" /* the next one was found by the frame pointer alone: one between them may be missing */
#define PYSPYD_DOUBT_RECOVERED "recovered" /* the next one was found by searching the stack: inferred, not read */

enum pyspyd_gil { PYSPYD_GIL_NONE, PYSPYD_GIL_HELD, PYSPYD_GIL_WAITING, PYSPYD_GIL_UNKNOWN };

enum pyspyd_exception_state {
	PYSPYD_EXCEPTION_LINKED,  /* another one leads to it */
	PYSPYD_EXCEPTION_RAISED,  /* on its way, not yet handled */
	PYSPYD_EXCEPTION_HANDLED, /* in an except or finally block, or in what that calls */
};

struct pyspyd_exception {
	enum pyspyd_exception_state state;
	char *type;      /* "module.QualName" */
	char *message;   /* as str() would say; of its arguments alone where own_str */
	bool own_str;    /* its class has a __str__ of its own, which is not run */
	bool repeated;   /* another one of this thread's: shown whole where it was met first */
	bool incomplete; /* there is more, beyond a limit or not readable */
	char **notes;    /* 3.11+ */
	size_t notes_n;
	struct pyspyd_frame *traceback; /* where it was raised, then whom it passed on its way */
	size_t traceback_n;
	size_t traceback_gap; /* index before which traceback_omitted frames are left out */
	size_t traceback_omitted;
	struct pyspyd_exception *cause;   /* __cause__ */
	struct pyspyd_exception *context; /* __context__, unless it is suppressed */
	struct pyspyd_exception *members; /* of a group (3.11+) */
	size_t members_n;
	size_t members_total; /* members_n and those left out */
};

struct pyspyd_thread {
	pid_t tid;      /* as this process sees it; 0 where unknown */
	uint64_t ident; /* Python's thread ident */
	char *name;     /* Python's name of the thread, else the kernel's */
	char state;     /* of the kernel: R S D T t Z …; '?' where it could not be read */
	enum pyspyd_gil gil;
	bool in_gc;                  /* collecting garbage now */
	int64_t interpreter;         /* 0 is the main one; negative: Python does not know the thread */
	struct pyspyd_frame *frames; /* most recent call first */
	size_t frames_n;
	bool exceptions_known;               /* they were asked for, and could be read */
	struct pyspyd_exception *exceptions; /* the one on its way, then those being handled, innermost first */
	size_t exceptions_n;
	bool truncated;  /* deeper than the limit: the outermost calls are missing */
	bool incomplete; /* the thread moved while it was read, or memory was not to be had: what is shown may lack
			    frames */
	bool native;     /* native frames were asked for; what follows tells how well that went */
	const char *native_end; /* why they end before the thread's first function, or why there are none; static; NULL:
				   they are whole */
	bool disagree;          /* both kinds of frames are whole, and some are "unmatched" */
	uint64_t stopped_ns;    /* for so long it was stopped for them; 0: it was not */
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
	struct pyspyd_core *core; /* it is dead, and was read out of a core file; NULL: it lives */
};

void pyspyd_frame_deinit(struct pyspyd_frame *frame);
void pyspyd_frames_free(struct pyspyd_frame *frames, size_t n);
void pyspyd_exceptions_free(struct pyspyd_exception *exceptions, size_t n);
void pyspyd_threads_free(struct pyspyd_thread *threads, size_t n);
void pyspyd_process_deinit(struct pyspyd_process *process);

#endif
