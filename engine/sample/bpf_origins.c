/* SPDX-License-Identifier: MIT */
/* The origins programs' user side: loads and attaches them, tells them of processes, reads what they wrote down.
 *
 * Records are the kernel's: they come and go with what they are of. Those that cannot be right any more are left out
 * when they are read: older than the process's being watched, than the last pause, or in a range that was closed. */
#include "engine/sample/bpf_origins.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/sample/bpf.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <sys/epoll.h>

#include "origins.skel.h"

#define BATCH 4096
#define LOOK_NS (100 * NS_PER_MS)
#define CALL_NS 15     /* what the program costs a system call that is not of interest */
#define CALLS_PCT 8    /* of a CPU's time, for that */
#define PAUSE_LOOKS 20 /* a pause is so many times as long as what it follows */
#define LINKS 4

struct since {
	pid_t pid;
	uint64_t ns;
};

struct bpf_origins {
	struct origins_bpf *skel;
	struct ring_buffer *ring;
	struct bpf_link *links[LINKS];
	struct bpf_processes processes;
	VEC(struct since) since; /* from when on each process is watched */
	uint64_t attached_ns;
	uint64_t looked_ns, paused_until_ns;
	uint64_t *calls, *calls_before; /* of each CPU */
	int cpus;
	uint64_t pauses;
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

static void detach(struct bpf_origins *origins) {
	for (size_t i = 0; i < LINKS; i++) {
		bpf_link__destroy(origins->links[i]);
		origins->links[i] = NULL;
	}
}

static int attach(struct bpf_origins *origins) {
	struct bpf_program *const programs[LINKS] = { origins->skel->progs.on_sys_exit, origins->skel->progs.on_fork,
		origins->skel->progs.on_exit, origins->skel->progs.on_exec };

	for (size_t i = 0; i < LINKS; i++) {
		origins->links[i] = bpf_program__attach(programs[i]);
		if (!origins->links[i]) {
			int r = -errno;

			detach(origins);
			return r;
		}
	}
	origins->attached_ns = clock_mono_ns();
	return 0;
}

int bpf_origins_new(struct bpf_origins **ret_origins, struct err *err) {
	struct bpf_origins *origins = calloc(1, sizeof(*origins));
	int r;

	if (!origins)
		return -ENOMEM;
	bpf_prepare();
	origins->cpus = max_of(libbpf_num_possible_cpus(), 1);
	origins->calls = calloc((size_t)origins->cpus, sizeof(*origins->calls));
	origins->calls_before = calloc((size_t)origins->cpus, sizeof(*origins->calls_before));
	if (!origins->calls || !origins->calls_before) {
		bpf_origins_free(origins);
		return -ENOMEM;
	}
	r = load(origins);
	if (r) {
		r = bpf_explain(err, r, "loading the programs that see what is opened");
	} else {
		r = attach(origins);
		if (r)
			r = bpf_explain(err, r, "attaching the programs that see what is opened");
	}
	if (r) {
		bpf_origins_free(origins);
		return r;
	}
	*ret_origins = origins;
	return 0;
}

void bpf_origins_free(struct bpf_origins *origins) {
	if (!origins)
		return;
	detach(origins);
	bpf_processes_deinit(&origins->processes);
	ring_buffer__free(origins->ring);
	origins_bpf__destroy(origins->skel);
	vec_free(&origins->since);
	free(origins->calls);
	free(origins->calls_before);
	free(origins);
}

static struct since *find_since(struct bpf_origins *origins, pid_t pid) {
	vec_foreach (since, &origins->since)
		if (since->pid == pid)
			return since;
	return NULL;
}

/* A process that is told of again, as its interpreters may be others now, goes on. */
int bpf_origins_add(struct bpf_origins *origins, const struct py_runtime *rt, pid_t pid) {
	uint32_t key = (uint32_t)pid;
	struct pyb_watched *zero;
	int r = bpf_processes_add(&origins->processes, rt, pid);

	if (r || find_since(origins, pid))
		return r;
	zero = calloc(1, sizeof(*zero));
	r = zero ? bpf_map__update_elem(origins->skel->maps.watched, &key, sizeof(key), zero, sizeof(*zero), BPF_ANY)
		 : -ENOMEM;
	free(zero);
	if (!r)
		r = vec_push(&origins->since, (struct since){ .pid = pid, .ns = clock_mono_ns() });
	if (r)
		bpf_origins_remove(origins, pid);
	return r;
}

int bpf_origins_set_threads(struct bpf_origins *origins, pid_t pid, const struct py_thread *const *threads, size_t n) {
	return bpf_processes_set_threads(&origins->processes, pid, threads, n);
}

void bpf_origins_remove(struct bpf_origins *origins, pid_t pid) {
	struct since *since = find_since(origins, pid);
	uint32_t key = (uint32_t)pid;

	bpf_map__delete_elem(origins->skel->maps.watched, &key, sizeof(key), 0);
	bpf_processes_remove(&origins->processes, pid);
	if (since)
		*since = origins->since.items[--origins->since.n];
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

/* Return: whether some CPU makes too many calls. */
static bool is_busy(struct bpf_origins *origins, uint64_t passed_ns) {
	uint64_t most = passed_ns * CALLS_PCT / 100 / CALL_NS;
	uint32_t what = PYB_CALLS;
	uint64_t *before = origins->calls_before;
	bool busy = false;

	origins->calls_before = origins->calls;
	origins->calls = before;
	if (bpf_map__lookup_elem(origins->skel->maps.counts, &what, sizeof(what), origins->calls,
		    (size_t)origins->cpus * sizeof(*origins->calls), 0))
		return false;
	for (int cpu = 0; cpu < origins->cpus; cpu++)
		busy |= origins->calls[cpu] - origins->calls_before[cpu] > most;
	return busy;
}

void bpf_origins_tend(struct bpf_origins *origins, uint64_t now_ns) {
	uint64_t passed = now_ns - origins->looked_ns;

	if (origins->paused_until_ns) {
		if (now_ns < origins->paused_until_ns)
			return;
		if (attach(origins)) {
			origins->paused_until_ns = now_ns + PAUSE_LOOKS * LOOK_NS;
			return;
		}
		origins->paused_until_ns = 0;
		is_busy(origins, passed);
		origins->looked_ns = now_ns;
		return;
	}
	if (passed < LOOK_NS)
		return;
	if (is_busy(origins, passed) && origins->looked_ns) {
		detach(origins);
		origins->pauses++;
		origins->paused_until_ns = now_ns + PAUSE_LOOKS * passed;
	}
	origins->looked_ns = now_ns;
}

struct listing {
	pid_t pid;
	uint64_t since_ns;
	const struct pyb_watched *watched;
	bpf_origin_vec *list;
	struct pyb_origin_key *keys;
	struct pyb_origin *values;
};

static int take_record(struct listing *listing, const struct pyb_origin_key *key, const struct pyb_origin *value) {
	const struct pyb_watched *watched = listing->watched;

	if (key->pid != (uint32_t)listing->pid || key->what > PYB_MAPPING || value->time_ns < listing->since_ns)
		return 0;
	if (key->what == PYB_FD && value->time_ns < watched->closed_ns && key->id >= watched->closed_from &&
		key->id <= watched->closed_to)
		return 0;
	return vec_push(listing->list,
		((struct bpf_origin){ .id = key->id, .what = (enum pyb_origin_what)key->what, .made = *value }));
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
	const struct since *since = find_since(origins, pid);
	struct pyb_watched *watched = calloc(1, sizeof(*watched));
	struct listing listing = { .pid = pid, .watched = watched, .list = ret_list };
	uint32_t key = (uint32_t)pid;
	int r = -ENOMEM;

	listing.keys = calloc(BATCH, sizeof(*listing.keys));
	listing.values = calloc(BATCH, sizeof(*listing.values));
	if (watched && listing.keys && listing.values) {
		r = since ? bpf_map__lookup_elem(
				    origins->skel->maps.watched, &key, sizeof(key), watched, sizeof(*watched), 0)
			  : -ENOENT;
		r = r == -ENOENT ? -ESRCH : r;
	}
	if (!r) {
		listing.since_ns = max_of(since->ns, origins->attached_ns);
		r = list_map(&listing, bpf_map__fd(origins->skel->maps.fds));
	}
	if (!r)
		r = list_map(&listing, bpf_map__fd(origins->skel->maps.others));
	if (!r)
		*ret_left_out = watched->left_out;
	free(watched);
	free(listing.keys);
	free(listing.values);
	return r;
}

void bpf_origins_counts(struct bpf_origins *origins, struct bpf_origins_counts *ret) {
	uint64_t *values = calloc((size_t)origins->cpus, sizeof(*values));

	*ret = (struct bpf_origins_counts){ .pauses = origins->pauses };
	for (uint32_t what = 0; values && what < PYB_ORIGIN_COUNTS; what++) {
		if (bpf_map__lookup_elem(origins->skel->maps.counts, &what, sizeof(what), values,
			    (size_t)origins->cpus * sizeof(*values), 0))
			continue;
		for (int cpu = 0; cpu < origins->cpus; cpu++)
			ret->by[what] += values[cpu];
	}
	free(values);
}
