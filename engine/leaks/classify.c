/* SPDX-License-Identifier: MIT */
/* Whether a block holds an object. Before the object's head stand, by its type, links for the garbage collector and
 * addresses of a dict or of weak references; the word behind its count of references is the address of its type. A
 * block is an object's where a type is found at the distance that this very type asks for.
 *
 * With the debug hooks of the allocators (PYTHONMALLOC=debug, debug builds) 16 bytes stand before all that: the size
 * asked for, a letter for the allocator and a fence of 7 equal bytes. */
#include "engine/leaks/follow.h"

#include "engine/base/cursor.h"

#define V3_12 0x030c0000
#define V3_14 0x030e0000
#define REFERENCES_MAX (UINT64_C(1) << 33)
#define LOG2_BYTES_MAX 47
#define ITEMS_MAX_OTHER 4096 /* generators have another word where the number of items should be */
#define ADDRESS_MIN 0x10000
#define HOOK_BYTES 16
#define FENCE 0xfdfdfdfdfdfdfdULL
#define FENCE_OLD 0xfbfbfbfbfbfbfbULL /* to 3.7 */

/* Free-threaded builds count those of the object's own thread (all bits set: immortal) and those of others, above two
 * flags; only the sum of both is never negative. From 3.14 on the word's upper half has flags. */
int64_t object_references(const struct py_reader *py, const uint8_t *object, size_t len) {
	uint64_t count = peek_u64(object, len, py->layout.object_type - sizeof(uint64_t));

	if (py->flavour & LAYOUT_FREE_THREADED)
		return ((int64_t)count >> 2) +
			peek_u32(object, len, py->layout.object_type - sizeof(uint64_t) - sizeof(uint32_t));
	return (int64_t)(py->version >= V3_14 ? (uint32_t)count : count);
}

/* An object kept for reuse, and a freed one, has none, or a link in this place. From 3.14 on the word's upper half
 * has flags. In an array of addresses stands one, which is as small as a count where a program is not loaded at
 * random: what leads to mapped memory is no count. (Of objects with millions of references a few are missed so.) */
bool object_counts(struct census_run *run, const uint8_t *object, size_t len) {
	const struct py_reader *py = run->py;
	uint64_t count = peek_u64(object, len, py->layout.object_type - sizeof(uint64_t));

	if (py->flavour & LAYOUT_FREE_THREADED)
		return object_references(py, object, len) > 0 &&
			(count < ADDRESS_MIN || !regions_find(&run->regions, count));
	if (py->version >= V3_14 ? !(uint32_t)count || count & 0xffff00000000ULL : !count || count >= REFERENCES_MAX)
		return false;
	return count < ADDRESS_MIN || !regions_find(&run->regions, count);
}

static uint64_t text_bytes(const struct layout *l, const uint8_t *head, size_t len) {
	bool compact = text_state(l, head, len, l->unicode_compact_bit, 1);
	bool ascii = text_state(l, head, len, l->unicode_ascii_bit, 1);
	uint64_t chars = peek_u64(head, len, l->unicode_length);
	unsigned kind = text_state(l, head, len, l->unicode_kind_bit, 7);

	if (chars >> LOG2_BYTES_MAX)
		return UINT64_MAX;
	return (ascii ? l->unicode_ascii_size : l->unicode_compact_size) + (compact ? (chars + 1) * kind : 0);
}

uint64_t object_bytes(const struct py_reader *py, const struct heap_type *type, const uint8_t *head, size_t len) {
	uint64_t n = 0, least = (uint64_t)type->head.basicsize + type->before;

	if (type->head.flags & TYPE_UNICODE)
		return text_bytes(&py->layout, head, len);
	if (!type->head.itemsize)
		return least;
	if (type->head.flags & TYPE_LONG && py->version >= V3_12)
		n = peek_u64(head, len, py->layout.long_tag) >> 3;
	else
		n = peek_u64(head, len, py->layout.var_size);
	if ((int64_t)n < 0)
		n = -n;
	if (n <= UINT32_MAX && (type->head.flags & (TYPE_TUPLE | TYPE_BYTES | TYPE_LONG) || n < ITEMS_MAX_OTHER))
		return least + n * (uint64_t)type->head.itemsize;
	return type->head.flags & (TYPE_TUPLE | TYPE_BYTES | TYPE_LONG) ? UINT64_MAX : least;
}

uint32_t block_hook_bytes(const uint8_t *bytes, size_t len) {
	uint64_t word = peek_u64(bytes, len, 8);
	uint64_t fence = word >> 8;
	uint8_t letter = (uint8_t)word;

	return (fence == FENCE || fence == FENCE_OLD) && (letter == 'o' || letter == 'm' || letter == 'r') ? HOOK_BYTES
													   : 0;
}

int object_recognise(struct census_run *run, const uint8_t *bytes, size_t len, uint64_t size, uint32_t *ret_type,
	uint32_t *ret_offset) {
	const struct py_reader *py = run->py;
	uint32_t hooks = block_hook_bytes(bytes, len);
	static const uint32_t ways[] = { 0, 16, 32, 48 };

	*ret_type = TYPE_NONE;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		size_t at = hooks + ways[i];
		uint32_t type;
		int r;

		if (at + py->layout.object_size > len)
			break;
		r = heap_types_find(&run->types, peek_u64(bytes, len, at + py->layout.object_type), &type);
		if (r)
			return r;
		if (type == TYPE_NONE || run->types.items.items[type].before != ways[i] ||
			!object_counts(run, bytes + at, len - at) ||
			object_bytes(py, &run->types.items.items[type], bytes + at, len - at) > size)
			continue;
		*ret_type = type;
		*ret_offset = (uint32_t)at;
		return 0;
	}
	return 0;
}
