/* SPDX-License-Identifier: MIT */
/* The thread and the loop share what is asked and answered; who lets go of it last frees it. */
#include "daemon/lookup.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct question {
	atomic_int holders;
	char *host, port[16];
	struct addrinfo hints;
	int fd; /* readable when there is an answer */
	int result;
	struct addrinfo *addresses;
};

struct lookup {
	struct question *question;
	sd_event_source *source;
	bool finished;
	void (*done)(void *userdata);
	void *userdata;
};

static void question_release(struct question *question) {
	if (!question || atomic_fetch_sub(&question->holders, 1) > 1)
		return;
	if (question->addresses)
		freeaddrinfo(question->addresses);
	if (question->fd >= 0)
		close(question->fd);
	free(question->host);
	free(question);
}

static void *ask(void *argument) {
	static const uint64_t one = 1;
	struct question *question = argument;

	question->result = getaddrinfo(question->host, question->port, &question->hints, &question->addresses);
	(void)!write(question->fd, &one, sizeof(one));
	question_release(question);
	return NULL;
}

static int on_answer(sd_event_source *source, int fd, uint32_t events, void *userdata) {
	struct lookup *lookup = userdata;

	(void)source;
	(void)fd;
	(void)events;
	lookup->source = sd_event_source_disable_unref(lookup->source);
	lookup->finished = true;
	lookup->done(lookup->userdata);
	return 0;
}

/* The service's signals are for its loop. */
static int start_thread(struct question *question) {
	sigset_t all, before;
	pthread_t thread;
	int r;

	atomic_fetch_add(&question->holders, 1);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, NULL, ask, question);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		atomic_fetch_sub(&question->holders, 1);
	else
		pthread_detach(thread);
	return -r;
}

static struct question *question_new(const char *host, unsigned port, int socket_type) {
	struct question *question = calloc(1, sizeof(*question));

	if (!question)
		return NULL;
	atomic_init(&question->holders, 1);
	question->fd = -1;
	question->host = strdup(host);
	snprintf(question->port, sizeof(question->port), "%u", port);
	question->hints = (struct addrinfo){ .ai_socktype = socket_type, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
	if (question->host)
		return question;
	question_release(question);
	return NULL;
}

static int look_up(struct lookup *lookup, sd_event *loop) {
	struct question *question = lookup->question;
	int r;

	if (!getaddrinfo(question->host, question->port, &question->hints, &question->addresses)) {
		lookup->finished = true;
		return 0;
	}
	question->hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG;
	question->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (question->fd < 0)
		return -errno;
	r = sd_event_add_io(loop, &lookup->source, question->fd, EPOLLIN, on_answer, lookup);
	return r < 0 ? r : start_thread(question);
}

int lookup_start(sd_event *loop, const char *host, unsigned port, int socket_type, void (*done)(void *userdata),
	void *userdata, struct lookup **ret_lookup) {
	struct lookup *lookup = calloc(1, sizeof(*lookup));
	int r;

	if (!lookup)
		return -ENOMEM;
	lookup->done = done;
	lookup->userdata = userdata;
	lookup->question = question_new(host, port, socket_type);
	r = lookup->question ? look_up(lookup, loop) : -ENOMEM;
	if (r < 0) {
		lookup_free(lookup);
		return r;
	}
	*ret_lookup = lookup;
	return 0;
}

void lookup_free(struct lookup *lookup) {
	if (!lookup)
		return;
	sd_event_source_disable_unref(lookup->source);
	question_release(lookup->question);
	free(lookup);
}

int lookup_result(const struct lookup *lookup, const struct addrinfo **ret_addresses) {
	if (!lookup->finished)
		return -EINPROGRESS;
	if (lookup->question->result || !lookup->question->addresses)
		return -EHOSTUNREACH;
	*ret_addresses = lookup->question->addresses;
	return 0;
}
