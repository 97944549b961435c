/* SPDX-License-Identifier: MIT */
/* The client's end of the service's socket.
 *
 * What comes is bounded and checked, the service is trusted no more than that: a frame beyond the limit, or of an
 * unknown letter, ends the connection. Waiting is interruptible; only the first frame has a time limit: a service that
 * hangs must not hang commands that merely ask whether it is there. */
#include "pyspyd/remote.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/base/vec.h"
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SCHEMA "pyspyd.socket/1"
#define HELLO_NS (5 * NS_PER_SEC)
#define SEND_NS (10 * NS_PER_SEC)
#define LOOK_MS 500 /* how often *stop is looked at: a signal may come just before we wait */
#define READ_BYTES (64U << 10)

typedef VEC(uint8_t) byte_vec;

struct pyspyd_remote {
	int fd;
	bool sees_all;
	uint64_t seq;
	byte_vec in; /* what was read and not used yet, from `used` */
	size_t used;
	byte_vec json; /* of the frame at hand, with a NUL behind it */
	byte_vec data;
};

/* Frames. */

bool pyspyd_frame_parse(const uint8_t *bytes, size_t n, uint32_t *ret_len, char *ret_letter) {
	if (n < PYSPYD_FRAME_HEAD)
		return false;
	*ret_len = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
	*ret_letter = (char)bytes[4];
	return true;
}

void pyspyd_frame_head(uint32_t len, char letter, uint8_t out[PYSPYD_FRAME_HEAD]) {
	out[0] = (uint8_t)(len >> 24);
	out[1] = (uint8_t)(len >> 16);
	out[2] = (uint8_t)(len >> 8);
	out[3] = (uint8_t)len;
	out[4] = (uint8_t)letter;
}

/* Bytes to and fro. */

struct wait {
	const volatile int *stop; /* may be NULL */
	uint64_t until_ns;        /* of clock_mono_ns; 0: no limit */
};

static int await(int fd, short events, const struct wait *wait) {
	for (;;) {
		struct pollfd poll_fd = { .fd = fd, .events = events };
		int n;

		if (wait->stop && *wait->stop)
			return -EINTR;
		if (wait->until_ns && clock_mono_ns() >= wait->until_ns)
			return -ETIMEDOUT;
		n = poll(&poll_fd, 1, LOOK_MS);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

static int send_all(int fd, const void *bytes, size_t len, const struct wait *wait) {
	const uint8_t *at = bytes;

	while (len) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		int r;

		if (n >= 0) {
			at += n;
			len -= (size_t)n;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		r = await(fd, POLLOUT, wait);
		if (r)
			return r;
	}
	return 0;
}

static int read_more(struct pyspyd_remote *remote, const struct wait *wait) {
	int r = vec_reserve(&remote->in, remote->in.n + READ_BYTES);

	while (!r) {
		ssize_t n = recv(remote->fd, remote->in.items + remote->in.n, READ_BYTES, MSG_DONTWAIT);

		if (n > 0) {
			remote->in.n += (size_t)n;
			return 0;
		}
		if (!n)
			return -ECONNRESET;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		r = await(remote->fd, POLLIN, wait);
	}
	return r;
}

static int need(struct pyspyd_remote *remote, size_t bytes, const struct wait *wait) {
	int r = 0;

	if (remote->used && remote->in.n - remote->used < bytes) {
		memmove(remote->in.items, remote->in.items + remote->used, remote->in.n - remote->used);
		remote->in.n -= remote->used;
		remote->used = 0;
	}
	while (!r && remote->in.n - remote->used < bytes)
		r = read_more(remote, wait);
	return r;
}

/* The next frame, which must have this letter, into `to`; a NUL stands behind it. */
static int read_frame(struct pyspyd_remote *remote, char letter, const struct wait *wait, byte_vec *to) {
	uint32_t len;
	char is;
	int r = need(remote, PYSPYD_FRAME_HEAD, wait);

	if (r)
		return r;
	pyspyd_frame_parse(remote->in.items + remote->used, PYSPYD_FRAME_HEAD, &len, &is);
	if (is != letter || len > PYSPYD_ANSWER_MAX)
		return -EPROTO;
	remote->used += PYSPYD_FRAME_HEAD;
	r = need(remote, len, wait);
	if (!r)
		r = vec_reserve(to, len + 1);
	if (r)
		return r;
	memcpy(to->items, remote->in.items + remote->used, len);
	to->items[len] = '\0';
	to->n = len;
	remote->used += len;
	return 0;
}

/* The next J frame as an object, the caller's. */
static int read_object(struct pyspyd_remote *remote, const struct wait *wait, json_t **ret_object) {
	json_t *object;
	int r = read_frame(remote, 'J', wait, &remote->json);

	if (r)
		return r;
	object = json_loadb((const char *)remote->json.items, remote->json.n, 0, NULL);
	if (!json_is_object(object)) {
		json_decref(object);
		return -EPROTO;
	}
	*ret_object = object;
	return 0;
}

/* Return: what an end says, 0 where nothing went wrong. */
static int end_of(const json_t *object, struct err *err) {
	const char *text = json_string_value(json_object_get(object, "error"));
	json_int_t code = json_integer_value(json_object_get(object, "code"));

	if (!text)
		return 0;
	if (!code || code < -4095 || code > 4095)
		code = -EPROTO;
	return err_set(err, (int)code, "the service says: %s", text);
}

/* Connecting. */

static int connect_to(const char *path, int *ret_fd, struct err *err) {
	/* How long connect() waits where the service's queue is full. */
	const struct timeval most = { .tv_sec = HELLO_NS / NS_PER_SEC };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return err_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: the path is too long for a socket", path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most));
	if (!connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		*ret_fd = take_fd(&fd);
		return 0;
	}
	if (errno == ENOENT || errno == ENOTDIR || errno == ECONNREFUSED)
		return err_set(err, errno == ECONNREFUSED ? -ECONNREFUSED : -ENOENT,
			"no service runs here (%s): start it with systemctl start pyspyd, or use `pyspyd watch`", path);
	return err_set(err, -errno, "cannot connect to the service at %s: %s", path,
		errno == EAGAIN ? "it is too busy" : strerror(errno));
}

static int check_hello(struct pyspyd_remote *remote, const json_t *hello, struct err *err) {
	const char *schema = json_string_value(json_object_get(hello, "schema"));
	const char *sees = json_string_value(json_object_get(hello, "sees"));

	if (json_is_true(json_object_get(hello, "end")))
		return end_of(hello, err) ?: -EPROTO;
	if (!schema || strcmp(schema, SCHEMA) != 0)
		return err_set(err, PYSPYD_E_UNSUPPORTED, "the service speaks %.40s, this program " SCHEMA,
			schema ? schema : "another language");
	remote->sees_all = sees && !strcmp(sees, "all");
	return 0;
}

static int read_hello(struct pyspyd_remote *remote, const char *path, const volatile int *stop, struct err *err) {
	const struct wait wait = { .stop = stop, .until_ns = clock_mono_ns() + HELLO_NS };
	json_t *hello;
	int r = read_object(remote, &wait, &hello);

	if (r)
		return err_set(err, r, "the service at %s does not answer: %s", path, strerror(-r));
	r = check_hello(remote, hello, err);
	json_decref(hello);
	return r;
}

int pyspyd_remote_open(const char *path, struct pyspyd_remote **ret_remote, struct err *err) {
	return pyspyd_remote_open_unless(path, NULL, ret_remote, err);
}

int pyspyd_remote_open_unless(
	const char *path, const volatile int *stop, struct pyspyd_remote **ret_remote, struct err *err) {
	struct pyspyd_remote *remote = calloc(1, sizeof(*remote));
	int r;

	if (!remote)
		return err_set(err, -ENOMEM, "out of memory");
	remote->fd = -1;
	if (!path)
		path = getenv("PYSPYD_SOCKET");
	if (!path || !*path)
		path = PYSPYD_SOCKET;
	r = connect_to(path, &remote->fd, err);
	if (!r)
		r = read_hello(remote, path, stop, err);
	if (r) {
		pyspyd_remote_close(remote);
		return r;
	}
	*ret_remote = remote;
	return 0;
}

void pyspyd_remote_close(struct pyspyd_remote *remote) {
	if (!remote)
		return;
	close_fd(&remote->fd);
	vec_free(&remote->in);
	vec_free(&remote->json);
	vec_free(&remote->data);
	free(remote);
}

bool pyspyd_remote_sees_all(const struct pyspyd_remote *remote) {
	return remote->sees_all;
}

/* Asking. */

static int send_request(struct pyspyd_remote *remote, const char *request, const volatile int *stop) {
	const struct wait wait = { .stop = stop, .until_ns = clock_mono_ns() + SEND_NS };
	uint8_t head[PYSPYD_FRAME_HEAD];
	size_t len = strlen(request);
	int r;

	if (len > PYSPYD_REQUEST_MAX)
		return -EMSGSIZE;
	pyspyd_frame_head((uint32_t)len, 'J', head);
	r = send_all(remote->fd, head, sizeof(head), &wait);
	return r ? r : send_all(remote->fd, request, len, &wait);
}

struct asking {
	int (*each)(void *userdata, const char *json, const void *data, size_t len);
	void *userdata;
	struct wait wait;
	bool ended;
	int result; /* of the end, or of `each` */
};

static int take_answer(struct pyspyd_remote *remote, struct asking *asking, struct err *err) {
	json_t *object;
	bool has_data;
	int r = read_object(remote, &asking->wait, &object);

	if (r)
		return r;
	asking->ended = json_is_true(json_object_get(object, "end"));
	if (asking->ended) {
		asking->result = end_of(object, err);
		remote->seq = (uint64_t)json_integer_value(json_object_get(object, "seq"));
	}
	has_data = json_object_get(object, "profile") != NULL;
	json_decref(object);
	if (asking->ended)
		return 0;
	if (has_data)
		r = read_frame(remote, 'B', &asking->wait, &remote->data);
	if (r)
		return r;
	asking->result = asking->each(asking->userdata, (const char *)remote->json.items,
		has_data ? remote->data.items : NULL, has_data ? remote->data.n : 0);
	asking->ended |= asking->result != 0;
	return 0;
}

int pyspyd_remote_ask(struct pyspyd_remote *remote, const char *request, const volatile int *stop,
	int (*each)(void *userdata, const char *json, const void *data, size_t len), void *userdata, struct err *err) {
	struct asking asking = { .each = each, .userdata = userdata, .wait = { .stop = stop } };
	int r = send_request(remote, request, stop);

	while (!r && !asking.ended)
		r = take_answer(remote, &asking, err);
	if (!r)
		return asking.result;
	if (r == -EINTR)
		return r;
	return err_set(err, r, "asking the service: %s",
		r == -ECONNRESET || r == -EPIPE ? "it closed the connection" : strerror(-r));
}

uint64_t pyspyd_remote_seq(const struct pyspyd_remote *remote) {
	return remote->seq;
}
