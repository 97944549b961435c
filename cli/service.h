/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CLI_SERVICE_H
#define PYSPYD_CLI_SERVICE_H

#include "pyspyd/remote.h"

/* What commands that ask the service share. */

/* Return: -1 with *ret_remote; else the exit status, and why was said. */
int service_open(struct pyspyd_remote **ret_remote);

/* A finding out of an answer, {"event":{…},"seq":N}: the very bytes that the service keeps. Return: the caller's to
 * free(); NULL: it is none, or out of memory. */
char *service_event(const char *json);

#endif
