/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_HANDLES_H
#define PYSPYD_LEAKS_HANDLES_H

#include "engine/base/vec.h"
#include "engine/proc/fds.h"
#include "pyspyd/handles.h"

/* What a process holds, as items of one or two looks, and the groups that they make. Pure. */

enum handle_kind {
	HANDLE_FILE,
	HANDLE_DIRECTORY,
	HANDLE_DEVICE,
	HANDLE_TTY,
	HANDLE_PIPE,
	HANDLE_SOCKET,
	HANDLE_EVENTFD,
	HANDLE_TIMERFD,
	HANDLE_SIGNALFD,
	HANDLE_EPOLL,
	HANDLE_INOTIFY,
	HANDLE_PIDFD,
	HANDLE_MEMFD,
	HANDLE_OTHER,
	HANDLE_PYTHON, /* threads */
	HANDLE_NATIVE,
	HANDLE_CHILD, /* children */
	HANDLE_ZOMBIE,
	HANDLE_ANONYMOUS, /* mappings */
	HANDLE_HEAP,
	HANDLE_STACK,
	HANDLE_MAPPED_FILE,
	HANDLE_SHARED,
	HANDLE_SEMAPHORE,
	HANDLE_MAPPED_DEVICE,
	HANDLE_RESERVED, /* addresses without access */
	HANDLE_KERNEL,
};

const char *handle_kind_name(enum handle_kind kind);

/* What of a target may differ inside of one group. */
enum handle_merge {
	MERGE_NONE,
	MERGE_PATH, /* numbers; file names of one folder where there are many */
	MERGE_PORT, /* what follows the last ':', where there are many */
};

struct handle_item {
	enum pyspyd_handle_what what;
	enum handle_kind kind;
	enum handle_merge merge;
	bool before;      /* of the look before */
	int id;           /* negative: none */
	uint64_t address; /* of a mapping */
	uint64_t bytes;
	char *target;
};
typedef VEC(struct handle_item) handle_item_vec;

/* Adds an item, taking over its target, also where it fails; NULL is out of memory. Return: 0; -ENOMEM. */
int handle_add(handle_item_vec *items, const struct handle_item *item);
void handle_items_free(handle_item_vec *items);

/* Sorts the items and makes groups of them. Return: 0; -ENOMEM. *ret_groups is the caller's, to handle_groups_free. */
int handle_groups(handle_item_vec *items, struct pyspyd_handle_group **ret_groups, size_t *ret_n);
void handle_groups_free(struct pyspyd_handle_group *groups, size_t n);

/* The kind of a descriptor, and of a mapping. */
enum handle_kind handle_kind_of_fd(const struct proc_fd *fd);
enum handle_kind handle_kind_of_map(const struct proc_map *map);

/* What a descriptor that is no socket stands for: a path; an end of a pipe; "" where the kind says it all. Return: the
 * caller's to free(); NULL when out of memory. */
char *handle_fd_target(const struct proc_fd *fd);

/* Ports at which the process listens: connections that came in by one of them are told from those that go out. */
typedef VEC(uint16_t) handle_ports;
int handle_listens(handle_ports *ports, const struct proc_socket *socket);

/* "tcp CLOSE_WAIT to 10.1.2.3:5432", "tcp ESTABLISHED accepted at 10.0.0.1:80", "unix /run/x.sock". NULL: a socket of
 * which nothing is known. Return: the caller's to free(); NULL when out of memory. */
char *handle_socket_target(const struct proc_socket *socket, const handle_ports *ports);

/* The target with what tells one of many from the next taken out, into the caller's to free(); NULL when out of memory.
 * narrow: its numbers; wide: its file name (but for the suffix), its port. The target itself where there is none. */
char *handle_narrow(const char *target, enum handle_merge merge);
char *handle_wide(const char *target, enum handle_merge merge);

/* What two targets with the same narrow form have in common: '*' stands only for numbers that differ. `a` may be what
 * others had in common. The caller's to free(); NULL when out of memory. */
char *handle_common(const char *a, const char *b);

/* Index of the frame of the function that a thread was started with, as far as its stack (most recent call first)
 * shows: the outermost one but for those that start threads and programs. 0 of no frames. */
size_t handle_start(const struct pyspyd_frame *frames, size_t n);

#endif
