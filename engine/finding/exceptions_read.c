/* SPDX-License-Identifier: MIT */
/* Exceptions of a dump's threads, with those that they lead to, back out of their JSON. Recurses no deeper than there
 * may be exceptions of one thread. */
#include "engine/finding/document.h"

#include "engine/base/limits.h"
#include "engine/base/util.h"
#include <errno.h>
#include <string.h>

static void read_exception(struct document *document, const json_t *object, void *item);

static bool read_flag(struct document *document, const json_t *object, const char *key) {
	return json_object_get(object, key) && document_bool(document, object, key);
}

static void read_notes(struct document *document, const json_t *object, struct pyspyd_exception *exception) {
	json_t *array = document_get(document, object, "notes");
	size_t n = json_array_size(array);

	if (!document->r && !json_is_array(array))
		document_fail(document, "notes", "is no list");
	exception->notes = document->r ? NULL : calloc(n + 1, sizeof(*exception->notes));
	if (!document->r && !exception->notes)
		document->r = -ENOMEM;
	for (size_t i = 0; i < n && !document->r; i++) {
		const char *note = json_string_value(json_array_get(array, i));

		exception->notes[i] = note ? strdup(note) : NULL;
		exception->notes_n = i + 1;
		if (!note)
			document_fail(document, "notes", "is not all text");
		else if (!exception->notes[i])
			document->r = -ENOMEM;
	}
}

static struct pyspyd_exception *read_linked(struct document *document, const json_t *object, const char *key) {
	const json_t *from = document_object(document, object, key);
	struct pyspyd_exception *exception = from ? calloc(1, sizeof(*exception)) : NULL;

	if (from && !exception)
		document->r = -ENOMEM;
	if (exception)
		read_exception(document, from, exception);
	return exception;
}

static enum pyspyd_exception_state read_state(struct document *document, const json_t *object) {
	static const char *const states[] = {
		[PYSPYD_EXCEPTION_LINKED] = "", /* null */
		[PYSPYD_EXCEPTION_RAISED] = "raised",
		[PYSPYD_EXCEPTION_HANDLED] = "handled",
	};

	return (enum pyspyd_exception_state)document_choice(document, object, "state", states, ARRAY_SIZE(states));
}

static void read_traceback(struct document *document, const json_t *object, struct pyspyd_exception *exception) {
	exception->traceback = document_array(
		document, object, "traceback", sizeof(*exception->traceback), document_frame, &exception->traceback_n);
	if (!json_object_get(object, "traceback_gap"))
		return;
	exception->traceback_gap = (size_t)document_count(document, object, "traceback_gap");
	exception->traceback_omitted = (size_t)document_count(document, object, "traceback_omitted");
}

static void read_members(struct document *document, const json_t *object, struct pyspyd_exception *exception) {
	if (!json_object_get(object, "members"))
		return;
	exception->members = document_array(
		document, object, "members", sizeof(*exception->members), read_exception, &exception->members_n);
	exception->members_total = (size_t)document_count(document, object, "members_total");
}

static void read_exception(struct document *document, const json_t *object, void *item) {
	struct pyspyd_exception *exception = item;

	if (++document->depth > LIMIT_EXCEPTIONS)
		document_fail(document, "exceptions", "is too deep");
	exception->state = read_state(document, object);
	exception->type = document_string(document, object, "type");
	exception->message = document_text(document, object, "message");
	read_notes(document, object, exception);
	read_traceback(document, object, exception);
	exception->cause = read_linked(document, object, "cause");
	exception->context = read_linked(document, object, "context");
	read_members(document, object, exception);
	exception->own_str = read_flag(document, object, "own_str");
	exception->repeated = read_flag(document, object, "repeated");
	exception->incomplete = read_flag(document, object, "incomplete");
	document->depth--;
}

void document_exceptions(struct document *document, const json_t *object, struct pyspyd_thread *thread) {
	thread->exceptions_known = true;
	thread->exceptions = document_array(
		document, object, "exceptions", sizeof(*thread->exceptions), read_exception, &thread->exceptions_n);
}
