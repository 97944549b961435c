/* SPDX-License-Identifier: MIT */
/* OTLP/HTTP logs as JSON (opentelemetry-proto 1.x, POST /v1/logs), up to 64 findings a request, one request at a time,
 * by libcurl in the event loop.
 *
 * What the answer says of the findings themselves (400, 413, 422 …) ends them. What it says of the way there (no such
 * path, no credentials, too many requests, server in trouble) does not: they wait. */
#include "daemon/sink_format.h"
#include "daemon/sink_view.h"
#include "pyspyd/finding.h"
#include "pyspyd/version.h"

#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BATCH_EVENTS 64
#define BATCH_BYTES (1U << 20) /* of findings; collectors take 4 MiB at least */
#define ANSWER_MAX (64U << 10)
#define S_NS UINT64_C(1000000000)

/* The body */

static json_t *attribute(const char *key, json_t *value) {
	return json_pack("{s:s, s:o}", "key", key, "value", value);
}

static void put_text(json_t *attributes, const char *key, const char *text) {
	if (*text)
		json_array_append_new(attributes, attribute(key, json_pack("{s:s}", "stringValue", text)));
}

/* 64-bit numbers are texts in OTLP's JSON. */
static void put_number(json_t *attributes, const char *key, uint64_t value) {
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	json_array_append_new(attributes, attribute(key, json_pack("{s:s}", "intValue", text)));
}

static int severity_number(const struct pyspyd_event *event) {
	if (event->state == PYSPYD_RESOLVED)
		return 9;
	switch (event->severity) {
	case PYSPYD_CRITICAL: return 17;
	case PYSPYD_WARNING: return 13;
	}
	return 9;
}

static const char *severity_text(int number) {
	return number >= 17 ? "ERROR" : number >= 13 ? "WARN" : "INFO";
}

/* What an operator calls the service that the process is part of. */
static const char *service_name(const struct sink_view *view) {
	if (*view->unit)
		return view->unit;
	return *view->name ? view->name : "unknown_service";
}

static json_t *resource_json(const struct sink_view *view) {
	json_t *attributes = json_array();

	put_text(attributes, "service.name", service_name(view));
	put_text(attributes, "host.name", view->host);
	put_number(attributes, "process.pid", (uint64_t)view->event->pid);
	put_text(attributes, "process.executable.path", view->exe);
	put_text(attributes, "process.command_line", view->cmdline);
	put_text(attributes, "process.runtime.version", view->python);
	put_text(attributes, "container.id", view->container);
	return json_pack("{s:o}", "attributes", attributes);
}

static json_t *attributes_json(const struct sink_view *view) {
	const struct pyspyd_event *event = view->event;
	json_t *attributes = json_array();

	put_text(attributes, "pyspyd.id", event->id);
	put_text(attributes, "pyspyd.fingerprint", event->fingerprint);
	put_number(attributes, "pyspyd.seq", event->seq);
	put_text(attributes, "pyspyd.kind", event->kind);
	put_text(attributes, "pyspyd.pattern", view->pattern);
	put_text(attributes, "pyspyd.state", view->state);
	put_text(attributes, "pyspyd.severity", view->severity);
	put_text(attributes, "pyspyd.advice", view->advice);
	put_text(attributes, "pyspyd.finding", event->json);
	return attributes;
}

static json_t *record_json(
	const char *name, int severity, uint64_t time_real_ns, const char *body, json_t *attributes) {
	char time[24];

	snprintf(time, sizeof(time), "%" PRIu64, time_real_ns);
	return json_pack("{s:s, s:s, s:i, s:s, s:s, s:{s:s}, s:o}", "timeUnixNano", time, "observedTimeUnixNano", time,
		"severityNumber", severity, "severityText", severity_text(severity), "eventName", name, "body",
		"stringValue", body, "attributes", attributes);
}

static json_t *resource_logs(json_t *resource, json_t *record) {
	return json_pack("{s:o, s:[{s:{s:s, s:s}, s:[o]}]}", "resource", resource, "scopeLogs", "scope", "name",
		"pyspyd", "version", PYSPYD_VERSION, "logRecords", record);
}

json_t *otlp_record(const struct pyspyd_event *event) {
	struct sink_view view;
	char name[128];
	json_t *record;

	if (sink_view_init(&view, event))
		return NULL;
	snprintf(name, sizeof(name), "pyspyd.finding.%s", event->kind);
	record = resource_logs(resource_json(&view),
		record_json(name, severity_number(event), event->time_real_ns, view.summary, attributes_json(&view)));
	sink_view_deinit(&view);
	return record;
}

json_t *otlp_note(const char *text, uint64_t time_real_ns) {
	json_t *attributes = json_array();
	char host[256] = "";

	gethostname(host, sizeof(host) - 1);
	put_text(attributes, "service.name", "pyspyd");
	put_text(attributes, "host.name", host);
	put_number(attributes, "process.pid", (uint64_t)getpid());
	return resource_logs(json_pack("{s:o}", "attributes", attributes),
		record_json("pyspyd.note", 9, time_real_ns, text, json_array()));
}

char *otlp_body(json_t *array) {
	json_t *body = json_pack("{s:o}", "resourceLogs", array);
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;

	json_decref(body);
	return text;
}

enum sink_result otlp_answer(long status) {
	if (status >= 200 && status < 300)
		return SINK_DONE;
	switch (status) {
	case 401:
	case 403:
	case 404:
	case 405:
	case 407:
	case 408:
	case 425:
	case 429: return SINK_LATER;
	}
	return status >= 400 && status < 500 ? SINK_NEVER : SINK_LATER;
}

/* The request */

struct otlp {
	struct sink *sink;
	sd_event *loop;
	CURLM *multi;
	CURL *easy;
	struct curl_slist *headers;
	sd_event_source *timer;
	bool under_way;
	json_t *batch;
	size_t batch_bytes;
	char *body;
	char answer[ANSWER_MAX + 1];
	size_t answer_len;
	char error[CURL_ERROR_SIZE];
};

static size_t on_answer(char *data, size_t size, size_t n, void *userdata) {
	struct otlp *otlp = userdata;
	size_t room = ANSWER_MAX - otlp->answer_len, len = size * n;

	if (len < room)
		room = len;
	memcpy(otlp->answer + otlp->answer_len, data, room);
	otlp->answer_len += room;
	return len;
}

/* A collector may take some and refuse others, which it is not to be sent again. */
static uint64_t refused_n(const struct otlp *otlp) {
	json_t *answer = json_loadb(otlp->answer, otlp->answer_len, 0, NULL);
	const json_t *n = json_object_get(json_object_get(answer, "partialSuccess"), "rejectedLogRecords");
	uint64_t refused = 0;

	if (json_is_string(n))
		refused = strtoull(json_string_value(n), NULL, 10);
	else if (json_integer_value(n) > 0)
		refused = (uint64_t)json_integer_value(n);
	json_decref(answer);
	return refused;
}

static enum sink_result result_of(struct otlp *otlp, CURLcode code) {
	curl_off_t retry_s = 0;
	long status = 0;
	enum sink_result result;

	if (code != CURLE_OK) {
		sink_fault(otlp->sink, "%s", *otlp->error ? otlp->error : curl_easy_strerror(code));
		return SINK_LATER;
	}
	curl_easy_getinfo(otlp->easy, CURLINFO_RESPONSE_CODE, &status);
	result = otlp_answer(status);
	if (result != SINK_DONE)
		sink_fault(otlp->sink, "the collector answers %ld", status);
	else
		sink_refused(otlp->sink, refused_n(otlp));
	if (result == SINK_LATER && !curl_easy_getinfo(otlp->easy, CURLINFO_RETRY_AFTER, &retry_s) && retry_s > 0)
		sink_not_before(otlp->sink, (uint64_t)retry_s > 3600 ? 3600 * S_NS : (uint64_t)retry_s * S_NS);
	return result;
}

static void end_request(struct otlp *otlp) {
	if (otlp->under_way)
		curl_multi_remove_handle(otlp->multi, otlp->easy);
	otlp->under_way = false;
	free(otlp->body);
	otlp->body = NULL;
}

static void look_for_end(struct otlp *otlp) {
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(otlp->multi, &left))) {
		enum sink_result result;

		if (message->msg != CURLMSG_DONE || !otlp->under_way)
			continue;
		result = result_of(otlp, message->data.result);
		end_request(otlp);
		sink_finished(otlp->sink, result);
		return;
	}
}

/* curl and the event loop */

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata) {
	struct otlp *otlp = userdata;
	int what = (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
		(events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
	int running;

	(void)source;
	curl_multi_socket_action(otlp->multi, fd, what, &running);
	look_for_end(otlp);
	return 0;
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *userdata, void *socket_userdata) {
	struct otlp *otlp = userdata;
	sd_event_source *source = socket_userdata;
	uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		curl_multi_assign(otlp->multi, fd, NULL);
		sd_event_source_disable_unref(source);
		return 0;
	}
	if (source)
		return sd_event_source_set_io_events(source, events) < 0 ? -1 : 0;
	if (sd_event_add_io(otlp->loop, &source, fd, events, on_io, otlp) < 0)
		return -1;
	curl_multi_assign(otlp->multi, fd, source);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
	struct otlp *otlp = userdata;
	int running;

	(void)source;
	(void)usec;
	curl_multi_socket_action(otlp->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	look_for_end(otlp);
	return 0;
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *userdata) {
	struct otlp *otlp = userdata;

	(void)multi;
	if (timeout_ms < 0)
		return sd_event_source_set_enabled(otlp->timer, SD_EVENT_OFF) < 0 ? -1 : 0;
	sd_event_source_set_time_relative(otlp->timer, (uint64_t)timeout_ms * 1000);
	return sd_event_source_set_enabled(otlp->timer, SD_EVENT_ONESHOT) < 0 ? -1 : 0;
}

/* The sink */

static enum sink_result start_request(struct otlp *otlp, json_t *records) {
	otlp->body = records ? otlp_body(records) : NULL;
	if (!otlp->body) {
		sink_fault(otlp->sink, "out of memory");
		return SINK_LATER;
	}
	otlp->answer_len = 0;
	otlp->error[0] = '\0';
	curl_easy_setopt(otlp->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(otlp->body));
	curl_easy_setopt(otlp->easy, CURLOPT_POSTFIELDS, otlp->body);
	otlp->under_way = curl_multi_add_handle(otlp->multi, otlp->easy) == CURLM_OK;
	if (otlp->under_way)
		return SINK_WAIT;
	end_request(otlp);
	return SINK_LATER;
}

static enum sink_result otlp_send(void *state) {
	struct otlp *otlp = state;
	json_t *batch = otlp->batch;

	otlp->batch = NULL;
	otlp->batch_bytes = 0;
	return start_request(otlp, batch);
}

static enum sink_result otlp_deliver(void *state, const struct pyspyd_event *event) {
	struct otlp *otlp = state;

	if (!otlp->batch)
		otlp->batch = json_array();
	if (json_array_append_new(otlp->batch, otlp_record(event))) {
		json_decref(otlp->batch);
		otlp->batch = NULL;
		otlp->batch_bytes = 0;
		sink_fault(otlp->sink, "out of memory");
		return SINK_LATER;
	}
	otlp->batch_bytes += strlen(event->json);
	if (json_array_size(otlp->batch) < BATCH_EVENTS && otlp->batch_bytes < BATCH_BYTES)
		return SINK_TAKEN;
	return otlp_send(otlp);
}

static enum sink_result otlp_tell(void *state, const char *text) {
	struct timespec now;
	json_t *records = json_array();

	clock_gettime(CLOCK_REALTIME, &now);
	json_array_append_new(records, otlp_note(text, (uint64_t)now.tv_sec * S_NS + (uint64_t)now.tv_nsec));
	return start_request(state, records);
}

static bool otlp_enabled(const struct config *config) {
	return config->otlp.enabled;
}

static void otlp_close(void *state) {
	struct otlp *otlp = state;

	end_request(otlp);
	if (otlp->easy)
		curl_easy_cleanup(otlp->easy);
	if (otlp->multi)
		curl_multi_cleanup(otlp->multi);
	curl_slist_free_all(otlp->headers);
	sd_event_source_disable_unref(otlp->timer);
	json_decref(otlp->batch);
	free(otlp);
}

static bool add_header(struct otlp *otlp, const char *header) {
	struct curl_slist *headers = curl_slist_append(otlp->headers, header);

	if (headers)
		otlp->headers = headers;
	return headers;
}

static bool set_headers(struct otlp *otlp, const struct config_otlp *config) {
	bool ok = true;

	for (char **header = config->headers; header && *header; header++)
		ok = ok && add_header(otlp, *header);
	return ok && add_header(otlp, "Content-Type: application/json") && add_header(otlp, "Expect:") &&
		!curl_easy_setopt(otlp->easy, CURLOPT_HTTPHEADER, otlp->headers);
}

static bool set_easy(struct otlp *otlp, const struct config_otlp *config) {
	CURL *easy = otlp->easy;
	long timeout_ms = (long)(config->timeout_ns / 1000000);

	/* QUICK_EXIT: a name that is still being looked up does not hold up the end of the service. */
	return !curl_easy_setopt(easy, CURLOPT_URL, config->url) &&
		!curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") &&
		!curl_easy_setopt(easy, CURLOPT_POST, 1L) && !curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) &&
		!curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L) &&
		!curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms ? timeout_ms : 10000L) &&
		!curl_easy_setopt(easy, CURLOPT_USERAGENT, "pyspyd/" PYSPYD_VERSION) &&
		!curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, otlp->error) &&
		!curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_answer) &&
		!curl_easy_setopt(easy, CURLOPT_WRITEDATA, otlp);
}

static bool set_multi(struct otlp *otlp) {
	CURLM *multi = otlp->multi;

	return !curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket) &&
		!curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, otlp) &&
		!curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_curl_timer) &&
		!curl_multi_setopt(multi, CURLMOPT_TIMERDATA, otlp);
}

static int otlp_open(
	const struct config *config, struct sink *sink, sd_event *loop, void **ret_state, struct err *err) {
	struct otlp *otlp = calloc(1, sizeof(*otlp));
	int r;

	if (!otlp || curl_global_init(CURL_GLOBAL_ALL)) {
		free(otlp);
		return err_set(err, -ENOMEM, "libcurl cannot be used");
	}
	otlp->sink = sink;
	otlp->loop = loop;
	otlp->multi = curl_multi_init();
	otlp->easy = curl_easy_init();
	r = sd_event_add_time(loop, &otlp->timer, CLOCK_MONOTONIC, 0, 1000, on_timer, otlp);
	if (r >= 0)
		r = sd_event_source_set_enabled(otlp->timer, SD_EVENT_OFF);
	if (r >= 0 &&
		!(otlp->multi && otlp->easy && set_easy(otlp, &config->otlp) && set_headers(otlp, &config->otlp) &&
			set_multi(otlp)))
		r = -EINVAL;
	if (r < 0) {
		otlp_close(otlp);
		return err_set(err, r, "libcurl cannot be set up for %s", config->otlp.url);
	}
	*ret_state = otlp;
	return 0;
}

const struct sink_kind otlp_sink = {
	.name = "otlp",
	.enabled = otlp_enabled,
	.open = otlp_open,
	.close = otlp_close,
	.deliver = otlp_deliver,
	.send = otlp_send,
	.tell = otlp_tell,
};
