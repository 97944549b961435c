/* SPDX-License-Identifier: MIT */
/* A forked process attaches the probes, says so, waits until the other end of its socket is closed, by us or by our
 * end, and exits.
 *
 * Why not we ourselves: as long as a fatal signal is pending, the kernel can neither write a breakpoint nor take one
 * back (Linux mm/gup.c: __get_user_pages ends with -EINTR; kernel/events/uprobes.c: "failed to unregister, leaking
 * uprobe"). Who is killed while he attaches or closes leaves breakpoints for good: the code works and traps at each. So
 * this is done where our SIGKILL does not come: the holder has its own session, takes no other signal, and is not named
 * as we are, for those who kill by name. It never closes a probe, it exits: a process that exits is not killed any
 * more, nothing is pending while its files are closed.
 *
 * Not covered: a SIGKILL for the holder itself while it attaches (by its pid, or for a whole control group). The next
 * one who attaches at the same places and goes in order takes the breakpoints away that were left.
 *
 * The holder may have been forked from one of several threads: it makes system calls only. */
#include "engine/sample/probe_holder.h"

#include "engine/base/util.h"
#include <errno.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ATTACH_PERF_EVENT 41 /* BPF_PERF_EVENT of Linux 5.15 */
#define NAME "alloc-probes"  /* at most 15 characters */

/* As union bpf_attr of Linux 6.6 include/uapi/linux/bpf.h has it for BPF_LINK_CREATE. */
struct multi_attr {
	uint32_t prog_fd, target_fd, attach_type, flags;
	uint64_t path, offsets, ref_ctr_offsets, cookies;
	uint32_t cnt, multi_flags, pid;
	uint8_t rest[64];
};

struct perf_attr {
	uint32_t prog_fd, target_fd, attach_type, flags;
	uint64_t cookie;
	uint8_t rest[64];
};

/* The holder's side: what it opens stays open until it exits. */

static int attach_multi(const struct probe_plan *plan, const struct probe_file *file, const char *path) {
	const struct multi_attr attr = { .prog_fd = (uint32_t)plan->prog_fd,
		.attach_type = PROBE_ATTACH_MULTI,
		.path = (uintptr_t)path,
		.offsets = (uintptr_t)file->offsets,
		.cookies = (uintptr_t)file->cookies,
		.cnt = file->n,
		.pid = (uint32_t)plan->pid };

	return syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

static int attach_old(const struct probe_plan *plan, const struct probe_file *file, const char *path, uint32_t type) {
	for (uint32_t i = 0; i < file->n; i++) {
		struct perf_event_attr event = { .size = sizeof(event), .type = type };
		struct perf_attr link = {
			.prog_fd = (uint32_t)plan->prog_fd, .attach_type = ATTACH_PERF_EVENT, .cookie = file->cookies[i]
		};
		int fd;

		event.config1 = (uintptr_t)path;
		event.config2 = file->offsets[i];
		/* Of every process, which the kernel takes with one CPU only; the program runs on all. */
		fd = (int)syscall(SYS_perf_event_open, &event, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
		if (fd < 0)
			return -errno;
		link.target_fd = (uint32_t)fd;
		if (syscall(SYS_bpf, BPF_LINK_CREATE, &link, sizeof(link)) < 0)
			return -errno;
	}
	return 0;
}

/* Others wait for the end of what their pipes' other end is. */
static void close_all_but(const int *kept, size_t n) {
	unsigned first = 0, next;

	do {
		next = ~0U;
		for (size_t i = 0; i < n; i++)
			if (kept[i] >= 0 && (unsigned)kept[i] >= first)
				next = min_of(next, (unsigned)kept[i]);
		if (next > first)
			(void)!syscall(SYS_close_range, first, next - 1, 0);
		first = next + 1;
	} while (next != ~0U);
}

static void __attribute__((noreturn))
hold(const struct probe_plan *plan, const char (*paths)[32], uint32_t perf_type, int fd) {
	int kept[PROBE_FILES_MAX + 2] = { fd, plan->prog_fd }, r = 0;
	char byte;

	setsid();
	prctl(PR_SET_NAME, NAME, 0, 0, 0);
	for (size_t i = 0; i < PROBE_FILES_MAX; i++)
		kept[i + 2] = plan->files[i].n ? plan->files[i].fd : -1;
	close_all_but(kept, ARRAY_SIZE(kept));
	for (size_t i = 0; !r && i < PROBE_FILES_MAX; i++) {
		const struct probe_file *file = &plan->files[i];

		if (file->n)
			r = plan->multi ? attach_multi(plan, file, paths[i])
					: attach_old(plan, file, paths[i], perf_type);
	}
	if (send(fd, &r, sizeof(r), MSG_NOSIGNAL) == sizeof(r) && !r)
		while (recv(fd, &byte, 1, 0) < 0 && errno == EINTR)
			;
	_exit(0);
}

/* Our side. */

static int read_perf_type(uint32_t *ret_type) {
	FILE *file _fclose_ = fopen("/sys/bus/event_source/devices/uprobe/type", "re");

	if (!file)
		return -errno;
	return fscanf(file, "%u", ret_type) == 1 ? 0 : -EINVAL;
}

/* No handler of ours runs in the holder, not even at its beginning. */
static pid_t fork_without_signals(void) {
	sigset_t all, before;
	pid_t pid;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid)
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	return pid < 0 ? -EAGAIN : pid;
}

static int receive_answer(int fd) {
	ssize_t n;
	int r;

	do
		n = recv(fd, &r, sizeof(r), 0);
	while (n < 0 && errno == EINTR);
	return n == sizeof(r) ? r : -EPIPE;
}

int probe_holder_attach(struct probe_holder *holder, const struct probe_plan *plan) {
	char paths[PROBE_FILES_MAX][32] = { 0 };
	uint32_t perf_type = 0;
	int fds[2], r = plan->multi ? 0 : read_perf_type(&perf_type);

	if (r)
		return r;
	for (size_t i = 0; i < PROBE_FILES_MAX; i++)
		snprintf(paths[i], sizeof(paths[i]), "/proc/self/fd/%d", plan->files[i].fd);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		return -errno;
	holder->fd = fds[0];
	holder->pid = fork_without_signals();
	if (!holder->pid)
		hold(plan, paths, perf_type, fds[1]);
	close(fds[1]);
	r = holder->pid < 0 ? holder->pid : receive_answer(fds[0]);
	if (r)
		probe_holder_detach(holder);
	return r;
}

void probe_holder_detach(struct probe_holder *holder) {
	if (holder->fd < 0)
		return;
	close_fd(&holder->fd);
	while (holder->pid > 0 && waitpid(holder->pid, NULL, 0) < 0 && errno == EINTR)
		;
}
