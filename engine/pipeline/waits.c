/* SPDX-License-Identifier: MIT */
/* pyspyd_waits_look: attach, look once or twice, describe the process. */
#include "pyspyd/waits.h"

#include "engine/base/clock.h"
#include "engine/pipeline/describe.h"
#include "engine/pipeline/evidence.h"
#include "engine/pipeline/subject.h"
#include "engine/waits/graph.h"
#include "engine/waits/look.h"
#include <time.h>

#define STARTING_WAIT_NS (2 * NS_PER_SEC)

static int look(struct wait_looker *looker, struct sample_target *target, struct pyspyd_waits **ret_waits) {
	int r = sample_target_refresh(target, NULL, NULL);

	if (r == MEM_E_GONE)
		return PYSPYD_E_GONE;
	return wait_look(looker, &target, 1, ret_waits); /* threads of before serve where the list was torn */
}

static void sleep_ns(uint64_t ns) {
	nanosleep(&(struct timespec){ .tv_sec = (time_t)(ns / NS_PER_SEC), .tv_nsec = (long)(ns % NS_PER_SEC) }, NULL);
}

/* After the last look: what has moved since then keeps its Python frames alone. */
static int add_native(struct sample_target *target, struct pyspyd_waits *waits) {
	struct evidence *evidence;
	int r = evidence_new(&evidence);

	if (r)
		return r;
	r = evidence_add_to_waits(evidence, target, waits);
	evidence_free(evidence);
	return r;
}

static int run(struct wait_looker *looker, const struct subject *subject, const struct pyspyd_waits_options *options,
	struct pyspyd_waits **ret_waits) {
	struct sample_target *target = subject->target;
	struct pyspyd_waits *before = NULL, *now = NULL;
	int r = look(looker, target, &now);

	if (!r && options->between_ns) {
		before = now;
		now = NULL;
		if (!target->offline)
			sleep_ns(options->between_ns);
		r = look(looker, target, &now);
	}
	if (!r) {
		waits_confirm(before, now);
		if (!target->offline)
			wait_look_measure(now);
		pyspyd_process_deinit(&now->process);
		now->process = (struct pyspyd_process){ 0 };
		r = describe_process(&target->proc, target->rt.version, &now->process);
	}
	if (!r)
		r = subject_add_core(subject, &now->process);
	if (!r && options->native)
		r = add_native(target, now);
	pyspyd_waits_free(before);
	if (r)
		pyspyd_waits_free(now);
	else
		*ret_waits = now;
	return r;
}

int pyspyd_waits_look(
	pid_t pid, const struct pyspyd_waits_options *options, struct pyspyd_waits **ret_waits, struct err *err) {
	struct subject subject = { 0 };
	struct wait_looker *looker = NULL;
	int r = wait_looker_new(options->park, &looker, err);

	if (!r)
		wait_looker_list_greenlets(looker);
	if (!r)
		r = subject_open(pid, &options->core, STARTING_WAIT_NS, &subject, err);
	if (!r)
		r = run(looker, &subject, options, ret_waits);
	if (r == PYSPYD_E_GONE && (!err || !err->text[0] || err->code != r))
		err_set(err, r, "process %d has ended", (int)pid);
	if (r == -ENOMEM)
		err_set(err, r, "out of memory");
	wait_looker_free(looker);
	subject_close(&subject);
	return r;
}
