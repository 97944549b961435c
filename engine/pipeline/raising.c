/* SPDX-License-Identifier: MIT */
/* Bursts of glances at busy threads (py_exception_glance), counted per thread and interval.
 *
 * An exception on its way is a state of less than a microsecond: no Python code runs in it. So the part of the looks
 * that meet it says how much of a thread's time exceptions cost, however they are handled: a handler that lasts, or a
 * whole program that runs in one, is never met in it. Looks in a row, some hundred microseconds or a tenth of a
 * second apart, tell whether handlers last: the same exception is met again.
 *
 * The ends of iterations and of generators are raised like errors, and are none: they are not counted. */
#include "engine/pipeline/raising.h"

#include "engine/cpython/exceptions.h"
#include "engine/cpython/objects.h"
#include <string.h>
#include <time.h>

#define BUSY_SHARE 0.5
#define BURST 4
#define PAUSE_NS 200000
#define THREADS_MAX 32 /* looked at in one burst, of all processes */
#define TYPES_MAX 8    /* of one thread in one interval */

struct raised_type {
	raddr addr;
	char *name;
	uint64_t looks;
	bool control; /* no error */
};

struct raising_thread {
	pid_t tid;
	struct detect_exceptions sum;
	struct raised_type types[TYPES_MAX];
	size_t types_n;
	uint64_t mark; /* of the last look, where an exception was handled; 0 */
};

struct raising {
	VEC(struct raising_thread) threads;
};

struct subject {
	struct watched *watched;
	pid_t tid;
	raddr tstate;
};

struct burst {
	struct subject subjects[THREADS_MAX];
	size_t n;
};

static void forget_types(struct raising_thread *thread) {
	for (size_t i = 0; i < thread->types_n; i++)
		free(thread->types[i].name);
	thread->types_n = 0;
}

void raising_turn(struct watched *watched) {
	struct raising *raising = watched->raising;

	if (!raising)
		return;
	vec_foreach (thread, &raising->threads)
		forget_types(thread);
	raising->threads.n = 0;
}

void raising_forget(struct watched *watched) {
	struct raising *raising = watched->raising;

	if (!raising)
		return;
	raising_turn(watched);
	vec_free(&raising->threads);
	free(raising);
	watched->raising = NULL;
}

static struct raising_thread *thread_of(const struct watched *watched, pid_t tid) {
	struct raising *raising = watched->raising;

	if (raising)
		vec_foreach (thread, &raising->threads)
			if (thread->tid == tid)
				return thread;
	return NULL;
}

static struct raising_thread *thread_add(struct watched *watched, pid_t tid) {
	struct raising_thread *thread = thread_of(watched, tid);
	struct raising *raising;

	if (thread)
		return thread;
	if (!watched->raising)
		watched->raising = calloc(1, sizeof(struct raising));
	raising = watched->raising;
	if (!raising || vec_push(&raising->threads, ((struct raising_thread){ .tid = tid })))
		return NULL;
	return &raising->threads.items[raising->threads.n - 1];
}

/* Ends of iterations and generators. */
static bool is_control(const char *name) {
	static const char *const names[] = { "StopIteration", "StopAsyncIteration", "GeneratorExit" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

static struct raised_type *type_add(const struct py_reader *py, struct raising_thread *thread, raddr addr) {
	struct raised_type *type = &thread->types[thread->types_n];
	struct strbuf name = { 0 };

	for (size_t i = 0; i < thread->types_n; i++)
		if (thread->types[i].addr == addr)
			return &thread->types[i];
	if (thread->types_n == TYPES_MAX)
		return NULL;
	if (py_type_describe_at(py, addr, &name) || !name.len) {
		strbuf_deinit(&name);
		return NULL;
	}
	*type = (struct raised_type){ .addr = addr, .name = strbuf_take(&name) };
	if (!type->name)
		return NULL;
	type->control = is_control(type->name);
	thread->types_n++;
	return type;
}

static void count(const struct py_reader *py, struct raising_thread *thread, const struct py_exception_glance *glance) {
	bool any = glance->raised || glance->exception;
	struct raised_type *type = any ? type_add(py, thread, glance->type) : NULL;
	struct detect_exceptions *sum = &thread->sum;

	sum->looks++;
	if (thread->mark) {
		sum->pairs++;
		sum->changed += glance->raised || glance->mark != thread->mark;
	}
	thread->mark = glance->exception ? glance->mark : 0;
	if (type && type->control)
		return;
	sum->raised += glance->raised;
	sum->handled += glance->exception != 0;
	sum->handled_below += glance->exception && !glance->here;
	if (type)
		type->looks++;
}

static void look(const struct subject *subject) {
	struct sample_target *target = subject->watched->target;
	struct raising_thread *thread = thread_add(subject->watched, subject->tid);
	struct py_exception_glance glance;

	if (!thread)
		return;
	pthread_mutex_lock(&target->lock);
	if (!target->ended && !py_exception_glance(&target->rt, subject->tstate, &glance))
		count(&target->rt.reader, thread, &glance);
	pthread_mutex_unlock(&target->lock);
}

/* One of several interpreters' states of a thread: the innermost, which has no other inside. */
static raddr tstate_of(const struct sample_target *target, pid_t tid) {
	vec_foreach (thread, &target->threads)
		if ((*thread)->py.tid == tid && !(*thread)->inner)
			return (*thread)->py.tstate;
	return 0;
}

/* One that has to wait for a CPU is busy too. */
static bool is_busy(const struct watched *watched, uint64_t ns) {
	return ns && (double)ns >= BUSY_SHARE * (double)watched->interval_ns;
}

static void add_busy(struct watched *watched, struct burst *burst) {
	struct sample_target *target = watched->target;

	vec_foreach (thread, &watched->threads) {
		struct subject subject = { .watched = watched, .tid = thread->tid };

		if (!thread->python || !is_busy(watched, watched_thread_busy_ns(thread)) || burst->n == THREADS_MAX)
			continue;
		pthread_mutex_lock(&target->lock);
		subject.tstate = tstate_of(target, thread->tid);
		pthread_mutex_unlock(&target->lock);
		if (subject.tstate)
			burst->subjects[burst->n++] = subject;
	}
}

void raising_tend(struct watched *const *watched, size_t n) {
	struct burst burst = { .n = 0 };

	for (size_t i = 0; i < n; i++)
		if (!watched[i]->ended && !watched[i]->target->ended && is_busy(watched[i], watched[i]->busiest_ns))
			add_busy(watched[i], &burst);
	for (int i = 0; burst.n && i < BURST; i++) {
		for (size_t k = 0; k < burst.n; k++)
			look(&burst.subjects[k]);
		if (i + 1 < BURST)
			nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
	}
}

void raising_fill(const struct watched *watched, pid_t tid, struct detect_exceptions *ret_exceptions) {
	const struct raising_thread *thread = thread_of(watched, tid);

	*ret_exceptions = thread ? thread->sum : (struct detect_exceptions){ 0 };
	for (size_t i = 0; thread && i < thread->types_n; i++) {
		const struct raised_type *type = &thread->types[i];

		if (type->control || type->looks <= ret_exceptions->of_type)
			continue;
		ret_exceptions->type = type->name;
		ret_exceptions->of_type = type->looks;
	}
}
