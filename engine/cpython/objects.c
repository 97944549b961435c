/* SPDX-License-Identifier: MIT */
/* Types, ints and sequences. An int keeps its magnitude in digits of 30 bits (the only size that 64-bit builds of the
 * versions we read use unless they are asked to), its sign in ob_size up to 3.11 and in the low bits of lv_tag since.
 */
#include "engine/cpython/object_head.h"

#include <errno.h>

#define DIGIT_BITS 30
#define TAG_COUNT_SHIFT 3 /* CPython 3.12 Include/internal/pycore_long.h */
#define TAG_SIGN_MASK 3
#define TAG_NEGATIVE 2
#define INT64_DIGITS 3

int py_type_of(const struct py_reader *py, raddr object, raddr *ret_type) {
	if (!object)
		return PY_E_TYPE;
	return mem_read_u64(py->mem, object + py->layout.object_type, ret_type);
}

/* CPython 3.14 Include/refcount.h: flags in the upper 16 bits, the count in the lower 32; before, all 64 are the count,
 * and no sane one needs more than 32. */
#define COUNT_MASK 0xffffffffffffULL

bool py_object_is_live(const struct py_reader *py, raddr object) {
	uint64_t count;

	if (py->flavour & LAYOUT_FREE_THREADED)
		return true;
	if (!object || mem_read_u64(py->mem, object + py->layout.object_type - sizeof(count), &count))
		return false;
	count &= COUNT_MASK;
	return count && count <= UINT32_MAX;
}

int py_type_name(const struct py_reader *py, raddr object, char *buf, size_t size) {
	struct type_head head;
	raddr type;
	int r;

	r = py_type_of(py, object, &type);
	if (!r)
		r = type_head_read(py, type, &head);
	if (r)
		return r;
	return head.name ? mem_read_cstr(py->mem, head.name, buf, size) : PY_E_TYPE;
}

static void long_sizes(const struct py_reader *py, const struct object_head *head, uint64_t *count, bool *negative) {
	if (layout_has(py->layout.long_tag)) {
		uint64_t tag = object_u64(head, py->layout.long_tag);

		*count = tag >> TAG_COUNT_SHIFT;
		*negative = (tag & TAG_SIGN_MASK) == TAG_NEGATIVE;
	} else {
		uint64_t size = object_u64(head, py->layout.var_size);

		*negative = (int64_t)size < 0;
		*count = *negative ? -size : size;
	}
}

int long_digits_read(const struct py_reader *py, const struct object_head *head, uint32_t *digits, size_t max,
	size_t *ret_n, bool *ret_negative) {
	uint64_t count;
	bool negative;
	int r = 0;

	long_sizes(py, head, &count, &negative);
	if (count > max)
		r = PY_E_TRUNCATED;
	else if (py->layout.long_digits + count * sizeof(*digits) <= head->len)
		for (uint64_t i = 0; i < count; i++)
			digits[i] = peek_u32(head->bytes, head->len, py->layout.long_digits + i * sizeof(*digits));
	else
		r = mem_read(py->mem, head->addr + py->layout.long_digits, digits, count * sizeof(*digits));
	if (r && r != PY_E_TRUNCATED)
		return r;
	*ret_n = count;
	*ret_negative = negative;
	return r;
}

int py_long_read(const struct py_reader *py, raddr object, int64_t *ret) {
	uint32_t digits[INT64_DIGITS];
	struct object_head head;
	unsigned __int128 value = 0;
	bool negative;
	size_t n;
	int r;

	r = object_head_read_as(py, object, TYPE_LONG, py->layout.long_digits, &head);
	if (!r)
		r = long_digits_read(py, &head, digits, INT64_DIGITS, &n, &negative);
	if (r)
		return r;
	while (n--)
		value = value << DIGIT_BITS | digits[n];
	if (value > (uint64_t)INT64_MAX + negative)
		return PY_E_TRUNCATED;
	*ret = (int64_t)(negative ? -(uint64_t)value : (uint64_t)value);
	return 0;
}

int py_sequence_read(const struct py_reader *py, raddr object, raddr *items, size_t max, size_t *ret_n) {
	struct object_head head;
	struct type_head type;
	raddr first;
	size_t n;
	int r;

	r = object_head_read(py, object, py->layout.list_items + sizeof(raddr), &head);
	if (!r)
		r = type_head_read(py, head.type, &type);
	if (!r && !(type.flags & (TYPE_TUPLE | TYPE_LIST)))
		r = PY_E_TYPE;
	if (!r)
		r = object_count(&head, py->layout.var_size, &n);
	if (r)
		return r;
	if (type.flags & TYPE_TUPLE)
		first = object + py->layout.tuple_items;
	else
		first = object_u64(&head, py->layout.list_items);
	if (min_of(n, max)) {
		r = mem_read(py->mem, first, items, min_of(n, max) * sizeof(*items));
		if (r)
			return r;
	}
	*ret_n = n;
	return 0;
}
