/* SPDX-License-Identifier: MIT */
/* What a Python thread that sleeps at a futex waits for: the GIL, a lock, or one of the primitives of the standard
 * library that are made of locks.
 *
 * The word that the thread sleeps at names the lock for certain. What the wait means the frames say: the lock inside
 * Condition.wait is only its means; what is waited for is the event, the queue, the future further out. Those have no
 * holder: anybody may end such a wait, and who is left is told by scan_others. */
#include "engine/base/limits.h"
#include "engine/cpython/locks.h"
#include "engine/cpython/names.h"
#include "engine/cpython/objects.h"
#include "engine/waits/remember.h"
#include "engine/waits/scan.h"
#include "engine/waits/sites.h"
#include <string.h>

#define REFERENCES_MAX 256 /* of one frame's value stack */
#define FOREIGN_WORDS 256  /* of the C library's description of a thread */
#define TID_MAX (1U << 22) /* Linux include/linux/threads.h, PID_MAX_LIMIT */

bool scan_type_is(const struct wait_view *view, raddr object, const char *name) {
	struct strbuf _cleanup_(strbuf_deinit) type = { 0 };

	return object && !py_type_describe(&view->python->rt.reader, object, &type) && !strcmp(strbuf_str(&type), name);
}

raddr scan_attribute(const struct wait_view *view, raddr object, const char *name) {
	raddr value;

	return object && !py_attribute(&view->python->rt.reader, object, name, &value) ? value : 0;
}

const char *scan_expression(
	const struct wait_view *view, const struct view_thread *thread, size_t frame, raddr object) {
	static __thread char text[256];

	if (!object || frame >= thread->frames_n ||
		py_name_find(&view->python->rt, &thread->frames[frame].raw, object, text, sizeof(text)))
		return NULL;
	return text;
}

/* the GIL */

static uint32_t gil_node(struct wait_scan *scan, struct wait_view *view, const struct py_interp_view *gil) {
	bool fresh;
	uint32_t index = scan_resource(scan, "GIL", view->proc.pid, gil->gil,
		scan_key("GIL", (uint64_t)view->proc.pid, gil->gil), &fresh, "the GIL");

	if (!fresh)
		return index;
	vec_foreach (thread, &view->threads) {
		if (!thread->sampled || thread->py.tstate != gil->gil_holder)
			continue;
		scan_node(scan, index)->rule = PYSPYD_WAIT_ANY;
		scan_edge(scan, index, scan_thread(scan, view, thread), NULL, NULL);
	}
	return index;
}

bool scan_gil_wait(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread) {
	uint32_t size = view->python->rt.reader.layout.gil_size;

	for (size_t i = 0; i < view->interps.n; i++) {
		const struct py_interp_view *gil = &view->gils[i];

		if (!gil->gil || !layout_has(size) || thread->sleep.address < gil->gil ||
			thread->sleep.address - gil->gil >= size)
			continue;
		scan_node(scan, thread->node)->gil_waiter = true;
		scan_waits(scan, thread, gil_node(scan, view, gil), NULL, NULL);
		return true;
	}
	return false;
}

/* locks */

static const char *lock_type(const struct py_lock *lock) {
	switch (lock->kind) {
	case PY_RLOCK: return "RLock";
	case PY_SEMLOCK: return lock->maxvalue > 1 ? "Semaphore of processes" : "Lock of processes";
	case PY_BUFFERED: return "buffer lock";
	case PY_LOCK: break;
	}
	return "Lock";
}

struct lock_edges {
	struct wait_scan *scan;
	struct wait_view *view;
	uint32_t lock;
	size_t units;    /* taken, as far as it was seen */
	const char *why; /* all is inferred, for this reason */
};

static void add_holder(void *userdata, const struct wait_holder *holder) {
	struct lock_edges *edges = userdata;
	struct wait_view *view = edges->view;
	uint32_t node = holder->thread == WAITS_NONE
		? scan_others(edges->scan, view)
		: scan_thread(edges->scan, view, &view->threads.items[holder->thread]);

	edges->units++;
	if (holder->inferred && holder->thread != WAITS_NONE)
		scan_taken_for_holder(edges->scan, edges->lock, &view->threads.items[holder->thread]);
	scan_edge(edges->scan, edges->lock, node, NULL, holder->inferred ? holder->why : edges->why);
}

/* A thread that Python does not know at the moment, as it is in C code that calls Python now and then: its ident is the
 * address of the C library's description of it, in which its id stands somewhere (glibc, musl: struct pthread). */
static struct view_thread *foreign_thread(const struct wait_view *view, uint64_t ident) {
	uint32_t words[FOREIGN_WORDS];

	if (mem_read(view->python->rt.reader.mem, ident, words, sizeof(words)))
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		struct view_thread *thread =
			words[i] && words[i] <= TID_MAX ? scan_thread_by_inner_tid(view, (pid_t)words[i]) : NULL;

		if (thread && !thread->sampled)
			return thread;
	}
	return NULL;
}

/* A holder is recorded: where that thread is no more, nobody is left. */
static void owned_lock(struct wait_scan *scan, struct wait_view *view, uint32_t index, uint64_t owner) {
	struct view_thread *thread = view_thread_of_ident(view, owner);
	struct pyspyd_wait_node *node;
	char fault[120];

	if (!thread)
		thread = foreign_thread(view, owner);
	if (thread) {
		scan_node(scan, index)->rule = PYSPYD_WAIT_ANY;
		scan_edge(scan, index, scan_thread(scan, view, thread), NULL, NULL);
		return;
	}
	snprintf(fault, sizeof(fault), "the thread that held it (ident 0x%llx) has ended", (unsigned long long)owner);
	node = scan_node(scan, index);
	node->rule = PYSPYD_WAIT_NEVER;
	node->fault = strdup(fault);
}

/* Nobody is recorded: those who are inside `with`, else those whose frames say so; else whoever is left. */
static void plain_lock(struct wait_scan *scan, struct wait_view *view, uint32_t index, raddr object) {
	struct lock_edges edges = { .scan = scan, .view = view, .lock = index };
	struct pyspyd_wait_node *node = scan_node(scan, index);

	node->rule = PYSPYD_WAIT_ANY;
	if (scan_holders(scan, view, object, add_holder, &edges))
		return;
	if (scan_is_signal(scan->memory, view, object)) { /* by somebody who need not be seen */
		scan_node(scan, index)->rule = PYSPYD_WAIT_FREE;
		return;
	}
	if (scan_is_late(scan)) { /* its holder may not have been looked at */
		scan_node(scan, index)->rule = PYSPYD_WAIT_FREE;
		return;
	}
	scan_edge(scan, index, scan_others(scan, view), NULL, "no frame holds it: any thread might release it");
	node = scan_node(scan, index);
	if (!node->fault && index != WAITS_NONE)
		node->fault = strdup("no frame of a living thread holds it, and nobody is left to release it");
}

uint32_t scan_lock(struct wait_scan *scan, struct wait_view *view, raddr object) {
	struct py_lock lock;
	uint32_t index;
	bool fresh;

	if (py_lock_read(&view->python->rt.reader, object, &lock) || lock.kind == PY_SEMLOCK)
		return WAITS_NONE;
	index = scan_resource(scan, lock_type(&lock), view->proc.pid, object,
		scan_key("object", (uint64_t)view->proc.pid, object), &fresh, "%s 0x%llx", lock_type(&lock),
		(unsigned long long)object);
	if (!fresh || index == WAITS_NONE)
		return index;
	if (!lock.locked)
		return index; /* just released: its waiter is about to go on */
	if (lock.kind != PY_LOCK && lock.owner)
		owned_lock(scan, view, index, lock.owner);
	else if (lock.kind == PY_LOCK)
		plain_lock(scan, view, index, object);
	return index;
}

/* Whether an object is the lock of that word, or a method bound to it (`with` to 3.13 leaves its __exit__ on the stack
 * in the lock's place). A lock that was freed may lie where the stack was once higher, and a new one have its word. */
static raddr lock_of_word(const struct py_reader *py, raddr object, raddr word) {
	struct py_lock lock;
	char name[32];
	raddr self;
	int r = py_lock_read(py, object, &lock);

	if (r == PY_E_TYPE && !py_callable_read(py, object, &self, name, sizeof(name)) && self)
		r = py_lock_read(py, self, &lock);
	return !r && lock.word == word && py_object_is_live(py, lock.object) ? lock.object : 0;
}

/* The object on the thread's value stack whose lock word is the one that it sleeps at. */
static raddr object_of_word(const struct wait_view *view, const struct view_thread *thread, raddr word) {
	raddr references[REFERENCES_MAX], found = 0;
	size_t n = 0;

	if (!thread->frames_n ||
		py_stack_references(&view->python->rt, &thread->frames[0].raw, references, REFERENCES_MAX, &n))
		return 0;
	for (size_t i = n; i > 0 && !found; i--)
		found = lock_of_word(&view->python->rt.reader, references[i - 1], word);
	return found;
}

/* The SimpleQueue whose own lock the word is, or lies in. */
static raddr queue_of_word(const struct wait_view *view, const struct view_thread *thread, raddr word) {
	const struct py_reader *py = &view->python->rt.reader;
	raddr references[REFERENCES_MAX];
	size_t n = 0;

	if (!thread->frames_n ||
		py_stack_references(&view->python->rt, &thread->frames[0].raw, references, REFERENCES_MAX, &n))
		return 0;
	for (size_t i = n; i > 0; i--) {
		uint64_t sem = 0;
		raddr object = references[i - 1];

		if (!scan_type_is(view, object, "_queue.SimpleQueue") || !py_object_is_live(py, object))
			continue;
		if (layout_has(py->layout.simplequeue_sem))
			(void)!mem_read_u64(py->mem, object + py->layout.simplequeue_sem, &sem);
		if (sem == word || (word > object && word - object < 128))
			return object;
	}
	return 0;
}

/* other primitives */

/* Something that anybody in the process may end. */
static uint32_t open_resource(
	struct wait_scan *scan, struct wait_view *view, const char *type, raddr object, const char *why) {
	bool fresh;
	uint32_t index =
		scan_resource(scan, type, view->proc.pid, object, scan_key("object", (uint64_t)view->proc.pid, object),
			&fresh, "%s 0x%llx", type, (unsigned long long)object);

	if (fresh && index != WAITS_NONE) {
		scan_node(scan, index)->rule = PYSPYD_WAIT_ANY;
		scan_edge(scan, index, scan_others(scan, view), NULL, why);
	}
	return index;
}

/* How many units a semaphore has in all; 0: it does not say. */
static uint64_t semaphore_units(const struct wait_view *view, raddr object) {
	raddr initial = scan_attribute(view, object, "_initial_value");
	int64_t units;

	return initial && !py_long_read(&view->python->rt.reader, initial, &units) && units > 0 ? (uint64_t)units : 0;
}

/* threading.Semaphore: those inside `with` are taken for its holders. Only a BoundedSemaphore tells whether these are
 * all. */
static uint32_t semaphore_node(struct wait_scan *scan, struct wait_view *view, raddr object) {
	struct lock_edges edges = { .scan = scan, .view = view };
	uint64_t units = semaphore_units(view, object);
	bool fresh;

	edges.lock = scan_resource(scan, "Semaphore", view->proc.pid, object,
		scan_key("object", (uint64_t)view->proc.pid, object), &fresh, "Semaphore 0x%llx",
		(unsigned long long)object);
	if (!fresh || edges.lock == WAITS_NONE)
		return edges.lock;
	scan_node(scan, edges.lock)->rule = PYSPYD_WAIT_ANY;
	if (!units)
		edges.why = "a semaphore records no holder, and not how many it has";
	scan_holders(scan, view, object, add_holder, &edges);
	if (!edges.units || edges.units < units)
		scan_edge(scan, edges.lock, scan_others(scan, view), NULL,
			"a semaphore records no holder: any thread might release it");
	return edges.lock;
}

/* The end of a thread. */
static uint32_t join_node(struct wait_scan *scan, struct wait_view *view, uint64_t ident) {
	struct view_thread *thread = view_thread_of_ident(view, ident);
	uint32_t target, index;
	bool fresh;

	if (!thread)
		return WAITS_NONE;
	target = scan_thread(scan, view, thread);
	index = scan_resource(scan, "join", view->proc.pid, 0, scan_key("join", (uint64_t)thread->tid, ident), &fresh,
		"the end of %s", scan_node(scan, target)->label ? scan_node(scan, target)->label : "?");
	if (fresh && index != WAITS_NONE) {
		scan_node(scan, index)->rule = PYSPYD_WAIT_ANY;
		scan_edge(scan, index, target, NULL, NULL);
	}
	return index;
}

static uint64_t ident_of_thread_object(const struct wait_view *view, raddr object) {
	raddr ident = scan_attribute(view, object, "_ident");
	int64_t value;

	return ident && !py_long_read(&view->python->rt.reader, ident, &value) ? (uint64_t)value : 0;
}

/* The Thread object whose _tstate_lock is that lock (to 3.12): the interpreter waits for all of them at its end. */
struct shutdown_search {
	const struct wait_view *view;
	raddr lock;
	uint64_t ident;
};

static int check_tstate_lock(void *userdata, raddr key, raddr value) {
	struct shutdown_search *search = userdata;

	(void)key;
	if (scan_attribute(search->view, value, "_tstate_lock") != search->lock)
		return 0;
	search->ident = ident_of_thread_object(search->view, value);
	return 1;
}

static uint64_t ident_of_tstate_lock(const struct wait_view *view, const struct view_frame *frame, raddr lock) {
	struct shutdown_search search = { .view = view, .lock = lock };
	const struct py_reader *py = &view->python->rt.reader;
	raddr active;

	if (lock && frame->raw.globals && !py_dict_get(py, frame->raw.globals, "_active", &active))
		(void)!py_dict_walk(py, active, check_tstate_lock, &search);
	return search.ident;
}

/* Any thread that is not a daemon keeps the interpreter from ending: with 3.13 C code waits for them, one by one. */
static void wait_for_join(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread,
	const struct wait_site *site, raddr lock, uint64_t parked_ident) {
	const struct view_frame *frame = &thread->frames[site->frame];
	raddr self = site->kind == SITE_JOIN ? view_local(view, frame, "self") : 0;
	uint64_t ident = parked_ident;

	if (!ident && self)
		ident = ident_of_thread_object(view, self);
	if (!ident)
		ident = ident_of_tstate_lock(view, frame, lock);
	scan_waits(scan, thread, join_node(scan, view, ident),
		self ? scan_expression(view, thread, site->frame + 1, self) : NULL, NULL);
}

/* importlib's own locks know their owner. */
static void wait_for_import(
	struct wait_scan *scan, struct wait_view *view, struct view_thread *thread, const struct wait_site *site) {
	raddr self = view_local(view, &thread->frames[site->frame], "self");
	raddr owner = scan_attribute(view, self, "owner"), name = scan_attribute(view, self, "name");
	struct strbuf _cleanup_(strbuf_deinit) text = { 0 };
	uint32_t index;
	int64_t ident;
	bool fresh;

	if (!self)
		return;
	if (name)
		(void)!py_text_read(&view->python->rt.reader, name, LIMIT_NAME_CHARS, &text);
	index = scan_resource(scan, "import lock", view->proc.pid, self,
		scan_key("object", (uint64_t)view->proc.pid, self), &fresh, "import lock of %s", strbuf_str(&text));
	if (fresh && index != WAITS_NONE && owner && !py_long_read(&view->python->rt.reader, owner, &ident) && ident)
		owned_lock(scan, view, index, (uint64_t)ident);
	scan_waits(scan, thread, index, NULL, NULL);
}

/* A thread that runs an event loop, and waits for a future in one of its callbacks, keeps the loop from bringing it. */
static void wait_for_future(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread, raddr future,
	const char *expression) {
	uint32_t node = scan_future(scan, view, future);
	uint64_t loop;

	scan_waits(scan, thread, node, expression, NULL);
	if (node != WAITS_NONE && map_get(&view->loop_of, (uint64_t)(thread - view->threads.items), &loop) &&
		!view->loops.items[loop].polling && view->loops.items[loop].ready &&
		scan_node(scan, node)->rule == PYSPYD_WAIT_ANY)
		scan_edge(scan, node, thread->node, NULL,
			"callbacks of the event loop that this thread runs are waiting");
}

/* Condition.wait, and what it is for. */
static void wait_on_condition(
	struct wait_scan *scan, struct wait_view *view, struct view_thread *thread, const struct wait_site *site) {
	raddr self = view_local(view, &thread->frames[site->frame], "self");
	const char *expression = scan_expression(view, thread, site->frame + 1, self);
	struct pyspyd_wait_node *node = scan_node(scan, thread->node);

	switch (site->kind) {
	case SITE_ACQUIRE: scan_waits(scan, thread, semaphore_node(scan, view, self), expression, NULL); return;
	case SITE_FUTURE: wait_for_future(scan, view, thread, self, expression); return;
	case SITE_FUTURES: scan_futures(scan, view, thread, &thread->frames[site->frame]); return;
	case SITE_QUEUE_GET:
		scan_waits(scan, thread, open_resource(scan, view, "Queue", self, "any thread might put an item"),
			expression, NULL);
		return;
	case SITE_QUEUE_PUT:
		scan_waits(scan, thread, open_resource(scan, view, "full Queue", self, "any thread might take an item"),
			expression, NULL);
		return;
	case SITE_QUEUE_JOIN:
		scan_waits(scan, thread,
			open_resource(scan, view, "unfinished tasks of Queue", self, "any thread might call task_done"),
			expression, NULL);
		return;
	case SITE_BARRIER:
		scan_waits(scan, thread, open_resource(scan, view, "Barrier", self, "any other thread might arrive"),
			expression, NULL);
		return;
	case SITE_POOL_RESULT:
		scan_waits(scan, thread,
			open_resource(scan, view, "result of a pool", self, "the pool's threads bring it"), expression,
			NULL);
		return;
	default: break;
	}
	if (scan_type_is(view, self, "threading.Event")) {
		if (node->main && !node->idle)
			node->idle = "main thread waits for an event";
		scan_waits(scan, thread, open_resource(scan, view, "Event", self, "any thread might set it"),
			expression, NULL);
		return;
	}
	if (scan_type_is(view, self, "threading.Barrier")) {
		scan_waits(scan, thread, open_resource(scan, view, "Barrier", self, "any other thread might arrive"),
			expression, NULL);
		return;
	}
	scan_waits(scan, thread, open_resource(scan, view, "Condition", self, "any thread might notify it"), expression,
		NULL);
}

/* Inside Condition.wait, at its private lock, rather than taking the condition's own lock again. */
static bool in_condition(const struct wait_view *view, const struct view_thread *thread, raddr object) {
	return thread->frames_n && object && view_frame_is(&thread->frames[0], "threading", "wait") &&
		view_local(view, &thread->frames[0], "waiter") == object;
}

static void note_retry(struct wait_scan *scan, struct view_thread *thread) {
	if (thread->sleep.timed)
		scan_node(scan, thread->node)->retry = true;
}

/* The program's name for the object of the library, like a condition, whose attribute the lock is. */
static const char *whole_expression(
	const struct wait_view *view, const struct view_thread *thread, size_t own, raddr object) {
	const char *expression = NULL;

	for (size_t i = own; !expression && i > 0; i--) {
		const char *part = scan_expression(view, thread, i - 1, object);

		if (part && !strncmp(part, "self.", strlen("self.")))
			expression =
				scan_expression(view, thread, own, view_local(view, &thread->frames[i - 1], "self"));
	}
	return expression;
}

const char *scan_own_expression(const struct wait_view *view, const struct view_thread *thread, raddr object) {
	size_t own = site_own_frame(thread);
	const char *expression = whole_expression(view, thread, own, object);

	if (!expression)
		expression = scan_expression(view, thread, own, object);
	if (!expression && own > 0)
		expression = scan_expression(view, thread, own, view_local(view, &thread->frames[own - 1], "self"));
	return expression || own == 0 ? expression : scan_expression(view, thread, 0, object);
}

static void wait_for_lock(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread, raddr object,
	uint64_t parked_ident) {
	struct wait_site site = site_of(thread);
	uint32_t index;

	if (in_condition(view, thread, object)) {
		wait_on_condition(scan, view, thread, &site);
		return;
	}
	if (site.kind == SITE_JOIN || site.kind == SITE_SHUTDOWN || parked_ident) {
		wait_for_join(scan, view, thread, &site, object, parked_ident);
		return;
	}
	if (site.kind == SITE_IMPORT) {
		wait_for_import(scan, view, thread, &site);
		return;
	}
	scan_node(scan, thread->node)->idle = NULL;
	note_retry(scan, thread);
	index = scan_lock(scan, view, object);
	if (index == WAITS_NONE)
		return;
	scan_waits(scan, thread, index, scan_own_expression(view, thread, object),
		scan_remember(scan, scan->memory, view, thread, index));
}

static void wait_at_unknown(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread, raddr word) {
	raddr queue = queue_of_word(view, thread, word);

	if (queue) {
		if (!scan_node(scan, thread->node)->idle)
			scan_node(scan, thread->node)->idle = "queue worker";
		scan_waits(scan, thread,
			open_resource(scan, view, "SimpleQueue", queue, "any thread might put an item"),
			scan_expression(view, thread, 0, queue), NULL);
		return;
	}
	if (site_of(thread).kind == SITE_SHUTDOWN) {
		struct wait_site site = site_of(thread);

		wait_for_join(scan, view, thread, &site, 0, 0);
		return;
	}
	scan_system_wait(scan, view, thread);
}

void scan_python_wait(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread) {
	const struct py_reader *py = &view->python->rt.reader;
	struct py_parking parking = { .kind = PY_PARKED_NONE };
	raddr object;

	if (thread->sleep.shared) {
		scan_shared_wait(scan, view, thread);
		return;
	}
	if (layout_has(py->layout.wait_entry_addr))
		(void)!py_parking_read(py, thread->sleep.address, &parking);
	if (parking.kind == PY_PARKED_JOIN) {
		wait_for_lock(scan, view, thread, 0, parking.ident);
		return;
	}
	object = parking.kind == PY_PARKED_MUTEX && parking.object
		? parking.object
		: object_of_word(view, thread, thread->sleep.address);
	if (object)
		wait_for_lock(scan, view, thread, object, 0);
	else
		wait_at_unknown(scan, view, thread, parking.address ? parking.address : thread->sleep.address);
}
