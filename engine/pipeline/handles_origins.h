/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_HANDLES_ORIGINS_H
#define PYSPYD_PIPELINE_HANDLES_ORIGINS_H

#include "engine/leaks/handles.h"

/* Where what a look found was made, as far as it was seen to be made before the look. */
struct handles_origins;

/* Sees what a process makes, for so long or until *stop (which may be NULL). What stands in the way is kept as the
 * reason. Return: 0; -ENOMEM. */
int handles_origins_watch(pid_t pid, uint64_t duration_ns, const volatile int *stop, struct handles_origins **ret_seen);
void handles_origins_free(struct handles_origins *seen);

/* Puts it into what was found: origins, and what of threads says where they were made. Return: 0; -ENOMEM. */
int handles_origins_fill(struct handles_origins *seen, const handle_item_vec *items, struct pyspyd_handles *handles);

/* The same of groups, by their ids. Return: 0; -ENOMEM. */
int handles_origins_fill_groups(struct pyspyd_handles *handles);

#endif
