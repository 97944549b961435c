/* SPDX-License-Identifier: MIT */
/* Targets: attaching, keeping the list of threads, decoding. */
#include "engine/sample/target.h"

#include "engine/base/limits.h"
#include "engine/proc/access.h"
#include <errno.h>

#define OFFSET_BITS 27 /* of a place's key; more than any bytecode that is accepted */

static int explain_denied(struct sample_target *target, struct err *err) {
	enum access_layer layer;
	int r = access_check(&target->proc, &layer, err);

	return r ? r : err_set(err, PYSPYD_E_DENIED, "reading process %d is not permitted", (int)target->proc.pid);
}

static int attach(struct sample_target *target, uint64_t wait_ns, struct err *err) {
	enum access_layer layer;
	int r = access_check(&target->proc, &layer, err);

	if (r)
		return r;
	r = mem_live_new(target->proc.pid, &target->mem);
	if (r)
		return r;
	r = py_runtime_attach_wait(&target->proc, target->mem, wait_ns, &target->rt, err);
	if (r == PYSPYD_E_DENIED)
		return explain_denied(target, err);
	if (r == PYSPYD_E_GONE)
		return err_set(err, r, "process %d has ended", (int)target->proc.pid);
	if (r > 0)
		return err_wrap(err, r, "process %d", (int)target->proc.pid);
	return r;
}

static int init_lock(pthread_mutex_t *lock) {
	pthread_mutexattr_t attr;
	int r;

	pthread_mutexattr_init(&attr);
	/* A sampler of high priority may wait for the reporter here: the reporter then runs as high. */
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	r = pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
	return -r;
}

/* Without a process. */
static int new_target(struct sample_target **ret_target) {
	static atomic_uint_fast64_t serial;
	struct sample_target *target = calloc(1, sizeof(*target));
	int r;

	if (!target)
		return -ENOMEM;
	target->serial = atomic_fetch_add(&serial, 1) + 1;
	target->proc.dir_fd = target->proc.pidfd = -1;
	r = init_lock(&target->lock);
	if (!r)
		r = intern_init(&target->strings);
	if (r)
		sample_target_free(target);
	else
		*ret_target = target;
	return r;
}

int sample_target_new(pid_t pid, uint64_t wait_ns, struct sample_target **ret_target, struct err *err) {
	struct sample_target *target;
	int r = new_target(&target);

	if (r)
		return r;
	target->root = "/proc";
	r = proc_open(target->root, pid, &target->proc);
	if (r == PROC_E_GONE)
		r = err_set(err, PYSPYD_E_GONE, "there is no process %d", (int)pid);
	if (!r)
		r = attach(target, wait_ns, err);
	if (!r && clock_getcpuclockid(pid, &target->cpu_clock))
		r = err_set(err, PYSPYD_E_GONE, "process %d has ended", (int)pid);
	if (r) {
		sample_target_free(target);
		return r;
	}
	py_code_cache_init(&target->codes, &target->rt, &target->strings);
	*ret_target = target;
	return 0;
}

int sample_target_new_offline(
	const char *root, struct proc *proc, struct mem *mem, struct sample_target **ret_target, struct err *err) {
	struct sample_target *target;
	int r = new_target(&target);

	if (r) {
		proc_close(proc);
		mem_free(mem);
		return r;
	}
	target->offline = true;
	target->root = root;
	target->proc = *proc;
	*proc = (struct proc){ .dir_fd = -1, .pidfd = -1 };
	target->mem = mem;
	r = py_runtime_attach(&target->proc, mem, &target->rt, err);
	if (r) {
		sample_target_free(target);
		return r;
	}
	py_code_cache_init(&target->codes, &target->rt, &target->strings);
	*ret_target = target;
	return 0;
}

static void free_thread(struct sample_thread *thread) {
	proc_task_close(&thread->task);
	py_stack_plan_deinit(&thread->plan);
	free(thread);
}

void sample_target_free(struct sample_target *target) {
	if (!target)
		return;
	vec_foreach (thread, &target->threads)
		free_thread(*thread);
	vec_free(&target->threads);
	vec_free(&target->places);
	map_deinit(&target->place_index);
	native_modules_free(target->native);
	map_deinit(&target->native_places);
	vec_free(&target->newest_words);
	py_code_cache_deinit(&target->codes);
	intern_deinit(&target->strings);
	mem_free(target->mem);
	proc_close(&target->proc);
	pthread_mutex_destroy(&target->lock);
	free(target);
}

static bool same_thread(const struct py_thread *a, const struct py_thread *b) {
	return a->tstate == b->tstate && a->ident == b->ident && a->tid == b->tid && a->interp == b->interp;
}

static int add_thread(struct sample_target *target, const struct py_thread *py) {
	struct sample_thread *thread = calloc(1, sizeof(*thread));
	int r;

	if (!thread)
		return -ENOMEM;
	thread->py = *py;
	thread->task = PROC_TASK_NONE;
	py_stack_plan_init(&thread->plan, py);
	r = proc_task_open(&target->proc, py->tid, &thread->task);
	if (!r)
		r = vec_push(&target->threads, thread);
	if (r) {
		free_thread(thread);
		return r == PROC_E_GONE ? 0 : r;
	}
	target->threads_changed++;
	thread->active = true;
	target->active_n++;
	return 0;
}

/* Keeps the threads of the old list that are in the new one too, in their order. */
static void drop_ended(struct sample_target *target, const py_thread_vec *now, const struct map *by_tstate,
	void (*on_end)(void *, struct sample_thread *), void *userdata) {
	size_t kept = 0;

	vec_foreach (thread, &target->threads) {
		uint64_t i;

		if (map_get(by_tstate, (*thread)->py.tstate, &i) && same_thread(&now->items[i], &(*thread)->py)) {
			target->threads.items[kept++] = *thread;
			continue;
		}
		if (on_end)
			on_end(userdata, *thread);
		free_thread(*thread);
	}
	target->threads_changed += kept != target->threads.n;
	target->threads.n = kept;
}

static int index_threads(const py_thread_vec *threads, struct map *by_tstate) {
	for (size_t i = 0; i < threads->n; i++) {
		int r = map_put(by_tstate, threads->items[i].tstate, i);

		if (r)
			return r;
	}
	return 0;
}

/* A thread that runs code in a sub-interpreter has a thread state in each: the newest one with frames is what it
 * executes, the others wait for it. */
static void link_inner(struct sample_target *target) {
	struct map _cleanup_(map_deinit) by_tid = { 0 };

	for (size_t i = 0; i < target->threads.n; i++) {
		struct sample_thread *thread = target->threads.items[i], *other;
		uint64_t at;

		thread->inner = NULL;
		if (!map_get(&by_tid, (uint64_t)thread->py.tid, &at)) {
			(void)!map_put(&by_tid, (uint64_t)thread->py.tid, i);
			continue;
		}
		other = target->threads.items[at];
		if (other->py.interp_id > thread->py.interp_id) {
			thread->inner = other;
		} else {
			other->inner = thread;
			(void)!map_put(&by_tid, (uint64_t)thread->py.tid, i);
		}
	}
}

int sample_target_refresh(
	struct sample_target *target, void (*on_end)(void *userdata, struct sample_thread *thread), void *userdata) {
	struct map _cleanup_(map_deinit) by_tstate = { 0 }, known = { 0 };
	py_thread_vec now = { 0 };
	int r = py_threads_read(&target->rt, &target->proc, &now);

	if (!r)
		r = index_threads(&now, &by_tstate);
	if (r) {
		vec_free(&now);
		return r;
	}
	drop_ended(target, &now, &by_tstate, on_end, userdata);
	vec_foreach (thread, &target->threads)
		if (!r)
			r = map_put(&known, (*thread)->py.tstate, 1);
	for (size_t i = 0; !r && i < now.n; i++) {
		uint64_t unused;

		if (now.items[i].tid && !map_get(&known, now.items[i].tstate, &unused))
			r = add_thread(target, &now.items[i]);
	}
	link_inner(target);
	vec_free(&now);
	return r;
}

void sample_target_forget(struct sample_target *target) {
	struct intern strings;

	py_code_cache_deinit(&target->codes);
	py_code_cache_init(&target->codes, &target->rt, &target->strings);
	target->places.n = 0;
	map_clear(&target->place_index);
	map_clear(&target->native_places);
	if (!intern_init(&strings)) {
		intern_deinit(&target->strings);
		target->strings = strings;
	}
	vec_foreach (thread, &target->threads) {
		(*thread)->captured = false;
		(*thread)->active = true;
		(*thread)->mark = 0;
	}
	target->active_n = target->threads.n;
	target->unsettled = true;
}

/* Bytecode offsets that a frame can have: -2 before its first instruction. */
static bool offset_is_sane(const struct py_code *code, int64_t offset) {
	if (code->bytecode)
		return offset >= -2 && offset < (int64_t)code->bytecode_len;
	return offset >= -2 && offset < 1 << (OFFSET_BITS - 1);
}

uint32_t sample_target_add_place(struct sample_target *target, const struct sample_place *place) {
	if (target->places.n >= LIMIT_PLACES || vec_push(&target->places, *place))
		return UINT32_MAX;
	return (uint32_t)target->places.n - 1;
}

static int add_place(
	struct sample_target *target, const struct py_code *code, int64_t offset, uint64_t key, uint32_t *ret) {
	struct sample_place place = {
		.function = code->qualname,
		.file = code->file,
		.module = code->module,
		.line = py_code_line(&target->codes, code, offset),
	};
	int r = target->places.n < LIMIT_PLACES ? vec_push(&target->places, place) : -ENOMEM;

	if (!r)
		r = map_put(&target->place_index, key, target->places.n - 1);
	if (!r)
		*ret = (uint32_t)target->places.n - 1;
	return r;
}

int sample_target_decode(
	struct sample_target *target, const struct py_raw_stack *stack, uint64_t now_ns, uint32_t *ret_places) {
	py_code_check_many(&target->codes, stack->frames.items, stack->frames.n, stack->code_generation, now_ns);
	for (size_t i = 0; i < stack->frames.n; i++) {
		const struct py_raw_frame *frame = &stack->frames.items[i];
		const struct py_code *code;
		uint64_t key, place;
		int64_t offset;
		int r = py_code_lookup(&target->codes, frame, stack->code_generation, now_ns, i == 0, &code);

		if (r)
			return r;
		offset = py_code_offset(&target->codes, code, frame);
		if (!offset_is_sane(code, offset))
			return PY_E_TORN;
		key = code->serial << OFFSET_BITS | (uint64_t)(offset + 2);
		if (map_get(&target->place_index, key, &place))
			ret_places[i] = (uint32_t)place;
		else if ((r = add_place(target, code, offset, key, &ret_places[i])))
			return r;
	}
	return 0;
}
