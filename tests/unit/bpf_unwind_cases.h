/* SPDX-License-Identifier: MIT */
/* What the eBPF program does with a native stack (bpf/unwind.h), here as plain C on stacks made by hand and by chance:
 * it must see what user space's own unwinder sees. Whoever includes this defines PYB_ARM64 and SUITE. */
#include "engine/native/unwind.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <string.h>

#define CODE_AT UINT64_C(0x400000)
#define CODE_LEN 0x30000U             /* three pages of a table */
#define MADE_AT UINT64_C(0x7f0000000) /* code that no file describes */
#define LATE_AT UINT64_C(0x7f1000000) /* whose table the program was not told */
#define MAPPED_LEN 0x1000U
#define STACK_AT UINT64_C(0x7ffc00000000)
#define STACK_WORDS 512
#define PARTS_MAX 64
#define TABLE_FIRST 7 /* in the array */
#define TELLING 3

#if PYB_ARM64
#define MACHINE EM_AARCH64
#define IP NATIVE_ARM64_IP
#define SP NATIVE_ARM64_SP
#define FP NATIVE_ARM64_FP
#define OTHER NATIVE_ARM64_LR
#define SIGNAL_AT(reg) UNWIND_ARM64_SIGNAL_##reg
#else
#define MACHINE EM_X86_64
#define IP NATIVE_X86_IP
#define SP NATIVE_X86_SP
#define FP NATIVE_X86_FP
#define OTHER NATIVE_X86_BX
#define SIGNAL_AT(reg) UNWIND_X86_SIGNAL_##reg
#endif

static uint64_t words[STACK_WORDS];
static uint32_t *table_words;
static uint32_t table_words_n;
static const struct unwind_rules *rules;

/* As the kernel's helper: what cannot be read is zeros. */
static int read_stack(void *to, size_t len, uint64_t address) {
	if (address >= STACK_AT && address - STACK_AT <= sizeof(words) && len <= sizeof(words) - (address - STACK_AT)) {
		memcpy(to, (uint8_t *)words + (address - STACK_AT), len);
		return 0;
	}
	memset(to, 0, len);
	return -EFAULT;
}

#define PYB_READ(to, len, address) read_stack(to, len, address)
#define PYB_TABLE_WORD(index) ((index) < table_words_n ? table_words[index] : 0)
#define PYB_RULE(index) ((index) < rules->items.n ? &rules->items.items[index] : NULL)
#include "bpf/unwind.h"

/* A process with one file, made code, and a file that is told later; both unwinders' view of it. */
struct world {
	struct native_cache *cache;
	struct native_modules modules;
	struct native_module items[3];
	struct native_file file;
	struct native_trace *trace;
	struct pyb_codes *codes;
	struct pyb_unwind *u;
	uint32_t from[PARTS_MAX]; /* of each rule's code */
	size_t parts;
	uint64_t ip, fp, other;
};

static struct world *open_world(void) {
	struct world *w = calloc(1, sizeof(*w));

	cr_assert_eq(native_cache_new(0, &w->cache), 0);
	rules = native_cache_rules(w->cache);
	w->trace = calloc(1, sizeof(*w->trace));
	w->codes = calloc(1, sizeof(*w->codes));
	w->u = calloc(1, sizeof(*w->u));
	memset(words, 0, sizeof(words));
	w->items[0] = (struct native_module){
		.start = CODE_AT, .end = CODE_AT + CODE_LEN, .loaded = true, .bias = CODE_AT, .file = &w->file
	};
	w->items[1] = (struct native_module){
		.start = MADE_AT, .end = MADE_AT + MAPPED_LEN, .kind = NATIVE_ANONYMOUS, .loaded = true
	};
	w->items[2] = (struct native_module){
		.start = LATE_AT, .end = LATE_AT + MAPPED_LEN, .kind = NATIVE_ANONYMOUS, .loaded = true
	};
	w->modules.items.items = w->items;
	w->modules.items.n = ARRAY_SIZE(w->items);
	w->modules.cache = w->cache;
	return w;
}

static void close_world(struct world *w) {
	unwind_table_free(w->file.table);
	native_cache_free(w->cache);
	free(table_words);
	table_words = NULL;
	free(w->trace);
	free(w->codes);
	free(w->u);
	free(w);
}

static void add_part(struct world *w, struct cfi *cfi, uint32_t from, const struct unwind_rule *rule) {
	struct cfi_row row = { .offset = from };

	cr_assert_eq(unwind_rules_add((struct unwind_rules *)rules, rule, &row.rule), 0);
	cr_assert_eq(vec_push(&cfi->rows, row), 0);
	w->from[w->parts++] = from;
}

/* Packs the rules' rows, and lays the table where the program finds it. */
static void pack(struct world *w, struct cfi *cfi) {
	const struct unwind_table *table;

	cr_assert_eq(vec_push(&cfi->ranges, (struct cfi_range){ .end = CODE_LEN, .n = (uint32_t)cfi->rows.n }), 0);
	cr_assert_eq(unwind_table_pack(cfi, 0, &w->file.table), 0);
	cfi_deinit(cfi);
	table = w->file.table;
	table_words_n = TABLE_FIRST + table->words_n;
	table_words = malloc(table_words_n * sizeof(*table_words));
	memset(table_words, 0xff, TABLE_FIRST * sizeof(*table_words));
	memcpy(table_words + TABLE_FIRST, table->words, table->words_n * sizeof(*table_words));
	w->codes->n = 3;
	w->codes->telling = TELLING;
	w->codes->codes[0] = (struct pyb_code){ .start = CODE_AT,
		.end = CODE_AT + CODE_LEN,
		.base = CODE_AT + table->vaddr,
		.table = TABLE_FIRST,
		.pages = table->pages };
	w->codes->codes[1] =
		(struct pyb_code){ .start = MADE_AT, .end = MADE_AT + MAPPED_LEN, .table = PYB_TABLE_NONE };
	w->codes->codes[2] =
		(struct pyb_code){ .start = LATE_AT, .end = LATE_AT + MAPPED_LEN, .table = PYB_TABLE_LATER };
}

static void walk(struct world *w) {
	struct pyb_unwind *u = w->u;

	u->regs = (struct pyb_regs){ .ip = w->ip, .sp = STACK_AT, .fp = w->fp, .other = w->other };
	u->native.kernel_n = 2;
	pyb_unwind_begin(w->codes, u);
	for (int i = 0; i <= PYB_ADDRESSES_MAX; i++)
		if (pyb_unwind_step(w->codes, u))
			break;
	cr_assert_neq(u->native.stop, PYB_STOP_NONE);
	cr_assert_leq(u->native.kernel_n + u->native.frames_n, PYB_ADDRESSES_MAX);
}

static void walk_theirs(struct world *w) {
	const struct native_stack stack = { .at = STACK_AT, .len = sizeof(words), .bytes = (uint8_t *)words };
	const struct native_unwinder unwinder = { .modules = &w->modules, .stack = &stack, .machine = MACHINE };
	struct native_regs regs = { 0 };

	native_regs_set(&regs, IP, w->ip);
	native_regs_set(&regs, SP, STACK_AT);
	native_regs_set(&regs, FP, w->fp);
	native_regs_set(&regs, OTHER, w->other);
	native_unwind(&unwinder, &regs, w->trace);
}

static uint64_t theirs_at(const struct world *w, size_t i) {
	const struct native_frame *frame = &w->trace->frames[i];

	return (frame->ip & PYB_NATIVE_MASK) | (frame->after_call ? PYB_AFTER_CALL : 0) |
		(frame->signal ? PYB_SIGNAL : 0) | (frame->by_fp ? PYB_BY_FP : 0);
}

static bool same_stop(const struct world *w) {
	static const enum native_stop stops[] = {
		[PYB_STOP_COMPLETE] = NATIVE_COMPLETE,
		[PYB_STOP_NO_CODE] = NATIVE_NO_CODE,
		[PYB_STOP_NO_TABLE] = NATIVE_NO_TABLE,
		[PYB_STOP_NO_REG] = NATIVE_NO_REG,
		[PYB_STOP_UNREADABLE] = NATIVE_UNREADABLE,
		[PYB_STOP_BAD_CFA] = NATIVE_BAD_CFA,
		[PYB_STOP_TRUNCATED] = NATIVE_TRUNCATED,
	};

	return stops[w->u->native.stop] == w->trace->stop;
}

/* The same frames, and the same reason to end; but that the program may end where user space can go on: a file that it
 * was not told, registers that it does not keep, and more than it has room for. */
static void expect_same(struct world *w, const char *what) {
	uint32_t stop, n;
	bool gives_up;

	walk(w);
	walk_theirs(w);
	stop = w->u->native.stop;
	n = w->u->native.frames_n;
	gives_up = stop == PYB_STOP_UNTOLD || stop == PYB_STOP_NO_REG || stop == PYB_STOP_TRUNCATED;
	cr_assert(gives_up || same_stop(w), "%s: stop %u, %s", what, stop, native_stop_text(w->trace->stop));
	cr_assert(n == w->trace->n || (gives_up && n < w->trace->n), "%s: %u frames, not %zu; stop %u, %s", what, n,
		w->trace->n, stop, native_stop_text(w->trace->stop));
	for (uint32_t i = 0; i < n; i++)
		cr_assert(w->u->native.addresses[2 + i] == theirs_at(w, i) || (gives_up && i == n - 1),
			"%s, frame %u: %#llx, not %#jx", what, i, w->u->native.addresses[2 + i],
			(uintmax_t)theirs_at(w, i));
}

/* Frames' addresses as the program found them. */
static void expect(struct world *w, uint32_t stop, const uint64_t *ips, size_t n, const char *what) {
	expect_same(w, what);
	cr_assert_eq(w->u->native.stop, stop, "%s: stop %u", what, w->u->native.stop);
	cr_assert_eq(w->u->native.frames_n, n, "%s: %u frames", what, w->u->native.frames_n);
	for (size_t i = 0; i < n; i++)
		cr_assert_eq(w->u->native.addresses[2 + i] & PYB_NATIVE_MASK, ips[i], "%s: %zu", what, i);
}

#define EXPECT(w, stop, what, ...) \
	expect((w), (stop), (const uint64_t[]){ __VA_ARGS__ }, \
		sizeof((const uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t), (what))

static uint64_t word_at(size_t i) {
	return STACK_AT + 8 * i;
}

enum {
	IN_SP,
	IN_FP,
	IN_END,
	IN_SIGNAL,
	IN_DEREF,
	IN_NONE,
	IN_PLT,
	IN_OTHER,
	IN_REG,
};

/* A function of each kind, on each page: at kind * 0x1000 and 0x10000 beyond. */
static struct world *known_world(void) {
	static const struct unwind_rule kinds[] = {
		[IN_SP] = { .cfa = UNWIND_CFA_REG, .ra = UNWIND_AT_CFA, .ra_off = -8, .cfa_off = 32 },
		[IN_FP] = { .cfa = UNWIND_CFA_REG,
			.base = UNWIND_BASE_FP,
			.ra = UNWIND_AT_CFA,
			.ra_off = -8,
			.cfa_off = 16,
			.fp = UNWIND_AT_CFA,
			.fp_off = -16 },
		[IN_END] = { .cfa = UNWIND_CFA_END },
		[IN_SIGNAL] = { .cfa = UNWIND_CFA_SIGNAL },
		[IN_DEREF] = { .cfa = UNWIND_CFA_DEREF,
			.base = UNWIND_BASE_FP,
			.ra = UNWIND_AT_CFA,
			.ra_off = -8,
			.cfa_off = -8,
			.cfa_add = 16,
			.fp = UNWIND_AT_FP },
		[IN_NONE] = { .cfa = UNWIND_CFA_NONE },
		[IN_PLT] = { .cfa = UNWIND_CFA_PLT, .ra = UNWIND_AT_CFA, .ra_off = -8, .cfa_off = 8, .cfa_add = 11 },
		[IN_OTHER] = { .cfa = UNWIND_CFA_REG,
			.base = UNWIND_BASE_BX,
			.ra = UNWIND_AT_CFA,
			.ra_off = -8,
			.cfa_off = 16,
			.bx = UNWIND_AT_CFA,
			.bx_off = -16 },
		[IN_REG] = { .cfa = UNWIND_CFA_REG, .ra = UNWIND_IN_REG, .ra_off = 5 },
	};
	struct world *w = open_world();
	struct cfi cfi = { 0 };

	for (uint32_t page = 0; page < 2; page++)
		for (uint32_t i = 0; i < ARRAY_SIZE(kinds); i++)
			add_part(w, &cfi, page * 0x10000 + i * 0x1000, &kinds[i]);
	pack(w, &cfi);
	return w;
}

static uint64_t in(unsigned kind) {
	return CODE_AT + 0x10000 + kind * 0x1000 + 0x100;
}

Test(SUITE, follows_both_pointers) {
	struct world *w = known_world();

	w->ip = in(IN_SP);
	w->fp = word_at(10);
	words[3] = in(IN_FP);
	words[10] = word_at(20);
	words[11] = CODE_AT + 0x1100;
	words[21] = in(IN_END);
	EXPECT(w, PYB_STOP_COMPLETE, "pointers", in(IN_SP), in(IN_FP), CODE_AT + 0x1100, in(IN_END));
	EXPECT(w, PYB_STOP_COMPLETE, "seen before", in(IN_SP), in(IN_FP), CODE_AT + 0x1100, in(IN_END));
	words[21] = 0;
	EXPECT(w, PYB_STOP_COMPLETE, "zero", in(IN_SP), in(IN_FP), CODE_AT + 0x1100);
	words[21] = CODE_AT + CODE_LEN + 1;
	EXPECT(w, PYB_STOP_NO_CODE, "beyond", in(IN_SP), in(IN_FP), CODE_AT + 0x1100);
	words[10] = word_at(4);
	EXPECT(w, PYB_STOP_BAD_CFA, "downwards", in(IN_SP), in(IN_FP), CODE_AT + 0x1100);
	words[10] = word_at(STACK_WORDS + 100);
	EXPECT(w, PYB_STOP_UNREADABLE, "no stack", in(IN_SP), in(IN_FP), CODE_AT + 0x1100);
	close_world(w);
}

/* The last instruction of a function is a call: what it returns to is another function's. */
Test(SUITE, looks_up_the_call) {
	struct world *w = known_world();

	w->ip = in(IN_SP);
	words[3] = CODE_AT + 0x12000;
	w->fp = word_at(10);
	words[11] = 0;
	EXPECT(w, PYB_STOP_COMPLETE, "call at the end", in(IN_SP), CODE_AT + 0x12000);
	words[3] = CODE_AT + 0x10000; /* the page's first byte: the call is in the page before, in no function */
	expect_same(w, "call at the end of a page");
	close_world(w);
}

Test(SUITE, goes_through_signals) {
	struct world *w = known_world();

	w->ip = in(IN_SP);
	words[3] = in(IN_SIGNAL);
	words[4 + SIGNAL_AT(IP) / 8] = in(IN_FP);
	words[4 + SIGNAL_AT(SP) / 8] = word_at(2); /* another stack */
	words[4 + SIGNAL_AT(FP) / 8] = word_at(300);
	words[301] = in(IN_END);
	EXPECT(w, PYB_STOP_COMPLETE, "signal", in(IN_SP), in(IN_SIGNAL), in(IN_FP), in(IN_END));
	cr_expect(w->u->native.addresses[3] & PYB_SIGNAL);
	cr_expect(!(w->u->native.addresses[4] & PYB_AFTER_CALL));
	words[4 + SIGNAL_AT(IP) / 8] = 0x10; /* a jump to nowhere */
	words[2] = in(IN_END);
	words[4 + SIGNAL_AT(FP) / 8 + (PYB_ARM64 ? 1 : 0)] = PYB_ARM64 ? in(IN_END) : word_at(300);
	EXPECT(w, PYB_STOP_COMPLETE, "nowhere", in(IN_SP), in(IN_SIGNAL), 0x10, in(IN_END));
	close_world(w);
}

/* A frame that restores itself has no end. */
Test(SUITE, ends_with_what_there_is_room_for) {
	struct world *w = known_world();

	w->ip = in(IN_SIGNAL);
	words[SIGNAL_AT(IP) / 8] = in(IN_SIGNAL);
	words[SIGNAL_AT(SP) / 8] = STACK_AT;
	expect_same(w, "ring");
	cr_expect_eq(w->u->native.stop, PYB_STOP_TRUNCATED);
	cr_expect_eq(w->u->native.frames_n, PYB_ADDRESSES_MAX - 2);
	close_world(w);
}

Test(SUITE, made_code_by_frame_pointer) {
	struct world *w = known_world();

	w->ip = MADE_AT + 8;
	w->fp = word_at(4);
	words[4] = word_at(8);
	words[5] = in(IN_FP);
	words[9] = in(IN_END);
	EXPECT(w, PYB_STOP_COMPLETE, "made", MADE_AT + 8, in(IN_FP), in(IN_END));
	cr_expect(w->u->native.addresses[2] & PYB_BY_FP);
	w->ip = in(IN_NONE);
	EXPECT(w, PYB_STOP_COMPLETE, "no rule", in(IN_NONE), in(IN_FP), in(IN_END));
	words[5] = 99;
	EXPECT(w, PYB_STOP_NO_TABLE, "to no code", in(IN_NONE));
	w->fp = STACK_AT - 8;
	EXPECT(w, PYB_STOP_NO_TABLE, "downwards", in(IN_NONE));
	close_world(w);
}

Test(SUITE, waits_for_a_table) {
	struct world *w = known_world();

	w->ip = in(IN_SP);
	words[3] = LATE_AT + 16;
	w->fp = word_at(4);
	words[5] = in(IN_END);
	expect_same(w, "late");
	cr_expect_eq(w->u->native.stop, PYB_STOP_UNTOLD);
	cr_expect_eq(w->u->native.frames_n, 2);
	cr_expect_eq(w->u->native.addresses[3] & PYB_NATIVE_MASK, LATE_AT + 16);
	close_world(w);
}

/* What was seen in one telling is nothing in the next: the mappings may be others. */
Test(SUITE, forgets_what_it_has_seen) {
	struct world *w = known_world();

	w->ip = in(IN_SP);
	words[3] = in(IN_END);
	EXPECT(w, PYB_STOP_COMPLETE, "before", in(IN_SP), in(IN_END));
	w->codes->codes[0].base -= 0x1000; /* what was END is SIGNAL now, and so on */
	w->codes->telling++;
	walk(w);
	cr_expect_neq(w->u->native.stop, PYB_STOP_COMPLETE);
	close_world(w);
}

#if !PYB_ARM64
Test(SUITE, realigned_and_stubs_and_rbx) {
	struct world *w = known_world();

	w->ip = in(IN_DEREF);
	w->fp = word_at(10);
	words[9] = word_at(18);
	words[10] = word_at(30);
	words[19] = in(IN_FP);
	words[31] = in(IN_END);
	EXPECT(w, PYB_STOP_COMPLETE, "realigned", in(IN_DEREF), in(IN_FP), in(IN_END));
	w->ip = in(IN_PLT) + 10;
	words[0] = words[1] = in(IN_END);
	EXPECT(w, PYB_STOP_COMPLETE, "stub", in(IN_PLT) + 10, in(IN_END));
	words[0] = 1;
	w->ip++;
	EXPECT(w, PYB_STOP_COMPLETE, "pushed", in(IN_PLT) + 11, in(IN_END));
	w->ip = in(IN_OTHER);
	w->other = word_at(10);
	words[10] = word_at(20);
	words[11] = in(IN_OTHER);
	words[21] = in(IN_END);
	EXPECT(w, PYB_STOP_COMPLETE, "rbx", in(IN_OTHER), in(IN_OTHER), in(IN_END));
	w->ip = in(IN_REG);
	EXPECT(w, PYB_STOP_NO_REG, "return address in a register", in(IN_REG));
	w->ip = 0;
	words[0] = in(IN_END);
	EXPECT(w, PYB_STOP_COMPLETE, "nowhere", 0, in(IN_END));
	close_world(w);
}
#endif

static uint64_t seed;

static uint32_t pick(uint32_t n) {
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(seed >> 33) % n;
}

static int32_t pick_offset(void) {
	return (int32_t)(pick(12) * 8) - 40;
}

/* Any rule that may be in a table. */
static struct unwind_rule pick_rule(void) {
	static const uint8_t kinds[] = { UNWIND_CFA_NONE, UNWIND_CFA_END, UNWIND_CFA_SIGNAL, UNWIND_CFA_DEREF,
		UNWIND_CFA_PLT, UNWIND_CFA_REG, UNWIND_CFA_REG, UNWIND_CFA_REG, UNWIND_CFA_REG, UNWIND_CFA_REG };
	struct unwind_rule rule = { .cfa = kinds[pick(ARRAY_SIZE(kinds))] };

	if (rule.cfa == UNWIND_CFA_NONE || rule.cfa == UNWIND_CFA_END || rule.cfa == UNWIND_CFA_SIGNAL)
		return rule;
	rule.base = (uint8_t)(pick(3) ? UNWIND_BASE_SP : pick(4));
	rule.base_reg = rule.base == UNWIND_BASE_OTHER ? 12 : 0;
	rule.ra = pick(20) ? UNWIND_AT_CFA : pick(2) ? UNWIND_SAME : UNWIND_IN_REG;
	rule.fp = (uint8_t)pick(4);
	rule.bx = PYB_ARM64 ? UNWIND_SAME : (uint8_t)pick(4);
	rule.ra_off = rule.ra == UNWIND_AT_CFA ? -8 : 12;
	rule.cfa_off = (int32_t)(pick(8) * 8) + (pick(30) ? 8 : 4);
	rule.fp_off = pick_offset();
	rule.bx_off = pick_offset();
	rule.cfa_add = rule.cfa == UNWIND_CFA_PLT ? (int16_t)pick(16) : rule.cfa == UNWIND_CFA_DEREF ? 16 : 0;
	return rule;
}

/* A word that leads somewhere, more often than not. */
static uint64_t pick_word(const struct world *w, size_t at) {
	switch (pick(16)) {
	case 0:
	case 1:
	case 4: return word_at(at + pick(24)) + (pick(20) ? 0 : 1);
	case 2: return pick(2) ? MADE_AT + pick(MAPPED_LEN + 8) : LATE_AT + pick(MAPPED_LEN);
	case 3: return pick(2) ? 0 : seed;
	default: return CODE_AT + w->from[pick((uint32_t)w->parts)] + (pick(4) ? pick(64) : 0);
	}
}

Test(SUITE, same_as_user_space_on_any_stack) {
	size_t deep = 0, whole = 0;

	seed = 1;
	for (int round = 0; round < 200; round++) {
		struct world *w = open_world();
		struct cfi cfi = { 0 };
		uint32_t at = 0;

		for (int i = 0; i < PARTS_MAX && at < CODE_LEN - 16; i++, at += 1 + pick(i % 2 ? 64 : 12000)) {
			struct unwind_rule rule = pick_rule();

			add_part(w, &cfi, at, &rule);
		}
		pack(w, &cfi);
		for (int stack = 0; stack < 50; stack++) {
			for (size_t i = 0; i < STACK_WORDS; i++)
				words[i] = pick_word(w, i);
			w->ip = pick_word(w, 0);
			w->fp = pick_word(w, 0);
			w->other = pick_word(w, 0);
			expect_same(w, "by chance");
			deep += w->u->native.frames_n > 4;
			whole += w->u->native.stop == PYB_STOP_COMPLETE;
		}
		close_world(w);
	}
	cr_expect_gt(deep, 100);
	cr_expect_gt(whole, 500);
}
