/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_SUBJECT_H
#define PYSPYD_PIPELINE_SUBJECT_H

#include "engine/mem/core.h"
#include "engine/sample/target.h"
#include "pyspyd/core.h"
#include "pyspyd/stack.h"

/* What is looked at: a live process, or a dead one in a core file. */

struct subject {
	struct sample_target *target;
	struct core *core; /* NULL: it lives */
	struct captured *tree;
	char *path; /* of the core */
};

/* `wait_ns`: as sample_target_new. Return: as that; negative errno of core_open and core_find_files. */
int subject_open(pid_t pid, const struct pyspyd_core_source *source, uint64_t wait_ns, struct subject *ret_subject,
	struct err *err);
void subject_close(struct subject *subject);

/* Says in `process` that it is dead, and what of; nothing where it lives. Return: 0; -ENOMEM. */
int subject_add_core(const struct subject *subject, struct pyspyd_process *process);

/* The build id, in hexadecimal digits, of a file that a dead process had mapped; the caller's to free(). NULL: not
 * known, or it lives. */
char *subject_build_id(const struct subject *subject, const char *path);

#endif
