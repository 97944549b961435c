/* SPDX-License-Identifier: MIT */
/* How long the memory of a process lasts.
 *
 * What a control group uses (memory.current; version 1: memory.usage_in_bytes) includes the pages of files that it has
 * read and written: it rises to the limit in every group that does much of that, and the kernel takes those pages back
 * when memory is wanted. So that number counts only while the process's own memory grows, too. And since own memory can
 * grow unseen behind it, with pages of files giving way, that is compared with the limit by itself as well: then as if
 * the process were alone in its group, which is later than the truth, never earlier. What the machine has left
 * (MemAvailable) is without such pages. */
#include "engine/detect/memory_left.h"

#include "engine/base/util.h"
#include "engine/detect/counter_series.h"

#define PERIODS_LEAST 16 /* in a window: with fewer samples a runway knows nothing */

void memory_left_look(struct memory_left *left, const struct detect_input *input, uint64_t window_ns) {
	const struct detect_process *process = input->process;

	if (!left->begun) {
		window_ns = max_of(window_ns, process->period_ns * PERIODS_LEAST);
		runway_init(&left->group, window_ns);
		runway_init(&left->own, window_ns);
		left->begun = true;
	}
	if (series_is_known(process->private_bytes))
		runway_add(&left->own, input->now_ns, (double)process->private_bytes);
	if (series_is_known(process->memory_bytes))
		runway_add(&left->group, input->now_ns, (double)process->memory_bytes);
}

/* What private memory may come to. */
static bool own_limit(const struct detect_process *process, struct memory_limit *ret) {
	struct memory_limit limit = { .bytes = UINT64_MAX, .left_ns = UINT64_MAX };

	if (!series_is_known(process->private_bytes))
		return false;
	if (series_is_known(process->memory_limit_bytes))
		limit.bytes = process->memory_limit_bytes;
	if (series_is_known(process->host_available_bytes) &&
		process->host_available_bytes < limit.bytes - min_of(process->private_bytes, limit.bytes)) {
		limit.bytes = process->private_bytes + process->host_available_bytes;
		limit.machine = true;
	}
	if (limit.bytes == UINT64_MAX)
		return false;
	*ret = limit;
	return true;
}

bool memory_left_limit(
	const struct memory_left *left, const struct detect_process *process, struct memory_limit *ret_limit) {
	struct memory_limit limit;
	uint64_t left_ns;

	if (!own_limit(process, &limit))
		return false;
	if (!runway_left(&left->own, (double)limit.bytes, &left_ns)) {
		limit.left_ns = left_ns;
		if (series_is_known(process->memory_limit_bytes) && series_is_known(process->memory_bytes) &&
			!runway_left(&left->group, (double)process->memory_limit_bytes, &left_ns) &&
			left_ns < limit.left_ns)
			limit = (struct memory_limit){ .bytes = process->memory_limit_bytes, .left_ns = left_ns };
	}
	*ret_limit = limit;
	return true;
}
