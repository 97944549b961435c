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
#define EVENT_BYTES 1024        /* of an ordinary stack, to choose the ring's size */
#define NATIVE_EVENT_BYTES 4096 /* … with a native one; more while their files are new */
#define RING_SECONDS 0.5

struct cpu_timer {
	int fd;
	struct bpf_link *link;
};

/* The last ones; NULL: none yet. */
struct kept_native {
	struct pyb_native *frames;
	struct pyb_stack *stack;
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
	struct kept_native *kept; /* of each CPU */
	struct bpf_tables *tables;
};

/* Kept until the sample that it belongs to comes from the same CPU; between them may be what others have to say. Events
 * begin alike. */
static void keep(void **kept, const void *event, size_t size, size_t max) {
	if (!*kept)
		*kept = calloc(1, max);
	if (*kept)
		memcpy(*kept, event, min_of(size, max));
}

static void keep_native(struct bpf_source *source, const struct pyb_native *native, size_t size) {
	size_t most = PYB_ADDRESSES_MAX;

	if (size < offsetof(struct pyb_native, addresses) || native->cpu >= source->cpus)
		return;
	most = min_of(most, (size - offsetof(struct pyb_native, addresses)) / sizeof(native->addresses[0]));
	if (native->kernel_n <= min_of(most, (size_t)PYB_KERNEL_MAX) && native->frames_n <= most - native->kernel_n)
		keep((void **)&source->kept[native->cpu].frames, native, size, sizeof(*native));
}

static void keep_stack(struct bpf_source *source, const struct pyb_stack *stack, size_t size) {
	if (size >= offsetof(struct pyb_stack, stack) && stack->cpu < source->cpus &&
		stack->stack_len <= min_of(size, sizeof(*stack)) - offsetof(struct pyb_stack, stack))
		keep((void **)&source->kept[stack->cpu].stack, stack, size, sizeof(*stack));
}

static struct bpf_native native_of(const struct bpf_source *source, const struct pyb_event *event) {
	struct bpf_native native = { 0 };
	const struct kept_native *kept = event->cpu < source->cpus ? &source->kept[event->cpu] : NULL;

	if (!kept || !kept->frames || kept->frames->time_ns != event->time_ns)
		return native;
	native.frames = kept->frames;
	if (kept->frames->stack && kept->stack && kept->stack->time_ns == event->time_ns)
		native.stack = kept->stack;
	return native;
}

static int on_ring(void *context, void *data, size_t size) {
	struct bpf_source *source = context;
	const struct pyb_event *event = data;

	struct bpf_native native;

	if (size >= sizeof(event->kind) && event->kind == PYB_NATIVE) {
		keep_native(source, data, size);
	} else if (size >= sizeof(event->kind) && event->kind == PYB_STACK) {
		keep_stack(source, data, size);
	} else if (size >= sizeof(*event) && event->frames_n <= (size - sizeof(*event)) / sizeof(struct pyb_frame)) {
		native = native_of(source, event);
		source->on_event(source->userdata, event, (const struct pyb_frame *)(event + 1), &native);
	}
	return 0;
}

static double event_bytes(const struct bpf_source_options *options) {
	if (options->native_copies)
		return sizeof(struct pyb_stack);
	return options->native ? NATIVE_EVENT_BYTES : EVENT_BYTES;
}

static uint32_t ring_bytes(const struct bpf_source_options *options) {
	double want = options->rate_hz * (double)libbpf_num_possible_cpus() * event_bytes(options) * RING_SECONDS;
	uint32_t bytes = RING_BYTES_MIN;

	if (options->ring_bytes)
		return options->ring_bytes;
	while (bytes < RING_BYTES_MAX && bytes < want)
		bytes *= 2;
	return bytes;
}

/* What is not used is made small. */
static int size_maps(struct bpf_source *source, const struct bpf_source_options *options, uint32_t ring) {
	uint32_t pairs = options->native ? BPF_TABLES_BYTES / sizeof(uint64_t) : 1;
	int r = bpf_map__set_max_entries(source->skel->maps.ring, ring);

	if (!r)
		r = bpf_map__set_max_entries(source->skel->maps.tables, pairs);
	if (!r)
		r = bpf_map__set_max_entries(source->skel->maps.rules, options->native ? UNWIND_RULES_MAX : 1);
	if (!r && !options->native)
		r = bpf_map__set_max_entries(source->skel->maps.codes, 1);
	return r;
}

static int prepare_native(struct bpf_source *source) {
	const struct bpf_tables_maps maps = { .tables_fd = bpf_map__fd(source->skel->maps.tables),
		.rules_fd = bpf_map__fd(source->skel->maps.rules),
		.codes_fd = bpf_map__fd(source->skel->maps.codes),
		.tables_bytes = BPF_TABLES_BYTES };

	return bpf_tables_new(&maps, &source->tables);
}

/* Before Linux 6.1 a program of a timer may not use maps whose elements are made as they come. */
static int preallocate(struct bpf_source *source) {
	int r = bpf_map__set_map_flags(source->skel->maps.processes, 0);

	if (!r)
		r = bpf_map__set_map_flags(source->skel->maps.threads, 0);
	return r;
}

static int try_load(struct bpf_source *source, const struct bpf_source_options *options, bool preallocated) {
	uint32_t bytes = ring_bytes(options);
	int r;

	bpf_prepare();
	sample_bpf__destroy(take_ptr(source->skel));
	source->skel = sample_bpf__open();
	if (!source->skel)
		return -errno;
	source->skel->rodata->wake_bytes = bytes / 4;
	source->skel->rodata->want_native = options->native;
	source->skel->rodata->want_copies = options->native_copies;
	source->skel->rodata->copy_bytes = bytes / 2;
	r = size_maps(source, options, bytes);
	if (!r && preallocated)
		r = preallocate(source);
	return r ? r : sample_bpf__load(source->skel);
}

static int load(struct bpf_source *source, const struct bpf_source_options *options) {
	int r = try_load(source, options, false);

	if (r == -EINVAL)
		r = try_load(source, options, true);
	if (!r)
		r = bpf_run_here(bpf_program__fd(source->skel->progs.learn_own_ids));
	if (!r && options->native)
		r = prepare_native(source);
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
	source->period_ns = period_of(options->rate_hz);
	source->cpus = (uint32_t)max_of(libbpf_num_possible_cpus(), 1);
	source->kept = calloc(source->cpus, sizeof(*source->kept));
	r = source->kept ? load(source, options) : -ENOMEM;
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
	bpf_tables_free(source->tables);
	sample_bpf__destroy(source->skel);
	bpf_processes_deinit(&source->processes);
	for (uint32_t cpu = 0; source->kept && cpu < source->cpus; cpu++) {
		free(source->kept[cpu].frames);
		free(source->kept[cpu].stack);
	}
	free(source->kept);
	free(source);
}

struct bpf_tables *bpf_source_tables(struct bpf_source *source) {
	return source->tables;
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
