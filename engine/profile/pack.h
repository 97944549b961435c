/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROFILE_PACK_H
#define PYSPYD_PROFILE_PACK_H

#include "engine/profile/profile.h"

/* A part of a profile as bytes that stand for themselves, and back. Little-endian, compressed (zstd), with magic,
 * version and a checksum; what is read back is bounded and checked, whoever wrote it. Pure. */

#define PACK_BYTES_MAX (64U << 20) /* unpacked */

struct pack_head {
	uint64_t start_real_ns, end_real_ns;
	uint64_t period_ns;
	struct pyspyd_accuracy accuracy; /* of this stretch of time alone: unpacking adds up */
};

/* Packs these counts (indices into the profile's threads and nodes), with the frames and strings that they need, and
 * the profile's kind. *ret_data is the caller's to free(). Return: 0; -E2BIG (of anything: strings, frames, stacks,
 * counts, bytes); -ENOMEM. */
int profile_pack(const struct profile *profile, const struct profile_count *counts, size_t n,
	const struct pack_head *head, void **ret_data, size_t *ret_len);

/* Adds what was packed to a profile: equal stacks of equal threads (pid, tid and names) add up, as do durations and
 * accuracy. The start becomes the earliest, the period the shortest, and the kind that of the first that was added.
 * Return: 0; with nothing added: -EBADMSG: damaged; -EPROTO: of a newer version; -EINVAL: of another kind; -E2BIG: the
 * profile might grow beyond its limits; -ENOMEM: something may have been added. */
int profile_unpack(struct profile *profile, const void *data, size_t len);

/* The head alone; the checksum is that of everything. Return: 0; -EBADMSG, -EPROTO as above. */
int pack_head_read(const void *data, size_t len, struct pack_head *ret_head);

#endif
