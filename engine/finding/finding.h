/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_FINDING_FINDING_H
#define PYSPYD_FINDING_FINDING_H

#include "engine/detect/detect.h"
#include "pyspyd/dump.h"

/* When, where and how well: what is the same for all verdicts of one look at one process. All borrowed. */
struct finding_context {
	uint64_t now_ns;  /* the detectors' clock */
	uint64_t real_ns; /* CLOCK_REALTIME at the same moment */
	const char *host;
	const struct pyspyd_process *process;
	const struct pyspyd_accuracy *accuracy; /* of the samples; NULL: not part of the evidence */
	/* Called with a finding that is about to be told of as new, or as going on: more evidence may be put in. NULL:
	 * there is none. */
	void (*add_evidence)(void *userdata, struct pyspyd_finding *finding);
	void *userdata;
};

/* A finding with everything copied, in state open, with an id of its own and its fingerprint. Return: 0; negative
 * errno. *ret_finding is the caller's, to pyspyd_finding_free. */
int finding_new(const struct finding_context *context, const struct detect_verdict *verdict,
	struct pyspyd_finding **ret_finding);

/* Deep copies. Return: 0; -ENOMEM (*ret is then untouched). */
int finding_copy_process(const struct pyspyd_process *process, struct pyspyd_process *ret);

const char *finding_severity_name(enum pyspyd_severity severity); /* "warning" */
const char *finding_state_name(enum pyspyd_finding_state state);  /* "open" */

#endif
