/* SPDX-License-Identifier: MIT */
/* pyspyd.handles/1: { schema, process, between_s, incomplete, descriptors, descriptors_limit, descriptors_limit_hard,
 * mappings, mapped_bytes, kinds[ {what, kind, count, bytes, grew, grew_bytes} ], groups[ {…the same…, target, ids,
 * created} ], groups_omitted, threads[ {tid, name, kind, state, age_s, runs, start, created} ], children[ {pid, name,
 * state, age_s} ], cgroup, origins }. Where there was one look, what grew is null. `created` is the stack that made it,
 * null where nobody saw it.
 *
 * origins, null where they were not asked for: { watched_s, why_not, left_out, paused, paused_s, unseen {descriptor,
 * thread, child, mapping}, places[ {what, kind, call, count, bytes, share, youngest_s, oldest_s, ids, own, stack} ],
 * made[ {what, id, bytes, age_s, place} ] }. `own` is the frame of the program's own in the stack, and `place` a place,
 * by index. */
#include "engine/finding/handles_kinds.h"
#include "engine/finding/stack_json.h"
#include <stdlib.h>

#define GROUPS_MAX 10000

const char *const handles_what_names[] = {
	[PYSPYD_HANDLE_DESCRIPTOR] = "descriptor",
	[PYSPYD_HANDLE_THREAD] = "thread",
	[PYSPYD_HANDLE_CHILD] = "child",
	[PYSPYD_HANDLE_MAPPING] = "mapping",
};

static json_t *what_json(enum pyspyd_handle_what what) {
	return json_string(handles_what_names[what]);
}

static json_t *seconds_json(uint64_t ns) {
	return ns == UINT64_MAX ? json_null() : json_real_or_null((double)ns / 1e9);
}

static json_t *state_json(char state) {
	return state > ' ' && state < 0x7f ? json_stringn(&state, 1) : json_null();
}

static json_t *grew_json(const struct pyspyd_handles *handles, int64_t grew) {
	return handles->between_ns ? json_integer(grew) : json_null();
}

static json_t *frame_json(const struct pyspyd_frame *frames, size_t n, size_t at) {
	return at < n ? stack_json_frame(&frames[at]) : json_null();
}

static json_t *created_json(const struct pyspyd_frame *frames, size_t n) {
	return frames ? stack_json_frames(frames, n) : json_null();
}

static bool has_bytes(enum pyspyd_handle_what what) {
	return what == PYSPYD_HANDLE_MAPPING;
}

static json_t *kind_json(const struct pyspyd_handles *handles, const struct handles_kind *kind) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "what", what_json(kind->what));

	ok = json_put(ok, object, "kind", json_text(kind->kind));
	ok = json_put(ok, object, "count", json_count(kind->count));
	ok = json_put(ok, object, "bytes", has_bytes(kind->what) ? json_count(kind->bytes) : json_null());
	ok = json_put(ok, object, "grew", grew_json(handles, kind->grew));
	ok = json_put(
		ok, object, "grew_bytes", has_bytes(kind->what) ? grew_json(handles, kind->grew_bytes) : json_null());
	return json_done(ok, object);
}

static json_t *kinds_json(const struct pyspyd_handles *handles) {
	json_t *array = json_array();
	struct handles_kind kind;
	bool ok = array != NULL;

	for (size_t at = handles_kind_at(handles, 0, &kind); ok && at; at = handles_kind_at(handles, at, &kind))
		ok = !json_array_append_new(array, kind_json(handles, &kind));
	return json_done(ok, array);
}

static json_t *ids_json(const int *ids, size_t n) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < n; i++)
		ok = !json_array_append_new(array, json_integer(ids[i]));
	return json_done(ok, array);
}

static json_t *group_json(const struct pyspyd_handles *handles, const struct pyspyd_handle_group *group) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "what", what_json(group->what));

	ok = json_put(ok, object, "kind", json_text(group->kind));
	ok = json_put(ok, object, "target", json_text(group->target));
	ok = json_put(ok, object, "count", json_count(group->count));
	ok = json_put(ok, object, "bytes", has_bytes(group->what) ? json_count(group->bytes) : json_null());
	ok = json_put(ok, object, "grew", grew_json(handles, group->grew));
	ok = json_put(
		ok, object, "grew_bytes", has_bytes(group->what) ? grew_json(handles, group->grew_bytes) : json_null());
	ok = json_put(ok, object, "ids", ids_json(group->ids, group->ids_n));
	ok = json_put(ok, object, "created", created_json(group->created, group->created_n));
	return json_done(ok, object);
}

static json_t *groups_json(const struct pyspyd_handles *handles, size_t n) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < n; i++)
		ok = !json_array_append_new(array, group_json(handles, &handles->groups[i]));
	return json_done(ok, array);
}

static json_t *thread_json(const struct pyspyd_handle_thread *thread) {
	const struct pyspyd_thread *t = &thread->thread;
	json_t *object = json_object();
	bool ok = json_put(true, object, "tid", t->tid ? json_integer(t->tid) : json_null());

	ok = json_put(ok, object, "name", json_text(t->name));
	ok = json_put(ok, object, "kind", json_string(thread->python ? "python" : "native"));
	ok = json_put(ok, object, "state", state_json(t->state));
	ok = json_put(ok, object, "age_s", seconds_json(thread->age_ns));
	ok = json_put(ok, object, "runs", frame_json(t->frames, t->frames_n, thread->runs));
	ok = json_put(ok, object, "start", frame_json(t->frames, t->frames_n, thread->start));
	ok = json_put(ok, object, "created", created_json(thread->created, thread->created_n));
	return json_done(ok, object);
}

static json_t *threads_json(const struct pyspyd_handles *handles) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < handles->threads_n; i++)
		ok = !json_array_append_new(array, thread_json(&handles->threads[i]));
	return json_done(ok, array);
}

static json_t *child_json(const struct pyspyd_handle_child *child) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "pid", json_integer(child->pid));

	ok = json_put(ok, object, "name", json_text(child->name));
	ok = json_put(ok, object, "state", state_json(child->state));
	ok = json_put(ok, object, "age_s", seconds_json(child->age_ns));
	return json_done(ok, object);
}

static json_t *children_json(const struct pyspyd_handles *handles) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < handles->children_n; i++)
		ok = !json_array_append_new(array, child_json(&handles->children[i]));
	return json_done(ok, array);
}

static json_t *cgroup_json(const struct pyspyd_handle_cgroup *cgroup) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "memory_bytes", json_count(cgroup->memory_bytes));

	ok = json_put(ok, object, "memory_limit_bytes", json_count(cgroup->memory_limit_bytes));
	ok = json_put(ok, object, "tasks", json_count(cgroup->tasks));
	ok = json_put(ok, object, "tasks_limit", json_count(cgroup->tasks_limit));
	ok = json_put(ok, object, "periods", json_count(cgroup->periods));
	ok = json_put(ok, object, "throttled_periods", json_count(cgroup->throttled_periods));
	ok = json_put(ok, object, "throttled_s", seconds_json(cgroup->throttled_ns));
	ok = json_put(ok, object, "memory_some_percent", json_real_or_null(cgroup->memory_some_pct));
	ok = json_put(ok, object, "memory_full_percent", json_real_or_null(cgroup->memory_full_pct));
	return json_done(ok, object);
}

/* origins */

static json_t *place_json(const struct pyspyd_origin *place) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "what", what_json(place->what));

	ok = json_put(ok, object, "kind", json_text(place->kind));
	ok = json_put(ok, object, "call", json_text(place->call));
	ok = json_put(ok, object, "count", json_count(place->count));
	ok = json_put(ok, object, "bytes", has_bytes(place->what) ? json_count(place->bytes) : json_null());
	ok = json_put(ok, object, "share", json_real_or_null(place->share));
	ok = json_put(ok, object, "youngest_s", seconds_json(place->youngest_ns));
	ok = json_put(ok, object, "oldest_s", seconds_json(place->oldest_ns));
	ok = json_put(ok, object, "ids", ids_json(place->ids, place->ids_n));
	ok = json_put(ok, object, "own", place->frames_n ? json_count(place->own) : json_null());
	ok = json_put(ok, object, "stack", stack_json_frames(place->frames, place->frames_n));
	return json_done(ok, object);
}

static json_t *places_json(const struct pyspyd_origins *origins) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < origins->places_n; i++)
		ok = !json_array_append_new(array, place_json(&origins->places[i]));
	return json_done(ok, array);
}

static json_t *one_made_json(const struct pyspyd_made *made) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "what", what_json(made->what));

	ok = json_put(ok, object, "id", json_count(made->id));
	ok = json_put(ok, object, "bytes", has_bytes(made->what) ? json_count(made->bytes) : json_null());
	ok = json_put(ok, object, "age_s", seconds_json(made->age_ns));
	ok = json_put(ok, object, "place", json_count(made->origin));
	return json_done(ok, object);
}

static json_t *made_json(const struct pyspyd_origins *origins) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < origins->made_n; i++)
		ok = !json_array_append_new(array, one_made_json(&origins->made[i]));
	return json_done(ok, array);
}

static json_t *unseen_json(const struct pyspyd_origins *origins) {
	json_t *object = json_object();
	bool ok = object != NULL;

	for (size_t what = 0; what < sizeof(origins->unseen) / sizeof(origins->unseen[0]); what++)
		ok = json_put(ok, object, handles_what_names[what], json_count(origins->unseen[what]));
	return json_done(ok, object);
}

static json_t *origins_json(const struct pyspyd_origins *origins) {
	json_t *object;
	bool ok;

	if (!origins)
		return json_null();
	object = json_object();
	ok = json_put(true, object, "watched_s", seconds_json(origins->watched_ns));
	ok = json_put(ok, object, "why_not", json_text(origins->why));
	ok = json_put(ok, object, "left_out", json_count(origins->left_out));
	ok = json_put(ok, object, "paused", json_boolean(origins->paused_ns));
	ok = json_put(ok, object, "paused_s", seconds_json(origins->paused_ns));
	ok = json_put(ok, object, "unseen", origins->why ? json_null() : unseen_json(origins));
	ok = json_put(ok, object, "places", places_json(origins));
	ok = json_put(ok, object, "made", made_json(origins));
	return json_done(ok, object);
}

char *pyspyd_handles_json(const struct pyspyd_handles *handles) {
	size_t n = handles->groups_n < GROUPS_MAX ? handles->groups_n : GROUPS_MAX;
	json_t *object = json_object();
	bool ok = json_put(true, object, "schema", json_string("pyspyd.handles/1"));

	ok = json_put(ok, object, "process", stack_json_process(&handles->process));
	ok = json_put(ok, object, "between_s", handles->between_ns ? seconds_json(handles->between_ns) : json_null());
	ok = json_put(ok, object, "incomplete", json_boolean(handles->incomplete));
	ok = json_put(ok, object, "descriptors", json_count(handles->descriptors));
	ok = json_put(ok, object, "descriptors_limit", json_count(handles->descriptors_limit));
	ok = json_put(ok, object, "descriptors_limit_hard", json_count(handles->descriptors_limit_hard));
	ok = json_put(ok, object, "mappings", json_count(handles->mappings));
	ok = json_put(ok, object, "mapped_bytes", json_count(handles->mapped_bytes));
	ok = json_put(ok, object, "kinds", kinds_json(handles));
	ok = json_put(ok, object, "groups", groups_json(handles, n));
	ok = json_put(ok, object, "groups_omitted", json_count(handles->groups_n - n));
	ok = json_put(ok, object, "threads", threads_json(handles));
	ok = json_put(ok, object, "children", children_json(handles));
	ok = json_put(ok, object, "cgroup", cgroup_json(&handles->cgroup));
	ok = json_put(ok, object, "origins", origins_json(handles->origins));
	return json_line(json_done(ok, object));
}
