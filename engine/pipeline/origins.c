/* SPDX-License-Identifier: MIT */
/* One table of stacks for each watched process: by the names that the kernel gives them, and by what they say, since
 * two names may stand for the same lines (another instruction of a line, another copy of the bytecode). When it is
 * full, stacks of which nothing is left are let go.
 *
 * A frame whose code object was freed before we came is shown as one of which nothing is known. */
#include "engine/pipeline/origins.h"

#include "engine/base/clock.h"
#include "engine/base/map.h"
#include "engine/cpython/threads.h"
#include "engine/sample/bpf_origins.h"
#include "engine/sample/target.h"
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define STACKS_MAX 16384
#define TELL_NS (200 * NS_PER_MS) /* between two looks at the threads of a process, at least */
#define UNKNOWN_PLACE UINT32_MAX

struct stack {
	uint32_t *places;
	uint32_t n;
	bool used; /* while those that are not are let go */
};

struct process {
	struct sample_target *target;
	VEC(struct stack) stacks;
	struct map by_name, by_content;
	uint64_t since_ns;
	bool ended;
};

struct origins {
	struct bpf_origins *kernel;
	VEC(struct process *) processes;
	struct py_raw_stack raw;
	uint64_t told_ns, searches;
	bool full;
};

static const char *const calls[] = {
	[PYB_CALL_NONE] = "unknown",
	[PYB_CALL_OPEN] = "open",
	[PYB_CALL_SOCKET] = "socket",
	[PYB_CALL_ACCEPT] = "accept",
	[PYB_CALL_DUP] = "dup",
	[PYB_CALL_FCNTL] = "fcntl",
	[PYB_CALL_PIPE] = "pipe",
	[PYB_CALL_SOCKETPAIR] = "socketpair",
	[PYB_CALL_RECVMSG] = "recvmsg",
	[PYB_CALL_EVENTFD] = "eventfd",
	[PYB_CALL_EPOLL] = "epoll",
	[PYB_CALL_TIMERFD] = "timerfd",
	[PYB_CALL_SIGNALFD] = "signalfd",
	[PYB_CALL_INOTIFY] = "inotify",
	[PYB_CALL_MEMFD] = "memfd",
	[PYB_CALL_PIDFD] = "pidfd",
	[PYB_CALL_PERF] = "perf_event",
	[PYB_CALL_IO_URING] = "io_uring",
	[PYB_CALL_OTHER_FD] = "other",
	[PYB_CALL_MMAP] = "mmap",
	[PYB_CALL_MREMAP] = "mremap",
	[PYB_CALL_THREAD] = "thread",
	[PYB_CALL_CHILD] = "fork",
};

int origins_new(struct origins **ret_origins, struct err *err) {
	struct origins *origins = calloc(1, sizeof(*origins));
	int r = origins ? bpf_origins_new(&origins->kernel, err) : -ENOMEM;

	if (r)
		free(origins);
	else
		*ret_origins = origins;
	return r;
}

static void free_process(struct process *process) {
	vec_foreach (stack, &process->stacks)
		free(stack->places);
	vec_free(&process->stacks);
	map_deinit(&process->by_name);
	map_deinit(&process->by_content);
	sample_target_free(process->target);
	free(process);
}

void origins_free(struct origins *origins) {
	if (!origins)
		return;
	bpf_origins_free(origins->kernel);
	vec_foreach (process, &origins->processes)
		free_process(*process);
	vec_free(&origins->processes);
	py_raw_stack_deinit(&origins->raw);
	free(origins);
}

static struct process *find(struct origins *origins, pid_t pid) {
	vec_foreach (process, &origins->processes)
		if ((*process)->target->proc.pid == pid)
			return *process;
	return NULL;
}

/* Interpreters and threads as they are now. */
static int tell(struct origins *origins, struct process *process) {
	struct sample_target *target = process->target;
	VEC(const struct py_thread *) pointers = { 0 };
	py_thread_vec threads = { 0 };
	int r = py_threads_read(&target->rt, &target->proc, &threads);

	if (r == MEM_E_GONE || py_runtime_check(&target->rt)) {
		process->ended = true;
		r = PYSPYD_E_GONE;
	}
	vec_foreach (thread, &threads)
		if (!r)
			r = vec_push(&pointers, thread);
	if (!r)
		r = bpf_origins_add(origins->kernel, &target->rt, target->proc.pid);
	if (!r)
		r = bpf_origins_set_threads(origins->kernel, target->proc.pid, pointers.items, pointers.n);
	vec_free(&pointers);
	vec_free(&threads);
	return r;
}

int origins_watch(struct origins *origins, pid_t pid, uint64_t start_ticks, struct err *err) {
	struct process *process = find(origins, pid);
	int r;

	if (process && !process->ended && proc_alive(&process->target->proc))
		return 0;
	origins_unwatch(origins, pid);
	process = calloc(1, sizeof(*process));
	if (!process)
		return -ENOMEM;
	r = sample_target_new(pid, 0, &process->target, err);
	if (!r && start_ticks && process->target->proc.start_ticks != start_ticks)
		r = PYSPYD_E_GONE;
	if (!r)
		r = bpf_origins_add(origins->kernel, &process->target->rt, pid);
	if (!r)
		(void)!tell(origins, process); /* those it does not tell of are searched */
	process->since_ns = clock_mono_ns();
	if (!r)
		r = vec_push(&origins->processes, process);
	if (r) {
		bpf_origins_remove(origins->kernel, pid);
		free_process(process);
	}
	return r;
}

void origins_unwatch(struct origins *origins, pid_t pid) {
	struct process *process = find(origins, pid);
	size_t kept = 0;

	if (!process)
		return;
	bpf_origins_remove(origins->kernel, pid);
	for (size_t i = 0; i < origins->processes.n; i++)
		if (origins->processes.items[i] != process)
			origins->processes.items[kept++] = origins->processes.items[i];
	origins->processes.n = kept;
	free_process(process);
}

/* Stacks. */

static uint64_t key_of_name(uint64_t name) {
	return name >> 1; /* the lowest bit is always set */
}

static uint64_t hash_content(const struct process *process, const uint32_t *places, size_t n) {
	uint64_t hash = n;

	for (size_t i = 0; i < n; i++) {
		const struct sample_place *place;

		hash = hash_mix(hash + 1);
		if (places[i] == UNKNOWN_PLACE)
			continue;
		place = &process->target->places.items[places[i]];
		hash = hash_mix(hash ^ ((uint64_t)place->function << 32 | (uint32_t)place->line)) ^ place->file;
	}
	return hash >> 1;
}

/* Return: 0; -ENOMEM; -ENOSPC. */
static int add_stack(
	struct origins *origins, struct process *process, uint64_t name, const uint32_t *places, size_t n) {
	struct stack stack = { .n = (uint32_t)n, .places = calloc(n + 1, sizeof(*places)) };
	uint64_t content = hash_content(process, places, n), at = process->stacks.n;
	int r = stack.places ? 0 : -ENOMEM;

	if (!r && map_get(&process->by_content, content, &at)) {
		free(stack.places);
		return map_put(&process->by_name, key_of_name(name), at);
	}
	if (process->stacks.n >= STACKS_MAX || process->by_name.n >= 4 * STACKS_MAX) {
		origins->full = true;
		r = -ENOSPC;
	}
	if (!r) {
		memcpy(stack.places, places, n * sizeof(*places));
		r = vec_push(&process->stacks, stack);
	}
	if (!r) {
		stack.places = NULL; /* the table's */
		r = map_put(&process->by_content, content, at);
	}
	if (!r)
		r = map_put(&process->by_name, key_of_name(name), at);
	free(stack.places);
	return r;
}

/* One frame after the other, where they cannot be had together. */
static void decode_each(struct process *process, const struct py_raw_stack *raw, uint32_t *places) {
	struct py_raw_stack one = { .code_generation = raw->code_generation };

	for (size_t i = 0; i < raw->frames.n; i++) {
		one.frames.n = 0;
		if (vec_push(&one.frames, raw->frames.items[i]) ||
			sample_target_decode(process->target, &one, clock_mono_ns(), &places[i]))
			places[i] = UNKNOWN_PLACE;
	}
	vec_free(&one.frames);
}

static void on_stack(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames) {
	struct origins *origins = userdata;
	struct process *process = find(origins, (pid_t)event->pid);
	struct py_raw_stack *raw = &origins->raw;
	uint32_t *places;
	uint64_t at;

	if (!process || map_get(&process->by_name, key_of_name(event->name), &at))
		return;
	if (bpf_raw_stack(&process->target->rt, event, frames, raw))
		return;
	places = calloc(raw->frames.n + 1, sizeof(*places));
	if (!places)
		return;
	if (sample_target_decode(process->target, raw, clock_mono_ns(), places))
		decode_each(process, raw, places);
	(void)!add_stack(origins, process, event->name, places, raw->frames.n);
	free(places);
}

static bool stack_of(const struct process *process, uint64_t name, uint64_t *ret_at) {
	return name && map_get(&process->by_name, key_of_name(name), ret_at);
}

/* Return: where each of the stacks is now. */
static void keep_used(struct process *process, size_t *now) {
	size_t kept = 0;

	for (size_t i = 0; i < process->stacks.n; i++) {
		struct stack *stack = &process->stacks.items[i];

		now[i] = kept;
		if (stack->used)
			process->stacks.items[kept++] = (struct stack){ .places = stack->places, .n = stack->n };
		else
			free(stack->places);
	}
	process->stacks.n = kept;
}

/* Lets go of the stacks of a process of which nothing is left. Its tables are made anew; what does not go into them for
 * want of memory is not known any more. */
static void let_go(struct origins *origins, struct process *process) {
	size_t *now = calloc(process->stacks.n + 1, sizeof(*now));
	struct map by_name = { 0 };
	bpf_origin_vec list = { 0 };
	uint64_t unused, at;
	int r = now ? bpf_origins_list(origins->kernel, process->target->proc.pid, &list, &unused) : -ENOMEM;

	vec_foreach (record, &list)
		if (!r && stack_of(process, record->made.stack, &at))
			process->stacks.items[at].used = true;
	if (!r) {
		keep_used(process, now);
		vec_foreach (record, &list)
			if (stack_of(process, record->made.stack, &at))
				(void)!map_put(&by_name, key_of_name(record->made.stack), now[at]);
		map_deinit(&process->by_name);
		process->by_name = by_name;
		map_clear(&process->by_content);
		for (size_t i = 0; i < process->stacks.n; i++)
			(void)!map_put(&process->by_content,
				hash_content(process, process->stacks.items[i].places, process->stacks.items[i].n), i);
	}
	vec_free(&list);
	free(now);
}

/* Threads that began since they were told of cost their process a search each time. */
static void tell_again(struct origins *origins, uint64_t now_ns) {
	struct bpf_origins_counts counts;

	if (now_ns - origins->told_ns < TELL_NS)
		return;
	origins->told_ns = now_ns;
	bpf_origins_counts(origins->kernel, &counts);
	if (counts.by[PYB_SEARCHES] == origins->searches)
		return;
	origins->searches = counts.by[PYB_SEARCHES];
	vec_foreach (process, &origins->processes)
		if (!(*process)->ended)
			(void)!tell(origins, *process);
}

void origins_tend(struct origins *origins, int timeout_ms) {
	uint64_t until = clock_mono_ns() + (uint64_t)timeout_ms * NS_PER_MS, now;

	do {
		now = clock_mono_ns();
		bpf_origins_wait(origins->kernel,
			until > now ? (int)min_of((until - now) / NS_PER_MS + 1, TELL_NS / NS_PER_MS) : 0);
		bpf_origins_take(origins->kernel, on_stack, origins);
		now = clock_mono_ns();
		tell_again(origins, now);
		bpf_origins_tend(origins->kernel, now);
		if (origins->full) {
			origins->full = false;
			vec_foreach (process, &origins->processes)
				let_go(origins, *process);
			bpf_origins_retell(origins->kernel);
		}
	} while (now < until);
}

void origins_hold(struct origins *origins, bool held) {
	bpf_origins_hold(origins->kernel, held);
}

/* What is there. */

static int add_thing(
	const struct process *process, const struct bpf_origin *record, uint64_t now_ns, created_things *things) {
	static const enum pyspyd_handle_what what[] = {
		[PYB_FD] = PYSPYD_HANDLE_DESCRIPTOR,
		[PYB_THREAD] = PYSPYD_HANDLE_THREAD,
		[PYB_CHILD] = PYSPYD_HANDLE_CHILD,
		[PYB_MAPPING] = PYSPYD_HANDLE_MAPPING,
	};
	const char *call = record->made.call < ARRAY_SIZE(calls) ? calls[record->made.call] : calls[0];
	uint64_t at;
	bool has = stack_of(process, record->made.stack, &at);

	return vec_push(things,
		((struct created_thing){ .what = what[record->what],
			.kind = created_kind_of_call(call),
			.call = call,
			.id = record->id,
			.bytes = record->made.bytes,
			.age_ns = now_ns - min_of(now_ns, record->made.time_ns),
			.stack = has ? at : CREATED_NO_STACK }));
}

/* Whether the descriptor that may have been closed unseen is the one that was seen: its file is the same. */
static bool stands(const struct process *process, const struct bpf_origin *record) {
	char path[32];
	struct stat stat;

	if (!record->unsure)
		return true;
	snprintf(path, sizeof(path), "fd/%" PRIu64, record->id);
	return !fstatat(process->target->proc.dir_fd, path, &stat, 0) && stat.st_ino == record->made.inode;
}

int origins_things(struct origins *origins, pid_t pid, created_things *things, struct origins_state *ret_state) {
	struct process *process = find(origins, pid);
	struct bpf_origins_counts counts;
	bpf_origin_vec list = { 0 };
	uint64_t now, left_out = 0;
	int r;

	if (!process || process->ended)
		return PYSPYD_E_GONE;
	bpf_origins_take(origins->kernel, on_stack, origins);
	r = bpf_origins_list(origins->kernel, pid, &list, &left_out);
	bpf_origins_take(origins->kernel, on_stack, origins); /* of those that came between the two */
	now = clock_mono_ns();
	vec_foreach (record, &list)
		if (!r && stands(process, record))
			r = add_thing(process, record, now, things);
	vec_free(&list);
	if (r)
		return r == -ESRCH ? PYSPYD_E_GONE : r;
	bpf_origins_counts(origins->kernel, &counts);
	*ret_state = (struct origins_state){
		.watched_ns = now - process->since_ns, .left_out = left_out, .paused_ns = counts.paused_ns
	};
	return 0;
}

static int fill_frame(const struct process *process, uint32_t at, struct pyspyd_frame *frame) {
	const struct intern *strings = &process->target->strings;
	struct sample_place place = { 0 };
	const char *qualname, *dot;

	if (at != UNKNOWN_PLACE)
		place = process->target->places.items[at];
	qualname = at == UNKNOWN_PLACE ? "?" : intern_str(strings, place.function);
	dot = strrchr(qualname, '.');
	frame->qualname = strdup(qualname);
	frame->function = strdup(dot ? dot + 1 : qualname); /* the compiler makes it so */
	frame->file = strdup(intern_str(strings, place.file));
	frame->module = strdup(intern_str(strings, place.module));
	frame->line = place.line;
	return frame->qualname && frame->function && frame->file && frame->module ? 0 : -ENOMEM;
}

static int fill_place(const struct process *process, const struct stack *stack, struct pyspyd_origin *place) {
	int r = 0;

	place->frames = calloc(stack->n + 1, sizeof(*place->frames));
	if (!place->frames)
		return -ENOMEM;
	place->frames_n = stack->n;
	for (size_t i = 0; i < stack->n && !r; i++)
		r = fill_frame(process, stack->places[i], &place->frames[i]);
	if (!r)
		place->own = created_own_frame(place->frames, place->frames_n);
	return r;
}

int origins_places(
	struct origins *origins, pid_t pid, created_things *things, struct pyspyd_origin **ret_places, size_t *ret_n) {
	const struct process *process = find(origins, pid);
	struct pyspyd_origin *places;
	size_t *stacks, n;
	int r = created_places(things, &places, &stacks, &n);

	if (r)
		return r;
	for (size_t i = 0; !r && i < n; i++)
		if (process && stacks[i] < process->stacks.n)
			r = fill_place(process, &process->stacks.items[stacks[i]], &places[i]);
	free(stacks);
	if (r) {
		pyspyd_origin_places_free(places, n);
		return r;
	}
	*ret_places = places;
	*ret_n = n;
	return 0;
}
