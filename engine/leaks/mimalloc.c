/* SPDX-License-Identifier: MIT */
/* Recognises what mimalloc keeps. Segments are aligned to 32 MiB, so that a few places in memory have to be asked. A
 * header's lengths have to agree with each other and its first entry has to describe the header itself; a page's counts
 * have to fit into its slices, and its lists have to lead to its own blocks. The word called cookie is the header's
 * address by exclusive or with a random one of the process.
 *
 * Which generation of the library it is changed with patch releases: both are tried, and only one fits. */
#include "engine/leaks/mimalloc.h"

#include "engine/base/cursor.h"
#include <string.h>

#define AT_SEGMENT_SIZE 32
#define AT_SPAN 0
#define AT_SPAN_BACK 4
#define AT_CAPACITY 10
#define AT_RESERVED 12
#define AT_FREE 16
#define PAGE_HEAD_BYTES 16 /* of a description: what has to be there to step over it */

#define NORMAL_SLICES (MIMALLOC_SEGMENT_BYTES / MIMALLOC_SLICE_BYTES)
#define LENGTH_MAX (UINT64_C(1) << 31)  /* slices: more than an address space */
#define MANY_SLICES_MAX 8               /* of a page of more than one block */
#define SIZE_UNTOLD (UINT64_C(1) << 31) /* generation 2.1: so much or more */
#define WORD sizeof(uint64_t)
#define FLAGS 3 /* low bits of the list of those that others have freed */

#define HEADER_BYTES_MAX (2 * MIMALLOC_SLICE_BYTES)
#define PLACES_MAX (1U << 16) /* that are asked: 2 TiB */
#define PAGES_MAX (1U << 20)
#define BATCH 64
#define TRIES 3

/* Debug builds have two keys before the list of those that others have freed, and pad blocks by a word; without the GIL
 * a description ends with a list and a number (sizes by the headers of 3.13.5t, 3.13.18, 3.14.10 and 3.15.2). */
#define GENERATION_2_1(flags, debug, threads) \
	{ \
		.flavour = (flags), .page_bytes = 80 + 16 * (debug) + 16 * (threads), .info = 1, .abandoned = 192, \
		.pages = 208, .cookie = 216, .length = 224, .info_at = 232, .kind = 240, .entries = 248, \
		.slices = 264, .used = 24, .used_bytes = 4, .size = 28, .size_bytes = 4, .local_free = 32, \
		.thread_free = 40 + 16 * (debug), .start = MIMALLOC_NONE, .keys = (debug) ? 40 : MIMALLOC_NONE, \
		.tag = 8, .tag_shift = 3, .padding = 8 * (debug), \
	}
#define GENERATION_2_5(flags, debug, threads) \
	{ \
		.flavour = (flags), .page_bytes = 96 + 16 * (debug) + 16 * (threads), \
		.info = 1 + ((debug) && (threads)), .abandoned = 200, .pages = 216, .cookie = 224, .length = 248, \
		.info_at = 256, .kind = 264, .entries = 272, .slices = 288, .used = 32, .used_bytes = 2, .size = 40, \
		.size_bytes = 8, .local_free = 24, .thread_free = 56 + 16 * (debug), .start = 48, \
		.keys = (debug) ? 56 : MIMALLOC_NONE, .tag = 35, .tag_shift = 0, .padding = 8 * (debug), \
	}

const struct mimalloc_format mimalloc_formats[] = {
	GENERATION_2_1(LAYOUT_RELEASE, 0, 0),
	GENERATION_2_1(LAYOUT_DEBUG, 1, 0),
	GENERATION_2_1(LAYOUT_FREE_THREADED, 0, 1),
	GENERATION_2_1(LAYOUT_FREE_THREADED | LAYOUT_DEBUG, 1, 1),
	GENERATION_2_5(LAYOUT_RELEASE, 0, 0),
	GENERATION_2_5(LAYOUT_DEBUG, 1, 0),
	GENERATION_2_5(LAYOUT_FREE_THREADED, 0, 1),
	GENERATION_2_5(LAYOUT_FREE_THREADED | LAYOUT_DEBUG, 1, 1),
};
const size_t mimalloc_formats_n = ARRAY_SIZE(mimalloc_formats);

bool mimalloc_segment_recognise(
	const struct mimalloc_format *f, const uint8_t *head, raddr addr, struct mimalloc_segment *ret_segment) {
	const size_t len = MIMALLOC_BEGIN_BYTES;
	uint64_t length = peek_u64(head, len, f->length), entries = peek_u64(head, len, f->entries);
	uint64_t pages = peek_u64(head, len, f->pages);
	uint32_t kind = peek_u32(head, len, f->kind);

	if (addr % MIMALLOC_SEGMENT_BYTES || kind > 1 || peek_u64(head, len, f->info_at) != f->info)
		return false;
	if (length <= f->info || length > LENGTH_MAX || (!kind && length != NORMAL_SLICES) ||
		peek_u64(head, len, AT_SEGMENT_SIZE) != length * MIMALLOC_SLICE_BYTES ||
		entries != min_of(length, NORMAL_SLICES))
		return false;
	if (pages > entries || peek_u64(head, len, f->abandoned) > pages ||
		peek_u32(head, len, f->slices + AT_SPAN) != f->info || peek_u32(head, len, f->slices + AT_SPAN_BACK))
		return false;
	*ret_segment = (struct mimalloc_segment){
		.addr = addr,
		.length = length,
		.entries = (uint32_t)entries,
		.key = peek_u64(head, len, f->cookie) ^ addr,
	};
	return true;
}

static uint64_t word_of(const uint8_t *bytes, size_t len, uint16_t at, uint16_t width) {
	return width == 2 ? peek_u16(bytes, len, at) : width == 4 ? peek_u32(bytes, len, at) : peek_u64(bytes, len, at);
}

/* Generation 2.1 keeps small blocks off the beginning of a slice by a multiple of their size. */
static uint64_t offset_of(uint64_t size) {
	return size <= 64 ? 3 * size : size <= 512 ? size : 0;
}

/* Return: whether a page of these many blocks has room in its slices. */
static bool place(const struct mimalloc_format *f, const uint8_t *bytes, raddr slice, uint64_t reserved,
	struct mimalloc_page *page) {
	page->start =
		f->start == MIMALLOC_NONE ? slice + offset_of(page->size) : peek_u64(bytes, f->page_bytes, f->start);
	if (f->size_bytes == 4 && page->size >= SIZE_UNTOLD)
		page->size = page->span;
	if (page->start < slice || page->start - slice >= page->span)
		return false;
	page->span -= page->start - slice;
	return page->size >= WORD && page->size <= page->span / reserved;
}

static bool is_block(const struct mimalloc_page *page, raddr at) {
	uint64_t offset = at - page->start;

	return at >= page->start && offset % page->size == 0 && offset / page->size < page->capacity;
}

static struct mimalloc_lists lists_of(const struct mimalloc_format *f, const uint8_t *bytes) {
	const size_t len = f->page_bytes;
	struct mimalloc_lists lists = {
		.heads = { peek_u64(bytes, len, AT_FREE), peek_u64(bytes, len, f->local_free),
			peek_u64(bytes, len, f->thread_free) & ~(raddr)FLAGS },
		.has_keys = f->keys != MIMALLOC_NONE,
	};

	for (size_t i = 0; lists.has_keys && i < ARRAY_SIZE(lists.keys); i++)
		lists.keys[i] = peek_u64(bytes, len, f->keys + i * WORD);
	return lists;
}

bool mimalloc_page_recognise(const struct mimalloc_format *f, const struct mimalloc_segment *segment, uint64_t index,
	const uint8_t *bytes, struct mimalloc_page *ret_page, struct mimalloc_lists *ret_lists) {
	const size_t len = f->page_bytes;
	uint64_t slices = peek_u32(bytes, len, AT_SPAN), reserved = peek_u16(bytes, len, AT_RESERVED);
	struct mimalloc_page page = {
		.meta = segment->addr + f->slices + index * f->page_bytes,
		.size = word_of(bytes, len, f->size, f->size_bytes),
		.span = slices * MIMALLOC_SLICE_BYTES,
		.capacity = peek_u16(bytes, len, AT_CAPACITY),
		.used = (uint32_t)word_of(bytes, len, f->used, f->used_bytes),
		.tag = peek_u8(bytes, len, f->tag) >> f->tag_shift & 15,
	};
	struct mimalloc_lists lists = lists_of(f, bytes);

	if (!slices || index < f->info || index >= segment->entries || slices > segment->length - index ||
		peek_u32(bytes, len, AT_SPAN_BACK) || page.tag >= MIMALLOC_TAGS)
		return false;
	if (!page.capacity || page.capacity > reserved || page.used > page.capacity ||
		reserved > (slices > MANY_SLICES_MAX ? 1 : MIMALLOC_BLOCKS_MAX))
		return false;
	if (!place(f, bytes, segment->addr + index * MIMALLOC_SLICE_BYTES, reserved, &page))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(lists.heads); i++)
		if (lists.heads[i] && !is_block(&page, lists.heads[i]))
			return false;
	*ret_page = page;
	*ret_lists = lists;
	return true;
}

/* In debug builds a link is turned and masked, and the end of a list is the address of the page's description. */
static raddr next_of(const struct mimalloc_page *page, const struct mimalloc_lists *lists, uint64_t link) {
	unsigned turn = lists->keys[0] % 64;

	if (!lists->has_keys)
		return link;
	link -= lists->keys[0];
	link = (turn ? link >> turn | link << (64 - turn) : link) ^ lists->keys[1];
	return link == page->meta ? 0 : link;
}

/* Return: the number of blocks in a list; UINT32_MAX: it leads elsewhere, or back. */
static uint32_t mark_list(const struct mimalloc_page *page, const struct mimalloc_lists *lists, raddr at,
	const uint8_t *bytes, size_t len, bool *free) {
	uint32_t n = 0;

	for (; at; n++) {
		uint64_t index = (at - page->start) / page->size;

		if (!is_block(page, at) || free[index] || index * page->size + WORD > len)
			return UINT32_MAX;
		free[index] = true;
		at = next_of(page, lists, peek_u64(bytes, len, index * page->size));
	}
	return n;
}

bool mimalloc_mark_free(const struct mimalloc_page *page, const struct mimalloc_lists *lists, const uint8_t *bytes,
	size_t len, bool *free) {
	uint32_t n[ARRAY_SIZE(lists->heads)];

	memset(free, 0, page->capacity * sizeof(*free));
	for (size_t i = 0; i < ARRAY_SIZE(n); i++)
		n[i] = mark_list(page, lists, lists->heads[i], bytes, len, free);
	return n[0] <= page->capacity && n[1] <= page->capacity && n[0] + n[1] + page->used == page->capacity &&
		n[2] <= page->used;
}

static int add_pages(struct mimalloc *heap, const struct mimalloc_segment *segment, const uint8_t *head) {
	const struct mimalloc_format *f = heap->format;
	struct mimalloc_lists lists;
	struct mimalloc_page page;
	uint64_t step;

	for (uint64_t i = f->info; i < segment->entries; i += step) {
		const uint8_t *bytes = head + f->slices + i * f->page_bytes;

		step = max_of(peek_u32(bytes, PAGE_HEAD_BYTES, AT_SPAN), 1U);
		if (!mimalloc_page_recognise(f, segment, i, bytes, &page, &lists))
			continue;
		if (heap->pages.n >= PAGES_MAX) {
			heap->incomplete = true;
			return 0;
		}
		if (vec_push(&heap->pages, page))
			return -ENOMEM;
	}
	return 0;
}

static int add_segment(const struct py_reader *py, struct mimalloc *heap, raddr addr, uint8_t *buf) {
	const struct mimalloc_format *f = heap->format;
	size_t len = f->slices + NORMAL_SLICES * f->page_bytes;
	struct mimalloc_segment segment;
	int r = mem_read(py->mem, addr, buf, len);

	if (r)
		return r == MEM_E_FAULT ? 0 : r;
	if (!mimalloc_segment_recognise(f, buf, addr, &segment) || segment.key != heap->key)
		return 0;
	heap->segments++;
	return add_pages(heap, &segment, buf);
}

/* Chooses the format and the key by the first segment that is one. */
static bool is_segment(const struct py_reader *py, struct mimalloc *heap, const uint8_t *head, raddr addr) {
	struct mimalloc_segment segment;

	if (heap->format)
		return mimalloc_segment_recognise(heap->format, head, addr, &segment) && segment.key == heap->key;
	for (size_t i = 0; i < mimalloc_formats_n; i++) {
		const struct mimalloc_format *f = &mimalloc_formats[i];

		if (f->flavour != py->flavour || !mimalloc_segment_recognise(f, head, addr, &segment))
			continue;
		heap->format = f;
		heap->key = segment.key;
		return true;
	}
	return false;
}

static int ask_places(const struct py_reader *py, struct mimalloc *heap, raddr first, size_t n, uint8_t *buf) {
	uint8_t heads[BATCH][MIMALLOC_BEGIN_BYTES];
	struct mem_range ranges[BATCH];
	size_t done;
	int r;

	for (size_t i = 0; i < n; i++)
		ranges[i] = (struct mem_range){ first + i * MIMALLOC_SEGMENT_BYTES, MIMALLOC_BEGIN_BYTES, heads[i] };
	for (size_t at = 0; at < n; at += done + 1) {
		r = mem_read_many(py->mem, ranges + at, n - at, &done);
		if (r && r != MEM_E_FAULT)
			return r;
		for (size_t i = at; i < at + done; i++) {
			r = is_segment(py, heap, heads[i], ranges[i].addr) ? add_segment(py, heap, ranges[i].addr, buf)
									   : 0;
			if (r)
				return r;
		}
	}
	return 0;
}

static int ask_region(
	const struct py_reader *py, struct mimalloc *heap, const struct region *region, uint64_t *left, uint8_t *buf) {
	raddr at = (region->start + MIMALLOC_SEGMENT_BYTES - 1) / MIMALLOC_SEGMENT_BYTES * MIMALLOC_SEGMENT_BYTES;
	uint64_t places = at >= region->start && at < region->end
		? (region->end - at + MIMALLOC_SEGMENT_BYTES - 1) / MIMALLOC_SEGMENT_BYTES
		: 0;

	heap->incomplete |= places > *left;
	places = min_of(places, *left);
	*left -= places;
	while (places) {
		size_t n = min_of(places, (uint64_t)BATCH);
		int r = ask_places(py, heap, at, n, buf);

		if (r)
			return r;
		at += n * MIMALLOC_SEGMENT_BYTES;
		places -= n;
	}
	return 0;
}

static int ask_object(const struct py_reader *py, struct mimalloc *heap, raddr object) {
	raddr addr = object / MIMALLOC_SEGMENT_BYTES * MIMALLOC_SEGMENT_BYTES;
	uint8_t head[MIMALLOC_BEGIN_BYTES];
	int r = mem_read(py->mem, addr, head, sizeof(head));

	if (r)
		return r == MEM_E_FAULT ? PY_E_TYPE : r;
	return is_segment(py, heap, head, addr) ? 0 : PY_E_TYPE;
}

int mimalloc_find(const struct py_reader *py, const struct regions *regions, raddr object, struct mimalloc *ret_heap) {
	_free_ uint8_t *buf = malloc(HEADER_BYTES_MAX);
	struct mimalloc heap = { .format = NULL };
	uint64_t left = PLACES_MAX;
	int r = buf ? 0 : -ENOMEM;

	if (!r && object)
		r = ask_object(py, &heap, object);
	vec_foreach (region, &regions->items)
		if (!r && region->heap)
			r = ask_region(py, &heap, region, &left, buf);
	if (!r && !heap.pages.n)
		r = PY_E_TYPE;
	if (r) {
		mimalloc_deinit(&heap);
		return r;
	}
	*ret_heap = heap;
	return 0;
}

void mimalloc_deinit(struct mimalloc *heap) {
	vec_free(&heap->pages);
}

const struct mimalloc_page *mimalloc_page_of(const struct mimalloc *heap, raddr addr) {
	size_t low = 0, high = heap->pages.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct mimalloc_page *page = &heap->pages.items[middle];

		if (addr < page->start)
			high = middle;
		else if (addr - page->start >= page->span)
			low = middle + 1;
		else
			return (addr - page->start) / page->size < page->capacity ? page : NULL;
	}
	return NULL;
}

raddr mimalloc_block_of(const struct mimalloc_page *page, raddr addr) {
	return addr - (addr - page->start) % page->size;
}

struct walk {
	const struct py_reader *py;
	const struct mimalloc *heap;
	mimalloc_visit *visit;
	void *userdata;
	struct mimalloc_totals totals;
	uint8_t *buf; /* MIMALLOC_READ_BYTES */
};

/* Copies a page with its description, which is older than the copy by less than a moment. Blocks made since the page
 * was found belong to it: it is read again. Return: 0 and *ret_len; PY_E_TORN: it is another page now; as mem_read. */
static int read_page(struct walk *w, struct mimalloc_page *page, struct mimalloc_lists *ret_lists, size_t *ret_len) {
	const struct mimalloc_format *f = w->heap->format;
	raddr segment = page->meta / MIMALLOC_SEGMENT_BYTES * MIMALLOC_SEGMENT_BYTES;
	uint64_t index = (page->meta - segment - f->slices) / f->page_bytes;
	struct mimalloc_segment described = { .addr = segment, .length = LENGTH_MAX, .entries = NORMAL_SLICES };

	for (unsigned i = 0; i < TRIES; i++) {
		uint8_t meta[MIMALLOC_PAGE_BYTES];
		size_t len = min_of(page->capacity * page->size, (uint64_t)MIMALLOC_READ_BYTES);
		struct mem_range ranges[] = { { page->meta, f->page_bytes, meta }, { page->start, len, w->buf } };
		struct mimalloc_page now;
		int r = mem_read_many(w->py->mem, ranges, ARRAY_SIZE(ranges), NULL);

		if (r)
			return r;
		if (!mimalloc_page_recognise(f, &described, index, meta, &now, ret_lists) || now.start != page->start ||
			now.size != page->size || now.span != page->span)
			return PY_E_TORN;
		if (now.capacity <= page->capacity) {
			*page = now;
			*ret_len = len;
			return 0;
		}
		*page = now;
	}
	return PY_E_TORN;
}

static int visit_blocks(struct walk *w, const struct mimalloc_page *page, size_t len, const bool *free) {
	uint64_t usable = page->size > w->heap->format->padding ? page->size - w->heap->format->padding : 0;

	for (uint32_t i = 0; i < page->capacity; i++) {
		uint64_t at = i * page->size;
		struct mimalloc_block block = {
			.addr = page->start + at,
			.size = page->size,
			.tag = page->tag,
			.bytes = w->buf + at,
			.len = min_of(usable, len - at),
		};
		int r = free[i] ? 0 : w->visit(w->userdata, &block);

		if (r)
			return r;
	}
	return 0;
}

static int walk_page(struct walk *w, struct mimalloc_page page) {
	bool free[MIMALLOC_BLOCKS_MAX];
	struct mimalloc_lists lists;
	size_t len = 0;
	int r = read_page(w, &page, &lists, &len);

	if (r == PY_E_TORN || r == MEM_E_FAULT) {
		w->totals.moved++;
		return 0;
	}
	if (r || !page.used)
		return r;
	if (!mimalloc_mark_free(&page, &lists, w->buf, len, free))
		w->totals.moved++;
	w->totals.pages++;
	w->totals.page_bytes += page.span;
	w->totals.blocks += page.used;
	w->totals.free_bytes += page.span - page.used * page.size;
	return visit_blocks(w, &page, len, free);
}

int mimalloc_walk(const struct py_reader *py, const struct mimalloc *heap, mimalloc_visit *visit, void *userdata,
	struct mimalloc_totals *ret_totals) {
	_free_ uint8_t *buf = malloc(MIMALLOC_READ_BYTES);
	struct walk w = { .py = py, .heap = heap, .visit = visit, .userdata = userdata, .buf = buf };
	int r = buf ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < heap->pages.n; i++)
		r = walk_page(&w, heap->pages.items[i]);
	if (!r)
		*ret_totals = w.totals;
	return r;
}
