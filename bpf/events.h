/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BPF_EVENTS_H
#define PYSPYD_BPF_EVENTS_H

/* What the program that tells of processes and engine/sample share. */

#include <linux/types.h>

#define PYE_NAME_MAX 16

enum pye_kind {
	PYE_FORK = 1, /* a watched process made another one */
	PYE_EXEC,     /* any process executes a program */
	PYE_EXIT,     /* the last thread of a watched process has ended */
};

/* Of a signal that a watched process died of. */
enum pye_flag {
	PYE_SENT = 1 << 0,    /* its sending was seen: `sender` and what follows are known */
	PYE_KERNEL = 1 << 1,  /* … by the kernel itself, not on behalf of the sender */
	PYE_THREAD = 1 << 2,  /* … for `thread` alone */
	PYE_ADDRESS = 1 << 3, /* … for what it did at `address` */
};

/* Pids as pyspyd's own PID namespace has them; 0: none there. */
struct pye_event {
	__u32 kind; /* enum pye_kind */
	__u32 pid;  /* of a fork: the new one */
	__u32 parent;
	__u32 status;   /* of an exit, as wait() would give it */
	__u64 time_ns;  /* CLOCK_MONOTONIC */
	__u64 start_ns; /* when the process started, CLOCK_BOOTTIME: tells it from another one with its pid */
	__u32 flags;    /* enum pye_flag */
	__u32 sender;
	__u32 thread;
	__u32 pad;
	__u64 address;
	char sender_name[PYE_NAME_MAX];
};

enum pye_count {
	PYE_TOLD,      /* events that were handed over */
	PYE_LIMITED,   /* beyond the limit of a second */
	PYE_RING_FULL, /* user space was too slow */
	PYE_COUNTS,
};

#endif
