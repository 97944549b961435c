/* SPDX-License-Identifier: MIT */
/* What a descriptor, a mapping and a thread stand for, in words, and what one has in common with the next of its kind.
 *
 *	/tmp/req-17.log			→ /tmp/req-*.log		→ the .log files of /tmp
 *	tcp CLOSE_WAIT to 10.0.0.7:4711					→ tcp CLOSE_WAIT to 10.0.0.7:*
 *
 * Names are the target's choice and are taken as they are: the writers make them printable. */
#include "engine/leaks/handles.h"

#include "engine/base/strbuf.h"
#include <ctype.h>
#include <string.h>

#define DELETED " (deleted)"
#define HEX_RUN 6 /* hexadecimal digits in a row that are a number, not a word */
#define SUFFIX_MAX 8

static bool begins(const char *s, const char *prefix) {
	return !strncmp(s, prefix, strlen(prefix));
}

enum handle_kind handle_kind_of_fd(const struct proc_fd *fd) {
	static const enum handle_kind kinds[] = {
		[FD_FILE] = HANDLE_FILE,
		[FD_DIRECTORY] = HANDLE_DIRECTORY,
		[FD_DEVICE] = HANDLE_DEVICE,
		[FD_TTY] = HANDLE_TTY,
		[FD_PIPE] = HANDLE_PIPE,
		[FD_SOCKET] = HANDLE_SOCKET,
		[FD_EVENTFD] = HANDLE_EVENTFD,
		[FD_TIMERFD] = HANDLE_TIMERFD,
		[FD_SIGNALFD] = HANDLE_SIGNALFD,
		[FD_EPOLL] = HANDLE_EPOLL,
		[FD_INOTIFY] = HANDLE_INOTIFY,
		[FD_PIDFD] = HANDLE_PIDFD,
		[FD_OTHER] = HANDLE_OTHER,
	};

	return begins(fd->target, "/memfd:") ? HANDLE_MEMFD : kinds[fd->kind];
}

static enum handle_kind kind_of_bracket(const struct proc_map *map) {
	if (begins(map->path, "[heap"))
		return HANDLE_HEAP;
	if (begins(map->path, "[stack"))
		return HANDLE_STACK;
	if (begins(map->path, "[anon_shmem:"))
		return HANDLE_SHARED;
	return begins(map->path, "[anon:") ? HANDLE_ANONYMOUS : HANDLE_KERNEL;
}

enum handle_kind handle_kind_of_map(const struct proc_map *map) {
	/* Linux keeps shared anonymous memory as a deleted /dev/zero, System V's under its key. */
	static const char *const shared[] = { "/dev/shm/", "/SYSV", "/memfd:", "/dev/zero" DELETED };

	if (map->path[0] == '[')
		return kind_of_bracket(map);
	if (!map->inode && !map->path[0])
		return map->read || map->write || map->exec ? HANDLE_ANONYMOUS : HANDLE_RESERVED;
	if (begins(map->path, "/dev/shm/sem."))
		return HANDLE_SEMAPHORE;
	for (size_t i = 0; i < ARRAY_SIZE(shared); i++)
		if (begins(map->path, shared[i]))
			return HANDLE_SHARED;
	return begins(map->path, "/dev/") ? HANDLE_MAPPED_DEVICE : HANDLE_MAPPED_FILE;
}

static const char *end_of_pipe(const struct proc_fd *fd) {
	if (fd->read && fd->write)
		return "both ends";
	return fd->write ? "write end" : "read end";
}

char *handle_fd_target(const struct proc_fd *fd) {
	char *target;

	if (fd->target[0] == '/')
		return strdup(fd->target);
	switch (fd->kind) {
	case FD_PIPE: return strdup(end_of_pipe(fd));
	case FD_OTHER: return strdup(fd->target);
	case FD_PIDFD:
		if (fd->pid <= 0)
			return strdup(fd->pid ? "ended" : "");
		return asprintf(&target, "of %d", (int)fd->pid) < 0 ? NULL : target;
	default: return strdup("");
	}
}

/* sockets */

static bool port_of(const char *address, uint16_t *ret) {
	const char *colon = strrchr(address, ':');
	unsigned long port;
	char *end;

	if (!colon || !isdigit((unsigned char)colon[1]))
		return false;
	port = strtoul(colon + 1, &end, 10);
	if (*end || port > UINT16_MAX)
		return false;
	*ret = (uint16_t)port;
	return true;
}

int handle_listens(handle_ports *ports, const struct proc_socket *socket) {
	uint16_t port;

	if (socket->family != SOCKET_TCP || !socket->listening || !port_of(socket->local, &port))
		return 0;
	return vec_push(ports, port);
}

static bool is_accepted(const struct proc_socket *socket, const handle_ports *ports) {
	uint16_t local;

	if (!port_of(socket->local, &local))
		return false;
	vec_foreach (port, ports)
		if (*port == local)
			return true;
	return false;
}

static void add_word(struct strbuf *sb, const char *word) {
	if (!*word)
		return;
	strbuf_adds(sb, sb->len ? " " : "");
	strbuf_adds(sb, word);
}

static void add_inet(struct strbuf *sb, const struct proc_socket *socket, const handle_ports *ports) {
	if (socket->remote[0] && is_accepted(socket, ports)) {
		add_word(sb, "accepted at");
		add_word(sb, socket->local);
	} else if (socket->remote[0]) {
		add_word(sb, "to");
		add_word(sb, socket->remote);
	} else if (socket->listening || socket->family == SOCKET_UDP) {
		add_word(sb, "at");
		add_word(sb, socket->local);
	}
}

char *handle_socket_target(const struct proc_socket *socket, const handle_ports *ports) {
	static const char *const families[] = {
		[SOCKET_UNKNOWN] = "",
		[SOCKET_TCP] = "tcp",
		[SOCKET_UDP] = "udp",
		[SOCKET_UNIX] = "unix",
	};
	struct strbuf sb = { 0 };

	if (!socket || socket->family == SOCKET_UNKNOWN)
		return strdup("");
	add_word(&sb, families[socket->family]);
	if (socket->family != SOCKET_UDP)
		add_word(&sb, socket->state);
	if (socket->family == SOCKET_UNIX)
		add_word(&sb, socket->local[0] ? socket->local : socket->remote);
	else
		add_inet(&sb, socket, ports);
	return strbuf_take(&sb);
}

/* patterns */

/* How many characters from here on are a number: decimal digits, or a long row of hexadecimal ones with a digit. */
static size_t number_at(const char *s) {
	size_t decimal = strspn(s, "0123456789"), hex = strspn(s, "0123456789abcdef");
	bool mixed = strcspn(s, "0123456789") < hex;

	return hex >= HEX_RUN && mixed && !isalnum((unsigned char)s[hex]) ? hex : decimal;
}

/* The next number or character. A number begins where no word goes on: "cafe12" in "decafe12" is part of one. */
static size_t next_token(const char *s, char *last, bool *ret_number) {
	size_t n = isalpha((unsigned char)*last) ? strspn(s, "0123456789") : number_at(s);

	*ret_number = n > 0;
	*last = n ? '0' : *s;
	return n ? n : 1;
}

char *handle_narrow(const char *target, enum handle_merge merge) {
	struct strbuf sb = { 0 };
	bool number;
	char last = '\0';

	if (merge != MERGE_PATH || !*target)
		return strdup(target);
	for (const char *at = target; *at;) {
		size_t n = next_token(at, &last, &number);

		strbuf_add(&sb, number ? "*" : at, 1);
		at += n;
	}
	return strbuf_take(&sb);
}

char *handle_common(const char *a, const char *b) {
	char last_a = '\0', last_b = '\0';
	struct strbuf sb = { 0 };
	bool number;

	/* The same form: a number, or the '*' of one, stands at the same place in both. */
	while (*a && *b) {
		size_t n = next_token(a, &last_a, &number), m = next_token(b, &last_b, &number);

		if (n == m && !memcmp(a, b, n))
			strbuf_add(&sb, a, n);
		else
			strbuf_adds(&sb, "*");
		/* Behind a number no letter has been, whatever stands for it. */
		if (*a == '*' || *b == '*')
			last_a = last_b = '0';
		a += n;
		b += m;
	}
	return strbuf_take(&sb);
}

/* ".log" of "/tmp/a.log", "" where there is none or a number; up to the end of the name. */
static size_t suffix_of(const char *name, size_t n) {
	size_t from = n;

	while (from > 1 && isalpha((unsigned char)name[from - 1]))
		from--;
	return from > 1 && from < n && n - from <= SUFFIX_MAX && name[from - 1] == '.' ? n - from + 1 : 0;
}

static char *wide_path(const char *target) {
	size_t n = strlen(target), deleted = strlen(DELETED), folder, suffix;
	struct strbuf sb = { 0 };
	const char *slash;

	if (n < deleted || strcmp(target + n - deleted, DELETED))
		deleted = 0;
	slash = memrchr(target, '/', n - deleted);
	if (!slash)
		return strdup(target);
	folder = (size_t)(slash + 1 - target);
	suffix = suffix_of(slash + 1, n - deleted - folder);
	strbuf_add(&sb, target, folder);
	strbuf_adds(&sb, "*");
	strbuf_add(&sb, target + n - deleted - suffix, suffix);
	strbuf_adds(&sb, target + n - deleted);
	return strbuf_take(&sb);
}

static char *wide_port(const char *target) {
	const char *colon = strrchr(target, ':');
	char *wide;

	if (!colon)
		return strdup(target);
	return asprintf(&wide, "%.*s:*", (int)(colon - target), target) < 0 ? NULL : wide;
}

char *handle_wide(const char *target, enum handle_merge merge) {
	switch (merge) {
	case MERGE_PATH: return wide_path(target);
	case MERGE_PORT: return wide_port(target);
	default: return strdup(target);
	}
}

/* threads */

static bool is_frame(const struct pyspyd_frame *frame, const char *module, const char *function) {
	return !strcmp(frame->module, module) && (!function || !strcmp(frame->function, function));
}

/* Frames that only lead to the function that was asked for. Thread.run calls it; where a class of threading has a run
 * of its own (Timer), that one is the function. Before 3.11 both have the same name, and who calls on within threading
 * is taken for the latter. */
static bool is_starter(const struct pyspyd_frame *frame, const struct pyspyd_frame *callee) {
	if (is_frame(frame, "threading", "_bootstrap") || is_frame(frame, "threading", "_bootstrap_inner"))
		return true;
	if (is_frame(frame, "threading", "run"))
		return !strcmp(frame->qualname, "Thread.run") || strcmp(callee->module, "threading") != 0;
	return is_frame(frame, "runpy", NULL);
}

size_t handle_start(const struct pyspyd_frame *frames, size_t n) {
	size_t at = n ? n - 1 : 0;

	while (at > 0 && is_starter(&frames[at], &frames[at - 1]))
		at--;
	return at;
}
