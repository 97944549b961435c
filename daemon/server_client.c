/* SPDX-License-Identifier: MIT */
/* One client of the socket, as a state machine that the event loop drives:
 *
 *   READING ─ a whole frame ─→ (THROTTLED ─→) ANSWERING ─ all is made and sent ─→ READING
 *                                              ↑     ↓ nothing new
 *                                             FOLLOWING
 *
 * Each turn does one bounded piece: reads once, or makes a piece of an answer and sends once. While an answer is under
 * way nothing is read: what the client sends meanwhile waits in the kernel. One timer ends clients that are idle or do
 * not read. */
#include "daemon/server_client.h"

#include "pyspyd/remote.h"
#include "pyspyd/version.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define IN_MAX (PYSPYD_FRAME_HEAD + PYSPYD_REQUEST_MAX)
#define US_PER_S 1000000ULL
#define ACCURACY_US 10000ULL
#define PRIORITY 10 /* behind the service's own work */

enum client_state { READING, THROTTLED, ANSWERING, FOLLOWING, CLOSING };

struct client {
	struct client *next, **here;
	struct server *server;
	struct server_user *user;
	bool sees_all;
	int fd;
	sd_event_source *io, *timer;
	enum client_state state;
	uint8_t *in; /* IN_MAX bytes; NULL while there are none */
	size_t in_n;
	struct outbox outbox;
	struct answer answer;
	uint64_t moved_us; /* when it took or gave something last */
};

static uint64_t now_us(const struct client *client) {
	uint64_t now = 0;

	sd_event_now(client->server->loop, CLOCK_MONOTONIC, &now);
	return now;
}

/* Requests. */

/* Return: whether a whole frame, or what can be none, is there. */
static bool has_frame(const struct client *client) {
	uint32_t len;
	char letter;

	if (!client->in_n || !pyspyd_frame_parse(client->in, client->in_n, &len, &letter))
		return false;
	return letter != 'J' || len > PYSPYD_REQUEST_MAX || client->in_n >= PYSPYD_FRAME_HEAD + (size_t)len;
}

static void drop_frame(struct client *client, uint32_t len) {
	client->in_n -= PYSPYD_FRAME_HEAD + (size_t)len;
	memmove(client->in, client->in + PYSPYD_FRAME_HEAD + len, client->in_n);
	if (client->in_n)
		return;
	free(client->in);
	client->in = NULL;
}

/* Return: 0; what cannot be told to the client. */
static int begin_answer(struct client *client, uint32_t len) {
	struct request request;
	struct err err = { 0 };
	int r = request_parse((const char *)client->in + PYSPYD_FRAME_HEAD, len, &request, &err);

	client->server->stats.requests++;
	drop_frame(client, len);
	if (r == PYSPYD_E_USAGE)
		return answer_end_with(&client->outbox, r, err.text);
	if (r)
		return r;
	r = answer_begin(
		&client->answer, &client->server->options, client->sees_all ? (uid_t)-1 : client->user->uid, &request);
	if (!r) {
		client->state = ANSWERING;
		return 0;
	}
	answer_deinit(&client->answer);
	return answer_end_with(&client->outbox, r, strerror(-r));
}

/* A frame is there. Return: 0; negative: the client must go. */
static int take_frame(struct client *client) {
	uint64_t wait_us;
	uint32_t len;
	char letter;

	pyspyd_frame_parse(client->in, client->in_n, &len, &letter);
	if (letter != 'J' || len > PYSPYD_REQUEST_MAX) {
		client->state = CLOSING;
		return answer_end_with(&client->outbox, -EPROTO, "that is no request");
	}
	wait_us = pace_take(&client->user->requests, SERVER_REQUESTS_PER_S, now_us(client));
	if (!wait_us)
		return begin_answer(client, len);
	client->state = THROTTLED;
	return sd_event_source_set_time(client->timer, now_us(client) + wait_us);
}

static int read_some(struct client *client) {
	ssize_t n;

	if (!client->in)
		client->in = malloc(IN_MAX);
	if (!client->in)
		return -ENOMEM;
	n = recv(client->fd, client->in + client->in_n, IN_MAX - client->in_n, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (!n)
		return -ECONNRESET;
	client->in_n += (size_t)n;
	client->moved_us = now_us(client);
	return 0;
}

/* Answers. */

static int make_more(struct client *client) {
	int r;

	if (outbox_waiting(&client->outbox) >= ANSWER_FILL_BYTES)
		return 0;
	r = answer_step(&client->answer, &client->outbox);
	if (r == ANSWER_MORE)
		return 0;
	if (r == ANSWER_WAITS) {
		client->state = FOLLOWING;
		return 0;
	}
	if (r == -ENOMEM)
		return r;
	r = r ? answer_end_with(&client->outbox, r, strerror(-r)) : answer_end(&client->answer, &client->outbox);
	answer_deinit(&client->answer);
	client->state = READING;
	return r;
}

static int send_some(struct client *client) {
	ssize_t n = outbox_send(&client->outbox, client->fd);

	if (n < 0)
		return (int)n;
	if (n) {
		client->moved_us = now_us(client);
		client->server->stats.bytes += (uint64_t)n;
	}
	return client->state == CLOSING && !outbox_waiting(&client->outbox) ? -ECONNRESET : 0;
}

/* The loop. */

static bool is_idle(const struct client *client) {
	return !outbox_waiting(&client->outbox) && client->state != ANSWERING;
}

/* What is waited for next. A frame that is there already is taken in the next turn, so that others have theirs. */
static int plan(struct client *client) {
	uint32_t events = outbox_waiting(&client->outbox) || client->state == ANSWERING ? EPOLLOUT : 0;
	const struct server_options *options = &client->server->options;
	uint64_t limit_s = is_idle(client) ? options->idle_s : options->stalled_s;
	bool timed = client->state != FOLLOWING || !is_idle(client);
	int r;

	if (client->state == READING)
		events |= has_frame(client) ? EPOLLOUT : EPOLLIN;
	r = sd_event_source_set_io_events(client->io, events);
	if (!r && client->state != THROTTLED)
		r = sd_event_source_set_time(client->timer, client->moved_us + limit_s * US_PER_S);
	if (!r)
		r = sd_event_source_set_enabled(client->timer, timed ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
	return r < 0 ? r : 0;
}

/* Return: 0; negative: it is over with this client. */
static int turn(struct client *client, uint32_t events) {
	int r = 0;

	if (events & EPOLLIN && client->state == READING)
		r = read_some(client);
	if (!r && client->state == READING && has_frame(client))
		r = take_frame(client);
	else if (!r && client->state == ANSWERING)
		r = make_more(client);
	if (!r)
		r = send_some(client);
	return r < 0 ? r : plan(client);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata) {
	struct client *client = userdata;

	(void)source;
	(void)fd;
	if (events & (EPOLLHUP | EPOLLERR) || turn(client, events))
		client_free(client);
	return 0;
}

static int on_time(sd_event_source *source, uint64_t usec, void *userdata) {
	struct client *client = userdata;

	(void)source;
	(void)usec;
	if (client->state != THROTTLED) {
		client_free(client);
		return 0;
	}
	client->state = READING;
	if (turn(client, 0))
		client_free(client);
	return 0;
}

void client_wake(struct client *client) {
	if (client->state != FOLLOWING)
		return;
	client->state = ANSWERING;
	client->moved_us = is_idle(client) ? now_us(client) : client->moved_us;
	if (plan(client))
		client_free(client);
}

int client_fd(const struct client *client) {
	return client->fd;
}

void client_see(struct client *client, bool sees_all) {
	client->sees_all = sees_all;
	client->answer.uid = sees_all ? (uid_t)-1 : client->user->uid;
}

void client_use_store(struct client *client, uint64_t shift) {
	if (client->state == ANSWERING || client->state == FOLLOWING)
		answer_use_store(&client->answer, shift);
}

struct client *client_next(const struct client *client) {
	return client->next;
}

static int say_hello(struct client *client) {
	char text[128];
	int n = snprintf(text, sizeof(text),
		"{\"schema\":\"pyspyd.socket/1\",\"version\":\"" PYSPYD_VERSION "\",\"sees\":\"%s\"}",
		client->sees_all ? "all" : "own");

	return outbox_put(&client->outbox, 'J', text, (size_t)n);
}

static int join_loop(struct client *client) {
	sd_event *loop = client->server->loop;
	int r = sd_event_add_io(loop, &client->io, client->fd, 0, on_io, client);

	if (r >= 0)
		r = sd_event_add_time(loop, &client->timer, CLOCK_MONOTONIC, 0, ACCURACY_US, on_time, client);
	if (r >= 0)
		r = sd_event_source_set_priority(client->io, PRIORITY);
	if (r >= 0)
		r = sd_event_source_set_priority(client->timer, PRIORITY);
	return r < 0 ? r : 0;
}

int client_new(struct server *server, int fd, struct server_user *user, bool sees_all) {
	struct client *client = calloc(1, sizeof(*client));
	int r;

	if (!client) {
		close(fd);
		return -ENOMEM;
	}
	client->server = server;
	client->user = user;
	client->sees_all = sees_all;
	client->fd = fd;
	client->next = server->clients;
	client->here = &server->clients;
	if (client->next)
		client->next->here = &client->next;
	server->clients = client;
	user->connections++;
	server->stats.open++;
	client->moved_us = now_us(client);
	r = join_loop(client);
	if (!r)
		r = say_hello(client);
	if (!r)
		r = plan(client);
	if (r)
		client_free(client);
	return r;
}

void client_free(struct client *client) {
	sd_event_source_disable_unref(client->io);
	sd_event_source_disable_unref(client->timer);
	close(client->fd);
	*client->here = client->next;
	if (client->next)
		client->next->here = client->here;
	client->user->connections--;
	client->server->stats.open--;
	answer_deinit(&client->answer);
	outbox_deinit(&client->outbox);
	free(client->in);
	free(client);
}
