/* SPDX-License-Identifier: MIT */
/* Heaps of a hostile target. Byte 0 chooses the build, and whether a sound segment is written first; the rest is what a
 * segment begins with: its fields and the descriptions of its first pages. Each page that was found lies in the
 * segment, has blocks within itself, and is walked. */
#include "engine/leaks/mimalloc.h"

#include <stdlib.h>
#include <string.h>

#define SEGMENT UINT64_C(0x200000000000)
#define READABLE (1U << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(uint8_t *bytes, uint64_t at, uint64_t value, size_t n) {
	memcpy(bytes + at, &value, n);
}

static void put_sound(const struct mimalloc_format *f, uint8_t *bytes) {
	const uint64_t page = f->slices + (uint64_t)f->info * f->page_bytes;

	put(bytes, 32, MIMALLOC_SEGMENT_BYTES, 8);
	put(bytes, f->length, 512, 8);
	put(bytes, f->entries, 512, 8);
	put(bytes, f->info_at, f->info, 8);
	put(bytes, f->slices, f->info, 4);
	put(bytes, page, 1, 4);
	put(bytes, page + 10, 64, 2);
	put(bytes, page + 12, 64, 2);
	put(bytes, page + f->used, 60, f->used_bytes);
	put(bytes, page + f->size, 640, f->size_bytes);
	if (f->start != MIMALLOC_NONE)
		put(bytes, page + f->start, SEGMENT + f->info * MIMALLOC_SLICE_BYTES, 8);
}

static int visit(void *userdata, const struct mimalloc_block *block) {
	const struct mimalloc *heap = userdata;
	const struct mimalloc_page *page = mimalloc_page_of(heap, block->addr);
	static volatile uint8_t sink;

	/* Hostile pages may overlap, and then another one is found. */
	if (page && (mimalloc_block_of(page, block->addr) > block->addr || block->tag >= MIMALLOC_TAGS))
		abort();
	if (block->len > block->size || block->len > MIMALLOC_READ_BYTES)
		abort();
	if (block->len)
		sink = block->bytes[0] ^ block->bytes[block->len - 1];
	(void)sink;
	return 0;
}

static void check(const struct mimalloc *heap) {
	for (size_t i = 0; i < heap->pages.n; i++) {
		const struct mimalloc_page *page = &heap->pages.items[i];

		if (page->start < SEGMENT || !page->capacity || page->capacity > MIMALLOC_BLOCKS_MAX ||
			page->used > page->capacity || page->size > page->span / page->capacity ||
			page->tag >= MIMALLOC_TAGS)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	static uint8_t bytes[READABLE];
	struct region region = { .start = SEGMENT, .end = SEGMENT + MIMALLOC_SEGMENT_BYTES, .heap = true };
	struct regions regions = { .items = { .items = &region, .n = 1, .cap = 1 } };
	struct mem_segment segment = { SEGMENT, READABLE, bytes };
	struct mimalloc_totals totals;
	struct mimalloc heap;
	struct py_reader py = { .version = 0x030d05f0 };
	const struct mimalloc_format *format;

	if (size < 2)
		return 0;
	format = &mimalloc_formats[data[0] % mimalloc_formats_n];
	py.flavour = format->flavour;
	memset(bytes, 0, sizeof(bytes));
	if (data[0] & 128)
		put_sound(format, bytes);
	for (size_t i = 1; i < size && i < READABLE; i++)
		bytes[i - 1] ^= data[i]; /* so that zeros leave what is sound */
	if (mem_bytes_new(&segment, 1, &py.mem))
		return 0;
	if (!mimalloc_find(&py, &regions, 0, &heap)) {
		check(&heap);
		(void)mimalloc_walk(&py, &heap, visit, &heap, &totals);
		mimalloc_deinit(&heap);
	}
	mem_free(py.mem);
	return 0;
}
