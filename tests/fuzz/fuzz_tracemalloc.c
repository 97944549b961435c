/* SPDX-License-Identifier: MIT */
/* Tables of tracemalloc, and counters of the collector, of a hostile target. Byte 0 chooses the layout, byte 1 what is
 * read. The memory is a scene in which all is well; the rest of the input are changes to it: two bytes of offset, eight
 * bytes that then stand there. */
#include "engine/cpython/collector.h"
#include "engine/cpython/tracemalloc.h"

#include <stdlib.h>
#include <string.h>

#define BASE UINT64_C(0x10000)
#define SCENE_BYTES 8192
#define WORDS 0 /* statics, or _PyRuntime's part */
#define TABLE 512
#define BUCKETS 1024
#define BUCKETS_N 32
#define ENTRIES 2048 /* each with its trace */
#define ENTRY_BYTES 96
#define ENTRIES_N 12
#define TRACEBACKS 4096
#define FILES 4608
#define STATS 5120
#define TYPE 7168
#define NAME UINT64_C(0x79702e61)    /* "a.py" */
#define FIRST_WITH_BYTES 0x030f0000U /* file names are C strings */
#define CHANGE_BYTES 10
#define LINES_MAX 100000

static const struct {
	uint32_t version;
	unsigned flavour;
} layouts[] = {
	{ 0x03060ff0, LAYOUT_RELEASE },
	{ 0x030812f0, LAYOUT_RELEASE },
	{ 0x030912f0, LAYOUT_RELEASE },
	{ 0x030b07f0, LAYOUT_RELEASE },
	{ 0x030c01f0, LAYOUT_RELEASE },
	{ 0x030d05f0, LAYOUT_FREE_THREADED },
	{ 0x030e0af0, LAYOUT_RELEASE },
	{ 0x030f02f0, LAYOUT_RELEASE },
};

struct scene {
	uint8_t bytes[SCENE_BYTES];
	struct py_runtime rt;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(struct scene *s, uint64_t at, uint64_t value) {
	memcpy(s->bytes + at % (SCENE_BYTES - 8), &value, sizeof(value));
}

static void put_words(struct scene *s) {
	const struct layout *l = &s->rt.reader.layout;
	bool own = layout_has(l->runtime_traces);
	uint64_t first = own ? l->runtime_traced_tracing : 0;

	s->rt.runtime = own ? BASE + WORDS - first : 0;
	s->rt.statics = (struct py_statics){ BASE + WORDS, BASE + WORDS + 16, BASE + WORDS + 24, BASE + WORDS + 32,
		BASE + STATS, BASE + STATS + 256, BASE + STATS + 260 };
	put(s, WORDS + (own ? 0 : 4), 1);
	put(s, WORDS + (own ? l->runtime_traced_memory - first : 16), 5000);
	put(s, WORDS + (own ? l->runtime_traced_peak - first : 24), 10000);
	put(s, WORDS + (own ? l->runtime_traces - first : 32), BASE + TABLE);
}

static void put_table(struct scene *s) {
	const struct layout *l = &s->rt.reader.layout;

	if (layout_has(l->hashtable_key_size)) {
		put(s, TABLE + l->hashtable_key_size, 8);
		put(s, TABLE + l->hashtable_data_size, 16);
	}
	put(s, TABLE + l->hashtable_nbuckets, BUCKETS_N);
	put(s, TABLE + l->hashtable_buckets, BASE + BUCKETS);
	put(s, TABLE + l->hashtable_entries, ENTRIES_N);
}

static void put_entry(struct scene *s, unsigned i) {
	const struct layout *l = &s->rt.reader.layout;
	uint64_t at = ENTRIES + (uint64_t)i * ENTRY_BYTES, trace = at + 64, key = 4096 + i * 16;
	uint64_t bucket = BUCKETS + i % 4 * 8, next;

	memcpy(&next, s->bytes + bucket, sizeof(next));
	put(s, at, next);
	put(s, bucket, BASE + at);
	put(s, at + l->hashtable_entry_hash, key >> 4);
	if (layout_has(l->hashtable_key_size)) {
		put(s, at + l->hashtable_entry_size, key);
		trace = at + l->hashtable_entry_size + 8;
	} else {
		put(s, at + l->hashtable_entry_key, key);
		put(s, at + l->hashtable_entry_value, BASE + trace);
	}
	put(s, trace + l->trace_size, i * 10);
	put(s, trace + l->trace_traceback, BASE + TRACEBACKS + i % 3 * 64);
}

static void put_file(struct scene *s, uint64_t at) {
	const struct layout *l = &s->rt.reader.layout;

	if (s->rt.reader.version >= FIRST_WITH_BYTES) {
		put(s, at, NAME);
		return;
	}
	put(s, at + l->object_type, BASE + TYPE);
	put(s, at + l->unicode_length, 4);
	put(s, at + l->unicode_state,
		1U << l->unicode_kind_bit | 1U << l->unicode_compact_bit | 1U << l->unicode_ascii_bit);
	put(s, at + l->unicode_ascii_size, NAME);
	put(s, TYPE + l->type_flags, 1U << 28);
}

static void put_traceback(struct scene *s, unsigned i) {
	const struct layout *l = &s->rt.reader.layout;
	uint64_t at = TRACEBACKS + (uint64_t)i * 64, file = FILES + (uint64_t)i % 2 * 128;

	put(s, at + l->traceback_frames + l->traced_frame_lineno, i + 1);
	put(s, at + l->traceback_frames + l->traced_frame_filename, BASE + file);
	s->bytes[at + l->traceback_nframe] = 1;
	put_file(s, file);
}

static void put_collector(struct scene *s) {
	const struct layout *l = &s->rt.reader.layout;
	uint64_t interp = layout_has(l->interp_gc) ? BASE + STATS - l->interp_gc : 0;

	s->rt.runtime = layout_has(l->runtime_gc) ? BASE + STATS - l->runtime_gc : interp;
	s->rt.interp_head = BASE + STATS + 1024;
	put(s, STATS + 1024, interp);
	if (layout_has(l->gc_rings_young))
		put(s, STATS + l->gc_generation_stats, BASE + STATS + 1100);
}

static void read_collector(const struct scene *s) {
	struct py_collector collector;

	py_collector_read(&s->rt, &collector);
}

static void read_traced(const struct scene *s) {
	struct py_traced traced = { 0 };
	uint64_t blocks = 0, before = UINT64_MAX;

	if (py_traced_read(&s->rt, &traced))
		return;
	vec_foreach (line, &traced.lines) {
		if (!line->file || !line->count || line->bytes > before)
			abort();
		before = line->bytes;
		blocks += line->count;
	}
	if (blocks != traced.blocks || traced.lines.n > LINES_MAX)
		abort();
	py_traced_deinit(&traced);
}

static void build(struct scene *s, bool collector) {
	put_words(s);
	put_table(s);
	for (unsigned i = 0; i < ENTRIES_N; i++)
		put_entry(s, i);
	for (unsigned i = 0; i < 3; i++)
		put_traceback(s, i);
	if (collector)
		put_collector(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct scene s = { 0 };
	struct mem_segment segment = { BASE, SCENE_BYTES, s.bytes };
	const struct layout_row *row;
	bool collector;

	if (size < 2)
		return 0;
	row = layout_find(
		layouts[data[0] % ARRAY_SIZE(layouts)].version, layouts[data[0] % ARRAY_SIZE(layouts)].flavour);
	if (!row)
		abort();
	s.rt.reader =
		(struct py_reader){ .layout = row->layout, .version = row->first_version, .flavour = row->flavour };
	if (mem_bytes_new(&segment, 1, &s.rt.reader.mem))
		return 0;
	collector = data[1] & 1;
	build(&s, collector);
	for (size_t at = 2; size - at >= CHANGE_BYTES; at += CHANGE_BYTES)
		memcpy(s.bytes + (data[at] | data[at + 1] << 8) % (SCENE_BYTES - 8), data + at + 2, 8);
	if (collector)
		read_collector(&s);
	else
		read_traced(&s);
	mem_free(s.rt.reader.mem);
	return 0;
}
