/* SPDX-License-Identifier: MIT */
/* Call frame information: sections by hand, and this very program's, with libdw as oracle. */
#include "engine/base/util.h"
#include "engine/native/unwind_table.h"

#include <criterion/criterion.h>
#include <dwarf.h>
#include <elf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <string.h>

#define SECTION_AT 0x500000U
#define CODE_AT 0x400000U
#define CODE_LEN 0x80000U

/* A section that is being written. */
struct writer {
	uint8_t bytes[1024];
	size_t n, entry;
};

static void put_u8(struct writer *w, uint8_t byte) {
	w->bytes[w->n++] = byte;
}

static void put_u32(struct writer *w, uint32_t word) {
	memcpy(w->bytes + w->n, &word, sizeof(word));
	w->n += sizeof(word);
}

static void put_bytes(struct writer *w, const void *bytes, size_t n) {
	memcpy(w->bytes + w->n, bytes, n);
	w->n += n;
}

static void begin(struct writer *w) {
	w->entry = w->n;
	put_u32(w, 0);
}

static void end(struct writer *w) {
	uint32_t len;

	while (w->n % 4)
		put_u8(w, DW_CFA_nop);
	len = (uint32_t)(w->n - w->entry - sizeof(len));
	memcpy(w->bytes + w->entry, &len, sizeof(len));
}

#define PROGRAM(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })

/* Return: the entry's offset. */
static size_t put_common(struct writer *w, const char *augmentation, uint8_t ra, const void *program, size_t n) {
	begin(w);
	put_u32(w, 0);
	put_u8(w, 1);
	put_bytes(w, augmentation, strlen(augmentation) + 1);
	put_u8(w, ra == 30 ? 4 : 1);
	put_u8(w, 0x78); /* -8 */
	put_u8(w, ra);
	put_u8(w, 1); /* bytes of augmentation */
	put_u8(w, DW_EH_PE_pcrel | DW_EH_PE_sdata4);
	put_bytes(w, program, n);
	end(w);
	return w->entry;
}

static void put_function(struct writer *w, size_t common, uint32_t start, uint32_t len, const void *program, size_t n) {
	begin(w);
	put_u32(w, (uint32_t)(w->n - common));
	put_u32(w, start - (SECTION_AT + (uint32_t)w->n));
	put_u32(w, len);
	put_u8(w, 0);
	put_bytes(w, program, n);
	end(w);
}

#define X86_COMMON PROGRAM(DW_CFA_def_cfa, 7, 8, DW_CFA_offset | 16, 1)

struct made {
	struct unwind_rules rules;
	struct cfi cfi;
	struct unwind_table *table;
};

static void make(struct made *made, const struct writer *w, uint16_t machine) {
	struct cfi_section section = {
		.data = w->bytes,
		.len = w->n,
		.vaddr = SECTION_AT,
		.eh_frame = true,
		.machine = machine,
		.start = CODE_AT,
		.code_len = CODE_LEN,
	};

	*made = (struct made){ 0 };
	cr_assert_eq(unwind_rules_init(&made->rules), 0);
	cr_assert_eq(cfi_read(&section, &made->rules, &made->cfi), 0);
	cr_assert_eq(unwind_table_pack(&made->cfi, CODE_AT, &made->table), 0);
}

static void unmake(struct made *made) {
	unwind_table_free(made->table);
	cfi_deinit(&made->cfi);
	unwind_rules_deinit(&made->rules);
}

static struct unwind_rule at(const struct made *made, uint64_t vaddr) {
	return made->rules.items.items[unwind_table_find(made->table, vaddr)];
}

Test(cfi, prologue_and_epilogue) {
	struct writer w = { 0 };
	size_t common = put_common(&w, "zR", 16, X86_COMMON);
	struct made made;

	put_function(&w, common, CODE_AT + 0x10, 0x40,
		PROGRAM(DW_CFA_advance_loc | 1, DW_CFA_def_cfa_offset, 16, DW_CFA_offset | 6, 2, DW_CFA_advance_loc | 3,
			DW_CFA_def_cfa_register, 6, DW_CFA_offset | 3, 3, DW_CFA_advance_loc | 8, DW_CFA_remember_state,
			DW_CFA_def_cfa, 7, 8, DW_CFA_restore | 6, DW_CFA_advance_loc | 1, DW_CFA_restore_state));
	make(&made, &w, EM_X86_64);
	cr_expect_eq(at(&made, CODE_AT + 0xf).cfa, UNWIND_CFA_NONE);
	cr_expect_eq(at(&made, CODE_AT + 0x10).cfa_off, 8);
	cr_expect_eq(at(&made, CODE_AT + 0x10).ra, UNWIND_AT_CFA);
	cr_expect_eq(at(&made, CODE_AT + 0x10).ra_off, -8);
	cr_expect_eq(at(&made, CODE_AT + 0x10).fp, UNWIND_SAME);
	cr_expect_eq(at(&made, CODE_AT + 0x11).cfa_off, 16);
	cr_expect_eq(at(&made, CODE_AT + 0x11).fp, UNWIND_AT_CFA);
	cr_expect_eq(at(&made, CODE_AT + 0x13).fp_off, -16);
	cr_expect_eq(at(&made, CODE_AT + 0x14).base, UNWIND_BASE_FP);
	cr_expect_eq(at(&made, CODE_AT + 0x14).bx_off, -24);
	cr_expect_eq(at(&made, CODE_AT + 0x1c).base, UNWIND_BASE_SP);
	cr_expect_eq(at(&made, CODE_AT + 0x1c).fp, UNWIND_SAME);
	cr_expect_eq(at(&made, CODE_AT + 0x4f).base, UNWIND_BASE_FP);
	cr_expect_eq(at(&made, CODE_AT + 0x50).cfa, UNWIND_CFA_NONE);
	cr_expect_eq(made.table->broken, 0);
	unmake(&made);
}

Test(cfi, expressions) {
	static const uint8_t plt[] = { DW_CFA_def_cfa_expression, 11, DW_OP_breg7, 8, DW_OP_breg16, 0, DW_OP_lit15,
		DW_OP_and, DW_OP_lit11, DW_OP_ge, DW_OP_lit3, DW_OP_shl, DW_OP_plus };
	static const uint8_t realigned[] = { DW_CFA_def_cfa_expression, 3, DW_OP_breg6, 0x78, DW_OP_deref,
		DW_CFA_expression, 6, 2, DW_OP_breg6, 0 };
	static const uint8_t added[] = { DW_CFA_def_cfa_expression, 6, DW_OP_breg7, 0xc0, 0x01, DW_OP_deref,
		DW_OP_plus_uconst, 8 };
	static const uint8_t other[] = { DW_CFA_def_cfa_expression, 2, DW_OP_lit1, DW_OP_deref };
	struct writer w = { 0 };
	size_t common = put_common(&w, "zR", 16, X86_COMMON);
	struct made made;

	put_function(&w, common, CODE_AT, 0x10, plt, sizeof(plt));
	put_function(&w, common, CODE_AT + 0x10, 0x10, realigned, sizeof(realigned));
	put_function(&w, common, CODE_AT + 0x20, 0x10, added, sizeof(added));
	put_function(&w, common, CODE_AT + 0x30, 0x10, other, sizeof(other));
	make(&made, &w, EM_X86_64);
	cr_expect_eq(at(&made, CODE_AT).cfa, UNWIND_CFA_PLT);
	cr_expect_eq(at(&made, CODE_AT).cfa_off, 8);
	cr_expect_eq(at(&made, CODE_AT).cfa_add, 11);
	cr_expect_eq(at(&made, CODE_AT + 0x10).cfa, UNWIND_CFA_DEREF);
	cr_expect_eq(at(&made, CODE_AT + 0x10).base, UNWIND_BASE_FP);
	cr_expect_eq(at(&made, CODE_AT + 0x10).cfa_off, -8);
	cr_expect_eq(at(&made, CODE_AT + 0x10).fp, UNWIND_AT_FP);
	cr_expect_eq(at(&made, CODE_AT + 0x20).cfa, UNWIND_CFA_DEREF);
	cr_expect_eq(at(&made, CODE_AT + 0x20).cfa_off, 192);
	cr_expect_eq(at(&made, CODE_AT + 0x20).cfa_add, 8);
	cr_expect_eq(at(&made, CODE_AT + 0x30).cfa, UNWIND_CFA_NONE);
	cr_expect_eq(made.table->unknown, 1);
	unmake(&made);
}

Test(cfi, ends_signals_and_registers) {
	struct writer w = { 0 };
	size_t common = put_common(&w, "zR", 16, X86_COMMON);
	size_t signal = put_common(&w, "zRS", 16, X86_COMMON);
	struct made made;

	put_function(&w, common, CODE_AT, 0x10, PROGRAM(DW_CFA_undefined, 16));
	put_function(&w, signal, CODE_AT + 0x10, 0x10, PROGRAM(DW_CFA_nop));
	put_function(&w, common, CODE_AT + 0x20, 0x10, PROGRAM(DW_CFA_register, 16, 5, DW_CFA_def_cfa_offset, 0));
	put_function(&w, common, CODE_AT + 0x30, 0x10, PROGRAM(DW_CFA_def_cfa, 10, 0));
	make(&made, &w, EM_X86_64);
	cr_expect_eq(at(&made, CODE_AT).cfa, UNWIND_CFA_END);
	cr_expect_eq(at(&made, CODE_AT + 0x10).cfa, UNWIND_CFA_SIGNAL);
	cr_expect_eq(at(&made, CODE_AT + 0x20).ra, UNWIND_IN_REG);
	cr_expect_eq(at(&made, CODE_AT + 0x20).ra_off, 5);
	cr_expect_eq(at(&made, CODE_AT + 0x30).base, UNWIND_BASE_OTHER);
	cr_expect_eq(at(&made, CODE_AT + 0x30).base_reg, 10);
	unmake(&made);
}

Test(cfi, aarch64) {
	struct writer w = { 0 };
	size_t common = put_common(&w, "zR", 30, PROGRAM(DW_CFA_def_cfa, 31, 0));
	struct made made;

	put_function(&w, common, CODE_AT, 0x40,
		PROGRAM(0x2d, DW_CFA_advance_loc | 1, DW_CFA_def_cfa_offset, 48, DW_CFA_offset | 29, 6,
			DW_CFA_offset | 30, 5, DW_CFA_advance_loc | 1, DW_CFA_def_cfa_register, 29));
	make(&made, &w, EM_AARCH64);
	cr_expect_eq(at(&made, CODE_AT).ra, UNWIND_SAME);
	cr_expect_eq(at(&made, CODE_AT + 4).cfa_off, 48);
	cr_expect_eq(at(&made, CODE_AT + 4).fp_off, -48);
	cr_expect_eq(at(&made, CODE_AT + 4).ra_off, -40);
	cr_expect_eq(at(&made, CODE_AT + 8).base, UNWIND_BASE_FP);
	cr_expect_eq(made.table->broken, 0);
	unmake(&made);
}

/* A function over three pages, with nothing to say in the middle one. */
Test(cfi, pages) {
	struct writer w = { 0 };
	size_t common = put_common(&w, "zR", 16, X86_COMMON);
	struct made made;

	put_function(&w, common, CODE_AT + 0x100, 0x2ff00,
		PROGRAM(DW_CFA_advance_loc | 1, DW_CFA_def_cfa_offset, 32, DW_CFA_advance_loc4, 0xff, 0xfe, 1, 0,
			DW_CFA_def_cfa_offset, 8));
	make(&made, &w, EM_X86_64);
	cr_expect_eq(made.table->pages, 3);
	for (uint32_t page = 0; page < 3; page++)
		cr_expect_eq(made.table->words[made.table->words[page]] >> 16, 0);
	cr_expect_eq(made.table->words[3], made.table->words_n);
	cr_expect_eq(at(&made, CODE_AT + 0x100).cfa_off, 8);
	cr_expect_eq(at(&made, CODE_AT + 0x10000).cfa_off, 32);
	cr_expect_eq(at(&made, CODE_AT + 0x1ffff).cfa_off, 32);
	cr_expect_eq(at(&made, CODE_AT + 0x20000).cfa_off, 8);
	cr_expect_eq(at(&made, CODE_AT + 0x2ffff).cfa_off, 8);
	cr_expect_eq(at(&made, CODE_AT + 0x30000).cfa, UNWIND_CFA_NONE);
	cr_expect_eq(at(&made, CODE_AT - 1).cfa, UNWIND_CFA_NONE);
	unmake(&made);
}

/* Out of order, overlapping, outside of the code, of no length, with a program that ends in nonsense. */
Test(cfi, broken) {
	struct writer w = { 0 };
	size_t common = put_common(&w, "zR", 16, X86_COMMON);
	struct made made;

	put_function(&w, common, CODE_AT + 0x40, 0x40, PROGRAM(DW_CFA_def_cfa_offset, 16));
	put_function(&w, common, CODE_AT, 0x60, PROGRAM(DW_CFA_def_cfa_offset, 24));
	put_function(&w, common, CODE_AT + CODE_LEN - 8, 0x10, PROGRAM(DW_CFA_nop));
	put_function(&w, common, CODE_AT + 0x200, 0, PROGRAM(DW_CFA_nop));
	put_function(&w, common, CODE_AT + 0x100, 0x10, PROGRAM(DW_CFA_advance_loc | 4, DW_CFA_restore_state));
	put_function(&w, w.n, CODE_AT + 0x300, 0x10, PROGRAM(DW_CFA_nop));
	make(&made, &w, EM_X86_64);
	cr_expect_eq(at(&made, CODE_AT).cfa_off, 24);
	cr_expect_eq(at(&made, CODE_AT + 0x3f).cfa_off, 24);
	cr_expect_eq(at(&made, CODE_AT + 0x40).cfa_off, 16);
	cr_expect_eq(at(&made, CODE_AT + 0x7f).cfa_off, 16);
	cr_expect_eq(at(&made, CODE_AT + 0x80).cfa, UNWIND_CFA_NONE);
	cr_expect_eq(at(&made, CODE_AT + 0x103).cfa_off, 8);
	cr_expect_eq(at(&made, CODE_AT + 0x104).cfa, UNWIND_CFA_NONE);
	cr_expect_eq(at(&made, CODE_AT + 0x300).cfa, UNWIND_CFA_NONE);
	cr_expect_geq(made.table->broken, 2);
	unmake(&made);
}

Test(cfi, another_machine) {
	struct cfi_section section = { .machine = EM_386, .eh_frame = true };
	struct unwind_rules rules;
	struct cfi cfi = { 0 };

	cr_assert_eq(unwind_rules_init(&rules), 0);
	cr_expect_eq(cfi_read(&section, &rules, &cfi), -ENOTSUP);
	unwind_rules_deinit(&rules);
}

Test(cfi, rules_are_shared_and_bounded) {
	struct unwind_rules rules;
	uint16_t first, again, last = 0;

	cr_assert_eq(unwind_rules_init(&rules), 0);
	for (int i = 0; i < UNWIND_RULES_MAX; i++) {
		struct unwind_rule rule = { .cfa = UNWIND_CFA_REG, .cfa_off = i };

		cr_assert_eq(unwind_rules_add(&rules, &rule, i ? &last : &first), 0);
	}
	cr_expect_eq(last, UNWIND_RULE_NONE, "one more than there is room for");
	cr_expect_eq(rules.lost, 1);
	cr_expect_eq(rules.items.n, UNWIND_RULES_MAX);
	cr_assert_eq(unwind_rules_add(&rules, &(struct unwind_rule){ .cfa = UNWIND_CFA_REG }, &again), 0);
	cr_expect_eq(again, first);
	unwind_rules_deinit(&rules);
}

#ifdef __x86_64__
static bool register_agrees(Dwarf_Frame *frame, int number, uint8_t kind, int32_t off) {
	Dwarf_Op mem[3], *ops;
	size_t n;

	if (dwarf_frame_register(frame, number, mem, &ops, &n))
		return false;
	if (!n) /* the same, or none; elfutils 0.188 does not know that rbx is kept where nothing is said */
		return ops != mem || number == 3 ? kind == UNWIND_SAME : kind == UNWIND_UNKNOWN;
	if (kind == UNWIND_AT_CFA && ops[0].atom == DW_OP_call_frame_cfa)
		return (n == 1 ? 0 : (int64_t)ops[1].number) == off;
	return kind == UNWIND_UNKNOWN || kind == UNWIND_AT_FP;
}

static bool cfa_agrees(const struct unwind_rule *rule, const Dwarf_Op *ops, size_t n) {
	static const uint64_t base[] = { [UNWIND_BASE_SP] = 7, [UNWIND_BASE_FP] = 6, [UNWIND_BASE_BX] = 3 };

	if (rule->cfa != UNWIND_CFA_REG)
		return n > 1;
	return n == 1 && ops[0].atom == DW_OP_bregx && (int64_t)ops[0].number2 == rule->cfa_off &&
		ops[0].number == (rule->base == UNWIND_BASE_OTHER ? rule->base_reg : base[rule->base]);
}

static bool agrees(Dwarf_Frame *frame, const struct unwind_rule *rule) {
	Dwarf_Op mem[3], *ops;
	bool signal;
	size_t n;

	if (dwarf_frame_info(frame, NULL, NULL, &signal) < 0 || dwarf_frame_register(frame, 16, mem, &ops, &n))
		return false;
	if (signal)
		return rule->cfa == UNWIND_CFA_SIGNAL;
	if (!n && ops == mem)
		return rule->cfa == UNWIND_CFA_END;
	return !dwarf_frame_cfa(frame, &ops, &n) && cfa_agrees(rule, ops, n) &&
		register_agrees(frame, 6, rule->fp, rule->fp_off) && register_agrees(frame, 3, rule->bx, rule->bx_off);
}

static void compare_rows(const struct unwind_table *table, const struct unwind_rules *rules, Dwarf_CFI *oracle) {
	for (uint32_t page = 0; page < table->pages; page++)
		for (uint32_t i = table->words[page]; i < table->words[page + 1]; i++) {
			uint64_t pc = table->vaddr + ((uint64_t)page << 16) + (table->words[i] >> 16);
			const struct unwind_rule *rule = &rules->items.items[table->words[i] & 0xffff];
			Dwarf_Frame *frame;

			if (dwarf_cfi_addrframe(oracle, pc, &frame)) {
				cr_expect_eq(
					rule->cfa, UNWIND_CFA_NONE, "at %#lx libdw says nothing", (unsigned long)pc);
				continue;
			}
			cr_expect(agrees(frame, rule), "at %#lx libdw says something else", (unsigned long)pc);
			free(frame);
		}
}

static void compare_file(const char *path) {
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct unwind_rules rules;
	struct unwind_table *table;
	struct elf_image *img;
	Dwarf_CFI *oracle;
	Elf *elf;

	elf_version(EV_CURRENT);
	elf = elf_begin(fd, ELF_C_READ, NULL);
	oracle = dwarf_getcfi_elf(elf);
	cr_assert(oracle, "%s", path);
	cr_assert_eq(unwind_rules_init(&rules), 0);
	cr_assert_eq(elf_image_open(fd, &img), 0);
	cr_assert_eq(unwind_table_new(img, &rules, &table), 0);
	cr_expect_eq(table->broken, 0);
	cr_expect_eq(table->unknown, 0);
	cr_expect_gt(unwind_table_rows(table), 1000);
	compare_rows(table, &rules, oracle);
	unwind_table_free(table);
	elf_image_free(img);
	unwind_rules_deinit(&rules);
	dwarf_cfi_end(oracle);
	elf_end(elf);
}

Test(cfi, libdw_agrees_on_this_program) {
	compare_file("/proc/self/exe");
}
#endif
