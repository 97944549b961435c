/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WATCH_H
#define PYSPYD_WATCH_H

#include "pyspyd/dump.h"
#include "pyspyd/finding.h"
#include "pyspyd/value.h"

/* The main job: counters of processes and their threads, and findings as they come. */

struct pyspyd_watch_thread {
	pid_t tid;
	char *name;
	char state;
	double cpu_percent; /* of one core, over the last interval, from the kernel's run counter */
	double gil_percent; /* share of the samples in which it held the GIL; negative: not known */
	uint64_t voluntary_switches, involuntary_switches; /* since it started */
	char *where; /* "function (file:line)" where it was seen most in the interval, or is now */
};

struct pyspyd_watch_process {
	struct pyspyd_process process;
	double cpu_percent;                                /* all threads */
	uint64_t rss_bytes, pss_bytes, uss_bytes;          /* UINT64_MAX: not known */
	uint64_t fds, threads_total;                       /* UINT64_MAX: not known */
	uint64_t voluntary_switches, involuntary_switches; /* UINT64_MAX: not known */
	struct pyspyd_watch_thread *threads;               /* by CPU, highest first */
	size_t threads_n;
	struct pyspyd_accuracy accuracy; /* since the watch began */
	bool ended;
};

struct pyspyd_watch_options {
	pid_t pid;                   /* one process, or … */
	const char *name_regex;      /* … those whose command line matches (POSIX extended), or … */
	bool all;                    /* … every Python process here */
	bool children;               /* and their descendants */
	double rate_hz;              /* of stack samples; default 20 */
	uint64_t interval_ns;        /* between reports; default 1 s */
	uint64_t duration_ns;        /* 0: until stopped or the last process ended */
	const char *const *settings; /* NULL-terminated "DETECTOR.KEY=VALUE"; may be NULL */
	const char *const *park;     /* NULL-terminated "MODULE:QUALNAME", as in pyspyd_waits_options; may be NULL */
	const char *const *vars;     /* NULL-terminated "MODULE:NAME.NAME[0]['key']"; may be NULL */
	bool unmask;                 /* show values that are masked by name */
	const volatile int *stop;
	/* Return: non-zero to end the watch; that value is then returned. Everything handed in belongs to the watch. */
	int (*on_report)(void *userdata, const struct pyspyd_watch_process *processes, size_t n);
	int (*on_finding)(void *userdata, const struct pyspyd_finding *finding);
	/* Each of vars in each process, once an interval, before the report. */
	int (*on_value)(void *userdata, const struct pyspyd_value *value);
	void *userdata;
};

/* Watches until the duration is over, all processes ended, *stop is set, or a callback ends it.
 * Return: 0; a callback's value; PYSPYD_E_GONE where the only process named by pid ended; PYSPYD_E_DENIED,
 * _UNSUPPORTED, _USAGE (a setting, a park site, a name in vars, the regular expression); negative errno. */
int pyspyd_watch(const struct pyspyd_watch_options *options, struct err *err);

#endif
