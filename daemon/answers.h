/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_ANSWERS_H
#define PYSPYD_DAEMON_ANSWERS_H

#include "daemon/outbox.h"
#include "daemon/requests.h"
#include "daemon/server.h"

/* The answer to one request, made piece by piece as the client reads it: between two pieces only a place in the store
 * is remembered. */

#define ANSWER_FILL_BYTES (256U << 10) /* no more is made while so much waits */

struct answer_open {
	pid_t pid;
	uint64_t start_ns;
	unsigned n;
};

struct answer_process {
	int64_t number; /* in the store */
	uint64_t start_ns;
};

struct answer {
	const struct server_options *options;
	struct request request;
	uid_t uid;       /* whose processes; (uid_t)-1: everybody's */
	uint64_t last;   /* events: the last number when it began */
	uint64_t cursor; /* events: the number told last; profiles: the start of the last one, 0: none yet */
	uint64_t told;   /* events: up to there all was told; 0: not yet */
	int64_t process; /* processes: the number told last */
	struct answer_open *open;
	size_t open_n;
	struct answer_process *processes; /* whose profiles are wanted, */
	size_t processes_n, processes_i;  /* and which is being told */
	bool stale;                       /* what it remembers of the store is not so any more */
};

/* Takes the request over. `uid`: whose processes may be seen; (uid_t)-1: all. Return: 0; the store's error; -ENOMEM. */
int answer_begin(struct answer *answer, const struct server_options *options, uid_t uid, struct request *request);
void answer_deinit(struct answer *answer);

/* The options' store is another one now, in which the numbers of events are by `shift` larger. */
void answer_use_store(struct answer *answer, uint64_t shift);

enum { ANSWER_DONE = 0, ANSWER_MORE = 1, ANSWER_WAITS = 2 /* for new events */ };

/* Adds frames until ANSWER_FILL_BYTES wait or a bounded piece is done. Return: one of the above; the store's error;
 * -ENOMEM. The end is the caller's to add. */
int answer_step(struct answer *answer, struct outbox *outbox);

/* The last frame. Return: 0; -ENOMEM. */
int answer_end(const struct answer *answer, struct outbox *outbox);
int answer_end_with(struct outbox *outbox, int code, const char *text);

#endif
