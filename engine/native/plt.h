/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_PLT_H
#define PYSPYD_NATIVE_PLT_H

#include "engine/native/symbol_table.h"

/* Names the stubs through which a file calls functions of others: "malloc@plt". They have no symbols: each is known by
 * the slot that it jumps through, and the slot by its relocation. Return: 0, also where there are none; -ENOMEM; errors
 * of reading. */
int symbol_table_add_plt(struct symbol_table *table, struct elf_image *img);

#endif
