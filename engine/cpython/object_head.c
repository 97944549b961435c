/* SPDX-License-Identifier: MIT */
/* Beginnings of objects and types. An object's size is known only after its type was read, so more is copied than it
 * may have; where that reaches into memory that is not there, what lies on the same page. */
#include "engine/cpython/object_head.h"

#include <errno.h>

#define PAGE_BYTES 4096
#define TYPE_HEAD_BYTES 512
#define COUNT_MAX (UINT64_C(1) << 48) /* more than an address space holds */

int object_read_over(const struct py_reader *py, raddr addr, void *buf, size_t need, size_t want, size_t *ret_len) {
	size_t len = max_of(need, want);
	int r = mem_read(py->mem, addr, buf, len);

	if (r == MEM_E_FAULT && len > need) {
		size_t to_page_end = PAGE_BYTES - (addr + need - 1) % PAGE_BYTES - 1;

		len = need + min_of(to_page_end, len - need);
		r = mem_read(py->mem, addr, buf, len);
	}
	if (r == MEM_E_FAULT && len > need) {
		len = need;
		r = mem_read(py->mem, addr, buf, len);
	}
	if (!r)
		*ret_len = len;
	return r;
}

int object_head_read(const struct py_reader *py, raddr object, size_t need, struct object_head *ret) {
	int r;

	if (!object || need > sizeof(ret->bytes))
		return PY_E_TYPE;
	need = max_of(need, (size_t)1);
	r = object_read_over(py, object, ret->bytes, need, sizeof(ret->bytes), &ret->len);
	if (r)
		return r;
	ret->addr = object;
	ret->type = object_u64(ret, py->layout.object_type);
	return 0;
}

int type_head_read(const struct py_reader *py, raddr type, struct type_head *ret) {
	uint8_t bytes[TYPE_HEAD_BYTES];
	size_t need = (size_t)py->layout.type_dictoffset + sizeof(uint64_t);
	int r;

	if (!type || need > sizeof(bytes))
		return PY_E_TYPE;
	r = mem_read(py->mem, type, bytes, need);
	if (r)
		return r;
	*ret = (struct type_head){
		.addr = type,
		.name = peek_u64(bytes, need, py->layout.type_name),
		.dict = peek_u64(bytes, need, py->layout.type_dict),
		.flags = peek_u64(bytes, need, py->layout.type_flags),
		.basicsize = (int64_t)peek_u64(bytes, need, py->layout.type_basicsize),
		.itemsize = (int64_t)peek_u64(bytes, need, py->layout.type_itemsize),
		.dictoffset = (int64_t)peek_u64(bytes, need, py->layout.type_dictoffset),
	};
	return 0;
}

int object_head_read_as(
	const struct py_reader *py, raddr object, uint64_t flags, size_t need, struct object_head *ret) {
	struct type_head type;
	int r;

	r = object_head_read(py, object, need, ret);
	if (r)
		return r;
	r = type_head_read(py, ret->type, &type);
	if (r)
		return r;
	return type.flags & flags ? 0 : PY_E_TYPE;
}

int object_count(const struct object_head *head, uint32_t offset, size_t *ret) {
	uint64_t count = object_u64(head, offset);

	if (count > COUNT_MAX)
		return PY_E_TYPE;
	*ret = count;
	return 0;
}
