/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_COUNTERS_H
#define PYSPYD_PIPELINE_COUNTERS_H

#include "engine/cpython/collector.h"
#include "engine/detect/detect.h"
#include "engine/pipeline/watched.h"
#include "engine/proc/limits.h"

/* What the detectors of leaks need to know of a process, besides what every report shows. Some of it is read seldom. */

struct counters {
	uint64_t fd_limit, children, zombies;
	uint64_t host_available_bytes;
	struct cgroup_usage cgroup;
	struct py_collector collector;
	uint64_t slow_ns; /* when the above were read; 0: not yet */
};

/* `slow_every_ns`: how old what is costly may be. */
void counters_fill(struct counters *counters, const struct watched *watched, uint64_t slow_every_ns, uint64_t now_ns,
	struct detect_process *process);

#endif
