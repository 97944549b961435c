/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_PERF_MAP_H
#define PYSPYD_NATIVE_PERF_MAP_H

#include "engine/native/symbol_table.h"
#include "engine/proc/proc.h"

/* Names of code that was made at run time: /tmp/perf-PID.map, as virtual machines and CPython's -X perf write it
 * (Linux tools/perf/Documentation/jit-interface.txt): "START SIZE name\n", hexadecimal. */

#define PERF_MAP_MAX (64U << 20)

/* Pure. Lines that are none are left out; of names that overlap the last written is the right one, and is taken. The
 * table is ready to be searched. Return: 0; -ENOMEM. */
int perf_map_parse(const char *text, size_t len, struct symbol_table *table);

/* Reads the process's file, below its root, by its pid in its own namespace; only one that belongs to the process's
 * user or to root. Return: 0; -ENOENT there is none; -EACCES it is somebody else's; -EFBIG; PROC_E_GONE; -ENOMEM;
 * negative errno. */
int perf_map_read(const struct proc *proc, struct symbol_table *table);

#endif
