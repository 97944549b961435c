/* SPDX-License-Identifier: MIT */
#include "daemon/datagram.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SEND_BUFFER (8 << 20) /* the journal's entries are large; the kernel gives what it may */

static int on_event(sd_event_source *source, int fd, uint32_t events, void *userdata);

void datagram_init(struct datagram *datagram, struct sink *sink, sd_event *loop,
	int (*connect)(struct datagram *datagram), const char *path) {
	*datagram = (struct datagram){ .sink = sink, .loop = loop, .fd = -1, .connect = connect, .path = path };
}

void datagram_close(struct datagram *datagram) {
	datagram->source = sd_event_source_disable_unref(datagram->source);
	if (datagram->fd >= 0)
		close(datagram->fd);
	datagram->fd = -1;
}

int datagram_connect_unix(struct datagram *datagram) {
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len = strlen(datagram->path);
	int size = SEND_BUFFER;

	if (len >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, datagram->path, len);
	datagram->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (datagram->fd < 0)
		return -errno;
	(void)setsockopt(datagram->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return connect(datagram->fd, (struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
}

static int on_event(sd_event_source *source, int fd, uint32_t events, void *userdata) {
	struct datagram *datagram = userdata;
	int error = 0;
	socklen_t len = sizeof(error);

	(void)source;
	if ((events & EPOLLERR) && !getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) && error && datagram->lost)
		datagram->lost(datagram);
	sd_event_source_set_io_events(datagram->source, 0); /* errors still come */
	if (events & EPOLLHUP)
		datagram_close(datagram);
	if (events & (EPOLLOUT | EPOLLHUP))
		sink_ready(datagram->sink);
	return 0;
}

static int open_socket(struct datagram *datagram) {
	int r;

	if (datagram->fd >= 0)
		return 0;
	r = datagram->connect(datagram);
	if (!r && !datagram->source)
		r = sd_event_add_io(datagram->loop, &datagram->source, datagram->fd, 0, on_event, datagram);
	if (r < 0)
		datagram_close(datagram);
	return r < 0 ? r : 0;
}

static ssize_t send_to(int fd, const void *data, size_t len, int pass_fd) {
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec part = { .iov_base = (void *)data, .iov_len = len };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = len ? 1 : 0 };

	if (pass_fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.bytes);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &pass_fd, sizeof(pass_fd));
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

enum sink_result datagram_send(struct datagram *datagram, const void *data, size_t len, int pass_fd, int *ret_errno) {
	int r = open_socket(datagram);

	/* A socket may be from before the other side was started anew: then it is connected a second time, unless
	 * something that was sent before has to go out again first. */
	for (int tries = 0; !r && tries < 2; tries++) {
		if (send_to(datagram->fd, data, len, pass_fd) >= 0)
			return SINK_DONE;
		r = -errno;
		if (r == -EAGAIN || r == -EMSGSIZE || r == -ENOBUFS || r == -EINTR)
			break;
		if (datagram->lost)
			datagram->lost(datagram);
		datagram_close(datagram);
		if (tries == 0 && !datagram->lost)
			r = open_socket(datagram);
	}
	*ret_errno = -r;
	if (r == -EAGAIN && datagram->source)
		sd_event_source_set_io_events(datagram->source, EPOLLOUT);
	return r == -EMSGSIZE ? SINK_NEVER : SINK_LATER;
}
