/* SPDX-License-Identifier: MIT */
/* Descriptors as items: their targets, and of sockets both ends and the state. */
#include "engine/pipeline/handles_fds.h"

#define DESCRIPTORS_MAX (256U << 10)

struct sockets {
	struct socket_cache cache;
	VEC(struct proc_socket) sockets; /* in the order of their descriptors */
	handle_ports ports;
};

static int read_sockets(const struct proc *proc, const proc_fd_vec *fds, struct sockets *sockets) {
	int r = 0;

	vec_foreach (fd, fds) {
		struct proc_socket socket = { 0 };

		if (fd->kind != FD_SOCKET)
			continue;
		r = proc_socket_read_cached(&sockets->cache, proc, fd->inode, &socket);
		if (r == PROC_E_GONE || r == -ENOMEM)
			return r;
		r = vec_push(&sockets->sockets, socket);
		if (!r)
			r = handle_listens(&sockets->ports, &socket);
		if (r)
			return r;
	}
	return 0;
}

static struct handle_item item_of(const struct proc_fd *fd, const struct sockets *sockets, size_t *at) {
	struct handle_item item = { .what = PYSPYD_HANDLE_DESCRIPTOR, .id = fd->fd };
	const struct proc_socket *socket;

	if (fd->kind == FD_SOCKET) {
		socket = &sockets->sockets.items[(*at)++];
		item.kind = HANDLE_SOCKET;
		item.merge = socket->family == SOCKET_UNIX ? MERGE_PATH : MERGE_PORT;
		item.target = handle_socket_target(socket, &sockets->ports);
	} else {
		item.kind = handle_kind_of_fd(fd);
		item.merge = fd->target[0] == '/' ? MERGE_PATH : MERGE_NONE;
		item.target = handle_fd_target(fd);
	}
	return item;
}

int handles_read_fds(
	const struct proc *proc, bool before, handle_item_vec *items, uint64_t *ret_n, bool *ret_incomplete) {
	struct sockets sockets = { 0 };
	proc_fd_vec fds = { 0 };
	size_t at = 0;
	int r = proc_fds_read(proc, DESCRIPTORS_MAX, &fds);

	if (!r)
		r = read_sockets(proc, &fds, &sockets);
	for (size_t i = 0; !r && i < fds.n; i++) {
		struct handle_item item = item_of(&fds.items[i], &sockets, &at);

		item.before = before;
		r = handle_add(items, &item);
	}
	if (!r) {
		*ret_n = fds.n;
		*ret_incomplete = fds.n == DESCRIPTORS_MAX;
	}
	socket_cache_deinit(&sockets.cache);
	vec_free(&sockets.sockets);
	vec_free(&sockets.ports);
	proc_fds_free(&fds);
	return r;
}
