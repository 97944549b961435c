/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BPF_OFFCPU_H
#define PYSPYD_BPF_OFFCPU_H

#include "bpf/sample.h"

/* What offcpu.bpf.c and engine/sample share: how long threads were off their CPU, and where. */

#define PYB_KERNEL_FRAMES_MAX 64

/* Kinds of events beside enum pyb_kind. A stack comes once, as a struct pyb_event, before the first sleep with it. */
#define PYB_OFF 16
#define PYB_OFF_STACK 17

enum pyb_off_flag {
	PYB_OFF_BEGUN = 1 << 0,   /* it slept when it began to be watched: where is not known here */
	PYB_OFF_ONGOING = 1 << 1, /* it slept on when the recording ended */
	PYB_OFF_SHORT = 1 << 2,   /* a sum of sleeps shorter than the threshold; the stack is the last one's */
	PYB_OFF_OVER = 1 << 3,    /* it runs, or has ended: there is no stack of the kernel any more */
};

/* One sleep, or several short ones. */
struct pyb_off {
	__u32 kind; /* PYB_OFF */
	__u32 flags;
	__u64 ns;
	__u64 stack;  /* as named in its struct pyb_event; 0: not known */
	__u64 tstate; /* 0: not known */
	__u64 thread_pointer;
	__u64 arg;  /* the system call's first one */
	__s64 call; /* its number; -1: in none; -2: not known */
	__u32 pid;  /* as pyspyd sees it */
	__u32 sleeps;
	__u32 state; /* as the kernel had it: 1 interruptible, 2 not */
	__u32 kernel_n;
	__u64 kernel[PYB_KERNEL_FRAMES_MAX]; /* addresses, innermost first */
};

/* Counted per CPU, beside enum pyb_count. */
enum pyb_off_count {
	PYB_OFF_SLEEPS = PYB_COUNTS, /* that threads with a Python stack began */
	PYB_OFF_LOST,                /* sleeps for which the ring had no room */
	PYB_OFF_LOST_NS,
	PYB_OFF_NO_ROOM, /* … or no memory to write them down */
	PYB_OFF_COUNTS,
};

#endif
