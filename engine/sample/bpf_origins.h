/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_BPF_ORIGINS_H
#define PYSPYD_SAMPLE_BPF_ORIGINS_H

#include "bpf/origins.h"
#include "engine/sample/bpf_processes.h"
#include "pyspyd/err.h"

/* Which call made which descriptor, thread, child and mapping, and at which Python stack, by eBPF programs at the end
 * of system calls (bpf/origins.bpf.c). They are attached as long as this lives, and cost every system call of the host
 * some nanoseconds: so it is there while it is wanted, and pauses where that is too much. All calls from one thread at
 * a time. */
struct bpf_origins;

/* A thing that is there, as far as what was seen tells. */
struct bpf_origin {
	uint64_t id; /* descriptor, thread id, pid, address */
	enum pyb_origin_what what;
	struct pyb_origin made;
	bool unsure; /* a descriptor that may have been closed in a pause: it stands if its file has made.inode still */
};
typedef VEC(struct bpf_origin) bpf_origin_vec;

struct bpf_origins_counts {
	uint64_t by[PYB_ORIGIN_COUNTS];
	uint64_t pauses, paused_ns; /* how often, and how long, there were too many system calls to look at them */
};

/* Loads and attaches. Return: 0; PYSPYD_E_DENIED, PYSPYD_E_UNSUPPORTED with the reason; -ENOMEM. */
int bpf_origins_new(struct bpf_origins **ret_origins, struct err *err);
void bpf_origins_free(struct bpf_origins *origins);

/* As in bpf_processes.h. What was made before a process is added is not known. */
int bpf_origins_add(struct bpf_origins *origins, const struct py_runtime *rt, pid_t pid);
int bpf_origins_set_threads(struct bpf_origins *origins, pid_t pid, const struct py_thread *const *threads, size_t n);
void bpf_origins_remove(struct bpf_origins *origins, pid_t pid);

/* Waits until a stack comes that was not told before, the time is over, or a signal comes. */
void bpf_origins_wait(struct bpf_origins *origins, int timeout_ms);

/* Hands over the stacks that have come, each once; event->name is theirs. `frames` stand until on_stack returns. */
void bpf_origins_take(struct bpf_origins *origins,
	void (*on_stack)(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames),
	void *userdata);

/* All stacks are told anew from now on. */
void bpf_origins_retell(struct bpf_origins *origins);

/* Every now and then: where so many system calls are made that a process, or a CPU, is slowed too much, they are not
 * looked at for a part of the time. */
void bpf_origins_tend(struct bpf_origins *origins, uint64_t now_ns);

/* A pause by hand, as long as it is not taken back (tests). */
void bpf_origins_hold(struct bpf_origins *origins, bool held);

/* What was seen to be made in a process and not to be closed, in no order; appended. *ret_left_out: how many things
 * were made without being written down, since there was no time left. Return: 0; -ESRCH: it executes another program;
 * negative errno. */
int bpf_origins_list(struct bpf_origins *origins, pid_t pid, bpf_origin_vec *ret_list, uint64_t *ret_left_out);

void bpf_origins_counts(struct bpf_origins *origins, struct bpf_origins_counts *ret);

#endif
