/* SPDX-License-Identifier: MIT */
/* The socket's language: heads of frames, requests, frames on their way out. */
#include "pyspyd/remote.h"

#include "daemon/outbox.h"
#include "daemon/requests.h"
#include "engine/base/util.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

Test(remote, head_and_back) {
	static const uint32_t lengths[] = { 0, 1, 255, 256, 65536, 0x01020304, UINT32_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint8_t head[PYSPYD_FRAME_HEAD + 1] = { 0 };
		uint32_t len = 77;
		char letter = '?';

		pyspyd_frame_head(lengths[i], 'B', head);
		for (size_t n = 0; n < PYSPYD_FRAME_HEAD; n++)
			cr_assert_not(pyspyd_frame_parse(head, n, &len, &letter));
		cr_assert_eq(len, 77u);
		cr_assert(pyspyd_frame_parse(head, sizeof(head), &len, &letter));
		cr_assert_eq(len, lengths[i]);
		cr_assert_eq(letter, 'B');
	}
}

Test(remote, head_is_big_endian) {
	static const uint8_t bytes[] = { 0x01, 0x02, 0x03, 0x04, 'J' };
	uint32_t len;
	char letter;

	cr_assert(pyspyd_frame_parse(bytes, sizeof(bytes), &len, &letter));
	cr_assert_eq(len, 0x01020304u);
	cr_assert_eq(letter, 'J');
}

static int parse(const char *text, struct request *ret_request, struct err *err) {
	return request_parse(text, strlen(text), ret_request, err);
}

Test(requests, findings_with_everything) {
	struct request request;
	struct err err = { 0 };

	cr_assert_eq(parse("{\"request\":\"findings\",\"after_seq\":7,\"since_ns\":1,\"until_ns\":9223372036854775807,"
			   "\"kind\":\"deadlock\",\"pid\":4711,\"id\":\"01J\",\"open\":true,\"latest\":false,"
			   "\"follow\":true,\"most\":5}",
			     &request, &err),
		0, "%s", err.text);
	cr_assert_eq(request.what, REQUEST_FINDINGS);
	cr_assert_eq(request.after_seq, 7u);
	cr_assert_eq(request.since_ns, 1u);
	cr_assert_eq(request.until_ns, (uint64_t)INT64_MAX);
	cr_assert_str_eq(request.kind, "deadlock");
	cr_assert_str_eq(request.id, "01J");
	cr_assert_eq(request.pid, 4711);
	cr_assert(request.open && !request.latest && request.follow);
	cr_assert_eq(request.most, 5u);
	request_deinit(&request);
	request_deinit(&request);
}

Test(requests, least_of_each) {
	static const char *const least[] = { "{\"request\":\"findings\"}", "{\"request\":\"processes\"}",
		"{\"request\":\"profiles\",\"pid\":1}", "{\"request\":\"status\"}" };

	for (size_t i = 0; i < ARRAY_SIZE(least); i++) {
		struct request request;

		cr_assert_eq(parse(least[i], &request, NULL), 0, "%s", least[i]);
		cr_assert_eq(request.what, (enum request_what)i);
		cr_assert_null(request.kind);
		cr_assert_eq(request.since_ns, 0u);
		request_deinit(&request);
	}
}

Test(requests, what_is_none_is_refused_with_a_reason) {
	static const char *const bad[][2] = {
		{ "", "no JSON" },
		{ "{", "no JSON" },
		{ "nonsense", "no JSON" },
		{ "{\"request\":\"status\"}x", "no JSON" },
		{ "{\"request\":\"status\",\"request\":\"status\"}", "no JSON" },
		{ "{\"request\":\"\xff\"}", "no JSON" },
		{ "[]", "no JSON object" },
		{ "\"status\"", "no JSON" },
		{ "{}", "\"request\" is missing" },
		{ "{\"request\":7}", "\"request\" is missing" },
		{ "{\"request\":\"shutdown\"}", "unknown request \"shutdown\"" },
		{ "{\"request\":\"\\u001b[2J\"}", "unknown request \"\\x1b[2J\"" },
		{ "{\"request\":\"status\",\"pid\":1}", "no \"pid\"" },
		{ "{\"request\":\"findings\",\"Kind\":\"x\"}", "no \"Kind\"" },
		{ "{\"request\":\"findings\",\"kind\":7}", "bad value of \"kind\"" },
		{ "{\"request\":\"findings\",\"kind\":\"\"}", "bad value of \"kind\"" },
		{ "{\"request\":\"findings\",\"since_ns\":-1}", "bad value of \"since_ns\"" },
		{ "{\"request\":\"findings\",\"since_ns\":1.5}", "bad value of \"since_ns\"" },
		{ "{\"request\":\"findings\",\"since_ns\":9223372036854775808}", "no JSON" },
		{ "{\"request\":\"findings\",\"since_ns\":\"1\"}", "bad value of \"since_ns\"" },
		{ "{\"request\":\"findings\",\"pid\":0}", "bad value of \"pid\"" },
		{ "{\"request\":\"findings\",\"pid\":4294967297}", "bad value of \"pid\"" },
		{ "{\"request\":\"findings\",\"open\":1}", "bad value of \"open\"" },
		{ "{\"request\":\"findings\",\"id\":\"a\\u0000b\"}", "no JSON" },
		{ "{\"request\":\"profiles\"}", "\"pid\" is missing" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct request request = { .pid = 99 };
		struct err err = { 0 };

		cr_assert_eq(parse(bad[i][0], &request, &err), PYSPYD_E_USAGE, "%s", bad[i][0]);
		cr_assert_not_null(strstr(err.text, bad[i][1]), "%s: %s", bad[i][0], err.text);
		cr_assert_eq(request.pid, 99);
	}
}

Test(requests, deep_and_long_ones_end) {
	struct request request;
	enum { LEN = 60000 };
	_free_ char *text = calloc(1, LEN + 1);

	memset(text, '[', LEN);
	cr_assert_eq(parse(text, &request, NULL), PYSPYD_E_USAGE);
	memset(text, 'a', LEN);
	memcpy(text, "{\"request\":\"", 12);
	memcpy(text + LEN - 2, "\"}", 2);
	cr_assert_eq(parse(text, &request, NULL), PYSPYD_E_USAGE);
}

/* What comes out at the other end, at most `size` bytes. */
static size_t take(int fd, uint8_t *bytes, size_t size) {
	ssize_t n = recv(fd, bytes, size, MSG_DONTWAIT);

	return n > 0 ? (size_t)n : 0;
}

Test(outbox, frames_come_out_in_order) {
	struct outbox outbox = { 0 };
	uint8_t bytes[64];
	int fds[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	cr_assert_eq(outbox_send(&outbox, fds[0]), 0);
	cr_assert_eq(outbox_put(&outbox, 'J', "{}", 2), 0);
	cr_assert_eq(outbox_begin(&outbox), 0);
	cr_assert_eq(outbox_add(&outbox, "gone", 4), 0);
	outbox_drop(&outbox);
	cr_assert_eq(outbox_begin(&outbox), 0);
	cr_assert_eq(outbox_add(&outbox, "ab", 2), 0);
	cr_assert_eq(outbox_add(&outbox, "c", 1), 0);
	outbox_end(&outbox, 'B');
	cr_assert_eq(outbox_waiting(&outbox), 15u);
	cr_assert_eq(outbox_send(&outbox, fds[0]), 15);
	cr_assert_eq(outbox_waiting(&outbox), 0u);
	cr_assert_eq(take(fds[1], bytes, sizeof(bytes)), 15u);
	cr_assert_eq(memcmp(bytes, "\0\0\0\2J{}\0\0\0\3Babc", 15), 0);
	outbox_deinit(&outbox);
	close(fds[0]);
	close(fds[1]);
}

Test(outbox, a_reader_that_is_slow_gets_all) {
	static uint8_t sent[1 << 20], bytes[sizeof(sent) + PYSPYD_FRAME_HEAD];
	struct outbox outbox = { 0 };
	size_t got = 0;
	int fds[2];

	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 7 + (i >> 8));
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	cr_assert_eq(outbox_put(&outbox, 'B', sent, sizeof(sent)), 0);
	while (got < sizeof(bytes)) {
		ssize_t n = outbox_send(&outbox, fds[0]);
		size_t more = take(fds[1], bytes + got, 1000);

		cr_assert(n >= 0 && (n || more || outbox_waiting(&outbox)));
		got += more;
	}
	cr_assert_eq(memcmp(bytes + PYSPYD_FRAME_HEAD, sent, sizeof(sent)), 0);
	cr_assert_eq(outbox_waiting(&outbox), 0u);
	outbox_deinit(&outbox);
	close(fds[0]);
	close(fds[1]);
}

Test(outbox, what_is_too_large_is_not_begun) {
	struct outbox outbox = { 0 };
	_free_ uint8_t *large = calloc(1, PYSPYD_ANSWER_MAX + 1);

	cr_assert_eq(outbox_put(&outbox, 'J', "x", 1), 0);
	cr_assert_eq(outbox_put(&outbox, 'B', large, PYSPYD_ANSWER_MAX + 1), -EMSGSIZE);
	cr_assert_eq(outbox_waiting(&outbox), 6u);
	cr_assert_eq(outbox_put(&outbox, 'B', large, PYSPYD_ANSWER_MAX), 0);
	cr_assert_eq(outbox_waiting(&outbox), 6u + PYSPYD_FRAME_HEAD + PYSPYD_ANSWER_MAX);
	outbox_deinit(&outbox);
}

Test(outbox, a_peer_that_is_gone_is_an_error) {
	struct outbox outbox = { 0 };
	int fds[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	close(fds[1]);
	cr_assert_eq(outbox_put(&outbox, 'J', "x", 1), 0);
	cr_assert_eq(outbox_send(&outbox, fds[0]), -EPIPE);
	outbox_deinit(&outbox);
	close(fds[0]);
}
