/* SPDX-License-Identifier: MIT */
/* Starts an interpreter on names_oracle.py and checks, from outside, how its frames name objects and which locks they
 * have acquired. usage: names_driver ORACLE COMMAND… — the lines are described in names_oracle.py.
 *
 * A thread tells a moment before it blocks: what differs is read again, until the time for that is over, of all. */
#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include "engine/cpython/acquired.h"
#include "engine/cpython/names.h"
#include "engine/proc/proc.h"
#include "tests/live/target.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>

#define SETTLE_NS (60 * NS_PER_SEC)
#define STEP_NS (10 * NS_PER_MS)
#define READS_ALLOWED 2500 /* of one search */

struct test {
	struct proc proc;
	struct mem *mem;
	struct py_runtime rt;
	struct intern strings;
	struct py_code_cache codes;
	struct py_stack_scratch scratch;
	struct strbuf got;
	bool begun;
	uint64_t names, acquired, again, wrong;
	uint64_t reads_max; /* of one look at one frame */
	uint64_t end_ns;    /* nothing is read again after this */
};

static bool begin(struct test *t, pid_t pid) {
	struct err err = { 0 };
	int r = proc_open("/proc", pid, &t->proc);

	if (!r)
		r = mem_live_new(pid, &t->mem);
	if (!r)
		r = py_runtime_attach(&t->proc, t->mem, &t->rt, &err);
	if (!r)
		r = intern_init(&t->strings);
	if (!r)
		r = py_stack_scratch_init(&t->scratch);
	if (r) {
		printf("not attached: %d\n", r);
		return false;
	}
	py_code_cache_init(&t->codes, &t->rt, &t->strings);
	t->begun = true;
	return true;
}

/* The checks: both write what they find as the oracle does. */

static int read_name(
	struct test *t, const struct py_raw_frame *frame, const struct py_code *code, const char *address) {
	char text[256];
	int r = py_name_find(&t->rt, frame, strtoull(address, NULL, 16), text, sizeof(text));

	(void)code;
	if (r && r != PY_E_TYPE)
		return r;
	strbuf_addf(&t->got, " %s %s", address, r ? "-" : text);
	return 0;
}

static int read_acquired(
	struct test *t, const struct py_raw_frame *frame, const struct py_code *code, const char *unused) {
	struct py_acquired acquired[16];
	size_t n = 0;
	int r = py_acquired_read(&t->rt, &t->codes, code, frame, py_code_offset(&t->codes, code, frame), acquired,
		ARRAY_SIZE(acquired), &n);

	(void)unused;
	for (size_t i = 0; !r && i < n; i++)
		strbuf_addf(&t->got, " %s:%" PRIx64 ":%d:%d", acquired[i].expression, acquired[i].object,
			acquired[i].line, acquired[i].timed_or_nonblocking);
	return r;
}

typedef int (*read_frame)(
	struct test *t, const struct py_raw_frame *frame, const struct py_code *code, const char *argument);

static int read_stack(
	struct test *t, const struct py_raw_stack *stack, const char *function, read_frame read, const char *argument) {
	const struct py_code *code;

	for (size_t i = 0; i < stack->frames.n; i++) {
		const struct py_raw_frame *frame = &stack->frames.items[i];
		uint64_t reads;
		int r = py_code_lookup(&t->codes, frame, 0, clock_mono_ns(), !i, &code);

		if (r)
			return r;
		if (strcmp(intern_str(&t->strings, code->name), function))
			continue;
		reads = t->mem->reads;
		r = read(t, frame, code, argument);
		t->reads_max = max_of(t->reads_max, t->mem->reads - reads);
		return r;
	}
	return PY_E_TYPE;
}

static int read_thread(struct test *t, uint64_t ident, const char *function, read_frame read, const char *argument) {
	py_thread_vec threads = { 0 };
	struct py_raw_stack stack = { 0 };
	struct py_stack_plan plan;
	int r = py_threads_read(&t->rt, &t->proc, &threads);

	if (!r)
		r = PY_E_TYPE;
	vec_foreach (thread, &threads) {
		if (thread->ident != ident || r != PY_E_TYPE)
			continue;
		py_stack_plan_init(&plan, thread);
		r = py_stack_capture(&t->rt, &plan, &t->scratch, &stack);
		if (!r)
			r = read_stack(t, &stack, function, read, argument);
		py_stack_plan_deinit(&plan);
	}
	py_raw_stack_deinit(&stack);
	vec_free(&threads);
	return r;
}

static void check(struct test *t, const char *kind, const char *ident, const char *expected) {
	read_frame read = !strcmp(kind, "name") ? read_name : read_acquired;
	int r = -1;

	for (;;) {
		_free_ char *copy = strdup(expected);
		char *rest = copy, *function = strsep(&rest, " "), *argument = rest ? strsep(&rest, " ") : NULL;

		strbuf_deinit(&t->got);
		strbuf_adds(&t->got, function);
		r = read_thread(t, strtoull(ident, NULL, 16), function, read, argument);
		if (!r && !strcmp(strbuf_str(&t->got), expected))
			return;
		if (clock_mono_ns() >= t->end_ns)
			break;
		t->again++;
		nanosleep(&(struct timespec){ .tv_nsec = STEP_NS }, NULL);
	}
	t->wrong++;
	printf("%s: result %d, %s instead of %s\n", kind, r, strbuf_str(&t->got), expected);
}

static void run(struct test *t, FILE *in) {
	target_lines lines = { 0 };
	bool ready = target_read(in, &lines);

	if (ready && !strncmp(lines.items[0], "start ", 6) && begin(t, (pid_t)atoi(lines.items[0] + 6))) {
		t->end_ns = clock_mono_ns() + SETTLE_NS;
		for (size_t i = 1; i + 1 < lines.n; i++) {
			char *rest = lines.items[i], *kind = strsep(&rest, " "), *ident = strsep(&rest, " ");

			t->names += !strcmp(kind, "name");
			t->acquired += !strcmp(kind, "acquired");
			check(t, kind, ident, rest ? rest : "");
		}
	} else {
		printf("the interpreter ended early, or was not attached to\n");
		t->wrong++;
	}
	target_forget(&lines);
}

int main(int argc, char **argv) {
	struct test t = { .wrong = 0 };
	struct target target;

	if (argc < 3 || target_start(argv[1], argv + 2, &target)) {
		fprintf(stderr, "usage: names_driver ORACLE COMMAND…\n");
		return 2;
	}
	run(&t, target.out);
	close(target.held);
	fclose(target.out);
	waitpid(target.pid, NULL, 0);
	if (t.reads_max > READS_ALLOWED) {
		printf("too many reads\n");
		t.wrong++;
	}
	printf("%" PRIu64 " names, %" PRIu64 " frames with calls of acquire, %" PRIu64 " read again, at most %" PRIu64
	       " reads, %" PRIu64 " wrong\n",
		t.names, t.acquired, t.again, t.reads_max, t.wrong);
	if (t.begun) {
		py_code_cache_deinit(&t.codes);
		intern_deinit(&t.strings);
		py_stack_scratch_deinit(&t.scratch);
	}
	mem_free(t.mem);
	strbuf_deinit(&t.got);
	return t.wrong || !t.names || !t.acquired;
}
