/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CRASH_H
#define PYSPYD_CRASH_H

#include "pyspyd/core.h"
#include "pyspyd/err.h"
#include "pyspyd/finding.h"

/* What a core tells, as a finding of the kind "crash". */

struct pyspyd_crash_options {
	struct pyspyd_core_source core;
	const struct pyspyd_process *process; /* as it was seen while it was still there; NULL: what the core has */
	const char *kept;                     /* where the core will be found; NULL: nowhere */
};

/* Return: 0 and *ret_finding, the caller's; as pyspyd_dump (PYSPYD_E_UNSUPPORTED: no Python). */
int pyspyd_crash_finding(
	const struct pyspyd_crash_options *options, struct pyspyd_finding **ret_finding, struct err *err);

/* The same of a core that was not read: the process died of that signal (0: not known), and dumped core. */
int pyspyd_crash_unread(
	const struct pyspyd_process *process, int signal, struct pyspyd_finding **ret_finding, struct err *err);

/* Looks at a process whose core is being written, or that runs: who it is (without its version), and whether its files
 * are those of a Python. *ret_process is the caller's to deinit. Return: 0; PYSPYD_E_GONE; negative errno. */
int pyspyd_crash_look(pid_t pid, struct pyspyd_process *ret_process, bool *ret_python);

#endif
