/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
#ifndef PYSPYD_BPF_WALK_H
#define PYSPYD_BPF_WALK_H

/* Walking a Python stack, one frame after the other, in one bounded loop. The same code runs in the kernel and in unit
 * tests: whoever includes it defines
 *
 *   PYB_READ(to, len, address)   reads the target's memory; 0, or negative where it is not there
 *
 * Everything read is the target's and may be anything: no offset leaves the window, no loop is without end. */

#include "bpf/sample.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define PYB_NOWHERE (~0ULL << 12) /* no address of a target */

struct pyb_found {
	__u64 tstate;  /* 0: none */
	__u64 frame;   /* its innermost one; 0: it executes nothing */
	__u32 interp;  /* index in pyb_process.interps */
	__u32 interps; /* of a search: where it is */
	__u64 next;
};

/* A walk on its way. */
struct pyb_walk {
	__u64 frame; /* the next one; 0: there is none */
	__u64 code;  /* of the frame before, and its check */
	__u32 check;
	__u32 cause; /* enum pyb_count, of what is broken */
	__u32 flags;
};

/* Too large for a program's stack: one for each CPU and each kind of program, since one kind may interrupt another. */
struct pyb_scratch {
	__u8 window[PYB_WINDOW] __attribute__((aligned(8)));
	struct pyb_found found;
	struct pyb_walk walk;
	struct pyb_event event;
	struct pyb_frame frames[PYB_FRAMES_MAX]; /* the event's */
};

static __always_inline __u64 pyb_word(const struct pyb_scratch *s, __u32 offset) {
	return *(const __u64 *)(s->window + (offset & (PYB_WINDOW - 8)));
}

static __always_inline __u32 pyb_half(const struct pyb_scratch *s, __u32 offset) {
	return *(const __u32 *)(s->window + (offset & (PYB_WINDOW - 4)));
}

static __always_inline __u8 pyb_byte(const struct pyb_scratch *s, __u32 offset) {
	return s->window[offset & (PYB_WINDOW - 1)];
}

/* What is different in another code object, in few words. */
static __always_inline __u64 pyb_mix(__u64 a, __u64 b) {
	a = (a ^ b) * 0x9e3779b97f4a7c15ULL;
	return a ^ a >> 29;
}

/* The end of a str or bytes object, which tells more than the beginning. Of a str that is not ASCII less of it. */
static __always_inline __u64 pyb_text(__u64 object, __u32 len_offset, __u32 data_offset) {
	__u64 words[PYB_TEXT / 8] = { 0 }, len = 0, n;

	PYB_READ(&len, sizeof(len), object + len_offset);
	n = len < sizeof(words) ? len : sizeof(words);
	PYB_READ(words, (__u32)n, object + data_offset + len - n);
	for (int i = 0; i < PYB_TEXT / 8; i++)
		len = pyb_mix(len, words[i]);
	return len;
}

/* Of versions whose code objects have no number. What is freed is made again at the same addresses, often all of it, so
 * what is told apart are contents: name, file, lines. */
static __always_inline __u32 pyb_fields_check(const struct pyb_process *p, __u64 code) {
	__u64 name = 0, file = 0, table = 0, hash = 0;
	__u32 line = 0;

	PYB_READ(&name, sizeof(name), code + p->code_name);
	PYB_READ(&file, sizeof(file), code + p->code_filename);
	PYB_READ(&table, sizeof(table), code + p->code_linetable);
	PYB_READ(&line, sizeof(line), code + p->code_line);
	PYB_READ(&hash, sizeof(hash), name + p->str_hash);
	hash = pyb_mix(pyb_mix(hash, line), pyb_text(name, p->str_length, p->str_text));
	hash = pyb_mix(hash, pyb_text(file, p->str_length, p->str_text));
	hash = pyb_mix(hash, pyb_text(table, p->bytes_length, p->bytes_data));
	return (__u32)hash | 1;
}

/* What cannot be read counts as 0. */
static __always_inline __u32 pyb_code_check(const struct pyb_process *p, __u64 code) {
	__u32 version = 0;

	if (p->check != PYB_CHECK_VERSION)
		return pyb_fields_check(p, code);
	PYB_READ(&version, sizeof(version), code + p->code_version);
	return version;
}

/* Whether it is a thread state of this interpreter and of the thread with this pointer. */
static __always_inline int pyb_is_state(const struct pyb_process *p, __u64 tstate, __u64 interp, __u64 thread_pointer) {
	__u64 word = 0;

	if (!tstate || PYB_READ(&word, sizeof(word), tstate + p->tstate_thread_id) || word != thread_pointer)
		return 0;
	return !PYB_READ(&word, sizeof(word), tstate + p->tstate_interp) && word == interp;
}

/* The innermost frame of a thread state; 0: none; PYB_NOWHERE: which one it is cannot be read. */
static __always_inline __u64 pyb_first_frame(const struct pyb_process *p, __u64 tstate) {
	__u64 frame = 0, cframe = 0;

	if (p->tstate_frame != PYB_NONE)
		return PYB_READ(&frame, sizeof(frame), tstate + p->tstate_frame) ? PYB_NOWHERE : frame;
	if (PYB_READ(&cframe, sizeof(cframe), tstate + p->tstate_cframe))
		return PYB_NOWHERE;
	return cframe && PYB_READ(&frame, sizeof(frame), cframe + p->cframe_frame) ? PYB_NOWHERE : frame;
}

/* The first of a thread's states that executes something; else the last one. Return: 0: what user space said of the
 * thread does not hold. */
static __always_inline int pyb_find_known(
	const struct pyb_process *p, const struct pyb_thread *thread, __u64 thread_pointer, struct pyb_found *found) {
	for (int i = 0; i < PYB_STATES_MAX; i++) {
		__u32 interp = thread->interp[i];
		__u64 tstate = thread->states[i];

		if (!tstate)
			continue;
		if (interp >= PYB_INTERPS_MAX || !pyb_is_state(p, tstate, p->interps[interp].addr, thread_pointer))
			return 0;
		found->tstate = tstate;
		found->interp = interp;
		found->frame = pyb_first_frame(p, tstate);
		if (found->frame)
			break;
	}
	return found->tstate != 0;
}

/* One step of the same by looking at all thread states, newest first. Where it is stands in memory, of which the
 * verifier knows nothing: one step then looks like the other. Return: whether it was the last one. */
static __always_inline int pyb_search_step(const struct pyb_process *p, __u64 thread_pointer, struct pyb_found *found) {
	volatile __u64 *tstate = &found->next;
	volatile __u32 *interps = &found->interps; /* begun */
	__u64 here = *tstate, next = 0;
	__u32 interp;

	if (!here) {
		interp = *interps;
		if (interp >= p->interps_n || interp >= PYB_INTERPS_MAX)
			return 1;
		PYB_READ(&next, sizeof(next), p->interps[interp].addr + p->interp_threads_head);
		*interps = interp + 1;
		*tstate = next;
		return 0;
	}
	interp = (*interps - 1) & (PYB_INTERPS_MAX - 1);
	if (pyb_is_state(p, here, p->interps[interp].addr, thread_pointer)) {
		found->tstate = here;
		found->interp = interp;
		found->frame = pyb_first_frame(p, here);
		if (found->frame)
			return 1;
	}
	PYB_READ(&next, sizeof(next), here + p->tstate_next);
	*tstate = next;
	return 0;
}

/* Return: 0: the thread has none, or too many are before it. */
static __always_inline int pyb_search(const struct pyb_process *p, __u64 thread_pointer, struct pyb_found *found) {
	for (int i = 0; i < PYB_SEARCH_MAX; i++)
		if (pyb_search_step(p, thread_pointer, found))
			break;
	return found->tstate != 0;
}

static __always_inline __u32 pyb_state_flags(
	const struct pyb_process *p, const struct pyb_interp *interp, __u64 tstate) {
	__u64 holder = 0;
	__u32 word = 0, flags = 0;

	if (p->tstate_holds_gil != PYB_NONE) {
		if (!PYB_READ(&word, sizeof(word), tstate + p->tstate_holds_gil))
			flags |= PYB_GIL_KNOWN | (word & p->holds_gil_mask ? PYB_GIL : 0);
	} else if (interp->gil) {
		if (!PYB_READ(&word, sizeof(word), interp->gil + p->gil_locked) &&
			!PYB_READ(&holder, sizeof(holder), interp->gil + p->gil_last_holder))
			flags |= PYB_GIL_KNOWN | (word == 1 && holder == tstate ? PYB_GIL : 0);
	} else if (interp->tstate_current) {
		if (!PYB_READ(&holder, sizeof(holder), interp->tstate_current))
			flags |= PYB_GIL_KNOWN | (holder == tstate ? PYB_GIL : 0);
	}
	word = 0;
	if (interp->collecting && !PYB_READ(&word, sizeof(word), interp->collecting) && word &&
		(flags & PYB_GIL || !(flags & PYB_GIL_KNOWN)))
		flags |= PYB_GC;
	return flags;
}

/* Takes apart the frame in the window. */
static __always_inline void pyb_take(const struct pyb_process *p, const struct pyb_scratch *s, struct pyb_frame *out) {
	__u64 globals = pyb_word(s, p->frame_globals) & ~3ULL;

	out->code = (pyb_word(s, p->frame_code) & PYB_ADDRESS_MASK & ~PYB_FRAME_FLAGS) |
		(__u64)(pyb_half(s, p->frame_tlbc) & p->tlbc_mask) << 48 |
		(pyb_byte(s, p->frame_is_entry) & p->is_entry_mask) | p->always_entry;
	out->instr = (pyb_word(s, p->frame_instr) & p->instr_mask & PYB_ADDRESS_MASK) | globals << 48;
	out->globals = (__u32)(globals >> 16);
}

/* Frames of the C stack, of the interpreter and of the thread state (3.12 and later: owners 3 and 4) are not Python's.
 * Return: 0 a Python frame; 1 a hidden one; more: neither. */
static __always_inline __u32 pyb_hidden(const struct pyb_process *p, const struct pyb_scratch *s) {
	__u32 owner = pyb_byte(s, p->frame_owner) & p->owner_mask;

	return (owner + 1) >> 2 | (owner + 3) >> 3 << 1;
}

/* Takes one frame into s->frames. The verifier follows each branch of each step where it cannot tell that they are
 * alike: so the count is in memory, and conditions are sums. Return: whether it was the last step. */
static __always_inline int pyb_walk_step(const struct pyb_process *p, struct pyb_scratch *s) {
	struct pyb_walk *w = &s->walk;
	volatile __u32 *n = &s->event.frames_n;
	struct pyb_frame *out = &s->frames[*n & (PYB_FRAMES_MAX - 1)];
	__u32 len = p->frame_window_len, hidden;
	__u64 unreadable, code;

	if (!w->frame || len > PYB_WINDOW)
		return 1;
	unreadable = (__u64)PYB_READ(s->window, len, w->frame + p->frame_window_start);
	hidden = pyb_hidden(p, s);
	if (!hidden && *n >= PYB_FRAMES_MAX)
		return 1;
	if (hidden == 1) {
		s->frames[(*n - 1) & (PYB_FRAMES_MAX - 1)].code |= PYB_FRAME_ENTRY;
		w->frame = pyb_word(s, p->frame_previous);
		return 0;
	}
	pyb_take(p, s, out);
	code = pyb_word(s, p->frame_code) & ~3ULL;
	if (unreadable | hidden | (code & ~PYB_ADDRESS_MASK) | (code & PYB_FRAME_FLAGS)) {
		w->cause = unreadable ? PYB_UNREADABLE : PYB_BAD_FRAME;
		w->flags = PYB_BROKEN;
		return 1;
	}
	w->frame = pyb_word(s, p->frame_previous);
	if (!code) { /* 3.14 and later: it has just returned; its caller is the innermost frame */
		if (!*n)
			return 0;
		w->cause = PYB_BAD_FRAME;
		w->flags = PYB_BROKEN;
		return 1;
	}
	if (code != w->code) { /* recursion has many of the same */
		w->code = code;
		w->check = pyb_code_check(p, code);
	}
	out->check = w->check;
	*n = *n + 1;
	return 0;
}

static __always_inline void pyb_walk_begin(struct pyb_scratch *s, __u64 frame) {
	s->walk = (struct pyb_walk){ .frame = frame };
	s->event.frames_n = 0;
}

/* A chain that ends before the frame with which the evaluation loop was entered was cut: a generator's frame that has
 * just let go of its caller. Return: 0; PYB_TRUNCATED; PYB_BROKEN with s->walk.cause PYB_UNREADABLE or PYB_BAD_FRAME.
 */
static __always_inline __u32 pyb_walk_end(struct pyb_scratch *s) {
	__u32 n = s->event.frames_n;

	if (s->walk.flags)
		return s->walk.flags;
	if (s->walk.frame)
		return PYB_TRUNCATED;
	if (!n || s->frames[(n - 1) & (PYB_FRAMES_MAX - 1)].code & PYB_FRAME_ENTRY)
		return 0;
	s->walk.cause = PYB_BAD_FRAME;
	return PYB_BROKEN;
}

/* Fills s->frames, innermost first, from a first frame on; s->event.frames_n is how many there are, also of a walk that
 * failed. */
static __always_inline __u32 pyb_walk(const struct pyb_process *p, __u64 frame, struct pyb_scratch *s) {
	pyb_walk_begin(s, frame);
	for (__u32 steps = 0; steps < PYB_STEPS_MAX; steps++)
		if (pyb_walk_step(p, s))
			break;
	return pyb_walk_end(s);
}

#endif
