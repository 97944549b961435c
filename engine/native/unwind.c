/* SPDX-License-Identifier: MIT */
/* One frame after the other, by the rules of the files' tables.
 *
 * A frame that was interrupted (the first one, and the one behind a signal's trampoline) has all of its registers, and
 * is looked up where it stands; of all others the stack pointer, the frame pointer, rbx and the return address are
 * known, and the call before the return address is looked up.
 *
 * Where there is no rule: a signal's trampoline is known by its instructions (musl, aarch64's vdso), and so is the end
 * of a function (epilogue.c); else the frame pointer, if what it points to is a return address into code; else, in the
 * first frame, a return address at the stack pointer, as after a call to nowhere. Nothing else is tried: a stack that
 * cannot be told is said to end, with the reason.
 *
 * The frame pointer of a sleeping thread is not known at first. Most functions that are on the stack then do not need
 * it, or one of them has saved it; else it is looked for (recover.c).
 *
 * What is read may be anything. The stack only ever grows upwards but across a signal's trampoline, and the trace is
 * bounded, so that each walk ends. */
#include "engine/native/unwind.h"
#include "engine/native/walk.h"

#include <assert.h>
#include <elf.h>
#include <string.h>

#define ARM64_ADDRESS_MASK ((1ULL << 48) - 1) /* above it: what pointer authentication put there */

static const struct walk_machine machines[] = {
	{
		.machine = EM_X86_64,
		.ip = NATIVE_X86_IP,
		.sp = NATIVE_X86_SP,
		.fp = NATIVE_X86_FP,
		.bx = NATIVE_X86_BX,
		.lr = NATIVE_REGS,
		.ip_mask = UINT64_MAX,
		.signal_at = 40,
		.signal_words = 17,
		.signal_order = { 8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16 },
		.trampoline = { 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05 }, /* mov $15, %rax; syscall */
		.trampoline_len = 9,
	},
	{
		.machine = EM_AARCH64,
		.ip = NATIVE_ARM64_IP,
		.sp = NATIVE_ARM64_SP,
		.fp = NATIVE_ARM64_FP,
		.bx = NATIVE_REGS,
		.lr = NATIVE_ARM64_LR,
		.ip_mask = ARM64_ADDRESS_MASK,
		.signal_at = 312,
		.signal_words = 33,
		.signal_order = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
			24, 25, 26, 27, 28, 29, 30, 31, 32 },
		.trampoline = { 0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4 }, /* mov x8, #139; svc #0 */
		.trampoline_len = 8,
	},
};

static_assert(40 + 8 * 10 == UNWIND_X86_SIGNAL_FP && 40 + 8 * 16 == UNWIND_X86_SIGNAL_IP, "one layout");
static_assert(312 + 8 * 29 == UNWIND_ARM64_SIGNAL_FP && 312 + 8 * 32 == UNWIND_ARM64_SIGNAL_IP, "one layout");

const char *native_stop_text(enum native_stop stop) {
	static const char *const texts[] = {
		[NATIVE_COMPLETE] = "complete",
		[NATIVE_NO_CODE] = "the next address is not in code",
		[NATIVE_NO_TABLE] = "the code says nothing about its frames",
		[NATIVE_NO_REG] = "a register is not known",
		[NATIVE_UNREADABLE] = "the stack cannot be read",
		[NATIVE_BAD_CFA] = "the stack does not grow upwards",
		[NATIVE_TRUNCATED] = "too many frames",
	};

	return texts[stop];
}

bool walk_read(const struct walk *w, raddr at, void *buf, size_t len) {
	const struct native_stack *stack = w->unwinder->stack;

	if (stack && at >= stack->at && at - stack->at <= stack->len && len <= stack->len - (at - stack->at)) {
		memcpy(buf, stack->bytes + (at - stack->at), len);
		return true;
	}
	return w->unwinder->mem && !mem_read(w->unwinder->mem, at, buf, len);
}

bool walk_read_word(const struct walk *w, raddr at, uint64_t *ret) {
	return walk_read(w, at, ret, sizeof(*ret));
}

bool walk_is_code(const struct walk *w, raddr at) {
	return native_modules_find(w->unwinder->modules, at) != NULL;
}

const struct unwind_rule *walk_rule_at(const struct walk *w, raddr at) {
	const struct native_module *module = native_modules_find(w->unwinder->modules, at);
	uint16_t index = UNWIND_RULE_NONE;

	if (module && module->file && module->file->table)
		index = unwind_table_find(module->file->table, at - module->bias);
	return &w->rules->items.items[index];
}

/* Leaves the frame for its caller. The registers that no rule follows are lost. */
static int step_to(struct walk *w, raddr ip, raddr sp, const struct native_regs *kept) {
	struct native_regs regs = { 0 };
	const struct walk_machine *m = w->machine;

	ip &= m->ip_mask;
	native_regs_set(&regs, m->ip, ip);
	native_regs_set(&regs, m->sp, sp);
	if (native_regs_has(kept, m->fp))
		native_regs_set(&regs, m->fp, kept->value[m->fp]);
	if (native_regs_has(kept, m->bx))
		native_regs_set(&regs, m->bx, kept->value[m->bx]);
	w->regs = regs;
	w->after_call = true;
	if (!ip)
		return NATIVE_COMPLETE;
	return walk_is_code(w, ip - 1) ? GO_ON : NATIVE_NO_CODE;
}

static int step_signal(struct walk *w) {
	const struct walk_machine *m = w->machine;
	uint64_t words[SIGNAL_WORDS_MAX];
	struct native_regs regs = { 0 };

	if (!walk_read(w, w->regs.value[m->sp] + m->signal_at, words, m->signal_words * sizeof(*words)))
		return NATIVE_UNREADABLE;
	for (uint32_t i = 0; i < m->signal_words; i++)
		native_regs_set(&regs, m->signal_order[i], words[i]);
	w->regs = regs;
	w->after_call = false;
	w->frame->signal = true;
	return GO_ON;
}

static bool is_trampoline(const struct walk *w) {
	uint8_t code[sizeof(w->machine->trampoline)];

	return walk_read(w, w->regs.value[w->machine->ip], code, w->machine->trampoline_len) &&
		!memcmp(code, w->machine->trampoline, w->machine->trampoline_len);
}

/* The frame pointer shows the caller's frame pointer and the return address. */
static int step_by_fp(struct walk *w) {
	const struct walk_machine *m = w->machine;
	struct native_regs kept = { 0 };
	uint64_t fp = w->regs.value[m->fp], pair[2];

	if (!native_regs_has(&w->regs, m->fp) || fp < w->regs.value[m->sp] || fp % WORD)
		return NATIVE_NO_TABLE;
	if (!walk_read(w, fp, pair, sizeof(pair)))
		return NATIVE_NO_TABLE;
	pair[1] &= m->ip_mask;
	if (pair[1] && !walk_is_code(w, pair[1] - 1))
		return NATIVE_NO_TABLE;
	w->frame->by_fp = true;
	native_regs_set(&kept, m->fp, pair[0]);
	return step_to(w, pair[1], fp + 2 * WORD, &kept);
}

static int step_without_rule(struct walk *w) {
	struct native_regs regs;

	if (!walk_run_epilogue(w, &regs))
		return step_by_fp(w);
	return step_to(w, regs.value[w->machine->ip], regs.value[w->machine->sp], &regs);
}

/* A call through a bad pointer: nothing of the called "function" has run. */
static int step_from_nowhere(struct walk *w) {
	const struct walk_machine *m = w->machine;
	uint64_t sp = w->regs.value[m->sp], ip;

	if (m->lr != NATIVE_REGS)
		return native_regs_has(&w->regs, m->lr) ? step_to(w, w->regs.value[m->lr], sp, &w->regs)
							: NATIVE_NO_CODE;
	if (!walk_read_word(w, sp, &ip))
		return NATIVE_UNREADABLE;
	return walk_is_code(w, ip - 1) ? step_to(w, ip, sp + WORD, &w->regs) : NATIVE_NO_CODE;
}

static unsigned base_of(const struct walk *w, const struct unwind_rule *rule) {
	switch (rule->base) {
	case UNWIND_BASE_SP: return w->machine->sp;
	case UNWIND_BASE_FP: return w->machine->fp;
	case UNWIND_BASE_BX: return w->machine->bx;
	default: return rule->base_reg;
	}
}

/* Return: GO_ON and *ret_cfa; why not. */
static int find_cfa(const struct walk *w, const struct unwind_rule *rule, uint64_t *ret_cfa) {
	unsigned base = base_of(w, rule);
	uint64_t sp = w->regs.value[w->machine->sp], cfa;

	if (!native_regs_has(&w->regs, base))
		return NATIVE_NO_REG;
	cfa = w->regs.value[base] + (uint64_t)(int64_t)rule->cfa_off;
	if (rule->cfa == UNWIND_CFA_DEREF) {
		if (!walk_read_word(w, cfa, &cfa))
			return NATIVE_UNREADABLE;
		cfa += (uint64_t)(int64_t)rule->cfa_add;
	} else if (rule->cfa == UNWIND_CFA_PLT &&
		(w->regs.value[w->machine->ip] & 15) >= (uint64_t)(int64_t)rule->cfa_add)
		cfa += WORD;
	if (cfa % WORD || cfa < sp || (cfa == sp && w->after_call))
		return NATIVE_BAD_CFA;
	*ret_cfa = cfa;
	return GO_ON;
}

static void restore(
	const struct walk *w, struct native_regs *kept, unsigned number, uint8_t how, int32_t off, uint64_t cfa) {
	unsigned fp = w->machine->fp;
	uint64_t value;

	if (number == NATIVE_REGS || how == UNWIND_SAME)
		return;
	native_regs_forget(kept, number);
	if (how == UNWIND_AT_CFA && walk_read_word(w, cfa + (uint64_t)(int64_t)off, &value))
		native_regs_set(kept, number, value);
	else if (how == UNWIND_AT_FP && native_regs_has(&w->regs, fp) &&
		walk_read_word(w, w->regs.value[fp] + (uint64_t)(int64_t)off, &value))
		native_regs_set(kept, number, value);
}

static int find_return(const struct walk *w, const struct unwind_rule *rule, uint64_t cfa, uint64_t *ret_ip) {
	unsigned number = rule->ra == UNWIND_IN_REG ? (unsigned)(uint16_t)rule->ra_off : w->machine->lr;

	if (rule->ra == UNWIND_AT_CFA)
		return walk_read_word(w, cfa + (uint64_t)(int64_t)rule->ra_off, ret_ip) ? GO_ON : NATIVE_UNREADABLE;
	if (!native_regs_has(&w->regs, number))
		return NATIVE_NO_REG;
	*ret_ip = w->regs.value[number];
	return GO_ON;
}

static int step_by_rule(struct walk *w, const struct unwind_rule *rule) {
	struct native_regs kept = w->regs;
	uint64_t cfa, ip;
	int stop = find_cfa(w, rule, &cfa);

	if (stop == NATIVE_NO_REG && rule->base == UNWIND_BASE_FP && !w->on_trial && walk_recover_fp(w, rule)) {
		w->frame->recovered = true;
		kept = w->regs;
		stop = find_cfa(w, rule, &cfa);
	}

	if (stop == GO_ON)
		stop = find_return(w, rule, cfa, &ip);
	if (stop != GO_ON)
		return stop;
	restore(w, &kept, w->machine->fp, rule->fp, rule->fp_off, cfa);
	restore(w, &kept, w->machine->bx, rule->bx, rule->bx_off, cfa);
	return step_to(w, ip, cfa, &kept);
}

int walk_step(struct walk *w) {
	raddr ip = w->regs.value[w->machine->ip], at = ip - w->after_call;
	const struct unwind_rule *rule = walk_rule_at(w, at);

	if (!w->after_call && !walk_is_code(w, at))
		return step_from_nowhere(w);
	/* The instruction before a trampoline is another function's. */
	if (rule->cfa != UNWIND_CFA_SIGNAL && walk_rule_at(w, ip)->cfa == UNWIND_CFA_NONE && is_trampoline(w))
		return step_signal(w);
	switch (rule->cfa) {
	case UNWIND_CFA_NONE: return step_without_rule(w);
	case UNWIND_CFA_END: return NATIVE_COMPLETE;
	case UNWIND_CFA_SIGNAL: return step_signal(w);
	default: return step_by_rule(w, rule);
	}
}

static const struct walk_machine *find_machine(uint16_t number) {
#ifdef __aarch64__
	uint16_t want = number ? number : EM_AARCH64;
#else
	uint16_t want = number ? number : EM_X86_64;
#endif

	for (size_t i = 0; i < ARRAY_SIZE(machines); i++)
		if (machines[i].machine == want)
			return &machines[i];
	return NULL;
}

void native_unwind(const struct native_unwinder *unwinder, const struct native_regs *regs, struct native_trace *trace) {
	struct walk w = {
		.unwinder = unwinder,
		.machine = find_machine(unwinder->machine),
		.rules = native_cache_rules(unwinder->modules->cache),
		.regs = *regs,
	};
	int stop = GO_ON;

	trace->n = 0;
	if (!w.machine || !native_regs_has(regs, w.machine->ip) || !native_regs_has(regs, w.machine->sp))
		stop = NATIVE_NO_REG;
	while (stop == GO_ON && trace->n < NATIVE_FRAMES_MAX) {
		w.frame = &trace->frames[trace->n++];
		*w.frame = (struct native_frame){
			.ip = w.regs.value[w.machine->ip],
			.sp = w.regs.value[w.machine->sp],
			.after_call = w.after_call,
		};
		stop = walk_step(&w);
	}
	trace->stop = stop == GO_ON ? NATIVE_TRUNCATED : (enum native_stop)stop;
}
