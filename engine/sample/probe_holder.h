/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_SAMPLE_PROBE_HOLDER_H
#define PYSPYD_SAMPLE_PROBE_HOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Probes in a process's code, attached and held by a process of their own, so that they go in order however this one
 * ends. */

#define PROBE_FILES_MAX 2
#define PROBE_ATTACH_MULTI 48 /* BPF_TRACE_UPROBE_MULTI, which older headers lack */

struct probe_file {
	int fd;
	uint32_t n;
	uint64_t *offsets, *cookies; /* n of each; in the file, and what the program is told there */
};

/* What is to be attached. */
struct probe_plan {
	int prog_fd;
	bool multi; /* Linux 6.6: in process `pid` alone; else perf events (5.15), in all that run the file */
	pid_t pid;
	struct probe_file files[PROBE_FILES_MAX]; /* those with n == 0 are left out */
};

struct probe_holder {
	int fd; /* -1: nothing is attached */
	pid_t pid;
};

/* Attaches all of a plan. The holder has nothing attached before. Return: 0; negative errno: nothing is. */
int probe_holder_attach(struct probe_holder *holder, const struct probe_plan *plan);

/* Takes the probes away: afterwards there are none. Nothing happens where there are none. */
void probe_holder_detach(struct probe_holder *holder);

#endif
