/* SPDX-License-Identifier: MIT */
/* Unix sockets over sock_diag: the only place where the kernel names the other end. One question and one answer a
 * socket; the peer is asked for too, since the name that people know is most often the server's. The kernel answers
 * within sendmsg, so nothing here waits. */
#include "engine/proc/unix_diag.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define ANSWER_SIZE 8192

struct answer {
	struct nlmsghdr header;
	char rest[ANSWER_SIZE - sizeof(struct nlmsghdr)];
};

static int ask(int netlink_fd, uint32_t inode, struct answer *ret_answer, size_t *ret_len) {
	struct {
		struct nlmsghdr header;
		struct unix_diag_req request;
	} question = {
		.header = { .nlmsg_len = sizeof(question),
			.nlmsg_type = SOCK_DIAG_BY_FAMILY,
			.nlmsg_flags = NLM_F_REQUEST },
		.request = { .sdiag_family = AF_UNIX,
			.udiag_states = UINT32_MAX,
			.udiag_ino = inode,
			.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN,
			.udiag_cookie = { UINT32_MAX, UINT32_MAX } },
	};
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	ssize_t n =
		sendto(netlink_fd, &question, sizeof(question), 0, (const struct sockaddr *)&kernel, sizeof(kernel));

	if (n < 0)
		return -errno;
	n = recv(netlink_fd, ret_answer, sizeof(*ret_answer), MSG_DONTWAIT);
	if (n < 0)
		return -errno;
	*ret_len = (size_t)n;
	return 0;
}

/* An abstract name begins with a NUL, and may hold more of them. */
static void set_name(char *out, size_t size, const char *name, size_t len) {
	size_t n = min_of(len, size - 1);

	for (size_t i = 0; i < n; i++)
		out[i] = name[0] || name[i] ? name[i] : '@';
	out[n] = '\0';
}

static void take_attribute(const struct rtattr *attribute, struct proc_socket *socket) {
	const void *data = RTA_DATA(attribute);
	size_t len = RTA_PAYLOAD(attribute);
	struct unix_diag_rqlen queues;
	uint32_t peer;

	switch (attribute->rta_type) {
	case UNIX_DIAG_NAME:
		if (len)
			set_name(socket->local, sizeof(socket->local), data, len);
		break;
	case UNIX_DIAG_PEER:
		if (len < sizeof(peer))
			break;
		memcpy(&peer, data, sizeof(peer));
		socket->peer_inode = peer;
		break;
	case UNIX_DIAG_RQLEN:
		if (len < sizeof(queues))
			break;
		memcpy(&queues, data, sizeof(queues));
		socket->receive_queue = queues.udiag_rqueue;
		socket->send_queue = queues.udiag_wqueue;
		break;
	default: break;
	}
}

/* The kernel uses TCP's numbers: 1 connected, 10 listening, 7 neither. */
static void set_state(struct proc_socket *socket, unsigned state) {
	socket->listening = state == TCP_LISTEN;
	if (state == TCP_LISTEN)
		strcpy(socket->state, "LISTEN");
	else if (state == TCP_ESTABLISHED)
		strcpy(socket->state, "ESTABLISHED");
}

static int parse_answer(const struct answer *answer, size_t len, struct proc_socket *ret_socket) {
	struct proc_socket socket = {
		.family = SOCKET_UNIX, .loopback = true, .receive_queue = UINT64_MAX, .send_queue = UINT64_MAX
	};
	const struct nlmsghdr *header = &answer->header;
	const struct unix_diag_msg *message = NLMSG_DATA(header);
	const struct rtattr *attribute = (const struct rtattr *)(message + 1);
	int error = 0, left;

	if (!NLMSG_OK(header, len))
		return -EBADMSG;
	if (header->nlmsg_type == NLMSG_ERROR) {
		if (NLMSG_PAYLOAD(header, 0) >= sizeof(error))
			memcpy(&error, message, sizeof(error));
		return error < 0 ? error : -EBADMSG;
	}
	if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || NLMSG_PAYLOAD(header, 0) < sizeof(*message))
		return -EBADMSG;
	set_state(&socket, message->udiag_state);
	left = (int)NLMSG_PAYLOAD(header, sizeof(*message));
	for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
		take_attribute(attribute, &socket);
	*ret_socket = socket;
	return 0;
}

static int read_one(int netlink_fd, uint64_t inode, struct proc_socket *ret_socket) {
	struct answer answer;
	size_t len;
	int r;

	if (!inode || inode > UINT32_MAX)
		return -ENOENT;
	r = ask(netlink_fd, (uint32_t)inode, &answer, &len);
	return r ? r : parse_answer(&answer, len, ret_socket);
}

int unix_diag_read(uint64_t inode, struct proc_socket *ret_socket) {
	_close_ int netlink_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	struct proc_socket one, peer;
	int r;

	if (netlink_fd < 0)
		return -errno;
	r = read_one(netlink_fd, inode, &one);
	if (r)
		return r;
	if (!read_one(netlink_fd, one.peer_inode, &peer))
		memcpy(one.remote, peer.local, sizeof(one.remote));
	*ret_socket = one;
	return 0;
}
