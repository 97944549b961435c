/* SPDX-License-Identifier: MIT */
/* Starting and ending the program that is to be watched. A pipe that exec closes tells a failed exec from a program
 * that ends at once. Ctrl-C reaches the program without our help: it is in our process group. */
#include "cli/program.h"

#include "cli/cli.h"
#include "pyspyd/text.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_NS (3 * NS_PER_SEC)
#define RETRY_NS (10 * NS_PER_MS)
#define END_NS (5 * NS_PER_SEC)

static void __attribute__((noreturn)) run_child(char **argv, bool stdout_taken, pid_t parent, int report_fd) {
	int error;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	if (!stdout_taken || dup2(STDERR_FILENO, STDOUT_FILENO) >= 0)
		execvp(argv[0], argv);
	error = errno;
	if (write(report_fd, &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}

int program_start(char **argv, bool stdout_taken, struct program *ret_program) {
	pid_t parent = getpid(), pid;
	int report[2], error;
	ssize_t n;

	if (pipe2(report, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid < 0) {
		error = errno;
		close(report[0]);
		close(report[1]);
		return -error;
	}
	if (!pid)
		run_child(argv, stdout_taken, parent, report[1]);
	close(report[1]);
	do
		n = read(report[0], &error, sizeof(error));
	while (n < 0 && errno == EINTR);
	close(report[0]);
	if (n == sizeof(error)) {
		waitpid(pid, NULL, 0);
		return -error;
	}
	ret_program->pid = pid;
	return 0;
}

int program_fail(const char *name, int error) {
	_free_ char *printable = pyspyd_printable(name);

	cli_say("cannot start %s: %s", printable ? printable : "the program", strerror(-error));
	return STATUS_FAILED;
}

static bool has_ended(struct program *program) {
	if (waitpid(program->pid, NULL, WNOHANG) == 0)
		return false;
	program->pid = 0;
	return true;
}

void program_end(struct program *program) {
	uint64_t kill_at_ns = cli_now_ns() + END_NS;

	if (!program->pid || has_ended(program))
		return;
	kill(program->pid, SIGTERM);
	kill(program->pid, SIGCONT);
	while (!has_ended(program)) {
		if (cli_now_ns() >= kill_at_ns)
			kill(program->pid, SIGKILL);
		cli_sleep_ns(RETRY_NS);
	}
}

struct patience patience_for(const struct program *program) {
	return (struct patience){ .until_ns = cli_now_ns() + PATIENCE_NS, .started_by_us = program->pid != 0 };
}

bool patience_again(const struct patience *patience, int r) {
	if (r != PYSPYD_E_UNSUPPORTED || !patience->started_by_us)
		return false;
	if (cli_stop || cli_now_ns() >= patience->until_ns)
		return false;
	cli_sleep_ns(RETRY_NS);
	return true;
}
