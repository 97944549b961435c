/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WATCH_H
#define PYSPYD_WATCH_H

#include "pyspyd/dump.h"
#include "pyspyd/finding.h"
#include "pyspyd/flight.h"
#include "pyspyd/value.h"

/* The main job: counters of processes and their threads, and findings as they come. */

struct pyspyd_watch_thread {
	pid_t tid;
	char *name;
	char state;
	double cpu_percent; /* of one core, over the last interval, from the kernel's run counter */
	double gil_percent; /* share of the samples in which it held the GIL; negative: not known */
	uint64_t voluntary_switches, involuntary_switches; /* since it started */
	char *where;     /* "function (file:line)" where it was seen most in the interval, or is now */
	char *exception; /* type of those that a busy thread was seen to raise or handle most in the interval; NULL:
			    none */
	double exception_percent; /* … in that share of the looks; ends of iterations do not count */
};

struct pyspyd_watch_process {
	struct pyspyd_process process;
	double cpu_percent;                       /* all threads */
	uint64_t rss_bytes, pss_bytes, uss_bytes; /* UINT64_MAX: not known */
	uint64_t private_bytes; /* anonymous memory of its own, in RAM or swap; UINT64_MAX: not known */
	uint64_t cpu_ns;        /* that it has used since it started */
	unsigned findings_open;
	uint64_t fds, threads_total;                       /* UINT64_MAX: not known */
	uint64_t voluntary_switches, involuntary_switches; /* of the threads that are there */
	struct pyspyd_watch_thread *threads;               /* by CPU, highest first; none with processes_only */
	size_t threads_n;
	struct pyspyd_accuracy accuracy; /* since the watch began */
	bool ended;
};

/* What a rule says of a process. */
struct pyspyd_watch_rule {
	bool exclude;                /* do not watch it */
	bool expect_busy;            /* it uses its cores for its purpose */
	const char *const *settings; /* NULL-terminated, on top of the options' own; may be NULL */
};

/* What the watch itself does and costs, over the last interval. */
struct pyspyd_watch_health {
	double cpu_percent;    /* of one core, all its threads */
	uint64_t memory_bytes; /* resident */
	double rate_hz;        /* of samples, as it is now */
	double rate_asked_hz;  /* as the options ask; more than rate_hz: the budget does not suffice */
	unsigned stretch;      /* the interval is so many times as long as the options ask, for the same reason */
	unsigned over_budget;  /* intervals in a row in which CPU or memory was beyond the budget */
	uint64_t processes, threads;
	uint64_t processes_denied;             /* found, but may not be read */
	bool events;                           /* the kernel tells of new processes, and of how they end (eBPF) */
	uint64_t events_received, events_lost; /* since the watch began; what is lost is made good by a scan */
	struct pyspyd_accuracy accuracy;       /* since the watch began */
};

struct pyspyd_watch_options {
	pid_t pid;              /* one process, or … */
	const char *name_regex; /* … those whose command line matches (POSIX extended), or … */
	bool all;               /* … every Python process here */
	bool children;          /* and their descendants */
	double rate_hz;         /* of stack samples; default 20 */
	enum pyspyd_source source;
	uint64_t interval_ns; /* between reports; default 1 s */
	uint64_t duration_ns; /* 0: until stopped or the last process ended */
	bool origins; /* see all the time where things are opened and started; else while something seems to leak */
	const char *const *settings;  /* NULL-terminated "DETECTOR.KEY=VALUE"; may be NULL */
	const char *const *park;      /* NULL-terminated "MODULE:QUALNAME", as in pyspyd_waits_options; may be NULL */
	const char *const *vars;      /* NULL-terminated "MODULE:NAME.NAME[0]['key']"; may be NULL */
	bool processes_only;          /* reports need not tell of threads: it costs less */
	bool unmask;                  /* show values that are masked by name */
	double cpu_budget_percent;    /* of one core; beyond it fewer samples are taken; 0: no budget */
	uint64_t memory_budget_bytes; /* resident; beyond it what can be read again is forgotten; 0: no budget */
	uint64_t bucket_ns;           /* with on_profile: how much time one profile is of */
	const volatile int *stop;
	/* Counts up: on_reload is called, which may change rate, budgets, settings, park, bucket_ns and on_profile, and
	 * on_process is asked again for all that is watched. May be NULL. */
	const volatile int *reload;
	void (*on_reload)(void *userdata); /* from the watch's thread, while nothing is sampled; may be NULL */
	/* Asked for each process that was found, before it is watched. ret_rule is zeroed; what it points to must stand
	 * until the next call or reload. NULL: there are no rules. */
	void (*on_process)(void *userdata, const struct pyspyd_process *process, struct pyspyd_watch_rule *ret_rule);
	/* Return: non-zero to end the watch; that value is then returned. Everything handed in belongs to the watch. */
	int (*on_report)(void *userdata, const struct pyspyd_watch_process *processes, size_t n);
	int (*on_health)(void *userdata, const struct pyspyd_watch_health *health); /* before each report */
	/* What a process did since the one before (pyspyd/flight.h), every bucket_ns and when it has ended. */
	int (*on_profile)(void *userdata, const struct pyspyd_process *process, const struct pyspyd_packed *packed);
	int (*on_finding)(void *userdata, const struct pyspyd_finding *finding);
	/* Findings that an earlier watch has left open; they must stand as long as this one. What is found again in the
	 * same process, with the same fingerprint or about the same thread, goes on: with its id and since when it was,
	 * as an update. */
	const struct pyspyd_left_open *left;
	size_t left_n;
	/* One of them is over: its process has ended, or it was not found again in twice the time that its detector
	 * needs for that. `ended`: why, static ("process-ended", "not-found-again", "not-watched"). */
	int (*on_left_ended)(void *userdata, const struct pyspyd_left_open *left, const char *ended);
	/* Each of vars in each process, once an interval, before the report. */
	int (*on_value)(void *userdata, const struct pyspyd_value *value);
	void *userdata;
};

/* Watches until the duration is over, all processes ended, *stop is set, or a callback ends it.
 * Return: 0; a callback's value; PYSPYD_E_GONE where the only process named by pid ended; PYSPYD_E_DENIED,
 * _UNSUPPORTED, _USAGE (a setting, a park site, a name in vars, the regular expression); negative errno. */
int pyspyd_watch(const struct pyspyd_watch_options *options, struct err *err);

/* Whether there is such a setting, and its value makes sense. Return: 0; PYSPYD_E_USAGE, the text says what is wrong.
 */
int pyspyd_watch_check_setting(const char *setting, struct err *err);

#endif
