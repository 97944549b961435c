/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_LEAKS_POOLS_H
#define PYSPYD_LEAKS_POOLS_H

#include "engine/base/util.h"
#include <stddef.h>

/* Pools of pymalloc, by the relations between the fields of their headers. Pure.
 *
 * A pool is a piece of an arena, aligned to its own size, of blocks of one size (CPython 3.13
 * Include/internal/pycore_obmalloc.h): a header of 48 bytes, then blocks, of which those up to `nextoffset` have been
 * used at least once. A freed block is a link in the pool's list of free ones. */

#define POOL_HEAD_BYTES 48
#define POOL_BYTES_MAX (16U << 10)
#define POOL_BLOCKS_MAX ((POOL_BYTES_MAX - POOL_HEAD_BYTES) / 8)

struct pool {
	uint32_t size;  /* of a block, bytes */
	uint32_t used;  /* blocks that are in use, as the header says */
	uint32_t begun; /* blocks that were ever in use: the first ones */
	raddr freeblock;
};

/* 4 KiB to 3.9, 16 KiB from 3.10 on. */
uint32_t pool_bytes_of(uint32_t version);

/* Return: whether POOL_HEAD_BYTES at `head` are the header of a pool at `addr` that has blocks in use. */
bool pool_recognise(const uint8_t *head, raddr addr, uint32_t pool_bytes, struct pool *ret);

/* Marks the free ones among the first `begun` blocks of a pool that was copied whole. free[] has POOL_BLOCKS_MAX
 * entries. Return: whether the list of them is as long as the header says: else the pool changed while it was read. */
bool pool_mark_free(const uint8_t *bytes, raddr addr, uint32_t pool_bytes, const struct pool *pool, bool *free);

#endif
