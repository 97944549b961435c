/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_CRASH_HANDLER_H
#define PYSPYD_DAEMON_CRASH_HANDLER_H

#include "daemon/config.h"
#include "pyspyd/crash.h"
#include <jansson.h>
#include <sys/types.h>

/* Between the files crash_*.c: what the kernel's core_pattern starts for each core, as root. */

#define CRASH_NAME_SIZE 80
#define CRASH_FINDING_MAX (4U << 20) /* bytes of a finding */

/* What the kernel has put on the command line: %P %u %g %s %t %c %h. */
struct crash_words {
	pid_t pid; /* in the first PID namespace */
	uid_t uid;
	gid_t gid;
	int signal;
	uint64_t time_s;
	uint64_t limit; /* RLIMIT_CORE of the process, bytes */
};

/* Pure and strict. Return: 0; -EINVAL with a text. */
int crash_words_parse(char *const *words, size_t n, struct crash_words *ret_words, struct err *err);

/* A folder of ours: nobody else may write to it, and no link leads there. Made, for us alone, where it is missing.
 * Return: 0 and *ret_fd; -EPERM: it is not such a folder; negative errno. */
int crash_folder_open(const char *path, int *ret_fd, struct err *err);

/* What root has made in a folder of another user's, the service's, becomes that user's: he takes findings out of it.
 * Return: 0; negative errno. */
int crash_folder_give(int fd);

/* Copies a core out of a pipe into a file without a name in that folder: at most so many bytes, and never so many that
 * less than a tenth of the file system is left. What is beyond is left in the pipe. Blocks of zeros take no room.
 * Return: 0 and *ret_fd, *ret_bytes; negative errno. */
int crash_copy(int from, int folder_fd, uint64_t most, int *ret_fd, uint64_t *ret_bytes);

/* Packs the core into a new file of the folder (zstd, 0600). The oldest go then, so that there are never more than so
 * many, of so many bytes. Return: 0; -EFBIG: it alone is larger; negative errno; then there is no such file. */
int crash_keep(int core_fd, int folder_fd, const char *name, uint64_t most_files, uint64_t most_bytes);

/* Writes a line about the start of the process, and a finding, into a new file of the folder and sees it onto the disk;
 * it belongs to whom the folder belongs to. Return: 0; negative errno. */
int crash_spool(int folder_fd, const char *name, uint64_t start_ns, const char *json);

struct crash_limits {
	uint64_t deadline_ns;
	uint64_t memory; /* bytes of its own, for the child; 0: no such limit */
};

/* Whether a process that is still there seems to be a Python, as its files say to a child that has the rights of its
 * user alone by then. Return: 0; -ETIMEDOUT and others, with a text: that is not known. */
int crash_look(const struct crash_words *words, const struct crash_limits *limits, bool *ret_python, struct err *err);

/* Reads a core in a child that has the rights of its process's user and can start nothing, within limits. Return: 0 and
 * *ret_json, the caller's; what pyspyd_crash_finding returned; -ETIMEDOUT; negative errno; with a text. */
int crash_read(int core_fd, const struct crash_words *words, struct pyspyd_crash_options *options,
	const struct crash_limits *limits, char **ret_json, struct err *err);

/* What a stranger's core tells is no more than its content: whose it is, is for the kernel to say, or the journal.
 * Return: the finding, as that of this process; the caller's to json_decref(). NULL: it is none. */
json_t *crash_finding_check(const char *json, pid_t pid, uid_t uid);

#endif
