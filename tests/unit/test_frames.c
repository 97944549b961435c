/* SPDX-License-Identifier: MIT */
/* Copying stacks out of images: what a healthy thread of each version looks like while its stack grows and shrinks, how
 * many reads that takes, and what a hostile one may put in its place. */
#include "engine/base/limits.h"
#include "engine/cpython/frames.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>

#define IDENT UINT64_C(0x7f00deadb000)
#define CHUNK_BYTES 16384
#define CODES UINT64_C(0x555500000000)
#define OWNER_THREAD 0
#define OWNER_GENERATOR 1
#define OWNER_C_STACK 3
#define DEEP 5000

struct placed {
	raddr at, chunk;
};

/* A thread and the frames that it has called so far; frame 0 is the outermost. */
struct stack {
	struct image *img;
	raddr tstate, cframe, chunk;
	size_t chunk_used;
	VEC(struct placed) frames;
	struct py_stack_plan plan;
	struct py_stack_scratch scratch;
	struct py_raw_stack raw;
};

static raddr code_of(size_t frame) {
	return CODES + frame * 64;
}

static bool has_chunks(const struct stack *s) {
	return layout_has(s->img->l->tstate_datastack_chunk);
}

static void point_at(struct stack *s, raddr frame) {
	const struct layout *l = s->img->l;

	if (layout_has(l->tstate_frame))
		image_put_u64(s->img, s->tstate + l->tstate_frame, frame);
	else
		image_put_u64(s->img, s->cframe + l->cframe_current_frame, frame);
}

/* Shows the outermost `depth` frames: what lies above stays in memory, as in a real chunk. */
static void show(struct stack *s, size_t depth) {
	point_at(s, depth ? s->frames.items[depth - 1].at : 0);
	if (has_chunks(s) && depth)
		image_put_u64(s->img, s->tstate + s->img->l->tstate_datastack_chunk, s->frames.items[depth - 1].chunk);
}

static raddr new_chunk(struct stack *s) {
	const struct layout *l = s->img->l;
	raddr at = image_take(s->img, CHUNK_BYTES);

	if (s->chunk)
		image_put_u64(s->img, s->chunk + l->chunk_top, (s->chunk_used - l->chunk_data) / 8);
	image_put_u64(s->img, at + l->chunk_previous, s->chunk);
	image_put_u64(s->img, at + l->chunk_size, CHUNK_BYTES);
	s->chunk = at;
	s->chunk_used = l->chunk_data;
	return at;
}

/* A frame outside the chunks for owners that have it there. */
static raddr place(struct stack *s, uint8_t owner) {
	size_t bytes = image_frame_bytes(s->img);
	raddr at;

	if (!has_chunks(s) || owner != OWNER_THREAD)
		return image_take(s->img, bytes);
	if (!s->chunk || s->chunk_used + bytes > CHUNK_BYTES)
		new_chunk(s);
	at = s->chunk + s->chunk_used;
	s->chunk_used += bytes;
	return at;
}

static raddr call(struct stack *s, uint8_t owner) {
	size_t n = s->frames.n;
	raddr at = place(s, owner);

	image_frame(s->img, at, n ? s->frames.items[n - 1].at : 0, code_of(n), code_of(n) + 32, owner);
	cr_assert_eq(vec_push(&s->frames, (struct placed){ at, s->chunk }), 0);
	show(s, n + 1);
	return at;
}

static void open_stack(struct stack *s, struct image *img, size_t depth) {
	struct py_thread thread = { .interp = img->interp, .ident = IDENT };

	*s = (struct stack){ .img = img };
	s->tstate = thread.tstate = image_thread(img, img->interp, IDENT, 100);
	if (!layout_has(img->l->tstate_frame)) {
		s->cframe = image_take(img, 64);
		image_put_u64(img, s->tstate + img->l->tstate_cframe, s->cframe);
	}
	while (depth--)
		call(s, OWNER_THREAD);
	cr_assert_eq(py_stack_scratch_init(&s->scratch), 0);
	py_stack_plan_init(&s->plan, &thread);
}

static void close_stack(struct stack *s) {
	py_stack_plan_deinit(&s->plan);
	py_stack_scratch_deinit(&s->scratch);
	py_raw_stack_deinit(&s->raw);
	vec_free(&s->frames);
}

static int capture(struct stack *s) {
	uint64_t reads = s->img->rt.reader.mem->reads;
	int r = py_stack_capture(&s->img->rt, &s->plan, &s->scratch, &s->raw);

	cr_assert_leq(s->raw.reads, s->img->rt.reader.mem->reads - reads);
	return r;
}

/* The innermost of `depth` frames are there, in order. */
static void expect_depth(struct stack *s, size_t depth) {
	size_t shown = min_of(depth, (size_t)LIMIT_FRAMES);

	cr_assert_eq(capture(s), 0, "version %x", s->img->rt.reader.version);
	cr_assert_eq(s->raw.frames.n, shown, "%zu frames of %zu", s->raw.frames.n, depth);
	cr_assert_eq(s->raw.truncated, depth > LIMIT_FRAMES);
	for (size_t i = 0; i < shown; i++) {
		cr_assert_eq(s->raw.frames.items[i].code, code_of(depth - 1 - i));
		cr_assert_eq(s->raw.frames.items[i].frame, s->frames.items[depth - 1 - i].at);
	}
}

static void expect_depth_at_once(struct stack *s, size_t depth) {
	expect_depth(s, depth);
	cr_assert_eq(s->raw.reads, 1, "%u reads, version %x", s->raw.reads, s->img->rt.reader.version);
}

static void check_depths(struct image *img) {
	static const size_t depths[] = { 0, 1, 20, 900, LIMIT_FRAMES, DEEP };

	for (size_t i = 0; i < ARRAY_SIZE(depths); i++) {
		struct stack s;

		open_stack(&s, img, depths[i]);
		expect_depth(&s, depths[i]);
		if (has_chunks(&s) || depths[i] <= 900)
			expect_depth_at_once(&s, depths[i]);
		expect_depth(&s, depths[i]);
		close_stack(&s);
	}
}

Test(frames, stacks_of_every_depth) {
	image_each(check_depths);
}

static void check_instructions(struct image *img) {
	struct stack s;
	int64_t instr = img->l->frame_lasti == LAYOUT_NONE ? (int64_t)(CODES + 7) : 6;

	open_stack(&s, img, 2);
	image_frame(img, s.frames.items[1].at, s.frames.items[0].at, CODES, (uint64_t)instr, OWNER_THREAD);
	cr_assert_eq(capture(&s), 0);
	cr_assert_eq(s.raw.frames.items[0].instr, PY_MINOR(img->rt.reader.version) == 0x030a ? 12 : instr);
	if (layout_has(img->l->frame_lasti)) {
		image_frame(img, s.frames.items[1].at, 0, CODES, (uint64_t)-1, OWNER_THREAD);
		cr_assert_eq(capture(&s), 0);
		cr_assert_lt(s.raw.frames.items[0].instr, 0);
	}
	close_stack(&s);
}

Test(frames, instructions_in_bytes) {
	image_each(check_instructions);
}

/* The plan follows: small changes cost nothing, large ones a few reads once. */
static void check_growth(struct image *img) {
	static const size_t depths[] = { 5, 7, 3, 60, 61, 400, 390, 1, 0, 2, 900, 10 };
	struct stack s;

	open_stack(&s, img, 900);
	for (size_t i = 0; i < ARRAY_SIZE(depths); i++) {
		show(&s, depths[i]);
		expect_depth(&s, depths[i]);
		expect_depth_at_once(&s, depths[i]);
	}
	show(&s, 5);
	expect_depth(&s, 5);
	show(&s, 7);
	if (has_chunks(&s))
		expect_depth_at_once(&s, 7);
	close_stack(&s);
}

Test(frames, the_plan_follows_the_stack) {
	image_each(check_growth);
}

/* A few calls to and fro over the end of a chunk. */
static void check_chunk_end(struct image *img) {
	size_t in_chunk = CHUNK_BYTES / image_frame_bytes(img) - 1;
	struct stack s;

	open_stack(&s, img, 5 * in_chunk);
	for (size_t depth = in_chunk - 3; depth < in_chunk + 6; depth++) {
		show(&s, depth);
		expect_depth(&s, depth);
		expect_depth_at_once(&s, depth);
	}
	for (size_t depth = 4 * in_chunk + 12; depth > 2 * in_chunk; depth--) {
		show(&s, depth);
		expect_depth(&s, depth);
	}
	close_stack(&s);
}

Test(frames, over_the_end_of_a_chunk) {
	image_each(check_chunk_end);
}

static void check_generators(struct image *img) {
	struct stack s;

	open_stack(&s, img, 3);
	for (int i = 0; i < 4; i++) {
		call(&s, OWNER_GENERATOR);
		call(&s, OWNER_GENERATOR);
		call(&s, OWNER_THREAD);
	}
	expect_depth(&s, 15);
	expect_depth_at_once(&s, 15);
	show(&s, 14); /* the innermost is a generator's now, and the plan is one short */
	expect_depth_at_once(&s, 14);
	show(&s, 9);
	expect_depth_at_once(&s, 9);
	show(&s, 15);
	expect_depth(&s, 15);
	close_stack(&s);
}

Test(frames, generators_have_their_frames_elsewhere) {
	image_each(check_generators);
}

static void check_many_generators(struct image *img) {
	struct stack s;

	open_stack(&s, img, 2900); /* many chunks, and more single frames than one read takes */
	for (int i = 0; i < 100; i++) {
		if (has_chunks(&s))
			new_chunk(&s);
		call(&s, OWNER_THREAD);
	}
	for (int i = 0; i < 1090; i++)
		call(&s, OWNER_GENERATOR);
	expect_depth(&s, 4090);
	expect_depth(&s, 4090);
	expect_depth(&s, 4090);
	close_stack(&s);
}

Test(frames, more_ranges_than_one_read_takes) {
	image_each(check_many_generators);
}

static void check_hidden(struct image *img) {
	struct stack s;

	if (PY_MINOR(img->rt.reader.version) < 0x030c)
		return;
	open_stack(&s, img, 2);
	call(&s, OWNER_C_STACK);
	call(&s, OWNER_THREAD);
	call(&s, OWNER_C_STACK);
	image_frame(img, s.frames.items[4].at, s.frames.items[3].at, 0, 0, OWNER_C_STACK); /* its code may be NULL */
	for (int look = 0; look < 2; look++) {
		cr_assert_eq(capture(&s), 0);
		cr_assert_eq(s.raw.frames.n, 3);
		cr_assert_eq(s.raw.frames.items[0].code, code_of(3));
		cr_assert_eq(s.raw.frames.items[1].code, code_of(1));
		cr_assert(s.raw.frames.items[0].entry && !s.raw.frames.items[1].entry && s.raw.frames.items[2].entry);
	}
	cr_assert_eq(s.raw.reads, 1);
	close_stack(&s);
}

Test(frames, entry_frames_are_hidden) {
	image_each(check_hidden);
}

/* Up to 3.10 all are; 3.11 says it in the frame; from 3.12 on hidden frames do. */
static void check_entry(struct image *img) {
	const struct layout *l = img->l;
	struct stack s;

	open_stack(&s, img, 3);
	if (layout_has(l->frame_is_entry))
		image_put_u8(img, s.frames.items[1].at + l->frame_is_entry, 1);
	cr_assert_eq(capture(&s), 0);
	cr_assert_eq(s.raw.frames.n, 3);
	cr_assert_eq(s.raw.frames.items[0].entry, PY_MINOR(img->rt.reader.version) < 0x030b);
	cr_assert_eq(s.raw.frames.items[1].entry, PY_MINOR(img->rt.reader.version) < 0x030c);
	cr_assert(s.raw.frames.items[2].entry);
	close_stack(&s);
}

Test(frames, entry_frames_are_told) {
	image_each(check_entry);
}

static void check_flags(struct image *img) {
	const struct layout *l = img->l;
	bool counts = layout_has(l->interp_next_code_version) && PY_MINOR(img->rt.reader.version) >= 0x030d;
	struct stack s;

	open_stack(&s, img, 1);
	cr_assert_eq(capture(&s), 0);
	cr_assert_eq(s.raw.gil_known,
		img->rt.reader.version >= 0x030d0000 &&
			(layout_has(l->tstate_holds_gil) || PY_MINOR(img->rt.reader.version) == 0x030d));
	cr_assert(!s.raw.holds_gil && !s.raw.gil_requested);
	if (layout_has(l->tstate_holds_gil))
		image_put_u32(img, s.tstate + l->tstate_holds_gil, 1);
	else if (s.raw.gil_known)
		image_put_u32(img, s.tstate + l->tstate_status, 1U << 5);
	if (layout_has(l->tstate_gil_requested))
		image_put_u32(img, s.tstate + l->tstate_gil_requested, 1);
	if (layout_has(l->interp_code_generation))
		image_put_u64(img, img->interp + l->interp_code_generation, UINT64_C(1) << 40);
	else if (layout_has(l->interp_next_code_version))
		image_put_u32(img, img->interp + l->interp_next_code_version, 77);
	cr_assert_eq(capture(&s), 0);
	cr_assert_eq(s.raw.holds_gil, s.raw.gil_known);
	cr_assert_eq(s.raw.gil_requested, layout_has(l->tstate_gil_requested));
	cr_assert_eq(s.raw.code_generation,
		layout_has(l->interp_code_generation) ? UINT64_C(1) << 40
			: counts                      ? 77
						      : 0);
	close_stack(&s);
}

Test(frames, flags_and_code_generation) {
	image_each(check_flags);
}

static void check_other_thread(struct image *img) {
	struct stack s;

	open_stack(&s, img, 3);
	expect_depth(&s, 3);
	image_put_u64(img, s.tstate + img->l->tstate_thread_id, IDENT + 64);
	cr_assert_eq(capture(&s), PY_E_TYPE);
	image_put_u64(img, s.tstate + img->l->tstate_thread_id, IDENT);
	expect_depth(&s, 3);
	image_put_u64(img, s.tstate + img->l->tstate_interp, 0);
	cr_assert_eq(capture(&s), PY_E_TYPE);
	s.plan.tstate = IMAGE_NOWHERE;
	cr_assert_eq(capture(&s), MEM_E_FAULT);
	s.plan.tstate = UINT64_MAX - 7;
	cr_assert_eq(capture(&s), MEM_E_FAULT);
	close_stack(&s);
}

Test(frames, a_thread_state_that_is_anothers) {
	image_each(check_other_thread);
}

static void set_previous(struct stack *s, size_t frame, raddr previous) {
	image_put_u64(s->img, s->frames.items[frame].at + s->img->l->frame_previous, previous);
}

/* Each kind of frame leads back: to itself, to its caller, to one far away. */
static void check_loops(struct image *img) {
	static const size_t from[] = { 0, 1, 10, 10, 1299, 1299, 600, 1260, 1260 };
	static const size_t to[] = { 0, 2, 10, 1299, 1299, 1298, 1200, 1270, 1299 };

	for (size_t i = 0; i < ARRAY_SIZE(from); i++) {
		struct stack s;

		open_stack(&s, img, 1250);
		for (int k = 0; k < 50; k++)
			call(&s, OWNER_GENERATOR);
		expect_depth(&s, 1300);
		set_previous(&s, from[i], s.frames.items[to[i]].at);
		if (from[i] > to[i]) {
			cr_assert_eq(capture(&s), 0); /* a jump outwards is no loop */
		} else {
			cr_assert_eq(capture(&s), PY_E_TORN, "%zu → %zu, version %x", from[i], to[i],
				img->rt.reader.version);
			cr_assert_eq(capture(&s), PY_E_TORN);
			cr_assert_leq(s.raw.frames.n, LIMIT_FRAMES);
		}
		set_previous(&s, from[i], from[i] ? s.frames.items[from[i] - 1].at : 0);
		expect_depth(&s, 1300);
		close_stack(&s);
	}
}

Test(frames, chains_that_lead_back) {
	image_each(check_loops);
}

static void check_bad_pointers(struct image *img) {
	static const struct {
		raddr to;
		int result;
	} bad[] = {
		{ IMAGE_NOWHERE, MEM_E_FAULT },
		{ 8, MEM_E_FAULT },
		{ UINT64_MAX - 7, MEM_E_FAULT },
		{ IMAGE_BASE + IMAGE_BYTES - 8, MEM_E_FAULT },
		{ 1, PY_E_TORN },
		{ UINT64_MAX, PY_E_TORN },
	};
	struct stack s;

	open_stack(&s, img, 300);
	expect_depth(&s, 300);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		set_previous(&s, 250, bad[i].to);
		cr_assert_eq(capture(&s), bad[i].result, "%zu", i);
		set_previous(&s, 250, s.frames.items[249].at);
		point_at(&s, bad[i].to);
		cr_assert_eq(capture(&s), bad[i].result, "%zu", i);
		show(&s, 300);
		expect_depth(&s, 300);
	}
	set_previous(&s, 250, s.frames.items[249].at + 4);
	cr_assert_eq(capture(&s), PY_E_TORN);
	set_previous(&s, 250, s.frames.items[249].at);
	image_put_u64(img, s.frames.items[100].at + img->l->frame_code, 0);
	cr_assert_eq(capture(&s), PY_E_TORN);
	image_put_u64(img, s.frames.items[100].at + img->l->frame_code, CODES + 4);
	cr_assert_eq(capture(&s), PY_E_TORN);
	close_stack(&s);
}

Test(frames, pointers_to_nowhere) {
	image_each(check_bad_pointers);
}

static void check_bad_owner(struct image *img) {
	struct stack s;

	if (!layout_has(img->l->frame_owner))
		return;
	open_stack(&s, img, 3);
	image_put_u8(img, s.frames.items[1].at + img->l->frame_owner, 200);
	cr_assert_eq(capture(&s), PY_E_TORN);
	close_stack(&s);
}

Test(frames, an_owner_that_there_is_not) {
	image_each(check_bad_owner);
}

/* Whatever a chunk says of itself, the frames are found or refused, with a bounded number of reads. */
static void check_chunks_that_lie(struct image *img) {
	static const uint64_t lies[] = { 0, 1, 7, 24, CHUNK_BYTES - 8, CHUNK_BYTES + 8, LIMIT_CHUNK_BYTES,
		LIMIT_CHUNK_BYTES + 8, UINT64_C(1) << 32, UINT64_MAX - 7, UINT64_MAX };
	const struct layout *l = img->l;
	struct stack s;

	open_stack(&s, img, 600);
	if (!has_chunks(&s)) {
		close_stack(&s);
		return;
	}
	for (size_t frame = 0; frame < 600; frame += 599) {
		for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
			raddr chunk = s.frames.items[frame].chunk;
			uint64_t size = image_u64(img, chunk + l->chunk_size),
				 top = image_u64(img, chunk + l->chunk_top);
			uint64_t previous = image_u64(img, chunk + l->chunk_previous);

			image_put_u64(img, chunk + l->chunk_size, lies[i]);
			expect_depth(&s, 600); /* as single frames where the chunk is not to be had */
			expect_depth(&s, 600);
			image_put_u64(img, chunk + l->chunk_size, size);
			image_put_u64(img, chunk + l->chunk_top, lies[i]);
			s.plan.chunks.n = 0;
			expect_depth(&s, 600);
			expect_depth(&s, 600);
			image_put_u64(img, chunk + l->chunk_top, top);
			image_put_u64(img, chunk + l->chunk_previous, lies[i]);
			s.plan.chunks.n = 0;
			expect_depth(&s, 600);
			image_put_u64(img, chunk + l->chunk_previous, previous);
			s.plan.chunks.n = 0;
			expect_depth(&s, 600);
			expect_depth_at_once(&s, 600);
		}
	}
	close_stack(&s);
}

Test(frames, chunks_that_lie) {
	image_each(check_chunks_that_lie);
}

static void check_chunk_loops(struct image *img) {
	const struct layout *l = img->l;
	struct stack s;
	raddr first, last;

	open_stack(&s, img, 600);
	if (!has_chunks(&s)) {
		close_stack(&s);
		return;
	}
	call(&s, OWNER_GENERATOR); /* is in no chunk: all of them are looked through */
	first = s.frames.items[0].chunk;
	last = s.frames.items[599].chunk;
	image_put_u64(img, first + l->chunk_previous, last);
	expect_depth(&s, 601);
	cr_assert_leq(s.raw.reads, 2 * LIMIT_CHUNKS + 8);
	expect_depth(&s, 601);
	cr_assert_leq(s.raw.reads, 2 * LIMIT_CHUNKS + 8);
	image_put_u64(img, first + l->chunk_previous, first);
	expect_depth(&s, 601);
	image_put_u64(img, last + l->chunk_previous, last);
	expect_depth(&s, 601);
	image_put_u64(img, s.tstate + l->tstate_datastack_chunk, IMAGE_NOWHERE);
	cr_assert_eq(capture(&s), MEM_E_FAULT);
	image_put_u64(img, s.tstate + l->tstate_datastack_chunk, 0);
	expect_depth(&s, 601);
	close_stack(&s);
}

Test(frames, chunks_in_a_circle) {
	image_each(check_chunk_loops);
}

static raddr huge_chunk(struct stack *s, raddr previous, uint64_t bytes) {
	const struct layout *l = s->img->l;
	raddr at = image_take(s->img, LIMIT_CHUNK_BYTES);

	image_put_u64(s->img, at + l->chunk_size, LIMIT_CHUNK_BYTES);
	image_put_u64(s->img, at + l->chunk_top, (bytes - l->chunk_data) / 8);
	image_put_u64(s->img, at + l->chunk_previous, previous);
	return at;
}

/* Huge chunks fill the buffer, up to the point where the plan's slack does not fit any more: that must not stay so. */
static void check_huge_chunks(struct image *img) {
	const struct layout *l = img->l;
	raddr chunk[3] = { 0 };
	struct stack s;

	open_stack(&s, img, 1);
	for (int i = 0; has_chunks(&s) && i < 3; i++)
		chunk[i] = huge_chunk(&s, i ? chunk[i - 1] : 0, LIMIT_CHUNK_BYTES);
	for (uint64_t less = 0; has_chunks(&s) && less < 8192; less += 64) {
		image_put_u64(img, chunk[0] + l->chunk_top, (LIMIT_CHUNK_BYTES - less - l->chunk_data) / 8);
		image_frame(img, chunk[0] + 64, 0, CODES, CODES, OWNER_THREAD);
		image_frame(img, chunk[1] + 64, chunk[0] + 64, CODES, CODES, OWNER_THREAD);
		image_frame(img, chunk[2] + 4000, chunk[1] + 64, CODES, CODES, OWNER_THREAD);
		image_put_u64(img, s.tstate + l->tstate_datastack_chunk, chunk[2]);
		point_at(&s, chunk[2] + 4000);
		s.plan.chunks.n = s.plan.extras.n = 0;
		for (int look = 0; look < 3; look++) {
			cr_assert_eq(capture(&s), 0, "%d bytes less, look %d", (int)less, look);
			cr_assert_eq(s.raw.frames.n, 3);
		}
		show(&s, 1);
		expect_depth(&s, 1);
	}
	close_stack(&s);
}

Test(frames, chunks_larger_than_the_buffer) {
	image_each(check_huge_chunks);
}

/* What the plan guessed is gone: the walk still finds what is there. */
static void check_cut_memory(struct image *img) {
	raddr end, frame;
	struct stack s;

	open_stack(&s, img, 5);
	end = IMAGE_BASE + img->used;
	for (int i = 0; i < 20; i++)
		call(&s, OWNER_GENERATOR);
	expect_depth(&s, 25);
	frame = image_take(img, image_frame_bytes(img));
	image_cut(img, end);
	show(&s, 5);
	expect_depth(&s, 5);
	expect_depth_at_once(&s, 5);
	image_cut(img, IMAGE_BASE + img->used);
	show(&s, 25);
	expect_depth(&s, 25);
	image_cut(img, frame); /* of the plan's extras only the last ones are gone */
	image_cut(img, s.frames.items[15].at);
	cr_assert_eq(capture(&s), MEM_E_FAULT);
	show(&s, 15);
	expect_depth(&s, 15);
	image_cut(img, s.tstate + 8);
	cr_assert_eq(capture(&s), MEM_E_FAULT);
	close_stack(&s);
}

Test(frames, guesses_that_are_not_mapped) {
	image_each(check_cut_memory);
}

static void check_random_words(struct image *img) {
	const struct layout *l = img->l;
	raddr begin, end;
	struct stack s;

	open_stack(&s, img, 400);
	begin = s.frames.items[0].at;
	end = s.frames.items[399].at;
	for (int round = 0; round < 3000; round++) {
		raddr at = begin + (uint64_t)random() % (end - begin) / 8 * 8;
		raddr word = begin + (uint64_t)random() % (end - begin) / 8 * 8;

		if (round % 3 == 0)
			at = s.frames.items[random() % 400].at + l->frame_previous;
		if (round % 50 == 0)
			at = s.tstate + (uint64_t)random() % l->tstate_size / 8 * 8;
		image_put_u64(img, at, word);
		image_put_u64(img, s.tstate + l->tstate_interp, img->interp);
		image_put_u64(img, s.tstate + l->tstate_thread_id, IDENT);
		cr_assert_geq(capture(&s), 0);
		cr_assert_leq(s.raw.frames.n, LIMIT_FRAMES);
	}
	close_stack(&s);
}

Test(frames, random_words) {
	srandom(20240229);
	image_each(check_random_words);
}
