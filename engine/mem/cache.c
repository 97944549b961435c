/* SPDX-License-Identifier: MIT */
/* Another memory's pages, kept after they were read once: for looks that read the same types, dictionaries and code
 * objects over and over. What it says may be as old as its last mem_cache_clear. Whole pages are read, since four
 * kilobytes cost hardly more than eight bytes; a page that cannot be read, and a long range, go to the memory below. So
 * do many ranges of one call whose pages are not there: a search through a large dictionary would read hundreds. */
#include "engine/base/map.h"
#include "engine/base/vec.h"
#include "engine/mem/mem.h"
#include <string.h>

#define PAGE_BYTES 4096
#define PAGES_MAX 2048      /* kept at one time; then it starts anew */
#define CACHED_LEN_MAX 8192 /* of one range */
#define LOADS_MAX 8         /* pages that one call may bring; where it would be more, it brings none */

struct mem_cache {
	struct mem mem;
	struct mem *below;
	struct map pages; /* page number → index */
	VEC(uint8_t *) bytes;
	size_t used; /* of bytes: buffers stay for the next time */
};

static void forget(struct mem_cache *cache) {
	map_clear(&cache->pages);
	cache->used = 0;
}

void mem_cache_clear(struct mem *mem) {
	struct mem_cache *cache = (struct mem_cache *)mem;

	forget(cache);
	vec_foreach (page, &cache->bytes)
		free(*page);
	vec_free(&cache->bytes);
}

/* Return: 0 and *ret_page; MEM_E_*; negative errno. */
static int load(struct mem_cache *cache, uint64_t number, const uint8_t **ret_page) {
	uint8_t *page;
	int r = 0;

	if (cache->used >= PAGES_MAX)
		forget(cache);
	if (cache->used == cache->bytes.n) {
		page = malloc(PAGE_BYTES);
		r = page ? vec_push(&cache->bytes, page) : -ENOMEM;
		if (r) {
			free(page);
			return r;
		}
	}
	page = cache->bytes.items[cache->used];
	r = mem_read(cache->below, number * PAGE_BYTES, page, PAGE_BYTES);
	if (!r)
		r = map_put(&cache->pages, number, cache->used);
	if (r)
		return r;
	cache->used++;
	*ret_page = page;
	return 0;
}

static int read_cached(struct mem_cache *cache, const struct mem_range *range) {
	uint8_t *to = range->buf;
	raddr at = range->addr;
	size_t left = range->len;

	while (left) {
		size_t offset = at % PAGE_BYTES, n = min_of(left, PAGE_BYTES - offset);
		const uint8_t *page;
		uint64_t index;
		int r;

		if (map_get(&cache->pages, at / PAGE_BYTES, &index)) {
			page = cache->bytes.items[index];
		} else {
			r = load(cache, at / PAGE_BYTES, &page);
			if (r)
				return r;
		}
		memcpy(to, page + offset, n);
		to += n;
		at += n;
		left -= n;
	}
	return 0;
}

static int read_one(struct mem_cache *cache, const struct mem_range *range) {
	bool whole_pages = range->len <= CACHED_LEN_MAX && range->addr <= UINT64_MAX - range->len;
	int r = whole_pages ? read_cached(cache, range) : MEM_E_FAULT;

	return r == MEM_E_FAULT ? mem_read(cache->below, range->addr, range->buf, range->len) : r;
}

static bool is_here(const struct mem_cache *cache, raddr addr) {
	uint64_t unused;

	return map_get(&cache->pages, addr / PAGE_BYTES, &unused);
}

/* About how many pages these ranges would bring: neighbours are told apart from each other alone. */
static size_t count_loads(const struct mem_cache *cache, const struct mem_range *ranges, size_t n) {
	uint64_t last = UINT64_MAX;
	size_t loads = 0;

	for (size_t i = 0; i < n; i++) {
		if (ranges[i].addr / PAGE_BYTES == last || is_here(cache, ranges[i].addr))
			continue;
		last = ranges[i].addr / PAGE_BYTES;
		loads++;
	}
	return loads;
}

static int cache_read_many(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done) {
	struct mem_cache *cache = (struct mem_cache *)mem;
	int r = 0;
	size_t i;

	if (n > LOADS_MAX && count_loads(cache, ranges, n) > LOADS_MAX)
		return mem_read_many(cache->below, ranges, n, ret_done);
	for (i = 0; i < n; i++) {
		r = read_one(cache, &ranges[i]);
		if (r)
			break;
	}
	if (ret_done)
		*ret_done = i;
	return r;
}

static void cache_free(struct mem *mem) {
	struct mem_cache *cache = (struct mem_cache *)mem;

	mem_cache_clear(mem);
	map_deinit(&cache->pages);
	mem_free(cache->below);
	free(cache);
}

int mem_cache_new(struct mem *below, struct mem **ret_mem) {
	static const struct mem_ops ops = { .read_many = cache_read_many, .free = cache_free };
	struct mem_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return -ENOMEM;
	*cache = (struct mem_cache){ .mem.ops = &ops, .below = below };
	*ret_mem = &cache->mem;
	return 0;
}
