/* SPDX-License-Identifier: MIT */
/* Pending tasks, and the coroutines that each is suspended in.
 *
 * Where tasks are found. 3.14+: circular lists through the tasks of the C type, one for each thread state and one of
 * the interpreter for those whose thread has ended. All versions: the WeakSet asyncio.tasks._scheduled_tasks (to 3.11
 * _all_tasks), which is the C module's own to 3.13 and has only tasks of Python classes from 3.14 on; and the set
 * _eager_tasks (3.12+), of those that have not been suspended yet. A task that is met in two of them is told once.
 *
 * A task's chain: its coroutine, what that awaits, and so on through generators, wrappers and asynchronous generators
 * to the innermost frame. Long chains keep their innermost coroutines.
 *
 * Nothing here stands still. A task that ran meanwhile has the frames that could be read; one whose head cannot be read
 * is left out. Not found: tasks of foreign types that register with the C module of 3.14+, whose set no name leads to.
 */
#include "engine/cpython/tasks.h"

#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/cpython/asyncio.h"
#include "engine/cpython/locals.h"
#include "engine/cpython/locks.h"
#include "engine/cpython/objects.h"
#include <string.h>

#define NODES_MAX (1U << 20)      /* of all lists together, pending or not */
#define COROUTINES_MAX (1U << 20) /* of all chains together */
#define CHAIN_MAX LIMIT_FRAMES    /* coroutines of one chain that are walked */
#define TRIES 3                   /* at a list or set that changes while it is read */

struct collector {
	const struct py_runtime *rt;
	struct asyncio_types types;
	struct map seen;    /* tasks that were looked at */
	struct map running; /* tasks that threads execute now */
	py_task_vec *tasks;
	size_t max;
	size_t nodes, coroutines; /* of the limits above */
	bool cut;
};

static void collector_deinit(struct collector *c) {
	asyncio_types_deinit(&c->types);
	map_deinit(&c->seen);
	map_deinit(&c->running);
}

/* What stands between a coroutine and the one that it awaits: which member of it leads on. */
static uint32_t wrapper_member(const struct layout *l, enum asyncio_kind kind) {
	switch (kind) {
	case ASYNCIO_WRAPPER: return l->coro_wrapper_coroutine;
	case ASYNCIO_ASEND: return l->asend_gen;
	case ASYNCIO_ATHROW: return l->athrow_gen;
	case ASYNCIO_ANEXT: return l->object_size; /* CPython 3.10+ Objects/iterobject.c: its first member */
	default: return LAYOUT_NONE;
	}
}

struct chain {
	struct py_raw_frame last[PY_TASK_FRAMES_MAX]; /* a ring; outermost first */
	size_t n;                                     /* frames met */
	raddr end;                                    /* what is awaited and is no coroutine; 0 */
};

/* One step of the walk. Return: 0 and *object what comes next, 0 at the chain's end; what could not be read. */
static int follow(struct collector *c, struct chain *chain, raddr *object) {
	const struct py_reader *py = &c->rt->reader;
	enum asyncio_kind kind;
	struct py_gen gen;
	uint32_t member;
	int r = asyncio_kind_of(py, &c->types, *object, &kind);

	if (r)
		return r;
	if (kind == ASYNCIO_COROUTINE) {
		r = py_gen_read(c->rt, *object, &gen);
		if (r)
			return r;
		if (gen.state != PY_GEN_DONE)
			chain->last[chain->n++ % PY_TASK_FRAMES_MAX] = gen.frame;
		*object = gen.state != PY_GEN_DONE ? gen.awaits : 0;
		return 0;
	}
	member = wrapper_member(&py->layout, kind);
	if (layout_has(member))
		return mem_read_u64(py->mem, *object + member, object);
	chain->end = *object;
	*object = 0;
	return 0;
}

/* Return: 0; what could not be read, after which the chain is what it is so far. */
static int walk_chain(struct collector *c, raddr object, struct chain *chain) {
	raddr anchor = 0;
	int r = 0;

	for (size_t steps = 1; !r && object && steps <= CHAIN_MAX && c->coroutines < COROUTINES_MAX; steps++) {
		if (object == anchor)
			return PY_E_TORN;
		if (!(steps & (steps - 1)))
			anchor = object;
		c->coroutines++;
		r = follow(c, chain, &object);
	}
	return r;
}

static void take_frames(struct py_task *task, const struct chain *chain) {
	task->frames_n = min_of(chain->n, (size_t)PY_TASK_FRAMES_MAX);
	for (size_t i = 0; i < task->frames_n; i++)
		task->frames[i] = chain->last[(chain->n - 1 - i) % PY_TASK_FRAMES_MAX];
}

/* A future's iterator stands for the future. */
static bool is_future_like(struct collector *c, raddr object) {
	struct asyncio_object unused;
	enum asyncio_kind kind;

	if (!asyncio_kind_of(&c->rt->reader, &c->types, object, &kind) && kind == ASYNCIO_FUTURE_ITER)
		return true;
	return !asyncio_object_read(&c->rt->reader, &c->types, object, &unused);
}

static int read_chain(struct collector *c, const struct asyncio_object *object, struct py_task *task) {
	struct chain chain = { .n = 0 };
	struct asyncio_object waiter;
	int r = walk_chain(c, object->coro, &chain);

	if (asyncio_is_fatal(r))
		return r;
	take_frames(task, &chain);
	if (task->waiter) {
		r = asyncio_object_read(&c->rt->reader, &c->types, task->waiter, &waiter);
		task->waiter_is_task = !r && waiter.is_task;
	}
	if (chain.end && chain.end != task->waiter && !is_future_like(c, chain.end))
		task->awaitable = chain.end;
	return asyncio_is_fatal(r) ? r : 0;
}

/* From 3.12 on a name that nobody asked for yet is only its number. */
static char *read_name(const struct py_reader *py, raddr name) {
	struct strbuf text = { 0 };
	int64_t number;
	int r = name ? py_text_read(py, name, LIMIT_NAME_CHARS, &text) : 0;

	if (r == PY_E_TYPE && !py_long_read(py, name, &number))
		strbuf_addf(&text, "Task-%lld", (long long)number);
	return strbuf_take(&text);
}

static int add_pending(struct collector *c, raddr object, const struct asyncio_object *head) {
	struct py_task task = { .object = object, .loop = head->loop, .state = head->state, .waiter = head->waiter };
	uint64_t unused;
	int r;

	task.running = map_get(&c->running, object, &unused);
	r = read_chain(c, head, &task);
	if (r)
		return r;
	task.name = read_name(&c->rt->reader, head->name);
	r = task.name ? vec_push(c->tasks, task) : -ENOMEM;
	if (r)
		free(task.name);
	return r;
}

/* Return: 0 also where it is none, done, or known; PY_E_TRUNCATED; MEM_E_GONE; negative errno. */
static int add_task(struct collector *c, raddr object) {
	struct asyncio_object head;
	uint64_t unused;
	int r;

	if (!object || object == UINT64_MAX || map_get(&c->seen, object, &unused))
		return 0;
	r = map_put(&c->seen, object, 1);
	if (!r)
		r = asyncio_object_read(&c->rt->reader, &c->types, object, &head);
	if (r)
		return asyncio_is_fatal(r) ? r : 0;
	if (!head.is_task || head.state != PY_FUTURE_PENDING)
		return 0;
	if (c->tasks->n >= c->max) {
		c->cut = true;
		return PY_E_TRUNCATED;
	}
	return add_pending(c, object, &head);
}

/* Return: 0; PY_E_TORN: a back pointer does not fit, so the list changed under us; MEM_E_*; negative errno. */
static int walk_list_once(struct collector *c, raddr head) {
	const struct py_reader *py = &c->rt->reader;
	struct {
		uint64_t next, previous;
	} node;
	raddr at = head;
	int r = mem_read(py->mem, head, &node, sizeof(node));

	while (!r && node.next && node.next != head) {
		raddr from = at;

		if (c->nodes++ >= NODES_MAX)
			return PY_E_TRUNCATED;
		at = node.next;
		r = mem_read(py->mem, at, &node, sizeof(node));
		if (!r && node.previous != from)
			r = PY_E_TORN;
		if (!r)
			r = add_task(c, at - py->layout.task_node);
	}
	return r;
}

/* The tasks met so far are good, and are not added again. */
static int walk_list(struct collector *c, raddr head) {
	int r = PY_E_TORN;

	for (int i = 0; i < TRIES && (r == PY_E_TORN || r == MEM_E_FAULT); i++)
		r = walk_list_once(c, head);
	c->cut = c->cut || r;
	return asyncio_is_fatal(r) ? r : 0;
}

/* Members of a set, or what its weak references lead to. */
static int add_set(struct collector *c, raddr set, bool weak) {
	const struct py_reader *py = &c->rt->reader;
	_free_ raddr *items = calloc(NODES_MAX, sizeof(*items));
	size_t n = 0;
	int r = items ? MEM_E_FAULT : -ENOMEM;

	for (int i = 0; i < TRIES && r == MEM_E_FAULT; i++)
		r = py_set_read(py, set, items, NODES_MAX, &n);
	c->cut = c->cut || r;
	if (r && r != PY_E_TRUNCATED)
		return r;
	r = 0;
	for (size_t i = 0; !asyncio_is_fatal(r) && r != PY_E_TRUNCATED && i < min_of(n, (size_t)NODES_MAX); i++) {
		raddr object = items[i];

		/* CPython Include/cpython/weakrefobject.h: wr_object is the first member */
		r = weak ? mem_read_u64(py->mem, items[i] + py->layout.object_size, &object) : 0;
		if (!r)
			r = add_task(c, object);
	}
	return r;
}

static int add_sets_of_interp(struct collector *c, raddr interp) {
	static const struct {
		const char *name;
		bool weak;
	} sets[] = { { "_scheduled_tasks", true }, { "_all_tasks", true }, { "_eager_tasks", false } };

	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		raddr set;
		int r = asyncio_global(c->rt, interp, "asyncio.tasks", sets[i].name, &set);

		if (!r && sets[i].weak)
			r = asyncio_attribute(&c->rt->reader, set, "data", &set);
		if (!r)
			r = add_set(c, set, sets[i].weak);
		if (asyncio_is_fatal(r))
			return r;
	}
	return 0;
}

static int add_all(struct collector *c, const py_interp_vec *interps, const struct py_thread *threads, size_t n) {
	const struct layout *l = &c->rt->reader.layout;
	int r = 0;

	for (size_t i = 0; !r && layout_has(l->tstate_tasks_head) && layout_has(l->task_node) && i < n; i++)
		r = walk_list(c, threads[i].tstate + l->tstate_tasks_head);
	for (size_t i = 0; !r && layout_has(l->interp_tasks_head) && layout_has(l->task_node) && i < interps->n; i++)
		r = walk_list(c, interps->items[i].addr + l->interp_tasks_head);
	for (size_t i = 0; !r && i < interps->n; i++)
		r = add_sets_of_interp(c, interps->items[i].addr);
	return r;
}

static int find_running(struct collector *c, const struct py_thread *threads, size_t n) {
	for (size_t i = 0; i < n; i++) {
		raddr loop, task = 0;
		int r = asyncio_running_loop(c->rt, &threads[i], &loop);

		if (!r && loop)
			r = asyncio_running_task(c->rt, &threads[i], loop, &task);
		if (!r && task && task != UINT64_MAX)
			r = map_put(&c->running, task, 1);
		if (r)
			return r;
	}
	return 0;
}

int py_tasks_read(const struct py_runtime *rt, const struct py_thread *threads, size_t threads_n, size_t max,
	py_task_vec *ret_tasks) {
	py_task_vec tasks = { 0 };
	_cleanup_(collector_deinit) struct collector c = { .rt = rt, .tasks = &tasks, .max = max };
	py_interp_vec interps = { 0 };
	int r = py_interps_read(rt, &interps);

	if (!r)
		r = find_running(&c, threads, threads_n);
	if (!r)
		r = add_all(&c, &interps, threads, threads_n);
	vec_free(&interps);
	if (r) {
		py_tasks_free(&tasks);
		return r;
	}
	*ret_tasks = tasks;
	return c.cut ? PY_E_TRUNCATED : 0;
}

void py_tasks_free(py_task_vec *tasks) {
	vec_foreach (task, tasks)
		free(task->name);
	vec_free(tasks);
}

/* Where a coroutine waits in a primitive of asyncio. */
struct primitive {
	raddr object;
	bool of_parts; /* made of other primitives: those inside are not told */
};

/* Return: 0; PY_E_TYPE: the frame is not of a primitive; as py_code_lookup. */
static int primitive_of_frame(const struct py_runtime *rt, struct py_code_cache *codes,
	const struct py_raw_frame *frame, struct primitive *ret) {
	static const struct {
		const char *file;
		bool of_parts;
	} files[] = { { "asyncio/locks.py", false }, { "asyncio/queues.py", true }, { "asyncio/taskgroups.py", true } };
	const struct py_code *code;
	const char *file;
	uint64_t self;
	size_t len;
	int r = py_code_lookup(codes, frame, 0, clock_mono_ns(), false, &code);

	if (r)
		return r;
	file = intern_str(codes->strings, code->file);
	len = strlen(file);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		size_t n = strlen(files[i].file);

		if (len < n || strcmp(file + len - n, files[i].file))
			continue;
		r = py_local_get(rt, frame, "self", &self);
		if (r || !self)
			return r ? r : PY_E_TYPE;
		*ret = (struct primitive){ .object = self, .of_parts = files[i].of_parts };
		ret->of_parts = ret->of_parts || asyncio_is_instance(&rt->reader, self, "Barrier");
		return 0;
	}
	return PY_E_TYPE;
}

/* The innermost frame's, or that of which it is a part: a Barrier waits in its Condition, a Queue in its Event. */
int py_task_primitive(const struct py_runtime *rt, struct py_code_cache *codes, const struct py_task *task,
	raddr *ret_object, char *type, size_t type_size) {
	struct primitive found = { 0 }, outer = { 0 };
	int r = 0;

	for (size_t i = 0; !r && i < task->frames_n; i++) {
		r = primitive_of_frame(rt, codes, &task->frames[i], &outer);
		if (!r && (!found.object || outer.of_parts))
			found = outer;
	}
	if (asyncio_is_fatal(r))
		return r;
	if (!found.object)
		return r ? r : PY_E_TYPE;
	r = py_type_name(&rt->reader, found.object, type, type_size);
	if (!r)
		*ret_object = found.object;
	return r;
}
