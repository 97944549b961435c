/* SPDX-License-Identifier: MIT */
/* A profile out of bytes (pack_format.h), whoever wrote them.
 *
 * Everything is decoded and checked first, and only then added, so that damaged bytes leave no trace. Memory is bounded
 * before it is allocated: the zstd frame must say its size, and a table can have no more rows than bytes are left. A
 * parent stands before its child, so that there is no loop to be met; that no stack is deeper than PACK_DEPTH_MAX
 * bounds what exporters make of it. */
#include "engine/profile/pack.h"

#include "engine/base/cursor.h"
#include "engine/base/util.h"
#include "engine/profile/pack_format.h"
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define NO_ID UINT32_MAX

/* What does not fit sets `bad` and gives 0, so that one look at the end of a table is enough. */
struct reader {
	struct cursor c;
	bool bad;
};

struct text {
	const char *bytes;
	size_t len;
};

/* The tables, with numbers in place of ids. */
struct unpacked {
	struct pack_head head;
	uint64_t kind;
	void *raw; /* holds the strings */
	VEC(struct text) strings;
	VEC(struct profile_frame) frames;
	VEC(struct profile_node) nodes;
	VEC(struct profile_thread) threads;
	VEC(struct profile_count) counts;
};

static void unpacked_deinit(struct unpacked *u) {
	free(u->raw);
	vec_free(&u->strings);
	vec_free(&u->frames);
	vec_free(&u->nodes);
	vec_free(&u->threads);
	vec_free(&u->counts);
}

/* Return: a number of at most `max`. */
static uint64_t get(struct reader *r, uint64_t max) {
	uint64_t value = 0;

	for (unsigned int shift = 0; shift < 64; shift += 7) {
		uint8_t byte;

		if (!cursor_u8(&r->c, &byte) || (shift == 63 && byte > 1))
			break;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte & 0x80)
			continue;
		if (value <= max)
			return value;
		break;
	}
	r->bad = true;
	return 0;
}

static uint32_t get_u32(struct reader *r, uint64_t max) {
	return (uint32_t)get(r, min_of(max, (uint64_t)UINT32_MAX));
}

/* Return: a difference, modulo 2^64. */
static uint64_t get_signed(struct reader *r) {
	uint64_t value = get(r, UINT64_MAX);

	return value >> 1 ^ (value & 1 ? UINT64_MAX : 0);
}

static int get_line(struct reader *r) {
	int64_t line = (int64_t)get_signed(r);

	r->bad |= line < INT_MIN || line > INT_MAX;
	return r->bad ? 0 : (int)line;
}

/* Makes room for as many rows as there are said to be, zeroed. */
#define get_rows(r, max, table) \
	({ \
		size_t _n = get(r, min_of((uint64_t)(max), (uint64_t)cursor_left(&(r)->c))); \
		(table)->items = calloc(_n + 1, sizeof(*(table)->items)); \
		if ((table)->items) \
			(table)->n = (table)->cap = _n; \
		(table)->items ? 0 : -ENOMEM; \
	})

static int ended(const struct reader *r) {
	return r->bad ? -EBADMSG : 0;
}

static int read_strings(struct reader *r, struct unpacked *u) {
	if (get_rows(r, PACK_ITEMS_MAX, &u->strings))
		return -ENOMEM;
	vec_foreach (string, &u->strings) {
		string->len = get(r, PACK_BYTES_MAX);
		r->bad |= !string->len;
	}
	vec_foreach (string, &u->strings) {
		string->bytes = (const char *)r->c.data + r->c.pos;
		r->bad |= !cursor_skip(&r->c, string->len) || memchr(string->bytes, '\0', string->len);
		if (r->bad)
			break;
	}
	return ended(r);
}

static int read_frames(struct reader *r, struct unpacked *u) {
	uint64_t strings = u->strings.n;

	if (get_rows(r, PACK_ITEMS_MAX, &u->frames))
		return -ENOMEM;
	vec_foreach (frame, &u->frames)
		frame->function = get_u32(r, strings);
	vec_foreach (frame, &u->frames)
		frame->file = get_u32(r, strings);
	vec_foreach (frame, &u->frames)
		frame->module = get_u32(r, strings);
	vec_foreach (frame, &u->frames)
		frame->line = get_line(r);
	vec_foreach (frame, &u->frames)
		frame->lang = (enum pyspyd_lang)get(r, PYSPYD_KERNEL);
	return ended(r);
}

/* Row i is number i + 1. */
static int read_nodes(struct reader *r, struct unpacked *u) {
	_free_ uint32_t *depths = NULL;

	if (get_rows(r, PACK_ITEMS_MAX, &u->nodes))
		return -ENOMEM;
	depths = calloc(u->nodes.n + 1, sizeof(*depths));
	if (!depths)
		return -ENOMEM;
	for (uint32_t i = 0; i < u->nodes.n; i++) {
		uint32_t back = get_u32(r, (uint64_t)i + 1);

		r->bad |= !back;
		u->nodes.items[i].parent = i + 1 - back;
		depths[i + 1] = r->bad ? 0 : depths[i + 1 - back] + 1;
		r->bad |= depths[i + 1] > PACK_DEPTH_MAX;
	}
	vec_foreach (node, &u->nodes) {
		node->frame = get_u32(r, UINT32_MAX);
		r->bad |= node->frame >= u->frames.n;
	}
	return ended(r);
}

static int read_threads(struct reader *r, struct unpacked *u) {
	uint64_t tid = 0;

	if (get_rows(r, PACK_THREADS_MAX, &u->threads))
		return -ENOMEM;
	vec_foreach (thread, &u->threads)
		thread->pid = (pid_t)get(r, INT_MAX);
	vec_foreach (thread, &u->threads) {
		tid += get_signed(r);
		r->bad |= tid > INT_MAX;
		thread->tid = r->bad ? 0 : (pid_t)tid;
	}
	vec_foreach (thread, &u->threads)
		thread->name = get_u32(r, u->strings.n);
	vec_foreach (thread, &u->threads)
		thread->process_name = get_u32(r, u->strings.n);
	return ended(r);
}

static int read_counts(struct reader *r, struct unpacked *u) {
	uint64_t thread = 0, node = 0;

	if (get_rows(r, PACK_ITEMS_MAX, &u->counts))
		return -ENOMEM;
	vec_foreach (count, &u->counts) {
		thread += get_signed(r);
		r->bad |= thread >= u->threads.n;
		count->thread = (uint32_t)thread;
	}
	vec_foreach (count, &u->counts) {
		node += get_signed(r);
		r->bad |= node > u->nodes.n;
		count->node = (uint32_t)node;
	}
	vec_foreach (count, &u->counts)
		count->samples = get(r, PACK_SAMPLES_MAX);
	vec_foreach (count, &u->counts)
		count->ns = count->samples * u->head.period_ns + get_signed(r);
	return ended(r);
}

/* Reads the head and moves behind it. */
static int read_head(struct reader *r, struct unpacked *u) {
	struct pyspyd_accuracy *a = &u->head.accuracy;
	uint64_t *const counters[] = { &a->expected, &a->looks, &a->samples, &a->idle, &a->torn, &a->discarded,
		&a->late, &a->unreadable, &a->truncated, &a->unknown };

	u->kind = get(r, PROFILE_OFFCPU);
	a->source = pack_sources[get(r, ARRAY_SIZE(pack_sources) - 1)];
	a->priority = pack_priorities[get(r, ARRAY_SIZE(pack_priorities) - 1)];
	u->head.start_real_ns = get(r, INT64_MAX);
	u->head.end_real_ns = u->head.start_real_ns + get(r, INT64_MAX);
	u->head.period_ns = get(r, INT64_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++)
		*counters[i] = get(r, UINT64_MAX);
	return ended(r);
}

/* What stands before the head. */
static int open_up(const uint8_t *data, size_t len, struct reader *ret_reader) {
	uint32_t checksum;

	if (len <= PACK_MAGIC_LEN || memcmp(data, PACK_MAGIC, PACK_MAGIC_LEN) != 0)
		return -EBADMSG;
	if (data[PACK_MAGIC_LEN] > PACK_VERSION)
		return -EPROTO;
	if (data[PACK_MAGIC_LEN] != PACK_VERSION || len < PACK_CHECKED || len > PACK_BYTES_MAX)
		return -EBADMSG;
	memcpy(&checksum, data + PACK_CHECKED - sizeof(checksum), sizeof(checksum));
	if (checksum != (uint32_t)crc32(0, data + PACK_CHECKED, (uInt)(len - PACK_CHECKED)))
		return -EBADMSG;
	*ret_reader = (struct reader){ .c = cursor_of(data + PACK_CHECKED, len - PACK_CHECKED) };
	return 0;
}

/* Unpacks what is left of `r`; on success it then reads the tables. */
static int decompress(struct reader *r, struct unpacked *u) {
	const uint8_t *from = r->c.data + r->c.pos;
	size_t left = cursor_left(&r->c);
	unsigned long long len = ZSTD_getFrameContentSize(from, left); /* its errors are beyond any limit */

	if (len > PACK_BYTES_MAX)
		return -EBADMSG;
	u->raw = malloc(len + 1);
	if (!u->raw)
		return -ENOMEM;
	if (ZSTD_decompress(u->raw, len, from, left) != len)
		return -EBADMSG;
	r->c = cursor_of(u->raw, len);
	return 0;
}

static int unpack(const void *data, size_t len, struct unpacked *u) {
	struct reader reader;
	int r = open_up(data, len, &reader);

	if (!r)
		r = read_head(&reader, u);
	if (!r)
		r = decompress(&reader, u);
	if (!r)
		r = read_strings(&reader, u);
	if (!r)
		r = read_frames(&reader, u);
	if (!r)
		r = read_nodes(&reader, u);
	if (!r)
		r = read_threads(&reader, u);
	if (!r)
		r = read_counts(&reader, u);
	return r ? r : cursor_left(&reader.c) ? -EBADMSG : 0;
}

/* Puts ids of the profile in place of numbers, table by table: each is made of those before it. */
struct ids {
	uint32_t *strings, *frames, *nodes, *threads;
};

static int add_strings(struct profile *profile, const struct unpacked *u, uint32_t *ids) {
	for (size_t i = 0; i < u->strings.n; i++) {
		ids[i + 1] = intern_add(&profile->strings, u->strings.items[i].bytes, u->strings.items[i].len);
		if (!ids[i + 1])
			return -ENOMEM; /* or too much text for one profile */
	}
	return 0;
}

static int add_frames(struct profile *profile, const struct unpacked *u, const uint32_t *strings, uint32_t *ids) {
	for (size_t i = 0; i < u->frames.n; i++) {
		struct profile_frame frame = u->frames.items[i];

		frame.function = strings[frame.function];
		frame.file = strings[frame.file];
		frame.module = strings[frame.module];
		ids[i] = profile_add_frame(profile, &frame);
		if (ids[i] == NO_ID)
			return -ENOMEM;
	}
	return 0;
}

static int add_nodes(struct profile *profile, const struct unpacked *u, const uint32_t *frames, uint32_t *ids) {
	for (size_t i = 0; i < u->nodes.n; i++) {
		const struct profile_node *node = &u->nodes.items[i];

		ids[i + 1] = profile_add_node(profile, ids[node->parent], frames[node->frame]);
		if (ids[i + 1] == NO_ID)
			return -ENOMEM;
	}
	return 0;
}

static int add_threads(struct profile *profile, const struct unpacked *u, const uint32_t *strings, uint32_t *ids) {
	for (size_t i = 0; i < u->threads.n; i++) {
		struct profile_thread thread = u->threads.items[i];

		thread.name = strings[thread.name];
		thread.process_name = strings[thread.process_name];
		ids[i] = profile_add_thread(profile, &thread);
		if (ids[i] == NO_ID)
			return -ENOMEM;
	}
	return 0;
}

static int add_tables(struct profile *profile, const struct unpacked *u, const struct ids *ids) {
	int r = add_strings(profile, u, ids->strings);

	if (!r)
		r = add_frames(profile, u, ids->strings, ids->frames);
	if (!r)
		r = add_nodes(profile, u, ids->frames, ids->nodes);
	if (!r)
		r = add_threads(profile, u, ids->strings, ids->threads);
	for (size_t i = 0; !r && i < u->counts.n; i++) {
		const struct profile_count *count = &u->counts.items[i];

		r = profile_count(
			profile, ids->threads[count->thread], ids->nodes[count->node], count->samples, count->ns);
	}
	return r;
}

static const char *worse_of(const char *const *names, size_t n, const char *a, const char *b) {
	for (size_t i = n; a && b && i-- > 1;)
		if (!strcmp(names[i], a) || !strcmp(names[i], b))
			return names[i];
	return a ? a : b;
}

static void add_accuracy(struct pyspyd_accuracy *sum, const struct pyspyd_accuracy *a) {
	sum->source = worse_of(pack_sources, ARRAY_SIZE(pack_sources), sum->source, a->source);
	sum->priority = worse_of(pack_priorities, ARRAY_SIZE(pack_priorities), sum->priority, a->priority);
	sum->expected += a->expected;
	sum->looks += a->looks;
	sum->samples += a->samples;
	sum->idle += a->idle;
	sum->torn += a->torn;
	sum->discarded += a->discarded;
	sum->late += a->late;
	sum->unreadable += a->unreadable;
	sum->truncated += a->truncated;
	sum->unknown += a->unknown;
}

static bool is_new(const struct profile *profile) {
	return !profile->start_real_ns && !profile->duration_ns && !profile->counts.n;
}

static void add_head(struct profile *profile, const struct unpacked *u) {
	const struct pack_head *head = &u->head;

	if (is_new(profile)) {
		profile->kind = u->kind;
		profile->start_real_ns = head->start_real_ns;
	}
	profile->start_real_ns = min_of(profile->start_real_ns, head->start_real_ns);
	profile->duration_ns += head->end_real_ns - head->start_real_ns;
	if (!profile->period_ns || (head->period_ns && head->period_ns < profile->period_ns))
		profile->period_ns = head->period_ns;
	add_accuracy(&profile->accuracy, &head->accuracy);
}

/* Stacks that are there already are counted twice here: one pack's worth below the limit is near enough. */
static bool has_room(const struct profile *profile, const struct unpacked *u) {
	return profile->frames.n + u->frames.n <= LIMIT_NODES && profile->nodes.n + u->nodes.n <= LIMIT_NODES &&
		profile->threads.n + u->threads.n <= LIMIT_NODES && profile->counts.n + u->counts.n <= LIMIT_NODES;
}

static int add(struct profile *profile, const struct unpacked *u) {
	_free_ uint32_t *strings = calloc(u->strings.n + 1, sizeof(*strings));
	_free_ uint32_t *frames = calloc(u->frames.n + 1, sizeof(*frames));
	_free_ uint32_t *nodes = calloc(u->nodes.n + 1, sizeof(*nodes));
	_free_ uint32_t *threads = calloc(u->threads.n + 1, sizeof(*threads));
	const struct ids ids = { strings, frames, nodes, threads };

	if (!strings || !frames || !nodes || !threads)
		return -ENOMEM;
	if (!is_new(profile) && profile->kind != u->kind)
		return -EINVAL;
	if (!has_room(profile, u))
		return -E2BIG;
	add_head(profile, u);
	return add_tables(profile, u, &ids);
}

int profile_unpack(struct profile *profile, const void *data, size_t len) {
	_cleanup_(unpacked_deinit) struct unpacked u = { 0 };
	int r = unpack(data, len, &u);

	return r ? r : add(profile, &u);
}

int pack_head_read(const void *data, size_t len, struct pack_head *ret_head) {
	struct unpacked u = { 0 };
	struct reader reader;
	int r = open_up(data, len, &reader);

	if (!r)
		r = read_head(&reader, &u);
	if (!r)
		*ret_head = u.head;
	return r;
}
