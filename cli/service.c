/* SPDX-License-Identifier: MIT */
#include "cli/service.h"

#include "cli/cli.h"
#include <errno.h>
#include <string.h>

#define SLEEP_NS (100 * NS_PER_MS)
#define PAUSE_MIN_NS (100 * NS_PER_MS)
#define PAUSE_MAX_NS (5 * NS_PER_SEC)

int service_open(struct pyspyd_remote **ret_remote) {
	struct err err = { 0 };
	int r = pyspyd_remote_open(NULL, ret_remote, &err);

	return r ? cli_fail(r, &err) : -1;
}

/* Its socket may be there before everybody is let in, or still be there without it. */
bool service_is_away(int r) {
	switch (r) {
	case -ECONNRESET:
	case -ECONNREFUSED:
	case -EPIPE:
	case -ENOENT:
	case -EACCES:
	case -EAGAIN:
	case -EBUSY:
	case -EIO:
	case -ETIMEDOUT: return true;
	default: return false;
	}
}

/* A signal may come just before it sleeps. */
static void sleep_unless_stopped(uint64_t ns) {
	for (uint64_t until = cli_now_ns() + ns, now = cli_now_ns(); !cli_stop && now < until; now = cli_now_ns())
		cli_sleep_ns(until - now < SLEEP_NS ? until - now : SLEEP_NS);
}

static void pause_once(struct service_pause *pause) {
	if (!pause->said)
		cli_say("the service is away: waiting for it to come back");
	pause->said = true;
	pause->ns = pause->ns ? pause->ns * 2 : PAUSE_MIN_NS;
	if (pause->ns > PAUSE_MAX_NS)
		pause->ns = PAUSE_MAX_NS;
	sleep_unless_stopped(pause->ns);
}

int service_wait(struct service_pause *pause, struct pyspyd_remote **ret_remote, struct err *err) {
	int r = -EAGAIN;

	while (service_is_away(r)) {
		pause_once(pause);
		if (cli_stop)
			return -EINTR;
		*err = (struct err){ 0 };
		r = pyspyd_remote_open_unless(NULL, &cli_stop, ret_remote, err);
	}
	return r;
}

static const char tail[] = ",\"seq\":";

/* Not parsed and written again, so that a line is the line that it was. */
char *service_event(const char *json) {
	static const char head[] = "{\"event\":";
	const char *end = strrchr(json, ',');

	if (strncmp(json, head, strlen(head)) != 0 || !end || strncmp(end, tail, strlen(tail)) != 0)
		return NULL;
	return strndup(json + strlen(head), (size_t)(end - json) - strlen(head));
}

uint64_t service_event_seq(const char *json) {
	const char *end = strrchr(json, ',');

	return end && !strncmp(end, tail, strlen(tail)) ? strtoull(end + strlen(tail), NULL, 10) : 0;
}
