/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CPYTHON_OBJECT_HEAD_H
#define PYSPYD_CPYTHON_OBJECT_HEAD_H

#include "engine/base/cursor.h"
#include "engine/cpython/objects.h"

/* The beginnings of an object and of its type, each copied with one read: what the decoders of objects.h share. */

/* tp_flags, the same from 3.6 on (CPython 3.13 Include/object.h) */
#define TYPE_INLINE_VALUES (1UL << 2) /* 3.13+ */
#define TYPE_MANAGED_DICT (1UL << 4)  /* 3.11+ */
#define TYPE_HEAP (1UL << 9)
#define TYPE_LONG (1UL << 24)
#define TYPE_LIST (1UL << 25)
#define TYPE_TUPLE (1UL << 26)
#define TYPE_BYTES (1UL << 27)
#define TYPE_UNICODE (1UL << 28)
#define TYPE_DICT (1UL << 29)
#define TYPE_BASE_EXCEPTION (1UL << 30)

#define OBJECT_HEAD_BYTES 256

struct object_head {
	raddr addr;
	raddr type;
	size_t len; /* bytes of the object that are in `bytes`; more than asked for where memory allowed */
	uint8_t bytes[OBJECT_HEAD_BYTES];
};

struct type_head {
	raddr addr;
	raddr name; /* tp_name, a C string */
	raddr dict; /* tp_dict */
	uint64_t flags;
	int64_t basicsize;
	int64_t itemsize;
	int64_t dictoffset;
};

/* Copies at least `need` bytes from `addr` on, and as many as `want` where they can be had. Return: 0 and *ret_len, or
 * as mem_read_many. */
int object_read_over(const struct py_reader *py, raddr addr, void *buf, size_t need, size_t want, size_t *ret_len);

/* Copies an object's beginning, at least `need` bytes. Return: 0; PY_E_TYPE for NULL; as mem_read_many. */
int object_head_read(const struct py_reader *py, raddr object, size_t need, struct object_head *ret);

int type_head_read(const struct py_reader *py, raddr type, struct type_head *ret);

/* Both, and whether the object is of a type with one of these flags. Return: as above; PY_E_TYPE where it is not. */
int object_head_read_as(const struct py_reader *py, raddr object, uint64_t flags, size_t need, struct object_head *ret);

static inline uint64_t object_u64(const struct object_head *head, uint32_t offset) {
	return peek_u64(head->bytes, head->len, offset);
}

/* ob_size, or another length: a count that no object of a sane process exceeds. Return: 0 or PY_E_TYPE. */
int object_count(const struct object_head *head, uint32_t offset, size_t *ret);

/* Bits of a str's state, in the first `len` bytes of it; `bit` counts from the state's start. */
static inline unsigned text_state(
	const struct layout *layout, const uint8_t *text, size_t len, uint32_t bit, unsigned mask) {
	return peek_u16(text, len, (uint64_t)layout->unicode_state + bit / 8) >> bit % 8 & mask;
}

/* What py_value_describe knows of an object already. As the functions of objects.h, without reading the head again. */
int text_read_head(const struct py_reader *py, const struct object_head *head, size_t max_chars, struct strbuf *out);

/* An int's digits: at most `max` of 30 bits each, low first. Return: 0; PY_E_TRUNCATED with *ret_n and *ret_negative
 * set and no digits where it has more; as mem_read_many. */
int long_digits_read(const struct py_reader *py, const struct object_head *head, uint32_t *digits, size_t max,
	size_t *ret_n, bool *ret_negative);

#endif
