/* SPDX-License-Identifier: MIT */
/* A ring of slices, one for each interval of a watch. */
#include "engine/pipeline/window.h"

static void clear_slice(struct window_slice *slice) {
	slice->threads.n = slice->stacks.n = 0;
	map_clear(&slice->thread_index);
	map_clear(&slice->stack_index);
}

void window_deinit(struct window *window) {
	for (size_t i = 0; i < WINDOW_SLICES; i++) {
		vec_free(&window->slices[i].threads);
		vec_free(&window->slices[i].stacks);
		map_deinit(&window->slices[i].thread_index);
		map_deinit(&window->slices[i].stack_index);
	}
}

static struct window_thread *thread_of(struct window_slice *slice, pid_t tid) {
	uint64_t i;

	if (map_get(&slice->thread_index, (uint64_t)tid, &i))
		return &slice->threads.items[i];
	if (vec_push(&slice->threads, (struct window_thread){ .tid = tid }))
		return NULL;
	if (map_put(&slice->thread_index, (uint64_t)tid, slice->threads.n - 1)) {
		slice->threads.n--;
		return NULL;
	}
	return &slice->threads.items[slice->threads.n - 1];
}

static void add_stack(struct window_slice *slice, pid_t tid, uint32_t node, uint64_t samples) {
	uint64_t key = (uint64_t)tid << 32 | node, i;

	if (map_get(&slice->stack_index, key, &i)) {
		slice->stacks.items[i].samples += samples;
		return;
	}
	if (vec_push(&slice->stacks, (struct window_stack){ tid, node, samples }))
		return;
	if (map_put(&slice->stack_index, key, slice->stacks.n - 1))
		slice->stacks.n--;
}

void window_add(struct window *window, const struct sample *sample, uint32_t node) {
	struct window_slice *slice = &window->slices[window->now];
	struct window_thread *thread = thread_of(slice, sample->thread->py.tid);

	if (!thread)
		return;
	thread->samples += sample->ticks;
	thread->running += sample->flags & SAMPLE_RUNNING ? sample->ticks : 0;
	thread->gil += sample->flags & SAMPLE_GIL ? sample->ticks : 0;
	thread->gc += sample->flags & SAMPLE_GC ? sample->ticks : 0;
	thread->native += sample->flags & SAMPLE_NATIVE ? sample->ticks : 0;
	add_stack(slice, thread->tid, node, sample->ticks);
}

void window_turn(struct window *window) {
	window->now = (window->now + 1) % WINDOW_SLICES;
	clear_slice(&window->slices[window->now]);
}

static const struct window_slice *slice_back(const struct window *window, size_t back) {
	return &window->slices[(window->now + WINDOW_SLICES - back) % WINDOW_SLICES];
}

struct window_thread window_thread_sum(const struct window *window, pid_t tid, size_t slices) {
	struct window_thread sum = { .tid = tid };

	for (size_t back = 0; back < slices && back < WINDOW_SLICES; back++) {
		const struct window_slice *slice = slice_back(window, back);
		const struct window_thread *thread;
		uint64_t i;

		if (!map_get(&slice->thread_index, (uint64_t)tid, &i))
			continue;
		thread = &slice->threads.items[i];
		sum.samples += thread->samples;
		sum.running += thread->running;
		sum.gil += thread->gil;
		sum.gc += thread->gc;
		sum.native += thread->native;
	}
	return sum;
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
		vec_foreach (stack, &slice_back(window, back)->stacks) {
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
