/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BPF_SAMPLE_H
#define PYSPYD_BPF_SAMPLE_H

/* What the programs that walk Python stacks and engine/sample share: the maps' keys and values, and the events. Sizes
 * are fixed; all addresses are the target's. */

#include <linux/types.h>

#define PYB_FRAMES_MAX 1024
#define PYB_STEPS_MAX 2048   /* of a walk, with frames that are not Python's */
#define PYB_STEPS_AT_ONCE 32 /* … that are verified as one piece */
#define PYB_WINDOW 128       /* bytes of a frame from window_start on, in which all of its fields lie */
#define PYB_INTERPS_MAX 16   /* interpreters of one process in which threads are searched */
#define PYB_STATES_MAX 2     /* thread states of one thread: in the main interpreter and in another one */
#define PYB_SEARCH_MAX 256   /* thread states looked at, newest first, for a thread that user space does not know yet */
#define PYB_TEXT 32          /* bytes of a text that are looked at to tell it from another one */
#define PYB_NONE 0xffffffffU /* this version has no such member */

/* How a code object is told from another one at its address: a number that is never given twice (3.12 and later), or
 * what its name, its file and its lines are. */
enum pyb_check {
	PYB_CHECK_NONE,
	PYB_CHECK_VERSION,
	PYB_CHECK_FIELDS,
};

struct pyb_interp {
	__u64 addr;
	__u64 gil;            /* struct _gil_runtime_state; 0: thread states say who holds it, or nobody can */
	__u64 tstate_current; /* up to 3.11: the word that points at the state that holds the GIL; or 0 */
	__u64 collecting;     /* the collector's word; 0: not known */
};

/* One process: where its interpreter keeps what. Offsets in bytes, PYB_NONE where there is no such member. Those of a
 * frame count from window_start. Key: its pid as pyspyd sees it. */
struct pyb_process {
	__u32 interp_threads_head;
	__u32 tstate_next, tstate_interp, tstate_thread_id;
	__u32 tstate_frame, tstate_cframe, cframe_frame; /* from 3.11 to 3.12 by way of the latter two */
	__u32 tstate_holds_gil, holds_gil_mask;          /* four bytes, and the bits in them that say so */
	__u32 gil_locked, gil_last_holder;
	__u32 frame_window_start, frame_window_len;
	__u32 frame_previous, frame_code, frame_globals, frame_instr, frame_owner, frame_is_entry, frame_tlbc;
	/* What of the last four counts: 0 where there is no such member. The verifier follows every branch of every
	 * frame, so there are few. */
	__u64 instr_mask;
	__u32 owner_mask, is_entry_mask, tlbc_mask;
	__u32 always_entry; /* up to 3.10 each frame has its own call of the evaluation loop */
	__u32 code_version; /* PYB_CHECK_VERSION */
	__u32 code_name, code_filename, code_linetable, code_line; /* PYB_CHECK_FIELDS */
	__u32 str_hash, str_length, str_text;
	__u32 bytes_length, bytes_data;
	__u32 check; /* enum pyb_check */
	__u32 interps_n;
	struct pyb_interp interps[PYB_INTERPS_MAX]; /* the main one last: what runs in another one waits in it */
};

/* Whose thread states a thread has. Only user space writes them. */
struct pyb_thread_key {
	__u64 thread_pointer;
	__u32 pid;
	__u32 pad;
};

struct pyb_thread {
	__u64 states[PYB_STATES_MAX]; /* the interpreter that is younger first */
	__u32 interp[PYB_STATES_MAX]; /* index in pyb_process.interps */
};

enum pyb_frame_flag {
	PYB_FRAME_ENTRY = 1, /* the evaluation loop was entered with this frame: beyond it is C */
};

/* A thousand of them are to fit into what the kernel allows for each CPU. Addresses of programs have 48 bits, and code
 * objects are aligned, so: */
struct pyb_frame {
	__u64 code;    /* its address; enum pyb_frame_flag in the low bits; from bit 48 on which copy of the bytecode
			  (free-threaded 3.14+) */
	__u64 instr;   /* as in py_raw_frame, 48 bits; from there on the low 16 of the globals' address */
	__u32 check;   /* of the code object, enum pyb_check; 0: none */
	__u32 globals; /* the other 32 */
};

#define PYB_ADDRESS_MASK 0xffffffffffffULL
#define PYB_FRAME_FLAGS 7ULL

static inline __u64 pyb_frame_code(const struct pyb_frame *frame) {
	return frame->code & PYB_ADDRESS_MASK & ~PYB_FRAME_FLAGS;
}

static inline __u64 pyb_frame_instr(const struct pyb_frame *frame) {
	return frame->instr & PYB_ADDRESS_MASK;
}

static inline __u64 pyb_frame_globals(const struct pyb_frame *frame) {
	return frame->instr >> 48 | (__u64)frame->globals << 16;
}

static inline __u32 pyb_frame_tlbc(const struct pyb_frame *frame) {
	return (__u32)(frame->code >> 48);
}

enum pyb_kind {
	PYB_SAMPLE = 1, /* a thread on a CPU */
	PYB_ORIGIN = 2, /* a stack at which something was made, and that was not told yet */
	PYB_NATIVE = 3, /* its native stack: right before its sample, with the same cpu and time */
	PYB_ALLOC = 4,  /* a thread that allocates */
	PYB_STACK = 5, /* … and right before that, where that does not go to the thread's first function: what one can
			  be made from */
};

#define PYB_KERNEL_MAX 32
#define PYB_ADDRESSES_MAX 2048 /* a power of two */

/* What is or-ed to an address in native code. Programs have 56 bits. */
#define PYB_AFTER_CALL (1ULL << 63) /* it is where a callee returns to */
#define PYB_SIGNAL (1ULL << 62)     /* the trampoline of a signal */
#define PYB_BY_FP (1ULL << 61)      /* the next one was found by the frame pointer alone */
#define PYB_NATIVE_MASK (~0ULL >> 8)

/* Why a walk over a native stack ended. */
enum pyb_stop {
	PYB_STOP_NONE,     /* not yet */
	PYB_STOP_COMPLETE, /* at the thread's first function */
	PYB_STOP_UNTOLD,   /* user space has not said what code the process has, or what rules are where it stands */
	PYB_STOP_NO_CODE,  /* as enum native_stop has it */
	PYB_STOP_NO_TABLE,
	PYB_STOP_NO_REG,
	PYB_STOP_UNREADABLE,
	PYB_STOP_BAD_CFA,
	PYB_STOP_TRUNCATED,
};

/* As long as it has addresses. */
struct pyb_native {
	__u32 kind;
	__u32 cpu;
	__u64 time_ns;
	__u32 stop;     /* enum pyb_stop */
	__u32 stack;    /* whether there was a PYB_STACK */
	__u32 kernel_n; /* of the addresses, the first ones; … */
	__u32 frames_n; /* … and those behind them */
	__u32 telling;  /* of the list of mappings that was used */
	__u32 pad;
	__u64 addresses[PYB_ADDRESSES_MAX]; /* most recent call first */
};

#define PYB_PAGE 4096
#define PYB_STACK_PAGES 5

/* The registers that a thread will go on with in user space, and the top of its stack from the page of the stack
 * pointer on. */
struct pyb_stack {
	__u32 kind;
	__u32 cpu;
	__u64 time_ns;
	__u64 ip, sp, fp;
	__u64 other; /* x86: rbx; aarch64: the link register */
	__u64 stack_at;
	__u32 stack_len;
	__u32 pad;
	__u8 stack[PYB_STACK_PAGES * PYB_PAGE];
};

#define PYB_CODES_MAX 512         /* executable mappings of one process; a power of two */
#define PYB_TABLE_LATER (~0U)     /* user space has not looked for the file's table yet */
#define PYB_TABLE_NONE (~0U - 1U) /* there is none */

/* An executable mapping. Tables and rules are as engine/native/unwind_rows.h has them. */
struct pyb_code {
	__u64 start, end;
	__u64 base;  /* offset in the table = address - base, modulo 2^64 */
	__u32 table; /* its first word in the array of all tables' words */
	__u32 pages;
};

/* Those of a process, ascending; key: its pid. */
struct pyb_codes {
	__u32 n;
	__u32 telling; /* counts what user space has told, of all processes */
	struct pyb_code codes[PYB_CODES_MAX];
};

enum pyb_flag {
	PYB_KERNEL = 1 << 0, /* was in the kernel */
	PYB_GIL = 1 << 1,    /* held the GIL */
	PYB_GIL_KNOWN = 1 << 2,
	PYB_GC = 1 << 3,        /* its interpreter collected garbage */
	PYB_TRUNCATED = 1 << 4, /* more frames than PYB_FRAMES_MAX */
	PYB_SEARCHED = 1 << 5,  /* user space did not know this thread, or knew it wrongly */
	PYB_BROKEN = 1 << 6,    /* the last frame that could be read; the rest was not there or made no sense */
};

struct pyb_event {
	__u32 kind; /* enum pyb_kind */
	__u32 flags;
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 pid;     /* as pyspyd sees it */
	__u32 cpu;
	__u64 thread_pointer;
	__u64 tstate;
	union {
		__u64 leaf;   /* address of the innermost frame */
		__u64 weight; /* PYB_ALLOC: bytes that it stands for */
	};
	union {
		__u64 ip;   /* of the CPU, in user space; 0 in the kernel */
		__u64 size; /* PYB_ALLOC: of the allocation, in bytes */
	};
	__u64 name; /* PYB_ORIGIN: of this stack, made of pid and frames; never 0 */
	__u32 pad;
	__u32 frames_n; /* struct pyb_frame that follow, most recent call first */
};

/* Counted per CPU. */
enum pyb_count {
	PYB_TICKS,      /* times the program ran */
	PYB_TARGET,     /* … of which in a watched process */
	PYB_SAMPLES,    /* stacks that were handed over */
	PYB_NO_STATE,   /* no thread state: native code's own thread, or one that begins or ends */
	PYB_BAD_FRAME,  /* a frame that makes no sense */
	PYB_UNREADABLE, /* memory that was not there */
	PYB_DEEP,       /* truncated */
	PYB_RING_FULL,  /* user space was too slow */
	PYB_NESTED,     /* the scratch was in use */
	PYB_WHOLE,      /* native stacks that go to the thread's first function */
	PYB_COPIED,     /* others, with a copy of the stack's top */
	PYB_COUNTS,
};

#endif
