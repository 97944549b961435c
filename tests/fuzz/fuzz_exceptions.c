/* SPDX-License-Identifier: MIT */
/* Exceptions of a hostile target: byte 0 chooses the layout, the rest is the memory from BASE on, where the thread
 * state is. What comes out keeps the limits, and is written as text and as JSON. */
#include "engine/base/limits.h"
#include "engine/cpython/exceptions.h"
#include "engine/finding/exceptions.h"

#include "tests/fuzz/layouts.h"

#include <string.h>

#define BASE UINT64_C(0x10000)
#define NAMED_MAX (LIMIT_EXCEPTIONS * (LIMIT_EXCEPTION_MEMBERS + 2)) /* those that were met before come on top */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t check(const struct pyspyd_exception *exception) {
	size_t n = 1;

	if (exception->notes_n > LIMIT_EXCEPTION_NOTES || exception->members_n > LIMIT_EXCEPTION_MEMBERS ||
		exception->members_n > exception->members_total ||
		exception->traceback_n > LIMIT_TRACEBACK_INNER + LIMIT_TRACEBACK_OUTER ||
		exception->traceback_n + exception->traceback_omitted > LIMIT_FRAMES)
		abort();
	if (exception->repeated && (exception->cause || exception->context || exception->members_n))
		abort();
	for (size_t i = 0; i < exception->traceback_n; i++)
		if (!exception->traceback[i].function || !exception->traceback[i].file)
			abort();
	for (size_t i = 0; i < exception->members_n; i++)
		n += check(&exception->members[i]);
	n += exception->cause ? check(exception->cause) : 0;
	n += exception->context ? check(exception->context) : 0;
	return n;
}

static void write_them(const struct pyspyd_exception *exceptions, size_t n) {
	struct strbuf sb = { 0 };
	json_t *json = exceptions_json(exceptions, n);

	exceptions_text(&sb, exceptions, n, false);
	if (!json || (n && !sb.len) || memchr(strbuf_str(&sb), '\x1b', sb.len))
		abort();
	strbuf_deinit(&sb);
	json_decref(json);
}

static void read_them(const struct py_runtime *rt) {
	struct pyspyd_exception *exceptions = NULL;
	struct intern strings = { 0 };
	struct py_code_cache codes;
	size_t n = 0, named = 0;

	if (intern_init(&strings))
		return;
	py_code_cache_init(&codes, rt, &strings);
	if (!py_exceptions_read(rt, &codes, BASE, 0, 0, &exceptions, &n)) {
		for (size_t i = 0; i < n; i++)
			named += check(&exceptions[i]);
		if (named > NAMED_MAX)
			abort();
		write_them(exceptions, n);
		pyspyd_exceptions_free(exceptions, n);
	}
	py_code_cache_deinit(&codes);
	intern_deinit(&strings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct mem_segment segment = { BASE, size - 1, data + 1 };
	struct py_runtime rt = { .pthread_tid = LAYOUT_NONE };

	if (size < 2)
		return 0;
	rt.reader = fuzz_reader(data[0]);
	if (mem_bytes_new(&segment, 1, &rt.reader.mem))
		return 0;
	read_them(&rt);
	mem_free(rt.reader.mem);
	return 0;
}
