/* SPDX-License-Identifier: MIT */
/* Children are asked for thread by thread, control groups file by file: not at every look, and a group once for all
 * processes in it. */
#include "engine/pipeline/counters.h"

#include "engine/base/clock.h"
#include "engine/proc/fds.h"
#include "engine/proc/files.h"
#include "engine/proc/limits.h"
#include "engine/proc/memory.h"
#include <fcntl.h>

#define SHARED_NS NS_PER_SEC /* how old what is the same for many may be */
#define OWN_WORTH_NS \
	(2 * NS_PER_MS) /* CPU time of a process between two looks at what only changes when it runs; … \
			 */
#define OWN_LOOKS 4     /* … without it, every so many looks */
#define CGROUP_TEXT_MAX (64U << 10)
#define CHILDREN_STATES 4096 /* children whose state is read; zombies among further ones are not counted */

static uint64_t count_zombies(const pid_vec *pids) {
	_close_ int root_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t zombies = 0;

	for (size_t i = 0; i < pids->n && i < CHILDREN_STATES; i++) {
		char name[32], buf[FILES_STAT_SIZE], state;
		size_t len;
		int cpu;

		snprintf(name, sizeof(name), "%d/stat", (int)pids->items[i]);
		if (!files_read_small(root_fd, name, buf, sizeof(buf), &len) &&
			!proc_stat_state(buf, len, &state, &cpu))
			zombies += state == 'Z';
	}
	return zombies;
}

static void count_children(struct counters *counters, pid_t pid) {
	pid_vec pids = { 0 };

	counters->children = counters->zombies = PROC_UNKNOWN;
	if (proc_children("/proc", pid, &pids))
		return;
	counters->children = pids.n;
	counters->zombies = count_zombies(&pids);
	vec_free(&pids);
}

static void forget_collector(struct py_collector *collector) {
	*collector = (struct py_collector){ 0 };
	for (size_t i = 0; i < PY_GENERATIONS; i++)
		collector->generations[i].collections = collector->generations[i].collected =
			collector->generations[i].uncollectable = UINT64_MAX;
}

static void read_own(struct counters *counters, const struct sample_target *target) {
	uint64_t hard;

	count_children(counters, target->proc.pid);
	if (proc_nofile_limit(&target->proc, &counters->fd_limit, &hard))
		counters->fd_limit = PROC_UNKNOWN;
	if (py_collector_read(&target->rt, &counters->collector))
		forget_collector(&counters->collector);
}

void counters_shared_deinit(struct counters_shared *shared) {
	map_deinit(&shared->group_index);
	vec_free(&shared->groups);
}

static void read_shared(struct counters_shared *shared, uint64_t now_ns) {
	if (shared->read_ns && now_ns - shared->read_ns < SHARED_NS)
		return;
	shared->read_ns = now_ns;
	map_clear(&shared->group_index);
	shared->groups.n = 0;
	if (memory_available_read(&shared->host_available_bytes))
		shared->host_available_bytes = PROC_UNKNOWN;
}

static struct cgroup_usage read_group(struct counters_shared *shared, const struct proc *proc) {
	struct cgroup_usage usage = {
		.memory_bytes = PROC_UNKNOWN,
		.memory_limit_bytes = PROC_UNKNOWN,
		.tasks = PROC_UNKNOWN,
		.tasks_limit = PROC_UNKNOWN,
		.memory_some_pct = -1,
	};
	_free_ char *text = NULL;
	uint64_t key, at;
	size_t len;

	if (proc_read_file(proc, "cgroup", CGROUP_TEXT_MAX, &text, &len))
		return usage;
	key = hash_bytes(text, len, 0) >> 1;
	if (map_get(&shared->group_index, key, &at))
		return shared->groups.items[at];
	if (!cgroup_usage_read("/sys/fs/cgroup", text, len, &usage) && !vec_push(&shared->groups, usage))
		(void)!map_put(&shared->group_index, key, shared->groups.n - 1);
	return usage;
}

/* Among many, a process that hardly ran has hardly begun a child or collected garbage. Its children may have ended: so
 * now and then it is asked all the same. */
static bool is_own_due(const struct counters *counters, const struct watched *watched, size_t processes) {
	return !counters->slow_ns || processes < WATCHED_MANY || counters->own_age >= OWN_LOOKS ||
		watched->cpu_ns - counters->own_cpu_ns >= OWN_WORTH_NS;
}

static void read_slow(
	struct counters *counters, struct counters_shared *shared, const struct watched *watched, uint64_t now_ns) {
	counters->own_age++;
	if (is_own_due(counters, watched, shared->processes)) {
		counters->own_age = 0;
		counters->own_cpu_ns = watched->cpu_ns;
		read_own(counters, watched->target);
	}
	read_shared(shared, now_ns);
	counters->host_available_bytes = shared->host_available_bytes;
	counters->cgroup = read_group(shared, &watched->target->proc);
	counters->slow_ns = now_ns;
}

void counters_fill(struct counters *counters, struct counters_shared *shared, const struct watched *watched,
	uint64_t slow_every_ns, uint64_t now_ns, struct detect_process *process) {
	if (!counters->slow_ns || now_ns - counters->slow_ns >= slow_every_ns)
		read_slow(counters, shared, watched, now_ns);
	counters_fill_last(counters, watched, process);
}

void counters_fill_last(
	const struct counters *counters, const struct watched *watched, struct detect_process *process) {
	const struct proc *proc = &watched->target->proc;

	process->start_ns = proc->start_ticks * (NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK));
	process->fds = watched->counters.fds;
	process->fd_limit = counters->fd_limit;
	process->threads_total = watched->counters.threads;
	process->children = counters->children;
	process->zombies = counters->zombies;
	process->memory_bytes = counters->cgroup.memory_bytes;
	process->memory_limit_bytes = counters->cgroup.memory_limit_bytes;
	process->memory_stall_pct = counters->cgroup.memory_some_pct;
	process->tasks = counters->cgroup.tasks;
	process->tasks_limit = counters->cgroup.tasks_limit;
	process->host_available_bytes = counters->host_available_bytes;
	process->private_bytes = watched->private_bytes;
	for (size_t i = 0; i < PY_GENERATIONS; i++)
		process->collector[i] = (struct detect_collector){
			.collections = counters->collector.generations[i].collections,
			.collected = counters->collector.generations[i].collected,
			.uncollectable = counters->collector.generations[i].uncollectable,
		};
}
