/* SPDX-License-Identifier: MIT */
/* What is learnt of locks from one look to the next.
 *
 * Locks whose holder was seen in an earlier look, and has ended since: a plain lock that no frame holds may be
 * anybody's; but where a thread was seen to hold it while another one waited, the holder has ended, and the waiter has
 * not run since (a release would have woken it), nobody gave it back. With several waiters one of the others may have
 * got it: so it is inferred.
 *
 * Locks that are signals: bytecode says that a thread has called acquire() and not release(), so it is taken for the
 * holder. But where somebody obtained the lock while that thread slept, or the thread itself that waited for it, others
 * release it, and it is nobody's from then on. A waiter may wake up for a signal of the kernel and wait again: so that
 * it ran counts only the second time. */
#include "engine/waits/remember.h"

#include <stdio.h>
#include <string.h>

#define REMEMBERED_MAX 4096
#define SIGNALS_MAX 1024
#define AWAKENINGS_MIN 2

static const struct remembered *find(const struct wait_memory *memory, uint64_t lock, uint64_t waiter, uint64_t stamp) {
	vec_foreach (one, &memory->before)
		if (one->lock == lock && one->waiter == waiter && one->stamp == stamp)
			return one;
	return NULL;
}

static uint32_t holder_of(const struct pyspyd_waits *waits, uint32_t lock) {
	for (size_t i = waits->edges_n; i > 0; i--)
		if (waits->edges[i - 1].from == lock && waits->nodes[waits->edges[i - 1].to].kind == PYSPYD_WAIT_THREAD)
			return waits->edges[i - 1].to;
	return WAITS_NONE;
}

static void keep(struct wait_scan *scan, struct wait_memory *memory, const struct remembered *one) {
	if (memory->now.n < REMEMBERED_MAX && vec_push(&memory->now, *one))
		scan->failed = true;
}

/* Return: whether the remembered holder is no more. */
static bool has_ended(const struct wait_view *view, const struct remembered *one) {
	return !view_thread_of_tid(view, one->holder_tid);
}

/* Signals. */

static uint64_t process_key(const struct wait_view *view) {
	return scan_key("process", (uint64_t)view->proc.pid, view->proc.start_ticks);
}

static uint64_t lock_key(const struct wait_view *view, raddr object) {
	return scan_key("lock", process_key(view), object);
}

bool scan_is_signal(const struct wait_memory *memory, const struct wait_view *view, raddr object) {
	uint64_t key = memory->signals.n ? lock_key(view, object) : 0;

	vec_foreach (signal, &memory->signals)
		if (*signal == key)
			return true;
	return false;
}

static void add_signal(struct wait_scan *scan, struct wait_memory *memory, uint64_t key) {
	vec_foreach (signal, &memory->signals)
		if (*signal == key)
			return;
	if (memory->signals.n == SIGNALS_MAX)
		memory->signals.items[memory->signals_next++ % SIGNALS_MAX] = key;
	else if (vec_push(&memory->signals, key))
		scan->failed = true;
}

static bool is_same_ns(uint64_t before, uint64_t now) {
	return before == now && now != UINT64_MAX;
}

bool lock_claim_refuted(struct lock_claim *claim, const struct claim_sequel *sequel) {
	bool slept = claim->holder == claim->waiter || is_same_ns(claim->holder_ns, sequel->holder_ns);
	bool awoke = sequel->there && claim->waiter_ns != sequel->waiter_ns;

	if (!sequel->known || !slept)
		return false;
	claim->awakenings += awoke;
	claim->waiter_ns = sequel->waiter_ns;
	return !sequel->there || claim->awakenings >= AWAKENINGS_MIN;
}

static bool is_at(const struct view_frame *frame, const struct lock_claim *claim) {
	return frame->raw.frame == claim->frame && (raddr)frame->raw.instr == claim->instr;
}

static struct claim_sequel sequel_of(const struct wait_view *view, const struct lock_claim *claim) {
	const struct view_thread *waiter = view_thread_of_tid(view, claim->waiter);
	const struct view_thread *holder = view_thread_of_tid(view, claim->holder);
	struct claim_sequel sequel = { .known = waiter && holder && waiter->frames_n };

	if (!sequel.known)
		return sequel;
	sequel.waiter_ns = waiter->run_ns;
	sequel.holder_ns = holder->run_ns;
	for (size_t i = 0; i < waiter->frames_n; i++)
		sequel.there |= is_at(&waiter->frames[i], claim);
	return sequel;
}

static void keep_claim(struct wait_scan *scan, struct wait_memory *memory, const struct lock_claim *claim) {
	vec_foreach (known, &memory->claims_now)
		if (known->lock == claim->lock && known->waiter == claim->waiter && known->holder == claim->holder) {
			known->holder_ns = claim->holder_ns;
			return;
		}
	if (memory->claims_now.n < REMEMBERED_MAX && vec_push(&memory->claims_now, *claim))
		scan->failed = true;
}

void scan_learn(struct wait_scan *scan, struct wait_memory *memory, const struct wait_view *view) {
	uint64_t process = process_key(view);

	vec_foreach (claim, &memory->claims_before) {
		struct claim_sequel sequel;

		if (claim->process != process)
			continue;
		sequel = sequel_of(view, claim);
		if (lock_claim_refuted(claim, &sequel))
			add_signal(scan, memory, claim->lock);
		else if (sequel.known && sequel.there)
			keep_claim(scan, memory, claim);
	}
}

void scan_taken_for_holder(struct wait_scan *scan, uint32_t lock, const struct view_thread *holder) {
	const struct lock_taken taken = { lock, holder->tid, holder->run_ns };

	if (scan->memory->taken.n < REMEMBERED_MAX && vec_push(&scan->memory->taken, taken))
		scan->failed = true;
}

/* Somebody is only taken to hold the lock that a thread waits for without a time-out. */
static void note_claims(struct wait_scan *scan, struct wait_memory *memory, const struct wait_view *view,
	const struct view_thread *waiter, uint32_t lock) {
	if (waiter->sleep.timed || !waiter->frames_n)
		return;
	vec_foreach (taken, &memory->taken) {
		if (taken->lock != lock)
			continue;
		keep_claim(scan, memory,
			&(struct lock_claim){ .lock = lock_key(view, scan_node(scan, lock)->address),
				.process = process_key(view),
				.waiter = waiter->tid,
				.holder = taken->holder,
				.waiter_ns = waiter->run_ns,
				.holder_ns = taken->holder_ns,
				.frame = waiter->frames[0].raw.frame,
				.instr = (raddr)waiter->frames[0].raw.instr });
	}
}

const char *scan_remember(struct wait_scan *scan, struct wait_memory *memory, const struct wait_view *view,
	const struct view_thread *waiter, uint32_t lock) {
	struct pyspyd_wait_node *node = scan_node(scan, lock);
	uint32_t holder = node->fault ? WAITS_NONE : holder_of(scan->waits, lock);
	struct remembered one = { node->key, scan_node(scan, waiter->node)->key, scan_node(scan, waiter->node)->stamp,
		0, "" };
	const struct remembered *before = find(memory, one.lock, one.waiter, one.stamp);
	char fault[160];

	if (scan_is_signal(memory, view, node->address))
		return NULL;
	note_claims(scan, memory, view, waiter, lock);
	if (holder != WAITS_NONE) {
		one.holder_tid = scan->waits->nodes[holder].tid;
		snprintf(one.holder, sizeof(one.holder), "%s", scan->waits->nodes[holder].label);
		keep(scan, memory, &one);
		return NULL;
	}
	if (!before)
		return NULL;
	keep(scan, memory, before);
	if (!node->fault || !has_ended(view, before) || scan_may_be_released(view, node->address, NULL))
		return NULL;
	if (node->rule != PYSPYD_WAIT_NEVER) {
		snprintf(fault, sizeof(fault), "%s (tid %d) held it when it ended", before->holder,
			(int)before->holder_tid);
		free(node->fault);
		node->fault = strdup(fault);
		node->rule = PYSPYD_WAIT_NEVER;
	}
	return "its holder was seen in an earlier look and has ended; the waiter has not run since";
}

void wait_memory_turn(struct wait_memory *memory) {
	remembered_vec spare = memory->before;
	claim_vec spare_claims = memory->claims_before;

	memory->before = memory->now;
	memory->now = spare;
	memory->now.n = 0;
	memory->taken.n = 0;
	memory->claims_before = memory->claims_now;
	memory->claims_now = spare_claims;
	memory->claims_now.n = 0;
}

void wait_memory_deinit(struct wait_memory *memory) {
	vec_free(&memory->now);
	vec_free(&memory->before);
	vec_free(&memory->claims_now);
	vec_free(&memory->claims_before);
	vec_free(&memory->signals);
	vec_free(&memory->taken);
}
