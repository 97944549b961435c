/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_NATIVE_UNWIND_ROWS_H
#define PYSPYD_NATIVE_UNWIND_ROWS_H

/* How unwind tables lie in memory: plain words, the same in this process, in a test and in an eBPF map. Needs no other
 * header, so that programs in bpf/ can include it.
 *
 * A table is an array of 32-bit words for the code of one file. `offset` is an address as the file has it, less the
 * table's own first address (struct unwind_table). Pages are of 64 KiB:
 *
 *     words[0 .. pages]       index, into words, of the first row of page 0, 1, …; the last one is the end of all rows
 *     words[pages + 1 ..]     rows, ascending within a page: (offset & 0xffff) << 16 | rule
 *
 * Each page has at least one row, and its first row is at the page's first byte. A row holds until the next one. So a
 * look-up is
 *
 *     key = (offset & 0xffff) << 16 | 0xffff, low = words[offset >> 16], high = words[(offset >> 16) + 1]
 *     while (high - low > 1)  { middle = (low + high) / 2; words[middle] <= key ? low = middle : high = middle; }
 *     rule = words[low] & 0xffff
 *
 * which halves at most UNWIND_SEARCH_STEPS times. `rule` is an index into the one array of rules that all tables
 * share. */

typedef __UINT8_TYPE__ unwind_u8;
typedef __UINT16_TYPE__ unwind_u16;
typedef __UINT32_TYPE__ unwind_u32;
typedef __INT16_TYPE__ unwind_s16;
typedef __INT32_TYPE__ unwind_s32;

#define UNWIND_PAGE_BITS 16
#define UNWIND_RULES_MAX 65536
#define UNWIND_SEARCH_STEPS 16

/* How the CFA, the value of the stack pointer in the caller, is found. */
enum unwind_cfa {
	UNWIND_CFA_NONE = 0,   /* the file says nothing about this code, or what a rule cannot express */
	UNWIND_CFA_END = 1,    /* the outermost frame: nobody called this */
	UNWIND_CFA_REG = 2,    /* base + cfa_off */
	UNWIND_CFA_DEREF = 3,  /* *(base + cfa_off) + cfa_add */
	UNWIND_CFA_PLT = 4,    /* base + cfa_off, and 8 more where (ip & 15) >= cfa_add */
	UNWIND_CFA_SIGNAL = 5, /* a signal's trampoline: the registers lie at the stack pointer, UNWIND_X86_SIGNAL_… */
};

/* The register that it counts from. */
enum unwind_base {
	UNWIND_BASE_SP = 0,
	UNWIND_BASE_FP = 1,    /* rbp, x29 */
	UNWIND_BASE_BX = 2,    /* rbx; x86-64 only */
	UNWIND_BASE_OTHER = 3, /* base_reg, DWARF's number: only known in the frame that was interrupted */
};

/* Where the caller's value of a register is. */
enum unwind_saved {
	UNWIND_SAME = 0,    /* still in the register (the return address: in the link register, aarch64) */
	UNWIND_AT_CFA = 1,  /* at CFA + off */
	UNWIND_AT_FP = 2,   /* at this frame's frame pointer + off */
	UNWIND_UNKNOWN = 3, /* lost */
	UNWIND_IN_REG = 4,  /* in the register with DWARF's number off: only known in the frame that was interrupted */
};

struct unwind_rule {
	unwind_u8 cfa;      /* enum unwind_cfa; with NONE, END and SIGNAL all that follows is 0 */
	unwind_u8 base;     /* enum unwind_base */
	unwind_u8 base_reg; /* 0 but with UNWIND_BASE_OTHER */
	unwind_u8 ra;       /* enum unwind_saved: SAME, AT_CFA, or (vfork of glibc) IN_REG */
	unwind_u8 fp;       /* enum unwind_saved */
	unwind_u8 bx;       /* enum unwind_saved; SAME on aarch64 */
	unwind_s16 ra_off;
	unwind_s32 cfa_off;
	unwind_s32 fp_off;
	unwind_s32 bx_off;
	unwind_s16 cfa_add;
	unwind_u16 zero;
};

_Static_assert(sizeof(struct unwind_rule) == 24, "shared with eBPF");

/* The rule that is UNWIND_CFA_NONE. */
#define UNWIND_RULE_NONE 0

/* Where a trampoline finds the registers of the interrupted frame, in bytes from its stack pointer: Linux 6.1
 * arch/x86/include/uapi/asm/sigcontext.h behind the head of struct ucontext; arch/arm64/kernel/signal.c, struct
 * rt_sigframe. */
#define UNWIND_X86_SIGNAL_FP 120
#define UNWIND_X86_SIGNAL_BX 128
#define UNWIND_X86_SIGNAL_SP 160
#define UNWIND_X86_SIGNAL_IP 168
#define UNWIND_ARM64_SIGNAL_FP 544
#define UNWIND_ARM64_SIGNAL_LR 552
#define UNWIND_ARM64_SIGNAL_SP 560
#define UNWIND_ARM64_SIGNAL_IP 568

#endif
