/* SPDX-License-Identifier: MIT */
/* Samples, summed.
 *
 * Everything has a small number, given in the order of arrival and never taken back. A stack is a node of a tree: the
 * frame it ends with and the stack that called it; a parent is always older than its child, so that every walk towards
 * the root ends and a loop from the last node to the first sees children before parents.
 *
 * Nodes and counts are found by two numbers packed into one 64-bit key: exact, one lookup. Frames and threads have more
 * than 64 bits; they are found by a hash whose hit is compared with what was asked for, and a hit on something else
 * goes on to the next key of a fixed sequence. Nothing is ever removed from an index but all of it at once, so that the
 * sequence has no holes.
 *
 * It does not know where samples come from, and keeps no times: time buckets are several profiles. */
#include "engine/profile/profile.h"

#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/base/util.h"
#include <errno.h>
#include <stdlib.h>

#define NO_ID UINT32_MAX
#define NEXT_KEY 0x9e3779b97f4a7c15ULL
#define MALLOC_OVERHEAD 16 /* of each string */

static uint64_t pack(uint32_t high, uint32_t low) {
	return (uint64_t)high << 32 | low;
}

int profile_new(struct profile **ret_profile) {
	struct profile *profile = calloc(1, sizeof(*profile));
	struct profile_node root = { .parent = 0, .frame = NO_ID };

	if (!profile)
		return -ENOMEM;
	if (intern_init(&profile->strings) || vec_push(&profile->nodes, root)) {
		profile_free(profile);
		return -ENOMEM;
	}
	*ret_profile = profile;
	return 0;
}

void profile_free(struct profile *profile) {
	if (!profile)
		return;
	intern_deinit(&profile->strings);
	vec_free(&profile->frames);
	vec_free(&profile->nodes);
	vec_free(&profile->threads);
	vec_free(&profile->counts);
	map_deinit(&profile->frame_index);
	map_deinit(&profile->node_index);
	map_deinit(&profile->thread_index);
	map_deinit(&profile->count_index);
	free(profile);
}

/* The keys under which something with this hash may stand, one after the other. UINT64_MAX is no key. */
static uint64_t next_key(uint64_t key) {
	key += NEXT_KEY;
	return key == UINT64_MAX ? 0 : key;
}

static bool same_frame(const struct profile_frame *a, const struct profile_frame *b) {
	return a->function == b->function && a->file == b->file && a->module == b->module && a->line == b->line &&
		a->lang == b->lang;
}

static uint64_t hash_frame(const struct profile_frame *frame) {
	uint64_t hash = hash_mix(pack(frame->function, frame->file));

	hash = hash_mix(hash ^ pack(frame->module, (uint32_t)frame->line));
	return hash_mix(hash ^ (uint64_t)frame->lang);
}

uint32_t profile_add_frame(struct profile *profile, const struct profile_frame *frame) {
	uint64_t key = next_key(hash_frame(frame)), id;

	for (; map_get(&profile->frame_index, key, &id); key = next_key(key))
		if (same_frame(&profile->frames.items[id], frame))
			return (uint32_t)id;
	id = profile->frames.n;
	if (id >= NO_ID || vec_push(&profile->frames, *frame))
		return NO_ID;
	if (map_put(&profile->frame_index, key, id)) {
		profile->frames.n--;
		return NO_ID;
	}
	return (uint32_t)id;
}

uint32_t profile_add_node(struct profile *profile, uint32_t parent, uint32_t frame) {
	struct profile_node node = { .parent = parent, .frame = frame };
	uint64_t key = pack(parent, frame), id;

	if (parent >= profile->nodes.n || frame >= profile->frames.n)
		return NO_ID;
	if (map_get(&profile->node_index, key, &id))
		return (uint32_t)id;
	id = profile->nodes.n;
	if (id >= LIMIT_NODES || vec_push(&profile->nodes, node))
		return NO_ID;
	if (map_put(&profile->node_index, key, id)) {
		profile->nodes.n--;
		return NO_ID;
	}
	return (uint32_t)id;
}

static bool same_thread(const struct profile_thread *a, const struct profile_thread *b) {
	return a->pid == b->pid && a->tid == b->tid && a->name == b->name && a->process_name == b->process_name;
}

static uint64_t hash_thread(const struct profile_thread *thread) {
	uint64_t hash = hash_mix(pack((uint32_t)thread->pid, (uint32_t)thread->tid));

	return hash_mix(hash ^ pack(thread->name, thread->process_name));
}

uint32_t profile_add_thread(struct profile *profile, const struct profile_thread *thread) {
	uint64_t key = next_key(hash_thread(thread)), id;

	for (; map_get(&profile->thread_index, key, &id); key = next_key(key))
		if (same_thread(&profile->threads.items[id], thread))
			return (uint32_t)id;
	id = profile->threads.n;
	if (id >= NO_ID || vec_push(&profile->threads, *thread))
		return NO_ID;
	if (map_put(&profile->thread_index, key, id)) {
		profile->threads.n--;
		return NO_ID;
	}
	return (uint32_t)id;
}

int profile_count(struct profile *profile, uint32_t thread, uint32_t node, uint64_t samples, uint64_t ns) {
	struct profile_count count = { .thread = thread, .node = node, .samples = samples, .ns = ns };
	uint64_t key = pack(thread, node), id;

	/* An id that was never given is what an addition without memory returned. */
	if (thread >= profile->threads.n || node >= profile->nodes.n)
		return -ENOMEM;
	if (map_get(&profile->count_index, key, &id)) {
		profile->counts.items[id].samples += samples;
		profile->counts.items[id].ns += ns;
		return 0;
	}
	if (vec_push(&profile->counts, count))
		return -ENOMEM;
	if (map_put(&profile->count_index, key, profile->counts.n - 1)) {
		profile->counts.n--;
		return -ENOMEM;
	}
	return 0;
}

size_t profile_stack(const struct profile *profile, uint32_t node, uint32_t *frames, size_t max) {
	const struct profile_node *nodes = profile->nodes.items;
	size_t depth = 0;

	if (node >= profile->nodes.n)
		return 0;
	for (uint32_t at = node; at; at = nodes[at].parent)
		depth++;
	for (size_t i = depth; node; node = nodes[node].parent)
		if (--i < max)
			frames[i] = nodes[node].frame;
	return depth;
}

uint64_t profile_weight(const struct profile *profile, const struct profile_count *count) {
	if (profile->kind == PROFILE_ALLOC)
		return count->ns;
	return profile->kind == PROFILE_OFFCPU ? count->ns / NS_PER_US : count->samples;
}

void profile_reset_counts(struct profile *profile) {
	profile->counts.n = 0;
	map_clear(&profile->count_index);
}

static size_t map_bytes(const struct map *map) {
	return map->cap * (sizeof(*map->keys) + sizeof(*map->values));
}

size_t profile_bytes(const struct profile *profile) {
	const struct intern *strings = &profile->strings;
	size_t bytes = sizeof(*profile);

	bytes += strings->bytes + strings->strings.n * MALLOC_OVERHEAD;
	bytes += strings->strings.cap * sizeof(*strings->strings.items) + strings->slots_n * sizeof(*strings->slots);
	bytes += profile->frames.cap * sizeof(*profile->frames.items);
	bytes += profile->nodes.cap * sizeof(*profile->nodes.items);
	bytes += profile->threads.cap * sizeof(*profile->threads.items);
	bytes += profile->counts.cap * sizeof(*profile->counts.items);
	bytes += map_bytes(&profile->frame_index) + map_bytes(&profile->node_index);
	bytes += map_bytes(&profile->thread_index) + map_bytes(&profile->count_index);
	return bytes;
}
