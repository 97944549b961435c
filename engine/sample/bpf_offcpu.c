/* SPDX-License-Identifier: MIT */
/* The off-CPU program's user side: loads and attaches it, goes through the tasks where it says so, and takes apart what
 * comes out of the ring. Kernels before 5.12 have no storage beside tasks for such programs: there a table by thread
 * does, which forgets those that have slept longest where there are too many. */
#include "engine/sample/bpf_offcpu.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/sample/bpf.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "offcpu.skel.h"

#define HEAD_BYTES offsetof(struct pyb_off, kernel)

struct bpf_offcpu {
	struct offcpu_bpf *skel;
	struct ring_buffer *ring;
	struct bpf_link *link;
	struct bpf_processes processes;
	const struct bpf_offcpu_sink *sink;
};

static int on_ring(void *context, void *data, size_t size) {
	const struct bpf_offcpu_sink *sink = ((struct bpf_offcpu *)context)->sink;
	const struct pyb_event *stack = data;
	const struct pyb_off *sleep = data;

	if (size >= HEAD_BYTES && sleep->kind == PYB_OFF && sleep->kernel_n <= (size - HEAD_BYTES) / sizeof(uint64_t))
		sink->on_sleep(sink->userdata, sleep);
	else if (size >= sizeof(*stack) && stack->kind == PYB_OFF_STACK &&
		stack->frames_n <= (size - sizeof(*stack)) / sizeof(struct pyb_frame))
		sink->on_stack(sink->userdata, stack, (const struct pyb_frame *)(stack + 1));
	return 0;
}

static int try_load(struct bpf_offcpu *offcpu, const struct bpf_offcpu_options *options, bool task_storage) {
	int r;

	offcpu->skel = offcpu_bpf__open();
	if (!offcpu->skel)
		return -errno;
	offcpu->skel->rodata->threshold_ns = options->threshold_ns;
	offcpu->skel->rodata->kernel_stacks = options->kernel_stacks;
	offcpu->skel->rodata->has_task_storage = task_storage;
	r = bpf_map__set_autocreate(offcpu->skel->maps.sleepers, task_storage);
	if (!r && task_storage)
		r = bpf_map__set_max_entries(offcpu->skel->maps.old_sleepers, 1);
	if (!r)
		r = offcpu_bpf__load(offcpu->skel);
	if (r) {
		offcpu_bpf__destroy(offcpu->skel);
		offcpu->skel = NULL;
	}
	return r;
}

static int load(struct bpf_offcpu *offcpu, const struct bpf_offcpu_options *options) {
	int r = options->old_kernel ? -EINVAL : try_load(offcpu, options, true);

	if (r && r != -EPERM)
		r = try_load(offcpu, options, false);
	if (!r)
		r = bpf_run_here(bpf_program__fd(offcpu->skel->progs.learn_own_ids));
	if (r)
		return r;
	bpf_processes_init(
		&offcpu->processes, bpf_map__fd(offcpu->skel->maps.processes), bpf_map__fd(offcpu->skel->maps.threads));
	offcpu->ring = ring_buffer__new(bpf_map__fd(offcpu->skel->maps.ring), on_ring, offcpu, NULL);
	if (!offcpu->ring)
		return -errno;
	offcpu->link = bpf_program__attach(offcpu->skel->progs.on_switch);
	return offcpu->link ? 0 : -errno;
}

int bpf_offcpu_new(const struct bpf_offcpu_options *options, struct bpf_offcpu **ret_offcpu, struct err *err) {
	struct bpf_offcpu *offcpu = calloc(1, sizeof(*offcpu));
	int r;

	if (!offcpu)
		return -ENOMEM;
	bpf_prepare();
	r = load(offcpu, options);
	if (r) {
		r = bpf_explain(err, r, "time off CPU needs eBPF");
		bpf_offcpu_free(offcpu);
		return r;
	}
	*ret_offcpu = offcpu;
	return 0;
}

void bpf_offcpu_free(struct bpf_offcpu *offcpu) {
	if (!offcpu)
		return;
	bpf_link__destroy(offcpu->link);
	ring_buffer__free(offcpu->ring);
	offcpu_bpf__destroy(offcpu->skel);
	bpf_processes_deinit(&offcpu->processes);
	free(offcpu);
}

struct bpf_processes *bpf_offcpu_processes(struct bpf_offcpu *offcpu) {
	return &offcpu->processes;
}

static int go_through_tasks(const struct bpf_program *program) {
	struct bpf_link *link = bpf_program__attach_iter(program, NULL);
	ssize_t n;
	char none[1];
	int fd, r;

	if (!link)
		return -errno;
	fd = bpf_iter_create(bpf_link__fd(link));
	r = fd < 0 ? fd : 0;
	do {
		n = r ? 0 : read(fd, none, sizeof(none));
	} while (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)));
	if (n < 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	bpf_link__destroy(link);
	return r;
}

int bpf_offcpu_begin(struct bpf_offcpu *offcpu, pid_t pid) {
	offcpu->skel->bss->begin_pid = (uint32_t)pid;
	return go_through_tasks(offcpu->skel->progs.find_sleepers);
}

int bpf_offcpu_end(struct bpf_offcpu *offcpu) {
	__atomic_store_n(&offcpu->skel->bss->stopped_ns, clock_mono_ns(), __ATOMIC_SEQ_CST);
	bpf_link__destroy(offcpu->link);
	offcpu->link = NULL;
	return go_through_tasks(offcpu->skel->progs.tell_rest);
}

void bpf_offcpu_wait(struct bpf_offcpu *offcpu, int other_fd, uint64_t timeout_ns) {
	const struct timespec timeout = { .tv_sec = (time_t)(timeout_ns / NS_PER_SEC),
		.tv_nsec = (long)(timeout_ns % NS_PER_SEC) };
	struct pollfd fds[] = { { .fd = ring_buffer__epoll_fd(offcpu->ring), .events = POLLIN },
		{ .fd = other_fd, .events = POLLIN } };

	ppoll(fds, ARRAY_SIZE(fds), &timeout, NULL);
}

void bpf_offcpu_take(struct bpf_offcpu *offcpu, const struct bpf_offcpu_sink *sink) {
	offcpu->sink = sink;
	(void)!ring_buffer__consume(offcpu->ring);
}

void bpf_offcpu_counts(struct bpf_offcpu *offcpu, struct bpf_offcpu_counts *ret) {
	int cpus = libbpf_num_possible_cpus();
	uint64_t *values = calloc((size_t)max_of(cpus, 1), sizeof(*values));
	struct bpf_prog_info info = { 0 };
	uint32_t len = sizeof(info);

	*ret = (struct bpf_offcpu_counts){ 0 };
	for (uint32_t what = 0; values && what < PYB_OFF_COUNTS; what++) {
		if (bpf_map__lookup_elem(
			    offcpu->skel->maps.counts, &what, sizeof(what), values, (size_t)cpus * sizeof(*values), 0))
			continue;
		for (int cpu = 0; cpu < cpus; cpu++)
			ret->by[what] += values[cpu];
	}
	free(values);
	if (!bpf_obj_get_info_by_fd(bpf_program__fd(offcpu->skel->progs.on_switch), &info, &len))
		ret->missed = info.recursion_misses;
}
