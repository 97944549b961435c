/* SPDX-License-Identifier: MIT */
#include "daemon/metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS_MAX 16
#define TIMEOUT_S 10
#define BACKLOG 16

struct metrics {
	struct MHD_Daemon *http;
	pthread_mutex_t lock;
	char *text[2]; /* the older format, OpenMetrics */
	unsigned processes_max;
	char *path; /* of a unix socket, to be removed */
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type, char *body) {
	struct MHD_Response *response = MHD_create_response_from_buffer(strlen(body), body, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result r;

	if (!response) {
		free(body);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	r = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return r;
}

static enum MHD_Result on_request(void *userdata, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *upload, size_t *upload_n, void **state) {
	struct metrics *metrics = userdata;
	const char *accept = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
	bool open = accept && strstr(accept, "application/openmetrics-text");
	static int seen;
	char *body;

	(void)version;
	(void)upload;
	if (!*state) { /* the head; the answer is due when all of it was read */
		*state = &seen;
		return MHD_YES;
	}
	if (*upload_n) {
		*upload_n = 0;
		return MHD_YES;
	}
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", strdup("GET /metrics\n"));
	if (strcmp(url, "/metrics") != 0)
		return answer(connection, MHD_HTTP_NOT_FOUND, "text/plain", strdup("GET /metrics\n"));
	pthread_mutex_lock(&metrics->lock);
	body = metrics->text[open] ? strdup(metrics->text[open]) : NULL;
	pthread_mutex_unlock(&metrics->lock);
	if (!body)
		return answer(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain", strdup("not yet\n"));
	return answer(connection, MHD_HTTP_OK,
		open ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
		     : "text/plain; version=0.0.4; charset=utf-8",
		body);
}

/* Listening. */

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un path;
};

/* "1.2.3.4:80", "[::1]:80". */
static bool parse_inet(const char *listen, union address *ret, socklen_t *ret_len) {
	const char *colon = strrchr(listen, ':');
	char host[INET6_ADDRSTRLEN];
	char *end;
	unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
	size_t n = colon ? (size_t)(colon - listen) : 0;
	bool brackets = n > 2 && listen[0] == '[' && listen[n - 1] == ']';

	if (!colon || *end || end == colon + 1 || port > 65535)
		return false;
	if (brackets) {
		listen++;
		n -= 2;
	}
	if (n >= sizeof(host))
		return false;
	memcpy(host, listen, n);
	host[n] = '\0';
	memset(ret, 0, sizeof(*ret));
	if (brackets && inet_pton(AF_INET6, host, &ret->v6.sin6_addr) == 1) {
		ret->v6.sin6_family = AF_INET6;
		ret->v6.sin6_port = htons((uint16_t)port);
		*ret_len = sizeof(ret->v6);
		return true;
	}
	if (brackets || inet_pton(AF_INET, host, &ret->v4.sin_addr) != 1)
		return false;
	ret->v4.sin_family = AF_INET;
	ret->v4.sin_port = htons((uint16_t)port);
	*ret_len = sizeof(ret->v4);
	return true;
}

static int listen_at(const char *text, int *ret_fd, struct err *err) {
	union address address = { 0 };
	socklen_t len = sizeof(address.path);
	int fd, on = 1;

	if (text[0] == '/') {
		if (strlen(text) >= sizeof(address.path.sun_path))
			return err_set(err, -ENAMETOOLONG, "metrics: %s is too long for a socket", text);
		address.path.sun_family = AF_UNIX;
		memcpy(address.path.sun_path, text, strlen(text) + 1);
		unlink(text);
	} else if (!parse_inet(text, &address, &len)) {
		return err_set(err, -EINVAL, "metrics: '%s' is neither ADDRESS:PORT nor a path", text);
	}
	fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "metrics: no socket: %s", strerror(errno));
	if (address.any.sa_family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, &address.any, len) || listen(fd, BACKLOG)) {
		int r = -errno;

		close(fd);
		return err_set(err, r, "metrics: cannot listen at %s: %s", text, strerror(-r));
	}
	*ret_fd = fd;
	return 0;
}

int metrics_new(const char *listen, unsigned processes_max, struct metrics **ret_metrics, struct err *err) {
	struct metrics *metrics;
	int fd, r = listen_at(listen, &fd, err);

	if (r)
		return r;
	metrics = calloc(1, sizeof(*metrics));
	if (!metrics) {
		close(fd);
		return -ENOMEM;
	}
	pthread_mutex_init(&metrics->lock, NULL);
	metrics->processes_max = processes_max;
	if (listen[0] == '/') {
		metrics->path = strdup(listen);
		chmod(listen, 0660);
	}
	metrics->http = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL, 0, NULL, NULL, on_request,
		metrics, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_S, MHD_OPTION_END);
	if (!metrics->http) {
		close(fd);
		metrics_free(metrics);
		return err_set(err, -EIO, "metrics: the HTTP server does not start");
	}
	*ret_metrics = metrics;
	return 0;
}

void metrics_use_limit(struct metrics *metrics, unsigned processes_max) {
	metrics->processes_max = processes_max;
}

void metrics_free(struct metrics *metrics) {
	if (!metrics)
		return;
	if (metrics->http)
		MHD_stop_daemon(metrics->http);
	if (metrics->path)
		unlink(metrics->path);
	free(metrics->path);
	free(metrics->text[0]);
	free(metrics->text[1]);
	pthread_mutex_destroy(&metrics->lock);
	free(metrics);
}

int metrics_update(struct metrics *metrics, const struct metrics_input *input) {
	for (int open = 0; open < 2; open++) {
		char *text = metrics_text(input, metrics->processes_max, open), *old;

		if (!text)
			return -ENOMEM;
		pthread_mutex_lock(&metrics->lock);
		old = metrics->text[open];
		metrics->text[open] = text;
		pthread_mutex_unlock(&metrics->lock);
		free(old);
	}
	return 0;
}
