/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_REFERRERS_H
#define PYSPYD_LEAKS_REFERRERS_H

#include "engine/leaks/follow.h"
#include "engine/leaks/pools.h"

/* Who refers to some addresses: one pass over all memory in which references may stand. */

enum referrer_kind {
	REFERRER_OBJECT,
	REFERRER_BLOCK,  /* of a pool, in use, and no object: a table, whose owner refers to it in turn */
	REFERRER_INTERP, /* the state of an interpreter */
	REFERRER_STATIC, /* a variable of a program or library */
	REFERRER_NATIVE, /* memory of which nothing is known */
	REFERRER_STACK,  /* a thread's native stack */
};

struct referrer {
	enum referrer_kind kind;
	raddr addr;       /* of the object or block; else of the word */
	uint32_t len;     /* of a block, bytes */
	const char *name; /* REFERRER_STATIC: of the program or library; it belongs to the census */
};

/* Return: 0; anything else ends the pass and is returned by it. It may add what the rest of the pass then looks for
 * too. */
typedef int (*referrer_each)(void *userdata, uint32_t wanted, const struct referrer *referrer);

struct referrer_pool {
	raddr addr; /* 0: none */
	struct pool head;
	bool valid;
	bool free[POOL_BLOCKS_MAX];
};

struct referrers {
	const struct census_places *places;
	struct census_run run;
	struct map wanted;    /* address → number */
	uint64_t *filter;     /* a bit for each of the hashes of what is wanted */
	raddr low, high;      /* all of it lies between these */
	uint32_t last;        /* the last number */
	uint32_t least;       /* that are looked for now … */
	uint32_t base;        /* … and were at the beginning of a piece of memory */
	VEC(struct span) hot; /* pieces in which referrers were found in this pass */
	bool is_hot;
	VEC(uint8_t) weak; /* by type: 0 not known yet, 1 no, 2 its objects are weak references */
	VEC(struct span) interps;
	place_span_vec moved;      /* tables that lie elsewhere than the census saw them, ascending */
	struct referrer_pool pool; /* the last one that was looked at */

	const uint8_t *bytes; /* of the memory that is searched now */
	raddr addr;
	size_t len;
	referrer_each each;
	void *userdata;
};

#define REFERRERS_WANTED_MAX (2U << 20)

/* `census` has places, and outlives it. Return: 0; MEM_E_GONE; negative errno. */
int referrers_init(struct referrers *referrers, const struct py_runtime *rt, const struct census *census);
void referrers_deinit(struct referrers *referrers);

/* Numbers grow from one to the next. Wants an address, and all within `len` bytes of it where len is not 0. Return: 0;
 * -ENOMEM; -ENOSPC: too many. */
int referrers_want(struct referrers *referrers, raddr addr, uint32_t len, uint32_t number);
void referrers_clear(struct referrers *referrers);

/* Calls `each` for each word that keeps what is wanted. Weak references do not, nor do links of the collector, what is
 * free, and numbers and texts. Return: 0; MEM_E_GONE; negative errno; what `each` returned. */
int referrers_pass(struct referrers *referrers, referrer_each each, void *userdata);

/* Return: whether a word that refers to `object` may be missing from those that its count of references says: more are
 * counted than `found`. false where that cannot be told. */
bool referrers_lack(struct referrers *referrers, raddr object, uint64_t found);

#endif
