/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_SERVER_CLIENT_H
#define PYSPYD_DAEMON_SERVER_CLIENT_H

#include "daemon/answers.h"
#include "daemon/outbox.h"
#include "daemon/server.h"

/* What the files of the server share. */

/* So many a second, with a burst of as many. */
struct pace {
	double left;
	uint64_t at_us; /* 0: never used */
};

/* Takes one. Return: 0; microseconds until there is one. */
uint64_t pace_take(struct pace *pace, double per_s, uint64_t now_us);

/* What is counted for one uid, while it has connections or its pace is not full again. */
struct server_user {
	struct server_user *next;
	uid_t uid;
	unsigned connections;
	struct pace requests;
};

struct client;

struct server {
	sd_event *loop;
	struct server_options options;
	char *path;
	bool has_group;
	gid_t group;
	int fd;
	bool ours; /* the socket at `path`, which is then this one: */
	dev_t dev;
	ino_t ino;
	sd_event_source *listener, *resume;
	struct pace accepts;
	struct server_user *users;
	struct client *clients;
	struct server_stats stats;
};

/* Takes over fd, also where it fails. Return: 0; negative errno. */
int client_new(struct server *server, int fd, struct server_user *user, bool sees_all);

/* Ends it, whatever it is at. */
void client_free(struct client *client);

/* New events: it is told of them where it follows. */
void client_wake(struct client *client);
struct client *client_next(const struct client *client);

#endif
