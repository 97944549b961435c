/* SPDX-License-Identifier: MIT */
/* Many processes that sleep: one pass through the kernel's tasks says which of their threads have run since the last
 * one, and how each thread is, instead of a question to the kernel for each process and thread.
 *
 * A pass costs the more the more tasks there are, watched or not: so passes are made where most of the tasks are those
 * of targets, and as often as a fixed share of a CPU allows. They come at random times, as looks do. */
#include "engine/sample/sampler_internal.h"

#include "engine/base/clock.h"
#include "engine/sample/tasks_pass.h"

#define MANY_TARGETS 64
#define WORTH 4                       /* one in so many of the tasks should be a target's */
#define COST_SHARE 1000               /* of a CPU, one part in so many */
#define PASS_NS (200 * NS_PER_MS)     /* between two passes, at least; … */
#define PASS_NS_MAX (30 * NS_PER_SEC) /* … and at most */
#define RETRY_NS (60 * NS_PER_SEC)    /* after which a host is judged anew */

struct task_looks {
	struct bpf_tasks *bpf; /* NULL: not to be had */
	struct tasks_pass pass;
	pid_vec watched;
	unsigned changes_seen;
	uint64_t due_ns, tick; /* of the next pass; of the last one */
	bool passing;          /* targets that were passed once are looked at by passes */
};

static struct task_looks *looks_of(struct sampler *sampler) {
	if (!sampler->task_looks) {
		sampler->task_looks = calloc(1, sizeof(*sampler->task_looks));
		if (sampler->task_looks && bpf_tasks_new(&sampler->task_looks->bpf, NULL))
			sampler->task_looks->bpf = NULL;
	}
	return sampler->task_looks && sampler->task_looks->bpf ? sampler->task_looks : NULL;
}

void task_looks_free(struct task_looks *looks) {
	if (!looks)
		return;
	bpf_tasks_free(looks->bpf);
	tasks_pass_deinit(&looks->pass);
	vec_free(&looks->watched);
	free(looks);
}

/* Who is a target now. The index of targets is up to date. */
static void follow_changes(struct sampler *sampler, struct task_looks *looks) {
	if (looks->watched.n && looks->changes_seen == sampler->changes_seen)
		return;
	looks->changes_seen = sampler->changes_seen;
	vec_foreach (pid, &looks->watched)
		if (!kernel_target_of(sampler, *pid))
			bpf_tasks_watch(looks->bpf, *pid, false);
	looks->watched.n = 0;
	for (size_t i = 0; i < atomic_load(&sampler->targets_n); i++) {
		struct sample_target *target = atomic_load(&sampler->targets[i]);

		if (!target || kernel_target_of(sampler, target->proc.pid) != target)
			continue;
		if (!vec_push(&looks->watched, target->proc.pid))
			bpf_tasks_watch(looks->bpf, target->proc.pid, true);
	}
}

static void on_change(void *userdata, enum task_change change, const struct bpf_task *task) {
	struct sample_target *target = kernel_target_of(userdata, task->pid);

	if (!target)
		return;
	target->changed = true;
	target->unknown_thread |= change != TASK_RAN;
}

/* From here on each is looked at by itself again. */
static void stop_passing(struct sampler *sampler, struct task_looks *looks) {
	looks->passing = false;
	for (size_t i = 0; i < atomic_load(&sampler->targets_n); i++) {
		struct sample_target *target = atomic_load(&sampler->targets[i]);

		if (!target || !target->passed)
			continue;
		pthread_mutex_lock(&target->lock);
		target->passed = false;
		vec_foreach (thread, &target->threads)
			(*thread)->active = true;
		target->active_n = target->threads.n;
		pthread_mutex_unlock(&target->lock);
	}
}

static void mark(struct sampler *sampler, struct task_looks *looks) {
	tasks_pass_changes(&looks->pass, on_change, sampler);
	vec_foreach (pid, &looks->watched) {
		struct sample_target *target = kernel_target_of(sampler, *pid);

		if (!target)
			continue;
		target->changed |= !target->passed;
		target->passed = true;
	}
}

static uint64_t at_random(uint64_t after_ns, uint64_t interval_ns) {
	return after_ns + interval_ns / 2 + hash_mix(after_ns) % interval_ns;
}

static void pass(struct sampler *sampler, struct task_looks *looks, uint64_t tick, uint64_t now_ns) {
	uint64_t began_ns = clock_cpu_ns(), cost_ns;
	int r;

	follow_changes(sampler, looks);
	r = tasks_pass_read(&looks->pass, looks->bpf, false);
	cost_ns = clock_cpu_ns() - began_ns;
	if (r || bpf_tasks_visited(looks->bpf) > looks->pass.now.n * WORTH) {
		stop_passing(sampler, looks);
		looks->due_ns = now_ns + RETRY_NS;
		return;
	}
	looks->passing = true;
	looks->tick = tick;
	looks->due_ns = at_random(now_ns, max_of(PASS_NS, min_of(cost_ns * COST_SHARE, (uint64_t)PASS_NS_MAX)));
	mark(sampler, looks);
}

void task_looks_turn(struct cpu_sampler *me, uint64_t tick, uint64_t now_ns) {
	struct sampler *sampler = me->owner;
	bool many = atomic_load(&sampler->targets_n) >= MANY_TARGETS;
	struct task_looks *looks = many ? looks_of(sampler) : sampler->task_looks;

	if (!looks || (!many && !looks->passing) || (many && now_ns < looks->due_ns))
		return;
	atomic_fetch_add(&me->rounds, 1);
	if (many)
		pass(sampler, looks, tick, now_ns);
	else
		stop_passing(sampler, looks);
	atomic_fetch_add(&me->rounds, 1);
}

bool task_looks_are_fresh(const struct look *look) {
	const struct task_looks *looks = look->me->owner->task_looks;

	return looks && looks->passing && looks->tick == look->tick;
}

void task_looks_at(struct look *look) {
	struct sample_target *target = look->target;
	const struct tasks_pass *pass = &look->me->owner->task_looks->pass;

	target->unsettled = false;
	vec_foreach (thread, &target->threads) {
		const struct bpf_task *task = tasks_pass_find(pass, (*thread)->py.tid);
		const struct proc_schedstat stat = task
			? (struct proc_schedstat){ task->run_ns, task->wait_ns, task->slices }
			: (struct proc_schedstat){ 0 };

		if (!task || task->pid != target->proc.pid)
			continue;
		if (!kernel_is_settled(*thread, &stat)) {
			kernel_wake(look, *thread, &stat);
			kernel_look_at(look, *thread, task->state, &stat);
		}
		target->unsettled |= !strchr("RZX", task->state) && !kernel_is_settled(*thread, &stat);
	}
	target->changed = false;
}
