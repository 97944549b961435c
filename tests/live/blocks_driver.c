/* SPDX-License-Identifier: MIT */
/* Starts an interpreter on blocks_oracle.py and checks, from outside, the blocks that it says its frames are in. usage:
 * blocks_driver ORACLE COMMAND… — the lines are described in blocks_oracle.py.
 *
 * A thread tells a moment before it blocks, and the last one's line comes before it does: what differs is read again,
 * until the limit. */
#include "engine/base/clock.h"
#include "engine/cpython/blocks.h"
#include "engine/cpython/code.h"
#include "engine/cpython/objects.h"
#include "engine/proc/proc.h"
#include "tests/live/target.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>

#define TRIES 10000
#define TRY_US 10000
#define REFERENCES_MAX 64

struct test {
	struct proc proc;
	struct mem *mem;
	struct py_runtime rt;
	struct intern strings;
	struct py_code_cache codes;
	struct py_block_cache *blocks;
	struct py_stack_scratch scratch;
	struct strbuf got;
	uint64_t frames, gens, calls, references, again, wrong;
	uint64_t free_frames, free_reads; /* threads' frames in no block, looked at with everything cached */
};

static int begin(struct test *t, pid_t pid) {
	struct err err = { 0 };
	int r = proc_open("/proc", pid, &t->proc);

	if (!r)
		r = mem_live_new(pid, &t->mem);
	if (!r)
		r = py_runtime_attach(&t->proc, t->mem, &t->rt, &err);
	if (!r)
		r = intern_init(&t->strings);
	if (!r)
		r = py_block_cache_new(&t->rt, &t->blocks);
	if (!r)
		r = py_stack_scratch_init(&t->scratch);
	if (r)
		printf("not attached: %d\n", r);
	else
		py_code_cache_init(&t->codes, &t->rt, &t->strings);
	return r;
}

static int look_up(struct test *t, const struct py_raw_frame *frame, bool leaf, uint64_t *ret_serial,
	int64_t *ret_offset, const char **ret_name) {
	const struct py_code *code;
	int r = py_code_lookup(&t->codes, frame, 0, clock_mono_ns(), leaf, &code);

	if (r)
		return r;
	*ret_serial = code->serial;
	*ret_offset = py_code_offset(&t->codes, code, frame);
	*ret_name = intern_str(&t->strings, code->name);
	return 0;
}

/* Each manager that is told is somewhere on the value stack, itself or as what a method is bound to. */
static bool on_stack(struct test *t, const struct py_raw_frame *frame, raddr manager) {
	raddr objects[REFERENCES_MAX], self;
	size_t n = 0;
	char name[64];

	if (py_stack_references(&t->rt, frame, objects, REFERENCES_MAX, &n))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (objects[i] == manager)
			return true;
		if (!py_callable_read(&t->rt.reader, objects[i], &self, name, sizeof(name)) && self == manager)
			return true;
	}
	return false;
}

static int add_blocks(struct test *t, const struct py_raw_frame *frame, uint64_t serial, int64_t offset) {
	struct py_block blocks[PY_BLOCKS_MAX];
	size_t n = 0;
	int r = py_blocks_read(t->blocks, frame, serial, offset, blocks, &n);

	for (size_t i = 0; !r && i < n; i++) {
		strbuf_addf(&t->got, " %s%" PRIx64, blocks[i].is_async ? "a" : "", blocks[i].manager);
		if (!on_stack(t, frame, blocks[i].manager))
			strbuf_adds(&t->got, " (not on the stack)");
		t->references++;
	}
	return r;
}

static void count_free(struct test *t, const struct py_raw_frame *frame, uint64_t serial, int64_t offset) {
	struct py_block blocks[PY_BLOCKS_MAX];
	uint64_t reads = t->mem->reads;
	size_t n;

	if (py_blocks_read(t->blocks, frame, serial, offset, blocks, &n) || n)
		return;
	t->free_frames++;
	t->free_reads += t->mem->reads - reads;
}

/* The blocks of one thread's frame of that name, as the oracle would write them. */
static int read_named(struct test *t, const struct py_thread *thread, const char *wanted) {
	struct py_stack_plan plan;
	struct py_raw_stack stack = { 0 };
	uint64_t serial;
	int64_t offset;
	const char *name;
	int r;

	py_stack_plan_init(&plan, thread);
	r = py_stack_capture(&t->rt, &plan, &t->scratch, &stack);
	for (size_t i = 0; !r && i < stack.frames.n; i++) {
		r = look_up(t, &stack.frames.items[i], !i, &serial, &offset, &name);
		if (r || strcmp(name, wanted))
			continue;
		r = add_blocks(t, &stack.frames.items[i], serial, offset);
		count_free(t, &stack.frames.items[i], serial, offset);
		goto end;
	}
	r = r ? r : PY_E_TYPE;
end:
	py_raw_stack_deinit(&stack);
	py_stack_plan_deinit(&plan);
	return r;
}

static int do_frame(struct test *t, uint64_t ident, char *fields) {
	char *name = strsep(&fields, " ");
	py_thread_vec threads = { 0 };
	int r = py_threads_read(&t->rt, &t->proc, &threads);

	strbuf_adds(&t->got, name);
	if (!r) {
		r = PY_E_TYPE;
		vec_foreach (thread, &threads)
			if (thread->ident == ident)
				r = read_named(t, thread, name);
	}
	vec_free(&threads);
	return r;
}

static int do_gen(struct test *t, uint64_t object, char *fields) {
	static const char *const states[] = { "created", "suspended", "running", "done" };
	struct py_gen gen;
	uint64_t serial;
	int64_t offset;
	const char *name;
	int r = py_gen_read(&t->rt, object, &gen);

	(void)fields;
	if (r)
		return r;
	strbuf_addf(&t->got, "%s %" PRIx64, states[gen.state], gen.awaits);
	if (gen.state == PY_GEN_DONE)
		return 0;
	r = look_up(t, &gen.frame, true, &serial, &offset, &name);
	return r ? r : add_blocks(t, &gen.frame, serial, offset);
}

static int do_call(struct test *t, uint64_t object, char *fields) {
	raddr self = 0;
	char name[64] = "";
	int r = py_callable_read(&t->rt.reader, object, &self, name, sizeof(name));

	(void)fields;
	strbuf_addf(&t->got, "%" PRIx64 " %s", self, name);
	return r;
}

static void check(struct test *t, const char *kind, const char *key, const char *expected) {
	uint64_t address = strtoull(key, NULL, 16);
	int r = -1;

	for (unsigned i = 0; i < TRIES; i++) {
		_free_ char *copy = strdup(expected);

		strbuf_deinit(&t->got);
		r = !strcmp(kind, "frame")     ? do_frame(t, address, copy)
			: !strcmp(kind, "gen") ? do_gen(t, address, copy)
					       : do_call(t, address, copy);
		if (!r && !strcmp(strbuf_str(&t->got), expected))
			return;
		if (strcmp(kind, "frame"))
			break;
		t->again++;
		usleep(TRY_US);
	}
	t->wrong++;
	printf("%s %s: result %d, %s instead of %s\n", kind, key, r, strbuf_str(&t->got), expected);
}

static bool run(struct test *t, FILE *in) {
	target_lines lines = { 0 };
	bool ready = target_read(in, &lines);

	if (ready && !strncmp(lines.items[0], "start ", 6) && !begin(t, (pid_t)atoi(lines.items[0] + 6))) {
		for (size_t i = 1; i + 1 < lines.n; i++) {
			char *rest = lines.items[i], *kind = strsep(&rest, " "), *key = strsep(&rest, " ");

			t->frames += !strcmp(kind, "frame");
			t->gens += !strcmp(kind, "gen");
			t->calls += !strcmp(kind, "call");
			check(t, kind, key, rest ? rest : "");
		}
	} else {
		printf("the interpreter ended early, or was not attached to\n");
		t->wrong++;
	}
	target_forget(&lines);
	return t->wrong == 0;
}

int main(int argc, char **argv) {
	struct test t = { .wrong = 0 };
	struct target target;
	uint64_t allowed;

	if (argc < 3 || target_start(argv[1], argv + 2, &target)) {
		fprintf(stderr, "usage: blocks_driver ORACLE COMMAND…\n");
		return 2;
	}
	run(&t, target.out);
	close(target.held);
	fclose(target.out);
	waitpid(target.pid, NULL, 0);
	/* to 3.10 the frame itself has to be asked */
	allowed = layout_has(t.rt.reader.layout.frame_blockstack) ? t.free_frames : 0;
	if (t.free_reads > allowed) {
		printf("%" PRIu64 " reads of %" PRIu64 " frames in no block\n", t.free_reads, t.free_frames);
		t.wrong++;
	}
	printf("%" PRIu64 " frames, %" PRIu64 " generators, %" PRIu64 " callables, %" PRIu64 " blocks, %" PRIu64
	       " read again, %" PRIu64 " wrong\n",
		t.frames, t.gens, t.calls, t.references, t.again, t.wrong);
	if (t.blocks) {
		py_block_cache_free(t.blocks);
		py_code_cache_deinit(&t.codes);
		intern_deinit(&t.strings);
		py_stack_scratch_deinit(&t.scratch);
	}
	mem_free(t.mem);
	strbuf_deinit(&t.got);
	return t.wrong || !t.frames;
}
