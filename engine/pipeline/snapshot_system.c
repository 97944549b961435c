/* SPDX-License-Identifier: MIT */
/* What the kernel says of a process, for a snapshot: counters and mappings. */
#include "engine/base/limits.h"
#include "engine/finding/stack_json.h"
#include "engine/pipeline/describe.h"
#include "engine/pipeline/libraries.h"
#include "engine/pipeline/snapshot.h"
#include "engine/proc/memory.h"
#include <string.h>

static json_t *seconds(uint64_t ns) {
	return ns == PROC_UNKNOWN ? json_null() : json_real_or_null((double)ns / 1e9);
}

/* { schema, process }. Return: 0; PYSPYD_E_GONE; negative errno. */
static int begin(const struct proc *proc, const char *python, const char *schema, json_t **ret_object) {
	struct pyspyd_process process = { 0 };
	json_t *object = NULL;
	int r = describe_process(proc, python, &process);
	bool ok;

	if (!r) {
		object = json_object();
		ok = json_put(true, object, "schema", json_string(schema));
		ok = json_put(ok, object, "process", stack_json_process(&process));
		*ret_object = json_done(ok, object);
		r = *ret_object ? 0 : -ENOMEM;
	}
	pyspyd_process_deinit(&process);
	return r;
}

static int finish(json_t *object, bool ok, char **ret_json) {
	*ret_json = json_line(json_done(ok, object));
	return *ret_json ? 0 : -ENOMEM;
}

/* Counters */

static json_t *task_json(const struct proc *proc, pid_t tid) {
	struct proc_schedstat sched = { .run_ns = PROC_UNKNOWN, .wait_ns = PROC_UNKNOWN };
	struct proc_stat stat = { .state = '?' };
	struct proc_task task;
	json_t *object = json_object();
	bool ok = json_put(true, object, "tid", json_integer(tid));

	proc_thread_stat(proc, tid, &stat);
	if (!proc_task_open(proc, tid, &task)) {
		proc_task_schedstat(&task, &sched);
		proc_task_close(&task);
	}
	ok = json_put(ok, object, "name", json_text(stat.comm));
	ok = json_put(ok, object, "state", json_text((char[]){ stat.state, '\0' }));
	ok = json_put(ok, object, "run_s", seconds(sched.run_ns));
	ok = json_put(ok, object, "wait_s", seconds(sched.wait_ns));
	return json_done(ok, object);
}

static json_t *tasks_json(const struct proc *proc) {
	pid_vec tids = { 0 };
	json_t *array = json_array();
	bool ok = array != NULL;

	if (ok && !proc_threads(proc, &tids))
		vec_foreach (tid, &tids)
			ok = ok && !json_array_append_new(array, task_json(proc, *tid));
	vec_free(&tids);
	return json_done(ok, array);
}

static bool put_counters(json_t *object, const struct proc_counters *counters) {
	bool ok = json_put(true, object, "user_s", seconds(counters->user_ns));

	ok = json_put(ok, object, "system_s", seconds(counters->system_ns));
	ok = json_put(ok, object, "rss_bytes", json_count(counters->rss_bytes));
	ok = json_put(ok, object, "pss_bytes", json_count(counters->pss_bytes));
	ok = json_put(ok, object, "uss_bytes", json_count(counters->uss_bytes));
	ok = json_put(ok, object, "swap_bytes", json_count(counters->swap_bytes));
	ok = json_put(ok, object, "threads", json_count(counters->threads));
	ok = json_put(ok, object, "fds", json_count(counters->fds));
	ok = json_put(ok, object, "minor_faults", json_count(counters->minor_faults));
	return json_put(ok, object, "major_faults", json_count(counters->major_faults));
}

int snapshot_counters(const struct proc *proc, const char *python, char **ret_json) {
	uint64_t private_bytes = PROC_UNKNOWN, available = PROC_UNKNOWN;
	struct proc_counters counters;
	json_t *object;
	bool ok;
	int r = proc_counters_read(proc, true, &counters);

	if (!r)
		r = begin(proc, python, "pyspyd.counters/1", &object);
	if (r)
		return r == PROC_E_GONE ? PYSPYD_E_GONE : r;
	memory_private_read(proc, &private_bytes);
	memory_available_read(&available);
	ok = put_counters(object, &counters);
	ok = json_put(ok, object, "private_bytes", json_count(private_bytes));
	ok = json_put(ok, object, "memory_available_bytes", json_count(available));
	ok = json_put(ok, object, "tasks", tasks_json(proc));
	return finish(object, ok, ret_json);
}

/* Mappings */

static const char *build_id_of(const library_vec *libraries, const char *path) {
	size_t len = strlen(path), suffix = strlen(" (deleted)");

	if (len > suffix && !strcmp(path + len - suffix, " (deleted)"))
		len -= suffix;
	vec_foreach (library, libraries)
		if (strlen(library->path) == len && !memcmp(library->path, path, len))
			return library->build_id;
	return NULL;
}

/* Of address 0 too, unlike json_address. */
static json_t *hex(uint64_t value) {
	char text[24];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
	return json_string(text);
}

static json_t *map_json(const struct proc_map *map, const library_vec *libraries) {
	const char permissions[] = { map->read ? 'r' : '-', map->write ? 'w' : '-', map->exec ? 'x' : '-',
		map->shared ? 's' : 'p', '\0' };
	json_t *object = json_object();
	bool ok = json_put(true, object, "start", hex(map->start));

	ok = json_put(ok, object, "end", hex(map->end));
	ok = json_put(ok, object, "offset", hex(map->offset));
	ok = json_put(ok, object, "permissions", json_string(permissions));
	ok = json_put(ok, object, "path", json_text(map->path));
	ok = json_put(ok, object, "build_id", json_text(build_id_of(libraries, map->path)));
	return json_done(ok, object);
}

static json_t *maps_json(const proc_map_vec *maps, const library_vec *libraries) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < maps->n; i++)
		ok = !json_array_append_new(array, map_json(&maps->items[i], libraries));
	return json_done(ok, array);
}

int snapshot_maps(const struct proc *proc, const char *python, char **ret_json) {
	library_vec libraries = { 0 };
	proc_map_vec maps = { 0 };
	json_t *object = NULL;
	bool ok, incomplete = false;
	int r = proc_maps_read(proc, &maps);

	if (!r)
		r = libraries_read(proc, &libraries, &incomplete);
	if (!r)
		r = begin(proc, python, "pyspyd.maps/1", &object);
	if (!r) {
		ok = json_put(true, object, "maps", maps_json(&maps, &libraries));
		ok = json_put(ok, object, "incomplete", json_boolean(incomplete || maps.n == LIMIT_MAPS));
		r = finish(object, ok, ret_json);
	}
	libraries_free(libraries.items, libraries.n);
	proc_maps_free(&maps);
	return r == PROC_E_GONE ? PYSPYD_E_GONE : r;
}
