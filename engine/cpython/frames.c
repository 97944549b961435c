/* SPDX-License-Identifier: MIT */
/* Copying stacks.
 *
 * What a copy consists of is a list of ranges (scratch->ranges): the thread state, words of the interpreter, the C
 * frame (3.11, 3.12), the data-stack chunks newest first, then single frames. The first bulk read follows the plan; the
 * walk from the innermost frame outwards then finds each frame in what was copied, or reads it and notes it for the
 * next plan.
 *
 * Frames of plain calls lie in chunks one above the other, so a caller in the same chunk has the lower address: a chain
 * that says otherwise is torn. */
#include "engine/cpython/frames.h"

#include "engine/base/clock.h"
#include "engine/base/cursor.h"
#include "engine/base/limits.h"

#define ARENA_BYTES (8U << 20)
#define FIRST_CHUNK_BYTES 4096 /* read of a chunk that is seen for the first time */
#define CHUNK_SLACK_BYTES 1024 /* copied beyond the newest frame, for calls until the next look */
#define PLAN_EXTRAS_MAX 960    /* single frames in one bulk read */
#define LOOKAHEAD 64           /* how far ahead in the plan a frame is searched when the expected one is not next */
#define STATUS_HOLDS_GIL_3_13 (1U << 5) /* CPython 3.13 Include/cpython/pystate.h, _status */
#define OWNER_FIRST_HIDDEN \
	3 /* 3.12+: frames owned by the C stack, the interpreter or the thread state are not Python's */

struct copy {
	const struct py_runtime *rt;
	const struct layout *l;
	struct py_stack_plan *plan;
	struct py_stack_scratch *scratch;
	struct py_raw_stack *stack;
	size_t chunk_first; /* index in ranges of the newest chunk */
	size_t extra_first; /* … and of the first single frame of the plan */
	size_t extra_next;  /* the one that is expected next */
	size_t extra_end;
	uint32_t frame_bytes;
	bool no_older_chunk; /* the oldest chunk that was copied is the thread's first */
};

int py_stack_scratch_init(struct py_stack_scratch *scratch) {
	*scratch = (struct py_stack_scratch){ 0 };
	scratch->arena = malloc(ARENA_BYTES);
	return scratch->arena ? 0 : -ENOMEM;
}

void py_stack_scratch_deinit(struct py_stack_scratch *scratch) {
	free(scratch->arena);
	vec_free(&scratch->ranges);
	vec_free(&scratch->extras);
	scratch->arena = NULL;
}

void py_stack_plan_init(struct py_stack_plan *plan, const struct py_thread *thread) {
	*plan = (struct py_stack_plan){ .tstate = thread->tstate, .interp = thread->interp, .ident = thread->ident };
}

void py_stack_plan_deinit(struct py_stack_plan *plan) {
	vec_free(&plan->chunks);
	vec_free(&plan->extras);
}

void py_raw_stack_deinit(struct py_raw_stack *stack) {
	vec_free(&stack->frames);
}

/* Appends a range and finds room for its bytes. Return: 0, -ENOMEM (also where one look would take more than the
 * arena). */
static int add_range(struct py_stack_scratch *scratch, raddr addr, size_t len) {
	size_t padded = (len + 15) & ~(size_t)15;
	int r;

	if (padded > ARENA_BYTES - scratch->arena_used)
		return -ENOMEM;
	r = vec_push(&scratch->ranges,
		(struct mem_range){ .addr = addr, .len = len, .buf = scratch->arena + scratch->arena_used });
	if (!r)
		scratch->arena_used += padded;
	return r;
}

static struct mem_range *range_at(const struct copy *c, size_t i) {
	return &c->scratch->ranges.items[i];
}

/* Reads one more range. Return: as mem_read. On failure the range is not there. */
static int fetch(struct copy *c, raddr addr, size_t len) {
	int r = add_range(c->scratch, addr, len);

	if (r)
		return r;
	c->stack->reads++;
	r = mem_read(c->rt->reader.mem, addr, range_at(c, c->scratch->ranges.n - 1)->buf, len);
	if (r)
		c->scratch->ranges.n--;
	return r;
}

static uint32_t tstate_window(const struct layout *l) {
	const uint32_t used[] = { l->tstate_interp, l->tstate_frame, l->tstate_cframe, l->tstate_thread_id,
		l->tstate_status, l->tstate_holds_gil, l->tstate_gil_requested, l->tstate_datastack_chunk };
	uint32_t end = 0;

	for (size_t i = 0; i < ARRAY_SIZE(used); i++)
		if (layout_has(used[i]))
			end = max_of(end, used[i] + 8);
	return end;
}

static uint32_t frame_window(const struct layout *l) {
	if (layout_has(l->frame_lasti))
		return max_of(l->frame_lasti + 4, l->frame_globals + 8);
	return l->frame_localsplus;
}

/* 3.12 numbers its code objects with a counter of the process, which lies elsewhere; the interpreter's counts functions
 * there. */
static raddr generation_addr(const struct copy *c) {
	if (layout_has(c->l->interp_code_generation))
		return c->plan->interp + c->l->interp_code_generation;
	if (layout_has(c->l->interp_next_code_version) && PY_MINOR(c->rt->reader.version) != 0x030c)
		return c->plan->interp + c->l->interp_next_code_version;
	return 0;
}

static bool uses_cframe(const struct layout *l) {
	return !layout_has(l->tstate_frame);
}

/* The counter comes first, so that nothing lies between the word that points to the innermost frame and the frames. */
enum { RANGE_GENERATION, RANGE_TSTATE, RANGE_CFRAME, RANGES_FIXED };

/* Lays out the bulk read. Ranges that this version does not have are of length 0, so that the fixed ones keep their
 * places. */
static int plan_ranges(struct copy *c) {
	struct py_stack_plan *plan = c->plan;
	size_t extras = min_of(plan->extras.n, (size_t)PLAN_EXTRAS_MAX);
	raddr generation = generation_addr(c);
	int r;

	c->scratch->ranges.n = 0;
	c->scratch->arena_used = 0;
	r = add_range(c->scratch, generation, generation ? layout_has(c->l->interp_code_generation) ? 8 : 4 : 0);
	if (!r)
		r = add_range(c->scratch, plan->tstate, tstate_window(c->l));
	if (!r)
		r = add_range(c->scratch, plan->cframe, plan->cframe ? c->l->cframe_current_frame + 8 : 0);
	c->chunk_first = RANGES_FIXED;
	for (size_t i = 0; !r && i < plan->chunks.n; i++)
		r = add_range(c->scratch, plan->chunks.items[i].addr, plan->chunks.items[i].len);
	c->extra_first = c->extra_next = c->scratch->ranges.n;
	for (size_t i = 0; !r && i < extras && c->scratch->ranges.n < MEM_RANGES_MAX; i++)
		r = add_range(c->scratch, plan->extras.items[i].addr, plan->extras.items[i].len);
	c->extra_end = c->scratch->ranges.n;
	return r;
}

static int bulk_read(struct copy *c) {
	size_t done = 0, n = c->scratch->ranges.n;
	uint64_t begin = clock_mono_ns();
	int r = mem_read_together(c->rt->reader.mem, c->scratch->ranges.items, n, &done);

	c->stack->copy_ns = clock_mono_ns() - begin;
	c->stack->reads++;
	if (r && r != MEM_E_FAULT)
		return r;
	if (done <= RANGE_TSTATE)
		return MEM_E_FAULT;
	for (size_t i = done; i < n; i++)
		range_at(c, i)->len = 0; /* a guess that was wrong; the walk reads what it really needs */
	return 0;
}

static uint64_t tstate_word(const struct copy *c, uint32_t offset) {
	const struct mem_range *t = range_at(c, RANGE_TSTATE);

	return layout_has(offset) ? peek_u64(t->buf, t->len, offset) : 0;
}

static void read_flags(struct copy *c) {
	const struct mem_range *t = range_at(c, RANGE_TSTATE), *g = range_at(c, RANGE_GENERATION);
	const struct layout *l = c->l;
	uint32_t holds = LAYOUT_NONE, mask = 0;

	c->stack->code_generation = g->len == 8 ? peek_u64(g->buf, g->len, 0) : peek_u32(g->buf, g->len, 0);
	py_holds_gil_word(c->rt, &holds, &mask);
	c->stack->gil_known = layout_has(holds);
	c->stack->holds_gil = c->stack->gil_known && peek_u32(t->buf, t->len, holds) & mask;
	if (layout_has(l->tstate_gil_requested))
		c->stack->gil_requested = peek_u32(t->buf, t->len, l->tstate_gil_requested) != 0;
}

static int read_cframe(struct copy *c, raddr *ret_frame) {
	raddr cframe = tstate_word(c, c->l->tstate_cframe);
	const struct mem_range *there = range_at(c, RANGE_CFRAME);
	uint64_t frame;
	int r;

	if (cframe && cframe == c->plan->cframe && there->len) {
		*ret_frame = peek_u64(there->buf, there->len, c->l->cframe_current_frame);
		return 0;
	}
	c->plan->cframe = cframe;
	if (!cframe)
		return MEM_E_FAULT;
	c->stack->reads++;
	r = mem_read_u64(c->rt->reader.mem, cframe + c->l->cframe_current_frame, &frame);
	if (!r)
		*ret_frame = frame;
	return r;
}

static struct mem_range *chunk_range(const struct copy *c, size_t i) {
	return range_at(c, c->chunk_first + i);
}

/* Chunks live in their own part of the list; one that was read late stands at the end and is swapped into its place. */
static int insert_chunk(struct copy *c, size_t at, raddr addr, uint32_t len) {
	struct py_stack_plan *plan = c->plan;
	struct mem_range range;
	int r = fetch(c, addr, len);

	if (r)
		return r;
	r = vec_push(&plan->chunks, (struct py_span){ 0 });
	if (r)
		return r;
	memmove(&plan->chunks.items[at + 1], &plan->chunks.items[at],
		(plan->chunks.n - 1 - at) * sizeof(*plan->chunks.items));
	plan->chunks.items[at] = (struct py_span){ addr, len };
	range = *range_at(c, c->scratch->ranges.n - 1);
	memmove(chunk_range(c, at + 1), chunk_range(c, at),
		(c->scratch->ranges.n - 1 - c->chunk_first - at) * sizeof(range));
	*chunk_range(c, at) = range;
	c->extra_first++;
	c->extra_next++;
	c->extra_end++;
	return 0;
}

static void remove_chunks(struct copy *c, size_t at, size_t n) {
	struct py_stack_plan *plan = c->plan;

	if (!n)
		return;
	memmove(&plan->chunks.items[at], &plan->chunks.items[at + n],
		(plan->chunks.n - at - n) * sizeof(*plan->chunks.items));
	memmove(chunk_range(c, at), chunk_range(c, at + n),
		(c->scratch->ranges.n - c->chunk_first - at - n) * sizeof(struct mem_range));
	plan->chunks.n -= n;
	c->scratch->ranges.n -= n;
	c->extra_first -= n;
	c->extra_next -= n;
	c->extra_end -= n;
}

/* Brings the list of chunks in line with the thread's newest one: pops what is gone, reads what is new. */
static int settle_newest_chunk(struct copy *c) {
	struct py_stack_plan *plan = c->plan;
	raddr newest = tstate_word(c, c->l->tstate_datastack_chunk);

	if (!newest) {
		remove_chunks(c, 0, plan->chunks.n);
		return 0;
	}
	for (size_t i = 0; i < plan->chunks.n; i++) {
		if (plan->chunks.items[i].addr != newest)
			continue;
		remove_chunks(c, 0, i);
		if (chunk_range(c, 0)->len)
			return 0;
		remove_chunks(c, 0, plan->chunks.n); /* the copy failed: its length was wrong */
		break;
	}
	if (plan->chunks.n >= LIMIT_CHUNKS)
		remove_chunks(c, 0, plan->chunks.n);
	return insert_chunk(c, 0, newest, FIRST_CHUNK_BYTES);
}

/* Reads the chunk below the oldest one that was copied. Return: 0; PY_E_TYPE where there is none; MEM_E_*. */
static int load_older_chunk(struct copy *c) {
	size_t n = c->plan->chunks.n;
	const struct mem_range *oldest = n ? chunk_range(c, n - 1) : NULL;
	raddr previous = oldest ? peek_u64(oldest->buf, oldest->len, c->l->chunk_previous) : 0;
	uint8_t header[32];
	uint64_t words, len;
	int r;

	if (!previous || n >= LIMIT_CHUNKS)
		return PY_E_TYPE;
	c->stack->reads++;
	r = mem_read(c->rt->reader.mem, previous, header, c->l->chunk_data);
	if (r)
		return r;
	words = peek_u64(header, sizeof(header), c->l->chunk_top);
	len = peek_u64(header, sizeof(header), c->l->chunk_size);
	if (len > LIMIT_CHUNK_BYTES || words > len / 8)
		return PY_E_TORN;
	return insert_chunk(c, n, previous, (uint32_t)min_of(len, c->l->chunk_data + words * 8));
}

/* The chain of chunks as copied must be the chain as it is; a guess about older ones that does not hold is dropped. */
static void check_older_chunks(struct copy *c) {
	for (size_t i = 0; i + 1 < c->plan->chunks.n; i++) {
		const struct mem_range *chunk = chunk_range(c, i);

		if (chunk->len && chunk_range(c, i + 1)->len &&
			peek_u64(chunk->buf, chunk->len, c->l->chunk_previous) == chunk_range(c, i + 1)->addr)
			continue;
		remove_chunks(c, i + 1, c->plan->chunks.n - i - 1);
		return;
	}
}

static bool covers(const struct mem_range *range, raddr addr, size_t len) {
	return addr >= range->addr && addr - range->addr <= range->len && range->len - (addr - range->addr) >= len;
}

static const uint8_t *bytes_at(const struct mem_range *range, raddr addr) {
	return (const uint8_t *)range->buf + (addr - range->addr);
}

/* A frame of the newest chunk that lies above what was copied: the stack has grown by more than the slack. */
static int extend_newest_chunk(struct copy *c, raddr addr) {
	struct mem_range *newest = chunk_range(c, 0);
	uint64_t size = peek_u64(newest->buf, newest->len, c->l->chunk_size);
	uint64_t need = addr - newest->addr + c->frame_bytes;
	struct mem_range range;
	int r;

	if (addr < newest->addr || size > LIMIT_CHUNK_BYTES || addr - newest->addr > size || need > size)
		return PY_E_TYPE;
	r = fetch(c, newest->addr, (size_t)min_of(size, need + CHUNK_SLACK_BYTES));
	if (r)
		return r;
	range = *range_at(c, --c->scratch->ranges.n);
	*chunk_range(c, 0) = range;
	c->plan->chunks.items[0].len = (uint32_t)range.len;
	return 0;
}

/* Return: the index of the chunk that holds the frame, or SIZE_MAX. Reads older chunks as far as needed. */
static size_t find_in_chunks(struct copy *c, raddr addr) {
	size_t i = 0;

	if (!layout_has(c->l->tstate_datastack_chunk))
		return SIZE_MAX;
	for (;; i++) {
		for (; i < c->plan->chunks.n; i++)
			if (covers(chunk_range(c, i), addr, c->frame_bytes))
				return i;
		if (c->plan->chunks.n && !extend_newest_chunk(c, addr))
			return 0;
		if (c->no_older_chunk)
			return SIZE_MAX;
		if (load_older_chunk(c)) {
			c->no_older_chunk = true;
			return SIZE_MAX;
		}
		i = c->plan->chunks.n - 2; /* the loop's step leads to the new one */
	}
}

/* A frame that is in no chunk: next in the plan, a little further on in it, or read now. */
static int find_extra(struct copy *c, raddr addr, const uint8_t **ret_bytes) {
	size_t last = min_of(c->extra_end, c->extra_next + LOOKAHEAD);
	int r;

	r = vec_push(&c->scratch->extras, (struct py_span){ addr, c->frame_bytes });
	if (r)
		return r;
	for (size_t i = c->extra_next; i < last; i++) {
		if (range_at(c, i)->addr != addr || !range_at(c, i)->len)
			continue;
		c->extra_next = i + 1;
		*ret_bytes = range_at(c, i)->buf;
		return 0;
	}
	r = fetch(c, addr, c->frame_bytes);
	if (!r)
		*ret_bytes = range_at(c, c->scratch->ranges.n - 1)->buf;
	return r;
}

int64_t py_lasti_bytes(uint32_t version, int32_t lasti) {
	return PY_MINOR(version) == 0x030a ? (int64_t)lasti * 2 : lasti;
}

void py_holds_gil_word(const struct py_runtime *rt, uint32_t *ret_offset, uint32_t *ret_mask) {
	const struct layout *l = &rt->reader.layout;

	if (layout_has(l->tstate_holds_gil)) {
		*ret_offset = l->tstate_holds_gil;
		*ret_mask = UINT32_MAX;
	} else if (PY_MINOR(rt->reader.version) == 0x030d) {
		*ret_offset = l->tstate_status;
		*ret_mask = STATUS_HOLDS_GIL_3_13;
	}
}

static int64_t read_instr(const struct copy *c, const uint8_t *frame) {
	if (!layout_has(c->l->frame_lasti))
		return (int64_t)peek_u64(frame, c->frame_bytes, c->l->frame_instr);
	return py_lasti_bytes(c->rt->reader.version, (int32_t)peek_u32(frame, c->frame_bytes, c->l->frame_lasti));
}

/* Before 3.11 each frame is run by a C call of its own; 3.11 marks the first of each; from 3.12 on there is a frame
 * that is not Python's behind it. */
static bool is_entry(const struct copy *c, const uint8_t *bytes) {
	if (layout_has(c->l->frame_lasti))
		return true;
	return layout_has(c->l->frame_is_entry) && peek_u8(bytes, c->frame_bytes, c->l->frame_is_entry);
}

static void end_entry(struct copy *c) {
	if (c->stack->frames.n)
		c->stack->frames.items[c->stack->frames.n - 1].entry = true;
}

/* Return: 0 added, or left out because it is not a Python frame; PY_E_TORN; -ENOMEM. */
static int add_frame(struct copy *c, raddr addr, const uint8_t *bytes) {
	const struct layout *l = c->l;
	struct py_raw_frame frame = {
		.frame = addr,
		.code = py_untag(peek_u64(bytes, c->frame_bytes, l->frame_code)),
		.globals = py_untag(peek_u64(bytes, c->frame_bytes, l->frame_globals)),
		.instr = read_instr(c, bytes),
		.entry = is_entry(c, bytes),
	};

	if (layout_has(l->frame_owner)) {
		uint8_t owner = peek_u8(bytes, c->frame_bytes, l->frame_owner);

		if (owner > 4)
			return PY_E_TORN;
		if (owner >= OWNER_FIRST_HIDDEN) {
			end_entry(c);
			return 0;
		}
	}
	if (layout_has(l->frame_tlbc_index))
		frame.code_base = peek_u32(bytes, c->frame_bytes, l->frame_tlbc_index);
	if (!frame.code && !c->stack->frames.n)
		return 0; /* 3.14+: it has just returned; its caller is the innermost frame */
	if (!frame.code || frame.code & 7)
		return PY_E_TORN;
	return vec_push(&c->stack->frames, frame);
}

/* Notices a chain that leads back into itself (Brent): the anchor is moved ahead at every power of two. */
struct loop_guard {
	raddr anchor;
	size_t steps;
};

static bool is_loop(struct loop_guard *guard, raddr addr) {
	if (addr == guard->anchor)
		return true;
	guard->steps++;
	if ((guard->steps & (guard->steps - 1)) == 0)
		guard->anchor = addr;
	return false;
}

static int walk(struct copy *c, raddr addr) {
	struct loop_guard guard = { 0 };
	size_t last_chunk = SIZE_MAX, steps = 0;
	raddr last_addr = 0;

	for (; addr; steps++) {
		size_t chunk = find_in_chunks(c, addr);
		const uint8_t *bytes;
		int r;

		if (c->stack->frames.n >= LIMIT_FRAMES || steps >= 2 * LIMIT_FRAMES) {
			c->stack->truncated = true;
			return 0;
		}
		if (addr & 7 || is_loop(&guard, addr) ||
			(chunk != SIZE_MAX && chunk == last_chunk && addr >= last_addr))
			return PY_E_TORN;
		if (chunk != SIZE_MAX) {
			bytes = bytes_at(chunk_range(c, chunk), addr);
			last_chunk = chunk;
			last_addr = addr;
		} else {
			r = find_extra(c, addr, &bytes);
			if (r)
				return r;
		}
		r = add_frame(c, addr, bytes);
		if (r)
			return r;
		addr = peek_u64(bytes, c->frame_bytes, c->l->frame_previous);
	}
	end_entry(c);
	return 0;
}

/* The next look copies what this one needed and a little more; a stack that got shallow is given back slowly. */
static void learn(struct copy *c) {
	struct py_stack_plan *plan = c->plan;
	raddr top = 0;

	vec_foreach (frame, &c->stack->frames)
		if (plan->chunks.n && covers(chunk_range(c, 0), frame->frame, c->frame_bytes))
			top = max_of(top, frame->frame);
	if (plan->chunks.n) {
		struct py_span *newest = &plan->chunks.items[0];
		uint64_t size = peek_u64(chunk_range(c, 0)->buf, chunk_range(c, 0)->len, c->l->chunk_size);
		uint64_t want = (top ? top - newest->addr + c->frame_bytes : c->l->chunk_data) + CHUNK_SLACK_BYTES;

		want = max_of(want, (uint64_t)newest->len - newest->len / 16);
		size = min_of(size, (uint64_t)LIMIT_CHUNK_BYTES);
		size = max_of(size, (uint64_t)c->l->chunk_data);
		newest->len = (uint32_t)min_of(want, size);
	}
	plan->extras.n = 0;
	if (c->scratch->extras.n && !vec_reserve(&plan->extras, c->scratch->extras.n)) {
		memcpy(plan->extras.items, c->scratch->extras.items,
			c->scratch->extras.n * sizeof(*plan->extras.items));
		plan->extras.n = c->scratch->extras.n;
	}
}

static int first_frame(struct copy *c, raddr *ret_frame) {
	if (uses_cframe(c->l))
		return read_cframe(c, ret_frame);
	*ret_frame = tstate_word(c, c->l->tstate_frame);
	return 0;
}

static int capture(const struct py_runtime *rt, struct py_stack_plan *plan, struct py_stack_scratch *scratch,
	struct py_raw_stack *stack) {
	struct copy c = { .rt = rt,
		.l = &rt->reader.layout,
		.plan = plan,
		.scratch = scratch,
		.stack = stack,
		.frame_bytes = frame_window(&rt->reader.layout) };
	raddr frame = 0;
	int r;

	stack->frames.n = 0;
	stack->truncated = stack->holds_gil = stack->gil_known = stack->gil_requested = false;
	stack->reads = 0;
	scratch->extras.n = 0;
	r = plan_ranges(&c);
	if (!r)
		r = bulk_read(&c);
	if (r)
		return r;
	if (tstate_word(&c, c.l->tstate_interp) != plan->interp ||
		tstate_word(&c, c.l->tstate_thread_id) != plan->ident)
		return PY_E_TYPE;
	read_flags(&c);
	r = first_frame(&c, &frame);
	if (!r && layout_has(c.l->tstate_datastack_chunk)) {
		r = settle_newest_chunk(&c);
		if (!r)
			check_older_chunks(&c);
	}
	if (!r)
		r = walk(&c, frame);
	if (!r || r == PY_E_TORN)
		learn(&c);
	return r;
}

int py_stack_capture(const struct py_runtime *rt, struct py_stack_plan *plan, struct py_stack_scratch *scratch,
	struct py_raw_stack *stack) {
	int r = capture(rt, plan, scratch, stack);

	if (r != -ENOMEM || !(plan->chunks.n + plan->extras.n))
		return r;
	plan->chunks.n = plan->extras.n = 0; /* guesses that fill the buffer leave no room for what is needed */
	return capture(rt, plan, scratch, stack);
}
