/* SPDX-License-Identifier: MIT */
/* Unwinding what the kernel copied.
 *
 * The program in the kernel copies five pages of the stack and goes on; which function called which is told here, by
 * the same tables as everywhere (native/unwind.h), from the copy alone: the thread has long moved on. Names are looked
 * up once for each address.
 *
 * A library that was loaded after the mappings were read is noticed by an address that is in no mapping. */
#include "engine/sample/native_stacks.h"

#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/native/merge.h"
#include "engine/native/symbols.h"
#include "engine/native/unwind.h"
#include "engine/proc/kallsyms.h"
#include <errno.h>
#include <string.h>

#define IDLE_FILES_BYTES (16U << 20)
#define REREAD_NS NS_PER_SEC /* mappings are read again at most so often */

struct native_stacks {
	struct native_cache *cache;
	struct kallsyms *symbols; /* NULL: not asked for, or hidden */
	bool want_kernel;
	struct native_trace trace;
	uint8_t kinds[NATIVE_FRAMES_MAX]; /* enum merge_native, of the trace's frames */
	uint32_t native[NATIVE_FRAMES_MAX];
	bool entry[LIMIT_FRAMES];
	uint32_t python[LIMIT_FRAMES];
	struct merge_frame merged[NATIVE_FRAMES_MAX + LIMIT_FRAMES];
};

int native_stacks_new(bool kernel, struct native_stacks **ret_stacks) {
	struct native_stacks *stacks = calloc(1, sizeof(*stacks));
	int r = stacks ? native_cache_new(IDLE_FILES_BYTES, &stacks->cache) : -ENOMEM;

	if (r) {
		free(stacks);
		return r;
	}
	stacks->want_kernel = kernel;
	if (kernel)
		(void)!kallsyms_read(&stacks->symbols); /* without it the kernel is one frame */
	*ret_stacks = stacks;
	return 0;
}

void native_stacks_free(struct native_stacks *stacks) {
	if (!stacks)
		return;
	native_cache_free(stacks->cache);
	kallsyms_free(stacks->symbols);
	free(stacks);
}

bool native_stacks_lacks_kernel(const struct native_stacks *stacks) {
	return stacks->want_kernel && !stacks->symbols;
}

/* The mappings of now, where there are none yet, or they are old and lack an address. */
static void read_modules(struct native_stacks *stacks, struct sample_target *target, uint64_t now_ns) {
	struct native_modules *modules;

	if (target->native_ns && now_ns - target->native_ns < REREAD_NS)
		return;
	target->native_ns = now_ns;
	if (native_modules_new(&target->proc, target->mem, stacks->cache, &modules))
		return;
	native_modules_free(target->native);
	target->native = modules;
	map_clear(&target->native_places);
}

static const char *file_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static uint32_t intern_text(struct sample_target *target, const char *text) {
	return intern_add(&target->strings, text, strlen(text));
}

/* What is known of a place is kept with its kind in the upper half: names are dear. */
static uint32_t place_of(struct sample_target *target, raddr at, uint8_t *ret_kind) {
	struct native_place found = { 0 };
	struct sample_place place = { .lang = PYSPYD_NATIVE };
	uint64_t known;
	uint32_t number;

	if (map_get(&target->native_places, at, &known)) {
		*ret_kind = (uint8_t)(known >> 32);
		return (uint32_t)known;
	}
	*ret_kind = MERGE_OTHER;
	if (!native_symbolize(target->native, at, &found))
		*ret_kind = (uint8_t)merge_native_of(found.symbol);
	place.function = intern_text(target, found.name);
	if (found.module)
		place.module = intern_text(target, file_name(native_module_path(target->native, found.module)));
	number = sample_target_add_place(target, &place);
	if (number != UINT32_MAX)
		(void)!map_put(&target->native_places, at, (uint64_t)*ret_kind << 32 | number);
	return number;
}

static uint32_t kernel_place(struct sample_target *target, uint64_t key, const char *name) {
	struct sample_place place = { .lang = PYSPYD_KERNEL };
	uint64_t known;
	uint32_t number;

	if (map_get(&target->native_places, key, &known))
		return (uint32_t)known;
	place.function = intern_text(target, name);
	number = sample_target_add_place(target, &place);
	if (number != UINT32_MAX)
		(void)!map_put(&target->native_places, key, number);
	return number;
}

/* The kernel's functions, or one frame for all: their names are not ours to read everywhere. Return: how many places.
 */
static size_t kernel_places(const struct native_stacks *stacks, struct sample_target *target,
	const struct pyb_native *native, uint32_t *places) {
	size_t n = 0;

	for (uint32_t i = 0; stacks->symbols && i < native->kernel_n; i++) {
		const char *name = kallsyms_name(stacks->symbols, native->kernel[i]);
		uint32_t place = name ? kernel_place(target, native->kernel[i], name) : UINT32_MAX;

		if (place != UINT32_MAX)
			places[n++] = place;
	}
	if (native->kernel_n && !n)
		places[n++] = kernel_place(target, UINT64_MAX, "[kernel]");
	return n;
}

static void unwind(struct native_stacks *stacks, struct sample_target *target, const struct pyb_native *native) {
	const struct native_stack stack = {
		.at = native->stack_at, .len = native->stack_len, .bytes = (uint8_t *)native->stack
	};
	const struct native_unwinder unwinder = { .modules = target->native, .stack = &stack };
	struct native_regs regs = { 0 };

	native_regs_set(&regs, NATIVE_IP, native->ip);
	native_regs_set(&regs, NATIVE_SP, native->sp);
	native_regs_set(&regs, NATIVE_FP, native->fp);
#ifdef __aarch64__
	native_regs_set(&regs, NATIVE_ARM64_LR, native->other);
#else
	native_regs_set(&regs, NATIVE_X86_BX, native->other);
#endif
	native_unwind(&unwinder, &regs, &stacks->trace);
}

static bool lacks_code(const struct native_stacks *stacks, struct sample_target *target) {
	return stacks->trace.stop == NATIVE_NO_CODE ||
		(stacks->trace.n && !native_modules_find(target->native, native_frame_at(&stacks->trace.frames[0])));
}

static void name_frames(struct native_stacks *stacks, struct sample_target *target) {
	for (size_t i = 0; i < stacks->trace.n; i++)
		stacks->native[i] = place_of(target, native_frame_at(&stacks->trace.frames[i]), &stacks->kinds[i]);
}

static size_t merge(struct native_stacks *stacks, const struct py_raw_stack *stack, size_t python) {
	size_t unmatched;

	for (size_t i = 0; i < python; i++)
		stacks->entry[i] = stack->frames.items[i].entry;
	return merge_stacks(&(struct merge_input){ .native = stacks->kinds,
				    .native_n = stacks->trace.n,
				    .native_complete = stacks->trace.stop == NATIVE_COMPLETE,
				    .entry = stacks->entry,
				    .python_n = python,
				    .python_complete = !stack->truncated },
		stacks->merged, &unmatched);
}

size_t native_stacks_merge(struct native_stacks *stacks, struct sample_target *target, const struct pyb_native *native,
	const struct py_raw_stack *stack, uint64_t now_ns, uint32_t *places) {
	size_t n, merged, python = min_of(stack->frames.n, (size_t)LIMIT_FRAMES);

	if (!target->native)
		read_modules(stacks, target, now_ns);
	if (!target->native || !native->sp)
		return python;
	unwind(stacks, target, native);
	if (lacks_code(stacks, target)) {
		read_modules(stacks, target, now_ns);
		unwind(stacks, target, native);
	}
	name_frames(stacks, target);
	memcpy(stacks->python, places, python * sizeof(*places));
	merged = merge(stacks, stack, python);
	n = kernel_places(stacks, target, native, places);
	for (size_t i = 0; i < merged && n < LIMIT_FRAMES; i++) {
		const struct merge_frame *frame = &stacks->merged[i];
		uint32_t place =
			frame->kind == MERGE_PYTHON ? stacks->python[frame->index] : stacks->native[frame->index];

		if (place != UINT32_MAX)
			places[n++] = place;
	}
	return n;
}
