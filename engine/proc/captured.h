/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_CAPTURED_H
#define PYSPYD_PROC_CAPTURED_H

#include "engine/proc/proc.h"

/* A process that is not there, as a tree of /proc: proc_open(captured_root(), pid) opens it, and the readers of proc.h
 * see what they would see of a live one. What is not known has no file. */

struct captured_thread {
	pid_t tid;
	char state;              /* R S D … */
	const char *comm;        /* NULL: not known */
	const char *system_call; /* the line of its file "syscall" */
};

struct captured_process {
	pid_t pid, ppid;
	uid_t uid;
	gid_t gid;
	const char *comm;
	const char *cmdline; /* entries that end with NUL each */
	size_t cmdline_len;
	const void *auxv;
	size_t auxv_len;
	const char *exe;          /* path on this host of the file that the link leads to; NULL: none */
	const char *root;         /* folder on this host */
	const proc_map_vec *maps; /* ascending; dev and inode are of the files that proc_map_open may find */
	const struct captured_thread *threads;
	size_t threads_n;
};

struct captured;

/* Writes the tree into a folder of its own below $TMPDIR that nobody else can enter, and removes those there that this
 * user's processes left behind when they were killed. Return: 0; -ENOMEM; -EINVAL: a
 * pid that is none; negative errno. */
int captured_new(const struct captured_process *process, struct captured **ret_captured, struct err *err);
const char *captured_root(const struct captured *captured);

/* Removes the tree. */
void captured_free(struct captured *captured);

/* For a handler of signals, before the process ends: removes all trees that this process has, which are not to be used
 * or freed any more. */
void captured_remove_all(void);

#endif
