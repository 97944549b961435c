/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_BUCKET_H
#define PYSPYD_PIPELINE_BUCKET_H

#include "engine/base/map.h"
#include "engine/profile/profile.h"
#include "pyspyd/flight.h"

/* What one process did in the stretch of time that is being recorded: counts by thread and stack of the recorder's
 * profile, to be packed when it is over. */

struct bucket {
	VEC(struct profile_count) counts;
	struct map index;
	uint64_t start_real_ns; /* 0: nothing was counted yet */
	uint64_t idle;          /* samples among them that were counted again, unread */
};

/* Out of memory loses the sample. */
void bucket_add(struct bucket *bucket, const struct profile_count *count, bool idle);

/* Packs what is in it, and empties it. The profile is the one that its counts are of, locked. *ret_packed: its data are
 * the caller's to free(). Return: 0; -ENODATA: there is nothing in it; -E2BIG; -ENOMEM. */
int bucket_pack(struct bucket *bucket, const struct profile *profile, struct pyspyd_packed *ret_packed);
void bucket_deinit(struct bucket *bucket);

#endif
