/* SPDX-License-Identifier: MIT */
/* pyspyd_handles_look: what a process holds, once or twice, and the groups that it makes.
 *
 * Model: a look reads descriptors, threads with their stacks, children and mappings one after the other, without
 * stopping anybody: what is opened or closed in between is in one of two neighbouring lists or in none. The process
 * that was opened first is the one that everything is of, or the look fails. */
#include "pyspyd/handles.h"

#include "engine/base/clock.h"
#include "engine/pipeline/handles_fds.h"
#include "engine/pipeline/handles_origins.h"
#include "engine/proc/limits.h"
#include "engine/waits/sites.h"
#include "pyspyd/dump.h"
#include <string.h>
#include <time.h>

#define CHILDREN_MAX 65536

struct look {
	const struct proc *proc;
	bool before;
	handle_item_vec *items;
	struct pyspyd_handles *handles;
	struct map known; /* thread ids that Python knows */
	struct err *err;
};

static int add(struct look *look, enum pyspyd_handle_what what, enum handle_kind kind, enum handle_merge merge, int id,
	uint64_t bytes, char *target) {
	return handle_add(look->items,
		&(struct handle_item){ .what = what,
			.kind = kind,
			.merge = merge,
			.before = look->before,
			.id = id,
			.bytes = bytes,
			.target = target });
}

static int read_descriptors(struct look *look) {
	struct pyspyd_handles *handles = look->handles;
	bool incomplete = false;
	int r = handles_read_fds(look->proc, look->before, look->items, &handles->descriptors, &incomplete);

	handles->incomplete |= incomplete;
	handles->descriptors_limit = handles->descriptors_limit_hard = UINT64_MAX;
	if (!r)
		r = proc_nofile_limit(look->proc, &handles->descriptors_limit, &handles->descriptors_limit_hard);
	return r == -EINVAL ? 0 : r;
}

/* threads and children */

static uint64_t age_of(uint64_t start_ticks) {
	uint64_t tick_ns = NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK), now = clock_boot_ns();

	if (start_ticks > now / tick_ns)
		return 0;
	return now - start_ticks * tick_ns;
}

/* The innermost frame of the program's own; where the library's are all there is, the function that was started. */
static int find_runs(struct pyspyd_thread *thread, size_t start, size_t *ret_runs) {
	size_t n = thread->frames_n, at;
	struct view_frame *frames = calloc(n + 1, sizeof(*frames));

	if (!frames)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		frames[i].module = thread->frames[i].module;
	frames[n].module = ""; /* nobody's library: found where nothing else is */
	at = site_own_frame(&(struct view_thread){ .frames = frames, .frames_n = n + 1 });
	free(frames);
	*ret_runs = at < n ? at : start;
	return 0;
}

static char *start_text(const struct pyspyd_handle_thread *thread) {
	const struct pyspyd_frame *frame;
	const char *slash;
	char *text;

	if (!thread->thread.frames_n)
		return strdup(thread->python ? "no Python frames" : thread->thread.name);
	frame = &thread->thread.frames[thread->start];
	slash = strrchr(frame->file, '/');
	return asprintf(&text, "%s (%s)", frame->qualname, slash ? slash + 1 : frame->file) < 0 ? NULL : text;
}

/* Takes over the frames and the name of `described`, NULL for a thread that Python does not know. Return: 0; also where
 * it has ended; -ENOMEM. */
static int add_thread(struct look *look, pid_t tid, struct pyspyd_thread *described) {
	struct pyspyd_handle_thread *thread = &look->handles->threads[look->handles->threads_n];
	struct proc_stat stat;
	bool there = tid && !proc_thread_stat(look->proc, tid, &stat);
	int r = 0;

	if (!described && !there)
		return 0;
	*thread = (struct pyspyd_handle_thread){ .python = described != NULL,
		.age_ns = there ? age_of(stat.start_ticks) : UINT64_MAX };
	if (described) {
		thread->thread = *described;
		*described = (struct pyspyd_thread){ 0 };
	} else {
		thread->thread = (struct pyspyd_thread){ .tid = tid, .name = strdup(stat.comm), .state = stat.state };
	}
	look->handles->threads_n++;
	if (!thread->thread.name)
		return -ENOMEM;
	thread->start = handle_start(thread->thread.frames, thread->thread.frames_n);
	if (thread->thread.frames_n)
		r = find_runs(&thread->thread, thread->start, &thread->runs);
	if (r)
		return r;
	return add(look, PYSPYD_HANDLE_THREAD, thread->python ? HANDLE_PYTHON : HANDLE_NATIVE,
		thread->python ? MERGE_NONE : MERGE_PATH, tid, 0, start_text(thread));
}

static int compare_threads(const void *a, const void *b) {
	const struct pyspyd_handle_thread *x = a, *y = b;

	return (x->thread.tid > y->thread.tid) - (x->thread.tid < y->thread.tid);
}

/* A thread that calls into a sub-interpreter is listed in each; it is one, and the outer one says who started it. */
static int add_python_threads(struct look *look, struct pyspyd_dump *dump) {
	int r = 0;

	for (size_t i = 0; !r && i < dump->threads_n; i++) {
		struct pyspyd_thread *thread = &dump->threads[i];
		uint64_t key = thread->tid ? (uint64_t)thread->tid : ~thread->ident, at;

		if (map_get(&look->known, key, &at))
			continue;
		r = map_put(&look->known, key, i);
		if (!r)
			r = add_thread(look, thread->tid, thread);
		look->handles->incomplete |= thread->incomplete;
	}
	return r;
}

static int add_threads(struct look *look, struct pyspyd_dump *dump) {
	struct pyspyd_handles *handles = look->handles;
	pid_vec tids = { 0 };
	uint64_t at;
	int r = proc_threads(look->proc, &tids);

	if (r)
		return r;
	handles->threads = calloc(dump->threads_n + tids.n + 1, sizeof(*handles->threads));
	r = handles->threads ? add_python_threads(look, dump) : -ENOMEM;
	for (size_t i = 0; !r && i < tids.n; i++)
		if (!map_get(&look->known, (uint64_t)tids.items[i], &at))
			r = add_thread(look, tids.items[i], NULL);
	if (!r)
		qsort(handles->threads, handles->threads_n, sizeof(*handles->threads), compare_threads);
	vec_free(&tids);
	return r;
}

static int read_threads(struct look *look) {
	static const struct pyspyd_dump_options options = { 0 };
	struct pyspyd_dump *dump;
	int r = pyspyd_dump(look->proc->pid, &options, &dump, look->err);

	if (r)
		return r;
	look->handles->process = dump->process;
	dump->process = (struct pyspyd_process){ 0 };
	r = add_threads(look, dump);
	map_deinit(&look->known);
	pyspyd_dump_free(dump);
	return r;
}

/* One that was waited for meanwhile is none. */
static int add_child(struct look *look, pid_t pid) {
	struct pyspyd_handle_child *child = &look->handles->children[look->handles->children_n];
	struct proc_stat stat;
	struct proc proc;
	int r = proc_open("/proc", pid, &proc);

	if (r)
		return r == -ENOMEM ? r : 0;
	r = proc_stat_read(&proc, &stat);
	proc_close(&proc);
	if (r || stat.ppid != look->proc->pid)
		return r == -ENOMEM ? r : 0;
	*child = (struct pyspyd_handle_child){
		.pid = pid, .name = strdup(stat.comm), .state = stat.state, .age_ns = age_of(stat.start_ticks)
	};
	if (!child->name)
		return -ENOMEM;
	look->handles->children_n++;
	return add(look, PYSPYD_HANDLE_CHILD, stat.state == 'Z' ? HANDLE_ZOMBIE : HANDLE_CHILD, MERGE_PATH, pid, 0,
		strdup(stat.comm));
}

static int read_children(struct look *look) {
	struct pyspyd_handles *handles = look->handles;
	pid_vec pids = { 0 };
	int r = proc_children("/proc", look->proc->pid, &pids);

	if (r)
		return r;
	handles->incomplete |= pids.n > CHILDREN_MAX;
	pids.n = min_of(pids.n, (size_t)CHILDREN_MAX);
	handles->children = calloc(pids.n + 1, sizeof(*handles->children));
	r = handles->children ? 0 : -ENOMEM;
	for (size_t i = 0; !r && i < pids.n; i++)
		r = add_child(look, pids.items[i]);
	vec_free(&pids);
	return r;
}

/* mappings */

/* There is one heap and one stack: their names say no more than their kinds. */
static int add_map(struct look *look, const struct proc_map *map) {
	enum handle_kind kind = handle_kind_of_map(map);
	bool named = kind != HANDLE_HEAP && kind != HANDLE_STACK;
	uint64_t bytes = map->end - map->start;
	int r;

	look->handles->mappings++;
	look->handles->mapped_bytes += bytes;
	r = add(look, PYSPYD_HANDLE_MAPPING, kind, map->path[0] == '/' ? MERGE_PATH : MERGE_NONE, -1, bytes,
		strdup(named ? map->path : ""));
	if (!r)
		look->items->items[look->items->n - 1].address = map->start;
	return r;
}

static int read_mappings(struct look *look) {
	proc_map_vec maps = { 0 };
	int r = proc_maps_read(look->proc, &maps);

	if (r == -E2BIG) {
		look->handles->incomplete = true;
		return 0;
	}
	for (size_t i = 0; !r && i < maps.n; i++)
		r = add_map(look, &maps.items[i]);
	proc_maps_free(&maps);
	return r;
}

static int read_cgroup(struct look *look) {
	struct cgroup_usage usage;
	int r = proc_cgroup_usage(look->proc, &usage);

	if (r)
		return r;
	look->handles->cgroup = (struct pyspyd_handle_cgroup){
		.memory_bytes = usage.memory_bytes,
		.memory_limit_bytes = usage.memory_limit_bytes,
		.tasks = usage.tasks,
		.tasks_limit = usage.tasks_limit,
		.periods = usage.periods,
		.throttled_periods = usage.throttled_periods,
		.throttled_ns = usage.throttled_ns,
		.memory_some_pct = usage.memory_some_pct,
		.memory_full_pct = usage.memory_full_pct,
	};
	return 0;
}

/* looks */

static int look_once(const struct proc *proc, bool before, handle_item_vec *items, struct pyspyd_handles **ret_handles,
	struct err *err) {
	static int (*const readers[])(
		struct look * look) = { read_threads, read_descriptors, read_children, read_mappings, read_cgroup };
	struct pyspyd_handles *handles = calloc(1, sizeof(*handles));
	struct look look = { .proc = proc, .before = before, .items = items, .handles = handles, .err = err };
	int r = handles ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < ARRAY_SIZE(readers); i++)
		r = readers[i](&look);
	if (!r && !proc_alive(proc))
		r = PYSPYD_E_GONE;
	if (r) {
		pyspyd_handles_free(handles);
		return r;
	}
	*ret_handles = handles;
	return 0;
}

static void sleep_ns(uint64_t ns) {
	nanosleep(&(struct timespec){ .tv_sec = (time_t)(ns / NS_PER_SEC), .tv_nsec = (long)(ns % NS_PER_SEC) }, NULL);
}

static void free_seen(struct handles_origins **seen) {
	handles_origins_free(*seen);
}

/* Lets the time pass between two looks, or before the only one. */
static int wait_and_see(
	const struct proc *proc, const struct pyspyd_handles_options *options, struct handles_origins **ret_seen) {
	uint64_t wait_ns = max_of(options->between_ns, options->origins_ns);

	if (options->origins_ns)
		return handles_origins_watch(proc->pid, wait_ns, options->stop, ret_seen);
	if (wait_ns)
		sleep_ns(wait_ns);
	return 0;
}

static int group(handle_item_vec *items, struct handles_origins *seen, struct pyspyd_handles *handles) {
	int r = seen ? handles_origins_fill(seen, items, handles) : 0;

	if (!r)
		r = handle_groups(items, &handles->groups, &handles->groups_n);
	if (!r && seen)
		r = handles_origins_fill_groups(handles);
	return r;
}

static int run(const struct proc *proc, const struct pyspyd_handles_options *options, handle_item_vec *items,
	struct pyspyd_handles **ret_handles, struct err *err) {
	_cleanup_(free_seen) struct handles_origins *seen = NULL;
	struct pyspyd_handles *before, *now;
	uint64_t began = clock_boot_ns(), between;
	bool incomplete = false;
	int r;

	if (options->between_ns) {
		r = look_once(proc, true, items, &before, err);
		if (r)
			return r;
		incomplete = before->incomplete;
		pyspyd_handles_free(before);
	}
	r = wait_and_see(proc, options, &seen);
	between = options->between_ns ? clock_boot_ns() - began : 0;
	if (!r)
		r = look_once(proc, false, items, &now, err);
	if (r)
		return r;
	now->between_ns = between;
	now->incomplete |= incomplete;
	r = group(items, seen, now);
	if (r)
		pyspyd_handles_free(now);
	else
		*ret_handles = now;
	return r;
}

int pyspyd_handles_look(
	pid_t pid, const struct pyspyd_handles_options *options, struct pyspyd_handles **ret_handles, struct err *err) {
	handle_item_vec items = { 0 };
	struct err local = { 0 };
	struct proc proc;
	int r = proc_open("/proc", pid, &proc);

	if (r)
		return err_set(err, r, r == PROC_E_GONE ? "no process %d" : "process %d cannot be opened", (int)pid);
	r = run(&proc, options, &items, ret_handles, &local);
	if (r == PYSPYD_E_GONE && local.code != r)
		err_set(&local, r, "process %d has ended", (int)pid);
	if (r == -ENOMEM)
		err_set(&local, r, "out of memory");
	if (r && !local.text[0])
		err_set(&local, r, "process %d: %s", (int)pid, r < 0 ? strerror(-r) : "cannot be read");
	if (r && err)
		*err = local;
	handle_items_free(&items);
	proc_close(&proc);
	return r;
}

static void free_origins(struct pyspyd_origins *origins) {
	if (!origins)
		return;
	free(origins->why);
	pyspyd_origin_places_free(origins->places, origins->places_n);
	free(origins->made);
	free(origins);
}

void pyspyd_handles_free(struct pyspyd_handles *handles) {
	if (!handles)
		return;
	pyspyd_process_deinit(&handles->process);
	handle_groups_free(handles->groups, handles->groups_n);
	for (size_t i = 0; i < handles->threads_n; i++) {
		pyspyd_frames_free(handles->threads[i].thread.frames, handles->threads[i].thread.frames_n);
		free(handles->threads[i].thread.name);
		pyspyd_frames_free(handles->threads[i].created, handles->threads[i].created_n);
	}
	free(handles->threads);
	for (size_t i = 0; i < handles->children_n; i++)
		free(handles->children[i].name);
	free(handles->children);
	free_origins(handles->origins);
	free(handles);
}
