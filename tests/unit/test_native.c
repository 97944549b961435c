/* SPDX-License-Identifier: MIT */
/* Walks over stacks made by hand, on both machines; names of functions; perf map files. */
#include "engine/base/strbuf.h"
#include "engine/native/demangle.h"
#include "engine/native/lines.h"
#include "engine/native/perf_map.h"
#include "engine/native/plt.h"
#include "engine/native/unwind.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <fcntl.h>
#include <string.h>

#define CODE_AT 0x400000U
#define CODE_LEN 0x1000U
#define MADE_AT 0x700000U /* code that no file describes */
#define STACK_AT UINT64_C(0x7ffc00000000)
#define STACK_WORDS 128

/* A process with one file, whose functions are given by rules at offsets. */
struct world {
	struct native_cache *cache;
	struct native_modules modules;
	struct native_module items[2];
	struct native_file file;
	struct unwind_table *table;
	uint64_t words[STACK_WORDS];
	struct native_stack stack;
	struct native_regs regs;
	struct native_trace *trace;
};

struct part {
	uint32_t from;
	struct unwind_rule rule;
};

static void open_world(struct world *w, const struct part *parts, size_t n) {
	struct cfi cfi = { 0 };

	*w = (struct world){ 0 };
	cr_assert_eq(native_cache_new(0, &w->cache), 0);
	for (size_t i = 0; i < n; i++) {
		struct cfi_row row = { .offset = parts[i].from };

		cr_assert_eq(unwind_rules_add(
				     (struct unwind_rules *)native_cache_rules(w->cache), &parts[i].rule, &row.rule),
			0);
		cr_assert_eq(vec_push(&cfi.rows, row), 0);
	}
	cr_assert_eq(vec_push(&cfi.ranges, (struct cfi_range){ .end = CODE_LEN, .n = (uint32_t)n }), 0);
	cr_assert_eq(unwind_table_pack(&cfi, 0, &w->table), 0);
	cfi_deinit(&cfi);
	w->file.table = w->table;
	w->items[0] = (struct native_module){
		.start = CODE_AT, .end = CODE_AT + CODE_LEN, .loaded = true, .bias = CODE_AT, .file = &w->file
	};
	w->items[1] = (struct native_module){
		.start = MADE_AT, .end = MADE_AT + CODE_LEN, .kind = NATIVE_ANONYMOUS, .loaded = true
	};
	w->modules.items.items = w->items;
	w->modules.items.n = ARRAY_SIZE(w->items);
	w->modules.cache = w->cache;
	w->stack = (struct native_stack){ .at = STACK_AT, .len = sizeof(w->words), .bytes = (uint8_t *)w->words };
	w->trace = calloc(1, sizeof(*w->trace));
	cr_assert(w->trace);
}

static void close_world(struct world *w) {
	unwind_table_free(w->table);
	native_cache_free(w->cache);
	free(w->trace);
}

/* Walks and compares the addresses. */
static void expect(struct world *w, uint16_t machine, enum native_stop stop, const uint64_t *ips, size_t n) {
	struct native_unwinder unwinder = { .modules = &w->modules, .stack = &w->stack, .machine = machine };

	native_unwind(&unwinder, &w->regs, w->trace);
	cr_expect_eq(w->trace->stop, stop, "%s", native_stop_text(w->trace->stop));
	cr_expect_eq(w->trace->n, n, "%zu frames, not %zu", w->trace->n, n);
	for (size_t i = 0; i < n && i < w->trace->n; i++)
		cr_expect_eq(w->trace->frames[i].ip, ips[i], "%zu: %#lx", i, (unsigned long)w->trace->frames[i].ip);
}

#define EXPECT(w, machine, stop, ...) \
	expect((w), (machine), (stop), (const uint64_t[]){ __VA_ARGS__ }, \
		sizeof((const uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t))

#define SP_RULE(off) \
	{ .cfa = UNWIND_CFA_REG, .ra = UNWIND_AT_CFA, .ra_off = -8, .cfa_off = (off) }
#define FP_RULE \
	{ \
		.cfa = UNWIND_CFA_REG, .base = UNWIND_BASE_FP, .ra = UNWIND_AT_CFA, .ra_off = -8, .cfa_off = 16, \
		.fp = UNWIND_AT_CFA, .fp_off = -16 \
	}

static const struct part x86[] = {
	{ 0x000, SP_RULE(32) },
	{ 0x100, FP_RULE },
	{ 0x200, { .cfa = UNWIND_CFA_END } },
	{ 0x300, { .cfa = UNWIND_CFA_SIGNAL } },
	{ 0x400, { .cfa = UNWIND_CFA_PLT, .ra = UNWIND_AT_CFA, .ra_off = -8, .cfa_off = 8, .cfa_add = 11 } },
	{ 0x500,
		{ .cfa = UNWIND_CFA_DEREF,
			.base = UNWIND_BASE_FP,
			.ra = UNWIND_AT_CFA,
			.ra_off = -8,
			.cfa_off = -8,
			.fp = UNWIND_AT_FP } },
	{ 0x600, { .cfa = UNWIND_CFA_REG, .ra = UNWIND_IN_REG, .ra_off = 5 } },
	{ 0x700,
		{ .cfa = UNWIND_CFA_REG,
			.base = UNWIND_BASE_BX,
			.ra = UNWIND_AT_CFA,
			.ra_off = -8,
			.cfa_off = 16,
			.bx = UNWIND_AT_CFA,
			.bx_off = -16 } },
	{ 0x800, { .cfa = UNWIND_CFA_NONE } },
};

static void start_x86(struct world *w, uint64_t ip) {
	open_world(w, x86, ARRAY_SIZE(x86));
	native_regs_set(&w->regs, NATIVE_X86_IP, ip);
	native_regs_set(&w->regs, NATIVE_X86_SP, STACK_AT);
}

static uint64_t word_at(size_t i) {
	return STACK_AT + 8 * i;
}

Test(native, stack_pointer_then_frame_pointer) {
	struct world w;

	start_x86(&w, CODE_AT);
	native_regs_set(&w.regs, NATIVE_X86_FP, word_at(10));
	w.words[3] = CODE_AT + 0x110;
	w.words[10] = 1234; /* rbp of the last one, which does not need it */
	w.words[11] = CODE_AT + 0x210;
	EXPECT(&w, EM_X86_64, NATIVE_COMPLETE, CODE_AT, CODE_AT + 0x110, CODE_AT + 0x210);
	cr_expect(!w.trace->frames[0].after_call && w.trace->frames[1].after_call);
	cr_expect_eq(w.trace->frames[2].sp, word_at(12));
	close_world(&w);
}

/* The call is the last instruction before another function's first. */
Test(native, looks_up_the_call) {
	struct world w;

	start_x86(&w, CODE_AT);
	w.words[3] = CODE_AT + 0x300;
	native_regs_set(&w.regs, NATIVE_X86_FP, 0);
	EXPECT(&w, EM_X86_64, NATIVE_COMPLETE, CODE_AT, CODE_AT + 0x300);
	cr_expect(!w.trace->frames[1].signal);
	w.words[3] = CODE_AT + 0x100;
	w.words[7] = 0;
	EXPECT(&w, EM_X86_64, NATIVE_COMPLETE, CODE_AT, CODE_AT + 0x100);
	close_world(&w);
}

Test(native, signal) {
	struct world w;

	start_x86(&w, CODE_AT);
	w.words[3] = CODE_AT + 0x310;
	w.words[4 + UNWIND_X86_SIGNAL_IP / 8] = CODE_AT + 0x100;
	w.words[4 + UNWIND_X86_SIGNAL_SP / 8] = word_at(60);
	w.words[4 + UNWIND_X86_SIGNAL_FP / 8] = word_at(70);
	w.words[71] = CODE_AT + 0x210;
	EXPECT(&w, EM_X86_64, NATIVE_COMPLETE, CODE_AT, CODE_AT + 0x310, CODE_AT + 0x100, CODE_AT + 0x210);
	cr_expect(w.trace->frames[1].signal && !w.trace->frames[2].after_call);
	cr_expect_eq(native_frame_at(&w.trace->frames[1]), CODE_AT + 0x310);
	close_world(&w);
}

Test(native, plt) {
	struct world w;

	start_x86(&w, CODE_AT + 0x40a);
	w.words[0] = CODE_AT + 0x210;
	EXPECT(&w, EM_X86_64, NATIVE_COMPLETE, CODE_AT + 0x40a, CODE_AT + 0x210);
	native_regs_set(&w.regs, NATIVE_X86_IP, CODE_AT + 0x40b);
	w.words[1] = CODE_AT + 0x220;
	EXPECT(&w, EM_X86_64, NATIVE_COMPLETE, CODE_AT + 0x40b, CODE_AT + 0x220);
	close_world(&w);
}

Test(native, realigned) {
	struct world w;

	start_x86(&w, CODE_AT + 0x500);
	native_regs_set(&w.regs, NATIVE_X86_FP, word_at(10));
	w.words[9] = word_at(20);
	w.words[10] = word_at(30);
	w.words[19] = CODE_AT + 0x110;
	w.words[31] = CODE_AT + 0x210;
	EXPECT(&w, EM_X86_64, NATIVE_COMPLETE, CODE_AT + 0x500, CODE_AT + 0x110, CODE_AT + 0x210);
	close_world(&w);
}

/* vfork keeps the return address in rdi; it is known in the first frame only. */
Test(native, return_address_in_a_register) {
	struct world w;

	start_x86(&w, CODE_AT + 0x600);
	EXPECT(&w, EM_X86_64, NATIVE_NO_REG, CODE_AT + 0x600);
	native_regs_set(&w.regs, 5, CODE_AT + 0x210);
	EXPECT(&w, EM_X86_64, NATIVE_COMPLETE, CODE_AT + 0x600, CODE_AT + 0x210);
	close_world(&w);
}

Test(native, rbx) {
	struct world w;

	start_x86(&w, CODE_AT);
	native_regs_set(&w.regs, NATIVE_X86_BX, word_at(10));
	w.words[3] = CODE_AT + 0x710;
	w.words[10] = 7;
	w.words[11] = CODE_AT + 0x210;
	EXPECT(&w, EM_X86_64, NATIVE_COMPLETE, CODE_AT, CODE_AT + 0x710, CODE_AT + 0x210);
	close_world(&w);
}

Test(native, made_code_by_frame_pointer) {
	struct world w;

	start_x86(&w, MADE_AT + 8);
	native_regs_set(&w.regs, NATIVE_X86_FP, word_at(4));
	w.words[5] = CODE_AT + 0x210;
	EXPECT(&w, EM_X86_64, NATIVE_COMPLETE, MADE_AT + 8, CODE_AT + 0x210);
	cr_expect(w.trace->frames[0].by_fp);
	w.words[5] = 99; /* no code */
	EXPECT(&w, EM_X86_64, NATIVE_NO_TABLE, MADE_AT + 8);
	native_regs_set(&w.regs, NATIVE_X86_FP, STACK_AT - 64);
	EXPECT(&w, EM_X86_64, NATIVE_NO_TABLE, MADE_AT + 8);
	close_world(&w);
}

/* add $8, %rsp; pop %rbx; ret */
Test(native, made_code_at_its_end) {
	static const uint8_t code[CODE_LEN] = { 0x48, 0x83, 0xc4, 0x08, 0x5b, 0xc3 };
	struct mem_segment segment = { .addr = MADE_AT, .len = sizeof(code), .bytes = code };
	struct native_unwinder unwinder;
	struct world w;
	struct mem *mem;

	start_x86(&w, MADE_AT);
	cr_assert_eq(mem_bytes_new(&segment, 1, &mem), 0);
	unwinder =
		(struct native_unwinder){ .modules = &w.modules, .mem = mem, .stack = &w.stack, .machine = EM_X86_64 };
	w.words[1] = word_at(10); /* rbx */
	w.words[2] = CODE_AT + 0x710;
	w.words[11] = CODE_AT + 0x210;
	native_unwind(&unwinder, &w.regs, w.trace);
	cr_expect_eq(w.trace->stop, NATIVE_COMPLETE);
	cr_assert_eq(w.trace->n, 3);
	cr_expect_eq(w.trace->frames[2].ip, CODE_AT + 0x210);
	cr_expect(!w.trace->frames[0].by_fp);
	w.words[2] = 5;
	native_unwind(&unwinder, &w.regs, w.trace);
	cr_expect_eq(w.trace->stop, NATIVE_NO_TABLE);
	mem_free(mem);
	close_world(&w);
}

Test(native, called_nowhere) {
	struct world w;

	start_x86(&w, 0);
	w.words[0] = CODE_AT + 0x210;
	EXPECT(&w, EM_X86_64, NATIVE_COMPLETE, 0, CODE_AT + 0x210);
	w.words[0] = 5;
	EXPECT(&w, EM_X86_64, NATIVE_NO_CODE, 0);
	close_world(&w);
}

Test(native, ends_with_a_reason) {
	struct world w;

	start_x86(&w, CODE_AT + 0x100);
	EXPECT(&w, EM_X86_64, NATIVE_NO_REG, CODE_AT + 0x100);
	native_regs_set(&w.regs, NATIVE_X86_FP, STACK_AT - 32);
	EXPECT(&w, EM_X86_64, NATIVE_BAD_CFA, CODE_AT + 0x100);
	native_regs_set(&w.regs, NATIVE_X86_FP, STACK_AT + 3);
	EXPECT(&w, EM_X86_64, NATIVE_BAD_CFA, CODE_AT + 0x100);
	native_regs_set(&w.regs, NATIVE_X86_FP, word_at(STACK_WORDS));
	EXPECT(&w, EM_X86_64, NATIVE_UNREADABLE, CODE_AT + 0x100);
	native_regs_set(&w.regs, NATIVE_X86_FP, word_at(2));
	w.words[3] = 77;
	EXPECT(&w, EM_X86_64, NATIVE_NO_CODE, CODE_AT + 0x100);
	native_regs_set(&w.regs, NATIVE_X86_IP, CODE_AT + 0x800);
	EXPECT(&w, EM_X86_64, NATIVE_NO_TABLE, CODE_AT + 0x800);
	native_regs_forget(&w.regs, NATIVE_X86_SP);
	expect(&w, EM_X86_64, NATIVE_NO_REG, NULL, 0);
	close_world(&w);
}

/* A signal's frame that restores itself. */
Test(native, a_ring_ends) {
	struct world w;

	start_x86(&w, CODE_AT + 0x300);
	w.words[UNWIND_X86_SIGNAL_IP / 8] = CODE_AT + 0x300;
	w.words[UNWIND_X86_SIGNAL_SP / 8] = STACK_AT;
	native_unwind(&(struct native_unwinder){ .modules = &w.modules, .stack = &w.stack, .machine = EM_X86_64 },
		&w.regs, w.trace);
	cr_expect_eq(w.trace->stop, NATIVE_TRUNCATED);
	cr_expect_eq(w.trace->n, NATIVE_FRAMES_MAX);
	close_world(&w);
}

Test(native, aarch64) {
	static const struct part parts[] = {
		{ 0x000, { .cfa = UNWIND_CFA_REG } }, /* a leaf: everything in registers */
		{ 0x100,
			{ .cfa = UNWIND_CFA_REG,
				.cfa_off = 48,
				.ra = UNWIND_AT_CFA,
				.ra_off = -40,
				.fp = UNWIND_AT_CFA,
				.fp_off = -48 } },
		{ 0x200, { .cfa = UNWIND_CFA_SIGNAL } },
		{ 0x300, { .cfa = UNWIND_CFA_END } },
	};
	struct world w;

	open_world(&w, parts, ARRAY_SIZE(parts));
	native_regs_set(&w.regs, NATIVE_ARM64_IP, CODE_AT);
	native_regs_set(&w.regs, NATIVE_ARM64_SP, STACK_AT);
	native_regs_set(&w.regs, NATIVE_ARM64_LR, CODE_AT + 0x110);
	w.words[1] = 0x00550000U * (UINT64_C(1) << 32) + CODE_AT + 0x210; /* signed */
	w.words[6 + UNWIND_ARM64_SIGNAL_IP / 8] = CODE_AT;
	w.words[6 + UNWIND_ARM64_SIGNAL_SP / 8] = word_at(100);
	w.words[6 + UNWIND_ARM64_SIGNAL_LR / 8] = CODE_AT + 0x310;
	EXPECT(&w, EM_AARCH64, NATIVE_COMPLETE, CODE_AT, CODE_AT + 0x110, CODE_AT + 0x210, CODE_AT, CODE_AT + 0x310);
	cr_expect(w.trace->frames[2].signal);
	close_world(&w);
}

Test(native, sleeping_thread) {
	struct proc_sleep sleep = { .call = SLEEP_READ, .args = { 11, 12, 13, 14, 15, 16 }, .sp = 64, .pc = 65 };
	struct native_regs regs;

	cr_assert(native_regs_of_sleep(&sleep, &regs));
	cr_expect(native_regs_has(&regs, NATIVE_SP) && regs.value[NATIVE_SP] == 64);
	cr_expect(native_regs_has(&regs, NATIVE_IP) && regs.value[NATIVE_IP] == 65);
	cr_expect(!native_regs_has(&regs, NATIVE_FP));
#ifdef __x86_64__
	cr_expect(native_regs_has(&regs, 5) && regs.value[5] == 11, "rdi");
#endif
	sleep.call = SLEEP_RUNNING;
	cr_expect(!native_regs_of_sleep(&sleep, &regs));
}

Test(native, stack_copy_up_to_a_hole) {
	static uint8_t bytes[3 * 4096];
	struct mem_segment segment = { .addr = 0x10000, .len = sizeof(bytes), .bytes = bytes };
	struct native_stack stack;
	struct mem *mem;

	bytes[100] = 7;
	cr_assert_eq(mem_bytes_new(&segment, 1, &mem), 0);
	cr_assert_eq(native_stack_init(&stack), 0);
	cr_assert_eq(native_stack_copy(&stack, mem, 0x10000 + 100, UINT64_MAX, 65536), 0);
	cr_expect_eq(stack.len, sizeof(bytes) - 100);
	cr_expect_eq(stack.bytes[0], 7);
	cr_assert_eq(native_stack_copy(&stack, mem, 0x10000, 0x10000 + 40, 65536), 0);
	cr_expect_eq(stack.len, 40);
	cr_assert_eq(native_stack_copy(&stack, mem, 0x50000, UINT64_MAX, 65536), 0);
	cr_expect_eq(stack.len, 0);
	native_stack_deinit(&stack);
	mem_free(mem);
}

static void add(struct symbol_table *table, const char *name, uint64_t vaddr, uint64_t size, char kind) {
	struct elf_symbol symbol = { .name = name,
		.vaddr = vaddr,
		.size = size,
		.limit = 0x11f0,
		.local = kind == 'l',
		.weak = kind == 'w',
		.label = kind == '.' };

	cr_assert_eq(symbol_table_add(table, &symbol), 0);
}

static void expect_name(const struct symbol_table *table, uint64_t vaddr, const char *want, uint64_t want_start) {
	uint64_t start = 0;
	const char *name = symbol_table_find(table, vaddr, &start);

	cr_assert(!want == !name, "%#lx: %s", (unsigned long)vaddr, name ? name : "no name");
	if (!want)
		return;
	cr_expect_str_eq(name, want);
	cr_expect_eq(start, want_start);
}

Test(native, names_of_functions) {
	struct symbol_table table = { .start = 0x1000, .end = 0x2000 };

	add(&table, "__read", 0x1000, 0x40, 'g');
	add(&table, "read", 0x1000, 0x40, 'w');
	add(&table, "__GI_read", 0x1000, 0x40, 'l');
	add(&table, "inner_label", 0x1010, 0, '.');
	add(&table, "asm_label", 0x1100, 0, '.');
	add(&table, "next", 0x1200, 0x100, 'l');
	add(&table, "nested", 0x1220, 0x10, 'l');
	add(&table, "outside", 0x3000, 0x10, 'g');
	symbol_table_sort(&table);
	expect_name(&table, 0x1000, "read", 0x1000);
	expect_name(&table, 0x103f, "read", 0x1000);
	expect_name(&table, 0x1040, NULL, 0);
	expect_name(&table, 0x11ef, "asm_label", 0x1100);
	expect_name(&table, 0x11f0, NULL, 0);
	expect_name(&table, 0x1225, "nested", 0x1220);
	expect_name(&table, 0x1230, "next", 0x1200);
	expect_name(&table, 0x1300, NULL, 0);
	expect_name(&table, 0x3005, NULL, 0);
	expect_name(&table, 0xfff, NULL, 0);
	symbol_table_deinit(&table);
}

/* Of this test, which calls criterion's functions: whether those of a known few have stubs depends on the linker. */
Test(native, names_of_stubs) {
	struct symbol_table table = { .end = UINT64_MAX };
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct elf_image *img;
	uint64_t start;

	cr_assert_eq(elf_image_open(fd, &img), 0);
	cr_assert_eq(symbol_table_add_plt(&table, img), 0);
	symbol_table_sort(&table);
	cr_expect_gt(table.rows.n, 0);
	vec_foreach (row, &table.rows) {
		const char *name = symbol_table_find(&table, row->vaddr + row->size - 1, &start);

		cr_assert_not_null(name);
		cr_expect_eq(start, row->vaddr);
		cr_expect(row->size == 8 || row->size == 16 || row->size == 24);
		cr_expect_str_eq(name + strlen(name) - 4, "@plt");
	}
	symbol_table_deinit(&table);
	elf_image_free(img);
	close(fd);
}

static void expect_demangled(const char *symbol, const char *want) {
	char name[128];

	native_demangle(symbol, name, sizeof(name));
	cr_expect_str_eq(name, want);
}

Test(native, demangling) {
	struct strbuf deep = { 0 };
	char name[64];

	expect_demangled("read", "read");
	expect_demangled("_PyEval_EvalFrameDefault.cold", "_PyEval_EvalFrameDefault.cold");
	expect_demangled("_ZN5known9unwindingEv", "known::unwinding");
	expect_demangled("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back");
	expect_demangled("_ZN3std2rt10lang_start17h0123456789abcdefE", "std::rt::lang_start");
	expect_demangled("_RNvC6_123foo3bar", "123foo::bar");
	expect_demangled("_ZN5known9unwindingEv@plt", "known::unwinding@plt");
	expect_demangled("read@plt", "read@plt");
	expect_demangled("_Z@plt", "_Z@plt");
	expect_demangled("_Z", "_Z");
	expect_demangled("_ZN5known", "_ZN5known");
	native_demangle("_ZNSt6vectorIiSaIiEE9push_backERKi", name, 8);
	cr_expect_str_eq(name, "std::ve");
	/* Each pair doubles the text. */
	strbuf_adds(&deep, "_Z1fI1A");
	for (int i = 0; i < 200; i++)
		strbuf_adds(&deep, "St4pairI");
	for (int i = 0; i < 200; i++)
		strbuf_adds(&deep, "S_S_E");
	strbuf_adds(&deep, "Evv");
	native_demangle(deep.data, name, sizeof(name));
	cr_expect_lt(strlen(name), sizeof(name));
	strbuf_deinit(&deep);
}

static void parse(const char *text, struct symbol_table *table) {
	*table = (struct symbol_table){ 0 };
	cr_assert_eq(perf_map_parse(text, strlen(text), table), 0);
}

Test(native, perf_map) {
	struct symbol_table table;

	parse("1000 20 py::f:/x y.py\n"
	      "0x2000 10 LazyCompile:~g\n"
	      "1000 20 py::again\n"
	      "nonsense\n\n"
	      "3000 0 empty\n"
	      "4000 10\n"
	      "ffffffffffffffff 2 wraps\n"
	      "11111111111111111 2 long\n"
	      "5000 10 not ended",
		&table);
	expect_name(&table, 0x1010, "py::again", 0x1000);
	expect_name(&table, 0x200f, "LazyCompile:~g", 0x2000);
	expect_name(&table, 0x3000, NULL, 0);
	expect_name(&table, 0x4000, NULL, 0);
	expect_name(&table, 0x5000, NULL, 0);
	cr_expect_eq(table.rows.n, 2);
	symbol_table_deinit(&table);
	parse("", &table);
	symbol_table_deinit(&table);
}

/* This process: its own file is found, with a table, and its functions by name. */
Test(native, this_process) {
	struct native_modules *modules;
	struct native_cache *cache;
	struct proc proc;
	struct mem *mem;
	const struct native_module *module;

	cr_assert_eq(proc_open("/proc", getpid(), &proc), 0);
	cr_assert_eq(mem_live_new(getpid(), &mem), 0);
	cr_assert_eq(native_cache_new(1 << 20, &cache), 0);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(native_modules_new(&proc, mem, cache, &modules), 0);
		module = native_modules_find(modules, (raddr)(uintptr_t)&native_unwind);
		cr_assert(module && module->file && module->file->table);
		cr_expect_eq(module->file->id, 1, "the second time out of the cache");
		cr_expect_gt(module->file->build_id_len, 0);
		cr_expect_null(native_modules_find(modules, (raddr)(uintptr_t)&proc));
		native_modules_free(modules);
	}
	native_cache_free(cache);
	mem_free(mem);
	proc_close(&proc);
}

static inline __attribute__((always_inline)) uintptr_t inlined_place(void) {
	uintptr_t here;

#ifdef __x86_64__
	__asm__ volatile("lea 0f(%%rip), %0\n0:" : "=r"(here));
#else
	__asm__ volatile("adr %0, 0f\n0:" : "=r"(here));
#endif
	return here; /* the line that is looked for is the instruction's */
}

static __attribute__((noipa)) uintptr_t outer_place(void) {
	return inlined_place();
}

Test(native, lines_and_inlined_functions) {
	struct native_modules *modules;
	struct native_cache *cache;
	struct proc proc;
	struct mem *mem;
	native_line_vec lines = { 0 };
	raddr at[] = { outer_place() - 1, (raddr)(uintptr_t)&native_unwind, 0 };
	const struct native_module *module;

	cr_assert_eq(proc_open("/proc", getpid(), &proc), 0);
	cr_assert_eq(mem_live_new(getpid(), &mem), 0);
	cr_assert_eq(native_cache_new(0, &cache), 0);
	cr_assert_eq(native_modules_new(&proc, mem, cache, &modules), 0);
	module = native_modules_find(modules, at[0]);
	cr_assert(module);
	at[2] = module->bias;
	cr_assert_eq(native_lines_read(modules, module, at, 3, UINT64_MAX, &lines), 0);
	cr_assert_geq(lines.n, 3);
	cr_expect(lines.items[0].query == 0 && lines.items[0].inlined);
	cr_expect_str_eq(lines.items[0].function, "inlined_place");
	cr_expect(strstr(lines.items[0].file, "test_native.c"), "%s", lines.items[0].file);
	cr_expect(lines.items[1].query == 0 && !lines.items[1].inlined);
	cr_expect_str_eq(lines.items[1].function, "outer_place");
	cr_expect_gt(lines.items[1].line, lines.items[0].line, "where it was inlined");
	cr_expect_eq(lines.items[2].query, 1);
	cr_expect_str_eq(lines.items[lines.n - 1].function, "native_unwind");
	native_lines_free(&lines);
	native_modules_free(modules);
	native_cache_free(cache);
	mem_free(mem);
	proc_close(&proc);
}
