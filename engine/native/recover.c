/* SPDX-License-Identifier: MIT */
/* The frame pointer of a sleeping thread.
 *
 * The kernel shows a sleeping thread's stack pointer and program counter, not its frame pointer. In a function that
 * counts from the frame pointer, that one points at two words: the caller's frame pointer, and the return address. Such
 * a pair is looked for from the stack pointer upwards. It is taken where
 *
 *   - the return address is behind a call, whose target, as the instruction says it (call rel32, call *rel32(%rip),
 * both also through a PLT stub), is the start of the very function that we are in: between the two the file has code of
 * one function; and
 *   - from there the walk comes to the thread's first function, every step by a rule.
 *
 * What was left on the stack by calls that have returned fails the first test, unless the same function was called
 * before from a deeper place. Calls through a pointer and jumps into the function (tail calls) cannot be checked: then
 * nothing is recovered. A frame that went this way is marked.
 *
 * x86-64 only: on aarch64 the frame's record is not at a place that its rule tells. */
#include "engine/native/walk.h"

#include <elf.h>
#include <string.h>

#define WINDOW_BYTES (64U << 10)
#define TRIALS_MAX 64
#define FUNCTION_BYTES_MAX (1U << 20)
#define CALL_BYTES 6 /* looked at before a return address */

static const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa };

static uint64_t relative(const uint8_t *bytes, raddr after) {
	int32_t distance;

	memcpy(&distance, bytes, sizeof(distance));
	return after + (uint64_t)(int64_t)distance;
}

/* A stub of the PLT: [endbr64] [bnd] jmp *slot(%rip). Return: what is in the slot; 0: it is none. */
static raddr stub_target(const struct walk *w, raddr at) {
	uint8_t code[16];
	uint64_t target;
	size_t i = 0;

	if (!walk_read(w, at, code, sizeof(code)))
		return 0;
	if (!memcmp(code, endbr64, sizeof(endbr64)))
		i += sizeof(endbr64);
	i += code[i] == 0xf2;
	if (code[i] != 0xff || code[i + 1] != 0x25)
		return 0;
	return walk_read_word(w, relative(code + i + 2, at + i + 6), &target) ? target : 0;
}

/* What the call before a return address calls. Return: 0: it cannot be told. */
static raddr call_target(const struct walk *w, raddr after) {
	uint8_t code[CALL_BYTES];
	uint64_t target;

	if (!walk_read(w, after - sizeof(code), code, sizeof(code)))
		return 0;
	if (code[1] == 0xe8)
		return relative(code + 2, after);
	if (code[0] == 0xff && code[1] == 0x15 && walk_read_word(w, relative(code + 2, after), &target))
		return target;
	return 0;
}

static bool is_start(const struct unwind_rule *rule) {
	return rule->cfa == UNWIND_CFA_REG && rule->base == UNWIND_BASE_SP && rule->cfa_off == WORD &&
		rule->fp == UNWIND_SAME;
}

/* Whether `at` is code of the function that starts at `start`: nothing in between that belongs to no function. */
static bool same_function(const struct walk *w, raddr start, raddr at) {
	const struct native_module *module = native_modules_find(w->unwinder->modules, at);

	if (!module || !module->file || !module->file->table || start > at || at - start > FUNCTION_BYTES_MAX ||
		start < module->start || !is_start(walk_rule_at(w, start)))
		return false;
	return !unwind_table_has_gap(module->file->table, start - module->bias, at - module->bias);
}

static bool calls_us(const struct walk *w, raddr return_to, raddr at) {
	raddr target = call_target(w, return_to), behind;

	if (!target)
		return false;
	if (same_function(w, target, at))
		return true;
	behind = stub_target(w, target);
	return behind && same_function(w, behind, at);
}

/* Whether the walk comes to its end from here. */
static bool leads_home(const struct walk *w, uint64_t fp) {
	struct native_frame frame = { 0 };
	struct walk trial = *w;
	int stop = GO_ON;

	trial.on_trial = true;
	trial.frame = &frame;
	native_regs_set(&trial.regs, w->machine->fp, fp);
	for (size_t i = 0; i < NATIVE_FRAMES_MAX && stop == GO_ON; i++)
		stop = walk_step(&trial);
	return stop == NATIVE_COMPLETE && !frame.by_fp;
}

bool walk_recover_fp(struct walk *w, const struct unwind_rule *rule) {
	raddr sp = w->regs.value[w->machine->sp], ip = w->regs.value[w->machine->ip];
	unsigned trials = 0;

	if (w->machine->machine != EM_X86_64 || rule->cfa != UNWIND_CFA_REG || rule->cfa_off != 2 * WORD ||
		rule->fp != UNWIND_AT_CFA || rule->fp_off != -2 * WORD)
		return false;
	/* Where a function begins the stack pointer is 8 off a multiple of 16. */
	for (raddr at = (sp + 15) & ~(raddr)15; at < sp + WINDOW_BYTES && trials < TRIALS_MAX; at += 16) {
		uint64_t pair[2];

		if (!walk_read(w, at, pair, sizeof(pair)))
			return false;
		if (!walk_is_code(w, pair[1] - 1) || !calls_us(w, pair[1], ip - w->after_call))
			continue;
		trials++;
		if (!leads_home(w, at))
			continue;
		native_regs_set(&w->regs, w->machine->fp, at);
		return true;
	}
	return false;
}
