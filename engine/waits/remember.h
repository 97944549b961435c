/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WAITS_REMEMBER_H
#define PYSPYD_WAITS_REMEMBER_H

#include "engine/waits/scan.h"

/* What earlier looks knew of the holders of locks. */

/* Where somebody waited for a lock that a thread was only taken to hold. */
struct lock_claim {
	uint64_t lock; /* identity of the lock object */
	uint64_t process;
	pid_t waiter, holder;          /* may be the same */
	uint64_t waiter_ns, holder_ns; /* CPU time of these threads; UINT64_MAX: not known */
	raddr frame, instr;            /* where the waiter waited */
	unsigned awakenings;           /* it ran in between, and waits there again */
};

typedef VEC(struct lock_claim) claim_vec;

struct lock_taken { /* … in this look, by its node; by whom, and the CPU time of that thread */
	uint32_t lock;
	pid_t holder;
	uint64_t holder_ns;
};

/* How such a wait went on. */
struct claim_sequel {
	bool known; /* waiter and holder are alive, and their frames could be read */
	bool there; /* the waiter still is in the same call */
	uint64_t waiter_ns, holder_ns;
};

/* Updates a claim. Return: whether somebody else has released the lock, so that it was never the holder's. */
bool lock_claim_refuted(struct lock_claim *claim, const struct claim_sequel *sequel);

struct remembered {
	uint64_t lock, waiter, stamp; /* keys of the nodes; the waiter's stamp */
	pid_t holder_tid;
	char holder[64];
};

typedef VEC(struct remembered) remembered_vec;

struct wait_memory { /* zeroed memory is an empty one */
	remembered_vec now, before;
	claim_vec claims_now, claims_before;
	VEC(struct lock_taken) taken;
	VEC(uint64_t) signals; /* identities of locks; the oldest ones are overwritten */
	size_t signals_next;
};

/* A thread is taken for the holder of a lock, but that is inferred. Before scan_remember is told of its waiters. */
void scan_taken_for_holder(struct wait_scan *scan, uint32_t lock, const struct view_thread *holder);

/* Looks what has become of the view's waits for locks that were only taken to be held. Before the waits are built. */
void scan_learn(struct wait_scan *scan, struct wait_memory *memory, const struct wait_view *view);

/* Whether a lock was once obtained by somebody while the thread that the code says has it did not run, or waited for it
 * itself: it is a signal, released by whoever gives it. */
bool scan_is_signal(const struct wait_memory *memory, const struct wait_view *view, raddr object);

/* Tells the memory of a waiter at a plain lock, whose node has its edges already. Where nobody holds the lock any more
 * because the holder of before has ended, the node becomes one that nobody can help. Return: why that is inferred; NULL
 * where it did not. */
const char *scan_remember(struct wait_scan *scan, struct wait_memory *memory, const struct wait_view *view,
	const struct view_thread *waiter, uint32_t lock);

/* A new look begins. */
void wait_memory_turn(struct wait_memory *memory);
void wait_memory_deinit(struct wait_memory *memory);

#endif
