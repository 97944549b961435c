/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_FDS_H
#define PYSPYD_PROC_FDS_H

#include "engine/base/map.h"
#include "engine/proc/proc.h"

/* What descriptors are, and who has the other end. */

enum fd_kind {
	FD_FILE,
	FD_DIRECTORY,
	FD_DEVICE,
	FD_TTY,
	FD_PIPE,
	FD_SOCKET,
	FD_EVENTFD,
	FD_TIMERFD,
	FD_SIGNALFD,
	FD_EPOLL,
	FD_INOTIFY,
	FD_PIDFD,
	FD_OTHER,
};

struct proc_fd {
	int fd;
	enum fd_kind kind;
	bool read, write; /* as it was opened */
	uint64_t inode;   /* of a pipe (named ones too), a socket or a file */
	uint64_t dev; /* as stat has it, of what has a name in a file system; 0 of the kernel's own pipes and sockets */
	pid_t pid;    /* of a pidfd; -1: it has been waited for; 0 unknown */
	char *target; /* as the kernel shows it: "pipe:[123]", "/tmp/x", "socket:[5]" */
};
typedef VEC(struct proc_fd) proc_fd_vec;

/* One descriptor. Return: 0 (free with proc_fd_deinit); -ENOENT: not open; -EAGAIN: another one at each look;
 * PROC_E_GONE; -EACCES. */
int proc_fd_read(const struct proc *proc, int fd, struct proc_fd *ret_fd);
void proc_fd_deinit(struct proc_fd *fd);

/* All of them, at most `max`. Return: 0; PROC_E_GONE; -EACCES; negative errno. */
int proc_fds_read(const struct proc *proc, size_t max, proc_fd_vec *ret_fds);
void proc_fds_free(proc_fd_vec *fds);

/* The descriptors that an epoll instance watches (tfd lines of fdinfo), at most `max`. Return: 0; PROC_E_GONE; -ENOENT.
 */
typedef VEC(int) int_vec;
int proc_epoll_read(const struct proc *proc, int epoll_fd, size_t max, int_vec *ret_fds);

/* Whether a timerfd is armed, or has fired and was not read since. Return: 0; PROC_E_GONE; -ENOENT: no timerfd. */
int proc_timerfd_armed(const struct proc *proc, int fd, bool *ret_armed);

/* A socket, by its inode, as the network namespace of the process shows it. */
struct proc_socket {
	enum { SOCKET_UNKNOWN, SOCKET_TCP, SOCKET_UDP, SOCKET_UNIX } family;
	bool listening;
	char local[64], remote[64]; /* "10.1.2.3:5432", "[::1]:80"; a unix socket's path or "@name"; "" none */
	char state[16];             /* "ESTABLISHED", "CLOSE_WAIT", "SYN_SENT", "LISTEN"; "" */
	bool loopback;              /* the other side is on this host */
	uint64_t peer_inode;        /* the other end's socket where it could be told (unix_diag; loopback TCP); 0 */
	uint64_t receive_queue, send_queue; /* bytes; UINT64_MAX unknown */
};
/* Return: 0; -ENOENT: no such socket there; PROC_E_GONE; negative errno. */
int proc_socket_read(const struct proc *proc, uint64_t inode, struct proc_socket *ret_socket);

/* What was read of network namespaces, for many sockets at one moment: each file of the kernel's is read once. Zeroed
 * memory is an empty one. */
struct socket_cache {
	VEC(struct socket_space *) spaces;
};
int proc_socket_read_cached(
	struct socket_cache *cache, const struct proc *proc, uint64_t inode, struct proc_socket *ret_socket);
void socket_cache_deinit(struct socket_cache *cache);

/* Who has what open, on the whole host: read once for a look, when something cross-process must be told. */
struct fd_owner {
	pid_t pid;
	int fd;
	bool read, write;
	uint64_t dev; /* as in struct proc_fd: a named FIFO may have the inode number of a pipe */
};
struct fd_table {
	VEC(struct fd_owner) owners;
	struct map first; /* inode of pipe or socket → 1 + index in owners of the first; next by `next` */
	VEC(uint32_t) next;
	bool incomplete; /* some processes could not be read */
};
/* Pipes and sockets of every process below root ("/proc") that we may read, at most 1 M descriptors. Return: 0;
 * -ENOMEM; negative errno. */
int fd_table_read(const char *root, struct fd_table *ret_table);
void fd_table_deinit(struct fd_table *table);

/* Calls `each` for every owner of the inode, until it returns non-zero, which is returned. */
int fd_table_each(const struct fd_table *table, uint64_t inode,
	int (*each)(void *userdata, const struct fd_owner *owner), void *userdata);

/* /proc/locks: who holds a file lock, and who waits for it (lines with "->"). */
struct file_lock {
	uint64_t id;
	bool waits; /* else holds */
	enum { FILE_LOCK_FLOCK, FILE_LOCK_POSIX, FILE_LOCK_OFD, FILE_LOCK_LEASE } kind;
	bool write;
	pid_t pid; /* -1 for OFD locks */
	uint64_t dev, inode;
	uint64_t start, end; /* UINT64_MAX: to the end of the file */
};
typedef VEC(struct file_lock) file_lock_vec;
int file_locks_parse(const char *text, size_t len, file_lock_vec *ret_locks); /* pure */
int file_locks_read(const char *root, file_lock_vec *ret_locks);

/* Signals that a process catches (SigCgt of status), a bit each (bit n - 1 for signal n). */
int proc_caught_signals(const struct proc *proc, uint64_t *ret_mask);

/* Its children, direct ones, zombies included, ascending. Return: 0; PROC_E_GONE; negative errno. */
int proc_children(const char *root, pid_t pid, pid_vec *ret_pids);

/* Where a shared futex word really is: the file and offset behind the address. Return: 0; -ENOENT: not in a shared
 * mapping; PROC_E_GONE. */
struct shared_word {
	uint64_t dev, inode, offset;
	char path[256]; /* "/dev/shm/sem.xyz" without " (deleted)" */
};
int proc_shared_word(const struct proc *proc, raddr address, struct shared_word *ret_word);

#endif
