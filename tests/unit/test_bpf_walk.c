/* SPDX-License-Identifier: MIT */
/* What the eBPF programs do with a target's memory (bpf/walk.h), here as plain C on images of every layout: it must see
 * what user space's own reader sees, and stay within its bounds whatever it is told. */
#include "engine/cpython/code.h"
#include "engine/sample/bpf_processes.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

static const struct py_runtime *read_from;

/* As the kernel's helper: what cannot be read is zeros. */
static int read_target(void *to, size_t len, uint64_t address) {
	cr_assert_leq(len, PYB_WINDOW);
	if (!mem_read(read_from->reader.mem, address, to, len))
		return 0;
	memset(to, 0, len);
	return -EFAULT;
}

#define PYB_READ(to, len, address) read_target(to, len, address)
#include "bpf/walk.h"

#define IDENT UINT64_C(0x7f00deadb000)
#define CODES UINT64_C(0x555500000000)
#define OWNER_THREAD 0
#define OWNER_GENERATOR 1
#define OWNER_C_STACK 3
#define DEPTH_MAX 6000

/* A thread; frame 0 is the outermost. */
struct stack {
	struct image *img;
	struct pyb_process process;
	struct pyb_scratch *s;
	raddr tstate, cframe;
	raddr base; /* a frame that is not Python's, behind the outermost one; 0 where there is none */
	raddr frames[DEPTH_MAX];
	size_t n;
	uint32_t flags, cause; /* of the last walk */
};

static bool hides_frames(const struct image *img) {
	return PY_MINOR(img->rt.reader.version) >= 0x030c;
}

static void point_at(const struct stack *s, raddr frame) {
	const struct layout *l = s->img->l;

	if (layout_has(l->tstate_frame))
		image_put_u64(s->img, s->tstate + l->tstate_frame, frame);
	else
		image_put_u64(s->img, s->cframe + l->cframe_current_frame, frame);
}

static void call(struct stack *s, uint8_t owner) {
	const struct layout *l = s->img->l;
	raddr at = image_take(s->img, image_frame_bytes(s->img)), code = CODES + s->n * 64;

	image_frame(s->img, at, s->n ? s->frames[s->n - 1] : s->base, code, code + 32, owner);
	if (layout_has(l->frame_lasti))
		image_put_u32(s->img, at + l->frame_lasti, (uint32_t)s->n);
	if (layout_has(l->frame_is_entry))
		image_put_u8(s->img, at + l->frame_is_entry, s->n % 3 == 0); /* the outermost always */
	if (layout_has(l->frame_tlbc_index))
		image_put_u32(s->img, at + l->frame_tlbc_index, (uint32_t)s->n % 5);
	s->frames[s->n++] = at;
	point_at(s, at);
}

static struct stack *open_stack(struct image *img, size_t depth) {
	struct stack *s = calloc(1, sizeof(*s));

	s->img = img;
	s->s = calloc(1, sizeof(*s->s));
	s->tstate = image_thread(img, img->interp, IDENT, 100);
	if (!layout_has(img->l->tstate_frame)) {
		s->cframe = image_take(img, 64);
		image_put_u64(img, s->tstate + img->l->tstate_cframe, s->cframe);
	}
	read_from = &img->rt;
	cr_assert_eq(bpf_processes_describe(&img->rt, &s->process), 0);
	s->process.interps[0].addr = img->interp;
	s->process.interps_n = 1;
	if (hides_frames(img)) {
		s->base = image_take(img, image_frame_bytes(img));
		image_frame(img, s->base, 0, 0, 0, OWNER_C_STACK);
	}
	while (depth--)
		call(s, OWNER_THREAD);
	return s;
}

static void close_stack(struct stack *s) {
	free(s->s);
	free(s);
}

static void walk(struct stack *s) {
	s->flags = pyb_walk(&s->process, pyb_first_frame(&s->process, s->tstate), s->s);
	s->cause = s->s->walk.cause;
	cr_assert_leq(s->s->event.frames_n, PYB_FRAMES_MAX);
}

/* The same frames as user space's reader copies: which code, where in it, which copy, entered from C or not. */
static void expect_same(struct stack *s) {
	const struct py_thread thread = { .interp = s->img->interp, .ident = IDENT, .tstate = s->tstate };
	struct py_stack_scratch scratch;
	struct py_raw_stack mine = { 0 }, theirs = { 0 };
	struct py_stack_plan plan;

	cr_assert_eq(py_stack_scratch_init(&scratch), 0);
	py_stack_plan_init(&plan, &thread);
	cr_assert_eq(py_stack_capture(&s->img->rt, &plan, &scratch, &theirs), 0);
	walk(s);
	s->s->event.flags = s->flags;
	cr_assert_eq(bpf_raw_stack(&s->img->rt, &s->s->event, s->s->frames, &mine), 0);
	cr_assert_eq(mine.frames.n, min_of(theirs.frames.n, (size_t)PYB_FRAMES_MAX), "%zu, %zu", mine.frames.n,
		theirs.frames.n);
	cr_assert_eq(mine.truncated, theirs.frames.n > PYB_FRAMES_MAX);
	for (size_t i = 0; i < mine.frames.n; i++) {
		const struct py_raw_frame *a = &mine.frames.items[i], *b = &theirs.frames.items[i];

		cr_assert_eq(a->code, b->code);
		cr_assert_eq(a->instr, b->instr, "%zu: %lld, %lld, version %x", i, (long long)a->instr,
			(long long)b->instr, s->img->rt.reader.version);
		cr_assert_eq(a->code_base, b->code_base);
		cr_assert_eq(a->globals, b->globals);
		cr_assert_eq(a->entry, b->entry, "%zu, version %x", i, s->img->rt.reader.version);
	}
	py_raw_stack_deinit(&mine);
	py_raw_stack_deinit(&theirs);
	py_stack_plan_deinit(&plan);
	py_stack_scratch_deinit(&scratch);
}

Test(bpf_walk, every_layout_can_be_described) {
	for (size_t i = 0; i < layout_rows_n; i++) {
		const struct layout *l = &layout_rows[i].layout;
		struct py_runtime rt = { .reader = { .layout = *l,
						 .version = layout_rows[i].first_version,
						 .flavour = layout_rows[i].flavour } };
		struct pyb_process p;
		uint32_t end;

		cr_assert_eq(bpf_processes_describe(&rt, &p), 0, "version %x", layout_rows[i].first_version);
		end = p.frame_window_len;
		cr_assert(end && end <= PYB_WINDOW && p.frame_window_start % 8 == 0);
		cr_assert(p.frame_previous + 8 <= end && p.frame_code + 8 <= end);
		cr_assert((p.frame_previous | p.frame_code | p.frame_instr) % 8 == 0 && p.frame_tlbc % 4 == 0);
		cr_assert(p.frame_instr + (p.instr_mask == UINT64_MAX ? 8 : 4) <= end);
		cr_assert(p.frame_owner < end && p.frame_is_entry < end && p.frame_tlbc + 4 <= end);
		cr_assert_eq(p.frame_window_start + p.frame_code, l->frame_code);
		cr_assert(layout_has(p.tstate_frame) || (layout_has(p.tstate_cframe) && layout_has(p.cframe_frame)));
		cr_assert(layout_has(p.tstate_thread_id) && layout_has(p.tstate_interp) && layout_has(p.tstate_next));
		cr_assert_eq(p.check == PYB_CHECK_VERSION, PY_MINOR(rt.reader.version) >= 0x030c);
		cr_assert_lt(p.check == PYB_CHECK_VERSION ? p.code_version : p.code_name, l->code_size);
	}
}

static void check_depths(struct image *img) {
	static const size_t depths[] = { 0, 1, 20, 900, PYB_FRAMES_MAX - 1, PYB_FRAMES_MAX, PYB_FRAMES_MAX + 1, 4000 };

	for (size_t i = 0; i < ARRAY_SIZE(depths); i++) {
		struct stack *s = open_stack(img, depths[i]);

		expect_same(s);
		cr_assert_eq(s->flags, depths[i] > PYB_FRAMES_MAX ? PYB_TRUNCATED : 0);
		close_stack(s);
	}
}

Test(bpf_walk, sees_what_user_space_sees) {
	image_each(check_depths);
}

static void check_owners(struct image *img) {
	struct stack *s = open_stack(img, 2);

	for (int i = 0; i < 5; i++) {
		call(s, OWNER_GENERATOR);
		call(s, OWNER_THREAD);
	}
	expect_same(s);
	for (int i = 0; hides_frames(img) && i < 10; i++) {
		call(s, i % 2 ? OWNER_C_STACK : OWNER_THREAD);
		expect_same(s);
	}
	close_stack(s);
}

Test(bpf_walk, generators_and_hidden_frames) {
	image_each(check_owners);
}

/* Frames of the C stack do not count. */
static void check_hidden_ones(struct image *img) {
	struct stack *s = open_stack(img, 0);

	for (int i = 0; hides_frames(img) && i < PYB_FRAMES_MAX; i++) {
		if (i % 2)
			call(s, OWNER_C_STACK);
		call(s, OWNER_THREAD);
	}
	expect_same(s);
	cr_assert_eq(s->flags, 0);
	close_stack(s);
}

Test(bpf_walk, hidden_frames_do_not_count) {
	image_each(check_hidden_ones);
}

/* Of a function that has just returned. */
static void check_no_code(struct image *img) {
	struct stack *s = open_stack(img, 5);

	image_put_u64(img, s->frames[4] + img->l->frame_code, 0);
	expect_same(s);
	cr_assert_eq(s->s->event.frames_n, 4);
	image_put_u64(img, s->frames[2] + img->l->frame_code, 0);
	walk(s);
	cr_assert(s->flags == PYB_BROKEN && s->cause == PYB_BAD_FRAME && s->s->event.frames_n == 1);
	close_stack(s);
}

Test(bpf_walk, a_frame_without_code) {
	image_each(check_no_code);
}

static void expect_broken(struct stack *s, size_t frames, uint32_t cause) {
	walk(s);
	cr_assert(s->flags == PYB_BROKEN && s->cause == cause && s->s->event.frames_n == frames,
		"version %x: flags %x, cause %u, %u frames", s->img->rt.reader.version, s->flags, s->cause,
		s->s->event.frames_n);
}

static void check_broken(struct image *img) {
	static const raddr nowhere[] = { IMAGE_NOWHERE, 8, UINT64_MAX - 7, IMAGE_BASE + IMAGE_BYTES - 8 };
	const struct layout *l = img->l;
	struct stack *s = open_stack(img, 10);

	for (size_t i = 0; i < ARRAY_SIZE(nowhere); i++) {
		image_put_u64(img, s->frames[6] + l->frame_previous, nowhere[i]);
		expect_broken(s, 4, PYB_UNREADABLE);
		image_put_u64(img, s->frames[6] + l->frame_previous, s->frames[5]);
		point_at(s, nowhere[i]);
		expect_broken(s, 0, PYB_UNREADABLE);
		point_at(s, s->frames[9]);
		expect_same(s);
	}
	for (uint32_t owner = 5; layout_has(l->frame_owner) && owner < 256; owner += 125) {
		image_put_u8(img, s->frames[7] + l->frame_owner, (uint8_t)owner);
		walk(s);
		cr_assert(s->flags & PYB_BROKEN, "owner %u, version %x", owner, img->rt.reader.version);
		image_put_u8(img, s->frames[7] + l->frame_owner, OWNER_THREAD);
	}
	if (s->cframe) {
		image_put_u64(img, s->tstate + l->tstate_cframe, IMAGE_NOWHERE);
		expect_broken(s, 0, PYB_UNREADABLE);
		image_put_u64(img, s->tstate + l->tstate_cframe, s->cframe);
	}
	image_put_u64(img, s->frames[3] + l->frame_code, CODES + 4);
	expect_broken(s, 6, PYB_BAD_FRAME);
	close_stack(s);
}

/* A generator's frame that has just let go of its caller, or a caller that is no first one. */
static void check_cut(struct image *img) {
	struct stack *s = open_stack(img, 10);

	image_put_u64(img, s->frames[8] + img->l->frame_previous, 0);
	if (layout_has(img->l->frame_lasti))
		expect_same(s);
	else
		expect_broken(s, 2, PYB_BAD_FRAME);
	close_stack(s);
}

Test(bpf_walk, a_chain_that_was_cut) {
	image_each(check_cut);
}

Test(bpf_walk, what_is_broken_has_a_cause) {
	image_each(check_broken);
}

static void check_cycles(struct image *img) {
	struct stack *s = open_stack(img, 10);

	for (size_t to = 0; to < 10; to += 3) {
		image_put_u64(img, s->frames[0] + img->l->frame_previous, s->frames[to]);
		walk(s);
		cr_assert(s->flags == PYB_TRUNCATED && s->s->event.frames_n == PYB_FRAMES_MAX);
	}
	if (hides_frames(img)) {
		image_frame(img, s->frames[0], s->frames[0], 0, 0, OWNER_C_STACK);
		walk(s);
		cr_assert(s->flags == PYB_TRUNCATED && s->s->event.frames_n == 9);
	}
	close_stack(s);
}

Test(bpf_walk, ends_in_a_circle) {
	image_each(check_cycles);
}

static bool search(struct stack *s, uint64_t ident) {
	memset(&s->s->found, 0, sizeof(s->s->found));
	return pyb_search(&s->process, ident, &s->s->found);
}

/* Another thread state of some thread. Before 3.13 frames hang on a word that each has for itself. */
static raddr add_state(struct image *img, raddr interp, uint64_t ident, raddr frame) {
	raddr tstate = image_thread(img, interp, ident, 200), cframe;

	if (layout_has(img->l->tstate_frame)) {
		image_put_u64(img, tstate + img->l->tstate_frame, frame);
	} else {
		cframe = image_take(img, 64);
		image_put_u64(img, tstate + img->l->tstate_cframe, cframe);
		image_put_u64(img, cframe + img->l->cframe_current_frame, frame);
	}
	return tstate;
}

static void check_search(struct image *img) {
	struct stack *s = open_stack(img, 3);
	raddr other = image_interp(img, 1), inside, idle;

	s->process.interps[1].addr = img->interp;
	s->process.interps[0].addr = other;
	s->process.interps_n = 2;
	for (uint64_t i = 1; i <= 20; i++)
		add_state(img, i % 2 ? other : img->interp, IDENT + 64 * i, 0);
	cr_assert(search(s, IDENT) && s->s->found.tstate == s->tstate && s->s->found.frame == s->frames[2]);
	cr_assert_eq(s->s->found.interp, 1);
	cr_assert(!search(s, IDENT + 8));
	idle = add_state(img, other, IDENT, 0);
	cr_assert(search(s, IDENT) && s->s->found.tstate == s->tstate, "a state without frames is not what it runs");
	inside = add_state(img, other, IDENT, s->frames[1]);
	cr_assert(search(s, IDENT) && s->s->found.tstate == inside && s->s->found.frame == s->frames[1]);
	cr_assert_eq(s->s->found.interp, 0);
	image_put_u64(img, inside + img->l->tstate_interp, img->interp);
	cr_assert(search(s, IDENT) && s->s->found.tstate == s->tstate, "a list that holds another one's state");
	image_put_u64(img, idle + img->l->tstate_next, inside);
	cr_assert(search(s, IDENT) && s->s->found.tstate == idle, "the list of the younger one is a circle");
	close_stack(s);
}

Test(bpf_walk, searches_all_interpreters) {
	image_each(check_search);
}

static void check_search_end(struct image *img) {
	struct stack *s = open_stack(img, 1);

	for (uint64_t i = 0; i < PYB_SEARCH_MAX - 2; i++)
		add_state(img, img->interp, IDENT + 64 * (i + 1), 0);
	cr_assert(search(s, IDENT));
	add_state(img, img->interp, 1, 0);
	cr_assert(!search(s, IDENT));
	close_stack(s);
}

Test(bpf_walk, searches_no_further_than_it_may) {
	image_each(check_search_end);
}

static void check_known(struct image *img) {
	struct stack *s = open_stack(img, 3);
	raddr other = image_interp(img, 1), inside = add_state(img, other, IDENT, 0);
	struct pyb_thread thread = { .states = { inside, s->tstate }, .interp = { 0, 1 } };
	struct pyb_found found = { 0 };

	s->process.interps[1].addr = img->interp;
	s->process.interps[0].addr = other;
	s->process.interps_n = 2;
	cr_assert(pyb_find_known(&s->process, &thread, IDENT, &found) && found.tstate == s->tstate);
	cr_assert(found.interp == 1 && found.frame == s->frames[2]);
	found.tstate = 0;
	cr_assert(!pyb_find_known(&s->process, &thread, IDENT + 64, &found));
	thread.interp[0] = 1;
	cr_assert(!pyb_find_known(&s->process, &thread, IDENT, &found));
	thread.interp[0] = UINT32_MAX;
	cr_assert(!pyb_find_known(&s->process, &thread, IDENT, &found));
	thread = (struct pyb_thread){ .states = { IMAGE_NOWHERE } };
	cr_assert(!pyb_find_known(&s->process, &thread, IDENT, &found));
	thread = (struct pyb_thread){ 0 };
	cr_assert(!pyb_find_known(&s->process, &thread, IDENT, &found));
	close_stack(s);
}

Test(bpf_walk, what_is_known_is_checked) {
	image_each(check_known);
}

static void check_gil(struct image *img) {
	const struct layout *l = img->l;
	struct stack *s = open_stack(img, 1);
	struct pyb_interp *interp = &s->process.interps[0];
	raddr gil = image_take(img, 256), current = image_take(img, 8);
	uint32_t known = PYB_GIL_KNOWN;

	cr_assert_eq(pyb_state_flags(&s->process, interp, s->tstate) & ~known, 0);
	if (layout_has(s->process.tstate_holds_gil)) {
		image_put_u32(img, s->tstate + s->process.tstate_holds_gil, s->process.holds_gil_mask);
	} else if (PY_MINOR(img->rt.reader.version) >= 0x030c) {
		interp->gil = gil;
		cr_assert_eq(pyb_state_flags(&s->process, interp, s->tstate), known);
		image_put_u64(img, gil + l->gil_last_holder, s->tstate);
		cr_assert_eq(pyb_state_flags(&s->process, interp, s->tstate), known, "it is not locked");
		image_put_u32(img, gil + l->gil_locked, 1);
	} else {
		interp->tstate_current = current;
		cr_assert_eq(pyb_state_flags(&s->process, interp, s->tstate), known);
		image_put_u64(img, current, s->tstate);
	}
	cr_assert_eq(pyb_state_flags(&s->process, interp, s->tstate), known | PYB_GIL);
	interp->collecting = image_take(img, 8);
	cr_assert_eq(pyb_state_flags(&s->process, interp, s->tstate), known | PYB_GIL);
	image_put_u32(img, interp->collecting, 1);
	cr_assert_eq(pyb_state_flags(&s->process, interp, s->tstate), known | PYB_GIL | PYB_GC);
	close_stack(s);
}

Test(bpf_walk, who_holds_the_gil_and_collects) {
	image_each(check_gil);
}

/* Both sides compute the same number: user space takes a frame with the program's check for the code object that is
 * there, and one with another check for one that is gone. */
static void check_checks(struct image *img) {
	struct stack *s = open_stack(img, 1);
	struct intern strings;
	struct py_code_cache cache;
	const struct py_code *code;
	struct py_raw_frame frame = { .code = image_code(img, "work", "/src/work.py", 42) };

	if (s->process.check == PYB_CHECK_VERSION)
		image_put_u32(img, frame.code + img->l->code_version, 4711);
	if (layout_has(img->l->code_adaptive))
		frame.instr = (int64_t)(frame.code + img->l->code_adaptive);
	cr_assert_eq(intern_init(&strings), 0);
	py_code_cache_init(&cache, &img->rt, &strings);
	frame.check = pyb_code_check(&s->process, frame.code);
	cr_assert_neq(frame.check, 0);
	cr_assert_eq(py_code_lookup(&cache, &frame, 0, 1, true, &code), 0, "version %x", img->rt.reader.version);
	cr_assert_eq(py_code_lookup(&cache, &frame, 0, 1, true, &code), 0);
	image_put_u32(img, frame.code + img->l->code_firstlineno, 43);
	if (s->process.check == PYB_CHECK_FIELDS)
		cr_assert_neq(pyb_code_check(&s->process, frame.code), frame.check);
	image_put_u32(img, frame.code + img->l->code_firstlineno, 42);
	frame.check += 2;
	cr_assert_eq(py_code_lookup(&cache, &frame, 0, 1, true, &code), PY_E_TYPE);
	py_code_cache_deinit(&cache);
	intern_deinit(&strings);
	close_stack(s);
}

Test(bpf_walk, checks_are_the_same_on_both_sides) {
	image_each(check_checks);
}

/* Another code object where one was freed, with all that it points to at the same addresses: contents tell. */
static void check_reuse(struct image *img) {
	const struct layout *l = img->l;
	raddr code = image_code(img, "<module>", "/a/long/folder/with/many/names/in/it/one_1.py", 1);
	struct stack *s = open_stack(img, 1);
	raddr texts[3] = { image_u64(img, code + l->code_name) + l->unicode_ascii_size,
		image_u64(img, code + l->code_filename) + l->unicode_ascii_size + 41,
		image_u64(img, code + l->code_linetable) + l->bytes_data };
	uint32_t check = pyb_code_check(&s->process, code);

	for (size_t i = 0; s->process.check == PYB_CHECK_FIELDS && i < ARRAY_SIZE(texts); i++) {
		uint8_t before = (uint8_t)image_u64(img, texts[i]);

		if (i == 2 && !image_u64(img, image_u64(img, code + l->code_linetable) + l->var_size))
			continue; /* no bytes in this version's table */
		image_put_u8(img, texts[i], before ^ 3);
		cr_assert_neq(pyb_code_check(&s->process, code), check, "%zu, version %x", i, img->rt.reader.version);
		image_put_u8(img, texts[i], before);
		cr_assert_eq(pyb_code_check(&s->process, code), check);
	}
	close_stack(s);
}

Test(bpf_walk, contents_tell_code_objects_apart) {
	image_each(check_reuse);
}

/* The window is one of the scratch's members, so that no tool notices a look beyond it: bytes there are others. */
Test(bpf_walk, no_offset_leaves_the_window) {
	struct pyb_scratch *s = calloc(1, sizeof(*s));

	memset(s, 0x55, sizeof(*s));
	memset(s->window, 0xaa, sizeof(s->window));
	for (uint64_t offset = 0; offset < 100000; offset++) {
		for (int high = 0; high < 2; high++) {
			uint32_t at = high ? UINT32_MAX - (uint32_t)offset : (uint32_t)offset;

			cr_assert_eq(pyb_word(s, at), UINT64_C(0xaaaaaaaaaaaaaaaa));
			cr_assert_eq(pyb_half(s, at), 0xaaaaaaaa);
			cr_assert_eq(pyb_byte(s, at), 0xaa);
		}
	}
	free(s);
}

/* Everything that a process is described with may be nonsense. */
static void use_hostile(struct stack *s) {
	const struct pyb_thread thread = { .states = { s->tstate, s->tstate }, .interp = { 0, 7 } };

	walk(s);
	search(s, IDENT);
	pyb_find_known(&s->process, &thread, IDENT, &s->s->found);
	pyb_state_flags(&s->process, &s->process.interps[0], s->tstate);
	pyb_code_check(&s->process, s->frames[0]);
}

static void check_hostile(struct image *img) {
	struct stack *s = open_stack(img, 10);
	uint64_t seed = img->rt.reader.version;

	memset(&s->process, 0xff, sizeof(s->process));
	use_hostile(s);
	for (int round = 0; round < 2000; round++) {
		uint8_t *bytes = (uint8_t *)&s->process;

		cr_assert_eq(bpf_processes_describe(&img->rt, &s->process), 0);
		s->process.interps[0].addr = img->interp;
		s->process.interps_n = 1;
		for (int i = 0; i < 4; i++) {
			seed = seed * 6364136223846793005 + 1442695040888963407;
			bytes[(seed >> 33) % sizeof(s->process)] = (uint8_t)(seed >> 25);
		}
		use_hostile(s);
	}
	close_stack(s);
}

Test(bpf_walk, descriptions_that_lie) {
	image_each(check_hostile);
}
