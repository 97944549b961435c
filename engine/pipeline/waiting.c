/* SPDX-License-Identifier: MIT */
/* When the wait graphs of a watch are looked at: at every interval while that takes at most a hundredth of one CPU,
 * more seldom beyond. The GIL's holder is followed more often, since one that keeps it for a second is a fault already.
 */
#include "engine/pipeline/waiting.h"

#include "engine/base/clock.h"
#include "engine/proc/sleep.h"
#include "engine/waits/graph.h"
#include "engine/waits/look.h"

#define SHARE_MAX 100               /* one part in so many of a CPU; … */
#define SHARE_MANY 800              /* … where many processes are watched */
#define CONFIRM_NS (2 * NS_PER_SEC) /* a knot that was seen once is worth another look soon */
#define PAUSE_MAX_NS (30 * NS_PER_SEC)
#define PAUSE_MANY_NS (60 * NS_PER_SEC)
#define GILS_AT_ONCE 8 /* processes whose GIL is read at one time */
#define WORTH_COUNTING_NS (300 * NS_PER_MS)
#define WAITERS_LOOKED_AT 64
#define LOOKS_SUMMED 4

struct waiting {
	struct wait_looker *looker;
	uint64_t next_ns;
	size_t turn;              /* of the GILs */
	struct pyspyd_waits *now; /* of the last look */
	bool *alive;
	bool fresh;   /* `now` is of this interval */
	bool hurried; /* the last look came sooner, to confirm */
};

struct gil_watch {
	raddr holder; /* thread state */
	uint64_t switches, since_ns;
	uint64_t interval_switches, interval_ns; /* as of the interval before */
	struct waited_gil longest;               /* in this interval */
	struct waited_gil told;                  /* in the last one */
};

int waiting_new(const char *const *park, struct waiting **ret_waiting, struct err *err) {
	struct waiting *waiting = calloc(1, sizeof(*waiting));
	int r = waiting ? wait_looker_new(park, &waiting->looker, err) : -ENOMEM;

	if (r)
		waiting_free(waiting);
	else
		*ret_waiting = waiting;
	return r;
}

void waiting_free(struct waiting *waiting) {
	if (!waiting)
		return;
	wait_looker_free(waiting->looker);
	pyspyd_waits_free(waiting->now);
	free(waiting->alive);
	free(waiting);
}

static struct gil_watch *gil_of(struct watched *watched) {
	if (!watched->gil)
		watched->gil = calloc(1, sizeof(struct gil_watch));
	return watched->gil;
}

void waiting_forget(struct waiting *waiting, struct watched *watched) {
	if (waiting)
		wait_looker_forget(waiting->looker, watched->target);
	free(watched->gil);
	watched->gil = NULL;
}

/* the GIL */

static bool sleeps_in(const struct sample_target *target, pid_t tid, const struct py_interp_view *view) {
	uint32_t size = target->rt.reader.layout.gil_size;
	struct proc_sleep sleep;

	return view->gil && layout_has(size) && !proc_sleep_read(&target->proc, tid, &sleep) &&
		sleep.call == SLEEP_FUTEX && sleep.address >= view->gil && sleep.address - view->gil < size;
}

static uint32_t count_waiters(const struct sample_target *target, const struct py_interp_view *view) {
	uint32_t n = 0;

	for (size_t i = 0; i < min_of(target->threads.n, (size_t)WAITERS_LOOKED_AT); i++)
		n += sleeps_in(target, target->threads.items[i]->py.tid, view);
	return n;
}

static pid_t holder_tid(const struct sample_target *target, raddr tstate) {
	vec_foreach (thread, &target->threads)
		if ((*thread)->py.tstate == tstate)
			return (*thread)->py.tid;
	return 0;
}

static void follow(
	struct gil_watch *gil, const struct sample_target *target, const struct py_interp_view *view, uint64_t now_ns) {
	uint64_t held;

	if (!view->gil_holder || view->gil_holder != gil->holder || view->gil_switches != gil->switches) {
		gil->holder = view->gil_holder;
		gil->switches = view->gil_switches;
		gil->since_ns = now_ns;
		return;
	}
	held = now_ns - gil->since_ns;
	if (held < WORTH_COUNTING_NS || held < gil->longest.held_ns)
		return;
	gil->longest.waiters = max_of(gil->longest.waiters, count_waiters(target, view));
	gil->longest.held_ns = held;
	gil->longest.holder = holder_tid(target, view->gil_holder);
}

/* The main interpreter's: others share it, unless they were made to have their own. Of many, only one that ran enough
 * for it: who waits for a GIL wakes up every few milliseconds. Return: whether it was read. */
static bool tend_one(struct watched *watched, bool many, uint64_t now_ns) {
	struct sample_target *target = watched->target;
	struct gil_watch *gil = gil_of(watched);
	py_interp_vec interps = { 0 };
	struct py_interp_view view;
	int r;

	if (!gil || watched->ended || !watched->ran)
		return false;
	if (many && watched_hardly_ran(watched)) {
		gil->holder = 0; /* the next one that is seen is not known to be the same */
		return false;
	}
	pthread_mutex_lock(&target->lock);
	r = py_interps_read(&target->rt, &interps);
	if (!r && interps.n)
		r = py_interp_view(&target->rt, interps.items[interps.n - 1].addr, &view);
	if (!r && interps.n && view.gil_known)
		follow(gil, target, &view, now_ns);
	pthread_mutex_unlock(&target->lock);
	vec_free(&interps);
	return true;
}

void waiting_tend(struct waiting *waiting, struct watched *const *watched, size_t n, uint64_t now_ns) {
	size_t read = 0;

	for (size_t i = 0; i < n && read < GILS_AT_ONCE; i++)
		read += tend_one(watched[waiting->turn++ % n], n >= WATCHED_MANY, now_ns);
}

/* A hold that goes on stays the longest one of the next interval too. */
static void turn_gil(struct gil_watch *gil, uint64_t now_ns) {
	gil->told = gil->longest;
	gil->told.switches_per_s = -1;
	if (gil->interval_ns && now_ns > gil->interval_ns && gil->switches >= gil->interval_switches)
		gil->told.switches_per_s =
			(double)(gil->switches - gil->interval_switches) * 1e9 / (double)(now_ns - gil->interval_ns);
	gil->interval_switches = gil->switches;
	gil->interval_ns = now_ns;
	gil->longest = (struct waited_gil){ 0 };
}

struct waited_gil waited_gil(const struct watched *watched) {
	const struct gil_watch *gil = watched->gil;

	return gil ? gil->told : (struct waited_gil){ .switches_per_s = -1 };
}

/* the graph */

/* A look is one sample of who waits for the GIL: they are summed up so that the last few count. */
static void sum_gil_waiters(const struct pyspyd_waits *waits, struct watched *const *watched, size_t n) {
	for (size_t i = 0; i < waits->nodes_n; i++) {
		const struct pyspyd_wait_node *node = &waits->nodes[i];
		uint64_t at;

		for (size_t k = 0; node->kind == PYSPYD_WAIT_THREAD && k < n; k++) {
			struct watched_thread *thread;

			if (watched[k]->target->proc.pid != node->pid ||
				!map_get(&watched[k]->thread_index, (uint64_t)node->tid, &at))
				continue;
			thread = &watched[k]->threads.items[at];
			thread->gil_waiting = thread->gil_waiting < 0
				? node->gil_waiter
				: (thread->gil_waiting * (LOOKS_SUMMED - 1) + node->gil_waiter) / LOOKS_SUMMED;
		}
	}
}

static int look(struct waiting *waiting, struct sample_target *const *targets, size_t n) {
	struct pyspyd_waits *now = NULL;
	bool *alive = NULL;
	int r = wait_look(waiting->looker, targets, n, &now);

	if (!r) {
		waits_confirm(waiting->now, now);
		if (now->knots_n)
			wait_look_measure(now);
		r = waits_alive(waiting->now, now, &alive);
	}
	if (r) {
		pyspyd_waits_free(now);
		return r == -ENOMEM ? r : 0; /* all have ended */
	}
	pyspyd_waits_free(waiting->now);
	waiting->now = now;
	free(waiting->alive);
	waiting->alive = alive;
	waiting->fresh = true;
	return 0;
}

static bool has_news(const struct pyspyd_waits *waits) {
	for (size_t i = 0; i < waits->knots_n; i++)
		if (!waits->knots[i].confirmed)
			return true;
	return false;
}

/* Every other look may come sooner than its cost allows. */
static uint64_t pause_after(struct waiting *waiting, uint64_t cost_ns, size_t processes) {
	uint64_t pause = processes >= WATCHED_MANY ? min_of(cost_ns * SHARE_MANY, (uint64_t)PAUSE_MANY_NS)
						   : min_of(cost_ns * SHARE_MAX, (uint64_t)PAUSE_MAX_NS);

	waiting->hurried = !waiting->hurried && waiting->fresh && has_news(waiting->now);
	return waiting->hurried ? min_of(pause, (uint64_t)CONFIRM_NS) : pause;
}

int waiting_interval(struct waiting *waiting, struct watched *const *watched, size_t n, uint64_t now_ns) {
	struct sample_target **targets _free_ = calloc(n + 1, sizeof(*targets));
	uint64_t began_cpu_ns = clock_cpu_ns();
	size_t alive = 0;
	int r = 0;

	if (!targets)
		return -ENOMEM;
	waiting->fresh = false;
	for (size_t i = 0; i < n; i++) {
		struct gil_watch *gil = gil_of(watched[i]);

		if (!gil)
			return -ENOMEM;
		turn_gil(gil, now_ns);
		if (!watched[i]->ended)
			targets[alive++] = watched[i]->target;
	}
	if (alive && now_ns >= waiting->next_ns) {
		r = look(waiting, targets, alive);
		if (!r && waiting->fresh)
			sum_gil_waiters(waiting->now, watched, n);
		waiting->next_ns = now_ns + pause_after(waiting, clock_cpu_ns() - began_cpu_ns, n);
	}
	return r;
}

const struct pyspyd_waits *waiting_graph(const struct waiting *waiting, const bool **ret_alive) {
	if (!waiting->fresh)
		return NULL;
	*ret_alive = waiting->alive;
	return waiting->now;
}
