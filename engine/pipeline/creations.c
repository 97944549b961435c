/* SPDX-License-Identifier: MIT */
/* A case is one process that is looked at. The worker loads the programs with the first case and lets go of them with
 * the last; it decodes what comes and sums it up every other second, for the first time sooner. Cases are the worker's
 * to free: the watch marks those that it has done with.
 *
 * Where the programs cannot be loaded nothing is seen, and it is tried again after some minutes: privileges do not
 * change, but memory limits do. */
#include "engine/pipeline/creations.h"

#include "engine/base/clock.h"
#include "engine/base/map.h"
#include "engine/pipeline/origins.h"
#include "engine/proc/fds.h"
#include <errno.h>
#include <string.h>

#define TEND_MS 200
#define SUM_NS (2 * NS_PER_SEC)
#define FIRST_SUM_NS (NS_PER_SEC / 2) /* the finding may be at hand */
#define LINGER_NS (30 * NS_PER_SEC)
#define AGAIN_NS (300 * NS_PER_SEC)
#define CASES_MAX 64 /* each has a reader of its own */
#define WHY_MAX 256
#define PLACES 5 /* of a kind of things, that are kept */

struct places {
	struct pyspyd_origin *items;
	size_t n;
};

struct creation {
	struct creation *next;
	pid_t pid;
	uint64_t start_ticks;
	uint64_t wished_ns;
	bool wanted, forgotten;
	bool watching;       /* the worker's */
	uint64_t summed_ns;  /* likewise */
	uint64_t failed_ns;  /* likewise: it could not be attached to */
	struct places fresh; /* from the worker, by the lock */
	bool is_fresh;
	struct places told; /* what the detectors see */
};

struct creations {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct creation *cases;
	size_t cases_n;
	bool stop, started;
	struct origins *origins; /* the worker's; NULL: nothing is attached */
	uint64_t failed_ns;      /* likewise */
	char why[WHY_MAX];       /* it failed, by the lock; "" */
	char told_why[WHY_MAX];  /* what the detectors see */
};

static void free_places(struct places *places) {
	pyspyd_origin_places_free(places->items, places->n);
	*places = (struct places){ 0 };
}

static void free_case(struct creation *creation) {
	free_places(&creation->fresh);
	free_places(&creation->told);
	free(creation);
}

/* The worker. */

/* Children that nobody waits for stay; those of which the wait was not seen are sorted out here. */
static int keep_children(created_things *things, pid_t pid) {
	struct map _cleanup_(map_deinit) there = { 0 };
	pid_vec pids = { 0 };
	size_t kept = 0;
	int r = proc_children("/proc", pid, &pids);

	vec_foreach (child, &pids)
		if (!r)
			r = map_put(&there, (uint64_t)*child, 1);
	vec_free(&pids);
	if (r)
		return r;
	vec_foreach (thing, things) {
		uint64_t unused;

		if (thing->what != PYSPYD_HANDLE_CHILD || map_get(&there, thing->id, &unused))
			things->items[kept++] = *thing;
	}
	things->n = kept;
	return 0;
}

static void drop_mappings(created_things *things) {
	size_t kept = 0;

	vec_foreach (thing, things)
		if (thing->what != PYSPYD_HANDLE_MAPPING)
			things->items[kept++] = *thing;
	things->n = kept;
}

/* Keeps the first ones of each kind of things. */
static void cut(struct places *places) {
	size_t kept = 0, of_what = 0;

	for (size_t i = 0; i < places->n; i++) {
		struct pyspyd_origin *place = &places->items[i];

		of_what = kept && place->what == places->items[kept - 1].what ? of_what + 1 : 0;
		if (of_what < PLACES)
			places->items[kept++] = *place;
		else
			pyspyd_frames_free(place->frames, place->frames_n);
	}
	places->n = kept;
}

static int sum_up(struct creations *creations, pid_t pid, struct places *ret_places) {
	struct origins_state state;
	created_things things = { 0 };
	struct places places = { 0 };
	int r = origins_things(creations->origins, pid, &things, &state);

	if (!r)
		drop_mappings(&things);
	if (!r)
		r = keep_children(&things, pid);
	if (!r)
		r = origins_places(creations->origins, pid, &things, &places.items, &places.n);
	vec_free(&things);
	if (r)
		return r;
	cut(&places);
	*ret_places = places;
	return 0;
}

/* By the lock, which is let go meanwhile: the case stays, since nobody else frees it. */
static void attend(struct creations *creations, struct creation *creation) {
	bool wanted = creation->wanted && !creation->forgotten;
	uint64_t now = clock_mono_ns();
	struct places places = { 0 };
	bool summed = false;

	if (!creation->watching && !wanted)
		return;
	if (wanted && !creation->watching && creation->failed_ns && now - creation->failed_ns < AGAIN_NS)
		return;
	pthread_mutex_unlock(&creations->lock);
	if (!wanted) {
		origins_unwatch(creations->origins, creation->pid);
		creation->watching = false;
	} else if (!creation->watching) {
		creation->watching = !origins_watch(creations->origins, creation->pid, creation->start_ticks, NULL);
		creation->failed_ns = creation->watching ? 0 : now;
		creation->summed_ns = clock_mono_ns() - SUM_NS + FIRST_SUM_NS;
	} else if (now - creation->summed_ns >= SUM_NS) {
		creation->summed_ns = now;
		summed = !sum_up(creations, creation->pid, &places);
	}
	pthread_mutex_lock(&creations->lock);
	if (!summed)
		return;
	free_places(&creation->fresh);
	creation->fresh = places;
	creation->is_fresh = true;
}

/* By the lock. Return: how many are wanted, or still watched. */
static size_t attend_all(struct creations *creations) {
	struct creation **at = &creations->cases;
	size_t n = 0;

	while (*at) {
		struct creation *creation = *at;

		if (creations->origins)
			attend(creations, creation);
		n += creation->watching || creation->wanted;
		if (creation->forgotten && !creation->watching) {
			/* New ones come in front: this one's place in the list may be another by now. */
			for (at = &creations->cases; *at != creation;)
				at = &(*at)->next;
			*at = creation->next;
			creations->cases_n--;
			free_case(creation);
			continue;
		}
		at = &creation->next;
	}
	return n;
}

static void open_or_close(struct creations *creations, size_t n) {
	struct origins *origins = creations->origins;
	uint64_t now = clock_mono_ns();
	struct err err = { 0 };

	if (!n == !origins || (n && creations->failed_ns && now - creations->failed_ns < AGAIN_NS))
		return;
	pthread_mutex_unlock(&creations->lock);
	if (n) {
		creations->failed_ns = origins_new(&creations->origins, &err) ? now : 0;
	} else {
		origins_free(origins);
		creations->origins = NULL;
	}
	pthread_mutex_lock(&creations->lock);
	snprintf(creations->why, sizeof(creations->why), "%.*s", WHY_MAX - 1, err.text);
}

static void rest(struct creations *creations, size_t n) {
	uint64_t until = clock_mono_ns() + NS_PER_SEC;
	struct timespec at = { .tv_sec = (time_t)(until / NS_PER_SEC), .tv_nsec = (long)(until % NS_PER_SEC) };

	if (creations->origins) {
		pthread_mutex_unlock(&creations->lock);
		origins_tend(creations->origins, TEND_MS);
		pthread_mutex_lock(&creations->lock);
	} else if (n) {
		pthread_cond_timedwait(&creations->changed, &creations->lock, &at);
	} else {
		pthread_cond_wait(&creations->changed, &creations->lock);
	}
}

static void *work(void *arg) {
	struct creations *creations = arg;

	pthread_setname_np(pthread_self(), "pyspyd-origins");
	pthread_mutex_lock(&creations->lock);
	while (!creations->stop) {
		size_t n = attend_all(creations);

		open_or_close(creations, n);
		if (!creations->stop)
			rest(creations, n);
	}
	pthread_mutex_unlock(&creations->lock);
	return NULL;
}

/* The watch's side. */

int creations_new(struct creations **ret_creations) {
	struct creations *creations = calloc(1, sizeof(*creations));
	pthread_condattr_t attr;

	if (!creations)
		return -ENOMEM;
	pthread_mutex_init(&creations->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&creations->changed, &attr);
	pthread_condattr_destroy(&attr);
	*ret_creations = creations;
	return 0;
}

void creations_free(struct creations *creations) {
	if (!creations)
		return;
	if (creations->started) {
		pthread_mutex_lock(&creations->lock);
		creations->stop = true;
		pthread_cond_signal(&creations->changed);
		pthread_mutex_unlock(&creations->lock);
		pthread_join(creations->thread, NULL);
	}
	for (struct creation *creation = creations->cases, *next; creation; creation = next) {
		next = creation->next;
		free_case(creation);
	}
	origins_free(creations->origins);
	pthread_cond_destroy(&creations->changed);
	pthread_mutex_destroy(&creations->lock);
	free(creations);
}

static int open_case(struct creations *creations, struct watched *watched) {
	struct creation *creation = calloc(1, sizeof(*creation));

	if (!creation)
		return -ENOMEM;
	creation->pid = watched->target->proc.pid;
	creation->start_ticks = watched->target->proc.start_ticks;
	pthread_mutex_lock(&creations->lock);
	creation->next = creations->cases;
	creations->cases = creation;
	creations->cases_n++;
	pthread_mutex_unlock(&creations->lock);
	watched->creation = creation;
	if (!creations->started)
		creations->started = !pthread_create(&creations->thread, NULL, work, creations);
	return 0;
}

int creations_wish(struct creations *creations, struct watched *watched, bool wanted, uint64_t now_ns) {
	struct creation *creation = watched->creation;
	int r;

	if (!creation) {
		if (!wanted || creations->cases_n >= CASES_MAX)
			return 0;
		r = open_case(creations, watched);
		if (r)
			return r;
		creation = watched->creation;
	}
	pthread_mutex_lock(&creations->lock);
	if (wanted)
		creation->wished_ns = now_ns;
	creation->wanted = now_ns - creation->wished_ns < LINGER_NS;
	pthread_cond_signal(&creations->changed);
	pthread_mutex_unlock(&creations->lock);
	return 0;
}

void creations_fill(struct creations *creations, struct watched *watched, struct detect_input *input) {
	struct creation *creation = watched->creation;

	if (creation && !creation->wanted) { /* verdicts of the last interval were acted upon by now */
		creations_forget(creations, watched);
		return;
	}
	if (!creation)
		return;
	pthread_mutex_lock(&creations->lock);
	if (creation->is_fresh) {
		free_places(&creation->told);
		creation->told = creation->fresh;
		creation->fresh = (struct places){ 0 };
	}
	creation->is_fresh = false;
	memcpy(creations->told_why, creations->why, sizeof(creations->why));
	pthread_mutex_unlock(&creations->lock);
	input->origins_why = creations->told_why[0] ? creations->told_why : NULL;
	input->origins = creation->told.items;
	input->origins_n = creation->told.n;
}

void creations_forget(struct creations *creations, struct watched *watched) {
	struct creation *creation = watched->creation;

	if (!creation)
		return;
	watched->creation = NULL;
	pthread_mutex_lock(&creations->lock);
	creation->forgotten = true;
	creation->wanted = false;
	pthread_cond_signal(&creations->changed);
	pthread_mutex_unlock(&creations->lock);
}
