/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BPF_ORIGINS_H
#define PYSPYD_BPF_ORIGINS_H

#include "bpf/sample.h"

/* What origins.bpf.c and engine/sample share: which call made which descriptor, thread, child or mapping, and where. */

enum pyb_origin_what {
	PYB_FD, /* 0 */
	PYB_THREAD,
	PYB_CHILD,
	PYB_MAPPING,
};

/* The call that made it. */
enum pyb_origin_call {
	PYB_CALL_NONE,
	PYB_CALL_OPEN,
	PYB_CALL_SOCKET,
	PYB_CALL_ACCEPT,
	PYB_CALL_DUP,
	PYB_CALL_FCNTL, /* F_DUPFD, F_DUPFD_CLOEXEC; those up to here return one descriptor, and are frequent */
	PYB_CALL_PIPE,
	PYB_CALL_SOCKETPAIR,
	PYB_CALL_RECVMSG, /* SCM_RIGHTS */
	PYB_CALL_EVENTFD,
	PYB_CALL_EPOLL,
	PYB_CALL_TIMERFD,
	PYB_CALL_SIGNALFD,
	PYB_CALL_INOTIFY,
	PYB_CALL_MEMFD,
	PYB_CALL_PIDFD,
	PYB_CALL_PERF,
	PYB_CALL_IO_URING,
	PYB_CALL_OTHER_FD,
	PYB_CALL_MMAP,
	PYB_CALL_MREMAP,
	PYB_CALL_THREAD,
	PYB_CALL_CHILD,
	/* These make nothing. */
	PYB_CALL_CLOSE,
	PYB_CALL_CLOSE_RANGE,
	PYB_CALL_MUNMAP,
	PYB_CALL_WAIT,
};

struct pyb_origin_key {
	__u64 id;   /* descriptor; thread id or pid as pyspyd sees it; address */
	__u32 pid;  /* as pyspyd sees it */
	__u32 what; /* enum pyb_origin_what */
};

struct pyb_origin {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 stack;   /* as in the event that told of it; 0: made by nothing of Python */
	__u64 bytes;   /* of a mapping */
	__u64 inode;   /* of a descriptor's file; 0: not known */
	__u32 tid;     /* who made it, as pyspyd sees it */
	__u16 call;    /* enum pyb_origin_call */
	__u16 pad;
};

#define PYB_WATCHED_MAX 1024 /* processes */
#define PYB_WATCHED_FDS 4096
#define PYB_SLOTS 4 /* of processes whose pids are alike modulo PYB_BUCKETS */
#define PYB_BUCKETS 1024

/* Whether a process is watched is asked at every system call of the host, so it has to be told fast: a pid's slot is
 * one of those of its bucket. User space writes them. */
struct pyb_slot {
	__u32 pid;   /* as pyspyd sees it; 0: free */
	__u32 index; /* of pyb_watched and pyb_watched_cpu */
};

/* What is counted for a watched process, on each CPU. */
struct pyb_watched_cpu {
	__u64 calls;    /* system calls; of interest alone where pyspyd is in a PID namespace */
	__u64 looked;   /* … that might make or close something */
	__u64 left_out; /* things that were made when there was no time left */
};

/* A process that is watched. User space writes it once, as zeroes. */
struct pyb_watched {
	__u64 window_ns; /* when the present window began, … */
	__u64 delay_ns;  /* … how long its first thread had waited for a CPU by then, … */
	__u64 spent_ns;  /* … and what was spent on stacks in it */
	__u64 all_ns;    /* … and in all of them */
	__u64 jiffies;   /* when the clock was looked at last */
	__u64 gone;      /* it executes another program */
	/* The last calls that closed many descriptors: what is in the range and older is gone. */
	__u64 closed_ns;
	__u32 closed_from, closed_to;
	__u32 tid, pad; /* of the window, as the kernel has it */
	/* Not 0: there may be a record of this descriptor. So those that are opened and closed while there is no time
	 * left cost no look into a map. */
	__u8 known[PYB_WATCHED_FDS];
};

/* Of the counts, those behind enum pyb_count. */
enum pyb_origin_count {
	PYB_CALLS = PYB_COUNTS, /* system calls of the whole host */
	PYB_MADE,               /* things that were made in watched processes, and written down */
	PYB_SEARCHES,           /* … in threads that user space had not told of */
	PYB_ORIGIN_COUNTS,
};

#endif
