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
	SINK_TAKEN, /* kept for a batch: give the next one, or call `send` */
};

struct sink;

/* One kind of sink; one file each (sink_journal.c, sink_syslog.c, sink_file.c, sink_otlp.c). */
struct sink_kind {
	const char *name; /* "journal"; its name in the store and the metrics */
	bool (*enabled)(const struct config *config);
	/* Gets ready; what is away is no error. Return: 0 with *ret_state; negative errno with a text. */
	int (*open)(const struct config *config, struct sink *sink, sd_event *loop, void **ret_state, struct err *err);
	void (*close)(void *state);
	/* Never blocks. `event` stands during the call. SINK_TAKEN and SINK_WAIT: its copy is the sink's until
	 * sink_finished(). A result that comes at once while some are taken is for all of them. */
	enum sink_result (*deliver)(void *state, const struct pyspyd_event *event);
	/* Sends what was taken; for a kind that answers SINK_TAKEN. A batch that is answered with SINK_NEVER is given
	 * again, event by event, so that only what is at fault is dropped. */
	enum sink_result (*send)(void *state);
	/* A line about the sink itself: "12 findings were held back in the last 60 s". Same results but SINK_TAKEN;
	 * may be NULL. */
	enum sink_result (*tell)(void *state, const char *text);
};

extern const struct sink_kind journal_sink, syslog_sink, file_sink, otlp_sink;

/* For a kind that answered SINK_WAIT. */
void sink_finished(struct sink *sink, enum sink_result result);

/* For kinds, at any time. */
void sink_ready(struct sink *sink);                      /* the other side takes again: no need to wait for the retry */
void sink_not_before(struct sink *sink, uint64_t in_ns); /* the other side said when to come again */
void sink_redo(struct sink *sink, uint64_t from_seq);    /* gone away; events from this on may have got lost: again */
void sink_refused(struct sink *sink, uint64_t n);        /* of what is being delivered, n were refused */
void sink_fault(struct sink *sink, const char *format, ...) ERR_FORMAT(2, 3); /* why SINK_LATER or SINK_NEVER follows */

struct sinks;

/* Opens those that the configuration has. They live in a loop of their own inside `loop`, so that they can be drained
 * when that one is at its end. Return: 0; negative errno with a text. */
int sinks_new(const struct config *config, struct pyspyd_store *store, sd_event *loop, struct sinks **ret_sinks,
	struct err *err);
/* Writes their places down, so that others that are opened go on there. */
void sinks_save(struct sinks *sinks);

/* The same, and ends them. The store must still be open. */
void sinks_free(struct sinks *sinks);

/* The same with other kinds (NULL-terminated; they must stand); for tests. */
int sinks_new_of(const struct sink_kind *const *kinds, const struct config *config, struct pyspyd_store *store,
	sd_event *loop, struct sinks **ret_sinks, struct err *err);

/* There are new events in the store. */
void sinks_wake(struct sinks *sinks);

/* Delivers what is there, for so long at most; at the end of the service, from anywhere but a sink. A sink that is away
 * is tried once; the rate stays limited. What is left waits in the store for the next start. */
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
