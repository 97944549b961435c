/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_HANDLES_FDS_H
#define PYSPYD_PIPELINE_HANDLES_FDS_H

#include "engine/leaks/handles.h"

/* Appends the descriptors of a process to the items of a look; `before`: of the first of two. *ret_n: how many are
 * open; *ret_incomplete: there are more. Return: 0; PROC_E_GONE; negative errno (some may have been appended). */
int handles_read_fds(
	const struct proc *proc, bool before, handle_item_vec *items, uint64_t *ret_n, bool *ret_incomplete);

#endif
