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

struct listener {
	char *path;
	int fd;
	bool inherited; /* from the service manager */
	bool ours;      /* the socket at `path`, which is then this one: */
	dev_t dev;
	ino_t ino;
	sd_event_source *source;
};

struct server {
	sd_event *loop;
	struct server_options options; /* its path and group are not used */
	bool has_group;
	gid_t group;
	struct listener listener;
	sd_event_source *resume;
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

/* What was decided when it came, or what its answer reads, is another now. */
int client_fd(const struct client *client);
void client_see(struct client *client, bool sees_all);
void client_use_store(struct client *client, uint64_t shift);
struct client *client_next(const struct client *client);

#endif
