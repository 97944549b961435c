/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BASE_STRBUF_H
#define PYSPYD_BASE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growing byte string, always NUL-terminated. Out of memory is sticky: later appends do nothing and `failed` stays
 * set, so that a writer checks once at the end. */
struct strbuf {
	char *data; /* NULL while empty */
	size_t len;
	size_t cap;
	bool failed;
};

void strbuf_deinit(struct strbuf *sb);
void strbuf_add(struct strbuf *sb, const char *bytes, size_t n);
void strbuf_adds(struct strbuf *sb, const char *s);
void strbuf_addf(struct strbuf *sb, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Appends one Unicode scalar value as UTF-8; what is none (surrogates, > U+10FFFF) becomes U+FFFD. */
void strbuf_add_char(struct strbuf *sb, uint32_t c);

/* Appends bytes that somebody else chose so that a terminal or a log line cannot be steered by them: control characters
 * (C0, DEL, C1), line and paragraph separators and bidirectional controls become \x1b or \u2028 forms; broken UTF-8
 * becomes U+FFFD. */
void strbuf_add_printable(struct strbuf *sb, const char *bytes, size_t n);

/* Appends bytes with broken UTF-8 replaced by U+FFFD; nothing else is changed (for JSON, whose writer escapes). */
void strbuf_add_utf8(struct strbuf *sb, const char *bytes, size_t n);

/* Return: the string (never NULL); belongs to the buffer. */
const char *strbuf_str(const struct strbuf *sb);

/* Return: the string, now the caller's to free(); NULL when out of memory. The buffer is empty afterwards. */
char *strbuf_take(struct strbuf *sb);

#endif
