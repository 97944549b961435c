/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_LINES_H
#define PYSPYD_NATIVE_LINES_H

#include "engine/base/vec.h"
#include "engine/native/modules.h"

/* Source lines and inlined functions, where a file, or its separate file, has DWARF. For one explicit look: it takes
 * its time. */

struct native_line {
	uint32_t query; /* index of the address that was asked for */
	uint32_t line;  /* 0: not known */
	bool inlined;   /* the function has no frame of its own: what follows is where it was inlined */
	char *function; /* as the source has it, without namespaces and parameters; "" not known */
	char *file;     /* as the compiler was told; "" not known */
};
typedef VEC(struct native_line) native_line_vec;

/* What stands at addresses of one module (native_frame_at), innermost first for each; of what is not known there is
 * nothing. Reads in a child process that is bounded in time (10 s where timeout_ns is more) and memory: DWARF of a
 * hostile file may do anything to its reader. Return: 0; -ENOENT there is no DWARF; -ETIMEDOUT; -ENOMEM; negative
 * errno. */
#define NATIVE_LINE_QUERIES_MAX 65536
int native_lines_read(const struct native_modules *modules, const struct native_module *module, const raddr *at,
	size_t n, uint64_t timeout_ns, native_line_vec *ret_lines);
void native_lines_free(native_line_vec *lines);

#endif
