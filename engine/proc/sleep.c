/* SPDX-License-Identifier: MIT */
/* The system call that a thread sleeps in.
 *
 *	202 0x55d0c8a1b2c0 0x189 0x0 0x0 0x0 0xffffffff 0x7f30 0x7f31	(number, six arguments, stack, instruction)
 *	-1 0x7ffd10 0x7f31						(in the kernel, but in no call: a page fault)
 *	running
 *
 * One table names the calls of this machine's architecture and says where their time-outs are. Only what the line
 * itself tells is told: whether a descriptor is non-blocking, or a socket has a time-out of its own, is not here. A
 * call that could not sleep for its own sake (MSG_DONTWAIT, LOCK_NB, a wake-up) and was met asleep is OTHER: it waits
 * for a page or a lock of the kernel. */
#include "engine/proc/sleep.h"

#include "engine/proc/files.h"
#include "engine/proc/text.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define SYSCALL_LINE_SIZE 256 /* nine numbers of at most 18 characters */
#define USER_ADDRESS_MIN 4096
#define FUTEX_FLAGS (FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)

struct shape {
	long number;
	const char *name;
	enum sleep_call call;
	/* Indices of arguments; 0: none, since none of them is ever the first. */
	uint8_t flags;   /* MSG_… */
	uint8_t ms;      /* a time-out in milliseconds */
	uint8_t pointer; /* the address of a time-out; no time-out where it is NULL */
};

#define CALL(name_, call_, ...) \
	{ .number = SYS_##name_, .name = #name_, .call = call_, __VA_ARGS__ }

/* The commonest first. */
static const struct shape shapes[] = {
	CALL(futex, SLEEP_FUTEX),
	CALL(read, SLEEP_READ),
	CALL(epoll_pwait, SLEEP_EPOLL, .ms = 3),
	CALL(recvfrom, SLEEP_READ, .flags = 3),
	CALL(ppoll, SLEEP_POLL, .pointer = 2),
	CALL(pselect6, SLEEP_POLL, .pointer = 4),
	CALL(clock_nanosleep, SLEEP_SLEEP),
	CALL(nanosleep, SLEEP_SLEEP),
	CALL(restart_syscall, SLEEP_SLEEP),
#ifdef __x86_64__ /* what the younger architectures were given only in a form with more arguments */
	CALL(epoll_wait, SLEEP_EPOLL, .ms = 3),
	CALL(poll, SLEEP_POLL, .ms = 2),
	CALL(select, SLEEP_POLL, .pointer = 4),
	CALL(open, SLEEP_OPEN),
	CALL(creat, SLEEP_OPEN),
	CALL(pause, SLEEP_SIGNAL),
	CALL(stat, SLEEP_OTHER),
	CALL(lstat, SLEEP_OTHER),
	CALL(access, SLEEP_OTHER),
	CALL(rename, SLEEP_OTHER),
	CALL(unlink, SLEEP_OTHER),
	CALL(mkdir, SLEEP_OTHER),
	CALL(rmdir, SLEEP_OTHER),
	CALL(vfork, SLEEP_OTHER),
	CALL(fork, SLEEP_OTHER),
#endif
#ifdef SYS_epoll_pwait2 /* Linux 5.11 */
	CALL(epoll_pwait2, SLEEP_EPOLL, .pointer = 3),
#endif
	CALL(readv, SLEEP_READ),
	CALL(pread64, SLEEP_READ),
	CALL(preadv, SLEEP_READ),
	CALL(preadv2, SLEEP_READ),
	CALL(recvmsg, SLEEP_READ, .flags = 2),
	CALL(recvmmsg, SLEEP_READ, .flags = 3), /* its time-out is looked at only when something has come */
	CALL(write, SLEEP_WRITE),
	CALL(writev, SLEEP_WRITE),
	CALL(pwrite64, SLEEP_WRITE),
	CALL(pwritev, SLEEP_WRITE),
	CALL(pwritev2, SLEEP_WRITE),
	CALL(sendto, SLEEP_WRITE, .flags = 3),
	CALL(sendmsg, SLEEP_WRITE, .flags = 2),
	CALL(sendmmsg, SLEEP_WRITE, .flags = 3),
	CALL(sendfile, SLEEP_WRITE),
	CALL(accept, SLEEP_ACCEPT),
	CALL(accept4, SLEEP_ACCEPT),
	CALL(connect, SLEEP_CONNECT),
	CALL(wait4, SLEEP_WAIT),
	CALL(waitid, SLEEP_WAIT),
	CALL(flock, SLEEP_FLOCK),
	CALL(fcntl, SLEEP_FCNTL),
	CALL(rt_sigsuspend, SLEEP_SIGNAL),
	CALL(rt_sigtimedwait, SLEEP_SIGNAL, .pointer = 2),
	CALL(openat, SLEEP_OPEN),
	CALL(openat2, SLEEP_OPEN),
	/* Either end may be the one that it waits for. */
	CALL(splice, SLEEP_OTHER),
	CALL(tee, SLEEP_OTHER),
	CALL(vmsplice, SLEEP_OTHER),
	CALL(copy_file_range, SLEEP_OTHER),
	CALL(io_uring_enter, SLEEP_OTHER),
	CALL(io_getevents, SLEEP_OTHER, .pointer = 4),
	CALL(semop, SLEEP_OTHER),
	CALL(semtimedop, SLEEP_OTHER, .pointer = 3),
	CALL(msgrcv, SLEEP_OTHER),
	CALL(msgsnd, SLEEP_OTHER),
	CALL(mq_timedreceive, SLEEP_OTHER, .pointer = 4),
	CALL(mq_timedsend, SLEEP_OTHER, .pointer = 4),
	CALL(fsync, SLEEP_OTHER),
	CALL(fdatasync, SLEEP_OTHER),
	CALL(sync, SLEEP_OTHER),
	CALL(syncfs, SLEEP_OTHER),
	CALL(sync_file_range, SLEEP_OTHER),
	CALL(msync, SLEEP_OTHER),
	CALL(fallocate, SLEEP_OTHER),
	CALL(ftruncate, SLEEP_OTHER),
	CALL(close, SLEEP_OTHER),
	CALL(ioctl, SLEEP_OTHER),
	CALL(fstat, SLEEP_OTHER),
	CALL(newfstatat, SLEEP_OTHER),
	CALL(statx, SLEEP_OTHER),
	CALL(faccessat, SLEEP_OTHER),
	CALL(getdents64, SLEEP_OTHER),
	CALL(renameat2, SLEEP_OTHER),
	CALL(unlinkat, SLEEP_OTHER),
	CALL(mkdirat, SLEEP_OTHER),
	CALL(mount, SLEEP_OTHER),
	CALL(umount2, SLEEP_OTHER),
	CALL(clone, SLEEP_OTHER),
	CALL(clone3, SLEEP_OTHER),
	CALL(execve, SLEEP_OTHER),
	CALL(exit, SLEEP_OTHER),
	CALL(exit_group, SLEEP_OTHER),
	CALL(mmap, SLEEP_OTHER),
	CALL(munmap, SLEEP_OTHER),
	CALL(mprotect, SLEEP_OTHER),
	CALL(madvise, SLEEP_OTHER),
	CALL(brk, SLEEP_OTHER),
	CALL(getrandom, SLEEP_OTHER),
	CALL(sched_yield, SLEEP_OTHER),
	CALL(process_vm_readv, SLEEP_OTHER),
#ifdef SYS_futex_waitv /* Linux 5.16 */
	CALL(futex_waitv, SLEEP_OTHER, .pointer = 3),
#endif
};

static const struct shape *find_shape(int64_t number) {
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		if (shapes[i].number == number)
			return &shapes[i];
	return NULL;
}

/* The kernel looks at the lower half of an int's register only. */
static int arg_int(const struct proc_sleep *sleep, unsigned index) {
	return (int)(uint32_t)sleep->args[index];
}

static bool futex_op_waits(unsigned op) {
	switch (op & ~(unsigned)FUTEX_FLAGS) {
	case FUTEX_WAIT:
	case FUTEX_WAIT_BITSET:
	case FUTEX_LOCK_PI:
	case FUTEX_LOCK_PI2:
	case FUTEX_WAIT_REQUEUE_PI: return true;
	default: return false;
	}
}

static void decode_futex(struct proc_sleep *sleep) {
	unsigned op = (unsigned)arg_int(sleep, 1);

	if (!futex_op_waits(op)) {
		sleep->call = SLEEP_OTHER;
		return;
	}
	sleep->address = sleep->args[0];
	sleep->shared = !(op & FUTEX_PRIVATE_FLAG);
	sleep->timeout = sleep->args[3];
	sleep->timed = sleep->timeout != 0;
}

static void decode_poll(struct proc_sleep *sleep) {
#ifdef SYS_select
	sleep->is_select = sleep->number == SYS_select;
#endif
	sleep->is_select = sleep->is_select || sleep->number == SYS_pselect6;
	sleep->address = sleep->args[sleep->is_select ? 1 : 0];
	/* select's is an int, poll's an unsigned int; the kernel refuses what is negative. */
	sleep->count = (uint32_t)sleep->args[sleep->is_select ? 0 : 1];
}

static void decode_sleep(struct proc_sleep *sleep) {
	sleep->timed = true;
	sleep->timeout = sleep->args[sleep->number == SYS_nanosleep ? 0 : 2];
}

/* After a stop a futex with a time-out, poll and the relative sleeps go on as restart_syscall, with the registers that
 * they had. What tells them apart: a futex has an operation, the address of a time-out and, as C libraries wait, the
 * full bit set; poll has a small number of descriptors, where nanosleep has NULL or an address. A FUTEX_WAIT that is
 * shared (operation 0) looks like nanosleep without a rest, which is by far the commoner. */
static bool restarted_futex(const struct proc_sleep *sleep) {
	uint64_t op = sleep->args[1];

	if (sleep->args[0] < USER_ADDRESS_MIN || sleep->args[0] % 4 || sleep->args[3] < USER_ADDRESS_MIN)
		return false;
	if (!op || op > UINT32_MAX || !futex_op_waits((unsigned)op))
		return false;
	return (op & ~(uint64_t)FUTEX_FLAGS) != FUTEX_WAIT_BITSET || (uint32_t)sleep->args[5] == UINT32_MAX;
}

static bool restarted_poll(const struct proc_sleep *sleep) {
	return sleep->args[0] >= USER_ADDRESS_MIN && sleep->args[1] && sleep->args[1] < USER_ADDRESS_MIN;
}

static void decode_restarted(struct proc_sleep *sleep) {
	if (restarted_futex(sleep)) {
		sleep->call = SLEEP_FUTEX;
		decode_futex(sleep);
	} else if (restarted_poll(sleep)) {
		sleep->call = SLEEP_POLL;
		decode_poll(sleep);
		sleep->timeout_ms = max_of(arg_int(sleep, 2), -1);
		sleep->timed = sleep->timeout_ms >= 0;
	} else {
		sleep->timed = true;
	}
}

static void decode_wait(struct proc_sleep *sleep) {
	int id = arg_int(sleep, 1);

	if (sleep->number != SYS_waitid) {
		sleep->wait_id = arg_int(sleep, 0);
		return;
	}
	switch (arg_int(sleep, 0)) {
	case P_PID: sleep->wait_id = id; break;
	case P_PGID: sleep->wait_id = -(int64_t)id; break;
	case P_PIDFD: sleep->fd = id; break;
	default: sleep->wait_id = -1; break;
	}
}

static void decode_flock(struct proc_sleep *sleep) {
	if (arg_int(sleep, 1) & LOCK_NB)
		sleep->call = SLEEP_OTHER;
}

static void decode_fcntl(struct proc_sleep *sleep) {
	int command = arg_int(sleep, 1);

	if (command == F_SETLKW || command == F_OFD_SETLKW)
		sleep->address = sleep->args[2];
	else
		sleep->call = SLEEP_OTHER;
}

static void decode_open(struct proc_sleep *sleep) {
	bool at = sleep->number == SYS_openat || sleep->number == SYS_openat2;

	sleep->address = sleep->args[at ? 1 : 0];
}

static void decode_timeout(struct proc_sleep *sleep, const struct shape *shape) {
	if (shape->ms) {
		sleep->timeout_ms = max_of(arg_int(sleep, shape->ms), -1);
		sleep->timed = sleep->timeout_ms >= 0;
	}
	if (shape->pointer) {
		sleep->timeout = sleep->args[shape->pointer];
		sleep->timed = sleep->timeout != 0;
	}
}

static void decode_call(struct proc_sleep *sleep) {
	switch (sleep->call) {
	case SLEEP_FUTEX: decode_futex(sleep); break;
	case SLEEP_POLL: decode_poll(sleep); break;
	case SLEEP_SLEEP: decode_sleep(sleep); break;
	case SLEEP_WAIT: decode_wait(sleep); break;
	case SLEEP_FLOCK: decode_flock(sleep); break;
	case SLEEP_FCNTL: decode_fcntl(sleep); break;
	case SLEEP_OPEN: decode_open(sleep); break;
	default: break;
	}
}

static bool has_fd(enum sleep_call call) {
	switch (call) {
	case SLEEP_READ:
	case SLEEP_WRITE:
	case SLEEP_ACCEPT:
	case SLEEP_CONNECT:
	case SLEEP_EPOLL:
	case SLEEP_FLOCK:
	case SLEEP_FCNTL: return true;
	default: return false;
	}
}

static void decode(struct proc_sleep *sleep) {
	const struct shape *shape = find_shape(sleep->number);

	sleep->call = shape ? shape->call : SLEEP_OTHER;
	if (!shape)
		return;
	if (sleep->number == SYS_restart_syscall) {
		decode_restarted(sleep);
		return;
	}
	if (shape->flags && arg_int(sleep, shape->flags) & MSG_DONTWAIT) {
		sleep->call = SLEEP_OTHER;
		return;
	}
	decode_timeout(sleep, shape);
	decode_call(sleep);
	if (has_fd(sleep->call))
		sleep->fd = arg_int(sleep, 0);
}

static bool parse_address(struct text *t, uint64_t *ret) {
	return text_char(t, ' ') && text_char(t, '0') && text_char(t, 'x') && text_hex(t, ret);
}

static bool parse_end(struct text *t) {
	text_char(t, '\n');
	return !text_left(t);
}

static bool parse_numbers(struct text *t, struct proc_sleep *sleep) {
	bool none = text_char(t, '-');
	int number;

	if (!text_int(t, &number))
		return false;
	sleep->number = none ? -1 : number;
	for (size_t i = 0; !none && i < ARRAY_SIZE(sleep->args); i++)
		if (!parse_address(t, &sleep->args[i]))
			return false;
	return parse_address(t, &sleep->sp) && parse_address(t, &sleep->pc) && parse_end(t);
}

int proc_sleep_parse(const char *text, size_t len, struct proc_sleep *ret_sleep) {
	static const char running[] = "running";
	struct proc_sleep sleep = { .call = SLEEP_RUNNING, .number = -1, .fd = -1, .timeout_ms = -1 };
	struct text t = text_of(text, len);

	if (len >= strlen(running) && !memcmp(text, running, strlen(running))) {
		t.at += strlen(running);
		if (!parse_end(&t))
			return -EINVAL;
	} else if (!parse_numbers(&t, &sleep)) {
		return -EINVAL;
	}
	if (sleep.number >= 0)
		decode(&sleep);
	*ret_sleep = sleep;
	return 0;
}

int proc_sleep_read(const struct proc *proc, pid_t tid, struct proc_sleep *ret_sleep) {
	char name[32], line[SYSCALL_LINE_SIZE];
	size_t len;
	int r;

	snprintf(name, sizeof(name), "task/%d/syscall", (int)tid);
	r = files_read_small(proc->dir_fd, name, line, sizeof(line), &len);
	return r ? proc_condition(proc, name, r) : proc_sleep_parse(line, len, ret_sleep);
}

const char *sleep_call_name(int64_t number) {
	const struct shape *shape = find_shape(number);

	return shape ? shape->name : NULL;
}
