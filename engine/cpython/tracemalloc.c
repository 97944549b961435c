/* SPDX-License-Identifier: MIT */
/* The tables of tracemalloc, read from outside while it works on them.
 *
 *   traces       a chained hash table: address of a block → { its size, where it was allocated }
 *   traceback    { how many frames, the frames }, the innermost first; equal ones are one
 *   frame        { file name, line }; equal file names are one
 *
 * Entries and traces are small pieces of the heap, a million of them and more, which lie close together but not in the
 * order of the table. So all that is wanted next is collected, sorted by address and read in spans: entries of many
 * chains, then their traces (to 3.8 they are inside the entries), then what the entries link to, and so on until no
 * chain goes on. What was counted under each traceback is told apart by line in the end.
 *
 * The target goes on all the while. An entry is believed where its hash is that of its key, which its memory no longer
 * says once it was freed; a trace, where the size is one that there can be. A table that moved is read anew. Blocks
 * of other domains than 0 (of extension modules that report their own) are left out. */
#include "engine/cpython/tracemalloc.h"

#include "engine/base/cursor.h"
#include "engine/base/limits.h"
#include "engine/base/map.h"
#include "engine/cpython/objects.h"
#include <errno.h>
#include <string.h>

#define TRACES_MAX (8U << 20)
#define BUCKETS_MAX (64U << 20)
#define TRACEBACKS_MAX (1U << 20)
#define LINES_MAX 100000
#define FILES_MAX 65536
#define TEXT_BYTES_MAX (64U << 20)   /* of file names */
#define NEW_ENTRIES 65536            /* that come in while we read; more of them are a chain that leads into itself */
#define BATCH (1U << 19)             /* entries that are looked at together */
#define BLOCK_BUCKETS (64U << 10)    /* read at once */
#define SPAN_BYTES (64U << 10)       /* at most, of one range */
#define SPANS_BYTES (1U << 20)       /* of one read */
#define GAP_BYTES 512                /* read in vain rather than begin another span */
#define FAULTS_MAX 4096              /* pieces that are gone when they are read */
#define PIECE_BYTES 64               /* an entry, trace or traceback is no larger */
#define TRIES 3                      /* of a table that moved */
#define FIRST_WITH_BYTES 0x030f0000U /* file names are C strings, and str objects before */
#define CONFIG_TRACING 4             /* int tracing, of struct _PyTraceMalloc_Config (3.6 to 3.15) */

struct table {
	raddr addr;
	uint64_t entries, nbuckets;
	raddr buckets;
	uint64_t key_size; /* to 3.8: of the key in the entry, an address and perhaps a domain; 0: a reference */
};

/* Blocks that were allocated with one traceback. */
struct sum {
	raddr traceback;
	uint64_t count, bytes;
};

struct line {
	uint32_t file, line;
	uint64_t count, bytes;
};

typedef VEC(raddr) raddr_vec;

struct walk {
	const struct py_runtime *rt;
	struct mem *mem;
	uint64_t size_max; /* of one block */
	struct table table;
	raddr_vec entries, next, traces; /* to be read */
	VEC(struct sum) sums;
	struct map sum_of; /* traceback → index of sums */
	VEC(struct line) lines;
	struct map line_of; /* file << 32 | line → index of lines */
	raddr_vec files;
	struct map file_of; /* file name → index of files */
	uint64_t seen;      /* entries of this walk */
	uint64_t faults;
	size_t text_bytes;
	uint8_t *spans; /* SPANS_BYTES */
	bool incomplete;
};

/* Called for each piece that was read. Return: 0, or what ends the walk. */
typedef int (*piece_fn)(struct walk *walk, raddr addr, const uint8_t *bytes);

static int by_address(const void *a, const void *b) {
	raddr x = *(const raddr *)a, y = *(const raddr *)b;

	return (x > y) - (x < y);
}

/* Return: the number of pieces from the first on that one span holds; *ret_len its length. */
static size_t span_of(const raddr *pieces, size_t n, size_t width, size_t *ret_len) {
	uint64_t end = pieces[0] + width;
	size_t i = 1;

	for (; i < n; i++) {
		if (pieces[i] > end + GAP_BYTES || pieces[i] + width - pieces[0] > SPAN_BYTES)
			break;
		end = pieces[i] + width;
	}
	*ret_len = (size_t)(end - pieces[0]);
	return i;
}

/* Pieces of a span that could not be read as a whole. */
static int read_singly(struct walk *walk, const raddr *pieces, size_t n, size_t width, piece_fn each) {
	uint8_t bytes[PIECE_BYTES];
	int r = 0;

	for (size_t i = 0; !r && i < n; i++) {
		r = mem_read(walk->mem, pieces[i], bytes, width);
		if (!r) {
			r = each(walk, pieces[i], bytes);
		} else if (r == MEM_E_FAULT) {
			walk->incomplete = true;
			r = ++walk->faults > FAULTS_MAX ? PY_E_TRUNCATED : 0;
		}
	}
	return r;
}

struct spans {
	struct mem_range ranges[MEM_RANGES_MAX];
	size_t first[MEM_RANGES_MAX + 1]; /* its first piece; one more: where the next read begins */
	size_t n;
};

static void plan_spans(struct walk *walk, const raddr *pieces, size_t from, size_t n, size_t width, struct spans *s) {
	size_t used = 0, len = 0, taken = 0;

	for (s->n = 0; from < n && s->n < MEM_RANGES_MAX; s->n++, from += taken, used += len) {
		taken = span_of(pieces + from, n - from, width, &len);
		if (used + len > SPANS_BYTES)
			break;
		s->first[s->n] = from;
		s->ranges[s->n] = (struct mem_range){ pieces[from], len, walk->spans + used };
	}
	s->first[s->n] = from;
}

static int give_span(struct walk *walk, const raddr *pieces, const struct spans *s, size_t span, piece_fn each) {
	const uint8_t *bytes = s->ranges[span].buf;
	int r = 0;

	for (size_t i = s->first[span]; !r && i < s->first[span + 1]; i++)
		r = each(walk, pieces[i], bytes + (pieces[i] - s->ranges[span].addr));
	return r;
}

/* Reads `width` bytes at each address, in ascending order. Return: 0; PY_E_TRUNCATED: too many are not there;
 * MEM_E_GONE; negative errno. */
static int read_pieces(struct walk *walk, raddr_vec *pieces, size_t width, piece_fn each) {
	const raddr *items = pieces->items;
	struct spans s;
	int r = 0;

	if (pieces->n)
		qsort(pieces->items, pieces->n, sizeof(*pieces->items), by_address);
	for (size_t from = 0; !r && from < pieces->n; from = s.first[s.n]) {
		size_t done = 0;
		int result;

		plan_spans(walk, items, from, pieces->n, width, &s);
		result = mem_read_many(walk->mem, s.ranges, s.n, &done);
		if (result && result != MEM_E_FAULT)
			return result;
		for (size_t i = 0; !r && i < done; i++)
			r = give_span(walk, items, &s, i, each);
		if (!r && done < s.n) {
			r = read_singly(walk, items + s.first[done], s.first[done + 1] - s.first[done], width, each);
			s.n = done + 1;
		}
	}
	pieces->n = 0;
	return r;
}

static int count_trace(struct walk *walk, raddr addr, const uint8_t *bytes) {
	const struct layout *l = &walk->rt->reader.layout;
	uint64_t size = peek_u64(bytes, PIECE_BYTES, l->trace_size);
	uint64_t traceback = peek_u64(bytes, PIECE_BYTES, l->trace_traceback), index;
	int r = 0;

	(void)addr;
	if (size > walk->size_max || !traceback || traceback & 7) {
		walk->incomplete = true;
		return 0;
	}
	if (!map_get(&walk->sum_of, traceback, &index)) {
		if (walk->sums.n == TRACEBACKS_MAX) {
			walk->incomplete = true;
			return 0;
		}
		index = walk->sums.n;
		r = vec_push(&walk->sums, (struct sum){ .traceback = traceback });
		if (!r)
			r = map_put(&walk->sum_of, traceback, index);
		if (r)
			return r;
	}
	walk->sums.items[index].count++;
	walk->sums.items[index].bytes += size;
	return 0;
}

/* _Py_hashtable_hash_ptr */
static uint64_t hash_of(uint64_t key) {
	return key >> 4 | key << 60;
}

/* To 3.8: the key, and the trace right behind it. */
static int take_inline(struct walk *walk, raddr addr, const uint8_t *bytes) {
	const struct layout *l = &walk->rt->reader.layout;
	const uint8_t *key = bytes + l->hashtable_entry_size;
	uint64_t hash = peek_u64(bytes, PIECE_BYTES, l->hashtable_entry_hash);
	uint32_t domain = walk->table.key_size > 8 ? peek_u32(key, 16, 8) : 0;

	if (domain)
		return 0;
	if (hash != hash_of(peek_u64(key, 8, 0))) {
		walk->incomplete = true;
		return PY_E_TORN;
	}
	return count_trace(walk, addr, key + walk->table.key_size);
}

static int take_reference(struct walk *walk, const uint8_t *bytes) {
	const struct layout *l = &walk->rt->reader.layout;
	uint64_t key = peek_u64(bytes, PIECE_BYTES, l->hashtable_entry_key);

	if (peek_u64(bytes, PIECE_BYTES, l->hashtable_entry_hash) != hash_of(key)) {
		walk->incomplete = true;
		return PY_E_TORN;
	}
	return vec_push(&walk->traces, peek_u64(bytes, PIECE_BYTES, l->hashtable_entry_value));
}

/* An entry that was freed leads nowhere: the rest of its chain is lost. */
static int take_entry(struct walk *walk, raddr addr, const uint8_t *bytes) {
	raddr next = peek_u64(bytes, PIECE_BYTES, 0);
	int r;

	if (walk->seen >= TRACES_MAX || walk->seen > walk->table.entries * 2 + NEW_ENTRIES) {
		walk->incomplete = true;
		return PY_E_TRUNCATED;
	}
	walk->seen++;
	r = walk->table.key_size ? take_inline(walk, addr, bytes) : take_reference(walk, bytes);
	if (r)
		return r == PY_E_TORN ? 0 : r;
	return next ? vec_push(&walk->next, next) : 0;
}

static size_t trace_bytes(const struct layout *l) {
	return max_of(l->trace_size, l->trace_traceback) + sizeof(uint64_t);
}

/* All chains that begin at walk->entries. */
static int follow_chains(struct walk *walk) {
	const struct layout *l = &walk->rt->reader.layout;
	size_t width = l->hashtable_entry_size;
	int r = 0;

	if (walk->table.key_size)
		width += walk->table.key_size + trace_bytes(l);
	while (!r && walk->entries.n) {
		raddr_vec read;

		r = read_pieces(walk, &walk->entries, width, take_entry);
		if (!r)
			r = read_pieces(walk, &walk->traces, trace_bytes(l), count_trace);
		read = walk->entries;
		walk->entries = walk->next;
		walk->next = read;
	}
	return r;
}

static int take_buckets(struct walk *walk, const raddr *buckets, size_t n) {
	int r = 0;

	for (size_t i = 0; !r && i < n; i++) {
		if (!buckets[i])
			continue;
		r = vec_push(&walk->entries, buckets[i]);
		if (!r && walk->entries.n == BATCH)
			r = follow_chains(walk);
	}
	return r;
}

static int walk_buckets(struct walk *walk) {
	raddr *block _free_ = malloc(BLOCK_BUCKETS * sizeof(*block));
	int r = block ? 0 : -ENOMEM;

	for (uint64_t from = 0; !r && from < walk->table.nbuckets; from += BLOCK_BUCKETS) {
		size_t n = (size_t)min_of(walk->table.nbuckets - from, (uint64_t)BLOCK_BUCKETS);

		r = mem_read(walk->mem, walk->table.buckets + from * sizeof(*block), block, n * sizeof(*block));
		if (!r)
			r = take_buckets(walk, block, n);
	}
	return r ? r : follow_chains(walk);
}

static bool pieces_fit(const struct layout *l) {
	return layout_has(l->hashtable_buckets) && layout_has(l->hashtable_entry_hash) && layout_has(l->trace_size) &&
		layout_has(l->traceback_frames) && l->hashtable_entry_size <= PIECE_BYTES / 2 &&
		trace_bytes(l) <= PIECE_BYTES / 4 &&
		l->traceback_frames + l->traced_frame_lineno + sizeof(uint32_t) <= PIECE_BYTES / 2;
}

/* Return: 0; PY_E_TYPE where this is no table of traces; as mem_read_many. */
static int read_table(const struct py_runtime *rt, raddr at, struct table *ret) {
	const struct layout *l = &rt->reader.layout;
	struct table table = { 0 };
	uint64_t data_size = 0;
	uint8_t bytes[64];
	int r = mem_read_u64(rt->reader.mem, at, &table.addr);

	if (!r && !table.addr)
		return PY_E_TYPE;
	if (!r)
		r = mem_read(rt->reader.mem, table.addr, bytes, sizeof(bytes));
	if (r)
		return r;
	table.entries = peek_u64(bytes, sizeof(bytes), l->hashtable_entries);
	table.nbuckets = peek_u64(bytes, sizeof(bytes), l->hashtable_nbuckets);
	table.buckets = peek_u64(bytes, sizeof(bytes), l->hashtable_buckets);
	if (layout_has(l->hashtable_key_size)) {
		table.key_size = peek_u64(bytes, sizeof(bytes), l->hashtable_key_size);
		data_size = peek_u64(bytes, sizeof(bytes), l->hashtable_data_size);
		if (table.key_size < 8 || table.key_size > 16 || data_size != trace_bytes(l))
			return PY_E_TYPE;
	}
	if (!table.nbuckets || table.nbuckets > BUCKETS_MAX || table.nbuckets & (table.nbuckets - 1) ||
		table.entries > table.nbuckets || !table.buckets)
		return PY_E_TYPE;
	*ret = table;
	return 0;
}

/* Where the words are: in _PyRuntime, or static. */
struct words {
	raddr tracing, memory, peak, traces;
};

static int read_words(const struct py_runtime *rt, const struct words *words, struct py_traced *traced) {
	int32_t tracing = 0;
	const struct mem_range ranges[] = {
		{ words->tracing, sizeof(tracing), &tracing },
		{ words->memory, sizeof(traced->traced_bytes), &traced->traced_bytes },
		{ words->peak, sizeof(traced->peak_bytes), &traced->peak_bytes },
	};
	int r = mem_read_many(rt->reader.mem, ranges, ARRAY_SIZE(ranges), NULL);

	if (!r && tracing != 1)
		r = PY_E_TYPE;
	return r;
}

static struct words words_in_runtime(const struct py_runtime *rt, const struct layout *l) {
	return (struct words){
		.tracing = rt->runtime + l->runtime_traced_tracing,
		.memory = rt->runtime + l->runtime_traced_memory,
		.peak = rt->runtime + l->runtime_traced_peak,
		.traces = rt->runtime + l->runtime_traces,
	};
}

/* A patch release that was not measured (its _PyRuntime has another size): the place that another one of the same minor
 * version has, where a running tracemalloc and its table are there. */
static int find_words_as_neighbours(const struct py_runtime *rt, struct words *ret) {
	for (size_t i = 0; i < layout_rows_n; i++) {
		const struct layout_row *row = &layout_rows[i];
		struct py_traced traced;
		struct words words;
		struct table table;

		if (PY_MINOR(row->first_version) != PY_MINOR(rt->reader.version) ||
			row->flavour != rt->reader.flavour || !layout_has(row->layout.runtime_traces))
			continue;
		words = words_in_runtime(rt, &row->layout);
		if (read_words(rt, &words, &traced) || read_table(rt, words.traces, &table))
			continue;
		*ret = words;
		return 0;
	}
	return PY_E_TYPE;
}

static int find_words(const struct py_runtime *rt, struct words *ret) {
	const struct py_statics *s = &rt->statics;

	if (s->traced_config && s->traced_memory && s->traced_peak && s->traces) {
		*ret = (struct words){ s->traced_config + CONFIG_TRACING, s->traced_memory, s->traced_peak, s->traces };
		return 0;
	}
	if (!rt->runtime)
		return PY_E_TYPE;
	if (!layout_has(rt->reader.layout.runtime_traces))
		return find_words_as_neighbours(rt, ret);
	*ret = words_in_runtime(rt, &rt->reader.layout);
	return 0;
}

static void forget(struct walk *walk) {
	walk->entries.n = walk->next.n = walk->traces.n = walk->sums.n = 0;
	map_clear(&walk->sum_of);
	walk->seen = walk->faults = 0;
	walk->incomplete = false;
}

/* One whole pass over the table. Return: 0; PY_E_TORN: it moved; else as read_table. */
static int sum_up(struct walk *walk, const struct words *words) {
	struct table after;
	int walked, r = read_table(walk->rt, words->traces, &walk->table);

	if (r)
		return r;
	forget(walk);
	walked = walk_buckets(walk);
	if (walked == MEM_E_GONE || walked < 0)
		return walked;
	r = read_table(walk->rt, words->traces, &after);
	if (r)
		return r;
	if (after.addr != walk->table.addr || after.buckets != walk->table.buckets ||
		after.nbuckets != walk->table.nbuckets)
		return PY_E_TORN;
	if (walked || after.entries != walk->table.entries || walk->seen != after.entries)
		walk->incomplete = true;
	return 0;
}

/* Return: 0 and the file's index; PY_E_TRUNCATED: too many. */
static int find_file(struct walk *walk, raddr name, uint32_t *ret_file) {
	uint64_t index = walk->files.n;
	int r = 0;

	if (!map_get(&walk->file_of, name, &index)) {
		if (walk->files.n == FILES_MAX)
			return PY_E_TRUNCATED;
		r = vec_push(&walk->files, name);
		if (!r)
			r = map_put(&walk->file_of, name, index);
	}
	*ret_file = (uint32_t)index;
	return r;
}

static int add_line(struct walk *walk, uint32_t file, uint32_t line, const struct sum *sum) {
	uint64_t key = (uint64_t)file << 32 | line, index = walk->lines.n;
	int r = 0;

	if (!map_get(&walk->line_of, key, &index)) {
		if (walk->lines.n == LINES_MAX)
			return PY_E_TRUNCATED;
		r = vec_push(&walk->lines, (struct line){ .file = file, .line = line });
		if (!r)
			r = map_put(&walk->line_of, key, index);
		if (r)
			return r;
	}
	walk->lines.items[index].count += sum->count;
	walk->lines.items[index].bytes += sum->bytes;
	return 0;
}

static int take_traceback(struct walk *walk, raddr addr, const uint8_t *bytes) {
	const struct layout *l = &walk->rt->reader.layout;
	const uint8_t *frame = bytes + l->traceback_frames;
	raddr name = peek_u64(frame, PIECE_BYTES / 2, l->traced_frame_filename);
	uint32_t file, line = peek_u32(frame, PIECE_BYTES / 2, l->traced_frame_lineno);
	uint64_t index = 0;
	int r = PY_E_TORN;

	map_get(&walk->sum_of, addr, &index);
	if (peek_u16(bytes, PIECE_BYTES, l->traceback_nframe) && name && name != UINT64_MAX)
		r = find_file(walk, name, &file);
	if (!r)
		r = add_line(walk, file, line, &walk->sums.items[index]);
	if (r > 0)
		walk->incomplete = true;
	return r > 0 ? 0 : r;
}

static int tell_lines_apart(struct walk *walk) {
	const struct layout *l = &walk->rt->reader.layout;
	size_t width = l->traceback_frames + sizeof(uint32_t) + max_of(l->traced_frame_lineno, 8U);
	int r = 0;

	walk->entries.n = 0;
	vec_foreach (sum, &walk->sums) {
		if (!r)
			r = vec_push(&walk->entries, sum->traceback);
	}
	if (!r)
		r = read_pieces(walk, &walk->entries, width, take_traceback);
	if (r > 0 && r != MEM_E_GONE) {
		walk->incomplete = true;
		r = 0;
	}
	return r;
}

static int read_file_name(const struct walk *walk, raddr name, struct strbuf *out) {
	char *text _free_ = NULL;
	int r;

	if (walk->rt->reader.version < FIRST_WITH_BYTES)
		return py_text_read(&walk->rt->reader, name, LIMIT_PATH_CHARS, out);
	text = malloc(LIMIT_PATH_CHARS);
	r = text ? mem_read_cstr(walk->mem, name, text, LIMIT_PATH_CHARS) : -ENOMEM;
	if (!r)
		strbuf_add_utf8(out, text, strlen(text));
	return r;
}

/* Return: 0 and the name, NULL where it cannot be read; MEM_E_GONE; negative errno. */
static int name_file(struct walk *walk, raddr name, char **ret_name) {
	struct strbuf _cleanup_(strbuf_deinit) text = { 0 };
	int r = read_file_name(walk, name, &text);

	if (r == MEM_E_GONE || r < 0)
		return r;
	walk->text_bytes += text.len;
	if ((r && r != PY_E_TRUNCATED) || walk->text_bytes > TEXT_BYTES_MAX) {
		walk->incomplete = true;
		return 0;
	}
	*ret_name = strbuf_take(&text);
	return *ret_name ? 0 : -ENOMEM;
}

static int put_lines(struct walk *walk, char *const *names, struct py_traced *traced) {
	vec_foreach (line, &walk->lines) {
		const char *name = names[line->file];
		char *file;
		int r;

		if (!name)
			continue;
		walk->text_bytes += strlen(name);
		if (walk->text_bytes > TEXT_BYTES_MAX) {
			walk->incomplete = true;
			break;
		}
		file = strdup(name);
		r = file ? vec_push(&traced->lines,
				   (struct py_traced_line){ file, line->line, line->count, line->bytes })
			 : -ENOMEM;
		if (r) {
			free(file);
			return r;
		}
		traced->blocks += line->count;
	}
	return 0;
}

static int name_lines(struct walk *walk, struct py_traced *traced) {
	char **names = calloc(walk->files.n + 1, sizeof(*names));
	int r = names ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < walk->files.n; i++)
		r = name_file(walk, walk->files.items[i], &names[i]);
	if (!r)
		r = put_lines(walk, names, traced);
	for (size_t i = 0; names && i < walk->files.n; i++)
		free(names[i]);
	free(names);
	return r;
}

static int by_bytes(const void *a, const void *b) {
	const struct py_traced_line *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? 1 : -1;
	if (x->count != y->count)
		return x->count < y->count ? 1 : -1;
	if (strcmp(x->file, y->file))
		return strcmp(x->file, y->file);
	return (x->line > y->line) - (x->line < y->line);
}

static void walk_deinit(struct walk *walk) {
	vec_free(&walk->entries);
	vec_free(&walk->next);
	vec_free(&walk->traces);
	vec_free(&walk->sums);
	vec_free(&walk->lines);
	vec_free(&walk->files);
	map_deinit(&walk->sum_of);
	map_deinit(&walk->line_of);
	map_deinit(&walk->file_of);
	free(walk->spans);
}

static int read_lines(struct walk *walk, const struct words *words, struct py_traced *traced) {
	int r = PY_E_TORN;

	for (int i = 0; r == PY_E_TORN && i < TRIES; i++)
		r = sum_up(walk, words);
	if (r == PY_E_TORN) {
		walk->incomplete = true;
		r = 0;
	}
	if (!r)
		r = tell_lines_apart(walk);
	if (!r)
		r = name_lines(walk, traced);
	traced->incomplete = walk->incomplete;
	if (!r && traced->lines.n)
		qsort(traced->lines.items, traced->lines.n, sizeof(*traced->lines.items), by_bytes);
	return r;
}

int py_traced_read(const struct py_runtime *rt, struct py_traced *ret_traced) {
	struct walk _cleanup_(walk_deinit) walk = { .rt = rt, .mem = rt->reader.mem };
	struct py_traced traced = { 0 };
	struct words words;
	int r = pieces_fit(&rt->reader.layout) ? find_words(rt, &words) : PY_E_TYPE;

	if (!r)
		r = read_words(rt, &words, &traced);
	if (r)
		return r == MEM_E_FAULT ? PY_E_TYPE : r;
	walk.size_max = max_of(traced.peak_bytes, traced.traced_bytes);
	walk.spans = malloc(SPANS_BYTES);
	r = walk.spans ? read_lines(&walk, &words, &traced) : -ENOMEM;
	if (r) {
		py_traced_deinit(&traced);
		return r == MEM_E_FAULT ? PY_E_TYPE : r;
	}
	*ret_traced = traced;
	return 0;
}

void py_traced_deinit(struct py_traced *traced) {
	vec_foreach (line, &traced->lines)
		free(line->file);
	vec_free(&traced->lines);
}
