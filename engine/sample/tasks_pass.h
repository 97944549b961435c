/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_TASKS_PASS_H
#define PYSPYD_SAMPLE_TASKS_PASS_H

#include "engine/base/vec.h"
#include "engine/sample/bpf_tasks.h"

/* Passes through the tasks, one after the other, and what has changed from one to the next. */

typedef VEC(struct bpf_task) bpf_task_vec;

struct tasks_pass {
	bpf_task_vec before, now; /* by ascending tid */
	bool failed;              /* out of memory */
};

enum task_change {
	TASK_RAN,   /* since the pass before */
	TASK_BEGAN, /* was not there, or another one had its tid */
	TASK_ENDED, /* `task` as of the pass before */
};

void tasks_pass_deinit(struct tasks_pass *pass);

/* What was `now` is `before` from here on. A pass that fails half-way leaves what was. Return: as bpf_tasks_read. */
int tasks_pass_read(struct tasks_pass *pass, struct bpf_tasks *tasks, bool everybody);

/* Pure, as the next two. One task of a new pass; tids ascend: what does not is left out. */
void tasks_pass_add(void *pass, const struct bpf_task *task);

void tasks_pass_changes(const struct tasks_pass *pass,
	void (*on_change)(void *userdata, enum task_change change, const struct bpf_task *task), void *userdata);

/* Return: NULL where it is not there. */
const struct bpf_task *tasks_pass_find(const struct tasks_pass *pass, pid_t tid);

#endif
