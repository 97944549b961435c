/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_SYMBOLS_H
#define PYSPYD_NATIVE_SYMBOLS_H

#include "engine/native/modules.h"

/* What stands at an address: the function's name, out of everything that knows it: .symtab and .dynsym of the file, its
 * .gnu_debugdata, a separate file with debug information (by build id or .gnu_debuglink, below the target's root, then
 * below ours), and for code that was made at run time the process's perf map file. Files' names are read when they are
 * first asked for, and kept with the file. */

#define NATIVE_NAME_SIZE 512

struct native_place {
	const char *symbol;          /* as the file has it; NULL: not known. Lives as long as the module and its file */
	char name[NATIVE_NAME_SIZE]; /* demangled; "" where not known */
	uint64_t offset;             /* from the function's start; where it is not known, from the file's */
	const struct native_module *module; /* NULL: no code is mapped there */
};

/* Return: 0; -ENOMEM; other errors of reading leave the name unknown. */
int native_symbolize(struct native_modules *modules, raddr at, struct native_place *ret_place);

/* Where separate debug information of a file lies: opens the one whose build id agrees with it. Return: 0 and *ret_fd
 * the caller's; -ENOENT; PROC_E_GONE. */
int native_debug_file_open(
	const struct native_modules *modules, const struct native_module *module, struct elf_image *img, int *ret_fd);

#endif
