/* SPDX-License-Identifier: MIT */
/* A finding back out of its JSON, as far as its text for people needs it: what stands in the file of a store or came
 * over a socket reads as what was just found. Missing members and such of another type are as if nothing was known. */
#include "engine/finding/finding.h"

#include "engine/base/clock.h"
#include "engine/base/limits.h"
#include "engine/base/util.h"
#include <jansson.h>
#include <string.h>

#define ARGUMENTS_MAX 4096
#define DURATION_MAX_S 1e9

/* Return: whether it is there, and memory was. NULL for what is no text. */
static bool copy_text(bool ok, const json_t *object, const char *key, char **ret) {
	const char *text = json_string_value(json_object_get(object, key));

	*ret = ok && text ? strdup(text) : NULL;
	return ok && (!text || *ret);
}

static bool read_cmdline(const json_t *array, char ***ret) {
	size_t n = min_of(json_array_size(array), (size_t)ARGUMENTS_MAX);
	char **words = n ? calloc(n + 1, sizeof(*words)) : NULL;

	*ret = words;
	for (size_t i = 0; words && i < n; i++) {
		const char *word = json_string_value(json_array_get(array, i));

		words[i] = strdup(word ? word : "?");
		if (!words[i])
			return false;
	}
	return !n || words;
}

static bool read_process(const json_t *object, struct pyspyd_process *process) {
	bool ok = copy_text(true, object, "name", &process->name);

	process->pid = (pid_t)json_integer_value(json_object_get(object, "pid"));
	process->uid = (uid_t)json_integer_value(json_object_get(object, "uid"));
	ok = copy_text(ok, object, "exe", &process->exe);
	ok = copy_text(ok, object, "python", &process->python);
	ok = copy_text(ok, object, "cgroup", &process->cgroup);
	ok = copy_text(ok, object, "container", &process->container);
	ok = copy_text(ok, object, "unit", &process->unit);
	return ok && read_cmdline(json_object_get(object, "cmdline"), &process->cmdline);
}

static bool read_frame(const json_t *object, struct pyspyd_frame *frame) {
	const char *lang = json_string_value(json_object_get(object, "lang"));
	json_int_t line = json_integer_value(json_object_get(object, "line"));
	bool ok = copy_text(true, object, "function", &frame->function);

	frame->lang = lang && !strcmp(lang, "native") ? PYSPYD_NATIVE
		: lang && !strcmp(lang, "kernel")     ? PYSPYD_KERNEL
						      : PYSPYD_PYTHON;
	frame->line = line > 0 && line <= INT32_MAX ? (int)line : 0;
	ok = copy_text(ok, object, "qualname", &frame->qualname);
	ok = copy_text(ok, object, "file", &frame->file);
	return copy_text(ok, object, "module", &frame->module);
}

static bool read_stack(const json_t *array, struct pyspyd_thread *thread) {
	size_t n = min_of(json_array_size(array), (size_t)LIMIT_FRAMES);
	bool ok = true;

	thread->frames = n ? calloc(n, sizeof(*thread->frames)) : NULL;
	thread->frames_n = thread->frames ? n : 0;
	for (size_t i = 0; ok && i < thread->frames_n; i++)
		ok = read_frame(json_array_get(array, i), &thread->frames[i]);
	return ok && (!n || thread->frames);
}

static bool read_thread(json_t *object, bool waits, struct pyspyd_finding_thread *ret) {
	bool ok = copy_text(true, object, "name", &ret->thread.name);

	ret->thread.tid = (pid_t)json_integer_value(json_object_get(object, "tid"));
	ret->cpu_percent = -1;
	ret->thread.native = json_is_object(json_object_get(object, "native"));
	if (waits)
		ret->waits_for = json_incref(json_object_get(object, "waits_for"));
	ok = copy_text(ok, object, "role", &ret->role);
	return ok && read_stack(json_object_get(object, "stack"), &ret->thread);
}

/* Only evidence of the wait graph has a chain: else "waits_for" is known of the GIL alone. */
static bool read_threads(const json_t *array, struct pyspyd_finding *finding) {
	size_t n = min_of(json_array_size(array), (size_t)LIMIT_THREADS);
	bool waits = json_object_get(finding->evidence, "chain"), ok = true;

	finding->threads = n ? calloc(n, sizeof(*finding->threads)) : NULL;
	finding->threads_n = finding->threads ? n : 0;
	for (size_t i = 0; ok && i < finding->threads_n; i++)
		ok = read_thread(json_array_get(array, i), waits, &finding->threads[i]);
	return ok && (!n || finding->threads);
}

static enum pyspyd_finding_state read_state(const json_t *object) {
	const char *name = json_string_value(json_object_get(object, "state"));

	for (enum pyspyd_finding_state state = PYSPYD_OPEN; name && state <= PYSPYD_RESOLVED; state++)
		if (!strcmp(name, finding_state_name(state)))
			return state;
	return PYSPYD_OPEN;
}

static enum pyspyd_severity read_severity(const json_t *object) {
	const char *name = json_string_value(json_object_get(object, "severity"));

	for (enum pyspyd_severity severity = PYSPYD_INFO; name && severity <= PYSPYD_CRITICAL; severity++)
		if (!strcmp(name, finding_severity_name(severity)))
			return severity;
	return PYSPYD_INFO;
}

/* The text needs no identity and no points in time: these stay empty. */
static bool read_finding(const json_t *object, struct pyspyd_finding *finding) {
	double duration_s = json_number_value(json_object_get(object, "duration_s"));
	bool ok = copy_text(true, object, "kind", &finding->kind);

	finding->state = read_state(object);
	finding->severity = read_severity(object);
	if (duration_s > 0 && duration_s < DURATION_MAX_S)
		finding->duration_ns = (uint64_t)(duration_s * (double)NS_PER_SEC);
	finding->evidence = json_incref(json_object_get(object, "evidence"));
	ok = copy_text(ok, object, "summary", &finding->summary);
	ok = copy_text(ok, object, "advice", &finding->advice);
	ok = ok && read_process(json_object_get(object, "process"), &finding->process);
	return ok && read_threads(json_object_get(object, "threads"), finding);
}

char *pyspyd_finding_text_of_json(const char *json, bool colour) {
	json_t *object = json_loads(json, 0, NULL);
	struct pyspyd_finding *finding = json_is_object(object) ? calloc(1, sizeof(*finding)) : NULL;
	char *text = NULL;

	if (finding && read_finding(object, finding))
		text = pyspyd_finding_text(finding, colour);
	pyspyd_finding_free(finding);
	json_decref(object);
	return text;
}
