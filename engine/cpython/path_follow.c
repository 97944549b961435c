/* SPDX-License-Identifier: MIT */
/* From a path to its object, as Python would find it as long as that takes no code: what stands in the class and is a
 * descriptor with __set__ comes first (slots, properties), then what the instance has, then what its class has.
 *
 * Types tell whether their instances are descriptors by tp_descr_get and tp_descr_set, also those of Python code. Of
 * builtin types whose dict the interpreter keeps elsewhere (3.12+, static ones) only what instances hold is found. */
#include "engine/cpython/path.h"

#include "engine/base/limits.h"
#include "engine/base/strbuf.h"
#include "engine/cpython/length.h"
#include "engine/cpython/object_head.h"
#include <errno.h>
#include <string.h>

#define MRO_MAX 64
#define NAME_BYTES 64
#define SLOT_OFFSET_MAX (1U << 16)
#define TYPE_TYPE (1UL << 31) /* tp_flags: a class */

/* CPython Include/cpython/object.h, the same from 3.6 on: distances in PyTypeObject. */
#define DESCR_GET_BEHIND_DICT 8
#define DESCR_SET_BEHIND_DICT 16
#define MRO_BEHIND_DICTOFFSET 56

/* CPython Include/structmember.h: members of an object that are references */
#define MEMBER_OBJECT 6
#define MEMBER_OBJECT_EX 16

struct walk {
	const struct py_runtime *rt;
	const struct py_reader *py;
	const struct py_path *path;
	size_t step;
	struct err *err;
};

/* Says "registry:Registry WHAT", where the part of the path before the present step stands, or with it. */
static int say(const struct walk *w, int code, bool with_step, const char *what) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	const struct py_path *path = w->path;
	size_t end = with_step ? path->steps[w->step].end : path->steps[w->step - 1].end;

	strbuf_add_printable(&text, path->text, end);
	return err_set(w->err, code, "%s %s", strbuf_str(&text), what);
}

static int say_code(const struct walk *w, const char *what) {
	char text[128];

	snprintf(text, sizeof(text), "%s: its code would have to run", what);
	return say(w, PY_E_TYPE, true, text);
}

static int say_missing(const struct walk *w) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	const char *name = w->path->steps[w->step].text;

	if (!w->step) {
		strbuf_add_printable(&text, w->path->module, strlen(w->path->module));
		return err_set(w->err, PY_E_TYPE, "module %s has no '%s'", strbuf_str(&text), name);
	}
	strbuf_adds(&text, "has no attribute '");
	strbuf_add_printable(&text, name, strlen(name));
	strbuf_adds(&text, "'");
	return say(w, PY_E_TYPE, false, strbuf_str(&text));
}

/* Classes */

struct found {
	raddr value;
	raddr owner; /* the class that has it */
	enum {
		NOWHERE,
		PLAIN,
		SLOT,
		METHOD, /* descriptors of functions */
		DATA,   /* descriptors that come before the instance's own */
		OTHER
	} kind;
	char type_name[NAME_BYTES];
};

static int look_at_value(const struct py_reader *py, struct found *found) {
	static const char *const methods[] = { "function", "method_descriptor", "wrapper_descriptor", "classmethod",
		"staticmethod", "classmethod_descriptor", "cython_function_or_method" };
	uint32_t dict = py->layout.type_dict;
	raddr type, get = 0, set = 0;
	int r = py_type_of(py, found->value, &type);

	if (!r)
		r = py_type_name(py, found->value, found->type_name, sizeof(found->type_name));
	if (!r)
		r = mem_read_u64(py->mem, type + dict + DESCR_GET_BEHIND_DICT, &get);
	if (!r)
		r = mem_read_u64(py->mem, type + dict + DESCR_SET_BEHIND_DICT, &set);
	if (r)
		return r;
	found->kind = set ? DATA : get ? OTHER : PLAIN;
	if (!strcmp(found->type_name, "member_descriptor"))
		found->kind = SLOT;
	for (size_t i = 0; found->kind == OTHER && i < ARRAY_SIZE(methods); i++)
		if (!strcmp(found->type_name, methods[i]))
			found->kind = METHOD;
	return 0;
}

/* What a class and those that it is derived from have under a name. Return: 0, also where it is NOWHERE. */
static int find_in_class(const struct py_reader *py, raddr type, const char *name, struct found *ret) {
	raddr mro, classes[MRO_MAX], dict;
	size_t n = 0;
	int r = mem_read_u64(py->mem, type + py->layout.type_dictoffset + MRO_BEHIND_DICTOFFSET, &mro);

	*ret = (struct found){ .kind = NOWHERE };
	if (!r)
		r = py_sequence_read(py, mro, classes, MRO_MAX, &n);
	for (size_t i = 0; !r && i < min_of(n, (size_t)MRO_MAX); i++) {
		r = mem_read_u64(py->mem, classes[i] + py->layout.type_dict, &dict);
		if (r || !dict)
			continue;
		r = py_dict_get(py, dict, name, &ret->value);
		if (!r) {
			ret->owner = classes[i];
			return look_at_value(py, ret);
		}
		r = r == PY_E_TYPE ? 0 : r;
	}
	return r;
}

/* CPython Include/descrobject.h, the same from 3.6 on: a member descriptor is {…, d_name, d_qualname, d_member}, a
 * PyMemberDef {name, type, offset, …}. */
static int read_slot(const struct walk *w, raddr object, raddr descriptor, raddr *ret_value) {
	const struct py_reader *py = w->py;
	uint64_t member, def[3]; /* name, type in the low half, offset */
	raddr value;
	int r = mem_read_u64(py->mem, descriptor + py->layout.descr_name + 2 * sizeof(raddr), &member);

	if (!r)
		r = mem_read(py->mem, member, def, sizeof(def));
	if (r)
		return r;
	if (((uint32_t)def[1] != MEMBER_OBJECT && (uint32_t)def[1] != MEMBER_OBJECT_EX) || def[2] > SLOT_OFFSET_MAX)
		return say_code(w, "is kept in a form of its type's own");
	r = mem_read_u64(py->mem, object + def[2], &value);
	if (r)
		return r;
	if (!value)
		return say(w, PY_E_TYPE, true, "is not set");
	*ret_value = value;
	return 0;
}

static int say_descriptor(const struct walk *w, const struct found *found) {
	char text[NAME_BYTES + 32];

	if (found->kind == METHOD)
		return say_code(w, "is a method");
	snprintf(text, sizeof(text), "is a %s", strcmp(found->type_name, "property") ? "descriptor" : found->type_name);
	return say_code(w, text);
}

static bool has_getattr(const struct py_reader *py, raddr type) {
	struct found found;

	return !find_in_class(py, type, "__getattr__", &found) && found.kind != NOWHERE;
}

/* A class's own attributes are its values as they are, but for descriptors that would compute something. */
static int attribute_of_class(const struct walk *w, raddr object, raddr metatype, const char *name, raddr *ret_value) {
	struct found found;
	int r = find_in_class(w->py, object, name, &found);

	if (!r && found.kind == NOWHERE) {
		r = find_in_class(w->py, metatype, name, &found);
		if (!r && found.kind != NOWHERE && found.kind != PLAIN)
			return say_descriptor(w, &found);
	}
	if (r)
		return r;
	if (found.kind == NOWHERE)
		return has_getattr(w->py, metatype) ? say_code(w, "is left to __getattr__") : say_missing(w);
	if (found.kind == OTHER || (found.kind == METHOD && strcmp(found.type_name, "function")))
		return say_descriptor(w, &found);
	*ret_value = found.value;
	return 0;
}

static int attribute_of_instance(const struct walk *w, raddr object, raddr type, const char *name, raddr *ret_value) {
	struct found found;
	int r = find_in_class(w->py, type, name, &found);

	if (!r && found.kind == SLOT)
		return read_slot(w, object, found.value, ret_value);
	if (!r && found.kind == DATA)
		return say_descriptor(w, &found);
	if (!r)
		r = py_attribute(w->py, object, name, ret_value);
	if (r != PY_E_TYPE)
		return r;
	if (found.kind == NOWHERE)
		return has_getattr(w->py, type) ? say_code(w, "is left to __getattr__") : say_missing(w);
	if (found.kind != PLAIN)
		return say_descriptor(w, &found);
	*ret_value = found.value;
	return 0;
}

static int take_attribute(const struct walk *w, raddr object, const char *name, raddr *ret_value) {
	struct type_head type;
	raddr at;
	int r = py_type_of(w->py, object, &at);

	if (!r)
		r = type_head_read(w->py, at, &type);
	if (r)
		return r;
	return type.flags & TYPE_TYPE ? attribute_of_class(w, object, at, name, ret_value)
				      : attribute_of_instance(w, object, at, name, ret_value);
}

/* Items */

struct search {
	const struct py_reader *py;
	int64_t key;
	raddr value;
};

static int match_number(void *userdata, raddr key, raddr value) {
	struct search *search = userdata;
	int64_t number;

	if (py_long_read(search->py, key, &number) || number != search->key)
		return 0;
	search->value = value;
	return PY_E_TYPE; /* ends the walk */
}

static int item_of_dict(const struct walk *w, raddr dict, const struct py_step *step, raddr *ret_value) {
	struct search search = { .py = w->py, .key = step->index };
	int r;

	if (step->kind == PY_STEP_KEY) {
		r = py_dict_get(w->py, dict, step->text, ret_value);
	} else {
		r = py_dict_walk(w->py, dict, match_number, &search);
		if (search.value) {
			*ret_value = search.value;
			return 0;
		}
		r = r ? r : PY_E_TYPE;
	}
	return r == PY_E_TYPE ? say(w, r, true, "is not there: no such key") : r;
}

static int item_of_sequence(
	const struct walk *w, const struct object_head *head, bool is_tuple, int64_t index, raddr *ret_value) {
	const struct layout *l = &w->py->layout;
	char text[64];
	raddr first;
	size_t n;
	int r = object_count(head, l->var_size, &n);

	if (r)
		return r;
	index += index < 0 ? (int64_t)n : 0;
	if (index < 0 || (uint64_t)index >= n) {
		snprintf(text, sizeof(text), "is not there: there are %zu items", n);
		return say(w, PY_E_TYPE, true, text);
	}
	first = is_tuple ? head->addr + l->tuple_items : object_u64(head, l->list_items);
	return mem_read_u64(w->py->mem, first + (uint64_t)index * sizeof(raddr), ret_value);
}

static int take_item(const struct walk *w, raddr object, const struct py_step *step, raddr *ret_value) {
	struct object_head head;
	struct type_head type;
	int r = object_head_read(w->py, object, w->py->layout.list_items + sizeof(raddr), &head);

	if (!r)
		r = type_head_read(w->py, head.type, &type);
	if (r)
		return r;
	if (type.flags & TYPE_DICT)
		return item_of_dict(w, object, step, ret_value);
	if (step->kind == PY_STEP_INDEX && type.flags & (TYPE_LIST | TYPE_TUPLE))
		return item_of_sequence(w, &head, type.flags & TYPE_TUPLE, step->index, ret_value);
	return say(w, PY_E_TYPE, false, step->kind == PY_STEP_INDEX ? "is no dict, list or tuple" : "is no dict");
}

/* Numbers of items */

/* Whether a class's qsize or __len__ is the one of a type whose length we know: not one that the program wrote. */
static int is_own_count(const struct walk *w, raddr object, const char *name, bool *ret_own) {
	struct found found;
	raddr type;
	int r = py_type_of(w->py, object, &type);

	if (!r)
		r = find_in_class(w->py, type, name, &found);
	if (!r)
		*ret_own = found.kind == NOWHERE
			? !strcmp(name, "__len__")
			: strcmp(found.type_name, "function") != 0 || py_length_knows_queue(w->py, found.owner);
	return r;
}

/* The last step of a path. Return: 0; PY_E_TYPE: it is no number of items, or not one to be had; as others. */
static int count_items(const struct walk *w, raddr object, size_t *ret_n) {
	const struct py_step *step = &w->path->steps[w->step];
	bool own = false;
	int r;

	if (step->kind != PY_STEP_NAME || (strcmp(step->text, "qsize") && strcmp(step->text, "__len__")))
		return PY_E_TYPE;
	r = is_own_count(w, object, step->text, &own);
	if (r)
		return r;
	return own ? py_length_read(w->py, object, ret_n) : PY_E_TYPE;
}

/* The walk */

static int take_step(const struct walk *w, raddr object, raddr *ret_value) {
	const struct py_step *step = &w->path->steps[w->step];
	int r = step->kind == PY_STEP_NAME ? take_attribute(w, object, step->text, ret_value)
					   : take_item(w, object, step, ret_value);

	if (r > 0 && r != MEM_E_GONE && w->err && !w->err->text[0])
		return say(w, r, true, "cannot be read now");
	return r;
}

/* People name the script that is run by its file: app.py is "app" to them, "__main__" to Python. */
static int find_script(const struct py_reader *py, raddr modules, const char *name, raddr *ret_module) {
	_cleanup_(strbuf_deinit) struct strbuf file = { 0 };
	const char *base, *dot;
	raddr module, text;
	int r = py_dict_get(py, modules, "__main__", &module);

	if (!r)
		r = py_attribute(py, module, "__file__", &text);
	if (!r)
		r = py_text_read(py, text, LIMIT_PATH_CHARS, &file);
	if (r)
		return r == PY_E_TRUNCATED ? PY_E_TYPE : r;
	base = strrchr(strbuf_str(&file), '/');
	base = base ? base + 1 : strbuf_str(&file);
	dot = strchrnul(base, '.');
	if ((size_t)(dot - base) != strlen(name) || memcmp(base, name, strlen(name)) != 0)
		return PY_E_TYPE;
	*ret_module = module;
	return 0;
}

static int find_module(const struct py_runtime *rt, const char *name, raddr *ret_module) {
	const struct py_reader *py = &rt->reader;
	py_interp_vec interps = { 0 };
	raddr modules;
	int r = py_interps_read(rt, &interps), found = PY_E_TYPE;

	for (size_t i = interps.n; !r && found == PY_E_TYPE && i > 0; i--) {
		r = mem_read_u64(py->mem, interps.items[i - 1].addr + py->layout.interp_modules, &modules);
		if (!r && modules)
			found = py_dict_get(py, modules, name, ret_module);
		if (!r && modules && found == PY_E_TYPE)
			found = find_script(py, modules, name, ret_module);
	}
	vec_free(&interps);
	return r ? r : found;
}

static int say_no_module(const struct py_path *path, int r, struct err *err) {
	_cleanup_(strbuf_deinit) struct strbuf name = { 0 };

	if (r < 0 || r == MEM_E_GONE)
		return r;
	strbuf_add_printable(&name, path->module, strlen(path->module));
	if (r != PY_E_TYPE)
		return err_set(err, r, "module '%s' cannot be read now", strbuf_str(&name));
	return err_set(err, r, "no module '%s' is imported", strbuf_str(&name));
}

int py_path_evaluate(
	const struct py_runtime *rt, const struct py_path *path, struct py_path_value *ret_value, struct err *err) {
	struct err unused, *said = err ? err : &unused;
	struct walk w = { .rt = rt, .py = &rt->reader, .path = path, .err = said };
	struct py_path_value value = { 0 };
	raddr object;
	int r = find_module(rt, path->module, &object);

	said->text[0] = '\0';
	if (r)
		return say_no_module(path, r, said);
	for (; w.step < path->n; w.step++) {
		if (w.step + 1 == path->n && !count_items(&w, object, &value.items)) {
			object = 0;
			break;
		}
		if (w.step + 1 == path->n && path->is_call)
			return say(&w, PY_E_TYPE, true, "is not called: nothing is executed");
		r = take_step(&w, object, &object);
		if (r)
			return r;
	}
	value.object = object;
	*ret_value = value;
	return 0;
}
