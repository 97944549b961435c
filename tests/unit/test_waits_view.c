/* SPDX-License-Identifier: MIT */
/* A view is read while somebody else keeps the target's list of threads up to date. */
#include "engine/proc/sleep.h"
#include "engine/waits/view.h"
#include "image.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#define FIRST_TID 101
#define THREADS 3

/* The image's memory, and what happens when one of the threads has been read. */
struct watched_mem {
	struct mem mem;
	struct mem *below;
	raddr trigger;
	void (*happen)(struct sample_target *target);
	struct sample_target *target;
};

struct scene {
	struct image img;
	struct watched_mem mem;
	struct sample_target target;
	struct sample_thread threads[THREADS];
	struct wait_process *process;
	struct py_stack_scratch scratch;
	struct wait_view *view;
	atomic_int reader; /* its thread id */
	atomic_bool done;
};

static int read_and_happen(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done) {
	struct watched_mem *me = (struct watched_mem *)mem;
	int r = mem_read_many(me->below, ranges, n, ret_done);

	for (size_t i = 0; me->happen && i < n; i++) {
		if (ranges[i].addr != me->trigger)
			continue;
		me->happen(me->target);
		me->happen = NULL;
	}
	return r;
}

static void leave_alone(struct mem *mem) {
	(void)mem;
}

static void set_up(struct scene *s) {
	static const struct mem_ops ops = { .read_many = read_and_happen, .free = leave_alone };
	pid_t tids[THREADS];

	image_open(&s->img, &image_builds[0]);
	for (int i = 0; i < THREADS; i++)
		tids[i] = FIRST_TID + i;
	image_proc_open(tids, THREADS, 0, "", &s->target.proc);
	s->mem = (struct watched_mem){ .mem.ops = &ops, .below = s->img.rt.reader.mem, .target = &s->target };
	s->img.rt.reader.mem = &s->mem.mem;
	s->target.rt = s->img.rt;
	s->target.mem = &s->mem.mem;
	s->target.offline = true;
	pthread_mutex_init(&s->target.lock, NULL);
	cr_assert_eq(intern_init(&s->target.strings), 0);
	py_code_cache_init(&s->target.codes, &s->target.rt, &s->target.strings);
	for (int i = 0; i < THREADS; i++) {
		struct sample_thread *thread = &s->threads[i];
		uint64_t ident = 0x1000 * (uint64_t)(i + 1);

		thread->py = (struct py_thread){ .tstate = image_thread(&s->img, s->img.interp, ident, tids[i]),
			.interp = s->img.interp,
			.ident = ident,
			.tid = tids[i] };
		thread->task = PROC_TASK_NONE;
		py_stack_plan_init(&thread->plan, &thread->py);
		cr_assert_eq(vec_push(&s->target.threads, thread), 0);
	}
	cr_assert_eq(wait_process_new(&s->target, false, &s->process), 0);
	cr_assert_eq(py_stack_scratch_init(&s->scratch), 0);
}

static void tear_down(struct scene *s) {
	wait_view_free(s->view);
	wait_process_free(s->process);
	py_stack_scratch_deinit(&s->scratch);
	for (int i = 0; i < THREADS; i++)
		py_stack_plan_deinit(&s->threads[i].plan);
	vec_free(&s->target.threads);
	py_code_cache_deinit(&s->target.codes);
	intern_deinit(&s->target.strings);
	pthread_mutex_destroy(&s->target.lock);
	image_proc_close(&s->target.proc);
	s->img.rt.reader.mem = s->mem.below;
	image_close(&s->img);
}

static bool is_python(const struct scene *s, pid_t tid) {
	const struct view_thread *thread = view_thread_of_tid(s->view, tid);

	return thread && thread->sampled;
}

static size_t count_pythons(const struct scene *s) {
	size_t n = 0;

	vec_foreach (thread, &s->view->threads)
		n += thread->sampled ? 1 : 0;
	return n;
}

static int read_view(struct scene *s) {
	return wait_view_new("/", s->target.proc.pid, s->process, &s->scratch, &s->view);
}

static void *read_main(void *arg) {
	struct scene *s = arg;
	int r;

	atomic_store(&s->reader, gettid());
	r = read_view(s);
	atomic_store(&s->done, true);
	return (void *)(intptr_t)r;
}

static bool waits_for_lock(const struct proc *self, const struct scene *s) {
	raddr lock = (raddr)(uintptr_t)&s->target.lock;
	struct proc_sleep sleep;
	pid_t tid = atomic_load(&s->reader);

	return tid && !proc_sleep_read(self, tid, &sleep) && sleep.call == SLEEP_FUTEX && sleep.address >= lock &&
		sleep.address - lock < sizeof(s->target.lock);
}

Test(waits_view, threads_that_end_before_the_lock_is_had_are_not_used) {
	struct scene s = { 0 };
	struct proc self;
	pthread_t reader;
	void *failed;

	set_up(&s);
	cr_assert_eq(proc_open("/proc", getpid(), &self), 0);
	pthread_mutex_lock(&s.target.lock);
	cr_assert_eq(pthread_create(&reader, NULL, read_main, &s), 0);
	while (!waits_for_lock(&self, &s) && !atomic_load(&s.done))
		sched_yield();
	s.target.threads.n = 0;
	pthread_mutex_unlock(&s.target.lock);
	pthread_join(reader, &failed);
	cr_assert_null(failed);
	cr_assert_eq(count_pythons(&s), 0);
	cr_assert_not_null(view_thread_of_tid(s.view, FIRST_TID), "the kernel has it still");
	proc_close(&self);
	tear_down(&s);
}

static void second_ends(struct sample_target *target) {
	target->threads.items[1] = target->threads.items[2];
	target->threads.n = 2;
}

Test(waits_view, threads_that_move_in_the_list_are_read_once) {
	struct scene s = { 0 };

	set_up(&s);
	s.mem.trigger = s.threads[2].py.tstate;
	s.mem.happen = second_ends;
	cr_assert_eq(read_view(&s), 0);
	cr_assert_null(s.mem.happen);
	cr_assert(is_python(&s, FIRST_TID));
	cr_assert_not(is_python(&s, FIRST_TID + 1));
	cr_assert(is_python(&s, FIRST_TID + 2));
	cr_assert_eq(count_pythons(&s), 2);
	tear_down(&s);
}

Test(waits_view, all_threads_are_read) {
	struct scene s = { 0 };

	set_up(&s);
	cr_assert_eq(read_view(&s), 0);
	for (int i = 0; i < THREADS; i++)
		cr_assert(is_python(&s, FIRST_TID + i));
	cr_assert_eq(s.view->threads.n, THREADS);
	tear_down(&s);
}
