/* SPDX-License-Identifier: MIT */
/* The tasks of a pass lie by their numbers, those of one process among those of others: each is chained to the next one
 * of its process. */
#include "engine/pipeline/task_table.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"

#define WORTH 4                    /* one in so many of the tasks should be asked for */
#define RETRY_NS (60 * NS_PER_SEC) /* after which a host is judged anew */
#define NO_TASK UINT32_MAX

void task_table_deinit(struct task_table *table) {
	bpf_tasks_free(table->bpf);
	vec_free(&table->told);
	tasks_pass_deinit(&table->pass);
	vec_free(&table->next);
	map_deinit(&table->first);
}

static bool is_told(const struct task_table *table, const pid_t *pids, size_t n) {
	if (table->told.n != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (table->told.items[i] != pids[i])
			return false;
	return true;
}

static void tell(struct task_table *table, const pid_t *pids, size_t n) {
	vec_foreach (pid, &table->told)
		bpf_tasks_watch(table->bpf, *pid, false);
	table->told.n = 0;
	for (size_t i = 0; i < n; i++)
		if (!vec_push(&table->told, pids[i]))
			bpf_tasks_watch(table->bpf, pids[i], true);
}

int task_table_index(struct task_table *table) {
	const bpf_task_vec *tasks = &table->pass.now;
	int r = vec_reserve(&table->next, tasks->n);

	map_clear(&table->first);
	for (size_t i = tasks->n; !r && i > 0; i--) {
		uint64_t pid = (uint64_t)tasks->items[i - 1].pid, after = NO_TASK;

		(void)!map_get(&table->first, pid, &after);
		table->next.items[i - 1] = (uint32_t)after;
		r = map_put(&table->first, pid, i - 1);
	}
	if (r)
		map_clear(&table->first);
	return r;
}

bool task_table_read(struct task_table *table, const pid_t *pids, size_t n, uint64_t now_ns) {
	if (table->refused || now_ns < table->retry_ns)
		return false;
	table->refused = !table->bpf && bpf_tasks_new(&table->bpf, NULL);
	if (table->refused)
		return false;
	if (!is_told(table, pids, n))
		tell(table, pids, n);
	if (tasks_pass_read(&table->pass, table->bpf, false) || task_table_index(table))
		return false;
	if (bpf_tasks_visited(table->bpf) <= table->pass.now.n * WORTH)
		return true;
	table->retry_ns = now_ns + RETRY_NS;
	return false;
}

const struct bpf_task *task_table_first(const struct task_table *table, pid_t pid) {
	uint64_t at;

	return map_get(&table->first, (uint64_t)pid, &at) ? &table->pass.now.items[at] : NULL;
}

const struct bpf_task *task_table_next(const struct task_table *table, const struct bpf_task *task) {
	uint32_t at = table->next.items[task - table->pass.now.items];

	return at == NO_TASK ? NULL : &table->pass.now.items[at];
}
