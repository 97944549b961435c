/* SPDX-License-Identifier: MIT */
#include "cli/service.h"

#include "cli/cli.h"
#include <string.h>

int service_open(struct pyspyd_remote **ret_remote) {
	struct err err = { 0 };
	int r = pyspyd_remote_open(NULL, ret_remote, &err);

	return r ? cli_fail(r, &err) : -1;
}

/* Not parsed and written again, so that a line is the line that it was. */
char *service_event(const char *json) {
	static const char head[] = "{\"event\":", tail[] = ",\"seq\":";
	const char *end = strrchr(json, ',');

	if (strncmp(json, head, strlen(head)) != 0 || !end || strncmp(end, tail, strlen(tail)) != 0)
		return NULL;
	return strndup(json + strlen(head), (size_t)(end - json) - strlen(head));
}
