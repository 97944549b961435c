/* SPDX-License-Identifier: MIT */
/* A thread's stack below and between its Python frames.
 *
 * One that sleeps is read as it is: its registers are what the kernel shows of its system call, and the caller proves
 * that it slept all the while. One that runs is stopped, where that is allowed: registers, the top of its stack and, by
 * the caller's hook, its Python frames are copied in one stop; all else comes after it has been let go, out of the
 * copy. Of a thread that somebody holds anyway, everything is read at once.
 *
 * What could not be had is never left out in silence: `why`, native_end and doubts of frames say it. */
#include "engine/pipeline/native_look.h"

#include "engine/base/clock.h"
#include "engine/native/merge.h"
#include "engine/native/symbols.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define CACHE_BYTES (64U << 20)
#define ASLEEP_BYTES (16U << 10)       /* copied at once; what lies above is read as it is needed */
#define STOP_WAIT_NS (100 * NS_PER_MS) /* until a thread that is to be stopped has a CPU to stop at; … */
#define STOPS_NS (300 * NS_PER_MS)     /* … and all of them */

int native_look_new(const struct proc *proc, struct mem *mem, struct native_cache *cache, enum native_how how,
	struct native_look **ret_look) {
	struct native_look *look = calloc(1, sizeof(*look));
	int r;

	if (!look)
		return -ENOMEM;
	*look = (struct native_look){ .how = how, .proc = proc, .mem = mem, .stops_ns = STOPS_NS };
	r = cache ? 0 : native_cache_new(CACHE_BYTES, &look->cache);
	if (!r)
		r = native_modules_new(proc, mem, cache ? cache : look->cache, &look->modules);
	if (!r)
		r = native_stack_init(&look->stack);
	if (r) {
		native_look_free(look);
		return r == PROC_E_GONE ? MEM_E_GONE : r;
	}
	*ret_look = look;
	return 0;
}

int native_look_new_offline(const struct sample_target *target, struct native_look **ret_look) {
	int r = native_look_new(&target->proc, target->mem, NULL, NATIVE_HOW_GIVEN, ret_look);

	if (!r)
		(*ret_look)->given = target;
	return r;
}

void native_look_free(struct native_look *look) {
	if (!look)
		return;
	kernel_stack_deinit(&look->kernel);
	native_stack_deinit(&look->stack);
	native_modules_free(look->modules);
	native_cache_free(look->cache);
	free(look);
}

void native_look_warm(struct native_look *look) {
	for (size_t i = 0; i < look->modules->items.n; i++)
		native_modules_load(look->modules, i);
}

/* Taking. */

static void begin(struct native_look *look) {
	kernel_stack_deinit(&look->kernel);
	look->trace.n = 0;
	look->trace.stop = NATIVE_COMPLETE;
	look->why = NULL;
	look->running = false;
	look->stopped_ns = 0;
}

static void walk(struct native_look *look, const struct native_regs *regs, bool live) {
	const struct native_unwinder unwinder = {
		.modules = look->modules, .mem = live ? look->mem : NULL, .stack = &look->stack
	};

	native_unwind(&unwinder, regs, &look->trace);
}

static const char *why_no_registers(int error) {
	return error == -EACCES || error == -EPERM ? "reading its registers is not permitted"
						   : "its registers could not be read";
}

/* Return: 0 and *ret_regs, or `why`; MEM_E_GONE. */
static int registers(struct native_look *look, pid_t tid, struct native_regs *ret_regs, bool *ret_held) {
	struct proc_sleep sleep;
	int r = look->how == NATIVE_HOW_HELD ? native_regs_of_stopped(tid, ret_regs) : -ESRCH;

	if (look->how == NATIVE_HOW_GIVEN) {
		if (!look->given->registers(look->given->registers_userdata, tid, ret_regs))
			look->why = "its registers are not in the core";
		*ret_held = true;
		return 0;
	}
	*ret_held = !r;
	if (!r)
		return 0;
	r = proc_sleep_read(look->proc, tid, &sleep);
	if (r == PROC_E_GONE)
		return MEM_E_GONE;
	if (r) {
		look->why = why_no_registers(r);
	} else if (!native_regs_of_sleep(&sleep, ret_regs)) {
		look->running = true;
		look->why = "it runs: to see them it has to be stopped";
	}
	return 0;
}

int native_look_take(struct native_look *look, pid_t tid) {
	struct native_regs regs = { 0 };
	bool held;
	int r;

	begin(look);
	if (look->deadline_ns && clock_mono_ns() > look->deadline_ns) {
		look->why = "time was up";
		return 0;
	}
	r = registers(look, tid, &regs, &held);
	if (r || look->why)
		return r;
	r = native_stack_copy(&look->stack, look->mem, regs.value[NATIVE_SP], UINT64_MAX, ASLEEP_BYTES);
	if (r == MEM_E_GONE || r == -ENOMEM)
		return r;
	walk(look, &regs, true);
	/* Of one that is held it shows that. It is seldom permitted: then there are no such frames. */
	if (!held)
		(void)!kernel_stack_read(look->proc, tid, &look->kernel);
	return 0;
}

int native_look_stop(struct native_look *look, pid_t tid, void (*also)(void *arg), void *arg) {
	const struct native_catch_how how = {
		.stack_max = NATIVE_STACK_MAX,
		.timeout_ns = min_of(STOP_WAIT_NS, look->stops_ns),
		.also = also,
		.arg = arg,
	};
	uint64_t start = clock_mono_ns();
	struct native_catch caught;
	int r;

	begin(look);
	if (!look->stops_ns) {
		look->why = "it runs, and time for stopping threads was up";
		return 0;
	}
	r = native_catch(tid, look->mem, &look->modules->maps, &how, &look->stack, &caught);
	look->stops_ns -= min_of(clock_mono_ns() - start, look->stops_ns);
	switch (r) {
	case 0: break;
	case NATIVE_E_GONE: return MEM_E_GONE;
	case -ENOMEM: return r;
	case NATIVE_E_BUSY: look->why = "it did not stop in time"; return 0;
	case -EPERM: look->why = "stopping it is not permitted"; return 0;
	default: look->why = "it could not be stopped"; return 0;
	}
	look->stopped_ns = caught.stopped_ns;
	walk(look, &caught.regs, false);
	return 0;
}

void native_look_warm_for(struct native_look *look, pid_t tid) {
	struct native_place place;

	if (native_look_take(look, tid) || look->why)
		return;
	for (size_t i = 0; i < look->trace.n; i++)
		(void)!native_symbolize(look->modules, native_frame_at(&look->trace.frames[i]), &place);
}

/* Merging. */

static const char *base_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

static char *name_of(const struct native_place *place, const char *path, raddr at) {
	char *name;

	if (place->name[0])
		return strdup(place->name);
	if (asprintf(&name, "%s+0x%" PRIx64, *path ? base_name(path) : "anonymous",
		    *path ? place->offset : (uint64_t)at) < 0)
		return NULL;
	return name;
}

static const char *doubt_of(const struct native_frame *frame) {
	return frame->by_fp ? PYSPYD_DOUBT_FRAME_POINTER : frame->recovered ? PYSPYD_DOUBT_RECOVERED : NULL;
}

/* On failure what is there is freed with the frame. */
static int fill_native(
	struct native_look *look, const struct native_frame *from, struct pyspyd_frame *frame, uint8_t *ret_kind) {
	raddr at = native_frame_at(from);
	struct native_place place;
	const char *path;

	if (native_symbolize(look->modules, at, &place) == -ENOMEM)
		return -ENOMEM;
	path = place.module ? native_module_path(look->modules, place.module) : "";
	*frame = (struct pyspyd_frame){
		.lang = PYSPYD_NATIVE,
		.function = name_of(&place, path, at),
		.file = strdup(""),
		.module = strdup(path),
		.address = at,
		.doubt = doubt_of(from),
	};
	frame->qualname = frame->function ? strdup(frame->function) : NULL;
	*ret_kind = (uint8_t)merge_native_of(place.symbol);
	return frame->qualname && frame->file && frame->module ? 0 : -ENOMEM;
}

static int fill_kernel(const struct kernel_frame *from, struct pyspyd_frame *frame) {
	*frame = (struct pyspyd_frame){
		.lang = PYSPYD_KERNEL,
		.function = strdup(from->function),
		.qualname = strdup(from->function),
		.file = strdup(""),
		.module = strdup(from->module),
	};
	return frame->function && frame->qualname && frame->file && frame->module ? 0 : -ENOMEM;
}

struct merging {
	struct pyspyd_frame *native; /* trace.n; moved from */
	uint8_t *kinds;
	bool *entry;
	struct merge_frame *order;
	size_t order_n, unmatched;
	struct pyspyd_frame *frames; /* the result */
	size_t n;
};

static void merging_deinit(struct merging *m, size_t native_n) {
	pyspyd_frames_free(m->native, native_n);
	pyspyd_frames_free(m->frames, m->n);
	free(m->kinds);
	free(m->entry);
	free(m->order);
}

static int merging_init(struct merging *m, size_t native_n, size_t python_n, size_t kernel_n) {
	*m = (struct merging){
		.native = calloc(native_n + 1, sizeof(*m->native)),
		.kinds = calloc(native_n + 1, 1),
		.entry = calloc(python_n + 1, sizeof(*m->entry)),
		.order = calloc(native_n + python_n + 1, sizeof(*m->order)),
		.frames = calloc(native_n + python_n + kernel_n + 1, sizeof(*m->frames)),
	};
	return m->native && m->kinds && m->entry && m->order && m->frames ? 0 : -ENOMEM;
}

static int fill(struct native_look *look, struct merging *m) {
	int r = 0;

	for (size_t i = 0; !r && i < look->trace.n; i++)
		r = fill_native(look, &look->trace.frames[i], &m->native[i], &m->kinds[i]);
	for (size_t i = 0; !r && i < look->kernel.n; i++)
		r = fill_kernel(&look->kernel.frames[i], &m->frames[m->n++]);
	return r;
}

static void order(const struct native_look *look, const struct py_raw_stack *stack, size_t python_n, bool whole,
	struct merging *m) {
	const struct merge_input in = {
		.native = m->kinds,
		.native_n = look->trace.n,
		.native_complete = look->trace.stop == NATIVE_COMPLETE,
		.entry = m->entry,
		.python_n = python_n,
		.python_complete = whole,
	};

	for (size_t i = 0; i < python_n; i++)
		m->entry[i] = stack->frames.items[i].entry;
	m->order_n = merge_stacks(&in, m->order, &m->unmatched);
}

/* Where the native frames end early, Python frames without a loop are older than all of them: no guess. */
static size_t certain_from(const struct native_look *look, const struct merging *m) {
	size_t i = m->order_n;

	if (look->trace.stop == NATIVE_COMPLETE)
		return i;
	while (i && m->order[i - 1].kind == MERGE_PYTHON)
		i--;
	return i;
}

/* Moves the frames to where they belong. */
static void move(struct merging *m, size_t certain, struct pyspyd_frame *python) {
	for (size_t i = 0; i < m->order_n; i++) {
		const struct merge_frame *from = &m->order[i];
		struct pyspyd_frame *frame =
			from->kind == MERGE_PYTHON ? &python[from->index] : &m->native[from->index];

		m->frames[m->n] = *frame;
		*frame = (struct pyspyd_frame){ 0 };
		if (from->unmatched && i < certain)
			m->frames[m->n].doubt = PYSPYD_DOUBT_UNMATCHED;
		m->n++;
	}
}

static const char *end_of(const struct native_look *look) {
	if (look->why)
		return look->why;
	return look->trace.stop == NATIVE_COMPLETE ? NULL : native_stop_text(look->trace.stop);
}

int native_look_merge(struct native_look *look, const struct py_raw_stack *stack, bool whole, bool alone,
	struct pyspyd_thread *thread) {
	size_t python_n = min_of(thread->frames_n, stack->frames.n);
	struct merging m;
	int r;

	thread->native = true;
	thread->native_end = end_of(look);
	thread->stopped_ns = look->stopped_ns;
	if (look->why)
		return 0;
	r = merging_init(&m, look->trace.n, python_n, look->kernel.n);
	if (!r)
		r = fill(look, &m);
	if (!r) {
		order(look, stack, python_n, whole && alone, &m);
		move(&m, certain_from(look, &m), thread->frames);
		pyspyd_frames_free(thread->frames, python_n);
		thread->frames = take_ptr(m.frames);
		thread->frames_n = m.n;
		thread->disagree = m.unmatched && whole && alone && look->trace.stop == NATIVE_COMPLETE;
		m.n = 0;
	}
	merging_deinit(&m, look->trace.n);
	return r;
}
