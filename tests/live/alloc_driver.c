/* SPDX-License-Identifier: MIT */
/* Probes in a process's allocators of the kind that kernels before 6.6 have, until stdin ends: says "attached", and
 * then what was counted and what was sampled. */
#include "engine/base/clock.h"
#include "engine/sample/bpf_alloc.h"
#include "engine/sample/target.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>

#define EVERY_BYTES 16384

static uint64_t weight;

static void on_event(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames) {
	(void)userdata;
	(void)frames;
	weight += event->weight;
}

static bool stdin_ended(void) {
	struct pollfd fd = { .fd = STDIN_FILENO, .events = POLLIN };

	return poll(&fd, 1, 0) == 1;
}

int main(int argc, char **argv) {
	const struct bpf_alloc_options options = { .every_bytes = EVERY_BYTES, .old_probes = true };
	struct bpf_alloc_counts counts;
	struct sample_target *target;
	struct bpf_alloc *alloc;
	struct err err = { 0 };
	int r = argc == 2 ? sample_target_new(atoi(argv[1]), 0, &target, &err) : -EINVAL;

	if (!r)
		r = bpf_alloc_new(&options, &target->proc, &target->rt, &alloc, &err);
	if (r) {
		printf("%s\n", err.text);
		return r == PYSPYD_E_DENIED || r == PYSPYD_E_UNSUPPORTED ? 77 : 1;
	}
	bpf_alloc_watch(alloc, true);
	printf("attached\n");
	fflush(stdout);
	while (!stdin_ended()) {
		bpf_alloc_wait(alloc, 10 * NS_PER_MS);
		bpf_alloc_take(alloc, on_event, NULL);
	}
	bpf_alloc_detach(alloc);
	bpf_alloc_take(alloc, on_event, NULL);
	bpf_alloc_counts(alloc, &counts);
	printf("{\"hits\": %" PRIu64 ", \"others\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"lost\": %" PRIu64
	       ", \"weight\": %" PRIu64 ", \"every\": %d}\n",
		counts.hits, counts.others, counts.bytes, counts.by[PYB_RING_FULL] + counts.by[PYB_NESTED], weight,
		EVERY_BYTES);
	bpf_alloc_free(alloc);
	sample_target_free(target);
	return 0;
}
