/* SPDX-License-Identifier: MIT */
/* Native stacks that the program in the kernel has unwound, against what user space makes of a copy of the same stack:
 * unwind_driver HZ SECONDS PID prints one JSON object: samples; those that the program followed to an end; of these,
 * those that are as user space has them, that go on where the copy ends, and that differ; the deepest one; the bytes of
 * the tables that it was told, and of those that are left when the process is forgotten; and the first that differs. */
#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include "engine/native/symbols.h"
#include "engine/native/unwind.h"
#include "engine/sample/bpf_source.h"
#include "engine/sample/target.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>

struct comparing {
	struct sample_target *target;
	struct bpf_source *source;
	struct native_cache *cache;
	struct native_modules *modules;
	struct native_trace trace;
	uint64_t read_ns;
	json_int_t samples, whole, same, beyond, differ, deepest;
	struct strbuf first;
};

static void read_modules(struct comparing *c) {
	struct native_modules *modules;

	if (native_modules_new(&c->target->proc, c->target->mem, c->cache, &modules))
		return;
	native_modules_free(c->modules);
	c->modules = modules;
	c->read_ns = clock_mono_ns();
}

static void unwind(struct comparing *c, const struct pyb_stack *copy) {
	const struct native_stack stack = {
		.at = copy->stack_at, .len = copy->stack_len, .bytes = (uint8_t *)copy->stack
	};
	struct native_regs regs = { 0 };

	native_regs_set(&regs, NATIVE_IP, copy->ip);
	native_regs_set(&regs, NATIVE_SP, copy->sp);
	native_regs_set(&regs, NATIVE_FP, copy->fp);
#ifdef __aarch64__
	native_regs_set(&regs, NATIVE_ARM64_LR, copy->other);
#else
	native_regs_set(&regs, NATIVE_X86_BX, copy->other);
#endif
	native_unwind(&(struct native_unwinder){ .modules = c->modules, .stack = &stack }, &regs, &c->trace);
}

static uint64_t frame_of(const struct native_frame *frame) {
	return (frame->ip & PYB_NATIVE_MASK) | (frame->after_call ? PYB_AFTER_CALL : 0) |
		(frame->signal ? PYB_SIGNAL : 0) | (frame->by_fp ? PYB_BY_FP : 0);
}

static void say(struct comparing *c, const struct pyb_native *native) {
	const __u64 *theirs = native->addresses + native->kernel_n;

	strbuf_addf(&c->first, "program stop %u, user space: %s\n", native->stop, native_stop_text(c->trace.stop));
	for (size_t i = 0; i < max_of((size_t)native->frames_n, c->trace.n) && i < 64; i++) {
		struct native_place place = { 0 };
		uint64_t at = i < native->frames_n ? theirs[i] : 0;

		if (at)
			native_symbolize(c->modules, at & PYB_NATIVE_MASK, &place);
		strbuf_addf(&c->first, "%zu: %#jx %s, %#jx\n", i, (uintmax_t)at, place.name,
			(uintmax_t)(i < c->trace.n ? frame_of(&c->trace.frames[i]) : 0));
	}
}

/* What user space has is all of it, or as much as is in the copy. */
static void compare(struct comparing *c, const struct pyb_native *native) {
	const __u64 *theirs = native->addresses + native->kernel_n;
	bool all = c->trace.stop == NATIVE_COMPLETE;
	size_t n = c->trace.n;
	bool same = all ? n == native->frames_n : n <= native->frames_n;

	/* Of the frame that it could not leave it does not know what it is. */
	for (size_t i = 0; same && i + !all < n; i++)
		same = frame_of(&c->trace.frames[i]) == theirs[i];
	c->same += same && all;
	c->beyond += same && !all;
	c->differ += !same;
	if (!same && !c->first.len)
		say(c, native);
}

static void on_event(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames,
	const struct bpf_native *native) {
	struct comparing *c = userdata;
	struct bpf_tables_process process;

	(void)event;
	(void)frames;
	if (!native->frames || !native->stack)
		return;
	c->samples++;
	unwind(c, native->stack);
	if (native->frames->stop == PYB_STOP_COMPLETE || native->frames->stop == PYB_STOP_TRUNCATED) {
		c->whole++;
		c->deepest = max_of(c->deepest, (json_int_t)native->frames->frames_n);
		compare(c, native->frames);
	} else if (native->frames->frames_n) {
		native_modules_find(c->modules,
			native->frames->addresses[native->frames->kernel_n + native->frames->frames_n - 1] &
				PYB_NATIVE_MASK);
	}
	process = (struct bpf_tables_process){
		.pid = c->target->proc.pid, .serial = 1, .read_ns = c->read_ns, .modules = c->modules
	};
	bpf_tables_tell(bpf_source_tables(c->source), &process, clock_mono_ns());
}

static int attach(struct comparing *c, const char *pid, struct err *err) {
	int r = sample_target_new(atoi(pid), NS_PER_SEC, &c->target, err);

	if (!r)
		r = native_cache_new(0, &c->cache);
	if (!r)
		r = bpf_source_add(c->source, &c->target->rt, c->target->proc.pid);
	if (!r)
		read_modules(c);
	return r ? r : c->modules ? 0 : -ENOENT;
}

static void print(const struct comparing *c) {
	struct bpf_tables *tables = bpf_source_tables(c->source);
	json_int_t used = (json_int_t)bpf_tables_used(tables);
	json_t *line;

	bpf_tables_remove(tables, c->target->proc.pid, clock_mono_ns());
	line = json_pack("{sIsIsIsIsIsIsIsIss}", "samples", c->samples, "whole", c->whole, "same", c->same, "beyond",
		c->beyond, "differ", c->differ, "deepest", c->deepest, "table_bytes", used, "table_bytes_left",
		(json_int_t)bpf_tables_used(tables), "first", strbuf_str(&c->first));

	json_dumpf(line, stdout, JSON_COMPACT);
	puts("");
	json_decref(line);
}

int main(int argc, char **argv) {
	struct comparing *c = calloc(1, sizeof(*c));
	struct bpf_source_options options = { .native = true, .native_copies = true };
	struct err err = { 0 };
	uint64_t end;

	if (argc != 4 || !c)
		return 2;
	options.rate_hz = atof(argv[1]);
	if (bpf_source_new(&options, &c->source, &err) || attach(c, argv[3], &err)) {
		fprintf(stderr, "unwind_driver: %s\n", err.text);
		return 1;
	}
	for (end = clock_mono_ns() + (uint64_t)(atof(argv[2]) * NS_PER_SEC); clock_mono_ns() < end;) {
		bpf_source_wait(c->source, -1, 20 * NS_PER_MS);
		bpf_source_take(c->source, on_event, c);
	}
	bpf_source_remove(c->source, c->target->proc.pid);
	bpf_source_take(c->source, on_event, c);
	print(c);
	native_modules_free(c->modules);
	native_cache_free(c->cache);
	sample_target_free(c->target);
	bpf_source_free(c->source);
	strbuf_deinit(&c->first);
	free(c);
	return 0;
}
