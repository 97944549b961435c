/* SPDX-License-Identifier: MIT */
/* Tables of traces by hand, summed up by line; and tables that lie, that lead into themselves and that move while they
 * are read. Real ones are compared by tests/live/tracemalloc_oracle.sh. */
#include "engine/cpython/tracemalloc.h"
#include "tests/unit/image.h"

#include <criterion/criterion.h>
#include <string.h>

#define BUCKETS 64
#define PEAK (1U << 20)
#define V3_8 0x030812f0
#define V3_15 0x030f0000
#define PAGE_BYTES 4096
#define GOOD 12 /* entries before a page that is gone */

/* Where the words are. */
struct heap {
	struct image *img;
	raddr tracing, memory, peak, traces;
	raddr table, buckets;
	uint64_t key_size; /* 0: references */
	uint64_t entries;
	raddr last; /* entry */
};

static raddr new_table(struct heap *heap, uint64_t nbuckets) {
	const struct layout *l = heap->img->l;
	raddr table = image_take(heap->img, 128);

	heap->buckets = image_take(heap->img, nbuckets * 8);
	image_put_u64(heap->img, table + l->hashtable_nbuckets, nbuckets);
	image_put_u64(heap->img, table + l->hashtable_buckets, heap->buckets);
	if (heap->key_size) {
		image_put_u64(heap->img, table + l->hashtable_key_size, heap->key_size);
		image_put_u64(heap->img, table + l->hashtable_data_size, 16);
	}
	return table;
}

static void find_words(struct heap *heap) {
	struct image *img = heap->img;
	const struct layout *l = img->l;
	struct py_statics *s = &img->rt.statics;
	raddr words = image_take(img, 64);

	if (layout_has(l->runtime_traces)) {
		heap->tracing = img->rt.runtime + l->runtime_traced_tracing;
		heap->memory = img->rt.runtime + l->runtime_traced_memory;
		heap->peak = img->rt.runtime + l->runtime_traced_peak;
		heap->traces = img->rt.runtime + l->runtime_traces;
		return;
	}
	s->traced_config = words;
	heap->tracing = words + 4;
	heap->memory = s->traced_memory = words + 16;
	heap->peak = s->traced_peak = words + 24;
	heap->traces = s->traces = words + 32;
}

static void open_heap(struct image *img, struct heap *heap) {
	*heap = (struct heap){ .img = img, .key_size = layout_has(img->l->hashtable_key_size) ? 8 : 0 };
	find_words(heap);
	heap->table = new_table(heap, BUCKETS);
	image_put_u32(img, heap->tracing, 1);
	image_put_u64(img, heap->memory, PEAK / 2);
	image_put_u64(img, heap->peak, PEAK);
	image_put_u64(img, heap->traces, heap->table);
}

static raddr new_file(struct heap *heap, const char *name) {
	raddr at;

	if (heap->img->rt.reader.version < V3_15)
		return image_text(heap->img, name);
	at = image_take(heap->img, strlen(name) + 1);
	image_put(heap->img, at, name, strlen(name) + 1);
	return at;
}

/* Two frames: only the first is the one that allocates. */
static raddr new_traceback(struct heap *heap, raddr file, uint32_t line, raddr caller) {
	const struct layout *l = heap->img->l;
	raddr at = image_take(heap->img, 64), frames = at + l->traceback_frames;

	image_put_u32(heap->img, at + l->traceback_nframe, 2);
	image_put_u64(heap->img, frames + l->traced_frame_filename, file);
	image_put_u32(heap->img, frames + l->traced_frame_lineno, line);
	image_put_u64(heap->img, frames + 12 + l->traced_frame_filename, caller);
	image_put_u32(heap->img, frames + 12 + l->traced_frame_lineno, 1);
	return at;
}

static void put_trace(struct heap *heap, raddr at, uint64_t size, raddr traceback) {
	image_put_u64(heap->img, at + heap->img->l->trace_size, size);
	image_put_u64(heap->img, at + heap->img->l->trace_traceback, traceback);
}

static raddr new_entry(struct heap *heap, uint64_t key, uint64_t size, raddr traceback) {
	struct image *img = heap->img;
	const struct layout *l = img->l;
	raddr at = image_take(img, 64), trace;

	image_put_u64(img, at + l->hashtable_entry_hash, key >> 4 | key << 60);
	if (heap->key_size) {
		image_put_u64(img, at + l->hashtable_entry_size, key);
		put_trace(heap, at + l->hashtable_entry_size + heap->key_size, size, traceback);
		return at;
	}
	trace = image_take(img, 16);
	put_trace(heap, trace, size, traceback);
	image_put_u64(img, at + l->hashtable_entry_key, key);
	image_put_u64(img, at + l->hashtable_entry_value, trace);
	return at;
}

/* In the chain of its bucket, as the first. */
static void add(struct heap *heap, uint64_t size, raddr traceback) {
	struct image *img = heap->img;
	raddr bucket = heap->buckets + heap->entries * 7 % 16 * 8;

	heap->last = new_entry(heap, 0x7f1234567890 + heap->entries * 32, size, traceback);
	image_put_u64(img, heap->last, image_u64(img, bucket));
	image_put_u64(img, bucket, heap->last);
	image_put_u64(img, heap->table + img->l->hashtable_entries, ++heap->entries);
}

static struct py_traced expect_read(const struct heap *heap, bool incomplete) {
	struct py_traced traced = { 0 };

	cr_assert_eq(py_traced_read(&heap->img->rt, &traced), 0);
	cr_assert_eq(traced.incomplete, incomplete);
	cr_assert_eq(traced.traced_bytes, PEAK / 2);
	cr_assert_eq(traced.peak_bytes, PEAK);
	return traced;
}

static void expect_line(
	const struct py_traced *traced, size_t i, const char *file, uint32_t line, uint64_t count, uint64_t bytes) {
	cr_assert_lt(i, traced->lines.n);
	cr_assert_str_eq(traced->lines.items[i].file, file);
	cr_assert_eq(traced->lines.items[i].line, line);
	cr_assert_eq(traced->lines.items[i].count, count);
	cr_assert_eq(traced->lines.items[i].bytes, bytes);
}

static void expect_type(const struct heap *heap) {
	struct py_traced traced = { .blocks = 7 };

	cr_assert_eq(py_traced_read(&heap->img->rt, &traced), PY_E_TYPE);
	cr_assert_eq(traced.blocks, 7, "untouched");
}

static void check_sums(struct image *img) {
	struct heap heap;
	struct py_traced traced;
	raddr a, b, inner, outer, other;

	open_heap(img, &heap);
	a = new_file(&heap, "/a.py");
	b = new_file(&heap, "/b.py");
	inner = new_traceback(&heap, a, 10, b);
	outer = new_traceback(&heap, a, 10, a);
	other = new_traceback(&heap, b, 10, b);
	for (unsigned i = 0; i < 10; i++) {
		add(&heap, 100, inner);
		add(&heap, 10, outer);
		add(&heap, 1000 + i, other);
	}
	add(&heap, 0, new_traceback(&heap, b, 11, a));
	traced = expect_read(&heap, false);
	cr_assert_eq(traced.lines.n, 3);
	cr_assert_eq(traced.blocks, 31);
	expect_line(&traced, 0, "/b.py", 10, 10, 10045);
	expect_line(&traced, 1, "/a.py", 10, 20, 1100);
	expect_line(&traced, 2, "/b.py", 11, 1, 0);
	py_traced_deinit(&traced);
}

Test(tracemalloc, sums_by_line) {
	image_each(check_sums);
}

static void check_empty(struct image *img) {
	struct heap heap;
	struct py_traced traced;

	open_heap(img, &heap);
	traced = expect_read(&heap, false);
	cr_assert_eq(traced.lines.n, 0);
	cr_assert_eq(traced.blocks, 0);
	py_traced_deinit(&traced);
}

Test(tracemalloc, nothing_allocated) {
	image_each(check_empty);
}

static void check_many(struct image *img) {
	const unsigned n = 20000;
	struct heap heap;
	struct py_traced traced;
	raddr traceback;

	open_heap(img, &heap);
	heap.table = new_table(&heap, 32768);
	image_put_u64(img, heap.traces, heap.table);
	traceback = new_traceback(&heap, new_file(&heap, "/many.py"), 5, new_file(&heap, "/main.py"));
	for (unsigned i = 0; i < n; i++) {
		raddr bucket = heap.buckets + i * UINT64_C(8);

		if (i % 3 == 0)
			image_take(img, 1024 - i % 7 * 128); /* so that spans end */
		image_put_u64(img, bucket, new_entry(&heap, 4096 + i * 16, 3, traceback));
	}
	image_put_u64(img, heap.table + img->l->hashtable_entries, n);
	img->rt.reader.mem->reads = 0;
	traced = expect_read(&heap, false);
	cr_assert_eq(traced.lines.n, 1);
	expect_line(&traced, 0, "/many.py", 5, n, UINT64_C(3) * n);
	cr_assert_lt(img->rt.reader.mem->reads, 60);
	py_traced_deinit(&traced);
}

Test(tracemalloc, many_blocks_few_reads) {
	image_each(check_many);
}

static void check_not_running(struct image *img) {
	struct heap heap;

	open_heap(img, &heap);
	add(&heap, 1, new_traceback(&heap, new_file(&heap, "/a.py"), 1, 0));
	image_put_u32(img, heap.tracing, 0);
	expect_type(&heap);
	image_put_u32(img, heap.tracing, 2);
	expect_type(&heap);
	image_put_u32(img, heap.tracing, 1);
	image_put_u64(img, heap.traces, 0);
	expect_type(&heap);
	image_put_u64(img, heap.traces, IMAGE_NOWHERE);
	expect_type(&heap);
	image_put_u64(img, heap.traces, heap.table);
	img->rt.statics.traces = 0;
	img->rt.runtime = 0;
	expect_type(&heap);
}

Test(tracemalloc, not_running_or_not_found) {
	image_each(check_not_running);
}

/* A patch release of which it is not known where its words are. */
static void check_neighbour(struct image *img) {
	struct heap heap;
	struct py_traced traced;
	bool own = layout_has(img->l->runtime_traces);

	open_heap(img, &heap);
	add(&heap, 5, new_traceback(&heap, new_file(&heap, "/a.py"), 3, 0));
	img->rt.reader.layout.runtime_traces = LAYOUT_NONE;
	img->rt.reader.layout.runtime_traced_tracing = LAYOUT_NONE;
	img->rt.statics.traces = 0;
	if (own) {
		traced = expect_read(&heap, false);
		expect_line(&traced, 0, "/a.py", 3, 1, 5);
		py_traced_deinit(&traced);
	}
	image_put_u64(img, heap.table + img->l->hashtable_nbuckets, BUCKETS - 1);
	expect_type(&heap);
}

Test(tracemalloc, a_patch_release_that_was_not_measured) {
	image_each(check_neighbour);
}

static void expect_lie(const struct heap *heap, uint32_t offset, uint64_t value) {
	uint64_t before = image_u64(heap->img, heap->table + offset);

	image_put_u64(heap->img, heap->table + offset, value);
	expect_type(heap);
	image_put_u64(heap->img, heap->table + offset, before);
}

static void check_lies(struct image *img) {
	const struct layout *l = img->l;
	struct heap heap;

	open_heap(img, &heap);
	expect_lie(&heap, l->hashtable_nbuckets, 0);
	expect_lie(&heap, l->hashtable_nbuckets, BUCKETS - 1);
	expect_lie(&heap, l->hashtable_nbuckets, UINT64_C(1) << 40);
	expect_lie(&heap, l->hashtable_entries, BUCKETS + 1);
	expect_lie(&heap, l->hashtable_buckets, 0);
	if (!heap.key_size)
		return;
	expect_lie(&heap, l->hashtable_key_size, 0);
	expect_lie(&heap, l->hashtable_key_size, 17);
	expect_lie(&heap, l->hashtable_key_size, UINT64_MAX);
	expect_lie(&heap, l->hashtable_data_size, 8);
	expect_lie(&heap, l->hashtable_data_size, UINT64_MAX);
}

Test(tracemalloc, tables_that_cannot_be) {
	image_each(check_lies);
}

/* What one bad entry leaves of 20 good ones. */
static void expect_rest(struct image *img, void (*spoil)(struct heap *heap, raddr entry)) {
	struct heap heap;
	struct py_traced traced;
	raddr traceback;

	open_heap(img, &heap);
	traceback = new_traceback(&heap, new_file(&heap, "/a.py"), 3, 0);
	for (unsigned i = 0; i < 20; i++)
		add(&heap, 5, traceback);
	add(&heap, 100, new_traceback(&heap, new_file(&heap, "/b.py"), 4, 0));
	image_put_u64(img, heap.last, 0);
	spoil(&heap, heap.last);
	traced = expect_read(&heap, true);
	cr_assert_eq(traced.lines.n, 1);
	cr_assert_str_eq(traced.lines.items[0].file, "/a.py");
	cr_assert_geq(traced.lines.items[0].count, 18, "all but those of its chain");
	py_traced_deinit(&traced);
}

static raddr trace_of(const struct heap *heap, raddr entry) {
	const struct layout *l = heap->img->l;

	return heap->key_size ? entry + l->hashtable_entry_size + heap->key_size
			      : image_u64(heap->img, entry + l->hashtable_entry_value);
}

static raddr traceback_of(const struct heap *heap, raddr entry) {
	return image_u64(heap->img, trace_of(heap, entry) + heap->img->l->trace_traceback);
}

static void other_hash(struct heap *heap, raddr entry) {
	image_put_u64(heap->img, entry + heap->img->l->hashtable_entry_hash, 12345);
}

static void large_block(struct heap *heap, raddr entry) {
	image_put_u64(heap->img, trace_of(heap, entry) + heap->img->l->trace_size, PEAK + 1);
}

static void no_traceback(struct heap *heap, raddr entry) {
	image_put_u64(heap->img, trace_of(heap, entry) + heap->img->l->trace_traceback, 0);
}

static void traceback_nowhere(struct heap *heap, raddr entry) {
	image_put_u64(heap->img, trace_of(heap, entry) + heap->img->l->trace_traceback, IMAGE_NOWHERE);
}

static void no_frames(struct heap *heap, raddr entry) {
	image_put_u32(heap->img, traceback_of(heap, entry) + heap->img->l->traceback_nframe, 0);
}

static void file_nowhere(struct heap *heap, raddr entry) {
	const struct layout *l = heap->img->l;
	raddr frame = traceback_of(heap, entry) + l->traceback_frames;

	image_put_u64(heap->img, frame + l->traced_frame_filename, IMAGE_NOWHERE);
}

static void no_file(struct heap *heap, raddr entry) {
	const struct layout *l = heap->img->l;
	raddr frame = traceback_of(heap, entry) + l->traceback_frames;

	image_put_u64(heap->img, frame + l->traced_frame_filename, UINT64_MAX);
}

static void entry_nowhere(struct heap *heap, raddr entry) {
	for (unsigned i = 0; i < BUCKETS; i++)
		if (image_u64(heap->img, heap->buckets + i * UINT64_C(8)) == entry)
			image_put_u64(heap->img, heap->buckets + i * UINT64_C(8), IMAGE_NOWHERE);
}

static void check_spoilt(struct image *img) {
	static void (*const spoils[])(struct heap *, raddr) = { other_hash, large_block, no_traceback,
		traceback_nowhere, no_frames, file_nowhere, no_file, entry_nowhere };

	for (size_t i = 0; i < ARRAY_SIZE(spoils); i++)
		expect_rest(img, spoils[i]);
}

Test(tracemalloc, one_bad_entry) {
	image_each(check_spoilt);
}

/* A range of good pieces and of others in a page that is gone: the good ones, up to its end, are read one by one. */
static void check_cut(struct image *img) {
	struct heap heap;
	struct py_traced traced;
	raddr traceback, end;

	open_heap(img, &heap);
	traceback = new_traceback(&heap, new_file(&heap, "/a.py"), 3, 0);
	image_take(img, 2 * PAGE_BYTES - img->used % PAGE_BYTES - GOOD * (heap.key_size ? 64U : 80U));
	end = IMAGE_BASE + img->used + GOOD * (heap.key_size ? 64U : 80U);
	cr_assert_eq(end % PAGE_BYTES, 0);
	for (unsigned i = 0; i < GOOD + 8; i++) {
		image_put_u64(img, heap.buckets + i * UINT64_C(8), new_entry(&heap, 64 + i * 16, 5, traceback));
	}
	image_put_u64(img, heap.table + img->l->hashtable_entries, GOOD + 8);
	image_cut(img, end);
	traced = expect_read(&heap, true);
	cr_assert_eq(traced.lines.n, 1);
	expect_line(&traced, 0, "/a.py", 3, GOOD, 5 * GOOD);
	py_traced_deinit(&traced);
}

Test(tracemalloc, a_page_that_is_gone) {
	image_each(check_cut);
}

static void check_cycle(struct image *img) {
	struct heap heap;
	struct py_traced traced;

	open_heap(img, &heap);
	add(&heap, 5, new_traceback(&heap, new_file(&heap, "/a.py"), 3, 0));
	image_put_u64(img, heap.last, heap.last);
	traced = expect_read(&heap, true);
	cr_assert_eq(traced.lines.n, 1);
	py_traced_deinit(&traced);
}

Test(tracemalloc, a_chain_that_leads_into_itself) {
	image_each(check_cycle);
}

Test(tracemalloc, other_domains_are_left_out) {
	struct image_build build = { V3_8, LAYOUT_RELEASE };
	struct image img;
	struct heap heap;
	struct py_traced traced;
	raddr traceback;

	image_open(&img, &build);
	open_heap(&img, &heap);
	heap.key_size = 16;
	image_put_u64(&img, heap.table + img.l->hashtable_key_size, 16);
	traceback = new_traceback(&heap, new_file(&heap, "/a.py"), 3, 0);
	add(&heap, 5, traceback);
	add(&heap, 7, traceback);
	image_put_u32(&img, heap.last + img.l->hashtable_entry_size + 8, 389047);
	traced = expect_read(&heap, false);
	expect_line(&traced, 0, "/a.py", 3, 1, 5);
	py_traced_deinit(&traced);
	image_close(&img);
}

/* Memory in which something happens each time that the buckets at `watched` are read. */
struct moving {
	struct mem mem;
	struct mem *below;
	struct heap *heap;
	raddr tables[2], watched;
	unsigned moves, left;
};

static int moving_read(struct mem *mem, const struct mem_range *ranges, size_t n, size_t *ret_done) {
	struct moving *m = (struct moving *)mem;
	int r = mem_read_many(m->below, ranges, n, ret_done);

	if (n == 1 && ranges[0].len == BUCKETS * 8 && m->left) {
		m->left--;
		m->moves++;
		image_put_u64(m->heap->img, m->heap->traces, m->tables[m->moves % 2]);
	}
	return r;
}

static const struct mem_ops moving_ops = { .read_many = moving_read };

static void expect_moves(struct image *img, unsigned moves, bool incomplete, uint64_t bytes) {
	struct moving m = { .mem = { .ops = &moving_ops }, .below = img->rt.reader.mem, .left = moves };
	struct heap heap;
	struct py_traced traced;

	open_heap(img, &heap);
	m.heap = &heap;
	for (unsigned i = 0; i < 2; i++) {
		heap.table = new_table(&heap, BUCKETS);
		heap.entries = 0;
		add(&heap, 5 + i, new_traceback(&heap, new_file(&heap, "/a.py"), 3, 0));
		m.tables[i] = heap.table;
	}
	image_put_u64(img, heap.traces, m.tables[0]);
	img->rt.reader.mem = &m.mem;
	traced = expect_read(&heap, incomplete);
	img->rt.reader.mem = m.below;
	cr_assert_eq(m.left, incomplete ? moves - m.moves : 0);
	cr_assert_eq(traced.lines.n, 1);
	expect_line(&traced, 0, "/a.py", 3, 1, bytes);
	py_traced_deinit(&traced);
}

static void check_moves(struct image *img) {
	expect_moves(img, 0, false, 5);
	expect_moves(img, 1, false, 6);
	expect_moves(img, 2, false, 5);
	expect_moves(img, 1000, true, 5);
}

Test(tracemalloc, a_table_that_moves_is_read_again) {
	image_each(check_moves);
}
