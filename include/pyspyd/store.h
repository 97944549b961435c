/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_STORE_H
#define PYSPYD_STORE_H

#include "pyspyd/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What the service remembers, in one SQLite file (WAL): events of findings, counters, profiles of past minutes, and how
 * far each sink has come. What was put survives the end of the process at any moment when the call has returned 0;
 * events are then on the disk itself, and survive a power cut too. One store is used by one thread at a time, and one
 * file by one store: SQLite's own tools can look into it while no service runs. Beside PATH lie PATH-wal, PATH-lock and
 * up to four damaged files that were set aside; they do not count for the limit. */

struct pyspyd_store;

struct pyspyd_store_options {
	const char *path;        /* the file; its folder must be there. No symbolic link */
	uint64_t max_bytes;      /* of the file with its log, at least 1 MiB; 0: no limit. The oldest profiles go first,
				    then counters, then events */
	uint64_t finding_age_ns; /* how long events, … */
	uint64_t counter_age_ns; /* … counters … */
	uint64_t profile_age_ns; /* … and profiles are kept; 0: for ever */
};

/* Opens, or makes, a store. A damaged file, or one of a newer version, is set aside ("PATH.damaged-TIME") and a new one
 * made, with the events that can still be read: *ret_note then says so in one line, the caller's to free(), else NULL.
 * Return: 0; -EBUSY: another process has it; -ELOOP: a symbolic link; other negative errno; with a text. */
int pyspyd_store_open(
	const struct pyspyd_store_options *options, struct pyspyd_store **ret_store, char **ret_note, struct err *err);
void pyspyd_store_close(struct pyspyd_store *store);

/* From now on these bounds in place of those that it was opened with; the path is not looked at. What is too old or too
 * much goes with the next pyspyd_store_prune(). Return: 0; negative errno: the old ones hold. */
int pyspyd_store_bound(struct pyspyd_store *store, const struct pyspyd_store_options *options);

struct pyspyd_store_taken {
	uint64_t events;
	uint64_t shift;  /* the number of an event is by so much larger in the new store */
	bool incomplete; /* not all could be read, or there was no room for all: the oldest are missing */
};

/* Adds what `from` has, sinks' places too: all of it at once, or nothing. Where there are many, this takes seconds.
 * Numbers of processes may change. `from` stays as it is. Return: 0; -ENOSPC; other negative errno. */
int pyspyd_store_take_over(struct pyspyd_store *store, struct pyspyd_store *from, struct pyspyd_store_taken *ret_taken);

/* What has happened to the file since this was asked last, in one line; NULL: nothing. The caller's to free(). */
char *pyspyd_store_take_note(struct pyspyd_store *store);

/* All that follow return 0; -ENOSPC: the disk is full, or the file at its limit and nothing more may go; -EIO and other
 * negative errno. The store can be used further after each of them. A file whose damage shows meanwhile is set aside as
 * above: what is put then goes into the new one, what is read ends with -EIO. Inside of `each`, other functions of the
 * same store may be called. */

/* Events of findings: numbered in the order in which they were put, from 1, never used again; also not where the file
 * is set aside, unless nothing at all could be read of it when it was opened. */
struct pyspyd_event {
	uint64_t seq;
	uint64_t time_real_ns;
	const char *id, *fingerprint, *kind; /* of the finding */
	int severity, state;                 /* as in pyspyd_finding */
	pid_t pid;
	uint64_t start_real_ns; /* of the process */
	uid_t uid;              /* whose process it is */
	const char *json;       /* pyspyd.finding/1, whole */
};

int pyspyd_store_put_event(struct pyspyd_store *store, const struct pyspyd_event *event, uint64_t *ret_seq);

struct pyspyd_event_filter {
	uint64_t after_seq;                    /* those behind it */
	uint64_t since_real_ns, until_real_ns; /* since <= time < until; 0: no bound */
	const char *kind, *id;                 /* NULL: any */
	pid_t pid;                             /* 0: any */
	uid_t uid;                             /* (uid_t)-1: any */
	bool latest;                           /* of each finding only its last event */
	bool open;                             /* only findings that are open; implies latest */
	size_t most;                           /* events at most, the first ones; 0: all */
};

/* Calls `each` in the order of their numbers until it returns non-zero, which is returned. The event stands during the
 * call. */
int pyspyd_store_events(struct pyspyd_store *store, const struct pyspyd_event_filter *filter,
	int (*each)(void *userdata, const struct pyspyd_event *event), void *userdata);

/* How far a sink has come: the last event that it has surely delivered. 0 for a sink that is new. */
int pyspyd_store_sink_get(struct pyspyd_store *store, const char *sink, uint64_t *ret_seq, uint64_t *ret_dropped);
int pyspyd_store_sink_put(struct pyspyd_store *store, const char *sink, uint64_t seq, uint64_t dropped);
uint64_t pyspyd_store_first_seq(struct pyspyd_store *store); /* the oldest event that is there; 0: none */
uint64_t pyspyd_store_last_seq(struct pyspyd_store *store);

/* Who a process is, once for each (pid, start): what counters and profiles belong to. */
struct pyspyd_store_process {
	pid_t pid;
	uint64_t start_real_ns;
	uid_t uid;
	const char *name, *cmdline, *unit, *container; /* cmdline: words with spaces between; "" where none */
	uint64_t seen_real_ns;                         /* last */
};

/* *ret_process: its number in the store, never used again. Known ones are brought up to date; one of which nothing is
 * left and nothing was put for hours is forgotten. */
int pyspyd_store_put_process(
	struct pyspyd_store *store, const struct pyspyd_store_process *process, int64_t *ret_process);
int pyspyd_store_processes(struct pyspyd_store *store, pid_t pid, uid_t uid,
	int (*each)(void *userdata, int64_t number, const struct pyspyd_store_process *process), void *userdata);

/* Counters of one process at one time; UINT64_MAX and negative: not known. */
struct pyspyd_store_counters {
	int64_t process;
	uint64_t time_real_ns;
	double cpu_percent;
	uint64_t rss_bytes, private_bytes, fds, threads;
};

/* One transaction. Return, here and for profiles: as all, and -ENOENT: some are of a process that is not known (any
 * more): put it again. The others were put. Bounds of time are as above. */
int pyspyd_store_put_counters(struct pyspyd_store *store, const struct pyspyd_store_counters *counters, size_t n);
int pyspyd_store_counters(struct pyspyd_store *store, int64_t process, uint64_t since_real_ns, uint64_t until_real_ns,
	int (*each)(void *userdata, const struct pyspyd_store_counters *counters), void *userdata);

/* Profiles: what a process did in a stretch of time, packed (pyspyd/flight.h). */
struct pyspyd_store_profile {
	int64_t process;
	uint64_t start_real_ns, end_real_ns;
	const void *data;
	size_t len;
};

int pyspyd_store_put_profiles(struct pyspyd_store *store, const struct pyspyd_store_profile *profiles, size_t n);

/* Those of a process that overlap the time, ascending. */
int pyspyd_store_profiles(struct pyspyd_store *store, int64_t process, uint64_t since_real_ns, uint64_t until_real_ns,
	int (*each)(void *userdata, const struct pyspyd_store_profile *profile), void *userdata);

/* Forgets what is too old or too much, a bounded piece at a time: to be called every minute or so. Events that a sink
 * in `sinks` (NULL-terminated) has not delivered yet go last. */
int pyspyd_store_prune(struct pyspyd_store *store, uint64_t now_real_ns, const char *const *sinks);

struct pyspyd_store_stats {
	uint64_t bytes;     /* on disk, with the log … */
	uint64_t log_bytes; /* … and the log alone */
	uint64_t events, profiles, counters;
	uint64_t lost;      /* events, counters, profiles, … that could not be put since it was opened */
	uint64_t set_aside; /* damaged files since it was opened */
};

int pyspyd_store_stats(struct pyspyd_store *store, struct pyspyd_store_stats *ret_stats);

#endif
