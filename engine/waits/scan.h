/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_WAITS_SCAN_H
#define PYSPYD_WAITS_SCAN_H

#include "engine/proc/fds.h"
#include "engine/waits/graph.h"
#include "engine/waits/look.h"
#include "engine/waits/view.h"

/* Building the graph of one look: what the files of this folder share. Running out of memory is sticky (`failed`), so
 * that the builders need not hand it up one by one. */

struct wait_holder {
	raddr object;    /* the lock, or the semaphore */
	uint32_t thread; /* index in the view's threads; WAITS_NONE: any of them, by a generator that is nobody's */
	bool inferred;
	char why[160];
};

/* Everybody that was seen to hold something in one view; filled when it is first asked for. */
struct wait_holders {
	unsigned searches; /* made so far */
	VEC(struct wait_holder) items;
};

struct wait_memory;
struct park_rules;

struct wait_scan {
	struct wait_looker *looker;
	const char *root; /* as in a view */
	const struct park_rules *rules;
	struct wait_memory *memory; /* remember.h */
	struct pyspyd_waits *waits;
	struct map nodes; /* key → index + 1 */
	VEC(struct wait_view *) views;
	size_t views_max;
	VEC(struct wait_holders) holders; /* one for each view */
	struct fd_table fds;
	bool fds_read;
	struct socket_cache sockets;
	file_lock_vec file_locks;
	bool file_locks_read;
	bool failed;
	uint64_t deadline_ns;
	bool late; /* it is past */
};

/* Whether the look has taken so long, as a hostile process may make it, that the rest is left out. */
bool scan_is_late(struct wait_scan *scan);

/* nodes and edges */

/* The identity of a resource: a word for its kind and up to two numbers. */
uint64_t scan_key(const char *type, uint64_t a, uint64_t b);

/* The node with that key, made where it is not there. *ret_new may be NULL. Return: its index; WAITS_NONE when out of
 * memory. `label` is a format. */
uint32_t scan_resource(struct wait_scan *scan, const char *type, pid_t pid, uint64_t address, uint64_t key,
	bool *ret_new, const char *label, ...) __attribute__((format(printf, 7, 8)));
struct pyspyd_wait_node *scan_node(struct wait_scan *scan, uint32_t index); /* good until the next node is made */
void scan_edge(struct wait_scan *scan, uint32_t from, uint32_t to, const char *expression, const char *inferred_why);

/* A thread waits for that node alone, and nothing else lets it go on. */
void scan_waits(struct wait_scan *scan, const struct view_thread *thread, uint32_t to, const char *expression,
	const char *inferred_why);

/* processes */

/* The view of a process, read where it was not yet; NULL where it cannot be read or the limit is reached. */
struct wait_view *scan_view(struct wait_scan *scan, pid_t pid);

/* A process that this one knows by `inner`, the id in its own PID namespace, as we see it. Return: 0 where it is not
 * known. */
pid_t scan_outer_pid(const struct wait_view *view, pid_t inner);

/* A thread of the process by the id that it has in its own PID namespace; NULL: none. */
struct view_thread *scan_thread_by_inner_tid(const struct wait_view *view, pid_t inner);

/* Nodes that stand for a process: its end, or any act of any of its threads. Return: WAITS_NONE when out of memory. */
uint32_t scan_process_end(struct wait_scan *scan, pid_t pid);
uint32_t scan_process_acts(struct wait_scan *scan, pid_t pid);

/* Any Python thread of this process, or a signal handler. */
uint32_t scan_others(struct wait_scan *scan, struct wait_view *view);

/* Whether a signal may run Python code in it. */
bool scan_has_handlers(const struct wait_view *view);

/* Copies a thread's frames into its node. Return: 0; -ENOMEM. */
int scan_fill_frames(const struct view_thread *thread, struct pyspyd_wait_node *node);

/* Nodes for all threads of a view, with what each waits for. Return: 0; -ENOMEM. */
int scan_build(struct wait_scan *scan, struct wait_view *view);

/* The node of a thread. */
uint32_t scan_thread(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread);

/* what threads wait for: each adds edges and sets the rule of the thread's node */

/* By the system call alone. `idle` words where programs wait for work at it. */
void scan_system_wait(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread);

/* A futex of a Python thread. */
void scan_python_wait(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread);

/* The GIL, where the word lies in one. Return: whether it does. */
bool scan_gil_wait(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread);

/* The node of a lock object, with edges to those who hold it. WAITS_NONE where it is none. */
uint32_t scan_lock(struct wait_scan *scan, struct wait_view *view, raddr object);

/* A semaphore that several processes share. */
void scan_shared_wait(struct wait_scan *scan, struct wait_view *view, struct view_thread *thread);

/* The node of a concurrent.futures.Future that the thread waits for, with edges to those who bring its result; and a
 * thread that waits for several of them. */
uint32_t scan_future(struct wait_scan *scan, struct wait_view *view, raddr future);
void scan_futures(
	struct wait_scan *scan, struct wait_view *view, struct view_thread *thread, const struct view_frame *frame);

/* Tasks of asyncio of a view: all, or those that matter. */
void scan_tasks(struct wait_scan *scan, struct wait_view *view);

/* Greenlets that are suspended, with what is told of them; notes where they cannot be read. */
void scan_greenlets(struct wait_scan *scan, struct wait_view *view);

/* The node of what wakes a loop up: other tasks, timers, descriptors, threads. */
uint32_t scan_loop(struct wait_scan *scan, struct wait_view *view, const struct py_loop *loop);

/* holders */

/* Calls `each` for everybody who holds the object; looks further, at a higher price, while nobody is found. Return: how
 * many there were. */
size_t scan_holders(struct wait_scan *scan, struct wait_view *view, raddr object,
	void (*each)(void *userdata, const struct wait_holder *holder), void *userdata);

/* Whether some thread, but for `except` (NULL: none), is in a function that releases the lock: one may be handed on
 * from one thread to another. */
bool scan_may_be_released(const struct wait_view *view, raddr lock, const struct view_thread *except);

/* frames and objects */

/* The type's name is one of these ("threading.Event"). */
bool scan_type_is(const struct wait_view *view, raddr object, const char *name);
raddr scan_attribute(const struct wait_view *view, raddr object, const char *name); /* 0: none */

/* The expression by which the thread's frame, or its caller, names an object; NULL where none does. The string is good
 * until the next call. */
const char *scan_expression(const struct wait_view *view, const struct view_thread *thread, size_t frame, raddr object);

/* As the program's own code has it: the object, or the one of the library that it is part of. */
const char *scan_own_expression(const struct wait_view *view, const struct view_thread *thread, raddr object);

#endif
