/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_SERVER_H
#define PYSPYD_DAEMON_SERVER_H

#include "pyspyd/err.h"
#include "pyspyd/store.h"
#include <systemd/sd-event.h>

/* The socket (pyspyd/remote.h says what is spoken). Peer credentials decide: root, and who is in the group, sees all;
 * anybody else the processes of his own uid. Bounded by uid: connections and requests a second, those beyond wait; by
 * client: what waits to be read (answers are made as they are read). A client that does not read is disconnected, and
 * so is one that says what is no frame. */

#define SERVER_CONNECTIONS_MAX 64 /* of all; the last SERVER_CONNECTIONS_UID of them are root's */
#define SERVER_CONNECTIONS_UID 8  /* of one uid; root too */
#define SERVER_REQUESTS_PER_S 20  /* of one uid, with a burst of as many */
#define SERVER_ACCEPTS_PER_S 200  /* of all; beyond, they wait their turn */
#define SERVER_IDLE_S 300         /* without a request; one that follows is not idle */
#define SERVER_STALLED_S 60       /* without reading what is there for it */

struct server;

struct server_options {
	const char *path;
	const char *group; /* NULL or "": none */
	struct pyspyd_store *store;
	/* A JSON object with the service's own counters: the caller's to free. */
	char *(*status)(void *userdata);
	/* Whether a process is watched right now. */
	bool (*watched)(void *userdata, pid_t pid, uint64_t start_real_ns);
	void *userdata;
	unsigned idle_s, stalled_s; /* 0: SERVER_IDLE_S, SERVER_STALLED_S */
};

/* Listens: at a socket handed over by the service manager where there is one, else at the path (a stale socket there is
 * replaced; mode 0666, who may see what is decided by credentials). Return: 0; negative errno with a text. */
int server_new(sd_event *loop, const struct server_options *options, struct server **ret_server, struct err *err);
void server_free(struct server *server);

/* The three that follow leave clients connected. */

/* Listens at another path, and then no more at the one before; who waits there to be let in is let in. Return: 0;
 * -EOPNOTSUPP: the socket is the service manager's; other negative errno with a text: it listens where it did. */
int server_move(struct server *server, const char *path, struct err *err);

/* From now on this group's members see all, those of the one before do not. */
void server_use_group(struct server *server, const char *group);

/* Another store, in which the numbers of events are by `shift` larger. Answers of findings go on; others that are under
 * way end with an error. */
void server_use_store(struct server *server, struct pyspyd_store *store, uint64_t shift);

/* There are new events: those who follow get them. */
void server_wake(struct server *server);

struct server_stats {
	uint64_t connections, refused, requests, bytes;
	unsigned open;
};

void server_stats(const struct server *server, struct server_stats *ret_stats);

#endif
