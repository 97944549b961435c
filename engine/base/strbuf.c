/* SPDX-License-Identifier: MIT */
/* Growing strings, and making foreign text fit for a terminal. */
#include "engine/base/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void strbuf_deinit(struct strbuf *sb) {
	free(sb->data);
	*sb = (struct strbuf){ 0 };
}

static bool reserve(struct strbuf *sb, size_t more) {
	size_t cap = sb->cap ? sb->cap : 64;
	char *data;

	if (sb->failed || more >= SIZE_MAX / 2 - sb->len) {
		sb->failed = true;
		return false;
	}
	while (cap - sb->len <= more)
		cap *= 2;
	if (cap == sb->cap)
		return true;
	data = realloc(sb->data, cap);
	if (!data) {
		sb->failed = true;
		return false;
	}
	sb->data = data;
	sb->cap = cap;
	return true;
}

void strbuf_add(struct strbuf *sb, const char *bytes, size_t n) {
	if (!reserve(sb, n))
		return;
	if (n)
		memcpy(sb->data + sb->len, bytes, n);
	sb->len += n;
	sb->data[sb->len] = '\0';
}

void strbuf_adds(struct strbuf *sb, const char *s) {
	strbuf_add(sb, s, strlen(s));
}

void strbuf_addf(struct strbuf *sb, const char *format, ...) {
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n < 0 || !reserve(sb, (size_t)n))
		return;
	va_start(args, format);
	vsnprintf(sb->data + sb->len, (size_t)n + 1, format, args);
	va_end(args);
	sb->len += (size_t)n;
}

void strbuf_add_char(struct strbuf *sb, uint32_t c) {
	char out[4];
	size_t n = 0;

	if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		c = 0xfffd;
	if (c < 0x80) {
		out[n++] = (char)c;
	} else if (c < 0x800) {
		out[n++] = (char)(0xc0 | c >> 6);
		out[n++] = (char)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		out[n++] = (char)(0xe0 | c >> 12);
		out[n++] = (char)(0x80 | (c >> 6 & 0x3f));
		out[n++] = (char)(0x80 | (c & 0x3f));
	} else {
		out[n++] = (char)(0xf0 | c >> 18);
		out[n++] = (char)(0x80 | (c >> 12 & 0x3f));
		out[n++] = (char)(0x80 | (c >> 6 & 0x3f));
		out[n++] = (char)(0x80 | (c & 0x3f));
	}
	strbuf_add(sb, out, n);
}

/* Decodes one UTF-8 character. Return: its length in bytes, 0 where the bytes are not UTF-8. */
static size_t decode_char(const unsigned char *s, size_t n, uint32_t *ret_c) {
	static const uint32_t lowest[5] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
	uint32_t c;

	if (!len || len > n)
		return 0;
	c = len == 1 ? s[0] : s[0] & (0xffU >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < lowest[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*ret_c = c;
	return len;
}

static bool is_steering(uint32_t c) {
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) ||
		(c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

static void add_foreign(struct strbuf *sb, const char *bytes, size_t n, bool printable) {
	const unsigned char *s = (const unsigned char *)bytes;

	while (n) {
		uint32_t c;
		size_t len = decode_char(s, n, &c);

		if (!len) {
			strbuf_add_char(sb, 0xfffd);
			len = 1;
		} else if (printable && is_steering(c)) {
			strbuf_addf(sb, c < 0x100 ? "\\x%02x" : "\\u%04x", c);
		} else {
			strbuf_add(sb, (const char *)s, len);
		}
		s += len;
		n -= len;
	}
}

void strbuf_add_printable(struct strbuf *sb, const char *bytes, size_t n) {
	add_foreign(sb, bytes, n, true);
}

void strbuf_add_utf8(struct strbuf *sb, const char *bytes, size_t n) {
	add_foreign(sb, bytes, n, false);
}

const char *strbuf_str(const struct strbuf *sb) {
	return sb->data ? sb->data : "";
}

char *strbuf_take(struct strbuf *sb) {
	char *data = NULL;

	if (!sb->failed)
		data = sb->data ? sb->data : strdup("");
	if (data == sb->data)
		sb->data = NULL;
	strbuf_deinit(sb);
	return data;
}
