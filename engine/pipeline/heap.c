/* SPDX-License-Identifier: MIT */
/* pyspyd_heap_count: attach, count once or twice, compare, look for who keeps what grew. */
#include "pyspyd/heap.h"

#include "engine/base/clock.h"
#include "engine/pipeline/heap_count.h"
#include "engine/pipeline/subject.h"
#include <errno.h>
#include <time.h>

#define STARTING_WAIT_NS (2 * NS_PER_SEC)
#define WAIT_STEP_NS (100 * NS_PER_MS)

/* Between two counts. The second one, with what was seen until then, comes sooner where progress() says so. */
static void wait_for(const struct proc *proc, uint64_t until_ns, const struct pyspyd_heap_options *options) {
	uint64_t now = clock_boot_ns();

	while (now < until_ns && proc_alive(proc) &&
		!(options->progress && options->progress(options->userdata, 0, 0))) {
		uint64_t step = min_of(until_ns - now, (uint64_t)WAIT_STEP_NS);

		nanosleep(&(struct timespec){ .tv_sec = (time_t)(step / NS_PER_SEC),
				  .tv_nsec = (long)(step % NS_PER_SEC) },
			NULL);
		now = clock_boot_ns();
	}
}

static bool on_progress(void *userdata, uint64_t done_bytes, uint64_t all_bytes) {
	const struct pyspyd_heap_options *options = userdata;

	return options->progress && options->progress(options->userdata, done_bytes, all_bytes);
}

static int count(struct sample_target *target, const struct pyspyd_heap_options *options, struct pyspyd_heap **ret_heap,
	struct err *err) {
	struct census_options census = {
		.flags = CENSUS_KEEP_PLACES,
		.progress = on_progress,
		.userdata = (void *)(uintptr_t)options,
	};
	struct heap_count before = { 0 }, now = { 0 };
	struct pyspyd_heap *heap = NULL;
	int r = heap_count_take(target, &census, NULL, &now, err);

	if (!r && options->diff_ns) {
		before = now;
		now = (struct heap_count){ 0 };
		wait_for(&target->proc, before.at_ns + options->diff_ns, options);
		r = heap_count_take(target, &census, &before, &now, err);
	}
	if (!r)
		r = heap_compare(target, options->diff_ns ? &before : NULL, &now, options->top, &heap);
	if (!r && !options->no_paths)
		r = heap_find_keepers(target, &now, heap);
	heap_count_deinit(&before);
	heap_count_deinit(&now);
	if (r)
		pyspyd_heap_free(heap);
	else
		*ret_heap = heap;
	return r;
}

int pyspyd_heap_count(
	pid_t pid, const struct pyspyd_heap_options *options, struct pyspyd_heap **ret_heap, struct err *err) {
	struct subject subject = { 0 };
	struct pyspyd_heap *heap = NULL;
	int r = subject_open(pid, &options->core, STARTING_WAIT_NS, &subject, err);

	if (!r)
		r = count(subject.target, options, &heap, err);
	if (!r)
		r = subject_add_core(&subject, &heap->process);
	if (r == PYSPYD_E_GONE && (!err || !err->text[0] || err->code != r))
		err_set(err, r, "process %d has ended", (int)pid);
	if (r == -ENOMEM)
		err_set(err, r, "out of memory");
	if (r == -ECANCELED)
		err_set(err, r, "stopped");
	subject_close(&subject);
	if (r)
		pyspyd_heap_free(heap);
	else
		*ret_heap = heap;
	return r;
}

void pyspyd_heap_free(struct pyspyd_heap *heap) {
	if (!heap)
		return;
	for (size_t i = 0; i < heap->types_n; i++) {
		free(heap->types[i].type);
		free(heap->types[i].kept_by);
	}
	for (size_t i = 0; i < heap->containers_n; i++) {
		free(heap->containers[i].path);
		free(heap->containers[i].type);
	}
	for (size_t i = 0; i < heap->lines_n; i++)
		free(heap->lines[i].file);
	for (size_t i = 0; i < heap->mappings_n; i++)
		free(heap->mappings[i].name);
	free(heap->types);
	free(heap->containers);
	free(heap->lines);
	free(heap->mappings);
	pyspyd_process_deinit(&heap->process);
	free(heap);
}
