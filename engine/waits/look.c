/* SPDX-License-Identifier: MIT */
/* One look: reads the process asked for, builds a node for every thread of it and what they wait for, reads further
 * processes as the waits lead to them, and solves the graph.
 *
 * A closed world is no proof of a fault: that nobody in a process is left to set an event may be how it idles. Knots
 * that rest on it alone, without anything held or joined in them, are dropped; the detector of hangs judges those. */
#include "engine/base/clock.h"
#include "engine/proc/sched.h"
#include "engine/waits/remember.h"
#include "engine/waits/scan.h"
#include "engine/waits/sites.h"
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#define RELATED_MAX 64      /* processes of one look beside those that were asked for */
#define MEASURED_MAX 512    /* threads whose sleep is asked for */
#define UNUSED_LOOKS_MAX 60 /* after which a process that was attached for a look is let go */
#define STARTING_WAIT_NS 0
#define RETRY_LOOKS 30                /* a process that was no Python may have executed one since */
#define LOOK_NS_MAX (10 * NS_PER_SEC) /* what is not looked at by then counts as not known */

struct wait_looker {
	struct park_rules *rules;
	struct py_stack_scratch scratch;
	VEC(struct wait_process *) processes;
	struct map not_python; /* pid and start → number of the look that found so */
	struct wait_memory memory;
	uint64_t looks;
	bool greenlets; /* are listed */
};

int wait_looker_new(const char *const *park, struct wait_looker **ret_looker, struct err *err) {
	struct wait_looker *looker = calloc(1, sizeof(*looker));
	int r = looker ? park_rules_new(park, &looker->rules, err) : -ENOMEM;

	if (!r)
		r = py_stack_scratch_init(&looker->scratch);
	if (r)
		wait_looker_free(looker);
	else
		*ret_looker = looker;
	return r;
}

void wait_looker_list_greenlets(struct wait_looker *looker) {
	looker->greenlets = true;
}

void wait_looker_free(struct wait_looker *looker) {
	if (!looker)
		return;
	vec_foreach (process, &looker->processes)
		wait_process_free(*process);
	vec_free(&looker->processes);
	map_deinit(&looker->not_python);
	wait_memory_deinit(&looker->memory);
	py_stack_scratch_deinit(&looker->scratch);
	park_rules_free(looker->rules);
	free(looker);
}

static void drop_process(struct wait_looker *looker, size_t i) {
	wait_process_free(looker->processes.items[i]);
	looker->processes.items[i] = looker->processes.items[--looker->processes.n];
}

void wait_looker_forget(struct wait_looker *looker, const struct sample_target *target) {
	for (size_t i = looker->processes.n; i > 0; i--)
		if (looker->processes.items[i - 1]->target == target)
			drop_process(looker, i - 1);
}

/* A process is let go that has ended, runs another program, or was not needed for a while. */
static void tidy(struct wait_looker *looker) {
	for (size_t i = looker->processes.n; i > 0; i--) {
		struct wait_process *process = looker->processes.items[i - 1];

		if (!process->owned)
			continue;
		if (process->used_look + UNUSED_LOOKS_MAX < looker->looks || !proc_alive(&process->target->proc) ||
			py_runtime_check(&process->rt))
			drop_process(looker, i - 1);
	}
	if (looker->not_python.n > 4096)
		map_clear(&looker->not_python);
}

static int keep_process(
	struct wait_looker *looker, struct sample_target *target, bool owned, struct wait_process **ret_process) {
	struct wait_process *process;
	int r = wait_process_new(target, owned, &process);

	if (r)
		return r;
	r = vec_push(&looker->processes, process);
	if (r) {
		process->owned = false;
		wait_process_free(process);
		return r;
	}
	*ret_process = process;
	return 0;
}

/* The Python process of that pid, attached where it has to be; NULL where it is none. */
static struct wait_process *python_of(struct wait_looker *looker, pid_t pid) {
	struct wait_process *process = NULL;
	struct sample_target *target;
	struct proc proc;
	uint64_t tried, key;
	int r;

	vec_foreach (known, &looker->processes)
		if ((*known)->target->proc.pid == pid)
			return *known;
	if (proc_open("/proc", pid, &proc))
		return NULL;
	key = scan_key("process", (uint64_t)pid, proc.start_ticks);
	proc_close(&proc);
	if (map_get(&looker->not_python, key, &tried) && looker->looks - tried < RETRY_LOOKS)
		return NULL;
	r = sample_target_new(pid, STARTING_WAIT_NS, &target, NULL);
	if (r) {
		if (r != PYSPYD_E_STARTING)
			(void)!map_put(&looker->not_python, key, looker->looks);
		return NULL;
	}
	if (keep_process(looker, target, true, &process))
		sample_target_free(target);
	return process;
}

bool scan_is_late(struct wait_scan *scan) {
	if (!scan->late && clock_mono_ns() >= scan->deadline_ns)
		scan->late = scan->waits->incomplete = true;
	return scan->late;
}

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
	struct strbuf text = { 0 };
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
	strbuf_adds(&text, words);
	node.label = strbuf_take(&text);
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
	const char *name = thread->py.ident ? py_thread_name(&view->names, thread->py.ident) : NULL;
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
		.python = thread->sampled != NULL,
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

/* processes */

static int build_threads(struct wait_scan *scan, struct wait_view *view);

struct wait_view *scan_view(struct wait_scan *scan, pid_t pid) {
	struct wait_looker *looker = scan->looker;
	struct wait_process *process;
	struct wait_view *view;

	vec_foreach (known, &scan->views)
		if ((*known)->proc.pid == pid)
			return *known;
	if (scan->views.n >= scan->views_max || scan_is_late(scan)) {
		scan->waits->incomplete = true;
		return NULL;
	}
	process = python_of(looker, pid);
	if (wait_view_new(pid, process, &looker->scratch, &view))
		return NULL;
	if (process)
		process->used_look = looker->looks;
	if (vec_push(&scan->views, view)) {
		wait_view_free(view);
		scan->failed = true;
		return NULL;
	}
	if (vec_push(&scan->holders, (struct wait_holders){ 0 }))
		scan->failed = true;
	else if (build_threads(scan, view))
		scan->failed = true;
	wait_view_settle(view);
	return view;
}

static uint32_t process_node(struct wait_scan *scan, pid_t pid, const char *type, bool *ret_new) {
	struct proc_stat stat = { .comm = "?" };
	struct proc proc = { .start_ticks = 0 };
	uint32_t index;

	if (!proc_open("/proc", pid, &proc)) {
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
	node->idle = site_park(scan->looker->rules, thread);
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

static int build_threads(struct wait_scan *scan, struct wait_view *view) {
	vec_foreach (thread, &view->threads)
		if (scan_thread(scan, view, thread) == WAITS_NONE)
			return -ENOMEM;
	vec_foreach (thread, &view->threads)
		build_wait(scan, view, thread);
	return scan->failed ? -ENOMEM : 0;
}

/* the whole */

static int add_loops(struct pyspyd_waits *waits, const struct wait_view *view) {
	struct pyspyd_wait_loop *loops = realloc(waits->loops, (waits->loops_n + view->loops.n + 1) * sizeof(*loops));

	if (!loops)
		return -ENOMEM;
	waits->loops = loops;
	vec_foreach (from, &view->loops) {
		const uint64_t turn[] = { from->object, (uint64_t)from->round_index, from->handle };
		bool known = from->round_began_s > 0 && from->round_began_s < 1e9;

		loops[waits->loops_n++] = (struct pyspyd_wait_loop){
			.pid = view->proc.pid,
			.tid = from->tid,
			.address = from->object,
			.polling = from->polling,
			.turn = known && from->round_index >= 0 ? hash_bytes(turn, sizeof(turn), 2) : 0,
			.turn_began_ns = known ? (uint64_t)(from->round_began_s * 1e9) : 0,
			.ready = from->ready,
			.overdue = from->overdue,
			.tasks = view->tasks,
		};
	}
	return 0;
}

static int add_gils(struct wait_scan *scan, const struct wait_view *view) {
	struct pyspyd_waits *waits = scan->waits;
	struct pyspyd_wait_gil *gils = realloc(waits->gils, (waits->gils_n + view->interps.n + 1) * sizeof(*gils));

	if (!gils)
		return -ENOMEM;
	waits->gils = gils;
	for (size_t i = 0; i < view->interps.n; i++) {
		struct pyspyd_wait_gil *gil = &gils[waits->gils_n++];

		*gil = (struct pyspyd_wait_gil){ .pid = view->proc.pid,
			.interpreter = (uint64_t)view->interps.items[i].id,
			.switches = view->gils[i].gil_switches };
		vec_foreach (thread, &view->threads) {
			if (thread->sampled && thread->py.tstate == view->gils[i].gil_holder)
				gil->holder = thread->tid;
			if (thread->py.interp == view->interps.items[i].addr)
				gil->waiters += scan_node(scan, thread->node)->gil_waiter;
		}
	}
	return 0;
}

static bool is_dependency(const struct pyspyd_waits *waits, const struct pyspyd_wait_edge *edge) {
	const struct pyspyd_wait_node *from = &waits->nodes[edge->from];

	/* What somebody holds, or whose end is waited for, rather than what anybody might do. */
	return from->kind == PYSPYD_WAIT_TASK || (from->kind == PYSPYD_WAIT_RESOURCE && strcmp(from->type, "loop")) ||
		!strcmp(from->type, "process-end");
}

/* A thread that waits for work, and that nobody waits for, is as it should be, even where nobody is left to give it
 * any.
 */
static int free_idle(struct pyspyd_waits *waits) {
	bool *needed = calloc(waits->nodes_n + 1, sizeof(*needed)), *open = calloc(waits->nodes_n + 1, sizeof(*open));

	for (size_t i = 0; needed && open && i < waits->edges_n; i++) {
		const struct pyspyd_wait_edge *edge = &waits->edges[i];

		needed[edge->to] |= is_dependency(waits, edge);
		open[edge->from] |= !strcmp(waits->nodes[edge->to].type, "threads");
	}
	for (size_t i = 0; needed && open && i < waits->edges_n; i++) {
		struct pyspyd_wait_node *node = &waits->nodes[waits->edges[i].from];

		if (node->kind == PYSPYD_WAIT_THREAD && node->idle && open[waits->edges[i].to] &&
			!needed[waits->edges[i].from])
			node->rule = PYSPYD_WAIT_FREE;
	}
	free(needed);
	free(open);
	return needed && open ? 0 : -ENOMEM;
}

/* Nobody was seen to hold the lock, and everybody who might release it is stuck: it is never released. */
static bool orphan_locks(struct pyspyd_waits *waits) {
	bool any = false;

	for (size_t i = 0; i < waits->nodes_n; i++) {
		struct pyspyd_wait_node *node = &waits->nodes[i];

		if (!node->stuck || node->fault == NULL || node->rule != PYSPYD_WAIT_ANY)
			continue;
		node->rule = PYSPYD_WAIT_NEVER;
		any = true;
	}
	return any;
}

/* Whether a knot is more than a closed world. */
static bool has_dependency(const struct pyspyd_waits *waits, uint32_t knot) {
	if (waits->knots[knot].kind == PYSPYD_KNOT_ORPHAN)
		return true;
	for (size_t i = 0; i < waits->edges_n; i++) {
		const struct pyspyd_wait_edge *edge = &waits->edges[i];

		if (waits->nodes[edge->from].knot == knot && waits->nodes[edge->to].knot == knot &&
			strcmp(waits->nodes[edge->to].type, "threads") && is_dependency(waits, edge))
			return true;
	}
	return false;
}

static void mark_stuck(struct pyspyd_waits *waits, const uint32_t *nodes, size_t n) {
	for (size_t i = 0; i < n; i++)
		waits->nodes[nodes[i]].stuck = true;
}

static void drop_closed_worlds(struct pyspyd_waits *waits) {
	size_t kept = 0;
	uint32_t *renamed = calloc(waits->knots_n + 1, sizeof(*renamed));

	if (!renamed)
		return;
	for (size_t i = 0; i < waits->knots_n; i++) {
		bool keep = has_dependency(waits, (uint32_t)i);

		renamed[i] = keep ? (uint32_t)kept : WAITS_NONE;
		if (!keep) {
			free(waits->knots[i].nodes);
			free(waits->knots[i].victims);
		}
	}
	for (size_t i = 0; i < waits->knots_n; i++)
		if (renamed[i] != WAITS_NONE)
			waits->knots[kept++] = waits->knots[i];
	waits->knots_n = kept;
	for (size_t i = 0; i < waits->nodes_n; i++) {
		waits->nodes[i].stuck = false;
		if (waits->nodes[i].knot != WAITS_NONE)
			waits->nodes[i].knot = renamed[waits->nodes[i].knot];
	}
	for (size_t i = 0; i < kept; i++) {
		mark_stuck(waits, waits->knots[i].nodes, waits->knots[i].nodes_n);
		mark_stuck(waits, waits->knots[i].victims, waits->knots[i].victims_n);
	}
	free(renamed);
}

static int finish(struct wait_scan *scan) {
	struct pyspyd_waits *waits = scan->waits;
	int r = scan->failed ? -ENOMEM : free_idle(waits);

	if (!r)
		r = waits_solve(waits);
	if (!r && orphan_locks(waits))
		r = waits_solve(waits);
	if (!r)
		drop_closed_worlds(waits);
	return r;
}

static void deinit_scan(struct wait_scan *scan) {
	vec_foreach (view, &scan->views)
		wait_view_free(*view);
	vec_free(&scan->views);
	vec_foreach (holders, &scan->holders)
		vec_free(&holders->items);
	vec_free(&scan->holders);
	map_deinit(&scan->nodes);
	if (scan->fds_read)
		fd_table_deinit(&scan->fds);
	vec_free(&scan->file_locks);
	socket_cache_deinit(&scan->sockets);
}

static struct wait_process *known_process(struct wait_looker *looker, const struct sample_target *target) {
	vec_foreach (known, &looker->processes)
		if ((*known)->target == target)
			return *known;
	return NULL;
}

/* Before the first view: a process of the list is then not attached a second time for the sake of another one. */
static int know_all(struct wait_looker *looker, struct sample_target *const *targets, size_t n) {
	for (size_t i = 0; i < n; i++) {
		struct wait_process *unused;
		int r;

		if (known_process(looker, targets[i]))
			continue;
		r = keep_process(looker, targets[i], false, &unused);
		if (r)
			return r;
	}
	return 0;
}

static int look_at(struct wait_scan *scan, const struct sample_target *target) {
	struct wait_view *view = scan_view(scan, target->proc.pid);
	int r;

	if (!view)
		return scan->failed ? -ENOMEM : PYSPYD_E_GONE;
	if (view->untold) {
		scan->waits->incomplete = true;
		(void)!waits_add_note(scan->waits,
			"process %d: where some of its threads sleep cannot be read, so it is not known what they wait "
			"for",
			(int)view->proc.pid);
	}
	if (view->loops.n && !scan_is_late(scan))
		scan_tasks(scan, view);
	if (scan->looker->greenlets && !scan_is_late(scan))
		scan_greenlets(scan, view);
	wait_view_settle(view);
	r = add_loops(scan->waits, view);
	return r ? r : add_gils(scan, view);
}

static char *comm_of(const struct proc *proc) {
	struct proc_stat stat;

	return strdup(proc_stat_read(proc, &stat) ? "?" : stat.comm);
}

int wait_look(
	struct wait_looker *looker, struct sample_target *const *targets, size_t n, struct pyspyd_waits **ret_waits) {
	struct wait_scan scan = { .looker = looker, .memory = &looker->memory, .views_max = n + RELATED_MAX };
	uint64_t began = clock_mono_ns();
	size_t ended = 0;
	int r;

	scan.deadline_ns = began + LOOK_NS_MAX;
	looker->looks++;
	wait_memory_turn(&looker->memory);
	tidy(looker);
	scan.waits = calloc(1, sizeof(*scan.waits));
	if (!scan.waits)
		return -ENOMEM;
	scan.waits->process.pid = targets[0]->proc.pid;
	scan.waits->process.name = comm_of(&targets[0]->proc);
	r = know_all(looker, targets, n);
	for (size_t i = 0; !r && i < n; i++) {
		r = look_at(&scan, targets[i]);
		ended += r == PYSPYD_E_GONE;
		r = r == PYSPYD_E_GONE && ended < n ? 0 : r;
	}
	if (!r)
		r = finish(&scan);
	scan.waits->look_ns = clock_boot_ns();
	scan.waits->cost_ns = clock_mono_ns() - began;
	deinit_scan(&scan);
	if (r)
		pyspyd_waits_free(scan.waits);
	else
		*ret_waits = scan.waits;
	return r;
}

/* A GIL waiter has always slept for a few milliseconds. */
static bool is_measurable(const struct pyspyd_wait_node *node) {
	return node->kind == PYSPYD_WAIT_THREAD && !node->gil_waiter && !node->idle && strchr("SD", node->state);
}

static void measure(struct pyspyd_wait_node *node, struct proc *proc, struct sched_clocks *clocks) {
	uint64_t ns;

	if (proc->pid != node->pid) {
		proc_close(proc);
		proc->pid = 0;
		if (proc_open("/proc", node->pid, proc))
			return;
	}
	if (!proc_thread_slept(proc, node->tid, clocks, &ns))
		node->waited_ns = max_of(node->waited_ns, ns);
}

void wait_look_measure(struct pyspyd_waits *waits) {
	struct proc proc = { .dir_fd = -1, .pidfd = -1 };
	struct sched_clocks clocks = { 0 };
	size_t left = MEASURED_MAX;

	for (int stuck = 1; stuck >= 0; stuck--)
		for (size_t i = 0; left && i < waits->nodes_n; i++) {
			if (waits->nodes[i].stuck != (stuck == 1) || !is_measurable(&waits->nodes[i]))
				continue;
			measure(&waits->nodes[i], &proc, &clocks);
			left--;
		}
	proc_close(&proc);
	sched_clocks_deinit(&clocks);
}
