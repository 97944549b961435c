/* SPDX-License-Identifier: MIT */
/* pyspyd.handles/1 back into what a process holds. The kinds are sums of the groups, and not read: of more groups than
 * the document holds, the others are lost. A thread has the frames that its line shows. */
#include "engine/finding/document.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/finding/handles_kinds.h"
#include "pyspyd/snapshot.h"
#include <errno.h>
#include <string.h>

static enum pyspyd_handle_what read_what(struct document *document, const json_t *object) {
	return (enum pyspyd_handle_what)document_choice(
		document, object, "what", handles_what_names, PYSPYD_HANDLE_MAPPING + 1);
}

/* A word that nobody may miss: writers look into it. */
static const char *read_word(struct document *document, const json_t *object, const char *key) {
	const char *word = document_word(document, object, key);

	if (!word)
		document_fail(document, key, "is no word");
	return word;
}

static uint64_t read_bytes(struct document *document, const json_t *object) {
	uint64_t bytes = document_count(document, object, "bytes");

	return bytes == UINT64_MAX ? 0 : bytes;
}

static uint64_t read_age(struct document *document, const json_t *object, const char *key) {
	return document_ns(document, object, key, (double)NS_PER_SEC, UINT64_MAX);
}

static size_t read_ids(struct document *document, const json_t *object, int ids[PYSPYD_HANDLE_IDS]) {
	json_t *array = document_get(document, object, "ids");
	size_t n = json_array_size(array);

	if (!document->r && (!json_is_array(array) || n > PYSPYD_HANDLE_IDS))
		document_fail(document, "ids", "is no short list");
	for (size_t i = 0; i < n && !document->r; i++) {
		json_t *id = json_array_get(array, i);

		if (!json_is_integer(id) || json_integer_value(id) < INT32_MIN || json_integer_value(id) > INT32_MAX)
			document_fail(document, "ids", "has something that is no id");
		ids[i] = (int)json_integer_value(id);
	}
	return document->r ? 0 : n;
}

static void read_group(struct document *document, const json_t *object, void *item) {
	struct pyspyd_handle_group *group = item;

	group->what = read_what(document, object);
	group->kind = read_word(document, object, "kind");
	group->target = document_string(document, object, "target");
	group->count = document_count(document, object, "count");
	group->bytes = read_bytes(document, object);
	group->grew = document_signed(document, object, "grew");
	group->grew_bytes = document_signed(document, object, "grew_bytes");
	group->ids_n = read_ids(document, object, group->ids);
	group->created =
		document_array(document, object, "created", sizeof(*group->created), document_frame, &group->created_n);
}

static void read_frame(struct document *document, const json_t *object, const char *key, struct pyspyd_thread *thread,
	size_t *ret_at) {
	const json_t *from = document_object(document, object, key);

	*ret_at = SIZE_MAX;
	if (!from || document->r)
		return;
	*ret_at = thread->frames_n;
	document_frame(document, from, &thread->frames[thread->frames_n++]);
}

static void read_thread(struct document *document, const json_t *object, void *item) {
	static const char *const kinds[] = { "native", "python" };
	struct pyspyd_handle_thread *thread = item;
	struct pyspyd_thread *t = &thread->thread;

	t->tid = (pid_t)document_number(document, object, "tid", 0, INT32_MAX, 0);
	t->name = document_string(document, object, "name");
	thread->python = document_choice(document, object, "kind", kinds, ARRAY_SIZE(kinds));
	t->state = document_state(document, object, "state");
	thread->age_ns = read_age(document, object, "age_s");
	t->frames = calloc(2, sizeof(*t->frames));
	if (!t->frames)
		document->r = document->r ? document->r : -ENOMEM;
	read_frame(document, object, "runs", t, &thread->runs);
	read_frame(document, object, "start", t, &thread->start);
	thread->created = document_array(
		document, object, "created", sizeof(*thread->created), document_frame, &thread->created_n);
}

static void read_child(struct document *document, const json_t *object, void *item) {
	struct pyspyd_handle_child *child = item;

	child->pid = (pid_t)document_number(document, object, "pid", 0, INT32_MAX, 0);
	child->name = document_string(document, object, "name");
	child->state = document_state(document, object, "state");
	child->age_ns = read_age(document, object, "age_s");
}

static void read_cgroup(struct document *document, struct pyspyd_handle_cgroup *cgroup) {
	const json_t *from = document_object(document, document->root, "cgroup");

	cgroup->memory_bytes = document_count(document, from, "memory_bytes");
	cgroup->memory_limit_bytes = document_count(document, from, "memory_limit_bytes");
	cgroup->tasks = document_count(document, from, "tasks");
	cgroup->tasks_limit = document_count(document, from, "tasks_limit");
	cgroup->periods = document_count(document, from, "periods");
	cgroup->throttled_periods = document_count(document, from, "throttled_periods");
	cgroup->throttled_ns = read_age(document, from, "throttled_s");
	cgroup->memory_some_pct = document_real(document, from, "memory_some_percent");
	cgroup->memory_full_pct = document_real(document, from, "memory_full_percent");
}

/* Origins */

static void read_place(struct document *document, const json_t *object, void *item) {
	struct pyspyd_origin *place = item;

	place->what = read_what(document, object);
	place->kind = read_word(document, object, "kind");
	place->call = read_word(document, object, "call");
	place->count = document_count(document, object, "count");
	place->bytes = read_bytes(document, object);
	place->share = document_real(document, object, "share");
	place->youngest_ns = read_age(document, object, "youngest_s");
	place->oldest_ns = read_age(document, object, "oldest_s");
	place->ids_n = read_ids(document, object, place->ids);
	place->frames =
		document_array(document, object, "stack", sizeof(*place->frames), document_frame, &place->frames_n);
	place->own = (size_t)document_number(document, object, "own", 0, INT32_MAX, 0);
	if (place->frames_n && place->own >= place->frames_n)
		document_fail(document, "own", "is no frame of the stack");
}

static void read_made(struct document *document, const json_t *object, void *item) {
	const struct pyspyd_handles *handles = document->userdata;
	struct pyspyd_made *made = item;

	made->what = read_what(document, object);
	made->id = document_count(document, object, "id");
	made->bytes = read_bytes(document, object);
	made->age_ns = read_age(document, object, "age_s");
	made->origin = (size_t)document_count(document, object, "place");
	if (made->origin >= handles->origins->places_n)
		document_fail(document, "place", "is none of the places");
}

static void read_origins(struct document *document, struct pyspyd_handles *handles) {
	const json_t *from = document_object(document, document->root, "origins"), *unseen;
	struct pyspyd_origins *origins = from ? calloc(1, sizeof(*origins)) : NULL;

	if (!from)
		return;
	handles->origins = origins;
	if (!origins) {
		document->r = -ENOMEM;
		return;
	}
	origins->why = document_text(document, from, "why_not");
	origins->watched_ns = document_ns(document, from, "watched_s", (double)NS_PER_SEC, 0);
	origins->left_out = document_count(document, from, "left_out");
	origins->paused_ns = document_ns(document, from, "paused_s", (double)NS_PER_SEC, 0);
	unseen = document_object(document, from, "unseen");
	for (size_t what = 0; unseen && what < ARRAY_SIZE(origins->unseen); what++)
		origins->unseen[what] = document_count(document, unseen, handles_what_names[what]);
	origins->places =
		document_array(document, from, "places", sizeof(*origins->places), read_place, &origins->places_n);
	origins->made = document_array(document, from, "made", sizeof(*origins->made), read_made, &origins->made_n);
}

static void read_handles(struct document *document, struct pyspyd_handles *handles) {
	const json_t *root = document->root;

	document_process(document, root, &handles->process);
	handles->between_ns = document_ns(document, root, "between_s", (double)NS_PER_SEC, 0);
	handles->incomplete = document_bool(document, root, "incomplete");
	handles->incomplete |= document_count(document, root, "groups_omitted") > 0;
	handles->descriptors = document_count(document, root, "descriptors");
	handles->descriptors_limit = document_count(document, root, "descriptors_limit");
	handles->descriptors_limit_hard = document_count(document, root, "descriptors_limit_hard");
	handles->mappings = document_count(document, root, "mappings");
	handles->mapped_bytes = document_count(document, root, "mapped_bytes");
	handles->groups =
		document_array(document, root, "groups", sizeof(*handles->groups), read_group, &handles->groups_n);
	handles->threads =
		document_array(document, root, "threads", sizeof(*handles->threads), read_thread, &handles->threads_n);
	handles->children = document_array(
		document, root, "children", sizeof(*handles->children), read_child, &handles->children_n);
	read_cgroup(document, &handles->cgroup);
	read_origins(document, handles);
}

int pyspyd_handles_of_json(const char *json, size_t len, struct pyspyd_handles **ret_handles, struct err *err) {
	struct pyspyd_handles *handles = calloc(1, sizeof(*handles));
	struct document document;
	int r;

	if (!handles)
		return -ENOMEM;
	document_open(&document, "pyspyd.handles/1", json, len, err);
	document.userdata = handles;
	read_handles(&document, handles);
	r = document.r;
	document_close(&document);
	if (r)
		pyspyd_handles_free(handles);
	else
		*ret_handles = handles;
	return r;
}
