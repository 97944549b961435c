/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_SAMPLER_INTERNAL_H
#define PYSPYD_SAMPLE_SAMPLER_INTERNAL_H

#include "engine/sample/bpf_source.h"
#include "engine/sample/native_stacks.h"
#include "engine/sample/priority.h"
#include "engine/sample/sampler.h"
#include "engine/sample/schedule.h"
#include <semaphore.h>
#include <stdatomic.h>

/* What the samplers of user space (sampler.c) and the one that has the kernel take those that run (sampler_kernel.c)
 * share. */

#define SAMPLER_TARGETS_MAX 4096

struct cpu_sampler {
	struct sampler *owner;
	int cpu; /* -1: bound to none */
	pthread_t thread;
	atomic_bool started;
	atomic_bool ran; /* was awake at least once; `priority` is known */
	sem_t wake;
	atomic_bool awake;
	atomic_uint rounds; /* odd while it goes through the targets */
	enum sample_priority priority;
	atomic_uint_fast64_t busy_ns; /* when it last had a thread of its own */
	struct py_stack_scratch scratch;
	struct py_raw_stack stack;
	uint32_t *places;
	struct proc_task self; /* this thread's own */
	uint64_t arrived_ns;   /* when it got the CPU for arrived_tick, as the scheduler says */
	uint64_t arrived_tick;
	uint64_t usual_copy_ns;
	uint64_t wake_floor_ns;       /* how late the promptest of the last wake-ups were */
	bool prompt;                  /* this tick's wake-up was */
	struct pyspyd_accuracy count; /* written by this sampler alone */
};

struct sampler {
	struct sampler_options options;
	struct schedule schedule;
	struct proc self;
	_Atomic(struct sample_target *) targets[SAMPLER_TARGETS_MAX]; /* with gaps */
	atomic_size_t targets_n;                                      /* slots in use, the gaps among them */
	struct cpu_sampler *cpus; /* cpus_n of them; one, unbound, where it is remote */
	size_t cpus_n;
	atomic_int leader;
	atomic_uint_fast64_t looked_tick;
	atomic_bool stop;
	uint64_t expected_before; /* looks, at rates that were set before this one */
	bool remote;              /* one sampler, bound to no CPU */
	bool running;
	atomic_uint_fast64_t stopped_ns; /* until when it samples; 0: it runs on */
	struct bpf_source *kernel;       /* who takes the threads that run; NULL: the samplers themselves */
	struct offcpu *offcpu;           /* who tells how long threads sleep, where that alone is asked for */
	atomic_uint changes;             /* of targets */
	unsigned changes_seen;           /* by the kernel's sampler, as the next two */
	struct map by_pid;               /* place in targets */
	VEC(pid_t) kernel_pids;          /* that the kernel was told of */
	struct native_stacks *native;
	struct task_looks *task_looks; /* the kernel's sampler's; NULL: not wanted yet */
	int hurry_fd;                  /* written to when it is to stop */
};

struct look {
	struct cpu_sampler *me;
	struct sample_target *target;
	uint64_t tick;
	uint64_t now_ns;
	raddr view_interp; /* of which view was read */
	struct py_interp_view view;
	uint64_t active_run_ns;
	uint64_t process_run_ns; /* as look_mind_idle found it */
};

/* Hands a sample to the sink. `places` NULL: the thread's last one again. */
void look_emit(struct look *look, struct sample_thread *thread, const uint32_t *places, size_t n, uint64_t ticks);
bool sampler_mode_wants(enum pyspyd_mode mode, unsigned flags);

/* False for a thread state that has no frames while another one of the same kernel thread may have. */
bool look_counts(const struct sample_thread *thread);

/* Copies and decodes a thread's stack; this tick has been accounted for, whatever becomes of it. Return: as
 * py_stack_capture and sample_target_decode. */
int look_read_stack(struct look *look, struct sample_thread *thread);
void sampler_count_failure(struct cpu_sampler *me, int r);

/* Flags of the stack that was read last. */
unsigned look_flags(struct look *look, const struct sample_thread *thread, bool running);

/* Finds threads that fell asleep or woke up, began or ended. */
void look_mind_idle(struct look *look);
bool look_minds(const struct look *look); /* whether it is this target's turn */

/* Calls visit for each target, locked. */
void sampler_visit(struct cpu_sampler *me, uint64_t tick, uint64_t now_ns, void (*visit)(struct look *look));

/* The loop of the only sampler where the kernel takes the threads that run. */
void sampler_run_kernel(struct cpu_sampler *me);

/* For all that tell the kernel of processes: the index of targets, and what was told of those that are gone. */
void kernel_follow_changes(struct sampler *sampler, struct bpf_processes *processes);
struct sample_target *kernel_target_of(struct sampler *sampler, pid_t pid);
struct sample_thread *kernel_thread_of(const struct sample_target *target, raddr tstate);
void kernel_tell_threads(struct look *look, struct bpf_processes *processes);

/* Whether a thread, or an interpreter, may have begun since the last call; from a few words of the process. */
bool kernel_has_new_state(struct sample_target *target);

/* What a thread's counters and state say of it since the last look. `stat` is as of look->now_ns. */
void kernel_look_at(struct look *look, struct sample_thread *thread, char state, const struct proc_schedstat *stat);

/* It slept until it ran: that time goes to where it slept. */
void kernel_wake(struct look *look, struct sample_thread *thread, const struct proc_schedstat *stat);

/* Whether it has slept since its stack was read. */
bool kernel_is_settled(const struct sample_thread *thread, const struct proc_schedstat *stat);

/* Looks at many targets by passes through the kernel's tasks (sampler_tasks.c), where that pays: marks those that were
 * passed, and those that changed. Between rounds. */
void task_looks_turn(struct cpu_sampler *me, uint64_t tick, uint64_t now_ns);
bool task_looks_are_fresh(const struct look *look); /* whether there was one for this look */
void task_looks_at(struct look *look);              /* all threads of a target that was passed */
void task_looks_free(struct task_looks *looks);

/* Time off CPU (sampler_offcpu.c). Return: 0; PYSPYD_E_DENIED, PYSPYD_E_UNSUPPORTED with the reason; -ENOMEM. */
int offcpu_new(const struct sampler_options *options, struct offcpu **ret_offcpu, struct err *err);
void offcpu_free(struct offcpu *offcpu);
void offcpu_accuracy(struct offcpu *offcpu, struct pyspyd_accuracy *sum);
void sampler_run_offcpu(struct cpu_sampler *me); /* the loop of the only sampler */

/* As it does: counts a thread that sleeps again, for the time since it was last accounted for. */
void kernel_repeat(struct look *look, struct sample_thread *thread);

#endif
