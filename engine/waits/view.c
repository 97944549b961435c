/* SPDX-License-Identifier: MIT */
/* Reading one process: threads as the kernel shows them, frames as Python has them.
 *
 * Nothing is stopped. A thread that sleeps stands still; of one that runs, frames may be wrong: the graph counts only
 * on those whose stamp two looks agree about. A target's lock is held for one thread at a time, so that its samplers
 * hardly wait; what it guards is not kept beyond it, since they free the threads that ended. */
#include "engine/waits/view.h"

#include "engine/base/clock.h"
#include "engine/cpython/locals.h"
#include "engine/proc/fds.h"
#include "engine/waits/graph.h"
#include <string.h>

#define THREADS_MAX 65536
#define FRAMES_MAX (1U << 18) /* of all threads of a process together */
#define NAMES_LOOKS 8         /* after which names are read again */

int wait_process_new(struct sample_target *target, bool owned, struct wait_process **ret_process) {
	struct wait_process *process = calloc(1, sizeof(*process));
	struct mem *live = NULL;
	int r;

	if (!process)
		return -ENOMEM;
	process->rt = target->rt;
	process->rt.reader.mem = NULL;
	r = target->offline ? mem_borrow(target->mem, &live) : mem_live_new(target->proc.pid, &live);
	if (!r)
		r = mem_cache_new(live, &process->rt.reader.mem);
	if (r)
		mem_free(live);
	if (!r)
		r = py_block_cache_new(&process->rt, &process->blocks);
	if (r) {
		wait_process_free(process);
		return r;
	}
	process->target = target;
	process->owned = owned;
	*ret_process = process;
	return 0;
}

void wait_process_free(struct wait_process *process) {
	if (!process)
		return;
	py_block_cache_free(process->blocks);
	py_thread_names_deinit(&process->names);
	mem_free(process->rt.reader.mem);
	if (process->owned)
		sample_target_free(process->target);
	free(process);
}

int view_frame_decode(struct sample_target *target, uint64_t code_generation, bool leaf, struct view_frame *frame) {
	const struct py_code *code;
	int r = py_code_lookup(&target->codes, &frame->raw, code_generation, clock_mono_ns(), leaf, &code);

	if (r)
		return r;
	frame->serial = code->serial;
	frame->offset = py_code_offset(&target->codes, code, &frame->raw);
	frame->line = py_code_line(&target->codes, code, frame->offset);
	frame->function = intern_str(&target->strings, code->name);
	frame->qualname = intern_str(&target->strings, code->qualname);
	frame->file = intern_str(&target->strings, code->file);
	frame->module = intern_str(&target->strings, code->module);
	return 0;
}

int view_frames_copy(const struct view_frame *frames, size_t n, struct pyspyd_frame **ret_frames) {
	struct pyspyd_frame *copies = calloc(n + 1, sizeof(*copies));

	for (size_t i = 0; copies && i < n; i++) {
		copies[i] = (struct pyspyd_frame){
			.lang = PYSPYD_PYTHON,
			.function = strdup(frames[i].function),
			.qualname = strdup(frames[i].qualname),
			.file = strdup(frames[i].file),
			.module = strdup(frames[i].module),
			.line = frames[i].line,
		};
		if (copies[i].function && copies[i].qualname && copies[i].file && copies[i].module)
			continue;
		pyspyd_frames_free(copies, i + 1);
		return -ENOMEM;
	}
	if (!copies)
		return -ENOMEM;
	*ret_frames = copies;
	return 0;
}

static int decode_frames(struct sample_target *target, struct view_thread *thread) {
	const struct py_raw_stack *stack = &thread->stack;

	thread->frames = calloc(stack->frames.n + 1, sizeof(*thread->frames));
	if (!thread->frames)
		return -ENOMEM;
	for (size_t i = 0; i < stack->frames.n; i++) {
		int r;

		thread->frames[i].raw = stack->frames.items[i];
		r = view_frame_decode(target, stack->code_generation, i == 0, &thread->frames[i]);
		if (r)
			return r;
		thread->frames_n = i + 1;
	}
	return 0;
}

static void drop_frames(struct view_thread *thread) {
	free(thread->frames);
	thread->frames = NULL;
	thread->frames_n = 0;
}

/* Return: 0, also where the frames could not be read; -ENOMEM. */
static int read_frames(struct sample_target *target, struct sample_thread *sampled, struct py_stack_scratch *scratch,
	struct view_thread *thread) {
	int r = py_stack_capture(&target->rt, &sampled->plan, scratch, &thread->stack);

	if (!r)
		r = decode_frames(target, thread);
	if (r)
		drop_frames(thread);
	return r == -ENOMEM ? r : 0;
}

/* Blocks of one frame after the other; what does not fit is left out. */
static int read_blocks(struct wait_process *process, struct view_thread *thread) {
	struct py_block blocks[PY_BLOCKS_MAX];

	for (size_t i = 0; i < thread->frames_n; i++) {
		const struct view_frame *frame = &thread->frames[i];
		struct py_block *grown;
		size_t n = 0;

		if (py_blocks_read(process->blocks, &frame->raw, frame->serial, frame->offset, blocks, &n) || !n)
			continue;
		grown = realloc(thread->held, (thread->held_n + n) * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		memcpy(grown + thread->held_n, blocks, n * sizeof(*blocks));
		thread->held = grown;
		thread->held_n += n;
	}
	return 0;
}

static void read_task(const struct wait_view *view, const struct proc_task *task, struct view_thread *thread) {
	struct proc_schedstat sched;
	int processor, r;

	thread->state = '?';
	thread->run_ns = UINT64_MAX;
	(void)!proc_task_state(task, &thread->state, &processor);
	if (!proc_task_schedstat(task, &sched)) {
		thread->run_ns = sched.run_ns;
		thread->slices = sched.slices;
	}
	thread->sleep = (struct proc_sleep){ .call = SLEEP_RUNNING, .number = -1, .fd = -1 };
	if (thread->state == 'R' || thread->state == 'Z' || thread->state == 'X')
		return;
	r = proc_sleep_read(&view->proc, thread->tid, &thread->sleep);
	thread->untold = r && r != PROC_E_GONE;
}

static void deinit_thread(struct view_thread *thread) {
	py_raw_stack_deinit(&thread->stack);
	free(thread->frames);
	free(thread->held);
}

static int add_thread(struct wait_view *view, struct view_thread *thread) {
	int r = vec_push(&view->threads, *thread);

	if (r) {
		deinit_thread(thread);
		return r;
	}
	r = map_put(&view->by_tid, (uint64_t)thread->tid, view->threads.n - 1);
	if (!r && thread->py.ident)
		r = map_put(&view->by_ident, thread->py.ident, view->threads.n - 1);
	return r;
}

/* Reads the thread before the *at'th of the target's list, and counts *at down. Between two calls threads that ended
 * leave the list, and those behind them move towards its begin: some may be met again, none is missed. A thread that
 * runs code in a sub-interpreter has a thread state in each: the innermost one stands for it.
 * Return: 0, also where there is none to read; -ENOMEM. */
static int read_python_thread(
	struct wait_view *view, struct py_stack_scratch *scratch, size_t *at, struct view_thread *thread) {
	struct sample_target *target = view->python->target;
	struct sample_thread *sampled = NULL;
	int r = 0;

	pthread_mutex_lock(&target->lock);
	*at = min_of(*at, target->threads.n);
	if (*at)
		sampled = target->threads.items[--*at];
	if (sampled && !sampled->inner && !view_thread_of_tid(view, sampled->py.tid)) {
		thread->sampled = true;
		thread->tid = sampled->py.tid;
		thread->py = sampled->py;
		read_task(view, &sampled->task, thread);
		r = read_frames(target, sampled, scratch, thread);
	}
	pthread_mutex_unlock(&target->lock);
	return r;
}

static int read_python_threads(struct wait_view *view, struct py_stack_scratch *scratch) {
	size_t at = SIZE_MAX;
	int r = 0;

	while (!r && at) {
		struct view_thread thread = { .node = WAITS_NONE };

		r = read_python_thread(view, scratch, &at, &thread);
		if (!r && !thread.sampled)
			continue;
		view->frames_n += thread.frames_n;
		if (view->frames_n > FRAMES_MAX) { /* one more would be one too many for those that come */
			drop_frames(&thread);
			py_raw_stack_deinit(&thread.stack);
			thread.untold = true;
		}
		if (!r)
			r = read_blocks(view->python, &thread);
		if (r)
			deinit_thread(&thread);
		else
			r = add_thread(view, &thread);
	}
	return r;
}

static int read_other_threads(struct wait_view *view) {
	pid_vec tids = { 0 };
	int r = proc_threads(&view->proc, &tids);

	for (size_t i = 0; !r && i < tids.n && i < THREADS_MAX; i++) {
		struct view_thread thread = { .tid = tids.items[i], .node = WAITS_NONE };
		struct proc_task task;
		struct proc_stat stat;

		if (view_thread_of_tid(view, tids.items[i]) || proc_task_open(&view->proc, tids.items[i], &task))
			continue;
		read_task(view, &task, &thread);
		proc_task_close(&task);
		if (!proc_thread_stat(&view->proc, tids.items[i], &stat))
			memcpy(thread.comm, stat.comm, sizeof(thread.comm));
		r = add_thread(view, &thread);
	}
	vec_free(&tids);
	return r;
}

static int read_interpreters(struct wait_view *view) {
	const struct py_runtime *rt = &view->python->rt;
	int r = py_interps_read(rt, &view->interps);

	if (r)
		return r == -ENOMEM ? r : 0;
	view->gils = calloc(view->interps.n + 1, sizeof(*view->gils));
	if (!view->gils)
		return -ENOMEM;
	for (size_t i = 0; i < view->interps.n; i++)
		if (py_interp_view(rt, view->interps.items[i].addr, &view->gils[i]))
			view->gils[i] = (struct py_interp_view){ 0 };
	return 0;
}

static int read_loops(struct wait_view *view) {
	struct py_thread_frames *frames = calloc(view->threads.n + 1, sizeof(*frames));
	size_t n = 0;
	int r;

	if (!frames)
		return -ENOMEM;
	vec_foreach (thread, &view->threads)
		if (thread->frames_n)
			frames[n++] = (struct py_thread_frames){ thread->py, &thread->stack };
	pthread_mutex_lock(&view->python->target->lock);
	r = py_loops_read(&view->python->rt, &view->python->target->codes, frames, n, clock_mono_ns(), &view->loops);
	pthread_mutex_unlock(&view->python->target->lock);
	free(frames);
	for (size_t i = 0; !r && i < view->loops.n; i++) {
		uint64_t at;

		if (view->loops.items[i].tid && map_get(&view->by_tid, (uint64_t)view->loops.items[i].tid, &at))
			r = map_put(&view->loop_of, at, i);
	}
	return r == -ENOMEM ? r : 0;
}

static bool all_named(const struct wait_view *view) {
	vec_foreach (thread, &view->threads)
		if (!py_thread_name(view->names, thread->py.ident))
			return false;
	return true;
}

/* Names take more reads than all the rest of a look, and hardly ever change. Return: 0, also where they cannot be read;
 * -ENOMEM. */
static int read_names(struct wait_view *view) {
	struct wait_process *process = view->python;
	struct py_thread_names names = { 0 };
	uint64_t threads = 0;
	int r;

	vec_foreach (thread, &view->threads)
		threads += hash_mix(thread->py.ident ^ hash_mix((uint64_t)thread->tid));
	view->names = &process->names;
	if (threads == process->named && process->names_looks) {
		process->names_looks--;
		return 0;
	}
	r = py_thread_names_read(&process->rt, &names);
	py_thread_names_deinit(&process->names);
	process->names = names;
	process->named = threads;
	process->names_looks = !r && all_named(view) ? NAMES_LOOKS : 0; /* one that has just begun has none yet */
	return r == -ENOMEM ? r : 0;
}

static int read_python(struct wait_view *view, struct py_stack_scratch *scratch) {
	int r;

	/* Where it was torn, the list of before serves once more. */
	if (view->python->owned && sample_target_refresh(view->python->target, NULL, NULL) == MEM_E_GONE)
		return PROC_E_GONE;
	r = read_python_threads(view, scratch);
	if (!r)
		r = read_names(view);
	if (!r)
		r = read_interpreters(view);
	return r ? r : read_loops(view);
}

int wait_view_new(const char *root, pid_t pid, struct wait_process *process, struct py_stack_scratch *scratch,
	struct wait_view **ret_view) {
	struct wait_view *view = calloc(1, sizeof(*view));
	int r = 0;

	if (!view)
		return -ENOMEM;
	view->python = process;
	view->root = root;
	view->ends = view->acts = view->others = WAITS_NONE;
	view->proc.dir_fd = view->proc.pidfd = -1;
	if (process) {
		mem_cache_clear(process->rt.reader.mem);
		view->proc = process->target->proc;
	} else {
		r = proc_open(root, pid, &view->proc);
	}
	if (!r && process)
		r = read_python(view, scratch);
	if (!r)
		r = read_other_threads(view);
	if (r) {
		wait_view_free(view);
		return r;
	}
	(void)!proc_caught_signals(&view->proc, &view->caught);
	vec_foreach (thread, &view->threads)
		view->readable |= !thread->untold;
	vec_foreach (thread, &view->threads)
		view->untold |= thread->untold;
	*ret_view = view;
	return 0;
}

void wait_view_settle(struct wait_view *view) {
	if (view->python)
		mem_cache_clear(view->python->rt.reader.mem);
}

void wait_view_free(struct wait_view *view) {
	if (!view)
		return;
	vec_foreach (thread, &view->threads)
		deinit_thread(thread);
	vec_free(&view->threads);
	map_deinit(&view->by_tid);
	map_deinit(&view->by_ident);
	map_deinit(&view->loop_of);
	vec_free(&view->interps);
	vec_free(&view->loops);
	free(view->gils);
	wait_view_settle(view);
	if (!view->python)
		proc_close(&view->proc);
	free(view);
}

static struct view_thread *thread_at(const struct wait_view *view, const struct map *map, uint64_t key) {
	uint64_t at;

	return map_get(map, key, &at) && at < view->threads.n ? &view->threads.items[at] : NULL;
}

struct view_thread *view_thread_of_tid(const struct wait_view *view, pid_t tid) {
	return thread_at(view, &view->by_tid, (uint64_t)tid);
}

struct view_thread *view_thread_of_ident(const struct wait_view *view, uint64_t ident) {
	return thread_at(view, &view->by_ident, ident);
}

bool view_frame_is(const struct view_frame *frame, const char *module, const char *function) {
	size_t n = strlen(module);

	if (function && strcmp(frame->function, function))
		return false;
	if (n && module[n - 1] == '.')
		return !strncmp(frame->module, module, n);
	return !strcmp(frame->module, module);
}

raddr view_local(const struct wait_view *view, const struct view_frame *frame, const char *name) {
	uint64_t ref = 0;

	if (!view->python || py_local_get(&view->python->rt, &frame->raw, name, &ref))
		return 0;
	return py_untag(ref);
}
