/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_ARRIVALS_H
#define PYSPYD_PIPELINE_ARRIVALS_H

#include "engine/pipeline/discover.h"
#include "engine/pipeline/ends.h"
#include "engine/proc/proc.h"

/* Processes that may be new Pythons, as the kernel tells of them: who executes a program, and whom a watched process
 * forks, is looked at shortly afterwards, and again as long as it is starting. And how watched processes end. */
struct arrivals;

/* `events` belongs to it. NULL: the kernel tells nothing; the owner looks for itself (discover.h). Return: 0; -ENOMEM.
 */
int arrivals_new(struct bpf_events *events, struct arrivals **ret_arrivals);
void arrivals_free(struct arrivals *arrivals);

bool arrivals_told(const struct arrivals *arrivals); /* whether the kernel tells */

/* A process is watched from now on, or not any more (and how it ended is forgotten). */
void arrivals_watch(struct arrivals *arrivals, pid_t pid);
void arrivals_forget(struct arrivals *arrivals, pid_t pid);

/* A process is to be looked at soon. Where there are too many, the owner has to look for itself. */
void arrivals_add(struct arrivals *arrivals, pid_t pid, uint64_t now_ns);

/* One event, the time it is taken as an argument (CLOCK_MONOTONIC). */
void arrivals_feed(struct arrivals *arrivals, const struct pye_event *event, uint64_t now_ns);

/* Waits until then (CLOCK_MONOTONIC), or until something has happened or is due, and takes what there is. */
void arrivals_wait(struct arrivals *arrivals, uint64_t until_ns);

/* Asks for each process that is due; with `last` nothing that it answers makes it be asked again. Return: how many were
 * asked for. */
typedef enum discover_answer (*arrivals_ask)(void *userdata, pid_t pid, bool last);
size_t arrivals_look(struct arrivals *arrivals, uint64_t now_ns, arrivals_ask ask, void *userdata);

/* A watched process that has executed a program, each told once. Return: whether there is one. */
bool arrivals_next_exec(struct arrivals *arrivals, pid_t *ret_pid);

/* Whether something was lost since this was asked last: then only a look at all processes helps. */
bool arrivals_lost(struct arrivals *arrivals);

/* How a process ended whose memory is gone. Return: 0; ARRIVALS_E_LATER: it is there, and its end will be told;
 * ARRIVALS_E_UNKNOWN. */
enum { ARRIVALS_E_LATER = 1, ARRIVALS_E_UNKNOWN };
int arrivals_end(struct arrivals *arrivals, const struct proc *proc, struct detect_end *ret_end);

/* Events that came, and that were lost. */
void arrivals_counts(const struct arrivals *arrivals, uint64_t *ret_received, uint64_t *ret_lost);

#endif
