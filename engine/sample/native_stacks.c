/* SPDX-License-Identifier: MIT */
/* Native stacks as the kernel's program has unwound them, or from what it copied.
 *
 * Where the program could not go to the end it hands over five pages of the stack; which function called which is told
 * here then, by the same tables (native/unwind.h), from the copy alone: the thread has long moved on. A walk here looks
 * for the tables of the files that it comes through, and the program is told of them (bpf_tables.h): so this is done
 * for the first few samples of a process, and where a file says nothing about its frames. Names are looked up once for
 * each address.
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
#define REREAD_NS NS_PER_SEC            /* mappings are read again at most so often; … */
#define REREAD_STEP_NS (50 * NS_PER_MS) /* … of a process that is new sooner, with so much more each time */

struct native_stacks {
	struct native_cache *cache;
	struct kallsyms *symbols; /* NULL: not asked for, or hidden */
	bool want_kernel;
	struct bpf_tables *tables;
	struct native_trace walked, copied; /* by the program, and from a copy of the stack */
	const struct native_trace *trace;   /* the one that goes farther */
	uint8_t kinds[NATIVE_FRAMES_MAX];   /* enum merge_native, of the trace's frames */
	uint32_t native[NATIVE_FRAMES_MAX];
	bool entry[LIMIT_FRAMES];
	uint32_t python[LIMIT_FRAMES];
	struct merge_frame merged[NATIVE_FRAMES_MAX + LIMIT_FRAMES];
};

int native_stacks_new(struct bpf_tables *tables, bool kernel, struct native_stacks **ret_stacks) {
	struct native_stacks *stacks = calloc(1, sizeof(*stacks));
	int r = stacks ? native_cache_new(IDLE_FILES_BYTES, &stacks->cache) : -ENOMEM;

	if (r) {
		free(stacks);
		return r;
	}
	stacks->tables = tables;
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

	if (target->native_ns && now_ns - target->native_ns < min_of(target->native_reads * REREAD_STEP_NS, REREAD_NS))
		return;
	target->native_ns = now_ns;
	target->native_reads++;
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
		const char *name = kallsyms_name(stacks->symbols, native->addresses[i]);
		uint32_t place = name ? kernel_place(target, native->addresses[i], name) : UINT32_MAX;

		if (place != UINT32_MAX)
			places[n++] = place;
	}
	if (native->kernel_n && !n)
		places[n++] = kernel_place(target, UINT64_MAX, "[kernel]");
	return n;
}

/* The program's own walk. */
static void take_frames(struct native_stacks *stacks, const struct pyb_native *native) {
	static const uint8_t stops[] = {
		[PYB_STOP_COMPLETE] = NATIVE_COMPLETE,
		[PYB_STOP_UNTOLD] = NATIVE_NO_TABLE,
		[PYB_STOP_NO_CODE] = NATIVE_NO_CODE,
		[PYB_STOP_NO_TABLE] = NATIVE_NO_TABLE,
		[PYB_STOP_NO_REG] = NATIVE_NO_REG,
		[PYB_STOP_UNREADABLE] = NATIVE_UNREADABLE,
		[PYB_STOP_BAD_CFA] = NATIVE_BAD_CFA,
		[PYB_STOP_TRUNCATED] = NATIVE_TRUNCATED,
	};
	struct native_trace *trace = &stacks->walked;

	trace->n = native->frames_n;
	trace->stop = native->stop < ARRAY_SIZE(stops) ? stops[native->stop] : NATIVE_NO_TABLE;
	for (size_t i = 0; i < trace->n; i++) {
		uint64_t address = native->addresses[native->kernel_n + i];

		trace->frames[i] = (struct native_frame){
			.ip = address & PYB_NATIVE_MASK,
			.after_call = address & PYB_AFTER_CALL,
			.signal = address & PYB_SIGNAL,
			.by_fp = address & PYB_BY_FP,
		};
	}
}

static void unwind(struct native_stacks *stacks, struct sample_target *target, const struct pyb_stack *copy) {
	const struct native_stack stack = {
		.at = copy->stack_at, .len = copy->stack_len, .bytes = (uint8_t *)copy->stack
	};
	const struct native_unwinder unwinder = { .modules = target->native, .stack = &stack };
	struct native_regs regs = { 0 };

	native_regs_set(&regs, NATIVE_IP, copy->ip);
	native_regs_set(&regs, NATIVE_SP, copy->sp);
	native_regs_set(&regs, NATIVE_FP, copy->fp);
#ifdef __aarch64__
	native_regs_set(&regs, NATIVE_ARM64_LR, copy->other);
#else
	native_regs_set(&regs, NATIVE_X86_BX, copy->other);
#endif
	native_unwind(&unwinder, &regs, &stacks->copied);
}

static bool lacks_code(const struct native_trace *trace, struct sample_target *target) {
	return trace->stop == NATIVE_NO_CODE ||
		(trace->n && !native_modules_find(target->native, native_frame_at(&trace->frames[0])));
}

static void unwind_copy(
	struct native_stacks *stacks, struct sample_target *target, const struct pyb_stack *copy, uint64_t now_ns) {
	unwind(stacks, target, copy);
	if (lacks_code(&stacks->copied, target)) {
		read_modules(stacks, target, now_ns);
		unwind(stacks, target, copy);
	}
	if (stacks->copied.stop == NATIVE_COMPLETE || stacks->copied.n >= stacks->walked.n)
		stacks->trace = &stacks->copied;
}

static void tell(struct native_stacks *stacks, struct sample_target *target, uint64_t now_ns) {
	const struct bpf_tables_process process = { .pid = target->proc.pid,
		.serial = target->serial,
		.read_ns = target->native_ns,
		.modules = target->native };

	(void)!bpf_tables_tell(stacks->tables, &process, now_ns); /* untold it is unwound here */
}

static bool is_whole(const struct native_trace *trace) {
	return trace->stop == NATIVE_COMPLETE || trace->stop == NATIVE_TRUNCATED;
}

/* Makes stacks->trace, and sees to it that the program gets farther the next time. */
static void find_trace(
	struct native_stacks *stacks, struct sample_target *target, const struct bpf_native *native, uint64_t now_ns) {
	struct native_trace *walked = &stacks->walked;

	walked->n = 0;
	walked->stop = NATIVE_NO_TABLE;
	stacks->trace = walked;
	if (bpf_tables_holds(stacks->tables, target->proc.pid, target->serial, native->frames->telling))
		take_frames(stacks, native->frames);
	if (is_whole(walked))
		return;
	if (walked->n)
		(void)native_modules_find(target->native, native_frame_at(&walked->frames[walked->n - 1]));
	if (native->stack)
		unwind_copy(stacks, target, native->stack, now_ns);
	tell(stacks, target, now_ns);
}

void native_stacks_forget(struct native_stacks *stacks, pid_t pid) {
	bpf_tables_remove(stacks->tables, pid, clock_mono_ns());
}

static void name_frames(struct native_stacks *stacks, struct sample_target *target) {
	for (size_t i = 0; i < stacks->trace->n; i++)
		stacks->native[i] = place_of(target, native_frame_at(&stacks->trace->frames[i]), &stacks->kinds[i]);
}

static size_t merge(struct native_stacks *stacks, const struct py_raw_stack *stack, size_t python) {
	size_t unmatched;

	for (size_t i = 0; i < python; i++)
		stacks->entry[i] = stack->frames.items[i].entry;
	return merge_stacks(&(struct merge_input){ .native = stacks->kinds,
				    .native_n = stacks->trace->n,
				    .native_complete = stacks->trace->stop == NATIVE_COMPLETE,
				    .entry = stacks->entry,
				    .python_n = python,
				    .python_complete = !stack->truncated },
		stacks->merged, &unmatched);
}

size_t native_stacks_merge(struct native_stacks *stacks, struct sample_target *target, const struct bpf_native *native,
	const struct py_raw_stack *stack, uint64_t now_ns, uint32_t *places) {
	size_t n, merged, python = min_of(stack->frames.n, (size_t)LIMIT_FRAMES);

	if (!target->native)
		read_modules(stacks, target, now_ns);
	if (!target->native)
		return python;
	find_trace(stacks, target, native, now_ns);
	name_frames(stacks, target);
	memcpy(stacks->python, places, python * sizeof(*places));
	merged = merge(stacks, stack, python);
	n = kernel_places(stacks, target, native->frames, places);
	for (size_t i = 0; i < merged && n < LIMIT_FRAMES; i++) {
		const struct merge_frame *frame = &stacks->merged[i];
		uint32_t place =
			frame->kind == MERGE_PYTHON ? stacks->python[frame->index] : stacks->native[frame->index];

		if (place != UINT32_MAX)
			places[n++] = place;
	}
	return n;
}
