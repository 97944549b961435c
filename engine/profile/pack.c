/* SPDX-License-Identifier: MIT */
/* A part of a profile as bytes (pack_format.h).
 *
 * What the counts need is collected from them: nodes up to the root, their frames, and the strings of those. Each gets
 * a new, small number. Nodes are numbered in the order of their ids, so that a parent stands before its children here
 * as it does there; frames and strings as they are first met. The work grows with what is packed, not with the profile:
 * 200 processes share one.
 *
 * It does not look at the time, and it does not know where the bytes go. */
#include "engine/profile/pack.h"

#include "engine/base/strbuf.h"
#include "engine/base/util.h"
#include "engine/profile/pack_format.h"
#include <assert.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define ZSTD_LEVEL 6

const char *const pack_sources[5] = { NULL, "bpf", "blocking", "vm", "vm-remote" };
const char *const pack_priorities[4] = { NULL, "fifo", "nice", "none" };

/* Things that get numbers, in the order of the numbers. */
struct numbers {
	struct map of; /* id → number */
	VEC(uint32_t) ids;
	uint32_t first;
};

struct packer {
	const struct profile *profile;
	struct numbers strings, frames, nodes, threads;
	VEC(struct profile_count) counts; /* with numbers in place of ids */
	struct strbuf out;
};

static void packer_deinit(struct packer *p) {
	struct numbers *all[] = { &p->strings, &p->frames, &p->nodes, &p->threads };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		map_deinit(&all[i]->of);
		vec_free(&all[i]->ids);
	}
	vec_free(&p->counts);
	strbuf_deinit(&p->out);
}

static bool is_known(const struct numbers *numbers, uint32_t id) {
	uint64_t number;

	return map_get(&numbers->of, id, &number);
}

static int add_number(struct numbers *numbers, uint32_t id) {
	uint64_t number = numbers->first + numbers->ids.n;

	if (is_known(numbers, id))
		return 0;
	if (numbers->ids.n >= PACK_ITEMS_MAX)
		return -E2BIG;
	if (vec_push(&numbers->ids, id) || map_put(&numbers->of, id, number))
		return -ENOMEM;
	return 0;
}

/* Return: the number of what has one, and 0 of the root and "". */
static uint64_t number_of(const struct numbers *numbers, uint32_t id) {
	uint64_t number = 0;

	map_get(&numbers->of, id, &number);
	return number;
}

static int add_string(struct packer *p, uint32_t string) {
	return string ? add_number(&p->strings, string) : 0;
}

static int add_thread(struct packer *p, uint32_t thread) {
	const struct profile_thread *t = &p->profile->threads.items[thread];
	int r;

	if (is_known(&p->threads, thread))
		return 0;
	r = p->threads.ids.n < PACK_THREADS_MAX ? add_number(&p->threads, thread) : -E2BIG;
	if (!r)
		r = add_string(p, t->name);
	return r ? r : add_string(p, t->process_name);
}

static int add_frame(struct packer *p, uint32_t frame) {
	const struct profile_frame *f = &p->profile->frames.items[frame];
	int r;

	if (is_known(&p->frames, frame))
		return 0;
	r = add_number(&p->frames, frame);
	if (!r)
		r = add_string(p, f->function);
	if (!r)
		r = add_string(p, f->file);
	return r ? r : add_string(p, f->module);
}

static int compare_ids(const void *left, const void *right) {
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return (a > b) - (a < b);
}

/* Gives the nodes that were met their numbers, oldest first, and collects their frames. */
static int number_nodes(struct packer *p) {
	struct numbers *nodes = &p->nodes;
	int r = 0;

	if (nodes->ids.n)
		qsort(nodes->ids.items, nodes->ids.n, sizeof(*nodes->ids.items), compare_ids);
	for (size_t i = 0; !r && i < nodes->ids.n; i++) {
		r = map_put(&nodes->of, nodes->ids.items[i], nodes->first + i);
		if (!r)
			r = add_frame(p, p->profile->nodes.items[nodes->ids.items[i]].frame);
	}
	return r;
}

static int compare_counts(const void *left, const void *right) {
	const struct profile_count *a = left, *b = right;

	if (a->thread != b->thread)
		return a->thread < b->thread ? -1 : 1;
	return (a->node > b->node) - (a->node < b->node);
}

static int sort_counts(struct packer *p, const struct profile_count *counts, size_t n) {
	if (vec_reserve(&p->counts, n))
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		p->counts.items[i] = counts[i];
		p->counts.items[i].thread = (uint32_t)number_of(&p->threads, counts[i].thread);
		p->counts.items[i].node = (uint32_t)number_of(&p->nodes, counts[i].node);
	}
	p->counts.n = n;
	if (n)
		qsort(p->counts.items, n, sizeof(*p->counts.items), compare_counts);
	return 0;
}

static int collect(struct packer *p, const struct profile_count *counts, size_t n) {
	int r = 0;

	for (size_t i = 0; !r && i < n; i++) {
		assert(counts[i].thread < p->profile->threads.n && counts[i].node < p->profile->nodes.n);
		r = counts[i].samples <= PACK_SAMPLES_MAX ? add_thread(p, counts[i].thread) : -E2BIG;
		for (uint32_t node = counts[i].node; !r && node && !is_known(&p->nodes, node);
			node = p->profile->nodes.items[node].parent)
			r = add_number(&p->nodes, node);
	}
	if (!r)
		r = number_nodes(p);
	return r ? r : sort_counts(p, counts, n);
}

static void put(struct strbuf *out, uint64_t value) {
	uint8_t bytes[10];
	size_t n = 0;

	do {
		bytes[n] = (uint8_t)(value & 0x7f) | (value > 0x7f ? 0x80 : 0);
		value >>= 7;
		n++;
	} while (value);
	strbuf_add(out, (const char *)bytes, n);
}

/* `value` is a difference, modulo 2^64. */
static void put_signed(struct strbuf *out, uint64_t value) {
	put(out, value << 1 ^ (value >> 63 ? UINT64_MAX : 0));
}

static void put_strings(struct packer *p) {
	const struct intern *strings = &p->profile->strings;

	put(&p->out, p->strings.ids.n);
	vec_foreach (id, &p->strings.ids)
		put(&p->out, strlen(intern_str(strings, *id)));
	vec_foreach (id, &p->strings.ids)
		strbuf_adds(&p->out, intern_str(strings, *id));
}

static void put_frames(struct packer *p) {
	const struct profile_frame *frames = p->profile->frames.items;

	put(&p->out, p->frames.ids.n);
	vec_foreach (id, &p->frames.ids)
		put(&p->out, number_of(&p->strings, frames[*id].function));
	vec_foreach (id, &p->frames.ids)
		put(&p->out, number_of(&p->strings, frames[*id].file));
	vec_foreach (id, &p->frames.ids)
		put(&p->out, number_of(&p->strings, frames[*id].module));
	vec_foreach (id, &p->frames.ids)
		put_signed(&p->out, (uint64_t)frames[*id].line);
	vec_foreach (id, &p->frames.ids)
		put(&p->out, frames[*id].lang);
}

static void put_nodes(struct packer *p) {
	const struct profile_node *nodes = p->profile->nodes.items;

	put(&p->out, p->nodes.ids.n);
	vec_foreach (id, &p->nodes.ids)
		put(&p->out, number_of(&p->nodes, *id) - number_of(&p->nodes, nodes[*id].parent));
	vec_foreach (id, &p->nodes.ids)
		put(&p->out, number_of(&p->frames, nodes[*id].frame));
}

static void put_threads(struct packer *p) {
	const struct profile_thread *threads = p->profile->threads.items;
	uint32_t tid = 0;

	put(&p->out, p->threads.ids.n);
	vec_foreach (id, &p->threads.ids)
		put(&p->out, (uint32_t)threads[*id].pid);
	vec_foreach (id, &p->threads.ids) {
		put_signed(&p->out, (uint64_t)threads[*id].tid - tid);
		tid = (uint32_t)threads[*id].tid;
	}
	vec_foreach (id, &p->threads.ids)
		put(&p->out, number_of(&p->strings, threads[*id].name));
	vec_foreach (id, &p->threads.ids)
		put(&p->out, number_of(&p->strings, threads[*id].process_name));
}

static void put_counts(struct packer *p, uint64_t period_ns) {
	struct profile_count before = { 0 };

	put(&p->out, p->counts.n);
	vec_foreach (count, &p->counts) {
		put_signed(&p->out, (uint64_t)count->thread - before.thread);
		before.thread = count->thread;
	}
	vec_foreach (count, &p->counts) {
		put_signed(&p->out, (uint64_t)count->node - before.node);
		before.node = count->node;
	}
	vec_foreach (count, &p->counts)
		put(&p->out, count->samples);
	vec_foreach (count, &p->counts)
		put_signed(&p->out, count->ns - count->samples * period_ns);
}

static size_t index_of(const char *const *names, size_t n, const char *name) {
	for (size_t i = 1; name && i < n; i++)
		if (!strcmp(names[i], name))
			return i;
	return 0;
}

static void put_head(struct strbuf *out, const struct profile *profile, const struct pack_head *head) {
	const struct pyspyd_accuracy *a = &head->accuracy;
	const uint64_t counters[] = { a->expected, a->looks, a->samples, a->idle, a->torn, a->discarded, a->late,
		a->unreadable, a->truncated, a->unknown };

	strbuf_add(out, PACK_MAGIC, PACK_MAGIC_LEN);
	strbuf_add(out, (const char[]){ PACK_VERSION, 0, 0, 0, 0 }, PACK_CHECKED - PACK_MAGIC_LEN);
	put(out, profile->kind);
	put(out, index_of(pack_sources, ARRAY_SIZE(pack_sources), a->source));
	put(out, index_of(pack_priorities, ARRAY_SIZE(pack_priorities), a->priority));
	put(out, head->start_real_ns);
	put(out, head->end_real_ns - min_of(head->start_real_ns, head->end_real_ns));
	put(out, head->period_ns);
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++)
		put(out, counters[i]);
}

/* Appends the tables, compressed, and sets the checksum. */
static int close_up(struct strbuf *out, const struct strbuf *tables) {
	size_t bound = ZSTD_compressBound(tables->len), n;
	_free_ char *compressed = malloc(bound);
	uint32_t checksum;

	if (!compressed)
		return -ENOMEM;
	n = ZSTD_compress(compressed, bound, tables->data, tables->len, ZSTD_LEVEL);
	if (ZSTD_isError(n))
		return -ENOMEM;
	strbuf_add(out, compressed, n);
	if (out->failed)
		return -ENOMEM;
	checksum = (uint32_t)crc32(0, (const Bytef *)out->data + PACK_CHECKED, (uInt)(out->len - PACK_CHECKED));
	memcpy(out->data + PACK_CHECKED - sizeof(checksum), &checksum, sizeof(checksum)); /* we are little-endian */
	return 0;
}

static int pack(struct packer *p, const struct profile_count *counts, size_t n, const struct pack_head *head,
	struct strbuf *out) {
	int r = n <= PACK_ITEMS_MAX ? collect(p, counts, n) : -E2BIG;

	if (r)
		return r;
	put_strings(p);
	put_frames(p);
	put_nodes(p);
	put_threads(p);
	put_counts(p, head->period_ns);
	if (p->out.failed)
		return -ENOMEM;
	if (p->out.len > PACK_BYTES_MAX)
		return -E2BIG;
	put_head(out, p->profile, head);
	return close_up(out, &p->out);
}

int profile_pack(const struct profile *profile, const struct profile_count *counts, size_t n,
	const struct pack_head *head, void **ret_data, size_t *ret_len) {
	struct packer p = { .profile = profile, .strings.first = 1, .nodes.first = 1 };
	_cleanup_(strbuf_deinit) struct strbuf out = { 0 };
	int r = pack(&p, counts, n, head, &out);

	packer_deinit(&p);
	if (r)
		return r;
	*ret_len = out.len;
	*ret_data = strbuf_take(&out);
	return 0;
}
