/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_SINK_H
#define PYSPYD_DAEMON_SINK_H

#include "daemon/config.h"
#include "pyspyd/store.h"
#include <systemd/sd-event.h>

/* Where findings go. The store is the queue of all sinks: each has a place in it, how far it has come
 * (pyspyd_store_sink_*), and is given the events behind that one at a time, in order. An event counts as delivered when
 * the sink says so, and only then its place moves: what was not acknowledged before the service ended is delivered
 * again. A sink that is away does not hold up the others; it is tried again after 1 s, 2 s, … 60 s. */

enum sink_result {
	SINK_DONE,  /* delivered */
	SINK_LATER, /* not now: the other side is away, or its queue is full */
	SINK_WAIT,  /* under way: sink_finished() follows */
	SINK_NEVER, /* this event cannot be delivered, ever (too large, refused): it is counted as dropped */
};

struct sink;

/* One kind of sink; one file each (sink_journal.c, sink_syslog.c, sink_file.c, sink_otlp.c). */
struct sink_kind {
	const char *name; /* "journal"; its name in the store and the metrics */
	bool (*enabled)(const struct config *config);
	/* Gets ready; what is away is no error. Return: 0 with *ret_state; negative errno with a text. */
	int (*open)(const struct config *config, struct sink *sink, sd_event *loop, void **ret_state, struct err *err);
	void (*close)(void *state);
	/* Never blocks. `event` stands during the call. */
	enum sink_result (*deliver)(void *state, const struct pyspyd_event *event);
	/* A line about the sink itself: "12 findings were held back in the last 60 s". Same results; may be NULL. */
	enum sink_result (*tell)(void *state, const char *text);
};

extern const struct sink_kind journal_sink, syslog_sink, file_sink, otlp_sink;

/* For a kind that answered SINK_WAIT. */
void sink_finished(struct sink *sink, enum sink_result result);

struct sinks;

/* Opens those that the configuration has. Return: 0; negative errno with a text. */
int sinks_new(const struct config *config, struct pyspyd_store *store, sd_event *loop, struct sinks **ret_sinks,
	struct err *err);
void sinks_free(struct sinks *sinks);

/* There are new events in the store. */
void sinks_wake(struct sinks *sinks);

/* Tries for so long to deliver what is there; at the end of the service. */
void sinks_drain(struct sinks *sinks, uint64_t at_most_ns);

/* Their names, NULL-terminated; the sinks'. */
const char *const *sinks_names(const struct sinks *sinks);

struct sink_stats {
	const char *name;
	uint64_t delivered, dropped, held_back, failures; /* since the start; dropped: over all time */
	uint64_t queued;                                  /* events that wait */
	bool away;
};

size_t sinks_stats(const struct sinks *sinks, struct sink_stats *ret_stats, size_t most);

#endif
