/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_PRIORITY_H
#define PYSPYD_SAMPLE_PRIORITY_H

/* The priority at which a sampler preempts what it looks at. */
enum sample_priority {
	PRIORITY_NONE, /* the ordinary one: no preemption at once, so no sampling from the target's own CPU */
	PRIORITY_NICE, /* nice -20 */
	PRIORITY_FIFO, /* SCHED_FIFO 1 */
};

/* Raises the calling thread as far as it may; where not at all, as priority_ordinary. Return: what was reached. */
enum sample_priority priority_raise(void);

/* Leaves the priority alone, and asks for the shortest time slice (Linux 6.12+, no privilege): the scheduler then lets
 * the caller run sooner when it wakes. Return: PRIORITY_NONE. */
enum sample_priority priority_ordinary(void);

const char *priority_name(enum sample_priority priority); /* "none", "nice", "fifo" */

#endif
