/* SPDX-License-Identifier: MIT */
/* The sinks of the service without the service: a store, the sinks that the arguments ask for, and commands on stdin, a
 * line each, which sinks.py gives.
 *
 * usage: sinks_driver STORE [journal=1] [syslog=local:PATH|udp:HOST:PORT|tcp:HOST:PORT] [file=PATH] [otlp=URL]
 *                     [timeout=MS] [rate=N] [burst=N] [queue=N]
 *
 * put N [BYTES [KIND]]  puts N events, with so much in each; says "put SEQ" for each, when it is in the store. KIND:
 *                       open (also the default), update, resolved
 * idle                  says "idle" when no event waits for any sink
 * caught NAME           says "caught" when none waits for this one
 * stats                 says the sinks' numbers as JSON
 * reload                closes and opens the sinks
 * drain MS              drains them; says "drained"
 * Ends without a word to anybody when stdin ends. */
#include "daemon/log.h"
#include "daemon/sink.h"
#include "pyspyd/finding.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct driver {
	struct config config;
	struct pyspyd_store *store;
	sd_event *loop;
	sd_event_source *timer;
	struct sinks *sinks;
	char line[256];
	size_t len;
	bool asked;
	char asked_of[32]; /* "": all */
};

static _Noreturn void fail(const char *what, const char *text) {
	fprintf(stderr, "sinks_driver: %s: %s\n", what, text);
	exit(1);
}

static void set_syslog(struct config_syslog *syslog, char *value) {
	char *transport = strsep(&value, ":"), *port = value ? strrchr(value, ':') : NULL;

	syslog->enabled = true;
	syslog->facility = 3;
	syslog->transport = !strcmp(transport, "tcp") ? SYSLOG_TCP
		: !strcmp(transport, "udp")           ? SYSLOG_UDP
						      : SYSLOG_LOCAL;
	syslog->address = value;
	if (syslog->transport == SYSLOG_LOCAL || !port)
		return;
	*port = '\0';
	syslog->port = (unsigned)atoi(port + 1);
}

static void set_option(struct config *config, char *argument) {
	char *name = strsep(&argument, "=");

	if (!argument)
		fail("no value", name);
	if (!strcmp(name, "journal")) {
		config->journal = true;
	} else if (!strcmp(name, "syslog")) {
		set_syslog(&config->syslog, argument);
	} else if (!strcmp(name, "file")) {
		config->file = true;
		config->file_path = argument;
	} else if (!strcmp(name, "otlp")) {
		config->otlp.enabled = true;
		config->otlp.url = argument;
	} else if (!strcmp(name, "timeout")) {
		config->otlp.timeout_ns = strtoull(argument, NULL, 10) * 1000000;
	} else if (!strcmp(name, "rate")) {
		config->sink_rate = atof(argument);
	} else if (!strcmp(name, "burst")) {
		config->sink_burst = (unsigned)atoi(argument);
	} else if (!strcmp(name, "queue")) {
		config->sink_queue = strtoull(argument, NULL, 10);
	} else {
		fail("unknown option", name);
	}
}

static void open_sinks(struct driver *driver) {
	struct err err = { 0 };

	if (sinks_new(&driver->config, driver->store, driver->loop, &driver->sinks, &err))
		fail("sinks_new", err.text);
}

static void put_one(struct driver *driver, size_t bytes, enum pyspyd_finding_state state) {
	static const char *const states[] = { "open", "update", "resolved" };
	uint64_t seq = pyspyd_store_last_seq(driver->store) + 1, got = 0;
	char *padding = calloc(1, bytes + 1), *json = NULL;
	struct pyspyd_event event = { .id = "01ARZ3NDEKTSV4RRFFQ69G5FAV",
		.fingerprint = "0123456789abcdef0123456789abcdef" };
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	memset(padding, 'x', bytes);
	if (asprintf(&json,
		    "{\"schema\":\"pyspyd.finding/"
		    "1\",\"id\":\"%s\",\"kind\":\"deadlock\",\"state\":\"%s\",\"host\":\"box\","
		    "\"process\":{\"pid\":4711,\"name\":\"web\",\"unit\":\"web.service\",\"cmdline\":[\"python3\"]},"
		    "\"threads\":[],\"evidence\":{\"padding\":\"%s\"},\"summary\":\"event %" PRIu64 "\",\"n\":%" PRIu64
		    "}",
		    event.id, states[state], padding, seq, seq) < 0)
		fail("asprintf", "out of memory");
	event.time_real_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	event.kind = "deadlock";
	event.severity = PYSPYD_CRITICAL;
	event.state = state;
	event.pid = 4711;
	event.json = json;
	if (pyspyd_store_put_event(driver->store, &event, &got) || got != seq)
		fail("pyspyd_store_put_event", "failed");
	printf("put %" PRIu64 "\n", got);
	free(json);
	free(padding);
}

static void put(struct driver *driver, const char *arguments) {
	unsigned long n = 1, bytes = 0;
	char kind[16] = "open";

	sscanf(arguments, "%lu %lu %15s", &n, &bytes, kind);
	for (unsigned long i = 0; i < n; i++) {
		put_one(driver, bytes,
			!strcmp(kind, "update")             ? PYSPYD_UPDATE
				: !strcmp(kind, "resolved") ? PYSPYD_RESOLVED
							    : PYSPYD_OPEN);
		sinks_wake(driver->sinks);
	}
}

static void say_stats(const struct driver *driver) {
	struct sink_stats stats[8];
	size_t n = sinks_stats(driver->sinks, stats, 8);

	printf("{");
	for (size_t i = 0; i < n; i++)
		printf("%s\"%s\": {\"delivered\": %" PRIu64 ", \"dropped\": %" PRIu64 ", \"held_back\": %" PRIu64
		       ", \"failures\": %" PRIu64 ", \"queued\": %" PRIu64 ", \"away\": %s}",
			i ? ", " : "", stats[i].name, stats[i].delivered, stats[i].dropped, stats[i].held_back,
			stats[i].failures, stats[i].queued, stats[i].away ? "true" : "false");
	printf("}\n");
}

static bool is_idle(const struct driver *driver) {
	struct sink_stats stats[8];
	size_t n = sinks_stats(driver->sinks, stats, 8);

	for (size_t i = 0; i < n; i++)
		if (stats[i].queued && (!*driver->asked_of || !strcmp(driver->asked_of, stats[i].name)))
			return false;
	return true;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
	struct driver *driver = userdata;

	(void)usec;
	if (driver->asked && is_idle(driver)) {
		puts(*driver->asked_of ? "caught" : "idle");
		driver->asked = false;
	}
	sd_event_source_set_time_relative(source, 5000);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static void obey(struct driver *driver, char *line) {
	char *command = strsep(&line, " ");

	if (!strcmp(command, "put")) {
		put(driver, line ? line : "");
	} else if (!strcmp(command, "idle") || !strcmp(command, "caught")) {
		snprintf(driver->asked_of, sizeof(driver->asked_of), "%s", line ? line : "");
		driver->asked = true;
	} else if (!strcmp(command, "stats")) {
		say_stats(driver);
	} else if (!strcmp(command, "reload")) {
		sinks_free(driver->sinks);
		open_sinks(driver);
	} else if (!strcmp(command, "drain")) {
		sinks_drain(driver->sinks, strtoull(line ? line : "0", NULL, 10) * 1000000);
		puts("drained");
	} else {
		fail("unknown command", command);
	}
}

static int on_stdin(sd_event_source *source, int fd, uint32_t events, void *userdata) {
	struct driver *driver = userdata;
	char c;

	(void)events;
	if (read(fd, &c, 1) != 1)
		return sd_event_exit(sd_event_source_get_event(source), 0);
	if (c != '\n' && driver->len + 1 < sizeof(driver->line)) {
		driver->line[driver->len++] = c;
		return 0;
	}
	driver->line[driver->len] = '\0';
	driver->len = 0;
	obey(driver, driver->line);
	return 0;
}

int main(int argc, char **argv) {
	struct driver driver = { .config.sink_queue = 100000, .config.otlp.timeout_ns = 1000000000 };
	struct pyspyd_store_options options = { .path = argc > 1 ? argv[1] : "" };
	struct err err = { 0 };
	char *note = NULL;

	setlinebuf(stdout);
	log_init(1);
	for (int i = 2; i < argc; i++)
		set_option(&driver.config, argv[i]);
	if (pyspyd_store_open(&options, &driver.store, &note, &err))
		fail("pyspyd_store_open", err.text);
	if (note)
		fprintf(stderr, "%s\n", note);
	free(note);
	if (sd_event_new(&driver.loop) < 0)
		fail("sd_event_new", "failed");
	open_sinks(&driver);
	if (sd_event_add_io(driver.loop, NULL, STDIN_FILENO, EPOLLIN, on_stdin, &driver) < 0 ||
		sd_event_add_time_relative(driver.loop, &driver.timer, CLOCK_MONOTONIC, 0, 1000, on_timer, &driver) < 0)
		fail("sd_event", "failed");
	puts("ready");
	sd_event_loop(driver.loop);
	sinks_free(driver.sinks);
	sd_event_source_unref(driver.timer);
	sd_event_unref(driver.loop);
	pyspyd_store_close(driver.store);
	return 0;
}
