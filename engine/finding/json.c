/* SPDX-License-Identifier: MIT */
/* A finding as one line of JSON, schema pyspyd.finding/1: keys in the order of SPEC.md section 2. */
#include "engine/finding/finding.h"
#include "engine/finding/stack_json.h"

/* With the wait graph more is known than the thread alone says; the keys keep their places. */
static json_t *thread_json(const struct pyspyd_finding_thread *thread) {
	json_t *object = stack_json_thread(&thread->thread, thread->role, thread->cpu_percent);
	bool ok = object != NULL;

	if (ok && thread->holds)
		ok = json_put(ok, object, "holds", json_incref(thread->holds));
	if (ok && thread->waits_for)
		ok = json_put(ok, object, "waits_for", json_incref(thread->waits_for));
	return json_done(ok, object);
}

static json_t *threads_json(const struct pyspyd_finding *finding) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < finding->threads_n; i++)
		ok = !json_array_append_new(array, thread_json(&finding->threads[i]));
	return json_done(ok, array);
}

char *pyspyd_finding_json(const struct pyspyd_finding *finding) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "schema", json_string("pyspyd.finding/1"));

	ok = json_put(ok, object, "id", json_text(finding->id));
	ok = json_put(ok, object, "fingerprint", json_text(finding->fingerprint));
	ok = json_put(ok, object, "kind", json_text(finding->kind));
	ok = json_put(ok, object, "pattern", json_text(finding->pattern));
	ok = json_put(ok, object, "severity", json_string(finding_severity_name(finding->severity)));
	ok = json_put(ok, object, "state", json_string(finding_state_name(finding->state)));
	ok = json_put(ok, object, "time", json_time(finding->time_real_ns));
	ok = json_put(ok, object, "since", json_time(finding->since_real_ns));
	ok = json_put(ok, object, "duration_s", json_real_or_null((double)finding->duration_ns / 1e9));
	ok = json_put(ok, object, "host", json_text(finding->host));
	ok = json_put(ok, object, "process", stack_json_process(&finding->process));
	ok = json_put(ok, object, "threads", threads_json(finding));
	ok = json_put(ok, object, "evidence", finding->evidence ? json_incref(finding->evidence) : json_object());
	ok = json_put(ok, object, "summary", json_text(finding->summary));
	ok = json_put(ok, object, "advice", json_text(finding->advice));
	return json_line(json_done(ok, object));
}
