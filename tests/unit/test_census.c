/* SPDX-License-Identifier: MIT */
/* Pools, types and objects by hand, counted; and headers, lists and sizes that lie. Real heaps are compared by
 * tests/live/heap_oracle.sh. */
#include "engine/leaks/census.h"
#include "engine/leaks/pools.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

#define V3_7 0x03070000
#define V3_10 0x030a0000
#define WORD 8
#define TYPE_READY (1UL << 12)
#define BLOCK 64
#define LARGE 700 /* items of a tuple */

struct heap {
	struct image *img;
	raddr meta, plain, tracked, tuple, list;
	raddr pool; /* one of blocks of BLOCK bytes, all of them free */
	uint32_t pool_bytes;
	uint32_t gc_head;
	uint32_t used;
};

static raddr new_type(struct heap *heap, const char *name, uint64_t flags, uint64_t basicsize, uint64_t itemsize) {
	struct image *img = heap->img;
	raddr type = image_take(img, 1024), text = image_take(img, 64);

	image_put(img, text, name, strlen(name) + 1);
	image_put_u64(img, type + img->l->object_type, heap->meta ? heap->meta : type);
	image_put_u64(img, type + img->l->type_name, text);
	image_put_u64(img, type + img->l->type_basicsize, basicsize);
	image_put_u64(img, type + img->l->type_itemsize, itemsize);
	image_put_u64(img, type + img->l->type_flags, flags | TYPE_READY);
	return type;
}

static void put_head(struct heap *heap, uint32_t used, uint32_t begun, raddr freeblock) {
	struct image *img = heap->img;

	image_put_u32(img, heap->pool, used);
	image_put_u64(img, heap->pool + 8, freeblock);
	image_put_u32(img, heap->pool + 32, 3);
	image_put_u32(img, heap->pool + 36, BLOCK / 16 - 1);
	image_put_u32(img, heap->pool + 40, POOL_HEAD_BYTES + begun * BLOCK);
	image_put_u32(img, heap->pool + 44, heap->pool_bytes - BLOCK);
}

static void open_heap(struct image *img, struct heap *heap) {
	const struct layout *l = img->l;

	*heap = (struct heap){
		.img = img,
		.pool_bytes = img->rt.reader.version < V3_10 ? 4096 : 16384,
		.gc_head = img->rt.reader.version < V3_7 + 0x10000 ? 32 : 16,
	};
	heap->meta = new_type(heap, "type", TYPE_SUBCLASS, 400, 0);
	heap->plain = new_type(heap, "Plain", TYPE_HEAP, l->object_size + WORD, 0);
	heap->tracked = new_type(heap, "Tracked", TYPE_HEAP | TYPE_GC, l->object_size, 0);
	heap->tuple = new_type(heap, "tuple", TYPE_TUPLE | TYPE_GC, l->tuple_items, WORD);
	heap->list = new_type(heap, "list", TYPE_LIST | TYPE_GC, l->list_items + 2 * WORD, 0);
	heap->pool = image_take(img, 2 * (size_t)heap->pool_bytes);
	heap->pool = (heap->pool + heap->pool_bytes - 1) / heap->pool_bytes * heap->pool_bytes;
}

static raddr block_at(const struct heap *heap, uint32_t index) {
	return heap->pool + POOL_HEAD_BYTES + (raddr)index * BLOCK;
}

static raddr put_object(struct heap *heap, raddr at, raddr type) {
	image_put_u64(heap->img, at + heap->img->l->object_type - WORD, 1);
	image_put_u64(heap->img, at + heap->img->l->object_type, type);
	return at;
}

static raddr add_object(struct heap *heap, raddr type, bool gc) {
	raddr at = put_object(heap, block_at(heap, heap->used++) + (gc ? heap->gc_head : 0), type);

	put_head(heap, heap->used, heap->used, 0);
	return at;
}

static int take_with(struct heap *heap, const struct census_options *options, struct census *census) {
	struct proc_map map = {
		.start = IMAGE_BASE,
		.end = IMAGE_BASE + IMAGE_BYTES,
		.read = true,
		.write = true,
		.path = (char[]){ "" },
	};
	proc_map_vec maps = { .items = &map, .n = 1, .cap = 1 };

	memset(census, 0, sizeof(*census));
	return census_take(&heap->img->rt, &maps, options, census, NULL);
}

static int take(struct heap *heap, struct census *census) {
	return take_with(heap, &(struct census_options){ 0 }, census);
}

static struct heap_type type_in(const struct census *census, raddr type) {
	vec_foreach (item, &census->types)
		if (item->head.addr == type)
			return *item;
	return (struct heap_type){ 0 };
}

static void check_counts(struct image *img) {
	struct census census;
	struct heap heap;
	raddr dead;

	open_heap(img, &heap);
	if (img->rt.reader.flavour & LAYOUT_FREE_THREADED) {
		cr_assert_eq(take(&heap, &census), PYSPYD_E_UNSUPPORTED);
		return;
	}
	cr_assert_eq(take(&heap, &census), PYSPYD_E_UNSUPPORTED, "no pools");
	for (int i = 0; i < 10; i++)
		add_object(&heap, heap.plain, false);
	for (int i = 0; i < 5; i++)
		add_object(&heap, heap.tracked, true);
	dead = add_object(&heap, heap.plain, false); /* kept for reuse: nobody refers to it */
	image_put_u64(img, dead + img->l->object_type - WORD, 0);
	dead = add_object(&heap, heap.plain, false); /* two references, as in a tuple */
	image_put_u64(img, dead + img->l->object_type - WORD, dead);
	add_object(&heap, heap.tracked, false); /* no head of the collector's before it: something else */
	/* blocks 3 and 7 are free, and still look like objects but for their first word */
	image_put_u64(img, block_at(&heap, 3), block_at(&heap, 7));
	image_put_u64(img, block_at(&heap, 7), 0);
	put_head(&heap, heap.used - 2, heap.used, block_at(&heap, 3));
	cr_assert_eq(take(&heap, &census), 0);
	cr_assert_eq(type_in(&census, heap.plain).count, 8);
	cr_assert_eq(type_in(&census, heap.plain).bytes, 8 * BLOCK);
	cr_assert_eq(type_in(&census, heap.tracked).count, 5);
	cr_assert_eq(census.blocks, heap.used - 2);
	cr_assert_eq(census.other_bytes, 3 * BLOCK);
	cr_assert_eq(census.objects, 13);
	cr_assert_eq(census.moved, 0);
	cr_assert_not(census.incomplete);
	census_deinit(&census);
}

Test(census, counts) {
	image_each(check_counts);
}

static raddr new_tuple(struct heap *heap, uint64_t items) {
	raddr at = image_take(heap->img, heap->gc_head + heap->img->l->tuple_items + LARGE * WORD + 16);

	at = (at + 15) / 16 * 16 + heap->gc_head;
	put_object(heap, at, heap->tuple);
	image_put_u64(heap->img, at + heap->img->l->var_size, items);
	return at;
}

/* A chain of references through large tuples, one of them by the collector's links alone, back to the first. */
static void check_large(struct image *img) {
	struct census census;
	struct heap heap;
	raddr first, second, third, liar;

	open_heap(img, &heap);
	if (img->rt.reader.flavour & LAYOUT_FREE_THREADED)
		return;
	first = new_tuple(&heap, LARGE);
	second = new_tuple(&heap, LARGE);
	third = new_tuple(&heap, LARGE);
	liar = new_tuple(&heap, UINT64_C(1) << 31);
	image_put_u64(img, add_object(&heap, heap.plain, false) + img->l->object_size, first);
	image_put_u64(img, first + img->l->tuple_items + 600 * WORD, second);
	image_put_u64(img, second - heap.gc_head, third - heap.gc_head);
	image_put_u64(img, third + img->l->tuple_items, first);
	image_put_u64(img, third + img->l->tuple_items + WORD, liar);
	cr_assert_eq(take(&heap, &census), 0);
	cr_assert_eq(type_in(&census, heap.tuple).count, 3);
	cr_assert_eq(type_in(&census, heap.tuple).bytes, 3 * (heap.gc_head + img->l->tuple_items + LARGE * WORD));
	cr_assert_eq(census.large, 3);
	cr_assert_eq(census.containers.n, 3);
	cr_assert_eq(census.containers.items[0].length, LARGE);
	census_deinit(&census);
}

Test(census, large_objects) {
	image_each(check_large);
}

/* Lists: one with a table, one that says that its table is without end. */
static void check_lists(struct image *img) {
	struct census census;
	struct heap heap;
	raddr table, list, hidden;

	open_heap(img, &heap);
	if (img->rt.reader.flavour & LAYOUT_FREE_THREADED || heap.gc_head + img->l->list_items + 2 * WORD > BLOCK)
		return;
	table = (image_take(img, 1024 + 16) + 15) / 16 * 16;
	hidden = new_tuple(&heap, LARGE);
	image_put_u64(img, table + 99 * WORD, hidden);
	list = add_object(&heap, heap.list, true);
	image_put_u64(img, list + img->l->var_size, 100);
	image_put_u64(img, list + img->l->list_items, table);
	image_put_u64(img, list + img->l->list_items + WORD, 120);
	list = add_object(&heap, heap.list, true);
	image_put_u64(img, list + img->l->var_size, UINT64_C(1) << 60);
	image_put_u64(img, list + img->l->list_items, table);
	image_put_u64(img, list + img->l->list_items + WORD, UINT64_MAX);
	cr_assert_eq(take(&heap, &census), 0);
	cr_assert_eq(type_in(&census, heap.list).count, 2);
	cr_assert_eq(type_in(&census, heap.list).bytes, 2 * BLOCK + 120 * WORD);
	cr_assert_eq(type_in(&census, heap.tuple).count, 1, "found in the list's table");
	cr_assert_eq(census.containers.n, 2, "the list and the tuple");
	census_deinit(&census);
}

Test(census, lists) {
	image_each(check_lists);
}

static const struct proc_map whole = {
	.start = IMAGE_BASE, .end = IMAGE_BASE + IMAGE_BYTES, .read = true, .write = true
};

/* A list whose table moves, out of the maps at that, after its head was read: what it leads to is found nevertheless.
 */
struct mover {
	struct heap *heap;
	raddr list, from, to;
	unsigned moves;
};

#define TABLE_ITEMS 1024

static bool move(void *userdata, uint64_t done_bytes, uint64_t all_bytes) {
	struct mover *mover = userdata;
	struct image *img = mover->heap->img;

	(void)done_bytes;
	if (!all_bytes || mover->moves)
		return false;
	mover->moves++;
	for (uint32_t i = 0; i < TABLE_ITEMS; i++) {
		image_put_u64(img, mover->to + i * WORD, image_u64(img, mover->from + i * WORD));
		image_put_u64(img, mover->from + i * WORD, 0);
	}
	image_put_u64(img, mover->list + img->l->list_items, mover->to);
	return false;
}

static void check_moving(struct image *img) {
	struct mover mover = { .moves = 0 };
	struct proc_map maps_items[1];
	proc_map_vec maps = { .items = maps_items, .n = 1, .cap = 1 };
	struct census_options options = { .flags = CENSUS_KEEP_PLACES, .progress = move, .userdata = &mover };
	struct census census = { 0 };
	struct heap heap;

	open_heap(img, &heap);
	if (img->rt.reader.flavour & LAYOUT_FREE_THREADED || heap.gc_head + img->l->list_items + 2 * WORD > BLOCK)
		return;
	mover.heap = &heap;
	mover.from = (image_take(img, TABLE_ITEMS * WORD + 16) + 15) / 16 * 16;
	for (uint32_t i = 0; i < 50; i++)
		image_put_u64(img, mover.from + 20 * i * WORD, new_tuple(&heap, LARGE));
	mover.to = (image_take(img, TABLE_ITEMS * WORD + 8192) + 4095) / 4096 * 4096;
	mover.list = add_object(&heap, heap.list, true);
	image_put_u64(img, mover.list + img->l->var_size, TABLE_ITEMS);
	image_put_u64(img, mover.list + img->l->list_items, mover.from);
	image_put_u64(img, mover.list + img->l->list_items + WORD, TABLE_ITEMS);
	maps_items[0] = whole;
	maps_items[0].path = (char[]){ "" };
	maps_items[0].end = mover.to;
	cr_assert_eq(census_take(&img->rt, &maps, &options, &census, NULL), 0);
	cr_assert_eq(mover.moves, 1);
	cr_assert_eq(type_in(&census, heap.tuple).count, 50);
	cr_assert_eq(type_in(&census, heap.list).bytes, BLOCK + TABLE_ITEMS * WORD, "counted once");
	census_deinit(&census);
}

Test(census, lists_that_move) {
	image_each(check_moving);
}

/* A table that grew beyond the end of what the maps say. */
static void check_growing(struct image *img) {
	struct proc_map maps_items[1] = { whole };
	proc_map_vec maps = { .items = maps_items, .n = 1, .cap = 1 };
	struct census_options options = { 0 };
	struct census census = { 0 };
	raddr table, list, tuple;
	struct heap heap;

	open_heap(img, &heap);
	if (img->rt.reader.flavour & LAYOUT_FREE_THREADED || heap.gc_head + img->l->list_items + 2 * WORD > BLOCK)
		return;
	tuple = new_tuple(&heap, LARGE);
	table = (image_take(img, TABLE_ITEMS * WORD + 8192) + 4095) / 4096 * 4096;
	list = add_object(&heap, heap.list, true);
	image_put_u64(img, list + img->l->var_size, TABLE_ITEMS);
	image_put_u64(img, list + img->l->list_items, table);
	image_put_u64(img, list + img->l->list_items + WORD, TABLE_ITEMS);
	image_put_u64(img, table + 1000 * WORD, tuple);
	maps_items[0].path = (char[]){ "" };
	maps_items[0].end = table + 4096;
	cr_assert_eq(census_take(&img->rt, &maps, &options, &census, NULL), 0);
	cr_assert_eq(type_in(&census, heap.tuple).count, 1);
	cr_assert_eq(type_in(&census, heap.list).bytes, BLOCK + TABLE_ITEMS * WORD);
	census_deinit(&census);
}

Test(census, tables_beyond_the_maps) {
	image_each(check_growing);
}

/* Bytes that objects own outside themselves. One says that its buffer lies where nothing is. */
static void check_buffers(struct image *img) {
	uint32_t n = img->l->var_size, object = img->l->object_size;
	struct census census;
	struct heap heap;
	raddr buffer, bytearray, array, ndarray, at, descriptor, lengths;

	open_heap(img, &heap);
	if (img->rt.reader.flavour & LAYOUT_FREE_THREADED)
		return;
	bytearray = new_type(&heap, "bytearray", 0, object + 5 * WORD, 0);
	array = new_type(&heap, "array.array", TYPE_HEAP, object + 5 * WORD, 0);
	ndarray = new_type(&heap, "numpy.ndarray", 0, object + 10 * WORD, 0);
	buffer = (image_take(img, 20000) + 15) / 16 * 16;
	descriptor = image_take(img, 64);
	lengths = image_take(img, 64);
	if (object + 5 * WORD <= BLOCK) {
		at = add_object(&heap, bytearray, false);
		image_put_u64(img, at + n + WORD, 601);
		image_put_u64(img, at + n + 2 * WORD, buffer);
		at = add_object(&heap, bytearray, false);
		image_put_u64(img, at + n + WORD, 1000);
		image_put_u64(img, at + n + 2 * WORD, IMAGE_NOWHERE);
		at = add_object(&heap, array, false);
		image_put_u64(img, at + n + WORD, buffer + 1024);
		image_put_u64(img, at + n + 2 * WORD, 300);
		image_put_u64(img, at + n + 3 * WORD, descriptor);
		image_put_u32(img, descriptor + 4, 8);
		cr_assert_eq(take(&heap, &census), 0);
		cr_assert_eq(
			type_in(&census, bytearray).bytes, 2 * BLOCK + (img->rt.reader.version < 0x030f0000 ? 601 : 0));
		cr_assert_eq(type_in(&census, array).bytes, BLOCK + 2400);
		census_deinit(&census);
	}
	at = put_object(&heap, (image_take(img, 256) + 15) / 16 * 16, ndarray);
	image_put_u64(img, add_object(&heap, heap.plain, false) + object, at);
	image_put_u64(img, at + object, buffer + 4096);
	image_put_u32(img, at + object + WORD, 2);
	image_put_u64(img, at + object + 2 * WORD, lengths);
	image_put_u64(img, lengths, 50);
	image_put_u64(img, lengths + WORD, 20);
	image_put_u64(img, lengths + 2 * WORD, 8);
	image_put_u64(img, lengths + 3 * WORD, (uint64_t)-400);
	image_put_u32(img, at + object + 6 * WORD, 4);
	cr_assert_eq(take(&heap, &census), 0);
	cr_assert_eq(type_in(&census, ndarray).bytes, object + 10 * WORD + 8000);
	census_deinit(&census);
	image_put_u32(img, at + object + 6 * WORD, 0); /* a view */
	cr_assert_eq(take(&heap, &census), 0);
	cr_assert_eq(type_in(&census, ndarray).bytes, object + 10 * WORD);
	census_deinit(&census);
}

Test(census, buffers) {
	image_each(check_buffers);
}

static bool is_sample(const struct heap_type *type, raddr object) {
	for (uint32_t i = 0; i < type->samples_n; i++)
		if (type->samples[i] == object)
			return true;
	return false;
}

/* Of a second census: objects in blocks that were free, and large ones that were not there. */
static void check_fresh(struct image *img) {
	struct census_options options = { .flags = CENSUS_KEEP_PLACES };
	struct census before, now;
	struct heap_type type;
	struct heap heap;
	raddr old, large, added[8];

	open_heap(img, &heap);
	if (img->rt.reader.flavour & LAYOUT_FREE_THREADED)
		return;
	for (int i = 0; i < 40; i++)
		old = add_object(&heap, heap.plain, false);
	large = new_tuple(&heap, LARGE);
	image_put_u64(img, old + img->l->object_size, large);
	cr_assert_eq(take_with(&heap, &options, &before), 0);
	cr_assert_not_null(before.places);
	type = type_in(&before, heap.plain);
	cr_assert_eq(type.fresh, 40);
	cr_assert_eq(type.samples_n, 20, "every other one, when there were more than could be kept");
	cr_assert(is_sample(&type, block_at(&heap, 0)));
	for (int i = 0; i < 8; i++)
		added[i] = add_object(&heap, heap.plain, false);
	image_put_u64(img, added[0] + img->l->object_size, large);
	image_put_u64(img, large + img->l->tuple_items, new_tuple(&heap, LARGE));
	options.before = &before;
	cr_assert_eq(take_with(&heap, &options, &now), 0);
	type = type_in(&now, heap.plain);
	cr_assert_eq(type.count, 48);
	cr_assert_eq(type.fresh, 8);
	cr_assert_eq(type.samples_n, 8);
	for (int i = 0; i < 8; i++)
		cr_assert(is_sample(&type, added[i]));
	type = type_in(&now, heap.tuple);
	cr_assert_eq(type.count, 2);
	cr_assert_eq(type.fresh, 1);
	cr_assert_neq(type.samples[0], large);
	census_deinit(&before);
	census_deinit(&now);
	cr_assert_null(now.places);
}

Test(census, fresh_objects) {
	image_each(check_fresh);
}

struct asked {
	unsigned times, stop_at;
	uint64_t all;
};

static bool ask(void *userdata, uint64_t done_bytes, uint64_t all_bytes) {
	struct asked *asked = userdata;

	cr_assert_leq(done_bytes, all_bytes);
	asked->all = all_bytes;
	return ++asked->times == asked->stop_at;
}

static void check_progress(struct image *img) {
	struct asked asked = { .stop_at = 0 };
	struct census_options options = { .flags = CENSUS_KEEP_PLACES, .progress = ask, .userdata = &asked };
	struct census census;
	struct heap heap;
	unsigned times;

	open_heap(img, &heap);
	if (img->rt.reader.flavour & LAYOUT_FREE_THREADED)
		return;
	add_object(&heap, heap.plain, false);
	cr_assert_eq(take_with(&heap, &options, &census), 0);
	census_deinit(&census);
	times = asked.times;
	cr_assert_geq(times, 2);
	cr_assert_eq(asked.all, IMAGE_BYTES);
	for (unsigned i = 1; i <= times; i++) {
		asked = (struct asked){ .stop_at = i };
		cr_assert_eq(take_with(&heap, &options, &census), -ECANCELED, "at %u of %u", i, times);
	}
}

Test(census, progress) {
	image_each(check_progress);
}

/* What looks like a type but for one thing. */
static void check_types(struct image *img) {
	struct census census;
	struct heap heap;
	raddr bad[6];

	open_heap(img, &heap);
	if (img->rt.reader.flavour & LAYOUT_FREE_THREADED)
		return;
	for (size_t i = 0; i < 6; i++)
		bad[i] = new_type(&heap, "Bad", TYPE_HEAP, img->l->object_size, 0);
	image_put_u64(img, bad[0] + img->l->type_flags, TYPE_HEAP); /* not ready */
	image_put_u64(img, bad[1] + img->l->type_basicsize, 1 << 30);
	image_put_u64(img, bad[2] + img->l->type_name, IMAGE_NOWHERE);
	image_put_u64(img, bad[3] + img->l->object_type, bad[4]); /* types of types in a circle */
	image_put_u64(img, bad[4] + img->l->object_type, bad[3]);
	image_put_u64(img, bad[4] + img->l->type_flags, TYPE_SUBCLASS | TYPE_READY);
	image_put_u64(img, bad[3] + img->l->type_flags, TYPE_SUBCLASS | TYPE_READY);
	image_put_u64(img, bad[5] + img->l->object_type, bad[5]); /* its own, and makes no types */
	for (size_t i = 0; i < 6; i++)
		add_object(&heap, bad[i], false);
	add_object(&heap, heap.plain, false);
	cr_assert_eq(take(&heap, &census), 0);
	cr_assert_eq(census.objects, 1);
	cr_assert_eq(census.other_bytes, 6 * BLOCK);
	census_deinit(&census);
}

Test(census, types_that_are_none) {
	image_each(check_types);
}

/* Headers. */

#define POOL_AT UINT64_C(0x7f0000004000)

struct head {
	uint32_t used, arena, size_class, next, last;
	raddr freeblock;
};

static bool recognise(const struct head *head, uint32_t pool_bytes) {
	uint8_t bytes[POOL_HEAD_BYTES] = { 0 };
	struct pool pool;

	memcpy(bytes, &head->used, 4);
	memcpy(bytes + 8, &head->freeblock, 8);
	memcpy(bytes + 32, &head->arena, 4);
	memcpy(bytes + 36, &head->size_class, 4);
	memcpy(bytes + 40, &head->next, 4);
	memcpy(bytes + 44, &head->last, 4);
	return pool_recognise(bytes, POOL_AT, pool_bytes, &pool);
}

Test(census, headers) {
	const struct head good = { 2, 0, 3, 48 + 3 * 64, 16384 - 64, POOL_AT + 48 + 64 };
	const struct head full = { 255, 9, 3, 48 + 255 * 64, 16384 - 64, 0 };
	const struct head small = { 10, 0, 3, 48 + 10 * 32, 4096 - 32, 0 };

	cr_assert(recognise(&good, 16384));
	cr_assert(recognise(&full, 16384));
	cr_assert(recognise(&small, 4096), "classes of 8 bytes, as 3.6 has");
}

Test(census, headers_that_lie) {
	const struct head heads[] = {
		{ 0 },
		{ 0, 0, 3, 48 + 3 * 64, 16384 - 64, POOL_AT + 48 + 64 }, /* nothing in use */
		{ 4, 0, 3, 48 + 3 * 64, 16384 - 64, POOL_AT + 48 + 64 }, /* more than were begun */
		{ 2, 0, 4, 48 + 3 * 64, 16384 - 64, POOL_AT + 48 + 64 }, /* another class */
		{ 2, 0, UINT32_MAX, 48 + 3 * 64, 16384 - 64, POOL_AT + 48 + 64 },
		{ 2, 1U << 30, 3, 48 + 3 * 64, 16384 - 64, POOL_AT + 48 + 64 }, /* no such arena */
		{ 2, 0, 3, 48 + 3 * 64 + 8, 16384 - 64, POOL_AT + 48 + 64 },    /* between two blocks */
		{ 2, 0, 3, 48, 16384 - 64, 0 },                                 /* none begun */
		{ 2, 0, 3, 48 + 256 * 64, 16384 - 64, 0 },                      /* behind the end */
		{ 2, 0, 3, UINT32_MAX, 16384 - 64, 0 },
		{ 2, 0, 3, 48 + 3 * 64, 16384, 0 }, /* blocks of no size */
		{ 2, 0, 3, 48 + 3 * 64, UINT32_MAX, 0 },
		{ 2, 0, 3, 48 + 3 * 64, 0, 0 },
		{ 2, 0, 3, 48 + 3 * 64, 16384 - 64, POOL_AT + 48 + 3 * 64 }, /* free, but never begun */
		{ 2, 0, 3, 48 + 3 * 64, 16384 - 64, POOL_AT + 56 },
		{ 2, 0, 3, 48 + 3 * 64, 16384 - 64, POOL_AT },
		{ 2, 0, 3, 48 + 3 * 64, 16384 - 64, UINT64_MAX - 15 },
		{ UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT64_MAX },
	};

	for (size_t i = 0; i < ARRAY_SIZE(heads); i++)
		cr_assert_not(recognise(&heads[i], 16384), "header %zu", i);
}

Test(census, free_lists_that_lie) {
	static uint8_t bytes[16384];
	static bool free[POOL_BLOCKS_MAX];
	struct pool pool = { .size = 64, .used = 5, .begun = 8, .freeblock = POOL_AT + 48 };
	const raddr links[] = { POOL_AT + 48, POOL_AT + 48 + 8 * 64, POOL_AT + 49, 1, UINT64_MAX, POOL_AT - 64, 0 };

	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		memcpy(bytes + 48, &links[i], sizeof(links[i]));
		cr_assert_not(pool_mark_free(bytes, POOL_AT, sizeof(bytes), &pool, free), "link %zu", i);
	}
	pool.used = 7;
	cr_assert(pool_mark_free(bytes, POOL_AT, sizeof(bytes), &pool, free));
	cr_assert(free[0] && !free[1]);
}

/* Bytes by chance in place of a heap: no crash, an end. */
static void check_noise(struct image *img) {
	struct census census;
	struct heap heap;
	uint64_t seed = 12345;

	open_heap(img, &heap);
	if (img->rt.reader.flavour & LAYOUT_FREE_THREADED)
		return;
	for (uint32_t i = 0; i < 40; i++)
		add_object(&heap, i % 2 ? heap.list : heap.tuple, true);
	for (raddr at = block_at(&heap, 0); at < block_at(&heap, 40); at += WORD) {
		seed = hash_mix(seed + 1);
		if (image_u64(img, at) == 0)
			image_put_u64(img, at, seed % 3 ? IMAGE_BASE + seed % IMAGE_BYTES / 16 * 16 : seed);
	}
	cr_assert_eq(take(&heap, &census), 0);
	cr_assert_leq(census.blocks, 40);
	census_deinit(&census);
}

Test(census, noise) {
	image_each(check_noise);
}
