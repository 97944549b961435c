/* SPDX-License-Identifier: MIT */
/* The sink of the samplers: places become frames of the profile, stacks its nodes, and a stack that is counted again
 * needs no look-up at all.
 *
 * A sample_thread's mark holds what the profile knows of it: its id + 1 above, the node of its last stack below. A
 * target's mark is its index + 1 in `members`. Lock order: a target's lock, then the recorder's. */
#include "engine/pipeline/recorder.h"

#include "engine/base/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#define TRY_CHILD_NS (3 * NS_PER_SEC) /* a child that is no Python by then is left alone */
#define TENDED_AT_ONCE 8              /* members; of more each has its turn less often */
#define LISTS_EVERY 4                 /* turns of a member at which its interpreter is looked for where it was */

struct member {
	struct sample_target *target;
	VEC(uint32_t) frames; /* by place */
	uint32_t process_name;
	unsigned checks; /* made so far */
	int memory_fd;   /* /proc/PID/mem: of the program that was attached to, even when another one is executed; -1
			  where it may not be opened */
};

struct candidate { /* a descendant, or a process that executed another program, that is not (yet) a Python */
	pid_t pid;
	uint64_t since_ns;
	bool was_member;
	bool given_up;
};

struct recorder {
	struct recorder_options options;
	struct sampler *sampler;
	struct profile *profile;
	pthread_mutex_t lock;
	VEC(struct member *) members;
	VEC(struct sample_target *) targets;
	VEC(struct candidate) candidates;
	uint64_t start_ns;
	uint64_t lost; /* samples that the profile had no room for */
	size_t turn;   /* whose it is to be tended */
};

static uint32_t frame_of(struct recorder *recorder, struct member *member, uint32_t place) {
	const struct sample_target *target = member->target;

	while (member->frames.n <= place) {
		const struct sample_place *p = &target->places.items[member->frames.n];
		const char *function = intern_str(&target->strings, p->function),
			   *file = intern_str(&target->strings, p->file);
		const char *module = intern_str(&target->strings, p->module);
		const struct profile_frame frame = {
			.function = intern_add(&recorder->profile->strings, function, strlen(function)),
			.file = intern_add(&recorder->profile->strings, file, strlen(file)),
			.module = intern_add(&recorder->profile->strings, module, strlen(module)),
			.line = p->line,
			.lang = p->lang,
		};

		if (vec_push(&member->frames, profile_add_frame(recorder->profile, &frame)))
			return UINT32_MAX;
	}
	return member->frames.items[place];
}

static uint32_t node_of(struct recorder *recorder, struct member *member, const struct sample *sample) {
	uint32_t node = 0;

	for (size_t i = sample->n; i > 0 && node != UINT32_MAX; i--) {
		uint32_t frame = frame_of(recorder, member, sample->places[i - 1]);

		node = frame == UINT32_MAX ? UINT32_MAX : profile_add_node(recorder->profile, node, frame);
	}
	return node;
}

/* What stands below the Python frames. */
static uint32_t leaf_of(struct recorder *recorder, uint32_t node, const struct sample *sample) {
	for (size_t i = 0; i < sample->leaves_n && node != UINT32_MAX; i++) {
		const struct sample_leaf *leaf = &sample->leaves[i];
		const struct profile_frame of_leaf = { .function = intern_add(&recorder->profile->strings, leaf->name,
							       strlen(leaf->name)),
			.lang = leaf->lang };
		uint32_t frame = profile_add_frame(recorder->profile, &of_leaf);

		node = frame == UINT32_MAX ? UINT32_MAX : profile_add_node(recorder->profile, node, frame);
	}
	return node;
}

uint32_t recorder_thread_id(const struct sample_thread *thread) {
	return (uint32_t)(thread->mark >> 32) - 1;
}

uint32_t recorder_last_node(const struct sample_thread *thread) {
	return (uint32_t)thread->mark;
}

static uint32_t thread_id(struct recorder *recorder, struct member *member, struct sample_thread *thread) {
	uint32_t id = recorder_thread_id(thread);

	if (id == UINT32_MAX)
		id = profile_add_thread(recorder->profile,
			&(struct profile_thread){ .pid = member->target->proc.pid,
				.tid = thread->py.tid,
				.process_name = member->process_name });
	return id;
}

static void on_sample(void *userdata, const struct sample *sample) {
	struct recorder *recorder = userdata;
	struct member *member;
	uint32_t node = (uint32_t)sample->thread->mark, thread;

	pthread_mutex_lock(&recorder->lock);
	member = recorder->members.items[sample->target->mark - 1];
	thread = thread_id(recorder, member, sample->thread);
	if (sample->places)
		node = leaf_of(recorder, node_of(recorder, member, sample), sample);
	if (node == UINT32_MAX || thread == UINT32_MAX) {
		recorder->lost += sample->ticks;
	} else {
		sample->thread->mark = ((uint64_t)thread + 1) << 32 | node;
		profile_count(recorder->profile, thread, node, sample->ticks,
			sample->ns ? sample->ns : sample->ticks * sampler_period_ns(recorder->sampler));
		if (recorder->options.tap)
			recorder->options.tap(recorder->options.userdata, sample, node);
	}
	pthread_mutex_unlock(&recorder->lock);
}

int recorder_new(const struct recorder_options *options, struct recorder **ret_recorder, struct err *err) {
	struct recorder *recorder = calloc(1, sizeof(*recorder));
	struct sampler_options sampler = options->sampler;
	pthread_mutexattr_t attr;
	int r;

	if (!recorder)
		return -ENOMEM;
	recorder->options = *options;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&recorder->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	sampler.on_sample = on_sample;
	sampler.userdata = recorder;
	r = profile_new(&recorder->profile);
	if (!r)
		r = sampler_new(&sampler, &recorder->sampler, err);
	if (r) {
		recorder_free(recorder);
		return r;
	}
	*ret_recorder = recorder;
	return 0;
}

static void free_member(struct member *member) {
	sample_target_free(member->target);
	vec_free(&member->frames);
	close_fd(&member->memory_fd);
	free(member);
}

void recorder_free(struct recorder *recorder) {
	if (!recorder)
		return;
	sampler_free(recorder->sampler);
	vec_foreach (member, &recorder->members)
		free_member(*member);
	vec_free(&recorder->members);
	vec_free(&recorder->targets);
	vec_free(&recorder->candidates);
	profile_free(recorder->profile);
	pthread_mutex_destroy(&recorder->lock);
	free(recorder);
}

static int add_member(struct recorder *recorder, struct sample_target *target) {
	struct member *member = calloc(1, sizeof(*member));
	struct proc_stat stat = { .comm = "?" };
	int r;

	if (!member)
		return -ENOMEM;
	member->target = target;
	member->memory_fd = openat(target->proc.dir_fd, "mem", O_RDONLY | O_CLOEXEC);
	proc_stat_read(&target->proc, &stat);
	pthread_mutex_lock(&recorder->lock);
	member->process_name = intern_add(&recorder->profile->strings, stat.comm, strlen(stat.comm));
	r = vec_push(&recorder->members, member);
	if (!r && (r = vec_push(&recorder->targets, target)))
		recorder->members.n--;
	target->mark = recorder->members.n;
	pthread_mutex_unlock(&recorder->lock);
	if (r) {
		close_fd(&member->memory_fd);
		free(member);
	}
	return r;
}

int recorder_add(
	struct recorder *recorder, pid_t pid, uint64_t wait_ns, struct sample_target **ret_target, struct err *err) {
	struct sample_target *target;
	int r = sample_target_new(pid, wait_ns, &target, err);

	if (r)
		return r;
	r = sample_target_refresh(target, NULL, NULL);
	if (r == MEM_E_GONE) {
		sample_target_free(target);
		return err_set(err, PYSPYD_E_GONE, "process %d has ended", (int)pid);
	}
	r = add_member(recorder, target);
	if (r) {
		sample_target_free(target);
		return r;
	}
	if (ret_target)
		*ret_target = target;
	return sampler_add(recorder->sampler, target); /* freed with the members where there is no more room */
}

void recorder_drop(struct recorder *recorder, struct sample_target *target) {
	struct member *member = recorder->members.items[target->mark - 1];
	size_t i = target->mark - 1, last = recorder->members.n - 1;

	pthread_mutex_lock(&target->lock);
	target->ended = true;
	sampler_flush(recorder->sampler, target);
	pthread_mutex_unlock(&target->lock);
	sampler_remove(recorder->sampler, target);
	pthread_mutex_lock(&recorder->lock);
	recorder->members.items[i] = recorder->members.items[last]; /* the last one takes its place */
	recorder->targets.items[i] = recorder->targets.items[last];
	recorder->targets.items[i]->mark = i + 1;
	recorder->members.n = recorder->targets.n = last;
	pthread_mutex_unlock(&recorder->lock);
	free_member(member);
}

static enum profile_kind kind_of(enum pyspyd_mode mode) {
	switch (mode) {
	case PYSPYD_MODE_CPU: return PROFILE_CPU;
	case PYSPYD_MODE_GIL: return PROFILE_GIL;
	case PYSPYD_MODE_OFFCPU: return PROFILE_OFFCPU;
	case PYSPYD_MODE_ALLOC: return PROFILE_ALLOC;
	case PYSPYD_MODE_WALL: break;
	}
	return PROFILE_WALL;
}

int recorder_start(struct recorder *recorder) {
	recorder->start_ns = clock_mono_ns();
	recorder->profile->start_real_ns = clock_real_ns();
	recorder->profile->period_ns = sampler_period_ns(recorder->sampler);
	recorder->profile->kind = kind_of(recorder->options.sampler.mode);
	if (recorder->profile->kind == PROFILE_OFFCPU)
		recorder->profile->period_ns = 0;
	return sampler_start(recorder->sampler);
}

/* At the highest rate there is no period: each sample stands for its share of the time. */
static void spread_duration(struct profile *profile) {
	uint64_t each = profile->accuracy.looks ? profile->duration_ns / profile->accuracy.looks : 0;

	profile->period_ns = each;
	vec_foreach (count, &profile->counts)
		count->ns = count->samples * each;
}

int recorder_set_rate(struct recorder *recorder, double rate_hz) {
	int r = sampler_set_rate(recorder->sampler, rate_hz);

	recorder->profile->period_ns = sampler_period_ns(recorder->sampler);
	return r;
}

/* Names the threads that have none yet. Read outside the recorder's lock: it takes a while. */
static void name_threads(struct recorder *recorder, struct member *member) {
	struct sample_target *target = member->target;
	struct py_thread_names names = { 0 };
	bool missing = false;

	pthread_mutex_lock(&target->lock);
	pthread_mutex_lock(&recorder->lock);
	vec_foreach (item, &target->threads) {
		uint32_t id = recorder_thread_id(*item);

		missing |= id != UINT32_MAX && !recorder->profile->threads.items[id].name;
	}
	pthread_mutex_unlock(&recorder->lock);
	if (missing && !py_thread_names_read(&target->rt, &names)) {
		pthread_mutex_lock(&recorder->lock);
		vec_foreach (item, &target->threads) {
			const char *name = py_thread_name(&names, (*item)->py.ident);
			uint32_t id = recorder_thread_id(*item);
			struct proc_stat stat;

			if (id == UINT32_MAX || recorder->profile->threads.items[id].name)
				continue;
			if (!name && !proc_thread_stat(&target->proc, (*item)->py.tid, &stat))
				name = stat.comm;
			if (name)
				recorder->profile->threads.items[id].name =
					intern_add(&recorder->profile->strings, name, strlen(name));
		}
		pthread_mutex_unlock(&recorder->lock);
		py_thread_names_deinit(&names);
	}
	pthread_mutex_unlock(&target->lock);
}

void recorder_stop(struct recorder *recorder) {
	sampler_stop(recorder->sampler);
	vec_foreach (member, &recorder->members)
		if (!(*member)->target->ended)
			name_threads(recorder, *member); /* those that came with the last samples */
	recorder_profile(recorder);
	if (!sampler_period_ns(recorder->sampler) && recorder->profile->kind != PROFILE_OFFCPU)
		spread_duration(recorder->profile);
}

static bool is_member(const struct recorder *recorder, pid_t pid) {
	vec_foreach (target, &recorder->targets)
		if ((*target)->proc.pid == pid && !(*target)->ended)
			return true;
	return false;
}

static struct candidate *candidate_of(struct recorder *recorder, pid_t pid) {
	vec_foreach (candidate, &recorder->candidates)
		if (candidate->pid == pid)
			return candidate;
	if (vec_push(&recorder->candidates, (struct candidate){ .pid = pid, .since_ns = clock_mono_ns() }))
		return NULL;
	return &recorder->candidates.items[recorder->candidates.n - 1];
}

static void try_candidate(struct recorder *recorder, pid_t pid) {
	struct candidate *candidate = candidate_of(recorder, pid);
	int r;

	if (!candidate || candidate->given_up)
		return;
	r = recorder_add(recorder, pid, 0, NULL, NULL);
	if (r == PYSPYD_E_GONE || (r && clock_mono_ns() > candidate->since_ns + TRY_CHILD_NS))
		candidate->given_up = true;
}

/* Tries all candidates. Return: how many processes that were members may become so again. */
static size_t try_candidates(struct recorder *recorder) {
	size_t waiting = 0;

	for (size_t i = 0; i < recorder->candidates.n;) {
		struct candidate *candidate = &recorder->candidates.items[i];

		if (kill(candidate->pid, 0) && errno == ESRCH) { /* the number is free for another process */
			*candidate = recorder->candidates.items[--recorder->candidates.n];
			continue;
		}
		if (!is_member(recorder, candidate->pid))
			try_candidate(recorder, candidate->pid);
		waiting += candidate->was_member && !candidate->given_up;
		i++;
	}
	return waiting;
}

static void find_children(struct recorder *recorder, pid_t root) {
	pid_vec pids = { 0 };

	if (proc_descendants("/proc", root, &pids))
		return;
	vec_foreach (pid, &pids)
		if (!is_member(recorder, *pid))
			try_candidate(recorder, *pid);
	vec_free(&pids);
}

/* The address space that was opened is no more: another program is executed. Its interpreter may well lie at the same
 * addresses. */
static bool has_executed(const struct member *member) {
	uint8_t byte;

	return member->memory_fd >= 0 && pread(member->memory_fd, &byte, 1, (off_t)member->target->rt.interp_head) == 0;
}

/* The lists say it where the memory's file does not; that one is the cheaper one to ask. */
static bool is_other_program(struct member *member) {
	if (has_executed(member))
		return true;
	return (member->memory_fd < 0 || member->checks++ % LISTS_EVERY == 0) && py_runtime_check(&member->target->rt);
}

/* Return: whether it still runs the program that we know. */
static bool check_member(struct recorder *recorder, struct member *member) {
	struct sample_target *target = member->target;
	struct candidate *candidate = NULL;
	bool other_program;

	pthread_mutex_lock(&target->lock);
	other_program = !target->ended && is_other_program(member);
	if (other_program)
		target->ended = true;
	pthread_mutex_unlock(&target->lock);
	if (other_program && proc_alive(&target->proc))
		candidate = candidate_of(recorder, target->proc.pid); /* maybe it is a Python again */
	if (candidate)
		*candidate =
			(struct candidate){ .pid = target->proc.pid, .since_ns = clock_mono_ns(), .was_member = true };
	return !target->ended;
}

void recorder_executed(struct recorder *recorder, pid_t pid) {
	for (size_t i = 0; i < recorder->members.n; i++)
		if (recorder->members.items[i]->target->proc.pid == pid)
			check_member(recorder, recorder->members.items[i]);
}

size_t recorder_tend(struct recorder *recorder, bool children) {
	size_t n = recorder->members.n, alive = 0;

	for (size_t i = 0; i < min_of(n, (size_t)TENDED_AT_ONCE); i++) {
		struct member *member = recorder->members.items[recorder->turn++ % n];

		if (check_member(recorder, member))
			name_threads(recorder, member);
	}
	vec_foreach (target, &recorder->targets)
		alive += !(*target)->ended;
	alive += try_candidates(recorder);
	for (size_t i = 0; children && i < n; i++)
		find_children(recorder, recorder->members.items[i]->target->proc.pid);
	return alive;
}

struct sample_target *const *recorder_targets(const struct recorder *recorder, size_t *ret_n) {
	*ret_n = recorder->targets.n;
	return recorder->targets.items;
}

struct profile *recorder_profile(struct recorder *recorder) {
	sampler_accuracy(recorder->sampler, &recorder->profile->accuracy);
	recorder->profile->accuracy.discarded += recorder->lost;
	recorder->profile->accuracy.samples -= recorder->lost;
	recorder->profile->duration_ns = clock_mono_ns() - recorder->start_ns;
	return recorder->profile;
}

/* All targets' locks, in the order in which they were added: nobody else takes more than one. */
int recorder_forget(struct recorder *recorder) {
	struct profile *fresh, *old = recorder->profile;
	int r = profile_new(&fresh);

	if (r)
		return r;
	for (size_t i = 0; i < recorder->members.n; i++)
		pthread_mutex_lock(&recorder->members.items[i]->target->lock);
	pthread_mutex_lock(&recorder->lock);
	fresh->start_real_ns = old->start_real_ns;
	fresh->period_ns = old->period_ns;
	fresh->kind = old->kind;
	recorder->profile = fresh;
	for (size_t i = 0; i < recorder->members.n; i++) {
		struct member *member = recorder->members.items[i];
		const char *name = intern_str(&old->strings, member->process_name);

		member->process_name = intern_add(&fresh->strings, name, strlen(name));
		member->frames.n = 0;
		sample_target_forget(member->target);
	}
	pthread_mutex_unlock(&recorder->lock);
	for (size_t i = recorder->members.n; i > 0; i--)
		pthread_mutex_unlock(&recorder->members.items[i - 1]->target->lock);
	profile_free(old);
	return 0;
}

void recorder_lock(struct recorder *recorder) {
	pthread_mutex_lock(&recorder->lock);
}

void recorder_unlock(struct recorder *recorder) {
	pthread_mutex_unlock(&recorder->lock);
}

struct sampler *recorder_sampler(struct recorder *recorder) {
	return recorder->sampler;
}
