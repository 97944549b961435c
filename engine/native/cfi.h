/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_CFI_H
#define PYSPYD_NATIVE_CFI_H

#include "engine/base/map.h"
#include "engine/base/vec.h"
#include "engine/native/unwind_rows.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Call frame information (.eh_frame, .debug_frame) of a file that we do not trust, as rules of unwind_rows.h. */

/* The distinct rules of all files: item 0 is UNWIND_RULE_NONE. Items are only ever added. */
struct unwind_rules {
	VEC(struct unwind_rule) items;
	struct map by_hash;
	uint64_t lost; /* times that a rule found no room: UNWIND_RULE_NONE stands for it */
};

/* Return: 0; -ENOMEM. */
int unwind_rules_init(struct unwind_rules *rules);
void unwind_rules_deinit(struct unwind_rules *rules);

/* Finds or adds a rule. Return: 0 and its index (UNWIND_RULE_NONE where there is no more room); -ENOMEM. */
int unwind_rules_add(struct unwind_rules *rules, const struct unwind_rule *rule, uint16_t *ret_index);

struct cfi_section {
	const uint8_t *data;
	size_t len;
	uint64_t vaddr;    /* of data[0] */
	bool eh_frame;     /* false: .debug_frame */
	uint16_t machine;  /* EM_X86_64, EM_AARCH64 */
	uint64_t start;    /* of the code; offsets count from here */
	uint64_t code_len; /* below 4 GiB; what lies outside is left out */
};

struct cfi_row {
	uint32_t offset;
	uint16_t rule;
};

/* The code of one function: rows.items[first] to [first + n - 1], ascending, the first of them at `start`. */
struct cfi_range {
	uint32_t start, end; /* start < end */
	uint32_t first, n;
};

struct cfi {
	VEC(struct cfi_row) rows;
	VEC(struct cfi_range) ranges; /* in the section's order; in a broken file they may overlap */
	uint32_t broken;              /* entries, or rests of entries, that could not be read */
	uint32_t unknown;             /* rows that no rule can express */
};

#define CFI_ROWS_MAX (8U << 20)
#define CFI_SECTION_MAX (64U << 20)

/* Adds a section's ranges to `cfi`. Time and memory are linear in the section's size. Return: 0; -ENOTSUP a machine
 * that is not known; -EFBIG more bytes or rows than that; -ENOMEM. */
int cfi_read(const struct cfi_section *section, struct unwind_rules *rules, struct cfi *cfi);
void cfi_deinit(struct cfi *cfi);

#endif
