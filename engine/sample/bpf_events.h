/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_BPF_EVENTS_H
#define PYSPYD_SAMPLE_BPF_EVENTS_H

#include "bpf/events.h"
#include "pyspyd/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What the kernel tells of processes as it happens (bpf/events.bpf.c): every exec, the forks and the end of those that
 * are watched. Pids are those of our own PID namespace; processes that have none there are not told of. All calls from
 * one thread. */
struct bpf_events;

/* `starts`: whether forks, and execs of processes that are not watched, are of interest. Return: 0; PYSPYD_E_DENIED,
 * PYSPYD_E_UNSUPPORTED with the reason; -ENOMEM. */
int bpf_events_new(bool starts, struct bpf_events **ret_events, struct err *err);
void bpf_events_free(struct bpf_events *events);

/* Whose forks and end are told from now on. Costs nothing. */
void bpf_events_watch(struct bpf_events *events, pid_t pid, bool on);

/* Waits until there is an event, or the time is over. Return: whether there may be one. */
bool bpf_events_wait(struct bpf_events *events, int timeout_ms);

/* Hands over what has come, in its order for each CPU. */
void bpf_events_take(
	struct bpf_events *events, void (*on_event)(void *userdata, const struct pye_event *event), void *userdata);

/* Since the start, by enum pye_count. */
void bpf_events_counts(const struct bpf_events *events, uint64_t ret_counts[PYE_COUNTS]);

#endif
