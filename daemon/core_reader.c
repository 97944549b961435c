/* SPDX-License-Identifier: MIT */
/* A process that copies cores and has each read by a child of its own (crash_child.c).
 *
 * The service's list of system calls lets it make no processes, and what it would have to give to such a one, its
 * capabilities, the reader has given up first. A core comes as a descriptor, and is copied to where the child may open
 * it; the finding goes back in a file in memory. The reader sees no more of a core than bytes. It ends with the
 * service: their socket is closed then. */
#include "daemon/core_reader.h"

#include "daemon/crash_handler.h"
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MEMORY_MAX (128ULL << 20) /* of a child: the service and it have 256 MiB together */
#define NAME_MAX_BYTES 4096

struct core_reader {
	int fd;
	bool busy;
};

/* To the reader, with the core. */
struct job {
	struct crash_words words;
	uint64_t max_core, deadline_ns;
	char folder[NAME_MAX_BYTES], file[NAME_MAX_BYTES];
	char exe[NAME_MAX_BYTES], comm[64], cmdline[NAME_MAX_BYTES], unit[256], cgroup[NAME_MAX_BYTES];
};

/* From the reader; with the finding where the result is 0. */
struct done {
	int result;
	char reason[256];
};

/* Both sides. `fd` -1: none. */

static int send_message(int to, const void *bytes, size_t n, int fd) {
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec part = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = n };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *header = &control.align;

		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	}
	return sendmsg(to, &message, MSG_NOSIGNAL) == (ssize_t)n ? 0 : -errno;
}

/* Return: 0 and *ret_fd (-1: none); -EPIPE: the other side is gone; negative errno. */
static int receive_message(int from, void *bytes, size_t n, int flags, int *ret_fd) {
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec part = { .iov_base = bytes, .iov_len = n };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
	};
	ssize_t got = recvmsg(from, &message, flags | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int fd = -1;

	if (got < 0)
		return -errno;
	if (got && header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	if ((size_t)got == n) {
		*ret_fd = fd;
		return 0;
	}
	if (fd >= 0)
		close(fd);
	return -EPIPE;
}

static void copy_text(char *to, size_t size, const char *from) {
	size_t n = strnlen(from ? from : "", size - 1);

	if (n)
		memcpy(to, from, n);
	to[n] = '\0';
}

/* The reader's side. */

static int read_copy(const struct job *job, int core_fd, char **ret_json, struct err *err) {
	char *cmdline[] = { (char *)(uintptr_t)job->cmdline, NULL };
	const struct pyspyd_process process = { .pid = job->words.pid,
		.name = (char *)(uintptr_t)job->comm,
		.cmdline = cmdline,
		.exe = (char *)(uintptr_t)job->exe,
		.uid = job->words.uid,
		.cgroup = (char *)(uintptr_t)job->cgroup,
		.unit = (char *)(uintptr_t)job->unit };
	struct pyspyd_crash_options options = { .process = &process, .kept = job->file };
	const struct crash_limits limits = { .deadline_ns = job->deadline_ns, .memory = MEMORY_MAX };

	return crash_read(core_fd, &job->words, &options, &limits, ret_json, err);
}

static int do_job(const struct job *job, int from, char **ret_json, struct err *err) {
	int folder = -1, core = -1, r;
	uint64_t bytes;

	r = crash_folder_open(job->folder, &folder, err);
	if (!r)
		r = crash_copy(from, folder, job->max_core, &core, &bytes);
	if (!r)
		r = read_copy(job, core, ret_json, err);
	if (folder >= 0)
		close(folder);
	if (core >= 0)
		close(core);
	return r;
}

/* Return: a file in memory; negative errno. */
static int file_of(const char *json) {
	size_t n = strlen(json);
	int fd = memfd_create("pyspyd-finding", MFD_CLOEXEC);

	if (fd >= 0 && write(fd, json, n) == (ssize_t)n)
		return fd;
	if (fd >= 0)
		close(fd);
	return -EIO;
}

static void __attribute__((noreturn)) serve(int fd) {
	static struct job job;
	int core;

	while (!receive_message(fd, &job, sizeof(job), 0, &core)) {
		struct done done = { 0 };
		struct err err = { 0 };
		char *json = NULL;
		int file = -1;

		done.result = do_job(&job, core, &json, &err);
		if (!done.result)
			file = file_of(json);
		if (!done.result && file < 0)
			done.result = -EIO;
		if (done.result)
			copy_text(done.reason, sizeof(done.reason),
				err.text[0] ? err.text : strerror(done.result < 0 ? -done.result : EIO));
		if (send_message(fd, &done, sizeof(done), file))
			break;
		free(json);
		close(core);
		if (file >= 0)
			close(file);
	}
	_exit(0);
}

/* Root has to give each child its user's identity, and needs what it has for that. */
static int settle(int fd) {
	const struct rlimit none = { 0, 0 };
	cap_t nothing = cap_init();
	sigset_t set;
	int r = nothing && (!geteuid() || !cap_set_proc(nothing)) ? 0 : -errno;

	cap_free(nothing);
	if (!r &&
		(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ||
			prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || setrlimit(RLIMIT_CORE, &none)))
		r = -errno;
	prctl(PR_SET_NAME, "pyspyd-cores", 0, 0, 0);
	(void)!syscall(SYS_close_range, STDERR_FILENO + 1, (unsigned)fd - 1, 0);
	(void)!syscall(SYS_close_range, (unsigned)fd + 1, ~0U, 0);
	sigemptyset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	umask(077);
	return r;
}

/* The service's side. */

int core_reader_new(struct core_reader **ret_reader) {
	struct core_reader *reader = calloc(1, sizeof(*reader));
	int fds[2];
	pid_t pid;

	if (!reader || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds)) {
		free(reader);
		return reader ? -errno : -ENOMEM;
	}
	pid = fork();
	if (!pid) {
		if (settle(fds[1]))
			_exit(1);
		serve(fds[1]);
	}
	close(fds[1]);
	reader->fd = fds[0];
	if (pid < 0) {
		core_reader_free(reader);
		return -EAGAIN;
	}
	*ret_reader = reader;
	return 0;
}

void core_reader_free(struct core_reader *reader) {
	if (!reader)
		return;
	close(reader->fd);
	free(reader);
}

int core_reader_fd(const struct core_reader *reader) {
	return reader ? reader->fd : -1;
}

int core_reader_begin(struct core_reader *reader, int core_fd, const struct coredump_entry *entry,
	const struct core_reader_bounds *bounds) {
	static struct job job; /* too large for a stack */
	int r;

	if (reader->busy)
		return -EAGAIN;
	job = (struct job){
		.words = { .pid = entry->pid, .uid = entry->uid, .gid = entry->gid, .signal = entry->signal },
		.max_core = bounds->max_core,
		.deadline_ns = bounds->deadline_ns
	};
	copy_text(job.folder, sizeof(job.folder), bounds->folder);
	copy_text(job.file, sizeof(job.file), entry->file);
	copy_text(job.exe, sizeof(job.exe), entry->exe);
	copy_text(job.comm, sizeof(job.comm), entry->comm);
	copy_text(job.cmdline, sizeof(job.cmdline), entry->cmdline);
	copy_text(job.unit, sizeof(job.unit), entry->unit);
	copy_text(job.cgroup, sizeof(job.cgroup), entry->cgroup);
	r = send_message(reader->fd, &job, sizeof(job), core_fd);
	reader->busy = !r;
	return r;
}

static int read_finding(int fd, char **ret_json) {
	struct stat st;
	char *json;

	if (fd < 0 || fstat(fd, &st) || st.st_size <= 0 || st.st_size > (off_t)CRASH_FINDING_MAX)
		return -ENODATA;
	json = malloc((size_t)st.st_size + 1);
	if (!json || pread(fd, json, (size_t)st.st_size, 0) != (ssize_t)st.st_size) {
		free(json);
		return -ENODATA;
	}
	json[st.st_size] = '\0';
	*ret_json = json;
	return 1;
}

/* A core may have its part in the words. */
static void make_line(char *text, size_t size) {
	text[size - 1] = '\0';
	for (char *c = text; *c; c++)
		if (iscntrl((unsigned char)*c))
			*c = ' ';
}

int core_reader_take(struct core_reader *reader, char **ret_json, struct err *err) {
	struct done done;
	int fd = -1, r;

	if (!reader->busy)
		return 0;
	r = receive_message(reader->fd, &done, sizeof(done), MSG_DONTWAIT, &fd);
	if (r)
		return r == -EAGAIN || r == -EINTR ? 0 : r;
	reader->busy = false;
	make_line(done.reason, sizeof(done.reason));
	r = done.result ? err_set(err, -ENODATA, "%s", done.reason) : read_finding(fd, ret_json);
	if (fd >= 0)
		close(fd);
	return r;
}
