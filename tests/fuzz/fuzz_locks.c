/* SPDX-License-Identifier: MIT */
/* Locks, containers, generators, blocks and tasks of a hostile target. Byte 0 chooses the layout, byte 1 what is read;
 * the rest is the memory from BASE on, where the object is. It is read through a cache, as looks do. */
#include "engine/cpython/blocks.h"
#include "engine/cpython/locks.h"
#include "engine/cpython/tasks.h"

#include <stdlib.h>
#include <string.h>

#define BASE UINT64_C(0x10000)
#define ITEMS_MAX 64
#define TASKS_MAX 8
#define SERIALS 3 /* of one code object: as if it had been replaced */

static const struct {
	uint32_t version;
	unsigned flavour;
} layouts[] = {
	{ 0x03060ff0, LAYOUT_RELEASE },
	{ 0x030812f0, LAYOUT_RELEASE },
	{ 0x030a0df0, LAYOUT_RELEASE },
	{ 0x030b07f0, LAYOUT_RELEASE },
	{ 0x030c01f0, LAYOUT_RELEASE },
	{ 0x030d00f0, LAYOUT_RELEASE },
	{ 0x030d05f0, LAYOUT_FREE_THREADED },
	{ 0x030e0af0, LAYOUT_RELEASE },
	{ 0x030f02f0, LAYOUT_RELEASE },
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_lock(const struct py_reader *py) {
	struct py_lock lock;

	if (py_lock_read(py, BASE, &lock))
		return;
	if (lock.object != BASE || !py_lock_is(py, BASE) || (lock.kind == PY_LOCK && lock.owner))
		abort();
}

static void read_parking(const struct py_reader *py, raddr futex) {
	struct py_parking parking;

	if (!py_parking_read(py, futex, &parking) &&
		((parking.kind == PY_PARKED_JOIN) != (parking.ident != 0) ||
			(parking.kind == PY_PARKED_MUTEX && !parking.address)))
		abort();
}

static void read_mutex(const struct py_reader *py) {
	bool recursive;
	pid_t owner;

	if (!native_mutex_owner(py->mem, BASE, &owner, &recursive) && owner < 0)
		abort();
}

static void read_items(
	const struct py_reader *py, int (*read)(const struct py_reader *, raddr, raddr *, size_t, size_t *)) {
	raddr *items = calloc(ITEMS_MAX, sizeof(*items));
	size_t n = 0;
	int r;

	if (!items)
		return;
	for (size_t max = 0; max <= ITEMS_MAX; max += ITEMS_MAX / 2) {
		r = read(py, BASE, items, max, &n);
		if ((!r && n > max) || (r == PY_E_TRUNCATED && n < max))
			abort();
	}
	free(items);
}

static void read_gen(const struct py_runtime *rt) {
	struct py_gen gen;
	raddr references[ITEMS_MAX];
	size_t n;

	if (py_gen_read(rt, BASE, &gen) || gen.state == PY_GEN_DONE)
		return;
	if (!gen.frame.code || (gen.awaits && gen.state != PY_GEN_SUSPENDED))
		abort();
	if (!py_stack_references(rt, &gen.frame, references, ITEMS_MAX, &n) && n > ITEMS_MAX)
		abort();
}

/* The frame is at BASE. */
static void read_blocks(const struct py_runtime *rt) {
	const struct layout *l = &rt->reader.layout;
	struct py_raw_frame frame = { .frame = BASE };
	struct py_block blocks[PY_BLOCKS_MAX];
	struct py_block_cache *cache;
	uint64_t code = 0;
	size_t n = 0;

	if (mem_read_u64(rt->reader.mem, BASE + l->frame_code, &code) || py_block_cache_new(rt, &cache))
		return;
	frame.code = py_untag(code);
	for (uint64_t serial = 0; serial < SERIALS; serial++)
		for (int64_t offset = -2; offset < 64; offset += 2)
			if (!py_blocks_read(cache, &frame, serial, offset, blocks, &n) && n > PY_BLOCKS_MAX)
				abort();
	py_block_cache_free(cache);
}

static void read_callable(const struct py_reader *py) {
	char name[16];
	raddr self;

	if (!py_callable_read(py, BASE, &self, name, sizeof(name)) && strlen(name) >= sizeof(name))
		abort();
}

/* BASE is all at once: the word that points to the interpreters, a thread state and a future. */
static void read_tasks(struct py_runtime *rt) {
	struct py_thread thread = { .tstate = BASE, .interp = BASE, .tid = 1 };
	struct py_future *future = calloc(1, sizeof(*future));
	py_task_vec tasks = { 0 };
	int r;

	rt->interp_head = BASE;
	r = py_tasks_read(rt, &thread, 1, TASKS_MAX, &tasks);
	if (tasks.n > TASKS_MAX || (r && r != PY_E_TRUNCATED && tasks.n))
		abort();
	vec_foreach (task, &tasks)
		if (task->frames_n > PY_TASK_FRAMES_MAX || !task->name)
			abort();
	py_tasks_free(&tasks);
	if (future && !py_future_read(rt, BASE, future) && future->children_n > ARRAY_SIZE(future->children))
		abort();
	free(future);
}

static void call(struct py_runtime *rt, unsigned function, size_t size) {
	const struct py_reader *py = &rt->reader;

	switch (function % 10) {
	case 0: read_lock(py); break;
	case 1:
		for (raddr at = BASE; at < BASE + size; at += 8)
			read_parking(py, at);
		break;
	case 2: read_items(py, py_deque_read); break;
	case 3: read_items(py, py_simple_queue_read); break;
	case 4: read_items(py, py_set_read); break;
	case 5: read_gen(rt); break;
	case 6: read_blocks(rt); break;
	case 7: read_callable(py); break;
	case 8: read_tasks(rt); break;
	default: read_mutex(py); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct mem_segment segment = { BASE, size - 2, data + 2 };
	const struct layout_row *row;
	struct py_runtime rt = { 0 };
	struct mem *bytes;

	if (size < 3)
		return 0;
	row = layout_find(
		layouts[data[0] % ARRAY_SIZE(layouts)].version, layouts[data[0] % ARRAY_SIZE(layouts)].flavour);
	if (!row)
		abort();
	rt.reader = (struct py_reader){ .layout = row->layout,
		.version = layouts[data[0] % ARRAY_SIZE(layouts)].version,
		.flavour = layouts[data[0] % ARRAY_SIZE(layouts)].flavour };
	if (mem_bytes_new(&segment, 1, &bytes))
		return 0;
	if (mem_cache_new(bytes, &rt.reader.mem)) {
		mem_free(bytes);
		return 0;
	}
	call(&rt, data[1], size);
	mem_free(rt.reader.mem);
	return 0;
}
