/* SPDX-License-Identifier: MIT */
#include "daemon/outbox.h"

#include "pyspyd/remote.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define KEPT_BYTES (64U << 10) /* of a buffer that is empty */
#define SEND_BYTES (256U << 10)

void outbox_deinit(struct outbox *outbox) {
	free(outbox->data);
	*outbox = (struct outbox){ 0 };
}

size_t outbox_waiting(const struct outbox *outbox) {
	return outbox->len - outbox->sent;
}

static int reserve(struct outbox *outbox, size_t more) {
	size_t cap = outbox->cap ? outbox->cap : 4096;
	uint8_t *grown;

	while (cap < outbox->len + more)
		cap *= 2;
	if (cap == outbox->cap)
		return 0;
	grown = realloc(outbox->data, cap);
	if (!grown)
		return -ENOMEM;
	outbox->data = grown;
	outbox->cap = cap;
	return 0;
}

int outbox_begin(struct outbox *outbox) {
	static const uint8_t head[PYSPYD_FRAME_HEAD];

	if (outbox->sent) {
		memmove(outbox->data, outbox->data + outbox->sent, outbox_waiting(outbox));
		outbox->len -= outbox->sent;
		outbox->sent = 0;
	}
	outbox->frame = outbox->len;
	return outbox_add(outbox, head, sizeof(head));
}

int outbox_add(struct outbox *outbox, const void *bytes, size_t len) {
	if (outbox->len - outbox->frame + len > PYSPYD_FRAME_HEAD + PYSPYD_ANSWER_MAX)
		return -EMSGSIZE;
	if (reserve(outbox, len))
		return -ENOMEM;
	memcpy(outbox->data + outbox->len, bytes, len);
	outbox->len += len;
	return 0;
}

void outbox_end(struct outbox *outbox, char letter) {
	pyspyd_frame_head(
		(uint32_t)(outbox->len - outbox->frame - PYSPYD_FRAME_HEAD), letter, outbox->data + outbox->frame);
}

void outbox_drop(struct outbox *outbox) {
	outbox->len = outbox->frame;
}

int outbox_put(struct outbox *outbox, char letter, const void *bytes, size_t len) {
	int r = outbox_begin(outbox);

	if (!r)
		r = outbox_add(outbox, bytes, len);
	if (r)
		outbox_drop(outbox);
	else
		outbox_end(outbox, letter);
	return r;
}

/* Memory that one long answer took is given back. */
static void shrink(struct outbox *outbox) {
	outbox->sent = outbox->len = 0;
	if (outbox->cap > KEPT_BYTES)
		outbox_deinit(outbox);
}

ssize_t outbox_send(struct outbox *outbox, int fd) {
	size_t len = outbox_waiting(outbox);
	ssize_t n;

	if (!len)
		return 0;
	n = send(fd, outbox->data + outbox->sent, len < SEND_BYTES ? len : SEND_BYTES, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR || errno == ENOBUFS ? 0 : -errno;
	outbox->sent += (size_t)n;
	if (outbox->sent == outbox->len)
		shrink(outbox);
	return n;
}
