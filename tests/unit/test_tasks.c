/* SPDX-License-Identifier: MIT */
/* Tasks, futures, event loops and single variables in images, one build of each layout; and what a hostile target may
 * put in their place. */
#include "engine/cpython/locals.h"
#include "engine/cpython/tasks.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

#define TYPE_BYTES 1024
#define OBJECT_BYTES 1024
#define DICT_AT 400 /* where instances of new types have their __dict__ */
#define SLOT_AT 64
#define IMPL_BYTES 2048 /* what a thread state has behind the part that the layout measures */
#define IDENT UINT64_C(0x7f00deadb000)
#define OLD_YIELD_FROM 72
#define TASKS_MAX 500

struct scene {
	struct image *img;
	raddr future, task, coroutine, wrapper, reference, set, member, timer, deque; /* types */
	raddr names[6], values[6];                                                    /* of global variables */
	size_t globals_n;
	struct py_thread thread;
};

static raddr new_type(struct image *img, const char *name, raddr base) {
	const struct layout *l = img->l;
	raddr at = image_take(img, TYPE_BYTES), text = image_take(img, 64);

	image_put(img, text, name, strlen(name) + 1);
	image_put_u64(img, at + l->type_name, text);
	image_put_u64(img, at + l->type_dict - 8, base);
	image_put_u64(img, at + l->type_basicsize, DICT_AT);
	image_put_u64(img, at + l->type_dictoffset, DICT_AT);
	return at;
}

static raddr new_object(struct image *img, raddr type) {
	raddr at = image_object(img, T_PLAIN, OBJECT_BYTES);

	image_put_u64(img, at + img->l->object_type, type);
	return at;
}

static void set_attributes(struct image *img, raddr object, const char *const *names, const raddr *values, size_t n) {
	raddr keys[8];

	for (size_t i = 0; i < n; i++)
		keys[i] = image_text(img, names[i]);
	image_put_u64(img, object + DICT_AT, image_dict(img, keys, values, n));
}

static void open_scene(struct image *img, struct scene *s) {
	*s = (struct scene){ .img = img };
	s->future = new_type(img, "_asyncio.Future", 0);
	s->task = new_type(img, "_asyncio.Task", s->future);
	s->coroutine = new_type(img, "coroutine", 0);
	s->wrapper = new_type(img, "coroutine_wrapper", 0);
	s->reference = new_type(img, "weakref", 0);
	s->set = new_type(img, "set", 0);
	s->member = new_type(img, "member_descriptor", 0);
	s->deque = new_type(img, "collections.deque", 0);
	s->thread = (struct py_thread){ .interp = img->interp, .ident = IDENT, .tid = 100 };
	s->thread.tstate = image_thread(img, img->interp, IDENT, 100);
	image_take(img, IMPL_BYTES);
}

/* Imports asyncio.tasks and asyncio.events as one module with these global variables, one more with each call. */
static void add_global(struct scene *s, const char *name, raddr value) {
	struct image *img = s->img;
	raddr keys[] = { image_text(img, "asyncio.tasks"), image_text(img, "asyncio.events") };
	raddr module = image_object(img, T_PLAIN, 256), modules[] = { module, module };

	s->names[s->globals_n] = image_text(img, name);
	s->values[s->globals_n++] = value;
	image_put_u64(img, module + img->l->module_dict, image_dict(img, s->names, s->values, s->globals_n));
	image_put_u64(img, img->interp + img->l->interp_modules, image_dict(img, keys, modules, 2));
}

static raddr new_future(struct scene *s, raddr type, uint32_t state) {
	raddr at = new_object(s->img, type);

	image_put_u32(s->img, at + s->img->l->future_state, state);
	return at;
}

static void set_state(struct image *img, raddr gen, raddr frame, raddr bytecode, bool waits) {
	const struct layout *l = img->l;
	uint32_t minor = PY_MINOR(img->rt.reader.version);
	static const uint8_t resume_await[] = { 151, 3 }, yield_from[] = { OLD_YIELD_FROM, 0 };
	int created = minor >= 0x030f ? 0 : minor >= 0x030d ? -3 : -2;
	int waiting = minor >= 0x030f ? 2 : -1;

	if (layout_has(l->gen_frame_state))
		image_put_u8(img, gen + l->gen_frame_state, (uint8_t)(waits ? waiting : created));
	else if (layout_has(l->frame_state))
		image_put_u8(img, frame + l->frame_state, (uint8_t)(waits ? waiting : created));
	if (layout_has(l->frame_lasti) && !waits)
		image_put_u32(img, frame + l->frame_lasti, (uint32_t)-1);
	image_put(img, bytecode + 4, layout_has(l->code_code) ? yield_from : resume_await, 2);
}

static void set_depth(struct image *img, raddr frame, raddr base, uint32_t n) {
	const struct layout *l = img->l;

	if (layout_has(l->frame_stackpointer))
		image_put_u64(img, frame + l->frame_stackpointer, base + n * UINT64_C(8));
	else if (layout_has(l->frame_stacktop))
		image_put_u32(img, frame + l->frame_stacktop, n);
	else if (layout_has(l->frame_stackdepth))
		image_put_u32(img, frame + l->frame_stackdepth, n);
	else
		image_put_u64(img, frame + l->frame_valuestack_top, base + n * UINT64_C(8));
}

/* One that is suspended in `await awaits`, or with 0 has not begun. */
static raddr new_coroutine(struct scene *s, raddr code, raddr awaits) {
	struct image *img = s->img;
	const struct layout *l = img->l;
	raddr gen = new_object(img, s->coroutine), frame = image_take(img, 1024), bytecode;

	if (layout_has(l->gen_frame_state))
		frame = gen + l->gen_frame;
	else
		image_put_u64(img, gen + l->gen_frame, frame);
	image_put_u32(img, code + l->code_stacksize, 4);
	bytecode = code + l->code_adaptive;
	if (layout_has(l->code_code)) {
		bytecode = image_bytes(img, "\0\0\0\0\0\0\0\0", 8);
		image_put_u64(img, code + l->code_code, bytecode);
		bytecode += l->bytes_data;
	}
	image_frame(img, frame, 0, code,
		layout_has(l->frame_lasti) ? PY_MINOR(img->rt.reader.version) == 0x030a ? 1 : 2 : bytecode + 2, 1);
	if (layout_has(l->frame_valuestack))
		image_put_u64(img, frame + l->frame_valuestack, frame + l->frame_localsplus);
	image_put_u64(img, frame + l->frame_localsplus, awaits);
	set_depth(img, frame, frame + l->frame_localsplus, PY_MINOR(img->rt.reader.version) >= 0x030f ? 2 : 1);
	set_state(img, gen, frame, bytecode, awaits != 0);
	return gen;
}

static raddr new_task(struct scene *s, raddr coroutine, raddr waiter, raddr name) {
	const struct layout *l = s->img->l;
	raddr at = new_future(s, s->task, PY_FUTURE_PENDING);

	image_put_u64(s->img, at + l->task_coro, coroutine);
	image_put_u64(s->img, at + l->task_fut_waiter, waiter);
	image_put_u64(s->img, at + l->task_name, name);
	return at;
}

static bool has_lists(const struct scene *s) {
	return layout_has(s->img->l->tstate_tasks_head);
}

/* Into the list of the thread (3.14+), behind each other. */
static void link_tasks(struct scene *s, const raddr *tasks, size_t n) {
	const struct layout *l = s->img->l;
	raddr head = s->thread.tstate + l->tstate_tasks_head, at = head;

	for (size_t i = 0; i < n; i++) {
		raddr node = tasks[i] + l->task_node;

		image_put_u64(s->img, at, node);
		image_put_u64(s->img, node + 8, at);
		at = node;
	}
	image_put_u64(s->img, at, head);
	image_put_u64(s->img, head + 8, at);
}

/* A WeakSet of them as that global variable of asyncio.tasks. */
static raddr put_weak_set(struct scene *s, const char *name, const raddr *tasks, size_t n) {
	static const char *const data[] = { "data" };
	struct image *img = s->img;
	const struct layout *l = img->l;
	size_t slots = 8;
	raddr set = new_object(img, s->set), weak_set = new_object(img, new_type(img, "WeakSet", 0)), table;

	while (slots < 2 * n)
		slots *= 2;
	table = image_take(img, slots * 16);
	image_put_u64(img, set + l->set_mask, slots - 1);
	image_put_u64(img, set + l->set_used, n);
	image_put_u64(img, set + l->set_table, table);
	for (size_t i = 0; i < n; i++) {
		raddr reference = new_object(img, s->reference);

		image_put_u64(img, reference + l->object_size, tasks[i]);
		image_put_u64(img, table + i * 32, reference);
		image_put_u64(img, table + i * 32 + 8, i + 1);
	}
	set_attributes(img, weak_set, data, &set, 1);
	add_global(s, name, weak_set);
	return set;
}

static void put_tasks(struct scene *s, const raddr *tasks, size_t n) {
	if (has_lists(s))
		link_tasks(s, tasks, n);
	else
		put_weak_set(
			s, PY_MINOR(s->img->rt.reader.version) >= 0x030c ? "_scheduled_tasks" : "_all_tasks", tasks, n);
}

static int read_tasks(struct scene *s, size_t max, py_task_vec *tasks) {
	py_tasks_free(tasks);
	return py_tasks_read(&s->img->rt, &s->thread, 1, max, tasks);
}

/* Futures */

static int read_future(struct image *img, raddr object, struct py_future *future) {
	*future = (struct py_future){ .children_n = SIZE_MAX };
	return py_future_read(&img->rt, object, future);
}

static void check_native_futures(struct image *img) {
	struct py_future future;
	struct scene s;
	raddr own;

	open_scene(img, &s);
	for (uint32_t state = PY_FUTURE_PENDING; state <= PY_FUTURE_FINISHED; state++) {
		cr_assert_eq(read_future(img, new_future(&s, s.future, state), &future), 0);
		cr_assert_eq((uint32_t)future.state, state);
		cr_assert_not(future.is_task);
		cr_assert_eq(future.children_n, 0);
	}
	cr_assert_eq(read_future(img, new_future(&s, s.future, 3), &future), PY_E_TYPE);
	cr_assert_eq(future.children_n, SIZE_MAX, "untouched on failure");
	own = new_type(img, "app.Own", new_type(img, "app.Base", s.task));
	cr_assert_eq(read_future(img, new_future(&s, own, PY_FUTURE_CANCELLED), &future), 0);
	cr_assert(future.is_task);
	cr_assert_eq(future.state, PY_FUTURE_CANCELLED);
	cr_assert_eq(read_future(img, image_long(img, 5), &future), PY_E_TYPE);
	cr_assert_eq(read_future(img, 0, &future), PY_E_TYPE);
	cr_assert_eq(read_future(img, IMAGE_NOWHERE, &future), MEM_E_FAULT);
	own = new_type(img, "app.Circle", 0);
	image_put_u64(img, own + img->l->type_dict - 8, own);
	cr_assert_eq(read_future(img, new_future(&s, own, 0), &future), PY_E_TYPE);
}

Test(tasks, futures_of_the_c_types) {
	image_each(check_native_futures);
}

static void check_children(struct image *img) {
	static const char *const name[] = { "_children" };
	raddr children[300], list, gathering;
	struct py_future future;
	struct scene s;

	open_scene(img, &s);
	gathering = new_future(&s, new_type(img, "_GatheringFuture", s.future), PY_FUTURE_PENDING);
	for (size_t i = 0; i < ARRAY_SIZE(children); i++)
		children[i] = IMAGE_BASE + 16 * i;
	list = image_tuple(img, children, 3);
	set_attributes(img, gathering, name, &list, 1);
	cr_assert_eq(read_future(img, gathering, &future), 0);
	cr_assert_eq(future.children_n, 3);
	cr_assert_eq(future.children[2], children[2]);
	list = image_tuple(img, children, ARRAY_SIZE(children));
	set_attributes(img, gathering, name, &list, 1);
	cr_assert_eq(read_future(img, gathering, &future), 0);
	cr_assert_eq(future.children_n, ARRAY_SIZE(future.children));
	image_put_u64(img, list + img->l->var_size, UINT64_MAX);
	cr_assert_eq(read_future(img, gathering, &future), 0);
	cr_assert_eq(future.children_n, 0);
}

Test(tasks, children_of_a_gathering_future) {
	image_each(check_children);
}

static void check_python_futures(struct image *img) {
	static const char *const names[] = { "_loop", "_callbacks", "_state", "_coro" };
	static const struct {
		const char *word;
		int expected;
		enum py_future_state state;
	} states[] = { { "PENDING", 0, PY_FUTURE_PENDING }, { "CANCELLED", 0, PY_FUTURE_CANCELLED },
		{ "FINISHED", 0, PY_FUTURE_FINISHED }, { "FINISHED_", PY_E_TYPE, 0 }, { "", PY_E_TYPE, 0 },
		{ "PENDING and a good deal more", PY_E_TYPE, 0 } };
	struct py_future future;
	struct scene s;
	raddr object;

	open_scene(img, &s);
	object = new_object(img, new_type(img, "Future", 0));
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		const raddr values[] = { object, object, image_text(img, states[i].word), object };

		set_attributes(img, object, names, values, 3);
		cr_assert_eq(read_future(img, object, &future), states[i].expected);
		cr_assert(states[i].expected || future.state == states[i].state);
		set_attributes(img, object, names, values, 4);
		cr_assert_eq(read_future(img, object, &future), states[i].expected);
		cr_assert(states[i].expected || future.is_task);
		set_attributes(img, object, names, values, 2);
		cr_assert_eq(read_future(img, object, &future), 0, "the state is the class's");
		cr_assert_eq(future.state, PY_FUTURE_PENDING);
		set_attributes(img, object, names, values, 1);
		cr_assert_eq(read_future(img, object, &future), PY_E_TYPE);
	}
}

Test(tasks, futures_of_python_classes) {
	image_each(check_python_futures);
}

/* Tasks */

static void check_tasks(struct image *img) {
	py_task_vec tasks = { 0 };
	raddr all[4], inner, wrapper, odd;
	struct scene s;

	open_scene(img, &s);
	odd = new_object(img, new_type(img, "Odd", 0));
	inner = new_coroutine(&s, image_code(img, "inner", "app.py", 1), 0);
	wrapper = new_object(img, s.wrapper);
	image_put_u64(img, wrapper + img->l->coro_wrapper_coroutine, inner);
	all[0] = new_task(&s, inner, 0, image_text(img, "first"));
	all[1] = new_task(
		&s, new_coroutine(&s, image_code(img, "outer", "app.py", 1), wrapper), all[0], image_long(img, 7));
	all[2] = new_future(&s, s.task, PY_FUTURE_FINISHED);
	all[3] = new_task(&s, new_coroutine(&s, image_code(img, "odd", "app.py", 1), odd),
		new_future(&s, s.future, PY_FUTURE_PENDING), 0);
	put_tasks(&s, all, ARRAY_SIZE(all));
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), 0);
	cr_assert_eq(tasks.n, 3, "the finished one is none");
	cr_assert_str_eq(tasks.items[0].name, "first");
	cr_assert_eq(tasks.items[0].object, all[0]);
	cr_assert_eq(tasks.items[0].frames_n, 1);
	cr_assert_eq(tasks.items[0].waiter, 0);
	cr_assert_str_eq(tasks.items[1].name, "Task-7");
	cr_assert_eq(tasks.items[1].frames_n, 2);
	cr_assert_eq(tasks.items[1].frames[0].code, tasks.items[0].frames[0].code, "innermost first");
	cr_assert_eq(tasks.items[1].waiter, all[0]);
	cr_assert(tasks.items[1].waiter_is_task);
	cr_assert_eq(tasks.items[1].awaitable, 0);
	cr_assert_str_eq(tasks.items[2].name, "");
	cr_assert_not(tasks.items[2].waiter_is_task);
	cr_assert_eq(tasks.items[2].awaitable, odd);
	cr_assert_eq(read_tasks(&s, 2, &tasks), PY_E_TRUNCATED);
	cr_assert_eq(tasks.n, 2);
	py_tasks_free(&tasks);
	cr_assert_eq(tasks.n, 0);
}

Test(tasks, pending_ones) {
	image_each(check_tasks);
}

static void check_running(struct image *img) {
	const struct layout *l = img->l;
	py_task_vec tasks = { 0 };
	struct scene s;
	raddr task, loop, current, key;

	open_scene(img, &s);
	task = new_task(&s, 0, 0, 0);
	loop = new_object(img, new_type(img, "app.Loop", 0));
	current = image_dict(img, &loop, &task, 1);
	put_tasks(&s, &task, 1);
	if (layout_has(l->tstate_running_loop)) {
		image_put_u64(img, s.thread.tstate + l->tstate_running_loop, loop);
	} else {
		key = image_text(img, "__asyncio_running_event_loop__");
		image_put_u64(img, s.thread.tstate + l->tstate_dict, image_dict(img, &key, &loop, 1));
	}
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), 0);
	cr_assert_not(tasks.items[0].running);
	if (layout_has(l->tstate_running_task))
		image_put_u64(img, s.thread.tstate + l->tstate_running_task, task);
	else
		add_global(&s, "_current_tasks", current);
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), 0);
	cr_assert(tasks.items[0].running);
	py_tasks_free(&tasks);
}

Test(tasks, running_ones) {
	image_each(check_running);
}

static void check_long_chains(struct image *img) {
	py_task_vec tasks = { 0 };
	raddr code, inner, wrapper, task;
	struct scene s;

	open_scene(img, &s);
	code = image_code(img, "deep", "app.py", 1);
	wrapper = new_object(img, s.wrapper);
	inner = new_coroutine(&s, image_code(img, "innermost", "app.py", 1), wrapper);
	task = inner;
	for (int i = 0; i < 99; i++)
		task = new_coroutine(&s, code, task);
	task = new_task(&s, task, 0, 0);
	put_tasks(&s, &task, 1);
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), 0);
	cr_assert_eq(tasks.items[0].frames_n, PY_TASK_FRAMES_MAX);
	cr_assert_neq(tasks.items[0].frames[0].code, code);
	cr_assert_eq(tasks.items[0].frames[1].code, code);
	cr_assert_eq(tasks.items[0].frames[PY_TASK_FRAMES_MAX - 1].code, code);
	image_put_u64(img, wrapper + img->l->coro_wrapper_coroutine, inner); /* a circle */
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), 0);
	cr_assert_eq(tasks.n, 1);
	image_put_u64(img, wrapper + img->l->coro_wrapper_coroutine, wrapper);
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), 0);
	cr_assert_eq(tasks.n, 1);
	py_tasks_free(&tasks);
}

Test(tasks, chains_that_are_long_or_circles) {
	image_each(check_long_chains);
}

static void check_bad_lists(struct image *img) {
	const struct layout *l = img->l;
	py_task_vec tasks = { 0 };
	raddr all[4];
	struct scene s;

	open_scene(img, &s);
	if (!has_lists(&s))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		all[i] = new_task(&s, 0, 0, 0);
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), 0, "not set up yet");
	cr_assert_eq(tasks.n, 0);
	link_tasks(&s, all, 4);
	image_put_u64(img, all[2] + l->task_node + 8, IMAGE_NOWHERE);
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), PY_E_TRUNCATED);
	cr_assert_eq(tasks.n, 2, "those before it are good");
	link_tasks(&s, all, 4);
	image_put_u64(img, all[3] + l->task_node, all[1] + l->task_node); /* a circle past the head */
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), PY_E_TRUNCATED);
	cr_assert_eq(tasks.n, 4);
	image_put_u64(img, all[3] + l->task_node, IMAGE_NOWHERE);
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), PY_E_TRUNCATED);
	cr_assert_eq(tasks.n, 4);
	image_put_u64(img, all[0] + l->task_node, all[0] + l->task_node); /* itself, and says so */
	image_put_u64(img, all[0] + l->task_node + 8, all[0] + l->task_node);
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), PY_E_TRUNCATED);
	py_tasks_free(&tasks);
}

Test(tasks, lists_that_lie) {
	image_each(check_bad_lists);
}

static void check_both_places(struct image *img) {
	py_task_vec tasks = { 0 };
	raddr all[2], set;
	struct scene s;

	open_scene(img, &s);
	all[0] = new_task(&s, 0, 0, 0);
	all[1] = new_task(&s, 0, 0, 0);
	if (has_lists(&s))
		link_tasks(&s, all, 1);
	set = put_weak_set(&s, "_scheduled_tasks", all, 2);
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), 0);
	cr_assert_eq(tasks.n, 2, "each once");
	image_put_u64(img, set + img->l->set_table, IMAGE_NOWHERE);
	cr_assert_eq(read_tasks(&s, TASKS_MAX, &tasks), PY_E_TRUNCATED);
	cr_assert_eq(tasks.n, has_lists(&s) ? 1 : 0);
	py_tasks_free(&tasks);
}

Test(tasks, in_two_places_or_gone) {
	image_each(check_both_places);
}

/* Variables */

/* A frame of that code with these local variables; the last one is a cell (3.11+: by its kind, before: by its tuple).
 */
static struct py_raw_frame new_frame(
	struct image *img, raddr code, const char *const *names, const uint64_t *values, size_t n) {
	const struct layout *l = img->l;
	struct py_raw_frame frame = { .frame = image_take(img, 1024), .code = code };
	uint8_t kinds[8];
	raddr texts[8];

	for (size_t i = 0; i < n; i++) {
		texts[i] = image_text(img, names[i]);
		kinds[i] = i == n - 1 ? 0x40 : 0x20;
		image_put_u64(img, frame.frame + l->frame_localsplus + i * 8, values[i]);
	}
	if (layout_has(l->code_localsplusnames)) {
		image_put_u64(img, code + l->code_localsplusnames, image_tuple(img, texts, n));
		image_put_u64(img, code + l->code_localspluskinds, image_bytes(img, kinds, n));
	} else {
		image_put_u64(img, code + l->code_varnames, image_tuple(img, texts, n - 1));
		image_put_u64(img, code + l->code_cellvars, image_tuple(img, texts + n - 1, 1));
		image_put_u64(img, code + l->code_freevars, image_tuple(img, texts, 0));
	}
	return frame;
}

static void check_locals(struct image *img) {
	static const char *const names[] = { "self", "i", "unset", "cell" };
	const struct layout *l = img->l;
	raddr self = image_long(img, 3), cell = image_object(img, T_CELL, 64);
	const uint64_t values[] = { self, 12 << 2 | PY_TAG_INT, 0, cell };
	struct py_raw_frame frame;
	uint64_t ref = 99;

	image_put_u64(img, cell + l->object_size, self);
	frame = new_frame(img, image_code(img, "f", "f.py", 1), names, values, 4);
	cr_assert_eq(py_local_get(&img->rt, &frame, "nothing", &ref), PY_E_TYPE);
	cr_assert_eq(ref, 99, "untouched on failure");
	cr_assert_eq(py_local_get(&img->rt, &frame, "self", &ref), 0);
	cr_assert_eq(ref, self);
	cr_assert_eq(py_local_get(&img->rt, &frame, "i", &ref), 0);
	cr_assert_eq(ref, 12 << 2 | PY_TAG_INT);
	cr_assert_eq(py_local_get(&img->rt, &frame, "unset", &ref), 0);
	cr_assert_eq(ref, 0);
	cr_assert_eq(py_local_get(&img->rt, &frame, "cell", &ref), 0);
	cr_assert_eq(ref, self);
	frame.code = image_long(img, 1);
	cr_assert_neq(py_local_get(&img->rt, &frame, "self", &ref), 0);
	frame.code = IMAGE_NOWHERE;
	cr_assert_eq(py_local_get(&img->rt, &frame, "self", &ref), MEM_E_FAULT);
}

Test(tasks, one_variable) {
	image_each(check_locals);
}

/* What tasks wait in */

static void add_frame(struct scene *s, struct py_task *task, const char *file, raddr self) {
	static const char *const names[] = { "self", "x" };
	const uint64_t values[] = { self, 0 };

	task->frames[task->frames_n++] =
		new_frame(s->img, image_code(s->img, "wait", file, 1), names, values, ARRAY_SIZE(names));
}

static void check_primitives(struct image *img) {
	struct intern strings;
	struct py_code_cache codes;
	struct py_task task = { 0 };
	struct scene s;
	raddr lock, barrier, found = 0;
	char type[32];

	open_scene(img, &s);
	cr_assert_eq(intern_init(&strings), 0);
	py_code_cache_init(&codes, &img->rt, &strings);
	lock = new_object(img, new_type(img, "Lock", 0));
	barrier = new_object(img, new_type(img, "Barrier", 0));
	cr_assert_eq(py_task_primitive(&img->rt, &codes, &task, &found, type, sizeof(type)), PY_E_TYPE);
	add_frame(&s, &task, "/app/locks.py", lock);
	cr_assert_eq(py_task_primitive(&img->rt, &codes, &task, &found, type, sizeof(type)), PY_E_TYPE);
	task.frames_n = 0;
	add_frame(&s, &task, "/lib/asyncio/locks.py", lock);
	add_frame(&s, &task, "/lib/asyncio/locks.py", new_object(img, new_type(img, "Condition", 0)));
	add_frame(&s, &task, "/app/main.py", s.set);
	add_frame(&s, &task, "/lib/asyncio/locks.py", barrier);
	cr_assert_eq(py_task_primitive(&img->rt, &codes, &task, &found, type, sizeof(type)), 0);
	cr_assert_eq(found, lock, "the innermost");
	cr_assert_str_eq(type, "Lock");
	task.frames_n = 2;
	add_frame(&s, &task, "/lib/asyncio/locks.py", barrier);
	cr_assert_eq(py_task_primitive(&img->rt, &codes, &task, &found, type, sizeof(type)), 0);
	cr_assert_eq(found, barrier, "what the others are parts of");
	py_code_cache_deinit(&codes);
	intern_deinit(&strings);
}

Test(tasks, primitives) {
	image_each(check_primitives);
}

/* Loops */

static raddr new_float(struct image *img, raddr type, double value) {
	raddr at = new_object(img, type);

	image_put(img, at + img->l->float_value, &value, sizeof(value));
	return at;
}

static raddr new_member(struct scene *s, uint64_t offset) {
	raddr at = new_object(s->img, s->member), def = image_take(s->img, 64);

	image_put_u64(s->img, def + 16, offset);
	image_put_u64(s->img, at + s->img->l->descr_name + 16, def);
	return at;
}

static raddr new_timer_type(struct scene *s) {
	raddr keys[] = { image_text(s->img, "_when"), image_text(s->img, "_cancelled") };
	raddr members[] = { new_member(s, SLOT_AT), new_member(s, SLOT_AT + 8) };
	raddr base = new_type(s->img, "Handle", 0), type = new_type(s->img, "TimerHandle", base);

	image_put_u64(s->img, type + s->img->l->type_dict, image_dict(s->img, keys, members, 1));
	image_put_u64(s->img, base + s->img->l->type_dict, image_dict(s->img, keys + 1, members + 1, 1));
	return type;
}

static raddr new_timer(struct scene *s, raddr type, raddr when, bool cancelled) {
	raddr at = new_object(s->img, type);

	image_put_u64(s->img, at + SLOT_AT, when);
	image_put_u64(s->img, at + SLOT_AT + 8, image_long(s->img, cancelled));
	return at;
}

static raddr new_loop(struct scene *s, raddr floats) {
	static const char *const names[] = { "_ready", "_scheduled", "_ssock", "_selector" };
	static const char *const inner[] = { "_selector" };
	struct image *img = s->img;
	raddr loop = new_object(img, new_type(img, "_UnixSelectorEventLoop", 0)), type = new_timer_type(s);
	raddr epoll = new_object(img, new_type(img, "select.epoll", 0));
	raddr sock = new_object(img, new_type(img, "socket", new_type(img, "_socket.socket", 0)));
	raddr timers[] = { new_timer(s, type, new_float(img, floats, 4.5), true),
		new_timer(s, type, new_float(img, floats, 5.5), false),
		new_timer(s, type, image_long(img, 20), false) };
	raddr values[] = { new_object(img, s->deque), image_tuple(img, timers, ARRAY_SIZE(timers)), sock,
		new_object(img, new_type(img, "EpollSelector", 0)) };

	set_attributes(img, values[3], inner, &epoll, 1);
	image_put_u32(img, epoll + img->l->object_size, 4);
	image_put_u32(img, sock + img->l->object_size, 6);
	set_attributes(img, loop, names, values, ARRAY_SIZE(values));
	return loop;
}

static void check_loops(struct image *img) {
	static const char *const locals[] = { "self", "end_time", "i", "handle", "cell" };
	struct py_raw_frame frames[2];
	struct py_raw_stack stack = { .frames = { .items = frames, .n = 2 } };
	struct py_thread_frames thread = { .stack = &stack };
	struct intern strings;
	struct py_code_cache codes;
	py_loop_vec loops = { 0 };
	struct scene s;
	raddr loop, floats, select_code, run_code, callback = image_long(img, 1);

	open_scene(img, &s);
	thread.thread = s.thread;
	floats = new_type(img, "float", 0);
	loop = new_loop(&s, floats);
	select_code = image_code(img, "select", "/lib/selectors.py", 1);
	run_code = image_code(img, "_run_once", "/lib/asyncio/base_events.py", 1);
	frames[0] = new_frame(img, image_code(img, "work", "app.py", 1), locals, (uint64_t[]){ 0, 0, 0, 0, 0 }, 5);
	frames[1] = new_frame(img, run_code, locals,
		(uint64_t[]){ loop, new_float(img, floats, 6.25), image_long(img, 2), callback, 0 }, 5);
	cr_assert_eq(intern_init(&strings), 0);
	py_code_cache_init(&codes, &img->rt, &strings);
	cr_assert_eq(py_loops_read(&img->rt, &codes, &thread, 1, 10000000000, &loops), 0);
	cr_assert_eq(loops.n, 0, "asyncio is not imported");
	add_global(&s, "__name__", callback);
	cr_assert_eq(py_loops_read(&img->rt, &codes, &thread, 1, 10000000000, &loops), 0);
	cr_assert_eq(loops.n, 1);
	cr_assert_eq(loops.items[0].object, loop);
	cr_assert_eq(loops.items[0].tid, 100);
	cr_assert_not(loops.items[0].polling);
	cr_assert_eq(loops.items[0].scheduled, 2, "one is cancelled");
	cr_assert_eq(loops.items[0].overdue, 1);
	cr_assert_eq(loops.items[0].next_timer_s, 5.5);
	cr_assert_eq(loops.items[0].round_began_s, 6.25);
	cr_assert_eq(loops.items[0].round_index, 2);
	cr_assert_eq(loops.items[0].handle, callback);
	cr_assert_eq(loops.items[0].selector_fd, 4);
	cr_assert_eq(loops.items[0].self_pipe_fd, 6);
	vec_free(&loops);
	frames[0].code = select_code;
	cr_assert_eq(py_loops_read(&img->rt, &codes, &thread, 1, 10000000000, &loops), 0);
	cr_assert(loops.items[0].polling);
	cr_assert_eq(loops.items[0].round_index, -1);
	vec_free(&loops);
	frames[1].code = frames[0].code;
	cr_assert_eq(py_loops_read(&img->rt, &codes, &thread, 1, 10000000000, &loops), 0);
	cr_assert_eq(loops.n, 0, "no loop runs");
	py_code_cache_deinit(&codes);
	intern_deinit(&strings);
	vec_free(&loops);
}

Test(tasks, loops) {
	image_each(check_loops);
}

/* Words of the image replaced by others of it: whatever comes, it ends and stays in bounds. */
static void check_random(struct image *img) {
	py_task_vec tasks = { 0 };
	raddr all[6], end;
	struct scene s;
	uint64_t seed = 1;

	open_scene(img, &s);
	end = IMAGE_BASE + img->used;
	all[0] = new_coroutine(&s, image_code(img, "f", "app.py", 1), 0);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		all[i] = new_task(&s, new_coroutine(&s, image_code(img, "f", "app.py", 1), i ? all[i - 1] : all[0]),
			i ? all[i - 1] : 0, image_text(img, "name"));
	put_tasks(&s, all, ARRAY_SIZE(all));
	for (int i = 0; i < 3000; i++) {
		size_t words = (IMAGE_BASE + img->used - end) / 8;
		raddr at = end + (seed = hash_mix(seed + 1)) % words * 8, before = image_u64(img, at);

		image_put_u64(img, at, image_u64(img, end + (seed = hash_mix(seed + 1)) % words * 8));
		read_tasks(&s, TASKS_MAX, &tasks);
		if (i % 8)
			image_put_u64(img, at, before);
	}
	py_tasks_free(&tasks);
}

Test(tasks, random_words) {
	image_each(check_random);
}
