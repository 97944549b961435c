/* SPDX-License-Identifier: MIT */
/* Segments and pages of mimalloc by hand, in each way in which builds lay them out; and headers and lists that lie.
 * Real heaps are compared by tests/live/mimalloc_oracle.sh. */
#include "engine/leaks/mimalloc.h"

#include "engine/base/cursor.h"
#include "engine/cpython/reader.h"
#include <criterion/criterion.h>
#include <string.h>

#define SEGMENT UINT64_C(0x200000000000)
#define SEGMENTS 3 /* the first 2 MiB of each can be read */
#define READABLE (2U << 20)
#define KEY UINT64_C(0x123456789abcdef0)
#define SLICE MIMALLOC_SLICE_BYTES
#define BLOCKS 100 /* of a page made by new_page */
#define USED 90

#define AT_SPAN 0
#define AT_SPAN_BACK 4
#define AT_CAPACITY 10
#define AT_RESERVED 12
#define AT_FREE 16
#define AT_SEGMENT_SIZE 32

struct heap {
	const struct mimalloc_format *f;
	uint8_t *bytes[SEGMENTS];
	struct regions regions;
	struct py_reader py;
	unsigned visits, stop_at; /* 0: never */
	uint64_t tags[MIMALLOC_TAGS];
	raddr addrs[4096];
	void (*meanwhile)(struct heap *heap); /* at the first block */
};

static uint8_t *at(struct heap *heap, raddr addr) {
	return heap->bytes[(addr - SEGMENT) / MIMALLOC_SEGMENT_BYTES] + addr % MIMALLOC_SEGMENT_BYTES;
}

static void put(struct heap *heap, raddr addr, uint64_t value, size_t bytes) {
	memcpy(at(heap, addr), &value, bytes);
}

static raddr segment_at(unsigned i) {
	return SEGMENT + i * MIMALLOC_SEGMENT_BYTES;
}

static raddr meta_at(const struct heap *heap, raddr segment, uint64_t index) {
	return segment + heap->f->slices + index * heap->f->page_bytes;
}

/* `length` slices; 0: a segment of pages. */
static void put_segment(struct heap *heap, raddr segment, uint64_t length, uint64_t key) {
	const struct mimalloc_format *f = heap->f;

	put(heap, segment + f->kind, length != 0, 4);
	length = length ? length : 512;
	put(heap, segment + AT_SEGMENT_SIZE, length * SLICE, 8);
	put(heap, segment + f->length, length, 8);
	put(heap, segment + f->entries, min_of(length, UINT64_C(512)), 8);
	put(heap, segment + f->info_at, f->info, 8);
	put(heap, segment + f->cookie, key ^ segment, 8);
	put(heap, segment + f->pages, 1, 8);
	put(heap, meta_at(heap, segment, 0) + AT_SPAN, f->info, 4);
}

static raddr start_of(raddr segment, uint64_t index, uint64_t size) {
	uint64_t offset = size <= 64 ? 3 * size : size <= 512 ? size : 0;

	return segment + index * SLICE + offset;
}

static raddr put_page(struct heap *heap, raddr segment, uint64_t index, uint64_t slices, uint64_t size,
	uint64_t capacity, uint64_t used, unsigned tag) {
	const struct mimalloc_format *f = heap->f;
	raddr meta = meta_at(heap, segment, index), start = start_of(segment, index, size);

	put(heap, meta + AT_SPAN, slices, 4);
	put(heap, meta + AT_SPAN_BACK, 0, 4);
	put(heap, meta + AT_CAPACITY, capacity, 2);
	put(heap, meta + AT_RESERVED, (slices * SLICE - start % SLICE) / size, 2);
	put(heap, meta + f->used, used, f->used_bytes);
	put(heap, meta + f->size, min_of(size, f->size_bytes == 4 ? UINT64_C(1) << 31 : UINT64_MAX), f->size_bytes);
	put(heap, meta + f->tag, tag << f->tag_shift | (f->tag_shift ? 1 : 0), 1);
	if (f->start != MIMALLOC_NONE)
		put(heap, meta + f->start, start, 8);
	if (f->keys != MIMALLOC_NONE) {
		put(heap, meta + f->keys, UINT64_C(0xfeedbeef12345), 8);
		put(heap, meta + f->keys + 8, UINT64_C(0xabcdef9876543210), 8);
	}
	return start;
}

static void put_link(struct heap *heap, raddr meta, raddr block, raddr next) {
	uint64_t keys[2], value = next ? next : meta;

	if (heap->f->keys == MIMALLOC_NONE) {
		put(heap, block, next, 8);
		return;
	}
	memcpy(keys, at(heap, meta + heap->f->keys), sizeof(keys));
	value ^= keys[1];
	if (keys[0] % 64)
		value = value << keys[0] % 64 | value >> (64 - keys[0] % 64);
	put(heap, block, value + keys[0], 8);
}

/* Blocks of 48 bytes, ten of BLOCKS in the lists: 0, 10, 20; 1, 11, 21, 31 ,41; and freed by others 2, 12. */
static raddr new_page(struct heap *heap, raddr segment, uint64_t index, unsigned tag) {
	raddr start = put_page(heap, segment, index, 1, 48, BLOCKS, USED + 2, tag),
	      meta = meta_at(heap, segment, index);
	unsigned ends[] = { 20, 41, 12 };
	uint16_t fields[] = { AT_FREE, heap->f->local_free, heap->f->thread_free };

	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
		put(heap, meta + fields[i], (start + i * 48) | (i == 2 ? 3 : 0), 8);
		for (unsigned block = i; block <= ends[i]; block += 10)
			put_link(heap, meta, start + block * 48, block + 10 <= ends[i] ? start + (block + 10) * 48 : 0);
	}
	return start;
}

static void open_heap(struct heap *heap, const struct mimalloc_format *format) {
	struct mem_segment segments[SEGMENTS];

	*heap = (struct heap){ .f = format, .py = { .flavour = format->flavour } };
	for (unsigned i = 0; i < SEGMENTS; i++) {
		heap->bytes[i] = calloc(1, READABLE + SLICE);
		segments[i] = (struct mem_segment){ segment_at(i), READABLE, heap->bytes[i] };
		put_segment(heap, segment_at(i), 0, KEY);
	}
	cr_assert_eq(mem_bytes_new(segments, SEGMENTS, &heap->py.mem), 0);
	cr_assert_eq(vec_push(&heap->regions.items,
			     (struct region){ .start = SEGMENT - 4096, .end = segment_at(SEGMENTS), .heap = true }),
		0);
}

static void close_heap(struct heap *heap) {
	for (unsigned i = 0; i < SEGMENTS; i++)
		free(heap->bytes[i]);
	mem_free(heap->py.mem);
	regions_deinit(&heap->regions);
}

static void each_format(void (*check)(struct heap *heap)) {
	for (size_t i = 0; i < mimalloc_formats_n; i++) {
		struct heap heap;

		open_heap(&heap, &mimalloc_formats[i]);
		check(&heap);
		close_heap(&heap);
	}
}

static bool is_segment(struct heap *heap) {
	struct mimalloc_segment segment;

	return mimalloc_segment_recognise(heap->f, heap->bytes[0], SEGMENT, &segment);
}

/* A field with another value, and back. */
static bool is_segment_with(struct heap *heap, uint16_t field, uint64_t value) {
	uint64_t saved;
	bool is;

	memcpy(&saved, heap->bytes[0] + field, sizeof(saved));
	put(heap, SEGMENT + field, value, 8);
	is = is_segment(heap);
	put(heap, SEGMENT + field, saved, 8);
	return is;
}

static void check_segment(struct heap *heap) {
	const struct mimalloc_format *f = heap->f;
	struct mimalloc_segment segment;

	cr_assert(mimalloc_segment_recognise(f, heap->bytes[0], SEGMENT, &segment));
	cr_assert_eq(segment.addr, SEGMENT);
	cr_assert_eq(segment.length, 512);
	cr_assert_eq(segment.entries, 512);
	cr_assert_eq(segment.key, KEY);
	cr_assert_not(mimalloc_segment_recognise(f, heap->bytes[0], SEGMENT + 4096, &segment), "not aligned");
	cr_assert_not(is_segment_with(heap, f->kind, 2));
	cr_assert_not(is_segment_with(heap, f->kind, 1 + (UINT64_C(1) << 16)));
	cr_assert_not(is_segment_with(heap, f->length, 511));
	cr_assert_not(is_segment_with(heap, f->length, 0));
	cr_assert_not(is_segment_with(heap, f->entries, 511));
	cr_assert_not(is_segment_with(heap, f->info_at, 3));
	cr_assert_not(is_segment_with(heap, f->pages, 513));
	cr_assert_not(is_segment_with(heap, f->abandoned, 2));
	cr_assert_not(is_segment_with(heap, AT_SEGMENT_SIZE, 0));
	cr_assert_not(is_segment_with(heap, f->slices, 3));
	cr_assert_not(is_segment_with(heap, f->slices, UINT64_C(1) << 32 | f->info));
	cr_assert(is_segment_with(heap, f->cookie, 0));
	put_segment(heap, SEGMENT, 1000, KEY);
	cr_assert(mimalloc_segment_recognise(f, heap->bytes[0], SEGMENT, &segment), "a huge one");
	cr_assert_eq(segment.length, 1000);
	cr_assert_eq(segment.entries, 512);
	for (size_t i = 0; i < mimalloc_formats_n; i++)
		if (mimalloc_formats[i].cookie != f->cookie)
			cr_assert_not(
				mimalloc_segment_recognise(&mimalloc_formats[i], heap->bytes[0], SEGMENT, &segment),
				"of the other generation");
	memset(heap->bytes[0], 0, READABLE);
	cr_assert_not(is_segment(heap));
	memset(heap->bytes[0], 0xff, READABLE);
	cr_assert_not(is_segment(heap));
}

Test(mimalloc, segments) {
	each_format(check_segment);
}

static bool get_page(struct heap *heap, uint64_t index, struct mimalloc_page *page, struct mimalloc_lists *lists) {
	struct mimalloc_segment segment;

	cr_assert(mimalloc_segment_recognise(heap->f, heap->bytes[0], SEGMENT, &segment));
	return mimalloc_page_recognise(heap->f, &segment, index, at(heap, meta_at(heap, SEGMENT, index)), page, lists);
}

static bool is_page_with(struct heap *heap, uint64_t index, uint16_t field, uint64_t value, size_t bytes) {
	raddr addr = meta_at(heap, SEGMENT, index) + field;
	struct mimalloc_lists lists;
	struct mimalloc_page page;
	uint64_t saved = 0;
	bool is;

	memcpy(&saved, at(heap, addr), bytes);
	put(heap, addr, value, bytes);
	is = get_page(heap, index, &page, &lists);
	put(heap, addr, saved, bytes);
	return is;
}

static void check_page(struct heap *heap) {
	const struct mimalloc_format *f = heap->f;
	struct mimalloc_lists lists;
	struct mimalloc_page page;
	raddr start = new_page(heap, SEGMENT, 7, MIMALLOC_GC_PRE);

	cr_assert(get_page(heap, 7, &page, &lists));
	cr_assert_eq(page.start, start);
	cr_assert_eq(page.size, 48);
	cr_assert_eq(page.span, SLICE - 144);
	cr_assert_eq(page.capacity, BLOCKS);
	cr_assert_eq(page.used, USED + 2);
	cr_assert_eq(page.tag, MIMALLOC_GC_PRE);
	cr_assert_eq(lists.heads[0], start);
	cr_assert_eq(lists.heads[1], start + 48);
	cr_assert_eq(lists.heads[2], start + 96);
	cr_assert(is_page_with(heap, 7, AT_FREE, 0, 8), "an empty list");
	cr_assert_not(is_page_with(heap, 7, AT_SPAN, 0, 4));
	cr_assert_not(is_page_with(heap, 7, AT_SPAN, 506, 4), "beyond the segment");
	cr_assert_not(is_page_with(heap, 7, AT_SPAN_BACK, f->page_bytes, 4), "inside of another");
	cr_assert_not(is_page_with(heap, 7, AT_CAPACITY, 0, 2), "not begun");
	cr_assert_not(is_page_with(heap, 7, AT_CAPACITY, 9000, 2), "more than there is room for");
	cr_assert_not(is_page_with(heap, 7, AT_RESERVED, 2000, 2), "more than there is room for");
	cr_assert_not(is_page_with(heap, 7, AT_RESERVED, BLOCKS - 1, 2));
	cr_assert_not(is_page_with(heap, 7, f->used, BLOCKS + 1, f->used_bytes));
	cr_assert_not(is_page_with(heap, 7, f->size, 0, f->size_bytes));
	cr_assert_not(is_page_with(heap, 7, f->size, 1, f->size_bytes), "a free slice has this");
	cr_assert_not(is_page_with(heap, 7, f->tag, 4U << f->tag_shift, 1));
	cr_assert_not(is_page_with(heap, 7, AT_FREE, start + 1, 8));
	cr_assert_not(is_page_with(heap, 7, f->local_free, start + 48 * BLOCKS, 8));
	cr_assert_not(is_page_with(heap, 7, f->thread_free, start - 48, 8));
	if (f->start != MIMALLOC_NONE) {
		cr_assert_not(is_page_with(heap, 7, f->start, start - SLICE, 8));
		cr_assert_not(is_page_with(heap, 7, f->start, start + SLICE, 8));
	}
	cr_assert_not(get_page(heap, 0, &page, &lists), "the header");
	cr_assert_not(get_page(heap, 512, &page, &lists));
	cr_assert_not(get_page(heap, 8, &page, &lists), "nothing");
}

Test(mimalloc, pages) {
	each_format(check_page);
}

static void check_sizes(struct heap *heap) {
	static const struct {
		uint64_t slices, size, offset;
	} cases[] = { { 1, 8, 24 }, { 1, 64, 192 }, { 1, 80, 80 }, { 1, 512, 512 }, { 1, 640, 0 }, { 8, 20480, 0 },
		{ 3, 3 * SLICE, 0 }, { 16, 1 << 20, 0 } };
	struct mimalloc_lists lists;
	struct mimalloc_page page;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		put_page(heap, SEGMENT, 9, cases[i].slices, cases[i].size, 1, 1, MIMALLOC_MEM);
		cr_assert(get_page(heap, 9, &page, &lists), "case %zu", i);
		cr_assert_eq(page.size, cases[i].size);
		cr_assert_eq(page.start, SEGMENT + 9 * SLICE + cases[i].offset);
		cr_assert_eq(page.span, cases[i].slices * SLICE - cases[i].offset);
	}
	put_page(heap, SEGMENT, 9, 9, 8192, 2, 1, MIMALLOC_MEM);
	cr_assert_not(get_page(heap, 9, &page, &lists), "many blocks of a long page");
	put_segment(heap, SEGMENT, 70000, KEY);
	put_page(heap, SEGMENT, heap->f->info, 69000, 69000 * SLICE, 1, 1, MIMALLOC_OBJECT);
	cr_assert(get_page(heap, heap->f->info, &page, &lists), "more than 4 GiB");
	cr_assert_eq(page.size, 69000 * SLICE);
	put_page(heap, SEGMENT, heap->f->info, 70000, 70000 * SLICE, 1, 1, MIMALLOC_OBJECT);
	cr_assert_not(get_page(heap, heap->f->info, &page, &lists), "longer than its segment");
}

Test(mimalloc, sizes) {
	each_format(check_sizes);
}

static bool mark(struct heap *heap, bool *free) {
	struct mimalloc_lists lists;
	struct mimalloc_page page;

	cr_assert(get_page(heap, 7, &page, &lists));
	return mimalloc_mark_free(&page, &lists, at(heap, page.start), page.capacity * page.size, free);
}

static void check_lists(struct heap *heap) {
	raddr start = new_page(heap, SEGMENT, 7, MIMALLOC_GC), meta = meta_at(heap, SEGMENT, 7);
	bool free[MIMALLOC_BLOCKS_MAX];

	put(heap, meta + heap->f->used, BLOCKS - 8, heap->f->used_bytes);
	cr_assert(mark(heap, free));
	for (unsigned i = 0; i < BLOCKS; i++)
		cr_assert_eq(free[i], (i % 10 == 0 && i <= 20) || (i % 10 == 1 && i <= 41) || (i % 10 == 2 && i <= 12),
			"%u", i);
	put(heap, meta + heap->f->used, BLOCKS - 7, heap->f->used_bytes);
	cr_assert_not(mark(heap, free), "one is missing in the lists");
	put(heap, meta + heap->f->used, BLOCKS - 8, heap->f->used_bytes);
	put_link(heap, meta, start + 20 * 48, start);
	cr_assert_not(mark(heap, free), "a ring");
	put_link(heap, meta, start + 20 * 48, start + 48);
	cr_assert_not(mark(heap, free), "two lists meet");
	put_link(heap, meta, start + 20 * 48, start + BLOCKS * 48);
	cr_assert_not(mark(heap, free), "a block that was never made");
	put_link(heap, meta, start + 20 * 48, start + 50 * 48 + 8);
	cr_assert_not(mark(heap, free), "no block");
	put_link(heap, meta, start + 20 * 48, 0);
	cr_assert(mark(heap, free));
	put_link(heap, meta, start + 12 * 48, SEGMENT);
	cr_assert_not(mark(heap, free), "elsewhere");
}

Test(mimalloc, lists) {
	each_format(check_lists);
}

static int visit(void *userdata, const struct mimalloc_block *block) {
	struct heap *heap = userdata;

	if (!heap->visits && heap->meanwhile)
		heap->meanwhile(heap);
	if (heap->stop_at && heap->visits + 1 == heap->stop_at)
		return -ECANCELED;
	cr_assert_leq(block->len, min_of(block->size, (uint64_t)MIMALLOC_READ_BYTES));
	cr_assert_eq(memcmp(block->bytes, at(heap, block->addr), block->len), 0);
	cr_assert_lt(heap->visits, ARRAY_SIZE(heap->addrs));
	heap->addrs[heap->visits++] = block->addr;
	heap->tags[block->tag]++;
	return 0;
}

static void fill(struct heap *heap) {
	new_page(heap, SEGMENT, 7, MIMALLOC_GC);
	new_page(heap, SEGMENT, 9, MIMALLOC_OBJECT);
	new_page(heap, segment_at(1), 8, MIMALLOC_GC_PRE);
	put_page(heap, segment_at(1), 10, 17, 17 * SLICE, 1, 1, MIMALLOC_MEM);
	put_page(heap, segment_at(1), 28, 1, 96, 50, 0, MIMALLOC_GC); /* of nothing in use */
	put_segment(heap, segment_at(2), 0, KEY + 1);                 /* another library's */
	new_page(heap, segment_at(2), 5, MIMALLOC_GC);
}

/* In the pages of new_page two of those that are in use by the page's word were freed by others. */
static void check_walk(struct heap *heap) {
	struct mimalloc found = { 0 };
	struct mimalloc_totals totals;
	const struct mimalloc_page *page;

	cr_assert_eq(mimalloc_find(&heap->py, &heap->regions, 0, &found), PY_E_TYPE, "no pages");
	fill(heap);
	put(heap, meta_at(heap, SEGMENT, 7) + heap->f->used, BLOCKS - 8, heap->f->used_bytes);
	put(heap, meta_at(heap, SEGMENT, 9) + heap->f->used, BLOCKS - 8, heap->f->used_bytes);
	put(heap, meta_at(heap, segment_at(1), 8) + heap->f->used, BLOCKS - 8, heap->f->used_bytes);
	cr_assert_eq(mimalloc_find(&heap->py, &heap->regions, 0, &found), 0);
	cr_assert_eq(found.format, heap->f);
	cr_assert_eq(found.segments, 2);
	cr_assert_eq(found.pages.n, 5);
	cr_assert_not(found.incomplete);
	page = mimalloc_page_of(&found, segment_at(1) + 8 * SLICE + 144 + 5 * 48 + 17);
	cr_assert_eq(page, &found.pages.items[2]);
	cr_assert_eq(mimalloc_block_of(page, page->start + 5 * 48 + 17), page->start + 5 * 48);
	cr_assert_null(mimalloc_page_of(&found, page->start + BLOCKS * 48), "not made yet");
	cr_assert_null(mimalloc_page_of(&found, page->start - 1));
	cr_assert_null(mimalloc_page_of(&found, segment_at(2) + 5 * SLICE + 144));
	cr_assert_null(mimalloc_page_of(&found, 0));
	cr_assert_null(mimalloc_page_of(&found, UINT64_MAX));
	cr_assert_eq(mimalloc_walk(&heap->py, &found, visit, heap, &totals), 0);
	cr_assert_eq(totals.moved, 0);
	cr_assert_eq(totals.pages, 4);
	cr_assert_eq(totals.blocks, 3 * (BLOCKS - 8) + 1);
	cr_assert_eq(totals.page_bytes, 20 * SLICE - 3 * 144);
	cr_assert_eq(totals.free_bytes, 3 * (SLICE - 144 - (BLOCKS - 8) * 48));
	cr_assert_eq(heap->visits, 3 * USED + 1);
	cr_assert_eq(heap->tags[MIMALLOC_GC], USED);
	cr_assert_eq(heap->tags[MIMALLOC_MEM], 1);
	for (unsigned i = 1; i < heap->visits; i++)
		cr_assert_lt(heap->addrs[i - 1], heap->addrs[i]);
	cr_assert_eq(heap->addrs[0], SEGMENT + 7 * SLICE + 144 + 3 * 48);
	heap->visits = 0;
	heap->stop_at = 5;
	cr_assert_eq(mimalloc_walk(&heap->py, &found, visit, heap, &totals), -ECANCELED);
	cr_assert_eq(heap->visits, 4);
	mimalloc_deinit(&found);
}

Test(mimalloc, walk) {
	each_format(check_walk);
}

static void check_whose(struct heap *heap) {
	struct mimalloc found = { 0 };

	fill(heap);
	cr_assert_eq(mimalloc_find(&heap->py, &heap->regions, segment_at(2) + 5 * SLICE + 500, &found), 0);
	cr_assert_eq(found.segments, 1, "the object's");
	cr_assert_eq(found.key, KEY + 1);
	mimalloc_deinit(&found);
	cr_assert_eq(mimalloc_find(&heap->py, &heap->regions, SEGMENT - 4096, &found), PY_E_TYPE, "not mapped");
	memset(heap->bytes[1], 0, 4096);
	cr_assert_eq(mimalloc_find(&heap->py, &heap->regions, segment_at(1) + SLICE, &found), PY_E_TYPE);
	heap->regions.items.items[0].heap = false;
	cr_assert_eq(mimalloc_find(&heap->py, &heap->regions, 0, &found), PY_E_TYPE, "in a file");
}

Test(mimalloc, whose) {
	each_format(check_whose);
}

static void grow_and_change(struct heap *heap) {
	raddr meta = meta_at(heap, SEGMENT, 9);

	put(heap, meta + AT_CAPACITY, BLOCKS + 10, 2); /* ten more, in use */
	put(heap, meta + heap->f->used, BLOCKS + 2, heap->f->used_bytes);
	put_page(heap, segment_at(1), 8, 1, 640, 10, 10, MIMALLOC_GC); /* another one */
	put(heap, meta_at(heap, segment_at(1), 10) + AT_SPAN, 0, 4);   /* none any more */
}

static void check_moves(struct heap *heap) {
	struct mimalloc found = { 0 };
	struct mimalloc_totals totals;

	fill(heap);
	put(heap, meta_at(heap, SEGMENT, 7) + heap->f->used, BLOCKS - 8, heap->f->used_bytes);
	heap->meanwhile = grow_and_change;
	cr_assert_eq(mimalloc_find(&heap->py, &heap->regions, 0, &found), 0);
	cr_assert_eq(mimalloc_walk(&heap->py, &found, visit, heap, &totals), 0);
	cr_assert_eq(totals.moved, 2);
	cr_assert_eq(totals.pages, 2);
	cr_assert_eq(heap->tags[MIMALLOC_GC], USED);
	cr_assert_eq(heap->tags[MIMALLOC_OBJECT], USED + 10);
	mimalloc_deinit(&found);
}

Test(mimalloc, moves) {
	each_format(check_moves);
}

/* A page in memory that cannot be read counts as one that moved. */
static void check_unreadable(struct heap *heap) {
	struct mimalloc found = { 0 };
	struct mimalloc_totals totals;

	new_page(heap, SEGMENT, 31, MIMALLOC_GC);
	new_page(heap, SEGMENT, 32, MIMALLOC_GC);
	put(heap, meta_at(heap, SEGMENT, 31) + heap->f->used, BLOCKS - 8, heap->f->used_bytes);
	cr_assert_eq(mimalloc_find(&heap->py, &heap->regions, 0, &found), 0);
	cr_assert_eq(found.pages.n, 2);
	cr_assert_eq(mimalloc_walk(&heap->py, &found, visit, heap, &totals), 0);
	cr_assert_eq(totals.moved, 1);
	cr_assert_eq(heap->visits, USED);
	mimalloc_deinit(&found);
}

Test(mimalloc, unreadable) {
	each_format(check_unreadable);
}
