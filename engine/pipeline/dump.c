/* SPDX-License-Identifier: MIT */
/* pyspyd_dump: attach, look at every thread once, describe. Runs in a thread of its own, since it goes from CPU to CPU.
 */
#include "pyspyd/dump.h"

#include "engine/base/clock.h"
#include "engine/pipeline/describe.h"
#include "engine/pipeline/dump_async.h"
#include "engine/pipeline/subject.h"
#include "engine/pipeline/triage.h"
#include "engine/sample/blocking.h"
#include <pthread.h>
#include <string.h>

#define STARTING_WAIT_NS (2 * NS_PER_SEC)
#define LINES_NS NS_PER_SEC
#define STOP_MAX_NS (100 * NS_PER_MS)

struct job {
	pid_t pid;
	const struct pyspyd_dump_options *options;
	struct subject subject;
	struct sample_target *target; /* the subject's */
	struct py_stack_scratch scratch;
	struct py_thread_names names;
	struct native_look *native; /* NULL: not asked for */
	pid_vec tids;               /* all of the kernel's, where native frames are asked for */
	struct map states;          /* tid → state, from before we stopped them */
	struct pyspyd_dump *dump;
	struct err *err;
	int result;
};

/* Takes in what was described as the next thread. */
static int add_described(struct job *job, int r) {
	struct pyspyd_thread *described = &job->dump->threads[job->dump->threads_n];
	uint64_t state;

	if (r) /* one thread ended; the others are there */
		return r == PYSPYD_E_GONE && proc_alive(&job->target->proc) ? 0 : r;
	job->dump->threads_n++;
	if (described->state == 't' && map_get(&job->states, (uint64_t)described->tid, &state))
		described->state = (char)state;
	return 0;
}

static struct describe_options describe_options(const struct job *job) {
	return (struct describe_options){
		.locals = job->options->locals,
		.unmask = job->options->unmask,
		.exceptions = true,
		.native = job->native,
	};
}

static int add_thread(struct job *job, struct sample_thread *thread) {
	const struct describe_options options = describe_options(job);

	return add_described(job,
		describe_thread(job->target, thread, &job->names, &options, &job->scratch,
			&job->dump->threads[job->dump->threads_n]));
}

static bool is_python(const struct job *job, pid_t tid) {
	vec_foreach (thread, &job->target->threads)
		if ((*thread)->py.tid == tid)
			return true;
	return false;
}

static int add_foreign_threads(struct job *job) {
	const struct describe_options options = describe_options(job);
	int r = 0;

	vec_foreach (tid, &job->tids)
		if (!r && !is_python(job, *tid))
			r = add_described(job,
				describe_foreign_thread(
					job->target, *tid, &options, &job->dump->threads[job->dump->threads_n]));
	return r;
}

static int keep_state(struct job *job, pid_t tid) {
	struct proc_stat stat;

	return proc_thread_stat(&job->target->proc, tid, &stat)
		? 0
		: map_put(&job->states, (uint64_t)tid, (uint64_t)stat.state);
}

static void read_all(struct job *job) {
	struct sample_target *target = job->target;
	int r = 0;

	/* The list has the newest thread first; people expect the main thread first. */
	for (size_t i = target->threads.n; !r && i > 0; i--)
		r = add_thread(job, target->threads.items[i - 1]);
	if (!r && job->native)
		r = add_foreign_threads(job);
	if (!r && job->options->async)
		r = dump_async(target, &job->scratch, job->dump);
	job->result = r;
}

static void read_stopped(const pid_t *tids, size_t n, void *arg) {
	(void)tids;
	(void)n;
	read_all(arg);
}

static int stop_and_read(struct job *job) {
	pid_vec tids = { 0 };
	int r = 0;

	vec_foreach (thread, &job->target->threads)
		if (!r && !job->native)
			r = vec_push(&tids, (*thread)->py.tid);
	vec_foreach (tid, &job->tids)
		if (!r)
			r = vec_push(&tids, *tid);
	vec_foreach (tid, &tids)
		if (!r)
			r = keep_state(job, *tid);
	if (!r)
		r = blocking_run(tids.items, tids.n, STOP_MAX_NS, read_stopped, job);
	vec_free(&tids);
	if (r == -EPERM)
		return err_set(job->err, PYSPYD_E_DENIED,
			"stopping the threads is not permitted (another tracer, or ptrace is forbidden); leave out "
			"--blocking");
	return r ? r : job->result;
}

static int read_blocking(struct job *job) {
	if (job->native) {
		native_look_warm(job->native);
		job->native->deadline_ns = clock_mono_ns() + STOP_MAX_NS;
	}
	return stop_and_read(job);
}

static int read_threads(struct job *job) {
	int r;

	if (job->options->blocking && !job->subject.core) {
		r = read_blocking(job);
	} else {
		read_all(job);
		r = job->result;
	}
	if (!r && job->native)
		r = native_look_lines(job->native, job->dump->threads, job->dump->threads_n, LINES_NS);
	return r;
}

static int prepare_native(struct job *job) {
	enum native_how how = job->options->blocking ? NATIVE_HOW_HELD : NATIVE_HOW_STOP;
	const struct sample_target *target = job->target;
	int r = proc_threads(&target->proc, &job->tids);

	if (r)
		return r == PROC_E_GONE ? PYSPYD_E_GONE : r;
	return target->offline ? native_look_new_offline(target, &job->native)
			       : native_look_new(&target->proc, target->mem, NULL, how, &job->native);
}

/* The thread that died comes first. */
static void put_first(struct pyspyd_dump *dump, pid_t tid) {
	for (size_t i = 0; i < dump->threads_n; i++) {
		struct pyspyd_thread died = dump->threads[i];

		if (died.tid != tid)
			continue;
		memmove(&dump->threads[1], &dump->threads[0], i * sizeof(died));
		dump->threads[0] = died;
		return;
	}
}

static int run(struct job *job) {
	int r = subject_open(job->pid, &job->options->core, STARTING_WAIT_NS, &job->subject, job->err);

	if (r)
		return r;
	job->target = job->subject.target;
	job->pid = job->target->proc.pid;
	r = py_stack_scratch_init(&job->scratch);
	if (r)
		return r;
	r = sample_target_refresh(job->target, NULL, NULL);
	if (!r)
		r = py_thread_names_read(&job->target->rt, &job->names);
	if (!r)
		r = describe_process(&job->target->proc, job->target->rt.version, &job->dump->process);
	if (!r)
		r = subject_add_core(&job->subject, &job->dump->process);
	if (!r && job->options->native)
		r = prepare_native(job);
	if (!r) {
		job->dump->threads = calloc(job->target->threads.n + job->tids.n + 1, sizeof(*job->dump->threads));
		r = job->dump->threads ? read_threads(job) : -ENOMEM;
	}
	if (!r && job->dump->process.core && job->dump->process.core->tid)
		put_first(job->dump, job->dump->process.core->tid);
	if (!r && job->subject.core)
		r = triage_dump(&job->subject, job->native, job->dump);
	if (r == MEM_E_GONE || r == PYSPYD_E_GONE || (r && !proc_alive(&job->target->proc)))
		return err_set(job->err, PYSPYD_E_GONE, "process %d has ended", (int)job->pid);
	if (r == PY_E_TORN)
		return err_set(job->err, -EAGAIN, "the list of threads of process %d changed too fast to be read",
			(int)job->pid);
	if (r == MEM_E_FAULT)
		return err_set(job->err, -EFAULT, "memory of process %d that should be there is not", (int)job->pid);
	return r;
}

static void *job_main(void *arg) {
	struct job *job = arg;

	job->result = run(job);
	return NULL;
}

int pyspyd_dump(pid_t pid, const struct pyspyd_dump_options *options, struct pyspyd_dump **ret_dump, struct err *err) {
	struct job job = { .pid = pid, .options = options, .err = err };
	pthread_t thread;

	job.dump = calloc(1, sizeof(*job.dump));
	if (!job.dump)
		return -ENOMEM;
	if (pthread_create(&thread, NULL, job_main, &job)) {
		pyspyd_dump_free(job.dump);
		return -EAGAIN;
	}
	pthread_join(thread, NULL);
	py_thread_names_deinit(&job.names);
	py_stack_scratch_deinit(&job.scratch);
	map_deinit(&job.states);
	vec_free(&job.tids);
	native_look_free(job.native);
	subject_close(&job.subject);
	if (job.result) {
		pyspyd_dump_free(job.dump);
		return job.result;
	}
	*ret_dump = job.dump;
	return 0;
}
