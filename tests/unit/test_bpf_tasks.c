/* SPDX-License-Identifier: MIT */
/* Records of tasks, and what two passes differ in. */
#include "engine/sample/tasks_pass.h"

#include "bpf/tasks.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define MANY 100

struct taken {
	size_t n;
	struct bpf_task tasks[MANY];
};

static void take(void *userdata, const struct bpf_task *task) {
	struct taken *taken = userdata;

	if (taken->n < MANY)
		taken->tasks[taken->n] = *task;
	taken->n++;
}

Test(bpf_tasks, whole_records_are_told) {
	const struct pyt_task from[] = {
		{ 10, 11, 1, 3, 100, 200, 300, 4, 5, 600 },
		{ 10, 12, 0, 2, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX },
	};
	struct taken taken = { 0 };

	cr_assert_eq(bpf_tasks_take(from, sizeof(from), take, &taken), sizeof(from));
	cr_assert_eq(taken.n, 2);
	cr_assert(taken.tasks[0].pid == 10 && taken.tasks[0].tid == 11 && taken.tasks[0].state == 'S' &&
		taken.tasks[0].cpu == 3);
	cr_assert(taken.tasks[0].run_ns == 100 && taken.tasks[0].wait_ns == 200 && taken.tasks[0].slices == 300);
	cr_assert(taken.tasks[0].voluntary == 4 && taken.tasks[0].involuntary == 5 && taken.tasks[0].start_ns == 600);
	cr_assert(taken.tasks[1].state == 'R' && taken.tasks[1].run_ns == UINT64_MAX);
}

/* Wherever a read ends, and wherever the record lies in memory. */
Test(bpf_tasks, every_length_is_taken) {
	char bytes[3 * sizeof(struct pyt_task) + 1];

	for (size_t len = 0; len < sizeof(bytes); len++) {
		for (size_t i = 0; i < 3; i++) {
			struct pyt_task from = { .pid = 1, .tid = (__u32)i + 1 };

			memcpy(bytes + 1 + i * sizeof(from), &from, sizeof(from));
		}
		struct taken taken = { 0 };
		size_t used = bpf_tasks_take(bytes + 1, len, take, &taken);

		cr_assert(used <= len && len - used < sizeof(struct pyt_task));
		cr_assert_eq(taken.n, len / sizeof(struct pyt_task));
	}
}

Test(bpf_tasks, ids_that_none_has_are_skipped) {
	const struct pyt_task from[] = { { .pid = 0, .tid = 1 }, { .pid = 1, .tid = 0 },
		{ .pid = 0x80000000U, .tid = 5 }, { .pid = 5, .tid = UINT32_MAX }, { .pid = 7, .tid = 8 } };
	struct taken taken = { 0 };

	cr_assert_eq(bpf_tasks_take(from, sizeof(from), take, &taken), sizeof(from));
	cr_assert(taken.n == 1 && taken.tasks[0].tid == 8);
}

/* Bits as in include/linux/sched.h, letters as in fs/proc/array.c. */
Test(bpf_tasks, states_have_the_letters_of_proc) {
	static const struct {
		uint32_t bits;
		char letter;
	} cases[] = { { 0, 'R' }, { 1, 'S' }, { 2, 'D' }, { 4, 'T' }, { 8, 't' }, { 0x10, 'X' }, { 0x20, 'Z' },
		{ 0x40, 'P' }, { 0x402, 'I' }, { 0x2402, 'I' }, { 0x102, 'D' }, { 0x2001, 'S' }, { 0x2002, 'D' },
		{ 0x8000, 'D' }, { 0x1000, 'D' }, { 0x80, 'R' }, { 0xa0, 'Z' }, { 0x90, 'X' }, { 0x80000000U, 'R' },
		{ UINT32_MAX, 'D' } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		cr_assert_eq(bpf_tasks_state(cases[i].bits), cases[i].letter, "%#x", cases[i].bits);
}

struct changes {
	char text[400];
};

static void note(void *userdata, enum task_change change, const struct bpf_task *task) {
	struct changes *changes = userdata;
	size_t n = strlen(changes->text);

	snprintf(changes->text + n, sizeof(changes->text) - n, "%c%d/%d ", "rbe"[change], (int)task -> pid,
		(int)task -> tid);
}

static void add(struct tasks_pass *pass, pid_t pid, pid_t tid, uint64_t run_ns, uint64_t slices, uint64_t start_ns) {
	tasks_pass_add(pass,
		&(struct bpf_task){ .pid = pid, .tid = tid, .run_ns = run_ns, .slices = slices, .start_ns = start_ns });
}

/* What was added goes to `before`. */
static void turn(struct tasks_pass *pass) {
	bpf_task_vec spare = pass->before;

	pass->before = pass->now;
	pass->now = spare;
	pass->now.n = 0;
}

static const char *changes_of(const struct tasks_pass *pass) {
	static struct changes changes;

	changes.text[0] = '\0';
	tasks_pass_changes(pass, note, &changes);
	return changes.text;
}

Test(tasks_pass, what_has_changed_is_told) {
	struct tasks_pass pass = { 0 };

	cr_assert_str_eq(changes_of(&pass), "");
	add(&pass, 1, 1, 5, 5, 5);
	add(&pass, 2, 2, 5, 5, 5);
	add(&pass, 1, 3, 5, 5, 5);
	add(&pass, 1, 9, 5, 5, 5);
	cr_assert_str_eq(changes_of(&pass), "b1/1 b2/2 b1/3 b1/9 ");
	turn(&pass);
	cr_assert_str_eq(changes_of(&pass), "e1/1 e2/2 e1/3 e1/9 ");
	add(&pass, 1, 1, 5, 5, 5);  /* slept */
	add(&pass, 2, 2, 6, 6, 5);  /* ran */
	add(&pass, 1, 4, 1, 1, 90); /* 3 has ended */
	add(&pass, 1, 9, 5, 6, 5);  /* is on a CPU for the first time since */
	add(&pass, 1, 10, 0, 0, 90);
	cr_assert_str_eq(changes_of(&pass), "r2/2 e1/3 b1/4 r1/9 b1/10 ");
	tasks_pass_deinit(&pass);
}

Test(tasks_pass, a_tid_may_be_anothers_by_now) {
	struct tasks_pass pass = { 0 };

	add(&pass, 1, 7, 5, 5, 5);
	add(&pass, 1, 8, 5, 5, 5);
	turn(&pass);
	add(&pass, 1, 7, 5, 5, 6);
	add(&pass, 2, 8, 5, 5, 5);
	cr_assert_str_eq(changes_of(&pass), "e1/7 b1/7 e1/8 b2/8 ");
	tasks_pass_deinit(&pass);
}

Test(tasks_pass, tids_that_do_not_ascend_are_left_out) {
	struct tasks_pass pass = { 0 };

	add(&pass, 1, 7, 5, 5, 5);
	add(&pass, 1, 7, 6, 6, 6);
	add(&pass, 1, 3, 5, 5, 5);
	add(&pass, 1, 8, 5, 5, 5);
	cr_assert_eq(pass.now.n, 2);
	cr_assert_eq(tasks_pass_find(&pass, 7)->run_ns, 5);
	tasks_pass_deinit(&pass);
}

Test(tasks_pass, a_task_is_found_by_its_tid) {
	struct tasks_pass pass = { 0 };

	cr_assert_null(tasks_pass_find(&pass, 1));
	for (pid_t tid = 2; tid <= 50; tid += 2)
		add(&pass, 1, tid, (uint64_t)tid, 0, 0);
	for (pid_t tid = 0; tid <= 52; tid++) {
		const struct bpf_task *task = tasks_pass_find(&pass, tid);

		if (tid % 2 || tid < 2 || tid > 50)
			cr_assert_null(task);
		else
			cr_assert(task && task->tid == tid && task->run_ns == (uint64_t)tid);
	}
	tasks_pass_deinit(&pass);
}
