/* SPDX-License-Identifier: MIT */
/* Sockets by inode, as the network namespace of a process shows them: net/tcp and net/udp, then net/unix.
 *
 *	3: 0100007F:1F90 0100007F:C5E2 01 00000000:00000005 00:00000000 00000000 0 0 51234 1
 *	ffff9c3b00: 00000002 00000000 00010000 0001 01 12345 /run/x.sock
 *
 * Addresses are words of the machine's byte order. The other end of a TCP or UDP socket on this host is the line with
 * both addresses exchanged, in either of the two files: an IPv4 client meets a server's IPv6 socket at a mapped
 * address. It has the inode 0 while nobody has accepted it, and after it was closed. net/unix names no other end and
 * shows a path as its owner chose it, newlines too, so that a line there can be forged: unix_diag is asked first, which
 * sees our own network namespace alone. We never enter another. Cost: the kernel walks its whole table of sockets for
 * each file (measured: 2.8 ms until all were read). */
#include "engine/proc/fds.h"

#include "engine/proc/files.h"
#include "engine/proc/text.h"
#include "engine/proc/unix_diag.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>

#define NET_MAX_BYTES (64U << 20)
#define UNIX_ACCEPTS 0x10000 /* __SO_ACCEPTCON */
#define UNIX_CONNECTED 3     /* SS_CONNECTED */

struct endpoint {
	struct in6_addr address; /* IPv4 mapped */
	uint16_t port;
};

struct inet_line {
	struct endpoint local, remote;
	uint64_t state, send, receive, inode;
};

/* Both files of a protocol; either may be missing. */
struct inet_files {
	char *data[2];
	size_t len[2];
};

static bool hex_word(struct text *t, uint32_t *ret) {
	struct text word = *t;
	uint64_t value;

	if (text_left(t) < 8)
		return false;
	word.end = word.at + 8;
	if (!text_hex(&word, &value) || text_left(&word))
		return false;
	t->at += 8;
	*ret = (uint32_t)value;
	return true;
}

static bool parse_endpoint(struct text *t, struct endpoint *ret) {
	uint32_t words[4] = { 0, 0, htonl(0xffff), 0 };
	uint64_t port;

	text_blanks(t);
	if (!hex_word(t, &words[3]))
		return false;
	if (!text_char(t, ':')) {
		words[0] = words[3];
		if (!hex_word(t, &words[1]) || !hex_word(t, &words[2]) || !hex_word(t, &words[3]) || !text_char(t, ':'))
			return false;
	}
	if (!text_hex(t, &port) || port > UINT16_MAX)
		return false;
	memcpy(&ret->address, words, sizeof(words));
	ret->port = (uint16_t)port;
	return true;
}

static bool blank_number(struct text *t, unsigned base, uint64_t *ret) {
	text_blanks(t);
	return text_number(t, base, ret);
}

static bool hex_pair(struct text *t, uint64_t *ret_first, uint64_t *ret_second) {
	return blank_number(t, 16, ret_first) && text_char(t, ':') && text_hex(t, ret_second);
}

static bool parse_inet(struct text t, struct inet_line *ret) {
	uint64_t skipped;

	return blank_number(&t, 10, &skipped) && text_char(&t, ':') && parse_endpoint(&t, &ret->local) &&
		parse_endpoint(&t, &ret->remote) && blank_number(&t, 16, &ret->state) &&
		hex_pair(&t, &ret->send, &ret->receive) && hex_pair(&t, &skipped, &skipped) &&
		blank_number(&t, 16, &skipped) && blank_number(&t, 10, &skipped) && blank_number(&t, 10, &skipped) &&
		blank_number(&t, 10, &ret->inode);
}

static bool same_endpoint(const struct endpoint *a, const struct endpoint *b) {
	return a->port == b->port && IN6_ARE_ADDR_EQUAL(&a->address, &b->address);
}

static bool is_peer(const struct inet_line *line, const struct inet_line *of) {
	return same_endpoint(&line->local, &of->remote) && same_endpoint(&line->remote, &of->local) &&
		line->inode != of->inode;
}

/* The line with this inode or, where `peer_of` is given, the one at its other end. Lines that do not parse (the
 * heading) are none. */
static bool find_inet(
	const struct inet_files *files, uint64_t inode, const struct inet_line *peer_of, struct inet_line *ret) {
	for (size_t i = 0; i < ARRAY_SIZE(files->data) && files->data[i]; i++) {
		struct text t = text_of(files->data[i], files->len[i]), text;
		struct inet_line line;

		while (text_line(&t, &text)) {
			if (!parse_inet(text, &line) || (peer_of ? !is_peer(&line, peer_of) : line.inode != inode))
				continue;
			*ret = line;
			return true;
		}
	}
	return false;
}

static void set_endpoint(char *out, size_t size, const struct endpoint *endpoint) {
	char address[INET6_ADDRSTRLEN];
	const struct in6_addr *a = &endpoint->address;

	if (IN6_IS_ADDR_V4MAPPED(a)) {
		inet_ntop(AF_INET, &a->s6_addr[12], address, sizeof(address));
		snprintf(out, size, "%s:%u", address, endpoint->port);
	} else {
		inet_ntop(AF_INET6, a, address, sizeof(address));
		snprintf(out, size, "[%s]:%u", address, endpoint->port);
	}
}

static bool is_loopback(const struct in6_addr *address) {
	return IN6_IS_ADDR_LOOPBACK(address) || (IN6_IS_ADDR_V4MAPPED(address) && address->s6_addr[12] == 127);
}

static const char *tcp_state(uint64_t state) {
	static const char *const names[] = {
		[TCP_ESTABLISHED] = "ESTABLISHED",
		[TCP_SYN_SENT] = "SYN_SENT",
		[TCP_SYN_RECV] = "SYN_RECV",
		[TCP_FIN_WAIT1] = "FIN_WAIT1",
		[TCP_FIN_WAIT2] = "FIN_WAIT2",
		[TCP_TIME_WAIT] = "TIME_WAIT",
		[TCP_CLOSE] = "CLOSE",
		[TCP_CLOSE_WAIT] = "CLOSE_WAIT",
		[TCP_LAST_ACK] = "LAST_ACK",
		[TCP_LISTEN] = "LISTEN",
		[TCP_CLOSING] = "CLOSING",
	};

	return state < ARRAY_SIZE(names) && names[state] ? names[state] : "";
}

static void describe_inet(const struct inet_files *files, const struct inet_line *line, struct proc_socket *socket) {
	struct inet_line peer;

	set_endpoint(socket->local, sizeof(socket->local), &line->local);
	snprintf(socket->state, sizeof(socket->state), "%s", tcp_state(line->state));
	socket->listening = socket->family == SOCKET_TCP && line->state == TCP_LISTEN;
	socket->receive_queue = line->receive;
	socket->send_queue = line->send;
	if (!line->remote.port)
		return;
	set_endpoint(socket->remote, sizeof(socket->remote), &line->remote);
	socket->loopback =
		is_loopback(&line->remote.address) || IN6_ARE_ADDR_EQUAL(&line->remote.address, &line->local.address);
	if (!find_inet(files, 0, line, &peer))
		return;
	socket->loopback = true;
	socket->peer_inode = peer.inode;
}

/* Return: 0, also where the kernel has no such file (and then no data); negative errno. */
static int read_net(const struct proc *proc, const char *name, char **ret_data, size_t *ret_len) {
	int r = files_read(proc->dir_fd, name, NET_MAX_BYTES, ret_data, ret_len);

	return r == -ENOENT ? 0 : r;
}

static int read_inet(const struct proc *proc, uint64_t inode, int family, const char *const names[2],
	struct proc_socket *ret_socket) {
	struct proc_socket socket = { .family = family };
	struct inet_files files = { 0 };
	struct inet_line line;
	int r = read_net(proc, names[0], &files.data[0], &files.len[0]);

	if (!r)
		r = read_net(proc, names[1], &files.data[1], &files.len[1]);
	if (!r && !find_inet(&files, inode, NULL, &line))
		r = -ENOENT;
	if (!r) {
		describe_inet(&files, &line, &socket);
		*ret_socket = socket;
	}
	free(files.data[0]);
	free(files.data[1]);
	return r;
}

static int read_tcp(const struct proc *proc, uint64_t inode, struct proc_socket *ret_socket) {
	static const char *const names[2] = { "net/tcp", "net/tcp6" };

	return read_inet(proc, inode, SOCKET_TCP, names, ret_socket);
}

static int read_udp(const struct proc *proc, uint64_t inode, struct proc_socket *ret_socket) {
	static const char *const names[2] = { "net/udp", "net/udp6" };

	return read_inet(proc, inode, SOCKET_UDP, names, ret_socket);
}

struct unix_line {
	uint64_t flags, state, inode;
	struct text name;
};

static bool parse_unix(struct text t, struct unix_line *ret) {
	uint64_t skipped;

	if (!blank_number(&t, 16, &skipped) || !text_char(&t, ':') || !blank_number(&t, 16, &skipped) ||
		!blank_number(&t, 16, &skipped) || !blank_number(&t, 16, &ret->flags) ||
		!blank_number(&t, 16, &skipped) || !blank_number(&t, 16, &ret->state) ||
		!blank_number(&t, 10, &ret->inode))
		return false;
	text_char(&t, ' ');
	ret->name = t;
	return true;
}

static void describe_unix(const struct unix_line *line, struct proc_socket *socket) {
	size_t n = min_of(text_left(&line->name), sizeof(socket->local) - 1);

	memcpy(socket->local, line->name.at, n);
	socket->listening = line->flags & UNIX_ACCEPTS;
	if (socket->listening)
		strcpy(socket->state, "LISTEN");
	else if (line->state == UNIX_CONNECTED)
		strcpy(socket->state, "ESTABLISHED");
}

static int read_unix(const struct proc *proc, uint64_t inode, struct proc_socket *ret_socket) {
	struct proc_socket socket = {
		.family = SOCKET_UNIX, .loopback = true, .receive_queue = UINT64_MAX, .send_queue = UINT64_MAX
	};
	_free_ char *data = NULL;
	struct unix_line line;
	struct text t, text;
	size_t len = 0;
	int r = read_net(proc, "net/unix", &data, &len);

	if (r || !data)
		return r ? r : -ENOENT;
	t = text_of(data, len);
	while (text_line(&t, &text)) {
		if (!parse_unix(text, &line) || line.inode != inode)
			continue;
		describe_unix(&line, &socket);
		*ret_socket = socket;
		return 0;
	}
	return -ENOENT;
}

/* A captured tree has no pidfd: the kernel that runs now knows nothing of its sockets. */
static bool shares_our_network(const struct proc *proc) {
	_free_ char *ours = NULL, *theirs = NULL;

	return proc->pidfd >= 0 && !files_read_link(proc->dir_fd, "ns/net", &theirs) &&
		!files_read_link(AT_FDCWD, "/proc/self/ns/net", &ours) && !strcmp(ours, theirs);
}

static int read_diag(const struct proc *proc, uint64_t inode, struct proc_socket *ret_socket) {
	return shares_our_network(proc) && !unix_diag_read(inode, ret_socket) ? 0 : -ENOENT;
}

int proc_socket_read(const struct proc *proc, uint64_t inode, struct proc_socket *ret_socket) {
	static int (*const ways[])(const struct proc *proc, uint64_t inode, struct proc_socket *ret_socket) = {
		read_diag,
		read_tcp,
		read_unix,
		read_udp,
	};

	if (!inode)
		return -ENOENT;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		int r = ways[i](proc, inode, ret_socket);

		if (r != -ENOENT)
			return r && !proc_alive(proc) ? PROC_E_GONE : r;
	}
	return proc_alive(proc) ? -ENOENT : PROC_E_GONE;
}
