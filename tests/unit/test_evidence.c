/* SPDX-License-Identifier: MIT */
/* Which C function a finding names. */
#include "engine/pipeline/evidence.h"

#include <criterion/criterion.h>
#include <string.h>

struct line {
	enum pyspyd_lang lang;
	const char *function, *module;
};

static size_t choose(const struct line *lines, size_t n) {
	struct pyspyd_frame frames[16] = { 0 };

	for (size_t i = 0; i < n; i++) {
		frames[i].lang = lines[i].lang;
		frames[i].function = (char *)(uintptr_t)lines[i].function;
		frames[i].module = (char *)(uintptr_t)lines[i].module;
	}
	return evidence_native_frame(frames, n);
}

#define N PYSPYD_NATIVE
#define PYTHON \
	{ PYSPYD_PYTHON, "f", "app" }
#define KERNEL \
	{ PYSPYD_KERNEL, "futex_wait", "" }
#define CALL \
	{ N, "_PyObject_MakeTpCall", "/usr/bin/python3.11" }

Test(evidence, the_extension_s_function_is_named) {
	const struct line lines[] = { KERNEL, { N, "poll", "/lib/libc.so.6" }, { N, "pqSocketPoll", "/lib/libpq.so.5" },
		{ N, "PQexec", "/lib/libpq.so.5" }, { N, "execute", "/x/_psycopg.so" }, CALL, PYTHON };

	cr_assert_eq(choose(lines, 7), 2);
}

Test(evidence, without_one_what_was_called_of_the_system) {
	const struct line lines[] = { KERNEL, { N, "clock_nanosleep", "/lib/libc.so.6" },
		{ N, "sleep", "/lib/libc.so.6" }, { N, "ffi_call", "/lib/libffi.so.8" },
		{ N, "call", "/x/_ctypes.cpython-311.so" }, CALL, PYTHON, { N, "other", "/x/other.so" } };

	cr_assert_eq(choose(lines, 8), 2);
}

Test(evidence, else_the_interpreter_s_own) {
	const struct line lines[] = { { N, "collect", "/usr/lib/libpython3.13.so.1.0" }, CALL, PYTHON };

	cr_assert_eq(choose(lines, 3), 0);
}

Test(evidence, nothing_beyond_the_innermost_python_frame) {
	const struct line lines[] = { KERNEL, PYTHON, { N, "other", "/x/other.so" } };

	cr_assert_eq(choose(lines, 3), 3);
	cr_assert_eq(choose(lines, 0), 0);
}
