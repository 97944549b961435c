/* SPDX-License-Identifier: MIT */
/* Recognises pools. No symbol leads to them: any place in writable memory that is aligned like a pool is asked whether
 * its first words can be a pool's header. The distance of the last block from the pool's end, the class of size and the
 * state of the free list have to agree, which nothing but a pool's header does by chance. */
#include "engine/leaks/pools.h"

#include "engine/base/cursor.h"
#include <string.h>

#define V3_10 0x030a0000
#define BLOCK_BYTES_MAX 512
#define ARENAS_MAX (1U << 24)

/* struct pool_header, the same since 3.6. */
enum {
	AT_COUNT = 0,
	AT_FREEBLOCK = 8,
	AT_ARENA = 32,
	AT_CLASS = 36,
	AT_NEXT = 40,
	AT_NEXT_MAX = 44,
};

uint32_t pool_bytes_of(uint32_t version) {
	return version < V3_10 ? 4U << 10 : 16U << 10;
}

/* Blocks are multiples of 16 bytes, to 3.7.3 of 8: the distance from the pool's end says the size itself. */
static bool size_is_sane(uint32_t size, uint32_t size_class) {
	return size && size <= BLOCK_BYTES_MAX && size_class < BLOCK_BYTES_MAX / 8 &&
		(size == (size_class + 1) * 16 || size == (size_class + 1) * 8);
}

static bool is_block(raddr at, raddr pool, const struct pool *p) {
	uint64_t offset = at - pool - POOL_HEAD_BYTES;

	return at >= pool + POOL_HEAD_BYTES && offset % p->size == 0 && offset / p->size < p->begun;
}

bool pool_recognise(const uint8_t *head, raddr addr, uint32_t pool_bytes, struct pool *ret) {
	uint32_t next = peek_u32(head, POOL_HEAD_BYTES, AT_NEXT), last = peek_u32(head, POOL_HEAD_BYTES, AT_NEXT_MAX);
	struct pool pool = {
		.size = pool_bytes - last,
		.used = peek_u32(head, POOL_HEAD_BYTES, AT_COUNT),
		.freeblock = peek_u64(head, POOL_HEAD_BYTES, AT_FREEBLOCK),
	};

	if (last >= pool_bytes || !size_is_sane(pool.size, peek_u32(head, POOL_HEAD_BYTES, AT_CLASS)) ||
		peek_u32(head, POOL_HEAD_BYTES, AT_ARENA) >= ARENAS_MAX)
		return false;
	if (next < POOL_HEAD_BYTES + pool.size || next > pool_bytes || (next - POOL_HEAD_BYTES) % pool.size)
		return false;
	pool.begun = (next - POOL_HEAD_BYTES) / pool.size;
	if (!pool.used || pool.used > pool.begun || (pool.freeblock && !is_block(pool.freeblock, addr, &pool)))
		return false;
	*ret = pool;
	return true;
}

bool pool_mark_free(const uint8_t *bytes, raddr addr, uint32_t pool_bytes, const struct pool *pool, bool *free) {
	uint32_t n = 0;

	memset(free, 0, pool->begun * sizeof(*free));
	for (raddr at = pool->freeblock; at; n++) {
		uint64_t index = (at - addr - POOL_HEAD_BYTES) / pool->size;

		if (!is_block(at, addr, pool) || free[index])
			return false;
		free[index] = true;
		at = peek_u64(bytes, pool_bytes, at - addr);
	}
	return n == pool->begun - pool->used;
}
