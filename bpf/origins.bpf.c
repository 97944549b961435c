/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/* Who made what: the Python stack at which each descriptor, thread, child and mapping of watched processes came to be.
 *
 * A system call's end says what it has made; by then its arguments are still in the registers. The new thing's record
 * holds the name of the stack, which is made of its frames: a stack goes to user space once, and then only its name is
 * written down. What is closed is forgotten.
 *
 * Every system call of the host passes here, so what is not of interest leaves after few instructions. Looking at
 * stacks may take a part of each window of time; beyond it things are counted alone. User space knows what a passing
 * costs, and takes the program away for a while where that is too much.
 *
 * Not seen: descriptors that come by io_uring, by ioctl, or by a message with more than one control header. */
#define PYB_COUNTERS PYB_ORIGIN_COUNTS
#include "bpf/common.h"

#include "bpf/origins.h"
#include "bpf/stack.h"

#include <asm/unistd.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define FDS_MAX 32768
#define OTHERS_MAX 8192
#define STACKS_MAX 8192
#define RING_BYTES (1 << 20)
#define WINDOW_NS 500000000ULL

#define SYSCALLS_MAX 512
#define EBADF 9
#define F_DUPFD 0
#define F_DUPFD_CLOEXEC 1030
#define MAP_ANONYMOUS 0x20
#define SOL_SOCKET 1
#define SCM_RIGHTS 1
#define PASSED_MAX 16 /* descriptors of one message */
#define CLOSED_MAX 64 /* of one close_range that are forgotten one by one */

const volatile __u64 budget_ns = WINDOW_NS / 100;
const volatile __u64 mapping_least = 65536; /* bytes of an anonymous mapping that is worth it */

struct pyb_slot slots[PYB_BUCKETS * PYB_SLOTS];

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PYB_WATCHED_MAX);
	__type(key, __u32);
	__type(value, struct pyb_watched);
} watched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PYB_WATCHED_MAX);
	__type(key, __u32);
	__type(value, struct pyb_watched_cpu);
} watched_cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FDS_MAX);
	__type(key, struct pyb_origin_key);
	__type(value, struct pyb_origin);
} fds SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OTHERS_MAX);
	__type(key, struct pyb_origin_key);
	__type(value, struct pyb_origin);
} others SEC(".maps");

/* Names of stacks that user space has. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, STACKS_MAX);
	__type(key, __u64);
	__type(value, __u32);
} told SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} ring SEC(".maps");

/* enum pyb_origin_call by number. */
const volatile __u8 calls[SYSCALLS_MAX] = {
#ifdef __NR_open
	[__NR_open] = PYB_CALL_OPEN,
	[__NR_creat] = PYB_CALL_OPEN,
	[__NR_pipe] = PYB_CALL_PIPE,
	[__NR_dup2] = PYB_CALL_DUP,
	[__NR_eventfd] = PYB_CALL_EVENTFD,
	[__NR_epoll_create] = PYB_CALL_EPOLL,
	[__NR_signalfd] = PYB_CALL_SIGNALFD,
	[__NR_inotify_init] = PYB_CALL_INOTIFY,
#endif
	[__NR_openat] = PYB_CALL_OPEN,
	[__NR_openat2] = PYB_CALL_OPEN,
	[__NR_open_by_handle_at] = PYB_CALL_OPEN,
	[__NR_socket] = PYB_CALL_SOCKET,
	[__NR_accept] = PYB_CALL_ACCEPT,
	[__NR_accept4] = PYB_CALL_ACCEPT,
	[__NR_dup] = PYB_CALL_DUP,
	[__NR_dup3] = PYB_CALL_DUP,
	[__NR_fcntl] = PYB_CALL_FCNTL,
	[__NR_pipe2] = PYB_CALL_PIPE,
	[__NR_socketpair] = PYB_CALL_SOCKETPAIR,
	[__NR_recvmsg] = PYB_CALL_RECVMSG,
	[__NR_eventfd2] = PYB_CALL_EVENTFD,
	[__NR_epoll_create1] = PYB_CALL_EPOLL,
	[__NR_timerfd_create] = PYB_CALL_TIMERFD,
	[__NR_signalfd4] = PYB_CALL_SIGNALFD,
	[__NR_inotify_init1] = PYB_CALL_INOTIFY,
	[__NR_memfd_create] = PYB_CALL_MEMFD,
	[__NR_pidfd_open] = PYB_CALL_PIDFD,
	[__NR_perf_event_open] = PYB_CALL_PERF,
	[__NR_io_uring_setup] = PYB_CALL_IO_URING,
	[__NR_pidfd_getfd] = PYB_CALL_OTHER_FD,
	[__NR_userfaultfd] = PYB_CALL_OTHER_FD,
	[__NR_fanotify_init] = PYB_CALL_OTHER_FD,
	[__NR_mmap] = PYB_CALL_MMAP,
	[__NR_mremap] = PYB_CALL_MREMAP,
	[__NR_munmap] = PYB_CALL_MUNMAP,
	[__NR_close] = PYB_CALL_CLOSE,
	[__NR_close_range] = PYB_CALL_CLOSE_RANGE,
	[__NR_wait4] = PYB_CALL_WAIT,
};

/* The slot of a process that is watched; NULL: it is not. */
static __always_inline struct pyb_slot *find_slot(__u32 pid) {
	__u32 at = pid % PYB_BUCKETS * PYB_SLOTS;

	if (!pid)
		return 0; /* none that pyspyd can see */
	for (__u32 i = 0; i < PYB_SLOTS; i++)
		if (slots[at + i].pid == pid)
			return &slots[at + i];
	return 0;
}

static __always_inline struct pyb_watched *find_watched(__u32 pid) {
	struct pyb_slot *slot = find_slot(pid);
	__u32 index;

	if (!slot)
		return 0;
	index = slot->index;
	return bpf_map_lookup_elem(&watched, &index);
}

/* Once. */
static __always_inline void tell_stack(struct pyb_scratch *s, __u32 pid, __u32 flags) {
	__u32 n = s->event.frames_n, one = 1;
	__u64 name = s->event.name;

	if (n > PYB_FRAMES_MAX || bpf_map_lookup_elem(&told, &name))
		return;
	s->event.kind = PYB_ORIGIN;
	s->event.flags = flags;
	s->event.pid = pid;
	s->event.time_ns = bpf_ktime_get_ns();
	s->event.tstate = s->found.tstate;
	s->event.leaf = s->found.frame;
	/* User space is waited for by nobody, and code objects may be gone soon: so it is woken at once. */
	if (bpf_ringbuf_output(
		    &ring, &s->event, sizeof(s->event) + n * sizeof(struct pyb_frame), BPF_RB_FORCE_WAKEUP)) {
		count(PYB_RING_FULL);
		return;
	}
	count(PYB_SAMPLES);
	bpf_map_update_elem(&told, &name, &one, BPF_ANY);
}

/* The name of the current stack; 0: there is none. */
static __always_inline __u64 take_stack(struct task_struct *task, __u32 pid) {
	struct pyb_thread_key key = { .thread_pointer = thread_pointer_of(task), .pid = pid };
	struct pyb_process *p = bpf_map_lookup_elem(&processes, &pid);
	struct pyb_thread *thread;
	__u32 zero = 0, flags = 0;
	struct pyb_scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!p || !s)
		return 0;
	thread = bpf_map_lookup_elem(&threads, &key);
	s->found.tstate = 0;
	if (!thread || !pyb_find_known(p, thread, key.thread_pointer, &s->found)) {
		flags |= PYB_SEARCHED;
		count(PYB_SEARCHES);
		if (!search(pid, key.thread_pointer)) {
			count(PYB_NO_STATE);
			return 0;
		}
	}
	flags |= (__u32)walk(pid, s->found.frame);
	if (!s->event.frames_n)
		return 0;
	name_stack(pid);
	tell_stack(s, pid, flags);
	return s->event.name;
}

/* For how long the task has waited for a CPU, in all; 0 where the kernel does not count that. */
static __always_inline __u64 delay_of(struct task_struct *task) {
	return bpf_core_field_exists(task->sched_info) ? BPF_CORE_READ(task, sched_info.run_delay) : 0;
}

/* The present window is over. What its thread has waited for a CPU does not count: on a busy host stacks must not take
 * most of the little time that a process gets. */
static __always_inline int is_over(struct task_struct *task, const struct pyb_watched *w, __u64 now) {
	__u64 delay = w->tid == (__u32)BPF_CORE_READ(task, pid) ? delay_of(task) - w->delay_ns : 0;

	return now - w->window_ns > WINDOW_NS + delay;
}

/* Whether stacks have taken their part of this window. The clock is looked at once in a jiffy. */
static __always_inline int is_over_budget(struct task_struct *task, struct pyb_watched *w) {
	__u64 jiffies;

	if (w->spent_ns < budget_ns)
		return 0;
	jiffies = bpf_jiffies64();
	if (w->jiffies == jiffies)
		return 1;
	w->jiffies = jiffies;
	return !is_over(task, w, bpf_ktime_get_ns());
}

/* What a call has made. */
struct made {
	struct pyb_origin_key key; /* of the first one */
	struct pyb_origin origin;
	__u32 fds_n; /* 0: it is no descriptor */
	__u32 fds[PASSED_MAX];
};

/* Its place in the table; none of a high one. The mask is for the verifier, whom the compiler would spare it. */
static __always_inline __u8 *known_of(struct pyb_watched *w, __u64 fd) {
	if (fd >= PYB_WATCHED_FDS)
		return 0;
	asm volatile("%0 &= %1" : "+r"(fd) : "i"(PYB_WATCHED_FDS - 1));
	return &w->known[fd];
}

static __always_inline void forget_fd(__u32 pid, struct pyb_watched *w, __u32 fd) {
	struct pyb_origin_key key = { .id = fd, .pid = pid, .what = PYB_FD };
	__u8 *known = known_of(w, fd);

	if (known && !*known)
		return;
	if (known)
		*known = 0;
	bpf_map_delete_elem(&fds, &key);
}

/* Of the file that the current task has there; 0: not known. */
static __always_inline __u64 inode_of(struct task_struct *task, __u32 fd) {
	struct file **files = BPF_CORE_READ(task, files, fdt, fd), *file = 0;

	if (bpf_probe_read_kernel(&file, sizeof(file), files + fd))
		return 0;
	return BPF_CORE_READ(file, f_inode, i_ino);
}

static __always_inline void put_fd(
	struct task_struct *task, __u32 pid, struct pyb_watched *w, __u32 fd, struct pyb_origin *origin) {
	struct pyb_origin_key key = { .id = fd, .pid = pid, .what = PYB_FD };
	__u8 *known = known_of(w, fd);

	if (known)
		*known = 1;
	origin->inode = inode_of(task, fd);
	bpf_map_update_elem(&fds, &key, origin, BPF_ANY);
}

static __always_inline void forget_other(__u32 pid, __u32 what, __u64 id) {
	struct pyb_origin_key key = { .id = id, .pid = pid, .what = what };

	bpf_map_delete_elem(&others, &key);
}

static __always_inline void count_left_out(__u32 pid) {
	struct pyb_slot *slot = find_slot(pid);
	__u32 index = slot ? slot->index : PYB_WATCHED_MAX;
	struct pyb_watched_cpu *c = bpf_map_lookup_elem(&watched_cpus, &index);

	if (c)
		c->left_out++;
}

/* Of what is made while there is no time left nothing is known: what had its number before must not be taken for it. */
static __always_inline void leave_out(__u32 pid, struct pyb_watched *w, const struct made *made) {
	count_left_out(pid);
	if (!made->fds_n)
		bpf_map_delete_elem(&others, &made->key);
	for (__u32 i = 0; i < PASSED_MAX && i < made->fds_n; i++)
		forget_fd(pid, w, made->fds[i]);
}

static __always_inline void write_down(struct task_struct *task, __u32 pid, struct pyb_watched *w, struct made *made) {
	struct pyb_origin *origin = &made->origin;
	__u64 now, spent;

	if (is_over_budget(task, w)) {
		leave_out(pid, w, made);
		return;
	}
	count(PYB_MADE);
	now = bpf_ktime_get_ns();
	if (is_over(task, w, now)) {
		w->window_ns = now;
		w->tid = (__u32)BPF_CORE_READ(task, pid);
		w->delay_ns = delay_of(task);
		w->spent_ns = 0;
	}
	origin->time_ns = now;
	origin->tid = own_pid_level ? pid_as_ours(BPF_CORE_READ(task, thread_pid)) : (__u32)bpf_get_current_pid_tgid();
	origin->stack = take_stack(task, pid);
	if (!made->fds_n)
		bpf_map_update_elem(&others, &made->key, origin, BPF_ANY);
	for (__u32 i = 0; i < PASSED_MAX && i < made->fds_n; i++)
		put_fd(task, pid, w, made->fds[i], origin);
	spent = bpf_ktime_get_ns() - now;
	w->spent_ns += spent;
	w->all_ns += spent;
}

struct user_msghdr {
	__u64 name, name_len, iov, iov_len, control, control_len, flags;
};

struct user_cmsg {
	__u64 len;
	__u32 level, type;
};

/* Descriptors that came with a message, in its first control header. */
static __always_inline void take_passed(__u64 message, struct made *made) {
	struct user_msghdr header;
	struct user_cmsg cmsg = { 0 };
	__u64 n;

	if (bpf_probe_read_user(&header, sizeof(header), (const void *)message) || header.control_len <= sizeof(cmsg) ||
		bpf_probe_read_user(&cmsg, sizeof(cmsg), (const void *)header.control))
		return;
	if (cmsg.level != SOL_SOCKET || cmsg.type != SCM_RIGHTS || cmsg.len <= sizeof(cmsg))
		return;
	n = (cmsg.len - sizeof(cmsg)) / sizeof(__u32);
	if (n > PASSED_MAX)
		n = PASSED_MAX;
	if (!bpf_probe_read_user(
		    made->fds, (__u32)n * sizeof(__u32), (const void *)(header.control + sizeof(struct user_cmsg))))
		made->fds_n = (__u32)n;
}

static __always_inline void take_pair(__u64 address, struct made *made) {
	if (!bpf_probe_read_user(made->fds, 2 * sizeof(__u32), (const void *)address))
		made->fds_n = 2;
}

static __always_inline void take_mapping(__u64 address, __u64 bytes, struct made *made) {
	made->key.what = PYB_MAPPING;
	made->key.id = address;
	made->origin.bytes = bytes;
}

/* Those of a wide range are told from the others by their age. Two ranges become one that has both in it. */
__noinline int forget_range(__u32 pid, __u32 from, __u32 to) {
	struct pyb_watched *w = find_watched(pid);

	if (!w)
		return 0;
	if (to - from < CLOSED_MAX) {
		for (__u32 i = 0; i < CLOSED_MAX && i <= to - from; i++)
			forget_fd(pid, w, from + i);
		return 0;
	}
	w->closed_from = w->closed_ns && w->closed_from < from ? w->closed_from : from;
	w->closed_to = w->closed_ns && w->closed_to > to ? w->closed_to : to;
	w->closed_ns = bpf_ktime_get_ns();
	return 0;
}

/* Return: whether it was one of those calls that make nothing. */
static __always_inline int forget(
	__u32 pid, struct pyb_watched *w, __u32 call, struct pt_regs___kernel *regs, long ret) {
	switch (call) {
	case PYB_CALL_CLOSE: forget_fd(pid, w, (__u32)ARG0(regs)); return 1;
	case PYB_CALL_CLOSE_RANGE: forget_range(pid, (__u32)ARG0(regs), (__u32)ARG1(regs)); return 1;
	case PYB_CALL_MUNMAP: forget_other(pid, PYB_MAPPING, ARG0(regs)); return 1;
	case PYB_CALL_WAIT: /* where its pids are those of pyspyd */
		if (BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), thread_pid, level) == own_pid_level)
			forget_other(pid, PYB_CHILD, (__u64)ret);
		return 1;
	default: return 0;
	}
}

/* Nothing of what user space hands in is checked: the call was a success. */
static __always_inline void find_made(
	__u32 pid, __u32 call, struct pt_regs___kernel *regs, long ret, struct made *made) {
	switch (call) {
	case PYB_CALL_PIPE: take_pair(ARG0(regs), made); break;
	case PYB_CALL_SOCKETPAIR: take_pair(ARG3(regs), made); break;
	case PYB_CALL_RECVMSG: take_passed(ARG1(regs), made); break;
	case PYB_CALL_MMAP:
		if (!(ARG3(regs) & MAP_ANONYMOUS) || ARG1(regs) >= mapping_least)
			take_mapping((__u64)ret, ARG1(regs), made);
		break;
	case PYB_CALL_MREMAP:
		if (ARG0(regs) != (__u64)ret)
			forget_other(pid, PYB_MAPPING, ARG0(regs));
		take_mapping((__u64)ret, ARG2(regs), made);
		break;
	default: made->fds[0] = (__u32)ret; made->fds_n = 1;
	}
}

/* What passes by and makes nothing, in no watched process, leaves here. Return: enum pyb_origin_call. */
static __always_inline __u32 call_of(struct pt_regs___kernel *regs, long ret) {
	__u64 number = CALL_NUMBER(regs);
	__u32 call;

	if (number >= SYSCALLS_MAX)
		return PYB_CALL_NONE;
	call = calls[number];
	if (ret < 0 && (call != PYB_CALL_CLOSE || ret == -EBADF))
		return PYB_CALL_NONE;
	if (call == PYB_CALL_FCNTL && ARG1(regs) != F_DUPFD && ARG1(regs) != F_DUPFD_CLOEXEC)
		return PYB_CALL_NONE;
	return call;
}

static __always_inline void on_made(__u32 pid, __u32 call, struct pt_regs___kernel *regs, long ret,
	struct pyb_watched *w, struct pyb_watched_cpu *c) {
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct made made;

	if (call <= PYB_CALL_FCNTL && is_over_budget(task, w)) { /* as write_down does it, for less */
		c->left_out++;
		forget_fd(pid, w, (__u32)ret);
		return;
	}
	__builtin_memset(&made, 0, sizeof(made));
	made.key.pid = pid;
	made.origin.call = (__u16)call;
	find_made(pid, call, regs, ret, &made);
	if (made.fds_n || made.key.what)
		write_down(task, pid, w, &made);
}

SEC("tp_btf/sys_exit")
int on_sys_exit(__u64 *ctx) {
	struct pt_regs___kernel *regs = (struct pt_regs___kernel *)ctx[0];
	struct pyb_watched_cpu *c;
	struct pyb_watched *w;
	struct pyb_slot *slot;
	__u32 pid, index, call = call_of(regs, (long)ctx[1]);

	count(PYB_CALLS);
	if (!call && own_pid_level) /* there it takes longer to tell whose it is */
		return 0;
	pid = own_process((struct task_struct *)bpf_get_current_task());
	slot = find_slot(pid);
	if (!slot)
		return 0;
	index = slot->index;
	c = bpf_map_lookup_elem(&watched_cpus, &index);
	w = bpf_map_lookup_elem(&watched, &index);
	if (!c || !w)
		return 0;
	c->calls++;
	if (!call)
		return 0;
	c->looked++;
	if (!forget(pid, w, call, regs, (long)ctx[1]))
		on_made(pid, call, regs, (long)ctx[1], w, c);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int on_fork(__u64 *ctx) {
	struct task_struct *parent = (struct task_struct *)ctx[0], *child = (struct task_struct *)ctx[1];
	__u32 pid = own_process(parent);
	struct pyb_watched *w = find_watched(pid);
	struct made made;
	int is_thread;

	if (!w)
		return 0;
	is_thread = child->tgid == parent->tgid;
	__builtin_memset(&made, 0, sizeof(made));
	made.key.pid = pid;
	made.key.what = is_thread ? PYB_THREAD : PYB_CHILD;
	made.key.id = own_pid_level ? pid_as_ours(child->thread_pid) : (__u32)child->pid;
	made.origin.call = is_thread ? PYB_CALL_THREAD : PYB_CALL_CHILD;
	write_down(parent, pid, w, &made);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int on_exit(__u64 *ctx) {
	struct task_struct *task = (struct task_struct *)ctx[0];
	__u32 pid = own_process(task);

	if (find_watched(pid))
		forget_other(pid, PYB_THREAD, own_pid_level ? pid_as_ours(task->thread_pid) : (__u32)task->pid);
	return 0;
}

/* Another program has taken the process over: what is known of its memory does not hold any more. */
SEC("tp_btf/sched_process_exec")
int on_exec(__u64 *ctx) {
	__u32 pid = own_process((struct task_struct *)ctx[0]);

	struct pyb_slot *slot = find_slot(pid);
	struct pyb_watched *w = find_watched(pid);

	if (!w || !slot)
		return 0;
	w->gone = 1;
	slot->pid = 0;
	bpf_map_delete_elem(&processes, &pid);
	return 0;
}
