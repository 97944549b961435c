/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_TASK_TABLE_H
#define PYSPYD_PIPELINE_TASK_TABLE_H

#include "engine/base/map.h"
#include "engine/proc/proc.h"
#include "engine/sample/tasks_pass.h"

/* The counters of all threads of many processes, by one pass through the kernel's tasks for each report. Zeroed memory
 * is empty. */
struct task_table {
	struct bpf_tasks *bpf; /* NULL: not loaded yet, or refused */
	bool refused;
	pid_vec told; /* whom the pass is asked for */
	struct tasks_pass pass;
	VEC(uint32_t) next; /* place in the pass of the process's next thread, or NO_TASK */
	struct map first;   /* process → place of its first one */
	uint64_t retry_ns;  /* until when it is known not to pay */
};

void task_table_deinit(struct task_table *table);

/* Reads the threads of these processes. Return: whether it did; not where the kernel refuses, or where most tasks of
 * the host are others', so that it does not pay. */
bool task_table_read(struct task_table *table, const pid_t *pids, size_t n, uint64_t now_ns);

/* Pure: makes the index of what a pass has brought. Return: 0; -ENOMEM. */
int task_table_index(struct task_table *table);

/* The threads of a process by ascending tid; NULL: none, or no more. */
const struct bpf_task *task_table_first(const struct task_table *table, pid_t pid);
const struct bpf_task *task_table_next(const struct task_table *table, const struct bpf_task *task);

#endif
