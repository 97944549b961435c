/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_BPF_SOURCE_H
#define PYSPYD_SAMPLE_BPF_SOURCE_H

#include "engine/sample/bpf_processes.h"
#include "engine/sample/bpf_tables.h"
#include "pyspyd/err.h"

/* Samples of the threads that are on a CPU, by an eBPF program in each CPU's timer interrupt (bpf/sample.bpf.c): no
 * stack is torn, and nobody is stopped. Knows processes and raw frames; whose samples they are, and what they mean, is
 * the sampler's business. All calls from one thread at a time. */
struct bpf_source;

struct bpf_source_options {
	double rate_hz;      /* of each CPU, above 0 */
	uint32_t ring_bytes; /* 0: by rate and number of CPUs */
	bool native;         /* native stacks come with the samples */
	bool native_copies;  /* … each with a copy of the stack's top (tests) */
};

/* Each is NULL where it was not asked for, or did not come; the latter also where the former has all there is to tell.
 */
struct bpf_native {
	const struct pyb_native *frames;
	const struct pyb_stack *stack;
};

typedef void (*bpf_source_event)(
	void *userdata, const struct pyb_event *event, const struct pyb_frame *frames, const struct bpf_native *native);

/* Where the kernel counts, since the source was made. */
struct bpf_source_counts {
	uint64_t expected;       /* interrupts that the clocks of all CPUs should have had */
	uint64_t by[PYB_COUNTS]; /* enum pyb_count */
};

/* Loads and attaches. Return: 0; PYSPYD_E_DENIED, PYSPYD_E_UNSUPPORTED with the reason; -ENOMEM. */
int bpf_source_new(const struct bpf_source_options *options, struct bpf_source **ret_source, struct err *err);
void bpf_source_free(struct bpf_source *source);

/* Begins and ends the sampling of a process, and tells of its threads, as bpf_processes.h has it. */
int bpf_source_add(struct bpf_source *source, const struct py_runtime *rt, pid_t pid);
void bpf_source_remove(struct bpf_source *source, pid_t pid);
int bpf_source_set_threads(struct bpf_source *source, pid_t pid, const struct py_thread *const *threads, size_t n);

/* Whom those tell. */
struct bpf_processes *bpf_source_processes(struct bpf_source *source);

/* Where native stacks come with the samples: who is told how to unwind them. Else NULL. */
struct bpf_tables *bpf_source_tables(struct bpf_source *source);

/* Another rate. Return: 0; negative errno. */
int bpf_source_set_rate(struct bpf_source *source, double rate_hz);

/* Waits until the ring fills up, other_fd can be read, or the time is over. */
void bpf_source_wait(struct bpf_source *source, int other_fd, uint64_t timeout_ns);

/* Hands over what has come, oldest first for each CPU. What it points to stands until on_event returns. */
void bpf_source_take(struct bpf_source *source, bpf_source_event on_event, void *userdata);

/* As of now, or of at most max_age_ns ago: asking the kernel takes a call for each counter. */
void bpf_source_counts(struct bpf_source *source, uint64_t max_age_ns, struct bpf_source_counts *ret);

#endif
