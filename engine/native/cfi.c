/* SPDX-License-Identifier: MIT */
/* Call frame information to rows of rules.
 *
 * libdw takes the section apart into entries (dwarf_next_cfi); their programs are run here, because each program must
 * be run once, from its start to its end, with all its rows kept: libdw's dwarf_cfi_addrframe runs it again for each
 * address, which a large function makes slow and a hostile one endless. Each byte of the section is looked at once: a
 * common entry must stand before those that use it (as linkers write them), and is run when it is met.
 *
 * Rules are kept for the stack pointer (the CFA), the frame pointer, rbx and the return address: code that is called in
 * the middle of something counts its CFA from the first three (rbx: the dynamic linker's lazy binding). What a rule
 * cannot say, and what is broken, becomes a row "no rule". */
#include "engine/native/cfi.h"
#include "engine/native/cfi_state.h"

#include <dwarf.h>
#include <elf.h>
#include <elfutils/libdw.h>
#include <endian.h>

#define REMEMBER_MAX 32 /* states kept by DW_CFA_remember_state; compilers need two */
#define COMMONS_MAX 65536
#define CODE_ALIGN_MAX 64
#define OP_AARCH64_NEGATE_RA 0x2d         /* the return address is signed: the reader strips the signature */
#define OP_AARCH64_NEGATE_RA_WITH_PC 0x2c /* LLVM */

static const struct cfi_machine machines[] = {
	{ .machine = EM_X86_64, .sp = 7, .fp = 6, .bx = 3, .ra = 16 },
	{ .machine = EM_AARCH64, .sp = 31, .fp = 29, .bx = CFI_NO_REG, .ra = 30 },
};

/* A common entry: what its functions start with. */
struct common {
	bool usable, signal, has_length;
	uint8_t pointer; /* DW_EH_PE_…: how addresses are written */
	uint64_t code_align;
	int64_t data_align;
	struct cfi_state initial;
};

struct reader {
	const struct cfi_section *section;
	const struct cfi_machine *machine;
	struct unwind_rules *rules;
	struct cfi *out;
	VEC(struct common) commons;
	struct map common_at;                /* offset → index */
	struct cfi_state kept[REMEMBER_MAX]; /* of the program that runs */
};

/* One program while it runs. */
struct program {
	struct reader *reader;
	const struct common *common;
	struct cursor code;
	uint64_t loc, end;
	struct cfi_state state;
	unsigned kept_n;
	bool changed, done;
	size_t first; /* row of this function */
	int failed;   /* -ENOMEM, -EFBIG */
};

static struct cursor section_cursor(const struct reader *reader, const uint8_t *from, const uint8_t *to) {
	struct cursor c = cursor_of(reader->section->data, (size_t)(to - reader->section->data));

	c.pos = (size_t)(from - reader->section->data);
	return c;
}

static bool read_fixed(struct cursor *c, uint8_t format, uint64_t *ret) {
	uint64_t value = 0;
	size_t size = format == DW_EH_PE_udata2 || format == DW_EH_PE_sdata2 ? 2
		: format == DW_EH_PE_udata4 || format == DW_EH_PE_sdata4     ? 4
									     : 8;

	if (!cursor_bytes(c, &value, size))
		return false;
	if (format == DW_EH_PE_sdata2)
		value = (uint64_t)(int16_t)value;
	else if (format == DW_EH_PE_sdata4)
		value = (uint64_t)(int32_t)value;
	*ret = value;
	return true;
}

/* A number as `encoding` says, without what it is relative to. */
static bool read_number(struct cursor *c, uint8_t encoding, uint64_t *ret) {
	int64_t number;

	switch (encoding & 0x0f) {
	case DW_EH_PE_uleb128: return cfi_uleb(c, ret);
	case DW_EH_PE_sleb128:
		if (!cfi_sleb(c, &number))
			return false;
		*ret = (uint64_t)number;
		return true;
	case DW_EH_PE_absptr:
	case DW_EH_PE_udata2:
	case DW_EH_PE_sdata2:
	case DW_EH_PE_udata4:
	case DW_EH_PE_sdata4:
	case DW_EH_PE_udata8:
	case DW_EH_PE_sdata8: return read_fixed(c, encoding & 0x0f, ret);
	default: return false;
	}
}

/* The address of code. The cursor is on the whole section, so that its position is the place's address. */
static bool read_address(struct cursor *c, const struct reader *reader, uint8_t encoding, uint64_t *ret) {
	uint64_t at = reader->section->vaddr + c->pos, value;

	if (!read_number(c, encoding, &value))
		return false;
	switch (encoding & 0xf0) {
	case DW_EH_PE_absptr: *ret = value; return true;
	case DW_EH_PE_pcrel: *ret = at + value; return true;
	default: return false;
	}
}

static struct cfi_reg *reg_of(struct program *p, struct cfi_state *state, uint64_t number) {
	const struct cfi_machine *machine = p->reader->machine;

	if (number == machine->ra)
		return &state->ra;
	if (number == machine->fp)
		return &state->fp;
	return number == machine->bx ? &state->bx : NULL;
}

static void set_reg(struct program *p, uint64_t number, struct cfi_reg value) {
	struct cfi_reg *reg = reg_of(p, &p->state, number);

	if (!reg)
		return;
	*reg = value;
	p->changed = true;
}

static bool restore_reg(struct program *p, uint64_t number) {
	const struct cfi_reg *initial = reg_of(p, (struct cfi_state *)&p->common->initial, number);

	if (initial)
		set_reg(p, number, *initial);
	return true;
}

static void add_row(struct program *p, const struct unwind_rule *rule) {
	struct cfi *out = p->reader->out;
	struct cfi_row row = { .offset = (uint32_t)(p->loc - p->reader->section->start) }, *last;

	p->failed = unwind_rules_add(p->reader->rules, rule, &row.rule);
	if (p->failed)
		return;
	last = out->rows.n > p->first ? &out->rows.items[out->rows.n - 1] : NULL;
	if (last && last->rule == row.rule)
		return;
	if (last && last->offset == row.offset) {
		last->rule = row.rule;
		return;
	}
	out->unknown += row.rule == UNWIND_RULE_NONE;
	p->failed = out->rows.n < CFI_ROWS_MAX ? vec_push(&out->rows, row) : -EFBIG;
}

/* What was said up to here holds from the present location on. */
static void close_row(struct program *p) {
	struct unwind_rule rule;

	if (!p->changed || !p->end)
		return;
	rule = cfi_state_rule(p->reader->machine, &p->state);
	add_row(p, &rule);
	p->changed = false;
}

static bool advance_to(struct program *p, uint64_t loc) {
	close_row(p);
	if (loc < p->loc)
		return false;
	p->loc = loc;
	p->done = p->failed || loc >= p->end;
	return true;
}

static bool advance(struct program *p, uint64_t steps) {
	return steps <= UINT32_MAX && advance_to(p, p->loc + steps * p->common->code_align);
}

static bool advance_fixed(struct program *p, size_t size) {
	uint64_t steps = 0;

	return cursor_bytes(&p->code, &steps, size) && advance(p, steps);
}

static bool set_loc(struct program *p) {
	uint64_t loc;

	return read_address(&p->code, p->reader, p->common->pointer, &loc) && advance_to(p, loc);
}

static bool take_block(struct program *p, struct cfi_expr *ret) {
	uint64_t len;

	if (!cfi_uleb(&p->code, &len) || len > cursor_left(&p->code))
		return false;
	ret->data = p->code.data + p->code.pos;
	ret->len = (size_t)len;
	return cursor_skip(&p->code, (size_t)len);
}

/* An offset in units of the data alignment: signed or not. Products wrap; what they are then is checked later. */
static bool take_offset(struct program *p, bool is_signed, int64_t *ret) {
	uint64_t factor;
	int64_t number;

	if (is_signed ? !cfi_sleb(&p->code, &number) : !cfi_uleb(&p->code, &factor))
		return false;
	factor = is_signed ? (uint64_t)number : factor;
	*ret = (int64_t)(factor * (uint64_t)p->common->data_align);
	return true;
}

static bool save_at(struct program *p, uint64_t reg, bool is_signed, bool negative) {
	int64_t off;

	if (!take_offset(p, is_signed, &off))
		return false;
	set_reg(p, reg, (struct cfi_reg){ .kind = CFI_REG_OFFSET, .off = negative ? (int64_t) - (uint64_t)off : off });
	return true;
}

static bool op_reg_offset(struct program *p, bool is_signed, bool negative) {
	uint64_t reg;

	return cfi_uleb(&p->code, &reg) && save_at(p, reg, is_signed, negative);
}

static bool op_reg_kind(struct program *p, enum cfi_reg_kind kind) {
	uint64_t reg;

	if (!cfi_uleb(&p->code, &reg))
		return false;
	set_reg(p, reg, (struct cfi_reg){ .kind = kind });
	return true;
}

static bool op_reg_expr(struct program *p, enum cfi_reg_kind kind) {
	struct cfi_reg value = { .kind = kind };
	uint64_t reg;

	if (!cfi_uleb(&p->code, &reg) || !take_block(p, &value.expr))
		return false;
	set_reg(p, reg, value);
	return true;
}

/* DW_CFA_register and DW_CFA_val_offset: a register's number and another number. */
static bool op_reg_number(struct program *p, enum cfi_reg_kind kind) {
	uint64_t reg, number;

	if (!cfi_uleb(&p->code, &reg) || !cfi_uleb(&p->code, &number))
		return false;
	set_reg(p, reg, (struct cfi_reg){ .kind = kind, .off = (int64_t)number });
	return true;
}

static bool op_restore(struct program *p) {
	uint64_t reg;

	return cfi_uleb(&p->code, &reg) && restore_reg(p, reg);
}

static bool op_def_cfa(struct program *p, bool with_reg, bool with_off, bool is_signed) {
	struct cfi_state *state = &p->state;
	uint64_t off;

	if ((!with_reg || !with_off) && (state->cfa_is_expr || !state->cfa_is_set))
		return false;
	if (with_reg && !cfi_uleb(&p->code, &state->cfa_reg))
		return false;
	if (with_off && is_signed && !take_offset(p, true, &state->cfa_off))
		return false;
	if (with_off && !is_signed) {
		if (!cfi_uleb(&p->code, &off))
			return false;
		state->cfa_off = (int64_t)off;
	}
	state->cfa_is_expr = false;
	state->cfa_is_set = p->changed = true;
	return true;
}

static bool op_def_cfa_expr(struct program *p) {
	if (!take_block(p, &p->state.cfa_expr))
		return false;
	p->state.cfa_is_expr = p->state.cfa_is_set = p->changed = true;
	return true;
}

static bool op_remember(struct program *p) {
	if (p->kept_n == REMEMBER_MAX)
		return false;
	p->reader->kept[p->kept_n++] = p->state;
	return true;
}

static bool op_restore_state(struct program *p) {
	if (!p->kept_n)
		return false;
	p->state = p->reader->kept[--p->kept_n];
	p->changed = true;
	return true;
}

static bool run_extended(struct program *p, uint8_t op) {
	uint64_t ignored;

	switch (op) {
	case DW_CFA_nop: return true;
	case DW_CFA_set_loc: return set_loc(p);
	case DW_CFA_advance_loc1: return advance_fixed(p, 1);
	case DW_CFA_advance_loc2: return advance_fixed(p, 2);
	case DW_CFA_advance_loc4: return advance_fixed(p, 4);
	case DW_CFA_offset_extended: return op_reg_offset(p, false, false);
	case DW_CFA_offset_extended_sf: return op_reg_offset(p, true, false);
	case DW_CFA_GNU_negative_offset_extended: return op_reg_offset(p, false, true);
	case DW_CFA_restore_extended: return op_restore(p);
	case DW_CFA_undefined: return op_reg_kind(p, CFI_REG_UNDEFINED);
	case DW_CFA_same_value: return op_reg_kind(p, CFI_REG_SAME);
	case DW_CFA_register: return op_reg_number(p, CFI_REG_REGISTER);
	case DW_CFA_val_offset:
	case DW_CFA_val_offset_sf: return op_reg_number(p, CFI_REG_ELSEWHERE);
	case DW_CFA_remember_state: return op_remember(p);
	case DW_CFA_restore_state: return op_restore_state(p);
	case DW_CFA_def_cfa: return op_def_cfa(p, true, true, false);
	case DW_CFA_def_cfa_sf: return op_def_cfa(p, true, true, true);
	case DW_CFA_def_cfa_register: return op_def_cfa(p, true, false, false);
	case DW_CFA_def_cfa_offset: return op_def_cfa(p, false, true, false);
	case DW_CFA_def_cfa_offset_sf: return op_def_cfa(p, false, true, true);
	case DW_CFA_def_cfa_expression: return op_def_cfa_expr(p);
	case DW_CFA_expression: return op_reg_expr(p, CFI_REG_EXPR);
	case DW_CFA_val_expression: return op_reg_expr(p, CFI_REG_ELSEWHERE);
	case DW_CFA_GNU_args_size: return cfi_uleb(&p->code, &ignored);
	case OP_AARCH64_NEGATE_RA:
	case OP_AARCH64_NEGATE_RA_WITH_PC: return p->reader->machine->machine == EM_AARCH64;
	default: return false;
	}
}

static bool run_op(struct program *p, uint8_t op) {
	switch (op & 0xc0) {
	case DW_CFA_advance_loc: return advance(p, op & 0x3f);
	case DW_CFA_offset: return save_at(p, op & 0x3f, false, false);
	case DW_CFA_restore: return restore_reg(p, op & 0x3f);
	default: return run_extended(p, op);
	}
}

/* Return: whether all of it was understood. */
static bool run(struct program *p) {
	uint8_t op;

	while (!p->done && cursor_u8(&p->code, &op))
		if (!run_op(p, op))
			return false;
	if (!p->done)
		close_row(p);
	return true;
}

/* "zPLR": the one thing of it that we need is how addresses are written. */
static bool read_augmentation(const struct reader *reader, const Dwarf_CIE *cie, struct common *common) {
	struct cursor c;

	if (!cie->augmentation[0])
		return true;
	if (cie->augmentation[0] != 'z' || !cie->augmentation_data)
		return false;
	common->has_length = true;
	c = section_cursor(reader, cie->augmentation_data, cie->augmentation_data + cie->augmentation_data_size);
	for (const char *letter = cie->augmentation + 1; *letter; letter++) {
		uint64_t ignored;
		uint8_t encoding = 0;

		if (*letter == 'S')
			common->signal = true;
		else if (*letter == 'R' || *letter == 'L' || *letter == 'P') {
			if (!cursor_u8(&c, &encoding))
				return false;
		} else if (*letter != 'B' && *letter != 'G')
			return false;
		if (*letter == 'R')
			common->pointer = encoding;
		if (*letter == 'P' && !read_number(&c, encoding, &ignored))
			return false;
	}
	return true;
}

static int add_common(struct reader *reader, uint64_t offset, const Dwarf_CIE *cie) {
	struct common common = {
		.code_align = cie->code_alignment_factor,
		.data_align = cie->data_alignment_factor,
		.pointer = DW_EH_PE_absptr,
	};
	struct program program = { .reader = reader, .common = &common };
	int r;

	if (reader->commons.n == COMMONS_MAX) {
		reader->out->broken++;
		return 0;
	}
	if (cie->code_alignment_factor <= CODE_ALIGN_MAX && cie->return_address_register == reader->machine->ra &&
		read_augmentation(reader, cie, &common)) {
		program.code = section_cursor(reader, cie->initial_instructions, cie->initial_instructions_end);
		common.usable = run(&program);
		common.initial = program.state;
	}
	reader->out->broken += !common.usable;
	r = map_put(&reader->common_at, offset, reader->commons.n);
	return r ? r : vec_push(&reader->commons, common);
}

static void add_function_rows(struct program *p) {
	if (p->common->signal) {
		add_row(p, &(struct unwind_rule){ .cfa = UNWIND_CFA_SIGNAL });
		return;
	}
	p->changed = true;
	if (run(p))
		return;
	p->reader->out->broken++;
	if (!p->failed && p->loc < p->end)
		add_row(p, &(struct unwind_rule){ .cfa = UNWIND_CFA_NONE });
}

static bool inside(const struct cfi_section *section, uint64_t start, uint64_t len) {
	uint64_t at = start - section->start;

	return len && start >= section->start && at < section->code_len && len <= section->code_len - at;
}

/* Where the function lies, and its program. */
static bool read_function(
	const struct reader *reader, const Dwarf_FDE *fde, const struct common *common, struct program *p) {
	uint64_t len, skip;

	p->code = section_cursor(reader, fde->start, fde->end);
	if (!read_address(&p->code, reader, common->pointer, &p->loc) ||
		!read_number(&p->code, common->pointer & 0x0f, &len))
		return false;
	if (common->has_length &&
		(!cfi_uleb(&p->code, &skip) || skip > SIZE_MAX || !cursor_skip(&p->code, (size_t)skip)))
		return false;
	p->end = inside(reader->section, p->loc, len) ? p->loc + len : 0;
	return true;
}

static int add_function(struct reader *reader, const Dwarf_FDE *fde) {
	struct cfi *out = reader->out;
	struct program p = { .reader = reader, .first = out->rows.n };
	struct cfi_range range;
	uint64_t common;

	if (!map_get(&reader->common_at, fde->CIE_pointer, &common)) {
		out->broken++;
		return 0;
	}
	p.common = &reader->commons.items[common];
	if (!p.common->usable || !read_function(reader, fde, p.common, &p)) {
		out->broken++;
		return 0;
	}
	if (!p.end) /* the linker left it out, or the file says nonsense */
		return 0;
	p.state = p.common->initial;
	range = (struct cfi_range){
		.start = (uint32_t)(p.loc - reader->section->start),
		.end = (uint32_t)(p.end - reader->section->start),
		.first = (uint32_t)p.first,
	};
	add_function_rows(&p);
	range.n = (uint32_t)(out->rows.n - p.first);
	return p.failed ? p.failed : vec_push(&out->ranges, range);
}

static int add_entry(struct reader *reader, uint64_t offset, const Dwarf_CFI_Entry *entry) {
	return dwarf_cfi_cie_p(entry) ? add_common(reader, offset, &entry->cie) : add_function(reader, &entry->fde);
}

static int read_entries(struct reader *reader) {
	static const unsigned char ident[EI_NIDENT] = {
		[EI_CLASS] = ELFCLASS64,
		[EI_DATA] = __BYTE_ORDER == __LITTLE_ENDIAN ? ELFDATA2LSB : ELFDATA2MSB,
		[EI_VERSION] = EV_CURRENT,
	};
	const struct cfi_section *section = reader->section;
	Elf_Data data = {
		.d_buf = (void *)section->data,
		.d_type = ELF_T_BYTE,
		.d_version = EV_CURRENT,
		.d_size = section->len,
	};
	Dwarf_Off offset = 0, next;
	int r = 0;

	for (; !r && offset < section->len; offset = next) {
		Dwarf_CFI_Entry entry;
		int got;

		next = section->len;
		got = dwarf_next_cfi(ident, &data, section->eh_frame, offset, &next, &entry);
		if (!got)
			r = add_entry(reader, offset, &entry);
		else if (got < 0)
			reader->out->broken++;
		if (got > 0 || next <= offset)
			break;
	}
	return r;
}

int cfi_read(const struct cfi_section *section, struct unwind_rules *rules, struct cfi *cfi) {
	struct reader reader = { .section = section, .rules = rules, .out = cfi };
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(machines); i++)
		if (machines[i].machine == section->machine)
			reader.machine = &machines[i];
	if (!reader.machine)
		return -ENOTSUP;
	if (section->len > CFI_SECTION_MAX || section->code_len > UINT32_MAX)
		return -EFBIG;
	r = read_entries(&reader);
	vec_free(&reader.commons);
	map_deinit(&reader.common_at);
	return r;
}

void cfi_deinit(struct cfi *cfi) {
	vec_free(&cfi->rows);
	vec_free(&cfi->ranges);
}
