/* SPDX-License-Identifier: MIT */
/* libbpf's surroundings: its messages, the memory limit of old kernels, and the words for what it refuses. */
#include "engine/sample/bpf.h"

#include "engine/base/util.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#define PIDS_DEFAULT (1U << 22) /* the most that the kernel ever gives (PID_MAX_LIMIT) */

/* The last message of each thread: programs are loaded where they are needed. */
static _Thread_local char last_message[256];

static _Thread_local char complaint[192];

bool bpf_complaint(const char *message, char *buf, size_t size) {
	const char *log = strstr(message, "BEGIN PROG LOAD LOG --\n"), *end = NULL, *line;

	if (!log)
		return false;
	log = strchr(log, '\n');
	for (const char *sums = log; (sums = strstr(sums, "\nprocessed ")); sums++)
		end = sums;
	if (!end || end == log)
		return false;
	for (line = end; line[-1] != '\n'; line--)
		;
	snprintf(buf, size, "%.*s", (int)(end - line), line);
	return true;
}

static int keep_message(enum libbpf_print_level level, const char *format, va_list args) {
	char *message _free_ = NULL;

	if (level != LIBBPF_WARN || vasprintf(&message, format, args) < 0)
		return 0;
	if (!bpf_complaint(message, complaint, sizeof(complaint)))
		snprintf(last_message, sizeof(last_message), "%.*s", (int)strcspn(message, "\n"), message);
	return 0;
}

static void prepare(void) {
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };

	libbpf_set_print(keep_message);
	setrlimit(RLIMIT_MEMLOCK, &unlimited); /* since 5.11 the memory of maps is the control group's business */
}

void bpf_prepare(void) {
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, prepare);
	last_message[0] = complaint[0] = '\0';
}

int bpf_run_here(int prog_fd) {
	LIBBPF_OPTS(bpf_test_run_opts, options);

	return bpf_prog_test_run_opts(prog_fd, &options);
}

unsigned bpf_pids_max(void) {
	unsigned max = 0;
	FILE *file = fopen("/proc/sys/kernel/pid_max", "re");

	if (!file)
		return PIDS_DEFAULT;
	if (fscanf(file, "%u", &max) != 1 || max > PIDS_DEFAULT)
		max = PIDS_DEFAULT;
	fclose(file);
	return max + 1;
}

int bpf_explain(struct err *err, int r, const char *what) {
	struct utsname kernel;

	if (complaint[0])
		return err_set(err, PYSPYD_E_UNSUPPORTED, "%s: this kernel (Linux %s) does not take the program: %s",
			what, uname(&kernel) ? "?" : kernel.release, complaint);
	if (r == -EPERM || r == -EACCES)
		return err_set(err, PYSPYD_E_DENIED,
			"%s: not permitted (CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, and no lockdown)", what);
	return err_set(err, PYSPYD_E_UNSUPPORTED, "%s: %s%s%s%s", what, strerror(-r), last_message[0] ? " (" : "",
		last_message, last_message[0] ? ")" : "");
}
