/* SPDX-License-Identifier: MIT */
/* Who keeps what grew. Containers are asked for themselves; of a type some of its new objects are, and what keeps most
 * of them counts: a container that they are in, however they are reached from there. */
#include "engine/pipeline/heap_count.h"

#include "engine/base/clock.h"
#include "engine/base/map.h"
#include "engine/leaks/keepers.h"

#define TYPES_ASKED 20 /* those that grew most, or that have most bytes */
#define KNOWN_MIN 4    /* of the samples, or … */
#define KNOWN_PART 4   /* … one of so many, whose keepers are known: then they speak for the others */
#define BUDGET_NS (5 * NS_PER_SEC)
#define BUDGET_WALL_NS (20 * NS_PER_SEC) /* where others need the CPU */

struct question {
	VEC(raddr) objects; /* the containers, then those of the types */
	size_t types_n;
	size_t first[TYPES_ASKED]; /* of each type */
	size_t n[TYPES_ASKED];
};

static const struct heap_type *find_type(const struct census *census, const struct map *index, uint64_t address) {
	uint64_t at;

	return map_get(index, address, &at) ? &census->types.items[at] : NULL;
}

static int ask_type(struct question *question, const struct heap_type *type) {
	int r = 0;

	question->first[question->types_n] = question->objects.n;
	question->n[question->types_n] = type ? type->samples_n : 0;
	question->types_n++;
	for (size_t i = 0; !r && type && i < type->samples_n; i++)
		r = vec_push(&question->objects, type->samples[i]);
	return r;
}

static int ask(const struct census *census, const struct pyspyd_heap *heap, struct question *question) {
	struct map index = { 0 };
	int r = 0;

	for (size_t i = 0; !r && i < heap->containers_n; i++)
		r = vec_push(&question->objects, heap->containers[i].address);
	for (size_t i = 0; !r && i < census->types.n; i++)
		r = map_put(&index, census->types.items[i].head.addr, i);
	for (size_t i = 0; !r && i < min_of(heap->types_n, (size_t)TYPES_ASKED); i++)
		r = ask_type(question, find_type(census, &index, heap->types[i].address));
	map_deinit(&index);
	return r;
}

/* What counts for a vote; NULL: its keeper is not known. */
static const char *path_of(const struct keeper *keeper, bool python) {
	if (python && keeper->root != KEEPER_PYTHON)
		return NULL;
	return keeper->container_path ? keeper->container_path : keeper->path;
}

static size_t count_votes(const struct keeper *keepers, size_t n, bool python, const char *path) {
	size_t votes = 0;

	for (size_t i = 0; i < n; i++) {
		const char *other = path_of(&keepers[i], python);

		votes += other && (!path || !strcmp(path, other));
	}
	return votes;
}

/* The path that most of them have in common. One of Python is worth more than any number of others: those are what was
 * seen on a way that got lost. Of few that are known nothing follows for the rest, and where each of many has another
 * keeper there is none to be named. */
static int vote(const struct keeper *keepers, size_t n, struct pyspyd_heap_type *type) {
	bool python = count_votes(keepers, n, true, NULL) > 0;
	size_t known = count_votes(keepers, n, false, NULL), best_votes = 0;
	const char *best = NULL;

	for (size_t i = 0; i < n; i++) {
		const char *path = path_of(&keepers[i], python);
		size_t votes = path ? count_votes(keepers, n, python, path) : 0;

		if (votes > best_votes) {
			best_votes = votes;
			best = path;
		}
	}
	if (!best_votes || (best_votes == 1 && known >= KNOWN_MIN))
		return 0;
	type->kept_by = strdup(best);
	type->kept_share = (double)best_votes / (double)(known >= KNOWN_MIN || known * KNOWN_PART >= n ? known : n);
	return type->kept_by ? 0 : -ENOMEM;
}

static int answer(struct keeper *keepers, const struct question *question, struct pyspyd_heap *heap) {
	int r = 0;

	for (size_t i = 0; i < heap->containers_n; i++) {
		heap->containers[i].path = keepers[i].path;
		keepers[i].path = NULL;
	}
	for (size_t i = 0; !r && i < question->types_n; i++)
		r = vote(keepers + question->first[i], question->n[i], &heap->types[i]);
	return r;
}

int heap_find_keepers(struct sample_target *target, const struct heap_count *now, struct pyspyd_heap *heap) {
	uint64_t start = clock_mono_ns();
	const struct keeper_limits limits = { .until_ns = start + BUDGET_WALL_NS, .cpu_ns = BUDGET_NS };
	struct question question = { 0 };
	struct keeper *keepers = NULL;
	size_t n;
	int r = ask(&now->census, heap, &question);

	n = min_of(question.objects.n, (size_t)KEEPER_OBJECTS_MAX);
	if (!r)
		keepers = calloc(question.objects.n + 1, sizeof(*keepers));
	if (!r)
		r = keepers ? keepers_find(&target->rt, &now->census, question.objects.items, n, &limits, keepers)
			    : -ENOMEM;
	if (!r) {
		r = answer(keepers, &question, heap);
		keepers_deinit(keepers, n);
	}
	free(keepers);
	vec_free(&question.objects);
	heap->paths_ns = clock_mono_ns() - start;
	return r == MEM_E_GONE ? PYSPYD_E_GONE : r;
}
