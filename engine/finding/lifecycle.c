/* SPDX-License-Identifier: MIT */
/* The life of findings: what is open in one process, and what of it is said.
 *
 * The last event of each open finding is kept whole, so that its end can be told when nothing of the thread is left to
 * read; telling an end needs no memory that could be missing.
 *
 * What another life cycle has left open is known by little, and told of by its owner: it has the last event. */
#include "engine/finding/lifecycle.h"

#include "engine/base/util.h"
#include "engine/finding/fingerprint.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

struct open_finding {
	const char *kind; /* static, the detector's */
	uint64_t key;
	uint64_t since_ns;
	uint64_t said_ns; /* the last event */
	struct pyspyd_finding *finding;
};

struct lifecycle {
	VEC(struct open_finding) open;
	VEC(const struct pyspyd_left_open *) left;
	uint64_t left_ns; /* the first round since there are some */
	unsigned left_rounds;
};

int lifecycle_new(struct lifecycle **ret_lifecycle) {
	struct lifecycle *lifecycle = calloc(1, sizeof(*lifecycle));

	if (!lifecycle)
		return -ENOMEM;
	*ret_lifecycle = lifecycle;
	return 0;
}

void lifecycle_free(struct lifecycle *lifecycle) {
	if (!lifecycle)
		return;
	vec_foreach (one, &lifecycle->open)
		pyspyd_finding_free(one->finding);
	vec_free(&lifecycle->open);
	vec_free(&lifecycle->left);
	free(lifecycle);
}

size_t lifecycle_open(const struct lifecycle *lifecycle) {
	return lifecycle->open.n + lifecycle->left.n;
}

static struct open_finding *find_open(struct lifecycle *lifecycle, const struct detect_verdict *verdict) {
	vec_foreach (one, &lifecycle->open)
		if (one->key == verdict->key && !strcmp(one->kind, verdict->kind))
			return one;
	return NULL;
}

/* What was left open. */

static bool has_thread(const struct pyspyd_finding *finding, pid_t tid) {
	for (size_t i = 0; i < finding->threads_n; i++)
		if (finding->threads[i].thread.tid == tid)
			return true;
	return false;
}

static bool share_thread(const struct pyspyd_left_open *left, const struct pyspyd_finding *finding) {
	for (size_t i = 0; i < left->tids_n; i++)
		if (left->tids[i] && has_thread(finding, left->tids[i]))
			return true;
	return false;
}

/* Whether it was told before the stack was known, as may be where a machine is busy. */
static bool has_no_site(const struct pyspyd_left_open *left, const struct pyspyd_finding *finding) {
	static const struct strbuf nowhere = { 0 };
	char siteless[FINGERPRINT_SIZE];

	return !fingerprint(finding->kind, &finding->process, &nowhere, siteless) &&
		!strcmp(left->fingerprint, siteless);
}

/* How surely they are the same. Threads tell those apart that have one site. What is seen in samples may have another
 * site at another time: there the thread is enough, as it is for update_one(). */
static unsigned likeness(const struct pyspyd_left_open *left, const struct pyspyd_finding *finding, bool sampled) {
	bool same_site = !strcmp(left->fingerprint, finding->fingerprint);
	bool same_thread = share_thread(left, finding);

	if (strcmp(left->kind, finding->kind) != 0)
		return 0;
	if (same_site && (same_thread || (!left->tids_n && !finding->threads_n)))
		return 3;
	if (same_thread && (sampled || has_no_site(left, finding)))
		return 2;
	return same_site ? 1 : 0;
}

/* Return: what the finding goes on with; NULL: it is new. */
static const struct pyspyd_left_open *take_left(
	struct lifecycle *lifecycle, const struct pyspyd_finding *finding, bool sampled) {
	const struct pyspyd_left_open *left = NULL;
	unsigned best = 0;
	size_t at = 0;

	for (size_t i = 0; i < lifecycle->left.n; i++) {
		unsigned one = likeness(lifecycle->left.items[i], finding, sampled);

		if (one > best) {
			best = one;
			at = i;
		}
	}
	if (best) {
		left = lifecycle->left.items[at];
		lifecycle->left.items[at] = lifecycle->left.items[--lifecycle->left.n];
	}
	return left;
}

static void go_on(
	struct open_finding *one, const struct pyspyd_left_open *left, const struct finding_context *context) {
	struct pyspyd_finding *finding = one->finding;
	uint64_t duration_ns =
		context->real_ns > left->since_real_ns ? context->real_ns - left->since_real_ns : finding->duration_ns;

	snprintf(finding->id, sizeof(finding->id), "%s", left->id);
	snprintf(finding->fingerprint, sizeof(finding->fingerprint), "%s", left->fingerprint);
	finding->since_real_ns = left->since_real_ns;
	finding->duration_ns = duration_ns;
	finding->state = PYSPYD_UPDATE;
	one->since_ns = context->now_ns - min_of(duration_ns, context->now_ns);
}

bool lifecycle_has_left(const struct lifecycle *lifecycle, const struct pyspyd_left_open *left) {
	vec_foreach (one, &lifecycle->left)
		if (*one == left)
			return true;
	return false;
}

int lifecycle_leave(struct lifecycle *lifecycle, const struct pyspyd_left_open *left) {
	return vec_push(&lifecycle->left, left);
}

static bool is_awaited(const struct lifecycle *lifecycle, const struct pyspyd_left_open *left,
	const struct detect_config *config, uint64_t now_ns) {
	return lifecycle->left_rounds <= LIFECYCLE_LEFT_ROUNDS ||
		now_ns - lifecycle->left_ns <= 2 * detect_config_longest(config, left->kind);
}

int lifecycle_tend_left(struct lifecycle *lifecycle, const struct detect_config *config, uint64_t now_ns,
	const char *ended, lifecycle_emit_left emit, void *userdata) {
	size_t kept = 0;
	int r = 0;

	if (!lifecycle->left_rounds++)
		lifecycle->left_ns = now_ns;
	for (size_t i = 0; i < lifecycle->left.n; i++) {
		const struct pyspyd_left_open *left = lifecycle->left.items[i];
		int one;

		if (!ended && is_awaited(lifecycle, left, config, now_ns)) {
			lifecycle->left.items[kept++] = left;
			continue;
		}
		one = emit(userdata, left, ended ? ended : "not-found-again");
		r = r ? r : one;
	}
	lifecycle->left.n = kept;
	return r;
}

/* Events. */

static void add_evidence(const struct finding_context *context, struct pyspyd_finding *finding) {
	if (context->add_evidence)
		context->add_evidence(context->userdata, finding);
}

static int open_one(struct lifecycle *lifecycle, const struct finding_context *context,
	const struct detect_verdict *verdict, lifecycle_emit emit, void *userdata) {
	struct open_finding one = {
		.kind = verdict->kind, .key = verdict->key, .since_ns = verdict->since_ns, .said_ns = context->now_ns
	};
	const struct pyspyd_left_open *left;
	int r = vec_reserve(&lifecycle->open, lifecycle->open.n + 1);

	if (!r)
		r = finding_new(context, verdict, &one.finding);
	if (r)
		return r;
	left = take_left(lifecycle, one.finding, verdict->parties_n && verdict->parties[0].thread);
	if (left)
		go_on(&one, left, context);
	lifecycle->open.items[lifecycle->open.n++] = one;
	add_evidence(context, one.finding);
	return emit(userdata, one.finding);
}

static int update_one(struct open_finding *one, const struct finding_context *context,
	const struct detect_verdict *verdict, lifecycle_emit emit, void *userdata) {
	struct pyspyd_finding *finding;
	int r;

	if (verdict->fading || context->now_ns - one->said_ns < LIFECYCLE_UPDATE_NS)
		return 0;
	r = finding_new(context, verdict, &finding);
	if (r)
		return r;
	/* The stacks of this minute may have another site; the fault is the one that was opened. */
	memcpy(finding->id, one->finding->id, sizeof(finding->id));
	memcpy(finding->fingerprint, one->finding->fingerprint, sizeof(finding->fingerprint));
	finding->since_real_ns = one->finding->since_real_ns;
	finding->state = PYSPYD_UPDATE;
	pyspyd_finding_free(one->finding);
	one->finding = finding;
	one->said_ns = context->now_ns;
	add_evidence(context, finding);
	return emit(userdata, finding);
}

static int resolve_one(struct lifecycle *lifecycle, struct open_finding *one, const struct finding_context *context,
	const char *ended, lifecycle_emit emit, void *userdata) {
	struct pyspyd_finding *finding = one->finding;
	int r;

	finding->state = PYSPYD_RESOLVED;
	finding->time_real_ns = context->real_ns;
	finding->duration_ns = context->now_ns > one->since_ns ? context->now_ns - one->since_ns : 0;
	/* Without memory the end is told without its reason. */
	if (ended)
		(void)json_object_set_new(finding->evidence, "ended", json_string(ended));
	*one = lifecycle->open.items[--lifecycle->open.n];
	r = emit(userdata, finding);
	pyspyd_finding_free(finding);
	return r;
}

static int apply_one(struct lifecycle *lifecycle, const struct finding_context *context,
	const struct detect_verdict *verdict, lifecycle_emit emit, void *userdata) {
	struct open_finding *one = find_open(lifecycle, verdict);

	if (verdict->presence == DETECT_ABSENT)
		return one ? resolve_one(lifecycle, one, context, verdict->ended, emit, userdata) : 0;
	if (one)
		return update_one(one, context, verdict, emit, userdata);
	/* What could not be opened waits for a moment that shows it. */
	return verdict->fading ? 0 : open_one(lifecycle, context, verdict, emit, userdata);
}

int lifecycle_apply(struct lifecycle *lifecycle, const struct finding_context *context, const detect_verdicts *verdicts,
	lifecycle_emit emit, void *userdata) {
	int r = 0;

	vec_foreach (verdict, verdicts) {
		int one = apply_one(lifecycle, context, verdict, emit, userdata);

		r = r ? r : one;
	}
	return r;
}

int lifecycle_end(struct lifecycle *lifecycle, const struct finding_context *context, const char *ended,
	lifecycle_emit emit, void *userdata) {
	int r = 0;

	while (lifecycle->open.n) {
		int one = resolve_one(lifecycle, lifecycle->open.items, context, ended, emit, userdata);

		r = r ? r : one;
	}
	return r;
}
