/* SPDX-License-Identifier: MIT */
/* A hostile thread: byte 0 chooses the layout, the rest is the memory from BASE on. The thread state is at BASE; which
 * interpreter and which thread it belongs to is what it says itself. The stack is copied twice, the second time with
 * what the first look taught; then each frame is decoded and its variables are read. */
#include "engine/base/cursor.h"
#include "engine/base/limits.h"
#include "engine/cpython/code.h"
#include "engine/cpython/locals.h"

#include <stdlib.h>

#define BASE UINT64_C(0x10000)
#define FRAMES_DECODED 16
#define READS_MAX (64U << 10)

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

static struct py_stack_scratch scratch;

static void read_locals(const struct py_runtime *rt, const struct py_raw_frame *frame) {
	struct pyspyd_local *locals;
	size_t n;

	if (py_locals_read(rt, frame, false, &locals, &n))
		return;
	if (n > LIMIT_LOCALS)
		abort();
	for (size_t i = 0; i < n; i++) {
		free(locals[i].name);
		free(locals[i].type);
		free(locals[i].value);
	}
	free(locals);
}

static void decode(const struct py_runtime *rt, const struct py_raw_stack *stack) {
	struct py_code_cache cache;
	struct intern strings;

	if (intern_init(&strings))
		return;
	py_code_cache_init(&cache, rt, &strings);
	for (size_t i = 0; i < stack->frames.n && i < FRAMES_DECODED; i++) {
		const struct py_raw_frame *frame = &stack->frames.items[i];
		const struct py_code *code;

		if (!py_code_lookup(&cache, frame, stack->code_generation, 0, i == 0, &code))
			py_code_line(&cache, code, py_code_offset(&cache, code, frame));
		read_locals(rt, frame);
	}
	py_code_cache_deinit(&cache);
	intern_deinit(&strings);
}

static void look(const struct py_runtime *rt, const struct py_thread *thread) {
	struct py_stack_plan plan;
	struct py_raw_stack stack = { 0 };

	py_stack_plan_init(&plan, thread);
	for (int i = 0; i < 2; i++) {
		py_stack_capture(rt, &plan, &scratch, &stack);
		if (stack.frames.n > LIMIT_FRAMES || stack.reads > READS_MAX)
			abort();
	}
	decode(rt, &stack);
	py_raw_stack_deinit(&stack);
	py_stack_plan_deinit(&plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct mem_segment segment = { BASE, size - 1, data + 1 };
	struct py_thread thread = { .tstate = BASE, .interp = BASE };
	struct py_runtime rt = { .pthread_tid = LAYOUT_NONE };
	const struct layout_row *row;
	size_t choice;

	if (size < 2 || (!scratch.arena && py_stack_scratch_init(&scratch)))
		return 0;
	choice = data[0] % ARRAY_SIZE(layouts);
	row = layout_find(layouts[choice].version, layouts[choice].flavour);
	if (!row)
		abort();
	rt.reader = (struct py_reader){
		.layout = row->layout, .version = layouts[choice].version, .flavour = layouts[choice].flavour
	};
	thread.interp = peek_u64(data + 1, size - 1, row->layout.tstate_interp);
	thread.ident = peek_u64(data + 1, size - 1, row->layout.tstate_thread_id);
	if (mem_bytes_new(&segment, 1, &rt.reader.mem))
		return 0;
	look(&rt, &thread);
	mem_free(rt.reader.mem);
	return 0;
}
