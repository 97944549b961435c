/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DAEMON_SINK_FORMAT_H
#define PYSPYD_DAEMON_SINK_FORMAT_H

#include "daemon/sink.h"
#include <jansson.h>

/* What the sinks send, made from events alone: pure. What is returned is the caller's to free(), or to json_decref();
 * NULL when out of memory. */

/* systemd's native journal protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): binary, *ret_len bytes. */
char *journal_entry(const struct pyspyd_event *event, size_t *ret_len);
char *journal_note(const char *text, size_t *ret_len);

/* RFC 5424, without framing, at most `most` bytes (480 at least): the message is cut, with a mark. */
char *syslog_line(const struct pyspyd_event *event, unsigned facility, size_t most);
char *syslog_note(const char *text, unsigned facility, uint64_t time_real_ns);

/* JSON Lines, with the newline. */
char *file_line(const struct pyspyd_event *event);
char *file_note(const char *text, uint64_t time_real_ns);

/* One element of resourceLogs (opentelemetry-proto, logs/v1): a finding with its process as the resource. */
json_t *otlp_record(const struct pyspyd_event *event);
json_t *otlp_note(const char *text, uint64_t time_real_ns);
/* The body of a request; takes over the array. */
char *otlp_body(json_t *resource_logs);
/* What an answer means. */
enum sink_result otlp_answer(long status);

#endif
