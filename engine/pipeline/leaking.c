/* SPDX-License-Identifier: MIT */
/* Jobs for one worker thread. A case is what is kept of one process: a first count and what grew since, first groups of
 * descriptors and what grew since. The worker owns a case while it is at work on it; what it found is handed over when
 * the watch asks next. Over time the worker takes a small part of one CPU: what it did not take for a while it may take
 * at once, when many processes leak together; beyond that it rests after a job. */
#include "engine/pipeline/leaking.h"

#include "engine/base/clock.h"
#include "engine/pipeline/handles_fds.h"
#include "engine/pipeline/heap_count.h"
#include <errno.h>

#define REST 20                    /* times what a job took: 5 % of a CPU */
#define CREDIT_NS (3 * NS_PER_SEC) /* of CPU time, saved up at most … */
#define DEBT_NS (30 * NS_PER_SEC)  /* … and owed: no rest is longer than ten minutes */
#define ROWS 8                     /* of types, containers and lines, that are kept as evidence */
#define GROUPS 12                  /* of descriptors */
#define WHY_MAX 160

/* The cheap ones come first: they need not wait for the others. */
enum job { JOB_NONE, JOB_FDS_FIRST, JOB_FDS_GROWTH, JOB_HEAP_FIRST, JOB_HEAP_GROWTH, JOBS };

struct groups {
	struct pyspyd_handle_group *all;
	size_t all_n;
	struct detect_group shown[GROUPS]; /* of those */
	size_t shown_n;
};

/* What the worker hands over. */
struct results {
	struct pyspyd_heap *heap;
	uint64_t heap_ns;
	struct groups fds;
	char why[WHY_MAX];
};

struct leak_case {
	struct leak_case *next;
	pid_t pid;
	uint64_t start_ticks;
	bool wished[JOBS];
	bool forgotten; /* nobody asks for it any more */

	/* The worker's, while it is at work on it; nobody else looks at them. */
	struct heap_count first;
	bool has_first;
	handle_item_vec first_fds;
	bool has_first_fds;

	struct results fresh; /* from the worker, by the lock */
	bool is_fresh;
	struct results told; /* what the detectors see */
};

struct leaking {
	pthread_t thread;
	pthread_mutex_t lock; /* of all cases, but for what is the worker's */
	pthread_cond_t changed;
	struct leak_case *cases;
	struct leak_case *busy; /* NULL: the worker rests */
	int64_t credit_ns;      /* CPU time that the worker may take before it has to rest … */
	uint64_t credited_ns;   /* … as of this time */
	bool stop;
	bool started;
};

static void free_groups(struct groups *groups) {
	handle_groups_free(groups->all, groups->all_n);
	*groups = (struct groups){ 0 };
}

static void free_results(struct results *results) {
	pyspyd_heap_free(results->heap);
	free_groups(&results->fds);
	*results = (struct results){ 0 };
}

static void forget_first(struct leak_case *leak) {
	heap_count_deinit(&leak->first);
	leak->first = (struct heap_count){ 0 };
	leak->has_first = false;
}

static void free_case(struct leak_case *leak) {
	forget_first(leak);
	handle_items_free(&leak->first_fds);
	free_results(&leak->fresh);
	free_results(&leak->told);
	free(leak);
}

/* Jobs. They are done without the lock; `stop` may be seen late. */

static bool on_progress(void *userdata, uint64_t done_bytes, uint64_t all_bytes) {
	struct leaking *leaking = userdata;
	bool stop;

	(void)done_bytes;
	(void)all_bytes;
	pthread_mutex_lock(&leaking->lock);
	stop = leaking->stop || leaking->busy->forgotten;
	pthread_mutex_unlock(&leaking->lock);
	return stop;
}

static int compare_heaps(struct sample_target *target, const struct leak_case *leak, const struct heap_count *now,
	struct results *results) {
	struct pyspyd_heap *heap = NULL;
	int r = heap_compare(target, &leak->first, now, ROWS, &heap);

	if (!r)
		r = heap_find_keepers(target, now, heap);
	if (r) {
		pyspyd_heap_free(heap);
		return r;
	}
	results->heap = heap;
	results->heap_ns = now->at_ns;
	return 0;
}

static int count_heap(struct leaking *leaking, struct leak_case *leak, struct sample_target *target, bool again,
	struct results *results, struct err *err) {
	const struct census_options options = {
		.flags = CENSUS_KEEP_PLACES,
		.progress = on_progress,
		.userdata = leaking,
	};
	struct heap_count now = { 0 };
	int r = heap_count_take(target, &options, again ? &leak->first : NULL, &now, err);

	if (!r && again)
		r = compare_heaps(target, leak, &now, results);
	if (!r && !again) {
		forget_first(leak);
		leak->first = now;
		leak->has_first = true;
		return 0;
	}
	heap_count_deinit(&now);
	return r;
}

static int do_heap(struct leaking *leaking, struct leak_case *leak, bool again, struct results *results) {
	struct sample_target *target = NULL;
	struct err err = { 0 };
	int r = sample_target_new(leak->pid, 0, &target, &err);

	if (!r)
		r = target->proc.start_ticks == leak->start_ticks
			? count_heap(leaking, leak, target, again && leak->has_first, results, &err)
			: PYSPYD_E_GONE;
	if (r && r != PYSPYD_E_GONE && r != -ECANCELED)
		snprintf(results->why, sizeof(results->why), "%.*s", WHY_MAX - 1,
			err.text[0] ? err.text : "the heap cannot be counted");
	sample_target_free(target);
	return r;
}

static int by_growth(const void *a, const void *b) {
	const struct pyspyd_handle_group *x = a, *y = b;

	if (x->grew != y->grew)
		return (x->grew < y->grew) - (x->grew > y->grew);
	return (x->count < y->count) - (x->count > y->count);
}

static int copy_items(const handle_item_vec *from, bool before, handle_item_vec *to) {
	int r = 0;

	for (size_t i = 0; !r && i < from->n; i++) {
		struct handle_item item = from->items[i];

		item.before = before;
		item.target = strdup(item.target);
		r = handle_add(to, &item);
	}
	return r;
}

static void show_groups(struct groups *groups) {
	qsort(groups->all, groups->all_n, sizeof(*groups->all), by_growth);
	groups->shown_n = min_of(groups->all_n, (size_t)GROUPS);
	for (size_t i = 0; i < groups->shown_n; i++)
		groups->shown[i] = (struct detect_group){
			.kind = groups->all[i].kind,
			.target = groups->all[i].target,
			.count = groups->all[i].count,
			.grew = groups->all[i].grew,
		};
}

static int group_fds(struct leak_case *leak, const struct proc *proc, bool again, struct results *results) {
	handle_item_vec items = { 0 };
	bool incomplete;
	uint64_t n;
	int r = again ? copy_items(&leak->first_fds, true, &items) : 0;

	if (!r)
		r = handles_read_fds(proc, !again, &items, &n, &incomplete);
	if (!r && again) {
		r = handle_groups(&items, &results->fds.all, &results->fds.all_n);
		if (!r && results->fds.all_n)
			show_groups(&results->fds);
	}
	if (!r && !again) {
		handle_items_free(&leak->first_fds);
		leak->first_fds = items;
		leak->has_first_fds = true;
		return 0;
	}
	handle_items_free(&items);
	return r;
}

static int do_fds(struct leak_case *leak, bool again, struct results *results) {
	struct proc proc;
	int r = proc_open("/proc", leak->pid, &proc);

	if (r)
		return r;
	if (proc.start_ticks == leak->start_ticks)
		r = group_fds(leak, &proc, again && leak->has_first_fds, results);
	proc_close(&proc);
	return r;
}

/* What comes newly takes the place of the old. By the lock. */
static void hand_over(struct results *from, struct results *to) {
	if (from->heap) {
		pyspyd_heap_free(to->heap);
		to->heap = take_ptr(from->heap);
		to->heap_ns = from->heap_ns;
		to->why[0] = '\0';
	}
	if (from->fds.all) {
		free_groups(&to->fds);
		to->fds = from->fds;
		from->fds = (struct groups){ 0 };
	}
	if (from->why[0])
		memcpy(to->why, from->why, sizeof(to->why));
	from->why[0] = '\0';
}

/* The worker. */

static struct leak_case *next_case(struct leaking *leaking, enum job *ret_job) {
	for (int job = JOB_NONE + 1; job < JOBS; job++)
		for (struct leak_case *leak = leaking->cases; leak; leak = leak->next)
			if (leak->wished[job]) {
				*ret_job = (enum job)job;
				return leak;
			}
	return NULL;
}

/* Return: how long to rest. */
static uint64_t pay(struct leaking *leaking, uint64_t took_ns) {
	uint64_t now = clock_mono_ns();
	int64_t credit = leaking->credit_ns + (int64_t)((now - leaking->credited_ns) / REST);

	credit = min_of(credit, (int64_t)CREDIT_NS) - (int64_t)took_ns;
	leaking->credit_ns = max_of(credit, -(int64_t)DEBT_NS);
	leaking->credited_ns = now;
	return leaking->credit_ns < 0 ? (uint64_t)-leaking->credit_ns * REST : 0;
}

static void rest(struct leaking *leaking, uint64_t took_ns) {
	uint64_t until = clock_mono_ns() + pay(leaking, took_ns);
	struct timespec at = { .tv_sec = (time_t)(until / NS_PER_SEC), .tv_nsec = (long)(until % NS_PER_SEC) };

	while (!leaking->stop && pthread_cond_timedwait(&leaking->changed, &leaking->lock, &at) != ETIMEDOUT)
		;
}

static void drop_case(struct leaking *leaking, struct leak_case *leak) {
	struct leak_case **at = &leaking->cases;

	while (*at && *at != leak)
		at = &(*at)->next;
	if (*at)
		*at = leak->next;
	free_case(leak);
}

/* By the lock, which is let go meanwhile. */
static void do_job(struct leaking *leaking, struct leak_case *leak, enum job job) {
	struct results results = { 0 };
	uint64_t began = clock_cpu_ns();

	leak->wished[job] = false;
	leaking->busy = leak;
	pthread_mutex_unlock(&leaking->lock);
	if (job == JOB_HEAP_FIRST || job == JOB_HEAP_GROWTH)
		(void)!do_heap(leaking, leak, job == JOB_HEAP_GROWTH, &results);
	else
		(void)!do_fds(leak, job == JOB_FDS_GROWTH, &results);
	pthread_mutex_lock(&leaking->lock);
	leaking->busy = NULL;
	hand_over(&results, &leak->fresh);
	free_results(&results);
	leak->is_fresh = true;
	if (leak->forgotten)
		drop_case(leaking, leak);
	rest(leaking, clock_cpu_ns() - began);
}

static void *work(void *arg) {
	struct leaking *leaking = arg;

	pthread_setname_np(pthread_self(), "pyspyd-leaks");
	pthread_mutex_lock(&leaking->lock);
	while (!leaking->stop) {
		enum job job;
		struct leak_case *leak = next_case(leaking, &job);

		if (leak)
			do_job(leaking, leak, job);
		else
			pthread_cond_wait(&leaking->changed, &leaking->lock);
	}
	pthread_mutex_unlock(&leaking->lock);
	return NULL;
}

/* The watch's side. */

int leaking_new(struct leaking **ret_leaking) {
	struct leaking *leaking = calloc(1, sizeof(*leaking));
	pthread_condattr_t attr;

	if (!leaking)
		return -ENOMEM;
	leaking->credit_ns = CREDIT_NS;
	leaking->credited_ns = clock_mono_ns();
	pthread_mutex_init(&leaking->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&leaking->changed, &attr);
	pthread_condattr_destroy(&attr);
	*ret_leaking = leaking;
	return 0;
}

void leaking_free(struct leaking *leaking) {
	if (!leaking)
		return;
	if (leaking->started) {
		pthread_mutex_lock(&leaking->lock);
		leaking->stop = true;
		pthread_cond_signal(&leaking->changed);
		pthread_mutex_unlock(&leaking->lock);
		pthread_join(leaking->thread, NULL);
	}
	for (struct leak_case *leak = leaking->cases, *next; leak; leak = next) {
		next = leak->next;
		free_case(leak);
	}
	pthread_cond_destroy(&leaking->changed);
	pthread_mutex_destroy(&leaking->lock);
	free(leaking);
}

void leaking_fill(struct leaking *leaking, struct watched *watched, struct detect_input *input) {
	struct leak_case *leak = watched->leak;
	struct results *told;

	if (!leak)
		return;
	pthread_mutex_lock(&leaking->lock);
	if (leak->is_fresh)
		hand_over(&leak->fresh, &leak->told);
	leak->is_fresh = false;
	pthread_mutex_unlock(&leaking->lock);
	told = &leak->told;
	input->heap = told->heap;
	input->heap_ns = told->heap_ns;
	input->heap_why = told->why[0] ? told->why : NULL;
	input->fds = told->fds.shown;
	input->fds_n = told->fds.shown_n;
}

static bool is_any(const struct detect_wishes *wishes) {
	return wishes->heap_first || wishes->heap_growth || wishes->fds_first || wishes->fds_growth;
}

static int open_case(struct leaking *leaking, struct watched *watched) {
	struct leak_case *leak = calloc(1, sizeof(*leak));

	if (!leak)
		return -ENOMEM;
	leak->pid = watched->target->proc.pid;
	leak->start_ticks = watched->target->proc.start_ticks;
	pthread_mutex_lock(&leaking->lock);
	leak->next = leaking->cases;
	leaking->cases = leak;
	pthread_mutex_unlock(&leaking->lock);
	watched->leak = leak;
	if (leaking->started)
		return 0;
	leaking->started = !pthread_create(&leaking->thread, NULL, work, leaking);
	return leaking->started ? 0 : -EAGAIN;
}

/* By the lock. A growth is told against what was counted first, so that must be there, or come before. */
static void wish(struct leaking *leaking, struct leak_case *leak, const struct detect_wishes *wishes) {
	bool is_free = leaking->busy != leak;

	if (wishes->heap_forget && is_free) {
		forget_first(leak);
		leak->wished[JOB_HEAP_FIRST] = leak->wished[JOB_HEAP_GROWTH] = false;
	}
	if (is_free && !leak->has_first)
		leak->wished[JOB_HEAP_FIRST] |= wishes->heap_first || wishes->heap_growth;
	else if (is_free)
		leak->wished[JOB_HEAP_GROWTH] |= wishes->heap_growth;
	if (is_free && !leak->has_first_fds)
		leak->wished[JOB_FDS_FIRST] |= wishes->fds_first || wishes->fds_growth;
	else if (is_free)
		leak->wished[JOB_FDS_GROWTH] |= wishes->fds_growth;
}

int leaking_wish(struct leaking *leaking, struct watched *watched, const struct detect_wishes *wishes) {
	int r;

	if (!watched->leak) {
		r = is_any(wishes) ? open_case(leaking, watched) : 0;
		if (r || !watched->leak)
			return r;
	}
	pthread_mutex_lock(&leaking->lock);
	wish(leaking, watched->leak, wishes);
	pthread_cond_signal(&leaking->changed);
	pthread_mutex_unlock(&leaking->lock);
	return 0;
}

void leaking_forget(struct leaking *leaking, struct watched *watched) {
	struct leak_case *leak = watched->leak;

	if (!leak)
		return;
	pthread_mutex_lock(&leaking->lock);
	leak->forgotten = true;
	memset(leak->wished, 0, sizeof(leak->wished));
	if (leaking->busy != leak)
		drop_case(leaking, leak);
	pthread_mutex_unlock(&leaking->lock);
	watched->leak = NULL;
}
