/* SPDX-License-Identifier: MIT */
/* Names of objects: the first line is one, as it is; what was understood must lead back to the text. Behind it the
 * layout and the memory of a hostile target from BASE on, in which the name is followed and lengths are read. */
#include "engine/cpython/path.h"

#include "engine/cpython/length.h"
#include <stdlib.h>
#include <string.h>

#define BASE UINT64_C(0x10000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint32_t versions[] = { 0x03060ff0, 0x030812f0, 0x030b07f0, 0x030c01f0, 0x030d00f0, 0x030e0af0,
	0x030f02f0 };

static void check(const struct py_path *path) {
	size_t end = strlen(path->module);

	if (!path->n || path->n > PY_PATH_STEPS || !end || path->text[end] != ':')
		abort();
	for (size_t i = 0; i < path->n; i++) {
		const struct py_step *step = &path->steps[i];

		if (step->end <= end || step->end > strlen(path->text))
			abort();
		if (step->kind == PY_STEP_NAME && strncmp(path->text + end + 1, step->text, step->end - end - 1) != 0)
			abort();
		if (step->kind != PY_STEP_NAME && (path->text[end] != '[' || path->text[step->end - 1] != ']'))
			abort();
		end = step->end;
	}
	if (strcmp(path->text + end, path->is_call ? "()" : "") != 0)
		abort();
}

static void follow(const struct py_path *path, const uint8_t *data, size_t size) {
	struct mem_segment segment = { BASE, size - 1, data + 1 };
	uint32_t version = versions[data[0] % ARRAY_SIZE(versions)];
	const struct layout_row *row = layout_find(version, LAYOUT_RELEASE);
	struct py_runtime rt = { .interp_head = BASE };
	struct py_path_value value;
	struct err err = { 0 };
	size_t n;
	int r;

	if (!row)
		abort();
	rt.reader = (struct py_reader){ .layout = row->layout, .version = version };
	if (mem_bytes_new(&segment, 1, &rt.reader.mem))
		return;
	r = py_path_evaluate(&rt, path, &value, &err);
	if (r > 0 && r != MEM_E_GONE && !err.text[0])
		abort();
	(void)py_length_read(&rt.reader, BASE, &n);
	mem_free(rt.reader.mem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	const uint8_t *line_end = size ? memchr(data, '\n', size) : NULL;
	size_t len = line_end ? (size_t)(line_end - data) : size;
	char *text = strndup((const char *)data, len);
	struct err err = { 0 };
	struct py_path path;

	if (!text)
		return 0;
	if (!py_path_parse(text, &path, &err)) {
		check(&path);
		if (size > len + 2)
			follow(&path, data + len + 1, size - len - 1);
		py_path_deinit(&path);
	} else if (!err.text[0]) {
		abort();
	}
	free(text);
	return 0;
}
