/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BPF_ALLOC_H
#define PYSPYD_BPF_ALLOC_H

/* What the program that samples allocations and engine/sample share, besides bpf/sample.h. */

#include <linux/types.h>

#define PYB_ALLOC_GAPS 1024 /* distances between two points of the sampling, drawn at random */
#define PYB_ALLOC_POINTS 64 /* of one allocation, at most */
#define PYB_ALLOC_LARGE 8   /* times the mean distance: allocations from there on are all taken, as what they are */

/* A probe's cookie says how the size is had from the registers, where it stands: (register a + disp, or the word there)
 * times register b. Registers are numbered by their place in struct pt_regs, in words.
 *
 *   bits  0-7  a, 8-15 b, PYB_ALLOC_NO_REG: none
 *   bits 16-23 enum pyb_alloc_flag
 *   bits 24-31 words from the stack pointer up to the return address
 *   bits 32-63 disp, signed */
#define PYB_ALLOC_NO_REG 0xff

enum pyb_alloc_flag {
	PYB_ALLOC_LOAD = 1,  /* a + disp is where the size is */
	PYB_ALLOC_OUTER = 2, /* an allocator that may call another one of those that are probed */
	PYB_ALLOC_INNER = 4, /* one that is called so: what has been counted is not counted again */
	PYB_ALLOC_SITE = 8,  /* not at a function's entry: there is no return address */
};

/* One for each CPU. */
struct pyb_alloc_cpu {
	__s64 left;    /* bytes until the next point */
	__u64 random;  /* state of the generator; 0: not begun */
	__u64 busy;    /* programs that use the scratch */
	__u64 hits;    /* of the target */
	__u64 others;  /* … of other processes that run the same file */
	__u64 inner;   /* calls from one allocator to another */
	__u64 bytes;   /* that were asked for */
	__u64 walk_ns; /* spent with stacks */
	/* The last call of an outer one. */
	__u64 outer_task, outer_sp, outer_word, outer_size, outer_site, outer_ip;
};

#endif
