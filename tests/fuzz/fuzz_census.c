/* SPDX-License-Identifier: MIT */
/* A small heap that is sane but for what the input changes: byte 0 chooses the layout, then 12 bytes each say which
 * word is overwritten (16 bits), how (16 bits: as it is, with an address in the heap, or with a small number), and with
 * what. Half of the changes come between two counts. All that was counted, and who keeps some of it, must stay in
 * bounds. */
#include "engine/leaks/keepers.h"
#include "engine/leaks/pools.h"

#include "engine/base/clock.h"
#include "engine/base/cursor.h"

#include "tests/fuzz/layouts.h"

#include <stdlib.h>

#define BASE UINT64_C(0x7f0000000000) /* aligned like any pool */
#define BYTES (128U << 10)
#define TYPES_AT (64U << 10) /* before that lie the pools */
#define LARGE_AT (80U << 10)
#define WORD sizeof(uint64_t)
#define BLOCK 96U
#define READY (1UL << 12)
#define CHANGE_BYTES 12
#define OBJECTS_MAX (BYTES / 16)
#define ASKED 24
#define SANE_OBJECTS 60

struct heap {
	uint8_t bytes[BYTES];
	const struct layout *l;
	uint32_t pool_bytes;
	uint64_t types_at;
	raddr meta;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(struct heap *heap, raddr at, uint64_t value) {
	if (at >= BASE && at - BASE <= BYTES - WORD)
		memcpy(heap->bytes + (at - BASE), &value, WORD);
}

static raddr add_type(struct heap *heap, const char *name, uint64_t flags, uint64_t basicsize, uint64_t itemsize) {
	const struct layout *l = heap->l;
	raddr type = BASE + heap->types_at, text = type + 960;

	heap->types_at += 1024;
	memcpy(heap->bytes + (text - BASE), name, strlen(name) + 1);
	put(heap, type + l->object_type - WORD, 5);
	put(heap, type + l->object_type, heap->meta ? heap->meta : type);
	put(heap, type + l->type_name, text);
	put(heap, type + l->type_basicsize, basicsize);
	put(heap, type + l->type_itemsize, itemsize);
	put(heap, type + l->type_flags, flags | READY);
	return type;
}

static void put_object(struct heap *heap, raddr at, raddr type) {
	put(heap, at + heap->l->object_type - WORD, 1);
	put(heap, at + heap->l->object_type, type);
}

/* A pool of one kind of object, half full. */
static void add_pool(struct heap *heap, raddr pool, raddr type, uint32_t before, raddr holds) {
	uint32_t blocks = (heap->pool_bytes - POOL_HEAD_BYTES) / BLOCK, begun = blocks / 2;

	put(heap, pool, begun);
	put(heap, pool + 8, 0);
	put(heap, pool + 32, (uint64_t)(BLOCK / 16 - 1) << 32 | 3);
	put(heap, pool + 40, (uint64_t)(heap->pool_bytes - BLOCK) << 32 | (POOL_HEAD_BYTES + (uint64_t)begun * BLOCK));
	for (uint32_t i = 0; i < begun; i++) {
		raddr object = pool + POOL_HEAD_BYTES + (raddr)i * BLOCK + before;

		put_object(heap, object, type);
		put(heap, object + heap->l->object_size, holds);
	}
}

static void build(struct heap *heap, uint32_t version) {
	const struct layout *l = heap->l;
	uint32_t gc_head = version < 0x03080000 ? 32 : 16;
	raddr plain, list, dict, items = BASE + LARGE_AT + 256, keys = BASE + LARGE_AT + 8192;

	heap->types_at = TYPES_AT;
	heap->pool_bytes = pool_bytes_of(version);
	heap->meta = add_type(heap, "type", TYPE_SUBCLASS, 400, 0);
	plain = add_type(heap, "Plain", TYPE_HEAP, l->object_size + WORD, 0);
	list = add_type(heap, "list", TYPE_LIST | TYPE_GC, l->list_items + 2 * WORD, 0);
	dict = add_type(heap, "dict", TYPE_DICT | TYPE_GC, l->dict_values + WORD, 0);
	add_type(heap, "set", TYPE_GC, 200, 0);
	add_type(heap, "collections.deque", TYPE_GC, 200, 0);
	add_type(heap, "tuple", TYPE_TUPLE | TYPE_GC, l->tuple_items, WORD);
	add_type(heap, "bytes", TYPE_BYTES, l->tuple_items + 1, 1);
	add_pool(heap, BASE, plain, 0, BASE + LARGE_AT);
	add_pool(heap, BASE + heap->pool_bytes, list, gc_head, items);
	add_pool(heap, BASE + 2 * heap->pool_bytes, dict, gc_head, keys);
	put_object(heap, BASE + LARGE_AT, list);
	put(heap, BASE + LARGE_AT + l->var_size, 500);
	put(heap, BASE + LARGE_AT + l->list_items, items);
	put(heap, BASE + LARGE_AT + l->list_items + WORD, 512);
	for (uint32_t i = 0; i < 500; i++)
		put(heap, items + i * WORD, BASE + POOL_HEAD_BYTES + (raddr)(i % 100) * BLOCK);
}

static void change(struct heap *heap, const uint8_t *data, size_t size) {
	for (; size >= CHANGE_BYTES; data += CHANGE_BYTES, size -= CHANGE_BYTES) {
		uint64_t value = peek_u64(data, size, 4);

		switch (data[2] % 3) {
		case 0: break;
		case 1: value = BASE + value % BYTES; break;
		case 2: value %= 1024; break;
		}
		put(heap, BASE + (uint64_t)peek_u16(data, size, 0) * WORD, value);
	}
}

static void check(const struct census *census) {
	if (census->objects > OBJECTS_MAX || census->blocks > OBJECTS_MAX || census->containers.n > OBJECTS_MAX)
		abort();
	vec_foreach (type, &census->types)
		if (type->samples_n > HEAP_SAMPLES || type->fresh > type->count)
			abort();
}

static void ask(const struct py_runtime *rt, const struct census *census) {
	const struct keeper_limits limits = { .rounds = 4, .until_ns = clock_mono_ns() + NS_PER_SEC };
	struct keeper keepers[ASKED];
	raddr objects[ASKED];

	for (size_t i = 0; i < ASKED; i++)
		objects[i] = BASE + POOL_HEAD_BYTES + i * 3 * BLOCK;
	objects[ASKED - 1] = BASE + LARGE_AT;
	if (!keepers_find(rt, census, objects, ASKED, &limits, keepers))
		keepers_deinit(keepers, ASKED);
}

static void count_twice(struct heap *heap, const struct py_runtime *rt, const uint8_t *data, size_t size) {
	struct proc_map map = {
		.start = BASE, .end = BASE + BYTES, .read = true, .write = true, .path = (char[]){ "" }
	};
	const proc_map_vec maps = { .items = &map, .n = 1, .cap = 1 };
	struct census_options options = { .flags = CENSUS_KEEP_PLACES };
	size_t half = size / CHANGE_BYTES / 2 * CHANGE_BYTES;
	struct census first, second;

	change(heap, data, half);
	if (census_take(rt, &maps, &options, &first, NULL))
		return;
	check(&first);
	if (!size && first.objects < SANE_OBJECTS) /* else nothing would be tested here */
		abort();
	change(heap, data + half, size - half);
	options.before = &first;
	if (!census_take(rt, &maps, &options, &second, NULL)) {
		check(&second);
		ask(rt, &second);
		census_deinit(&second);
	}
	census_deinit(&first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	static struct heap heap;
	struct mem_segment segment = { BASE, BYTES, heap.bytes };
	struct py_runtime rt = { .pthread_tid = LAYOUT_NONE, .interp_head = BASE + LARGE_AT };

	if (!size)
		return 0;
	rt.reader = fuzz_reader(data[0]);
	if (mem_bytes_new(&segment, 1, &rt.reader.mem))
		return 0;
	memset(&heap, 0, sizeof(heap));
	heap.l = &rt.reader.layout;
	build(&heap, rt.reader.version);
	count_twice(&heap, &rt, data + 1, size - 1);
	mem_free(rt.reader.mem);
	return 0;
}
