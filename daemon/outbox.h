/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_OUTBOX_H
#define PYSPYD_DAEMON_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Frames on their way to a client (pyspyd/remote.h). Who fills it looks at what waits already: it has no bound of its
 * own but that of one frame. */

struct outbox {
	uint8_t *data;
	size_t sent, len, cap; /* from `sent` to `len` waits */
	size_t frame;          /* where the open frame begins */
};

void outbox_deinit(struct outbox *outbox);
size_t outbox_waiting(const struct outbox *outbox);

/* One whole frame. Return: 0; -EMSGSIZE: beyond PYSPYD_ANSWER_MAX, nothing was added; -ENOMEM. */
int outbox_put(struct outbox *outbox, char letter, const void *bytes, size_t len);

/* The same in pieces; outbox_end closes what outbox_begin opened. Where one returned an error, outbox_drop takes the
 * open frame out again. */
int outbox_begin(struct outbox *outbox);
int outbox_add(struct outbox *outbox, const void *bytes, size_t len);
void outbox_end(struct outbox *outbox, char letter);
void outbox_drop(struct outbox *outbox);

/* Hands the socket as much as it takes, without waiting. Return: bytes; 0: it takes nothing now; negative errno. */
ssize_t outbox_send(struct outbox *outbox, int fd);

#endif
