/* SPDX-License-Identifier: MIT */
/* Lists, tuples, dicts, sets and deques: how long they are and where the tables of the large ones lie; and the
 * buffers of objects that have such. A table in a pool is a block as any other and searched there. */
#include "engine/leaks/follow.h"

#include "engine/base/cursor.h"

#define WORD sizeof(uint64_t)
#define KEYS_HEAD_BYTES 64
#define LOG2_SIZE_MAX 40
#define BLOCK_BYTES_MAX 512 /* of pymalloc */
#define LENGTH_MAX (UINT64_C(1) << 40)
#define DEQUE_BLOCKS_MAX (1U << 20)
#define CONTAINERS_MAX (1U << 20)

/* The bytes of a dict's keys object by its head; 0 where that is none. */
static uint64_t keys_bytes(const struct layout *l, const uint8_t *head, size_t len) {
	uint64_t size, index, entry = 3 * WORD;

	if (layout_has(l->keys_size)) {
		size = peek_u64(head, len, l->keys_size);
		if (size >> LOG2_SIZE_MAX)
			return 0;
		index = size * (size <= 0xff ? 1 : size <= 0xffff ? 2 : size <= 0xffffffff ? 4 : 8);
	} else {
		unsigned log2_size = peek_u8(head, len, l->keys_log2_size);
		unsigned log2_index = peek_u8(head, len, l->keys_log2_index_bytes);

		if (log2_size > LOG2_SIZE_MAX || log2_index > LOG2_SIZE_MAX + 3)
			return 0;
		size = UINT64_C(1) << log2_size;
		index = UINT64_C(1) << log2_index;
		if (peek_u8(head, len, l->keys_kind))
			entry = 2 * WORD;
	}
	return l->keys_indices + index + size * 2 / 3 * entry;
}

static int dict_table(struct census_run *run, raddr keys, uint64_t *ret_bytes) {
	const struct layout *l = &run->py->layout;
	uint8_t head[KEYS_HEAD_BYTES];
	int r;

	if (l->keys_indices > sizeof(head))
		return PY_E_TYPE;
	r = mem_read(run->py->mem, keys, head, l->keys_indices);
	if (!r)
		*ret_bytes = keys_bytes(l, head, l->keys_indices);
	return r;
}

/* Blocks are linked to the right. One that was met before ends the walk: as every address is met once, all walks
 * together are bounded. */
static int deque_tables(struct census_run *run, raddr owner, raddr block, uint64_t length, uint64_t *bytes) {
	const struct layout *l = &run->py->layout;
	uint64_t block_bytes = l->deque_block_right + WORD;
	uint64_t blocks = length * WORD / (l->deque_block_right - l->deque_block_data) + 1;
	int r = 0;

	if (blocks > DEQUE_BLOCKS_MAX) {
		run->census->incomplete = true;
		blocks = DEQUE_BLOCKS_MAX;
	}
	for (; !r && blocks && block; blocks--) {
		r = follow_table(run, block, block_bytes, owner, true);
		if (!r)
			r = mem_read_u64(run->py->mem, block + l->deque_block_right, &block);
		if (!r)
			*bytes += block_bytes;
	}
	return r;
}

/* Tables of up to 512 bytes are counted as blocks. */
static bool is_block(const struct census_run *run, const struct region *region, raddr addr) {
	const struct mimalloc_page *page;

	if (!run->heap)
		return region_is_pool(region, addr, run->pool_bytes);
	page = mimalloc_page_of(run->heap, addr);
	return !page || page->size <= BLOCK_BYTES_MAX;
}

/* One table that lies in one piece. Small ones are blocks. */
static int add_table(struct census_run *run, raddr owner, raddr addr, uint64_t len, bool words, uint64_t *bytes) {
	const struct region *region = census_region(run, addr);
	int r;

	if (region && (!region->heap || is_block(run, region, addr)))
		return 0;
	r = follow_table(run, addr, len, owner, words);
	if (!r)
		*bytes += len;
	return r;
}

static int dict_table_of(
	struct census_run *run, const uint8_t *object, size_t len, raddr *ret_addr, uint64_t *ret_bytes) {
	const struct layout *l = &run->py->layout;
	raddr keys = peek_u64(object, len, l->dict_keys);
	const struct region *region = census_region(run, keys);
	uint64_t bytes = 0;
	int r;

	/* Split ones share their keys; those of empty ones are static. */
	if (peek_u64(object, len, l->dict_values) || (region && (!region->heap || is_block(run, region, keys))))
		return PY_E_TYPE;
	r = dict_table(run, keys, &bytes);
	if (r)
		return r;
	*ret_addr = keys;
	*ret_bytes = bytes;
	return 0;
}

static uint64_t length_of(const struct layout *l, enum heap_kind kind, const uint8_t *object, size_t len) {
	switch (kind) {
	case HEAP_DICT: return peek_u64(object, len, l->dict_used);
	case HEAP_SET: return layout_has(l->set_used) ? peek_u64(object, len, l->set_used) : 0;
	case HEAP_LIST:
	case HEAP_TUPLE:
	case HEAP_DEQUE: return peek_u64(object, len, l->var_size);
	case HEAP_OTHER:
	case HEAP_TEXT:
	case HEAP_BYTEARRAY:
	case HEAP_ARRAY:
	case HEAP_NDARRAY: break;
	}
	return 0;
}

int container_table(struct census_run *run, enum heap_kind kind, const uint8_t *object, size_t len, raddr *ret_addr,
	uint64_t *ret_bytes) {
	const struct layout *l = &run->py->layout;

	switch (kind) {
	case HEAP_DICT: return dict_table_of(run, object, len, ret_addr, ret_bytes);
	case HEAP_LIST:
		*ret_addr = peek_u64(object, len, l->list_items);
		*ret_bytes = (peek_u64(object, len, l->list_items + WORD) & (LENGTH_MAX - 1)) * WORD;
		return 0;
	case HEAP_SET:
		if (!layout_has(l->set_mask) || !layout_has(l->set_table))
			return PY_E_TYPE;
		*ret_addr = peek_u64(object, len, l->set_table);
		*ret_bytes = ((peek_u64(object, len, l->set_mask) & (LENGTH_MAX - 1)) + 1) * 2 * WORD;
		return 0;
	case HEAP_BYTEARRAY:
	case HEAP_ARRAY:
	case HEAP_NDARRAY: return buffer_of(run->py, kind, object, len, ret_addr, ret_bytes);
	case HEAP_DEQUE:
	case HEAP_TUPLE:
	case HEAP_OTHER:
	case HEAP_TEXT: break;
	}
	return PY_E_TYPE;
}

static int tables_add(
	struct census_run *run, raddr addr, enum heap_kind kind, const uint8_t *object, size_t len, uint64_t *bytes) {
	const struct layout *l = &run->py->layout;
	uint64_t table_bytes;
	raddr table;
	int r;

	if (kind == HEAP_DEQUE)
		return layout_has(l->deque_leftblock) && layout_has(l->deque_block_right)
			? deque_tables(run, addr, peek_u64(object, len, l->deque_leftblock),
				  peek_u64(object, len, l->var_size), bytes)
			: 0;
	r = container_table(run, kind, object, len, &table, &table_bytes);
	return r ? r : add_table(run, addr, table, table_bytes, !is_buffer(kind), bytes);
}

int container_again(struct census_run *run, raddr owner, raddr begin) {
	uint64_t table_bytes, bytes = 0;
	uint8_t head[CENSUS_HEAD_BYTES];
	enum heap_kind kind = HEAP_OTHER;
	uint32_t type = TYPE_NONE;
	raddr table;
	int r = mem_read(run->py->mem, owner, head, sizeof(head));

	if (!r)
		r = heap_types_find(&run->types, peek_u64(head, sizeof(head), run->py->layout.object_type), &type);
	if (!r && type != TYPE_NONE && object_counts(run, head, sizeof(head)))
		kind = run->types.items.items[type].kind;
	if (!r)
		r = container_table(run, kind, head, sizeof(head), &table, &table_bytes);
	if (!r && table != begin)
		r = add_table(run, owner, table, table_bytes, true, &bytes);
	return r == MEM_E_FAULT || r == PY_E_TYPE ? 0 : r;
}

int container_add(
	struct census_run *run, raddr addr, uint32_t type, const uint8_t *object, size_t len, uint64_t *bytes) {
	enum heap_kind kind = run->types.items.items[type].kind;
	uint64_t length = length_of(&run->py->layout, kind, object, len);
	int r;

	if (length > LENGTH_MAX)
		return 0;
	r = tables_add(run, addr, kind, object, len, bytes);
	if (r && r != MEM_E_FAULT && r != PY_E_TYPE)
		return r;
	if (length < CENSUS_CONTAINER_MIN)
		return 0;
	if (run->census->containers.n >= CONTAINERS_MAX) {
		run->census->incomplete = true;
		return 0;
	}
	return vec_push(&run->census->containers,
		(struct census_container){ .addr = addr, .type = type, .length = length, .bytes = *bytes });
}
