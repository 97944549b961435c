/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CLI_SERVICE_H
#define PYSPYD_CLI_SERVICE_H

#include "pyspyd/remote.h"

/* What commands that ask the service share. */

/* Return: -1 with *ret_remote; else the exit status, and why was said. */
int service_open(struct pyspyd_remote **ret_remote);

/* Zeroed: the service has been of use since it went away last. */
struct service_pause {
	uint64_t ns; /* before the next try */
	bool said;
};

/* For a service that was there and has gone: tries again, less and less often, until it is back; says once that it
 * waits. Return: 0 with *ret_remote; -EINTR: cli_stop; what waiting does not mend. */
int service_wait(struct service_pause *pause, struct pyspyd_remote **ret_remote, struct err *err);

/* Whether what came of asking may be over with the next connection. */
bool service_is_away(int r);

/* A finding out of an answer, {"event":{…},"seq":N}: the very bytes that the service keeps. Return: the caller's to
 * free(); NULL: it is none, or out of memory. */
char *service_event(const char *json);

/* Its number; 0: it is none. */
uint64_t service_event_seq(const char *json);

#endif
