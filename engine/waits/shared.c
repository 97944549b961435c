/* SPDX-License-Identifier: MIT */
/* Semaphores that processes share (multiprocessing): the same word in a file that several have mapped.
 *
 * A process that holds one says so in its own SemLock object: count > 0, with the thread that took it last. The object
 * is found by the frames: the manager of a `with` block, a variable, an attribute. Where every process that has the
 * word mapped shows its object and none holds it, the holder has ended without giving it back. Processes are looked for
 * in the family of the one that waits. */
#include "engine/base/limits.h"
#include "engine/cpython/locals.h"
#include "engine/cpython/locks.h"
#include "engine/cpython/objects.h"
#include "engine/waits/scan.h"
#include <string.h>

#define FAMILY_MAX 256    /* processes whose mappings are looked at */
#define REFERENCES_MAX 64 /* of one frame's value stack */
#define ITEMS_MAX 16      /* of a tuple or list among the variables */

struct semaphore {
	struct shared_word word;
	struct wait_scan *scan;
	uint32_t node;
	bool mutex;   /* one unit in all */
	bool held;    /* somebody was found */
	bool unknown; /* a process that has it mapped did not show its object */
};

/* objects of one process */

struct object_search {
	const struct semaphore *semaphore;
	const struct wait_view *view;
	struct py_lock lock;
	bool found;
};

static bool same_word(const struct semaphore *semaphore, const struct wait_view *view, raddr address) {
	struct shared_word word;

	return address && !proc_shared_word(&view->proc, address, &word) && word.dev == semaphore->word.dev &&
		word.inode == semaphore->word.inode && word.offset == semaphore->word.offset;
}

/* A SemLock, or an object of multiprocessing made of one. */
static bool try_object(struct object_search *search, raddr object, unsigned depth) {
	static const char *const parts[] = { "_semlock", "_lock", "_rlock", "_wlock", "_sem" };
	const struct py_reader *py = &search->view->python->rt.reader;
	struct py_lock lock;
	raddr items[ITEMS_MAX];
	size_t n = 0;

	if (!object || search->found)
		return search->found;
	if (!py_lock_read(py, object, &lock)) {
		if (lock.kind != PY_SEMLOCK || !same_word(search->semaphore, search->view, lock.word))
			return false;
		search->lock = lock;
		search->found = true;
		return true;
	}
	if (depth == 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(parts) && !search->found; i++)
		try_object(search, scan_attribute(search->view, object, parts[i]), depth - 1);
	if (!search->found && !py_sequence_read(py, object, items, ITEMS_MAX, &n))
		for (size_t i = 0; i < min_of(n, (size_t)ITEMS_MAX); i++)
			try_object(search, items[i], depth - 1);
	return search->found;
}

static int try_variable(void *userdata, const char *name, uint64_t ref) {
	(void)name;
	return (ref & 3) != PY_TAG_INT && try_object(userdata, py_untag(ref), 2);
}

static int try_global(void *userdata, raddr key, raddr value) {
	struct object_search *search = userdata;
	struct strbuf _cleanup_(strbuf_deinit) type = { 0 };

	(void)key;
	if (py_type_describe(&search->view->python->rt.reader, value, &type) ||
		strncmp(strbuf_str(&type), "multiprocessing.", strlen("multiprocessing.")))
		return 0;
	return try_object(search, value, 2);
}

static bool try_frame(struct object_search *search, const struct view_frame *frame) {
	const struct py_runtime *rt = &search->view->python->rt;
	raddr references[REFERENCES_MAX], args;
	size_t n = 0;

	if (!py_stack_references(rt, &frame->raw, references, REFERENCES_MAX, &n))
		for (size_t i = 0; i < n; i++)
			if (py_object_is_live(&rt->reader, references[i]) && try_object(search, references[i], 0))
				return true;
	(void)!py_locals_walk(rt, &frame->raw, try_variable, search);
	if (search->found)
		return true;
	/* A process that runs its target has the lock among its arguments. */
	args = scan_attribute(search->view, view_local(search->view, frame, "self"), "_args");
	return args && try_object(search, args, 2);
}

/* Return: whether the process showed its object of the semaphore. */
static bool find_object(struct object_search *search) {
	const struct wait_view *view = search->view;
	raddr seen = 0;

	vec_foreach (thread, &view->threads)
		for (size_t i = 0; i < thread->held_n; i++)
			if (try_object(search, thread->held[i].manager, 2))
				return true;
	vec_foreach (thread, &view->threads)
		for (size_t i = 0; i < thread->frames_n; i++)
			if (try_frame(search, &thread->frames[i]))
				return true;
	vec_foreach (thread, &view->threads)
		for (size_t i = 0; i < thread->frames_n && !search->found; i++)
			if (thread->frames[i].raw.globals != seen) {
				seen = thread->frames[i].raw.globals;
				(void)!py_dict_walk(&view->python->rt.reader, seen, try_global, search);
			}
	return search->found;
}

/* processes */

/* Return: whether it has; -EACCES and the like where that cannot be told. */
static int maps_word(const char *root, pid_t pid, const struct shared_word *word) {
	proc_map_vec maps = { 0 };
	struct proc proc;
	bool found = false;
	int r = proc_open(root, pid, &proc);

	if (r)
		return r < 0 ? r : 0;
	r = proc_maps_read(&proc, &maps);
	proc_close(&proc);
	if (r)
		return r < 0 ? r : 0;
	vec_foreach (map, &maps)
		found |= map->shared && map->inode == word->inode && map->dev == word->dev;
	proc_maps_free(&maps);
	return found;
}

/* The oldest ancestor that has the word mapped too. */
static pid_t family_head(const struct wait_view *view, const struct shared_word *word) {
	pid_t head = view->proc.pid;

	for (unsigned i = 0; i < 32; i++) {
		struct proc_stat stat;
		struct proc proc;
		int r = proc_open(view->root, head, &proc);

		if (r)
			break;
		r = proc_stat_read(&proc, &stat);
		proc_close(&proc);
		if (r || stat.ppid <= 1 || maps_word(view->root, stat.ppid, word) <= 0)
			break;
		head = stat.ppid;
	}
	return head;
}

/* What one process that has the word mapped says about it. */
static void ask(struct semaphore *semaphore, pid_t pid) {
	struct wait_scan *scan = semaphore->scan;
	struct object_search search = { .semaphore = semaphore, .view = scan_view(scan, pid) };
	struct view_thread *thread;

	if (!search.view || !search.view->python || !find_object(&search)) {
		semaphore->unknown = true;
		return;
	}
	if (search.lock.count <= 0)
		return;
	semaphore->held = true;
	thread = view_thread_of_ident(search.view, search.lock.owner);
	if (thread)
		scan_edge(scan, semaphore->node, scan_thread(scan, (struct wait_view *)(uintptr_t)search.view, thread),
			NULL, NULL);
	else
		scan_edge(scan, semaphore->node, scan_process_acts(scan, pid), NULL, NULL);
}

static void ask_family(struct semaphore *semaphore, const pid_vec *family) {
	semaphore->unknown |= family->n > FAMILY_MAX;
	for (size_t i = 0; i < min_of(family->n, (size_t)FAMILY_MAX); i++) {
		int has = maps_word(semaphore->scan->root, family->items[i], &semaphore->word);

		if (has < 0)
			semaphore->unknown = true;
		if (has <= 0)
			continue;
		if (semaphore->mutex)
			ask(semaphore, family->items[i]);
		else /* any of them may post it */
			scan_edge(semaphore->scan, semaphore->node,
				scan_process_acts(semaphore->scan, family->items[i]), NULL, NULL);
	}
}

static int compare_pids(const void *a, const void *b) {
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

/* A process may have left the family: its parent has ended. Those that may not be read are not of this program. */
static void ask_strangers(struct semaphore *semaphore, pid_vec *family) {
	pid_vec all = { 0 };

	if (proc_list(semaphore->scan->root, &all)) {
		semaphore->unknown = true;
		return;
	}
	qsort(family->items, family->n, sizeof(*family->items), compare_pids);
	for (size_t i = 0; i < all.n && !semaphore->held && !semaphore->unknown; i++)
		if (!bsearch(&all.items[i], family->items, family->n, sizeof(*family->items), compare_pids) &&
			maps_word(semaphore->scan->root, all.items[i], &semaphore->word) > 0)
			ask(semaphore, all.items[i]);
	vec_free(&all);
}

static void lead_to_family(struct semaphore *semaphore, const struct wait_view *view) {
	struct wait_scan *scan = semaphore->scan;
	pid_t head = family_head(view, &semaphore->word);
	struct pyspyd_wait_node *node;
	pid_vec family = { 0 };

	if (proc_descendants(scan->root, head, &family) || vec_push(&family, head)) {
		vec_free(&family);
		return;
	}
	ask_family(semaphore, &family);
	if (semaphore->mutex && !semaphore->held && !semaphore->unknown)
		ask_strangers(semaphore, &family);
	vec_free(&family);
	node = scan_node(scan, semaphore->node);
	node->rule = PYSPYD_WAIT_ANY;
	if (semaphore->held || (!semaphore->mutex && !semaphore->unknown))
		return;
	if (semaphore->unknown) {
		node->rule = PYSPYD_WAIT_FREE;
		(void)!waits_add_note(scan->waits,
			"%s: not every process that has it could be asked whether it holds it", node->label);
		return;
	}
	node->rule = PYSPYD_WAIT_NEVER;
	node->fault = strdup("its holder has ended: no process that shares it holds it");
}

static raddr object_of_word(const struct wait_view *view, const struct view_thread *thread, struct py_lock *ret_lock) {
	raddr references[REFERENCES_MAX];
	size_t n = 0;

	if (!thread->frames_n ||
		py_stack_references(&view->python->rt, &thread->frames[0].raw, references, REFERENCES_MAX, &n))
		return 0;
	for (size_t i = n; i > 0; i--)
		if (!py_lock_read(&view->python->rt.reader, references[i - 1], ret_lock) &&
			ret_lock->kind == PY_SEMLOCK && ret_lock->word == thread->sleep.address &&
			py_object_is_live(&view->python->rt.reader, references[i - 1]))
			return ret_lock->object;
	return 0;
}

/* As with the events of threading: a main thread waits for the word to end. */
static bool waits_for_event(const struct wait_view *view, const struct view_thread *thread) {
	for (size_t i = 0; thread->tid == view->proc.pid && i < min_of(thread->frames_n, (size_t)4); i++)
		if (view_frame_is(&thread->frames[i], "multiprocessing.synchronize", "wait") &&
			scan_type_is(view, view_local(view, &thread->frames[i], "self"),
				"multiprocessing.synchronize.Event"))
			return true;
	return false;
}

void scan_shared_wait(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread) {
	struct semaphore semaphore = { .scan = scan };
	struct py_lock lock = { 0 };
	raddr object;
	bool fresh;

	if (proc_shared_word(&view->proc, thread->sleep.address, &semaphore.word))
		return;
	if (waits_for_event(view, thread) && !scan_node(scan, thread->node)->idle)
		scan_node(scan, thread->node)->idle = "main thread waits for an event";
	object = object_of_word(view, thread, &lock);
	semaphore.mutex = object && lock.maxvalue == 1;
	semaphore.node = scan_resource(scan, semaphore.mutex ? "lock of processes" : "semaphore of processes", 0,
		object, scan_key("shared", semaphore.word.inode, semaphore.word.offset), &fresh, "%s %s",
		semaphore.mutex ? "multiprocessing lock" : "multiprocessing semaphore", semaphore.word.path);
	/* One that is not taken any more: its waiter is about to go on. */
	if (fresh && semaphore.node != WAITS_NONE && object && lock.locked)
		lead_to_family(&semaphore, view);
	scan_waits(scan, thread, semaphore.node, object ? scan_own_expression(view, thread, object) : NULL, NULL);
}
