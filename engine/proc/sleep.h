/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_SLEEP_H
#define PYSPYD_PROC_SLEEP_H

#include "engine/proc/proc.h"

/* In which system call a thread sleeps, and with what: /proc/PID/task/TID/syscall (Linux man 5 proc_pid_syscall), by
 * name and apart by architecture. */

enum sleep_call {
	SLEEP_RUNNING, /* on a CPU, or not in a system call */
	SLEEP_FUTEX,   /* also a restarted one (219 after a stop) */
	SLEEP_READ,    /* read, readv, pread64, recvfrom, recvmsg: from one descriptor */
	SLEEP_WRITE,   /* write, writev, sendto, sendmsg, sendfile */
	SLEEP_ACCEPT,
	SLEEP_CONNECT,
	SLEEP_POLL, /* poll, ppoll, select, pselect6; also a restarted poll */
	SLEEP_EPOLL,
	SLEEP_WAIT,   /* wait4, waitid */
	SLEEP_FLOCK,  /* flock */
	SLEEP_FCNTL,  /* fcntl(F_SETLKW, F_OFD_SETLKW) */
	SLEEP_SLEEP,  /* nanosleep, clock_nanosleep */
	SLEEP_SIGNAL, /* pause, rt_sigsuspend, rt_sigtimedwait */
	SLEEP_OPEN,   /* open, openat: of a FIFO */
	SLEEP_OTHER,
};

struct proc_sleep {
	enum sleep_call call;
	int64_t number;   /* of the system call; -1: none (blocked elsewhere in the kernel, or running) */
	uint64_t args[6]; /* as the kernel shows them */
	uint64_t sp, pc;
	int fd;             /* READ, WRITE, ACCEPT, CONNECT, EPOLL, FLOCK, FCNTL; else -1 */
	raddr address;      /* FUTEX: the word; POLL: the array or the sets; FCNTL: the struct flock; OPEN: the path */
	uint64_t count;     /* POLL: descriptors */
	bool is_select;     /* POLL: three bit sets of `count` bits at args 1 to 3, rather than an array of pollfd */
	bool shared;        /* FUTEX: not private to the process */
	bool timed;         /* it ends by itself */
	raddr timeout;      /* where a struct timespec with it lies (select, not pselect6: a timeval), 0 where it is in
			       milliseconds below or there is none */
	int64_t timeout_ms; /* POLL, EPOLL: -1 none or not told here */
	int64_t wait_id;    /* WAIT: > 0 a process, -1 any child, 0 the caller's group, else a process group negated;
			       waitid: by its idtype, P_PIDFD: fd is set and this is 0 */
};

/* Pure. Return: 0; -EINVAL. */
int proc_sleep_parse(const char *text, size_t len, struct proc_sleep *ret_sleep);

/* Return: 0; PROC_E_GONE; -EACCES, -EPERM; negative errno. */
int proc_sleep_read(const struct proc *proc, pid_t tid, struct proc_sleep *ret_sleep);

/* The name of a system call of this machine's architecture ("recvfrom"), or NULL. */
const char *sleep_call_name(int64_t number);

#endif
