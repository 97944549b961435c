/* SPDX-License-Identifier: MIT */
/* JSON of processes, threads and frames, shared by all schemas, and the way from an object to a line.
 *
 * Text comes from targets and may hold anything. Strings are made valid UTF-8 before jansson sees them; in the finished
 * line what could steer a terminal is escaped: such characters stand only inside strings there. */
#include "engine/finding/stack_json.h"

#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include "engine/finding/exceptions.h"
#include "engine/finding/triage_text.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *json_text(const char *s) {
	struct strbuf sb = { 0 };
	json_t *text = NULL;

	if (!s)
		return json_null();
	strbuf_add_utf8(&sb, s, strlen(s));
	if (!sb.failed)
		text = json_stringn_nocheck(strbuf_str(&sb), sb.len);
	strbuf_deinit(&sb);
	return text;
}

json_t *json_real_or_null(double value) {
	return isfinite(value) && value >= 0 ? json_real(round(value * 1000) / 1000) : json_null();
}

json_t *json_count(uint64_t value) {
	return value == UINT64_MAX ? json_null() : json_integer((json_int_t)value);
}

json_t *json_address(uint64_t value) {
	char text[24];

	if (!value)
		return json_null();
	snprintf(text, sizeof(text), "0x%" PRIx64, value);
	return json_string(text);
}

json_t *json_time(uint64_t real_ns) {
	char text[CLOCK_RFC3339_SIZE];

	if (!real_ns)
		return json_null();
	clock_rfc3339(real_ns, text);
	return json_string(text);
}

bool json_put(bool ok, json_t *object, const char *key, json_t *value) {
	return !json_object_set_new_nocheck(object, key, value) && ok;
}

json_t *json_done(bool ok, json_t *object) {
	if (ok)
		return object;
	json_decref(object);
	return NULL;
}

static json_t *local_json(const struct pyspyd_local *local) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "name", json_text(local->name));

	ok = json_put(ok, object, "type", json_text(local->type));
	ok = json_put(ok, object, "value", json_text(local->value));
	ok = json_put(ok, object, "masked", json_boolean(local->masked));
	return json_done(ok, object);
}

static json_t *locals_json(const struct pyspyd_local *locals, size_t n) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < n; i++)
		ok = !json_array_append_new(array, local_json(&locals[i]));
	return json_done(ok, array);
}

static const char *lang_name(enum pyspyd_lang lang) {
	switch (lang) {
	case PYSPYD_PYTHON: return "python";
	case PYSPYD_NATIVE: return "native";
	case PYSPYD_KERNEL: return "kernel";
	}
	return "native";
}

json_t *stack_json_frame(const struct pyspyd_frame *frame) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "lang", json_string(lang_name(frame->lang)));

	ok = json_put(ok, object, "function", json_text(frame->function));
	ok = json_put(ok, object, "qualname", json_text(frame->qualname ? frame->qualname : frame->function));
	ok = json_put(ok, object, "file", json_text(frame->file));
	ok = json_put(ok, object, "line", frame->line > 0 ? json_integer(frame->line) : json_null());
	ok = json_put(ok, object, "module", json_text(frame->module));
	if (frame->inlined)
		ok = json_put(ok, object, "inlined", json_true());
	if (frame->doubt)
		ok = json_put(ok, object, "doubt", json_text(frame->doubt));
	if (frame->locals)
		ok = json_put(ok, object, "locals", locals_json(frame->locals, frame->locals_n));
	return json_done(ok, object);
}

json_t *stack_json_frames(const struct pyspyd_frame *frames, size_t n) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < n; i++)
		ok = !json_array_append_new(array, stack_json_frame(&frames[i]));
	return json_done(ok, array);
}

static json_t *cmdline_json(char *const *cmdline) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (; ok && cmdline && *cmdline; cmdline++)
		ok = !json_array_append_new(array, json_text(*cmdline));
	return json_done(ok, array);
}

json_t *stack_json_process(const struct pyspyd_process *process) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "pid", json_integer(process->pid));

	ok = json_put(ok, object, "start_time", json_time(process->start_real_ns));
	ok = json_put(ok, object, "name", json_text(process->name));
	ok = json_put(ok, object, "cmdline", cmdline_json(process->cmdline));
	ok = json_put(ok, object, "exe", json_text(process->exe));
	ok = json_put(ok, object, "python", json_text(process->python));
	ok = json_put(ok, object, "uid", json_integer(process->uid));
	ok = json_put(ok, object, "cgroup", json_text(process->cgroup));
	ok = json_put(ok, object, "container", json_text(process->container));
	ok = json_put(ok, object, "unit", json_text(process->unit));
	return json_done(ok, object);
}

static json_t *paths_json(char *const *paths, size_t n) {
	json_t *array = json_array();
	bool ok = array != NULL;

	for (size_t i = 0; ok && i < n; i++)
		ok = !json_array_append_new(array, json_text(paths[i]));
	return json_done(ok, array);
}

static json_t *registers_json(const struct pyspyd_core *core) {
	json_t *object = json_object();
	bool ok = object != NULL;

	for (size_t i = 0; ok && i < core->registers_n; i++) {
		char text[24];

		snprintf(text, sizeof(text), "0x%" PRIx64, core->registers[i].value);
		ok = json_put(ok, object, core->registers[i].name, json_string(text));
	}
	return json_done(ok, object);
}

static json_t *fault_json(const struct pyspyd_core *core) {
	char text[24];

	if (!core->has_address)
		return json_null();
	snprintf(text, sizeof(text), "0x%" PRIx64, core->address);
	return json_string(text);
}

json_t *stack_json_core(const struct pyspyd_core *core) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "file", json_text(core->path));

	ok = json_put(ok, object, "tid", core->tid ? json_integer(core->tid) : json_null());
	ok = json_put(ok, object, "signal", core->signal ? json_text(core->signal_name) : json_null());
	ok = json_put(ok, object, "signal_number", core->signal ? json_integer(core->signal) : json_null());
	ok = json_put(ok, object, "code", core->signal ? json_integer(core->code) : json_null());
	ok = json_put(ok, object, "reason", json_text(core->reason));
	ok = json_put(ok, object, "address", fault_json(core));
	ok = json_put(ok, object, "sender", core->has_sender ? json_integer(core->sender) : json_null());
	ok = json_put(ok, object, "sender_uid", core->has_sender ? json_integer(core->sender_uid) : json_null());
	ok = json_put(ok, object, "registers", registers_json(core));
	ok = json_put(ok, object, "truncated", json_boolean(core->bytes < core->expected_bytes));
	ok = json_put(ok, object, "bytes", json_count(core->bytes));
	ok = json_put(ok, object, "expected_bytes", json_count(core->expected_bytes));
	ok = json_put(ok, object, "missing", paths_json(core->missing, core->missing_n));
	ok = json_put(ok, object, "different", paths_json(core->different, core->different_n));
	ok = json_put(ok, object, "unverified", json_count(core->unverified_n));
	ok = json_put(ok, object, "triage", triage_json(core->triage));
	return json_done(ok, object);
}

json_t *stack_json_accuracy(const struct pyspyd_accuracy *accuracy) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "source", json_text(accuracy->source));

	ok = json_put(ok, object, "priority", json_text(accuracy->priority));
	ok = json_put(ok, object, "expected", json_count(accuracy->expected));
	ok = json_put(ok, object, "looks", json_count(accuracy->looks));
	ok = json_put(ok, object, "samples", json_count(accuracy->samples));
	ok = json_put(ok, object, "idle", json_count(accuracy->idle));
	ok = json_put(ok, object, "torn", json_count(accuracy->torn));
	ok = json_put(ok, object, "discarded", json_count(accuracy->discarded));
	ok = json_put(ok, object, "late", json_count(accuracy->late));
	ok = json_put(ok, object, "unreadable", json_count(accuracy->unreadable));
	ok = json_put(ok, object, "truncated", json_count(accuracy->truncated));
	ok = json_put(ok, object, "unknown", json_count(accuracy->unknown));
	return json_done(ok, object);
}

static const char *gil_name(enum pyspyd_gil gil) {
	switch (gil) {
	case PYSPYD_GIL_NONE: return "none";
	case PYSPYD_GIL_HELD: return "held";
	case PYSPYD_GIL_WAITING: return "waiting";
	case PYSPYD_GIL_UNKNOWN: break;
	}
	return "unknown";
}

static json_t *gil_object(void) {
	return json_pack("{s:s}", "kind", "gil");
}

static json_t *holds_json(const struct pyspyd_thread *thread) {
	return thread->gil == PYSPYD_GIL_HELD ? json_pack("[o]", gil_object()) : json_array();
}

static json_t *waits_json(const struct pyspyd_thread *thread) {
	return thread->gil == PYSPYD_GIL_WAITING ? gil_object() : json_object();
}

static json_t *state_json(char state) {
	return state > ' ' && state < 0x7f ? json_stringn(&state, 1) : json_null();
}

json_t *stack_json_native(const char *native_end, bool disagree, uint64_t stopped_ns) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "complete", json_boolean(!native_end));

	ok = json_put(ok, object, "why", json_text(native_end));
	ok = json_put(ok, object, "agrees", json_boolean(!disagree));
	ok = json_put(ok, object, "stopped_us", json_real_or_null((double)stopped_ns / 1e3));
	return json_done(ok, object);
}

json_t *stack_json_thread(const struct pyspyd_thread *thread, const char *role, double cpu_percent) {
	json_t *object = json_object();
	bool ok = json_put(true, object, "tid", thread->tid ? json_integer(thread->tid) : json_null());

	ok = json_put(ok, object, "name", json_text(thread->name));
	ok = json_put(ok, object, "role", json_text(role));
	ok = json_put(ok, object, "state", state_json(thread->state));
	ok = json_put(ok, object, "cpu_percent", json_real_or_null(cpu_percent));
	ok = json_put(ok, object, "holds", holds_json(thread));
	ok = json_put(ok, object, "waits_for", waits_json(thread));
	ok = json_put(ok, object, "stack", stack_json_frames(thread->frames, thread->frames_n));
	ok = json_put(ok, object, "ident", json_integer((json_int_t)thread->ident));
	ok = json_put(ok, object, "gil", json_string(gil_name(thread->gil)));
	ok = json_put(ok, object, "in_gc", json_boolean(thread->in_gc));
	ok = json_put(
		ok, object, "interpreter", thread->interpreter < 0 ? json_null() : json_integer(thread->interpreter));
	ok = json_put(ok, object, "truncated", json_boolean(thread->truncated));
	ok = json_put(ok, object, "incomplete", json_boolean(thread->incomplete));
	if (thread->exceptions_known)
		ok = json_put(ok, object, "exceptions", exceptions_json(thread->exceptions, thread->exceptions_n));
	if (thread->native)
		ok = json_put(ok, object, "native",
			stack_json_native(thread->native_end, thread->disagree, thread->stopped_ns));
	return json_done(ok, object);
}

/* Whether a character that jansson writes raw and a terminal may obey begins here. Return: its length in bytes, or 0.
 */
static size_t steering(const unsigned char *s, uint32_t *ret_c) {
	uint32_t c;

	if (s[0] == 0x7f) {
		*ret_c = 0x7f;
		return 1;
	}
	if (s[0] == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0) {
		*ret_c = s[1];
		return 2;
	}
	if ((s[0] != 0xe2 && s[0] != 0xef) || !s[1] || !s[2])
		return 0;
	c = (s[0] & 0xfU) << 12 | (s[1] & 0x3fU) << 6 | (s[2] & 0x3fU);
	*ret_c = c;
	return c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff
		? 3
		: 0;
}

static char *escape_steering(const char *line) {
	const unsigned char *s = (const unsigned char *)line;
	struct strbuf sb = { 0 };

	while (*s) {
		size_t plain = 0, n = 0;
		uint32_t c;

		while (s[plain] && !(n = steering(s + plain, &c)))
			plain++;
		strbuf_add(&sb, (const char *)s, plain);
		s += plain;
		if (n)
			strbuf_addf(&sb, "\\u%04x", c);
		s += n;
	}
	return strbuf_take(&sb);
}

char *json_line(json_t *object) {
	char *raw, *line;

	if (!object)
		return NULL;
	raw = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(15));
	json_decref(object);
	if (!raw)
		return NULL;
	line = escape_steering(raw);
	free(raw);
	return line;
}
