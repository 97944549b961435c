/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_CFI_STATE_H
#define PYSPYD_NATIVE_CFI_STATE_H

#include "engine/base/cursor.h"
#include "engine/base/util.h"
#include "engine/native/unwind_rows.h"

/* Inside cfi*.c: what a program of call frame information has said up to one address. */

/* DWARF's numbers of the registers that we follow (System V ABI x86-64, figure 3.36; AArch64 DWARF, table of
 * registers). */
struct cfi_machine {
	uint16_t machine;
	uint8_t sp, fp, ra;
	uint8_t bx; /* CFI_NO_REG: not followed */
};
#define CFI_NO_REG 0xff

enum cfi_reg_kind {
	CFI_REG_SAME, /* also where nothing was said */
	CFI_REG_OFFSET,
	CFI_REG_EXPR, /* saved at the address that an expression gives */
	CFI_REG_UNDEFINED,
	CFI_REG_REGISTER,  /* in another one, with the number `off` */
	CFI_REG_ELSEWHERE, /* a value by an expression: no rule says that */
};

struct cfi_expr {
	const uint8_t *data;
	size_t len;
};

struct cfi_reg {
	enum cfi_reg_kind kind;
	int64_t off;
	struct cfi_expr expr;
};

struct cfi_state {
	bool cfa_is_expr, cfa_is_set;
	uint64_t cfa_reg;
	int64_t cfa_off;
	struct cfi_expr cfa_expr;
	struct cfi_reg fp, bx, ra;
};

/* Return: the rule; UNWIND_CFA_NONE where none can say it. */
struct unwind_rule cfi_state_rule(const struct cfi_machine *machine, const struct cfi_state *state);

bool cfi_uleb(struct cursor *c, uint64_t *out);
bool cfi_sleb(struct cursor *c, int64_t *out);

#endif
