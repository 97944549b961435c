/* SPDX-License-Identifier: MIT */
/* pyspyd crash-handler: what the kernel starts for each core (kernel.core_pattern), with the core on its standard
 * input, as root in the first namespaces.
 *
 *	look      who the process is, while /proc still has it; whether it is a Python says a child without rights
 *	forward   of one that is none, the core goes to the program that is configured, untouched
 *	copy      into a file without a name, bounded
 *	keep      packed, where that is configured and the process's own limit does not forbid it
 *	read      in a child without rights (crash_child.c)
 *	spool     the finding, for the service; without a service, to the journal too
 *
 * Nobody sees what it prints: it speaks to syslog. What fails in one step does not keep the next from being done. */
#include "pyspyd/daemon.h"

#include "daemon/crash_handler.h"
#include "daemon/message_ids.h"
#include "pyspyd/parse.h"
#include "pyspyd/remote.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <syslog.h>
#include <systemd/sd-journal.h>
#include <time.h>
#include <unistd.h>

enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2 };

#define ALARM_FACTOR 4 /* the whole takes at most so many times as long as the reading may */
#define LOOK_NS 5000000000ULL
#define WORDS_MIN 6
#define FORWARD_WORDS_MAX 32

struct handler {
	const struct pyspyd_crash_handler_options *options;
	struct config *config;
	struct crash_words words;
	struct pyspyd_process process;
	bool seen;   /* in /proc */
	bool python; /* or not known */
	int root_fd; /* of another file system than ours; -1: the same */
	int folder_fd;
	int core_fd;
	uint64_t core_bytes;
	uint64_t now_ns; /* names begin with it, and sort by it */
	char kept[PATH_MAX];
	char *json;
};

static int parse_word(const char *word, uint64_t most, uint64_t *ret) {
	return parse_u64(word, ret) || *ret > most ? -EINVAL : 0;
}

int crash_words_parse(char *const *words, size_t n, struct crash_words *ret_words, struct err *err) {
	static const char *const names[] = { "pid (%P)", "uid (%u)", "gid (%g)", "signal (%s)", "time (%t)",
		"limit (%c)" };
	static const uint64_t most[] = { INT32_MAX, UINT32_MAX, UINT32_MAX, 64, INT64_MAX, UINT64_MAX };
	uint64_t values[WORDS_MIN];

	if (n < WORDS_MIN)
		return err_set(err, -EINVAL, "%zu words instead of %%P %%u %%g %%s %%t %%c", n);
	for (size_t i = 0; i < WORDS_MIN; i++)
		if (parse_word(words[i], most[i], &values[i]))
			return err_set(err, -EINVAL, "'%.64s' is no %s", words[i], names[i]);
	if (!values[0])
		return err_set(err, -EINVAL, "0 is no pid (%%P)");
	*ret_words = (struct crash_words){ .pid = (pid_t)values[0],
		.uid = (uid_t)values[1],
		.gid = (gid_t)values[2],
		.signal = (int)values[3],
		.time_s = values[4],
		.limit = values[5] };
	return 0;
}

/* Looking and forwarding. */

static void open_root(struct handler *handler) {
	char path[32];
	struct stat own, its;

	snprintf(path, sizeof(path), "/proc/%d/root", (int)handler->words.pid);
	handler->root_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (handler->root_fd < 0 || stat("/", &own) || fstat(handler->root_fd, &its) || own.st_dev != its.st_dev ||
		own.st_ino != its.st_ino)
		return;
	close(handler->root_fd);
	handler->root_fd = -1;
}

/* As root, only texts of the kernel are read: stat, status, comm, cgroup, maps, the link exe, and cmdline, which the
 * process has written. Each is bounded, and has no more structure than fields in lines. Its root is opened as a mere
 * place; the regular files that it has mapped are opened, in the child, and read when that has no rights any more.
 * Where the child cannot say whether it is a Python, the core does. */
static void look(struct handler *handler) {
	const struct crash_limits limits = { .deadline_ns = LOOK_NS };
	struct err err = { 0 };

	handler->seen = !pyspyd_crash_who(handler->words.pid, &handler->process);
	if (handler->seen)
		open_root(handler);
	if (!handler->seen || crash_look(&handler->words, &limits, &handler->python, &err))
		handler->python = true;
}

static const char *forward_to(const struct handler *handler) {
	const char *program = handler->options->forward ? handler->options->forward : handler->config->crash.forward;

	return program && *program ? program : NULL;
}

/* Becomes the program, with the words of the kernel; `core_fd` -1: the core is still on its way. */
static int forward(const struct handler *handler, int core_fd) {
	const char *program = forward_to(handler);
	char *words[FORWARD_WORDS_MAX + 2] = { (char *)(uintptr_t)program };

	if (!program)
		return STATUS_OK;
	if (core_fd >= 0 && (lseek(core_fd, 0, SEEK_SET) < 0 || dup2(core_fd, STDIN_FILENO) < 0))
		return STATUS_FAILED;
	for (size_t i = 0; i < handler->options->words_n && i < FORWARD_WORDS_MAX; i++)
		words[i + 1] = handler->options->words[i];
	alarm(0);
	execv(program, words);
	syslog(LOG_ERR, "crash-handler: cannot hand the core on to %s: %m", program);
	return STATUS_FAILED;
}

/* Keeping and reading. */

static void keep(struct handler *handler) {
	const struct config_crash *crash = &handler->config->crash;
	char name[CRASH_NAME_SIZE];
	struct err err = { 0 };
	int fd, r;

	if (!crash->keep || !handler->words.limit)
		return;
	snprintf(name, sizeof(name), "core.%019llu.%d.zst", (unsigned long long)handler->now_ns,
		(int)handler->words.pid);
	r = crash_folder_open(crash->cores, &fd, &err);
	if (r) {
		syslog(LOG_WARNING, "crash-handler: the core is not kept: %s", err.text);
		return;
	}
	r = crash_keep(handler->core_fd, fd, name, crash->max_cores, crash->max_size);
	close(fd);
	if (r)
		syslog(LOG_WARNING, "crash-handler: the core is not kept: %s", strerror(-r));
	else
		snprintf(handler->kept, sizeof(handler->kept), "%s/%s", crash->cores, name);
}

static int read_core(struct handler *handler, struct err *err) {
	struct pyspyd_crash_options options = {
		.process = handler->seen ? &handler->process : NULL,
		.kept = handler->kept[0] ? handler->kept : NULL,
	};
	const struct crash_limits limits = { .deadline_ns = handler->config->crash.deadline_ns };
	char root[32];

	if (handler->root_fd >= 0) {
		snprintf(root, sizeof(root), "/proc/self/fd/%d", handler->root_fd);
		options.core.root = root;
	}
	return crash_read(handler->core_fd, &handler->words, &options, &limits, &handler->json, err);
}

/* Telling. */

static bool service_runs(const struct handler *handler) {
	struct pyspyd_remote *remote;

	if (pyspyd_remote_open(handler->config->socket_path, &remote, NULL))
		return false;
	pyspyd_remote_close(remote);
	return true;
}

static void tell_journal(const struct handler *handler, const char *summary) {
	if (access("/run/systemd/journal/socket", F_OK) == 0 &&
		sd_journal_send("MESSAGE=%s", summary, "MESSAGE_ID=%s", message_id_of("crash"), "PRIORITY=%d", LOG_CRIT,
			"PYSPYD_KIND=crash", "PYSPYD_PID=%d", (int)handler->words.pid, "PYSPYD_UID=%u",
			(unsigned)handler->words.uid, NULL) >= 0)
		return;
	syslog(LOG_CRIT, "%s", summary);
}

static int tell(struct handler *handler) {
	json_t *finding = crash_finding_check(handler->json, handler->words.pid, handler->words.uid);
	const char *summary = json_string_value(json_object_get(finding, "summary"));
	char *json = finding ? json_dumps(finding, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
	char name[CRASH_NAME_SIZE];
	int r = json ? 0 : finding ? -ENOMEM : -EPROTO;

	snprintf(name, sizeof(name), "%019llu.%d.json", (unsigned long long)handler->now_ns, (int)handler->words.pid);
	if (!r)
		r = crash_spool(handler->folder_fd, name, handler->seen ? handler->process.start_real_ns : 0, json);
	if (r)
		syslog(LOG_ERR, "crash-handler: the finding is not kept: %s", strerror(-r));
	if (summary && (r || !service_runs(handler)))
		tell_journal(handler, summary);
	json_decref(finding);
	free(json);
	return r;
}

static int handle(struct handler *handler) {
	const struct config_crash *crash = &handler->config->crash;
	struct err err = { 0 };
	int r;

	look(handler);
	if (!handler->python)
		return forward(handler, -1);
	r = crash_folder_open(crash->folder, &handler->folder_fd, &err);
	if (!r && (r = crash_folder_give(handler->folder_fd)))
		err_set(&err, r, "%s cannot be given to the service: %s", crash->folder, strerror(-r));
	if (r) {
		syslog(LOG_ERR, "crash-handler: %s", err.text);
		return forward(handler, -1);
	}
	r = crash_copy(STDIN_FILENO, handler->folder_fd, crash->max_core, &handler->core_fd, &handler->core_bytes);
	if (r) {
		syslog(LOG_ERR, "crash-handler: the core of process %d cannot be copied: %s", (int)handler->words.pid,
			strerror(-r));
		return STATUS_FAILED;
	}
	keep(handler);
	r = read_core(handler, &err);
	if (!r)
		return tell(handler) ? STATUS_FAILED : STATUS_OK;
	if (r != PYSPYD_E_UNSUPPORTED)
		syslog(LOG_ERR, "crash-handler: process %d: %s", (int)handler->words.pid, err.text);
	return forward(handler, handler->core_fd);
}

static int read_config(const struct pyspyd_crash_handler_options *options, struct config **ret_config) {
	char *faults = NULL;
	size_t n;
	FILE *out = open_memstream(&faults, &n);
	int r = out ? config_read(options->config, out, ret_config) : -ENOMEM;

	if (out)
		fclose(out);
	if (r == -EINVAL) { /* what was found is better told late than never */
		syslog(LOG_WARNING, "crash-handler: the configuration is wrong, defaults hold: %s", faults);
		r = config_read("/dev/null", stderr, ret_config);
	}
	free(faults);
	return r;
}

static void prepare(struct handler *handler) {
	const struct rlimit none = { 0, 0 };
	struct timespec now;

	umask(077);
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_NAME, "pyspyd-crash", 0, 0, 0);
	alarm((unsigned)(handler->config->crash.deadline_ns / 1000000000 * ALARM_FACTOR + 1));
	clock_gettime(CLOCK_REALTIME, &now);
	handler->now_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int pyspyd_crash_handler_run(const struct pyspyd_crash_handler_options *options) {
	struct handler handler = { .options = options, .root_fd = -1, .folder_fd = -1, .core_fd = -1 };
	struct err err = { 0 };
	int status = STATUS_FAILED;

	openlog("pyspyd", LOG_PID, LOG_DAEMON);
	if (crash_words_parse(options->words, options->words_n, &handler.words, &err)) {
		syslog(LOG_ERR, "crash-handler: kernel.core_pattern: %s", err.text);
		fprintf(stderr, "pyspyd: crash-handler: %s\n", err.text);
		return STATUS_USAGE;
	}
	if (!read_config(options, &handler.config)) {
		prepare(&handler);
		status = handle(&handler);
	}
	if (handler.seen)
		pyspyd_process_deinit(&handler.process);
	free(handler.json);
	config_free(handler.config);
	closelog();
	return status;
}
