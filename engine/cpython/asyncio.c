/* SPDX-License-Identifier: MIT */
/* Where asyncio keeps its state: globals of its modules, attributes in slots, and what each thread runs.
 *
 * The loop that a thread runs: from 3.13 on the thread state has it; before, the dict of the thread state has it under
 * "__asyncio_running_event_loop__", to 3.11 as the first member of an object of the C module. The running task: 3.14+
 * the thread state; before, the dict asyncio.tasks._current_tasks. A program that runs without the C module has only
 * that dict, and its frames. */
#include "engine/cpython/asyncio.h"

#include "engine/cpython/object_head.h"
#include <math.h>
#include <string.h>

#define BASES_MAX 32 /* classes derived from each other that are followed */
#define NAME_BYTES 64
#define SLOT_OFFSET_MAX (1U << 16)

/* CPython Include/cpython/object.h, the same from 3.6 on: tp_base stands right before tp_dict. */
static uint32_t type_base(const struct py_reader *py) {
	return py->layout.type_dict - (uint32_t)sizeof(raddr);
}

bool asyncio_is_instance(const struct py_reader *py, raddr object, const char *type_name) {
	char name[NAME_BYTES];
	raddr type = 0;

	if (py_type_of(py, object, &type))
		return false;
	for (int i = 0; i < BASES_MAX && type; i++) {
		struct type_head head;

		if (type_head_read(py, type, &head) || !head.name ||
			mem_read_cstr(py->mem, head.name, name, sizeof(name)))
			return false;
		if (!strcmp(name, type_name))
			return true;
		if (mem_read_u64(py->mem, type + type_base(py), &type))
			return false;
	}
	return false;
}

int asyncio_global(const struct py_runtime *rt, raddr interp, const char *module, const char *name, raddr *ret_value) {
	const struct py_reader *py = &rt->reader;
	raddr modules, found, dict;
	int r = mem_read_u64(py->mem, interp + py->layout.interp_modules, &modules);

	if (!r)
		r = modules ? py_dict_get(py, modules, module, &found) : PY_E_TYPE;
	if (!r)
		r = mem_read_u64(py->mem, found + py->layout.module_dict, &dict);
	if (r)
		return r;
	return dict ? py_dict_get(py, dict, name, ret_value) : PY_E_TYPE;
}

/* CPython Include/descrobject.h, the same from 3.6 on: a member descriptor is {…, d_name, d_qualname, d_member}, a
 * PyMemberDef {name, type, offset, …}. */
static int member_offset(const struct py_reader *py, raddr descriptor, uint32_t *ret_offset) {
	char name[NAME_BYTES];
	uint64_t member, offset;
	int r = py_type_name(py, descriptor, name, sizeof(name));

	if (!r && strcmp(name, "member_descriptor"))
		r = PY_E_TYPE;
	if (!r)
		r = mem_read_u64(py->mem, descriptor + py->layout.descr_name + 16, &member);
	if (!r)
		r = mem_read_u64(py->mem, member + 16, &offset);
	if (r)
		return r;
	if (offset > SLOT_OFFSET_MAX)
		return PY_E_TYPE;
	*ret_offset = (uint32_t)offset;
	return 0;
}

int asyncio_slot_offset(const struct py_reader *py, raddr type, const char *name, uint32_t *ret_offset) {
	for (int i = 0; i < BASES_MAX && type; i++) {
		struct type_head head;
		raddr descriptor;
		int r = type_head_read(py, type, &head);

		if (!r)
			r = head.dict ? py_dict_get(py, head.dict, name, &descriptor) : PY_E_TYPE;
		if (!r)
			return member_offset(py, descriptor, ret_offset);
		if (r == PY_E_TYPE)
			r = mem_read_u64(py->mem, type + type_base(py), &type);
		if (r)
			return r;
	}
	return PY_E_TYPE;
}

static raddr none_to_zero(const struct py_reader *py, raddr object) {
	char name[16];

	return object && !py_type_name(py, object, name, sizeof(name)) && !strcmp(name, "NoneType") ? 0 : object;
}

int asyncio_attribute(const struct py_reader *py, raddr object, const char *name, raddr *ret_value) {
	uint32_t offset;
	raddr type, value;
	int r = py_attribute(py, object, name, &value);

	if (r == PY_E_TYPE) {
		r = py_type_of(py, object, &type);
		if (!r)
			r = asyncio_slot_offset(py, type, name, &offset);
		if (!r)
			r = mem_read_u64(py->mem, object + offset, &value);
	}
	if (!r)
		*ret_value = none_to_zero(py, value);
	return r;
}

int asyncio_number(const struct py_reader *py, raddr object, double *ret) {
	char name[NAME_BYTES];
	double value = 0;
	int64_t whole;
	int r = py_type_name(py, object, name, sizeof(name));

	if (r)
		return r;
	if (strcmp(name, "float")) {
		r = py_long_read(py, object, &whole);
		value = (double)whole;
	} else {
		r = mem_read(py->mem, object + py->layout.float_value, &value, sizeof(value));
	}
	if (r)
		return r;
	if (!isfinite(value))
		return PY_E_TYPE;
	*ret = value;
	return 0;
}

static int loop_of_dict(const struct py_reader *py, raddr tstate, raddr *ret_loop) {
	raddr dict, holder;
	char name[NAME_BYTES];
	int r = mem_read_u64(py->mem, tstate + py->layout.tstate_dict, &dict);

	if (r || !dict)
		return r ? r : PY_E_TYPE;
	r = py_dict_get(py, dict, "__asyncio_running_event_loop__", &holder);
	if (!r)
		r = py_type_name(py, holder, name, sizeof(name));
	if (r)
		return r;
	if (strstr(name, "RunningLoopHolder"))
		return mem_read_u64(py->mem, holder + py->layout.object_size, ret_loop);
	*ret_loop = holder;
	return 0;
}

int asyncio_running_loop(const struct py_runtime *rt, const struct py_thread *thread, raddr *ret_loop) {
	const struct py_reader *py = &rt->reader;
	raddr loop = 0;
	int r = layout_has(py->layout.tstate_running_loop)
		? mem_read_u64(py->mem, thread->tstate + py->layout.tstate_running_loop, &loop)
		: loop_of_dict(py, thread->tstate, &loop);

	if (asyncio_is_fatal(r))
		return r;
	*ret_loop = r ? 0 : none_to_zero(py, loop);
	return 0;
}

struct search {
	raddr key, value;
};

static int match_key(void *userdata, raddr key, raddr value) {
	struct search *search = userdata;

	if (key != search->key)
		return 0;
	search->value = value;
	return PY_E_TRUNCATED; /* ends the walk */
}

int asyncio_running_task(const struct py_runtime *rt, const struct py_thread *thread, raddr loop, raddr *ret_task) {
	const struct py_reader *py = &rt->reader;
	struct search search = { .key = loop };
	raddr tasks;
	int r = 0;

	if (layout_has(py->layout.tstate_running_task))
		r = mem_read_u64(py->mem, thread->tstate + py->layout.tstate_running_task, &search.value);
	if (!r && !search.value)
		r = asyncio_global(rt, thread->interp, "asyncio.tasks", "_current_tasks", &tasks);
	if (!r && !search.value)
		r = py_dict_walk(py, tasks, match_key, &search);
	if (asyncio_is_fatal(r))
		return r;
	*ret_task = search.value;
	return 0;
}
