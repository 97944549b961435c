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
	bool kernel;           /* offcpu: with the kernel's functions */
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

/* The format a file name's ending stands for (".svg", ".html"/".htm", ".collapsed"/".txt"/".folded",
 * ".json"/".speedscope.json", ".pb.gz"/".pprof", ".gecko.json", ".chrome.json"/".trace.json"), or NULL. */
const char *pyspyd_format_of(const char *file_name);

#endif
