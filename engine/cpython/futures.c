/* SPDX-License-Identifier: MIT */
/* Futures and tasks as objects.
 *
 * Those of the C types have their members where the layout says; classes derived from them do too, and keep what they
 * add in a __dict__. Where Python code made the type on its own (asyncio without its C module, or
 * asyncio.tasks._PyTask), everything is an attribute; its loop, its callbacks and a state that is one of three words
 * are what tells it from other objects, as asyncio itself goes by attributes and not by types. The state of a pending
 * one is its class's. */
#include "engine/cpython/asyncio.h"

#include "engine/cpython/objects.h"
#include <string.h>

#define STATE_CHARS 16

void asyncio_types_deinit(struct asyncio_types *types) {
	map_deinit(&types->kinds);
}

/* By the name of the type itself, or of a base where types of that name have subclasses. */
static enum asyncio_kind classify(const struct py_reader *py, raddr object) {
	static const struct {
		const char *name;
		enum asyncio_kind kind;
	} final[] = {
		{ "_asyncio.FutureIter", ASYNCIO_FUTURE_ITER },
		{ "coroutine", ASYNCIO_COROUTINE },
		{ "generator", ASYNCIO_COROUTINE },
		{ "async_generator", ASYNCIO_COROUTINE },
		{ "coroutine_wrapper", ASYNCIO_WRAPPER },
		{ "async_generator_asend", ASYNCIO_ASEND },
		{ "async_generator_athrow", ASYNCIO_ATHROW },
		{ "anext_awaitable", ASYNCIO_ANEXT },
	};
	char name[32];

	if (!py_type_name(py, object, name, sizeof(name)))
		for (size_t i = 0; i < ARRAY_SIZE(final); i++)
			if (!strcmp(name, final[i].name))
				return final[i].kind;
	if (asyncio_is_instance(py, object, "_asyncio.Task"))
		return ASYNCIO_TASK;
	return asyncio_is_instance(py, object, "_asyncio.Future") ? ASYNCIO_FUTURE : ASYNCIO_OTHER;
}

int asyncio_kind_of(
	const struct py_reader *py, struct asyncio_types *types, raddr object, enum asyncio_kind *ret_kind) {
	uint64_t kind;
	raddr type;
	int r = py_type_of(py, object, &type);

	if (!r && type == UINT64_MAX)
		r = PY_E_TYPE;
	if (r)
		return r;
	if (!map_get(&types->kinds, type, &kind)) {
		kind = classify(py, object);
		r = map_put(&types->kinds, type, kind);
	}
	if (!r)
		*ret_kind = (enum asyncio_kind)kind;
	return r;
}

static int native_member(const struct py_reader *py, raddr object, uint32_t offset, raddr *ret) {
	return layout_has(offset) ? mem_read_u64(py->mem, object + offset, ret) : 0;
}

/* A task begins with the members of a future. */
static int read_native(const struct py_reader *py, raddr object, struct asyncio_object *o) {
	const struct layout *l = &py->layout;
	uint32_t state;
	int r;

	if (!layout_has(l->future_state))
		return PY_E_TYPE;
	r = mem_read(py->mem, object + l->future_state, &state, sizeof(state));
	if (!r && state > PY_FUTURE_FINISHED)
		r = PY_E_TYPE;
	if (!r)
		r = native_member(py, object, l->future_loop, &o->loop);
	if (!r && o->is_task)
		r = native_member(py, object, l->task_coro, &o->coro);
	if (!r && o->is_task)
		r = native_member(py, object, l->task_fut_waiter, &o->waiter);
	if (!r && o->is_task)
		r = native_member(py, object, l->task_name, &o->name);
	o->state = (enum py_future_state)state;
	return r;
}

static int state_of_word(const struct py_reader *py, raddr text, enum py_future_state *ret) {
	static const char *const words[] = {
		[PY_FUTURE_PENDING] = "PENDING", [PY_FUTURE_CANCELLED] = "CANCELLED", [PY_FUTURE_FINISHED] = "FINISHED"
	};
	_cleanup_(strbuf_deinit) struct strbuf word = { 0 };
	int r = py_text_read(py, text, STATE_CHARS, &word);

	if (r)
		return r == PY_E_TRUNCATED ? PY_E_TYPE : r;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(strbuf_str(&word), words[i]))
			continue;
		*ret = (enum py_future_state)i;
		return 0;
	}
	return PY_E_TYPE;
}

/* What is not there stays 0. */
static int optional(const struct py_reader *py, raddr object, const char *name, raddr *ret) {
	int r = asyncio_attribute(py, object, name, ret);

	return r == PY_E_TYPE ? 0 : r;
}

static int read_python(const struct py_reader *py, raddr object, struct asyncio_object *o) {
	raddr state = 0, callbacks;
	int r = py_attribute(py, object, "_loop", &o->loop);

	if (!r)
		r = py_attribute(py, object, "_callbacks", &callbacks);
	if (!r)
		r = optional(py, object, "_state", &state);
	if (!r && state)
		r = state_of_word(py, state, &o->state);
	if (!r)
		r = optional(py, object, "_coro", &o->coro);
	if (!r)
		r = optional(py, object, "_fut_waiter", &o->waiter);
	if (!r)
		r = optional(py, object, "_name", &o->name);
	o->is_task = o->coro != 0;
	return r;
}

int asyncio_object_read(
	const struct py_reader *py, struct asyncio_types *types, raddr object, struct asyncio_object *ret_object) {
	struct asyncio_object o = { 0 };
	enum asyncio_kind kind;
	int r = asyncio_kind_of(py, types, object, &kind);

	if (!r && kind > ASYNCIO_TASK)
		r = PY_E_TYPE;
	if (r)
		return r;
	o.is_native = kind != ASYNCIO_OTHER;
	o.is_task = kind == ASYNCIO_TASK;
	r = o.is_native ? read_native(py, object, &o) : read_python(py, object, &o);
	if (!r)
		*ret_object = o;
	return r;
}

int py_future_read(const struct py_runtime *rt, raddr object, struct py_future *ret_future) {
	_cleanup_(asyncio_types_deinit) struct asyncio_types types = { 0 };
	struct asyncio_object o;
	raddr children;
	size_t n = 0;
	int r = asyncio_object_read(&rt->reader, &types, object, &o);

	if (r)
		return r;
	ret_future->state = o.state;
	ret_future->is_task = o.is_task;
	ret_future->children_n = 0;
	if (o.is_task || py_attribute(&rt->reader, object, "_children", &children))
		return 0;
	r = py_sequence_read(&rt->reader, children, ret_future->children, ARRAY_SIZE(ret_future->children), &n);
	if (!r || r == PY_E_TRUNCATED)
		ret_future->children_n = min_of(n, ARRAY_SIZE(ret_future->children));
	return asyncio_is_fatal(r) ? r : 0;
}
