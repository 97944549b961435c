/* SPDX-License-Identifier: MIT */
/* Findings out of verdicts: everything that a verdict borrows is copied, evidence becomes JSON.
 *
 * Evidence has the detector's facts in their order, then the stacks, the number of samples and the accuracy of the
 * reading where the fault was seen in samples, the chain where it is one of waiting, and how certain it is. */
#include "engine/finding/finding.h"

#include "engine/base/util.h"
#include "engine/finding/chain.h"
#include "engine/finding/fingerprint.h"
#include "engine/finding/heap_json.h"
#include "engine/finding/stack_json.h"
#include <errno.h>
#include <string.h>

/* Copies. */

/* Copies *s where it is there. Return: ok and there was memory. */
static bool copy_text(bool ok, const char *s, char **ret) {
	*ret = ok && s ? strdup(s) : NULL;
	return ok && (*ret || !s);
}

static bool copy_list(bool ok, char *const *list, char ***ret) {
	size_t n = 0;

	if (!ok || !list)
		return ok;
	while (list[n])
		n++;
	*ret = calloc(n + 1, sizeof(**ret));
	ok = *ret;
	for (size_t i = 0; ok && i < n; i++)
		ok = copy_text(ok, list[i], &(*ret)[i]);
	return ok;
}

int finding_copy_process(const struct pyspyd_process *process, struct pyspyd_process *ret) {
	struct pyspyd_process copy = {
		.pid = process->pid, .start_real_ns = process->start_real_ns, .uid = process->uid
	};
	bool ok = copy_text(true, process->name, &copy.name);

	ok = copy_list(ok, process->cmdline, &copy.cmdline);
	ok = copy_text(ok, process->exe, &copy.exe);
	ok = copy_text(ok, process->python, &copy.python);
	ok = copy_text(ok, process->cgroup, &copy.cgroup);
	ok = copy_text(ok, process->container, &copy.container);
	ok = copy_text(ok, process->unit, &copy.unit);
	if (!ok) {
		pyspyd_process_deinit(&copy);
		return -ENOMEM;
	}
	*ret = copy;
	return 0;
}

static bool copy_frame(const struct detect_frame *frame, struct pyspyd_frame *ret) {
	bool ok;

	ret->lang = frame->lang;
	ret->line = frame->line;
	ok = copy_text(true, frame->function, &ret->function);
	ok = copy_text(ok, *frame->qualname ? frame->qualname : frame->function, &ret->qualname);
	ok = copy_text(ok, frame->file, &ret->file);
	return copy_text(ok, frame->module, &ret->module);
}

static bool copy_stack(const struct detect_stack *stack, struct pyspyd_thread *ret) {
	bool ok;

	ret->frames = calloc(stack->frames_n + 1, sizeof(*ret->frames));
	ret->truncated = stack->truncated;
	ok = ret->frames;
	for (size_t i = 0; ok && i < stack->frames_n; i++) {
		ret->frames_n = i + 1;
		ok = copy_frame(&stack->frames[i], &ret->frames[i]);
	}
	return ok;
}

static bool copy_thread(const struct detect_thread *thread, struct pyspyd_finding_thread *ret) {
	bool ok;

	ret->thread.tid = thread->tid;
	ret->thread.ident = thread->ident;
	ret->thread.state = thread->state;
	ret->thread.gil = thread->gil;
	ret->thread.in_gc = thread->samples && thread->shares.gc >= 0.5;
	ok = copy_text(true, thread->name, &ret->thread.name);
	return ok && (!thread->stacks_n || copy_stack(thread->stacks, &ret->thread));
}

static bool copy_node(const struct chain *chain, uint32_t index, struct pyspyd_finding_thread *ret) {
	const struct pyspyd_wait_node *node = &chain->waits->nodes[index];
	struct detect_stack stack;
	bool ok;

	ret->thread.tid = node->tid;
	ret->thread.ident = node->ident;
	ret->thread.state = node->state;
	ret->thread.gil = node->gil_waiter ? PYSPYD_GIL_WAITING : PYSPYD_GIL_UNKNOWN;
	ret->holds = chain_holds(chain, index);
	ret->waits_for = chain_waits_for(chain, index);
	if (!ret->holds || !ret->waits_for || chain_stack(node, &stack))
		return false;
	ok = copy_text(true, node->label ? node->label : "?", &ret->thread.name);
	ok = ok && copy_stack(&stack, &ret->thread);
	chain_stack_free(&stack);
	return ok;
}

static bool copy_party(const struct detect_party *party, const struct chain *chain, struct pyspyd_finding_thread *ret) {
	ret->cpu_percent = party->cpu_percent;
	if (!copy_text(true, party->role, &ret->role))
		return false;
	return party->thread ? copy_thread(party->thread, ret) : copy_node(chain, party->node, ret);
}

static bool copy_parties(
	const struct detect_verdict *verdict, const struct chain *chain, struct pyspyd_finding *finding) {
	bool ok = true;

	finding->threads = calloc(verdict->parties_n + 1, sizeof(*finding->threads));
	if (!finding->threads)
		return false;
	for (size_t i = 0; ok && i < verdict->parties_n; i++) {
		finding->threads_n = i + 1;
		ok = copy_party(&verdict->parties[i], chain, &finding->threads[i]);
	}
	return ok;
}

/* Evidence. */

static json_t *fact_json(const struct detect_fact *fact) {
	switch (fact->type) {
	case DETECT_NUMBER: return json_real_or_null(fact->number);
	case DETECT_COUNT: return json_count(fact->count);
	case DETECT_TEXT: break;
	}
	return json_text(fact->text);
}

static json_t *stack_frames_json(const struct detect_stack *stack) {
	struct pyspyd_thread copy = { 0 };
	json_t *frames = NULL;

	if (copy_stack(stack, &copy))
		frames = stack_json_frames(copy.frames, copy.frames_n);
	pyspyd_frames_free(copy.frames, copy.frames_n);
	return frames;
}

static json_t *stacks_json(const struct detect_thread *thread) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < thread->stacks_n && i < DETECT_STACKS_MAX; i++) {
		json_t *object = json_object();

		ok = json_put(ok, object, "share", json_real_or_null(thread->stacks[i].share));
		ok = json_put(ok, object, "frames", stack_frames_json(&thread->stacks[i]));
		ok = !json_array_append_new(array, object) && ok;
	}
	return json_done(ok, array);
}

static json_t *groups_json(const struct detect_group *groups, size_t n) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < n; i++) {
		json_t *object = json_object();

		ok = json_put(ok, object, "kind", json_text(groups[i].kind));
		ok = json_put(ok, object, "target", json_text(groups[i].target));
		ok = json_put(ok, object, "count", json_count(groups[i].count));
		ok = json_put(ok, object, "grew", json_integer(groups[i].grew));
		ok = !json_array_append_new(array, object) && ok;
	}
	return json_done(ok, array);
}

/* Where what leaks was made. */
static json_t *origins_json(const struct pyspyd_origin *places, size_t n) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < n; i++) {
		json_t *object = json_object();

		ok = json_put(ok, object, "count", json_count(places[i].count));
		ok = json_put(ok, object, "share", json_real_or_null(places[i].share));
		ok = json_put(ok, object, "call", json_text(places[i].call));
		ok = json_put(ok, object, "own", places[i].frames_n ? json_count(places[i].own) : json_null());
		ok = json_put(ok, object, "stack", stack_json_frames(places[i].frames, places[i].frames_n));
		ok = !json_array_append_new(array, object) && ok;
	}
	return json_done(ok, array);
}

static json_t *evidence_json(
	const struct finding_context *context, const struct detect_verdict *verdict, const struct chain *chain) {
	const struct detect_thread *thread = verdict->parties_n ? verdict->parties[0].thread : NULL;
	json_t *object = json_object();
	bool ok = object != NULL;

	for (size_t i = 0; ok && i < verdict->facts_n; i++)
		ok = json_put(ok, object, verdict->facts[i].key, fact_json(&verdict->facts[i]));
	if (ok && thread) {
		ok = json_put(ok, object, "stacks", stacks_json(thread));
		ok = json_put(ok, object, "samples", json_count(thread->samples));
	}
	if (ok && chain->waits)
		ok = json_put(ok, object, "chain", chain_json(chain, verdict));
	if (ok && verdict->heap)
		ok = json_put(ok, object, "heap", heap_json_evidence(verdict->heap));
	if (ok && verdict->fds_n)
		ok = json_put(ok, object, "handles", groups_json(verdict->fds, verdict->fds_n));
	if (ok && verdict->origins_n)
		ok = json_put(ok, object, "creation_stacks", origins_json(verdict->origins, verdict->origins_n));
	if (ok && verdict->origins_why)
		ok = json_put(ok, object, "creation_stacks_why_not", json_text(verdict->origins_why));
	if (ok && context->accuracy && thread) /* the rest is read, not sampled */
		ok = json_put(ok, object, "accuracy", stack_json_accuracy(context->accuracy));
	ok = ok && json_put(ok, object, "certainty", json_string(verdict->inferred ? "inferred" : "proven"));
	if (ok && verdict->certain_why)
		ok = json_put(ok, object, "certainty_why", json_text(verdict->certain_why));
	return json_done(ok, object);
}

/* The whole. */

static void set_times(const struct finding_context *context, uint64_t since_ns, struct pyspyd_finding *finding) {
	finding->duration_ns = context->now_ns > since_ns ? context->now_ns - since_ns : 0;
	finding->time_real_ns = context->real_ns;
	finding->since_real_ns = context->real_ns - min_of(finding->duration_ns, context->real_ns);
}

static int set_identity(const struct finding_context *context, const struct detect_verdict *verdict,
	const struct chain *chain, struct pyspyd_finding *finding) {
	const struct detect_thread *thread = verdict->parties_n ? verdict->parties[0].thread : NULL;
	struct strbuf site = { 0 };
	int r = 0;

	if (thread)
		fingerprint_site(&site, thread->stacks, thread->stacks_n);
	else if (chain->waits)
		r = chain_site(chain, verdict, &site);
	if (!r)
		r = fingerprint(verdict->kind, context->process, &site, finding->fingerprint);
	strbuf_deinit(&site);
	return r ? r : ulid_new(context->real_ns, finding->id);
}

int finding_new(const struct finding_context *context, const struct detect_verdict *verdict,
	struct pyspyd_finding **ret_finding) {
	struct pyspyd_finding *finding = calloc(1, sizeof(*finding));
	_cleanup_(chain_deinit) struct chain chain = { 0 };
	bool ok = finding;
	int r = -ENOMEM;

	if (!finding || chain_init(&chain, verdict->waits)) {
		free(finding);
		return r;
	}
	finding->severity = verdict->severity;
	set_times(context, verdict->since_ns, finding);
	ok = copy_text(ok, verdict->kind, &finding->kind);
	ok = copy_text(ok, verdict->pattern, &finding->pattern);
	ok = copy_text(ok, context->host, &finding->host);
	ok = copy_text(ok, verdict->summary, &finding->summary);
	ok = copy_text(ok, verdict->advice, &finding->advice);
	ok = ok && !finding_copy_process(context->process, &finding->process) && copy_parties(verdict, &chain, finding);
	if (ok)
		finding->evidence = evidence_json(context, verdict, &chain);
	if (ok && finding->evidence)
		r = set_identity(context, verdict, &chain, finding);
	if (r) {
		pyspyd_finding_free(finding);
		return r;
	}
	*ret_finding = finding;
	return 0;
}

void pyspyd_finding_free(struct pyspyd_finding *finding) {
	if (!finding)
		return;
	for (size_t i = 0; finding->threads && i < finding->threads_n; i++) {
		free(finding->threads[i].role);
		free(finding->threads[i].thread.name);
		json_decref(finding->threads[i].holds);
		json_decref(finding->threads[i].waits_for);
		pyspyd_frames_free(finding->threads[i].thread.frames, finding->threads[i].thread.frames_n);
	}
	free(finding->threads);
	free(finding->kind);
	free(finding->pattern);
	free(finding->host);
	pyspyd_process_deinit(&finding->process);
	json_decref(finding->evidence);
	free(finding->summary);
	free(finding->advice);
	free(finding);
}

const char *finding_severity_name(enum pyspyd_severity severity) {
	switch (severity) {
	case PYSPYD_INFO: return "info";
	case PYSPYD_WARNING: return "warning";
	case PYSPYD_CRITICAL: break;
	}
	return "critical";
}

const char *finding_state_name(enum pyspyd_finding_state state) {
	switch (state) {
	case PYSPYD_OPEN: return "open";
	case PYSPYD_UPDATE: return "update";
	case PYSPYD_RESOLVED: break;
	}
	return "resolved";
}
