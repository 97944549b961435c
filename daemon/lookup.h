/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_LOOKUP_H
#define PYSPYD_DAEMON_LOOKUP_H

#include <netdb.h>
#include <systemd/sd-event.h>

/* The addresses of a host without waiting for them: a name is looked up by a thread that lives as long as that takes,
 * since the C library knows no other way; a numeric address needs none. */

struct lookup;

/* `done` is called in the loop when a name was looked up; for a numeric address never: its result is there at once.
 * Return: 0; negative errno. */
int lookup_start(sd_event *loop, const char *host, unsigned port, int socket_type, void (*done)(void *userdata),
	void *userdata, struct lookup **ret_lookup);
void lookup_free(struct lookup *lookup);

/* Return: 0; -EINPROGRESS; -EHOSTUNREACH: no such name, or nobody could say. The addresses are the lookup's. */
int lookup_result(const struct lookup *lookup, const struct addrinfo **ret_addresses);

#endif
