/* SPDX-License-Identifier: MIT */
/* Tasks of a pass, by process. */
#include "engine/pipeline/task_table.h"

#include <criterion/criterion.h>

static void add(struct task_table *table, pid_t pid, pid_t tid) {
	tasks_pass_add(&table->pass, &(struct bpf_task){ .pid = pid, .tid = tid });
}

Test(task_table, threads_are_found_by_their_process) {
	struct task_table table = { 0 };
	const struct bpf_task *task;

	add(&table, 5, 5);
	add(&table, 6, 6);
	add(&table, 5, 7);
	add(&table, 6, 9);
	add(&table, 5, 12);
	cr_assert_eq(task_table_index(&table), 0);
	task = task_table_first(&table, 5);
	cr_assert(task && task->tid == 5);
	task = task_table_next(&table, task);
	cr_assert(task && task->tid == 7);
	task = task_table_next(&table, task);
	cr_assert(task && task->tid == 12 && !task_table_next(&table, task));
	task = task_table_first(&table, 6);
	cr_assert(task && task->tid == 6);
	task = task_table_next(&table, task);
	cr_assert(task && task->tid == 9 && !task_table_next(&table, task));
	cr_assert_null(task_table_first(&table, 7));
	task_table_deinit(&table);
}

Test(task_table, the_next_pass_takes_the_place_of_the_last_one) {
	struct task_table table = { 0 };

	cr_assert_eq(task_table_index(&table), 0);
	cr_assert_null(task_table_first(&table, 5));
	add(&table, 5, 5);
	cr_assert_eq(task_table_index(&table), 0);
	cr_assert_not_null(task_table_first(&table, 5));
	table.pass.now.n = 0;
	add(&table, 6, 6);
	cr_assert_eq(task_table_index(&table), 0);
	cr_assert_null(task_table_first(&table, 5));
	cr_assert_eq(task_table_first(&table, 6)->tid, 6);
	task_table_deinit(&table);
}
