/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CORE_H
#define PYSPYD_CORE_H

#include "pyspyd/triage.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Core files: a process that is dead, in place of one that lives. */

/* Where it is, and where its files are. None of them is ever executed. */
struct pyspyd_core_source {
	const char *core; /* the core file, also packed (zstd, xz, lz4, gzip) */
	const char *exe;  /* the executable; NULL: where the process had it */
	const char *root; /* folder below which the process' files are; NULL: "/" */
};

struct pyspyd_register {
	const char *name; /* static */
	uint64_t value;
};

/* What a core tells of the process as a whole. */
struct pyspyd_core {
	char *path;
	pid_t tid;          /* of the thread that died; 0: none, the core was taken from a living process */
	int signal;         /* 0 likewise */
	char *signal_name;  /* "SIGSEGV" */
	int code;           /* si_code */
	const char *reason; /* what it means: "address not mapped"; static; NULL where it is not known */
	bool has_address, has_sender;
	uint64_t address; /* that faulted */
	pid_t sender;     /* of the signal, as the process saw it */
	uid_t sender_uid;
	struct pyspyd_register *registers; /* of the thread that died, or that the debugger looked at */
	size_t registers_n;
	uint64_t bytes, expected_bytes; /* fewer than expected: the core is truncated */
	/* Files that the process had mapped: those that are not there, or others by now (their functions have no names,
	 * and what was not dumped of them is not known), and the number of those of which it cannot be proven that they
	 * are the same. */
	char **missing, **different;
	size_t missing_n, different_n, unverified_n;
	struct pyspyd_triage *triage; /* NULL: it did not die, or it was not asked for */
};

void pyspyd_core_free(struct pyspyd_core *core);

/* While a core is read there is a folder of it in TMPDIR. For a handler of signals, before the process ends: removes
 * it; nothing that reads a core may go on then. */
void pyspyd_core_tidy(void);

#endif
