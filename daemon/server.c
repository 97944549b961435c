/* SPDX-License-Identifier: MIT */
/* The socket: where it is, who may come, and how many.
 *
 * Who comes too often is told so in the place of the greeting; connections beyond a rate stay in the kernel's queue
 * until it is their turn, so that a flood of them costs a bounded share of the CPU. Descriptors that have run out are
 * waited for in the same way. */
#include "daemon/server.h"

#include "daemon/log.h"
#include "daemon/server_client.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define US_PER_S 1000000ULL
#define BACKLOG 128
#define ACCEPTS_A_TURN 16
#define PRIORITY 10

uint64_t pace_take(struct pace *pace, double per_s, uint64_t now_us) {
	double gained = (double)(now_us - pace->at_us) * per_s / (double)US_PER_S;

	pace->left = pace->at_us && pace->left + gained < per_s ? pace->left + gained : per_s;
	pace->at_us = now_us;
	if (pace->left < 1)
		return 1 + (uint64_t)((1 - pace->left) / per_s * (double)US_PER_S);
	pace->left--;
	return 0;
}

/* Who comes. */

/* Forgets those of whom nothing is to be remembered any more. */
static void prune_users(struct server *server, uint64_t now_us) {
	struct server_user **at = &server->users;

	while (*at) {
		struct server_user *user = *at;

		if (user->connections || now_us - user->requests.at_us < US_PER_S) {
			at = &user->next;
			continue;
		}
		*at = user->next;
		free(user);
	}
}

static struct server_user *user_of(struct server *server, uid_t uid, uint64_t now_us) {
	struct server_user *user;

	prune_users(server, now_us);
	for (user = server->users; user; user = user->next)
		if (user->uid == uid)
			return user;
	user = calloc(1, sizeof(*user));
	if (!user)
		return NULL;
	user->uid = uid;
	user->next = server->users;
	server->users = user;
	return user;
}

static bool in_groups(int fd, gid_t group) {
	gid_t few[64], *groups = few;
	socklen_t len = sizeof(few);
	bool found = false;
	int r = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len);

	if (r && errno == ERANGE) {
		groups = malloc(len);
		r = groups ? getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) : -1;
	}
	for (size_t i = 0; !r && i < len / sizeof(*groups) && !found; i++)
		found = groups[i] == group;
	if (groups != few)
		free(groups);
	return found;
}

static bool may_see_all(const struct server *server, int fd, const struct ucred *peer) {
	if (!peer->uid)
		return true;
	return server->has_group && (peer->gid == server->group || in_groups(fd, server->group));
}

static void refuse(struct server *server, int fd, const char *why) {
	struct outbox outbox = { 0 };

	server->stats.refused++;
	if (!answer_end_with(&outbox, -EBUSY, why))
		outbox_send(&outbox, fd);
	outbox_deinit(&outbox);
	close(fd);
}

static void admit(struct server *server, int fd, uint64_t now_us) {
	unsigned most = SERVER_CONNECTIONS_MAX;
	struct server_user *user = NULL;
	struct ucred peer;
	socklen_t len = sizeof(peer);

	server->stats.connections++;
	/* (uid_t)-1 stands for everybody in what is asked of the store. */
	if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && peer.uid != (uid_t)-1)
		user = user_of(server, peer.uid, now_us);
	if (!user) {
		close(fd);
		return;
	}
	if (peer.uid)
		most -= SERVER_CONNECTIONS_UID;
	if (user->connections >= SERVER_CONNECTIONS_UID)
		refuse(server, fd, "this user has too many connections already");
	else if (server->stats.open >= most)
		refuse(server, fd, "there are too many connections already");
	else
		client_new(server, fd, user, may_see_all(server, fd, &peer));
}

/* Stops accepting for so long. */
static int pause_accepting(struct server *server, uint64_t us) {
	uint64_t now;
	int r = sd_event_now(server->loop, CLOCK_MONOTONIC, &now);

	if (r >= 0)
		r = sd_event_source_set_enabled(server->listener.source, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_source_set_time(server->resume, now + us);
	if (r >= 0)
		r = sd_event_source_set_enabled(server->resume, SD_EVENT_ONESHOT);
	return r;
}

static int on_resume(sd_event_source *source, uint64_t usec, void *userdata) {
	struct server *server = userdata;

	(void)source;
	(void)usec;
	return sd_event_source_set_enabled(server->listener.source, SD_EVENT_ON);
}

static int on_connection(sd_event_source *source, int fd, uint32_t events, void *userdata) {
	struct server *server = userdata;
	uint64_t now = 0;

	(void)source;
	(void)events;
	sd_event_now(server->loop, CLOCK_MONOTONIC, &now);
	for (int i = 0; i < ACCEPTS_A_TURN; i++) {
		uint64_t wait_us = pace_take(&server->accepts, SERVER_ACCEPTS_PER_S, now);
		int client;

		if (wait_us)
			return pause_accepting(server, wait_us);
		client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (client >= 0)
			admit(server, client, now);
		else if (errno == EAGAIN)
			return 0;
		else if (errno != EINTR && errno != ECONNABORTED)
			return pause_accepting(server, US_PER_S);
	}
	return 0;
}

/* The socket. */

/* One that the service manager has made, else -1. */
static int inherited(void) {
	int n = sd_listen_fds(0);

	for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + n; fd++)
		if (sd_is_socket_unix(fd, SOCK_STREAM, 1, NULL, 0) > 0)
			return fd;
	return -1;
}

/* Whether a socket is there that nobody listens at. */
static bool is_stale(const struct sockaddr_un *address) {
	struct stat st;
	int fd, r;

	if (lstat(address->sun_path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	r = connect(fd, (const struct sockaddr *)address, sizeof(*address)) ? errno : 0;
	close(fd);
	return r == ECONNREFUSED;
}

static int bind_to(int fd, const char *path, struct err *err) {
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: the path is too long for a socket", path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (!bind(fd, (struct sockaddr *)&address, sizeof(address)))
		return 0;
	if (errno == EADDRINUSE) {
		if (!is_stale(&address))
			return err_set(err, -EADDRINUSE, "%s is in use: does another pyspyd run?", path);
		if (!unlink(path) && !bind(fd, (struct sockaddr *)&address, sizeof(address)))
			return 0;
	}
	return err_set(err, -errno, "cannot make the socket %s: %s", path, strerror(errno));
}

static int listen_at(struct listener *listener, struct err *err) {
	struct stat st;
	int r;

	listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener->fd < 0)
		return err_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	r = bind_to(listener->fd, listener->path, err);
	if (r)
		return r;
	if (!lstat(listener->path, &st)) {
		listener->ours = true;
		listener->dev = st.st_dev;
		listener->ino = st.st_ino;
	}
	if (chmod(listener->path, 0666) || listen(listener->fd, BACKLOG))
		return err_set(err, -errno, "cannot listen at %s: %s", listener->path, strerror(errno));
	return 0;
}

static int open_inherited(struct listener *listener, struct err *err) {
	listener->inherited = true;
	if (fcntl(listener->fd, F_SETFL, O_NONBLOCK) || fcntl(listener->fd, F_SETFD, FD_CLOEXEC))
		return err_set(err, -errno, "the socket of the service manager: %s", strerror(errno));
	return 0;
}

/* Another one may have taken the place meanwhile. */
static void remove_socket(const struct listener *listener) {
	struct stat st;

	if (listener->ours && !lstat(listener->path, &st) && st.st_dev == listener->dev && st.st_ino == listener->ino)
		unlink(listener->path);
}

static void close_listener(struct listener *listener) {
	sd_event_source_disable_unref(listener->source);
	remove_socket(listener);
	if (listener->fd >= 0)
		close(listener->fd);
	free(listener->path);
	*listener = (struct listener){ .fd = -1 };
}

/* Return: 0; negative errno with a text, and nothing is left of it. */
static int open_listener(
	struct server *server, const char *path, int fd, struct listener *ret_listener, struct err *err) {
	struct listener listener = { .path = strdup(path), .fd = fd };
	int r = -ENOMEM;

	if (listener.path)
		r = fd < 0 ? listen_at(&listener, err) : open_inherited(&listener, err);
	else
		err_set(err, r, "out of memory");
	if (!r) {
		r = sd_event_add_io(server->loop, &listener.source, listener.fd, EPOLLIN, on_connection, server);
		if (r >= 0)
			r = sd_event_source_set_priority(listener.source, PRIORITY);
		if (r < 0)
			err_set(err, r, "event loop: %s", strerror(-r));
	}
	if (r < 0) {
		close_listener(&listener);
		return r;
	}
	*ret_listener = listener;
	return 0;
}

static void find_group(struct server *server, const char *name) {
	const struct group *group = name && *name ? getgrnam(name) : NULL;

	server->has_group = group;
	if (group)
		server->group = group->gr_gid;
	else if (name && *name)
		log_say(LOG_NOTICE, "there is no group %s: only root sees the processes of all users", name);
}

static int join_loop(struct server *server, struct err *err) {
	int r = sd_event_add_time(server->loop, &server->resume, CLOCK_MONOTONIC, 0, 1, on_resume, server);

	if (r >= 0)
		r = sd_event_source_set_enabled(server->resume, SD_EVENT_OFF);
	return r < 0 ? err_set(err, r, "event loop: %s", strerror(-r)) : 0;
}

int server_new(sd_event *loop, const struct server_options *options, struct server **ret_server, struct err *err) {
	struct server *server = calloc(1, sizeof(*server));
	int r;

	if (!server)
		return err_set(err, -ENOMEM, "out of memory");
	server->listener.fd = -1;
	server->loop = sd_event_ref(loop);
	server->options = *options;
	if (!options->idle_s)
		server->options.idle_s = SERVER_IDLE_S;
	if (!options->stalled_s)
		server->options.stalled_s = SERVER_STALLED_S;
	find_group(server, options->group);
	r = join_loop(server, err);
	if (!r)
		r = open_listener(server, options->path, inherited(), &server->listener, err);
	if (r) {
		server_free(server);
		return r;
	}
	*ret_server = server;
	return 0;
}

void server_free(struct server *server) {
	if (!server)
		return;
	while (server->clients)
		client_free(server->clients);
	sd_event_source_disable_unref(server->resume);
	close_listener(&server->listener);
	for (struct server_user *user = server->users, *next; user; user = next) {
		next = user->next;
		free(user);
	}
	sd_event_unref(server->loop);
	free(server);
}

/* Those that have connected and wait to be accepted, at most as many as can wait. */
static void admit_waiting(struct server *server, int fd) {
	uint64_t now = 0;

	sd_event_now(server->loop, CLOCK_MONOTONIC, &now);
	for (int i = 0; i < BACKLOG; i++) {
		int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (client >= 0)
			admit(server, client, now);
		else if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
}

int server_move(struct server *server, const char *path, struct err *err) {
	struct listener listener;
	int r;

	if (server->listener.inherited)
		return err_set(err, -EOPNOTSUPP, "the socket is the service manager's");
	r = open_listener(server, path, -1, &listener, err);
	if (r)
		return r;
	admit_waiting(server, server->listener.fd);
	close_listener(&server->listener);
	server->listener = listener;
	return 0;
}

void server_use_group(struct server *server, const char *group) {
	find_group(server, group);
	for (struct client *client = server->clients; client; client = client_next(client)) {
		struct ucred peer;
		socklen_t len = sizeof(peer);
		int fd = client_fd(client);

		client_see(client,
			!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && may_see_all(server, fd, &peer));
	}
}

void server_use_store(struct server *server, struct pyspyd_store *store, uint64_t shift) {
	server->options.store = store;
	for (struct client *client = server->clients; client; client = client_next(client))
		client_use_store(client, shift);
	server_wake(server);
}

void server_wake(struct server *server) {
	for (struct client *client = server->clients, *next; client; client = next) {
		next = client_next(client);
		client_wake(client);
	}
}

void server_stats(const struct server *server, struct server_stats *ret_stats) {
	*ret_stats = server->stats;
}
