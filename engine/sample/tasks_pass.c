/* SPDX-License-Identifier: MIT */
/* The kernel goes through its tasks by ascending number, so two passes are compared like two sorted lists, without any
 * index: a thread that has not run costs one comparison. */
#include "engine/sample/tasks_pass.h"

#include "engine/base/util.h"

void tasks_pass_deinit(struct tasks_pass *pass) {
	vec_free(&pass->before);
	vec_free(&pass->now);
}

void tasks_pass_add(void *userdata, const struct bpf_task *task) {
	struct tasks_pass *pass = userdata;

	if (pass->now.n && pass->now.items[pass->now.n - 1].tid >= task->tid)
		return;
	if (vec_push(&pass->now, *task))
		pass->failed = true;
}

static void swap(struct tasks_pass *pass) {
	bpf_task_vec spare = pass->before;

	pass->before = pass->now;
	pass->now = spare;
}

int tasks_pass_read(struct tasks_pass *pass, struct bpf_tasks *tasks, bool everybody) {
	int r;

	swap(pass);
	pass->now.n = 0;
	pass->failed = false;
	r = bpf_tasks_read(tasks, everybody, tasks_pass_add, pass);
	if (!r && pass->failed)
		r = -ENOMEM;
	if (r) { /* the one before that is lost: nothing has changed */
		swap(pass);
		pass->before.n = 0;
		for (size_t i = 0; i < pass->now.n; i++)
			(void)!vec_push(&pass->before, pass->now.items[i]);
	}
	return r;
}

static bool is_same(const struct bpf_task *a, const struct bpf_task *b) {
	return a->pid == b->pid && a->start_ns == b->start_ns;
}

static bool has_run(const struct bpf_task *before, const struct bpf_task *now) {
	return before->run_ns != now->run_ns || before->slices != now->slices;
}

void tasks_pass_changes(const struct tasks_pass *pass,
	void (*on_change)(void *userdata, enum task_change change, const struct bpf_task *task), void *userdata) {
	const bpf_task_vec *before = &pass->before, *now = &pass->now;
	size_t b = 0, n = 0;

	while (b < before->n || n < now->n) {
		const struct bpf_task *old = b < before->n ? &before->items[b] : NULL;
		const struct bpf_task *new = n < now->n ? &now->items[n] : NULL;

		if (!new || (old && old->tid < new->tid)) {
			on_change(userdata, TASK_ENDED, old);
			b++;
		} else if (!old || new->tid < old->tid) {
			on_change(userdata, TASK_BEGAN, new);
			n++;
		} else {
			if (!is_same(old, new)) {
				on_change(userdata, TASK_ENDED, old);
				on_change(userdata, TASK_BEGAN, new);
			} else if (has_run(old, new)) {
				on_change(userdata, TASK_RAN, new);
			}
			b++;
			n++;
		}
	}
}

const struct bpf_task *tasks_pass_find(const struct tasks_pass *pass, pid_t tid) {
	size_t low = 0, high = pass->now.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (pass->now.items[middle].tid == tid)
			return &pass->now.items[middle];
		if (pass->now.items[middle].tid < tid)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}
