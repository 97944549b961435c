/* SPDX-License-Identifier: MIT */
/* From the state of a program of call frame information to a rule.
 *
 * Expressions are not run: the few forms that linkers, compilers and hand-written assembler really use are recognised,
 * all others become "no rule":
 *
 *     PLT stubs (ld)             breg7(rsp) 8; breg16(rip) 0; lit15; and; lit11; ge; lit3; shl; plus
 *     realigned stacks (gcc)     CFA: breg6(rbp) -8; deref     rbp saved at: breg6(rbp) 0
 *     OpenSSL's assembler        CFA: breg7(rsp) 40; deref; plus_uconst 8 */
#include "engine/native/cfi_state.h"

#include <dwarf.h>

#define LEB_BYTES_MAX 10

bool cfi_uleb(struct cursor *c, uint64_t *out) {
	struct cursor at = *c;
	uint64_t value = 0;

	for (unsigned i = 0; i < LEB_BYTES_MAX; i++) {
		uint8_t byte;

		if (!cursor_u8(&at, &byte))
			return false;
		value |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (byte & 0x80)
			continue;
		*c = at;
		*out = value;
		return true;
	}
	return false;
}

bool cfi_sleb(struct cursor *c, int64_t *out) {
	size_t before = c->pos;
	uint64_t value;
	unsigned bits;

	if (!cfi_uleb(c, &value))
		return false;
	bits = 7 * (unsigned)(c->pos - before);
	if (bits < 64 && value >> (bits - 1) & 1)
		value |= UINT64_MAX << bits;
	*out = (int64_t)value;
	return true;
}

static bool next_op_is(struct cursor *c, uint8_t op) {
	uint8_t byte;

	if (!cursor_left(c) || c->data[c->pos] != op)
		return false;
	return cursor_u8(c, &byte);
}

/* "register + offset" */
static bool take_breg(struct cursor *c, uint64_t *ret_reg, int64_t *ret_off) {
	uint8_t op;

	if (!cursor_u8(c, &op))
		return false;
	if (op >= DW_OP_breg0 && op <= DW_OP_breg31) {
		*ret_reg = op - DW_OP_breg0;
		return cfi_sleb(c, ret_off);
	}
	return op == DW_OP_bregx && cfi_uleb(c, ret_reg) && cfi_sleb(c, ret_off);
}

/* The rest of a PLT's expression, behind "stack pointer + offset". */
static bool take_plt(struct cursor *c, const struct cfi_machine *machine, int64_t *ret_from) {
	uint64_t reg;
	int64_t off;
	uint8_t from;

	if (!take_breg(c, &reg, &off) || reg != machine->ra || off || !next_op_is(c, DW_OP_lit15) ||
		!next_op_is(c, DW_OP_and) || !cursor_u8(c, &from) || from < DW_OP_lit0 || from > DW_OP_lit15)
		return false;
	*ret_from = from - DW_OP_lit0;
	return next_op_is(c, DW_OP_ge) && next_op_is(c, DW_OP_lit3) && next_op_is(c, DW_OP_shl) &&
		next_op_is(c, DW_OP_plus) && !cursor_left(c);
}

/* "deref", and a constant added to that. */
static bool take_deref(struct cursor *c, int64_t *ret_add) {
	uint64_t add = 0;

	if (!next_op_is(c, DW_OP_deref))
		return false;
	if (next_op_is(c, DW_OP_plus_uconst) && (!cfi_uleb(c, &add) || add > INT16_MAX))
		return false;
	*ret_add = (int64_t)add;
	return !cursor_left(c);
}

static bool set_base(struct unwind_rule *rule, const struct cfi_machine *machine, uint64_t reg, int64_t off) {
	if (off != (int32_t)off || reg >= CFI_NO_REG)
		return false;
	rule->cfa_off = (int32_t)off;
	if (reg == machine->sp)
		rule->base = UNWIND_BASE_SP;
	else if (reg == machine->fp)
		rule->base = UNWIND_BASE_FP;
	else if (reg == machine->bx)
		rule->base = UNWIND_BASE_BX;
	else {
		rule->base = UNWIND_BASE_OTHER;
		rule->base_reg = (unwind_u8)reg;
	}
	return true;
}

static bool set_cfa_expr(struct unwind_rule *rule, const struct cfi_machine *machine, const struct cfi_expr *expr) {
	struct cursor c = cursor_of(expr->data, expr->len), plt;
	int64_t off, add = 0;
	uint64_t reg;

	if (!take_breg(&c, &reg, &off) || !set_base(rule, machine, reg, off))
		return false;
	plt = c;
	if (!cursor_left(&c))
		rule->cfa = UNWIND_CFA_REG;
	else if (take_deref(&c, &add))
		rule->cfa = UNWIND_CFA_DEREF;
	else if (reg == machine->sp && take_plt(&plt, machine, &add))
		rule->cfa = UNWIND_CFA_PLT;
	else
		return false;
	rule->cfa_add = (int16_t)add;
	return true;
}

static bool set_cfa(struct unwind_rule *rule, const struct cfi_machine *machine, const struct cfi_state *state) {
	if (!state->cfa_is_set)
		return false;
	if (state->cfa_is_expr)
		return set_cfa_expr(rule, machine, &state->cfa_expr);
	rule->cfa = UNWIND_CFA_REG;
	return set_base(rule, machine, state->cfa_reg, state->cfa_off);
}

static void set_saved(const struct cfi_machine *machine, const struct cfi_reg *reg, uint8_t *kind, int32_t *off) {
	struct cursor c = cursor_of(reg->expr.data, reg->expr.len);
	uint64_t base;
	int64_t at;

	*kind = UNWIND_UNKNOWN;
	if (reg->kind == CFI_REG_SAME)
		*kind = UNWIND_SAME;
	else if (reg->kind == CFI_REG_OFFSET && reg->off == (int32_t)reg->off) {
		*kind = UNWIND_AT_CFA;
		*off = (int32_t)reg->off;
	} else if (reg->kind == CFI_REG_EXPR && take_breg(&c, &base, &at) && !cursor_left(&c) && base == machine->fp &&
		at == (int32_t)at) {
		*kind = UNWIND_AT_FP;
		*off = (int32_t)at;
	}
}

static bool set_ra(struct unwind_rule *rule, const struct cfi_reg *ra) {
	rule->ra_off = (int16_t)ra->off;
	switch (ra->kind) {
	case CFI_REG_SAME: rule->ra = UNWIND_SAME; return true;
	case CFI_REG_OFFSET: rule->ra = UNWIND_AT_CFA; return ra->off == rule->ra_off;
	case CFI_REG_REGISTER: rule->ra = UNWIND_IN_REG; return ra->off == rule->ra_off;
	default: return false;
	}
}

struct unwind_rule cfi_state_rule(const struct cfi_machine *machine, const struct cfi_state *state) {
	struct unwind_rule rule = { 0 };

	if (state->ra.kind == CFI_REG_UNDEFINED)
		return (struct unwind_rule){ .cfa = UNWIND_CFA_END };
	if (!set_cfa(&rule, machine, state) || !set_ra(&rule, &state->ra))
		return (struct unwind_rule){ .cfa = UNWIND_CFA_NONE };
	set_saved(machine, &state->fp, &rule.fp, &rule.fp_off);
	if (machine->bx != CFI_NO_REG)
		set_saved(machine, &state->bx, &rule.bx, &rule.bx_off);
	return rule;
}
