/* SPDX-License-Identifier: MIT */
#include "engine/pipeline/bucket.h"

#include "engine/base/clock.h"
#include "engine/profile/pack.h"
#include <errno.h>

void bucket_add(struct bucket *bucket, const struct profile_count *count, bool idle) {
	uint64_t key = (uint64_t)count->thread << 32 | count->node, at;

	bucket->idle += idle ? count->samples : 0;

	if (!bucket->start_real_ns)
		bucket->start_real_ns = clock_real_ns();
	if (map_get(&bucket->index, key, &at)) {
		bucket->counts.items[at].samples += count->samples;
		bucket->counts.items[at].ns += count->ns;
	} else if (!vec_push(&bucket->counts, *count)) {
		(void)!map_put(&bucket->index, key, bucket->counts.n - 1);
	}
}

int bucket_pack(struct bucket *bucket, const struct profile *profile, struct pyspyd_packed *ret_packed) {
	struct pack_head head = {
		.start_real_ns = bucket->start_real_ns,
		.end_real_ns = clock_real_ns(),
		.period_ns = profile->period_ns,
		/* What was torn or late is known of all processes together, and is no part of one's. */
		.accuracy = { .source = profile->accuracy.source,
			.priority = profile->accuracy.priority,
			.idle = bucket->idle },
	};
	void *data;
	size_t len;
	int r;

	vec_foreach (count, &bucket->counts)
		head.accuracy.samples += count->samples;
	r = bucket->counts.n ? profile_pack(profile, bucket->counts.items, bucket->counts.n, &head, &data, &len)
			     : -ENODATA;

	bucket->counts.n = 0;
	map_clear(&bucket->index);
	bucket->start_real_ns = bucket->idle = 0;
	if (r)
		return r;
	*ret_packed = (struct pyspyd_packed){ data, len, head.start_real_ns, head.end_real_ns };
	return 0;
}

void bucket_deinit(struct bucket *bucket) {
	vec_free(&bucket->counts);
	map_deinit(&bucket->index);
}
