/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DETECT_TRIAGE_H
#define PYSPYD_DETECT_TRIAGE_H

#include "pyspyd/core.h"
#include "pyspyd/stack.h"
#include "pyspyd/triage.h"

/* What a process died of: a pure decision over what its core has of the thread that died. */

enum triage_access {
	TRIAGE_ACCESS_UNKNOWN,
	TRIAGE_ACCESS_READ,
	TRIAGE_ACCESS_WRITE,
	TRIAGE_ACCESS_EXECUTE,
};

struct triage_map {
	bool known; /* there is one */
	uint64_t start, end;
	bool read, write, exec;
	const char *path; /* "" none; NULL likewise */
};

struct triage_frame {
	const char *function; /* "" not known */
	const char *module;   /* path of its file; "" not known */
};

/* An object that the interpreter was busy with. */
struct triage_object {
	uint64_t address; /* 0: not known */
	const char *type; /* "module.QualName"; NULL: it cannot be read, or what it has is no type */
	bool readable;
	uint64_t references, type_address; /* its first words, where it is readable */
};

#define TRIAGE_REFERRERS_MAX 4

struct triage_facts {
	pid_t pid, tid;
	const char *thread_name; /* NULL: not known */
	int signal, code;        /* the first one, where a handler took one and then sent it again */
	const char *signal_name;
	bool resent; /* a handler did that; address, registers, maps and frames are of the first signal */
	bool has_address, has_sender;
	uint64_t address;
	pid_t sender;
	uid_t sender_uid;
	enum triage_access access;
	const struct pyspyd_register *registers;
	size_t registers_n;
	bool registers_known; /* and so are these two */
	uint64_t pc, sp;
	struct triage_map stack;           /* that sp is in, or just below */
	struct triage_map at;              /* that the address is in */
	struct triage_map code_map;        /* that pc is in */
	uint64_t file_bytes;               /* size of the file that `at` is of, by now; UINT64_MAX: not known */
	uint64_t file_offset;              /* that the address stands for in it */
	const struct triage_frame *frames; /* native, most recent call first */
	size_t frames_n;
	const struct pyspyd_frame *python; /* the newest of Python; NULL: none */
	size_t python_depth;
	const struct pyspyd_exception *exception; /* that was on its way, or handled; NULL: none */
	bool collecting;                          /* the interpreter said that it collects garbage */
	const char *abort_message;                /* of the C library; NULL: none */
	const char *fatal_message;                /* found on the stack of the function that reports it; NULL: none */
	struct triage_object object;
	const struct triage_object *referrers; /* to the object, those that could be found */
	size_t referrers_n;
	bool referrers_more;    /* there are more … */
	bool referrers_cut;     /* … or may be: the search ended before it was through */
	const char *reached_by; /* how Python code, or a variable of a library, leads to it; NULL: not known */
};

/* Return: 0 and *ret_triage, the caller's to free; NULL: the process did not die; -ENOMEM. */
int triage_decide(const struct triage_facts *facts, struct pyspyd_triage **ret_triage);

/* Whether the interpreter was, in its innermost frames, following references or freeing an object. */
bool triage_meets_objects(const struct triage_frame *frames, size_t n);

/* Whether the interpreter was giving up, and the outermost of the functions that do that. */
bool triage_reports_fatal(const struct triage_frame *frames, size_t n, size_t *ret_frame);

#endif
