/* SPDX-License-Identifier: MIT */
/* pyspyd_dump: attach, look at every thread once, describe. Runs in a thread of its own, since it goes from CPU to CPU.
 */
#include "pyspyd/dump.h"

#include "engine/base/clock.h"
#include "engine/pipeline/describe.h"
#include "engine/pipeline/dump_async.h"
#include "engine/sample/blocking.h"
#include <pthread.h>

#define STARTING_WAIT_NS (2 * NS_PER_SEC)
#define STOP_MAX_NS (100 * NS_PER_MS)

struct job {
	pid_t pid;
	const struct pyspyd_dump_options *options;
	struct sample_target *target;
	struct py_stack_scratch scratch;
	struct py_thread_names names;
	struct stopped_threads stopped;
	VEC(char) states; /* by thread, from before we stopped them */
	struct pyspyd_dump *dump;
	struct err *err;
	int result;
};

static int add_thread(struct job *job, size_t i) {
	struct sample_thread *thread = job->target->threads.items[i];
	struct pyspyd_thread *described = &job->dump->threads[job->dump->threads_n];
	const struct describe_options options = { .locals = job->options->locals, .unmask = job->options->unmask };
	int r = describe_thread(job->target, thread, &job->names, &options, &job->scratch, described);

	if (!r) {
		job->dump->threads_n++;
		if (described->state == 't' && i < job->states.n)
			described->state = job->states.items[i];
	}
	return r == PYSPYD_E_GONE && proc_alive(&job->target->proc) ? 0
								    : r; /* one thread ended; the others are there */
}

static int stop_threads(struct job *job) {
	VEC(pid_t) tids = { 0 };
	int r = 0;

	vec_foreach (thread, &job->target->threads) {
		char state = '?';
		int cpu;

		proc_task_state(&(*thread)->task, &state, &cpu);
		if (!r)
			r = vec_push(&job->states, state);
		if (!r)
			r = vec_push(&tids, (*thread)->py.tid);
	}
	if (!r)
		r = blocking_stop(tids.items, tids.n, STOP_MAX_NS, &job->stopped);
	vec_free(&tids);
	if (r == -EPERM)
		return err_set(job->err, PYSPYD_E_DENIED,
			"stopping the threads is not permitted (another tracer, or ptrace is forbidden); leave out "
			"--blocking");
	return r;
}

static int read_threads(struct job *job) {
	struct sample_target *target = job->target;
	int r = 0;

	if (job->options->blocking)
		r = stop_threads(job);
	/* The list has the newest thread first; people expect the main thread first. */
	for (size_t i = target->threads.n; !r && i > 0; i--)
		r = add_thread(job, i - 1);
	if (!r && job->options->async)
		r = dump_async(target, &job->scratch, job->dump);
	blocking_resume(&job->stopped);
	return r;
}

static int run(struct job *job) {
	int r = sample_target_new(job->pid, STARTING_WAIT_NS, &job->target, job->err);

	if (!r)
		r = py_stack_scratch_init(&job->scratch);
	if (r)
		return r;
	r = sample_target_refresh(job->target, NULL, NULL);
	if (!r)
		r = py_thread_names_read(&job->target->rt, &job->names);
	if (!r)
		r = describe_process(&job->target->proc, job->target->rt.version, &job->dump->process);
	if (!r) {
		job->dump->threads = calloc(job->target->threads.n + 1, sizeof(*job->dump->threads));
		r = job->dump->threads ? read_threads(job) : -ENOMEM;
	}
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
	vec_free(&job.stopped.threads);
	vec_free(&job.states);
	sample_target_free(job.target);
	if (job.result) {
		pyspyd_dump_free(job.dump);
		return job.result;
	}
	*ret_dump = job.dump;
	return 0;
}
