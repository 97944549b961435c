/* SPDX-License-Identifier: MIT */
/* Requests out of JSON:
 *
 *   {"request": "findings", "since_ns": 1700000000000000000, "kind": "deadlock", "follow": true}
 *
 * Each key is a line in a table: its type, its place, and which requests have it. */
#include "daemon/requests.h"

#include "pyspyd/text.h"
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 128 /* bytes of a kind or an id */

enum key_type { KEY_NUMBER, KEY_PID, KEY_TEXT, KEY_FLAG };

#define OF(what) (1U << (what))

static const struct key {
	const char *name;
	enum key_type type;
	size_t offset;
	unsigned requests;
} keys[] = {
	{ "after_seq", KEY_NUMBER, offsetof(struct request, after_seq), OF(REQUEST_FINDINGS) },
	{ "since_ns", KEY_NUMBER, offsetof(struct request, since_ns), OF(REQUEST_FINDINGS) | OF(REQUEST_PROFILES) },
	{ "until_ns", KEY_NUMBER, offsetof(struct request, until_ns), OF(REQUEST_FINDINGS) | OF(REQUEST_PROFILES) },
	{ "most", KEY_NUMBER, offsetof(struct request, most), OF(REQUEST_FINDINGS) },
	{ "kind", KEY_TEXT, offsetof(struct request, kind), OF(REQUEST_FINDINGS) },
	{ "id", KEY_TEXT, offsetof(struct request, id), OF(REQUEST_FINDINGS) },
	{ "pid", KEY_PID, offsetof(struct request, pid), OF(REQUEST_FINDINGS) | OF(REQUEST_PROFILES) },
	{ "open", KEY_FLAG, offsetof(struct request, open), OF(REQUEST_FINDINGS) },
	{ "latest", KEY_FLAG, offsetof(struct request, latest), OF(REQUEST_FINDINGS) },
	{ "follow", KEY_FLAG, offsetof(struct request, follow), OF(REQUEST_FINDINGS) },
};

static const char *const requests[] = {
	[REQUEST_FINDINGS] = "findings",
	[REQUEST_PROCESSES] = "processes",
	[REQUEST_PROFILES] = "profiles",
	[REQUEST_STATUS] = "status",
};

static int complain(struct err *err, const char *what, const char *foreign) {
	char *short_name = strndup(foreign, TEXT_MAX);
	char *name = short_name ? pyspyd_printable(short_name) : NULL;
	int r = err_set(err, PYSPYD_E_USAGE, "%s \"%s\"", what, name ? name : "");

	free(name);
	free(short_name);
	return r;
}

static int find_request(const char *name, enum request_what *ret_what, struct err *err) {
	if (!name)
		return err_set(err, PYSPYD_E_USAGE, "\"request\" is missing, or is no text");
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
		if (!strcmp(name, requests[i])) {
			*ret_what = (enum request_what)i;
			return 0;
		}
	return complain(err, "unknown request", name);
}

static const struct key *find_key(const char *name) {
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (!strcmp(name, keys[i].name))
			return &keys[i];
	return NULL;
}

static bool set_text(const json_t *value, char **at) {
	if (!json_is_string(value) || !json_string_length(value) || json_string_length(value) > TEXT_MAX)
		return false;
	*at = strdup(json_string_value(value));
	return *at;
}

static bool set(const struct key *key, const json_t *value, struct request *request) {
	void *at = (char *)request + key->offset;
	json_int_t number = json_integer_value(value);

	switch (key->type) {
	case KEY_NUMBER: *(uint64_t *)at = (uint64_t)number; return json_is_integer(value) && number >= 0;
	case KEY_PID: *(pid_t *)at = (pid_t)number; return json_is_integer(value) && number > 0 && number <= INT32_MAX;
	case KEY_TEXT: return set_text(value, at);
	case KEY_FLAG: *(bool *)at = json_is_true(value); return json_is_boolean(value);
	}
	return false;
}

static int fill(json_t *object, struct request *request, struct err *err) {
	const char *name;
	json_t *value;
	int r = find_request(json_string_value(json_object_get(object, "request")), &request->what, err);

	if (r)
		return r;
	json_object_foreach(object, name, value) {
		const struct key *key = find_key(name);

		if (!strcmp(name, "request"))
			continue;
		if (!key || !(key->requests & OF(request->what)))
			return complain(err, "this request has no", name);
		if (!set(key, value, request))
			return complain(err, "bad value of", name);
	}
	if (request->what == REQUEST_PROFILES && !request->pid)
		return err_set(err, PYSPYD_E_USAGE, "\"pid\" is missing");
	return 0;
}

/* jansson goes no deeper than JSON_PARSER_MAX_DEPTH, refuses what is no UTF-8, and NULs in texts. */
int request_parse(const char *text, size_t len, struct request *ret_request, struct err *err) {
	struct request request = { 0 };
	json_error_t error;
	json_t *object = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
	int r;

	if (!object)
		return json_error_code(&error) == json_error_out_of_memory
			? -ENOMEM
			: err_set(err, PYSPYD_E_USAGE, "the request is no JSON");
	r = json_is_object(object) ? fill(object, &request, err)
				   : err_set(err, PYSPYD_E_USAGE, "the request is no JSON object");
	json_decref(object);
	if (r)
		request_deinit(&request);
	else
		*ret_request = request;
	return r;
}

void request_deinit(struct request *request) {
	free(request->kind);
	free(request->id);
	request->kind = request->id = NULL;
}
