/* SPDX-License-Identifier: MIT */
/* Probes at allocators: from the places that alloc_places.h finds to the kernel's links, and from its ring to us.
 *
 * Multi-probes (Linux 6.6) need CAP_BPF and CAP_PERFMON, and are in one process's memory alone; older ones are perf
 * events, which need CAP_SYS_ADMIN, and are in all processes that run the file. A process of their own holds them
 * (probe_holder.h); it is forked anew for each time that they are there.
 *
 * What a hit costs is measured: the same program at a function of our own. The instruction there is one that the kernel
 * emulates, as all are that alloc_code.h chooses. */
#include "engine/sample/bpf_alloc.h"

#include "bpf/alloc.h"
#include "engine/base/clock.h"
#include "engine/sample/alloc_places.h"
#include "engine/sample/bpf.h"
#include "engine/sample/probe_holder.h"
#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>

#include "alloc.skel.h"

#define MEASURE_ROUNDS 15
#define MEASURE_CALLS 1000

struct bpf_alloc {
	struct alloc_bpf *skel;
	struct ring_buffer *ring;
	struct bpf_processes processes;
	struct alloc_places places;
	struct probe_holder holder;
	pid_t pid;
	bool multi;
	int cpus;
	uint64_t hit_ns;
	size_t probes;
	void (*on_event)(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames);
	void *userdata;
};

/* A function that does nothing, for the measurement. Its second argument is the size. */
#if defined(__x86_64__)
void alloc_measured(void *ctx, uint64_t size);
__asm__(".pushsection .text\n"
	".type alloc_measured, @function\n"
	"alloc_measured:\n"
	"push %rbp\n"
	"pop %rbp\n"
	"ret\n"
	".size alloc_measured, . - alloc_measured\n"
	".popsection\n");
#define MEASURED ((uintptr_t)alloc_measured)
#else
static void alloc_measured(void *ctx, uint64_t size) {
	(void)ctx;
	(void)size;
}
#define MEASURED ((uintptr_t)0)
#endif

static int on_ring(void *context, void *data, size_t size) {
	struct bpf_alloc *alloc = context;
	const struct pyb_event *event = data;

	if (size < sizeof(*event) || event->frames_n > (size - sizeof(*event)) / sizeof(struct pyb_frame))
		return 0;
	alloc->on_event(alloc->userdata, event, (const struct pyb_frame *)(event + 1));
	return 0;
}

static int load(struct bpf_alloc *alloc) {
	int r;

	alloc->skel = alloc_bpf__open();
	if (!alloc->skel)
		return -errno;
	if (alloc->multi)
		bpf_program__set_expected_attach_type(
			alloc->skel->progs.on_alloc, (enum bpf_attach_type)PROBE_ATTACH_MULTI);
	r = alloc_bpf__load(alloc->skel);
	if (!r)
		r = bpf_run_here(bpf_program__fd(alloc->skel->progs.learn_own_ids));
	if (r)
		return r;
	bpf_processes_init(
		&alloc->processes, bpf_map__fd(alloc->skel->maps.processes), bpf_map__fd(alloc->skel->maps.threads));
	alloc->ring = ring_buffer__new(bpf_map__fd(alloc->skel->maps.ring), on_ring, alloc, NULL);
	return alloc->ring ? 0 : -errno;
}

/* The place of a register in the kernel's struct pt_regs, in words (Linux arch/x86/include/asm/ptrace.h). */
static uint64_t pt_regs_word(uint8_t reg) {
	static const uint8_t words[] = { 10, 11, 12, 5, 19, 4, 13, 14, 9, 8, 7, 6, 3, 2, 1, 0 };

	return reg < ARRAY_SIZE(words) ? words[reg] : PYB_ALLOC_NO_REG;
}

static uint64_t cookie_of(const struct alloc_probe *probe) {
	uint64_t flags = (probe->size.load ? PYB_ALLOC_LOAD : 0) | (probe->outer ? PYB_ALLOC_OUTER : 0) |
		(probe->inner ? PYB_ALLOC_INNER : 0) | (probe->inlined ? PYB_ALLOC_SITE : 0);

	return pt_regs_word(probe->size.a) | pt_regs_word(probe->size.b) << 8 | flags << 16 |
		((uint64_t)(probe->sp_up / 8) & 0xff) << 24 | (uint64_t)(uint32_t)probe->size.disp << 32;
}

static int plan_file(const struct alloc_file *file, struct probe_file *planned) {
	uint64_t *offsets = calloc(max_of(file->probes.n, (size_t)1), sizeof(*offsets));
	uint64_t *cookies = calloc(max_of(file->probes.n, (size_t)1), sizeof(*cookies));

	*planned = (struct probe_file){
		.fd = file->fd, .n = (uint32_t)file->probes.n, .offsets = offsets, .cookies = cookies
	};
	if (!offsets || !cookies)
		return -ENOMEM;
	for (size_t i = 0; i < file->probes.n; i++) {
		offsets[i] = file->probes.items[i].offset;
		cookies[i] = cookie_of(&file->probes.items[i]);
	}
	return 0;
}

static int attach_files(struct bpf_alloc *alloc, const struct alloc_file *files, size_t n, pid_t pid) {
	struct probe_plan plan = {
		.prog_fd = bpf_program__fd(alloc->skel->progs.on_alloc), .multi = alloc->multi, .pid = pid
	};
	int r = 0;

	static_assert(ALLOC_FILES <= PROBE_FILES_MAX, "a place for each file");
	for (size_t i = 0; !r && i < n; i++)
		r = plan_file(&files[i], &plan.files[i]);
	if (!r)
		r = probe_holder_attach(&alloc->holder, &plan);
	for (size_t i = 0; i < n; i++) {
		free(plan.files[i].offsets);
		free(plan.files[i].cookies);
	}
	return r;
}

void bpf_alloc_detach(struct bpf_alloc *alloc) {
	probe_holder_detach(&alloc->holder);
}

/* Where our own function is in our own file. Return: 0; -ENOENT; negative errno. */
static int find_measured(struct alloc_file *file) {
	struct alloc_probe probe = { .size = { .a = 6, .b = ALLOC_NO_REG } };
	proc_map_vec maps = { 0 };
	struct proc self;
	int r = proc_open("/proc", getpid(), &self);

	if (r)
		return r > 0 ? -ESRCH : r;
	r = proc_maps_read(&self, &maps);
	if (!r)
		r = -ENOENT;
	vec_foreach (map, &maps) {
		if (!map->exec || MEASURED < map->start || MEASURED >= map->end)
			continue;
		probe.offset = MEASURED - map->start + map->offset;
		file->fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
		r = file->fd < 0 ? -errno : vec_push(&file->probes, probe);
	}
	proc_maps_free(&maps);
	proc_close(&self);
	return r > 0 ? -ESRCH : r;
}

static int by_time(const void *a, const void *b) {
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t measure_calls(void) {
	uint64_t ns[MEASURE_ROUNDS];

	for (size_t i = 0; i < MEASURE_ROUNDS; i++) {
		uint64_t begin = clock_mono_ns();

		for (size_t j = 0; j < MEASURE_CALLS; j++)
			alloc_measured(NULL, 64);
		ns[i] = clock_mono_ns() - begin;
	}
	qsort(ns, MEASURE_ROUNDS, sizeof(ns[0]), by_time);
	return ns[MEASURE_ROUNDS / 4] / MEASURE_CALLS; /* what is above was disturbed */
}

static int forget_counts(struct bpf_alloc *alloc) {
	size_t bytes = (size_t)alloc->cpus * sizeof(struct pyb_alloc_cpu);
	void *zeros _free_ = calloc(1, bytes);
	uint32_t key = 0;

	return zeros ? bpf_map__update_elem(alloc->skel->maps.cpus, &key, sizeof(key), zeros, bytes, BPF_ANY) : -ENOMEM;
}

/* Distances of an exponential distribution, each as likely as the other; their mean is `every`. */
static void set_distance(struct bpf_alloc *alloc, uint64_t every) {
	double sum = 0, scale;

	for (unsigned i = 0; i < PYB_ALLOC_GAPS; i++)
		sum -= log1p(-(i + 0.5) / PYB_ALLOC_GAPS);
	scale = (double)every * PYB_ALLOC_GAPS / sum;
	for (unsigned i = 0; i < PYB_ALLOC_GAPS; i++)
		alloc->skel->bss->gaps[i] = max_of((uint64_t)(-log1p(-(i + 0.5) / PYB_ALLOC_GAPS) * scale), 1UL);
	alloc->skel->bss->every = every;
}

static int measure(struct bpf_alloc *alloc) {
	struct alloc_file self = { .fd = -1 };
	uint64_t bare;
	int r = find_measured(&self);

	set_distance(alloc, 1UL << 45); /* no sample */
	alloc->skel->bss->target = (uint32_t)getpid();
	alloc->skel->bss->watching = 1;
	bare = measure_calls();
	if (!r)
		r = attach_files(alloc, &self, 1, getpid());
	if (!r) {
		uint64_t probed = measure_calls();

		alloc->hit_ns = probed > bare ? probed - bare : 1;
	}
	bpf_alloc_detach(alloc);
	close_fd(&self.fd);
	vec_free(&self.probes);
	return r ? r : forget_counts(alloc);
}

static void unload(struct bpf_alloc *alloc) {
	bpf_alloc_detach(alloc);
	ring_buffer__free(take_ptr(alloc->ring));
	alloc_bpf__destroy(take_ptr(alloc->skel));
	bpf_processes_deinit(&alloc->processes);
	alloc->processes = (struct bpf_processes){ 0 };
}

/* With multi-probes where the kernel has them. */
static int prepare(struct bpf_alloc *alloc, bool old_probes, struct err *err) {
	int r;

	alloc->multi = !old_probes;
	r = load(alloc);
	if (!r)
		r = measure(alloc);
	if (alloc->multi && (r == -EINVAL || r == -EOPNOTSUPP)) {
		unload(alloc);
		bpf_prepare();
		alloc->multi = false;
		r = load(alloc);
		if (!r)
			r = measure(alloc);
	}
	if (!alloc->multi && (r == -EPERM || r == -EACCES))
		return err_set(err, PYSPYD_E_DENIED,
			"probes in allocators: not permitted (CAP_SYS_ADMIN; CAP_BPF and CAP_PERFMON from Linux 6.6 "
			"on)");
	return r ? bpf_explain(err, r, "probes in allocators (from Linux 5.15 on)") : 0;
}

int bpf_alloc_attach(struct bpf_alloc *alloc, struct err *err) {
	int r = attach_files(alloc, alloc->places.files, ALLOC_FILES, alloc->pid);

	return r ? bpf_explain(err, r, "probes in the process's allocators") : 0;
}

void bpf_alloc_watch(struct bpf_alloc *alloc, bool watching) {
	__atomic_store_n(&alloc->skel->bss->watching, watching, __ATOMIC_RELAXED);
}

static int aim(struct bpf_alloc *alloc, const struct bpf_alloc_options *options, struct err *err) {
	set_distance(alloc, options->every_bytes);
	bpf_alloc_watch(alloc, false);
	alloc->skel->bss->target = (uint32_t)alloc->pid;
	for (size_t i = 0; i < ALLOC_FILES; i++)
		alloc->probes += alloc->places.files[i].probes.n;
	return bpf_alloc_attach(alloc, err);
}

static int tell_process(struct bpf_alloc *alloc, const struct py_runtime *rt, struct err *err) {
	int r = bpf_processes_add(&alloc->processes, rt, alloc->pid);

	if (r == PYSPYD_E_UNSUPPORTED)
		return err_set(err, r, "the program cannot read this interpreter's frames");
	return r > 0 ? err_set(err, PYSPYD_E_GONE, "process %d has ended", (int)alloc->pid) : r;
}

int bpf_alloc_new(const struct bpf_alloc_options *options, const struct proc *proc, const struct py_runtime *rt,
	struct bpf_alloc **ret_alloc, struct err *err) {
	struct bpf_alloc *alloc;
	int r;

	if (!MEASURED)
		return err_set(err, PYSPYD_E_UNSUPPORTED, "allocations can be sampled on x86-64 only");
	alloc = calloc(1, sizeof(*alloc));
	if (!alloc)
		return -ENOMEM;
	alloc->pid = proc->pid;
	alloc->holder.fd = -1;
	alloc->cpus = max_of(libbpf_num_possible_cpus(), 1);
	for (size_t i = 0; i < ALLOC_FILES; i++)
		alloc->places.files[i].fd = -1;
	bpf_prepare();
	r = alloc_places_find(proc, rt->reader.mem, options->native, &alloc->places, err);
	if (!r)
		r = prepare(alloc, options->old_probes, err);
	if (!r)
		r = tell_process(alloc, rt, err);
	if (!r)
		r = aim(alloc, options, err);
	if (r) {
		bpf_alloc_free(alloc);
		return r;
	}
	*ret_alloc = alloc;
	return 0;
}

void bpf_alloc_free(struct bpf_alloc *alloc) {
	if (!alloc)
		return;
	unload(alloc);
	alloc_places_deinit(&alloc->places);
	free(alloc);
}

int bpf_alloc_set_threads(
	struct bpf_alloc *alloc, const struct py_runtime *rt, const struct py_thread *const *threads, size_t n) {
	int r = bpf_processes_add(&alloc->processes, rt, alloc->pid);

	return r ? r : bpf_processes_set_threads(&alloc->processes, alloc->pid, threads, n);
}

void bpf_alloc_wait(struct bpf_alloc *alloc, uint64_t timeout_ns) {
	const struct timespec timeout = { .tv_sec = (time_t)(timeout_ns / NS_PER_SEC),
		.tv_nsec = (long)(timeout_ns % NS_PER_SEC) };
	struct pollfd fd = { .fd = ring_buffer__epoll_fd(alloc->ring), .events = POLLIN };

	ppoll(&fd, 1, &timeout, NULL);
}

void bpf_alloc_take(struct bpf_alloc *alloc,
	void (*on_event)(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames),
	void *userdata) {
	alloc->on_event = on_event;
	alloc->userdata = userdata;
	(void)!ring_buffer__consume(alloc->ring);
}

static void add_counts(struct bpf_alloc *alloc, struct bpf_alloc_counts *ret) {
	size_t bytes = (size_t)alloc->cpus * sizeof(struct pyb_alloc_cpu);
	struct pyb_alloc_cpu *cpus _free_ = calloc(1, bytes);
	uint32_t key = 0;

	if (!cpus || bpf_map__lookup_elem(alloc->skel->maps.cpus, &key, sizeof(key), cpus, bytes, 0))
		return;
	for (int cpu = 0; cpu < alloc->cpus; cpu++) {
		ret->hits += cpus[cpu].hits;
		ret->others += cpus[cpu].others;
		ret->inner += cpus[cpu].inner;
		ret->bytes += cpus[cpu].bytes;
		ret->spent_ns += cpus[cpu].hits * ret->hit_ns + cpus[cpu].walk_ns;
	}
}

void bpf_alloc_counts(struct bpf_alloc *alloc, struct bpf_alloc_counts *ret) {
	uint64_t *values _free_ = calloc((size_t)alloc->cpus, sizeof(*values));

	*ret = (struct bpf_alloc_counts){
		.hit_ns = alloc->hit_ns, .probes = alloc->probes, .not_seen = alloc->places.not_seen
	};
	add_counts(alloc, ret);
	for (uint32_t what = 0; values && what < PYB_COUNTS; what++) {
		if (bpf_map__lookup_elem(alloc->skel->maps.counts, &what, sizeof(what), values,
			    (size_t)alloc->cpus * sizeof(*values), 0))
			continue;
		for (int cpu = 0; cpu < alloc->cpus; cpu++)
			ret->by[what] += values[cpu];
	}
}
