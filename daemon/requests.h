/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_REQUESTS_H
#define PYSPYD_DAEMON_REQUESTS_H

#include "pyspyd/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What clients of the socket ask for (pyspyd/remote.h). */

enum request_what { REQUEST_FINDINGS, REQUEST_PROCESSES, REQUEST_PROFILES, REQUEST_STATUS };

struct request {
	enum request_what what;
	uint64_t after_seq, since_ns, until_ns, most; /* 0: no bound */
	char *kind, *id;                              /* NULL: any */
	pid_t pid;                                    /* 0: any */
	bool open, latest, follow;
};

/* Pure and strict: an unknown key, one that is there twice or that the request does not have, a value of another type
 * or out of range is an error. Return: 0; PYSPYD_E_USAGE with a text; -ENOMEM. */
int request_parse(const char *text, size_t len, struct request *ret_request, struct err *err);
void request_deinit(struct request *request);

#endif
