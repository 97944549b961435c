/* SPDX-License-Identifier: MIT */
/* How frames name objects: a search by identity over what their code can reach in one or two steps, the nearest first.
 *
 * Nothing is run in the target, so that what only a property, a slot or a base class gives is not found. A place that
 * cannot be read is passed over; the search ends when it has cost too much. */
#include "engine/cpython/names.h"

#include "engine/base/limits.h"
#include "engine/cpython/locals.h"
#include "engine/cpython/object_head.h"
#include <errno.h>
#include <string.h>

#define READS_MAX 2000
#define ENTRIES_MAX 4096        /* of one dictionary */
#define GLOBALS_MAX (16U << 10) /* entries of a module's */
#define NAMES_MAX 256           /* of one code object */
#define PLACES_MAX 64           /* attributes of self, named globals: looked into */
#define ITEMS_MAX 64            /* of one container */
#define NAME_BYTES 128          /* of one name; longer ones name nothing */
#define KEY_CHARS 40            /* of a key that is shown */
#define WALK_ENDED 100          /* beside the conditions of reader.h */

struct place {
	char name[NAME_BYTES];
	raddr object;
};

struct search {
	const struct py_runtime *rt;
	const struct py_reader *py;
	raddr object;
	char *expression;
	size_t size;
	uint64_t reads_before;
	raddr globals;
	raddr code;
	raddr names[NAMES_MAX]; /* co_names */
	size_t names_n;
	struct place places[LIMIT_LOCALS]; /* where to go on from */
	size_t places_n;
	size_t looked_at; /* entries of the present dictionary */
	raddr key;        /* of what was found in it */
	bool found;
};

/* Errors that end a search; the others pass over a place. */
static bool is_final(int r) {
	return r < 0 || r == MEM_E_GONE;
}

static bool spent(const struct search *s) {
	return s->py->mem->reads - s->reads_before >= READS_MAX;
}

/* Return: 0; PY_E_TYPE where the text does not fit. */
static int found(struct search *s, const struct strbuf *text) {
	if (text->failed)
		return -ENOMEM;
	if (text->len >= s->size)
		return PY_E_TYPE;
	memcpy(s->expression, strbuf_str(text), text->len + 1);
	s->found = true;
	return 0;
}

static int add_name(const struct search *s, raddr name, size_t max_chars, struct strbuf *out) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	int r = py_text_read(s->py, name, max_chars, &text);

	if (!r)
		strbuf_add_printable(out, strbuf_str(&text), text.len);
	return r;
}

static void add_place(struct search *s, size_t max, const struct strbuf *name, raddr object) {
	struct place *place;

	if (s->places_n >= min_of(max, (size_t)LIMIT_LOCALS) || name->failed || name->len >= NAME_BYTES || !object)
		return;
	place = &s->places[s->places_n++];
	memcpy(place->name, strbuf_str(name), name->len + 1);
	place->object = object;
}

/* Attributes and items */

static int match_entry(void *userdata, raddr key, raddr value) {
	struct search *s = userdata;

	s->key = key;
	if (value == s->object)
		return WALK_ENDED;
	return ++s->looked_at < ENTRIES_MAX ? 0 : PY_E_TRUNCATED;
}

/* The dict of a class that Python code made. */
static int class_dict(const struct py_reader *py, raddr object, raddr *ret_dict) {
	struct type_head head;
	raddr type;
	int r = py_type_of(py, object, &type);

	if (!r)
		r = type_head_read(py, type, &head);
	if (r)
		return r;
	if (!(head.flags & TYPE_HEAP) || !head.dict)
		return PY_E_TYPE;
	*ret_dict = head.dict;
	return 0;
}

/* Return: 0, with s->found; what ends a search. */
static int look_at_attributes(struct search *s, const char *name, raddr holder) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	raddr dict;
	int r;

	s->looked_at = 0;
	r = py_attributes_walk(s->py, holder, match_entry, s);
	if (r != WALK_ENDED && !is_final(r) && !class_dict(s->py, holder, &dict)) {
		s->looked_at = 0;
		r = py_dict_walk(s->py, dict, match_entry, s);
	}
	if (r == WALK_ENDED) {
		strbuf_addf(&text, "%s.", name);
		r = add_name(s, s->key, NAME_BYTES, &text);
		if (!r)
			r = found(s, &text);
	}
	return is_final(r) ? r : 0;
}

static int found_item(struct search *s, const char *name, int64_t index) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };

	strbuf_addf(&text, "%s[%lld]", name, (long long)index);
	return found(s, &text);
}

static int found_value(struct search *s, const char *name) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	int64_t number;
	int r;

	if (!py_long_read(s->py, s->key, &number))
		return found_item(s, name, number);
	strbuf_addf(&text, "%s['", name);
	r = add_name(s, s->key, KEY_CHARS, &text);
	strbuf_adds(&text, "']");
	return r ? r : found(s, &text);
}

static int look_at_items(struct search *s, const char *name, raddr holder) {
	raddr items[ITEMS_MAX];
	size_t n;
	int r = py_sequence_read(s->py, holder, items, ITEMS_MAX, &n);

	if (!r) {
		for (size_t i = 0; i < min_of(n, (size_t)ITEMS_MAX); i++)
			if (items[i] == s->object)
				return found_item(s, name, (int64_t)i);
		return 0;
	}
	if (is_final(r))
		return r;
	s->looked_at = ENTRIES_MAX - ITEMS_MAX;
	r = py_dict_walk(s->py, holder, match_entry, s);
	if (r == WALK_ENDED)
		r = found_value(s, name);
	return is_final(r) ? r : 0;
}

static int look_into_places(struct search *s) {
	int r = 0;

	for (size_t i = 0; !r && !s->found && i < s->places_n && !spent(s); i++)
		r = look_at_attributes(s, s->places[i].name, s->places[i].object);
	for (size_t i = 0; !r && !s->found && i < s->places_n && !spent(s); i++)
		r = look_at_items(s, s->places[i].name, s->places[i].object);
	return r;
}

/* The steps of the search */

static int match_local(void *userdata, const char *name, uint64_t ref) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	struct search *s = userdata;

	/* Names that begin with a dot are the compiler's own. */
	if (!ref || (ref & 3) == PY_TAG_INT || name[0] == '.')
		return 0;
	strbuf_add_printable(&text, name, strlen(name));
	add_place(s, LIMIT_LOCALS, &text, ref);
	return ref == s->object && !found(s, &text) ? WALK_ENDED : 0;
}

static int collect_attribute(void *userdata, raddr key, raddr value) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	struct search *s = userdata;

	if (++s->looked_at > PLACES_MAX)
		return PY_E_TRUNCATED;
	strbuf_adds(&text, "self.");
	if (!add_name(s, key, NAME_BYTES, &text))
		add_place(s, PLACES_MAX, &text, value);
	return 0;
}

static int look_behind_self(struct search *s) {
	raddr self = 0;
	int r;

	for (size_t i = 0; i < s->places_n && !self; i++)
		if (!strcmp(s->places[i].name, "self"))
			self = s->places[i].object;
	if (!self || spent(s))
		return 0;
	s->places_n = s->looked_at = 0;
	r = py_attributes_walk(s->py, self, collect_attribute, s);
	return is_final(r) ? r : look_into_places(s);
}

static bool is_named(const struct search *s, raddr key) {
	for (size_t i = 0; i < s->names_n; i++)
		if (s->names[i] == key)
			return true;
	return false;
}

/* Names in code and keys of a module's dictionary are the same interned objects. */
static int match_global(void *userdata, raddr key, raddr value) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	struct search *s = userdata;

	if (++s->looked_at > GLOBALS_MAX || spent(s))
		return PY_E_TRUNCATED;
	if (!is_named(s, key) || add_name(s, key, NAME_BYTES, &text))
		return 0;
	add_place(s, PLACES_MAX, &text, value);
	return value == s->object && !found(s, &text) ? WALK_ENDED : 0;
}

static int look_at_globals(struct search *s) {
	raddr names;
	int r;

	if (spent(s))
		return 0;
	r = mem_read_u64(s->py->mem, s->code + s->py->layout.code_names, &names);
	if (!r)
		r = py_sequence_read(s->py, names, s->names, NAMES_MAX, &s->names_n);
	if (r)
		return is_final(r) ? r : 0;
	s->names_n = min_of(s->names_n, (size_t)NAMES_MAX);
	s->places_n = s->looked_at = 0;
	r = py_dict_walk(s->py, s->globals, match_global, s);
	if (is_final(r))
		return r;
	return s->found ? 0 : look_into_places(s);
}

int py_name_find(const struct py_runtime *rt, const struct py_raw_frame *frame, raddr object, char *ret_expression,
	size_t size) {
	static int (*const steps[])(struct search *) = { look_into_places, look_behind_self, look_at_globals };
	struct search *s _free_ = NULL;
	int r;

	if (!object || !size)
		return PY_E_TYPE;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->rt = rt;
	s->py = &rt->reader;
	s->object = object;
	s->expression = ret_expression;
	s->size = size;
	s->reads_before = rt->reader.mem->reads;
	s->globals = frame->globals;
	s->code = frame->code;
	r = py_locals_walk(rt, frame, match_local, s);
	r = is_final(r) ? r : 0;
	for (size_t i = 0; !r && !s->found && i < ARRAY_SIZE(steps); i++)
		r = steps[i](s);
	return r ? r : s->found ? 0 : PY_E_TYPE;
}

/* From a name to its object */

/* A variable, else what a class body's or a module's own namespace has, else a global. */
static int evaluate_root(
	const struct py_runtime *rt, const struct py_raw_frame *frame, const char *name, raddr *ret_object) {
	const struct py_reader *py = &rt->reader;
	uint64_t ref, namespace = 0;
	int r = py_local_get(rt, frame, name, &ref);

	if (!r) {
		if (!ref || (ref & 3) == PY_TAG_INT)
			return PY_E_TYPE;
		*ret_object = ref;
		return 0;
	}
	if (r != PY_E_TYPE)
		return r;
	r = mem_read_u64(py->mem, frame->frame + py->layout.frame_locals, &namespace);
	if (!r && py_untag(namespace))
		r = py_dict_get(py, py_untag(namespace), name, ret_object);
	else
		r = PY_E_TYPE;
	return r == PY_E_TYPE ? py_dict_get(py, frame->globals, name, ret_object) : r;
}

static int evaluate_attribute(const struct py_reader *py, raddr object, const char *name, raddr *ret_object) {
	raddr dict;
	int r = py_attribute(py, object, name, ret_object);

	if (r != PY_E_TYPE)
		return r;
	r = class_dict(py, object, &dict);
	return r ? r : py_dict_get(py, dict, name, ret_object);
}

int py_name_evaluate(
	const struct py_runtime *rt, const struct py_raw_frame *frame, const char *expression, raddr *ret_object) {
	char *names _free_ = strdup(expression);
	char *rest = names, *name;
	raddr object = 0;
	int r;

	if (!names)
		return -ENOMEM;
	name = strsep(&rest, ".");
	r = evaluate_root(rt, frame, name, &object);
	while (!r && (name = strsep(&rest, ".")))
		r = evaluate_attribute(&rt->reader, object, name, &object);
	if (r)
		return r == PY_E_TRUNCATED ? PY_E_TYPE : r;
	*ret_object = object;
	return 0;
}
