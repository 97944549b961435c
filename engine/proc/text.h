/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_PROC_TEXT_H
#define PYSPYD_PROC_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A position in a text of /proc that cannot leave it. Private to engine/proc. Readers of values move only where they
 * succeed; numbers that do not fit fail. */

struct text {
	const char *at, *end;
};

static inline struct text text_of(const char *data, size_t len) {
	return (struct text){ .at = data, .end = data + len };
}

static inline size_t text_left(const struct text *t) {
	return (size_t)(t->end - t->at);
}

static inline bool text_char(struct text *t, char c) {
	if (t->at == t->end || *t->at != c)
		return false;
	t->at++;
	return true;
}

static inline void text_blanks(struct text *t) {
	while (t->at < t->end && (*t->at == ' ' || *t->at == '\t'))
		t->at++;
}

/* Takes the next line, without its newline; the last one may lack it. Return: false at the end. */
static inline bool text_line(struct text *t, struct text *ret_line) {
	const char *newline;

	if (t->at == t->end)
		return false;
	newline = memchr(t->at, '\n', text_left(t));
	*ret_line = (struct text){ .at = t->at, .end = newline ? newline : t->end };
	t->at = newline ? newline + 1 : t->end;
	return true;
}

static inline int text_digit(char c) {
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return 16;
}

static inline bool text_number(struct text *t, unsigned base, uint64_t *ret) {
	const char *p = t->at;
	uint64_t value = 0;

	for (; p < t->end && (unsigned)text_digit(*p) < base; p++)
		if (__builtin_mul_overflow(value, (uint64_t)base, &value) ||
			__builtin_add_overflow(value, (uint64_t)text_digit(*p), &value))
			return false;
	if (p == t->at)
		return false;
	t->at = p;
	*ret = value;
	return true;
}

static inline bool text_u64(struct text *t, uint64_t *ret) {
	return text_number(t, 10, ret);
}

static inline bool text_hex(struct text *t, uint64_t *ret) {
	return text_number(t, 16, ret);
}

/* As text_u64 for ids: what does not fit an int fails. */
static inline bool text_int(struct text *t, int *ret) {
	struct text at = *t;
	uint64_t value;

	if (!text_number(&at, 10, &value) || value > INT32_MAX)
		return false;
	*t = at;
	*ret = (int)value;
	return true;
}

#endif
