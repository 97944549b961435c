/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_RECORDER_H
#define PYSPYD_PIPELINE_RECORDER_H

#include "engine/profile/profile.h"
#include "engine/sample/sampler.h"

/* Samples into a profile, for any number of targets that come and go. What record and watch share. */

struct recorder;

/* on_sample, in addition to the profile's counting: under the recorder's lock and the target's; may be NULL. */
typedef void (*recorder_tap)(void *userdata, const struct sample *sample, uint32_t node);

struct recorder_options {
	struct sampler_options sampler; /* its on_sample and userdata are the recorder's to set */
	recorder_tap tap;
	void *userdata;
};

int recorder_new(const struct recorder_options *options, struct recorder **ret_recorder, struct err *err);
void recorder_free(struct recorder *recorder);

/* Attaches to a process and samples it from now on. `wait_ns` as in sample_target_new. *ret_target may be NULL; it
 * belongs to the recorder. Return: 0; PYSPYD_E_*; negative errno. */
int recorder_add(
	struct recorder *recorder, pid_t pid, uint64_t wait_ns, struct sample_target **ret_target, struct err *err);

/* Takes a target out and frees it; what it gave to the profile stays. Call without any lock. */
void recorder_drop(struct recorder *recorder, struct sample_target *target);

int recorder_start(struct recorder *recorder);
void recorder_stop(struct recorder *recorder);

/* As sampler_set_rate: what is counted from now on stands for that much more or less time. */
int recorder_set_rate(struct recorder *recorder, double rate_hz);

/* To be called a few times a second from one thread: notices processes that ended or execute another program (attaches
 * anew where that is a Python), names threads, and with `children` adds new descendants of every target. Return: how
 * many targets have not ended. */
size_t recorder_tend(struct recorder *recorder, bool children);

/* The targets, ended ones too until they are dropped. Good until the next recorder_add, _tend or _drop. */
struct sample_target *const *recorder_targets(const struct recorder *recorder, size_t *ret_n);

/* The profile, with accuracy and duration up to date. Lock while it is used and the sampler runs. */
struct profile *recorder_profile(struct recorder *recorder);
void recorder_lock(struct recorder *recorder);
void recorder_unlock(struct recorder *recorder);

/* Starts the profile and everything that was decoded anew, so that a long watch does not grow without end. Ids and
 * nodes given before mean nothing afterwards. Call without any lock. Return: 0; -ENOMEM. */
int recorder_forget(struct recorder *recorder);

struct sampler *recorder_sampler(struct recorder *recorder);

/* The node of a thread's last stack; 0: none. */
uint32_t recorder_last_node(const struct sample_thread *thread);

/* Looks at once whether a process of the recorder has executed another program; recorder_tend attaches to it then. */
void recorder_executed(struct recorder *recorder, pid_t pid);

/* The profile's id of a thread that was sampled, or UINT32_MAX. */
uint32_t recorder_thread_id(const struct sample_thread *thread);

#endif
