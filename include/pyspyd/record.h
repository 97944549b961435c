/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_RECORD_H
#define PYSPYD_RECORD_H

#include "pyspyd/dump.h"

/* Sampling a process for a while into a profile file. */

enum pyspyd_mode {
	PYSPYD_MODE_WALL,   /* every thread at every tick */
	PYSPYD_MODE_CPU,    /* threads that are on a CPU */
	PYSPYD_MODE_GIL,    /* the thread that holds the GIL */
	PYSPYD_MODE_OFFCPU, /* how long threads are off their CPU; eBPF only, and it samples nothing: each sleep counts
			     */
	PYSPYD_MODE_ALLOC,  /* where memory comes from: pyspyd_record_alloc */
};

struct pyspyd_record_options {
	double rate_hz;       /* 0: as fast as one CPU can */
	uint64_t duration_ns; /* 0: until stopped or the process ends */
	enum pyspyd_mode mode;
	const char *format; /* "svg", "html", "collapsed", "speedscope", "pprof", "gecko", "chrome" */
	bool children;      /* descendants too, those that come later included */
	bool threads;       /* the thread as the outermost element of each stack */
	bool native;        /* native and kernel frames around Python's; eBPF only */
	bool blocking;      /* stop the Python threads for each sample */
	enum pyspyd_source source;
	uint64_t threshold_ns; /* offcpu: shorter sleeps of a thread are summed, and counted where their sum is that */
	bool kernel;           /* offcpu, and native: with the kernel's functions */
	const volatile int *stop; /* set to non-zero by a signal handler: ends the recording early; may be NULL */
	void (*progress)(void *userdata, uint64_t elapsed_ns,
		const struct pyspyd_accuracy *accuracy); /* about twice a second; may be NULL */
	void *userdata;
};

/* Samples pid and writes the profile to out_fd (which stays the caller's). A process that ends in the middle is not a
 * failure of the profile: what was collected is written and PYSPYD_E_GONE returned, with *ret_accuracy filled, when it
 * ended before the duration was over and a duration was given; without a duration the end of the process is the
 * ordinary end (0). Return: 0; PYSPYD_E_GONE, _DENIED, _UNSUPPORTED, _USAGE (format); negative errno. */
int pyspyd_record(pid_t pid, const struct pyspyd_record_options *options, int out_fd,
	struct pyspyd_accuracy *ret_accuracy, struct err *err);

/* Sampling of allocations, by probes in the process's allocators: each allocation there costs the process time. */
struct pyspyd_alloc_options {
	uint64_t every_bytes;    /* a sample for so many bytes, on average */
	double max_slowdown_pct; /* where the probes cost the process more they are there for a part of the time, and
				    what is seen then stands for all of it; 0: always */
	bool native;             /* what C code takes as well */
};

#define PYSPYD_SLOWDOWN_MAX_PCT 1000.0 /* or more */

/* What was seen, and what it cost the process. */
struct pyspyd_alloc_cost {
	uint64_t hits;    /* allocations that met a probe; what is below is of those alone */
	uint64_t others;  /* … of other processes that run the same file */
	uint64_t bytes;   /* of all allocations that were looked at; what is resized counts with its new size */
	uint64_t samples; /* stacks in the profile */
	uint64_t lost;    /* stacks that are missing in it */
	uint64_t unknown; /* samples of threads that have no Python */
	size_t probes;    /* places where the allocators are */
	size_t not_seen;  /* places that could have no probe */
	uint64_t hit_ns;  /* that a hit costs, measured before */
	uint64_t spent_ns, cpu_ns; /* of the process: with the probes, and in all */
	double slowdown_pct;       /* the same, in percent of what it would have used without them */
	double watched_pct;        /* of the time that the process has used, without them: what was looked at */
	uint64_t windows;          /* times that they were put there */
	bool rough; /* they took most of the time that was looked at: how much it is in all may be wrong manyfold */
};

/* As pyspyd_record; of the options rate_hz, mode, children, blocking and source mean nothing. The kernel patches the
 * process's code page for each probe; none is left when this returns, or this process ends. Return: as pyspyd_record;
 * *ret_cost is filled where the recording began. */
int pyspyd_record_alloc(pid_t pid, const struct pyspyd_record_options *options,
	const struct pyspyd_alloc_options *alloc_options, int out_fd, struct pyspyd_alloc_cost *ret_cost,
	struct err *err);

/* The format a file name's ending stands for (".svg", ".html"/".htm", ".collapsed"/".txt"/".folded",
 * ".json"/".speedscope.json", ".pb.gz"/".pprof", ".gecko.json", ".chrome.json"/".trace.json"), or NULL. */
const char *pyspyd_format_of(const char *file_name);

#endif
