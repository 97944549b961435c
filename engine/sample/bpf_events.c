/* SPDX-License-Identifier: MIT */
/* Loads the program that tells of processes, and reads its ring. Once it is loaded everything goes through memory that
 * both sides have mapped: whom to tell of, the events, the counters; no call of bpf() is needed any more. */
#include "engine/sample/bpf_events.h"

#include "engine/base/util.h"
#include "engine/sample/bpf.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include "events.skel.h"

#define WORD_BITS 64

/* Those that end a process unless it handles them, and are no way in which people ask it to end. */
static const int deadly[] = { SIGKILL, SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGXCPU, SIGXFSZ };

struct bpf_events {
	struct events_bpf *skel;
	struct ring_buffer *ring;
	uint64_t *watched; /* mapped */
	size_t words_n;
	void (*on_event)(void *userdata, const struct pye_event *event);
	void *userdata;
};

static int on_ring(void *context, void *data, size_t size) {
	struct bpf_events *events = context;

	if (size >= sizeof(struct pye_event))
		events->on_event(events->userdata, data);
	return 0;
}

static int map_watched(struct bpf_events *events) {
	void *p = mmap(NULL, events->words_n * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED,
		bpf_map__fd(events->skel->maps.watched), 0);

	if (p == MAP_FAILED)
		return -errno;
	events->watched = p;
	return 0;
}

static int load(struct bpf_events *events, bool starts) {
	int r;

	events->skel = events_bpf__open();
	if (!events->skel)
		return -errno;
	events->words_n = (bpf_pids_max() + WORD_BITS - 1) / WORD_BITS;
	events->skel->rodata->words_n = (uint32_t)events->words_n;
	events->skel->rodata->want_starts = starts;
	for (size_t i = 0; i < ARRAY_SIZE(deadly); i++)
		events->skel->rodata->deadly_signals |= 1ULL << deadly[i];
	bpf_program__set_autoattach(events->skel->progs.learn_own_ids, false);
	r = bpf_map__set_max_entries(events->skel->maps.watched, (uint32_t)events->words_n);
	if (!r)
		r = events_bpf__load(events->skel);
	if (!r)
		r = bpf_run_here(bpf_program__fd(events->skel->progs.learn_own_ids));
	if (!r)
		r = map_watched(events);
	if (r)
		return r;
	events->ring = ring_buffer__new(bpf_map__fd(events->skel->maps.ring), on_ring, events, NULL);
	return events->ring ? 0 : -errno;
}

int bpf_events_new(bool starts, struct bpf_events **ret_events, struct err *err) {
	struct bpf_events *events = calloc(1, sizeof(*events));
	int r;

	if (!events)
		return -ENOMEM;
	bpf_prepare();
	r = load(events, starts);
	if (r) {
		r = bpf_explain(err, r, "loading the program that tells of processes");
	} else {
		r = events_bpf__attach(events->skel);
		if (r)
			r = bpf_explain(err, r, "attaching the program that tells of processes");
	}
	if (r) {
		bpf_events_free(events);
		return r;
	}
	*ret_events = events;
	return 0;
}

void bpf_events_free(struct bpf_events *events) {
	if (!events)
		return;
	ring_buffer__free(events->ring);
	if (events->watched)
		munmap(events->watched, events->words_n * sizeof(uint64_t));
	events_bpf__destroy(events->skel);
	free(events);
}

void bpf_events_watch(struct bpf_events *events, pid_t pid, bool on) {
	size_t word = (size_t)pid / WORD_BITS;
	uint64_t bit = 1ULL << (size_t)pid % WORD_BITS;

	if (pid <= 0 || word >= events->words_n)
		return;
	if (on)
		__atomic_fetch_or(&events->watched[word], bit, __ATOMIC_RELAXED);
	else
		__atomic_fetch_and(&events->watched[word], ~bit, __ATOMIC_RELAXED);
}

bool bpf_events_wait(struct bpf_events *events, int timeout_ms) {
	struct epoll_event event;

	return epoll_wait(ring_buffer__epoll_fd(events->ring), &event, 1, timeout_ms) > 0;
}

void bpf_events_take(
	struct bpf_events *events, void (*on_event)(void *userdata, const struct pye_event *event), void *userdata) {
	events->on_event = on_event;
	events->userdata = userdata;
	(void)!ring_buffer__consume(events->ring);
}

void bpf_events_counts(const struct bpf_events *events, uint64_t ret_counts[PYE_COUNTS]) {
	for (size_t i = 0; i < PYE_COUNTS; i++)
		ret_counts[i] = __atomic_load_n(&events->skel->bss->counts[i], __ATOMIC_RELAXED);
}
