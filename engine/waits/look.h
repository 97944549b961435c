/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WAITS_LOOK_H
#define PYSPYD_WAITS_LOOK_H

#include "engine/sample/target.h"
#include "pyspyd/waits.h"

/* Looking at who waits for whom: one process, and those that it waits for, at one moment. Nothing is stopped. */

struct wait_looker; /* what is kept from look to look: attached processes, decoded code */

/* `park`: further park sites, as in pyspyd_waits_options. Return: 0; PYSPYD_E_USAGE; -ENOMEM. */
int wait_looker_new(const char *const *park, struct wait_looker **ret_looker, struct err *err);

/* From now on looks list the greenlets of the processes asked for: at the price of a walk over all their objects. */
void wait_looker_list_greenlets(struct wait_looker *looker);
void wait_looker_free(struct wait_looker *looker);

/* One look at all of these processes, in one graph. The targets stay the caller's, their threads are those of their
 * last refresh; one that has ended is left out. One that is offline stands alone. The graph's process is the first one.
 * It is solved, not yet confirmed. Return: 0; PYSPYD_E_GONE: all have ended; negative errno. */
int wait_look(
	struct wait_looker *looker, struct sample_target *const *targets, size_t n, struct pyspyd_waits **ret_waits);

/* Asks the kernel how long the threads have slept that wait for something: those of knots first, at most 512. After
 * waits_confirm, which knows no more than the looks. */
void wait_look_measure(struct pyspyd_waits *waits);

/* A target that is about to be freed: nothing of it is used again. */
void wait_looker_forget(struct wait_looker *looker, const struct sample_target *target);

#endif
