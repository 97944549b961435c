/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_PARTS_H
#define PYSPYD_DAEMON_PARTS_H

#include "daemon/config.h"
#include "daemon/metrics.h"
#include "daemon/server.h"
#include "daemon/sink.h"
#include "daemon/status.h"

/* What the service is put together from, as its configuration says: the store, the sinks, the socket, the metrics. The
 * event loop's alone. */

struct parts {
	struct config *config; /* what is in force */
	sd_event *loop;
	struct status *status;
	struct pyspyd_store *store;
	struct sinks *sinks;
	struct server *server;
	struct metrics *metrics;
	bool inet; /* it may use the network: seccomp lets no one change that */
};

/* Opens all of them. What is opened is to be closed also where it fails. `server`: what is not of the configuration.
 * Return: 0; negative errno with a text. */
int parts_open(struct parts *parts, const struct server_options *server, struct err *err);
void parts_close(struct parts *parts);

/* Takes `fresh` over, and brings each part to what it says, one by one. A part that cannot stays as it is: the status
 * is told of the key, and the configuration in force has the old value, so that a later one is compared with that. */
void parts_reload(struct parts *parts, struct config *fresh);

bool parts_use_network(const struct config *config);

#endif
