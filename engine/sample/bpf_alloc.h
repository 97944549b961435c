/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_BPF_ALLOC_H
#define PYSPYD_SAMPLE_BPF_ALLOC_H

#include "engine/proc/proc.h"
#include "engine/sample/bpf_processes.h"
#include "pyspyd/err.h"

/* Samples of allocations of one process, by an eBPF program at probes in its allocators (bpf/alloc.bpf.c).
 *
 * The kernel puts a breakpoint into the process's code for each probe (a copy of the page, of that process alone where
 * the kernel has multi-probes, 6.6 and later; before, each process that runs the same file has them). They are gone
 * when this is freed, or this process ends, however it does. All calls from one thread at a time. */
struct bpf_alloc;

struct bpf_alloc_options {
	uint64_t every_bytes; /* one sample for so many bytes on average; above 0 */
	bool native;          /* the C library's allocator as well */
	bool old_probes;      /* as before 6.6 (tests) */
};

struct bpf_alloc_counts {
	uint64_t hits;           /* of probes, in the process */
	uint64_t others;         /* … in other processes that run the same file */
	uint64_t inner;          /* … that were one allocator called by another, not counted twice */
	uint64_t bytes;          /* that were asked for */
	uint64_t spent_ns;       /* of the process's time, by what a hit costs and the stacks took: an estimate */
	uint64_t hit_ns;         /* measured here, on a function of our own, before the beginning */
	size_t probes, not_seen; /* places where allocators are; those among them that could not have a probe */
	uint64_t by[PYB_COUNTS];
};

/* Loads, measures what a hit costs, and attaches; nothing is watched yet. Return: 0; PYSPYD_E_DENIED,
 * PYSPYD_E_UNSUPPORTED with the reason; PYSPYD_E_GONE; negative errno. */
int bpf_alloc_new(const struct bpf_alloc_options *options, const struct proc *proc, const struct py_runtime *rt,
	struct bpf_alloc **ret_alloc, struct err *err);
void bpf_alloc_free(struct bpf_alloc *alloc);

/* The process's interpreters and threads, as they are now. */
int bpf_alloc_set_threads(
	struct bpf_alloc *alloc, const struct py_runtime *rt, const struct py_thread *const *threads, size_t n);

/* While the probes are there: whether allocations are counted and sampled, or only cost their time. */
void bpf_alloc_watch(struct bpf_alloc *alloc, bool watching);

/* Takes the probes away. What is in the ring stays there. */
void bpf_alloc_detach(struct bpf_alloc *alloc);

/* Puts them back. Return: 0; as bpf_alloc_new. */
int bpf_alloc_attach(struct bpf_alloc *alloc, struct err *err);

/* Waits until there are samples, or the time is over. */
void bpf_alloc_wait(struct bpf_alloc *alloc, uint64_t timeout_ns);

/* Hands over what has come; frames stay valid for the call alone. */
void bpf_alloc_take(struct bpf_alloc *alloc,
	void (*on_event)(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames),
	void *userdata);

void bpf_alloc_counts(struct bpf_alloc *alloc, struct bpf_alloc_counts *ret);

#endif
