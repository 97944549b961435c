/* SPDX-License-Identifier: MIT */
/* Objects of a hostile target: byte 0 chooses the layout and the function, the rest is the memory from BASE on. The
 * first object is at BASE. */
#include "engine/cpython/objects.h"

#include "tests/fuzz/layouts.h"

#include <stdlib.h>

#define BASE UINT64_C(0x10000)
#define MAX_CHARS 120
#define OUT_MAX (1U << 20) /* far above what MAX_CHARS allows: brackets, counts and names come on top */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count(void *userdata, raddr key, raddr value) {
	(void)key;
	(void)value;
	return ++*(size_t *)userdata > 100000;
}

static void read_text(const struct py_reader *py) {
	struct strbuf sb = { 0 };

	py_text_read(py, BASE, MAX_CHARS, &sb);
	if (sb.len > MAX_CHARS * 4)
		abort();
	strbuf_deinit(&sb);
}

static void read_bytes(const struct py_reader *py) {
	uint8_t *bytes = NULL;
	size_t len;

	py_bytes_read(py, BASE, 4096, &bytes, &len);
	free(bytes);
}

static void describe(const struct py_reader *py) {
	struct strbuf sb = { 0 };

	py_value_describe(py, BASE, MAX_CHARS, &sb);
	if (!sb.len || sb.len > OUT_MAX)
		abort();
	strbuf_deinit(&sb);
}

static void call(const struct py_reader *py, unsigned function) {
	raddr items[16], value;
	char name[64];
	int64_t number;
	size_t n = 0;

	switch (function) {
	case 0: read_text(py); break;
	case 1: read_bytes(py); break;
	case 2: py_long_read(py, BASE, &number); break;
	case 3: py_type_name(py, BASE, name, sizeof(name)); break;
	case 4: py_dict_walk(py, BASE, count, &n); break;
	case 5: py_dict_get(py, BASE, "name", &value); break;
	case 6: py_attribute(py, BASE, "name", &value); break;
	case 7: py_sequence_read(py, BASE, items, ARRAY_SIZE(items), &n); break;
	default: describe(py); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct mem_segment segment = { BASE, size - 1, data + 1 };
	struct py_reader py;

	if (size < 2)
		return 0;
	py = fuzz_reader(data[0]);
	if (mem_bytes_new(&segment, 1, &py.mem))
		return 0;
	call(&py, data[0] / FUZZ_LAYOUTS % 16);
	mem_free(py.mem);
	return 0;
}
