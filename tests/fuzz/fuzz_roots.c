/* SPDX-License-Identifier: MIT */
/* The map of a hostile target: byte 0 chooses the layout, byte 1 what is asked, two bytes say in words how far from
 * BASE the object, or the word that points to the interpreter, is. The rest is the memory from BASE on. */
#include "engine/leaks/roots.h"

#include "engine/base/cursor.h"

#include "tests/fuzz/layouts.h"

#include <stdlib.h>

#define BASE UINT64_C(0x7f0000000000) /* as images of the unit tests */
#define OBJECTS_MAX 5000
#define HEAD_BYTES 4
#define OUT_MAX (1U << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask_step(const struct py_runtime *rt, raddr object, size_t size) {
	struct strbuf out = { 0 };

	root_step(rt, object, BASE + (size / 2 & ~(size_t)7), &out);
	if (out.len > OUT_MAX)
		abort();
	strbuf_deinit(&out);
}

static void ask_paths(const struct py_runtime *rt, size_t size) {
	const struct root_limits limits = { .objects = OBJECTS_MAX };
	struct root_map *map = NULL;

	if (root_map_build(rt, &limits, &map))
		return;
	if (root_map_count(map) > OBJECTS_MAX)
		abort();
	for (raddr at = BASE; at < BASE + size; at += 16) {
		struct strbuf out = { 0 };

		if (root_map_path(map, at, &out) != PY_E_TYPE && (!out.len || out.len > OUT_MAX))
			abort();
		strbuf_deinit(&out);
	}
	root_map_free(map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct mem_segment segment = { BASE, size - HEAD_BYTES, data + HEAD_BYTES };
	struct py_runtime rt = { .pthread_tid = LAYOUT_NONE };

	if (size <= HEAD_BYTES)
		return 0;
	rt.interp_head = BASE + (uint64_t)peek_u16(data, size, 2) * 8;
	rt.reader = fuzz_reader(data[0]);
	if (mem_bytes_new(&segment, 1, &rt.reader.mem))
		return 0;
	if (data[1] & 1)
		ask_paths(&rt, size - HEAD_BYTES);
	else
		ask_step(&rt, rt.interp_head, size - HEAD_BYTES);
	mem_free(rt.reader.mem);
	return 0;
}
