/* SPDX-License-Identifier: MIT */
/* The service's socket over a store of its own, for socket_clients.py: `socket_driver SOCKET STORE [GROUP [SECONDS]]`,
 * with who is in the group sees all, and after how many seconds clients go that are idle or do not read.
 *
 * The store holds processes and findings of root, of nobody (65534) and of uid 1000. Commands on stdin, a line each,
 * are answered by a line:
 *   put N     N events more, of root's process 100, in a burst: some each turn of the loop, the server is woken for
 * each stats     "open=… refused=… connections=… requests=… bytes=…" It ends when stdin does. */
#include "daemon/server.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "pyspyd/finding.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#define REAL_NS (1700000000 * NS_PER_SEC)
#define PROFILE_BYTES 100000
#define PROFILES 40
#define CHILDREN 2000
#define PUT_A_TURN 100

struct driver {
	sd_event *loop;
	struct pyspyd_store *store;
	struct server *server;
	sd_event_source *putting;
	uint64_t events;
	unsigned left; /* of a burst */
};

static int put(struct driver *d, uint64_t finding, pid_t pid, uid_t uid, int state) {
	static const char *const states[] = { "open", "update", "resolved" };
	uint64_t n = ++d->events;
	char json[1024], id[27];
	struct pyspyd_event event = {
		.time_real_ns = REAL_NS + n * NS_PER_SEC,
		.id = id,
		.fingerprint = "f",
		.kind = finding % 2 ? "deadlock" : "spiking-thread",
		.severity = PYSPYD_WARNING,
		.state = state,
		.pid = pid,
		.start_real_ns = REAL_NS,
		.uid = uid,
		.json = json,
	};
	char time[CLOCK_RFC3339_SIZE];

	clock_rfc3339(event.time_real_ns, time);
	snprintf(id, sizeof(id), "01J%023" PRIu64, finding);
	snprintf(json, sizeof(json),
		"{\"schema\":\"pyspyd.finding/1\",\"id\":\"%s\",\"fingerprint\":\"f\",\"kind\":\"%s\",\"severity\":"
		"\"warning\",\"state\":\"%s\",\"time\":\"%s\",\"since\":\"%s\",\"duration_s\":1.5,\"host\":\"h\","
		"\"process\":"
		"{\"pid\":%d,\"name\":\"python3\",\"uid\":%u,\"cmdline\":[\"python3\",\"app.py\"]},\"threads\":[{"
		"\"tid\":7,"
		"\"name\":\"main\",\"role\":\"spinning\",\"stack\":[{\"function\":\"spin\",\"file\":\"/a/"
		"app.py\",\"line\":3}]}],"
		"\"evidence\":{},\"summary\":\"%s: event %" PRIu64 "\",\"advice\":\"Look.\"}",
		id, event.kind, states[state], time, time, pid, uid, event.kind, n);
	return pyspyd_store_put_event(d->store, &event, NULL);
}

static int put_process(struct driver *d, pid_t pid, uid_t uid, int64_t *ret_number) {
	const struct pyspyd_store_process process = {
		.pid = pid,
		.start_real_ns = REAL_NS,
		.uid = uid,
		.name = "python3",
		.cmdline = "python3 \x1b[2J\xff app.py",
		.unit = "app.service",
		.container = "",
		.seen_real_ns = REAL_NS + NS_PER_SEC,
	};

	return pyspyd_store_put_process(d->store, &process, ret_number);
}

static int put_profiles(struct driver *d, int64_t process) {
	static uint8_t data[PROFILE_BYTES];
	int r = 0;

	for (uint64_t i = 0; !r && i < PROFILES; i++) {
		struct pyspyd_store_profile profile = {
			.process = process,
			.start_real_ns = REAL_NS + i * 60 * NS_PER_SEC,
			.end_real_ns = REAL_NS + (i + 1) * 60 * NS_PER_SEC,
			.data = data,
			.len = PROFILE_BYTES,
		};

		memset(data, (int)i, sizeof(data));
		r = pyspyd_store_put_profiles(d->store, &profile, 1);
	}
	return r;
}

static int fill(struct driver *d) {
	static const struct {
		pid_t pid;
		uid_t uid;
	} of[] = { { 100, 0 }, { 200, 65534 }, { 300, 1000 } };
	int64_t number = 0;
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(of); i++) {
		r = put_process(d, of[i].pid, of[i].uid, &number);
		r = r ?: put_profiles(d, number);
		r = r ?: put(d, 2 * i, of[i].pid, of[i].uid, PYSPYD_OPEN);
		r = r ?: put(d, 2 * i, of[i].pid, of[i].uid, PYSPYD_UPDATE);
		r = r ?: put(d, 2 * i + 1, of[i].pid, of[i].uid, PYSPYD_OPEN);
		r = r ?: put(d, 2 * i + 1, of[i].pid, of[i].uid, PYSPYD_RESOLVED);
	}
	for (pid_t pid = 1000; !r && pid < 1000 + CHILDREN; pid++)
		r = put_process(d, pid, 0, &number);
	return r;
}

static int on_putting(sd_event_source *source, void *userdata) {
	struct driver *d = userdata;
	int r = 0;

	for (unsigned i = 0; !r && d->left && i < PUT_A_TURN; i++, d->left--) {
		r = put(d, 1000 + d->events, 100, 0, PYSPYD_OPEN);
		server_wake(d->server);
	}
	if (!r && d->left)
		return 0;
	printf("put %d\n", r);
	fflush(stdout);
	return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

static void print_stats(struct driver *d) {
	struct server_stats stats;

	server_stats(d->server, &stats);
	printf("open=%u refused=%" PRIu64 " connections=%" PRIu64 " requests=%" PRIu64 " bytes=%" PRIu64 "\n",
		stats.open, stats.refused, stats.connections, stats.requests, stats.bytes);
}

/* Lines are short and come one at a time. */
static int on_command(sd_event_source *source, int fd, uint32_t events, void *userdata) {
	struct driver *d = userdata;
	char line[64];
	ssize_t len = read(fd, line, sizeof(line) - 1);

	(void)source;
	(void)events;
	if (len <= 0)
		return sd_event_exit(d->loop, 0);
	line[len] = '\0';
	if (sscanf(line, "put %u", &d->left) == 1)
		return sd_event_source_set_enabled(d->putting, SD_EVENT_ON);
	print_stats(d);
	fflush(stdout);
	return 0;
}

static char *status(void *userdata) {
	(void)userdata;
	return strdup("{\"answer\":42}");
}

static bool watched(void *userdata, pid_t pid, uint64_t start_real_ns) {
	(void)userdata;
	return pid == 100 && start_real_ns == REAL_NS;
}

static int serve(struct driver *d, char **argv, struct err *err) {
	unsigned seconds = argv[3] && argv[4] ? (unsigned)atoi(argv[4]) : 0;
	const struct server_options options = { .path = argv[1],
		.group = argv[3],
		.store = d->store,
		.status = status,
		.watched = watched,
		.userdata = d,
		.idle_s = seconds,
		.stalled_s = seconds };
	int r = server_new(d->loop, &options, &d->server, err);

	if (r)
		return r;
	r = sd_event_add_io(d->loop, NULL, STDIN_FILENO, EPOLLIN, on_command, d);
	if (r >= 0)
		r = sd_event_add_defer(d->loop, &d->putting, on_putting, d);
	if (r >= 0)
		r = sd_event_source_set_enabled(d->putting, SD_EVENT_OFF);
	puts("ready");
	fflush(stdout);
	if (r >= 0)
		r = sd_event_loop(d->loop);
	sd_event_source_disable_unref(d->putting);
	server_free(d->server);
	return r < 0 ? r : 0;
}

int main(int argc, char **argv) {
	struct pyspyd_store_options options = { .path = argc > 2 ? argv[2] : "" };
	struct driver d = { 0 };
	struct err err = { 0 };
	int r;

	if (argc < 3 || argc > 5)
		return 2;
	r = pyspyd_store_open(&options, &d.store, NULL, &err);
	if (!r)
		r = fill(&d);
	if (!r)
		r = sd_event_default(&d.loop) < 0 ? -ENOMEM : serve(&d, argv, &err);
	if (r)
		fprintf(stderr, "socket_driver: %s (%d)\n", err.text, r);
	pyspyd_store_close(d.store);
	sd_event_unref(d.loop);
	return r != 0;
}
