/* SPDX-License-Identifier: MIT */
/* str and bytes. A str keeps its characters right behind its header (compact: nearly all of them) or elsewhere (made by
 * the old C interfaces, and instances of subclasses); one, two or four bytes a character. A small one comes with the
 * header's read, the rest is read in blocks, so that a length that lies costs no memory.
 *
 * Strings that 3.11 and older have not made "ready" yet hold only wchar_t characters. */
#include "engine/cpython/object_head.h"

#include <errno.h>
#include <string.h>

#define BLOCK_BYTES 4096
#define LAST_WITH_WSTR 0x030bffff

struct text_shape {
	raddr data;
	size_t length; /* characters */
	unsigned kind; /* bytes a character: 1, 2, 4 */
};

/* wstr and wstr_length are the last members of their structures. */
static int shape_not_ready(const struct py_reader *py, const struct object_head *head, struct text_shape *shape) {
	if (py->version > LAST_WITH_WSTR)
		return PY_E_TYPE;
	shape->kind = sizeof(wchar_t);
	shape->data = object_u64(head, py->layout.unicode_ascii_size - sizeof(raddr));
	return object_count(head, py->layout.unicode_compact_size - sizeof(uint64_t), &shape->length);
}

static int shape_of(const struct py_reader *py, const struct object_head *head, struct text_shape *shape) {
	const struct layout *layout = &py->layout;
	bool compact = text_state(layout, head->bytes, head->len, layout->unicode_compact_bit, 1);
	bool ascii = text_state(layout, head->bytes, head->len, layout->unicode_ascii_bit, 1);

	shape->kind = text_state(layout, head->bytes, head->len, layout->unicode_kind_bit, 7);
	if (!shape->kind && !compact)
		return shape_not_ready(py, head, shape);
	if (shape->kind != 1 && shape->kind != 2 && shape->kind != 4)
		return PY_E_TYPE;
	if (!compact)
		shape->data = object_u64(head, layout->unicode_data);
	else
		shape->data = head->addr + (ascii ? layout->unicode_ascii_size : layout->unicode_compact_size);
	return object_count(head, layout->unicode_length, &shape->length);
}

static void add_chars(struct strbuf *out, const uint8_t *bytes, size_t chars, unsigned kind) {
	for (size_t i = 0; i < chars; i++) {
		uint32_t c = 0;

		memcpy(&c, bytes + i * kind, kind);
		strbuf_add_char(out, c);
	}
}

static int add_blocks(const struct py_reader *py, const struct text_shape *shape, size_t chars, struct strbuf *out) {
	uint8_t block[BLOCK_BYTES];

	for (size_t done = 0; done < chars && !out->failed;) {
		size_t n = min_of(chars - done, sizeof(block) / shape->kind);
		int r = mem_read(py->mem, shape->data + done * shape->kind, block, n * shape->kind);

		if (r)
			return r;
		add_chars(out, block, n, shape->kind);
		done += n;
	}
	return 0;
}

int text_read_head(const struct py_reader *py, const struct object_head *head, size_t max_chars, struct strbuf *out) {
	struct text_shape shape;
	size_t chars;
	int r;

	r = shape_of(py, head, &shape);
	if (r)
		return r;
	chars = min_of(shape.length, max_chars);
	if (shape.data >= head->addr && shape.data - head->addr <= head->len &&
		chars <= (head->len - (shape.data - head->addr)) / shape.kind)
		add_chars(out, head->bytes + (shape.data - head->addr), chars, shape.kind);
	else
		r = add_blocks(py, &shape, chars, out);
	if (out->failed)
		return -ENOMEM;
	if (r)
		return r;
	return chars < shape.length ? PY_E_TRUNCATED : 0;
}

int py_text_read(const struct py_reader *py, raddr object, size_t max_chars, struct strbuf *out) {
	struct object_head head;
	int r;

	r = object_head_read_as(py, object, TYPE_UNICODE, py->layout.unicode_ascii_size, &head);
	return r ? r : text_read_head(py, &head, max_chars, out);
}

int py_bytes_read(const struct py_reader *py, raddr object, size_t max_bytes, uint8_t **ret_data, size_t *ret_len) {
	_free_ uint8_t *data = NULL;
	struct object_head head;
	size_t len;
	int r;

	r = object_head_read_as(py, object, TYPE_BYTES, py->layout.bytes_data, &head);
	if (!r)
		r = object_count(&head, py->layout.var_size, &len);
	if (r)
		return r;
	if (len > max_bytes)
		return PY_E_TRUNCATED;
	data = malloc(len + 1);
	if (!data)
		return -ENOMEM;
	if (len <= head.len - py->layout.bytes_data)
		memcpy(data, head.bytes + py->layout.bytes_data, len);
	else if ((r = mem_read(py->mem, object + py->layout.bytes_data, data, len)))
		return r;
	*ret_data = take_ptr(data);
	*ret_len = len;
	return 0;
}
