/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_WALK_H
#define PYSPYD_NATIVE_WALK_H

#include "engine/native/unwind.h"

/* Inside unwind.c and recover.c: a walk over a stack, frame by frame. */

#define WORD 8
#define SIGNAL_WORDS_MAX 33

struct walk_machine {
	uint16_t machine;
	uint8_t ip, sp, fp, bx, lr; /* DWARF's numbers; NATIVE_REGS: there is none */
	uint64_t ip_mask;
	uint32_t signal_at;    /* of the registers, from the trampoline's stack pointer */
	uint32_t signal_words; /* of 8 bytes */
	uint8_t signal_order[SIGNAL_WORDS_MAX];
	uint8_t trampoline[16]; /* what it does: the system call rt_sigreturn */
	uint32_t trampoline_len;
};

struct walk {
	const struct native_unwinder *unwinder;
	const struct walk_machine *machine;
	const struct unwind_rules *rules;
	struct native_regs regs;
	bool after_call;
	bool on_trial;              /* a candidate is being looked at */
	struct native_frame *frame; /* the one that is being left */
};

#define GO_ON (-1) /* beside enum native_stop */

bool walk_read(const struct walk *w, raddr at, void *buf, size_t len);
bool walk_read_word(const struct walk *w, raddr at, uint64_t *ret);

/* Whether code is mapped there. */
bool walk_is_code(const struct walk *w, raddr at);

/* The rule of an address; UNWIND_CFA_NONE where there is none. */
const struct unwind_rule *walk_rule_at(const struct walk *w, raddr at);

/* Leaves the frame for its caller. Return: GO_ON; enum native_stop. */
int walk_step(struct walk *w);

/* Looks for the frame pointer of the frame, which `rule` counts its CFA from, on the stack. Return: whether it is in
 * w->regs. */
bool walk_recover_fp(struct walk *w, const struct unwind_rule *rule);

/* Runs the rest of a function that is at its end. Return: whether it is; *ret_regs: as its caller has them. */
bool walk_run_epilogue(const struct walk *w, struct native_regs *ret_regs);

#endif
