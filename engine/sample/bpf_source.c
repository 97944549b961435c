/* SPDX-License-Identifier: MIT */
/* The eBPF source: one timer on each CPU, one program for all of them, one ring to us.
 *
 * What the program is told of a process is in bpf_processes.h. It tells what it found as raw words; a frame's check
 * says which code object it was, so that a later look at that address is not taken for it when it holds another one by
 * then. */
#include "engine/sample/bpf_source.h"

#include "engine/base/clock.h"
#include "engine/sample/bpf.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "sample.skel.h"

#define RING_BYTES_MIN (256U << 10)
#define RING_BYTES_MAX (16U << 20)
#define EVENT_BYTES 1024 /* of an ordinary stack, to choose the ring's size */
#define RING_SECONDS 0.5

struct cpu_timer {
	int fd;
	struct bpf_link *link;
};

struct bpf_source {
	struct sample_bpf *skel;
	struct ring_buffer *ring;
	VEC(struct cpu_timer) timers;
	uint64_t period_ns;
	uint64_t since_ns, expected_before; /* since when the period is what it is; interrupts until then */
	struct bpf_processes processes;
	bpf_source_event on_event;
	void *userdata;
	struct bpf_source_counts counts;
	uint64_t counted_ns;
	uint32_t cpus;
	struct pyb_native **native; /* the last of each CPU; NULL: none yet */
};

/* Kept until the sample that it belongs to comes from the same CPU; between them may be what others have to say. */
static void keep_native(struct bpf_source *source, const struct pyb_native *native, size_t size) {
	struct pyb_native **kept;

	if (size < offsetof(struct pyb_native, stack) || native->cpu >= source->cpus ||
		native->stack_len > size - offsetof(struct pyb_native, stack) ||
		native->stack_len > sizeof(native->stack) || native->kernel_n > PYB_KERNEL_MAX)
		return;
	kept = &source->native[native->cpu];
	if (!*kept)
		*kept = malloc(sizeof(**kept));
	if (*kept)
		memcpy(*kept, native, offsetof(struct pyb_native, stack) + native->stack_len);
}

static const struct pyb_native *native_of(const struct bpf_source *source, const struct pyb_event *event) {
	const struct pyb_native *native = event->cpu < source->cpus ? source->native[event->cpu] : NULL;

	return native && native->time_ns == event->time_ns ? native : NULL;
}

static int on_ring(void *context, void *data, size_t size) {
	struct bpf_source *source = context;
	const struct pyb_event *event = data;

	if (size >= sizeof(event->kind) && event->kind == PYB_NATIVE)
		keep_native(source, data, size);
	else if (size >= sizeof(*event) && event->frames_n <= (size - sizeof(*event)) / sizeof(struct pyb_frame))
		source->on_event(
			source->userdata, event, (const struct pyb_frame *)(event + 1), native_of(source, event));
	return 0;
}

static uint32_t ring_bytes(const struct bpf_source_options *options) {
	double want = options->rate_hz * (double)libbpf_num_possible_cpus() *
		(options->native ? sizeof(struct pyb_native) : EVENT_BYTES) * RING_SECONDS;
	uint32_t bytes = RING_BYTES_MIN;

	if (options->ring_bytes)
		return options->ring_bytes;
	while (bytes < RING_BYTES_MAX && bytes < want)
		bytes *= 2;
	return bytes;
}

static int load(struct bpf_source *source, const struct bpf_source_options *options) {
	uint32_t bytes = ring_bytes(options);
	int r;

	source->skel = sample_bpf__open();
	if (!source->skel)
		return -errno;
	source->skel->rodata->wake_bytes = bytes / 4;
	source->skel->rodata->want_native = options->native;
	r = bpf_map__set_max_entries(source->skel->maps.ring, bytes);
	if (!r)
		r = sample_bpf__load(source->skel);
	if (!r)
		r = bpf_run_here(bpf_program__fd(source->skel->progs.learn_own_ids));
	if (r)
		return r;
	bpf_processes_init(
		&source->processes, bpf_map__fd(source->skel->maps.processes), bpf_map__fd(source->skel->maps.threads));
	source->ring = ring_buffer__new(bpf_map__fd(source->skel->maps.ring), on_ring, source, NULL);
	return source->ring ? 0 : -errno;
}

static int start_timer(struct bpf_source *source, int cpu) {
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.sample_period = source->period_ns };
	struct cpu_timer timer = { .fd = (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC) };
	int r;

	if (timer.fd < 0)
		return errno == ENODEV ? 0 : -errno; /* a CPU that is switched off */
	timer.link = bpf_program__attach_perf_event(source->skel->progs.on_cpu, timer.fd);
	if (!timer.link) {
		r = -errno;
		close(timer.fd);
		return r;
	}
	return vec_push(&source->timers, timer);
}

static uint64_t period_of(double rate_hz) {
	return max_of((uint64_t)(NS_PER_SEC / rate_hz), 1000ULL);
}

int bpf_source_new(const struct bpf_source_options *options, struct bpf_source **ret_source, struct err *err) {
	struct bpf_source *source = calloc(1, sizeof(*source));
	int r;

	if (!source)
		return -ENOMEM;
	bpf_prepare();
	source->period_ns = period_of(options->rate_hz);
	source->cpus = (uint32_t)max_of(libbpf_num_possible_cpus(), 1);
	source->native = calloc(source->cpus, sizeof(struct pyb_native *));
	r = source->native ? load(source, options) : -ENOMEM;
	if (r)
		r = bpf_explain(err, r, "loading the sampling program");
	for (uint32_t cpu = 0; !r && cpu < source->cpus; cpu++) {
		r = start_timer(source, (int)cpu);
		if (r)
			r = bpf_explain(err, r, "attaching the sampling program to a CPU's clock");
	}
	if (r) {
		bpf_source_free(source);
		return r;
	}
	source->since_ns = clock_mono_ns();
	*ret_source = source;
	return 0;
}

void bpf_source_free(struct bpf_source *source) {
	if (!source)
		return;
	vec_foreach (timer, &source->timers)
		bpf_link__destroy(timer->link); /* closes the event as well */
	vec_free(&source->timers);
	ring_buffer__free(source->ring);
	sample_bpf__destroy(source->skel);
	bpf_processes_deinit(&source->processes);
	for (uint32_t cpu = 0; source->native && cpu < source->cpus; cpu++)
		free(source->native[cpu]);
	free(source->native);
	free(source);
}

int bpf_source_add(struct bpf_source *source, const struct py_runtime *rt, pid_t pid) {
	return bpf_processes_add(&source->processes, rt, pid);
}

int bpf_source_set_threads(struct bpf_source *source, pid_t pid, const struct py_thread *const *threads, size_t n) {
	return bpf_processes_set_threads(&source->processes, pid, threads, n);
}

struct bpf_processes *bpf_source_processes(struct bpf_source *source) {
	return &source->processes;
}

void bpf_source_remove(struct bpf_source *source, pid_t pid) {
	bpf_processes_remove(&source->processes, pid);
}

static uint64_t ticks_since(const struct bpf_source *source, uint64_t now_ns) {
	return (now_ns - source->since_ns) / source->period_ns * source->timers.n;
}

int bpf_source_set_rate(struct bpf_source *source, double rate_hz) {
	uint64_t now = clock_mono_ns(), period = period_of(rate_hz);
	int r = 0;

	source->expected_before += ticks_since(source, now);
	source->since_ns = now;
	source->period_ns = period;
	vec_foreach (timer, &source->timers)
		if (ioctl(timer->fd, PERF_EVENT_IOC_PERIOD, &period))
			r = -errno;
	return r;
}

void bpf_source_wait(struct bpf_source *source, int other_fd, uint64_t timeout_ns) {
	const struct timespec timeout = { .tv_sec = (time_t)(timeout_ns / NS_PER_SEC),
		.tv_nsec = (long)(timeout_ns % NS_PER_SEC) };
	struct pollfd fds[] = { { .fd = ring_buffer__epoll_fd(source->ring), .events = POLLIN },
		{ .fd = other_fd, .events = POLLIN } };

	ppoll(fds, ARRAY_SIZE(fds), &timeout, NULL);
}

void bpf_source_take(struct bpf_source *source, bpf_source_event on_event, void *userdata) {
	source->on_event = on_event;
	source->userdata = userdata;
	(void)!ring_buffer__consume(source->ring);
}

static void read_counts(struct bpf_source *source, uint64_t *values) {
	for (uint32_t what = 0; what < PYB_COUNTS; what++) {
		uint64_t sum = 0;

		if (bpf_map__lookup_elem(
			    source->skel->maps.counts, &what, sizeof(what), values, source->cpus * sizeof(*values), 0))
			continue;
		for (uint32_t cpu = 0; cpu < source->cpus; cpu++)
			sum += values[cpu];
		source->counts.by[what] = sum;
	}
}

void bpf_source_counts(struct bpf_source *source, uint64_t max_age_ns, struct bpf_source_counts *ret) {
	uint64_t now = clock_mono_ns();
	uint64_t *values;

	if (now - source->counted_ns > max_age_ns && (values = calloc(source->cpus, sizeof(*values)))) {
		read_counts(source, values);
		free(values);
		source->counts.expected = source->expected_before + ticks_since(source, now);
		source->counted_ns = now;
	}
	*ret = source->counts;
}
