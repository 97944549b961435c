/* SPDX-License-Identifier: MIT */
/* The texts of /proc: byte 0 chooses the parser, the rest is the text. */
#include "engine/proc/cgroup.h"
#include "engine/proc/proc.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_stat(const char *text, size_t len) {
	struct proc_stat stat;
	char state;
	int cpu;

	if (proc_stat_parse(text, len, &stat))
		return;
	if (strlen(stat.comm) >= sizeof(stat.comm))
		abort();
	/* Both ways agree wherever both have an answer. */
	if (!proc_stat_state(text, len, &state, &cpu) && (state != stat.state || cpu != stat.processor))
		abort();
}

static void check_maps(const char *text, size_t len) {
	proc_map_vec maps;

	if (proc_maps_parse(text, len, &maps))
		return;
	vec_foreach (map, &maps)
		if (map->start > map->end || strlen(map->path) > len)
			abort();
	proc_maps_free(&maps);
}

static void check_cgroup(const char *text, size_t len) {
	struct cgroup_names names;

	if (cgroup_parse(text, len, &names))
		return;
	if (strlen(names.path) > len || strlen(names.container) > len || strlen(names.unit) > len)
		abort();
	free(names.path);
	free(names.container);
	free(names.unit);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct proc_schedstat schedstat;
	struct proc_status status;
	uint64_t sched_ns;
	const char *text = (const char *)data + 1;
	size_t len = size - 1;

	if (!size)
		return 0;
	switch (data[0] % 6) {
	case 0: check_stat(text, len); break;
	case 1: proc_status_parse(text, len, &status); break;
	case 2: check_maps(text, len); break;
	case 3: proc_schedstat_parse(text, len, &schedstat); break;
	case 4: check_cgroup(text, len); break;
	case 5: proc_sched_parse(text, len, &sched_ns); break;
	}
	return 0;
}
