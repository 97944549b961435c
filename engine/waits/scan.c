/* SPDX-License-Identifier: MIT */
/* Nodes and edges of one look: resources by their identity, threads, and processes as far as others wait for them. */
#include "engine/waits/scan.h"

#include "engine/waits/remember.h"
#include "engine/waits/sites.h"
#include <signal.h>
#include <stdarg.h>
#include <string.h>

/* nodes and edges */

uint64_t scan_key(const char *type, uint64_t a, uint64_t b) {
	uint64_t key = hash_mix(hash_mix(hash_bytes(type, strlen(type), 0) ^ a) ^ b);

	return key == UINT64_MAX ? 0 : key;
}

struct pyspyd_wait_node *scan_node(struct wait_scan *scan, uint32_t index) {
	static __thread struct pyspyd_wait_node nowhere; /* so that callers need not look for failure */

	if (index < scan->waits->nodes_n)
		return &scan->waits->nodes[index];
	nowhere = (struct pyspyd_wait_node){ .kind = PYSPYD_WAIT_RESOURCE };
	return &nowhere;
}

/* The node's strings and frames become the graph's, or are freed. */
static uint32_t find_or_add(struct wait_scan *scan, const struct pyspyd_wait_node *node, bool *ret_new) {
	uint64_t at;
	uint32_t index;

	if (ret_new)
		*ret_new = false;
	if (map_get(&scan->nodes, node->key, &at)) {
		waits_node_deinit(&(struct pyspyd_wait_node){
			.type = node->type, .label = node->label, .frames = node->frames, .frames_n = node->frames_n });
		return (uint32_t)at - 1;
	}
	if (waits_add_node(scan->waits, node, &index)) {
		scan->failed = true;
		return WAITS_NONE;
	}
	if (map_put(&scan->nodes, node->key, (uint64_t)index + 1))
		scan->failed = true;
	if (ret_new)
		*ret_new = true;
	return index;
}

uint32_t scan_resource(struct wait_scan *scan, const char *type, pid_t pid, uint64_t address, uint64_t key,
	bool *ret_new, const char *label, ...) {
	struct pyspyd_wait_node node = { .kind = PYSPYD_WAIT_RESOURCE,
		.rule = PYSPYD_WAIT_FREE,
		.key = key,
		.pid = pid,
		.address = address,
		.run_ns = UINT64_MAX };
	char words[256];
	uint64_t at;
	va_list args;

	if (ret_new)
		*ret_new = false;
	if (map_get(&scan->nodes, key, &at))
		return (uint32_t)at - 1;
	va_start(args, label);
	vsnprintf(words, sizeof(words), label, args);
	va_end(args);
	node.label = strdup(words);
	node.type = strdup(type);
	if (!node.label || !node.type) {
		free(node.label);
		free(node.type);
		scan->failed = true;
		return WAITS_NONE;
	}
	return find_or_add(scan, &node, ret_new);
}

void scan_edge(struct wait_scan *scan, uint32_t from, uint32_t to, const char *expression, const char *inferred_why) {
	if (from == WAITS_NONE || to == WAITS_NONE)
		return;
	if (waits_add_edge(scan->waits, from, to, expression, inferred_why != NULL, inferred_why))
		scan->failed = true;
}

void scan_waits(struct wait_scan *scan, const struct view_thread *thread, uint32_t to, const char *expression,
	const char *inferred_why) {
	struct pyspyd_wait_node *node = scan_node(scan, thread->node);

	/* A GIL waiter wakes up every few milliseconds, and goes on waiting. */
	if (to != WAITS_NONE && (!thread->sleep.timed || node->gil_waiter))
		node->rule = PYSPYD_WAIT_ANY;
	scan_edge(scan, thread->node, to, expression, inferred_why);
}

/* threads */

static char *name_of(const struct wait_view *view, const struct view_thread *thread) {
	const char *name = view->names && thread->py.ident ? py_thread_name(view->names, thread->py.ident) : NULL;
	struct proc_stat stat;

	if (name)
		return strdup(name);
	if (thread->sampled && thread->tid == view->proc.pid)
		return strdup("MainThread"); /* as it will be called once somebody imports threading */
	if (thread->comm[0])
		return strdup(thread->comm);
	return strdup(proc_thread_stat(&view->proc, thread->tid, &stat) ? "?" : stat.comm);
}

int scan_fill_frames(const struct view_thread *thread, struct pyspyd_wait_node *node) {
	int r = view_frames_copy(thread->frames, thread->frames_n, &node->frames);

	if (r)
		return r;
	node->frames_n = thread->frames_n;
	node->site = site_own_frame(thread);
	return 0;
}

/* The same as long as the thread did not run: but for one that waits for the GIL, which wakes up all the time. */
static uint64_t stamp_of(const struct view_thread *thread, bool gil_waiter) {
	uint64_t words[6] = { (uint64_t)thread->sleep.number, thread->sleep.args[0], thread->sleep.args[1],
		gil_waiter ? 0 : thread->run_ns };

	if (thread->frames_n) {
		words[4] = thread->frames[0].raw.frame;
		words[5] = (uint64_t)thread->frames[0].raw.instr;
	}
	return hash_bytes(words, sizeof(words), 1);
}

uint32_t scan_thread(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread) {
	struct pyspyd_wait_node node = {
		.kind = PYSPYD_WAIT_THREAD,
		.rule = PYSPYD_WAIT_FREE,
		.key = scan_key(
			"thread", (uint64_t)view->proc.pid << 32 | (uint32_t)thread->tid, view->proc.start_ticks),
		.pid = view->proc.pid,
		.tid = thread->tid,
		.ident = thread->py.ident,
		.state = thread->state,
		.python = thread->sampled,
		.main = thread->tid == view->proc.pid,
		.timed = thread->sleep.timed,
		.run_ns = thread->run_ns,
	};

	if (thread->node != WAITS_NONE)
		return thread->node;
	node.type = strdup("thread");
	node.label = name_of(view, thread);
	if (!node.type || !node.label || scan_fill_frames(thread, &node)) {
		free(node.type);
		free(node.label);
		scan->failed = true;
		return WAITS_NONE;
	}
	node.stamp = stamp_of(thread, false);
	thread->node = find_or_add(scan, &node, NULL);
	return thread->node;
}

static uint32_t process_node(struct wait_scan *scan, pid_t pid, const char *type, bool *ret_new) {
	struct proc_stat stat = { .comm = "?" };
	struct proc proc = { .start_ticks = 0 };
	uint32_t index;

	if (!proc_open(scan->root, pid, &proc)) {
		(void)!proc_stat_read(&proc, &stat);
		proc_close(&proc);
	}
	index = scan_resource(
		scan, type, pid, 0, scan_key(type, (uint64_t)pid, proc.start_ticks), ret_new, "%s", stat.comm);
	scan_node(scan, index)->kind = PYSPYD_WAIT_PROCESS;
	return index;
}

uint32_t scan_process_end(struct wait_scan *scan, pid_t pid) {
	struct wait_view *view = scan_view(scan, pid);
	struct view_thread *main;
	uint32_t index;
	bool fresh;

	if (view && view->ends != WAITS_NONE)
		return view->ends;
	index = process_node(scan, pid, "process-end", &fresh);
	if (!view || !fresh)
		return index;
	view->ends = index;
	main = view_thread_of_tid(view, pid);
	if (main && view->readable && main->state != 'Z') {
		scan_node(scan, index)->rule = PYSPYD_WAIT_ANY;
		scan_edge(scan, index, scan_thread(scan, view, main), NULL, NULL);
	}
	return index;
}

#define SIGNAL_BIT(number) (1ULL << ((number)-1))

/* Signals whose handlers do not count: SIGINT has one in every Python, faulthandler has those of faults, 32 and 33
 * belong to the C library. */
#define SIGNALS_IGNORED \
	(SIGNAL_BIT(SIGINT) | SIGNAL_BIT(SIGSEGV) | SIGNAL_BIT(SIGFPE) | SIGNAL_BIT(SIGABRT) | SIGNAL_BIT(SIGBUS) | \
		SIGNAL_BIT(SIGILL) | SIGNAL_BIT(32) | SIGNAL_BIT(33))

bool scan_has_handlers(const struct wait_view *view) {
	return view->caught & ~SIGNALS_IGNORED;
}

static void lead_to_handlers(struct wait_scan *scan, const struct wait_view *view, uint32_t from) {
	uint32_t handlers = scan_resource(scan, "signal-handlers", view->proc.pid, 0,
		scan_key("signal-handlers", (uint64_t)view->proc.pid, 0), NULL, "signal handlers");

	scan_edge(scan, from, handlers, NULL, NULL);
}

uint32_t scan_process_acts(struct wait_scan *scan, pid_t pid) {
	struct wait_view *view = scan_view(scan, pid);
	uint32_t index;
	bool fresh;

	if (view && view->acts != WAITS_NONE)
		return view->acts;
	index = process_node(scan, pid, "process", &fresh);
	if (!view || !fresh)
		return index;
	view->acts = index;
	if (!view->readable) {
		(void)!waits_add_note(
			scan->waits, "process %d cannot be read: what it waits for is not known", (int)pid);
		return index;
	}
	scan_node(scan, index)->rule = PYSPYD_WAIT_ANY;
	if (view->python && scan_has_handlers(view))
		lead_to_handlers(scan, view, index);
	vec_foreach (thread, &view->threads)
		scan_edge(scan, index, scan_thread(scan, view, thread), NULL, NULL);
	return index;
}

/* A thread that native code started attaches to Python only to call back; one that waits at a private futex of its own
 * has nothing to call back for. */
static bool may_attach(const struct view_thread *thread) {
	return thread->sleep.call != SLEEP_FUTEX || thread->sleep.shared || thread->sleep.timed;
}

uint32_t scan_others(struct wait_scan *scan, struct wait_view *view) {
	uint32_t index;
	bool fresh;

	if (view->others != WAITS_NONE)
		return view->others;
	index = process_node(scan, view->proc.pid, "threads", &fresh);
	view->others = index;
	if (!fresh || index == WAITS_NONE)
		return index;
	scan_node(scan, index)->rule = PYSPYD_WAIT_ANY;
	if (scan_has_handlers(view))
		lead_to_handlers(scan, view, index);
	vec_foreach (thread, &view->threads)
		if (thread->sampled || may_attach(thread))
			scan_edge(scan, index, scan_thread(scan, view, thread), NULL, NULL);
	return index;
}

/* What its call waits for may have come since the thread was stopped: it waits to be continued. Whether a lock is still
 * held can be read. */
static bool stopped_at_call(const struct view_thread *thread) {
	return (thread->state == 'T' || thread->state == 't') && thread->sleep.call != SLEEP_FUTEX;
}

/* The wait of one thread: the GIL first, since every other wait of Python may end in one for it. */
static void build_wait(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread) {
	struct pyspyd_wait_node *node = scan_node(scan, thread->node);

	if (thread->untold || scan_is_late(scan)) {
		node->idle = "not known";
		return;
	}
	if (thread->sleep.call == SLEEP_RUNNING || stopped_at_call(thread))
		return;
	node->idle = site_park(scan->rules, thread);
	if (thread->sleep.call == SLEEP_FUTEX && thread->sampled) {
		if (scan_gil_wait(scan, view, thread)) {
			node = scan_node(scan, thread->node);
			node->stamp = stamp_of(thread, true);
			node->idle = NULL;
		} else {
			scan_python_wait(scan, view, thread);
		}
	} else {
		scan_system_wait(scan, view, thread);
	}
	/* The handler of an alarm is there to throw the main thread out of what takes too long. */
	node = scan_node(scan, thread->node);
	if (thread->sampled && node->main && view->caught & SIGNAL_BIT(SIGALRM) && !node->gil_waiter) {
		node->rule = PYSPYD_WAIT_FREE;
		node->timed = true;
	}
}

int scan_build(struct wait_scan *scan, struct wait_view *view) {
	vec_foreach (thread, &view->threads)
		if (scan_thread(scan, view, thread) == WAITS_NONE)
			return -ENOMEM;
	scan_learn(scan, scan->memory, view);
	vec_foreach (thread, &view->threads)
		build_wait(scan, view, thread);
	return scan->failed ? -ENOMEM : 0;
}
