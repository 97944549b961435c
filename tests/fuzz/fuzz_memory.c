/* SPDX-License-Identifier: MIT */
/* smaps, status and meminfo, as they are. What is told agrees with itself: groups have names of their own and memory,
 * and come in order. */
#include "engine/proc/memory.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const memory_groups *groups) {
	for (size_t i = 0; i < groups->n; i++) {
		const struct memory_group *group = &groups->items[i];

		if (!group->name[0] || !group->mappings || !group->bytes)
			abort();
		if (!i)
			continue;
		if (group[-1].bytes < group->bytes)
			abort();
		if (group[-1].bytes == group->bytes && strcmp(group[-1].name, group->name) >= 0)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	const char *text = (const char *)data;
	memory_groups groups = { 0 };
	uint64_t bytes;

	if (!memory_groups_parse(text, size, &groups))
		check(&groups);
	memory_groups_free(&groups);
	memory_private_parse(text, size, &bytes);
	memory_available_parse(text, size, &bytes);
	return 0;
}
