/* SPDX-License-Identifier: MIT */
/* Syslog as in RFC 5424, to the local socket, over UDP (RFC 5426), or over TCP with octet counting (RFC 6587).
 *
 *	<28>1 2026-01-31T12:00:00.123456Z host pyspyd 812 SPIKING-THREAD [pyspyd@32473 id="…" pid="4711" …] summary
 *
 * The summary alone is the message: who wants the JSON has the file, the journal and OTLP. The local socket and UDP
 * carry 2 KiB, which receivers should take (RFC 5424, 6.1).
 *
 * None of these transports tells whether the receiver has read what was sent. A connection that breaks off, or a port
 * where nobody listens any more, makes the events of the last seconds go out again; a receiver that dies with unread
 * datagrams in its queue loses them. */
#include "daemon/datagram.h"
#include "daemon/lookup.h"
#include "daemon/sink_format.h"
#include "daemon/sink_view.h"
#include "pyspyd/text.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define DATAGRAM_MOST 2048
#define STREAM_MOST 8192
#define PARAM_MAX 256 /* bytes of one value in the structured data */
#define CUT "…"
#define BOM "\xef\xbb\xbf"

#define S_NS UINT64_C(1000000000)
#define SENT_MAX 512
#define MARK_NS (S_NS / 10)
#define UDP_DOUBT_NS (2 * S_NS)
#define TCP_DOUBT_NS (30 * S_NS)
#define CONNECT_US (10 * 1000000ULL)
#define STALLED_MS 30000

/* The line */

/* How much of the text fits into `most` bytes, not ending in the middle of a character. */
static size_t fitting(const char *text, size_t most) {
	size_t n = strnlen(text, most + 1);

	if (n <= most)
		return n;
	for (n = most; n && ((unsigned char)text[n] & 0xc0) == 0x80; n--)
		;
	return n;
}

/* Printable ASCII without spaces, as the header's fields must be. */
static void put_token(FILE *out, const char *text, size_t most, bool upper) {
	size_t n = 0;

	for (; *text && n < most; text++, n++) {
		unsigned char c = (unsigned char)*text;

		fputc(c <= ' ' || c >= 0x7f ? '?' : upper ? toupper(c) : c, out);
	}
	if (!n)
		fputc('-', out);
}

static void put_param(FILE *out, const char *name, const char *value) {
	char *text;
	size_t n;

	if (!*value || !(text = pyspyd_printable(value)))
		return;
	n = fitting(text, PARAM_MAX);
	fprintf(out, " %s=\"", name);
	for (size_t i = 0; i < n; i++) {
		if (strchr("\"\\]", text[i]))
			fputc('\\', out);
		fputc(text[i], out);
	}
	fprintf(out, "%s\"", text[n] ? CUT : "");
	free(text);
}

static void put_number(FILE *out, const char *name, uint64_t value) {
	fprintf(out, " %s=\"%" PRIu64 "\"", name, value);
}

static void put_header(FILE *out, int priority, uint64_t time_real_ns, const char *host, const char *msgid) {
	time_t seconds = (time_t)(time_real_ns / S_NS);
	char time[32], own[256] = "";
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%S", &tm);
	if (!*host)
		gethostname(own, sizeof(own) - 1);
	fprintf(out, "<%d>1 %s.%06uZ ", priority, time, (unsigned)(time_real_ns % S_NS / 1000));
	put_token(out, *host ? host : own, 255, false);
	fprintf(out, " pyspyd %d ", (int)getpid());
	put_token(out, msgid, 32, true);
}

static void put_data(FILE *out, const struct sink_view *view) {
	const struct pyspyd_event *event = view->event;

	fputs(" [pyspyd@32473", out); /* a number for examples (RFC 5612) */
	put_param(out, "id", event->id);
	put_param(out, "fingerprint", event->fingerprint);
	put_number(out, "seq", event->seq);
	put_param(out, "state", view->state);
	put_param(out, "severity", view->severity);
	put_number(out, "pid", (uint64_t)event->pid);
	put_number(out, "uid", event->uid);
	put_param(out, "process", view->name);
	put_param(out, "unit", view->unit);
	put_param(out, "container", view->container);
	fputc(']', out);
}

static bool is_ascii(const char *text) {
	for (; *text; text++)
		if ((unsigned char)*text >= 0x80)
			return false;
	return true;
}

/* The mark is ASCII where the message is, which then needs no BOM. */
static void put_message(FILE *out, const char *message, size_t most) {
	bool ascii = is_ascii(message);
	const char *mark = ascii ? "..." : CUT;
	long used;
	size_t room, n;

	fprintf(out, " %s", ascii ? "" : BOM);
	used = ftell(out);
	room = used >= 0 && (size_t)used < most ? most - (size_t)used : 0;
	n = strlen(message);
	if (n <= room) {
		fwrite(message, 1, n, out);
		return;
	}
	n = room > strlen(mark) ? fitting(message, room - strlen(mark)) : 0;
	fwrite(message, 1, n, out);
	fputs(mark, out);
}

char *syslog_line(const struct pyspyd_event *event, unsigned facility, size_t most) {
	struct sink_view view;
	char *line = NULL;
	size_t len;
	FILE *out;

	if (sink_view_init(&view, event))
		return NULL;
	out = open_memstream(&line, &len);
	if (out) {
		put_header(out, (int)facility * 8 + sink_view_priority(&view), event->time_real_ns, view.host,
			event->kind);
		put_data(out, &view);
		put_message(out, view.summary, most);
		if (fclose(out)) {
			free(line);
			line = NULL;
		}
	}
	sink_view_deinit(&view);
	return line;
}

char *syslog_note(const char *text, unsigned facility, uint64_t time_real_ns) {
	char *line = NULL;
	size_t len;
	FILE *out = open_memstream(&line, &len);

	if (!out)
		return NULL;
	put_header(out, (int)facility * 8 + LOG_NOTICE, time_real_ns, "", "NOTE");
	fputs(" -", out);
	put_message(out, text, DATAGRAM_MOST);
	if (!fclose(out))
		return line;
	free(line);
	return NULL;
}

/* What was sent lately, and may be lost */

struct sent {
	uint64_t seq, at_ns;
};

struct syslog {
	struct sink *sink;
	sd_event *loop;
	char *address;
	unsigned port, facility;
	bool stream;
	uint64_t doubt_ns;
	struct lookup *lookup;
	const struct addrinfo *next; /* the address to be tried */
	struct sent sent[SENT_MAX];
	size_t sent_n; /* since the last loss */

	struct datagram socket;

	int fd;
	sd_event_source *source, *timer;
	bool connecting;
	char *out; /* the frame that is being sent; NULL: none */
	size_t out_len, out_sent;
	uint64_t out_seq; /* 0: a note */
};

static uint64_t now_ns(void) {
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * S_NS + (uint64_t)now.tv_nsec;
}

/* One mark stands for what was sent within MARK_NS from it on. */
static void note_sent(struct syslog *syslog, uint64_t seq) {
	uint64_t now = now_ns();

	if (!seq || (syslog->sent_n && now - syslog->sent[(syslog->sent_n - 1) % SENT_MAX].at_ns < MARK_NS))
		return;
	syslog->sent[syslog->sent_n++ % SENT_MAX] = (struct sent){ seq, now };
}

/* Return: whether there is anything; then nothing that comes after it may go out before. */
static bool send_again(struct syslog *syslog) {
	uint64_t now = now_ns(), from = 0;
	size_t n = syslog->sent_n < SENT_MAX ? syslog->sent_n : SENT_MAX;

	for (size_t i = 1; i <= n; i++) {
		const struct sent *sent = &syslog->sent[(syslog->sent_n - i) % SENT_MAX];

		if (now - sent->at_ns > syslog->doubt_ns + MARK_NS)
			break;
		from = sent->seq;
	}
	syslog->sent_n = 0;
	if (from)
		sink_redo(syslog->sink, from);
	return from;
}

/* Addresses */

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata);
static enum sink_result stream_connect(struct syslog *syslog);
static void stream_finish(struct syslog *syslog, enum sink_result result);

static void on_lookup(void *userdata) {
	struct syslog *syslog = userdata;
	enum sink_result result;

	if (!syslog->stream) {
		sink_ready(syslog->sink);
		return;
	}
	if (!syslog->out)
		return;
	result = stream_connect(syslog);
	if (result != SINK_WAIT)
		stream_finish(syslog, result);
}

/* Sets `next`. Return: 0; -EINPROGRESS; negative errno. A name is looked up anew for each round of its addresses. */
static int next_address(struct syslog *syslog) {
	int r = 0;

	if (syslog->next)
		return 0;
	if (!syslog->lookup)
		r = lookup_start(syslog->loop, syslog->address, syslog->port, syslog->stream ? SOCK_STREAM : SOCK_DGRAM,
			on_lookup, syslog, &syslog->lookup);
	if (!r)
		r = lookup_result(syslog->lookup, &syslog->next);
	if (r && r != -EINPROGRESS) {
		lookup_free(syslog->lookup);
		syslog->lookup = NULL;
	}
	return r;
}

static void address_failed(struct syslog *syslog) {
	if (syslog->next)
		syslog->next = syslog->next->ai_next;
	if (!syslog->next) {
		lookup_free(syslog->lookup);
		syslog->lookup = NULL;
	}
}

/* Return: a socket that is connected, or will be; negative errno. */
static int connect_next(struct syslog *syslog, int type) {
	const struct addrinfo *address = syslog->next;
	int fd = socket(address->ai_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

	if (fd < 0)
		return -errno;
	if (!connect(fd, address->ai_addr, address->ai_addrlen) || errno == EINPROGRESS)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

static const char *reason(int error) {
	switch (error) {
	case EINPROGRESS: return "its address is being looked up";
	case EHOSTUNREACH: return "its address is not known, or not to be reached";
	case EAGAIN: return "its queue is full";
	case EPROTOTYPE: return "is no datagram socket";
	}
	return strerror(error);
}

/* Datagrams */

static int udp_connect(struct datagram *datagram) {
	struct syslog *syslog = (struct syslog *)((char *)datagram - offsetof(struct syslog, socket));
	int r = next_address(syslog);

	if (r)
		return r;
	r = connect_next(syslog, SOCK_DGRAM);
	if (r < 0) {
		address_failed(syslog);
		return r;
	}
	datagram->fd = r;
	return 0;
}

static void udp_lost(struct datagram *datagram) {
	struct syslog *syslog = (struct syslog *)((char *)datagram - offsetof(struct syslog, socket));

	address_failed(syslog);
	send_again(syslog);
}

/* On the same machine it is known at once that nobody listens. */
static int udp_error(const struct syslog *syslog) {
	int error = 0;
	socklen_t len = sizeof(error);

	if (syslog->socket.fd >= 0)
		getsockopt(syslog->socket.fd, SOL_SOCKET, SO_ERROR, &error, &len);
	return error;
}

static enum sink_result datagram_deliver(struct syslog *syslog, const char *line, uint64_t seq) {
	int error = 0;
	enum sink_result result = datagram_send(&syslog->socket, line, strlen(line), -1, &error);

	if (result == SINK_DONE && syslog->socket.lost && (error = udp_error(syslog))) {
		udp_lost(&syslog->socket);
		datagram_close(&syslog->socket);
		result = SINK_LATER;
	}
	if (result == SINK_DONE)
		note_sent(syslog, seq);
	else
		sink_fault(syslog->sink, "%s: %s", syslog->address, reason(error));
	return result;
}

/* The stream */

static void stream_close(struct syslog *syslog) {
	syslog->source = sd_event_source_disable_unref(syslog->source);
	if (syslog->fd >= 0)
		close(syslog->fd);
	syslog->fd = -1;
	syslog->connecting = false;
	sd_event_source_set_enabled(syslog->timer, SD_EVENT_OFF);
}

static void forget_frame(struct syslog *syslog) {
	free(syslog->out);
	syslog->out = NULL;
}

/* For a frame that was under way. */
static void stream_finish(struct syslog *syslog, enum sink_result result) {
	forget_frame(syslog);
	sink_finished(syslog->sink, result);
}

/* The connection is at its end. What is still in the kernel's queue does not arrive; what the other side had not read
 * when it broke off neither. Return: as send_again(). */
static bool stream_lost(struct syslog *syslog, int error) {
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	bool unsent = getsockopt(syslog->fd, IPPROTO_TCP, TCP_INFO, &info, &len) || info.tcpi_unacked ||
		info.tcpi_notsent_bytes;

	stream_close(syslog);
	sink_fault(syslog->sink, "%s: %s", syslog->address, error ? reason(error) : "has closed the connection");
	return (error || unsent) && send_again(syslog);
}

static enum sink_result stream_flush(struct syslog *syslog) {
	while (syslog->out_sent < syslog->out_len) {
		ssize_t n = send(syslog->fd, syslog->out + syslog->out_sent, syslog->out_len - syslog->out_sent,
			MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN) {
			sd_event_source_set_io_events(syslog->source, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
			return SINK_WAIT;
		}
		if (n < 0) {
			stream_lost(syslog, errno);
			return SINK_LATER;
		}
		syslog->out_sent += (size_t)n;
	}
	sd_event_source_set_io_events(syslog->source, EPOLLIN | EPOLLRDHUP);
	note_sent(syslog, syslog->out_seq);
	return SINK_DONE;
}

/* Reads and forgets what the other side says, which is nothing. Return: whether the connection is still there. */
static bool is_open(struct syslog *syslog, int *ret_error) {
	char unused[512];
	ssize_t n;

	*ret_error = 0;
	do
		n = recv(syslog->fd, unused, sizeof(unused), MSG_DONTWAIT);
	while (n > 0);
	if (n < 0 && errno == EAGAIN)
		return true;
	*ret_error = n < 0 ? errno : 0;
	return false;
}

static enum sink_result stream_connected(struct syslog *syslog) {
	int error = 0;
	socklen_t len = sizeof(error);

	if (!getsockopt(syslog->fd, SOL_SOCKET, SO_ERROR, &error, &len) && !error) {
		syslog->connecting = false;
		sd_event_source_set_enabled(syslog->timer, SD_EVENT_OFF);
		return stream_flush(syslog);
	}
	sink_fault(syslog->sink, "%s: %s", syslog->address, reason(error));
	stream_close(syslog);
	address_failed(syslog);
	return syslog->next ? stream_connect(syslog) : SINK_LATER;
}

static int on_stream(sd_event_source *source, int fd, uint32_t events, void *userdata) {
	struct syslog *syslog = userdata;
	enum sink_result result = SINK_WAIT;
	int error;

	(void)source;
	(void)fd;
	if (syslog->connecting) {
		result = stream_connected(syslog);
	} else if ((events & ~(uint32_t)EPOLLOUT) && !is_open(syslog, &error)) {
		stream_lost(syslog, error);
		result = SINK_LATER;
	} else if (syslog->out) {
		result = stream_flush(syslog);
	}
	if (syslog->out && result != SINK_WAIT)
		stream_finish(syslog, result);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
	struct syslog *syslog = userdata;

	(void)source;
	(void)usec;
	sink_fault(syslog->sink, "%s: does not answer", syslog->address);
	stream_close(syslog);
	address_failed(syslog);
	stream_finish(syslog, SINK_LATER);
	return 0;
}

static void set_options(int fd) {
	static const int on = 1, stalled = STALLED_MS;

	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &stalled, sizeof(stalled));
}

/* Starts to connect. Return: SINK_WAIT; SINK_LATER. */
static enum sink_result stream_connect(struct syslog *syslog) {
	int r = next_address(syslog);

	if (r == -EINPROGRESS)
		return SINK_WAIT;
	if (!r) {
		syslog->fd = connect_next(syslog, SOCK_STREAM);
		r = syslog->fd < 0 ? syslog->fd : 0;
	}
	if (!r) {
		set_options(syslog->fd);
		syslog->connecting = true;
		r = sd_event_add_io(syslog->loop, &syslog->source, syslog->fd, EPOLLOUT, on_stream, syslog);
	}
	if (r >= 0) {
		sd_event_source_set_time_relative(syslog->timer, CONNECT_US);
		sd_event_source_set_enabled(syslog->timer, SD_EVENT_ONESHOT);
		return SINK_WAIT;
	}
	sink_fault(syslog->sink, "%s: %s", syslog->address, reason(-r));
	stream_close(syslog);
	address_failed(syslog);
	return SINK_LATER;
}

static enum sink_result stream_deliver(struct syslog *syslog, const char *line, uint64_t seq) {
	enum sink_result result;
	int error;

	syslog->out_seq = seq;
	syslog->out_sent = 0;
	if (asprintf(&syslog->out, "%zu %s", strlen(line), line) < 0) {
		syslog->out = NULL;
		return SINK_LATER;
	}
	syslog->out_len = strlen(syslog->out);
	if (syslog->fd >= 0 && !is_open(syslog, &error) && stream_lost(syslog, error))
		result = SINK_LATER;
	else
		result = syslog->fd >= 0 ? stream_flush(syslog) : stream_connect(syslog);
	if (result != SINK_WAIT)
		forget_frame(syslog);
	return result;
}

/* The sink */

static bool syslog_enabled(const struct config *config) {
	return config->syslog.enabled;
}

static void syslog_close(void *state) {
	struct syslog *syslog = state;

	datagram_close(&syslog->socket);
	stream_close(syslog);
	sd_event_source_disable_unref(syslog->timer);
	lookup_free(syslog->lookup);
	free(syslog->out);
	free(syslog->address);
	free(syslog);
}

static int syslog_open(
	const struct config *config, struct sink *sink, sd_event *loop, void **ret_state, struct err *err) {
	struct syslog *syslog = calloc(1, sizeof(*syslog));
	int r;

	if (!syslog)
		return err_set(err, -ENOMEM, "out of memory");
	syslog->sink = sink;
	syslog->loop = loop;
	syslog->fd = -1;
	syslog->port = config->syslog.port;
	syslog->facility = config->syslog.facility;
	syslog->stream = config->syslog.transport == SYSLOG_TCP;
	syslog->doubt_ns = syslog->stream ? TCP_DOUBT_NS : UDP_DOUBT_NS;
	syslog->address = strdup(config->syslog.address);
	datagram_init(&syslog->socket, sink, loop, udp_connect, syslog->address);
	if (config->syslog.transport == SYSLOG_LOCAL)
		syslog->socket.connect = datagram_connect_unix;
	else
		syslog->socket.lost = udp_lost;
	r = syslog->address ? sd_event_add_time(loop, &syslog->timer, CLOCK_MONOTONIC, 0, 0, on_timer, syslog)
			    : -ENOMEM;
	if (r >= 0)
		r = sd_event_source_set_enabled(syslog->timer, SD_EVENT_OFF);
	if (r < 0) {
		syslog_close(syslog);
		return err_set(err, r, "%s", strerror(-r));
	}
	*ret_state = syslog;
	return 0;
}

/* Takes over the line. */
static enum sink_result send_line(struct syslog *syslog, char *line, uint64_t seq) {
	enum sink_result result = SINK_LATER;

	if (line)
		result = syslog->stream ? stream_deliver(syslog, line, seq) : datagram_deliver(syslog, line, seq);
	else
		sink_fault(syslog->sink, "out of memory");
	free(line);
	return result;
}

static enum sink_result syslog_deliver(void *state, const struct pyspyd_event *event) {
	struct syslog *syslog = state;

	return send_line(
		syslog, syslog_line(event, syslog->facility, syslog->stream ? STREAM_MOST : DATAGRAM_MOST), event->seq);
}

static enum sink_result syslog_tell(void *state, const char *text) {
	struct syslog *syslog = state;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return send_line(
		syslog, syslog_note(text, syslog->facility, (uint64_t)now.tv_sec * S_NS + (uint64_t)now.tv_nsec), 0);
}

const struct sink_kind syslog_sink = {
	.name = "syslog",
	.enabled = syslog_enabled,
	.open = syslog_open,
	.close = syslog_close,
	.deliver = syslog_deliver,
	.tell = syslog_tell,
};
