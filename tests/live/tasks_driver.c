/* SPDX-License-Identifier: MIT */
/* Starts an interpreter on tasks_oracle.py and compares what it says of its event loops, tasks and futures with what is
 * seen in its memory. usage: tasks_driver ORACLE COMMAND… — the lines are described in tasks_oracle.py. */
#include "engine/base/clock.h"
#include "engine/cpython/objects.h"
#include "engine/cpython/tasks.h"
#include "tests/live/target.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>

#define SHOWN_MAX 12
#define TASKS_MAX 1000
#define SETTLE_S 20
#define SETTLE_NS (SETTLE_S * NS_PER_SEC) /* until a loop has come to its poll, on a machine that is busy */
#define STEP_NS (20 * NS_PER_MS)

typedef VEC(char *) line_vec;

struct test {
	struct py_runtime rt;
	struct proc proc;
	struct mem *mem;
	struct intern strings;
	struct py_code_cache codes;
	struct py_stack_scratch scratch;
	bool attached;
	line_vec told, seen;
	uint64_t tasks, checks, wrong;
};

static void forget(line_vec *lines) {
	vec_foreach (line, lines)
		free(*line);
	lines->n = 0;
}

static int keep_line(line_vec *lines, struct strbuf *text) {
	char *line = strbuf_take(text);

	return line ? vec_push(lines, line) : -ENOMEM;
}

/* What is seen, written as the oracle writes it */

static int write_functions(struct test *t, const struct py_task *task, struct strbuf *out) {
	for (size_t i = 0; i < task->frames_n; i++) {
		const struct py_code *code;
		int r = py_code_lookup(&t->codes, &task->frames[i], 0, clock_mono_ns(), false, &code);

		if (r)
			return r;
		strbuf_addf(out, "%s%s", i ? "," : "", intern_str(&t->strings, code->name));
	}
	return 0;
}

static int see_task(struct test *t, const struct py_task *task) {
	struct strbuf out = { 0 };
	char type[64] = "-";
	raddr primitive = 0;
	int r = py_task_primitive(&t->rt, &t->codes, task, &primitive, type, sizeof(type));

	if (r && r != PY_E_TYPE)
		return r;
	strbuf_addf(&out, "task\t%" PRIx64 "\t%s\t%d\t%" PRIx64 "\t%" PRIx64 "\t%s\t%" PRIx64 "\t%" PRIx64 "\t%s\t",
		task->object, task->name, task->running, task->loop, task->waiter,
		!task->waiter                  ? "none"
			: task->waiter_is_task ? "task"
					       : "future",
		task->awaitable, primitive, type);
	r = write_functions(t, task, &out);
	if (!r)
		return keep_line(&t->seen, &out);
	strbuf_deinit(&out);
	return r;
}

static int see_tasks(struct test *t, const py_thread_vec *threads) {
	py_task_vec tasks = { 0 };
	int r = py_tasks_read(&t->rt, threads->items, threads->n, TASKS_MAX, &tasks);

	t->tasks = tasks.n;
	for (size_t i = 0; !r && i < tasks.n; i++)
		r = see_task(t, &tasks.items[i]);
	py_tasks_free(&tasks);
	return r;
}

static int see_future(struct test *t, raddr object) {
	static const char *const states[] = { "PENDING", "CANCELLED", "FINISHED" };
	struct strbuf out = { 0 };
	struct py_future future;
	int r = py_future_read(&t->rt, object, &future);

	if (r)
		return r;
	strbuf_addf(&out, "future\t%" PRIx64 "\t%s\t%d\t", object, states[future.state], future.is_task);
	for (size_t i = 0; i < future.children_n; i++)
		strbuf_addf(&out, "%s%" PRIx64, i ? "," : "", future.children[i]);
	return keep_line(&t->seen, &out);
}

/* Those that the target names. */
static int see_futures(struct test *t) {
	int r = 0;

	vec_foreach (line, &t->told)
		if (!r && !strncmp(*line, "future\t", 7))
			r = see_future(t, strtoull(*line + 7, NULL, 16));
	return r;
}

static int see_loop(struct test *t, const struct py_loop *loop) {
	struct strbuf out = { 0 };

	strbuf_addf(&out,
		"loop\t%" PRIx64 "\t%" PRIx64 "\t%d\t%" PRIu64 "\t%" PRIu64 "\t%.6f\t%" PRIu64 "\t%.6f\t%" PRId64
		"\t%" PRIx64 "\t%d\t%d",
		loop->object, loop->running_task, loop->polling, loop->ready, loop->scheduled, loop->next_timer_s,
		loop->overdue, loop->round_began_s, loop->round_index, loop->handle, loop->selector_fd,
		loop->self_pipe_fd);
	return keep_line(&t->seen, &out);
}

static int capture_all(
	struct test *t, const py_thread_vec *threads, struct py_thread_frames *frames, struct py_raw_stack *stacks) {
	for (size_t i = 0; i < threads->n; i++) {
		struct py_stack_plan plan;
		int r;

		py_stack_plan_init(&plan, &threads->items[i]);
		r = py_stack_capture(&t->rt, &plan, &t->scratch, &stacks[i]);
		py_stack_plan_deinit(&plan);
		if (r)
			return r;
		frames[i] = (struct py_thread_frames){ .thread = threads->items[i], .stack = &stacks[i] };
	}
	return 0;
}

static int see_loops(struct test *t, const py_thread_vec *threads) {
	_free_ struct py_thread_frames *frames = calloc(threads->n, sizeof(*frames));
	_free_ struct py_raw_stack *stacks = calloc(threads->n, sizeof(*stacks));
	py_loop_vec loops = { 0 };
	int r = frames && stacks ? capture_all(t, threads, frames, stacks) : -ENOMEM;

	if (!r)
		r = py_loops_read(&t->rt, &t->codes, frames, threads->n, clock_mono_ns(), &loops);
	for (size_t i = 0; !r && i < loops.n; i++)
		r = see_loop(t, &loops.items[i]);
	for (size_t i = 0; stacks && i < threads->n; i++)
		py_raw_stack_deinit(&stacks[i]);
	vec_free(&loops);
	return r;
}

static int see_all(struct test *t) {
	py_thread_vec threads = { 0 };
	int r = py_threads_read(&t->rt, &t->proc, &threads);

	forget(&t->seen);
	if (!r)
		r = see_tasks(t, &threads);
	if (!r)
		r = see_futures(t);
	if (!r)
		r = see_loops(t, &threads);
	vec_free(&threads);
	return r;
}

/* Comparing */

static char *next_field(char **rest) {
	char *field = strsep(rest, "\t");

	return field ? field : (char *)"";
}

/* Field by field; what was told as * may be anything. */
static bool same_line(const char *told, const char *seen) {
	_free_ char *told_copy = strdup(told), *seen_copy = strdup(seen);
	char *a = told_copy, *b = seen_copy;
	bool same = true;

	while (same && (a || b)) {
		const char *told_field = next_field(&a), *seen_field = next_field(&b);

		same = !strcmp(told_field, "*") || !strcmp(told_field, seen_field);
	}
	return same;
}

static bool is_among(const char *line, const line_vec *lines, bool line_is_told) {
	vec_foreach (other, lines)
		if (line_is_told ? same_line(line, *other) : same_line(*other, line))
			return true;
	return false;
}

/* Return: the number of lines that are in one of the two only. */
static uint64_t compare(const struct test *t, bool show) {
	uint64_t wrong = 0;

	vec_foreach (line, &t->told)
		if (!is_among(*line, &t->seen, true) && wrong++ < SHOWN_MAX && show)
			printf("told, not seen: %.400s\n", *line);
	vec_foreach (line, &t->seen)
		if (!is_among(*line, &t->told, false) && wrong++ < SHOWN_MAX && show)
			printf("seen, not told: %.400s\n", *line);
	return wrong;
}

/* The target has told everything, but may not have come to where it waits. */
static void look(struct test *t) {
	uint64_t end = clock_mono_ns() + SETTLE_NS, wrong;
	int r;

	for (;;) {
		r = see_all(t);
		wrong = r ? 1 : compare(t, false);
		if (!wrong || clock_mono_ns() >= end)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = STEP_NS }, NULL);
	}
	if (r)
		printf("the look ended with %d\n", r);
	else
		compare(t, true);
	t->checks += t->told.n;
	t->wrong += wrong;
}

static bool attach(struct test *t, pid_t pid) {
	struct err err = { 0 };

	if (proc_open("/proc", pid, &t->proc) || mem_live_new(pid, &t->mem) || intern_init(&t->strings) ||
		py_stack_scratch_init(&t->scratch))
		return false;
	t->attached = true;
	if (py_runtime_attach(&t->proc, t->mem, &t->rt, &err)) {
		printf("cannot attach: %s\n", err.text);
		return false;
	}
	py_code_cache_init(&t->codes, &t->rt, &t->strings);
	return true;
}

static void detach(struct test *t) {
	forget(&t->told);
	forget(&t->seen);
	vec_free(&t->told);
	vec_free(&t->seen);
	if (!t->attached)
		return;
	py_code_cache_deinit(&t->codes);
	py_stack_scratch_deinit(&t->scratch);
	intern_deinit(&t->strings);
	mem_free(t->mem);
	proc_close(&t->proc);
}

/* Return: looks that were taken. */
static unsigned run(struct test *t, struct target *target) {
	_free_ char *line = NULL;
	size_t size = 0;
	unsigned looks = 0;
	ssize_t n;

	while ((n = getline(&line, &size, target->out)) > 0) {
		line[n - 1] = '\0';
		if (!strncmp(line, "start\t", 6)) {
			if (!attach(t, (pid_t)strtol(line + 6, NULL, 10)))
				break;
		} else if (!strcmp(line, "look")) {
			look(t);
			looks++;
			forget(&t->told);
			if (write(target->held, "", 1) != 1)
				break;
		} else if (vec_push(&t->told, strdup(line))) {
			break;
		}
	}
	return looks;
}

int main(int argc, char **argv) {
	struct test t = { .checks = 0 };
	struct target target;
	unsigned looks;

	if (argc < 3 || target_start(argv[1], argv + 2, &target)) {
		fprintf(stderr, "usage: tasks_driver ORACLE COMMAND…\n");
		return 2;
	}
	looks = run(&t, &target);
	close(target.held);
	fclose(target.out);
	waitpid(target.pid, NULL, 0);
	printf("%u looks, %" PRIu64 " tasks in the last, %" PRIu64 " lines checked, %" PRIu64 " differences\n", looks,
		t.tasks, t.checks, t.wrong);
	detach(&t);
	return t.wrong || looks < 2;
}
