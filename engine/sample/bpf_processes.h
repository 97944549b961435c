/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_BPF_PROCESSES_H
#define PYSPYD_SAMPLE_BPF_PROCESSES_H

#include "bpf/sample.h"
#include "engine/cpython/frames.h"

/* What every eBPF program that walks Python stacks is told of processes: where their interpreters keep what, and which
 * thread states their threads have. Each object has two maps for this, `processes` and `threads` (bpf/sample.h). */

/* The threads of one process that the programs know. */
struct bpf_told {
	uint32_t pid;
	VEC(uint64_t) thread_pointers;
};

struct bpf_processes {
	int processes_fd, threads_fd; /* of the maps; borrowed */
	VEC(struct bpf_told) told;
};

void bpf_processes_init(struct bpf_processes *processes, int processes_fd, int threads_fd);
void bpf_processes_deinit(struct bpf_processes *processes); /* also zeroed memory */

/* Whether a program can read this interpreter; interpreters and their threads are not looked at. Return: 0;
 * PYSPYD_E_UNSUPPORTED: its frames lie too far apart. */
int bpf_processes_describe(const struct py_runtime *rt, struct pyb_process *ret_process);

/* A process that is looked at from now on, and no more. Threads may be told before or after. Return: 0;
 * PYSPYD_E_UNSUPPORTED as above; -E2BIG: too many; MEM_E_*; negative errno. */
int bpf_processes_add(struct bpf_processes *processes, const struct py_runtime *rt, pid_t pid);
void bpf_processes_remove(struct bpf_processes *processes, pid_t pid);

/* Says which thread states the threads of a process have; those it had before and that are not among them are
 * forgotten. A thread that is not told is searched each time, which costs the target more. Return: 0; negative errno.
 */
int bpf_processes_set_threads(
	struct bpf_processes *processes, pid_t pid, const struct py_thread *const *threads, size_t n);

/* An event's frames as user space's own reader would have brought them; its vector grows as needed. Return: 0; -ENOMEM.
 */
int bpf_raw_stack(const struct py_runtime *rt, const struct pyb_event *event, const struct pyb_frame *frames,
	struct py_raw_stack *stack);

#endif
