/* SPDX-License-Identifier: MIT */
/* Bytes that objects own outside themselves and that no reference leads to: those of bytearray, array.array and of
 * NumPy's arrays. io.BytesIO keeps an object of bytes; a bytearray does so too from 3.15 on.
 *
 * Behind the common head stand (CPython 3.6 to 3.14 Include/cpython/bytearrayobject.h, Modules/arraymodule.c, NumPy 1.7
 * to 2.3 numpy/ndarraytypes.h):
 *
 *   bytearray      length, bytes allocated, bytes
 *   array.array    length, items, items allocated, descriptor (a letter, then an int: the size of an item)
 *   numpy.ndarray  data, dimensions (int), their lengths, strides, base, descriptor, flags (int) */
#include "engine/leaks/follow.h"

#include "engine/base/cursor.h"

#define V3_15 0x030f0000
#define WORD sizeof(uint64_t)
#define ITEM_BYTES_AT 4 /* of the descriptor of an array */
#define ITEM_BYTES_MAX 64
#define ITEMS_MAX (UINT64_C(1) << 40)
#define DIMENSIONS_MAX 64
#define NUMPY_OWNS_DATA 4

bool is_buffer(enum heap_kind kind) {
	return kind == HEAP_BYTEARRAY || kind == HEAP_ARRAY || kind == HEAP_NDARRAY;
}

static int array_buffer(
	const struct py_reader *py, const uint8_t *object, size_t len, raddr *ret_addr, uint64_t *ret_bytes) {
	uint32_t at = py->layout.var_size + WORD, item_bytes;
	uint64_t items = peek_u64(object, len, at + WORD);
	int r = items && items < ITEMS_MAX ? mem_read(py->mem, peek_u64(object, len, at + 2 * WORD) + ITEM_BYTES_AT,
						     &item_bytes, sizeof(item_bytes))
					   : PY_E_TYPE;

	if (!r && (!item_bytes || item_bytes > ITEM_BYTES_MAX))
		r = PY_E_TYPE;
	if (r)
		return r;
	*ret_addr = peek_u64(object, len, at);
	*ret_bytes = items * item_bytes;
	return 0;
}

/* Strides may be negative, or 0; those of an array that owns its data lie behind the lengths. */
static int ndarray_buffer(
	const struct py_reader *py, const uint8_t *object, size_t len, raddr *ret_addr, uint64_t *ret_bytes) {
	uint32_t at = py->layout.object_size, dimensions = peek_u32(object, len, at + WORD);
	uint64_t lengths[2 * DIMENSIONS_MAX], bytes = 0;
	int r;

	if (!dimensions || dimensions > DIMENSIONS_MAX || !(peek_u32(object, len, at + 6 * WORD) & NUMPY_OWNS_DATA))
		return PY_E_TYPE;
	r = mem_read(py->mem, peek_u64(object, len, at + 2 * WORD), lengths, 2 * dimensions * WORD);
	if (r)
		return r;
	for (uint32_t i = 0; i < dimensions; i++) {
		int64_t stride = (int64_t)lengths[dimensions + i];

		stride = stride < 0 ? -stride : stride;
		if (lengths[i] >= ITEMS_MAX || (uint64_t)stride >= ITEMS_MAX / max_of(lengths[i], UINT64_C(1)))
			return PY_E_TYPE;
		bytes = max_of(bytes, lengths[i] * (uint64_t)stride);
	}
	*ret_addr = peek_u64(object, len, at);
	*ret_bytes = bytes;
	return bytes ? 0 : PY_E_TYPE;
}

int buffer_of(const struct py_reader *py, enum heap_kind kind, const uint8_t *object, size_t len, raddr *ret_addr,
	uint64_t *ret_bytes) {
	uint32_t at = py->layout.var_size + WORD;

	if (kind == HEAP_ARRAY)
		return array_buffer(py, object, len, ret_addr, ret_bytes);
	if (kind == HEAP_NDARRAY)
		return ndarray_buffer(py, object, len, ret_addr, ret_bytes);
	if (kind != HEAP_BYTEARRAY || py->version >= V3_15)
		return PY_E_TYPE;
	*ret_bytes = peek_u64(object, len, at);
	*ret_addr = peek_u64(object, len, at + WORD);
	return 0;
}
