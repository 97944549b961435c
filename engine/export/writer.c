/* SPDX-License-Identifier: MIT */
/* Text that goes out in pieces. What is appended gathers in a string buffer that is written and emptied when it has
 * grown to a chunk; a failed write or allocation is remembered and everything later is dropped. */
#include "engine/export/writer.h"

#include "engine/export/export.h"
#include <errno.h>
#include <jansson.h>
#include <string.h>

#define CHUNK (64U << 10)

static void flush(struct writer *writer) {
	if (writer->text.failed && !writer->error)
		writer->error = -ENOMEM;
	if (!writer->error && writer->text.len)
		writer->error = export_write_all(writer->fd, writer->text.data, writer->text.len);
	writer->text.len = 0;
}

int writer_pass(struct writer *writer) {
	if (writer->text.len >= CHUNK || writer->text.failed)
		flush(writer);
	return writer->error;
}

int writer_finish(struct writer *writer) {
	flush(writer);
	strbuf_deinit(&writer->text);
	return writer->error;
}

static int append(const char *bytes, size_t n, void *userdata) {
	strbuf_add(userdata, bytes, n);
	return 0;
}

void writer_json(struct writer *writer, const char *s) {
	struct strbuf clean = { 0 };
	json_t *string;

	strbuf_add_printable(&clean, s, strlen(s));
	string = clean.failed ? NULL : json_stringn(strbuf_str(&clean), clean.len);
	if (!string || json_dump_callback(string, append, &writer->text, JSON_ENCODE_ANY))
		writer->text.failed = true;
	json_decref(string);
	strbuf_deinit(&clean);
}

void writer_json_member(struct writer *writer, const char *key, const struct strbuf *value) {
	strbuf_addf(&writer->text, "\"%s\":", key);
	writer_json(writer, strbuf_str(value));
	writer->text.failed |= value->failed;
}

/* U+FFFE and U+FFFF are UTF-8 but not XML. */
void writer_markup(struct writer *writer, const char *s, size_t n) {
	struct strbuf *out = &writer->text;

	for (size_t i = 0; i < n; i++) {
		if (s[i] == '&')
			strbuf_adds(out, "&amp;");
		else if (s[i] == '<')
			strbuf_adds(out, "&lt;");
		else if (s[i] == '>')
			strbuf_adds(out, "&gt;");
		else if (s[i] == '"')
			strbuf_adds(out, "&quot;");
		else if (s[i] == '\'')
			strbuf_adds(out, "&#39;");
		else if (n - i >= 3 && (!memcmp(s + i, "\xef\xbf\xbe", 3) || !memcmp(s + i, "\xef\xbf\xbf", 3)))
			strbuf_add_char(out, 0xfffd), i += 2;
		else
			strbuf_add(out, s + i, 1);
	}
}
