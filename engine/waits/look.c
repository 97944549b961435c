/* SPDX-License-Identifier: MIT */
/* One look: reads the processes asked for, lets the graph be built (scan.c), reads further processes as the waits lead
 * to them, and has it solved (knots.c). What is kept from look to look is the looker's. */
#include "engine/base/clock.h"
#include "engine/waits/knots.h"
#include "engine/waits/remember.h"
#include "engine/waits/scan.h"
#include "engine/waits/sites.h"
#include <string.h>

#define RELATED_MAX 64      /* processes of one look beside those that were asked for */
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
static struct wait_process *python_of(struct wait_looker *looker, const char *root, pid_t pid) {
	struct wait_process *process = NULL;
	struct sample_target *target;
	struct proc proc;
	uint64_t tried, key;
	int r;

	vec_foreach (known, &looker->processes)
		if ((*known)->target->proc.pid == pid)
			return *known;
	if (strcmp(root, "/proc") || proc_open(root, pid, &proc))
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
	process = python_of(looker, scan->root, pid);
	if (wait_view_new(scan->root, pid, process, &looker->scratch, &view))
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
	else if (scan_build(scan, view))
		scan->failed = true;
	wait_view_settle(view);
	return view;
}

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
	if (target->offline)
		(void)!waits_add_note(scan->waits,
			"process %d is dead: what was behind its descriptors, and other processes, are not in its core",
			(int)view->proc.pid);
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
	struct wait_scan scan = { .looker = looker,
		.root = targets[0]->root,
		.rules = looker->rules,
		.memory = &looker->memory,
		.views_max = n + RELATED_MAX };
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
		r = scan.failed ? -ENOMEM : knots_find(scan.waits);
	scan.waits->look_ns = clock_boot_ns();
	scan.waits->cost_ns = clock_mono_ns() - began;
	deinit_scan(&scan);
	if (r)
		pyspyd_waits_free(scan.waits);
	else
		*ret_waits = scan.waits;
	return r;
}
