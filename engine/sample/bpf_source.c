/* SPDX-License-Identifier: MIT */
/* The eBPF source: one timer on each CPU, one program for all of them, one ring to us.
 *
 * What the program is told of a process are offsets and addresses out of its runtime (bpf/sample.h). It tells what it
 * found as raw words; a frame's check says which code object it was, so that a later look at that address is not taken
 * for it when it holds another one by then. */
#include "engine/sample/bpf_source.h"

#include "engine/base/clock.h"
#include "engine/base/map.h"
#include "engine/cpython/code.h"
#include "engine/sample/bpf.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <sys/epoll.h>
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

/* The threads of one process that the program knows. */
struct told {
	uint32_t pid;
	VEC(uint64_t) thread_pointers;
};

struct bpf_source {
	struct sample_bpf *skel;
	struct bpf_program *program; /* that which this kernel can run */
	struct ring_buffer *ring;
	VEC(struct cpu_timer) timers;
	uint64_t period_ns;
	uint64_t since_ns, expected_before; /* since when the period is what it is; interrupts until then */
	VEC(struct told) told;
	void (*on_event)(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames);
	void *userdata;
};

static int on_ring(void *context, void *data, size_t size) {
	struct bpf_source *source = context;
	const struct pyb_event *event = data;

	if (size < sizeof(*event) || event->frames_n > (size - sizeof(*event)) / sizeof(struct pyb_frame))
		return 0;
	source->on_event(source->userdata, event, (const struct pyb_frame *)(event + 1));
	return 0;
}

static uint32_t ring_bytes(const struct bpf_source_options *options) {
	double want = options->rate_hz * (double)libbpf_num_possible_cpus() * EVENT_BYTES * RING_SECONDS;
	uint32_t bytes = RING_BYTES_MIN;

	if (options->ring_bytes)
		return options->ring_bytes;
	while (bytes < RING_BYTES_MAX && bytes < want)
		bytes *= 2;
	return bytes;
}

static void choose_program(struct bpf_source *source, const struct bpf_source_options *options) {
	struct bpf_program *with = source->skel->progs.on_cpu, *without = source->skel->progs.on_cpu_in_loop;
	bool has = !options->in_loop && libbpf_probe_bpf_helper(BPF_PROG_TYPE_PERF_EVENT, BPF_FUNC_loop, NULL) == 1;

	source->program = has ? with : without;
	bpf_program__set_autoload(has ? without : with, false);
}

static int load(struct bpf_source *source, const struct bpf_source_options *options) {
	uint32_t bytes = ring_bytes(options);
	int r;

	source->skel = sample_bpf__open();
	if (!source->skel)
		return -errno;
	source->skel->rodata->wake_bytes = bytes / 4;
	choose_program(source, options);
	r = bpf_map__set_max_entries(source->skel->maps.ring, bytes);
	if (!r)
		r = sample_bpf__load(source->skel);
	if (!r)
		r = bpf_run_here(bpf_program__fd(source->skel->progs.learn_own_ids));
	if (r)
		return r;
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
	timer.link = bpf_program__attach_perf_event(source->program, timer.fd);
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
	int r, cpus;

	if (!source)
		return -ENOMEM;
	bpf_prepare();
	source->period_ns = period_of(options->rate_hz);
	r = load(source, options);
	if (r)
		r = bpf_explain(err, r, "loading the sampling program");
	cpus = libbpf_num_possible_cpus();
	source->since_ns = clock_mono_ns();
	for (int cpu = 0; !r && cpu < cpus; cpu++) {
		r = start_timer(source, cpu);
		if (r)
			r = bpf_explain(err, r, "attaching the sampling program to a CPU's clock");
	}
	if (r) {
		bpf_source_free(source);
		return r;
	}
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
	vec_foreach (told, &source->told)
		vec_free(&told->thread_pointers);
	vec_free(&source->told);
	free(source);
}

/* The part of a frame in which all of its fields are, and their places in it. */
static int describe_frame(const struct layout *l, struct pyb_process *p) {
	const uint32_t used[] = { l->frame_previous, l->frame_code, l->frame_instr, l->frame_lasti, l->frame_owner,
		l->frame_is_entry, l->frame_tlbc_index };
	uint32_t start = UINT32_MAX, end = 0;
	bool has_instr = layout_has(l->frame_instr);

	for (size_t i = 0; i < ARRAY_SIZE(used); i++) {
		if (!layout_has(used[i]))
			continue;
		start = min_of(start, used[i] & ~7U);
		end = max_of(end, (used[i] & ~7U) + 8);
	}
	if (start >= end || end - start > PYB_WINDOW)
		return PYSPYD_E_UNSUPPORTED;
	p->frame_window_start = start;
	p->frame_window_len = end - start;
	p->frame_previous = l->frame_previous - start;
	p->frame_code = l->frame_code - start;
	p->frame_instr = (has_instr ? l->frame_instr : l->frame_lasti) - start;
	p->instr_mask = has_instr ? UINT64_MAX : UINT32_MAX;
	if (layout_has(l->frame_owner)) {
		p->frame_owner = l->frame_owner - start;
		p->owner_mask = 0xff;
	}
	if (layout_has(l->frame_is_entry)) {
		p->frame_is_entry = l->frame_is_entry - start;
		p->is_entry_mask = 1;
	}
	if (layout_has(l->frame_tlbc_index)) {
		p->frame_tlbc = l->frame_tlbc_index - start;
		p->tlbc_mask = 0xffff;
	}
	p->always_entry = !layout_has(l->frame_owner) && !layout_has(l->frame_is_entry);
	return 0;
}

static void describe_check(const struct py_runtime *rt, struct pyb_process *p) {
	const struct layout *l = &rt->reader.layout;

	p->check = py_code_has_unique_version(rt) ? PYB_CHECK_VERSION : PYB_CHECK_FIELDS;
	p->code_version = l->code_version;
	p->code_name = l->code_name;
	p->code_linetable = l->code_linetable;
	p->code_line = l->code_firstlineno;
	p->str_hash = py_str_hash_offset(l);
}

int bpf_source_describe(const struct py_runtime *rt, struct pyb_process *ret_process) {
	const struct layout *l = &rt->reader.layout;
	struct pyb_process p = {
		.interp_threads_head = l->interp_threads_head,
		.tstate_next = l->tstate_next,
		.tstate_interp = l->tstate_interp,
		.tstate_thread_id = l->tstate_thread_id,
		.tstate_frame = l->tstate_frame,
		.tstate_cframe = l->tstate_cframe,
		.cframe_frame = l->cframe_current_frame,
		.tstate_holds_gil = PYB_NONE,
		.gil_locked = l->gil_locked,
		.gil_last_holder = l->gil_last_holder,
	};
	int r = describe_frame(l, &p);

	if (r)
		return r;
	py_holds_gil_word(rt, &p.tstate_holds_gil, &p.holds_gil_mask);
	describe_check(rt, &p);
	*ret_process = p;
	return 0;
}

/* The youngest interpreters, the main one behind them. */
static int describe_interps(const struct py_runtime *rt, struct pyb_process *p) {
	py_interp_vec interps = { 0 };
	int r = py_interps_read(rt, &interps);

	for (size_t i = 0; !r && i < interps.n; i++) {
		struct py_interp_view view = { 0 };
		uint32_t at = min_of((uint32_t)i, (uint32_t)PYB_INTERPS_MAX - 1);

		r = py_interp_view(rt, interps.items[i].addr, &view);
		p->interps[at] = (struct pyb_interp){ .addr = interps.items[i].addr,
			.gil = view.gil_known && !rt->tstate_current ? view.gil : 0,
			.tstate_current = rt->tstate_current,
			.collecting = py_collecting_word(rt, interps.items[i].addr) };
		p->interps_n = at + 1;
	}
	vec_free(&interps);
	return r;
}

static struct told *find_told(struct bpf_source *source, pid_t pid) {
	vec_foreach (told, &source->told)
		if (told->pid == (uint32_t)pid)
			return told;
	return NULL;
}

int bpf_source_add(struct bpf_source *source, const struct py_runtime *rt, pid_t pid) {
	uint32_t key = (uint32_t)pid;
	struct pyb_process process;
	int r = bpf_source_describe(rt, &process);

	if (!r)
		r = describe_interps(rt, &process);
	if (!r)
		r = bpf_map__update_elem(
			source->skel->maps.processes, &key, sizeof(key), &process, sizeof(process), BPF_ANY);
	if (!r && !find_told(source, pid))
		r = vec_push(&source->told, (struct told){ .pid = key });
	return r;
}

static void forget_thread(struct bpf_source *source, pid_t pid, uint64_t thread_pointer) {
	const struct pyb_thread_key key = { .thread_pointer = thread_pointer, .pid = (uint32_t)pid };

	bpf_map__delete_elem(source->skel->maps.threads, &key, sizeof(key), 0);
}

static uint32_t interp_index(const struct pyb_process *process, raddr interp) {
	uint32_t i = 0;

	while (i < process->interps_n && process->interps[i].addr != interp)
		i++;
	return i;
}

/* One more state of the thread; the one of the younger interpreter first, as the program looks at them in this order.
 */
static void add_state(struct pyb_thread *thread, raddr tstate, uint32_t interp) {
	uint32_t at = thread->states[0] && thread->interp[0] < interp ? 1 : 0;

	if (at == 0 && thread->states[0]) {
		thread->states[1] = thread->states[0];
		thread->interp[1] = thread->interp[0];
	}
	thread->states[at] = tstate;
	thread->interp[at] = interp;
}

static int tell_thread(struct bpf_source *source, const struct pyb_process *process, pid_t pid,
	const struct py_thread *const *threads, size_t n, size_t i) {
	const struct pyb_thread_key key = { .thread_pointer = threads[i]->ident, .pid = (uint32_t)pid };
	struct pyb_thread value = { 0 };

	for (size_t j = 0; j < n; j++) {
		uint32_t interp = interp_index(process, threads[j]->interp);

		if (threads[j]->ident == threads[i]->ident && interp < process->interps_n)
			add_state(&value, threads[j]->tstate, interp);
	}
	return bpf_map__update_elem(source->skel->maps.threads, &key, sizeof(key), &value, sizeof(value), BPF_ANY);
}

int bpf_source_set_threads(struct bpf_source *source, pid_t pid, const struct py_thread *const *threads, size_t n) {
	struct map _cleanup_(map_deinit) now = { 0 };
	struct pyb_process process;
	uint32_t key = (uint32_t)pid;
	struct told *told = find_told(source, pid);
	int r = bpf_map__lookup_elem(source->skel->maps.processes, &key, sizeof(key), &process, sizeof(process), 0);

	if (!told)
		return -ENOENT;
	for (size_t i = 0; !r && i < n; i++) {
		uint64_t unused;

		if (map_get(&now, threads[i]->ident, &unused))
			continue; /* told with its first state */
		r = tell_thread(source, &process, pid, threads, n, i);
		if (!r)
			r = map_put(&now, threads[i]->ident, 1);
	}
	if (r)
		return r;
	for (size_t i = 0; i < told->thread_pointers.n; i++) {
		uint64_t unused;

		if (!map_get(&now, told->thread_pointers.items[i], &unused))
			forget_thread(source, pid, told->thread_pointers.items[i]);
	}
	told->thread_pointers.n = 0;
	for (size_t i = 0; !r && i < n; i++)
		r = vec_push(&told->thread_pointers, threads[i]->ident);
	return r;
}

void bpf_source_remove(struct bpf_source *source, pid_t pid) {
	uint32_t key = (uint32_t)pid;
	struct told *told = find_told(source, pid);

	bpf_map__delete_elem(source->skel->maps.processes, &key, sizeof(key), 0);
	if (!told)
		return;
	for (size_t i = 0; i < told->thread_pointers.n; i++)
		forget_thread(source, pid, told->thread_pointers.items[i]);
	vec_free(&told->thread_pointers);
	*told = source->told.items[--source->told.n];
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

bool bpf_source_wait(struct bpf_source *source, int timeout_ms) {
	struct epoll_event event;

	return epoll_wait(ring_buffer__epoll_fd(source->ring), &event, 1, timeout_ms) > 0;
}

void bpf_source_take(struct bpf_source *source,
	void (*on_event)(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames),
	void *userdata) {
	source->on_event = on_event;
	source->userdata = userdata;
	(void)!ring_buffer__consume(source->ring);
}

void bpf_source_counts(struct bpf_source *source, struct bpf_source_counts *ret) {
	int cpus = libbpf_num_possible_cpus();
	uint64_t *values = calloc((size_t)max_of(cpus, 1), sizeof(*values));

	*ret = (struct bpf_source_counts){ .expected = source->expected_before + ticks_since(source, clock_mono_ns()) };
	for (uint32_t what = 0; values && what < PYB_COUNTS; what++) {
		if (bpf_map__lookup_elem(
			    source->skel->maps.counts, &what, sizeof(what), values, (size_t)cpus * sizeof(*values), 0))
			continue;
		for (int cpu = 0; cpu < cpus; cpu++)
			ret->by[what] += values[cpu];
	}
	free(values);
}
