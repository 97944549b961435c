/* SPDX-License-Identifier: MIT */
/* Code that no file describes, by what it does next.
 *
 * Where nothing but the end of a function follows, its instructions say exactly where the return address is:
 *
 *     48 83 c4 08   add $8, %rsp        the trampolines of CPython 3.12's -X perf, at the return address of
 *     c3            ret                 their only call
 *
 * Anything else than additions to the stack pointer, pops, leave and ret ends the attempt. x86-64 only. */
#include "engine/native/walk.h"

#include <elf.h>
#include <string.h>

#define CODE_BYTES 32

struct epilogue {
	const struct walk *walk;
	struct native_regs regs;
	uint8_t code[CODE_BYTES];
	size_t at;
};

static bool next_is(struct epilogue *e, const char *bytes, size_t n) {
	if (e->at + n > sizeof(e->code) || memcmp(e->code + e->at, bytes, n))
		return false;
	e->at += n;
	return true;
}

static bool pop(struct epilogue *e, unsigned number) {
	uint64_t sp = e->regs.value[NATIVE_X86_SP], value;

	if (!walk_read_word(e->walk, sp, &value))
		return false;
	native_regs_set(&e->regs, number, value);
	native_regs_set(&e->regs, NATIVE_X86_SP, sp + WORD);
	return true;
}

static bool add_to_sp(struct epilogue *e, size_t size) {
	int32_t n = 0;

	if (e->at + size > sizeof(e->code))
		return false;
	if (size == 1)
		n = e->code[e->at] < 0x80 ? e->code[e->at] : 0; /* negative: no end of a function */
	else
		memcpy(&n, e->code + e->at, sizeof(n));
	e->at += size;
	native_regs_set(&e->regs, NATIVE_X86_SP, e->regs.value[NATIVE_X86_SP] + (uint64_t)(int64_t)n);
	return n > 0;
}

static bool leave(struct epilogue *e) {
	if (!native_regs_has(&e->regs, NATIVE_X86_FP))
		return false;
	native_regs_set(&e->regs, NATIVE_X86_SP, e->regs.value[NATIVE_X86_FP]);
	return pop(e, NATIVE_X86_FP);
}

/* Return: DWARF's number of the register that is popped; -1: it is no pop. */
static int popped(struct epilogue *e) {
	static const uint8_t numbers[] = { 0, 2, 1, 3, 7, 6, 4, 5 }; /* as instructions number them */
	size_t wide = e->at < sizeof(e->code) && e->code[e->at] == 0x41;
	uint8_t op = e->at + wide < sizeof(e->code) ? e->code[e->at + wide] : 0;

	if (op < 0x58 || op > 0x5f || (op == 0x5c && !wide))
		return -1;
	e->at += wide + 1;
	return wide ? op - 0x58 + 8 : numbers[op - 0x58];
}

static bool run(struct epilogue *e) {
	while (!next_is(e, "\xc3", 1)) {
		int number = popped(e);
		bool done;

		if (number >= 0)
			done = pop(e, (unsigned)number);
		else if (next_is(e, "\x48\x83\xc4", 3))
			done = add_to_sp(e, 1);
		else if (next_is(e, "\x48\x81\xc4", 3))
			done = add_to_sp(e, 4);
		else
			done = next_is(e, "\xc9", 1) && leave(e);
		if (!done)
			return false;
	}
	return pop(e, NATIVE_X86_IP);
}

bool walk_run_epilogue(const struct walk *w, struct native_regs *ret_regs) {
	struct epilogue e = { .walk = w, .regs = w->regs };
	uint64_t ip;

	if (w->machine->machine != EM_X86_64 || !walk_read(w, w->regs.value[NATIVE_X86_IP], e.code, sizeof(e.code)) ||
		!run(&e) || e.regs.value[NATIVE_X86_SP] <= w->regs.value[NATIVE_X86_SP])
		return false;
	ip = e.regs.value[NATIVE_X86_IP];
	if (ip && !walk_is_code(w, ip - 1))
		return false;
	*ret_regs = e.regs;
	return true;
}
