/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_DATAGRAM_H
#define PYSPYD_DAEMON_DATAGRAM_H

#include "daemon/sink.h"

/* A connected datagram socket of a sink that never waits: while the other side's queue is full, or nobody listens, the
 * sink is told to come later, and sooner where the socket takes again. */

struct datagram {
	struct sink *sink;
	sd_event *loop;
	int fd; /* -1: not connected */
	sd_event_source *source;
	int (*connect)(struct datagram *datagram); /* makes fd. Return: 0; negative errno */
	void (*lost)(struct datagram *datagram);   /* what was sent may not have arrived; NULL: not asked for */
	const char *path;                          /* of a socket, for datagram_connect_unix() */
};

void datagram_init(struct datagram *datagram, struct sink *sink, sd_event *loop,
	int (*connect)(struct datagram *datagram), const char *path);
void datagram_close(struct datagram *datagram); /* connected again by the next send */

int datagram_connect_unix(struct datagram *datagram);

/* pass_fd: sent along; -1: none. *ret_errno: why not. Return: SINK_DONE, SINK_LATER, SINK_NEVER (EMSGSIZE). */
enum sink_result datagram_send(struct datagram *datagram, const void *data, size_t len, int pass_fd, int *ret_errno);

#endif
