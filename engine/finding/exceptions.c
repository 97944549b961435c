/* SPDX-License-Identifier: MIT */
/* Exceptions as a dump shows them:
 *
 *   Handles app.ConfigError: no port
 *     load (/srv/app/config.py:17)
 *     main (/srv/app/app.py:40)
 *     Note: while reading config.ini
 *     Raised from KeyError: 'port'
 *       lookup (/srv/app/config.py:31)
 *
 * As everywhere in a dump the most recent call comes first: a traceback read from its end. What an exception was raised
 * from, or came in the way of, stands below it, further in. */
#include "engine/finding/exceptions.h"

#include "engine/base/util.h"
#include "engine/finding/stack_json.h"
#include "engine/finding/stack_text.h"
#include <inttypes.h>
#include <string.h>

#define INDENT_MAX 12U /* steps; deeper ones stay there */
#define MESSAGE_MAX 4096

static json_t *exception_json(const struct pyspyd_exception *exception);

static json_t *state_json(enum pyspyd_exception_state state) {
	switch (state) {
	case PYSPYD_EXCEPTION_RAISED: return json_string("raised");
	case PYSPYD_EXCEPTION_HANDLED: return json_string("handled");
	case PYSPYD_EXCEPTION_LINKED: break;
	}
	return json_null();
}

static json_t *notes_json(const struct pyspyd_exception *exception) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < exception->notes_n; i++)
		ok = !json_array_append_new(array, json_text(exception->notes[i]));
	return json_done(ok, array);
}

static json_t *linked_json(const struct pyspyd_exception *exception) {
	return exception ? exception_json(exception) : json_null();
}

static bool put_flag(bool ok, json_t *object, const char *key, bool flag) {
	return flag ? json_put(ok, object, key, json_true()) : ok;
}

static json_t *exception_json(const struct pyspyd_exception *exception) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "state", state_json(exception->state));

	ok = json_put(ok, object, "type", json_text(exception->type));
	ok = json_put(ok, object, "message", json_text(exception->message));
	ok = json_put(ok, object, "notes", notes_json(exception));
	ok = json_put(ok, object, "traceback", stack_json_frames(exception->traceback, exception->traceback_n));
	if (exception->traceback_omitted) {
		ok = json_put(ok, object, "traceback_gap", json_count(exception->traceback_gap));
		ok = json_put(ok, object, "traceback_omitted", json_count(exception->traceback_omitted));
	}
	ok = json_put(ok, object, "cause", linked_json(exception->cause));
	ok = json_put(ok, object, "context", linked_json(exception->context));
	if (exception->members_total) {
		ok = json_put(ok, object, "members", exceptions_json(exception->members, exception->members_n));
		ok = json_put(ok, object, "members_total", json_count(exception->members_total));
	}
	ok = put_flag(ok, object, "own_str", exception->own_str);
	ok = put_flag(ok, object, "repeated", exception->repeated);
	ok = put_flag(ok, object, "incomplete", exception->incomplete);
	return json_done(ok, object);
}

json_t *exceptions_json(const struct pyspyd_exception *exceptions, size_t n) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < n; i++)
		ok = !json_array_append_new(array, exception_json(&exceptions[i]));
	return json_done(ok, array);
}

struct page {
	struct strbuf *sb;
	bool colour;
	unsigned indent;
};

static void begin_line(const struct page *page) {
	for (unsigned i = 0; i <= min_of(page->indent, INDENT_MAX); i++)
		strbuf_adds(page->sb, "  ");
}

static void add_headline(const struct page *page, const char *relation, const struct pyspyd_exception *exception) {
	begin_line(page);
	strbuf_adds(page->sb, relation);
	text_style(page->sb, page->colour, TEXT_YELLOW);
	text_add(page->sb, exception->type, TEXT_NAME_MAX);
	text_style(page->sb, page->colour, TEXT_PLAIN);
	if (exception->message && *exception->message) {
		strbuf_adds(page->sb, ": ");
		text_add(page->sb, exception->message, MESSAGE_MAX);
	}
	if (exception->own_str)
		strbuf_adds(page->sb, " (its arguments: it has a __str__ of its own)");
	if (exception->repeated)
		strbuf_adds(page->sb, " (shown above)");
	strbuf_adds(page->sb, "\n");
}

static void add_traceback(const struct page *page, const struct pyspyd_exception *exception) {
	for (size_t i = 0; i < exception->traceback_n; i++) {
		begin_line(page);
		if (exception->traceback_omitted && i == exception->traceback_gap) {
			strbuf_addf(page->sb, "… %zu more …\n", exception->traceback_omitted);
			begin_line(page);
		}
		text_frame(page->sb, &exception->traceback[i], false, page->colour);
		strbuf_adds(page->sb, "\n");
	}
	for (size_t i = 0; i < exception->notes_n; i++) {
		begin_line(page);
		strbuf_adds(page->sb, "Note: ");
		text_add(page->sb, exception->notes[i], MESSAGE_MAX);
		strbuf_adds(page->sb, "\n");
	}
}

static void add_exception(struct page page, const char *relation, const struct pyspyd_exception *exception) {
	add_headline(&page, relation, exception);
	page.indent++;
	add_traceback(&page, exception);
	for (size_t i = 0; i < exception->members_n; i++)
		add_exception(page, "Member ", &exception->members[i]);
	if (exception->cause)
		add_exception(page, "Raised from ", exception->cause);
	if (exception->context)
		add_exception(page, "Raised while this was handled: ", exception->context);
	if (exception->incomplete) {
		begin_line(&page);
		strbuf_adds(page.sb, "… (incomplete: there is more, beyond the limits or not to be read)\n");
	}
}

void exceptions_text(struct strbuf *sb, const struct pyspyd_exception *exceptions, size_t n, bool colour) {
	const struct page page = { .sb = sb, .colour = colour };

	for (size_t i = 0; i < n; i++)
		add_exception(
			page, exceptions[i].state == PYSPYD_EXCEPTION_RAISED ? "Raises " : "Handles ", &exceptions[i]);
}
