/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_METRICS_H
#define PYSPYD_DAEMON_METRICS_H

#include "daemon/server.h"
#include "daemon/sink.h"
#include "pyspyd/watch.h"

/* OpenMetrics over HTTP at GET /metrics. The text is made by the event loop's thread and handed out as it was made
 * last: no request makes the service work. Names and units by the conventions of Prometheus; a label's value is foreign
 * text, escaped. */

struct metrics;

/* What there is to tell, at one time. */
struct metrics_input {
	const struct pyspyd_watch_process *processes; /* of the last report */
	size_t processes_n;
	const struct pyspyd_watch_health *health; /* of the engine; NULL: nothing yet */
	const struct sink_stats *sinks;
	size_t sinks_n;
	struct pyspyd_store_stats store;
	struct server_stats server;
	const struct metrics_finding
		*findings; /* events by kind and severity since the start, and those that are open */
	size_t findings_n;
	uint64_t start_real_ns; /* of the service */
};

struct metrics_finding {
	const char *kind, *severity;
	uint64_t total, open;
};

/* `listen`: "ADDRESS:PORT" or a socket's path; addresses other than loopback are refused unless they are given as such
 * numerically. Return: 0; negative errno with a text. */
int metrics_new(const char *listen, unsigned processes_max, struct metrics **ret_metrics, struct err *err);
void metrics_use_limit(struct metrics *metrics, unsigned processes_max); /* from the next update on */
void metrics_free(struct metrics *metrics);

/* Makes the text anew. Return: 0; -ENOMEM (the old one stays). */
int metrics_update(struct metrics *metrics, const struct metrics_input *input);

/* The text alone, pure; the caller's to free(); NULL when out of memory. */
char *metrics_text(const struct metrics_input *input, unsigned processes_max, bool openmetrics);

#endif
