/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_MEMORY_H
#define PYSPYD_PROC_MEMORY_H

#include "engine/proc/proc.h"

/* Whose memory it is, and what it is: the costly counters, read rarely. */

/* Private memory of mappings that are alike: resident pages of the process alone, and what is in swap. */
struct memory_group {
	char *name; /* "[heap]", "[stack]", "anonymous", "anonymous arenas of malloc", a name that was given to it
		       ("[anon:…]"), the path of a file */
	uint64_t mappings, bytes;
};
typedef VEC(struct memory_group) memory_groups;

/* Out of /proc/PID/smaps, which takes the target's lock of mappings for a while: rarely. Groups without memory are left
 * out; most bytes first. Return: 0; PROC_E_GONE; -EACCES; -ENOMEM; negative errno. */
int memory_groups_read(const struct proc *proc, memory_groups *ret_groups);
int memory_groups_parse(const char *text, size_t len, memory_groups *ret_groups); /* pure */
void memory_groups_free(memory_groups *groups);

/* Anonymous memory in RAM and swap, out of /proc/PID/status: cheap, at every look. PROC_UNKNOWN: not there. Return: 0;
 * PROC_E_GONE; negative errno. */
int memory_private_read(const struct proc *proc, uint64_t *ret_bytes);
int memory_private_parse(const char *text, size_t len, uint64_t *ret_bytes); /* pure */

/* What the machine could still give: MemAvailable. Return: 0; -EINVAL; negative errno. */
int memory_available_read(uint64_t *ret_bytes);
int memory_available_parse(const char *text, size_t len, uint64_t *ret_bytes); /* pure */

/* How many processes the kernel has killed for lack of memory, of the machine or of a control group: oom_kill in
 * /proc/vmstat (Linux 4.13). Return: 0; -EINVAL; negative errno. */
int memory_oom_kills_read(uint64_t *ret_kills);
int memory_oom_kills_parse(const char *text, size_t len, uint64_t *ret_kills); /* pure */

#endif
