/* SPDX-License-Identifier: MIT */
/* Prints the native stacks of a process's threads, which native_oracle.py compares with gdb's, or merged ones.
 *
 * usage: native_driver PID asleep|stop|merge
 *        native_driver FILE cold|stubs
 *
 *   thread TID STOPPED_NS STOP     "asleep", "merge": without stopping it; "stop": with all registers
 *   frame PC FLAGS NAME MODULE     most recent call first; FLAGS: "-", then "f" by the frame pointer, "r" recovered,
 *                                  "s" a signal's trampoline, "!" unmatched
 *   python NAME FLAGS
 *   cold START SIZE                of the evaluation loop's cold part, found without its symbol
 *   ADDRESS <NAME@plt>:            a stub of the PLT */
#include "engine/base/clock.h"
#include "engine/cpython/code.h"
#include "engine/native/cold.h"
#include "engine/native/merge.h"
#include "engine/native/plt.h"
#include "engine/native/symbols.h"
#include "engine/native/unwind.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#define CACHE_BYTES (64U << 20)
#define TIMEOUT_NS (5 * NS_PER_SEC)
#define COPY_BYTES (128U << 10)
#define ASLEEP_BYTES (16U << 10)
#define ASLEEP_NS (60 * NS_PER_SEC) /* until a thread sleeps, on a machine that is busy */
#define STEP_NS (1 * NS_PER_MS)

struct look {
	struct proc proc;
	struct mem *mem;
	struct native_cache *cache;
	struct native_modules *modules;
	struct native_stack stack;
	struct native_trace trace;
	/* merge */
	struct py_runtime rt;
	struct intern strings;
	struct py_code_cache codes;
	struct py_stack_scratch scratch;
};

static void print_native(struct look *look, size_t i, bool unmatched) {
	const struct native_frame *frame = &look->trace.frames[i];
	static struct native_place place;

	if (native_symbolize(look->modules, native_frame_at(frame), &place))
		place = (struct native_place){ .name = "" };
	printf("frame %" PRIx64 " -%s%s%s%s %s %s\n", frame->ip, frame->by_fp ? "f" : "", frame->signal ? "s" : "",
		frame->recovered ? "r" : "", unmatched ? "!" : "", place.name[0] ? place.name : "?",
		place.module ? native_module_path(look->modules, place.module) : "");
}

static void print_trace(struct look *look, pid_t tid, uint64_t stopped_ns) {
	printf("thread %d %" PRIu64 " %s\n", (int)tid, stopped_ns, native_stop_text(look->trace.stop));
	for (size_t i = 0; i < look->trace.n; i++)
		print_native(look, i, false);
}

static int unwind_asleep(struct look *look, pid_t tid) {
	struct native_unwinder unwinder = { .modules = look->modules, .mem = look->mem, .stack = &look->stack };
	struct proc_sleep sleep;
	struct native_regs regs;
	int r = proc_sleep_read(&look->proc, tid, &sleep);

	if (r || !native_regs_of_sleep(&sleep, &regs))
		return r ? r : -EAGAIN;
	r = native_stack_copy(&look->stack, look->mem, sleep.sp, UINT64_MAX, ASLEEP_BYTES);
	if (!r)
		native_unwind(&unwinder, &regs, &look->trace);
	return r;
}

/* Its "ready" may be ahead of its sleep, and what stopped it last has just let it go. */
static int unwind_when_asleep(struct look *look, pid_t tid) {
	uint64_t end = clock_mono_ns() + ASLEEP_NS;
	int r = unwind_asleep(look, tid);

	while (r == -EAGAIN && clock_mono_ns() < end) {
		nanosleep(&(struct timespec){ .tv_nsec = STEP_NS }, NULL);
		r = unwind_asleep(look, tid);
	}
	return r;
}

static int look_asleep(struct look *look, pid_t tid) {
	int r = unwind_when_asleep(look, tid);

	if (!r)
		print_trace(look, tid, 0);
	return r;
}

static int look_stopped(struct look *look, pid_t tid) {
	struct native_unwinder unwinder = { .modules = look->modules, .stack = &look->stack };
	struct native_catch caught;
	const struct native_catch_how how = { .stack_max = COPY_BYTES, .timeout_ns = TIMEOUT_NS };
	int r = native_catch(tid, look->mem, &look->modules->maps, &how, &look->stack, &caught);

	if (r)
		return r;
	native_unwind(&unwinder, &caught.regs, &look->trace);
	print_trace(look, tid, caught.stopped_ns);
	return 0;
}

static void print_python(struct look *look, const struct py_raw_frame *frame, bool unmatched) {
	const struct py_code *code;
	int r = py_code_lookup(&look->codes, frame, 0, clock_mono_ns(), false, &code);

	printf("python %s %s\n", r ? "?" : intern_str(&look->strings, code->name), unmatched ? "!" : "-");
}

static void print_merged(struct look *look, const struct py_raw_stack *stack) {
	static uint8_t kinds[NATIVE_FRAMES_MAX];
	static bool entry[LIMIT_FRAMES];
	static struct merge_frame merged[NATIVE_FRAMES_MAX + LIMIT_FRAMES];
	static struct native_place place;
	struct merge_input in = { .native = kinds,
		.native_n = look->trace.n,
		.native_complete = look->trace.stop == NATIVE_COMPLETE,
		.entry = entry,
		.python_n = stack->frames.n,
		.python_complete = !stack->truncated };
	size_t n, unmatched;

	for (size_t i = 0; i < in.native_n; i++)
		kinds[i] = native_symbolize(look->modules, native_frame_at(&look->trace.frames[i]), &place)
			? MERGE_OTHER
			: (uint8_t)merge_native_of(place.symbol);
	for (size_t i = 0; i < in.python_n; i++)
		entry[i] = stack->frames.items[i].entry;
	n = merge_stacks(&in, merged, &unmatched);
	for (size_t i = 0; i < n; i++)
		if (merged[i].kind == MERGE_PYTHON)
			print_python(look, &stack->frames.items[merged[i].index], merged[i].unmatched);
		else
			print_native(look, merged[i].index, merged[i].unmatched);
}

static int look_merged(struct look *look, const struct py_thread *thread) {
	struct py_raw_stack stack = { 0 };
	struct py_stack_plan plan;
	int r;

	py_stack_plan_init(&plan, thread);
	r = py_stack_capture(&look->rt, &plan, &look->scratch, &stack);
	if (!r)
		r = unwind_when_asleep(look, thread->tid);
	if (!r) {
		printf("thread %d 0 %s\n", (int)thread->tid, native_stop_text(look->trace.stop));
		print_merged(look, &stack);
	}
	py_raw_stack_deinit(&stack);
	py_stack_plan_deinit(&plan);
	return r;
}

static int merge_threads(struct look *look) {
	py_thread_vec threads = { 0 };
	struct err err = { 0 };
	int r = py_runtime_attach(&look->proc, look->mem, &look->rt, &err);

	if (!r)
		r = intern_init(&look->strings);
	if (!r)
		r = py_stack_scratch_init(&look->scratch);
	if (!r) {
		py_code_cache_init(&look->codes, &look->rt, &look->strings);
		r = py_threads_read(&look->rt, &look->proc, &threads);
	}
	vec_foreach (thread, &threads) {
		int one = look_merged(look, thread);

		if (one)
			printf("thread %d error %d\n", (int)thread->tid, one);
	}
	vec_free(&threads);
	return r;
}

static int look_at_threads(struct look *look, bool stop) {
	pid_vec tids = { 0 };
	int r = proc_threads(&look->proc, &tids);

	vec_foreach (tid, &tids) {
		int one = stop ? look_stopped(look, *tid) : look_asleep(look, *tid);

		if (one)
			printf("thread %d error %d\n", (int)*tid, one);
	}
	vec_free(&tids);
	return r;
}

/* Names of stubs, as objdump shows them. */
static int print_stubs(const char *path) {
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct symbol_table table = { .end = UINT64_MAX };
	struct elf_image *img;
	int r = fd < 0 ? -errno : elf_image_open(fd, &img);

	if (!r)
		r = symbol_table_add_plt(&table, img);
	vec_foreach (row, &table.rows)
		printf("%016" PRIx64 " <%s>:\n", row->vaddr, table.names.items + row->name);
	return r ? 1 : 0;
}

static int print_cold(const char *path) {
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct symbol_table table = { .end = UINT64_MAX };
	struct elf_image *img;
	size_t before;
	int r = fd < 0 ? -errno : elf_image_open(fd, &img);

	if (!r)
		r = symbol_table_add_image(&table, img);
	before = table.rows.n;
	if (!r)
		r = symbol_table_add_cold(&table, img, "_PyEval_EvalFrameDefault");
	if (!r && table.rows.n > before)
		printf("cold %" PRIx64 " %" PRIu64 "\n", table.rows.items[before].vaddr, table.rows.items[before].size);
	return r ? 1 : 0;
}

int main(int argc, char **argv) {
	static struct look look;
	int r = argc == 3 ? 0 : -EINVAL;

	if (!r && !strcmp(argv[2], "cold"))
		return print_cold(argv[1]);
	if (!r && !strcmp(argv[2], "stubs"))
		return print_stubs(argv[1]);
	if (!r)
		r = proc_open("/proc", atoi(argv[1]), &look.proc);
	if (!r)
		r = mem_live_new(look.proc.pid, &look.mem);
	if (!r)
		r = native_cache_new(CACHE_BYTES, &look.cache);
	if (!r)
		r = native_modules_new(&look.proc, look.mem, look.cache, &look.modules);
	if (!r)
		r = native_stack_init(&look.stack);
	if (!r)
		r = !strcmp(argv[2], "merge") ? merge_threads(&look) : look_at_threads(&look, !strcmp(argv[2], "stop"));
	if (r)
		printf("error %d\n", r);
	return r ? 1 : 0;
}
