/* SPDX-License-Identifier: MIT */
/* Opening the parts, and changing them while the service runs.
 *
 * The new one of a part is opened before the old one is closed, so that there is always one. A store that moves takes
 * over what the old one has, in this order: events that wait go into the old one, the sinks write their places down,
 * the new store takes all over, sinks are opened that read it, and the old store is closed. The old file stays. */
#include "daemon/parts.h"

#include "daemon/log.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SWAP(a, b) \
	do { \
		__typeof__(a) swapped = (a); \
		(a) = (b); \
		(b) = swapped; \
	} while (0)

static bool differ(const char *a, const char *b) {
	return strcmp(a ? a : "", b ? b : "") != 0;
}

static const char *reason(const struct err *err, int r) {
	return err->text[0] ? err->text : strerror(r < 0 ? -r : EIO);
}

static void keep(struct parts *parts, const char *key, const char *why) {
	status_config_fails(parts->status, key, "%s; the old one stays in use", why);
}

/* The store */

static struct pyspyd_store_options store_options(const struct config *config) {
	return (struct pyspyd_store_options){
		.path = config->store_path,
		.max_bytes = config->store_max_bytes,
		.finding_age_ns = config->finding_age_ns,
		.counter_age_ns = config->counter_age_ns,
		.profile_age_ns = config->profile_age_ns,
	};
}

static int open_store(const struct config *config, struct pyspyd_store **ret_store, struct err *err) {
	const struct pyspyd_store_options options = store_options(config);
	char *note = NULL;
	int r = pyspyd_store_open(&options, ret_store, &note, err);

	if (note)
		log_say(LOG_WARNING, "%s", note);
	free(note);
	return r;
}

/* Opens the sinks of `fresh` on the new store, or else the old ones. */
static int move_sinks(struct parts *parts, const struct config *fresh, struct pyspyd_store *store,
	struct sinks **ret_sinks, struct err *err) {
	if (!sinks_new(fresh, store, parts->loop, ret_sinks, err))
		return 0;
	*err = (struct err){ 0 }; /* reload_sinks() will say it */
	return sinks_new(parts->config, store, parts->loop, ret_sinks, err);
}

static int take_over(struct parts *parts, const struct config *fresh, struct pyspyd_store *store, struct err *err) {
	struct pyspyd_store_taken taken;
	struct sinks *sinks;
	int r;

	(void)!status_flush_events(parts->status, parts->store);
	sinks_save(parts->sinks);
	r = pyspyd_store_take_over(store, parts->store, &taken);
	if (r)
		return err_set(err, r, "%s cannot take over what the old store has: %s", fresh->store_path,
			r == -ENOSPC ? "there is no room" : strerror(-r));
	r = move_sinks(parts, fresh, store, &sinks, err);
	if (r)
		return r;
	sinks_free(parts->sinks);
	parts->sinks = sinks;
	server_use_store(parts->server, store, taken.shift);
	status_forget_numbers(parts->status);
	pyspyd_store_close(parts->store);
	parts->store = store;
	(void)!status_flush_events(parts->status, store);
	log_say(LOG_NOTICE, "the store is %s now, with %" PRIu64 " events of the one before%s", fresh->store_path,
		taken.events, taken.incomplete ? "; older records stay behind in the old file" : "");
	return 0;
}

static void move_store(struct parts *parts, struct config *fresh) {
	struct pyspyd_store *store;
	struct err err = { 0 };
	int r = open_store(fresh, &store, &err);

	if (r) {
		keep(parts, "store.path", reason(&err, r));
		SWAP(fresh->store_path, parts->config->store_path);
		return;
	}
	r = take_over(parts, fresh, store, &err);
	if (!r)
		return;
	pyspyd_store_close(store);
	keep(parts, "store.path", reason(&err, r));
	SWAP(fresh->store_path, parts->config->store_path);
}

static void reload_store(struct parts *parts, struct config *fresh) {
	const struct config *old = parts->config;
	struct pyspyd_store_options options;
	int r;

	if (differ(old->store_path, fresh->store_path))
		move_store(parts, fresh);
	options = store_options(fresh);
	r = pyspyd_store_bound(parts->store, &options);
	if (!r)
		return;
	keep(parts, "store.max-size", strerror(-r));
	fresh->store_max_bytes = old->store_max_bytes;
	fresh->finding_age_ns = old->finding_age_ns;
	fresh->counter_age_ns = old->counter_age_ns;
	fresh->profile_age_ns = old->profile_age_ns;
}

/* The rest. */

static void reload_sinks(struct parts *parts, struct config *fresh) {
	struct err err = { 0 };
	struct sinks *sinks;
	int r;

	sinks_save(parts->sinks);
	r = sinks_new(fresh, parts->store, parts->loop, &sinks, &err);
	if (r) {
		keep(parts, "sinks", reason(&err, r));
		return;
	}
	sinks_free(parts->sinks);
	parts->sinks = sinks;
}

static void reload_socket(struct parts *parts, struct config *fresh) {
	struct config *old = parts->config;
	struct err err = { 0 };
	int r;

	if (differ(old->socket_path, fresh->socket_path)) {
		r = server_move(parts->server, fresh->socket_path, &err);
		if (r) {
			keep(parts, "socket.path", reason(&err, r));
			SWAP(fresh->socket_path, old->socket_path);
		} else {
			log_say(LOG_NOTICE, "the socket is %s now", fresh->socket_path);
		}
	}
	server_use_group(parts->server, fresh->socket_group);
}

static int open_metrics(const struct config *config, struct metrics **ret_metrics, struct err *err) {
	*ret_metrics = NULL;
	return config->metrics ? metrics_new(config->metrics_listen, config->metrics_processes, ret_metrics, err) : 0;
}

static void reload_metrics(struct parts *parts, struct config *fresh) {
	struct config *old = parts->config;
	struct metrics *metrics;
	struct err err = { 0 };
	int r;

	if (old->metrics && fresh->metrics && !differ(old->metrics_listen, fresh->metrics_listen)) {
		metrics_use_limit(parts->metrics, fresh->metrics_processes);
		return;
	}
	r = open_metrics(fresh, &metrics, &err);
	if (!r) {
		metrics_free(parts->metrics);
		parts->metrics = metrics;
		return;
	}
	keep(parts, old->metrics ? "metrics.listen" : "metrics.enabled", reason(&err, r));
	fresh->metrics = old->metrics;
	SWAP(fresh->metrics_listen, old->metrics_listen);
}

/* Sinks that may not use the network find nobody there; what they should get waits for the restart. */
static void say_network(const struct parts *parts, const struct config *fresh) {
	static const char why[] = "the service gave up the network when it started: restart it";

	if (parts->inet)
		return;
	if (fresh->otlp.enabled)
		status_config_fails(parts->status, "otlp.enabled", "%s", why);
	if (fresh->syslog.enabled && fresh->syslog.transport != SYSLOG_LOCAL)
		status_config_fails(parts->status, "syslog.transport", "%s", why);
}

bool parts_use_network(const struct config *config) {
	return config->otlp.enabled || (config->metrics && config->metrics_listen[0] != '/') ||
		(config->syslog.enabled && config->syslog.transport != SYSLOG_LOCAL);
}

void parts_reload(struct parts *parts, struct config *fresh) {
	status_config_read(parts->status);
	reload_store(parts, fresh);
	reload_sinks(parts, fresh);
	reload_socket(parts, fresh);
	reload_metrics(parts, fresh);
	say_network(parts, fresh);
	config_free(parts->config);
	parts->config = fresh;
}

int parts_open(struct parts *parts, const struct server_options *server, struct err *err) {
	const struct config *config = parts->config;
	struct server_options options = *server;
	int r = open_store(config, &parts->store, err);

	if (!r)
		r = status_new(&parts->status);
	if (!r)
		r = sd_event_default(&parts->loop) < 0 ? -ENOMEM : 0;
	if (!r)
		r = sinks_new(config, parts->store, parts->loop, &parts->sinks, err);
	options.path = config->socket_path;
	options.group = config->socket_group;
	options.store = parts->store;
	if (!r)
		r = server_new(parts->loop, &options, &parts->server, err);
	parts->inet = parts_use_network(config);
	return r ? r : open_metrics(config, &parts->metrics, err);
}

void parts_close(struct parts *parts) {
	server_free(parts->server);
	metrics_free(parts->metrics);
	sinks_free(parts->sinks);
	status_free(parts->status);
	pyspyd_store_close(parts->store);
	config_free(parts->config);
	sd_event_unref(parts->loop);
}
