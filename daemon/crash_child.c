/* SPDX-License-Identifier: MIT */
/* Reading what anybody may have made, a core and the files of a process, without root's rights.
 *
 * The child takes on the user and group that the process had: what it can open of files is what that one could. It
 * has no capabilities, gets no new ones, cannot be traced by that user, and starts no programs, makes no connections
 * and signals nobody: a list of system calls that must fail sees to that. Its memory, its time and the files that it
 * writes are bounded. What it says is a text of bounded length; that is read as a stranger's. */
#include "daemon/crash_handler.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_MAX (4ULL << 30)      /* addresses */
#define FILES_BYTES_MAX (4ULL << 30) /* of a file: a packed core is unpacked */
#define SLACK_S 5
#define FOLDER_SIZE 40

static const char *const forbidden[] = { "execve", "execveat", "fork", "vfork", "socket", "connect", "bind", "listen",
	"ptrace", "process_vm_writev", "kill", "tkill", "mount", "umount2", "unshare", "setns", "pivot_root", "bpf",
	"perf_event_open", "init_module", "finit_module", "keyctl", "add_key", "io_uring_setup", "userfaultfd",
	"open_by_handle_at", "chroot" };

static int seal(void) {
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int r = filter ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
		int call = seccomp_syscall_resolve_name(forbidden[i]);

		if (call != __NR_SCMP_ERROR)
			r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), call, 0);
	}
	if (!r)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r;
}

static int limit(int what, rlim_t most) {
	struct rlimit rlimit = { most, most };

	return setrlimit(what, &rlimit) ? -errno : 0;
}

static int bound(const struct crash_limits *limits) {
	int r = limit(RLIMIT_CORE, 0);

	if (!r)
		r = limit(RLIMIT_AS, MEMORY_MAX);
	if (!r)
		r = limit(RLIMIT_FSIZE, FILES_BYTES_MAX);
	if (!r)
		r = limit(RLIMIT_CPU, limits->deadline_ns / 1000000000 + SLACK_S);
	if (!r && limits->memory)
		r = limit(RLIMIT_DATA, limits->memory);
	return r;
}

static int drop_capabilities(void) {
	cap_t none = cap_init();
	int r = none && !cap_set_proc(none) ? 0 : -errno;

	cap_free(none);
	return r;
}

/* As root, to the user; as anybody else, there is nothing to give up. */
static int drop(const struct crash_words *words) {
	if (geteuid() == 0 &&
		(setgroups(0, NULL) || setresgid(words->gid, words->gid, words->gid) ||
			setresuid(words->uid, words->uid, words->uid)))
		return -errno;
	if (drop_capabilities() || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return 0;
}

/* The answer: the result in four bytes, then the finding or the reason. */
static void answer(int fd, int result, const char *text) {
	const char *bytes = (const char *)&result;
	size_t n = sizeof(result);

	for (int part = 0; part < 2; part++) {
		for (size_t done = 0; done < n;) {
			ssize_t put = write(fd, bytes + done, n - done);

			if (put < 0)
				_exit(1);
			done += (size_t)put;
		}
		bytes = text;
		n = text ? strlen(text) : 0;
	}
}

/* What a child does: with the rights that we have, and once it has none any more. */
struct task {
	int (*open)(struct task *task); /* NULL: nothing */
	int (*work)(struct task *task, char **ret_text, struct err *err);
	const struct crash_words *words;
	const struct pyspyd_crash_options *options;
	struct pyspyd_crash_files *files;
};

static int give_up_rights(const struct task *task, const struct crash_limits *limits, struct err *err) {
	int r = bound(limits);

	if (!r)
		r = drop(task->words);
	if (!r)
		r = seal();
	return r ? err_set(err, r, "cannot drop privileges: %s", strerror(-r)) : 0;
}

static void __attribute__((noreturn)) child(int to, struct task *task, const struct crash_limits *limits) {
	struct err err = { 0 };
	char *text = NULL;
	int r = task->open ? task->open(task) : 0;

	r = r ? err_set(&err, r, "process %d cannot be looked at", (int)task->words->pid)
	      : give_up_rights(task, limits, &err);
	if (!r)
		r = task->work(task, &text, &err);
	answer(to, r, r ? err.text : text);
	_exit(0);
}

static uint64_t now_ns(void) {
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Return: 0 and what it said, ended with NUL; -ETIMEDOUT; -EMSGSIZE; negative errno. */
static int listen_to(int fd, uint64_t until_ns, char **ret_bytes, size_t *ret_n) {
	size_t n = 0, most = CRASH_FINDING_MAX + sizeof(int);
	char *bytes = malloc(most + 1);
	int r = bytes ? 0 : -ENOMEM;

	while (!r) {
		uint64_t now = now_ns();
		struct pollfd poller = { .fd = fd, .events = POLLIN };
		ssize_t got;

		if (now >= until_ns || poll(&poller, 1, (int)((until_ns - now) / 1000000) + 1) == 0) {
			r = -ETIMEDOUT;
			continue;
		}
		got = n < most ? read(fd, bytes + n, most - n) : -1;
		if (n >= most)
			r = -EMSGSIZE;
		else if (got < 0 && errno != EINTR)
			r = -errno;
		else if (!got)
			break;
		else if (got > 0)
			n += (size_t)got;
	}
	if (r) {
		free(bytes);
		return r;
	}
	bytes[n] = '\0';
	*ret_bytes = bytes;
	*ret_n = n;
	return 0;
}

static int judge(char *bytes, size_t n, char **ret_text, struct err *err) {
	int result;

	if (n < sizeof(result)) {
		free(bytes);
		return err_set(err, -EPROTO, "it could not be read: the reader died");
	}
	memcpy(&result, bytes, sizeof(result));
	if (!result)
		*ret_text = strdup(bytes + sizeof(result));
	else
		err_set(err, result, "%.900s", bytes + sizeof(result));
	free(bytes);
	return result ? result : *ret_text ? 0 : -ENOMEM;
}

static int ask_child(struct task *task, const struct crash_limits *limits, char **ret_text, struct err *err) {
	int pipe_fd[2], r = 0;
	char *bytes = NULL;
	size_t n = 0;
	pid_t pid;

	if (pipe2(pipe_fd, O_CLOEXEC))
		return err_set(err, -errno, "%s", strerror(errno));
	pid = fork();
	if (pid < 0)
		r = -errno;
	if (!pid)
		child(pipe_fd[1], task, limits);
	close(pipe_fd[1]);
	if (!r)
		r = listen_to(pipe_fd[0], now_ns() + limits->deadline_ns, &bytes, &n);
	close(pipe_fd[0]);
	if (pid > 0) {
		kill(pid, SIGKILL); /* it has said all, or its time is up */
		waitpid(pid, NULL, 0);
	}
	return r ? err_set(err, r, "it could not be read: %s", strerror(-r)) : judge(bytes, n, ret_text, err);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
	(void)st;
	(void)ftw;
	return kind == FTW_DP ? rmdir(path) : unlink(path);
}

/* On a disk, since /tmp may be in memory: a folder for what has to be unpacked, gone afterwards however the child ends.
 */
static int make_room(const struct crash_words *words, char folder[FOLDER_SIZE]) {
	snprintf(folder, FOLDER_SIZE, "/var/tmp/pyspyd-crash-XXXXXX");
	if (!mkdtemp(folder))
		return -errno;
	if (geteuid() == 0 && chown(folder, words->uid, words->gid))
		return -errno;
	return setenv("TMPDIR", folder, 1) ? -errno : 0;
}

json_t *crash_finding_check(const char *json, pid_t pid, uid_t uid) {
	json_t *finding = json_loads(json, 0, NULL), *process = json_object_get(finding, "process");
	const char *kind = json_string_value(json_object_get(finding, "kind"));

	if (json_is_object(process) && kind && !strcmp(kind, "crash") &&
		json_is_string(json_object_get(finding, "summary")) &&
		json_is_object(json_object_get(finding, "evidence")) &&
		!json_object_set_new(process, "pid", json_integer(pid)) &&
		!json_object_set_new(process, "uid", json_integer(uid)))
		return finding;
	json_decref(finding);
	return NULL;
}

static int make_finding(struct task *task, char **ret_text, struct err *err) {
	struct pyspyd_finding *finding;
	int r = pyspyd_crash_finding(task->options, &finding, err);

	if (r)
		return r;
	*ret_text = pyspyd_finding_json(finding);
	return *ret_text ? 0 : err_set(err, -ENOMEM, "%s", strerror(ENOMEM));
}

int crash_read(int core_fd, const struct crash_words *words, struct pyspyd_crash_options *options,
	const struct crash_limits *limits, char **ret_json, struct err *err) {
	struct task task = { .work = make_finding, .words = words, .options = options };
	char path[32], folder[FOLDER_SIZE] = "";
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", core_fd);
	options->core.core = path;
	r = geteuid() == 0 && fchown(core_fd, words->uid, words->gid) ? -errno : make_room(words, folder);
	r = r ? err_set(err, r, "%s", strerror(-r)) : ask_child(&task, limits, ret_json, err);
	if (folder[0])
		nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	return r;
}

static int open_files(struct task *task) {
	struct rlimit files;

	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	return pyspyd_crash_files_open(task->words->pid, &task->files);
}

static int look(struct task *task, char **ret_text, struct err *err) {
	*ret_text = strdup(pyspyd_crash_files_python(task->files) ? "yes" : "no");
	return *ret_text ? 0 : err_set(err, -ENOMEM, "%s", strerror(ENOMEM));
}

int crash_look(const struct crash_words *words, const struct crash_limits *limits, bool *ret_python, struct err *err) {
	struct task task = { .open = open_files, .work = look, .words = words };
	char *text = NULL;
	int r = ask_child(&task, limits, &text, err);

	if (text)
		*ret_python = strcmp(text, "no") != 0;
	free(text);
	return r;
}
