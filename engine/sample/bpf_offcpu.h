/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_BPF_OFFCPU_H
#define PYSPYD_SAMPLE_BPF_OFFCPU_H

#include "bpf/offcpu.h"
#include "engine/sample/bpf_processes.h"
#include "pyspyd/err.h"

/* How long threads are off their CPU, and at which stack, as the kernel's scheduler tells it (bpf/offcpu.bpf.c). Whose
 * threads they are, and what the stacks mean, is the sampler's business. All calls from one thread at a time. */
struct bpf_offcpu;

struct bpf_offcpu_options {
	uint64_t threshold_ns; /* shorter sleeps of a thread are summed until they make up so much */
	bool kernel_stacks;    /* with the addresses of the kernel's functions */
	bool old_kernel;       /* go without what kernels before 5.12 lack (tests) */
};

/* Loads and attaches. Return: 0; PYSPYD_E_DENIED, PYSPYD_E_UNSUPPORTED with the reason; -ENOMEM. */
int bpf_offcpu_new(const struct bpf_offcpu_options *options, struct bpf_offcpu **ret_offcpu, struct err *err);
void bpf_offcpu_free(struct bpf_offcpu *offcpu);

/* Whom to tell of processes and their threads. */
struct bpf_processes *bpf_offcpu_processes(struct bpf_offcpu *offcpu);

/* From now on the threads of a process that was added and that sleep are accounted for; where they do is not known.
 * Return: 0; negative errno. */
int bpf_offcpu_begin(struct bpf_offcpu *offcpu, pid_t pid);

/* Looks at no more switches, and lets threads that sleep on and sums of short sleeps be told, up to now. Take
 * afterwards. Return: 0; negative errno. */
int bpf_offcpu_end(struct bpf_offcpu *offcpu);

/* Waits until the ring fills up, other_fd can be read, or the time is over. */
void bpf_offcpu_wait(struct bpf_offcpu *offcpu, int other_fd, uint64_t timeout_ns);

struct bpf_offcpu_sink {
	/* A stack that was not met before; the events that name it come later. */
	void (*on_stack)(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames);
	void (*on_sleep)(void *userdata, const struct pyb_off *event); /* kernel_n addresses are there */
	void *userdata;
};

/* Hands over what has come. */
void bpf_offcpu_take(struct bpf_offcpu *offcpu, const struct bpf_offcpu_sink *sink);

struct bpf_offcpu_counts {
	uint64_t by[PYB_OFF_COUNTS]; /* enum pyb_count, enum pyb_off_count */
	uint64_t missed;             /* runs of the program that the kernel left out */
};
void bpf_offcpu_counts(struct bpf_offcpu *offcpu, struct bpf_offcpu_counts *ret);

#endif
