/* SPDX-License-Identifier: MIT */
/* The list of thread states, the kernel's threads behind them, and the names that Python gave them.
 *
 * The kernel's thread id: from 3.11 on the thread state has it; before, struct pthread has it (the thread state's ident
 * is its address). Both are numbers of the target's own PID namespace; the NSpid line of /proc/PID/task/TID/status
 * leads from them to ours. */
#include "engine/cpython/threads.h"

#include "engine/base/cursor.h"
#include "engine/base/limits.h"
#include "engine/cpython/objects.h"
#include <stdlib.h>

#define THREAD_LIST_TRIES 10

static int read_thread(const struct py_runtime *rt, raddr tstate, struct py_thread *thread, raddr *ret_next) {
	const struct layout *l = &rt->reader.layout;
	uint8_t bytes[1024];
	uint32_t len = min_of(l->tstate_size, (uint32_t)sizeof(bytes));
	int r = mem_read(rt->reader.mem, tstate, bytes, len);

	if (r)
		return r;
	if (peek_u64(bytes, len, l->tstate_interp) != thread->interp ||
		peek_u64(bytes, len, l->tstate_prev) != thread->tstate)
		return PY_E_TORN; /* one that ended, and is something else by now */
	thread->tstate = tstate;
	thread->ident = peek_u64(bytes, len, l->tstate_thread_id);
	thread->tid = 0;
	if (layout_has(l->tstate_native_thread_id))
		thread->tid = (pid_t)peek_u64(bytes, len, l->tstate_native_thread_id);
	*ret_next = peek_u64(bytes, len, l->tstate_next);
	return 0;
}

/* Appends an interpreter's threads. *changed is set where one began or ended meanwhile: then the list may lack some. */
static int read_interp_threads(
	const struct py_runtime *rt, const struct py_interp *interp, py_thread_vec *threads, bool *changed) {
	const raddr head_addr = interp->addr + rt->reader.layout.interp_threads_head;
	struct py_thread thread = { .interp = interp->addr, .interp_id = interp->id };
	uint64_t head, next;
	int r = mem_read_u64(rt->reader.mem, head_addr, &head);

	next = head;
	while (!r && next) {
		if (threads->n >= LIMIT_THREADS)
			return PY_E_TORN;
		r = read_thread(rt, next, &thread, &next);
		if (!r)
			r = vec_push(threads, thread);
	}
	if (!r)
		r = mem_read_u64(rt->reader.mem, head_addr, &next);
	if (!r && next != head)
		*changed = true;
	return r;
}

/* The kernel's thread id out of struct pthread, in the target's namespace. */
static pid_t tid_of_pthread(const struct py_runtime *rt, uint64_t ident) {
	int32_t tid = 0;

	if (!ident || !layout_has(rt->pthread_tid) ||
		mem_read(rt->reader.mem, ident + rt->pthread_tid, &tid, sizeof(tid)))
		return 0;
	return tid;
}

/* Thread ids as the target sees them → as we do. */
static int map_foreign_tids(const struct proc *proc, const pid_vec *tids, struct map *map) {
	char name[64];

	vec_foreach (tid, tids) {
		char *text _free_ = NULL;
		struct proc_status status;
		size_t len;
		int r;

		snprintf(name, sizeof(name), "task/%d/status", (int)*tid);
		if (proc_read_file(proc, name, 16384, &text, &len) || proc_status_parse(text, len, &status))
			continue;
		r = map_put(map, (uint64_t)status.ns_pid, (uint64_t)*tid);
		if (r)
			return r;
	}
	return 0;
}

static int map_own_tids(const pid_vec *tids, struct map *map) {
	vec_foreach (tid, tids) {
		int r = map_put(map, (uint64_t)*tid, (uint64_t)*tid);

		if (r)
			return r;
	}
	return 0;
}

/* Turns the target's thread ids into ours; one that the kernel does not know becomes 0. */
static int translate_tids(const struct py_runtime *rt, const struct proc *proc, py_thread_vec *threads) {
	pid_vec tids = { 0 };
	struct map _cleanup_(map_deinit) map = { 0 };
	int r = proc_threads(proc, &tids);

	if (!r)
		r = rt->foreign_tids ? map_foreign_tids(proc, &tids, &map) : map_own_tids(&tids, &map);
	vec_free(&tids);
	if (r)
		return r == PROC_E_GONE ? MEM_E_GONE : r;
	vec_foreach (thread, threads) {
		uint64_t ours = 0;

		if (!layout_has(rt->reader.layout.tstate_native_thread_id))
			thread->tid = tid_of_pthread(rt, thread->ident);
		thread->tid = map_get(&map, (uint64_t)thread->tid, &ours) ? (pid_t)ours : 0;
	}
	return 0;
}

static int read_all(const struct py_runtime *rt, py_thread_vec *threads, bool *changed) {
	py_interp_vec interps = { 0 };
	int r = py_interps_read(rt, &interps);

	threads->n = 0;
	*changed = false;
	for (size_t i = 0; !r && i < interps.n; i++)
		r = read_interp_threads(rt, &interps.items[i], threads, changed);
	vec_free(&interps);
	return r;
}

/* A thread that begins or ends under us breaks the chain, and the next try may find it whole. Where threads come and go
 * all the time, the longest list that was read to its end must do. */
static int read_settled(const struct py_runtime *rt, py_thread_vec *ret_threads) {
	py_thread_vec threads = { 0 }, longest = { 0 };
	bool changed = true, any = false;
	int r = PY_E_TORN;

	for (int i = 0; i < THREAD_LIST_TRIES && changed && (!r || r == PY_E_TORN || r == MEM_E_FAULT); i++) {
		r = read_all(rt, &threads, &changed);
		changed |= r != 0;
		if (!r && (!any || !changed || threads.n > longest.n)) {
			py_thread_vec other = longest;

			longest = threads;
			threads = other;
			any = true;
		}
	}
	vec_free(&threads);
	if (any && (!r || r == PY_E_TORN || r == MEM_E_FAULT)) {
		*ret_threads = longest;
		return 0;
	}
	vec_free(&longest);
	return r;
}

int py_threads_read(const struct py_runtime *rt, const struct proc *proc, py_thread_vec *ret_threads) {
	py_thread_vec threads = { 0 };
	int r = read_settled(rt, &threads);

	if (!r)
		r = translate_tids(rt, proc, &threads);
	if (r) {
		vec_free(&threads);
		return r;
	}
	vec_free(ret_threads);
	*ret_threads = threads;
	return 0;
}

#define PTHREAD_BYTES 1024 /* of struct pthread that are searched */

/* Return: whether the offset holds the thread id of a thread that exists. */
static bool is_known_tid(const struct map *known, const uint8_t *bytes, uint32_t offset) {
	uint64_t unused;

	return map_get(known, peek_u32(bytes, PTHREAD_BYTES, offset), &unused);
}

uint32_t py_pthread_tid_offset(const struct py_runtime *rt, const struct proc *proc, uint64_t ident) {
	static const uint32_t usual[] = { 720, 208, 48, 56 }; /* glibc x86-64, glibc aarch64, musl 1.2, musl 1.1 */
	struct map _cleanup_(map_deinit) known = { 0 };
	uint8_t bytes[PTHREAD_BYTES];
	pid_vec tids = { 0 };
	uint32_t found = LAYOUT_NONE;

	if (proc_threads(proc, &tids))
		return LAYOUT_NONE;
	if (!(rt->foreign_tids ? map_foreign_tids(proc, &tids, &known) : map_own_tids(&tids, &known)) &&
		!mem_read(rt->reader.mem, ident, bytes, sizeof(bytes))) {
		for (size_t i = 0; i < ARRAY_SIZE(usual) && found == LAYOUT_NONE; i++)
			if (is_known_tid(&known, bytes, usual[i]))
				found = usual[i];
		for (uint32_t offset = 0; offset < PTHREAD_BYTES && found == LAYOUT_NONE; offset += 4)
			if (is_known_tid(&known, bytes, offset))
				found = offset;
	}
	vec_free(&tids);
	return found;
}

struct name_reader {
	const struct py_runtime *rt;
	struct py_thread_names *names;
};

static int add_name(void *userdata, raddr key, raddr value) {
	struct name_reader *reader = userdata;
	struct strbuf _cleanup_(strbuf_deinit) text = { 0 };
	raddr name;
	int64_t ident;
	char *copy;
	int r;

	if (reader->names->names.n >= LIMIT_THREADS)
		return PY_E_TRUNCATED;
	if (py_long_read(&reader->rt->reader, key, &ident) || ident <= 0 ||
		py_attribute(&reader->rt->reader, value, "_name", &name))
		return 0;
	r = py_text_read(&reader->rt->reader, name, LIMIT_NAME_CHARS, &text);
	if (r && r != PY_E_TRUNCATED)
		return 0;
	copy = strbuf_take(&text);
	r = copy ? map_put(&reader->names->index, (uint64_t)ident, reader->names->names.n) : -ENOMEM;
	if (!r)
		r = vec_push(&reader->names->names, copy);
	if (r)
		free(copy);
	return r;
}

/* threading._active of one interpreter. Whatever is not there yet is simply not there. */
static int read_interp_names(const struct py_runtime *rt, raddr interp, struct py_thread_names *names) {
	const struct py_reader *py = &rt->reader;
	struct name_reader reader = { .rt = rt, .names = names };
	raddr modules, module, dict, active;
	int r = mem_read_u64(py->mem, interp + py->layout.interp_modules, &modules);

	if (r)
		return r;
	if (!modules || py_dict_get(py, modules, "threading", &module) ||
		mem_read_u64(py->mem, module + py->layout.module_dict, &dict) || !dict ||
		py_dict_get(py, dict, "_active", &active))
		return 0;
	r = py_dict_walk(py, active, add_name, &reader);
	return r < 0 ? r : 0;
}

int py_thread_names_read(const struct py_runtime *rt, struct py_thread_names *ret_names) {
	struct py_thread_names names = { 0 };
	py_interp_vec interps = { 0 };
	int r = py_interps_read(rt, &interps);

	for (size_t i = 0; !r && i < interps.n; i++)
		r = read_interp_names(rt, interps.items[i].addr, &names);
	vec_free(&interps);
	if (r) {
		py_thread_names_deinit(&names);
		return r;
	}
	*ret_names = names;
	return 0;
}

void py_thread_names_deinit(struct py_thread_names *names) {
	vec_foreach (name, &names->names)
		free(*name);
	vec_free(&names->names);
	map_deinit(&names->index);
}

const char *py_thread_name(const struct py_thread_names *names, uint64_t ident) {
	uint64_t i;

	return map_get(&names->index, ident, &i) && i < names->names.n ? names->names.items[i] : NULL;
}
