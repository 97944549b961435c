/* SPDX-License-Identifier: MIT */
/* Who holds a lock that has no owner field: three searches, each dearer and less certain than the one before.
 *
 *   1. threads whose frames are inside `with lock:`, also by way of a condition, a generator of contextlib or an
 *      ExitStack, which are made of such blocks                                                       (read)
 *   2. suspended generators and coroutines that a frame, or its module, names, inside such a block    (inferred)
 *   3. frames that have called lock.acquire() and not lock.release() yet, by their bytecode           (inferred)
 *
 * A search covers the whole process once a look; its answers serve every lock of it. */
#include "engine/base/limits.h"
#include "engine/cpython/acquired.h"
#include "engine/cpython/locals.h"
#include "engine/cpython/locks.h"
#include "engine/cpython/objects.h"
#include "engine/waits/remember.h"
#include "engine/waits/scan.h"
#include <string.h>

#define NESTING_MAX 4       /* of managers made of managers */
#define CALLBACKS_MAX 64    /* of one ExitStack */
#define GENERATORS_MAX 4096 /* looked at in one process */
#define ACQUIRED_MAX 32     /* calls in one frame */
#define GLOBALS_MAX 64      /* modules whose globals are searched */
#define NAMES_MAX 256       /* of one function */
#define RELEASE_FRAMES 16   /* innermost ones of a thread that may release a lock */

struct search {
	const struct wait_memory *memory;
	struct wait_view *view;
	struct wait_holders *holders;
	uint32_t thread;
	raddr released[2]; /* a condition that the thread waits on, and its lock */
	const char *inferred_why;
	unsigned generators;
	bool failed;
};

static struct wait_holders *holders_of(struct wait_scan *scan, const struct wait_view *view) {
	for (size_t i = 0; i < scan->views.n && i < scan->holders.n; i++)
		if (scan->views.items[i] == view)
			return &scan->holders.items[i];
	return NULL;
}

static void add(struct search *search, raddr object) {
	struct wait_holder holder = {
		.object = object,
		.thread = search->thread,
		.inferred = search->inferred_why != NULL,
	};

	if (object == search->released[0] || object == search->released[1] ||
		(search->inferred_why && scan_is_signal(search->memory, search->view, object)))
		return;
	if (search->inferred_why)
		snprintf(holder.why, sizeof(holder.why), "%s", search->inferred_why);
	search->failed |= vec_push(&search->holders->items, holder) != 0;
}

static void add_manager(struct search *search, raddr manager, unsigned depth);

/* The blocks that a suspended generator is in. */
static void add_generator(struct search *search, raddr object, unsigned depth) {
	struct wait_process *process = search->view->python;
	struct sample_target *target = process->target;
	struct py_block blocks[PY_BLOCKS_MAX];
	const struct py_code *code;
	struct py_gen gen;
	uint64_t serial = 0;
	int64_t offset = 0;
	size_t n = 0;
	int r;

	if (search->generators++ > GENERATORS_MAX || py_gen_read(&process->rt, object, &gen) ||
		gen.state != PY_GEN_SUSPENDED)
		return;
	pthread_mutex_lock(&target->lock);
	r = py_code_lookup(&target->codes, &gen.frame, 0, 0, false, &code);
	if (!r) {
		serial = code->serial;
		offset = py_code_offset(&target->codes, code, &gen.frame);
	}
	pthread_mutex_unlock(&target->lock);
	if (r || py_blocks_read(process->blocks, &gen.frame, serial, offset, blocks, &n))
		return;
	for (size_t i = 0; i < n; i++)
		add_manager(search, blocks[i].manager, depth + 1);
}

/* contextlib.ExitStack: a deque of (is_sync, callback), the callback a method bound to the manager. */
static void add_exit_stack(struct search *search, raddr stack, unsigned depth) {
	const struct py_reader *py = &search->view->python->rt.reader;
	raddr callbacks = scan_attribute(search->view, stack, "_exit_callbacks"), items[CALLBACKS_MAX];
	size_t n = 0;
	int r = callbacks ? py_deque_read(py, callbacks, items, CALLBACKS_MAX, &n) : PY_E_TYPE;

	if (r && r != PY_E_TRUNCATED)
		return;
	for (size_t i = 0; i < min_of(n, (size_t)CALLBACKS_MAX); i++) {
		raddr pair[2], self = 0;
		char name[32];
		size_t pair_n = 0;

		if (!py_sequence_read(py, items[i], pair, 2, &pair_n) && pair_n == 2 &&
			!py_callable_read(py, pair[1], &self, name, sizeof(name)) && self)
			add_manager(search, self, depth + 1);
	}
}

/* What a manager is made of, down to locks. */
static void add_manager(struct search *search, raddr manager, unsigned depth) {
	const struct wait_view *view = search->view;
	struct strbuf _cleanup_(strbuf_deinit) type = { 0 };
	const char *name;
	struct py_lock lock;
	raddr inner;

	if (!manager || depth > NESTING_MAX)
		return;
	if (!py_lock_read(&view->python->rt.reader, manager, &lock)) {
		add(search, manager);
		return;
	}
	if (py_type_describe(&view->python->rt.reader, manager, &type))
		return;
	name = strbuf_str(&type);
	if (!strcmp(name, "contextlib._GeneratorContextManager")) {
		add_generator(search, scan_attribute(view, manager, "gen"), depth);
		return;
	}
	if (!strcmp(name, "contextlib.ExitStack") || !strcmp(name, "contextlib.AsyncExitStack")) {
		add_exit_stack(search, manager, depth);
		return;
	}
	add(search, manager); /* a semaphore, or whatever it is that others wait for */
	inner = scan_attribute(view, manager, "_lock");
	if (!inner)
		inner = scan_attribute(view, manager, "_semlock");
	if (inner)
		add_manager(search, inner, depth + 1);
}

/* A thread inside Condition.wait is inside the condition's block, but has let go of its lock for as long. */
static raddr released_condition(const struct wait_view *view, const struct view_thread *thread) {
	for (size_t i = 0; i < thread->frames_n && i < 4; i++) {
		raddr self;

		if (!view_frame_is(&thread->frames[i], "threading", "wait"))
			continue;
		self = view_local(view, &thread->frames[i], "self");
		if (scan_type_is(view, self, "threading.Condition"))
			return self;
	}
	return 0;
}

static int search_blocks(struct wait_scan *scan, struct wait_view *view) {
	struct search search = { .memory = scan->memory, .view = view, .holders = holders_of(scan, view) };

	for (size_t i = 0; i < view->threads.n && !scan_is_late(scan); i++) {
		const struct view_thread *thread = &view->threads.items[i];

		search.thread = (uint32_t)i;
		search.released[0] = thread->held_n ? released_condition(view, thread) : 0;
		search.released[1] = search.released[0] ? scan_attribute(view, search.released[0], "_lock") : 0;
		for (size_t k = 0; k < thread->held_n; k++)
			add_manager(&search, thread->held[k].manager, 0);
	}
	return search.failed ? -ENOMEM : 0;
}

/* generators by name */

static bool is_generator(const struct wait_view *view, raddr object) {
	char type[24];

	return object && !py_type_name(&view->python->rt.reader, object, type, sizeof(type)) &&
		(!strcmp(type, "generator") || !strcmp(type, "coroutine") || !strcmp(type, "async_generator"));
}

static int try_local(void *userdata, const char *name, uint64_t ref) {
	struct search *search = userdata;

	(void)name;
	if ((ref & 3) != PY_TAG_INT && is_generator(search->view, py_untag(ref)))
		add_generator(search, py_untag(ref), 0);
	return search->generators > GENERATORS_MAX;
}

static int try_global(void *userdata, raddr key, raddr value) {
	struct search *search = userdata;

	(void)key;
	if (is_generator(search->view, value))
		add_generator(search, value, 0);
	return search->generators > GENERATORS_MAX;
}

/* Whether the dictionary is new to the list, which it is added to. */
static bool first_time(raddr *seen, size_t *n, raddr globals) {
	for (size_t i = 0; i < *n; i++)
		if (seen[i] == globals)
			return false;
	if (!globals || *n == GLOBALS_MAX)
		return false;
	seen[(*n)++] = globals;
	return true;
}

/* Who will go on with a generator is not known: of a variable's most likely the thread whose variable it is, of a
 * module's any thread. */
static int search_generators(struct wait_scan *scan, struct wait_view *view) {
	struct search search = { .memory = scan->memory, .view = view, .holders = holders_of(scan, view) };
	const struct py_runtime *rt = &view->python->rt;
	raddr seen[GLOBALS_MAX];
	size_t seen_n = 0;

	for (size_t i = 0; i < view->threads.n && !scan_is_late(scan); i++) {
		const struct view_thread *thread = &view->threads.items[i];

		for (size_t k = 0; k < thread->frames_n; k++) {
			const struct view_frame *frame = &thread->frames[k];

			search.thread = (uint32_t)i;
			search.inferred_why = "a suspended generator that its frame names is inside `with` of it";
			(void)!py_locals_walk(rt, &frame->raw, try_local, &search);
			search.thread = WAITS_NONE;
			search.inferred_why = "a suspended generator of a module is inside `with` of it";
			if (first_time(seen, &seen_n, frame->raw.globals))
				(void)!py_dict_walk(&rt->reader, frame->raw.globals, try_global, &search);
		}
	}
	return search.failed ? -ENOMEM : 0;
}

/* calls of acquire */

/* Whether that thread sleeps at the lock right now. */
static bool waits_at(const struct wait_view *view, const struct view_thread *thread, raddr object) {
	const struct py_reader *py = &view->python->rt.reader;
	struct py_parking parking = { .kind = PY_PARKED_NONE };
	struct py_lock lock;

	if (!object || thread->sleep.call != SLEEP_FUTEX || py_lock_read(py, object, &lock) || lock.kind != PY_LOCK)
		return false;
	if (layout_has(py->layout.wait_entry_addr))
		(void)!py_parking_read(py, thread->sleep.address, &parking);
	return parking.kind == PY_PARKED_MUTEX ? parking.address == lock.word : thread->sleep.address == lock.word;
}

static bool names_release(const struct wait_view *view, const struct view_frame *frame) {
	const struct py_reader *py = &view->python->rt.reader;
	raddr names, items[NAMES_MAX];
	size_t n = 0;

	if (mem_read_u64(py->mem, py_untag(frame->raw.code) + py->layout.code_names, &names) ||
		py_sequence_read(py, names, items, NAMES_MAX, &n))
		return true; /* not known */
	for (size_t i = 0; i < min_of(n, (size_t)NAMES_MAX); i++) {
		struct strbuf _cleanup_(strbuf_deinit) name = { 0 };

		if (!py_text_read(py, items[i], 16, &name) && !strcmp(strbuf_str(&name), "release"))
			return true;
	}
	return n > NAMES_MAX;
}

bool scan_may_be_released(const struct wait_view *view, raddr lock, const struct view_thread *except) {
	vec_foreach (thread, &view->threads)
		for (size_t i = 0; thread != except && i < min_of(thread->frames_n, (size_t)RELEASE_FRAMES); i++)
			if (names_release(view, &thread->frames[i]) && scan_expression(view, thread, i, lock))
				return true;
	return false;
}

/* A lock that a thread takes twice is a signal where somebody else may release it: who is in a function that does; a
 * signal handler, where one frame takes it twice; or, where nothing but a variable of its frame names it, whoever it
 * has shown the lock (so conditions are made). */
static bool is_signal(const struct search *search, const struct view_frame *frame, const struct py_acquired *acquired) {
	const struct wait_view *view = search->view;
	const struct view_thread *thread = &view->threads.items[search->thread];
	uint64_t unused;

	return waits_at(view, thread, acquired->object) &&
		((frame == thread->frames && scan_has_handlers(view)) ||
			!py_local_get(&view->python->rt, &frame->raw, acquired->expression, &unused) ||
			scan_may_be_released(view, acquired->object, thread));
}

static void add_acquired(struct search *search, const struct view_frame *frame) {
	struct sample_target *target = search->view->python->target;
	struct py_acquired acquired[ACQUIRED_MAX];
	const struct py_code *code;
	char why[160];
	size_t n = 0;
	int r;

	pthread_mutex_lock(&target->lock);
	r = py_code_lookup(&target->codes, &frame->raw, 0, 0, false, &code);
	if (!r)
		r = py_acquired_read(&search->view->python->rt, &target->codes, code, &frame->raw, frame->offset,
			acquired, ACQUIRED_MAX, &n);
	pthread_mutex_unlock(&target->lock);
	for (size_t i = 0; !r && i < n; i++) {
		if (is_signal(search, frame, &acquired[i]))
			continue;
		snprintf(why, sizeof(why), "%.40s called `%.40s.acquire()` in line %d and has not released it since",
			frame->function, acquired[i].expression, acquired[i].line);
		search->inferred_why = why;
		add_manager(search, acquired[i].object, 0);
		search->inferred_why = NULL;
	}
}

static int search_acquired(struct wait_scan *scan, struct wait_view *view) {
	struct search search = { .memory = scan->memory, .view = view, .holders = holders_of(scan, view) };

	for (size_t i = 0; i < view->threads.n && !scan_is_late(scan); i++) {
		const struct view_thread *thread = &view->threads.items[i];

		search.thread = (uint32_t)i;
		for (size_t k = 0; k < thread->frames_n; k++)
			add_acquired(&search, &thread->frames[k]);
	}
	return search.failed ? -ENOMEM : 0;
}

static size_t tell(struct wait_scan *scan, const struct wait_view *view, raddr object,
	void (*each)(void *, const struct wait_holder *), void *userdata) {
	struct wait_holders *holders = holders_of(scan, view);
	size_t n = 0;

	for (size_t i = 0; holders && i < holders->items.n; i++) {
		const struct wait_holder holder = holders->items.items[i];

		if (holder.object != object)
			continue;
		each(userdata, &holder);
		n++;
		holders = holders_of(scan, view); /* a callback may have read further processes */
	}
	return n;
}

size_t scan_holders(struct wait_scan *scan, struct wait_view *view, raddr object,
	void (*each)(void *userdata, const struct wait_holder *holder), void *userdata) {
	static int (*const searches[])(
		struct wait_scan *, struct wait_view *) = { search_blocks, search_generators, search_acquired };
	size_t n = 0;

	for (size_t i = 0; !n && i < ARRAY_SIZE(searches); i++) {
		struct wait_holders *holders = holders_of(scan, view);

		if (!holders)
			return 0;
		if (holders->searches <= i) {
			holders->searches = (unsigned)i + 1;
			scan->failed |= searches[i](scan, view) != 0;
		}
		n = tell(scan, view, object, each, userdata);
	}
	return n;
}
