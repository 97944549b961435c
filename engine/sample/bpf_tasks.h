/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_BPF_TASKS_H
#define PYSPYD_SAMPLE_BPF_TASKS_H

#include "pyspyd/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The counters of threads, of all that are asked for in one pass through the kernel's tasks (bpf/tasks.bpf.c). Ids are
 * those of our own PID namespace; tasks that have none there are left out. All calls from one thread. */
struct bpf_tasks;

struct bpf_task {
	pid_t pid, tid;
	char state; /* as in /proc/PID/stat */
	int cpu;    /* it last ran on */
	/* As in schedstat; the latter two are 0 where the kernel does not count them. */
	uint64_t run_ns, wait_ns, slices;
	uint64_t voluntary, involuntary; /* switches */
	uint64_t start_ns;               /* since boot */
};

typedef void (*bpf_tasks_sink)(void *userdata, const struct bpf_task *task);

/* Return: 0; PYSPYD_E_DENIED, PYSPYD_E_UNSUPPORTED with the reason; -ENOMEM. */
int bpf_tasks_new(struct bpf_tasks **ret_tasks, struct err *err);
void bpf_tasks_free(struct bpf_tasks *tasks);

/* Whose threads are told from now on. Costs nothing. */
void bpf_tasks_watch(struct bpf_tasks *tasks, pid_t pid, bool on);

/* One pass: tells the threads of those that are watched, or of everybody, by ascending tid. One that begins or ends
 * meanwhile is there or not. Return: 0; negative errno: what has been told is good, but not all. */
int bpf_tasks_read(struct bpf_tasks *tasks, bool everybody, bpf_tasks_sink sink, void *userdata);

/* How many tasks the last pass went through, whoever they were: what it costs. */
uint64_t bpf_tasks_visited(const struct bpf_tasks *tasks);

/* Pure: tells of the whole records among these bytes. What makes no sense is skipped. Return: bytes that were used; the
 * rest is the beginning of a record. */
size_t bpf_tasks_take(const void *data, size_t len, bpf_tasks_sink sink, void *userdata);

/* Pure: the letter for the kernel's bits, as /proc has it. */
char bpf_tasks_state(uint32_t bits);

#endif
