/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_LIFECYCLE_H
#define PYSPYD_FINDING_LIFECYCLE_H

#include "engine/finding/finding.h"

/* From verdicts to events, for one process: open once, updated at most once a minute (not while it
 * fades), resolved when gone. Hysteresis is
 * the detectors'. An event keeps its finding's id, fingerprint and beginning. */

#define LIFECYCLE_UPDATE_NS 60000000000ULL

struct lifecycle;
int lifecycle_new(struct lifecycle **ret_lifecycle); /* Return: 0, -ENOMEM */
void lifecycle_free(struct lifecycle *lifecycle);    /* open findings are forgotten, not resolved */

/* The finding is the life cycle's, and as it is only during the call. Return: 0; anything else is handed on to
 * the caller of the round. */
typedef int (*lifecycle_emit)(void *userdata, const struct pyspyd_finding *finding);

/* One round: the verdicts of one detect_set_decide, while their input still stands. Every verdict gets its turn.
 * Return: 0; the first non-zero that emit returned (its event has happened all the same); negative errno: what could
 * not be built is tried again with the next verdict. */
int lifecycle_apply(struct lifecycle *lifecycle, const struct finding_context *context, const detect_verdicts *verdicts,
	lifecycle_emit emit, void *userdata);

/* The process has ended: resolves what is open. Only times and host of the context are used. `ended`: why, static
 * ("process-ended"). Return: 0; the first non-zero of emit (all are resolved). */
int lifecycle_end(struct lifecycle *lifecycle, const struct finding_context *context, const char *ended,
	lifecycle_emit emit, void *userdata);

/* Findings about this process that an earlier watch has left open. One that is raised again keeps its id, fingerprint
 * and beginning, and is told of as an update. */

/* `left` must stand as long as the life cycle. Return: 0; -ENOMEM. */
int lifecycle_leave(struct lifecycle *lifecycle, const struct pyspyd_left_open *left);

/* Whether it was left to this life cycle, and was neither raised again nor let go of. */
bool lifecycle_has_left(const struct lifecycle *lifecycle, const struct pyspyd_left_open *left);

/* Once after each round: lets go of those that were not raised again in twice the time that their detectors need, and
 * in LIFECYCLE_LEFT_ROUNDS; with `ended`, of all. Return: 0; the first non-zero of emit (all have had their turn). */
#define LIFECYCLE_LEFT_ROUNDS 10
typedef int (*lifecycle_emit_left)(void *userdata, const struct pyspyd_left_open *left, const char *ended);
int lifecycle_tend_left(struct lifecycle *lifecycle, const struct detect_config *config, uint64_t now_ns,
	const char *ended, lifecycle_emit_left emit, void *userdata);

size_t lifecycle_open(const struct lifecycle *lifecycle); /* how many are open, those left open too */

#endif
