/* SPDX-License-Identifier: MIT */
/* A service that says anything: the client of the socket, and the text made of findings that came over it. Byte 0
 * chooses whether the input stands for all that the service says, for what follows a good greeting, for answers whose
 * frames have the right lengths (each ends at a newline), or for a finding alone. */
#include "pyspyd/remote.h"

#include "pyspyd/finding.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char hello[] = "{\"schema\":\"pyspyd.socket/1\",\"sees\":\"own\"}";
static char path[64];
static int listener = -1;

struct input {
	const uint8_t *data;
	size_t size;
	unsigned way;
};

static void send_frame(int fd, char letter, const void *bytes, size_t len) {
	uint8_t head[PYSPYD_FRAME_HEAD];

	pyspyd_frame_head((uint32_t)len, letter, head);
	if (send(fd, head, sizeof(head), MSG_NOSIGNAL) > 0)
		(void)!send(fd, bytes, len, MSG_NOSIGNAL);
}

static void send_lines(int fd, const struct input *input) {
	const uint8_t *at = input->data, *end = at + input->size;

	while (at < end) {
		const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
		size_t len = (size_t)((newline ? newline : end) - at);

		send_frame(fd, len && *at == 'B' ? 'B' : 'J', at, len);
		at += len + 1;
	}
}

static void *serve(void *data) {
	const struct input *input = data;
	int fd = accept(listener, NULL, NULL);

	if (fd < 0)
		return NULL;
	if (input->way)
		send_frame(fd, 'J', hello, sizeof(hello) - 1);
	if (input->way == 2)
		send_lines(fd, input);
	else
		(void)!send(fd, input->data, input->size, MSG_NOSIGNAL);
	shutdown(fd, SHUT_WR);
	close(fd);
	return NULL;
}

static void listen_once(void) {
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (listener >= 0)
		return;
	snprintf(path, sizeof(path), "/tmp/fuzz_remote.%d", (int)getpid());
	memcpy(address.sun_path, path, sizeof(path));
	unlink(path);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 8))
		abort();
}

static int take(void *userdata, const char *json, const void *data, size_t len) {
	unsigned *left = userdata;

	if (!json || (len && !data) || len > PYSPYD_ANSWER_MAX)
		abort();
	return --*left ? 0 : 7;
}

static void be_client(const struct input *input) {
	struct pyspyd_remote *remote = NULL;
	struct err err = { 0 };
	unsigned left = 4;

	if (pyspyd_remote_open(path, &remote, &err))
		return;
	if (!pyspyd_remote_ask(remote, "{}", NULL, take, &left, &err))
		(void)pyspyd_remote_seq(remote);
	pyspyd_remote_close(remote);
	(void)input;
}

static void read_finding(const struct input *input) {
	char *json = strndup((const char *)input->data, input->size);
	char *text = json ? pyspyd_finding_text_of_json(json, false) : NULL;

	for (const char *c = text; c && *c; c++)
		if (*c != '\n' && ((unsigned char)*c < ' ' || *c == 0x7f))
			abort();
	free(text);
	free(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct input input = { data + 1, size - 1, size ? data[0] % 4 : 0 };
	pthread_t thread;

	if (!size || size > 65536)
		return 0;
	if (input.way == 3) {
		read_finding(&input);
		return 0;
	}
	listen_once();
	if (pthread_create(&thread, NULL, serve, &input))
		abort();
	be_client(&input);
	pthread_join(thread, NULL);
	return 0;
}
