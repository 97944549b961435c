/* SPDX-License-Identifier: MIT */
/* The census of a heap of mimalloc, by hand: which blocks are objects by their heap, what stands before them and how
 * their references are counted, tables that are blocks of their own, and what is new since another census. */
#include "engine/leaks/census.h"
#include "engine/leaks/mimalloc.h"
#include "engine/leaks/places.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

#define WORD 8
#define TYPE_READY (1UL << 12)
#define MANAGED_WEAKREF (1UL << 3)
#define SEGMENT UINT64_C(0x200000000000)
#define SEGMENT_BYTES (1U << 20) /* of it that are there */
#define SLICE MIMALLOC_SLICE_BYTES
#define LIST_ITEMS 200
#define IMMORTAL UINT32_MAX

struct heap {
	struct image *img;
	const struct mimalloc_format *f;
	struct mem *old;
	raddr meta, plain, tracked, managed, list;
	uint8_t bytes[SEGMENT_BYTES];
};

static void put(struct heap *heap, raddr at, uint64_t value, size_t bytes) {
	memcpy(heap->bytes + (at - SEGMENT), &value, bytes);
}

static raddr new_type(struct heap *heap, const char *name, uint64_t flags, uint64_t basicsize) {
	struct image *img = heap->img;
	raddr type = image_take(img, 1024), text = image_take(img, 64);

	image_put(img, text, name, strlen(name) + 1);
	image_put_u64(img, type + img->l->object_type, heap->meta ? heap->meta : type);
	image_put_u64(img, type + img->l->type_name, text);
	image_put_u64(img, type + img->l->type_basicsize, basicsize);
	image_put_u64(img, type + img->l->type_itemsize, 0);
	image_put_u64(img, type + img->l->type_flags, flags | TYPE_READY);
	return type;
}

/* A full page of `used` blocks. Return: the first one's address. */
static raddr new_page(struct heap *heap, unsigned slice, uint64_t size, unsigned used, enum mimalloc_tag tag) {
	const struct mimalloc_format *f = heap->f;
	raddr meta = SEGMENT + f->slices + slice * f->page_bytes;
	raddr start = SEGMENT + slice * SLICE + (size <= 64 ? 3 * size : size <= 512 ? size : 0);

	put(heap, meta, 1, 4);
	put(heap, meta + 10, used, 2);
	put(heap, meta + 12, used, 2);
	put(heap, meta + f->used, used, f->used_bytes);
	put(heap, meta + f->size, size, f->size_bytes);
	put(heap, meta + f->tag, tag << f->tag_shift, 1);
	if (f->start != MIMALLOC_NONE)
		put(heap, meta + f->start, start, 8);
	return start;
}

static void put_object(struct heap *heap, raddr at, raddr type, uint32_t local, int64_t shared) {
	const struct layout *l = heap->img->l;

	put(heap, at + l->object_type - 12, local, 4);
	put(heap, at + l->object_type - 8, (uint64_t)shared, 8);
	put(heap, at + l->object_type, type, 8);
}

static void open_segment(struct heap *heap) {
	const struct mimalloc_format *f = heap->f;

	put(heap, SEGMENT + 32, MIMALLOC_SEGMENT_BYTES, 8);
	put(heap, SEGMENT + f->length, 512, 8);
	put(heap, SEGMENT + f->entries, 512, 8);
	put(heap, SEGMENT + f->info_at, f->info, 8);
	put(heap, SEGMENT + f->slices, f->info, 4);
}

static void open_heap(struct image *img, struct heap *heap) {
	const struct layout *l = img->l;
	struct mem_segment segments[] = { { IMAGE_BASE, IMAGE_BYTES, img->bytes },
		{ SEGMENT, SEGMENT_BYTES, heap->bytes } };

	memset(heap, 0, sizeof(*heap));
	heap->img = img;
	for (size_t i = 0; i < mimalloc_formats_n && !heap->f; i++)
		if (mimalloc_formats[i].flavour == img->rt.reader.flavour)
			heap->f = &mimalloc_formats[i];
	heap->meta = new_type(heap, "type", TYPE_SUBCLASS, 400);
	heap->plain = new_type(heap, "Plain", TYPE_HEAP, l->object_size + WORD);
	heap->tracked = new_type(heap, "Tracked", TYPE_HEAP | TYPE_GC, l->object_size);
	heap->managed =
		new_type(heap, "Managed", TYPE_HEAP | TYPE_GC | TYPE_MANAGED_DICT | MANAGED_WEAKREF, l->object_size);
	heap->list = new_type(heap, "list", TYPE_LIST | TYPE_GC, l->list_items + 2 * WORD);
	open_segment(heap);
	heap->old = img->rt.reader.mem;
	cr_assert_eq(mem_bytes_new(segments, ARRAY_SIZE(segments), &img->rt.reader.mem), 0);
}

static void close_heap(struct heap *heap) {
	mem_free(heap->img->rt.reader.mem);
	heap->img->rt.reader.mem = heap->old;
}

static int take(struct heap *heap, const struct census_options *options, struct census *census) {
	char none[] = "";
	struct proc_map items[] = {
		{ .start = SEGMENT, .end = SEGMENT + SEGMENT_BYTES, .read = true, .write = true, .path = none },
		{ .start = IMAGE_BASE, .end = IMAGE_BASE + IMAGE_BYTES, .read = true, .write = true, .path = none },
	};
	proc_map_vec maps = { .items = items, .n = ARRAY_SIZE(items), .cap = ARRAY_SIZE(items) };

	memset(census, 0, sizeof(*census));
	return census_take(&heap->img->rt, &maps, options, census, NULL);
}

static struct heap_type type_in(const struct census *census, raddr type) {
	vec_foreach (item, &census->types)
		if (item->head.addr == type)
			return *item;
	return (struct heap_type){ 0 };
}

/* The interpreter's modules: any object of the heap. */
static void fill(struct heap *heap) {
	const struct layout *l = heap->img->l;
	raddr objects = new_page(heap, 3, 64, 6, MIMALLOC_OBJECT);
	raddr tracked = new_page(heap, 4, 48, 4, MIMALLOC_GC);
	raddr managed = new_page(heap, 5, 48, 2, MIMALLOC_GC_PRE);
	raddr tables = new_page(heap, 6, 2048, 2, MIMALLOC_MEM);
	raddr lists = new_page(heap, 7, 80, 1, MIMALLOC_GC);

	put_object(heap, objects, heap->plain, 1, 0);
	put_object(heap, objects + 64, heap->plain, 0, 1 << 2);               /* counted by others alone */
	put_object(heap, objects + 128, heap->plain, IMMORTAL, 0);            /* … */
	put_object(heap, objects + 192, heap->plain, 0, 3);                   /* merged, and freed */
	put_object(heap, objects + 256, heap->plain, 2, -2 * 4);              /* others dropped what this one took */
	put_object(heap, objects + 320, heap->plain, 0, (int64_t)IMAGE_BASE); /* an array of addresses */
	for (unsigned i = 0; i < 4; i++)
		put_object(heap, tracked + i * 48, heap->tracked, 1, 0);
	put_object(heap, managed + 16, heap->managed, 1, 0);
	put_object(heap, managed + 48, heap->managed, 1, 0); /* not where its heap has it */
	put_object(heap, tables, heap->plain, 1, 0);         /* no object: the heap of tables */
	put_object(heap, lists, heap->list, 1, 0);
	put(heap, lists + l->var_size, LIST_ITEMS, 8);
	put(heap, lists + l->list_items, tables + 2048 + 8, 8);
	put(heap, lists + l->list_items + WORD, LIST_ITEMS, 8);
	image_put_u64(heap->img, heap->img->interp + l->interp_modules, objects);
}

static void check_counts(struct image *img) {
	static struct heap heap;
	struct census census;

	if (!(img->rt.reader.flavour & LAYOUT_FREE_THREADED))
		return;
	open_heap(img, &heap);
	cr_assert_eq(take(&heap, &(struct census_options){ 0 }, &census), PYSPYD_E_UNSUPPORTED, "no pages");
	fill(&heap);
	cr_assert_eq(take(&heap, &(struct census_options){ 0 }, &census), 0);
	cr_assert_eq(type_in(&census, heap.plain).count, 3);
	cr_assert_eq(type_in(&census, heap.plain).bytes, 3 * 64);
	cr_assert_eq(type_in(&census, heap.tracked).count, 4);
	cr_assert_eq(type_in(&census, heap.managed).count, 1);
	cr_assert_eq(type_in(&census, heap.list).count, 1);
	cr_assert_eq(type_in(&census, heap.list).bytes, 80 + LIST_ITEMS * WORD);
	cr_assert_eq(census.containers.n, 1);
	cr_assert_eq(census.containers.items[0].length, LIST_ITEMS);
	cr_assert_eq(census.blocks, 15);
	cr_assert_eq(census.pools, 5);
	cr_assert_eq(census.objects, 9);
	cr_assert_eq(census.other_bytes, 3 * 64 + 48 + 2 * 2048 - LIST_ITEMS * WORD);
	cr_assert_eq(census.moved, 0);
	cr_assert_not(census.incomplete);
	census_deinit(&census);
	close_heap(&heap);
}

Test(census_mimalloc, counts) {
	image_each(check_counts);
}

static void check_growth(struct image *img) {
	static struct heap heap;
	struct place_span span;
	struct census before, after;
	raddr more;

	if (!(img->rt.reader.flavour & LAYOUT_FREE_THREADED))
		return;
	open_heap(img, &heap);
	fill(&heap);
	cr_assert_eq(take(&heap, &(struct census_options){ .flags = CENSUS_KEEP_PLACES }, &before), 0);
	cr_assert_eq(type_in(&before, heap.tracked).fresh, 4);
	cr_assert(places_find_span(before.places, SEGMENT + 6 * SLICE + 2048 + 8 + 100, &span), "the list's table");
	more = new_page(&heap, 4, 48, 6, MIMALLOC_GC);
	put_object(&heap, more + 4 * 48, heap.tracked, 1, 0);
	put_object(&heap, more + 5 * 48, heap.tracked, 1, 0);
	cr_assert_eq(take(&heap, &(struct census_options){ .before = &before }, &after), 0);
	cr_assert_eq(type_in(&after, heap.tracked).count, 6);
	cr_assert_eq(type_in(&after, heap.tracked).fresh, 2);
	cr_assert_eq(type_in(&after, heap.tracked).samples[1], more + 5 * 48);
	cr_assert_eq(type_in(&after, heap.plain).fresh, 0);
	census_deinit(&before);
	census_deinit(&after);
	close_heap(&heap);
}

Test(census_mimalloc, growth) {
	image_each(check_growth);
}
