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

/* Of a process whose core is being written, or that runs. Who it is, without its version, out of texts of the kernel
 * alone: none of its files is opened, nor its memory. *ret_process is the caller's to deinit. Return: 0; PYSPYD_E_GONE;
 * negative errno. */
int pyspyd_crash_who(pid_t pid, struct pyspyd_process *ret_process);

/* Whether it is a Python say its files, which are anybody's. So they are opened by whoever may open them, regular files
 * alone, none of which is read then; and looked into by who has no rights any more. Return: 0; PYSPYD_E_GONE; -EMFILE:
 * there are more of them than one may have; other negative errno. */
struct pyspyd_crash_files;
int pyspyd_crash_files_open(pid_t pid, struct pyspyd_crash_files **ret_files);
bool pyspyd_crash_files_python(const struct pyspyd_crash_files *files);
void pyspyd_crash_files_free(struct pyspyd_crash_files *files);

#endif
