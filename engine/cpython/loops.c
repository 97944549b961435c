/* SPDX-License-Identifier: MIT */
/* Event loops that run now.
 *
 * asyncio's own loops are Python code (asyncio/base_events.py): run_forever calls _run_once again and again, which
 * polls its selector, moves timers that are due to the queue of ready callbacks, and then calls those that were in the
 * queue when it began. Its variables tell where in that it is: end_time is set once the poll has returned, i counts
 * callbacks, handle is the present one.
 *
 * A loop of another type (uvloop) has none of that: only that it runs, and its task, are told. */
#include "engine/cpython/asyncio.h"
#include "engine/cpython/locals.h"
#include "engine/cpython/locks.h"
#include "engine/cpython/objects.h"
#include <string.h>

#define TIMERS_MAX 1024
#define BASE_EVENTS "asyncio/base_events.py"
#define SELECTORS "selectors.py"
#define NAME_BYTES 64

struct reader {
	const struct py_runtime *rt;
	struct py_code_cache *codes;
	uint64_t now_ns;
};

/* Frames of the loop on a thread's stack. */
struct places {
	const struct py_raw_frame *forever, *once; /* NULL: not there */
	bool polling;
};

static bool ends_with(const char *text, const char *end) {
	size_t n = strlen(text), m = strlen(end);

	return n >= m && !strcmp(text + n - m, end);
}

/* Return: 0 and what the frame executes; as py_code_lookup. */
static int place_of(const struct reader *rd, const struct py_raw_stack *stack, size_t i, const char **ret_name,
	const char **ret_file) {
	const struct py_code *code;
	int r = py_code_lookup(rd->codes, &stack->frames.items[i], stack->code_generation, rd->now_ns, i == 0, &code);

	if (r)
		return r;
	*ret_name = intern_str(rd->codes->strings, code->name);
	*ret_file = intern_str(rd->codes->strings, code->file);
	return 0;
}

/* The innermost loop's, where loops are nested. A frame that cannot be decoded is another one's. */
static int find_places(const struct reader *rd, const struct py_raw_stack *stack, struct places *ret) {
	bool selecting = false;

	*ret = (struct places){ 0 };
	for (size_t i = 0; stack && i < stack->frames.n && !ret->forever; i++) {
		const struct py_raw_frame *frame = &stack->frames.items[i];
		const char *name, *file;
		int r = place_of(rd, stack, i, &name, &file);

		if (asyncio_is_fatal(r))
			return r;
		if (r)
			continue;
		if (i == 0)
			selecting = !strcmp(name, "select") && ends_with(file, SELECTORS);
		if (!ends_with(file, BASE_EVENTS))
			continue;
		if (!ret->once && !strcmp(name, "_run_once")) {
			ret->once = frame;
			ret->polling = selecting && i == 1;
		} else if (!strcmp(name, "run_forever")) {
			ret->forever = frame;
		}
	}
	return 0;
}

static int find_loop(
	const struct reader *rd, const struct py_thread *thread, const struct places *places, raddr *ret_loop) {
	const struct py_raw_frame *frame = places->once ? places->once : places->forever;
	raddr self = 0;
	int r = frame ? py_local_get(rd->rt, frame, "self", &self) : PY_E_TYPE;

	if (asyncio_is_fatal(r))
		return r;
	if (r || !self)
		return asyncio_running_loop(rd->rt, thread, ret_loop);
	*ret_loop = self;
	return 0;
}

/* A timer's members, as its type has them. */
struct timer_type {
	raddr type;
	uint32_t when, cancelled;
};

static int learn_type(const struct py_reader *py, raddr type, struct timer_type *known) {
	struct timer_type t = { .type = type };
	int r;

	if (known->type == type)
		return 0;
	r = asyncio_slot_offset(py, type, "_when", &t.when);
	if (!r)
		r = asyncio_slot_offset(py, type, "_cancelled", &t.cancelled);
	if (!r)
		*known = t;
	return r;
}

/* Return: 0; PY_E_TYPE; MEM_E_*; negative errno. */
static int read_timer(
	const struct py_reader *py, raddr timer, struct timer_type *known, double *ret_when, bool *ret_cancelled) {
	raddr type, when, cancelled;
	int64_t truth;
	int r = py_type_of(py, timer, &type);

	if (!r)
		r = learn_type(py, type, known);
	if (!r)
		r = mem_read_u64(py->mem, timer + known->when, &when);
	if (!r)
		r = mem_read_u64(py->mem, timer + known->cancelled, &cancelled);
	if (!r)
		r = py_long_read(py, cancelled, &truth);
	if (!r)
		r = asyncio_number(py, when, ret_when);
	if (!r)
		*ret_cancelled = truth != 0;
	return r;
}

/* By the loop's own account, which it keeps so that it knows when to throw cancelled ones out. */
static int count_timers(const struct py_reader *py, struct py_loop *loop, size_t n) {
	int64_t cancelled;
	raddr count;
	int r = py_attribute(py, loop->object, "_timer_cancelled_count", &count);

	if (!r)
		r = py_long_read(py, count, &cancelled);
	if (!r && cancelled >= 0 && (uint64_t)cancelled <= n)
		loop->scheduled = n - (uint64_t)cancelled;
	return r;
}

/* The list is a heap, so the next timer is among its first ones. */
static int read_timers(const struct reader *rd, struct py_loop *loop) {
	const struct py_reader *py = &rd->rt->reader;
	struct timer_type known = { .type = 0 };
	double now_s = (double)rd->now_ns / 1e9;
	raddr list, timers[TIMERS_MAX];
	size_t n = 0;
	int r = py_attribute(py, loop->object, "_scheduled", &list);

	if (!r)
		r = py_sequence_read(py, list, timers, TIMERS_MAX, &n);
	if (r)
		return r;
	for (size_t i = 0; i < min_of(n, (size_t)TIMERS_MAX); i++) {
		bool cancelled;
		double when;

		r = read_timer(py, timers[i], &known, &when, &cancelled);
		if (asyncio_is_fatal(r))
			return r;
		if (r)
			loop->scheduled++; /* of a type that we do not know: at some time */
		if (r || cancelled)
			continue;
		loop->scheduled++;
		loop->overdue += when < now_s;
		if (loop->next_timer_s < 0 || when < loop->next_timer_s)
			loop->next_timer_s = max_of(when, 0.0);
	}
	return n > TIMERS_MAX ? count_timers(py, loop, n) : 0;
}

static int read_ready(const struct reader *rd, struct py_loop *loop) {
	const struct py_reader *py = &rd->rt->reader;
	raddr queue, first;
	size_t n = 0;
	int r = py_attribute(py, loop->object, "_ready", &queue);

	if (!r)
		r = py_deque_read(py, queue, &first, 1, &n);
	if (!r || r == PY_E_TRUNCATED)
		loop->ready = n;
	return r == PY_E_TRUNCATED ? 0 : r;
}

/* A descriptor that an object of a C type has as its first member. -1: another type, or nothing there. */
static int first_int(const struct py_reader *py, raddr object, const char *type, int *ret) {
	int32_t value;
	int r;

	if (!asyncio_is_instance(py, object, type))
		return PY_E_TYPE;
	r = mem_read(py->mem, object + py->layout.object_size, &value, sizeof(value));
	if (!r && value >= 0)
		*ret = value;
	return r;
}

/* CPython Modules/selectmodule.c (pyEpoll_Object), Modules/socketmodule.h (PySocketSockObject) */
static int read_fds(const struct reader *rd, struct py_loop *loop) {
	const struct py_reader *py = &rd->rt->reader;
	raddr object;
	int r = py_attribute(py, loop->object, "_selector", &object);

	if (!r)
		r = py_attribute(py, object, "_selector", &object);
	if (!r)
		r = first_int(py, object, "select.epoll", &loop->selector_fd);
	if (asyncio_is_fatal(r))
		return r;
	r = py_attribute(py, loop->object, "_ssock", &object);
	if (!r)
		r = first_int(py, object, "_socket.socket", &loop->self_pipe_fd);
	return r;
}

/* Return: as py_local_get; PY_E_TYPE also where it is unset or None. */
static int read_local(const struct reader *rd, const struct py_raw_frame *frame, const char *name, uint64_t *ret_ref) {
	char type[NAME_BYTES];
	uint64_t ref;
	int r = py_local_get(rd->rt, frame, name, &ref);

	if (!r && !ref)
		return PY_E_TYPE;
	if (!r && (ref & 3) != PY_TAG_INT)
		r = py_type_name(&rd->rt->reader, ref, type, sizeof(type));
	if (!r && (ref & 3) != PY_TAG_INT && !strcmp(type, "NoneType"))
		return PY_E_TYPE;
	if (!r)
		*ret_ref = ref;
	return r;
}

static int read_index(const struct reader *rd, const struct py_raw_frame *frame, int64_t *ret_index) {
	uint64_t ref;
	int r = read_local(rd, frame, "i", &ref);

	if (r)
		return r;
	if ((ref & 3) != PY_TAG_INT)
		return py_long_read(&rd->rt->reader, ref, ret_index);
	*ret_index = (int64_t)ref >> 2;
	return 0;
}

/* Before the first callback, handle is a timer that was looked at. */
static int read_round(const struct reader *rd, const struct py_raw_frame *frame, struct py_loop *loop) {
	double began;
	uint64_t ref;
	int r = read_local(rd, frame, "end_time", &ref);

	if (!r)
		r = (ref & 3) == PY_TAG_INT ? PY_E_TYPE : asyncio_number(&rd->rt->reader, ref, &began);
	if (r)
		return r;
	loop->round_began_s = began;
	r = read_index(rd, frame, &loop->round_index);
	if (!r)
		r = read_local(rd, frame, "handle", &ref);
	if (!r && (ref & 3) != PY_TAG_INT)
		loop->handle = ref;
	return r;
}

static int read_loop(const struct reader *rd, const struct py_thread *thread, const struct places *places, raddr object,
	struct py_loop *ret) {
	struct py_loop loop = { .object = object,
		.tid = thread->tid,
		.polling = places->polling,
		.next_timer_s = -1,
		.round_began_s = -1,
		.round_index = -1,
		.selector_fd = -1,
		.self_pipe_fd = -1 };
	int r = asyncio_running_task(rd->rt, thread, object, &loop.running_task);

	if (!asyncio_is_fatal(r))
		r = read_ready(rd, &loop);
	if (!r)
		r = read_timers(rd, &loop);
	if (!r) /* else what else may come is not known, and then no selector tells that nothing does */
		r = read_fds(rd, &loop);
	if (!asyncio_is_fatal(r) && places->once && !places->polling)
		r = read_round(rd, places->once, &loop);
	if (asyncio_is_fatal(r))
		return r;
	*ret = loop;
	return 0;
}

static int add_loop(const struct reader *rd, const struct py_thread_frames *thread, py_loop_vec *loops) {
	struct places places;
	struct py_loop loop;
	raddr object = 0;
	int r = find_places(rd, thread->stack, &places);

	if (!r)
		r = find_loop(rd, &thread->thread, &places, &object);
	if (r || !object)
		return r;
	r = read_loop(rd, &thread->thread, &places, object, &loop);
	return r ? r : vec_push(loops, loop);
}

/* Interpreters that have imported asyncio. */
static int find_users(const struct py_runtime *rt, struct map *users) {
	py_interp_vec interps = { 0 };
	int r = py_interps_read(rt, &interps);

	for (size_t i = 0; !r && i < interps.n; i++) {
		raddr unused;
		int there = asyncio_global(rt, interps.items[i].addr, "asyncio.events", "__name__", &unused);

		r = asyncio_is_fatal(there) ? there : there ? 0 : map_put(users, interps.items[i].addr, 1);
	}
	vec_free(&interps);
	return r;
}

int py_loops_read(const struct py_runtime *rt, struct py_code_cache *codes, const struct py_thread_frames *threads,
	size_t threads_n, uint64_t now_mono_ns, py_loop_vec *ret_loops) {
	const struct reader rd = { .rt = rt, .codes = codes, .now_ns = now_mono_ns };
	struct map _cleanup_(map_deinit) users = { 0 };
	py_loop_vec loops = { 0 };
	uint64_t unused;
	int r = find_users(rt, &users);

	for (size_t i = 0; !r && i < threads_n; i++)
		if (map_get(&users, threads[i].thread.interp, &unused))
			r = add_loop(&rd, &threads[i], &loops);
	if (r) {
		vec_free(&loops);
		return r;
	}
	*ret_loops = loops;
	return 0;
}
