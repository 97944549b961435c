/* SPDX-License-Identifier: MIT */
/* pyspyd.objects/1, the objects near the frames: what variables refer to, and what that refers to, a few steps on.
 *
 * { schema, process, threads[ { tid, frames[ { function, file, line, variables[ entry ] } ] } ], objects[ { object,
 * type, attributes[ entry ], items[ entry ], more } ], truncated }, where an entry is { name, type, value, masked,
 * object }: `object` is the address under which the object stands in objects[], null where it is not taken further (a
 * number, a text, a class, a module, or too far). Values under a name or a key that looks like a secret's are masked,
 * and not followed; another name may lead to them.
 *
 * Breadth first, so that what is near comes first; each object once; bounded in steps, entries and time. The process
 * runs on: what does not look like an object of its type is left out. */
#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/cpython/locals.h"
#include "engine/cpython/objects.h"
#include "engine/finding/stack_json.h"
#include "engine/pipeline/describe.h"
#include "engine/pipeline/snapshot.h"
#include "engine/pipeline/subject.h"
#include "engine/sample/target.h"
#include <errno.h>
#include <string.h>

#define STARTING_WAIT_NS (2 * NS_PER_SEC)
#define TIME_NS (3 * NS_PER_SEC)
#define STEPS_MAX 4       /* from a variable */
#define ENTRIES_MAX 40000 /* in all */
#define CHILDREN_MAX 32   /* of one object, of each kind */
#define FRAMES_MAX 64     /* of one thread */
#define KEY_CHARS 80

struct found {
	raddr object;
	unsigned steps;
};

struct near {
	struct sample_target *target;
	const struct py_reader *py;
	bool unmask;
	uint64_t deadline_ns;
	struct map known; /* objects that stand in the queue */
	VEC(struct found) queue;
	size_t entries;
	bool truncated;
	int failed; /* -ENOMEM, MEM_E_GONE */
};

/* One list of entries on its way. */
struct list {
	struct near *near;
	json_t *array;
	unsigned steps; /* of what is in it */
	size_t n;
	bool keys; /* names are keys of a dict */
};

static bool spent(struct near *near) {
	if (near->failed)
		return true;
	if (near->entries >= ENTRIES_MAX || clock_mono_ns() > near->deadline_ns)
		near->truncated = true;
	return near->truncated;
}

/* What is a world of its own, or says all in its value. */
static bool is_leaf(const char *type) {
	static const char *const leaves[] = { "NoneType", "bool", "builtin_function_or_method", "bytearray", "bytes",
		"code", "complex", "ellipsis", "float", "frame", "function", "getset_descriptor", "int", "method",
		"module", "str", "traceback", "type", "wrapper_descriptor" };

	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		if (!strcmp(type, leaves[i]))
			return true;
	return false;
}

/* Return: whether the object stands among those that are told, or will. */
static bool follow(struct near *near, raddr object, unsigned steps) {
	uint64_t unused;

	if (map_get(&near->known, object, &unused))
		return true;
	if (steps > STEPS_MAX)
		return false;
	if (object == UINT64_MAX || map_put(&near->known, object, 0) ||
		vec_push(&near->queue, (struct found){ object, steps })) {
		near->failed = -ENOMEM;
		return false;
	}
	return true;
}

/* Return: 0; what ends a walk. */
static int add_entry(struct list *list, const char *name, uint64_t ref) {
	_cleanup_(strbuf_deinit) struct strbuf type = { 0 }, value = { 0 };
	struct near *near = list->near;
	bool is_int = (ref & 3) == PY_TAG_INT, masked = !near->unmask && py_local_is_secret(name), followed = false;
	json_t *object = json_object();
	bool ok;

	if (is_int || py_type_describe(near->py, py_untag(ref), &type))
		strbuf_adds(&type, is_int ? "int" : "?");
	if (masked)
		strbuf_adds(&value, "***");
	else if (is_int)
		strbuf_addf(&value, "%lld", (long long)((int64_t)ref >> 2));
	else
		(near->unmask ? py_value_describe : py_value_describe_masked)(
			near->py, py_untag(ref), LIMIT_VALUE_CHARS, &value);
	if (!masked && !is_int && !is_leaf(strbuf_str(&type)) && strcmp(strbuf_str(&type), "?"))
		followed = follow(near, py_untag(ref), list->steps);
	ok = json_put(!type.failed && !value.failed, object, "name", json_text(name));
	ok = json_put(ok, object, "type", json_text(strbuf_str(&type)));
	ok = json_put(ok, object, "value", json_text(strbuf_str(&value)));
	ok = json_put(ok, object, "masked", json_boolean(masked));
	ok = json_put(ok, object, "object", json_address(followed ? py_untag(ref) : 0));
	ok = !json_array_append_new(list->array, json_done(ok, object)) && ok;
	if (!ok)
		near->failed = -ENOMEM;
	near->entries++;
	return near->failed;
}

static int on_local(void *userdata, const char *name, uint64_t ref) {
	struct list *list = userdata;

	return ref && !spent(list->near) ? add_entry(list, name, ref) : list->near->failed;
}

static int on_member(void *userdata, raddr key, raddr value) {
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 };
	struct list *list = userdata;
	int r;

	if (list->n++ == CHILDREN_MAX || spent(list->near))
		return PY_E_TRUNCATED;
	r = py_text_read(list->near->py, key, KEY_CHARS, &name);
	if (r && r != PY_E_TRUNCATED) {
		if (!list->keys)
			return 0;
		py_value_describe_masked(list->near->py, key, KEY_CHARS, &name);
	}
	return add_entry(list, strbuf_str(&name), value);
}

static int add_sequence(struct list *list, raddr object) {
	raddr items[CHILDREN_MAX];
	char name[24];
	size_t n;
	int r = py_sequence_read(list->near->py, object, items, CHILDREN_MAX, &n);

	if (r && r != PY_E_TRUNCATED)
		return r;
	for (size_t i = 0; i < min_of(n, (size_t)CHILDREN_MAX) && !list->near->failed && !spent(list->near); i++) {
		snprintf(name, sizeof(name), "%zu", i);
		if (items[i])
			add_entry(list, name, items[i]);
	}
	return n > CHILDREN_MAX ? PY_E_TRUNCATED : 0;
}

static json_t *object_json(struct near *near, const struct found *found) {
	_cleanup_(strbuf_deinit) struct strbuf type = { 0 };
	struct list attributes = { .near = near, .array = json_array(), .steps = found->steps + 1 };
	struct list items = { .near = near, .array = json_array(), .steps = found->steps + 1, .keys = true };
	json_t *object = json_object();
	bool ok = attributes.array && items.array, more = false;

	if (py_type_describe(near->py, found->object, &type))
		strbuf_adds(&type, "?");
	if (ok && !spent(near)) {
		int r = add_sequence(&items, found->object);

		if (r == PY_E_TYPE)
			r = py_dict_walk(near->py, found->object, on_member, &items);
		more = r == PY_E_TRUNCATED;
		r = py_attributes_walk(near->py, found->object, on_member, &attributes);
		more |= r == PY_E_TRUNCATED;
	}
	ok = json_put(ok, object, "object", json_address(found->object));
	ok = json_put(ok, object, "type", json_text(strbuf_str(&type)));
	ok = json_put(ok, object, "attributes", attributes.array);
	ok = json_put(ok, object, "items", items.array);
	ok = json_put(ok, object, "more", json_boolean(more || near->truncated));
	return json_done(ok, object);
}

/* The queue grows while it is worked off. */
static json_t *objects_json(struct near *near) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < near->queue.n && !near->failed && !spent(near); i++) {
		struct found found = near->queue.items[i];

		ok = !json_array_append_new(array, object_json(near, &found));
	}
	return json_done(ok, array);
}

/* Variables */

static json_t *frame_json(
	struct near *near, const struct py_raw_stack *stack, const struct py_raw_frame *frame, bool leaf) {
	struct sample_target *target = near->target;
	struct list list = { .near = near, .array = json_array() };
	const struct py_code *code = NULL;
	json_t *object = json_object();
	int line = 0;
	bool ok;

	if (!py_code_lookup(&target->codes, frame, stack->code_generation, clock_mono_ns(), leaf, &code))
		line = py_code_line(&target->codes, code, py_code_offset(&target->codes, code, frame));
	if (code && list.array)
		py_locals_walk(&target->rt, frame, on_local, &list);
	ok = json_put(true, object, "function", json_text(code ? intern_str(&target->strings, code->qualname) : NULL));
	ok = json_put(ok, object, "file", json_text(code ? intern_str(&target->strings, code->file) : NULL));
	ok = json_put(ok, object, "line", line > 0 ? json_integer(line) : json_null());
	ok = json_put(ok, object, "variables", list.array);
	return json_done(ok, object);
}

static json_t *thread_json(struct near *near, struct sample_thread *thread, struct py_stack_scratch *scratch) {
	struct py_raw_stack stack = { 0 };
	json_t *object = json_object(), *frames = json_array();
	bool ok = json_put(frames != NULL, object, "tid", json_integer(thread->py.tid));
	int r = py_stack_capture(&near->target->rt, &thread->plan, scratch, &stack);

	if (r == MEM_E_GONE || r < 0)
		near->failed = r;
	for (size_t i = 0; ok && !r && i < min_of(stack.frames.n, (size_t)FRAMES_MAX) && !near->failed; i++)
		ok = !json_array_append_new(frames, frame_json(near, &stack, &stack.frames.items[i], i == 0));
	near->truncated |= stack.frames.n > FRAMES_MAX;
	py_raw_stack_deinit(&stack);
	ok = json_put(ok, object, "frames", frames);
	return json_done(ok, object);
}

static json_t *threads_json(struct near *near, struct py_stack_scratch *scratch) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = near->target->threads.n; ok && i > 0 && !near->failed; i--)
		ok = !json_array_append_new(array, thread_json(near, near->target->threads.items[i - 1], scratch));
	return json_done(ok, array);
}

static int look(struct near *near, char **ret_json) {
	struct py_stack_scratch scratch = { 0 };
	struct pyspyd_process process = { 0 };
	json_t *object = json_object();
	bool ok = json_put(true, object, "schema", json_string("pyspyd.objects/1"));
	int r = describe_process(&near->target->proc, near->target->rt.version, &process);

	if (!r)
		r = py_stack_scratch_init(&scratch);
	if (!r) {
		ok = json_put(ok, object, "process", stack_json_process(&process));
		ok = json_put(ok, object, "threads", threads_json(near, &scratch));
		ok = json_put(ok, object, "objects", objects_json(near));
		ok = json_put(ok, object, "truncated", json_boolean(near->truncated));
	}
	*ret_json = json_line(json_done(ok && !r && !near->failed, object));
	py_stack_scratch_deinit(&scratch);
	pyspyd_process_deinit(&process);
	r = r ? r : near->failed;
	return r ? r : *ret_json ? 0 : -ENOMEM;
}

int snapshot_objects(pid_t pid, const struct pyspyd_core_source *core, bool unmask, char **ret_json, struct err *err) {
	struct near near = { .unmask = unmask, .deadline_ns = clock_mono_ns() + STARTING_WAIT_NS + TIME_NS };
	struct subject subject;
	int r = subject_open(pid, core, STARTING_WAIT_NS, &subject, err);

	if (r)
		return r;
	near.target = subject.target;
	near.py = &near.target->rt.reader;
	near.deadline_ns = clock_mono_ns() + TIME_NS;
	r = sample_target_refresh(near.target, NULL, NULL);
	if (!r)
		r = look(&near, ret_json);
	map_deinit(&near.known);
	vec_free(&near.queue);
	subject_close(&subject);
	if (r == MEM_E_GONE || r == PYSPYD_E_GONE)
		return err_set(err, PYSPYD_E_GONE, "process %d has ended", (int)pid);
	return r > 0 ? err_set(err, -EAGAIN, "the list of threads changed too fast to be read") : r;
}
