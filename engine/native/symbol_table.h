/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_SYMBOL_TABLE_H
#define PYSPYD_NATIVE_SYMBOL_TABLE_H

#include "engine/base/vec.h"
#include "engine/elf/elf_image.h"
#include <stdbool.h>
#include <stdint.h>

/* Names of the functions of one file, by address. Filled from several sources, then sorted once. */

struct symbol_row {
	uint64_t vaddr, size;
	uint64_t limit; /* size 0: up to the next one, but not beyond this */
	uint32_t name;  /* offset in names */
	uint32_t rank;  /* of those at one address, the lowest is kept */
};

struct symbol_table {
	VEC(struct symbol_row) rows;
	VEC(char) names;
	uint64_t start, end; /* what lies outside is left out */
};

#define SYMBOL_ROWS_MAX (4U << 20)
#define SYMBOL_NAMES_MAX (128U << 20)

/* Adds one. What is beyond the limits is left out. Return: 0; -ENOMEM. */
int symbol_table_add(struct symbol_table *table, const struct elf_symbol *symbol);

/* Adds .symtab and .dynsym of a file. Return: 0; -ENOMEM; errors of reading. */
int symbol_table_add_image(struct symbol_table *table, struct elf_image *img);

/* Adds what .gnu_debugdata has: a small ELF file, packed by xz, with the symbols that are not dynamic. Return: 0, also
 * where there is none or it is broken; -ENOMEM. */
int symbol_table_add_debugdata(struct symbol_table *table, struct elf_image *img);

/* To be called before the first search. */
void symbol_table_sort(struct symbol_table *table);

/* Return: the name of the function that `vaddr` is in and *ret_start; NULL: none that is known. */
const char *symbol_table_find(const struct symbol_table *table, uint64_t vaddr, uint64_t *ret_start);

void symbol_table_deinit(struct symbol_table *table);

#endif
