/* SPDX-License-Identifier: MIT */
/* The task iterator's user side. The program stays attached to nothing but its link: each pass makes a reader of the
 * link, and reads it to its end. Who is watched stands in memory that both sides have mapped. */
#include "engine/sample/bpf_tasks.h"

#include "bpf/tasks.h"
#include "engine/base/util.h"
#include "engine/sample/bpf.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "tasks.skel.h"

#define WORD_BITS 64
#define CHUNK (32U << 10)    /* the kernel fills no more at once */
#define TASKS_MAX (1U << 22) /* of one pass: the kernel has no more */

struct bpf_tasks {
	struct tasks_bpf *skel;
	struct bpf_link *link;
	uint64_t *watched; /* mapped */
	size_t words_n;
	char buf[CHUNK];
};

/* Bits of the kernel's include/linux/sched.h that /proc shows (TASK_REPORT), and the letters of fs/proc/array.c: the
 * highest one counts. */
#define STATE_UNINTERRUPTIBLE 0x2U
#define STATE_SHOWN 0x7fU
#define STATE_IDLE 0x402U
#define STATE_RTLOCK 0x1000U
#define STATE_FROZEN 0x8000U

char bpf_tasks_state(uint32_t bits) {
	static const char letters[] = "SDTtXZP";
	uint32_t shown = bits & STATE_SHOWN;

	if (bits & (STATE_RTLOCK | STATE_FROZEN))
		shown = STATE_UNINTERRUPTIBLE;
	else if ((bits & STATE_IDLE) == STATE_IDLE)
		return 'I';
	return shown ? letters[31 - __builtin_clz(shown)] : 'R';
}

size_t bpf_tasks_take(const void *data, size_t len, bpf_tasks_sink sink, void *userdata) {
	size_t used = 0;

	for (; len - used >= sizeof(struct pyt_task); used += sizeof(struct pyt_task)) {
		struct pyt_task from;

		memcpy(&from, (const char *)data + used, sizeof(from));
		if ((pid_t)from.pid <= 0 || (pid_t)from.tid <= 0)
			continue;
		sink(userdata,
			&(struct bpf_task){
				.pid = (pid_t)from.pid,
				.tid = (pid_t)from.tid,
				.state = bpf_tasks_state(from.state),
				.cpu = (int)from.cpu,
				.run_ns = from.run_ns,
				.wait_ns = from.wait_ns,
				.slices = from.slices,
				.voluntary = from.voluntary,
				.involuntary = from.involuntary,
				.start_ns = from.start_ns,
			});
	}
	return used;
}

static int map_watched(struct bpf_tasks *tasks) {
	void *p = mmap(NULL, tasks->words_n * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED,
		bpf_map__fd(tasks->skel->maps.watched), 0);

	if (p == MAP_FAILED)
		return -errno;
	tasks->watched = p;
	return 0;
}

static int load(struct bpf_tasks *tasks) {
	int r;

	tasks->skel = tasks_bpf__open();
	if (!tasks->skel)
		return -errno;
	tasks->words_n = (bpf_pids_max() + WORD_BITS - 1) / WORD_BITS;
	tasks->skel->rodata->words_n = (uint32_t)tasks->words_n;
	r = bpf_map__set_max_entries(tasks->skel->maps.watched, (uint32_t)tasks->words_n);
	if (!r)
		r = tasks_bpf__load(tasks->skel);
	if (!r)
		r = bpf_run_here(bpf_program__fd(tasks->skel->progs.learn_own_ids));
	if (!r)
		r = map_watched(tasks);
	if (r)
		return r;
	tasks->link = bpf_program__attach_iter(tasks->skel->progs.tell_tasks, NULL);
	return tasks->link ? 0 : -errno;
}

int bpf_tasks_new(struct bpf_tasks **ret_tasks, struct err *err) {
	struct bpf_tasks *tasks = calloc(1, sizeof(*tasks));
	int r;

	if (!tasks)
		return -ENOMEM;
	bpf_prepare();
	r = load(tasks);
	if (r) {
		r = bpf_explain(err, r, "loading the program that goes through the tasks");
		bpf_tasks_free(tasks);
		return r;
	}
	*ret_tasks = tasks;
	return 0;
}

void bpf_tasks_free(struct bpf_tasks *tasks) {
	if (!tasks)
		return;
	bpf_link__destroy(tasks->link);
	if (tasks->watched)
		munmap(tasks->watched, tasks->words_n * sizeof(uint64_t));
	tasks_bpf__destroy(tasks->skel);
	free(tasks);
}

void bpf_tasks_watch(struct bpf_tasks *tasks, pid_t pid, bool on) {
	size_t word = (size_t)pid / WORD_BITS;
	uint64_t bit = 1ULL << (size_t)pid % WORD_BITS;

	if (pid <= 0 || word >= tasks->words_n)
		return;
	if (on)
		__atomic_fetch_or(&tasks->watched[word], bit, __ATOMIC_RELAXED);
	else
		__atomic_fetch_and(&tasks->watched[word], ~bit, __ATOMIC_RELAXED);
}

/* Takes what comes until the end. A record may come in two pieces. */
static int read_all(struct bpf_tasks *tasks, int fd, bpf_tasks_sink sink, void *userdata) {
	size_t kept = 0, all = 0;

	while (all < (size_t)TASKS_MAX * sizeof(struct pyt_task)) {
		ssize_t n = read(fd, tasks->buf + kept, sizeof(tasks->buf) - kept);
		size_t used;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return n ? -errno : 0;
		all += (size_t)n;
		kept += (size_t)n;
		used = bpf_tasks_take(tasks->buf, kept, sink, userdata);
		kept -= used;
		memmove(tasks->buf, tasks->buf + used, kept);
	}
	return -E2BIG;
}

int bpf_tasks_read(struct bpf_tasks *tasks, bool everybody, bpf_tasks_sink sink, void *userdata) {
	int fd, r;

	tasks->skel->bss->everybody = everybody;
	tasks->skel->bss->visited = 0;
	fd = bpf_iter_create(bpf_link__fd(tasks->link));
	if (fd < 0)
		return fd;
	r = read_all(tasks, fd, sink, userdata);
	close(fd);
	return r;
}

uint64_t bpf_tasks_visited(const struct bpf_tasks *tasks) {
	return tasks->skel->bss->visited;
}
