/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
#ifndef PYSPYD_BPF_UNWIND_H
#define PYSPYD_BPF_UNWIND_H

/* Walking a native stack by the rules of the files' tables: what engine/native/unwind.c does, for the case that needs
 * neither code's bytes nor a guess. The same code runs in the kernel and in unit tests: whoever includes it defines
 *
 *   PYB_READ(to, len, address)   reads the target's memory; 0, or negative where it is not there
 *   PYB_TABLE_WORD(index)        a word of the array of all tables; 0 beyond its end
 *   PYB_RULE(index)              a pointer to a rule, or NULL
 *   PYB_ARM64                    1: the target is aarch64; 0: x86-64
 *
 * A step may end the walk with a reason; user space goes on from a copy then. What it finds out on its way stands in
 * memory, of which the verifier knows nothing: so that one round of a loop looks like the other. */

#include "bpf/sample.h"
#include "engine/native/unwind_rows.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define PYB_CODE_NONE PYB_CODES_MAX /* no mapping */
#define PYB_CODE_STEPS 10           /* halvings of PYB_CODES_MAX */
#define PYB_SEEN_BITS 9
#define PYB_SEEN_MAX (1 << PYB_SEEN_BITS)
#define PYB_RULE_LATER (~0U)
#define PYB_WORD 8

enum pyb_known {
	PYB_KNOWN_FP = 1,
	PYB_KNOWN_OTHER = 2,
};

struct pyb_regs {
	__u64 ip, sp, fp;
	__u64 other; /* x86: rbx; aarch64: the link register */
};

/* What was found for an address. The same ones come again and again: outer frames in each sample, and recursion. */
struct pyb_seen {
	__u64 at;
	__u32 telling;
	__u16 rule;
	__u8 bare;
	__u8 pad;
	__u32 code;
	__u32 pad2;
};

struct pyb_unwind {
	struct pyb_regs regs, start;
	__u32 known; /* enum pyb_known, or-ed */
	__u32 after_call;
	__u32 code;      /* the index of the mapping that the instruction lies in, or PYB_CODE_NONE */
	__u32 low, high; /* of a search */
	__u32 rule;      /* of the frame; PYB_RULE_LATER: it is to be looked for */
	__u32 bare;      /* no rule holds at the very address to return to */
	struct pyb_native native;
	struct pyb_seen seen[PYB_SEEN_MAX];
};

/* Sets u->code. Most callers are in the mapping that the callee is in. */
static __always_inline int pyb_search_code(const struct pyb_codes *codes, struct pyb_unwind *u, __u64 at) {
	volatile __u32 *low = &u->low, *high = &u->high;
	const struct pyb_code *code = &codes->codes[u->code & (PYB_CODES_MAX - 1)];

	if (u->code < PYB_CODES_MAX && at >= code->start && at < code->end)
		return 1;
	*low = 0;
	*high = codes->n;
	for (int i = 0; i < PYB_CODE_STEPS; i++) {
		__u32 l = *low, h = *high, middle = (l + h) / 2;

		if (l >= h)
			break;
		if (codes->codes[middle & (PYB_CODES_MAX - 1)].end <= at)
			*low = middle + 1;
		else
			*high = middle;
	}
	u->code = *low;
	code = &codes->codes[u->code & (PYB_CODES_MAX - 1)];
	if (u->code < codes->n && u->code < PYB_CODES_MAX && at >= code->start && at < code->end)
		return 1;
	u->code = PYB_CODE_NONE;
	return 0;
}

static __always_inline struct pyb_seen *pyb_seen_of(struct pyb_unwind *u, __u64 at) {
	return &u->seen[at * 0x9e3779b97f4a7c15ULL >> (64 - PYB_SEEN_BITS)];
}

/* Sets u->code, and u->rule where that was seen before. Return: whether code is mapped there. */
static __always_inline int pyb_find_code(const struct pyb_codes *codes, struct pyb_unwind *u, __u64 at) {
	const struct pyb_seen *seen = pyb_seen_of(u, at);

	u->rule = PYB_RULE_LATER;
	if (seen->at != at || seen->telling != u->native.telling)
		return pyb_search_code(codes, u, at);
	u->code = seen->code;
	u->rule = seen->rule;
	u->bare = seen->bare;
	return 1;
}

/* Return: the rule's index, UNWIND_RULE_NONE where there is none. Sets u->bare. */
static __always_inline __u32 pyb_find_rule(const struct pyb_code *code, struct pyb_unwind *u, __u64 at) {
	volatile __u32 *low = &u->low, *high = &u->high;
	__u64 offset = at - code->base, page = offset >> UNWIND_PAGE_BITS;
	__u32 key = (__u32)(offset & 0xffff) << UNWIND_PAGE_BITS | 0xffff, next;

	u->bare = 1;
	if (page >= code->pages)
		return UNWIND_RULE_NONE;
	*low = PYB_TABLE_WORD(code->table + (__u32)page);
	*high = PYB_TABLE_WORD(code->table + (__u32)page + 1);
	for (int i = 0; i < UNWIND_SEARCH_STEPS; i++) {
		__u32 l = *low, h = *high, middle = (l + h) / 2;

		if (h <= l + 1)
			break;
		if (PYB_TABLE_WORD(code->table + middle) <= key)
			*low = middle;
		else
			*high = middle;
	}
	next = PYB_TABLE_WORD(code->table + *low + 1);
	key = PYB_TABLE_WORD(code->table + *low) & 0xffff;
	/* The row behind may begin at the next byte, which is where a call returns to. */
	u->bare = (next >> UNWIND_PAGE_BITS) == ((offset + 1) & 0xffff) ? !(next & 0xffff) : !key;
	return key;
}

static __always_inline void pyb_look_up(const struct pyb_codes *codes, struct pyb_unwind *u, __u64 at) {
	const struct pyb_code *code = &codes->codes[u->code & (PYB_CODES_MAX - 1)];
	struct pyb_seen *seen = pyb_seen_of(u, at);

	u->rule = UNWIND_RULE_NONE;
	u->bare = 1;
	if (code->table != PYB_TABLE_NONE)
		u->rule = pyb_find_rule(code, u, at);
	seen->at = at;
	seen->telling = u->native.telling;
	seen->rule = (__u16)u->rule;
	seen->bare = (__u8)u->bare;
	seen->code = u->code;
}

/* What a trampoline does: the system call rt_sigreturn. */
static __always_inline int pyb_is_trampoline(const struct pyb_unwind *u) {
	__u64 code = 0;

	if (PYB_READ(&code, sizeof(code), u->regs.ip))
		return 0;
#if PYB_ARM64
	return code == 0xd4000001d2801168ULL; /* mov x8, #139; svc #0 */
#else
	return code == 0x0f0000000fc0c748ULL; /* mov $15, %rax; syscall, but its last byte */
#endif
}

/* Leaves the frame for its caller: regs has its stack and frame pointer, and what is known of them. */
static __always_inline __u32 pyb_step_to(const struct pyb_codes *codes, struct pyb_unwind *u, __u64 ip) {
#if PYB_ARM64
	ip &= (1ULL << 48) - 1; /* above it: what pointer authentication put there */
	u->known &= ~(__u32)PYB_KNOWN_OTHER;
#endif
	u->regs.ip = ip;
	u->after_call = 1;
	if (!ip)
		return PYB_STOP_COMPLETE;
	return pyb_find_code(codes, u, ip - 1) ? PYB_STOP_NONE : PYB_STOP_NO_CODE;
}

#if PYB_ARM64
#define PYB_SIGNAL_FP UNWIND_ARM64_SIGNAL_FP
#define PYB_SIGNAL_OTHER UNWIND_ARM64_SIGNAL_LR
#define PYB_SIGNAL_SP UNWIND_ARM64_SIGNAL_SP
#define PYB_SIGNAL_IP UNWIND_ARM64_SIGNAL_IP
#else
#define PYB_SIGNAL_FP UNWIND_X86_SIGNAL_FP
#define PYB_SIGNAL_OTHER UNWIND_X86_SIGNAL_BX
#define PYB_SIGNAL_SP UNWIND_X86_SIGNAL_SP
#define PYB_SIGNAL_IP UNWIND_X86_SIGNAL_IP
#endif

static __always_inline __u32 pyb_step_signal(const struct pyb_codes *codes, struct pyb_unwind *u) {
	struct pyb_regs regs;
	__u64 sp = u->regs.sp;

	if (PYB_READ(&regs.fp, sizeof(regs.fp), sp + PYB_SIGNAL_FP) ||
		PYB_READ(&regs.other, sizeof(regs.other), sp + PYB_SIGNAL_OTHER) ||
		PYB_READ(&regs.sp, sizeof(regs.sp), sp + PYB_SIGNAL_SP) ||
		PYB_READ(&regs.ip, sizeof(regs.ip), sp + PYB_SIGNAL_IP))
		return PYB_STOP_UNREADABLE;
	u->regs = regs;
	u->known = PYB_KNOWN_FP | PYB_KNOWN_OTHER;
	u->after_call = 0;
	pyb_find_code(codes, u, regs.ip);
	return PYB_STOP_NONE;
}

/* The frame pointer shows the caller's frame pointer and the return address. */
static __always_inline __u32 pyb_step_by_fp(const struct pyb_codes *codes, struct pyb_unwind *u) {
	__u64 pair[2] = { 0 }, fp = u->regs.fp;
	__u32 stop;

	if (!(u->known & PYB_KNOWN_FP) || fp < u->regs.sp || fp % PYB_WORD || PYB_READ(pair, sizeof(pair), fp))
		return PYB_STOP_NO_TABLE;
	u->regs.fp = pair[0];
	u->regs.sp = fp + 2 * PYB_WORD;
	u->known = PYB_KNOWN_FP;
	stop = pyb_step_to(codes, u, pair[1]);
	return stop == PYB_STOP_NO_CODE ? PYB_STOP_NO_TABLE : stop;
}

/* A call through a bad pointer: nothing of the called "function" has run. */
static __always_inline __u32 pyb_step_from_nowhere(const struct pyb_codes *codes, struct pyb_unwind *u) {
	__u64 ip = u->regs.other;

#if PYB_ARM64
	if (!(u->known & PYB_KNOWN_OTHER))
		return PYB_STOP_NO_CODE;
#else
	if (PYB_READ(&ip, sizeof(ip), u->regs.sp))
		return PYB_STOP_UNREADABLE;
	if (!ip)
		return PYB_STOP_NO_CODE;
	u->regs.sp += PYB_WORD;
#endif
	return pyb_step_to(codes, u, ip);
}

/* Return: PYB_STOP_NONE and *ret_cfa. */
static __always_inline __u32 pyb_find_cfa(const struct pyb_unwind *u, const struct unwind_rule *rule, __u64 *ret_cfa) {
	__u64 cfa = u->regs.sp;

	if (rule->base == UNWIND_BASE_FP) {
		if (!(u->known & PYB_KNOWN_FP))
			return PYB_STOP_NO_REG;
		cfa = u->regs.fp;
	} else if (rule->base != UNWIND_BASE_SP) {
		if (PYB_ARM64 || rule->base != UNWIND_BASE_BX || !(u->known & PYB_KNOWN_OTHER))
			return PYB_STOP_NO_REG;
		cfa = u->regs.other;
	}
	cfa += (__u64)(long long)rule->cfa_off;
	if (rule->cfa == UNWIND_CFA_DEREF) {
		if (PYB_READ(&cfa, sizeof(cfa), cfa))
			return PYB_STOP_UNREADABLE;
		cfa += (__u64)(long long)rule->cfa_add;
	} else if (rule->cfa == UNWIND_CFA_PLT && (long long)(u->regs.ip & 15) >= rule->cfa_add) {
		cfa += PYB_WORD;
	}
	if (cfa % PYB_WORD || cfa < u->regs.sp || (cfa == u->regs.sp && u->after_call))
		return PYB_STOP_BAD_CFA;
	*ret_cfa = cfa;
	return PYB_STOP_NONE;
}

/* The caller's value of a register that may have been saved. Return: whether it is known; 0 at *ret_value otherwise. */
static __always_inline int pyb_restore(
	const struct pyb_unwind *u, __u32 how, long long offset, __u64 cfa, __u64 *ret_value) {
	__u64 at = cfa + (__u64)offset;

	if (how == UNWIND_AT_FP) {
		if (!(u->known & PYB_KNOWN_FP))
			return 0;
		at = u->regs.fp + (__u64)offset;
	} else if (how != UNWIND_AT_CFA) {
		return 0;
	}
	return !PYB_READ(ret_value, sizeof(*ret_value), at);
}

static __always_inline __u32 pyb_step_by_rule(
	const struct pyb_codes *codes, struct pyb_unwind *u, const struct unwind_rule *rule) {
	__u64 cfa = 0, ip = u->regs.other, fp = 0;
	__u32 known = u->known, stop = pyb_find_cfa(u, rule, &cfa);

	if (stop)
		return stop;
	if (rule->ra == UNWIND_AT_CFA) {
		if (PYB_READ(&ip, sizeof(ip), cfa + (__u64)(long long)rule->ra_off))
			return PYB_STOP_UNREADABLE;
	} else if (!PYB_ARM64 || rule->ra != UNWIND_SAME || !(known & PYB_KNOWN_OTHER)) {
		return PYB_STOP_NO_REG;
	}
#if !PYB_ARM64
	if (rule->bx != UNWIND_SAME) {
		__u64 other = 0;

		known &= ~(__u32)PYB_KNOWN_OTHER;
		known |= pyb_restore(u, rule->bx, rule->bx_off, cfa, &other) ? PYB_KNOWN_OTHER : 0;
		u->regs.other = other;
	}
#endif
	if (rule->fp != UNWIND_SAME) {
		known &= ~(__u32)PYB_KNOWN_FP;
		known |= pyb_restore(u, rule->fp, rule->fp_off, cfa, &fp) ? PYB_KNOWN_FP : 0;
		u->regs.fp = fp;
	}
	u->known = known;
	u->regs.sp = cfa;
	return pyb_step_to(codes, u, ip);
}

/* Leaves the frame for its caller. Return: PYB_STOP_NONE; why not. *flags: what is to be said of the frame. */
static __always_inline __u32 pyb_step(const struct pyb_codes *codes, struct pyb_unwind *u, __u64 *flags) {
	const struct pyb_code *code = &codes->codes[u->code & (PYB_CODES_MAX - 1)];
	const struct unwind_rule *rule;
	__u32 stop;

	if (u->code >= PYB_CODES_MAX)
		return pyb_step_from_nowhere(codes, u);
	if (u->rule == PYB_RULE_LATER && code->table == PYB_TABLE_LATER)
		return PYB_STOP_UNTOLD;
	if (u->rule == PYB_RULE_LATER)
		pyb_look_up(codes, u, u->regs.ip - u->after_call);
	rule = PYB_RULE(u->rule);
	if (!rule)
		return PYB_STOP_UNTOLD;
	/* The instruction before a trampoline is another function's. */
	if (rule->cfa == UNWIND_CFA_SIGNAL || ((u->after_call ? u->bare : !u->rule) && pyb_is_trampoline(u))) {
		stop = pyb_step_signal(codes, u);
		*flags |= stop ? 0 : PYB_SIGNAL;
		return stop;
	}
	if (rule->cfa == UNWIND_CFA_END)
		return PYB_STOP_COMPLETE;
	if (rule->cfa != UNWIND_CFA_NONE)
		return pyb_step_by_rule(codes, u, rule);
	stop = pyb_step_by_fp(codes, u);
	*flags |= stop == PYB_STOP_NO_TABLE ? 0 : PYB_BY_FP;
	return stop;
}

/* Takes one frame and goes to its caller. Return: whether it was the last one. */
static __always_inline int pyb_unwind_step(const struct pyb_codes *codes, struct pyb_unwind *u) {
	volatile __u32 *n = &u->native.frames_n;
	__u32 at = u->native.kernel_n + *n;
	__u64 flags = u->after_call ? PYB_AFTER_CALL : 0, ip = u->regs.ip & PYB_NATIVE_MASK;

	if (at >= PYB_ADDRESSES_MAX) {
		u->native.stop = PYB_STOP_TRUNCATED;
		return 1;
	}
	u->native.stop = pyb_step(codes, u, &flags);
	u->native.addresses[at & (PYB_ADDRESSES_MAX - 1)] = ip | flags;
	*n = *n + 1;
	return u->native.stop != PYB_STOP_NONE;
}

/* u->regs and the head of u->native are set; all of the registers are known. */
static __always_inline void pyb_unwind_begin(const struct pyb_codes *codes, struct pyb_unwind *u) {
	u->known = PYB_KNOWN_FP | PYB_KNOWN_OTHER;
	u->after_call = 0;
	u->code = PYB_CODE_NONE;
	u->native.frames_n = 0;
	u->native.stop = PYB_STOP_NONE;
	u->native.telling = codes->telling;
	pyb_find_code(codes, u, u->regs.ip);
}

#endif
