/* SPDX-License-Identifier: MIT */
/* Rings of slices, one for each interval of a watch: of stacks for the process, of sums for each thread. A thread that
 * was not seen in any of them is forgotten. */
#include "engine/pipeline/window.h"

void window_deinit(struct window *window) {
	for (size_t i = 0; i < WINDOW_SLICES; i++) {
		vec_free(&window->slices[i].stacks);
		map_deinit(&window->slices[i].index);
	}
	vec_free(&window->threads);
	map_deinit(&window->thread_index);
}

static struct window_ring *ring_of(struct window *window, pid_t tid) {
	uint64_t i;

	if (map_get(&window->thread_index, (uint64_t)tid, &i))
		return &window->threads.items[i];
	if (vec_push(&window->threads, (struct window_ring){ .sum = { .tid = tid } }))
		return NULL;
	if (map_put(&window->thread_index, (uint64_t)tid, window->threads.n - 1)) {
		window->threads.n--;
		return NULL;
	}
	return &window->threads.items[window->threads.n - 1];
}

static void add_stack(struct window_slice *slice, pid_t tid, uint32_t node, uint64_t samples) {
	uint64_t key = (uint64_t)tid << 32 | node, i;

	if (map_get(&slice->index, key, &i)) {
		slice->stacks.items[i].samples += samples;
		return;
	}
	if (vec_push(&slice->stacks, (struct window_stack){ tid, node, samples }))
		return;
	if (map_put(&slice->index, key, slice->stacks.n - 1))
		slice->stacks.n--;
}

static void add(struct window_thread *sum, const struct window_thread *more) {
	sum->samples += more->samples;
	sum->running += more->running;
	sum->gil += more->gil;
	sum->gc += more->gc;
	sum->native += more->native;
}

static void subtract(struct window_thread *sum, const struct window_thread *less) {
	sum->samples -= less->samples;
	sum->running -= less->running;
	sum->gil -= less->gil;
	sum->gc -= less->gc;
	sum->native -= less->native;
}

void window_add(struct window *window, const struct sample *sample, uint32_t node) {
	pid_t tid = sample->thread->py.tid;
	struct window_ring *ring = ring_of(window, tid);
	const struct window_thread more = {
		.samples = sample->ticks,
		.running = sample->flags & SAMPLE_RUNNING ? sample->ticks : 0,
		.gil = sample->flags & SAMPLE_GIL ? sample->ticks : 0,
		.gc = sample->flags & SAMPLE_GC ? sample->ticks : 0,
		.native = sample->flags & SAMPLE_NATIVE ? sample->ticks : 0,
	};

	if (!ring)
		return;
	add(&ring->slices[window->now], &more);
	add(&ring->sum, &more);
	add_stack(&window->slices[window->now], tid, node, sample->ticks);
}

static void drop_unseen(struct window *window) {
	size_t kept = 0;

	map_clear(&window->thread_index);
	vec_foreach (ring, &window->threads)
		if (ring->sum.samples && !map_put(&window->thread_index, (uint64_t)ring->sum.tid, kept))
			window->threads.items[kept++] = *ring;
	window->threads.n = kept;
}

void window_turn(struct window *window) {
	bool unseen = false;

	window->now = (window->now + 1) % WINDOW_SLICES;
	window->slices[window->now].stacks.n = 0;
	map_clear(&window->slices[window->now].index);
	vec_foreach (ring, &window->threads) {
		subtract(&ring->sum, &ring->slices[window->now]);
		ring->slices[window->now] = (struct window_thread){ 0 };
		unseen |= !ring->sum.samples;
	}
	if (unseen)
		drop_unseen(window);
}

static size_t back_from_now(const struct window *window, size_t back) {
	return (window->now + WINDOW_SLICES - back) % WINDOW_SLICES;
}

struct window_thread window_thread_sum(const struct window *window, pid_t tid, size_t slices) {
	struct window_thread sum = { .tid = tid };
	const struct window_ring *ring;
	uint64_t i;

	if (!map_get(&window->thread_index, (uint64_t)tid, &i))
		return sum;
	ring = &window->threads.items[i];
	if (slices >= WINDOW_SLICES)
		return ring->sum;
	for (size_t back = 0; back < slices; back++)
		add(&sum, &ring->slices[back_from_now(window, back)]);
	return sum;
}

double window_share(const struct window *window, pid_t tid, uint32_t node) {
	uint64_t samples = 0, all = window_thread_sum(window, tid, WINDOW_SLICES).samples;

	for (size_t back = 0; back < WINDOW_SLICES; back++)
		vec_foreach (stack, &window->slices[back].stacks)
			if (stack->tid == tid && stack->node == node)
				samples += stack->samples;
	return all ? (double)samples / (double)all : 0;
}

static int by_samples(const void *a, const void *b) {
	uint64_t x = ((const struct window_stack *)a)->samples, y = ((const struct window_stack *)b)->samples;

	return (x < y) - (x > y);
}

size_t window_hottest(
	const struct window *window, pid_t tid, size_t slices, struct window_stack *ret_stacks, size_t max) {
	VEC(struct window_stack) all = { 0 };
	struct map index = { 0 };
	size_t n;

	for (size_t back = 0; back < slices && back < WINDOW_SLICES; back++) {
		vec_foreach (stack, &window->slices[back_from_now(window, back)].stacks) {
			uint64_t i;

			if (stack->tid != tid)
				continue;
			if (map_get(&index, stack->node, &i))
				/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): the index holds places in all
				 * alone */
				all.items[i].samples += stack->samples;
			else if (!vec_push(&all, *stack))
				(void)!map_put(&index, stack->node, all.n - 1);
		}
	}
	if (all.n)
		qsort(all.items, all.n, sizeof(*all.items), by_samples);
	n = min_of(all.n, max);
	for (size_t i = 0; i < n; i++)
		ret_stacks[i] = all.items[i];
	vec_free(&all);
	map_deinit(&index);
	return n;
}
