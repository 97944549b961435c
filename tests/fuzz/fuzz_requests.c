/* SPDX-License-Identifier: MIT */
/* Requests of whoever connects to the service. What is taken for a request keeps within its bounds; what is refused is
 * refused with a text that a terminal can bear. */
#include "daemon/requests.c" /* the daemon is no library */
#include "pyspyd/remote.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct request *request) {
	if (request->what > REQUEST_STATUS || request->pid < 0 || request->since_ns > INT64_MAX)
		abort();
	if ((request->kind && strlen(request->kind) > TEXT_MAX) || (request->id && strlen(request->id) > TEXT_MAX))
		abort();
	if (request->what == REQUEST_PROFILES && !request->pid)
		abort();
}

static void check_text(const struct err *err) {
	if (!err->text[0])
		abort();
	for (const char *c = err->text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct request request;
	struct err err = { 0 };
	uint8_t head[PYSPYD_FRAME_HEAD];
	uint32_t len;
	char letter;

	if (pyspyd_frame_parse(data, size, &len, &letter)) {
		pyspyd_frame_head(len, letter, head);
		if (memcmp(head, data, sizeof(head)) != 0)
			abort();
	}
	if (size > PYSPYD_REQUEST_MAX)
		return 0;
	if (request_parse((const char *)data, size, &request, &err)) {
		check_text(&err);
		return 0;
	}
	check(&request);
	request_deinit(&request);
	return 0;
}
