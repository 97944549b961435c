/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_UNWIND_TABLE_H
#define PYSPYD_NATIVE_UNWIND_TABLE_H

#include "engine/elf/elf_image.h"
#include "engine/native/cfi.h"
#include "engine/native/unwind_rows.h"

/* How to get from a frame to its caller, for all code of one file. unwind_rows.h says how the words lie. */
struct unwind_table {
	uint64_t vaddr;   /* what offset 0 is, as the file has it */
	uint32_t pages;   /* of 64 KiB */
	uint32_t words_n; /* page index and rows */
	uint32_t *words;  /* the table's own */
	uint32_t broken;  /* as in struct cfi */
	uint32_t unknown;
};

/* Makes a table from .eh_frame, or where there is none from .debug_frame. Its rules are added to `rules`. Return: 0;
 * -ENOENT the file says nothing; -EFBIG more than CFI_SECTION_MAX or CFI_ROWS_MAX; -ENOTSUP neither x86-64 nor aarch64;
 * -EIO; -ENOMEM; another negative errno. */
int unwind_table_new(struct elf_image *img, struct unwind_rules *rules, struct unwind_table **ret_table);

/* The same from what cfi_read has found, which this sorts. Return: 0; -ENOENT; -ENOMEM. */
int unwind_table_pack(struct cfi *cfi, uint64_t vaddr, struct unwind_table **ret_table);

void unwind_table_free(struct unwind_table *table);

/* Return: the rule's index at an address as the file has it; UNWIND_RULE_NONE where there is none. */
uint16_t unwind_table_find(const struct unwind_table *table, uint64_t vaddr);

/* Return: whether somewhere in [from, to] there is no rule. */
bool unwind_table_has_gap(const struct unwind_table *table, uint64_t from, uint64_t to);

static inline uint32_t unwind_table_rows(const struct unwind_table *table) {
	return table->words_n - table->pages - 1;
}

#endif
