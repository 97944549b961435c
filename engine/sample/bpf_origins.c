/* SPDX-License-Identifier: MIT */
/* The origins programs' user side: loads and attaches them, tells them of processes, reads what they wrote down.
 *
 * Records are the kernel's: they come and go with what they are of. Those that cannot be right any more are left out
 * when they are read: older than the process's being watched, in a range that was closed, or of what may have gone in a
 * pause.
 *
 * Each system call of the host passes the program, which takes the kernel as long as a short one does. What that is
 * here is measured with our own calls; how many there are is counted. Where a watched process or a CPU would be slowed
 * too much, the program is away for a part of the time (duty.h). */
#include "engine/sample/bpf_origins.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/sample/bpf.h"
#include "engine/sample/duty.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "origins.skel.h"

#define BATCH 4096
#define LOOK_NS (100 * NS_PER_MS)
#define LIMIT_PCT 6                /* of a process's, or of a CPU's, time */
#define START_NS (250 * NS_PER_MS) /* of a process's time that earns a beginning */
#define STOOD_NS (10 * NS_PER_MS)
#define PAUSES_MAX 4096
#define BUSY_CACHES 1.5    /* where something is done between two calls (measured: bench/origins.py) */
#define PASS_LEAST_NS 10.0 /* less has not been seen, when nothing disturbed the measurement */
#define LOOK_LEAST_NS 30.0
#define MEASURE_ROUNDS 16
#define MEASURE_CALLS 200
#define LINKS 3

/* What is watched. */
struct watch {
	pid_t pid;
	uint32_t index; /* of the kernel's tables */
	clockid_t cpu_clock;
	uint64_t since_ns;
	struct duty duty;
};

/* What a system call costs more that passes the program, in a process that is watched. */
struct cost {
	double pass_ns, look_ns; /* one that makes nothing; one that makes or closes a descriptor */
};

struct bpf_origins {
	struct origins_bpf *skel;
	struct ring_buffer *ring;
	struct bpf_link *links[LINKS], *calls; /* `calls` is NULL in a pause */
	struct bpf_processes processes;
	VEC(struct watch) watches;
	struct cost cost;
	uint64_t looked_ns, attached_ns;
	VEC(uint64_t) pauses; /* when each of the last ones began */
	uint64_t pauses_n, paused_ns;
	uint64_t *values; /* one for each CPU */
	struct duty *cpu_duties;
	struct pyb_watched_cpu *watched_cpus;
	struct pyb_watched *watched;
	int cpus;
	bool held;
	void (*on_stack)(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames);
	void *userdata;
};

static int on_ring(void *context, void *data, size_t size) {
	struct bpf_origins *origins = context;
	const struct pyb_event *event = data;

	if (size < sizeof(*event) || event->frames_n > (size - sizeof(*event)) / sizeof(struct pyb_frame))
		return 0;
	origins->on_stack(origins->userdata, event, (const struct pyb_frame *)(event + 1));
	return 0;
}

static int load(struct bpf_origins *origins) {
	int r;

	origins->skel = origins_bpf__open();
	if (!origins->skel)
		return -errno;
	r = origins_bpf__load(origins->skel);
	if (!r)
		r = bpf_run_here(bpf_program__fd(origins->skel->progs.learn_own_ids));
	if (r)
		return r;
	bpf_processes_init(&origins->processes, bpf_map__fd(origins->skel->maps.processes),
		bpf_map__fd(origins->skel->maps.threads));
	origins->ring = ring_buffer__new(bpf_map__fd(origins->skel->maps.ring), on_ring, origins, NULL);
	return origins->ring ? 0 : -errno;
}

/* Those that cost little, and stay. */
static int attach(struct bpf_origins *origins) {
	struct bpf_program *const programs[LINKS] = { origins->skel->progs.on_fork, origins->skel->progs.on_exit,
		origins->skel->progs.on_exec };

	for (size_t i = 0; i < LINKS; i++) {
		origins->links[i] = bpf_program__attach(programs[i]);
		if (!origins->links[i])
			return -errno;
	}
	return 0;
}

static int attach_calls(struct bpf_origins *origins) {
	origins->calls = bpf_program__attach(origins->skel->progs.on_sys_exit);
	if (!origins->calls)
		return -errno;
	origins->attached_ns = clock_mono_ns();
	return 0;
}

static void detach_calls(struct bpf_origins *origins) {
	bpf_link__destroy(origins->calls);
	origins->calls = NULL;
}

/* A slot of the bucket that has this pid. Return: NULL: none. */
static struct pyb_slot *find_slot(const struct bpf_origins *origins, uint32_t bucket_of, uint32_t pid) {
	struct pyb_slot *slots = &origins->skel->bss->slots[(size_t)(bucket_of % PYB_BUCKETS) * PYB_SLOTS];

	for (size_t i = 0; i < PYB_SLOTS; i++)
		if (__atomic_load_n(&slots[i].pid, __ATOMIC_RELAXED) == pid)
			return &slots[i];
	return NULL;
}

static bool is_index_used(const struct bpf_origins *origins, uint32_t index) {
	vec_foreach (watch, &origins->watches)
		if (watch->index == index)
			return true;
	return false;
}

static void hide(struct bpf_origins *origins, pid_t pid) {
	struct pyb_slot *slot = find_slot(origins, (uint32_t)pid, (uint32_t)pid);

	if (slot)
		__atomic_store_n(&slot->pid, 0, __ATOMIC_RELEASE);
}

/* Begins a process's account in the kernel. Return: 0; -ENOSPC; negative errno. */
static int show(struct bpf_origins *origins, pid_t pid, const struct pyb_watched *account, uint32_t *ret_index) {
	struct pyb_slot *slot = find_slot(origins, (uint32_t)pid, 0);
	uint32_t index = 0;
	int r;

	while (index < PYB_WATCHED_MAX && is_index_used(origins, index))
		index++;
	if (!slot || index == PYB_WATCHED_MAX)
		return -ENOSPC;
	memset(origins->watched_cpus, 0, (size_t)origins->cpus * sizeof(*origins->watched_cpus));
	r = bpf_map__update_elem(
		origins->skel->maps.watched, &index, sizeof(index), account, sizeof(*account), BPF_ANY);
	if (!r)
		r = bpf_map__update_elem(origins->skel->maps.watched_cpus, &index, sizeof(index), origins->watched_cpus,
			(size_t)origins->cpus * sizeof(*origins->watched_cpus), BPF_ANY);
	if (r)
		return r;
	slot->index = index;
	__atomic_store_n(&slot->pid, (uint32_t)pid, __ATOMIC_RELEASE);
	*ret_index = index;
	return 0;
}

static int by_time(const void *a, const void *b) {
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* One of them. `fd`: it is doubled and closed; -1: a call that makes nothing. */
static double time_calls(int fd) {
	uint64_t ns[MEASURE_ROUNDS];

	for (size_t i = 0; i < MEASURE_ROUNDS; i++) {
		uint64_t begin = clock_mono_ns();

		for (size_t j = 0; j < MEASURE_CALLS; j++) {
			if (fd < 0)
				syscall(SYS_getppid);
			else
				close(dup(fd));
		}
		ns[i] = clock_mono_ns() - begin;
	}
	qsort(ns, MEASURE_ROUNDS, sizeof(ns[0]), by_time);
	return (double)ns[MEASURE_ROUNDS / 2] / MEASURE_CALLS;
}

/* What calls cost more, by our own, as one who has used up his budget: beside the faster of before and after, since a
 * busy host makes both slower. */
static int measure(struct bpf_origins *origins) {
	int fd = bpf_map__fd(origins->skel->maps.watched), r;
	double pass_ns = time_calls(-1), look_ns = time_calls(fd), passed_ns = 0, looked_ns = 0;
	uint32_t index;

	*origins->watched = (struct pyb_watched){ .spent_ns = UINT64_MAX / 2, .window_ns = clock_mono_ns() };
	r = show(origins, getpid(), origins->watched, &index);
	if (!r)
		r = attach_calls(origins);
	if (!r) {
		passed_ns = time_calls(-1);
		looked_ns = time_calls(fd);
	}
	detach_calls(origins);
	hide(origins, getpid());
	pass_ns = passed_ns - min_of(pass_ns, time_calls(-1));
	look_ns = (looked_ns - min_of(look_ns, time_calls(fd))) / 2;
	origins->cost = (struct cost){ .pass_ns = BUSY_CACHES * max_of(pass_ns, PASS_LEAST_NS),
		.look_ns = BUSY_CACHES * max_of(look_ns, LOOK_LEAST_NS) };
	return r;
}

static int begin(struct bpf_origins *origins) {
	int r = measure(origins);

	if (!r)
		r = attach(origins);
	return r ? r : attach_calls(origins);
}

static int allocate(struct bpf_origins *origins) {
	size_t n = (size_t)max_of(libbpf_num_possible_cpus(), 1);

	origins->cpus = (int)n;
	origins->values = calloc(n, sizeof(*origins->values));
	origins->cpu_duties = calloc(n, sizeof(*origins->cpu_duties));
	origins->watched_cpus = calloc(n, sizeof(*origins->watched_cpus));
	origins->watched = calloc(1, sizeof(*origins->watched));
	return origins->values && origins->cpu_duties && origins->watched_cpus && origins->watched ? 0 : -ENOMEM;
}

int bpf_origins_new(struct bpf_origins **ret_origins, struct err *err) {
	struct bpf_origins *origins = calloc(1, sizeof(*origins));
	int r;

	if (!origins || allocate(origins)) {
		bpf_origins_free(origins);
		return -ENOMEM;
	}
	bpf_prepare();
	r = load(origins);
	if (r) {
		r = bpf_explain(err, r, "loading the programs that see what is opened");
	} else {
		r = begin(origins);
		if (r)
			r = bpf_explain(err, r, "attaching the programs that see what is opened");
	}
	if (r) {
		bpf_origins_free(origins);
		return r;
	}
	for (int cpu = 0; cpu < origins->cpus; cpu++)
		duty_init(&origins->cpu_duties[cpu], LIMIT_PCT, START_NS, origins->attached_ns, 0);
	*ret_origins = origins;
	return 0;
}

void bpf_origins_free(struct bpf_origins *origins) {
	if (!origins)
		return;
	detach_calls(origins);
	for (size_t i = 0; i < LINKS; i++)
		bpf_link__destroy(origins->links[i]);
	bpf_processes_deinit(&origins->processes);
	ring_buffer__free(origins->ring);
	origins_bpf__destroy(origins->skel);
	vec_free(&origins->watches);
	vec_free(&origins->pauses);
	free(origins->values);
	free(origins->cpu_duties);
	free(origins->watched_cpus);
	free(origins->watched);
	free(origins);
}

static struct watch *find_watch(struct bpf_origins *origins, pid_t pid) {
	vec_foreach (watch, &origins->watches)
		if (watch->pid == pid)
			return watch;
	return NULL;
}

static uint64_t cpu_ns(const struct watch *watch) {
	struct timespec t = { 0 };

	clock_gettime(watch->cpu_clock, &t);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

/* A process that is told of again, as its interpreters may be others now, goes on. */
int bpf_origins_add(struct bpf_origins *origins, const struct py_runtime *rt, pid_t pid) {
	struct watch watch = { .pid = pid, .since_ns = clock_mono_ns() };
	int r = bpf_processes_add(&origins->processes, rt, pid);

	if (r || find_watch(origins, pid))
		return r;
	r = -clock_getcpuclockid(pid, &watch.cpu_clock);
	*origins->watched = (struct pyb_watched){ 0 };
	if (!r)
		r = show(origins, pid, origins->watched, &watch.index);
	duty_init(&watch.duty, LIMIT_PCT, START_NS, cpu_ns(&watch), 0);
	if (!r)
		r = vec_push(&origins->watches, watch);
	if (r)
		bpf_origins_remove(origins, pid);
	return r;
}

int bpf_origins_set_threads(struct bpf_origins *origins, pid_t pid, const struct py_thread *const *threads, size_t n) {
	return bpf_processes_set_threads(&origins->processes, pid, threads, n);
}

void bpf_origins_remove(struct bpf_origins *origins, pid_t pid) {
	struct watch *watch = find_watch(origins, pid);

	hide(origins, pid);
	bpf_processes_remove(&origins->processes, pid);
	if (watch)
		*watch = origins->watches.items[--origins->watches.n];
}

void bpf_origins_wait(struct bpf_origins *origins, int timeout_ms) {
	struct epoll_event event;

	(void)!epoll_wait(ring_buffer__epoll_fd(origins->ring), &event, 1, timeout_ms);
}

void bpf_origins_take(struct bpf_origins *origins,
	void (*on_stack)(void *userdata, const struct pyb_event *event, const struct pyb_frame *frames),
	void *userdata) {
	origins->on_stack = on_stack;
	origins->userdata = userdata;
	(void)!ring_buffer__consume(origins->ring);
}

void bpf_origins_retell(struct bpf_origins *origins) {
	int fd = bpf_map__fd(origins->skel->maps.told);
	uint64_t key, next = 0;
	bool has = !bpf_map_get_next_key(fd, NULL, &key);

	while (has) {
		has = !bpf_map_get_next_key(fd, &key, &next);
		bpf_map_delete_elem(fd, &key);
		key = next;
	}
}

/* What has been counted for a process, on all CPUs. */
static struct pyb_watched_cpu counts_of(struct bpf_origins *origins, const struct watch *watch) {
	struct pyb_watched_cpu sum = { 0 };

	if (bpf_map__lookup_elem(origins->skel->maps.watched_cpus, &watch->index, sizeof(watch->index),
		    origins->watched_cpus, (size_t)origins->cpus * sizeof(*origins->watched_cpus), 0))
		return sum;
	for (int cpu = 0; cpu < origins->cpus; cpu++) {
		sum.calls += origins->watched_cpus[cpu].calls;
		sum.looked += origins->watched_cpus[cpu].looked;
		sum.left_out += origins->watched_cpus[cpu].left_out;
	}
	return sum;
}

static int read_account(struct bpf_origins *origins, const struct watch *watch) {
	return bpf_map__lookup_elem(origins->skel->maps.watched, &watch->index, sizeof(watch->index), origins->watched,
		sizeof(*origins->watched), 0);
}

static bool can_pay(struct bpf_origins *origins, struct watch *watch) {
	const struct cost *cost = &origins->cost;
	struct pyb_watched_cpu counts = counts_of(origins, watch);
	double spent_ns = (double)counts.calls * cost->pass_ns +
		(double)counts.looked * max_of(cost->look_ns - cost->pass_ns, 0.0);

	if (!read_account(origins, watch))
		spent_ns += (double)origins->watched->all_ns;
	return duty_step(&watch->duty, cpu_ns(watch), (uint64_t)spent_ns);
}

/* The host's other processes pay as well. */
static bool can_cpus_pay(struct bpf_origins *origins, uint64_t now_ns) {
	uint32_t what = PYB_CALLS;
	bool can = true;

	if (bpf_map__lookup_elem(origins->skel->maps.counts, &what, sizeof(what), origins->values,
		    (size_t)origins->cpus * sizeof(*origins->values), 0))
		return true;
	for (int cpu = 0; cpu < origins->cpus; cpu++)
		can &= duty_step(&origins->cpu_duties[cpu], now_ns,
			(uint64_t)((double)origins->values[cpu] * origins->cost.pass_ns));
	return can;
}

static void begin_pause(struct bpf_origins *origins) {
	if (origins->pauses.n >= PAUSES_MAX) {
		origins->pauses.n /= 2;
		memmove(origins->pauses.items, origins->pauses.items + PAUSES_MAX / 2,
			origins->pauses.n * sizeof(*origins->pauses.items));
	}
	if (vec_push(&origins->pauses, clock_mono_ns()))
		return; /* without it nobody could tell what was made just before */
	detach_calls(origins);
	origins->pauses_n++;
}

static void end_pause(struct bpf_origins *origins) {
	if (!attach_calls(origins))
		origins->paused_ns += origins->attached_ns - origins->pauses.items[origins->pauses.n - 1];
}

void bpf_origins_tend(struct bpf_origins *origins, uint64_t now_ns) {
	bool can = !origins->held;

	if (now_ns - origins->looked_ns < LOOK_NS)
		return;
	origins->looked_ns = now_ns;
	can &= can_cpus_pay(origins, now_ns);
	vec_foreach (watch, &origins->watches)
		can &= can_pay(origins, watch);
	if (!can && origins->calls)
		begin_pause(origins);
	else if (can && !origins->calls)
		end_pause(origins);
}

void bpf_origins_hold(struct bpf_origins *origins, bool held) {
	origins->held = held;
	if (held && origins->calls)
		begin_pause(origins);
	else if (!held && !origins->calls)
		end_pause(origins);
}

struct listing {
	const struct bpf_origins *origins;
	pid_t pid;
	uint64_t since_ns;
	const struct pyb_watched *watched;
	bpf_origin_vec *list;
	struct pyb_origin_key *keys;
	struct pyb_origin *values;
};

/* When the first pause behind a moment began; UINT64_MAX: there was none. */
static uint64_t pause_behind(const struct bpf_origins *origins, uint64_t ns) {
	size_t low = 0, high = origins->pauses.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (origins->pauses.items[middle] < ns)
			low = middle + 1;
		else
			high = middle;
	}
	return low < origins->pauses.n ? origins->pauses.items[low] : UINT64_MAX;
}

/* What was made before a pause may have gone in it, and its number may be another one's. Threads and children are
 * seen all the time. What had stood for a while may stand still: a descriptor does where its file is the same. */
static bool may_stand(const struct bpf_origins *origins, const struct pyb_origin_key *key,
	const struct pyb_origin *value, bool *ret_unsure) {
	uint64_t pause = pause_behind(origins, value->time_ns);

	*ret_unsure = key->what == PYB_FD && pause != UINT64_MAX;
	if (pause == UINT64_MAX || key->what == PYB_THREAD || key->what == PYB_CHILD)
		return true;
	return key->what == PYB_FD && value->inode && pause - value->time_ns >= STOOD_NS;
}

static int take_record(struct listing *listing, const struct pyb_origin_key *key, const struct pyb_origin *value) {
	const struct pyb_watched *watched = listing->watched;
	bool unsure;

	if (key->pid != (uint32_t)listing->pid || key->what > PYB_MAPPING || value->time_ns < listing->since_ns)
		return 0;
	if (key->what == PYB_FD && value->time_ns < watched->closed_ns && key->id >= watched->closed_from &&
		key->id <= watched->closed_to)
		return 0;
	if (!may_stand(listing->origins, key, value, &unsure))
		return 0;
	return vec_push(listing->list,
		((struct bpf_origin){
			.id = key->id, .what = (enum pyb_origin_what)key->what, .made = *value, .unsure = unsure }));
}

static int list_map(struct listing *listing, int fd) {
	uint32_t place = 0, next = 0;
	bool begun = false, more = true;
	int r = 0;

	while (more && !r) {
		uint32_t n = BATCH;

		r = bpf_map_lookup_batch(fd, begun ? &place : NULL, &next, listing->keys, listing->values, &n, NULL);
		more = !r;
		if (r == -ENOENT)
			r = 0;
		for (uint32_t i = 0; !r && i < n; i++)
			r = take_record(listing, &listing->keys[i], &listing->values[i]);
		place = next;
		begun = true;
	}
	return r;
}

int bpf_origins_list(struct bpf_origins *origins, pid_t pid, bpf_origin_vec *ret_list, uint64_t *ret_left_out) {
	const struct watch *watch = find_watch(origins, pid);
	struct listing listing = { .origins = origins, .pid = pid, .watched = origins->watched, .list = ret_list };
	int r = watch ? read_account(origins, watch) : -ESRCH;

	if (!r && origins->watched->gone)
		r = -ESRCH;
	if (r)
		return r;
	listing.keys = calloc(BATCH, sizeof(*listing.keys));
	listing.values = calloc(BATCH, sizeof(*listing.values));
	listing.since_ns = watch->since_ns;
	r = listing.keys && listing.values ? 0 : -ENOMEM;
	if (!r)
		r = list_map(&listing, bpf_map__fd(origins->skel->maps.fds));
	if (!r)
		r = list_map(&listing, bpf_map__fd(origins->skel->maps.others));
	if (!r)
		*ret_left_out = counts_of(origins, watch).left_out;
	free(listing.keys);
	free(listing.values);
	return r;
}

void bpf_origins_counts(struct bpf_origins *origins, struct bpf_origins_counts *ret) {
	uint64_t *values = origins->values;

	*ret = (struct bpf_origins_counts){ .pauses = origins->pauses_n, .paused_ns = origins->paused_ns };
	if (!origins->calls)
		ret->paused_ns += clock_mono_ns() - origins->pauses.items[origins->pauses.n - 1];
	for (uint32_t what = 0; what < PYB_ORIGIN_COUNTS; what++) {
		if (bpf_map__lookup_elem(origins->skel->maps.counts, &what, sizeof(what), values,
			    (size_t)origins->cpus * sizeof(*values), 0))
			continue;
		for (int cpu = 0; cpu < origins->cpus; cpu++)
			ret->by[what] += values[cpu];
	}
}
