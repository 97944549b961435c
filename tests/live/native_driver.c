/* SPDX-License-Identifier: MIT */
/* Prints the native stacks of a process's threads: native_oracle.py compares them with gdb's.
 *
 * usage: native_driver PID asleep|stop
 *
 *   thread TID STOP STOPPED_NS    "asleep": without stopping it; "stop": with its registers
 *   frame PC NAME                 most recent call first */
#include "engine/native/symbols.h"
#include "engine/native/unwind.h"

#include <inttypes.h>
#include <string.h>

#define CACHE_BYTES (64U << 20)
#define TIMEOUT_NS 100000000
#define COPY_BYTES (128U << 10)

struct look {
	struct proc proc;
	struct mem *mem;
	struct native_cache *cache;
	struct native_modules *modules;
	struct native_stack stack;
	struct native_trace trace;
};

static void print_trace(struct look *look, pid_t tid, uint64_t stopped_ns) {
	static struct native_place place;

	printf("thread %d %s %" PRIu64 "\n", (int)tid, native_stop_text(look->trace.stop), stopped_ns);
	for (size_t i = 0; i < look->trace.n; i++) {
		const struct native_frame *frame = &look->trace.frames[i];

		if (native_symbolize(look->modules, native_frame_at(frame), &place))
			place = (struct native_place){ .name = "" };
		printf("frame %" PRIx64 "%s %s %s\n", frame->ip, frame->by_fp ? "!" : "",
			place.name[0] ? place.name : "?",
			place.module ? native_module_path(look->modules, place.module) : "");
	}
}

static int look_asleep(struct look *look, pid_t tid) {
	struct native_unwinder unwinder = { .modules = look->modules, .mem = look->mem, .stack = &look->stack };
	struct proc_sleep sleep;
	struct native_regs regs;
	int r = proc_sleep_read(&look->proc, tid, &sleep);

	if (r || !native_regs_of_sleep(&sleep, &regs))
		return r ? r : -EAGAIN;
	r = native_stack_copy(&look->stack, look->mem, sleep.sp, UINT64_MAX, 16384);
	if (r)
		return r;
	native_unwind(&unwinder, &regs, &look->trace);
	print_trace(look, tid, 0);
	return 0;
}

static int look_stopped(struct look *look, pid_t tid) {
	struct native_unwinder unwinder = { .modules = look->modules, .stack = &look->stack };
	struct native_catch caught;
	int r = native_catch(tid, look->mem, &look->modules->maps, COPY_BYTES, TIMEOUT_NS, &look->stack, &caught);

	if (r)
		return r;
	native_unwind(&unwinder, &caught.regs, &look->trace);
	print_trace(look, tid, caught.stopped_ns);
	return 0;
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

int main(int argc, char **argv) {
	static struct look look;
	int r = argc == 3 ? proc_open("/proc", atoi(argv[1]), &look.proc) : -EINVAL;

	if (!r)
		r = mem_live_new(look.proc.pid, &look.mem);
	if (!r)
		r = native_cache_new(CACHE_BYTES, &look.cache);
	if (!r)
		r = native_modules_new(&look.proc, look.mem, look.cache, &look.modules);
	if (!r)
		r = native_stack_init(&look.stack);
	if (!r)
		r = look_at_threads(&look, !strcmp(argv[2], "stop"));
	native_stack_deinit(&look.stack);
	native_modules_free(look.modules);
	native_cache_free(look.cache);
	mem_free(look.mem);
	proc_close(&look.proc);
	if (r)
		printf("error %d\n", r);
	return r ? 1 : 0;
}
