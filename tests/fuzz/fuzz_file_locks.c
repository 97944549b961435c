/* SPDX-License-Identifier: MIT */
/* /proc/locks, as it is. */
#include "engine/proc/fds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	file_lock_vec locks;

	if (file_locks_parse((const char *)data, size, &locks))
		return 0;
	if (locks.n > size)
		abort();
	vec_foreach (lock, &locks)
		if (lock->pid < -1 || lock->end < lock->start)
			abort();
	vec_free(&locks);
	return 0;
}
