/* SPDX-License-Identifier: MIT */
/* _Py_DebugOffsets of a hostile target: the input is the table, with cookie and version put right. A layout that is
 * accepted must be usable: the readers of objects get it together with a memory that is the input again. The seeds are
 * sound tables. */
#include "engine/cpython/debug_offsets.h"
#include "engine/cpython/objects.h"

#include <stdlib.h>
#include <string.h>

#define BASE UINT64_C(0x10000)

static const uint32_t versions[] = { 0x030d00f0, 0x030d05f0, 0x030e00f0, 0x030e05f0, 0x030f00f0 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count(void *userdata, raddr key, raddr value) {
	(void)key;
	(void)value;
	return ++*(size_t *)userdata > 10000;
}

static void use(const struct layout *layout, uint32_t version, const uint8_t *data, size_t size) {
	struct py_reader py = { .layout = *layout, .version = version };
	struct mem_segment segment = { BASE, size, data };
	struct strbuf sb = { 0 };
	raddr items[4], value;
	int64_t number;
	size_t n = 0;

	if (mem_bytes_new(&segment, 1, &py.mem))
		return;
	py_text_read(&py, BASE, 100, &sb);
	py_long_read(&py, BASE, &number);
	py_sequence_read(&py, BASE, items, ARRAY_SIZE(items), &n);
	n = 0;
	py_dict_walk(&py, BASE, count, &n);
	py_attribute(&py, BASE, "name", &value);
	py_value_describe(&py, BASE, 100, &sb);
	strbuf_deinit(&sb);
	mem_free(py.mem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	uint8_t table[DEBUG_OFFSETS_MAX_BYTES] = { 0 };
	struct debug_offsets_header header;
	const struct layout_row *row;
	struct layout layout, before;
	struct err err = { 0 };
	size_t len = min_of(size, sizeof(table));

	if (!size)
		return 0;
	memcpy(table, data, len);
	memcpy(table, "xdebugpy", min_of(len, (size_t)8));
	if (len >= 16) {
		uint64_t version = versions[data[8] % ARRAY_SIZE(versions)];

		memcpy(table + 8, &version, sizeof(version));
	}
	if (debug_offsets_header_parse(table, len, &header))
		return 0;
	row = layout_find(header.version, header.free_threaded ? LAYOUT_FREE_THREADED : LAYOUT_RELEASE);
	if (!row)
		return 0;
	layout = before = row->layout;
	if (!debug_offsets_apply(&header, table, len, &layout, &err))
		use(&layout, header.version, data, size);
	else if (memcmp(&layout, &before, sizeof(layout)) || !err.text[0])
		abort();
	return 0;
}
