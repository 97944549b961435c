/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_ENDS_H
#define PYSPYD_PIPELINE_ENDS_H

#include "engine/base/vec.h"
#include "engine/detect/detect.h"
#include "engine/sample/bpf_events.h"

/* How watched processes ended: what the kernel told as it happened, and of our own children what wait() says. */

struct end_record {
	pid_t pid;
	uint64_t start_ticks; /* with the pid: which process */
	struct detect_end end;
};

/* Zeroed memory is a fresh one. */
struct ends {
	VEC(struct end_record) items;
	uint64_t oom_kills; /* of the machine, as of the last end by SIGKILL; what came before is none of ours */
	bool oom_known;
};

void ends_init(struct ends *ends);
void ends_deinit(struct ends *ends);

/* An event of the kind PYE_EXIT. Out of memory loses it. */
void ends_add(struct ends *ends, const struct pye_event *event);

/* Return: whether it is known. A child of ours is not reaped. */
bool ends_get(const struct ends *ends, pid_t pid, uint64_t start_ticks, struct detect_end *ret_end);

bool ends_is_child(pid_t pid); /* whether it is, or was a moment ago, a child of ours */

/* Whether the kernel has killed for lack of memory since this was asked last. */
bool ends_oom(struct ends *ends);

void ends_forget(struct ends *ends, pid_t pid);

/* What a status of wait() says. Pure. */
struct detect_end ends_of_status(unsigned status);

#endif
