/* SPDX-License-Identifier: MIT */
/* Waits that the system call alone tells: descriptors and who has the other end, children, file locks, native mutexes.
 *
 * A descriptor that somebody elsewhere serves, a listening socket, a timer, a terminal: the thread may go on at any
 * time. A pipe or a socket whose other end is held on this host leads on to those processes. */
#include "engine/waits/scan.h"

#include "engine/cpython/blocks.h"
#include "engine/cpython/locks.h"
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define POLL_FDS_MAX 256   /* of one poll or select that are looked at */
#define OWNERS_MAX 32      /* processes at the other end of one pipe */
#define CHILDREN_MAX 256   /* any of which is waited for */
#define HEIRS_MAX 64       /* descendants of a process that may share its file lock */
#define FILES_MAX 4096     /* descriptors of a process that are looked at for a file lock */
#define REFERENCES_MAX 256 /* of one frame's value stack */

static const struct fd_table *fd_table(struct wait_scan *scan) {
	if (!scan->fds_read) {
		scan->fds_read = !fd_table_read(scan->root, &scan->fds);
		if (!scan->fds_read)
			scan->waits->incomplete = true;
	}
	return scan->fds_read ? &scan->fds : NULL;
}

/* the other end */

struct ends {
	uint64_t dev; /* a named FIFO may have the inode number of a pipe */
	bool readers; /* who reads is asked for, rather than who writes */
	pid_t pids[OWNERS_MAX];
	size_t n;
	bool overflow;
};

static int add_end(void *userdata, const struct fd_owner *owner) {
	struct ends *ends = userdata;

	if (owner->dev != ends->dev || (ends->readers ? !owner->read : !owner->write))
		return 0;
	for (size_t i = 0; i < ends->n; i++)
		if (ends->pids[i] == owner->pid)
			return 0;
	if (ends->n == OWNERS_MAX) {
		ends->overflow = true;
		return 1;
	}
	ends->pids[ends->n++] = owner->pid;
	return 0;
}

/* Edges to the processes that have the other end open. With too many of them, or none, the resource stays free: the
 * call is about to return. Where it is the waiting process alone, which catches signals, such a call is how it waits
 * for these. */
static void lead_to_ends(struct wait_scan *scan, const struct wait_view *view, uint32_t resource, uint64_t inode,
	uint64_t dev, bool readers, const char **ret_idle) {
	struct ends ends = { .dev = dev, .readers = readers };
	const struct fd_table *table = fd_table(scan);

	if (!table)
		return;
	fd_table_each(table, inode, add_end, &ends);
	if (!ends.n || ends.overflow)
		return;
	if (ends.n == 1 && ends.pids[0] == view->proc.pid && view->python && scan_has_handlers(view))
		*ret_idle = "signal";
	scan_node(scan, resource)->rule = PYSPYD_WAIT_ANY;
	for (size_t i = 0; i < ends.n; i++)
		scan_edge(scan, resource, scan_process_acts(scan, ends.pids[i]), NULL,
			table->incomplete ? "processes that may not be read might have it open too" : NULL);
}

static uint32_t pipe_node(struct wait_scan *scan, const struct wait_view *view, const struct proc_fd *fd, bool reading,
	const char **ret_idle) {
	bool fresh;
	uint32_t index = scan_resource(scan, "pipe", 0, fd->inode,
		scan_key(reading ? "pipe-data" : "pipe-room", fd->inode, fd->dev), &fresh, "%s, %s", fd->target,
		reading ? "to be written to" : "which is full, to be read");

	if (fresh)
		lead_to_ends(scan, view, index, fd->inode, fd->dev, !reading, ret_idle);
	if (fd->dev) { /* it has a name: anybody may open it */
		scan_node(scan, index)->rule = PYSPYD_WAIT_FREE;
		*ret_idle = "FIFO";
	}
	return index;
}

/* A datagram socket that nobody in particular is at the other end of: a server's. */
static bool takes_any_sender(const struct proc_socket *socket) {
	if (socket->family == SOCKET_UDP)
		return !socket->remote[0];
	return socket->family == SOCKET_UNIX && !socket->peer_inode && !socket->state[0];
}

static uint32_t socket_node(
	struct wait_scan *scan, struct wait_view *view, const struct proc_fd *fd, bool reading, const char **ret_idle) {
	struct proc_socket socket;
	const char *what, *verb, *tail;
	uint32_t index;
	bool fresh;

	if (proc_socket_read_cached(&scan->sockets, &view->proc, fd->inode, &socket)) {
		if (reading)
			*ret_idle = "messages"; /* from the kernel or a device: netlink, packets, CAN */
		return scan_resource(
			scan, "socket", 0, fd->inode, scan_key("socket", fd->inode, reading), NULL, "%s", fd->target);
	}
	if (socket.listening) {
		*ret_idle = "accept";
		return scan_resource(scan, "socket", 0, fd->inode, scan_key("socket", fd->inode, reading), NULL,
			"connections to %s", socket.local[0] ? socket.local : fd->target);
	}
	if (reading && takes_any_sender(&socket))
		*ret_idle = "messages";
	what = socket.remote[0] ? socket.remote : socket.local[0] ? socket.local : fd->target;
	verb = !strcmp(socket.state, "SYN_SENT") ? "a connection to" : reading ? "data from" : "room for data to";
	tail = !socket.peer_inode ? "" : reading ? ", to be sent" : ", to be read";
	index = scan_resource(scan, "socket", 0, fd->inode, scan_key("socket", fd->inode, reading), &fresh, "%s %s%s",
		verb, what, tail);
	if (fresh && socket.peer_inode)
		lead_to_ends(scan, view, index, socket.peer_inode, 0, !reading, ret_idle);
	return index;
}

/* The node of what a descriptor waits for, and words where such a wait is idling. */
static uint32_t fd_node(
	struct wait_scan *scan, struct wait_view *view, const struct proc_fd *fd, bool reading, const char **ret_idle) {
	switch (fd->kind) {
	case FD_PIPE: return pipe_node(scan, view, fd, reading, ret_idle);
	case FD_SOCKET: return socket_node(scan, view, fd, reading, ret_idle);
	case FD_TTY: *ret_idle = "console"; break;
	case FD_EVENTFD: /* by which a program's own threads, or its library, wake it */
	case FD_TIMERFD:
	case FD_SIGNALFD:
	case FD_INOTIFY:
	case FD_DEVICE: *ret_idle = "events"; break;
	default: break;
	}
	if (fd->kind == FD_PIDFD && fd->pid > 0)
		return scan_process_end(scan, fd->pid);
	return scan_resource(scan, "file", view->proc.pid, 0,
		scan_key("fd", (uint64_t)view->proc.pid << 32 | (uint32_t)fd->fd, reading), NULL, "%s", fd->target);
}

static void wait_for_fd(
	struct wait_scan *scan, struct wait_view *view, struct view_thread *thread, int number, bool reading) {
	const char *idle = NULL;
	struct proc_fd fd;
	uint32_t index;

	if (proc_fd_read(&view->proc, number, &fd))
		return;
	index = fd_node(scan, view, &fd, reading, &idle);
	if (number == 0 && reading && !idle)
		idle = "standard input";
	if (idle && !scan_node(scan, thread->node)->idle)
		scan_node(scan, thread->node)->idle = idle;
	scan_waits(scan, thread, index, NULL, NULL);
	proc_fd_deinit(&fd);
}

/* several descriptors */

struct polled {
	int fd;
	bool read, write;
};

struct polled_set {
	struct polled items[POLL_FDS_MAX];
	size_t n;
	bool partial; /* there are more, or what is waited for is not known */
};

static void add_polled(struct polled_set *set, int fd, bool read, bool write) {
	for (size_t i = 0; i < set->n; i++) {
		if (set->items[i].fd == fd) {
			set->items[i].read |= read;
			set->items[i].write |= write;
			return;
		}
	}
	if (set->n < POLL_FDS_MAX)
		set->items[set->n++] = (struct polled){ fd, read, write };
	else
		set->partial = true;
}

/* One without events waits for the other side to hang up, as readers do. */
static void read_pollfds(struct mem *mem, const struct proc_sleep *sleep, struct polled_set *set) {
	struct pollfd fds[POLL_FDS_MAX];
	size_t n = min_of(sleep->count, (uint64_t)POLL_FDS_MAX);

	set->partial = sleep->count > n || (n && mem_read(mem, sleep->address, fds, n * sizeof(fds[0])));
	for (size_t i = 0; !set->partial && i < n; i++) {
		bool write = fds[i].events & (POLLOUT | POLLWRNORM);

		if (fds[i].fd >= 0)
			add_polled(set, fds[i].fd, !write || fds[i].events & (POLLIN | POLLPRI | POLLRDNORM), write);
	}
}

/* The kernel writes its answer over the sets: while the call waits they are still the question. The third set, of
 * exceptions, is as good as one to read. */
static void read_fd_sets(struct mem *mem, const struct proc_sleep *sleep, struct polled_set *set) {
	size_t count = min_of(sleep->count, (uint64_t)FD_SETSIZE);

	set->partial = sleep->count > count;
	for (int i = 0; i < 3; i++) {
		uint64_t bits[FD_SETSIZE / 64] = { 0 };

		if (!count || !sleep->args[1 + i])
			continue;
		if (mem_read(mem, sleep->args[1 + i], bits, (count + 63) / 64 * 8)) {
			set->partial = true;
			return;
		}
		for (size_t fd = 0; fd < count; fd++)
			if (bits[fd / 64] >> fd % 64 & 1)
				add_polled(set, (int)fd, i != 1, i == 1);
	}
}

/* For what it watches them is not asked: for whatever they are open for. */
static void read_epoll(const struct wait_view *view, int epoll_fd, struct polled_set *set) {
	int_vec fds = { 0 };

	if (proc_epoll_read(&view->proc, epoll_fd, POLL_FDS_MAX + 1, &fds)) {
		set->partial = true;
		return;
	}
	vec_foreach (fd, &fds)
		add_polled(set, *fd, true, true);
	vec_free(&fds);
}

/* Any of them ends the wait: one that may come at any time makes the thread free, as does one that is not known. */
static void wait_for_any(
	struct wait_scan *scan, struct wait_view *view, struct view_thread *thread, const struct polled_set *set) {
	bool partial = set->partial;

	for (size_t i = 0; i < set->n; i++) {
		const struct polled *polled = &set->items[i];
		const char *idle = NULL;
		struct proc_fd fd;
		bool both = polled->read && polled->write;

		if (proc_fd_read(&view->proc, polled->fd, &fd)) {
			partial = true;
			continue;
		}
		if (polled->read && (!both || fd.read))
			scan_waits(scan, thread, fd_node(scan, view, &fd, true, &idle), NULL, NULL);
		if (polled->write && (!both || fd.write))
			scan_waits(scan, thread, fd_node(scan, view, &fd, false, &idle), NULL, NULL);
		if (idle && !scan_node(scan, thread->node)->idle)
			scan_node(scan, thread->node)->idle = idle;
		proc_fd_deinit(&fd);
	}
	if (partial) {
		scan_node(scan, thread->node)->rule = PYSPYD_WAIT_FREE;
		if (!scan_node(scan, thread->node)->idle)
			scan_node(scan, thread->node)->idle = "poll";
	}
}

/* The program itself asks for events, rather than some function in C that waits with poll() for an answer. */
static bool calls_select(const struct wait_view *view, const struct view_thread *thread) {
	raddr references[REFERENCES_MAX], self;
	size_t n = 0;
	char name[32];

	if (!view->python || !thread->frames_n ||
		py_stack_references(&view->python->rt, &thread->frames[0].raw, references, REFERENCES_MAX, &n))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (scan_type_is(view, references[i], "select.poll"))
			return true;
		if (!py_callable_read(&view->python->rt.reader, references[i], &self, name, sizeof(name)) &&
			!strcmp(name, "select"))
			return true;
	}
	return false;
}

/* epoll has no other use than loops over events. */
static bool is_event_loop(const struct wait_view *view, const struct view_thread *thread) {
	return thread->sleep.call == SLEEP_EPOLL || calls_select(view, thread);
}

static void wait_for_poll(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread) {
	struct polled_set set = { .n = 0 };
	uint64_t loop;

	if (map_get(&view->loop_of, (uint64_t)(thread - view->threads.items), &loop) &&
		view->loops.items[loop].polling) {
		scan_waits(scan, thread, scan_loop(scan, view, &view->loops.items[loop]), NULL, NULL);
		return;
	}
	if (thread->sleep.call == SLEEP_EPOLL) {
		read_epoll(view, thread->sleep.fd, &set);
	} else {
		struct mem *own = NULL, *mem = view->python ? view->python->rt.reader.mem : NULL;

		if (!mem && !mem_live_new(view->proc.pid, &own))
			mem = own;
		if (!mem)
			set.partial = true;
		else if (thread->sleep.is_select)
			read_fd_sets(mem, &thread->sleep, &set);
		else
			read_pollfds(mem, &thread->sleep, &set);
		mem_free(own);
	}
	if (thread->sleep.count == 0 && thread->sleep.call == SLEEP_POLL && !scan_node(scan, thread->node)->idle)
		scan_node(scan, thread->node)->idle = "sleep";
	if (!scan_node(scan, thread->node)->idle && is_event_loop(view, thread))
		scan_node(scan, thread->node)->idle = "event loop";
	wait_for_any(scan, view, thread, &set);
}

/* children */

pid_t scan_outer_pid(const struct wait_view *view, pid_t inner) {
	struct proc_status status;
	pid_vec family = { 0 };
	pid_t found = 0;

	if (proc_status_read(&view->proc, &status))
		return 0;
	if (status.ns_depth <= 1)
		return inner;
	if (proc_descendants(view->root, view->proc.pid, &family))
		return 0;
	for (size_t i = 0; !found && i < family.n; i++) {
		struct proc proc;

		if (proc_open(view->root, family.items[i], &proc))
			continue;
		if (!proc_status_read(&proc, &status) && status.ns_pid == inner)
			found = family.items[i];
		proc_close(&proc);
	}
	vec_free(&family);
	return found;
}

static void wait_for_pidfd(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread) {
	struct proc_fd fd;

	if (proc_fd_read(&view->proc, thread->sleep.fd, &fd))
		return;
	if (fd.kind == FD_PIDFD && fd.pid > 0)
		scan_waits(scan, thread, scan_process_end(scan, fd.pid), NULL, NULL);
	proc_fd_deinit(&fd);
}

/* Of a group, any child is taken to be in it. One among very many children is not looked for. */
static void wait_for_child(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread) {
	const struct proc_sleep *sleep = &thread->sleep;
	pid_vec children = { 0 };
	pid_t outer;

	if (sleep->fd >= 0) {
		wait_for_pidfd(scan, view, thread);
		return;
	}
	if (sleep->wait_id > 0) {
		outer = scan_outer_pid(view, (pid_t)sleep->wait_id);
		if (outer)
			scan_waits(scan, thread, scan_process_end(scan, outer), NULL, NULL);
		return;
	}
	if (proc_children(view->root, view->proc.pid, &children))
		return;
	for (size_t i = 0; children.n <= CHILDREN_MAX && i < children.n; i++)
		scan_waits(scan, thread, scan_process_end(scan, children.items[i]), NULL, NULL);
	vec_free(&children);
}

/* file locks */

static const file_lock_vec *file_locks(struct wait_scan *scan) {
	if (!scan->file_locks_read) {
		(void)!file_locks_read(scan->root, &scan->file_locks);
		scan->file_locks_read = true;
	}
	return &scan->file_locks;
}

static bool same_kind(const struct file_lock *lock, bool flock) {
	return flock ? lock->kind == FILE_LOCK_FLOCK : lock->kind == FILE_LOCK_POSIX || lock->kind == FILE_LOCK_OFD;
}

/* Whoever waits and whoever holds stand under one number in /proc/locks. */
static uint64_t lock_waited_for(
	const file_lock_vec *locks, const struct wait_view *view, const struct proc_fd *fd, bool flock) {
	vec_foreach (lock, locks)
		if (lock->waits && lock->pid == view->proc.pid && lock->inode == fd->inode && same_kind(lock, flock))
			return lock->id;
	return 0;
}

static bool has_file(const char *root, pid_t pid, uint64_t inode) {
	proc_fd_vec fds = { 0 };
	struct proc proc;
	bool found = false;

	if (proc_open(root, pid, &proc))
		return false;
	if (proc_fds_read(&proc, FILES_MAX, &fds) || fds.n == FILES_MAX)
		found = true; /* not known: then it may */
	vec_foreach (fd, &fds)
		found |= fd->inode == inode;
	proc_fds_free(&fds);
	proc_close(&proc);
	return found;
}

/* A lock of flock() is that of an open file, which children share with the process that took it. One whose process has
 * ended, or is not told, may be given back by anybody. */
static void lead_to_locker(struct wait_scan *scan, uint32_t resource, const struct file_lock *lock) {
	pid_vec heirs = { 0 };

	if (lock->pid <= 0 || (lock->kind == FILE_LOCK_FLOCK && proc_descendants(scan->root, lock->pid, &heirs)))
		return;
	scan_node(scan, resource)->rule = PYSPYD_WAIT_ANY;
	scan_edge(scan, resource, scan_process_acts(scan, lock->pid), NULL, NULL);
	if (heirs.n > HEIRS_MAX)
		scan_node(scan, resource)->rule = PYSPYD_WAIT_FREE;
	for (size_t i = 0; i < min_of(heirs.n, (size_t)HEIRS_MAX); i++)
		if (has_file(scan->root, heirs.items[i], lock->inode))
			scan_edge(scan, resource, scan_process_acts(scan, heirs.items[i]), NULL, NULL);
	vec_free(&heirs);
}

static void wait_for_file_lock(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread) {
	bool flock = thread->sleep.call == SLEEP_FLOCK, fresh;
	const file_lock_vec *locks = file_locks(scan);
	struct proc_fd fd;
	uint32_t index;
	uint64_t id;

	if (proc_fd_read(&view->proc, thread->sleep.fd, &fd))
		return;
	id = lock_waited_for(locks, view, &fd, flock);
	index = scan_resource(scan, "file-lock", 0, fd.inode, scan_key("file-lock", fd.inode, id), &fresh, "%s of %s",
		flock ? "flock" : "fcntl lock", fd.target);
	if (fresh && id)
		vec_foreach (lock, locks)
			if (!lock->waits && lock->id == id && lock->inode == fd.inode && same_kind(lock, flock))
				lead_to_locker(scan, index, lock);
	scan_waits(scan, thread, index, NULL, NULL);
	proc_fd_deinit(&fd);
}

/* native mutexes */

struct view_thread *scan_thread_by_inner_tid(const struct wait_view *view, pid_t inner) {
	struct view_thread *thread = view_thread_of_tid(view, inner);
	struct proc_status status;

	if (proc_status_read(&view->proc, &status) || status.ns_depth <= 1)
		return thread;
	vec_foreach (other, &view->threads) {
		char name[64];
		char *text _free_ = NULL;
		size_t len;

		snprintf(name, sizeof(name), "task/%d/status", (int)other->tid);
		if (!proc_read_file(&view->proc, name, 1U << 16, &text, &len) &&
			!proc_status_parse(text, len, &status) && status.ns_pid == inner)
			return other;
	}
	return NULL;
}

static void wait_for_mutex(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread) {
	struct mem *own = NULL, *mem = view->python ? view->python->rt.reader.mem : NULL;
	struct view_thread *holder = NULL;
	bool recursive, fresh, mutex;
	pid_t owner = 0;
	uint32_t index;

	if (!mem && !mem_live_new(view->proc.pid, &own))
		mem = own;
	mutex = mem && !native_mutex_owner(mem, thread->sleep.address, &owner, &recursive) && owner > 0;
	mem_free(own);
	if (mutex)
		holder = scan_thread_by_inner_tid(view, owner);
	index = scan_resource(scan, mutex ? "mutex" : "futex", view->proc.pid, thread->sleep.address,
		scan_key("futex", (uint64_t)view->proc.pid, thread->sleep.address), &fresh, "%s 0x%llx",
		mutex ? "native mutex" : "native lock or event at", (unsigned long long)thread->sleep.address);
	/* An owner that is gone may be a word that only looks like a mutex: not enough for a verdict. */
	if (fresh && holder) {
		scan_node(scan, index)->rule = PYSPYD_WAIT_ANY;
		scan_edge(scan, index, scan_thread(scan, view, holder), NULL, NULL);
	}
	if (!mutex && !thread->sampled && !scan_node(scan, thread->node)->idle)
		scan_node(scan, thread->node)->idle = WAITS_NATIVE_WORKER;
	scan_waits(scan, thread, index, NULL, NULL);
}

void scan_system_wait(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread) {
	struct pyspyd_wait_node *node = scan_node(scan, thread->node);

	switch (thread->sleep.call) {
	case SLEEP_READ: wait_for_fd(scan, view, thread, thread->sleep.fd, true); break;
	case SLEEP_WRITE: wait_for_fd(scan, view, thread, thread->sleep.fd, false); break;
	case SLEEP_ACCEPT:
	case SLEEP_CONNECT: wait_for_fd(scan, view, thread, thread->sleep.fd, true); break;
	case SLEEP_POLL:
	case SLEEP_EPOLL: wait_for_poll(scan, view, thread); break;
	case SLEEP_WAIT: wait_for_child(scan, view, thread); break;
	case SLEEP_FLOCK:
	case SLEEP_FCNTL: wait_for_file_lock(scan, view, thread); break;
	case SLEEP_FUTEX: wait_for_mutex(scan, view, thread); break;
	case SLEEP_SLEEP:
		if (!node->idle)
			node->idle = "sleep";
		break;
	case SLEEP_SIGNAL:
		if (!node->idle)
			node->idle = "signal";
		break;
	case SLEEP_RUNNING:
	case SLEEP_OPEN:
	case SLEEP_OTHER: break;
	}
}
