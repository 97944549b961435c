/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BASE_CURSOR_H
#define PYSPYD_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The one way through bytes that others wrote: a position in a buffer that cannot leave it.
 * Every read either succeeds whole and moves, or returns false and does not move. */

struct cursor {
	const uint8_t *data;
	size_t len;
	size_t pos;
};

static inline struct cursor cursor_of(const void *data, size_t len) {
	return (struct cursor){ .data = data, .len = len };
}

static inline size_t cursor_left(const struct cursor *c) {
	return c->len - c->pos;
}

static inline bool cursor_bytes(struct cursor *c, void *out, size_t n) {
	if (cursor_left(c) < n)
		return false;
	memcpy(out, c->data + c->pos, n);
	c->pos += n;
	return true;
}

static inline bool cursor_skip(struct cursor *c, size_t n) {
	if (cursor_left(c) < n)
		return false;
	c->pos += n;
	return true;
}

static inline bool cursor_u8(struct cursor *c, uint8_t *out) {
	return cursor_bytes(c, out, sizeof(*out));
}

static inline bool cursor_i8(struct cursor *c, int8_t *out) {
	return cursor_bytes(c, out, sizeof(*out));
}

static inline bool cursor_u64(struct cursor *c, uint64_t *out) {
	return cursor_bytes(c, out, sizeof(*out));
}

/* Values at an offset of a copied structure: 0 where the field would leave the copy. Decoders check the copy's length
 * once against what they need; these are the second line. */
static inline uint64_t peek_u64(const void *data, size_t len, uint64_t offset) {
	uint64_t value = 0;

	if (offset <= len && len - offset >= sizeof(value))
		memcpy(&value, (const uint8_t *)data + offset, sizeof(value));
	return value;
}

static inline uint32_t peek_u32(const void *data, size_t len, uint64_t offset) {
	uint32_t value = 0;

	if (offset <= len && len - offset >= sizeof(value))
		memcpy(&value, (const uint8_t *)data + offset, sizeof(value));
	return value;
}

static inline uint16_t peek_u16(const void *data, size_t len, uint64_t offset) {
	uint16_t value = 0;

	if (offset <= len && len - offset >= sizeof(value))
		memcpy(&value, (const uint8_t *)data + offset, sizeof(value));
	return value;
}

static inline uint8_t peek_u8(const void *data, size_t len, uint64_t offset) {
	return offset < len ? ((const uint8_t *)data)[offset] : 0;
}

#endif
