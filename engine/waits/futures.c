/* SPDX-License-Identifier: MIT */
/* concurrent.futures: who brings the result of a future.
 *
 * A running one: the thread whose _WorkItem.run is for it. A pending one: any worker of the pool in whose queue it is;
 * a process pool's: any of its processes. One that an event loop feeds (run_coroutine_threadsafe): the threads of the
 * loops. Any other may be set by anybody. */
#include "engine/cpython/locks.h"
#include "engine/cpython/objects.h"
#include "engine/waits/scan.h"
#include <string.h>

#define ITEMS_MAX 4096   /* of one queue, or one dictionary of pending work */
#define FUTURES_MAX 1024 /* of one wait for several */
#define PROCESSES_MAX 64 /* of one pool */

enum state { STATE_PENDING, STATE_RUNNING, STATE_DONE, STATE_UNKNOWN };

static enum state state_of(const struct wait_view *view, raddr future) {
	raddr value = scan_attribute(view, future, "_state");
	struct strbuf _cleanup_(strbuf_deinit) text = { 0 };

	if (!value || py_text_read(&view->python->rt.reader, value, 32, &text))
		return STATE_UNKNOWN;
	if (!strcmp(strbuf_str(&text), "PENDING"))
		return STATE_PENDING;
	return !strcmp(strbuf_str(&text), "RUNNING") ? STATE_RUNNING : STATE_DONE;
}

/* Edges to the worker that executes it. Return: whether one does. */
static bool lead_to_runner(struct wait_scan *scan, struct wait_view *view, uint32_t node, raddr future) {
	vec_foreach (thread, &view->threads) {
		for (size_t i = 0; i < thread->frames_n; i++) {
			const struct view_frame *frame = &thread->frames[i];

			if (!view_frame_is(frame, "concurrent.futures.thread", "run") ||
				scan_attribute(view, view_local(view, frame, "self"), "future") != future)
				continue;
			scan_edge(scan, node, scan_thread(scan, view, thread), NULL, NULL);
			return true;
		}
	}
	return false;
}

static raddr work_queue_of(const struct wait_view *view, const struct view_thread *thread) {
	for (size_t i = thread->frames_n; i > 0; i--)
		if (view_frame_is(&thread->frames[i - 1], "concurrent.futures.thread", "_worker"))
			return view_local(view, &thread->frames[i - 1], "work_queue");
	return 0;
}

static bool queue_holds(const struct wait_view *view, raddr queue, raddr future) {
	raddr *items _free_ = calloc(ITEMS_MAX, sizeof(*items));
	size_t n = 0;
	int r;

	if (!items)
		return false;
	r = py_simple_queue_read(&view->python->rt.reader, queue, items, ITEMS_MAX, &n);
	for (size_t i = 0; (!r || r == PY_E_TRUNCATED) && i < min_of(n, (size_t)ITEMS_MAX); i++)
		if (scan_attribute(view, items[i], "future") == future)
			return true;
	return false;
}

/* Edges to every worker of the pool whose queue has it. Return: whether there is one. */
static bool lead_to_pool(struct wait_scan *scan, struct wait_view *view, uint32_t node, raddr future) {
	raddr queue = 0, known_not = 0;
	bool any = false;

	vec_foreach (thread, &view->threads) {
		raddr own = work_queue_of(view, thread);

		if (!own || own == known_not)
			continue;
		if (!queue && !queue_holds(view, own, future)) {
			known_not = own;
			continue;
		}
		if (!queue)
			queue = own;
		if (own != queue)
			continue;
		scan_edge(scan, node, scan_thread(scan, view, thread), NULL, NULL);
		any = true;
	}
	return any;
}

/* process pools */

struct pool_search {
	const struct wait_view *view;
	raddr future;
	pid_t pids[PROCESSES_MAX];
	size_t n;
	bool found;
};

static int match_item(void *userdata, raddr key, raddr value) {
	struct pool_search *search = userdata;

	(void)key;
	search->found = scan_attribute(search->view, value, "future") == search->future;
	return search->found;
}

static int add_process(void *userdata, raddr key, raddr value) {
	struct pool_search *search = userdata;
	int64_t pid;

	(void)value;
	if (search->n < PROCESSES_MAX && !py_long_read(&search->view->python->rt.reader, key, &pid) && pid > 0)
		search->pids[search->n++] = (pid_t)pid;
	return 0;
}

/* The manager's thread knows the pool's work and its processes: attributes of self from 3.9 on, variables before. */
static raddr manager_value(
	const struct wait_view *view, const struct view_frame *frame, const char *attribute, const char *variable) {
	raddr self = view_local(view, frame, "self");
	raddr value = self ? scan_attribute(view, self, attribute) : 0;

	return value ? value : view_local(view, frame, variable);
}

/* Any of them may take it: one that is not known as well. */
static void lead_to_workers(
	struct wait_scan *scan, const struct wait_view *view, uint32_t node, const struct pool_search *search) {
	for (size_t i = 0; i < search->n; i++) {
		pid_t pid = scan_outer_pid(view, search->pids[i]);

		if (pid)
			scan_edge(scan, node, scan_process_acts(scan, pid), NULL, NULL);
		else
			scan_node(scan, node)->rule = PYSPYD_WAIT_FREE;
	}
	if (search->n == PROCESSES_MAX)
		scan_node(scan, node)->rule = PYSPYD_WAIT_FREE;
}

static bool lead_to_processes(struct wait_scan *scan, struct wait_view *view, uint32_t node, raddr future) {
	const struct py_reader *py = &view->python->rt.reader;

	vec_foreach (thread, &view->threads) {
		for (size_t i = 0; i < thread->frames_n; i++) {
			const struct view_frame *frame = &thread->frames[i];
			struct pool_search search = { .view = view, .future = future };
			raddr pending, processes;

			if (!view_frame_is(frame, "concurrent.futures.process", NULL))
				continue;
			pending = manager_value(view, frame, "pending_work_items", "pending_work_items");
			processes = manager_value(view, frame, "processes", "processes");
			if (!pending || !processes || py_dict_walk(py, pending, match_item, &search) < 0 ||
				!search.found)
				continue;
			(void)!py_dict_walk(py, processes, add_process, &search);
			lead_to_workers(scan, view, node, &search);
			return search.n > 0;
		}
	}
	return false;
}

/* asyncio chains its task to the future with a callback of this name (asyncio.futures). */
static bool fed_by_loop(const struct wait_view *view, raddr future) {
	raddr callbacks = scan_attribute(view, future, "_done_callbacks"), items[16];
	const struct py_reader *py = &view->python->rt.reader;
	size_t n = 0;
	int r = callbacks ? py_sequence_read(py, callbacks, items, ARRAY_SIZE(items), &n) : PY_E_TYPE;

	for (size_t i = 0; !r && i < min_of(n, ARRAY_SIZE(items)); i++) {
		char name[64];
		raddr self;

		if (!py_callable_read(py, items[i], &self, name, sizeof(name)) && !strcmp(name, "_call_check_cancel"))
			return true;
	}
	return false;
}

static bool lead_to_loops(struct wait_scan *scan, struct wait_view *view, uint32_t node, raddr future) {
	bool any = false;

	if (!view->loops.n || !fed_by_loop(view, future))
		return false;
	for (size_t i = 0; i < view->loops.n; i++) {
		struct view_thread *thread = view_thread_of_tid(view, view->loops.items[i].tid);

		if (!thread)
			continue;
		scan_edge(scan, node, scan_thread(scan, view, thread), NULL,
			view->loops.n > 1 ? "one of the process's event loops brings it" : NULL);
		any = true;
	}
	return any;
}

uint32_t scan_future(struct wait_scan *scan, struct wait_view *view, raddr future) {
	enum state state = future ? state_of(view, future) : STATE_UNKNOWN;
	uint32_t node;
	bool fresh;

	if (!future)
		return WAITS_NONE;
	node = scan_resource(scan, "future", view->proc.pid, future,
		scan_key("object", (uint64_t)view->proc.pid, future), &fresh, "future 0x%llx",
		(unsigned long long)future);
	if (!fresh || node == WAITS_NONE || state == STATE_DONE || state == STATE_UNKNOWN)
		return node;
	scan_node(scan, node)->rule = PYSPYD_WAIT_ANY;
	if (lead_to_runner(scan, view, node, future) || lead_to_processes(scan, view, node, future) ||
		lead_to_pool(scan, view, node, future) || lead_to_loops(scan, view, node, future))
		return node;
	scan_edge(scan, node, scan_others(scan, view), NULL, "any thread might set its result");
	return node;
}

void scan_futures(
	struct wait_scan *scan, struct wait_view *view, struct view_thread *thread, const struct view_frame *frame) {
	raddr *items _free_ = calloc(FUTURES_MAX, sizeof(*items));
	raddr set = view_local(view, frame, "not_done");
	size_t n = 0;

	if (!set)
		set = view_local(view, frame, "pending");
	if (!items || !set || py_set_read(&view->python->rt.reader, set, items, FUTURES_MAX, &n))
		return;
	for (size_t i = 0; i < n; i++)
		if (state_of(view, items[i]) != STATE_DONE)
			scan_waits(scan, thread, scan_future(scan, view, items[i]), NULL, NULL);
}
