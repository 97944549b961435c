/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_COLD_H
#define PYSPYD_NATIVE_COLD_H

#include "engine/native/symbol_table.h"

/* The part of a function that the compiler moved away (gcc: NAME.cold), in a file without the symbol that would tell.
 * CPython's evaluation loop has one in which most of its calls are. */

/* Adds NAME.cold where the table has NAME and no such part, and where it is found. The table is not sorted yet.
 * Return: 0, also where nothing was found; -ENOMEM; errors of reading. */
int symbol_table_add_cold(struct symbol_table *table, struct elf_image *img, const char *name);

#endif
