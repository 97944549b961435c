/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DETECT_EPISODES_H
#define PYSPYD_DETECT_EPISODES_H

#include "engine/detect/detect.h"

/* What detectors of waiting remember of their subjects (a thread, a loop, a knot) from look to look. A subject is a
 * candidate from its first bad look on, and none after the first good one. Once its detector has let it fire it stays
 * until it was good for as long as the detector says. */

#define EPISODES_MAX 1024 /* subjects of one detector in one process */
#define EPISODES_E_FULL 1

struct episode {
	uint64_t id;       /* of the subject */
	uint64_t key;      /* the verdicts' */
	uint64_t since_ns; /* the first bad look of the row, or what the detector knows better */
	uint64_t bad_ns;   /* the last one */
	uint64_t looks;    /* bad ones in a row */
	bool firing;
	bool seen; /* in this look */
};

/* Zeroed memory is a fresh one. */
struct episodes {
	VEC(struct episode) items;
	uint64_t last_key;
	uint64_t look_ns;
};

/* Static words of a detector. */
struct episode_words {
	const char *kind, *pattern;
};

void episodes_deinit(struct episodes *episodes);

/* Every look of the process begins with this one. `timed`: candidates count by time, and begin again after a gap (more
 * than three periods: suspended, starved), which proves nothing either way. */
void episodes_look(struct episodes *episodes, const struct detect_input *input, bool timed);

/* The subject is bad in this look. *ret_episode is good until the next call. Return: 0; EPISODES_E_FULL; -ENOMEM. */
int episodes_bad(struct episodes *episodes, uint64_t id, uint64_t now_ns, struct episode **ret_episode);

/* The row begins anew with this look, unless it fires. */
void episode_restart(struct episode *episode, uint64_t now_ns);

/* The look ends: candidates that were not bad are forgotten; what fires and was not bad is said to fade, or, where it
 * has been good for resolve_ns, to have ended. Return: 0; -ENOMEM. */
int episodes_settle(struct episodes *episodes, const struct episode_words *words, const struct detect_input *input,
	uint64_t resolve_ns, const char *ended, detect_verdicts *verdicts);

/* Nothing was to be seen this time: what fires still stands and is said to fade, all the rest stays. Return: 0;
 * -ENOMEM. */
int episodes_repeat(struct episodes *episodes, const struct episode_words *words, const struct detect_input *input,
	detect_verdicts *verdicts);

/* A verdict of a present fault, a warning, with no party and an empty summary yet. */
struct detect_verdict episode_verdict(const struct episode *episode, const struct episode_words *words);

#endif
