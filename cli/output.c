/* SPDX-License-Identifier: MIT */
/* Files that appear whole. Readable by their owner alone: a profile shows paths and names of the watched program. */
#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Return: mkostemp's template for a file in the folder of path, the caller's to free(); NULL when out of memory. */
static char *temp_beside(const char *path) {
	const char *slash = strrchr(path, '/');
	char *temp;

	if (asprintf(&temp, "%.*s.pyspyd-XXXXXX", slash ? (int)(slash - path) + 1 : 0, path) < 0)
		return NULL;
	return temp;
}

static int open_temp(struct output *output) {
	if (!output->path)
		return -ENOMEM;
	output->temp = temp_beside(output->path);
	if (!output->temp)
		return -ENOMEM;
	output->fd = mkostemp(output->temp, O_CLOEXEC);
	return output->fd < 0 ? -errno : 0;
}

int output_open(const char *file_name, struct output *ret_output) {
	struct output output = { .fd = -1 };
	struct stat st;
	int r;

	if (!strcmp(file_name, "-")) {
		*ret_output = (struct output){ .fd = STDOUT_FILENO };
		return 0;
	}
	if (!stat(file_name, &st) && !S_ISREG(st.st_mode)) {
		output.fd = open(file_name, O_WRONLY | O_CLOEXEC | O_NOCTTY);
		if (output.fd < 0)
			return -errno;
		*ret_output = output;
		return 0;
	}
	/* A link keeps standing; what it points to is replaced. */
	output.path = realpath(file_name, NULL);
	if (!output.path)
		output.path = strdup(file_name);
	r = open_temp(&output);
	if (r) {
		free(output.temp);
		free(output.path);
		return r;
	}
	*ret_output = output;
	return 0;
}

int output_commit(struct output *output) {
	if (!output->temp)
		return 0;
	if (fsync(output->fd) || rename(output->temp, output->path))
		return -errno;
	free(output->temp);
	output->temp = NULL;
	return 0;
}

void output_deinit(struct output *output) {
	if (output->fd > STDERR_FILENO)
		close(output->fd);
	if (output->temp)
		unlink(output->temp);
	free(output->temp);
	free(output->path);
	*output = (struct output){ .fd = -1 };
}
