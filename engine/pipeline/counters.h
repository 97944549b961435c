/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_COUNTERS_H
#define PYSPYD_PIPELINE_COUNTERS_H

#include "engine/base/map.h"
#include "engine/cpython/collector.h"
#include "engine/detect/detect.h"
#include "engine/pipeline/watched.h"
#include "engine/proc/limits.h"

/* What the detectors of leaks need to know of a process, besides what every report shows. Some of it is read seldom. */

struct counters {
	uint64_t host_available_bytes;
	struct cgroup_usage cgroup;
	uint64_t slow_ns; /* when the above were read; 0: not yet */
	uint64_t fd_limit, children, zombies;
	struct py_collector collector;
	uint64_t own_cpu_ns; /* what it had used when these were read: they do not change by themselves */
	unsigned own_age;    /* in looks at what is slow */
};

/* What is the same for many processes, read once for all of them. */
struct counters_shared {
	size_t processes; /* that are watched */
	uint64_t read_ns;
	uint64_t host_available_bytes;
	struct map group_index; /* by what /proc/PID/cgroup says */
	VEC(struct cgroup_usage) groups;
};
void counters_shared_deinit(struct counters_shared *shared);

/* What is known already; reads nothing. */
void counters_fill_last(const struct counters *counters, const struct watched *watched, struct detect_process *process);

/* `slow_every_ns`: how old what is costly may be. */
void counters_fill(struct counters *counters, struct counters_shared *shared, const struct watched *watched,
	uint64_t slow_every_ns, uint64_t now_ns, struct detect_process *process);

#endif
