/* SPDX-License-Identifier: MIT */
/* The journal, by its native protocol: one datagram an entry, with a sealed memfd in place of what is too large for
 *one. libsystemd's own sender waits while journald's queue is full; this one must not.
 *
 *	MESSAGE=thread 4711 spins: 99 % of a core for 31 s\n
 *	PYSPYD_KIND=spiking-thread\n
 *	PYSPYD_STACK\n<length: 8 bytes, little endian><lines>\n
 *
 * OBJECT_PID makes journald add what it knows of the process, OBJECT_SYSTEMD_UNIT above all, by which "journalctl -u
 * TARGET" shows the finding. It does that for senders of uid 0 only (systemd 252, src/journal/journald-native.c,
 * allow_object_pid), and for processes that are still there; the unit is sent for those that are not. journalctl asks
 * for _UID=0 as well (src/shared/logs-show.c, add_matches_for_unit): of a service with a user of its own it is
 * "journalctl PYSPYD_UNIT=TARGET" that shows the findings. */
#include "daemon/datagram.h"
#include "daemon/message_ids.h"
#include "daemon/sink_format.h"
#include "daemon/sink_view.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <syslog.h>
#include <unistd.h>

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

static void put(FILE *out, const char *name, const char *value) {
	size_t len = strlen(value);
	uint64_t length = htole64(len);

	if (!len)
		return;
	if (memchr(value, '\n', len)) {
		fprintf(out, "%s\n", name);
		fwrite(&length, sizeof(length), 1, out);
	} else {
		fprintf(out, "%s=", name);
	}
	fwrite(value, 1, len, out);
	fputc('\n', out);
}

static void put_number(FILE *out, const char *name, uint64_t value) {
	fprintf(out, "%s=%" PRIu64 "\n", name, value);
}

static void put_head(FILE *out, const char *message, const char *id, int priority) {
	put(out, "MESSAGE", message);
	put(out, "MESSAGE_ID", id);
	put_number(out, "PRIORITY", (uint64_t)priority);
	put(out, "SYSLOG_IDENTIFIER", "pyspyd");
	put_number(out, "SYSLOG_FACILITY", LOG_DAEMON >> 3);
	put(out, "DOCUMENTATION", "man:pyspyd-watch(1)");
}

static void put_process(FILE *out, const struct sink_view *view) {
	if (view->event->pid > 0) {
		put_number(out, "OBJECT_PID", (uint64_t)view->event->pid);
		put_number(out, "PYSPYD_PID", (uint64_t)view->event->pid);
		put_number(out, "PYSPYD_UID", view->event->uid);
	}
	put(out, "OBJECT_SYSTEMD_UNIT", view->unit);
	put(out, "PYSPYD_PROCESS", view->name);
	put(out, "PYSPYD_CMDLINE", view->cmdline);
	put(out, "PYSPYD_EXE", view->exe);
	put(out, "PYSPYD_PYTHON", view->python);
	put(out, "PYSPYD_UNIT", view->unit);
	put(out, "PYSPYD_CONTAINER", view->container);
	put(out, "PYSPYD_CGROUP", view->cgroup);
}

static void put_finding(FILE *out, const struct sink_view *view) {
	const struct pyspyd_event *event = view->event;

	put(out, "PYSPYD_KIND", event->kind);
	put(out, "PYSPYD_PATTERN", view->pattern);
	put(out, "PYSPYD_ID", event->id);
	put(out, "PYSPYD_FINGERPRINT", event->fingerprint);
	put_number(out, "PYSPYD_SEQ", event->seq);
	put(out, "PYSPYD_STATE", view->state);
	put(out, "PYSPYD_SEVERITY", view->severity);
	put(out, "PYSPYD_TIME", view->time);
	put(out, "PYSPYD_SINCE", view->since);
	fprintf(out, "PYSPYD_DURATION_S=%.3f\n", view->duration_s);
	put(out, "PYSPYD_ADVICE", view->advice);
	put(out, "PYSPYD_FINDING", event->json);
}

static char *finish(FILE *out, char **text) {
	bool failed = ferror(out);

	if (!fclose(out) && !failed)
		return *text;
	free(*text);
	return NULL;
}

char *journal_entry(const struct pyspyd_event *event, size_t *ret_len) {
	struct sink_view view;
	char *data = NULL, *stacks;
	FILE *out;

	if (sink_view_init(&view, event))
		return NULL;
	stacks = sink_view_stacks(&view);
	out = open_memstream(&data, ret_len);
	if (out && stacks) {
		put_head(out, view.summary, message_id_of(event->kind), sink_view_priority(&view));
		put_finding(out, &view);
		put_process(out, &view);
		put(out, "PYSPYD_STACK", stacks);
	}
	if (out)
		data = finish(out, &data);
	if (!stacks) {
		free(data);
		data = NULL;
	}
	free(stacks);
	sink_view_deinit(&view);
	return data;
}

char *journal_note(const char *text, size_t *ret_len) {
	char *data = NULL;
	FILE *out = open_memstream(&data, ret_len);

	if (!out)
		return NULL;
	put_head(out, text, message_id_of(MESSAGE_ID_NOTE), LOG_NOTICE);
	return finish(out, &data);
}

struct journal {
	struct sink *sink;
	struct datagram socket;
};

static bool journal_enabled(const struct config *config) {
	return config->journal;
}

static int journal_open(
	const struct config *config, struct sink *sink, sd_event *loop, void **ret_state, struct err *err) {
	struct journal *journal = calloc(1, sizeof(*journal));
	const char *path = secure_getenv("PYSPYD_JOURNAL_SOCKET");

	(void)config;
	if (!journal)
		return err_set(err, -ENOMEM, "out of memory");
	journal->sink = sink;
	datagram_init(&journal->socket, sink, loop, datagram_connect_unix, path ? path : JOURNAL_SOCKET);
	*ret_state = journal;
	return 0;
}

static void journal_close(void *state) {
	struct journal *journal = state;

	datagram_close(&journal->socket);
	free(journal);
}

static int write_all(int fd, const char *data, size_t len) {
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

/* journald takes a file only if nobody can change it any more. Return: the file; negative errno. */
static int sealed_file(const char *data, size_t len) {
	int fd = memfd_create("pyspyd-journal", MFD_CLOEXEC | MFD_ALLOW_SEALING), r;

	if (fd < 0)
		return -errno;
	r = write_all(fd, data, len);
	if (!r && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
		r = -errno;
	if (!r)
		return fd;
	close(fd);
	return r;
}

static enum sink_result send_file(struct journal *journal, const char *data, size_t len, int *ret_errno) {
	enum sink_result result;
	int fd = sealed_file(data, len);

	if (fd < 0) {
		*ret_errno = -fd;
		return SINK_LATER;
	}
	result = datagram_send(&journal->socket, "", 0, fd, ret_errno);
	close(fd);
	return result;
}

/* Takes over the data. */
static enum sink_result journal_send(struct journal *journal, char *data, size_t len) {
	enum sink_result result;
	int error = 0;

	if (!data) {
		sink_fault(journal->sink, "out of memory");
		return SINK_LATER;
	}
	result = datagram_send(&journal->socket, data, len, -1, &error);
	if (result != SINK_DONE && (error == EMSGSIZE || error == ENOBUFS))
		result = send_file(journal, data, len, &error);
	if (result != SINK_DONE)
		sink_fault(journal->sink, "%s: %s", journal->socket.path,
			error == EAGAIN ? "its queue is full" : strerror(error));
	free(data);
	return result;
}

static enum sink_result journal_deliver(void *state, const struct pyspyd_event *event) {
	size_t len = 0;
	char *data = journal_entry(event, &len);

	return journal_send(state, data, len);
}

static enum sink_result journal_tell(void *state, const char *text) {
	size_t len = 0;
	char *data = journal_note(text, &len);

	return journal_send(state, data, len);
}

const struct sink_kind journal_sink = {
	.name = "journal",
	.enabled = journal_enabled,
	.open = journal_open,
	.close = journal_close,
	.deliver = journal_deliver,
	.tell = journal_tell,
};
