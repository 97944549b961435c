/* SPDX-License-Identifier: MIT */
/* Who keeps objects, in small heaps by hand: what counts as a reference and what does not, circles, and what is not
 * known. Real programs are compared by tests/live/keepers_oracle.sh. */
#include "engine/base/clock.h"
#include "engine/leaks/keepers.h"
#include "engine/leaks/pools.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

#define V3_10 0x030a0000
#define WORD 8
#define TYPE_READY (1UL << 12)
#define BLOCK 64
#define LARGE 700 /* items of a tuple */

struct heap {
	struct image *img;
	raddr meta, plain, tracked, tuple, weak;
	raddr pool;
	uint32_t pool_bytes, gc_head, used;
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

static bool open_heap(struct image *img, struct heap *heap) {
	const struct layout *l = img->l;

	*heap = (struct heap){
		.img = img,
		.pool_bytes = img->rt.reader.version < V3_10 ? 4096 : 16384,
		.gc_head = gc_head_bytes(&img->rt.reader),
	};
	heap->meta = new_type(heap, "type", TYPE_SUBCLASS, 400, 0);
	heap->plain = new_type(heap, "Plain", 0, l->object_size + WORD, 0);
	heap->tracked = new_type(heap, "Tracked", TYPE_GC, l->object_size + WORD, 0);
	heap->tuple = new_type(heap, "tuple", TYPE_TUPLE | TYPE_GC, l->tuple_items, WORD);
	heap->weak =
		new_type(heap, "weakref", 0, l->object_size + 6 * WORD > BLOCK ? 48 : l->object_size + 5 * WORD, 0);
	heap->pool = image_take(img, 2 * (size_t)heap->pool_bytes);
	heap->pool = (heap->pool + heap->pool_bytes - 1) / heap->pool_bytes * heap->pool_bytes;
	return !(img->rt.reader.flavour & LAYOUT_FREE_THREADED);
}

static raddr take_block(struct heap *heap) {
	struct image *img = heap->img;
	uint32_t index = heap->used++;

	image_put_u32(img, heap->pool, heap->used);
	image_put_u32(img, heap->pool + 32, 3);
	image_put_u32(img, heap->pool + 36, BLOCK / 16 - 1);
	image_put_u32(img, heap->pool + 40, POOL_HEAD_BYTES + heap->used * BLOCK);
	image_put_u32(img, heap->pool + 44, heap->pool_bytes - BLOCK);
	return heap->pool + POOL_HEAD_BYTES + (raddr)index * BLOCK;
}

static raddr add_object(struct heap *heap, raddr type, uint64_t count, bool gc) {
	raddr at = take_block(heap) + (gc ? heap->gc_head : 0);

	image_put_u64(heap->img, at + heap->img->l->object_type - WORD, count);
	image_put_u64(heap->img, at + heap->img->l->object_type, type);
	return at;
}

static void refer(struct heap *heap, raddr from, raddr to) {
	image_put_u64(heap->img, from + heap->img->l->object_size, to);
}

/* Refers to it from native memory. */
static raddr hold(struct heap *heap, raddr object) {
	image_put_u64(heap->img, image_take(heap->img, 64), object);
	return object;
}

static void find(struct heap *heap, raddr object, struct keeper *ret) {
	const struct keeper_limits limits = { .until_ns = clock_mono_ns() + 60 * NS_PER_SEC };
	struct proc_map map = {
		.start = IMAGE_BASE,
		.end = IMAGE_BASE + IMAGE_BYTES,
		.read = true,
		.write = true,
		.path = (char[]){ "" },
	};
	proc_map_vec maps = { .items = &map, .n = 1, .cap = 1 };
	const struct census_options options = { .flags = CENSUS_KEEP_PLACES };
	struct census census = { 0 };

	cr_assert_eq(census_take(&heap->img->rt, &maps, &options, &census, NULL), 0);
	cr_assert_eq(keepers_find(&heap->img->rt, &census, &object, 1, &limits, ret), 0);
	census_deinit(&census);
}

static void expect(struct heap *heap, raddr object, enum keeper_root root, const char *path) {
	struct keeper keeper;

	find(heap, object, &keeper);
	cr_assert_eq(keeper.root, root, "%x: %d %s", heap->img->rt.reader.version, keeper.root, keeper.path);
	if (path)
		cr_assert_str_eq(keeper.path, path);
	else
		cr_assert_null(keeper.path);
	cr_assert_eq(keeper.container, 0);
	keepers_deinit(&keeper, 1);
}

static void check_lost(struct image *img) {
	struct heap heap;
	raddr object;

	if (!open_heap(img, &heap))
		return;
	object = add_object(&heap, heap.plain, 1, false);
	expect(&heap, object, KEEPER_UNKNOWN, NULL);
}

Test(keepers, of_what_nobody_refers_to) {
	image_each(check_lost);
}

static void check_circle(struct image *img) {
	struct heap heap;
	raddr a, b, c;

	if (!open_heap(img, &heap))
		return;
	a = add_object(&heap, heap.tracked, 1, true);
	b = add_object(&heap, heap.tracked, 1, true);
	c = add_object(&heap, heap.plain, 1, false);
	refer(&heap, a, b);
	refer(&heap, b, c);
	refer(&heap, c, a);
	expect(&heap, a, KEEPER_CYCLE, "garbage in a cycle");
	image_put_u64(img, b + img->l->object_type - WORD, 2); /* somebody unseen holds it */
	expect(&heap, a, KEEPER_UNKNOWN, NULL);
}

Test(keepers, of_circles) {
	image_each(check_circle);
}

static void check_native(struct image *img) {
	struct heap heap;
	raddr object, holder;

	if (!open_heap(img, &heap))
		return;
	object = add_object(&heap, heap.plain, 1, false);
	holder = add_object(&heap, heap.plain, 1, false);
	hold(&heap, holder);
	refer(&heap, holder, object);
	expect(&heap, holder, KEEPER_NATIVE, "native memory");
	expect(&heap, object, KEEPER_NATIVE, "native memory: Plain[…]");
}

Test(keepers, in_native_memory) {
	image_each(check_native);
}

/* Words that hold the address, none of which keeps the object: those before and behind an object, of a weak reference,
 * in what is free, and in an object of no references that waits to be used again. */
static void check_words(struct image *img) {
	struct heap heap;
	raddr object, at;

	if (!open_heap(img, &heap))
		return;
	object = add_object(&heap, heap.plain, 1, false);
	at = hold(&heap, add_object(&heap, heap.tracked, 1, true));
	image_put_u64(img, at - heap.gc_head, object);
	image_put_u64(img, at + img->l->object_size + WORD, object);
	at = hold(&heap, add_object(&heap, heap.weak, 1, false));
	image_put_u64(img, at + img->l->object_size, object);
	at = hold(&heap, add_object(&heap, heap.plain, 0, false));
	refer(&heap, at, object);
	at = hold(&heap, take_block(&heap) + BLOCK); /* the next block, never in use */
	image_put_u64(img, at + WORD, object);
	expect(&heap, object, KEEPER_UNKNOWN, NULL);
	at = hold(&heap, add_object(&heap, heap.plain, 1, false));
	refer(&heap, at, object);
	expect(&heap, object, KEEPER_NATIVE, "native memory: Plain[…]");
}

Test(keepers, leaves_out_words_that_keep_nothing) {
	image_each(check_words);
}

/* A container on the way, outside pools. */
static void check_container(struct image *img) {
	struct keeper keeper;
	struct heap heap;
	raddr object, holder, tuple;

	if (!open_heap(img, &heap))
		return;
	object = add_object(&heap, heap.plain, 1, false);
	holder = add_object(&heap, heap.plain, 1, false);
	tuple = (image_take(img, heap.gc_head + img->l->tuple_items + LARGE * WORD + 16) + 15) / 16 * 16 + heap.gc_head;
	image_put_u64(img, tuple + img->l->object_type - WORD, 1);
	image_put_u64(img, tuple + img->l->object_type, heap.tuple);
	image_put_u64(img, tuple + img->l->var_size, LARGE);
	image_put_u64(img, tuple + img->l->tuple_items + 600 * WORD, object);
	refer(&heap, holder, tuple);
	hold(&heap, holder);
	find(&heap, object, &keeper);
	cr_assert_eq(keeper.root, KEEPER_NATIVE);
	cr_assert_eq(keeper.container, tuple);
	cr_assert_str_eq(keeper.container_path, "native memory: Plain[…]");
	cr_assert_eq(strncmp(keeper.path, "native memory: Plain[…][", strlen("native memory: Plain[…][")), 0);
	keepers_deinit(&keeper, 1);
}

Test(keepers, with_the_container_on_the_way) {
	image_each(check_container);
}

/* A list whose table moved after the census: what is in it is the list's, not nobody's. */
static void check_moved(struct image *img) {
	const struct keeper_limits limits = { .until_ns = clock_mono_ns() + 60 * NS_PER_SEC };
	const struct census_options options = { .flags = CENSUS_KEEP_PLACES };
	struct proc_map map = { .start = IMAGE_BASE,
		.end = IMAGE_BASE + IMAGE_BYTES,
		.read = true,
		.write = true,
		.path = (char[]){ "" } };
	proc_map_vec maps = { .items = &map, .n = 1, .cap = 1 };
	const uint32_t length = 1024;
	struct census census = { 0 };
	struct keeper keeper;
	struct heap heap;
	raddr object, list, type, from, to;

	if (!open_heap(img, &heap) || heap.gc_head + img->l->list_items + 2 * WORD > BLOCK)
		return;
	type = new_type(&heap, "list", TYPE_LIST | TYPE_GC, img->l->list_items + 2 * WORD, 0);
	object = add_object(&heap, heap.plain, 1, false);
	list = hold(&heap, add_object(&heap, type, 1, true));
	from = (image_take(img, length * WORD + 16) + 15) / 16 * 16;
	to = (image_take(img, length * WORD + 16) + 15) / 16 * 16;
	image_put_u64(img, list + img->l->var_size, length);
	image_put_u64(img, list + img->l->list_items, from);
	image_put_u64(img, list + img->l->list_items + WORD, length);
	image_put_u64(img, from + 700 * WORD, object);
	cr_assert_eq(census_take(&img->rt, &maps, &options, &census, NULL), 0);
	image_put_u64(img, from + 700 * WORD, 0);
	image_put_u64(img, to + 700 * WORD, object);
	image_put_u64(img, list + img->l->list_items, to);
	cr_assert_eq(keepers_find(&img->rt, &census, &object, 1, &limits, &keeper), 0);
	cr_assert_eq(keeper.root, KEEPER_NATIVE);
	cr_assert_eq(keeper.container, list);
	cr_assert_str_eq(keeper.container_path, "native memory");
	cr_assert_str_eq(keeper.path, "native memory: list[…]");
	keepers_deinit(&keeper, 1);
	census_deinit(&census);
}

Test(keepers, in_a_table_that_moved) {
	image_each(check_moved);
}

/* Bytes by chance: no crash, an end. */
static void check_noise(struct image *img) {
	struct keeper keeper;
	struct heap heap;
	uint64_t seed = 4711;
	raddr object;

	if (!open_heap(img, &heap))
		return;
	object = add_object(&heap, heap.plain, 1, false);
	for (uint32_t i = 0; i < 50; i++)
		add_object(&heap, i % 3 ? heap.tracked : heap.tuple, 1, true);
	for (raddr at = object + BLOCK; at < object + (raddr)50 * BLOCK; at += WORD) {
		seed = hash_mix(seed + 1);
		if (!image_u64(img, at))
			image_put_u64(img, at, seed % 3 ? object + seed % 64 * BLOCK / 2 : seed);
	}
	find(&heap, object, &keeper);
	keepers_deinit(&keeper, 1);
}

Test(keepers, of_noise) {
	image_each(check_noise);
}
