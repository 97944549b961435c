/* SPDX-License-Identifier: MIT */
/* A file of JSON Lines, each line a finding as it stands in SPEC.md (pyspyd.finding/1), and now and then a note about
 * the sink (pyspyd.note/1). Each line is one write at the file's end. The file is opened anew when another one, or
 * none, stands at its path; one that was emptied in place is written on from its start. */
#include "daemon/sink_format.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

char *file_line(const struct pyspyd_event *event) {
	char *line = NULL;

	if (asprintf(&line, "%s\n", event->json) < 0)
		return NULL;
	for (char *c = line; c[1]; c++) /* one is space there; in strings they are escaped */
		if (*c == '\n')
			*c = ' ';
	return line;
}

static void time_text(uint64_t real_ns, char *text, size_t size) {
	time_t seconds = (time_t)(real_ns / 1000000000);
	struct tm tm;
	size_t n;

	gmtime_r(&seconds, &tm);
	n = strftime(text, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, size - n, ".%09" PRIu64 "Z", real_ns % 1000000000);
}

char *file_note(const char *text, uint64_t time_real_ns) {
	char time[48], host[256] = "", *line = NULL, *json;
	json_t *note;

	time_text(time_real_ns, time, sizeof(time));
	gethostname(host, sizeof(host) - 1);
	note = json_pack("{s:s, s:s, s:s, s:s}", "schema", "pyspyd.note/1", "time", time, "host", host, "text", text);
	json = note ? json_dumps(note, JSON_COMPACT) : NULL;
	if (json && asprintf(&line, "%s\n", json) < 0)
		line = NULL;
	free(json);
	json_decref(note);
	return line;
}

struct file {
	struct sink *sink;
	char *path;
	int fd;
};

static bool file_enabled(const struct config *config) {
	return config->file;
}

static int file_open(
	const struct config *config, struct sink *sink, sd_event *loop, void **ret_state, struct err *err) {
	struct file *file = calloc(1, sizeof(*file));

	(void)loop;
	if (file)
		file->path = strdup(config->file_path);
	if (!file || !file->path) {
		free(file);
		return err_set(err, -ENOMEM, "out of memory");
	}
	file->sink = sink;
	file->fd = -1;
	*ret_state = file;
	return 0;
}

static void close_it(struct file *file) {
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
}

static void file_close(void *state) {
	struct file *file = state;

	close_it(file);
	free(file->path);
	free(file);
}

static bool is_there(const struct file *file) {
	struct stat ours, there;

	return file->fd >= 0 && !fstat(file->fd, &ours) && !stat(file->path, &there) && ours.st_dev == there.st_dev &&
		ours.st_ino == there.st_ino;
}

/* A line that an earlier end of the machine cut off is not to spoil the next one. */
static int end_last_line(int fd, const struct stat *status) {
	char last;

	if (!status->st_size || pread(fd, &last, 1, status->st_size - 1) != 1 || last == '\n')
		return 0;
	return write(fd, "\n", 1) == 1 ? 0 : -errno;
}

static int open_it(struct file *file) {
	struct stat status;
	int r = 0;

	if (is_there(file))
		return 0;
	close_it(file);
	/* Without waiting, should it be a pipe. */
	file->fd = open(file->path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
	if (file->fd < 0)
		return -errno;
	if (fstat(file->fd, &status))
		r = -errno;
	else if (!S_ISREG(status.st_mode))
		r = -EBADF;
	if (!r)
		r = end_last_line(file->fd, &status);
	if (r)
		close_it(file);
	return r;
}

/* All of it or nothing: what a full disk took of it is taken back, so that the next try is not the line's second half.
 */
static int append(int fd, const char *line) {
	size_t len = strlen(line);
	struct stat status;
	ssize_t n;

	n = write(fd, line, len);
	if (n == (ssize_t)len)
		return 0;
	if (n < 0)
		return -errno;
	if (fstat(fd, &status) || status.st_size < n || ftruncate(fd, status.st_size - n))
		return -EIO;
	return -ENOSPC;
}

/* Takes over the line. */
static enum sink_result write_line(struct file *file, char *line) {
	int r = line ? open_it(file) : -ENOMEM;

	if (!r) {
		r = append(file->fd, line);
		if (r == -EIO) /* then its end is put right when it is opened */
			close_it(file);
	}
	free(line);
	if (!r)
		return SINK_DONE;
	sink_fault(file->sink, "%s: %s", file->path, r == -EBADF ? "is no regular file" : strerror(-r));
	return SINK_LATER;
}

static enum sink_result file_deliver(void *state, const struct pyspyd_event *event) {
	return write_line(state, file_line(event));
}

static enum sink_result file_tell(void *state, const char *text) {
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return write_line(state, file_note(text, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec));
}

const struct sink_kind file_sink = {
	.name = "file",
	.enabled = file_enabled,
	.open = file_open,
	.close = file_close,
	.deliver = file_deliver,
	.tell = file_tell,
};
