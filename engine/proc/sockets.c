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
 * each file (measured: 2.8 ms until all were read), so that each is read once for all sockets of a cache, when the
 * first is asked for. */
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

/* The lines of both files of a protocol. */
struct inet_lines {
	VEC(struct inet_line) lines;
	struct map by_inode, by_ends; /* → index */
	bool read;
};

enum protocol { TCP, UDP, PROTOCOLS };

/* What was read of one network namespace. */
struct socket_space {
	char *name;
	bool ours;
	struct inet_lines inet[PROTOCOLS];
	char *unix_text;
	size_t unix_len;
	bool unix_read;
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

static uint64_t key_of_ends(const struct endpoint *local, const struct endpoint *remote) {
	uint64_t key = hash_bytes(&local->address, sizeof(local->address), local->port);

	key = hash_bytes(&remote->address, sizeof(remote->address), key ^ remote->port);
	return key == UINT64_MAX ? 0 : key;
}

static bool same_endpoint(const struct endpoint *a, const struct endpoint *b) {
	return a->port == b->port && IN6_ARE_ADDR_EQUAL(&a->address, &b->address);
}

static const struct inet_line *line_at(const struct inet_lines *inet, const struct map *map, uint64_t key) {
	uint64_t at;

	return map_get(map, key, &at) ? &inet->lines.items[at] : NULL;
}

/* The line with both addresses exchanged; NULL: none. */
static const struct inet_line *find_peer(const struct inet_lines *inet, const struct inet_line *of) {
	const struct inet_line *line = line_at(inet, &inet->by_ends, key_of_ends(&of->remote, &of->local));

	if (!line || line->inode == of->inode || !same_endpoint(&line->local, &of->remote) ||
		!same_endpoint(&line->remote, &of->local))
		return NULL;
	return line;
}

/* Of several with the same addresses one that has an inode is kept. */
static int add_line(struct inet_lines *inet, const struct inet_line *line) {
	uint64_t ends = key_of_ends(&line->local, &line->remote);
	const struct inet_line *known = line_at(inet, &inet->by_ends, ends);
	int r = vec_push(&inet->lines, *line);

	if (!r && (!known || !known->inode))
		r = map_put(&inet->by_ends, ends, inet->lines.n - 1);
	if (!r && line->inode && line->inode != UINT64_MAX && !line_at(inet, &inet->by_inode, line->inode))
		r = map_put(&inet->by_inode, line->inode, inet->lines.n - 1);
	return r;
}

/* Lines that do not parse (the heading) are none. */
static int add_lines(struct inet_lines *inet, const char *data, size_t len) {
	struct text t = text_of(data, len), text;
	struct inet_line line;
	int r = 0;

	while (!r && text_line(&t, &text))
		if (parse_inet(text, &line))
			r = add_line(inet, &line);
	return r;
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

static void describe_inet(const struct inet_lines *inet, const struct inet_line *line, struct proc_socket *socket) {
	const struct inet_line *peer = find_peer(inet, line);

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
	if (!peer)
		return;
	socket->loopback = true;
	socket->peer_inode = peer->inode;
}

/* Return: 0, also where the kernel has no such file (and then no data); negative errno. */
static int read_net(const struct proc *proc, const char *name, char **ret_data, size_t *ret_len) {
	int r = files_read(proc->dir_fd, name, NET_MAX_BYTES, ret_data, ret_len);

	return r == -ENOENT ? 0 : r;
}

/* Either file may be missing. */
static int read_lines(const struct proc *proc, enum protocol protocol, struct inet_lines *inet) {
	static const char *const names[PROTOCOLS][2] = {
		[TCP] = { "net/tcp", "net/tcp6" }, [UDP] = { "net/udp", "net/udp6" }
	};
	int r = 0;

	for (size_t i = 0; !r && !inet->read && i < 2; i++) {
		_free_ char *data = NULL;
		size_t len = 0;

		r = read_net(proc, names[protocol][i], &data, &len);
		if (!r && data)
			r = add_lines(inet, data, len);
	}
	inet->read = !r;
	return r;
}

static int read_inet(const struct proc *proc, struct socket_space *space, enum protocol protocol, uint64_t inode,
	struct proc_socket *ret_socket) {
	struct inet_lines *inet = &space->inet[protocol];
	struct proc_socket socket = { .family = protocol == TCP ? SOCKET_TCP : SOCKET_UDP };
	const struct inet_line *line;
	int r = read_lines(proc, protocol, inet);

	if (r)
		return r;
	line = inode == UINT64_MAX ? NULL : line_at(inet, &inet->by_inode, inode);
	if (!line)
		return -ENOENT;
	describe_inet(inet, line, &socket);
	*ret_socket = socket;
	return 0;
}

static int read_tcp(
	const struct proc *proc, struct socket_space *space, uint64_t inode, struct proc_socket *ret_socket) {
	return read_inet(proc, space, TCP, inode, ret_socket);
}

static int read_udp(
	const struct proc *proc, struct socket_space *space, uint64_t inode, struct proc_socket *ret_socket) {
	return read_inet(proc, space, UDP, inode, ret_socket);
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

static int read_unix(
	const struct proc *proc, struct socket_space *space, uint64_t inode, struct proc_socket *ret_socket) {
	struct proc_socket socket = {
		.family = SOCKET_UNIX, .loopback = true, .receive_queue = UINT64_MAX, .send_queue = UINT64_MAX
	};
	struct unix_line line;
	struct text t, text;
	int r = space->unix_read ? 0 : read_net(proc, "net/unix", &space->unix_text, &space->unix_len);

	space->unix_read = !r;
	if (r || !space->unix_text)
		return r ? r : -ENOENT;
	t = text_of(space->unix_text, space->unix_len);
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
static int read_diag(
	const struct proc *proc, struct socket_space *space, uint64_t inode, struct proc_socket *ret_socket) {
	return proc->pidfd >= 0 && space->ours && !unix_diag_read(inode, ret_socket) ? 0 : -ENOENT;
}

/* spaces */

static void free_space(struct socket_space *space) {
	if (!space)
		return;
	for (size_t i = 0; i < PROTOCOLS; i++) {
		vec_free(&space->inet[i].lines);
		map_deinit(&space->inet[i].by_inode);
		map_deinit(&space->inet[i].by_ends);
	}
	free(space->unix_text);
	free(space->name);
	free(space);
}

void socket_cache_deinit(struct socket_cache *cache) {
	vec_foreach (space, &cache->spaces)
		free_space(*space);
	vec_free(&cache->spaces);
}

/* Where its name may not be read, a namespace is that of this process alone. */
static char *space_name(const struct proc *proc) {
	char *name = NULL;

	if (files_read_link(proc->dir_fd, "ns/net", &name) && asprintf(&name, "of %d", (int)proc->pid) < 0)
		return NULL;
	return name;
}

static int find_space(struct socket_cache *cache, const struct proc *proc, struct socket_space **ret_space) {
	_free_ char *name = space_name(proc), *ours = NULL;
	struct socket_space *space;
	int r;

	if (!name)
		return -ENOMEM;
	vec_foreach (known, &cache->spaces) {
		if (strcmp((*known)->name, name))
			continue;
		*ret_space = *known;
		return 0;
	}
	space = calloc(1, sizeof(*space));
	if (!space)
		return -ENOMEM;
	space->ours = !files_read_link(AT_FDCWD, "/proc/self/ns/net", &ours) && !strcmp(ours, name);
	space->name = take_ptr(name);
	r = vec_push(&cache->spaces, space);
	if (r) {
		free_space(space);
		return r;
	}
	*ret_space = space;
	return 0;
}

int proc_socket_read_cached(
	struct socket_cache *cache, const struct proc *proc, uint64_t inode, struct proc_socket *ret_socket) {
	static int (*const ways[])(
		const struct proc *proc, struct socket_space *space, uint64_t inode, struct proc_socket *ret_socket) = {
		read_diag,
		read_tcp,
		read_unix,
		read_udp,
	};
	struct socket_space *space;
	int r;

	if (!inode)
		return -ENOENT;
	r = find_space(cache, proc, &space);
	if (r)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		r = ways[i](proc, space, inode, ret_socket);
		if (r != -ENOENT)
			return r && !proc_alive(proc) ? PROC_E_GONE : r;
	}
	return proc_alive(proc) ? -ENOENT : PROC_E_GONE;
}

int proc_socket_read(const struct proc *proc, uint64_t inode, struct proc_socket *ret_socket) {
	_cleanup_(socket_cache_deinit) struct socket_cache cache = { 0 };

	return proc_socket_read_cached(&cache, proc, inode, ret_socket);
}
