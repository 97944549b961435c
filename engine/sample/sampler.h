/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_SAMPLER_H
#define PYSPYD_SAMPLE_SAMPLER_H

#include "engine/sample/target.h"
#include "pyspyd/record.h"

/* Who is looked at, when, and from where.
 *
 * Ticks come at a shared, jittered schedule. On every CPU on which a thread of a target runs, a sampler thread of high
 * priority wakes: it has then pushed that thread off the CPU, so its memory stands still while it is copied and
 * decoded. Threads that sleep stand still by themselves; one that has not run since its last sample is counted again,
 * unread. Where the kernel takes the running threads itself (eBPF), one sampler in user space minds those that sleep.
 * Without the privilege for the priority, one sampler looks from wherever it runs, and drops what its own clock
 * says took too long. */

/* A frame that is not Python's. */
struct sample_leaf {
	const char *name;
	enum pyspyd_lang lang;
};

struct sample {
	struct sample_target *target;
	struct sample_thread *thread;
	const uint32_t *places; /* in target->places, innermost first; NULL where the stack is that of the thread's last
				   sample */
	size_t n;
	unsigned flags; /* enum sample_flag, or-ed */
	uint64_t ticks; /* it stands for that many */
	/* Time off CPU: for how long, in so many sleeps; and what the innermost place had called, outermost first. */
	uint64_t ns; /* 0: by ticks */
	const struct sample_leaf *leaves;
	size_t leaves_n;
};

struct sampler_options {
	double rate_hz; /* 0: as fast as one CPU can, from wherever it runs */
	enum pyspyd_mode mode;
	bool want_gil, want_gc, want_native; /* flags that cost reads of their own: the first before 3.13 only */
	bool native_stacks;                  /* native and kernel frames around Python's; eBPF only */
	bool blocking;
	uint64_t threshold_ns; /* PYSPYD_MODE_OFFCPU: sleeps shorter than that are summed */
	bool kernel_stacks;    /* … and of native_stacks: with the kernel's functions */
	enum pyspyd_source source;
	bool ordinary_priority; /* do not try for a higher one (tests, benchmark) */
	/* Called with the target's lock held, from the samplers' threads. */
	void (*on_sample)(void *userdata, const struct sample *sample);
	void *userdata;
};

struct sampler;

/* Return: 0; PYSPYD_E_DENIED, PYSPYD_E_UNSUPPORTED where the source that was asked for is not to be had; negative
 * errno. */
int sampler_new(const struct sampler_options *options, struct sampler **ret_sampler, struct err *err);
void sampler_free(struct sampler *sampler); /* stops it first; the targets stay the caller's */

/* A target is added before or after the start; it must live until it is removed or the sampler is freed. Return: 0;
 * -ENOSPC. */
int sampler_add(struct sampler *sampler, struct sample_target *target);

/* Takes a target out, in the middle of sampling too. When it returns no sampler knows the target any more. Call without
 * any target's lock. */
void sampler_remove(struct sampler *sampler, struct sample_target *target);

/* Starts the sampler threads. Return: 0; negative errno. */
int sampler_start(struct sampler *sampler);

/* Ends sampling and counts idle threads up to now. */
void sampler_stop(struct sampler *sampler);

/* Goes on with another rate, above 0; not for a sampler of the highest rate. Call from the thread that started it,
 * without any lock. Return: 0; negative errno: it stands still. */
int sampler_set_rate(struct sampler *sampler, double rate_hz);

/* Counts idle threads of a target up to now. Call with the target's lock held. */
void sampler_flush(struct sampler *sampler, struct sample_target *target);

void sampler_accuracy(const struct sampler *sampler, struct pyspyd_accuracy *ret);
uint64_t sampler_period_ns(const struct sampler *sampler);

#endif
