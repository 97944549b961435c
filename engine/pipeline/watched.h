/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PIPELINE_WATCHED_H
#define PYSPYD_PIPELINE_WATCHED_H

#include "engine/pipeline/recorder.h"
#include "engine/pipeline/window.h"
#include "pyspyd/watch.h"

/* One process of a watch: what is kept of it from report to report. */

struct watched_thread {
	pid_t tid;
	uint64_t run_ns;             /* as of the last report */
	uint64_t user_ns, system_ns; /* of busy threads */
	double cpu_percent;          /* over the last interval */
	double user_share;           /* of its CPU time, 0 to 1; negative: not known */
	uint64_t voluntary, involuntary;
	char state;
	char *name;
	bool seen; /* in this report */
};

struct watched {
	struct sample_target *target;
	struct pyspyd_process process;
	struct window window;
	VEC(struct watched_thread) threads;
	struct proc_counters counters;
	double cpu_percent;
	uint64_t cpu_ns;      /* as of the last report; 0: none yet */
	uint64_t last_ns;     /* time of the last report */
	uint64_t interval_ns; /* that it covered */
	uint64_t smaps_ns;    /* when the costly counters were read last */
	bool ended;
	void *detection; /* findings.h */
};

int watched_new(struct sample_target *target, struct watched **ret_watched);
void watched_free(struct watched *watched);

/* Reads counters and threads. Return: 0; PYSPYD_E_GONE; negative errno. */
int watched_update(struct watched *watched, uint64_t now_ns);

/* Fills the public shape; free with watched_report_deinit. `recorder` locked. */
int watched_report(const struct watched *watched, struct recorder *recorder, struct pyspyd_watch_process *ret);
void watched_report_deinit(struct pyspyd_watch_process *report);

/* The frames of a node of the profile, most recent call first; the caller's (pyspyd_frames_free). `recorder` locked. */
int watched_frames(const struct profile *profile, uint32_t node, struct pyspyd_frame **ret_frames, size_t *ret_n);

#endif
