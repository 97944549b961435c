/* SPDX-License-Identifier: MIT */
/* The life of findings: what is open in one process, and what of it is said.
 *
 * The last event of each open finding is kept whole, so that its end can be told when nothing of the thread is left to
 * read; telling an end needs no memory that could be missing. */
#include "engine/finding/lifecycle.h"

#include "engine/base/util.h"
#include <errno.h>
#include <jansson.h>
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
	free(lifecycle);
}

size_t lifecycle_open(const struct lifecycle *lifecycle) {
	return lifecycle->open.n;
}

static struct open_finding *find_open(struct lifecycle *lifecycle, const struct detect_verdict *verdict) {
	vec_foreach (one, &lifecycle->open)
		if (one->key == verdict->key && !strcmp(one->kind, verdict->kind))
			return one;
	return NULL;
}

static int open_one(struct lifecycle *lifecycle, const struct finding_context *context,
	const struct detect_verdict *verdict, lifecycle_emit emit, void *userdata) {
	struct open_finding one = {
		.kind = verdict->kind, .key = verdict->key, .since_ns = verdict->since_ns, .said_ns = context->now_ns
	};
	int r = vec_reserve(&lifecycle->open, lifecycle->open.n + 1);

	if (!r)
		r = finding_new(context, verdict, &one.finding);
	if (r)
		return r;
	lifecycle->open.items[lifecycle->open.n++] = one;
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
